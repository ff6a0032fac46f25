// SPDX-License-Identifier: GPL-2.0-only
//! A host ITS that forgives nothing.
//!
//! It has no memory of its own for what it is told: an ITT has to be there
//! and large enough, and to stay until the ITS has confirmed with a SYNC for
//! each redistributor that it let go of it. An event is mapped for sure only
//! once its redistributor has had a SYNC: until then it may fire in vain. One that
//! is unmapped fires until then. The redistributors behind it know
//! all LPIs' properties from the start, and look again only when told to by
//! INV and SYNC. Real ITSes, and QEMU's, accept much that this one stops the
//! test for.
//!
//! Memory attributes cannot be wrong here, as no command carries any: Xen's C
//! sets them in GITS_CBASER and GITS_BASER<n>, and writes the queue and the ITTs
//! back to memory where it has to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use its_arch::{COMMAND_SIZE, Command, Lpi, RawCommand};
use its_core::env::HostHw;
use its_core::host::HostItsConfig;
use its_core::host::queue::reserved;

use crate::world::{World, lock};

/// When the model executes commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As soon as GITS_CWRITER is written.
    Immediate,
    /// So many at each read of GITS_CREADR.
    PerPoll(u32),
    /// One at every so many reads of GITS_CREADR.
    Slow(u32),
    /// So many from now on at once, then none.
    Hang(u32),
    /// So many from now on at once; then it stalls.
    Stall(u32),
}

/// A device that is mapped on the model.
#[derive(Clone, Debug)]
struct MappedDevice {
    itt: u64,
    events: u64,
    map: Few<MappedEvent>,
}

/// An event of it that is mapped.
#[derive(Clone, Copy, Debug)]
struct MappedEvent {
    lpi: u32,
    collection: u16,
    /// The redistributor that its LPI was to go to when it was mapped, and how
    /// many SYNCs that had had by then: it takes effect with one more.
    rdbase: u64,
    syncs: u64,
}

/// What some numbers stand for, all of them small: looked up at each command.
#[derive(Clone, Debug)]
struct Few<T>(Vec<Option<T>>);

impl<T: Clone> Few<T> {
    fn get(&self, number: u32) -> Option<&T> {
        self.0.get(usize::try_from(number).expect("small"))?.as_ref()
    }

    fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.0.get_mut(usize::try_from(number).expect("small"))?.as_mut()
    }

    /// What it stood for before.
    fn insert(&mut self, number: u32, value: T) -> Option<T> {
        let at = usize::try_from(number).expect("small");
        assert!(at < 1 << 24, "number {number:#x} is beyond all that there is");
        if at >= self.0.len() {
            self.0.resize(at + 1, None);
        }
        self.0[at].replace(value)
    }

    fn remove(&mut self, number: u32) -> Option<T> {
        self.0.get_mut(usize::try_from(number).expect("small"))?.take()
    }

    fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.0).filter_map(|(number, value)| Some((number, value.as_ref()?)))
    }
}

/// What an LPI is used for.
#[derive(Clone, Copy, Debug)]
enum Use {
    /// An event of this device.
    Mapped(u32),
    /// It was unmapped, and not every redistributor has had a SYNC since.
    Left,
}

/// What an unmapped device or event leaves behind until each redistributor has had a
/// SYNC.
#[derive(Debug)]
struct Limbo {
    itt: Option<u64>,
    events: Vec<Gone>,
    rdbases: BTreeSet<u64>,
}

/// An event that was mapped, and may be for a while.
#[derive(Debug)]
struct Gone {
    device: u32,
    event: u32,
    lpi: u32,
    rdbase: Option<u64>,
}

