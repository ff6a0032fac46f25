// SPDX-License-Identifier: GPL-2.0-only
//! What each ITS command does (IHI 0069, 5.3 and the command descriptions).
//!
//! One function for each command. An error is returned before anything has
//! changed; the command is then skipped.

use its_arch::command::Opcode;
use its_arch::error::{CommandError, Reason};
use its_arch::{CollectionId, Command, DeviceId, EventBits, EventId, Intid, Lpi, Rdbase, VcpuId};

use crate::Error;
use crate::domain::{COLLECTIONS, Domain, Job};
use crate::env::Env;
use crate::host::Host;
use crate::vits::{Registers, Vits};

type Result<T = ()> = core::result::Result<T, CommandError>;

/// One command in execution.
struct Run<'a, E: Env> {
    vits: &'a Vits<E>,
    domain: &'a Domain<E>,
    host: &'a Host<E>,
    registers: &'a Registers<E>,
    opcode: Opcode,
}

impl<E: Env> Vits<E> {
    /// Execute `command`, or begin to: what takes more than one step is left
    /// over.
    pub(super) fn run(
        &self,
        domain: &Domain<E>,
        host: &Host<E>,
        registers: &Registers<E>,
        command: &Command,
    ) -> Result<Option<Job<E>>> {
        let run = Run { vits: self, domain, host, registers, opcode: command.opcode() };
        match *command {
            Command::Mapd { device, size, valid, .. } => return run.mapd(device, size, valid),
            Command::Mapc { collection, rdbase, valid } => {
                return run.mapc(collection, rdbase, valid);
            }
            Command::Movall { from, to } => return run.movall(from, to),
            Command::Invall { collection } => return run.invall(collection),
            Command::Mapti { device, event, intid, collection } => {
                run.mapti(device, event, intid, collection)
            }
            Command::Mapi { device, event, collection } => {
                run.mapti(device, event, Intid::new(event.get()), collection)
            }
            Command::Movi { device, event, collection } => run.movi(device, event, collection),
            Command::Discard { device, event } => run.discard(device, event),
            Command::Clear { device, event } => run.clear(device, event),
            Command::Int { device, event } => run.int(device, event),
            Command::Inv { device, event } => run.inv(device, event),
            Command::Sync { rdbase } => run.sync(rdbase),
        }
        .map(|()| None)
    }
}

/// Why a MAPD failed.
pub(super) fn mapd_reason(error: Error) -> Reason {
    match error {
        // More events than there are LPIs.
        Error::OutOfRange | Error::NoLpis => Reason::IttSizeOutOfRange,
        _ => Reason::DeviceOutOfRange,
    }
}

