// SPDX-License-Identifier: GPL-2.0-only
//! What a virtual ITS does, in the plainest way: maps, sets, and no care for
//! speed, locks or list registers.
//!
//! An LPI is pending on a vCPU or not. What its-core does must look the same
//! to the guest whenever the vCPUs have noticed everything.

use std::collections::{BTreeMap, BTreeSet};

use its_arch::error::{CommandError, Reason};
use its_arch::{CollectionId, Command, DeviceId, EventId, Intid};

/// What an event is mapped to.
type Translations = BTreeMap<(u32, u32), u32>;

/// The reference model of a hardware domain with one virtual ITS, whose
/// vCPUs all have LPIs enabled.
#[derive(Clone, Debug)]
pub struct Reference {
    /// vCPUs.
    pub vcpus: u16,
    /// INTID bits.
    pub id_bits: u8,
    /// EventID bits of the ITS.
    pub event_bits: u8,
    /// DeviceIDs that the guest's table has room for.
    pub devices_limit: u64,
    /// EventID bits of each mapped device.
    devices: BTreeMap<u32, u8>,
    /// LPI of each mapped event.
    events: Translations,
    /// Collection of each mapped LPI.
    lpis: BTreeMap<u32, u16>,
    /// vCPU of each mapped collection.
    collections: BTreeMap<u16, u16>,
    /// vCPU that each collection was last mapped to. LPIs of an unmapped one
    /// stay pending there until it is mapped again.
    homes: BTreeMap<u16, u16>,
    /// Pending LPIs, by vCPU.
    pending: BTreeSet<(u16, u32)>,
    /// Enabled LPIs.
    enabled: BTreeSet<u32>,
}

/// The collections of an ITS.
const COLLECTIONS: u16 = 256;

impl Reference {
    /// Nothing is mapped, pending or enabled.
    #[must_use]
    pub fn new(vcpus: u16, id_bits: u8, event_bits: u8, devices_limit: u64) -> Self {
        Self {
            vcpus,
            id_bits,
            event_bits,
            devices_limit,
            devices: BTreeMap::new(),
            events: BTreeMap::new(),
            lpis: BTreeMap::new(),
            collections: BTreeMap::new(),
            homes: BTreeMap::new(),
            pending: BTreeSet::new(),
            enabled: BTreeSet::new(),
        }
    }

    /// The vCPU that an LPI is mapped to.
    #[must_use]
    pub fn target(&self, lpi: u32) -> Option<u16> {
        self.collections.get(self.lpis.get(&lpi)?).copied()
    }

    /// Is a collection mapped to a vCPU?
    #[must_use]
    pub fn is_mapped(&self, collection: CollectionId) -> bool {
        self.collections.contains_key(&collection.get())
    }

    /// LPIs that are pending and enabled on a vCPU.
    #[must_use]
    pub fn deliverable(&self, vcpu: u16) -> BTreeSet<u32> {
        let here = self.pending.iter().filter(|(at, _)| *at == vcpu).map(|(_, lpi)| *lpi);
        here.filter(|lpi| self.enabled.contains(lpi)).collect()
    }

    /// The guest took an LPI on a vCPU.
    pub fn take(&mut self, vcpu: u16, lpi: u32) {
        self.pending.remove(&(vcpu, lpi));
    }

    /// The LPI that an event is mapped to.
    #[must_use]
    pub fn lpi_of(&self, device: u32, event: u32) -> Option<u32> {
        self.events.get(&(device, event)).copied()
    }

    /// A device raises an event.
    pub fn fire(&mut self, device: u32, event: u32) {
        if let Some(lpi) = self.events.get(&(device, event)).copied()
            && let Some(vcpu) = self.target(lpi)
        {
            self.pending.insert((vcpu, lpi));
        }
    }

    /// The guest enables or disables an LPI, and has all redistributors look
    /// at it. It stays pending where it is.
    pub fn set_enabled(&mut self, lpi: u32, enabled: bool) {
        if enabled {
            self.enabled.insert(lpi);
        } else {
            self.enabled.remove(&lpi);
        }
    }

    fn move_pending(&mut self, lpi: u32, to: u16) {
        let before = self.pending.len();
        self.pending.retain(|(_, pending)| *pending != lpi);
        if self.pending.len() != before {
            self.pending.insert((to, lpi));
        }
    }

    fn unmap_event(&mut self, device: u32, event: u32) {
        if let Some(lpi) = self.events.remove(&(device, event))
            && !self.events.values().any(|other| *other == lpi)
        {
            self.lpis.remove(&lpi);
            self.pending.retain(|(_, pending)| *pending != lpi);
        }
    }

    fn unmap_device(&mut self, device: u32) {
        let events: Vec<_> = self.events.range((device, 0)..=(device, u32::MAX)).collect();
        for event in events.into_iter().map(|((_, event), _)| *event).collect::<Vec<_>>() {
            self.unmap_event(device, event);
        }
        self.devices.remove(&device);
    }

    /// Give an LPI another collection.
    fn set_collection(&mut self, lpi: u32, collection: u16) {
        let old = self.target(lpi);
        self.lpis.insert(lpi, collection);
        if let Some(new) = self.target(lpi)
            && old != Some(new)
        {
            self.move_pending(lpi, new);
        }
    }

