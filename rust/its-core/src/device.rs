// SPDX-License-Identifier: GPL-2.0-only
//! The devices of a domain: what each is on the host, and whether the guest
//! has mapped it.

use its_arch::{DeviceId, EventBits, EventId};

use crate::Error;
use crate::env::Env;
use crate::host::HostDevice;
use crate::sorted::SortedMap;

/// A device, seen from the guest: a virtual ITS and a DeviceID there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeviceKey {
    /// Index of the virtual ITS.
    pub(crate) vits: u16,
    /// The guest's DeviceID.
    pub(crate) device: DeviceId,
}

impl DeviceKey {
    /// The key right after this one.
    pub(crate) fn successor(self) -> Option<Self> {
        match self.device.get().checked_add(1) {
            Some(device) => Some(Self { device: DeviceId::new(device), ..self }),
            None => Some(Self { vits: self.vits.checked_add(1)?, device: DeviceId::new(0) }),
        }
    }
}

/// A device that is assigned to a domain.
pub(crate) struct Device<E: Env> {
    /// Its mapping on the host ITS, unless that is on its way, or failed.
    pub(crate) host: Option<HostDevice<E>>,
    /// How often hypercalls announced it: functions that share a DeviceID do
    /// so one by one. 0: it came with the hardware domain's MAPD, and goes
    /// with it; or a hypercall has yet to come back for it.
    pub(crate) announcements: u32,
    /// Number of EventID bits of the guest's MAPD; `None`: not mapped.
    pub(crate) mapped: Option<EventBits>,
    /// So many of its host LPIs count against [`Devices::allowance`].
    pub(crate) charged: u32,
}

impl<E: Env> Device<E> {
    /// The host LPI of `event`, if the guest may use that event.
    pub(crate) fn host_lpi(&self, event: EventId) -> Option<its_arch::Lpi> {
        if self.mapped?.contains(event) { self.host.as_ref()?.lpi(event) } else { None }
    }

    /// How many events it has on the host.
    pub(crate) fn events(&self) -> u32 {
        self.host.as_ref().map_or(0, HostDevice::events)
    }
}

/// The devices of a domain. Those of a virtual ITS come and go under its
/// registers' lock.
pub(crate) struct Devices<E: Env> {
    pub(crate) map: SortedMap<DeviceKey, Device<E>, E>,
    /// Host LPIs that MAPD may still take.
    allowance: u32,
}

impl<E: Env> Devices<E> {
    /// No devices.
    pub(crate) const fn new(allowance: u32) -> Self {
        Self { map: SortedMap::new(), allowance }
    }

    /// MAPD takes `lpis` host LPIs.
    ///
    /// # Errors
    /// [`Error::NoLpis`] when these are more than it may have.
    pub(crate) fn charge(&mut self, lpis: u32) -> Result<(), Error> {
        self.allowance = self.allowance.checked_sub(lpis).ok_or(Error::NoLpis)?;
        Ok(())
    }

    /// Undo a [`Self::charge`].
    pub(crate) fn discharge(&mut self, lpis: u32) {
        self.allowance = self.allowance.saturating_add(lpis);
    }

    /// Take a device out.
    pub(crate) fn remove(&mut self, key: DeviceKey) -> Option<Device<E>> {
        let device = self.map.remove(key)?;
        self.discharge(device.charged);
        Some(device)
    }
}
