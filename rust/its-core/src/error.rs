// SPDX-License-Identifier: GPL-2.0-only
//! Errors of the hypervisor's side; a guest's mistakes are
//! [`its_arch::CommandError`]s.

/// Why something that the hypervisor asked for was not done. Whoever gets one
/// finds the state as it was before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No memory.
    NoMemory,
    /// No LPIs left on the host.
    NoLpis,
    /// Beyond what the host ITS, or this domain, can address.
    OutOfRange,
    /// There is no such device, ITS or vCPU.
    NotFound,
    /// It is there already.
    Exists,
    /// The host ITS did not execute a command in time.
    TimedOut,
    /// The host ITS stopped at a command (GITS_CREADR.Stalled).
    Stalled,
    /// The host ITS says that it has executed what it was never given.
    Confused,
    /// Not a legal access to this register.
    BadAccess,
}

impl Error {
    /// It in a few words, for a line of the log.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoMemory => "no memory",
            Self::NoLpis => "no LPIs left",
            Self::OutOfRange => "out of range",
            Self::NotFound => "not found",
            Self::Exists => "exists already",
            Self::TimedOut => "timed out",
            Self::Stalled => "stalled",
            Self::Confused => "impossible GITS_CREADR",
            Self::BadAccess => "bad access",
        }
    }
}
