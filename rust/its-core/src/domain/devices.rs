// SPDX-License-Identifier: GPL-2.0-only
//! Devices and their events: what is assigned to the domain, and what the
//! guest maps of it.

use its_arch::{CollectionId, DeviceId, EventBits, EventId, Lpi, VcpuId};

use crate::Error;
use crate::budget::{Budget, Step};
use crate::device::{Device, DeviceKey};
use crate::domain::{Domain, Job};
use crate::env::{Env, Lock};
use crate::host::{Host, HostDevice, Transit, lpis_for};
use crate::redist::Pending;
use crate::vlpi::Entry;

/// A device is mapped or unmapped: first its events are unmapped, then the
/// host is told, if anything changes for it.
pub(crate) struct DeviceJob<E: Env> {
    plan: Plan<E>,
    stage: Stage<E>,
}

/// What a device is to be in the end.
struct Plan<E: Env> {
    key: DeviceKey,
    /// The guest maps it with so many EventID bits; `None`: it unmaps it.
    bits: Option<EventBits>,
    announcements: u32,
    /// What it takes from the guest's allowance of host LPIs.
    charged: u32,
    /// What replaces its mapping on the host, which is too small.
    grown: Option<HostDevice<E>>,
}

/// How far it is.
enum Stage<E: Env> {
    /// Its events are unmapped; those below this one are.
    Events(u32),
    /// It leaves the host. If that is because it could not be kept, why.
    Remove(Transit<E>, Option<Error>),
    /// It is mapped on the host.
    Install(Transit<E>),
    /// That is all.
    End(Result<(), Error>),
}

impl<E: Env> DeviceJob<E> {
    /// Go on. Trap context.
    ///
    /// # Errors
    /// Those of [`Transit::advance`], [`Error::NoMemory`].
    pub(super) fn advance(
        self,
        domain: &Domain<E>,
        host: &Host<E>,
        budget: &mut Budget,
    ) -> Step<Self, Result<(), Error>> {
        let Self { mut plan, mut stage } = self;
        while !budget.is_spent() {
            stage = match stage {
                Stage::Events(from) => match domain.unmap_events(host, plan.key, from, budget) {
                    Some(next) => Stage::Events(next),
                    None => plan.after_events(domain),
                },
                Stage::Remove(transit, why) => match transit.advance(host, budget) {
                    Step::More(rest) => {
                        return Step::More(Self { plan, stage: Stage::Remove(rest, why) });
                    }
                    Step::Done(_) => plan.after_removal(host, why),
                },
                Stage::Install(transit) => match transit.advance(host, budget) {
                    Step::More(rest) => {
                        return Step::More(Self { plan, stage: Stage::Install(rest) });
                    }
                    Step::Done(result) => plan.after_installing(domain, result),
                },
                Stage::End(result) => return Step::Done(result),
            };
        }
        Step::More(Self { plan, stage })
    }
}

impl<E: Env> Plan<E> {
    /// All events are unmapped.
    fn after_events(&mut self, domain: &Domain<E>) -> Stage<E> {
        let mut devices = domain.devices.lock();
        let Some(known) = devices.map.get_mut(self.key) else { return Stage::End(Ok(())) };
        self.announcements = known.announcements;
        if self.grown.is_none() && (self.bits.is_some() || known.announcements != 0) {
            known.mapped = self.bits;
            return Stage::End(Ok(()));
        }
        match devices.remove(self.key) {
            Some(old) => Stage::Remove(Transit::remove(old.host), None),
            None => Stage::End(Ok(())),
        }
    }

    /// It has left the host.
    fn after_removal(&mut self, host: &Host<E>, why: Option<Error>) -> Stage<E> {
        match (why, self.grown.take()) {
            (None, Some(grown)) => Stage::Install(Transit::install(host, grown)),
            (why, _) => Stage::End(why.map_or(Ok(()), Err)),
        }
    }

