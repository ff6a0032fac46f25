// SPDX-License-Identifier: GPL-2.0-only
//! Interrupts against commands that re-read what the guest set them to.

use its_arch::Command;
use its_arch::access::Width;
use its_arch::gicr::{GICR_INVALLR, GICR_INVLPIR};
use its_testkit::cmd;
use its_threads::explore;
use its_threads::rig::{DEVICE, EVENTS, FIRST, Job, PRIORITY, Rig, job};

type Reread = fn(&Rig);

/// A job that may begin with a change of a property.
fn ordered(work: impl FnOnce(&Rig) + Send + 'static) -> Job {
    job(|rig| {
        rig.step();
        work(rig);
    })
}

const INV: Reread = |rig| rig.commands(&[cmd::inv(DEVICE, 0)]);
const INVALL: Reread = |rig| rig.commands(&[cmd::invall(0)]);
const INVLPIR: Reread = |rig| rig.gicr_write(0, GICR_INVLPIR, Width::Double, FIRST.into());
const INVALLR: Reread = |rig| rig.gicr_write(0, GICR_INVALLR, Width::Double, 0);

/// Event 0 is pending, and disabled; it is enabled while `event` fires. That of
/// event 0 is one more edge, which may hide that the first was lost.
fn enabling(reread: Reread, event: u32) {
    let rig = Rig::new();
    rig.set_property(0, PRIORITY, false);
    rig.fire(0);
    rig.race([
        ordered(move |rig| assert!(rig.fire(event))),
        ordered(|rig| rig.run_vcpu(0, 1)),
        ordered(move |rig| {
            rig.set_property(0, PRIORITY, true);
            reread(rig);
        }),
    ]);
    rig.expect_all(EVENTS);
}

/// An LPI is in a list register; it is disabled while it fires again. It
/// stays pending until it is enabled.
fn disabling(reread: Reread) {
    let rig = Rig::new();
    rig.fire(0);
    rig.cycle(0);
    rig.race([
        ordered(|rig| assert!(rig.fire(0))),
        ordered(|rig| rig.run_vcpu(0, 1)),
        ordered(move |rig| {
            rig.set_property(0, PRIORITY, false);
            reread(rig);
        }),
    ]);
    rig.expect_nothing();
    rig.set_property(0, PRIORITY, true);
    INVALL(&rig);
    rig.expect_all(EVENTS);
}

#[test]
fn inv() {
    explore("delivery against INV, enabled", || enabling(INV, 0));
    explore("delivery of another LPI against INV, enabled", || enabling(INV, 1));
    explore("delivery against INV, disabled", || disabling(INV));
}

#[test]
fn invall() {
    explore("delivery against INVALL, enabled", || enabling(INVALL, 0));
    explore("delivery of another LPI against INVALL, enabled", || enabling(INVALL, 1));
    explore("delivery against INVALL, disabled", || disabling(INVALL));
}

#[test]
fn invlpir() {
    explore("delivery against GICR_INVLPIR, enabled", || enabling(INVLPIR, 0));
    explore("delivery of another LPI against GICR_INVLPIR, enabled", || enabling(INVLPIR, 1));
    explore("delivery against GICR_INVLPIR, disabled", || disabling(INVLPIR));
}

#[test]
fn invallr() {
    explore("delivery against GICR_INVALLR, enabled", || enabling(INVALLR, 0));
    explore("delivery of another LPI against GICR_INVALLR, enabled", || enabling(INVALLR, 1));
    explore("delivery against GICR_INVALLR, disabled", || disabling(INVALLR));
}