/// The state of one ITS.
pub struct Model {
    config: HostItsConfig,
    queue: Vec<RawCommand>,
    /// Slots that were written since they were last executed.
    fresh: Vec<bool>,
    creadr: u64,
    cwriter: u64,
    stalled: bool,
    pace: Pace,
    polls: u32,
    garbage: Option<u64>,
    devices: BTreeMap<u32, MappedDevice>,
    /// By the number of the LPI above the first.
    lpis: Few<Use>,
    collections: BTreeMap<u16, u64>,
    /// Collections that events were ever mapped to.
    used: BTreeSet<u16>,
    limbo: Vec<Limbo>,
    /// LPIs that the redistributors believe to be disabled.
    disabled: BTreeSet<u32>,
    /// LPIs that had an INV, and the redistributor whose SYNC makes it take
    /// effect.
    invalid: BTreeMap<u32, u64>,
    /// LPIs that are disabled and have fired.
    pending: BTreeSet<u32>,
    /// LPIs that were pending when they were enabled: the CPUs take them now.
    due: Vec<Lpi>,
    /// The command that was written last.
    last: Option<Command>,
    executed: Vec<Command>,
    /// How many commands each store to GITS_CWRITER was for.
    runs: Vec<u64>,
    syncs: BTreeMap<u64, u64>,
    /// An event that fired before the SYNC was not mapped yet; the next one is.
    early: bool,
    world: Arc<World>,
}

impl Model {
    /// Why the ITT at `address` may not be freed.
    pub(crate) fn uses_itt(&self, address: u64) -> Option<String> {
        let waits = || {
            self.queued()
                .any(|command| match command {
                    Command::Mapd { itt, valid, .. } => valid && itt.get() == address,
                    _ => false,
                })
                .then(|| "a MAPD that names it has not been executed".to_owned())
        };
        self.uses_itt_executed(address).or_else(waits)
    }