impl<E: Env> Run<'_, E> {
    fn fail(&self, reason: Reason) -> CommandError {
        CommandError::new(self.opcode, reason)
    }

    fn check(&self, ok: bool, reason: Reason) -> Result {
        if ok { Ok(()) } else { Err(self.fail(reason)) }
    }

    fn device_in_range(&self, device: DeviceId) -> Result {
        self.check(self.vits.device_in_range(self.registers, device), Reason::DeviceOutOfRange)
    }

    fn collection_in_range(&self, collection: CollectionId) -> Result {
        let table = self.registers.collections;
        self.check(
            table.valid()
                && collection.get() < COLLECTIONS
                && u64::from(collection.get()) < table.capacity(),
            Reason::CollectionOutOfRange,
        )
    }

    fn vcpu(&self, rdbase: Rdbase) -> Result<VcpuId> {
        self.domain
            .has_vcpu(rdbase.processor_number())
            .ok_or_else(|| self.fail(Reason::ProcnumOutOfRange))
    }

    /// Run `work` with the host LPI of an event that the guest may use, under
    /// the device map lock.
    fn with_event(
        &self,
        device: DeviceId,
        event: EventId,
        work: impl FnOnce(Lpi) -> Result,
    ) -> Result {
        self.device_in_range(device)?;
        self.domain
            .with_mapped(self.vits.index, device, |_, mapped| {
                let lpi = mapped.host_lpi(event).ok_or_else(|| self.fail(Reason::IdOutOfRange))?;
                work(lpi)
            })
            .unwrap_or_else(|| Err(self.fail(Reason::UnmappedDevice)))
    }

    /// The same for an event that is mapped to a virtual LPI, which `work`
    /// gets too.
    fn with_lpi(
        &self,
        device: DeviceId,
        event: EventId,
        work: impl FnOnce(Lpi, Lpi) -> Result,
    ) -> Result {
        self.with_event(device, event, |host_lpi| {
            let lpi = self.domain.vlpi(self.host, host_lpi);
            let lpi = lpi.ok_or_else(|| self.fail(Reason::UnmappedInterrupt))?;
            work(host_lpi, lpi)
        })
    }

    fn mapd(&self, device: DeviceId, size: EventBits, valid: bool) -> Result<Option<Job<E>>> {
        self.device_in_range(device)?;
        if !valid {
            return Ok(self.domain.unmap_device(self.vits.index, device).map(Job::Device));
        }
        self.check(size <= self.vits.event_bits, Reason::IttSizeOutOfRange)?;
        let job = self.domain.map_device(self.host, self.vits.index, device, size);
        job.map(|job| Some(Job::Device(job))).map_err(|error| self.fail(mapd_reason(error)))
    }

    fn mapc(
        &self,
        collection: CollectionId,
        rdbase: Rdbase,
        valid: bool,
    ) -> Result<Option<Job<E>>> {
        self.collection_in_range(collection)?;
        let vcpu = if valid { Some(self.vcpu(rdbase)?) } else { None };
        Ok(self.domain.map_collection(self.vits.index, collection, vcpu))
    }

    /// MAPTI, and MAPI with the EventID as INTID.
    fn mapti(
        &self,
        device: DeviceId,
        event: EventId,
        intid: Intid,
        collection: CollectionId,
    ) -> Result {
        self.with_event(device, event, |host_lpi| {
            self.collection_in_range(collection)?;
            let lpi = intid.lpi().filter(|_| self.domain.config().id_bits.contains(intid));
            let lpi = lpi.ok_or_else(|| self.fail(Reason::PhysicalIdOutOfRange))?;
            self.domain
                .map_event(self.host, host_lpi, lpi, self.vits.index, collection)
                .map_err(|_| self.fail(Reason::PhysicalIdOutOfRange))
        })
    }

    fn movi(&self, device: DeviceId, event: EventId, collection: CollectionId) -> Result {
        self.with_lpi(device, event, |_, lpi| {
            self.collection_in_range(collection)?;
            self.check(
                self.domain.collection(self.vits.index, collection).is_some(),
                Reason::UnmappedCollection,
            )?;
            self.domain.move_lpi(lpi, self.vits.index, collection);
            Ok(())
        })
    }

    fn movall(&self, from: Rdbase, to: Rdbase) -> Result<Option<Job<E>>> {
        let (from, to) = (self.vcpu(from)?, self.vcpu(to)?);
        Ok(self.domain.move_all(from, to).map(Job::Drain))
    }

    fn discard(&self, device: DeviceId, event: EventId) -> Result {
        self.with_lpi(device, event, |host_lpi, _| {
            self.domain.discard(self.host, host_lpi);
            Ok(())
        })
    }

    fn clear(&self, device: DeviceId, event: EventId) -> Result {
        self.with_lpi(device, event, |_, lpi| {
            self.routed(lpi)?;
            self.domain.clear(lpi);
            Ok(())
        })
    }

    fn int(&self, device: DeviceId, event: EventId) -> Result {
        self.with_lpi(device, event, |_, lpi| {
            self.routed(lpi)?;
            // The guest's own doing: there is no host LPI to mask.
            self.domain.trigger(lpi);
            Ok(())
        })
    }

    fn inv(&self, device: DeviceId, event: EventId) -> Result {
        self.with_lpi(device, event, |_, lpi| {
            self.routed(lpi)?;
            self.domain.invalidate(lpi);
            Ok(())
        })
    }

    /// The LPI's collection is mapped.
    fn routed(&self, lpi: Lpi) -> Result {
        self.check(self.domain.lpi_target(lpi).is_some(), Reason::UnmappedCollection)
    }

    fn invall(&self, collection: CollectionId) -> Result<Option<Job<E>>> {
        self.collection_in_range(collection)?;
        let vcpu = self
            .domain
            .collection(self.vits.index, collection)
            .ok_or_else(|| self.fail(Reason::UnmappedCollection))?;
        Ok(self.domain.refresh(vcpu).map(Job::Refresh))
    }

    /// Commands take effect before the next one is looked at.
    fn sync(&self, rdbase: Rdbase) -> Result {
        self.vcpu(rdbase).map(|_| ())
    }
}
