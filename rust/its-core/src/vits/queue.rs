// SPDX-License-Identifier: GPL-2.0-only
//! The guest's command queue (IHI 0069, 5.3).
//!
//! One trap executes at most [`BUDGET`] commands; the rest follows in
//! [`Domain::work`] before the vCPU enters the guest, with other work of the
//! CPU in between, and GITS_CREADR shows how far it is. All of that happens
//! under the virtual ITS's lock, which is released after each batch: a command
//! is executed once and in order, whichever vCPU writes GITS_CWRITER, and a
//! guest that disables the ITS meanwhile finds the rest of the queue as it
//! was.

use its_arch::command::opcode_name;
use its_arch::{COMMAND_SIZE, Command, RawCommand};

use crate::domain::Domain;
use crate::env::{Env, Guest, Level, Lock};
use crate::host::Host;
use crate::line::Line;
use crate::vits::{Registers, Vits};

/// Commands that are executed without a break, if none looks at many LPIs.
pub const BUDGET: u32 = 32;
/// As many LPIs count as one command.
const LPIS_PER_COMMAND: u64 = 256;
/// Commands that are fetched in one go, if they are in one page.
const RUN: u64 = 16;
/// Bytes of those.
const RUN_BYTES: usize = 512;
/// Pages of guest memory, for runs that may not cross one.
const PAGE_SIZE: u64 = 4096;

impl<E: Env> Vits<E> {
    /// Is there a command that can be executed?
    pub(super) fn has_work(registers: &Registers) -> bool {
        registers.enabled
            && !registers.stalled
            && registers.cbaser.valid()
            && registers.creadr != registers.cwriter
    }

    /// Execute a batch of commands. True if there are more.
    pub(super) fn process(
        &self,
        domain: &Domain<E>,
        host: &Host<E>,
        registers: &mut Registers,
    ) -> bool {
        let mut budget = BUDGET;
        while budget != 0 && Self::has_work(registers) {
            let mut bytes = [0_u8; RUN_BYTES];
            let run = Self::run_length(registers).min(budget.into());
            if !self.fetch(domain, registers, run, &mut bytes) {
                self.stall(domain, registers);
                return false;
            }
            let slots = bytes.as_chunks::<32>().0;
            for (_, slot) in (0..run).zip(slots) {
                let raw = RawCommand::from_le_bytes(slot);
                let weight = self.weight(domain, &raw);
                self.execute(domain, host, registers, &raw);
                let next = registers.creadr.saturating_add(COMMAND_SIZE);
                let wrapped = next >= registers.cbaser.size_bytes();
                registers.creadr = if wrapped { 0 } else { next };
                self.publish_creadr(registers);
                budget = budget.saturating_sub(weight);
                if budget == 0 {
                    break;
                }
            }
        }
        Self::has_work(registers)
    }

    /// How much of the budget a command takes: more than one if it looks at
    /// many LPIs, or moves them.
    fn weight(&self, domain: &Domain<E>, raw: &RawCommand) -> u32 {
        let of_collection = |collection| {
            domain.collection(self.index, collection).map_or(0, |vcpu| domain.waiting(vcpu))
        };
        let lpis = match Command::decode(raw) {
            Ok(Command::Mapd { device, size, valid, .. }) => {
                let wanted = if valid { size.count() } else { 0 };
                domain.events(self.index, device).max(wanted)
            }
            Ok(Command::Mapc { collection, .. } | Command::Invall { collection }) => {
                of_collection(collection)
            }
            Ok(Command::Movall { from, .. }) => {
                domain.has_vcpu(from.processor_number()).map_or(0, |vcpu| domain.waiting(vcpu))
            }
            _ => 0,
        };
        u32::try_from(lpis / LPIS_PER_COMMAND).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// How many commands can be fetched together: up to GITS_CWRITER, the
    /// queue's end, or the end of a page.
    fn run_length(registers: &Registers) -> u64 {
        let end = if registers.cwriter > registers.creadr {
            registers.cwriter
        } else {
            registers.cbaser.size_bytes()
        };
        let to_end = end.saturating_sub(registers.creadr);
        let to_page = PAGE_SIZE.saturating_sub(registers.creadr & (PAGE_SIZE - 1));
        (to_end.min(to_page) / COMMAND_SIZE).clamp(1, RUN)
    }

    fn fetch(&self, domain: &Domain<E>, registers: &Registers, run: u64, to: &mut [u8]) -> bool {
        let Some(from) = registers.cbaser.address().checked_add(registers.creadr) else {
            return false;
        };
        let Ok(len) = usize::try_from(run.saturating_mul(COMMAND_SIZE)) else { return false };
        to.get_mut(..len).is_some_and(|to| domain.guest.read(from, to).is_ok())
    }

    /// The queue cannot be read: nothing can be skipped, so stop until the
    /// guest asks for a retry (GITS_CREADR.Stalled, GITS_CWRITER.Retry).
    fn stall(&self, domain: &Domain<E>, registers: &mut Registers) {
        registers.stalled = true;
        self.publish_creadr(registers);
        let line = self
            .prefix(domain)
            .text("command queue is not in RAM, stalled at ")
            .hex(registers.creadr);
        E::log(Level::Guest, line.as_str());
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
        registers: &mut Registers,
        raw: &RawCommand,
    ) {
        let command = match Command::decode(raw) {
            Ok(command) => command,
            Err(unknown) => {
                registers.skipped = registers.skipped.wrapping_add(1);
                let line = self
                    .prefix(domain)
                    .text("unknown command ")
                    .hex(unknown.0.into())
                    .text(" (")
                    .text(opcode_name(unknown.0))
                    .text(") skipped");
                return E::log(Level::Guest, line.as_str());
            }
        };
        match self.run(domain, host, registers, &command) {
            Ok(()) => {
                let number = usize::from(command.opcode().get());
                if let Some(count) = registers.executed.get_mut(number) {
                    *count = count.wrapping_add(1);
                }
            }
            Err(error) => {
                registers.skipped = registers.skipped.wrapping_add(1);
                let [dw0, dw1, dw2, _] = raw.0;
                let line = self
                    .prefix(domain)
                    .text(error.name())
                    .text(" (")
                    .hex(error.number().into())
                    .text("), skipped ")
                    .hex(dw0)
                    .text(" ")
                    .hex(dw1)
                    .text(" ")
                    .hex(dw2);
                E::log(Level::Guest, line.as_str());
            }
        }
    }
}

impl<E: Env> Domain<E> {
    /// Execute commands that are left over from a trap, one batch for each
    /// virtual ITS. True if there are more. Trap context, on the way to the
    /// guest.
    pub fn work(&self, host: &Host<E>) -> bool {
        let mut more = false;
        for vits in self.vits.iter() {
            let mut registers = vits.registers.lock();
            more |= vits.process(self, host, &mut registers);
        }
        more
    }
}
