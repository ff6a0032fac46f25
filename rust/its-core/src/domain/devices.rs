// SPDX-License-Identifier: GPL-2.0-only
//! Devices and their events: what is assigned to the domain, and what the
//! guest maps of it.

use its_arch::{CollectionId, DeviceId, EventBits, EventId, Lpi, VcpuId};

use crate::Error;
use crate::budget::{Budget, Step};
use crate::device::{Device, DeviceKey, Devices};
use crate::domain::Domain;
use crate::env::{Env, Lock};
use crate::host::lpi::BLOCK;
use crate::host::{Host, HostDevice, Preparation, Transit, lpis_for};
use crate::redist::Pending;
use crate::vlpi::Entry;

/// A device is mapped or unmapped: what takes memory comes first, then its
/// events are unmapped, then the host is told; as far as that changes
/// anything. It is in the map of devices all that time.
pub(crate) struct DeviceJob<E: Env> {
    plan: Plan<E>,
    stage: Stage<E>,
}

/// What a device is to be in the end.
struct Plan<E: Env> {
    key: DeviceKey,
    /// The guest maps it with so many EventID bits; `None`: it does not.
    bits: Option<EventBits>,
    /// What it takes from the guest's allowance of host LPIs.
    charged: u32,
    /// What replaces its mapping on the host, if there is one.
    new: Option<HostDevice<E>>,
}

/// How far it is.
enum Stage<E: Env> {
    /// What it takes to map it on the host is gathered. It is as it was.
    Prepare(Preparation),
    /// Its events are unmapped; those below this one are.
    Events(u32),
    /// It leaves the host.
    Remove(Transit<E>),
    /// It is mapped on the host.
    Install(Transit<E>),
    /// That is all.
    End(Result<(), Error>),
}

impl<E: Env> DeviceJob<E> {
    /// The device.
    pub(crate) const fn key(&self) -> DeviceKey {
        self.plan.key
    }

