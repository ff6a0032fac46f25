// SPDX-License-Identifier: GPL-2.0-only
//! The guest's command queue (IHI 0069, 5.3).
//!
//! One trap executes as many commands as its [`Budget`] allows, and part of
//! the last if that takes long; the rest follows in [`Domain::work`] before the
//! vCPU enters the guest, with other work of the CPU in between, and
//! GITS_CREADR shows how far it is. All of that happens under the virtual
//! ITS's lock, which is released after each batch: a command is executed once
//! and in order, whichever vCPU writes GITS_CWRITER, and a guest that disables
//! the ITS meanwhile finds the rest of the queue as it was.

use its_arch::command::{Opcode, opcode_name};
use its_arch::error::CommandError;
use its_arch::{COMMAND_SIZE, Command, GuestPa, RawCommand};

use crate::Error;
use crate::budget::{Budget, COMMAND, Step};
use crate::device::DeviceKey;
use crate::domain::{DeviceJob, Domain};
use crate::env::{Env, Guest, Lock, Page};
use crate::host::Host;
use crate::line::{Line, complain};
use crate::sync::Ordering;
use crate::vits::exec::mapd_reason;
use crate::vits::{QueuePage, RUN, Registers, Running, Vits};

/// Pages of guest memory, for runs that may not cross one.
const PAGE_SIZE: u64 = 4096;

impl<E: Env> Registers<E> {
    /// Is there anything to do for the guest?
    pub(super) fn has_work(&self) -> bool {
        self.job.is_some()
            || (self.enabled && !self.stalled && self.cbaser.valid() && self.creadr != self.cwriter)
    }

    /// Disabled, and not at work any more (GITS_CTLR.Quiescent).
    pub(super) fn quiescent(&self) -> bool {
        !self.enabled && self.job.is_none()
    }
}

impl<E: Env> Vits<E> {
    /// Execute as many commands as there is a budget for. True if there are
    /// more.
    pub(super) fn process(
        &self,
        domain: &Domain<E>,
        host: &Host<E>,
        registers: &mut Registers<E>,
        budget: &mut Budget,
    ) -> bool {
        let more = self.batch(domain, host, registers, budget);
        self.show_ctlr(registers);
        more
    }

    fn batch(
        &self,
        domain: &Domain<E>,
        host: &Host<E>,
        registers: &mut Registers<E>,
        budget: &mut Budget,
    ) -> bool {
        loop {
            if !self.finish_job(domain, host, registers, budget) {
                return true;
            }
            if budget.is_spent() || !registers.has_work() {
                return registers.has_work();
            }
            let run = Self::run_length(registers).min(budget.commands());
            if !Self::fetch(domain, registers, run) {
                self.stall(domain, registers);
                return false;
            }
            for slot in 0..run {
                let Some(raw) = registers.fetched.get(slot) else { break };
                let raw = RawCommand(*raw);
                self.execute(domain, host, registers, &raw);
                budget.spend(COMMAND.saturating_add(domain.lookup_cost()));
                if !self.finish_job(domain, host, registers, budget) {
                    return true;
                }
                if budget.is_spent() {
                    break;
                }
            }
        }
    }

    /// Go on with what a hypercall has begun. False if it is not done.
    ///
    /// # Errors
    /// Those of [`DeviceJob::advance`]; it is done.
    fn finish_assignment(
        domain: &Domain<E>,
        host: &Host<E>,
        registers: &mut Registers<E>,
        budget: &mut Budget,
    ) -> Result<bool, Error> {
        let Some(job) = registers.assignment.take() else { return Ok(true) };
        match job.advance(domain, host, budget) {
            Step::More(rest) => {
                registers.assignment = Some(rest);
                Ok(false)
            }
            Step::Done(result) => result.map(|()| true),
        }
    }

    /// Go on with what is in progress. False if it is not done.
    #[inline]
    fn finish_job(
        &self,
        domain: &Domain<E>,
        host: &Host<E>,
        registers: &mut Registers<E>,
        budget: &mut Budget,
    ) -> bool {
        let none = registers.assignment.is_none() && registers.job.is_none();
        none || self.advance_job(domain, host, registers, budget)
    }

