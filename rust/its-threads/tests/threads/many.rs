// SPDX-License-Identifier: GPL-2.0-only
//! Too much at once for loom.

use its_testkit::cmd;
use its_threads::explore;
use its_threads::rig::{DEVICE, Rig, job};

#[test]
fn moves() {
    const EVENTS: u32 = 4;
    explore("two vCPUs, two devices, and moves to and fro", || {
        let rig = Rig::new();
        rig.map(EVENTS);
        rig.race([
            job(|rig| {
                for event in [0, 1, 0, 1] {
                    assert!(rig.fire(event));
                }
            }),
            job(|rig| {
                for event in [2, 3, 2, 3] {
                    assert!(rig.fire(event));
                }
            }),
            job(|rig| rig.run_vcpu(0, 4)),
            job(|rig| rig.run_vcpu(1, 4)),
            job(|rig| {
                rig.commands(&[cmd::movi(DEVICE, 0, 1), cmd::mapc(0, 1), cmd::movi(DEVICE, 2, 1)]);
                rig.commands(&[cmd::movall(1, 0), cmd::mapc(0, 0), cmd::movi(DEVICE, 0, 0)]);
                rig.commands(&[cmd::invall(0), cmd::mapc(0, 1)]);
            }),
        ]);
        rig.expect_all(EVENTS);
    });
}
