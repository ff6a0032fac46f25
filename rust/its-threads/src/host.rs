// SPDX-License-Identifier: GPL-2.0-only
//! A host ITS that executes commands at once, or one each time that somebody
//! looks how far it is, and the redistributor behind it, which knows an LPI's
//! property until an INV. The strict model is in its-testkit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use its_arch::{COMMAND_SIZE, Command, RawCommand};
use its_core::env::HostHw;

use crate::env::is_disabled;

#[derive(Default)]
struct Model {
    /// What each slot holds that has not been executed.
    queue: Vec<Option<RawCommand>>,
    creadr: u64,
    cwriter: u64,
    executed: Vec<Command>,
    lazy: bool,
    /// LPI of each device and event.
    mapped: BTreeMap<(u32, u32), u32>,
    /// LPIs that the redistributor believes to be disabled.
    masked: BTreeSet<u32>,
    /// Of those: which have fired.
    pending: BTreeSet<u32>,
    /// LPIs that were pending when they were enabled: a CPU takes them now.
    due: Vec<u32>,
}

/// The hypervisor's handle on it, and the test's.
#[derive(Clone)]
pub struct HostIts(Arc<Mutex<Model>>);

impl Model {
    /// Execute a command. False if there is none.
    fn step(&mut self) -> bool {
        if self.creadr == self.cwriter {
            return false;
        }
        let raw = self.queue[slot(self.creadr)].take();
        let raw = raw.expect("GITS_CWRITER is past what was written");
        let command = Command::decode(&raw).expect("a command");
        self.execute(&command);
        self.executed.push(command);
        let bytes = u64::try_from(self.queue.len()).expect("small") * COMMAND_SIZE;
        self.creadr = (self.creadr + COMMAND_SIZE) % bytes;
        true
    }

    fn execute(&mut self, command: &Command) {
        match *command {
            Command::Mapti { device, event, intid, .. } => {
                self.mapped.insert((device.get(), event.get()), intid.get());
            }
            Command::Discard { device, event } => {
                let lpi = self.mapped.remove(&(device.get(), event.get()));
                self.pending.remove(&lpi.expect("the event is mapped"));
            }
            Command::Inv { device, event } => {
                let lpi = self.mapped.get(&(device.get(), event.get()));
                let lpi = *lpi.expect("INV of an event that is not mapped");
                if is_disabled(lpi) {
                    self.masked.insert(lpi);
                } else if self.masked.remove(&lpi) && self.pending.remove(&lpi) {
                    self.due.push(lpi);
                }
            }
            _ => {}
        }
    }
}

impl HostIts {
    /// One with an empty queue of `slots` slots. If it is `lazy`, it executes a
    /// command only when somebody looks.
    #[must_use]
    pub fn new(slots: usize, lazy: bool) -> Self {
        Self(Arc::new(Mutex::new(Model { queue: vec![None; slots], lazy, ..Model::default() })))
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device raises an LPI. True if a CPU takes it: it is not masked, else
    /// it is pending until it is unmasked.
    #[must_use]
    pub fn fire(&self, lpi: u32) -> bool {
        let mut model = self.model();
        if model.masked.contains(&lpi) {
            model.pending.insert(lpi);
            return false;
        }
        true
    }

    /// LPIs that CPUs take now, as they were pending when they were unmasked.
    #[must_use]
    pub fn take_due(&self) -> Vec<u32> {
        std::mem::take(&mut self.model().due)
    }

    /// The LPIs that are disabled, as the redistributor knows.
    #[must_use]
    pub fn masked(&self) -> Vec<u32> {
        self.model().masked.iter().copied().collect()
    }

    /// The commands that were executed.
    #[must_use]
    pub fn executed(&self) -> Vec<Command> {
        self.model().executed.clone()
    }
}

fn slot(offset: u64) -> usize {
    usize::try_from(offset / COMMAND_SIZE).expect("small")
}

impl HostHw for HostIts {
    fn creadr(&self) -> u64 {
        let mut model = self.model();
        model.step();
        model.creadr
    }

    fn write_command(&self, offset: u64, command: &RawCommand) {
        let before = self.model().queue[slot(offset)].replace(*command);
        assert!(before.is_none(), "a command is overwritten that was not executed");
    }

    fn set_cwriter(&self, offset: u64) {
        let mut model = self.model();
        assert!(offset != model.creadr, "the queue looks empty now");
        model.cwriter = offset;
        while !model.lazy && model.step() {}
    }
}
