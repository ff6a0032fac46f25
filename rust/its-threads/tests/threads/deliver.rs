// SPDX-License-Identifier: GPL-2.0-only
//! Interrupts against each other, and against the vCPU that takes them.

use its_core::env::SLOTS;
use its_threads::rig::{EVENTS, PRIORITY, job};
use its_threads::{Rig, explore};

#[test]
fn deliveries() {
    explore("two deliveries, and the vCPU", || {
        let rig = Rig::new();
        rig.race([
            job(|rig| assert!(rig.fire(0))),
            job(|rig| assert!(rig.fire(1) && rig.fire(0))),
            job(|rig| rig.run_vcpu(0, 2)),
        ]);
        rig.expect_all(EVENTS);
        assert_eq!(rig.taken(1), 1);
    });
}

#[test]
fn again() {
    explore("delivery against slot_done of the same LPI", || {
        let rig = Rig::new();
        rig.fire(0);
        rig.cycle(0);
        rig.race([
            job(|rig| assert!(rig.fire(0))),
            job(|rig| {
                rig.take(0);
                rig.run_vcpu(0, 2);
            }),
        ]);
        rig.expect_all(EVENTS);
    });
}

#[test]
fn full_slots() {
    /// All slots are taken, and one LPI waits.
    const BEFORE: u32 = SLOTS as u32 + 1;
    explore("delivery against slot_done with all slots taken", || {
        let rig = Rig::new();
        rig.map(BEFORE + 2);
        for event in 0..BEFORE {
            assert!(rig.fire(event));
        }
        rig.cycle(0);
        // One is more urgent than all, one is not.
        rig.set_property(BEFORE, PRIORITY - 0x20, true);
        rig.race([
            job(|rig| assert!(rig.fire(BEFORE))),
            job(|rig| assert!(rig.fire(BEFORE + 1))),
            job(|rig| {
                rig.take(0);
                rig.cycle(0);
            }),
        ]);
        rig.expect_all(BEFORE + 2);
        for event in 0..BEFORE + 2 {
            assert_eq!(rig.taken(event), 1, "event {event}");
        }
    });
}
