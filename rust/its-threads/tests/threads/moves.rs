// SPDX-License-Identifier: GPL-2.0-only
//! Interrupts against commands that change where they go: each interrupt
//! comes once, and after the move on its new vCPU.

use its_arch::Command;
use its_core::env::SLOTS;
use its_testkit::cmd;
use its_threads::rig::{DEVICE, EVENTS, PRIORITY, job};
use its_threads::{Rig, explore};

/// Event 1 is pending on vCPU 0 before, in a list register; event 0 comes
/// while `command` is executed, and vCPU 0 runs.
fn one_move(command: Command) {
    let rig = Rig::new();
    rig.fire(1);
    rig.cycle(0);
    rig.race([
        job(|rig| assert!(rig.fire(0))),
        job(|rig| rig.run_vcpu(0, 1)),
        job(move |rig| rig.commands(&[command])),
    ]);
    let taken = rig.expect_all(EVENTS);
    assert_eq!((rig.taken(0), rig.taken(1)), (1, 1));
    // Event 1 stays behind when it is not the one that moves.
    let moved = |event| matches!(command, Command::Movi { event: e, .. } if e.get() != event);
    assert!(taken[0].iter().all(|event| moved(*event)), "not moved: {taken:?}");
}

#[test]
fn movi() {
    explore("delivery against MOVI", || one_move(cmd::movi(DEVICE, 0, 1)));
}

#[test]
fn movi_from_a_list_register() {
    explore("delivery against MOVI of another LPI in a list register", || {
        one_move(cmd::movi(DEVICE, 1, 1));
    });
}

#[test]
fn mapc() {
    explore("delivery against MAPC", || one_move(cmd::mapc(0, 1)));
}

#[test]
fn movall() {
    explore("delivery against MOVALL", || {
        let rig = Rig::new();
        rig.fire(1);
        rig.cycle(0);
        rig.race([
            job(|rig| assert!(rig.fire(0))),
            job(|rig| rig.run_vcpu(0, 1)),
            job(|rig| rig.commands(&[cmd::movall(0, 1)])),
        ]);
        let taken = rig.expect_all(EVENTS);
        assert_eq!((rig.taken(0), rig.taken(1)), (1, 1));
        // What was pending before has gone; where event 0 is depends on which
        // came first.
        assert!(!taken[0].contains(&1), "not moved: {taken:?}");
    });
}

#[test]
fn mapc_carries_what_waits() {
    explore("MAPC against delivery of what it moves", || {
        let rig = Rig::new();
        // In a slot, in no list register.
        rig.fire(1);
        rig.race([job(|rig| assert!(rig.fire(1))), job(|rig| rig.commands(&[cmd::mapc(0, 1)]))]);
        let taken = rig.expect_all(EVENTS);
        assert_eq!(taken, [vec![], vec![1]]);
    });
}

/// More LPIs are pending on vCPU 0 than there are slots: `command`, which
/// moves them all to vCPU 1, takes them from the bitmaps, then from the slots.
/// Meanwhile one fires that is more urgent than all, of another collection of
/// vCPU 0's, and one that has left already.
fn many_moves(command: Command) {
    /// The urgent one.
    const URGENT: u32 = SLOTS as u32 + 2;
    let rig = Rig::new();
    rig.map(URGENT + 1);
    rig.set_property(URGENT, PRIORITY - 0x20, true);
    rig.commands(&[cmd::mapc(2, 0), cmd::movi(DEVICE, URGENT, 2)]);
    for event in 0..URGENT {
        assert!(rig.fire(event));
    }
    rig.race([
        job(|rig| assert!(rig.fire(URGENT) && rig.fire(URGENT - 1))),
        job(move |rig| rig.commands(&[command])),
    ]);
    // What MOVALL has moved fires where it is mapped.
    let last = if matches!(command, Command::Movall { .. }) { URGENT - 1 } else { URGENT };
    let taken = rig.expect_all(URGENT + 1);
    assert!(taken[0].iter().all(|event| *event >= last), "not moved: {taken:?}");
}

