// SPDX-License-Identifier: GPL-2.0-only
//! Everything that can happen to a pending LPI, in every place where one can
//! be.

use std::sync::Arc;

use its_arch::gicr::{GICR_INVALLR, GICR_INVLPIR};
use its_arch::gits::{GITS_CREADR, GITS_CWRITER};
use its_arch::{Command, Lpi};
use its_testkit::vcpu::Place;
use its_testkit::{Config, Machine, cmd, scaled};

use crate::jobs::ring;

/// The LPI in question: event 0 of device 5, in collection 0.
const LPI: u32 = 8192;
/// LPIs that keep all slots of vCPU 0 busy.
const FILLERS: u32 = scaled(16, 6);
const FIRST_FILLER: u32 = 9000;

/// Where the LPI is, all on vCPU 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Disabled, in the bitmap.
    Dormant,
    /// In the bitmap, as all slots are in use.
    Ready,
    /// In the bitmap, as the vCPU is in the guest.
    Fresh,
    /// In a list register, not taken.
    Pending,
    /// Taken by the guest. It is not pending.
    Active,
    /// Taken by the guest, and fired again; in the list register.
    ActivePending,
    /// Taken by the guest, and fired again; the vCPU has not left the guest
    /// since.
    ActiveAgain,
}

const ALL: &[At] = scaled(
    &[
        At::Dormant,
        At::Ready,
        At::Fresh,
        At::Pending,
        At::Active,
        At::ActivePending,
        At::ActiveAgain,
    ],
    &[At::Ready, At::ActiveAgain],
);
/// The same where there are many ways to do something.
const FEW: &[At] = scaled(ALL, &[At::ActiveAgain]);

impl At {
    fn pending(self) -> bool {
        self != At::Active
    }

    fn active(self) -> bool {
        matches!(self, At::Active | At::ActivePending | At::ActiveAgain)
    }

    /// A machine with the LPI there.
    fn machine(self) -> Machine {
        let m = Machine::booted(Config { id_bits: 14, ..Config::default() });
        m.enable(LPI);
        let mut commands = vec![cmd::mapd(5, 1), cmd::mapti(5, 0, LPI, 0), cmd::mapd(6, 5)];
        for event in 0..FILLERS {
            m.set_property(FIRST_FILLER + event, 0x10, true);
            commands.push(cmd::mapti(6, event, FIRST_FILLER + event, 0));
        }
        m.ok_all(&commands);
        let place = || m.vcpus[0].place(Lpi::new(LPI).expect("an LPI"));
        match self {
            At::Dormant => {
                m.disable(LPI);
                m.fire(5, 0);
                assert_eq!(m.stat("dormant"), 1);
            }
            At::Ready => {
                for event in 0..FILLERS {
                    m.fire(6, event);
                }
                m.fire(5, 0);
                m.settle();
                assert_eq!(place(), None);
                assert_eq!(m.stat("waiting"), u64::from(FILLERS) + 1 - 4);
            }
            At::Fresh => {
                m.fire(5, 0);
                assert_eq!(place(), None);
                assert_eq!(m.stat("waiting"), 1);
            }
            At::Pending => {
                m.fire(5, 0);
                m.settle();
                assert_eq!(place(), Some(Place { pending: true, active: false }));
            }
            At::Active => {
                m.fire(5, 0);
                m.settle();
                assert!(m.vcpus[0].ack().is_some());
                assert_eq!(place(), Some(Place { pending: false, active: true }));
            }
            At::ActivePending => {
                m.fire(5, 0);
                m.settle();
                assert!(m.vcpus[0].ack().is_some());
                m.fire(5, 0);
                m.settle();
                assert_eq!(place(), Some(Place { pending: true, active: true }));
            }
            At::ActiveAgain => {
                m.fire(5, 0);
                m.settle();
                assert!(m.vcpus[0].ack().is_some());
                m.fire(5, 0);
                assert_eq!(place(), Some(Place { pending: false, active: true }));
            }
        }
        m
    }

    /// The guest ends what it took, then takes the rest. What came of the LPI
    /// on either vCPU; the others must all come.
    fn outcome(self, m: &Machine) -> (usize, usize) {
        m.settle();
        if self.active() {
            m.vcpus[0].eoi(Lpi::new(LPI).expect("an LPI"));
            m.vcpus[0].cycle(&m.domain);
        }
        let fillers = if self == At::Ready { usize::try_from(FILLERS).expect("few") } else { 0 };
        let (first, second) = (m.drain(0), m.drain(1));
        let count = |all: &[u32]| all.iter().filter(|lpi| **lpi == LPI).count();
        let got = (count(&first), count(&second));
        assert_eq!(first.len() + second.len(), got.0 + got.1 + fillers, "{first:?} {second:?}");
        assert_eq!(m.stat("slots"), 0, "slots are left in use");
        assert_eq!(m.stat("waiting"), 0);
        got
    }

    /// Once, if the LPI is pending and enabled.
    fn once(self) -> usize {
        usize::from(self.pending() && self != At::Dormant)
    }
}

