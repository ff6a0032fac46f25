// SPDX-License-Identifier: GPL-2.0-only
//! Interrupts against what unmaps them: afterwards they are pending nowhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use its_testkit::cmd;
use its_threads::rig::{DEVICE, EVENTS, FIRST, Job, job};
use its_threads::{Rig, explore};

fn fires(event: u32) -> Job {
    job(move |rig| {
        rig.fire(event);
    })
}

fn gone(rig: &Rig) {
    rig.expect_nothing();
    assert!(!rig.fire(0), "event 0 is still mapped");
    rig.expect_nothing();
}

#[test]
fn discard() {
    explore("delivery against DISCARD", || {
        let rig = Rig::new();
        rig.race([
            fires(0),
            job(|rig| rig.run_vcpu(0, 1)),
            job(|rig| rig.commands(&[cmd::discard(DEVICE, 0)])),
        ]);
        gone(&rig);
    });
}

#[test]
fn discard_in_a_list_register() {
    explore("DISCARD against delivery of what is in a list register", || {
        let rig = Rig::new();
        rig.fire(0);
        rig.cycle(0);
        rig.race([
            fires(0),
            job(|rig| rig.run_vcpu(0, 1)),
            job(|rig| rig.commands(&[cmd::discard(DEVICE, 0)])),
        ]);
        gone(&rig);
    });
}

#[test]
fn discard_after_movi() {
    explore("MOVI and DISCARD against delivery", || {
        let rig = Rig::new();
        rig.race([
            fires(0),
            job(|rig| rig.commands(&[cmd::movi(DEVICE, 0, 1), cmd::discard(DEVICE, 0)])),
        ]);
        gone(&rig);
    });
}

#[test]
fn discard_while_leaving() {
    explore("DISCARD against sync of what MOVI took from a list register", || {
        let rig = Rig::new();
        rig.fire(0);
        rig.cycle(0);
        rig.commands(&[cmd::movi(DEVICE, 0, 1)]);
        rig.race([job(|rig| rig.cycle(0)), job(|rig| rig.commands(&[cmd::discard(DEVICE, 0)]))]);
        gone(&rig);
    });
}

#[test]
fn discard_while_astray() {
    explore("DISCARD against sync of an LPI whose new collection is unmapped", || {
        let rig = Rig::new();
        rig.fire(0);
        rig.cycle(0);
        // Collection 9 never was mapped: nobody looks for LPIs astray yet.
        rig.commands(&[cmd::mapti(DEVICE, 0, FIRST, 9)]);
        rig.race([job(|rig| rig.cycle(0)), job(|rig| rig.commands(&[cmd::discard(DEVICE, 0)]))]);
        gone(&rig);
    });
}

#[test]
fn discard_while_inherited() {
    explore("DISCARD against sync of what MOVALL took from a list register", || {
        let rig = Rig::new();
        rig.fire(0);
        rig.cycle(0);
        rig.commands(&[cmd::movall(0, 1)]);
        rig.race([job(|rig| rig.cycle(0)), job(|rig| rig.commands(&[cmd::discard(DEVICE, 0)]))]);
        gone(&rig);
    });
}

#[test]
fn discard_while_movall() {
    explore("DISCARD on one virtual ITS against MOVALL on another", || {
        let rig = Rig::with(2, 2);
        rig.fire(0);
        rig.race([
            job(|rig| rig.commands_on(1, &[cmd::movall(0, 1)])),
            job(|rig| rig.commands(&[cmd::discard(DEVICE, 0)])),
        ]);
        gone(&rig);
    });
}

#[test]
fn discard_and_again() {
    explore("DISCARD, MAPTI and delivery against sync of the old LPI", || {
        let rig = Rig::new();
        rig.fire(0);
        rig.cycle(0);
        rig.race([
            job(|rig| {
                rig.commands(&[cmd::discard(DEVICE, 0), cmd::mapti(DEVICE, 0, FIRST, 0)]);
                assert!(rig.fire(0));
            }),
            job(|rig| rig.run_vcpu(0, 1)),
        ]);
        rig.expect_all(EVENTS);
    });
}

#[test]
fn clear_while_leaving() {
    explore("CLEAR against sync of what MOVI took from a list register", || {
        let rig = Rig::new();
        rig.fire(0);
        rig.cycle(0);
        rig.commands(&[cmd::movi(DEVICE, 0, 1)]);
        let cleared = Arc::new(AtomicBool::new(false));
        let before = Arc::new(AtomicBool::new(false));
        let (done, first) = (Arc::clone(&cleared), Arc::clone(&before));
        rig.race([
            job(move |rig| {
                first.store(cleared.load(Ordering::Relaxed), Ordering::Relaxed);
                rig.cycle(0);
            }),
            job(move |rig| {
                rig.commands(&[cmd::clear(DEVICE, 0)]);
                done.store(true, Ordering::Relaxed);
            }),
        ]);
        // On its way from one vCPU to the other CLEAR misses it: then it comes
        // as if it had fired right after. Before that CLEAR finds it.
        let most = usize::from(!before.load(Ordering::Relaxed));
        let taken = rig.drain();
        assert!(taken[0].is_empty() && taken[1].len() <= most, "{taken:?}");
        rig.expect_nothing();
        assert!(rig.fire(0));
        assert_eq!(rig.drain(), [vec![], vec![0]]);
    });
}

#[test]
fn mapd() {
    explore("delivery against MAPD V=0", || {
        let rig = Rig::new();
        rig.race([
            job(|rig| {
                rig.fire(0);
                rig.fire(1);
            }),
            job(|rig| rig.run_vcpu(0, 1)),
            job(|rig| rig.commands(&[cmd::unmapd(DEVICE)])),
        ]);
        gone(&rig);
    });
}

#[test]
fn mapc() {
    explore("delivery against MAPC V=0, then DISCARD", || {
        let rig = Rig::new();
        rig.fire(0);
        rig.race([
            fires(0),
            job(|rig| rig.run_vcpu(0, 1)),
            job(|rig| {
                rig.commands(&[cmd::unmapc(0)]);
                rig.commands(&[cmd::discard(DEVICE, 0)]);
            }),
        ]);
        gone(&rig);
    });
}

#[test]
fn mapti() {
    explore("delivery against MAPTI to another LPI", || {
        let rig = Rig::new();
        rig.race([fires(0), job(|rig| rig.commands(&[cmd::mapti(DEVICE, 0, FIRST + 7, 1)]))]);
        // As one of them, if it came after the old LPI was forgotten.
        let taken = rig.drain();
        assert!(taken[0].is_empty(), "the old LPI is pending: {taken:?}");
        assert!(taken[1].is_empty() || taken[1] == [7], "{taken:?}");
    });
}

#[test]
fn removal() {
    explore("delivery against removing the device", || {
        let rig = Rig::new();
        rig.race([fires(0), job(|rig| rig.run_vcpu(0, 1)), job(Rig::remove_device)]);
        assert_eq!(rig.host.lpis.in_use(), 0);
        gone(&rig);
    });
}

#[test]
fn destruction() {
    explore("delivery against destroying the domain", || {
        let rig = Rig::new();
        rig.fire(1);
        for vcpu in &rig.vcpus {
            vcpu.stop();
        }
        rig.race([
            job(|rig| {
                rig.fire(0);
                rig.fire(1);
            }),
            job(|rig| while rig.domain.relinquish(&rig.host) {}),
        ]);
        assert_eq!(rig.host.lpis.in_use(), 0);
        assert!(!rig.fire(0) && !rig.fire(1), "still mapped");
    });
}