    #[inline(never)]
    fn advance_job(
        &self,
        domain: &Domain<E>,
        host: &Host<E>,
        registers: &mut Registers<E>,
        budget: &mut Budget,
    ) -> bool {
        // If that fails, the hypercall finds out when it comes again.
        if registers.assignment.is_some()
            && Self::finish_assignment(domain, host, registers, budget) == Ok(false)
        {
            return false;
        }
        let Some(Running { job, command }) = registers.job.take() else { return true };
        let result = match job.advance(domain, host, budget) {
            Step::More(job) => {
                registers.job = Some(Running { job, command });
                return false;
            }
            Step::Done(result) => result,
        };
        if let Some((opcode, raw)) = command {
            let result = result.map_err(|error| CommandError::new(opcode, mapd_reason(error)));
            self.executed(domain, registers, opcode, &raw, result);
        }
        self.show_ctlr(registers);
        true
    }

    /// A hypercall adds or removes the device `key`. Whenever nothing is in
    /// progress, `begin` is asked for a job, until it has none. True: that has
    /// not come about yet. Hypercall context.
    ///
    /// # Errors
    /// Those of `begin` and of the job.
    pub(crate) fn assign(
        &self,
        domain: &Domain<E>,
        host: &Host<E>,
        key: DeviceKey,
        mut begin: impl FnMut() -> Result<Option<DeviceJob<E>>, Error>,
    ) -> Result<bool, Error> {
        let mut registers = self.registers.lock();
        let mut budget = Budget::trap();
        loop {
            let own = registers.assignment.as_ref().is_some_and(|job| job.key() == key);
            let done = Self::finish_assignment(domain, host, &mut registers, &mut budget);
            if !done.or_else(|error| if own { Err(error) } else { Ok(true) })?
                || !self.finish_job(domain, host, &mut registers, &mut budget)
            {
                return Ok(true);
            }
            registers.assignment = begin()?;
            if registers.assignment.is_none() {
                return Ok(false);
            }
        }
    }

    /// The domain is dying: finish what is in progress, and take its devices
    /// away. True if there is more to do.
    pub(crate) fn relinquish(
        &self,
        domain: &Domain<E>,
        host: &Host<E>,
        budget: &mut Budget,
    ) -> bool {
        let mut registers = self.registers.lock();
        loop {
            if !self.finish_job(domain, host, &mut registers, budget) {
                return true;
            }
            match domain.take_next_device(self.index) {
                Some(job) => registers.assignment = Some(job),
                None => {
                    registers.page = None;
                    return false;
                }
            }
        }
    }

    /// How many commands can be fetched together: up to GITS_CWRITER, the
    /// queue's end, or the end of a page.
    fn run_length(registers: &Registers<E>) -> usize {
        let end = if registers.cwriter > registers.creadr {
            registers.cwriter
        } else {
            registers.cbaser.size_bytes()
        };
        let to_end = end.saturating_sub(registers.creadr);
        let to_page = PAGE_SIZE.saturating_sub(registers.creadr & (PAGE_SIZE - 1));
        let slots = usize::try_from(to_end.min(to_page) / COMMAND_SIZE);
        slots.unwrap_or(RUN).clamp(1, RUN)
    }

    /// The next `run` commands. False if they are not in RAM.
    fn fetch(domain: &Domain<E>, registers: &mut Registers<E>, run: usize) -> bool {
        let Some(from) = registers.cbaser.address().checked_add(registers.creadr) else {
            return false;
        };
        let offset = from.get() & (PAGE_SIZE - 1);
        let at = from.get() ^ offset;
        let page = match registers.page.take() {
            Some(known) if known.at == at => known,
            // Given back before another one is taken.
            other => {
                drop(other);
                match domain.guest.pin(GuestPa::new(at)) {
                    Ok(page) => QueuePage { at, page },
                    Err(_) => return false,
                }
            }
        };
        if let (Ok(offset), Some(to)) = (usize::try_from(offset), registers.fetched.get_mut(..run))
        {
            page.page.read(offset, to.as_flattened_mut());
        }
        registers.page = Some(page);
        true
    }

