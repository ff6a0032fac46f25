// SPDX-License-Identifier: GPL-2.0-only
//! The command queue of a host ITS (IHI 0069, 5.3).

use its_arch::gits::Creadr;
use its_arch::{COMMAND_SIZE, Command, RawCommand};

use crate::Error;
use crate::env::{Env, HostHw, Level, Lock};
use crate::line::Line;

/// Longest wait for the hardware to make any progress, in nanoseconds. An
/// implementation takes well under a microsecond a command.
const PATIENCE_NS: u64 = 100_000_000;
/// The share of the slots that is kept free for [`Queue::submit_urgent`].
const RESERVED_SHARE: u64 = 4;
/// Commands that are put in under one lock at most: interrupts are off.
const RUN: u64 = 32;
/// Polls without progress after which the clock is not believed.
const PATIENCE_POLLS: u32 = 10_000_000;

struct State {
    /// Commands put in, since the start.
    submitted: u64,
    /// Commands known to have been executed.
    completed: u64,
    /// The hardware failed, and has not executed anything since: nobody waits
    /// for it again before it does.
    failed: Option<Error>,
}

/// What to wait for: all commands up to one's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// How many of `slots` slots are kept free for commands from interrupt
/// context, which cannot wait for room.
pub const fn reserved(slots: u64) -> u64 {
    slots / RESERVED_SHARE
}

/// The command queue of one host ITS. Commands are put in under its lock;
/// waiting for them polls without it, so that others can put in theirs.
pub struct Queue<E: Env> {
    hw: E::HostHw,
    state: E::IrqLock<State>,
    slots: u64,
}

impl<E: Env> Queue<E> {
    /// The empty queue of `bytes` bytes that GITS_CBASER points at, with
    /// GITS_CWRITER and GITS_CREADR at 0.
    pub(crate) fn new(hw: E::HostHw, bytes: u32) -> Result<Self, Error> {
        let slots = u64::from(bytes).checked_div(COMMAND_SIZE).unwrap_or(0);
        if slots < 2 {
            return Err(Error::OutOfRange);
        }
        Ok(Self {
            hw,
            state: E::IrqLock::new(State { submitted: 0, completed: 0, failed: None }),
            slots,
        })
    }

    /// Byte offset of the slot for command number `number`.
    fn offset(&self, number: u64) -> u64 {
        number.checked_rem(self.slots).unwrap_or(0).saturating_mul(COMMAND_SIZE)
    }

    /// Bring `completed` up to date with GITS_CREADR.
    fn refresh(&self, state: &mut State) -> Result<(), Error> {
        let creadr = Creadr::from(self.hw.creadr());
        let at = creadr.byte_offset().checked_div(COMMAND_SIZE).unwrap_or(0);
        if at >= self.slots {
            return Err(Error::Confused);
        }
        // How far the hardware is past what is known. That cannot be past
        // what was submitted: an ITS that was reset starts over.
        let known = state.completed.checked_rem(self.slots).unwrap_or(0);
        let ahead = at.wrapping_add(self.slots).wrapping_sub(known).checked_rem(self.slots);
        let outstanding = state.submitted.wrapping_sub(state.completed);
        let done = ahead.filter(|done| *done <= outstanding).ok_or(Error::Confused)?;
        state.completed = state.completed.wrapping_add(done);
        // Another CPU may have seen the progress that this one gave up on.
        if done != 0 || done == outstanding {
            state.failed = None;
        }
        if creadr.stalled() && state.completed != state.submitted {
            return Err(Error::Stalled);
        }
        Ok(())
    }

    /// Give up on the hardware: who comes later does not wait for it before
    /// it makes progress.
    fn fail(&self, error: Error) -> Error {
        self.state.lock().failed = Some(error);
        let line = Line::new()
            .text("ITS: host ITS: command queue ")
            .text(error.text())
            .text(", GITS_CREADR ")
            .hex(self.hw.creadr());
        E::log(Level::Error, line.as_str());
        error
    }

    /// Put one command in. When the queue is full, wait for room.
    ///
    /// # Errors
    /// Those of [`Self::try_submit`].
    pub(crate) fn submit(&self, command: &Command) -> Result<Ticket, Error> {
        Self::persist(|patience| self.try_submit(patience, || core::iter::once(command.encode())))
    }

    /// Wait until the hardware has executed everything up to `ticket`.
    ///
    /// # Errors
    /// Those of [`Self::poll`].
    pub(crate) fn wait(&self, ticket: Ticket) -> Result<(), Error> {
        Self::persist(|patience| self.poll(ticket, patience))
    }

    fn persist<R>(
        attempt: impl Fn(&mut Patience<E>) -> Result<Option<R>, Error>,
    ) -> Result<R, Error> {
        let mut patience = Patience::new();
        loop {
            if let Some(result) = attempt(&mut patience)? {
                return Ok(result);
            }
            E::relax();
        }
    }