    fn queued(&self) -> impl Iterator<Item = Command> + '_ {
        let slots = self.slots();
        let first = self.creadr / COMMAND_SIZE;
        let count = (self.cwriter / COMMAND_SIZE + slots - first) % slots;
        (0..count).filter_map(move |n| {
            let at = usize::try_from((first + n) % slots).expect("small");
            Command::decode(&self.queue[at]).ok()
        })
    }

    fn slots(&self) -> u64 {
        u64::from(self.config.queue_bytes) / COMMAND_SIZE
    }

    fn step(&mut self) {
        let at = usize::try_from(self.creadr / COMMAND_SIZE).expect("small");
        let raw = self.queue[at];
        assert!(
            std::mem::take(&mut self.fresh[at]),
            "GITS_CWRITER is past slot {at}, which was not written"
        );
        let command = Command::decode(&raw);
        let command = command.unwrap_or_else(|unknown| panic!("host ITS: {unknown}"));
        // What it does not do must not be in the command either.
        assert_eq!(command.encode(), raw, "host ITS: reserved bits are set in {command:?}");
        self.execute(&command);
        self.executed.push(command);
        self.creadr = (self.creadr + COMMAND_SIZE) % u64::from(self.config.queue_bytes);
    }

    fn steps(&mut self, most: u32) {
        for _ in 0..most {
            if self.stalled || self.creadr == self.cwriter {
                return;
            }
            self.step();
        }
    }

    /// Execute what the pace allows on a write of GITS_CWRITER.
    fn ring(&mut self) {
        match self.pace {
            Pace::Immediate => self.steps(u32::MAX),
            Pace::PerPoll(_) | Pace::Slow(_) => {}
            Pace::Hang(left) | Pace::Stall(left) => {
                let mut left = left;
                while left != 0 && !self.stalled && self.creadr != self.cwriter {
                    self.step();
                    left -= 1;
                }
                if matches!(self.pace, Pace::Stall(_)) {
                    self.pace = Pace::Stall(left);
                    self.stalled |= left == 0 && self.creadr != self.cwriter;
                } else {
                    self.pace = Pace::Hang(left);
                }
            }
        }
    }

    fn device(&mut self, command: &Command, device: u32) -> &mut MappedDevice {
        self.devices
            .get_mut(&device)
            .unwrap_or_else(|| panic!("host ITS: {command:?}: the device is not mapped"))
    }

    fn execute(&mut self, command: &Command) {
        match *command {
            Command::Mapd { device, size, itt, valid: true } => {
                assert!(
                    u64::from(device.get()) >> self.config.device_bits == 0,
                    "host ITS: {command:?}: DeviceID out of range"
                );
                assert!(size <= self.config.event_bits, "host ITS: {command:?}: Size");
                // The command has bits 51:8 of the address only: an ITT that is
                // not aligned to 256 bytes is elsewhere.
                let has = self.world.table_size(itt.get());
                let has = has.unwrap_or_else(|| panic!("host ITS: {command:?}: no such ITT"));
                let needs = size.count() * u64::from(self.config.itt_entry_bytes);
                assert!(
                    u64::try_from(has).expect("64 bits") >= needs,
                    "host ITS: {command:?}: ITT of {has} bytes, {needs} needed"
                );
                if let Some(why) = self.uses_itt_executed(itt.get()) {
                    panic!("host ITS: {command:?}: the ITT is in use: {why}");
                }
                let mapped =
                    MappedDevice { itt: itt.get(), events: size.count(), map: Few(Vec::new()) };
                let before = self.devices.insert(device.get(), mapped);
                assert!(before.is_none(), "host ITS: {command:?}: the device is mapped already");
            }
            Command::Mapd { device, valid: false, .. } => {
                // Unmapping what is not mapped is fine.
                if let Some(gone) = self.devices.remove(&device.get()) {
                    let used = self.collections.iter().filter(|(id, _)| self.used.contains(id));
                    let rdbases = used.map(|(_, rdbase)| *rdbase).collect();
                    let events = gone.map.iter();
                    let events =
                        events.map(|(event, entry)| self.leave(device.get(), event, entry));
                    let events: Vec<_> = events.collect();
                    for gone in &events {
                        self.lpis.insert(gone.lpi - Lpi::FIRST, Use::Left);
                    }
                    self.limbo.push(Limbo { itt: Some(gone.itt), events, rdbases });
                    self.end_limbo();
                }
            }
            Command::Mapc { collection, rdbase, valid } => {
                if valid {
                    self.collections.insert(collection.get(), rdbase.get());
                } else {
                    self.collections.remove(&collection.get());
                }
            }
            Command::Mapti { device, event, intid, collection } => {
                let lpi = Lpi::new(intid.get());
                let lpi = lpi.unwrap_or_else(|| panic!("host ITS: {command:?}: no LPI")).get();
                assert!(
                    self.collections.contains_key(&collection.get()),
                    "host ITS: {command:?}: the collection is not mapped"
                );
                match self.lpis.insert(lpi - Lpi::FIRST, Use::Mapped(device.get())) {
                    Some(Use::Mapped(other)) => {
                        panic!("host ITS: {command:?}: device {other:#x} has that LPI")
                    }
                    Some(Use::Left) => {
                        panic!("host ITS: {command:?}: the LPI was unmapped, but not SYNCed")
                    }
                    None => {}
                }
                self.used.insert(collection.get());
                let rdbase = self.collections[&collection.get()];
                let syncs = self.syncs(rdbase);
                let mapped = self.device(command, device.get());
                assert!(
                    u64::from(event.get()) < mapped.events,
                    "host ITS: {command:?}: EventID out of range"
                );
                let entry = MappedEvent { lpi, collection: collection.get(), rdbase, syncs };
                let before = mapped.map.insert(event.get(), entry);
                assert!(before.is_none(), "host ITS: {command:?}: the event is mapped already");
            }
            Command::Sync { rdbase } => {
                assert!(
                    self.collections.values().any(|known| *known == rdbase.get()),
                    "host ITS: {command:?}: no collection is mapped there"
                );
                *self.syncs.entry(rdbase.get()).or_default() += 1;
                for limbo in &mut self.limbo {
                    limbo.rdbases.remove(&rdbase.get());
                }
                self.look_again(rdbase.get());
                self.end_limbo();
            }
            Command::Movi { device, event, collection } => {
                assert!(
                    self.collections.contains_key(&collection.get()),
                    "host ITS: {command:?}: the collection is not mapped"
                );
                self.used.insert(collection.get());
                let mapped = self.device(command, device.get());
                let entry = mapped.map.get_mut(event.get());
                let entry =
                    entry.unwrap_or_else(|| panic!("host ITS: {command:?}: event not mapped"));
                entry.collection = collection.get();
            }
            Command::Discard { device, event } => {
                let mapped = self.device(command, device.get());
                let gone = mapped.map.remove(event.get());
                let gone = gone.unwrap_or_else(|| panic!("host ITS: {command:?}: not mapped"));
                let gone = self.leave(device.get(), event.get(), &gone);
                self.lpis.insert(gone.lpi - Lpi::FIRST, Use::Left);
                self.pending.remove(&gone.lpi);
                self.due.retain(|due| due.get() != gone.lpi);
                let rdbase = gone.rdbase;
                let mut events = self.limbo.iter_mut().filter(|limbo| limbo.itt.is_none());
                if let Some(limbo) = events.find(|limbo| limbo.rdbases.iter().eq(&rdbase)) {
                    limbo.events.push(gone);
                } else {
                    self.limbo.push(Limbo {
                        itt: None,
                        events: vec![gone],
                        rdbases: rdbase.into_iter().collect(),
                    });
                }
            }
            Command::Inv { device, event } => {
                let entry = self.event(command, device.get(), event.get());
                self.invalid.insert(entry.lpi, self.collections[&entry.collection]);
            }
            Command::Clear { device, event } => {
                let entry = self.event(command, device.get(), event.get());
                self.pending.remove(&entry.lpi);
            }
            Command::Int { device, event } => {
                self.event(command, device.get(), event.get());
            }
            Command::Mapi { .. } | Command::Invall { .. } | Command::Movall { .. } => {}
        }
    }

    /// An event that is mapped.
    fn event(&mut self, command: &Command, device: u32, event: u32) -> MappedEvent {
        let mapped = self.device(command, device);
        *mapped
            .map
            .get(event)
            .unwrap_or_else(|| panic!("host ITS: {command:?}: the event is not mapped"))
    }

    /// How many SYNCs a redistributor has had.
    fn syncs(&self, rdbase: u64) -> u64 {
        self.syncs.get(&rdbase).copied().unwrap_or(0)
    }

    /// What an event leaves behind.
    fn leave(&self, device: u32, event: u32, entry: &MappedEvent) -> Gone {
        let rdbase = self.collections.get(&entry.collection).copied();
        Gone { device, event, lpi: entry.lpi, rdbase }
    }

    /// The LPI that comes of an event, and its RDbase.
    fn translate(&mut self, device: u32, event: u32) -> Option<(u32, u64)> {
        let entry = self.devices.get(&device).and_then(|mapped| mapped.map.get(event)).copied();
        if let Some(entry) = entry {
            // Before the SYNC, nobody knows whether it is mapped yet: by turns.
            let sure = self.syncs(entry.rdbase) != entry.syncs;
            self.early ^= !sure;
            if sure || !self.early {
                return Some((entry.lpi, *self.collections.get(&entry.collection)?));
            }
        }
        // Nor whether what was mapped is so still: here it is.
        let mut gone = self.limbo.iter().flat_map(|limbo| &limbo.events);
        let gone = gone.find(|gone| (gone.device, gone.event) == (device, event))?;
        Some((gone.lpi, gone.rdbase?))
    }

    /// What every redistributor has had a SYNC for is gone for good.
    fn end_limbo(&mut self) {
        for gone in self.limbo.extract_if(.., |limbo| limbo.rdbases.is_empty()) {
            for event in gone.events {
                self.lpis.remove(event.lpi - Lpi::FIRST);
                if gone.itt.is_none() {
                    // It fired after the DISCARD, which has taken effect now.
                    self.pending.remove(&event.lpi);
                }
            }
        }
    }

    /// A redistributor reads the properties again that it was told to.
    fn look_again(&mut self, rdbase: u64) {
        let told = self.invalid.extract_if(.., |_, at| *at == rdbase);
        for (lpi, _) in told.collect::<Vec<_>>() {
            if !self.world.property(lpi) {
                self.disabled.insert(lpi);
            } else if self.disabled.remove(&lpi) && self.pending.remove(&lpi) {
                self.due.extend(Lpi::new(lpi));
            }
        }
    }

    /// Commands that have room in the slots in reserve only.
    fn check_reserve(&self, offset: u64, command: Option<Command>) {
        let slots = self.slots();
        let ahead = (offset / COMMAND_SIZE + slots - self.creadr / COMMAND_SIZE) % slots;
        let urgent = match command {
            Some(Command::Inv { .. }) => true,
            Some(Command::Sync { .. }) => matches!(self.last, Some(Command::Inv { .. })),
            _ => false,
        };
        assert!(
            urgent || ahead < slots - 1 - reserved(slots),
            "{command:?} is in a slot that is reserved for INV"
        );
    }

    fn uses_itt_executed(&self, address: u64) -> Option<String> {
        for (device, mapped) in &self.devices {
            if mapped.itt == address {
                return Some(format!("device {device:#x} is mapped to it"));
            }
        }
        let left = self.limbo.iter().any(|limbo| limbo.itt == Some(address));
        left.then(|| "no SYNC has followed the device's unmapping".to_owned())
    }
}

