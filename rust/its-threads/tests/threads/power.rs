// SPDX-License-Identifier: GPL-2.0-only
//! Interrupts against vCPUs that go off and come on.

use its_testkit::cmd;
use its_threads::explore;
use its_threads::rig::{DEVICE, EVENTS, Rig, job};

fn off_and_on(rig: &Rig) {
    rig.vcpus[0].power_off(&rig.domain);
    rig.vcpus[0].power_on(&rig.domain);
}

#[test]
fn deliveries() {
    explore("delivery against a vCPU that goes off and on", || {
        let rig = Rig::new();
        rig.fire(1);
        rig.cycle(0);
        rig.race([
            job(|rig| assert!(rig.fire(0))),
            job(|rig| assert!(rig.fire(1))),
            job(off_and_on),
        ]);
        rig.expect_all(EVENTS);
        assert_eq!(rig.taken(0), 1);
    });
}

#[test]
fn movi() {
    explore("MOVI against a vCPU that goes off and on", || {
        let rig = Rig::new();
        rig.fire(0);
        rig.cycle(0);
        rig.race([job(|rig| rig.commands(&[cmd::movi(DEVICE, 0, 1)])), job(off_and_on)]);
        let taken = rig.expect_all(EVENTS);
        assert_eq!(taken, [vec![], vec![0]]);
    });
}

#[test]
fn discard() {
    explore("DISCARD against a vCPU that goes off and on", || {
        let rig = Rig::new();
        rig.fire(0);
        rig.cycle(0);
        rig.race([job(|rig| rig.commands(&[cmd::discard(DEVICE, 0)])), job(off_and_on)]);
        rig.expect_nothing();
    });
}