    /// It is mapped on the host, or could not be.
    fn after_installing(
        &self,
        domain: &Domain<E>,
        result: Result<Option<HostDevice<E>>, Error>,
    ) -> Stage<E> {
        let mut devices = domain.devices.lock();
        let (host, error) = match (result, devices.map.reserve()) {
            (Ok(Some(host)), Ok(())) => {
                let Self { announcements, bits: mapped, charged, .. } = *self;
                // There is room, and nobody else adds devices of this virtual
                // ITS.
                let device = Device { host, announcements, mapped, charged };
                return Stage::End(devices.map.insert(self.key, device));
            }
            (Ok(Some(host)), Err(error)) => (Some(host), error),
            (Ok(None), _) => (None, Error::NotFound),
            (Err(error), _) => (None, error),
        };
        devices.discharge(self.charged);
        match host {
            Some(host) => Stage::Remove(Transit::remove(host), Some(error)),
            None => Stage::End(Err(error)),
        }
    }
}

impl<E: Env> Domain<E> {
    /// Assign a device: map it on the host with `events` events. `vits` is the
    /// virtual ITS, whose host ITS knows the device by the same DeviceID.
    /// Hypercall context; waits for the host ITS.
    ///
    /// # Errors
    /// Those of [`Host::map_device`]. Nothing changes then.
    pub fn add_device(
        &self,
        host: &Host<E>,
        vits: u16,
        device: DeviceId,
        events: u64,
    ) -> Result<(), Error> {
        let its = self.vits.get(usize::from(vits)).ok_or(Error::NotFound)?;
        let key = DeviceKey { vits, device };
        its.between_jobs(self, host, || {
            {
                let mut devices = self.devices.lock();
                if let Some(known) = devices.map.get_mut(key) {
                    // The guest's MAPD may have come first, or another function
                    // with the same DeviceID.
                    known.announcements = known.announcements.saturating_add(1);
                    return Ok(());
                }
                devices.map.reserve()?;
            }
            let new = host.prepare_device(its.host_its(), device, self.config.id, events)?;
            let plan = Plan { key, bits: None, announcements: 1, charged: 0, grown: None };
            self.complete(
                host,
                DeviceJob { plan, stage: Stage::Install(Transit::install(host, new)) },
            )
        })
    }