/// A host ITS: the hypervisor's handle, and the test's.
#[derive(Clone)]
pub struct FakeHostIts(Arc<Mutex<Model>>);

impl FakeHostIts {
    /// An ITS with an empty queue, which executes commands at once.
    #[must_use]
    pub fn new(config: HostItsConfig) -> Self {
        let world = World::current();
        let slots = usize::try_from(u64::from(config.queue_bytes) / COMMAND_SIZE).expect("small");
        let model = Arc::new(Mutex::new(Model {
            config,
            queue: vec![RawCommand::default(); slots],
            fresh: vec![false; slots],
            creadr: 0,
            cwriter: 0,
            stalled: false,
            pace: Pace::Immediate,
            polls: 0,
            garbage: None,
            devices: BTreeMap::new(),
            lpis: Few(Vec::new()),
            collections: BTreeMap::new(),
            used: BTreeSet::new(),
            limbo: Vec::new(),
            disabled: BTreeSet::new(),
            invalid: BTreeMap::new(),
            pending: BTreeSet::new(),
            due: Vec::new(),
            last: None,
            executed: Vec::new(),
            runs: Vec::new(),
            syncs: BTreeMap::new(),
            early: false,
            world: Arc::clone(&world),
        }));
        world.add_model(&model);
        Self(model)
    }