#[test]
fn mapc_of_many() {
    explore("delivery against MAPC of more LPIs than slots", || many_moves(cmd::mapc(0, 1)));
}

#[test]
fn movall_of_many() {
    explore("delivery against MOVALL of more LPIs than slots", || many_moves(cmd::movall(0, 1)));
}

/// An LPI leaves a list register of vCPU 0, as `there` sends it to vCPU 1, and
/// `back` brings it back at the same time.
fn there_and_back(there: Command, back: Command) {
    let rig = Rig::new();
    rig.fire(0);
    rig.cycle(0);
    rig.commands(&[there]);
    rig.race([job(|rig| rig.run_vcpu(0, 1)), job(move |rig| rig.commands(&[back]))]);
    let taken = rig.expect_all(EVENTS);
    assert_eq!(rig.taken(0), 1);
    assert!(taken[1].is_empty(), "left behind: {taken:?}");
}

#[test]
fn movi_there_and_back() {
    explore("MOVI there and back against sync", || {
        there_and_back(cmd::movi(DEVICE, 0, 1), cmd::movi(DEVICE, 0, 0));
    });
}

#[test]
fn movall_there_and_back() {
    explore("MOVALL there and back against sync", || {
        there_and_back(cmd::movall(0, 1), cmd::movall(1, 0));
    });
}

#[test]
fn movall_of_what_movi_sent() {
    explore("MOVALL against sync of what MOVI has moved there", || {
        there_and_back(cmd::movi(DEVICE, 0, 1), cmd::movall(1, 0));
    });
}

#[test]
fn movi_of_what_movall_sent() {
    explore("MOVI against sync of what MOVALL has moved elsewhere", || {
        let rig = Rig::with(3, 1);
        rig.fire(0);
        rig.cycle(0);
        rig.commands(&[cmd::movall(0, 1)]);
        rig.race([job(|rig| rig.cycle(0)), job(|rig| rig.commands(&[cmd::movi(DEVICE, 0, 2)]))]);
        assert_eq!(rig.expect_all(EVENTS), [vec![], vec![], vec![0]]);
    });
}

#[test]
fn mapc_of_what_movall_sent() {
    explore("MAPC against sync of what MOVALL has moved there", || {
        let rig = Rig::with(3, 1);
        rig.commands(&[cmd::movi(DEVICE, 0, 1)]);
        rig.fire(0);
        rig.commands(&[cmd::movall(1, 0)]);
        rig.settle();
        rig.commands(&[cmd::movall(0, 1)]);
        rig.race([job(|rig| rig.cycle(0)), job(|rig| rig.commands(&[cmd::mapc(1, 2)]))]);
        assert_eq!(rig.expect_all(EVENTS), [vec![], vec![], vec![0]]);
    });
}

#[test]
fn movall_leaves_what_movi_has_sent() {
    explore("MOVALL against a vCPU that goes off, of what MOVI has moved elsewhere", || {
        let rig = Rig::with(3, 1);
        rig.fire(0);
        rig.cycle(0);
        rig.commands(&[cmd::movi(DEVICE, 0, 2)]);
        rig.race([
            job(|rig| rig.vcpus[0].power_off(&rig.domain)),
            job(|rig| rig.commands(&[cmd::movall(0, 1)])),
        ]);
        rig.vcpus[0].power_on(&rig.domain);
        assert_eq!(rig.expect_all(EVENTS), [vec![], vec![], vec![0]]);
    });
}

#[test]
fn moves_of_two_queues() {
    explore("MOVI on one virtual ITS against MOVALL on another", || {
        let rig = Rig::with(2, 2);
        rig.fire(0);
        rig.race([
            job(|rig| rig.commands_on(1, &[cmd::movall(0, 1)])),
            job(|rig| rig.commands(&[cmd::movi(DEVICE, 0, 1)])),
            job(|rig| rig.run_vcpu(0, 1)),
        ]);
        let taken = rig.expect_all(EVENTS);
        assert_eq!(rig.taken(0), 1);
        assert!(taken[0].is_empty(), "not moved: {taken:?}");
    });
}
