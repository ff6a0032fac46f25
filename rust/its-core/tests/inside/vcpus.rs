// SPDX-License-Identifier: GPL-2.0-only
//! More LPIs of a vCPU in one go than there are slots.

use its_arch::{GuestPa, IdBits, Lpi};
use its_testkit::guest::FakeGuest;
use its_testkit::machine::PROPERTIES;
use its_testkit::vcpu::FakeVcpu;
use its_testkit::{Config, Fake, Machine};

use crate::env::SLOTS;
use crate::redist::{Displaced, LpiState, Pending, Redist};
use crate::vlpi::PropertyTable;

/// A vCPU on its way into the guest, with 16 list registers, its LPIs as the core keeps them, and the
/// properties of these, all enabled.
struct Bed {
    _machine: Machine,
    vcpu: FakeVcpu,
    state: LpiState<Fake>,
    table: PropertyTable<Fake>,
}

fn bed() -> Bed {
    let m = Machine::new(Config { id_bits: 14, list_registers: SLOTS, ..Config::default() });
    let id_bits = IdBits::new(14).expect("14 to 32");
    let guest = FakeGuest(m.ram.clone());
    let table = PropertyTable::pin(&guest, GuestPa::new(PROPERTIES), id_bits).expect("memory");
    (0..100).for_each(|n| m.enable(lpi(n).get()));
    let vcpu = m.vcpus.first().expect("two").clone();
    vcpu.exit(&m.domain);
    Bed { _machine: m, vcpu, state: LpiState::new(id_bits).expect("memory"), table }
}

fn lpi(n: u32) -> Lpi {
    Lpi::from_index(n).expect("an LPI")
}

#[test]
fn a_vcpu_that_is_not_there_is_not_kicked() {
    Redist::<Fake>::new().kick();
}

#[test]
fn an_lpi_is_displaced_once_and_no_more_than_there_is_room_for() {
    let mut bed = bed();
    let Bed { vcpu, state, table, .. } = &mut bed;
    let _held = vcpu.hold();
    let mut displaced = Displaced::new();
    for n in (0..6).chain([5]).chain(6..33) {
        state.raise(vcpu, table, lpi(n));
        state.take(vcpu, lpi(n), Pending::Keep, &mut displaced);
    }
    let got: Vec<_> = displaced.iter().collect();
    assert_eq!(got, (0..32).map(|n| (lpi(n), None)).collect::<Vec<_>>());
    assert_eq!(state.waiting(), (0, 0));
}

#[test]
fn more_than_can_leave_at_once_stay_on_the_vcpu() {
    let mut bed = bed();
    let Bed { vcpu, state, table, .. } = &mut bed;
    let _held = vcpu.hold();
    let mut displaced = Displaced::new();
    for first in [0, 16] {
        for n in first..first + 16 {
            state.raise(vcpu, table, lpi(n));
        }
        assert!(!state.fill(vcpu, table), "all of them have list registers");
        for n in first..first + 16 {
            state.take(vcpu, lpi(n), Pending::Keep, &mut displaced);
        }
        // It goes off before it has let go of them.
        state.reset(vcpu, table);
    }
    assert_eq!((state.waiting(), displaced.iter().count()), ((0, 32), 0));
    state.sync(vcpu, table, &mut displaced);
    assert!(displaced.iter().map(|(left, _)| left).eq((0..16).map(lpi)));
    assert_eq!(state.waiting(), (0, 16), "the others are still pending here");
}
