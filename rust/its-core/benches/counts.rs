// SPDX-License-Identifier: GPL-2.0-only
//! What the core asks of the hypervisor for one operation, on its-testkit's fake of
//! one: `cargo bench -p its-core`. Counts, the same on each machine and in each run;
//! instructions are for `scripts/bench`, which runs the core inside Xen.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a bench that goes wrong shall stop with a panic, as a test"
)]

use its_arch::Command;
use its_testkit::{Config, Machine, cmd};

const DEVICE: u32 = 5;
const LPI: u32 = 8192;

/// All that is counted so far; of host commands, since the last time.
#[derive(Clone, Copy)]
struct Counts {
    reads: usize,
    commands: usize,
    allocations: usize,
    kicks: usize,
}

/// Commands are taken off the host ITS's list.
fn count(machine: &Machine) -> Counts {
    Counts {
        reads: machine.ram.reads(),
        commands: machine.its[0].take_executed().len(),
        allocations: machine.world.allocations(),
        kicks: machine.vcpus.iter().map(|vcpu| vcpu.counts().0).sum(),
    }
}

/// Does something, and prints what it took.
fn measure(machine: &Machine, name: &str, work: impl FnOnce(&Machine)) {
    let before = count(machine);
    work(machine);
    let after = count(machine);
    println!(
        "{name:24} {:>12} {:>14} {:>12} {:>6}",
        after.reads - before.reads,
        after.commands,
        after.allocations - before.allocations,
        after.kicks - before.kicks,
    );
}

fn main() {
    let machine = Machine::booted(Config::default());
    println!(
        "{:24} {:>12} {:>14} {:>12} {:>6}",
        "operation", "guest reads", "host commands", "allocations", "kicks"
    );
    measure(&machine, "MAPD, 32 events", |machine| machine.ok(cmd::mapd(DEVICE, 5)));
    for event in 0..2 {
        machine.enable(LPI + event);
        machine.ok(cmd::mapti(DEVICE, event, LPI + event, 0));
    }
    measure(&machine, "MAPTI", |machine| machine.ok(cmd::mapti(DEVICE, 2, LPI + 2, 0)));
    let batch: Vec<Command> = (3..19).map(|n| cmd::mapti(DEVICE, n, LPI + n, 0)).collect();
    measure(&machine, "16 MAPTI in a batch", |machine| machine.ok_all(&batch));
    measure(&machine, "an LPI", |machine| assert!(machine.fire(DEVICE, 0)));
    measure(&machine, "the same, pending", |machine| {
        let _ = machine.fire(DEVICE, 0);
    });
    measure(&machine, "taking it", |machine| assert_eq!(machine.take(0), Some(LPI)));
    for (name, command) in [
        ("INV", cmd::inv(DEVICE, 0)),
        ("INT", cmd::int(DEVICE, 1)),
        ("CLEAR", cmd::clear(DEVICE, 1)),
        ("MOVI", cmd::movi(DEVICE, 1, 1)),
        ("INVALL", cmd::invall(0)),
        ("MOVALL", cmd::movall(0, 1)),
        ("MAPC", cmd::mapc(9, 0)),
        ("SYNC", cmd::sync(0)),
        ("DISCARD", cmd::discard(DEVICE, 1)),
        ("MAPD V=0", cmd::unmapd(DEVICE)),
    ] {
        measure(&machine, name, |machine| machine.ok(command));
    }
}