    /// The queue cannot be read: nothing can be skipped, so stop until the
    /// guest asks for a retry (GITS_CREADR.Stalled, GITS_CWRITER.Retry).
    fn stall(&self, domain: &Domain<E>, registers: &mut Registers<E>) {
        registers.stalled = true;
        self.show_creadr(registers);
        complain::<E>(|| {
            self.prefix(domain)
                .text("command queue is not in RAM, stalled at ")
                .hex(registers.creadr)
        });
    }

    fn prefix(&self, domain: &Domain<E>) -> Line {
        Line::new()
            .text("ITS: d")
            .dec(domain.config.id.into())
            .text(" vITS")
            .dec(self.index.into())
            .text(": ")
    }

    fn execute(
        &self,
        domain: &Domain<E>,
        host: &Host<E>,
        registers: &mut Registers<E>,
        raw: &RawCommand,
    ) {
        let command = match Command::decode(raw) {
            Ok(command) => command,
            Err(unknown) => {
                registers.skipped = registers.skipped.wrapping_add(1);
                complain::<E>(|| {
                    self.prefix(domain)
                        .text("unknown command ")
                        .hex(unknown.0.into())
                        .text(" (")
                        .text(opcode_name(unknown.0))
                        .text(") skipped")
                });
                return self.next_command(registers);
            }
        };
        let opcode = command.opcode();
        match self.run(domain, host, registers, &command) {
            Ok(Some(job)) => {
                registers.job = Some(Running { job, command: Some((opcode, *raw)) });
            }
            Ok(None) => self.executed(domain, registers, opcode, raw, Ok(())),
            Err(error) => self.executed(domain, registers, opcode, raw, Err(error)),
        }
    }

    /// The command that GITS_CREADR is at has been executed, or skipped.
    fn executed(
        &self,
        domain: &Domain<E>,
        registers: &mut Registers<E>,
        opcode: Opcode,
        raw: &RawCommand,
        result: Result<(), CommandError>,
    ) {
        if let Err(error) = result {
            registers.skipped = registers.skipped.wrapping_add(1);
            let [dw0, dw1, dw2, _] = raw.0;
            complain::<E>(|| {
                self.prefix(domain)
                    .text(error.name())
                    .text(" (")
                    .hex(error.number().into())
                    .text("), skipped ")
                    .hex(dw0)
                    .text(" ")
                    .hex(dw1)
                    .text(" ")
                    .hex(dw2)
            });
        } else if let Some(count) = registers.executed.get_mut(usize::from(opcode.get())) {
            *count = count.wrapping_add(1);
        }
        self.next_command(registers);
    }

    fn next_command(&self, registers: &mut Registers<E>) {
        let next = registers.creadr.saturating_add(COMMAND_SIZE);
        let wrapped = next >= registers.cbaser.size_bytes();
        registers.creadr = if wrapped { 0 } else { next };
        self.show_creadr(registers);
    }
}

impl<E: Env> Domain<E> {
    /// Go on with what is left over from a trap: one batch for all virtual
    /// ITSes, and one for the redistributors. True if there is more. Trap
    /// context, on the way to the guest.
    pub fn work(&self, host: &Host<E>) -> bool {
        let mut budget = Budget::trap();
        let mut more = false;
        // Each is the first in turn: one that is kept busy does not use up
        // the budget of the others.
        let turn = usize::try_from(self.turn.fetch_add(1, Ordering::Relaxed)).unwrap_or(0);
        let first = turn.checked_rem(self.vits.len()).unwrap_or(0);
        for vits in self.vits.iter().cycle().skip(first).take(self.vits.len()) {
            let mut registers = vits.registers.lock();
            more |= vits.process(self, host, &mut registers, &mut budget);
        }
        let more = self.work_on_redists() || more;
        self.look_again();
        more
    }
}