/// LPIs of vCPU 1 are enabled while they fire; one was pending before.
#[test]
fn enable_lpis() {
    explore("delivery against GICR_CTLR.EnableLPIs", || {
        let rig = Rig::build(2, 1, 1);
        rig.map(3);
        rig.commands(&[0, 1, 2].map(|event| cmd::movi(DEVICE, event, 1)));
        rig.race([
            ordered(|rig| {
                rig.fire(0);
                rig.fire(2);
            }),
            ordered(|rig| {
                rig.enable_lpis(1, &[2]);
                assert!(rig.fire(1));
            }),
            ordered(|rig| rig.run_vcpu(1, 1)),
        ]);
        let _taken = rig.drain();
        // What fires too early is ignored, what fires later is not; nor is
        // what the pending table says, once or with what fired on top of it.
        assert!(rig.taken(0) <= 1, "it fired once");
        assert_eq!(rig.taken(1), 1);
        assert!((1..=2).contains(&rig.taken(2)), "{}", rig.taken(2));
        rig.fire(0);
        assert_eq!(rig.drain(), [vec![], vec![0]]);
    });
}

#[test]
fn invall_against_movi() {
    explore("GICR_INVALLR against MOVI of an LPI that gets enabled", || {
        let rig = Rig::new();
        rig.set_property(0, PRIORITY, false);
        rig.fire(0);
        rig.set_property(0, PRIORITY, true);
        rig.race([ordered(|rig| rig.commands(&[cmd::movi(DEVICE, 0, 1)])), ordered(INVALLR)]);
        let taken = rig.expect_all(EVENTS);
        assert_eq!(taken, [vec![], vec![0]]);
    });
}

/// An LPI is pending, and disabled; it is enabled while another vCPU executes
/// `command`.
fn enabling_while_moved(command: Command) {
    let rig = Rig::new();
    rig.set_property(0, PRIORITY, false);
    rig.fire(0);
    rig.race([
        ordered(|rig| {
            rig.set_property(0, PRIORITY, true);
            INVLPIR(rig);
        }),
        ordered(move |rig| rig.commands(&[command])),
    ]);
    rig.expect_all(EVENTS);
}

#[test]
fn invlpir_against_moves() {
    explore("GICR_INVLPIR against MOVALL of an LPI that gets enabled", || {
        enabling_while_moved(cmd::movall(0, 1));
    });
    explore("GICR_INVLPIR against MAPC of an LPI that gets enabled", || {
        enabling_while_moved(cmd::mapc(0, 1));
    });
}

/// An LPI is in a list register of vCPU 0; it is disabled, and that vCPU leaves
/// the guest, while another one executes `command`, which takes it along.
fn disabling_while_moved(command: Command) {
    let rig = Rig::new();
    rig.fire(0);
    rig.cycle(0);
    rig.set_property(0, PRIORITY, false);
    rig.race([
        ordered(|rig| {
            INVLPIR(rig);
            rig.cycle(0);
        }),
        ordered(move |rig| rig.commands(&[command])),
    ]);
    expect_enabled_on_other(&rig);
}

/// The guest enables the LPI of event 0, which is pending: it comes on vCPU 1.
fn expect_enabled_on_other(rig: &Rig) {
    rig.settle();
    rig.set_property(0, PRIORITY, true);
    rig.commands(&[cmd::inv(DEVICE, 0)]);
    assert_eq!(rig.drain(), [vec![], vec![0]]);
}

#[test]
fn invlpir_of_what_moves_from_a_list_register() {
    explore("GICR_INVLPIR against MOVALL of an LPI that gets disabled", || {
        disabling_while_moved(cmd::movall(0, 1));
    });
    explore("GICR_INVLPIR against MAPC of an LPI that gets disabled", || {
        disabling_while_moved(cmd::mapc(0, 1));
    });
}

#[test]
fn mapc_takes_along_what_leaves_a_list_register_of_where_it_was() {
    explore("MAPC against sync of an LPI that its collection left behind", || {
        let rig = Rig::new();
        rig.fire(0);
        rig.cycle(0);
        rig.commands(&[cmd::unmapc(0)]);
        rig.set_property(0, PRIORITY, false);
        INVLPIR(&rig);
        rig.race([ordered(|rig| rig.cycle(0)), ordered(|rig| rig.commands(&[cmd::mapc(0, 1)]))]);
        expect_enabled_on_other(&rig);
    });
}
