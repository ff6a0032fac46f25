// SPDX-License-Identifier: GPL-2.0-only
//! How much a guest may have done in one go.
//!
//! The unit is an LPI looked at, or a host command: a few hundred
//! instructions, as are 16 LPIs of which only a property is read. What is left when a budget is spent goes on in
//! [`crate::Domain::work`], with other work of the CPU in between.

/// Commands that one trap executes at most.
pub const COMMANDS_PER_TRAP: u32 = 32;
/// What a command costs that looks at no more than the LPI it names.
pub const COMMAND: u32 = 8;
/// LPIs that one trap looks at, or host commands that it issues, at most; but
/// for the last step, which is one of at most [`crate::env::SLOTS`] LPIs.
pub const TRAP: u32 = COMMANDS_PER_TRAP * COMMAND;

/// What is left to spend.
pub(crate) struct Budget(u32);

impl Budget {
    /// That of one trap.
    pub(crate) const fn trap() -> Self {
        Self(TRAP)
    }

    pub(crate) const fn spend(&mut self, units: u32) {
        self.0 = self.0.saturating_sub(units);
    }

    pub(crate) const fn is_spent(&self) -> bool {
        self.0 == 0
    }

    /// What is left of it.
    pub(crate) const fn left(&self) -> u32 {
        self.0
    }

    /// How many commands it is enough for; at least one.
    pub(crate) fn commands(&self) -> usize {
        usize::try_from(self.0.div_ceil(COMMAND)).unwrap_or(usize::MAX)
    }
}

/// What became of work that may take more than one go.
pub(crate) enum Step<W, R> {
    /// It goes on.
    More(W),
    /// It is done.
    Done(R),
}