/// One of several ways for the guest to do something: its name, and how.
type Way = (&'static str, fn(&Machine));

/// Enable the LPI again, as a guest does.
fn enable(m: &Machine) {
    m.enable(LPI);
    m.ok(cmd::inv(5, 0));
}

// ---- Moves ----

#[test]
fn it_stays_if_nothing_happens() {
    for &at in ALL {
        let m = at.machine();
        assert_eq!(at.outcome(&m), (at.once(), 0), "{at:?}");
        enable(&m);
        assert_eq!(m.drain(0).len(), usize::from(at == At::Dormant), "{at:?}");
        m.destroy();
    }
}

#[test]
fn movi_takes_it_along() {
    for &at in ALL {
        let m = at.machine();
        m.ok(cmd::movi(5, 0, 1));
        assert_eq!(at.outcome(&m), (0, at.once()), "{at:?}");
        enable(&m);
        let late = usize::from(at == At::Dormant);
        assert_eq!((m.drain(0).len(), m.drain(1).len()), (0, late), "{at:?}");
        m.fire(5, 0);
        m.expect(&[], &[LPI]);
        m.destroy();
    }
}

#[test]
fn movi_while_the_guest_handles_it() {
    for at in ALL.iter().copied().filter(|at| at.active()) {
        let m = at.machine();
        m.ok(cmd::movi(5, 0, 1));
        // The new vCPU takes the next one before the old one is done.
        m.fire(5, 0);
        assert_eq!(m.drain(1), [LPI], "{at:?}");
        assert_eq!(at.outcome(&m), (0, 0), "{at:?}");
        m.destroy();
    }
}

#[test]
fn movi_to_and_fro() {
    for &at in ALL {
        let m = at.machine();
        m.ok_all(&[cmd::movi(5, 0, 1), cmd::movi(5, 0, 0)]);
        assert_eq!(at.outcome(&m), (at.once(), 0), "{at:?}");
        let m2 = at.machine();
        m2.ok(cmd::movi(5, 0, 1));
        m2.settle();
        m2.ok(cmd::movi(5, 0, 0));
        m2.settle();
        m2.ok(cmd::movi(5, 0, 1));
        assert_eq!(at.outcome(&m2), (0, at.once()), "{at:?}");
    }
}

#[test]
fn movi_and_it_fires_before_the_old_vcpu_has_looked() {
    for at in ALL.iter().copied().filter(|at| *at != At::Dormant) {
        let m = at.machine();
        m.ok(cmd::movi(5, 0, 1));
        m.fire(5, 0);
        // One that was pending, one that is new: they may merge, or not if
        // the first is not taken back in time.
        let (old, new) = at.outcome(&m);
        assert_eq!(old, 0, "{at:?}");
        assert_eq!(new, 1, "{at:?}");
        m.destroy();
    }
}

#[test]
fn the_guest_takes_it_before_the_move_is_noticed() {
    let m = At::Pending.machine();
    m.ok(cmd::movi(5, 0, 1));
    // The vCPU is in the guest, and the guest is quicker than the kick.
    let lpi = m.vcpus[0].ack().expect("in a list register");
    m.settle();
    m.vcpus[0].eoi(lpi);
    m.expect(&[], &[]);
    m.fire(5, 0);
    m.expect(&[], &[LPI]);
    m.destroy();
    // It may even be done.
    let m = At::Pending.machine();
    m.ok(cmd::movi(5, 0, 1));
    let lpi = m.vcpus[0].ack().expect("in a list register");
    m.vcpus[0].eoi(lpi);
    m.expect(&[], &[]);
    m.fire(5, 0);
    m.expect(&[], &[LPI]);
    m.destroy();
}

#[test]
fn mapc_takes_it_along() {
    for &at in ALL {
        let m = at.machine();
        m.ok(cmd::mapc(0, 1));
        assert_eq!(at.outcome(&m), (0, at.once()), "{at:?}");
        enable(&m);
        let late = usize::from(at == At::Dormant);
        assert_eq!((m.drain(0).len(), m.drain(1).len()), (0, late), "{at:?}");
        m.fire(5, 0);
        m.expect(&[], &[LPI]);
        m.destroy();
    }
}

#[test]
fn mapc_of_another_collection_leaves_it() {
    for &at in ALL {
        let m = at.machine();
        m.ok_all(&[cmd::mapc(7, 0), cmd::mapc(7, 1)]);
        assert_eq!(at.outcome(&m), (at.once(), 0), "{at:?}");
        m.destroy();
    }
}

#[test]
fn movall_takes_it_along_and_leaves_its_mapping() {
    for &at in ALL {
        let m = at.machine();
        m.ok(cmd::movall(0, 1));
        assert_eq!(at.outcome(&m), (0, at.once()), "{at:?}");
        if at != At::Dormant {
            m.fire(5, 0);
            m.expect(&[LPI], &[]);
        }
        m.destroy();
    }
}

#[test]
fn movall_and_mapc_as_a_guest_uses_them() {
    for mapc_first in [true, false] {
        for &at in ALL {
            let m = at.machine();
            let mut commands = vec![cmd::mapc(0, 1), cmd::movall(0, 1)];
            if !mapc_first {
                commands.reverse();
            }
            m.ok_all(&commands);
            assert_eq!(at.outcome(&m), (0, at.once()), "{at:?}");
            enable(&m);
            let late = usize::from(at == At::Dormant);
            assert_eq!((m.drain(0).len(), m.drain(1).len()), (0, late), "{at:?}");
            m.fire(5, 0);
            m.expect(&[], &[LPI]);
            m.destroy();
        }
    }
}

#[test]
fn movall_there_and_back() {
    for &at in ALL {
        let m = at.machine();
        m.ok(cmd::movall(0, 1));
        m.settle();
        m.ok(cmd::movall(1, 0));
        assert_eq!(at.outcome(&m), (at.once(), 0), "{at:?}");
        enable(&m);
        assert_eq!(m.drain(0).len(), usize::from(at == At::Dormant), "{at:?}");
        m.destroy();
    }
}

#[test]
fn movall_there_and_back_before_either_vcpu_has_looked() {
    for &at in ALL {
        let m = at.machine();
        m.ok(cmd::movall(0, 1));
        m.ok(cmd::movall(1, 0));
        assert_eq!(at.outcome(&m), (at.once(), 0), "{at:?}");
        let m = at.machine();
        m.ok(cmd::movall(0, 1));
        m.ok(cmd::movall(1, 0));
        m.ok(cmd::movall(0, 1));
        assert_eq!(at.outcome(&m), (0, at.once()), "{at:?}");
    }
}

#[test]
fn movall_takes_what_mapc_has_just_brought() {
    for &at in ALL {
        let m = at.machine();
        m.ok(cmd::mapc(0, 1));
        m.ok(cmd::movall(1, 0));
        assert_eq!(at.outcome(&m), (at.once(), 0), "{at:?}");
    }
}

#[test]
fn after_movall_every_other_command_still_finds_it() {
    for (command, gone) in [
        (cmd::clear(5, 0), true),
        (cmd::discard(5, 0), true),
        (cmd::unmapd(5), true),
        (cmd::movi(5, 0, 1), false),
        (cmd::mapc(0, 1), false),
    ] {
        for &at in FEW {
            let m = at.machine();
            m.ok(cmd::movall(0, 1));
            m.ok(command);
            let want = if gone { (0, 0) } else { (0, at.once()) };
            assert_eq!(at.outcome(&m), want, "{at:?} {command:?}");
            m.destroy();
        }
    }
}

#[test]
fn what_moves_to_where_it_is_is_left_alone() {
    for &at in ALL {
        let m = at.machine();
        let before = (m.stat("evicted"), m.vcpus[0].counts());
        m.ok_all(&[cmd::movall(0, 0), cmd::movi(5, 0, 0), cmd::mapc(0, 0)]);
        assert_eq!((m.stat("evicted"), m.vcpus[0].counts()), before, "{at:?}");
        assert_eq!(at.outcome(&m), (at.once(), 0), "{at:?}");
        m.destroy();
    }
}

// ---- Taken away ----

#[test]
fn clear_forgets_it() {
    for &at in ALL {
        let m = at.machine();
        m.ok(cmd::clear(5, 0));
        assert_eq!(at.outcome(&m), (0, 0), "{at:?}");
        enable(&m);
        m.expect(&[], &[]);
        m.fire(5, 0);
        m.expect(&[LPI], &[]);
        m.destroy();
    }
}

#[test]
fn clear_and_it_fires_again_before_the_vcpu_has_looked() {
    for at in ALL.iter().copied().filter(|at| *at != At::Dormant) {
        let m = at.machine();
        m.ok_all(&[cmd::clear(5, 0), cmd::int(5, 0)]);
        assert_eq!(at.outcome(&m), (1, 0), "{at:?}");
        m.destroy();
    }
}

/// The ways to unmap the event for good.
fn unmappers() -> Vec<Way> {
    vec![
        ("DISCARD", |m| m.ok(cmd::discard(5, 0))),
        ("MAPD V=0", |m| m.ok(cmd::unmapd(5))),
        ("MAPD", |m| m.ok(cmd::mapd(5, 5))),
        ("MAPTI to another LPI", |m| {
            m.ok(cmd::mapti(5, 0, 8300, 0));
        }),
        ("GITS_BASER0", |m| {
            m.w32(0, 0);
            m.w64(its_arch::gits::GITS_BASER, 0);
            m.w64(its_arch::gits::GITS_BASER, Machine::baser(8).into());
            m.w32(0, 1);
        }),
        ("remove", |m| {
            m.add_device(5, 2).expect("only marks it");
            m.remove_device(5).expect("announced");
        }),
    ]
}

#[test]
fn unmapping_forgets_it() {
    for (how, unmap) in unmappers() {
        for &at in FEW {
            let m = at.machine();
            unmap(&m);
            // Which takes the fillers with it in one case.
            let got = if how == "GITS_BASER0" {
                m.settle();
                if at.active() {
                    m.vcpus[0].eoi(Lpi::new(LPI).expect("an LPI"));
                }
                m.expect(&[], &[]);
                (0, 0)
            } else {
                at.outcome(&m)
            };
            assert_eq!(got, (0, 0), "{how} {at:?}");
            m.check();
            m.destroy();
        }
    }
}

#[test]
fn unmapping_and_mapping_anew_before_the_vcpu_has_looked() {
    for (how, unmap) in unmappers() {
        for &at in FEW {
            for &collection in scaled(&[0, 1][..], &[1]) {
                let m = at.machine();
                unmap(&m);
                m.enable(LPI);
                m.ok_all(&[cmd::mapd(5, 5), cmd::mapti(5, 0, LPI, collection), cmd::int(5, 0)]);
                m.settle();
                if at.active() {
                    m.vcpus[0].eoi(Lpi::new(LPI).expect("an LPI"));
                }
                let mine = |vcpu| m.drain(vcpu).into_iter().filter(|lpi| *lpi == LPI).count();
                let want = if collection == 0 { (1, 0) } else { (0, 1) };
                assert_eq!((mine(0), mine(1)), want, "{how} {at:?} {collection}");
                m.destroy();
            }
        }
    }
}

#[test]
fn what_a_slot_carried_before_does_not_matter() {
    // CLEAR while in a list register, then another LPI in the same slot.
    let m = At::Pending.machine();
    m.ok(cmd::clear(5, 0));
    m.expect(&[], &[]);
    m.fire(6, 3);
    m.settle();
    m.ok(cmd::movi(6, 3, 1));
    m.expect(&[], &[FIRST_FILLER + 3]);
    m.destroy();
}

#[test]
fn an_lpi_on_its_way_to_another_vcpu_is_found() {
    for away in [cmd::movi(5, 0, 1), cmd::mapc(0, 1)] {
        for &at in ALL {
            let m = at.machine();
            m.ok_all(&[away, cmd::clear(5, 0)]);
            assert_eq!(at.outcome(&m), (0, 0), "{at:?} {away:?}");
            let m = at.machine();
            m.enable(LPI);
            m.ok_all(&[away, cmd::discard(5, 0), cmd::mapti(5, 0, LPI, 1)]);
            assert_eq!(at.outcome(&m), (0, 0), "{at:?} {away:?}");
        }
    }
}

#[test]
fn a_shared_lpi_whose_collection_is_unmapped_is_found() {
    for &at in ALL {
        let m = at.machine();
        m.ok_all(&[
            // The LPI's collection is one that was never mapped.
            cmd::mapti(6, 0, LPI, 9),
            cmd::discard(6, 0),
            cmd::discard(5, 0),
        ]);
        m.settle();
        if at.active() {
            m.vcpus[0].eoi(Lpi::new(LPI).expect("an LPI"));
        }
        let mine = m.drain(0).into_iter().filter(|lpi| *lpi == LPI).count();
        assert_eq!(mine, 0, "{at:?}");
        m.destroy();
    }
}

// ---- Disabled and enabled ----

/// The ways to tell that a property changed.
fn invalidators() -> Vec<Way> {
    vec![
        ("INV", |m| m.ok(cmd::inv(5, 0))),
        ("INVALL", |m| m.ok(cmd::invall(0))),
        ("GICR_INVLPIR", |m| m.gicr_w64(0, GICR_INVLPIR, LPI.into())),
        ("GICR_INVALLR", |m| m.gicr_w64(0, GICR_INVALLR, 0)),
        ("MAPTI", |m| m.ok(cmd::mapti(5, 0, LPI, 0))),
    ]
}

#[test]
fn a_disabled_lpi_stays_pending_until_it_is_enabled() {
    for (how, invalidate) in invalidators() {
        for &at in FEW {
            let m = at.machine();
            m.disable(LPI);
            invalidate(&m);
            assert_eq!(at.outcome(&m), (0, 0), "{how} {at:?}");
            // It fires while it is disabled: still one.
            for _ in 0..3 {
                m.fire(5, 0);
            }
            m.expect(&[], &[]);
            m.enable(LPI);
            m.expect(&[], &[]);
            invalidate(&m);
            m.expect(&[LPI], &[]);
            invalidate(&m);
            m.expect(&[], &[]);
            m.destroy();
        }
    }
}

#[test]
fn disabled_and_enabled_before_the_vcpu_has_looked() {
    for (how, invalidate) in invalidators() {
        for at in FEW.iter().copied().filter(|at| *at != At::Dormant) {
            let m = at.machine();
            m.disable(LPI);
            invalidate(&m);
            m.enable(LPI);
            invalidate(&m);
            assert_eq!(at.outcome(&m), (at.once(), 0), "{how} {at:?}");
            m.destroy();
        }
    }
}

/// It has fired again since it was disabled, when it has to leave its list register.
#[test]
fn disabled_and_fired_before_it_steps_back() {
    let leave: [Way; 2] = [
        ("off and on", |m| {
            m.vcpus[0].power_off(&m.domain);
            m.vcpus[0].power_on(&m.domain);
        }),
        ("for others", |m| {
            for _ in 0..4 {
                m.vcpus[0].raise_other(0x20);
            }
            m.vcpus[0].cycle(&m.domain);
        }),
    ];
    for (why, leave) in leave {
        let m = At::Pending.machine();
        m.disable(LPI);
        m.fire(5, 0);
        leave(&m);
        assert_eq!((m.stat("waiting"), m.stat("dormant"), m.stat("slots")), (0, 1, 0), "{why}");
        m.expect(&[], &[]);
        enable(&m);
        m.expect(&[LPI], &[]);
        m.destroy();
    }
}

/// It fires while it is disabled, and the guest handles it: the list register is told once
/// the vCPU leaves the guest.
#[test]
fn enabled_while_the_guest_handles_it_and_the_vcpu_is_told() {
    let m = At::Active.machine();
    m.disable(LPI);
    m.fire(5, 0);
    assert!(!m.vcpus[0].kicked());
    m.enable(LPI);
    m.ok(cmd::inv(5, 0));
    assert!(m.vcpus[0].kicked());
    m.settle();
    m.vcpus[0].eoi(Lpi::new(LPI).expect("an LPI"));
    m.expect(&[LPI], &[]);
    m.destroy();
}

#[test]
fn disabled_moved_and_enabled() {
    for &at in ALL {
        let m = at.machine();
        m.disable(LPI);
        m.ok_all(&[cmd::inv(5, 0), cmd::movi(5, 0, 1)]);
        assert_eq!(at.outcome(&m), (0, 0), "{at:?}");
        enable(&m);
        let want: &[u32] = if at.pending() { &[LPI] } else { &[] };
        m.expect(&[], want);
        m.destroy();
    }
}

/// Its property may change there, and back: it stays where MOVALL took it.
#[test]
fn moved_by_movall_then_disabled_and_enabled() {
    let all_look = |m: &Machine| {
        m.gicr_w64(0, GICR_INVALLR, 0);
        m.gicr_w64(1, GICR_INVALLR, 0);
    };
    let inv = |m: &Machine| m.ok(cmd::inv(5, 0));
    let lookers: [&dyn Fn(&Machine); 2] = [&all_look, &inv];
    for look in lookers {
        for settled in [false, true] {
            let m = At::Pending.machine();
            m.ok(cmd::movall(0, 1));
            m.vcpus[0].exit(&m.domain);
            m.vcpus[0].enter(&m.domain);
            if settled {
                m.settle();
            }
            m.disable(LPI);
            look(&m);
            m.expect(&[], &[]);
            assert_eq!(m.stat("dormant"), 1);
            m.enable(LPI);
            look(&m);
            m.expect(&[], &[LPI]);
            m.destroy();
        }
    }
}

#[test]
fn disabled_and_cleared() {
    for &at in ALL {
        let m = at.machine();
        m.disable(LPI);
        m.ok_all(&[cmd::inv(5, 0), cmd::clear(5, 0)]);
        assert_eq!(at.outcome(&m), (0, 0), "{at:?}");
        enable(&m);
        m.expect(&[], &[]);
        m.destroy();
    }
}

#[test]
fn a_disable_that_nobody_is_told_of_takes_effect_where_it_is_cheap() {
    // Without INV the guest cannot rely on anything, but nothing is lost.
    for &at in ALL {
        let m = at.machine();
        m.disable(LPI);
        let (first, second) = at.outcome(&m);
        assert!(first <= at.once() && second == 0, "{at:?}");
        enable(&m);
        let late = m.drain(0).len();
        assert_eq!(first + late, usize::from(at.pending()), "{at:?}");
        m.destroy();
    }
}

// ---- vCPUs off and on ----

/// A vCPU goes off in the way that Xen does it, or stops with its list
/// registers as they are.
fn off(m: &Machine, clean: bool) {
    if clean {
        m.vcpus[0].power_off(&m.domain);
    } else {
        m.vcpus[0].stop(&m.domain);
    }
}

/// How often the guest takes the LPI on a vCPU.
fn mine(m: &Machine, vcpu: usize) -> usize {
    m.drain(vcpu).into_iter().filter(|lpi| *lpi == LPI).count()
}

/// Every place, for a vCPU that goes off in either way.
fn places_of_off() -> impl Iterator<Item = (At, bool)> {
    ALL.iter().flat_map(|&at| [(at, true), (at, false)]).step_by(scaled(1, 3))
}

#[test]
fn off_and_on_keeps_it() {
    for (at, clean) in places_of_off() {
        let m = at.machine();
        off(&m, clean);
        m.expect(&[], &[]);
        m.vcpus[0].power_on(&m.domain);
        let got = m.drain(0);
        let mine = got.iter().filter(|lpi| **lpi == LPI).count();
        assert_eq!(mine, at.once(), "{at:?} {clean}");
        let fillers = if at == At::Ready { usize::try_from(FILLERS).expect("few") } else { 0 };
        assert_eq!(got.len() - mine, fillers, "{at:?} {clean}");
        enable(&m);
        assert_eq!(m.drain(0).len(), usize::from(at == At::Dormant), "{at:?} {clean}");
        m.fire(5, 0);
        m.expect(&[LPI], &[]);
        assert_eq!(m.stat("slots"), 0);
        m.destroy();
    }
}

#[test]
fn it_fires_while_the_vcpu_is_off() {
    for (at, clean) in places_of_off().filter(|(at, _)| *at != At::Dormant) {
        let m = at.machine();
        off(&m, clean);
        m.fire(5, 0);
        m.fire(5, 0);
        m.vcpus[0].power_on(&m.domain);
        assert_eq!(mine(&m, 0), 1, "{at:?} {clean}");
        m.destroy();
    }
}

#[test]
fn moved_away_from_a_vcpu_that_is_off_and_looked_at_before_it_is_on() {
    let m = At::Pending.machine();
    off(&m, false);
    m.ok(cmd::movi(5, 0, 1));
    m.vcpus[0].power_on(&m.domain);
    assert_eq!(m.stat("dormant"), 1);
    m.gicr_w64(0, GICR_INVALLR, 0);
    m.expect(&[], &[LPI]);
    m.destroy();
}

#[test]
fn moved_away_from_a_vcpu_that_is_off() {
    for (at, clean) in places_of_off() {
        for mover in [cmd::movi(5, 0, 1), cmd::mapc(0, 1), cmd::movall(0, 1)] {
            let m = at.machine();
            off(&m, clean);
            m.ok(mover);
            // What is in a list register of a vCPU that stopped can only be
            // had when it is on again.
            let early = mine(&m, 1);
            if clean || matches!(at, At::Ready | At::Fresh) {
                assert_eq!(early, at.once(), "{at:?} {clean} {mover:?}");
            }
            m.vcpus[0].power_on(&m.domain);
            m.settle();
            assert_eq!(mine(&m, 0), 0, "{at:?} {clean} {mover:?}");
            assert_eq!(early + mine(&m, 1), at.once(), "{at:?} {clean} {mover:?}");
            if !matches!(mover, Command::Movall { .. }) && at != At::Dormant {
                m.fire(5, 0);
                m.settle();
                assert_eq!((mine(&m, 0), mine(&m, 1)), (0, 1), "{at:?}");
            }
            m.destroy();
        }
    }
}

#[test]
fn cleared_on_a_vcpu_that_is_off() {
    for (at, clean) in places_of_off() {
        for commands in [vec![cmd::clear(5, 0)], vec![cmd::movi(5, 0, 1), cmd::clear(5, 0)]] {
            // While it is off, or as it comes on.
            for late in [false, true] {
                let m = at.machine();
                off(&m, clean);
                let (last, first) = commands.split_last().expect("at least one");
                m.ok_all(first);
                if !late {
                    m.ok(*last);
                }
                m.vcpus[0].power_on(&m.domain);
                if late {
                    m.ok(*last);
                }
                enable(&m);
                let got = (mine(&m, 0), mine(&m, 1));
                assert_eq!(got, (0, 0), "{at:?} {clean} {commands:?} {late}");
            }
        }
    }
}

#[test]
fn disabled_on_a_vcpu_that_is_off() {
    for (at, clean) in places_of_off() {
        let m = at.machine();
        off(&m, clean);
        m.disable(LPI);
        m.ok(cmd::inv(5, 0));
        m.vcpus[0].power_on(&m.domain);
        assert_eq!(mine(&m, 0), 0, "{at:?} {clean}");
        enable(&m);
        assert_eq!(mine(&m, 0), usize::from(at.pending()), "{at:?} {clean}");
        m.destroy();
    }
}

// ---- While another CPU delivers it ----

/// The guest does something right after its-core has looked up where an LPI
/// goes, and before it has the lock of that vCPU.
#[test]
fn the_guest_changes_its_mind_while_an_interrupt_is_on_its_way() {
    let cases: [(Command, &[u32], &[u32]); 6] = [
        (cmd::movi(5, 0, 1), &[], &[LPI]),
        (cmd::mapc(0, 1), &[], &[LPI]),
        (cmd::mapti(5, 0, LPI, 1), &[], &[LPI]),
        (cmd::discard(5, 0), &[], &[]),
        (cmd::unmapd(5), &[], &[]),
        (cmd::unmapc(0), &[], &[]),
    ];
    for (command, first, second) in cases {
        let m = Arc::new(Machine::booted(Config { id_bits: 14, ..Config::default() }));
        m.map(5, 1, LPI);
        let other = Arc::clone(&m);
        m.vcpus[0].before_lock(move || other.ok(command));
        m.fire(5, 0);
        m.expect(first, second);
        // And nothing is left where it was going to be.
        m.ok_all(&[cmd::mapc(0, 0), cmd::mapd(5, 1), cmd::mapti(5, 0, LPI, 0)]);
        m.gicr_w64(0, GICR_INVALLR, 0);
        m.gicr_w64(1, GICR_INVALLR, 0);
        m.expect(&[], &[]);
        m.fire(5, 0);
        m.expect(&[LPI], &[]);
    }
}

/// Right before the lock of a vCPU is taken, having been taken `n` times from
/// now on, the guest executes `command` on another CPU, unless that waits for
/// the vCPU.
fn before_lock(m: &Arc<Machine>, vcpu: usize, n: u32, command: Command) {
    let other = Arc::clone(m);
    m.vcpus[vcpu].before_lock(move || match n {
        0 => {
            let _done =
                !ring(&other, &[command]) || (0..100).any(|_step| !other.domain.work(&other.host));
        }
        _ => before_lock(&other, vcpu, n - 1, command),
    });
}

/// The same while it leaves a list register, and goes where it belongs: the
/// last of these commands.
#[test]
fn the_guest_changes_its_mind_while_an_lpi_leaves_a_list_register() {
    let cases: [(&[Command], &[u32], &[u32]); 8] = [
        (&[cmd::movi(5, 0, 1)], &[], &[LPI]),
        (&[cmd::mapc(0, 1)], &[], &[LPI]),
        (&[cmd::discard(5, 0)], &[], &[]),
        (&[cmd::unmapc(0)], &[LPI], &[]),
        (&[cmd::unmapc(0), cmd::mapc(0, 0)], &[LPI], &[]),
        (&[cmd::unmapc(0), cmd::mapc(0, 1)], &[], &[LPI]),
        (&[cmd::unmapc(0), cmd::discard(5, 0)], &[], &[]),
        (&[cmd::movall(0, 1), cmd::discard(5, 0)], &[], &[]),
    ];
    for (commands, first, second) in cases {
        let (command, before) = commands.split_last().expect("one at least");
        let locks = (0..6).map(|n| (0, n)).chain((0..2).map(|n| (1, n)));
        for (vcpu, n) in locks.skip(scaled(0, 2)).step_by(scaled(1, 5)) {
            let m = Arc::new(Machine::booted(Config { id_bits: 14, ..Config::default() }));
            m.map(5, 1, LPI);
            m.fire(5, 0);
            m.settle();
            // It is to leave, and is enabled again by then.
            m.disable(LPI);
            m.ok(cmd::inv(5, 0));
            m.enable(LPI);
            m.ok_all(before);
            let queued = m.r64(GITS_CWRITER);
            before_lock(&m, vcpu, n, *command);
            m.vcpus[0].cycle(&m.domain);
            m.vcpus[vcpu].before_lock(|| ());
            m.work();
            if m.r64(GITS_CWRITER) == queued {
                // The lock was not taken so often.
                m.ok(*command);
            }
            m.expect(first, second);
            // Nothing is left where it was, or was going to be.
            m.ok_all(&[cmd::mapc(0, 0), cmd::mapti(5, 0, LPI, 0)]);
            m.gicr_w64(0, GICR_INVALLR, 0);
            m.gicr_w64(1, GICR_INVALLR, 0);
            m.expect(&[], &[]);
            m.fire(5, 0);
            m.expect(&[LPI], &[]);
        }
    }
}

/// MOVALL, and MOVALL back while its vCPU goes off.
#[test]
fn movall_finds_what_leaves_a_vcpu_that_goes_off() {
    for n in scaled(0, 2)..scaled(4, 3) {
        let config = Config { vcpus: 3, id_bits: 14, ..Config::default() };
        let m = Arc::new(Machine::booted(config));
        m.map(5, 3, LPI);
        for event in 0..3 {
            m.fire(5, event);
        }
        m.settle();
        // One is disabled, and goes along; one leaves as well, but for vCPU 2.
        m.disable(LPI + 1);
        m.ok_all(&[cmd::inv(5, 1), cmd::movi(5, 2, 2), cmd::movall(0, 1)]);
        let queued = m.r64(GITS_CWRITER);
        before_lock(&m, 0, n, cmd::movall(1, 0));
        m.vcpus[0].power_off(&m.domain);
        m.vcpus[0].before_lock(|| ());
        m.work();
        if m.r64(GITS_CWRITER) == queued {
            m.ok(cmd::movall(1, 0));
        }
        assert_eq!(m.drain(2), [LPI + 2]);
        m.expect(&[], &[]);
        m.vcpus[0].power_on(&m.domain);
        m.expect(&[LPI], &[]);
        m.enable(LPI + 1);
        m.ok(cmd::inv(5, 1));
        m.expect(&[LPI + 1], &[]);
    }
}

/// MOVALL back while what the first one took from a list register is in nobody's hands: it waits
/// until that has arrived.
#[test]
fn movall_back_waits_for_what_is_between_two_vcpus() {
    let cases: [(Option<Command>, &[u32], &[u32]); 6] = [
        (None, &[LPI], &[]),
        (Some(cmd::movall(0, 1)), &[], &[LPI]),
        (Some(cmd::movi(5, 0, 1)), &[], &[LPI]),
        (Some(cmd::movi(5, 0, 0)), &[LPI], &[]),
        (Some(cmd::clear(5, 0)), &[], &[]),
        (Some(cmd::discard(5, 0)), &[], &[]),
    ];
    for (after, first, second) in cases {
        let m = Arc::new(At::Pending.machine());
        m.ok(cmd::movall(0, 1));
        before_lock(&m, 1, 0, cmd::movall(1, 0));
        let read = m.r64(GITS_CREADR);
        m.vcpus[0].cycle(&m.domain);
        assert_eq!(m.r64(GITS_CREADR), read, "it has not waited");
        assert_ne!(m.r64(GITS_CWRITER), read, "nothing left a list register");
        m.work();
        if let Some(after) = after {
            m.ok(after);
        }
        m.expect(first, second);
    }
}

// ---- Collections that come and go ----

#[test]
fn an_lpi_of_an_unmapped_collection_stays_where_it_is_pending() {
    for &at in ALL {
        let m = at.machine();
        m.ok(cmd::unmapc(0));
        assert_eq!(at.outcome(&m), (at.once(), 0), "{at:?}");
        m.destroy();
    }
}

#[test]
fn an_unmapped_collection_loses_nothing_that_is_disabled() {
    for &at in ALL {
        let m = at.machine();
        m.ok(cmd::unmapc(0));
        m.disable(LPI);
        m.gicr_w64(0, GICR_INVALLR, 0);
        assert_eq!(at.outcome(&m), (0, 0), "{at:?}");
        m.enable(LPI);
        m.gicr_w64(0, GICR_INVALLR, 0);
        let want: &[u32] = if at.pending() { &[LPI] } else { &[] };
        m.expect(want, &[]);
        m.destroy();
    }
}

#[test]
fn a_collection_unmapped_and_mapped_elsewhere_loses_nothing() {
    for &at in ALL {
        let m = at.machine();
        m.ok_all(&[cmd::unmapc(0), cmd::mapc(0, 1)]);
        let (first, second) = at.outcome(&m);
        enable(&m);
        let late = m.drain(0).len() + m.drain(1).len();
        assert_eq!(first + second + late, usize::from(at.pending()), "{at:?}");
        m.fire(5, 0);
        m.expect(&[], &[LPI]);
        m.destroy();
    }
}

#[test]
fn a_move_to_a_collection_that_is_unmapped_before_the_vcpu_has_looked() {
    for &at in ALL {
        let m = at.machine();
        m.ok_all(&[cmd::movi(5, 0, 1), cmd::unmapc(1)]);
        let (first, second) = at.outcome(&m);
        m.ok(cmd::mapc(1, 1));
        enable(&m);
        let late = m.drain(0).len() + m.drain(1).len();
        assert_eq!(first + second + late, usize::from(at.pending()), "{at:?}");
        m.destroy();
    }
}

#[test]
fn an_event_of_an_unmapped_collection_is_unmapped_with_what_is_pending() {
    for &at in ALL {
        let m = at.machine();
        m.ok_all(&[cmd::unmapc(0), cmd::discard(5, 0)]);
        assert_eq!(at.outcome(&m), (0, 0), "{at:?}");
        m.destroy();
    }
}

// ---- Two steps at once ----

/// Any two commands in a row, in every place, with and without the vCPU
/// having looked in between: the LPI comes at most once, on the vCPU that it
/// belongs to, and slots are never lost.
#[test]
fn pairs_of_commands() {
    let commands: Vec<Command> = vec![
        cmd::movi(5, 0, 0),
        cmd::movi(5, 0, 1),
        cmd::mapc(0, 0),
        cmd::mapc(0, 1),
        cmd::mapc(1, 0),
        cmd::movall(0, 1),
        cmd::movall(1, 0),
        cmd::discard(5, 0),
        cmd::clear(5, 0),
        cmd::int(5, 0),
        cmd::inv(5, 0),
        cmd::invall(0),
        cmd::mapti(5, 0, LPI, 0),
        cmd::mapti(5, 0, LPI, 1),
        cmd::unmapd(5),
        cmd::unmapc(0),
    ];
    for &at in FEW {
        let commands = scaled(&commands[..], &commands[..2]);
        for first in commands {
            for second in commands {
                for look in [false, true] {
                    let m = at.machine();
                    let _errors = m.run_on(0, &[*first]);
                    if look {
                        m.settle();
                    }
                    let _errors = m.run_on(0, &[*second]);
                    let (a, b) = at.outcome(&m);
                    let ints = [first, second]
                        .iter()
                        .filter(|command| matches!(command, Command::Int { .. }))
                        .count();
                    let most = at.once() + ints;
                    assert!(a + b <= most, "{at:?} {first:?} {second:?} {look}: {a} {b}");
                    // All is well afterwards.
                    m.enable(LPI);
                    let _errors = m.run_on(
                        0,
                        &[
                            cmd::mapc(0, 0),
                            cmd::mapd(5, 5),
                            cmd::mapti(5, 0, LPI, 0),
                            cmd::int(5, 0),
                        ],
                    );
                    m.expect(&[LPI], &[]);
                    m.destroy();
                }
            }
        }
    }
}