    /// Put in as many of `commands` as there is room for, up to [`RUN`]; `None`
    /// if there is none yet. Only those that are put in are asked for, with the
    /// lock held. What comes back is for the last one. `patience` is that of all
    /// attempts.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::Stalled`], [`Error::Confused`]; no command
    /// was put in.
    pub(crate) fn try_submit<C: Iterator<Item = RawCommand>>(
        &self,
        patience: &mut Patience<E>,
        commands: impl FnOnce() -> C,
    ) -> Result<Option<Ticket>, Error> {
        let known = {
            let mut state = self.state.lock();
            let limit = self.room().saturating_sub(reserved(self.slots));
            let room = |state: &State| {
                limit.saturating_sub(state.submitted.wrapping_sub(state.completed)).min(RUN)
            };
            let known = if room(&state) == 0 || state.failed.is_some() {
                self.refresh(&mut state)
            } else {
                Ok(())
            };
            if let Some(error) = state.failed {
                return Err(error);
            }
            let room = room(&state);
            if known.is_ok() && room != 0 {
                let room = usize::try_from(room).unwrap_or(usize::MAX);
                self.append(&mut state, commands().take(room));
                return Ok(Some(Ticket(state.submitted)));
            }
            patience.note(state.completed);
            known
        };
        known.and_then(|()| patience.check()).map_err(|error| self.fail(error))?;
        Ok(None)
    }

    /// How many commands can be outstanding. One slot stays empty: a full
    /// queue would look empty.
    fn room(&self) -> u64 {
        self.slots.saturating_sub(1)
    }

    /// Put commands in at once, all or none: they may use the slots in
    /// reserve. `before` is run first, if there is room. False: there is none,
    /// or the hardware has failed. IRQ context.
    pub(crate) fn submit_urgent(&self, commands: &[Command], before: impl FnOnce()) -> bool {
        let mut state = self.state.lock();
        let count = u64::try_from(commands.len()).unwrap_or(u64::MAX);
        let fits = |state: &State| {
            let outstanding = state.submitted.wrapping_sub(state.completed);
            outstanding.saturating_add(count) <= self.room()
        };
        if state.failed.is_some() || !fits(&state) {
            let known = self.refresh(&mut state);
            if known.is_err() || state.failed.is_some() || !fits(&state) {
                return false;
            }
        }
        before();
        self.append(&mut state, commands.iter().map(Command::encode));
        true
    }

    /// There is room for `commands`.
    fn append(&self, state: &mut State, commands: impl Iterator<Item = RawCommand>) {
        let end = self.slots.saturating_mul(COMMAND_SIZE);
        let mut offset = self.offset(state.submitted);
        commands.for_each(|command| {
            self.hw.write_command(offset, &command);
            state.submitted = state.submitted.wrapping_add(1);
            offset = offset.saturating_add(COMMAND_SIZE);
            if offset >= end {
                offset = 0;
            }
        });
        self.hw.set_cwriter(offset);
    }

    /// Has the hardware executed everything up to `ticket`? `None` if not yet.
    /// `patience` is that of all attempts.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::Stalled`], [`Error::Confused`].
    pub(crate) fn poll(
        &self,
        ticket: Ticket,
        patience: &mut Patience<E>,
    ) -> Result<Option<()>, Error> {
        let known = {
            let mut state = self.state.lock();
            let known = self.refresh(&mut state);
            // Numbers wrap after 2^64 commands: compare distances.
            if state.submitted.wrapping_sub(state.completed)
                <= state.submitted.wrapping_sub(ticket.0)
            {
                return Ok(Some(()));
            }
            if let Some(error) = state.failed {
                return Err(error);
            }
            patience.note(state.completed);
            known
        };
        known.and_then(|()| patience.check()).map_err(|error| self.fail(error))?;
        Ok(None)
    }

    /// Commands put in, and commands executed as far as known.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.submitted, state.completed)
    }
}

/// Bounds a wait by the time without progress.
pub(crate) struct Patience<E: Env> {
    last: Option<u64>,
    deadline: u64,
    polls: u32,
    /// The time is up: this is the last look.
    expired: bool,
    env: core::marker::PhantomData<E>,
}

impl<E: Env> Patience<E> {
    pub(crate) fn new() -> Self {
        Self { last: None, deadline: 0, polls: 0, expired: false, env: core::marker::PhantomData }
    }

    /// The hardware has come as far as `completed`.
    fn note(&mut self, completed: u64) {
        if self.last != Some(completed) {
            self.last = Some(completed);
            self.deadline = E::now().saturating_add(PATIENCE_NS);
            self.polls = 0;
            self.expired = false;
        }
    }

    fn check(&mut self) -> Result<(), Error> {
        if self.expired {
            return Err(Error::TimedOut);
        }
        self.polls = self.polls.saturating_add(1);
        // This CPU may have been held up while the hardware went on: look once
        // more before giving up.
        self.expired = E::now() > self.deadline || self.polls > PATIENCE_POLLS;
        Ok(())
    }
}
