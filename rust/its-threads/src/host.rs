// SPDX-License-Identifier: GPL-2.0-only
//! A host ITS that executes commands at once, or one each time that somebody
//! looks how far it is. The strict model is in its-testkit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use its_arch::{COMMAND_SIZE, Command, RawCommand};
use its_core::env::HostHw;

#[derive(Default)]
struct Model {
    /// What each slot holds that has not been executed.
    queue: Vec<Option<RawCommand>>,
    creadr: u64,
    cwriter: u64,
    executed: Vec<Command>,
    lazy: bool,
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
        self.executed.push(Command::decode(&raw).expect("a command"));
        let bytes = u64::try_from(self.queue.len()).expect("small") * COMMAND_SIZE;
        self.creadr = (self.creadr + COMMAND_SIZE) % bytes;
        true
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
