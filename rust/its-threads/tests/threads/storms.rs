// SPDX-License-Identifier: GPL-2.0-only
//! Host LPIs that are masked, against all that may make a difference to them:
//! none stays masked without the timer set, or its interrupts wasted.

use std::sync::Arc;

use its_arch::DeviceId;
use its_arch::access::Width;
use its_arch::gits::GITS_CTLR;
use its_testkit::cmd;
use its_threads::explore;
use its_threads::rig::{DEVICE, EVENTS, FIRST, Rig, job};

/// Event 0 is in a list register; it is masked, and then the timer goes off,
/// while `meanwhile` happens.
fn masked_while(meanwhile: fn(&Rig)) -> Arc<Rig> {
    let rig = Rig::new();
    rig.fire(0);
    rig.cycle(0);
    rig.race([
        job(|rig| {
            rig.mask(0);
            rig.tick();
        }),
        job(meanwhile),
    ]);
    rig
}

#[test]
fn taken() {
    explore("masking against the timer, and the guest that takes the LPI", || {
        let rig = Rig::new();
        rig.fire(0);
        rig.cycle(0);
        rig.race([
            job(|rig| rig.mask(0)),
            job(|rig| {
                rig.tick();
            }),
            job(|rig| {
                rig.take(0);
                rig.run_vcpu(0, 1);
            }),
        ]);
        // It is pending in its redistributor, or comes through.
        rig.fire(0);
        rig.expect_unmasked(EVENTS);
        rig.expect_all(EVENTS);
    });
}

#[test]
fn unmapped() {
    explore("masking, then the timer, against DISCARD and MAPTI", || {
        let rig = masked_while(|rig| {
            rig.commands(&[cmd::discard(DEVICE, 0), cmd::mapti(DEVICE, 0, FIRST, 1)]);
        });
        rig.fire(0);
        rig.expect_unmasked(EVENTS);
        rig.expect_all(EVENTS);
    });
}

#[test]
fn removal() {
    explore("masking, then the timer, against removing the device", || {
        let rig = masked_while(|rig| {
            let removed = rig.domain.remove_device(&rig.host, 0, DeviceId::new(DEVICE));
            removed.expect("it is there");
        });
        // Whoever gets its LPIs next finds them enabled.
        rig.expect_unmasked(EVENTS);
        assert_eq!(rig.host.lpis.in_use(), 0);
    });
}

#[test]
fn taken_while_the_timer_looks() {
    explore("the timer against the guest that takes an LPI which is masked", || {
        let rig = Rig::new();
        rig.fire(0);
        rig.cycle(0);
        rig.mask(0);
        rig.race([
            job(|rig| assert!(rig.tick(), "masking asks for it")),
            job(|rig| {
                rig.take(0);
                rig.run_vcpu(0, 1);
            }),
        ]);
        rig.fire(0);
        rig.expect_unmasked(EVENTS);
        rig.expect_all(EVENTS);
    });
}

#[test]
fn enabled_while_the_timer_looks() {
    explore("the timer against enabling the ITS of an LPI which is masked", || {
        let rig = Rig::new();
        rig.its_write(0, GITS_CTLR, Width::Word, 0);
        rig.mask(0);
        rig.race([
            job(|rig| assert!(rig.tick(), "masking asks for it")),
            job(|rig| rig.its_write(0, GITS_CTLR, Width::Word, 1)),
        ]);
        rig.fire(0);
        rig.expect_unmasked(EVENTS);
        rig.expect_all(EVENTS);
    });
}