    /// Change when commands are executed; a stall ends. Commands that wait
    /// are executed if the pace allows.
    pub fn set_pace(&self, pace: Pace) {
        let mut model = lock(&self.0);
        model.pace = pace;
        model.stalled = false;
        model.polls = 0;
        model.ring();
    }

    /// Have GITS_CREADR read as `value`, or as it is.
    pub fn set_garbage(&self, value: Option<u64>) {
        lock(&self.0).garbage = value;
    }

    /// The commands executed since it was last asked.
    #[must_use]
    pub fn take_executed(&self) -> Vec<Command> {
        std::mem::take(&mut lock(&self.0).executed)
    }

    /// How many commands each store to GITS_CWRITER was for, since it was last
    /// asked.
    #[must_use]
    pub fn take_runs(&self) -> Vec<u64> {
        std::mem::take(&mut lock(&self.0).runs)
    }

    /// How many commands wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.0).queued().count()
    }

    /// A device writes `event` to GITS_TRANSLATER: the LPI that comes of it,
    /// and the RDbase of its redistributor.
    /// `None` if the LPI is disabled: then it is pending until it is enabled.
    #[must_use]
    pub fn fire(&self, device: u32, event: u32) -> Option<(Lpi, u64)> {
        let mut model = lock(&self.0);
        let (lpi, rdbase) = model.translate(device, event)?;
        if model.disabled.contains(&lpi) {
            model.pending.insert(lpi);
            return None;
        }
        Some((Lpi::new(lpi)?, rdbase))
    }

    /// Host LPIs that were pending when they were enabled.
    #[must_use]
    pub fn take_due(&self) -> Vec<Lpi> {
        std::mem::take(&mut lock(&self.0).due)
    }

    /// Is the LPI of an event disabled, as far as its redistributor knows? And
    /// is it pending?
    #[must_use]
    pub fn disabled(&self, device: u32, event: u32) -> Option<(bool, bool)> {
        let model = lock(&self.0);
        let lpi = model.devices.get(&device)?.map.get(event)?.lpi;
        Some((model.disabled.contains(&lpi), model.pending.contains(&lpi)))
    }

    /// All commands that were submitted have been executed: panic if a
    /// redistributor knows of an LPI other than the configuration table says.
    #[track_caller]
    pub fn check_properties(&self) {
        let model = lock(&self.0);
        let told = model.invalid.keys().next();
        assert!(told.is_none(), "no SYNC has followed the INV of host LPI {told:?}");
        for lpi in &model.disabled {
            assert!(!model.world.property(*lpi), "host LPI {lpi} was enabled without an INV");
        }
        let mapped = model.lpis.iter().filter(|(_, what)| matches!(what, Use::Mapped(_)));
        for lpi in mapped.map(|(index, _)| Lpi::FIRST + index) {
            let told = model.disabled.contains(&lpi) || model.world.property(lpi);
            assert!(told, "host LPI {lpi} was disabled without an INV");
        }
    }

    /// Devices and events that are mapped.
    #[must_use]
    pub fn mapped(&self) -> (usize, usize) {
        let model = lock(&self.0);
        (
            model.devices.len(),
            model.devices.values().map(|device| device.map.values().count()).sum(),
        )
    }

    /// How many events each collection has.
    #[must_use]
    pub fn spread(&self) -> BTreeMap<u16, usize> {
        let model = lock(&self.0);
        let mut spread = BTreeMap::new();
        for event in model.devices.values().flat_map(|device| device.map.values()) {
            *spread.entry(event.collection).or_default() += 1;
        }
        spread
    }

    /// All LPIs that are mapped.
    #[must_use]
    pub fn lpis(&self) -> Vec<Lpi> {
        let model = lock(&self.0);
        let maps = model.devices.values().flat_map(|device| device.map.values());
        maps.filter_map(|event| Lpi::new(event.lpi)).collect()
    }
}