    /// Go on. Trap context.
    ///
    /// # Errors
    /// Those of [`Preparation::advance`] and of [`Transit::advance`].
    pub(crate) fn advance(
        self,
        domain: &Domain<E>,
        host: &Host<E>,
        budget: &mut Budget,
    ) -> Step<Self, Result<(), Error>> {
        let Self { mut plan, mut stage } = self;
        while !budget.is_spent() {
            stage = match stage {
                Stage::Prepare(preparation) => match preparation.advance(host, budget) {
                    Step::More(rest) => Stage::Prepare(rest),
                    Step::Done(result) => {
                        budget.spend(domain.room_cost());
                        plan.after_preparing(domain, result)
                    }
                },
                Stage::Events(from) => match domain.unmap_events(host, plan.key, from, budget) {
                    Some(next) => Stage::Events(next),
                    None => plan.after_events(domain, host),
                },
                Stage::Remove(transit) => match transit.advance(host, budget) {
                    Step::More(rest) => {
                        return Step::More(Self { plan, stage: Stage::Remove(rest) });
                    }
                    Step::Done(_) => {
                        budget.spend(domain.room_cost());
                        plan.install(host)
                    }
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
    /// All that can fail for want of anything has been got, or not.
    fn after_preparing(
        &mut self,
        domain: &Domain<E>,
        result: Result<HostDevice<E>, Error>,
    ) -> Stage<E> {
        match result {
            Ok(new) => {
                self.new = Some(new);
                domain.begin_unmapping(self.key);
                Stage::Events(0)
            }
            Err(error) => self.fail(domain, error),
        }
    }

    /// All events are unmapped.
    fn after_events(&mut self, domain: &Domain<E>, host: &Host<E>) -> Stage<E> {
        let mut devices = domain.devices.lock();
        let Some(known) = devices.map.get_mut(self.key) else { return Stage::End(Ok(())) };
        let old = if self.new.is_some() {
            let charged = core::mem::take(&mut known.charged);
            let old = known.host.take();
            devices.discharge(charged);
            old
        } else if self.bits.is_some() || known.announcements != 0 {
            known.mapped = self.bits;
            return Stage::End(Ok(()));
        } else {
            devices.remove(self.key).and_then(|known| known.host)
        };
        drop(devices);
        match old {
            Some(old) => Stage::Remove(Transit::remove(old)),
            None => self.install(host),
        }
    }

    /// Nothing of it is on the host.
    fn install(&mut self, host: &Host<E>) -> Stage<E> {
        match self.new.take() {
            Some(new) => Stage::Install(Transit::install(host, new)),
            None => Stage::End(Ok(())),
        }
    }

    /// It is mapped on the host, or could not be.
    fn after_installing(
        &self,
        domain: &Domain<E>,
        result: Result<Option<HostDevice<E>>, Error>,
    ) -> Stage<E> {
        let new = match result.and_then(|new| new.ok_or(Error::NotFound)) {
            Ok(new) => new,
            Err(error) => return self.fail(domain, error),
        };
        if let Some(known) = domain.devices.lock().map.get_mut(self.key) {
            known.host = Some(new);
            known.mapped = self.bits;
            known.charged = self.charged;
        }
        Stage::End(Ok(()))
    }

    /// It could not be mapped on the host. One that was announced stays known.
    fn fail(&self, domain: &Domain<E>, error: Error) -> Stage<E> {
        let mut devices = domain.devices.lock();
        devices.discharge(self.charged);
        let unknown = |known: &Device<E>| known.host.is_none() && known.announcements == 0;
        if devices.map.get(self.key).is_some_and(unknown) {
            let _nothing = devices.remove(self.key);
        }
        Stage::End(Err(error))
    }
}

impl<E: Env> Domain<E> {
    /// Assign a device: map it on the host with `events` events. `vits` is the
    /// virtual ITS, whose host ITS knows the device by the same DeviceID.
    /// Hypercall context. True: it is not assigned yet; call it again. Nothing
    /// is lost if nobody does.
    ///
    /// # Errors
    /// Those of [`DeviceJob::advance`] and [`Host::prepare_device`]. Nothing
    /// changes then.
    pub fn add_device(
        &self,
        host: &Host<E>,
        vits: u16,
        device: DeviceId,
        events: u64,
    ) -> Result<bool, Error> {
        let its = self.vits.get(usize::from(vits)).ok_or(Error::NotFound)?;
        let key = DeviceKey { vits, device };
        its.assign(self, host, key, || {
            // It may be mapped since an earlier call, or by the guest's MAPD, or
            // for another function with the same DeviceID.
            let mut devices = self.devices.lock();
            let known = devices.map.get_mut(key).filter(|known| known.host.is_some());
            if let Some(known) = known {
                known.announcements = known.announcements.saturating_add(1);
                return Ok(None);
            }
            self.prepare(&mut devices, host, key, events, None, 0).map(Some)
        })
    }

    /// Take a device away: what the guest mapped of it is unmapped, then the
    /// host's side. Hypercall context. True: it has not begun yet, call it
    /// again; false: [`Self::work`] does the rest.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it was not announced.
    pub fn remove_device(
        &self,
        host: &Host<E>,
        vits: u16,
        device: DeviceId,
    ) -> Result<bool, Error> {
        let its = self.vits.get(usize::from(vits)).ok_or(Error::NotFound)?;
        let key = DeviceKey { vits, device };
        let mut withdrawn = false;
        let more = its.assign(self, host, key, || {
            if withdrawn {
                return Ok(None);
            }
            let mut devices = self.devices.lock();
            let known = devices.map.get_mut(key).ok_or(Error::NotFound)?;
            known.announcements = known.announcements.checked_sub(1).ok_or(Error::NotFound)?;
            withdrawn = true;
            if known.announcements != 0 {
                return Ok(None);
            }
            drop(devices);
            Ok(self.unmap_device(vits, device))
        })?;
        Ok(more && !withdrawn)
    }

    /// Begin to map a device on the host: as one that is new, or with more
    /// events.
    fn prepare(
        &self,
        devices: &mut Devices<E>,
        host: &Host<E>,
        key: DeviceKey,
        events: u64,
        bits: Option<EventBits>,
        charged: u32,
    ) -> Result<DeviceJob<E>, Error> {
        let its = self.vits.get(usize::from(key.vits)).ok_or(Error::NotFound)?.host_its();
        let is_new = devices.map.get(key).is_none();
        if is_new {
            devices.map.reserve(key)?;
        }
        devices.charge(charged)?;
        let preparation = host
            .prepare_device(its, key.device, self.config.id, events)
            .inspect_err(|_| devices.discharge(charged))?;
        if is_new {
            // There is room.
            let device = Device { host: None, announcements: 0, mapped: None, charged: 0 };
            devices.map.insert(key, device)?;
        }
        let plan = Plan { key, bits, charged, new: None };
        Ok(DeviceJob { plan, stage: Stage::Prepare(preparation) })
    }

    /// What it costs to add a device to the map, or to take it out: others are
    /// moved aside.
    fn room_cost(&self) -> u32 {
        u32::try_from(self.devices.lock().map.moves() / 16).unwrap_or(u32::MAX)
    }

    /// From here on the guest has no use of a device.
    fn begin_unmapping(&self, key: DeviceKey) {
        if let Some(known) = self.devices.lock().map.get_mut(key) {
            known.mapped = None;
        }
    }

    /// Take the first device of a virtual ITS away, if there is one. The
    /// domain is dying.
    pub(crate) fn take_next_device(&self, vits: u16) -> Option<DeviceJob<E>> {
        let device = self.next_device(vits, DeviceId::new(0))?;
        let mut devices = self.devices.lock();
        devices.map.get_mut(DeviceKey { vits, device })?.announcements = 0;
        drop(devices);
        self.unmap_device(vits, device)
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
            events = events.saturating_add(device.events().into());
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
            events: device.events(),
            bits: device.mapped,
            announced: device.announcements != 0,
            mapped: (device.host.iter())
                .flat_map(HostDevice::lpis)
                .filter(|lpi| host.lpis.vlpi(*lpi).is_some())
                .count(),
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
        let key = DeviceKey { vits, device };
        let mut devices = self.devices.lock();
        let known = devices.map.get_mut(key);
        let events = known.as_ref().map_or(0, |known| known.events());
        if u64::from(events) >= bits.count() {
            if let Some(known) = known {
                known.mapped = None;
            }
            let plan = Plan { key, bits: Some(bits), charged: 0, new: None };
            return Ok(DeviceJob { plan, stage: Stage::Events(0) });
        }
        if !self.config.hardware {
            return Err(if known.is_some() { Error::OutOfRange } else { Error::NotFound });
        }
        self.prepare(&mut devices, host, key, bits.count(), Some(bits), lpis_for(bits)?)
    }

    /// The guest unmaps a device (MAPD V=0). `None` if it has no such device.
    pub(crate) fn unmap_device(&self, vits: u16, device: DeviceId) -> Option<DeviceJob<E>> {
        let key = DeviceKey { vits, device };
        self.devices.lock().map.get_mut(key)?.mapped = None;
        let plan = Plan { key, bits: None, charged: 0, new: None };
        Some(DeviceJob { plan, stage: Stage::Events(0) })
    }

    /// Unmap events of a device from number `from` on, a block at a time. Where
    /// to go on, if there are more.
    fn unmap_events(
        &self,
        host: &Host<E>,
        key: DeviceKey,
        from: u32,
        budget: &mut Budget,
    ) -> Option<u32> {
        let devices = self.devices.lock();
        let known = devices.map.get(key)?.host.as_ref()?;
        let cost = self.lookup_cost().saturating_add(1);
        let mut block = from;
        while block < known.events() {
            if budget.is_spent() {
                return Some(block);
            }
            budget.spend(1);
            let mut mapped = host.lpis.mapped_in_block(&known.lpis, block);
            while mapped != 0 {
                if budget.is_spent() {
                    return Some(block);
                }
                budget.spend(cost);
                if let Some(lpi) = known.lpi(EventId::new(block | mapped.trailing_zeros())) {
                    self.unmap_event(host, lpi);
                }
                mapped &= mapped.wrapping_sub(1);
            }
            block = block.saturating_add(BLOCK);
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