    /// What is wrong with the event of a command, or the LPI that it is
    /// mapped to, if it is.
    fn look_up(&self, device: DeviceId, event: EventId) -> Result<Option<u32>, Reason> {
        self.check_device(device)?;
        let bits = self.devices.get(&device.get()).ok_or(Reason::UnmappedDevice)?;
        if u64::from(event.get()) >> bits != 0 {
            return Err(Reason::IdOutOfRange);
        }
        Ok(self.events.get(&(device.get(), event.get())).copied())
    }

    fn mapped(&self, device: DeviceId, event: EventId) -> Result<u32, Reason> {
        self.look_up(device, event)?.ok_or(Reason::UnmappedInterrupt)
    }

    fn routed(&self, device: DeviceId, event: EventId) -> Result<(u32, u16), Reason> {
        let lpi = self.mapped(device, event)?;
        Ok((lpi, self.target(lpi).ok_or(Reason::UnmappedCollection)?))
    }

    fn check_device(&self, device: DeviceId) -> Result<(), Reason> {
        let ok = u64::from(device.get()) < self.devices_limit;
        if ok { Ok(()) } else { Err(Reason::DeviceOutOfRange) }
    }

    fn check_collection(collection: CollectionId) -> Result<(), Reason> {
        let ok = collection.get() < COLLECTIONS;
        if ok { Ok(()) } else { Err(Reason::CollectionOutOfRange) }
    }

    fn vcpu(&self, number: u64) -> Result<u16, Reason> {
        u16::try_from(number)
            .ok()
            .filter(|vcpu| *vcpu < self.vcpus)
            .ok_or(Reason::ProcnumOutOfRange)
    }

    /// Execute a command.
    ///
    /// # Errors
    /// What is wrong with it; then nothing has changed.
    pub fn execute(&mut self, command: &Command) -> Result<(), CommandError> {
        self.run(command).map_err(|reason| CommandError::new(command.opcode(), reason))
    }

    fn run(&mut self, command: &Command) -> Result<(), Reason> {
        match *command {
            Command::Mapd { device, size, valid, .. } => {
                self.check_device(device)?;
                if valid && size.get() > self.event_bits {
                    return Err(Reason::IttSizeOutOfRange);
                }
                self.unmap_device(device.get());
                if valid {
                    self.devices.insert(device.get(), size.get());
                }
            }
            Command::Mapc { collection, rdbase, valid } => {
                Self::check_collection(collection)?;
                if valid {
                    let vcpu = self.vcpu(rdbase.processor_number())?;
                    let old = self.homes.insert(collection.get(), vcpu);
                    self.collections.insert(collection.get(), vcpu);
                    if let Some(old) = old {
                        let moved = self.pending.iter().copied().filter(|(at, lpi)| {
                            *at == old && self.lpis.get(lpi) == Some(&collection.get())
                        });
                        for (at, lpi) in moved.collect::<Vec<_>>() {
                            self.pending.remove(&(at, lpi));
                            self.pending.insert((vcpu, lpi));
                        }
                    }
                } else {
                    self.collections.remove(&collection.get());
                }
            }
            Command::Mapti { device, event, intid, collection } => {
                self.map(device, event, intid, collection)?;
            }
            Command::Mapi { device, event, collection } => {
                self.map(device, event, Intid::new(event.get()), collection)?;
            }
            Command::Movi { device, event, collection } => {
                let lpi = self.mapped(device, event)?;
                Self::check_collection(collection)?;
                if !self.collections.contains_key(&collection.get()) {
                    return Err(Reason::UnmappedCollection);
                }
                self.set_collection(lpi, collection.get());
            }
            Command::Movall { from, to } => {
                let from = self.vcpu(from.processor_number())?;
                let to = self.vcpu(to.processor_number())?;
                let all: Vec<_> = self.pending.iter().filter(|(at, _)| *at == from).collect();
                let moved: Vec<u32> = all.into_iter().map(|(_, lpi)| *lpi).collect();
                for lpi in moved {
                    self.pending.remove(&(from, lpi));
                    self.pending.insert((to, lpi));
                }
            }
            Command::Discard { device, event } => {
                self.mapped(device, event)?;
                self.unmap_event(device.get(), event.get());
            }
            Command::Clear { device, event } => {
                let (lpi, _) = self.routed(device, event)?;
                self.pending.retain(|(_, pending)| *pending != lpi);
            }
            Command::Int { device, event } => {
                let (lpi, vcpu) = self.routed(device, event)?;
                self.pending.insert((vcpu, lpi));
            }
            Command::Inv { device, event } => {
                self.routed(device, event)?;
            }
            Command::Invall { collection } => {
                Self::check_collection(collection)?;
                if !self.collections.contains_key(&collection.get()) {
                    return Err(Reason::UnmappedCollection);
                }
            }
            Command::Sync { rdbase } => {
                self.vcpu(rdbase.processor_number())?;
            }
        }
        Ok(())
    }

    fn map(
        &mut self,
        device: DeviceId,
        event: EventId,
        intid: Intid,
        collection: CollectionId,
    ) -> Result<(), Reason> {
        let old = self.look_up(device, event)?;
        Self::check_collection(collection)?;
        let lpi = intid.get();
        if lpi < 8192 || u64::from(lpi) >> self.id_bits != 0 {
            return Err(Reason::PhysicalIdOutOfRange);
        }
        if old != Some(lpi) {
            self.unmap_event(device.get(), event.get());
            self.events.insert((device.get(), event.get()), lpi);
        }
        self.set_collection(lpi, collection.get());
        Ok(())
    }
}