impl HostHw for FakeHostIts {
    fn creadr(&self) -> u64 {
        let mut model = lock(&self.0);
        match model.pace {
            Pace::PerPoll(count) => model.steps(count),
            Pace::Slow(every) => {
                model.polls += 1;
                if model.polls >= every {
                    model.polls = 0;
                    model.steps(1);
                }
            }
            _ => {}
        }
        if let Some(garbage) = model.garbage {
            return garbage;
        }
        model.creadr | u64::from(model.stalled)
    }

    fn write_command(&self, offset: u64, command: &RawCommand) {
        let mut model = lock(&self.0);
        assert!(
            offset.is_multiple_of(COMMAND_SIZE) && offset < model.config.queue_bytes.into(),
            "command written at {offset:#x} of a queue of {:#x}",
            model.config.queue_bytes
        );
        let at = usize::try_from(offset / COMMAND_SIZE).expect("small");
        assert!(!model.fresh[at], "slot {at} is overwritten, but has not been executed");
        let decoded = Command::decode(command).ok();
        model.check_reserve(offset, decoded);
        model.last = decoded;
        model.queue[at] = *command;
        model.fresh[at] = true;
    }

    fn set_cwriter(&self, offset: u64) {
        let mut model = lock(&self.0);
        assert!(
            offset.is_multiple_of(COMMAND_SIZE) && offset < model.config.queue_bytes.into(),
            "GITS_CWRITER = {offset:#x}, queue of {:#x}",
            model.config.queue_bytes
        );
        let slots = model.slots();
        let ahead = |from: u64, to: u64| (to / COMMAND_SIZE + slots - from / COMMAND_SIZE) % slots;
        let before = ahead(model.creadr, model.cwriter);
        let moved = ahead(model.cwriter, offset);
        assert!(before + moved < slots, "GITS_CWRITER passes GITS_CREADR");
        model.cwriter = offset;
        model.runs.push(moved);
        model.ring();
    }
}