    /// Take a device away: what the guest mapped of it is unmapped, then the
    /// host's side. Hypercall context.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn remove_device(&self, host: &Host<E>, vits: u16, device: DeviceId) -> Result<(), Error> {
        let its = self.vits.get(usize::from(vits)).ok_or(Error::NotFound)?;
        let key = DeviceKey { vits, device };
        its.between_jobs(self, host, || {
            let mut devices = self.devices.lock();
            let known = devices.map.get_mut(key).ok_or(Error::NotFound)?;
            if known.announcements > 1 {
                known.announcements = known.announcements.saturating_sub(1);
                return Ok(());
            }
            drop(devices);
            self.take_device(key).map_or(Ok(()), |job| self.complete(host, job))
        })
    }

    /// Bring a job to its end. The registers of its virtual ITS are locked.
    fn complete(&self, host: &Host<E>, mut job: DeviceJob<E>) -> Result<(), Error> {
        loop {
            match job.advance(self, host, &mut Budget::unlimited()) {
                Step::More(rest) => job = rest,
                Step::Done(result) => return result,
            }
            E::relax();
        }
    }

    /// Take a device away, whoever announced it.
    fn take_device(&self, key: DeviceKey) -> Option<DeviceJob<E>> {
        let mut devices = self.devices.lock();
        devices.map.get_mut(key)?.announcements = 0;
        drop(devices);
        self.unmap_device(key.vits, key.device)
    }

    /// Take the first device of a virtual ITS away, if there is one. The
    /// domain is dying.
    pub(crate) fn take_next_device(&self, vits: u16) -> Option<Job<E>> {
        let device = self.next_device(vits, DeviceId::new(0))?;
        self.take_device(DeviceKey { vits, device }).map(Job::Device)
    }

    /// The first device of a virtual ITS from `from` on.
    pub(super) fn next_device(&self, vits: u16, from: DeviceId) -> Option<DeviceId> {
        let devices = self.devices.lock();
        let (key, _) = devices.map.next(DeviceKey { vits, device: from })?;
        (key.vits == vits).then_some(key.device)
    }

    /// Number of devices, and of their events.
    pub(crate) fn device_counts(&self) -> (usize, u64) {
        let devices = self.devices.lock();
        let mut events = 0_u64;
        let mut from = DeviceKey { vits: 0, device: DeviceId::new(0) };
        while let Some((key, device)) = devices.map.next(from) {
            events = events.saturating_add(device.host.events().into());
            let Some(next) = key.successor() else { break };
            from = next;
        }
        (devices.map.len(), events)
    }

    /// The first device whose key is `from` or above.
    pub(crate) fn summary(&self, host: &Host<E>, from: DeviceKey) -> Option<Summary> {
        let devices = self.devices.lock();
        let (key, device) = devices.map.next(from)?;
        Some(Summary {
            key,
            events: device.host.events(),
            bits: device.mapped,
            announced: device.announcements != 0,
            mapped: device.host.lpis().filter(|lpi| host.lpis.vlpi(*lpi).is_some()).count(),
        })
    }

    /// The guest maps a device (MAPD V=1): whatever it had mapped of it
    /// before is gone. Trap context; for the hardware domain it may map the
    /// device on the host. The rest is a job.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the device is not the guest's,
    /// [`Error::OutOfRange`] when it has fewer events than the guest wants,
    /// [`Error::NoLpis`] when these are more than it may have; those of
    /// [`Host::prepare_device`]. Nothing changes then.
    pub(crate) fn map_device(
        &self,
        host: &Host<E>,
        vits: u16,
        device: DeviceId,
        bits: EventBits,
    ) -> Result<DeviceJob<E>, Error> {
        let its = self.vits.get(usize::from(vits)).ok_or(Error::NotFound)?.host_its();
        let key = DeviceKey { vits, device };
        let mut devices = self.devices.lock();
        let known = devices.map.get(key).map(|known| known.host.events());
        let mut plan = Plan { key, bits: Some(bits), announcements: 0, charged: 0, grown: None };
        let mut stage = Stage::Events(0);
        if known.is_none_or(|events| u64::from(events) < bits.count()) {
            if !self.config.hardware {
                return Err(if known.is_some() { Error::OutOfRange } else { Error::NotFound });
            }
            // What can fail for want of anything comes before the old mapping
            // goes.
            devices.map.reserve()?;
            plan.charged = lpis_for(bits)?;
            devices.charge(plan.charged)?;
            let new = host
                .prepare_device(its, device, self.config.id, bits.count())
                .inspect_err(|_| devices.discharge(plan.charged))?;
            if known.is_some() {
                plan.grown = Some(new);
            } else {
                stage = Stage::Install(Transit::install(host, new));
            }
        }
        if let Some(known) = devices.map.get_mut(key) {
            // From here on the guest has no use of it.
            known.mapped = None;
        }
        Ok(DeviceJob { plan, stage })
    }

    /// The guest unmaps a device (MAPD V=0). `None` if it has no such device.
    pub(crate) fn unmap_device(&self, vits: u16, device: DeviceId) -> Option<DeviceJob<E>> {
        let key = DeviceKey { vits, device };
        let mut devices = self.devices.lock();
        let known = devices.map.get_mut(key)?;
        known.mapped = None;
        let announcements = known.announcements;
        let plan = Plan { key, bits: None, announcements, charged: 0, grown: None };
        Some(DeviceJob { plan, stage: Stage::Events(0) })
    }

    /// Unmap events of a device from number `from` on. Where to go on, if
    /// there are more.
    fn unmap_events(
        &self,
        host: &Host<E>,
        key: DeviceKey,
        from: u32,
        budget: &mut Budget,
    ) -> Option<u32> {
        let devices = self.devices.lock();
        let known = devices.map.get(key)?;
        let cost = self.lookup_cost().saturating_add(1);
        for event in from..known.host.events() {
            if budget.is_spent() {
                return Some(event);
            }
            budget.spend(cost);
            if let Some(lpi) = known.host.lpi(EventId::new(event)) {
                self.unmap_event(host, lpi);
            }
        }
        None
    }

    /// Disconnect the event behind `host_lpi` from its virtual LPI, and
    /// forget that it is pending. The device map lock is held.
    pub(super) fn unmap_event(&self, host: &Host<E>, host_lpi: Lpi) {
        let Some(vlpi) = host.lpis.vlpi(host_lpi) else { return };
        host.lpis.set_vlpi(host_lpi, None);
        let entry = self.vlpis.get(vlpi);
        let events = entry.events().saturating_sub(1);
        self.vlpis.set(vlpi, if events == 0 { Entry::new() } else { entry.with_events(events) });
        if events == 0 {
            self.take(entry, vlpi, Pending::Drop);
        }
    }

    /// Run `work` on a device that the guest has mapped. `None` if it is not.
    pub(crate) fn with_mapped<R>(
        &self,
        vits: u16,
        device: DeviceId,
        work: impl FnOnce(&Self, MappedDevice<'_, E>) -> R,
    ) -> Option<R> {
        let devices = self.devices.lock();
        let found = devices.map.get(DeviceKey { vits, device })?;
        found.mapped?;
        Some(work(self, MappedDevice { device: found }))
    }

    /// Give an event of a device an LPI and a collection (MAPTI, MAPI). An
    /// event that was mapped is unmapped first.
    ///
    /// # Errors
    /// [`Error::NoMemory`], [`Error::OutOfRange`].
    pub(crate) fn map_event(
        &self,
        host: &Host<E>,
        host_lpi: Lpi,
        vlpi: Lpi,
        vits: u16,
        collection: CollectionId,
    ) -> Result<(), Error> {
        let index = self.collection_index(vits, collection).ok_or(Error::OutOfRange)?;
        self.vlpis.reserve(vlpi)?;
        let entry = self.vlpis.get(vlpi);
        if host.lpis.vlpi(host_lpi) == Some(vlpi) {
            self.move_event(vlpi, index);
        } else {
            let events = entry.events().checked_add(1).ok_or(Error::OutOfRange)?;
            self.unmap_event(host, host_lpi);
            let base = if entry.mapped() { entry } else { Entry::new().with_collection(index) };
            self.vlpis.set(vlpi, base.with_events(events).with_host_lpi(host_lpi.get()));
            self.move_event(vlpi, index);
            // From here on the device's interrupts arrive.
            host.lpis.set_vlpi(host_lpi, Some(vlpi));
        }
        // It may be pending since before it was mapped (GICR_PENDBASER).
        self.invalidate(vlpi);
        Ok(())
    }

    /// The virtual LPI of an event, if it is mapped.
    pub(crate) fn vlpi(&self, host: &Host<E>, host_lpi: Lpi) -> Option<Lpi> {
        host.lpis.vlpi(host_lpi)
    }

    /// The vCPU that a mapped LPI goes to.
    pub(crate) fn lpi_target(&self, lpi: Lpi) -> Option<VcpuId> {
        self.target(self.vlpis.get(lpi))
    }

    /// Move an LPI to a collection; if it is pending, it goes along (MOVI).
    pub(crate) fn move_lpi(&self, lpi: Lpi, vits: u16, collection: CollectionId) {
        if let Some(index) = self.collection_index(vits, collection) {
            self.move_event(lpi, index);
        }
    }

    pub(super) fn move_event(&self, lpi: Lpi, index: u16) {
        let old = self.vlpis.get(lpi);
        let new = old.with_collection(index);
        self.vlpis.set(lpi, new);
        // While its old collection is on its way to another vCPU, it may be
        // pending where neither of them points.
        if self.target(old) != self.target(new) || self.is_draining() {
            self.take(old, lpi, Pending::Keep);
        }
    }

    /// Unmap an event (DISCARD).
    pub(crate) fn discard(&self, host: &Host<E>, host_lpi: Lpi) {
        self.unmap_event(host, host_lpi);
    }
}

/// What there is to say of a device.
pub(crate) struct Summary {
    pub(crate) key: DeviceKey,
    /// Its events on the host.
    pub(crate) events: u32,
    /// The EventID bits of the guest's MAPD.
    pub(crate) bits: Option<EventBits>,
    /// A hypercall announced it.
    pub(crate) announced: bool,
    /// How many of its events are mapped.
    pub(crate) mapped: usize,
}

/// A device that the guest has mapped, while the device map lock is held.
pub(crate) struct MappedDevice<'a, E: Env> {
    device: &'a Device<E>,
}

impl<E: Env> MappedDevice<'_, E> {
    /// The host LPI of `event`; `None` beyond what the guest's MAPD allows.
    pub(crate) fn host_lpi(&self, event: EventId) -> Option<Lpi> {
        self.device.host_lpi(event)
    }
}
