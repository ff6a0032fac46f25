// SPDX-License-Identifier: GPL-2.0-only
//! Devices and their events: what is assigned to the domain, and what the
//! guest maps of it.

use its_arch::{CollectionId, DeviceId, EventBits, EventId, Lpi, VcpuId};

use crate::Error;
use crate::device::{Device, DeviceKey};
use crate::domain::Domain;
use crate::env::{Env, Lock};
use crate::host::Host;
use crate::redist::Pending;
use crate::vlpi::Entry;

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
        let its = self.vits.get(usize::from(vits)).ok_or(Error::NotFound)?.host_its();
        let key = DeviceKey { vits, device };
        let mut devices = self.devices.lock();
        if let Some(known) = devices.get_mut(key) {
            // The guest's MAPD may have come first, or another function with
            // the same DeviceID.
            known.announcements = known.announcements.saturating_add(1);
            return Ok(());
        }
        devices.reserve()?;
        let mapped = host.map_device(its, device, self.config.id, events)?;
        devices.insert(key, Device { host: mapped, announcements: 1, mapped: None })
    }

    /// Take a device away: what the guest mapped of it is unmapped, then the
    /// host's side. Hypercall context.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn remove_device(&self, host: &Host<E>, vits: u16, device: DeviceId) -> Result<(), Error> {
        let key = DeviceKey { vits, device };
        let mut devices = self.devices.lock();
        let known = devices.get_mut(key).ok_or(Error::NotFound)?;
        if known.announcements > 1 {
            known.announcements = known.announcements.saturating_sub(1);
            return Ok(());
        }
        let gone = devices.remove(key).ok_or(Error::NotFound)?;
        self.unmap_events(host, &gone);
        host.unmap_device(gone.host);
        Ok(())
    }

    /// Take all devices away.
    pub(super) fn remove_all_devices(&self, host: &Host<E>) {
        loop {
            let next = {
                let devices = self.devices.lock();
                devices.next(DeviceKey { vits: 0, device: DeviceId::new(0) }).map(|(key, _)| key)
            };
            let Some(key) = next else { return };
            if self.remove_device(host, key.vits, key.device).is_err() {
                return;
            }
        }
    }

    /// How many events a device has; 0 if it is not the domain's.
    pub(crate) fn events(&self, vits: u16, device: DeviceId) -> u64 {
        let devices = self.devices.lock();
        devices.get(DeviceKey { vits, device }).map_or(0, |known| known.host.events().into())
    }

    /// How many LPIs of a vCPU are pending, and in no slot.
    pub(crate) fn waiting(&self, id: VcpuId) -> u64 {
        let counts = self.redist(id).and_then(|redist| redist.with(|state, _| state.waiting()));
        counts.map_or(0, |(ready, dormant)| u64::from(ready).saturating_add(dormant.into()))
    }

    /// Number of devices, and of their events.
    pub(crate) fn device_counts(&self) -> (usize, u64) {
        let devices = self.devices.lock();
        let mut events = 0_u64;
        let mut from = DeviceKey { vits: 0, device: DeviceId::new(0) };
        while let Some((key, device)) = devices.next(from) {
            events = events.saturating_add(device.host.events().into());
            let Some(next) = key.successor() else { break };
            from = next;
        }
        (devices.len(), events)
    }

    /// Call `each` with every device: virtual ITS, DeviceID, events on the
    /// host, the guest's EventID bits, whether it was announced, how many
    /// events are mapped.
    pub(crate) fn for_each_device(
        &self,
        host: &Host<E>,
        mut each: impl FnMut(u16, DeviceId, u32, Option<EventBits>, bool, u32),
    ) {
        let devices = self.devices.lock();
        let mut from = DeviceKey { vits: 0, device: DeviceId::new(0) };
        while let Some((key, device)) = devices.next(from) {
            let mapped = device.host.lpis().filter(|lpi| host.lpis.vlpi(*lpi).is_some()).count();
            let mapped = u32::try_from(mapped).unwrap_or(u32::MAX);
            each(
                key.vits,
                key.device,
                device.host.events(),
                device.mapped,
                device.announcements != 0,
                mapped,
            );
            let Some(next) = key.successor() else { break };
            from = next;
        }
    }

    /// The guest maps a device (MAPD V=1): whatever it had mapped of it
    /// before is gone. Trap context; for the hardware domain it may map the
    /// device on the host.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the device is not the guest's,
    /// [`Error::OutOfRange`] when it has fewer events than the guest wants;
    /// those of [`Host::map_device`].
    pub(crate) fn map_device(
        &self,
        host: &Host<E>,
        vits: u16,
        device: DeviceId,
        bits: EventBits,
    ) -> Result<(), Error> {
        let its = self.vits.get(usize::from(vits)).ok_or(Error::NotFound)?.host_its();
        let key = DeviceKey { vits, device };
        let mut devices = self.devices.lock();
        match devices.get_mut(key) {
            Some(known) => {
                let too_few = u64::from(known.host.events()) < bits.count();
                if too_few && !self.config.hardware {
                    return Err(Error::OutOfRange);
                }
                if too_few {
                    // The host's side has to grow. What can fail for want of
                    // anything comes before the old mapping goes.
                    let grown = host.prepare_device(its, device, self.config.id, bits.count())?;
                    self.unmap_events(host, known);
                    let announcements = known.announcements;
                    if let Some(old) = devices.remove(key) {
                        host.unmap_device(old.host);
                    }
                    let host = host.install_device(grown)?;
                    return devices.insert(key, Device { host, announcements, mapped: Some(bits) });
                }
                self.unmap_events(host, known);
                known.mapped = Some(bits);
                Ok(())
            }
            None if self.config.hardware => {
                devices.reserve()?;
                let mapped = host.map_device(its, device, self.config.id, bits.count())?;
                let device = Device { host: mapped, announcements: 0, mapped: Some(bits) };
                devices.insert(key, device)
            }
            None => Err(Error::NotFound),
        }
    }

    /// The guest unmaps a device (MAPD V=0). Unmapping one that is not mapped
    /// does nothing.
    pub(crate) fn unmap_device(&self, host: &Host<E>, vits: u16, device: DeviceId) {
        let key = DeviceKey { vits, device };
        let mut devices = self.devices.lock();
        let Some(known) = devices.get_mut(key) else { return };
        self.unmap_events(host, known);
        known.mapped = None;
        if known.announcements == 0
            && let Some(gone) = devices.remove(key)
        {
            host.unmap_device(gone.host);
        }
    }

    /// The guest takes away its device table: none of its devices on this
    /// virtual ITS is mapped any more.
    pub(crate) fn unmap_all_devices(&self, host: &Host<E>, vits: u16) {
        let mut from = DeviceId::new(0);
        loop {
            let next = {
                let devices = self.devices.lock();
                devices.next(DeviceKey { vits, device: from }).map(|(key, _)| key)
            };
            let Some(key) = next.filter(|key| key.vits == vits) else { return };
            self.unmap_device(host, vits, key.device);
            let Some(device) = key.device.get().checked_add(1) else { return };
            from = DeviceId::new(device);
        }
    }

    pub(super) fn unmap_events(&self, host: &Host<E>, device: &Device<E>) {
        for lpi in device.host.lpis() {
            self.unmap_event(host, lpi);
        }
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
        let found = devices.get(DeviceKey { vits, device })?;
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
        if self.target(old) != self.target(new) {
            self.take(old, lpi, Pending::Keep);
        }
    }

    /// Unmap an event (DISCARD).
    pub(crate) fn discard(&self, host: &Host<E>, host_lpi: Lpi) {
        self.unmap_event(host, host_lpi);
    }
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
