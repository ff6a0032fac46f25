// SPDX-License-Identifier: GPL-2.0-only
//! Faults that others have had: one test for each, named after it. Each says
//! what the fault was, and what this component does instead.
//!
//! `docs/promises.md` lists all of them, with those that other tests show
//! already, and those that cannot exist here.

mod kvm;
mod xen_its_in_c;
mod xsa;

use std::sync::Arc;

use its_testkit::{Config, Machine, cmd};

/// The LPI of event 0 of device 5.
const LPI: u32 = 8192;

/// A machine with device 5, whose event 0 is [`LPI`] on vCPU 0, for threads.
fn shared() -> Arc<Machine> {
    let m = Machine::booted(Config { id_bits: 14, ..Config::default() });
    m.map(5, 1, LPI);
    Arc::new(m)
}

/// End a machine that no other thread has any more.
fn end(m: Arc<Machine>) {
    let m = Arc::try_unwrap(m).ok();
    m.expect("nobody else has the machine").destroy();
}

/// Map device 5 anew, whatever became of it, and see that its event comes,
/// once, and nothing before it.
fn works_anew(m: &Machine) {
    m.ok_all(&[cmd::mapc(0, 0), cmd::mapd(5, 5), cmd::mapti(5, 0, LPI, 0)]);
    m.enable(LPI);
    m.ok(cmd::invall(0));
    m.expect(&[], &[]);
    m.fire(5, 0);
    m.expect(&[LPI], &[]);
}
