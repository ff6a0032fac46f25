// SPDX-License-Identifier: GPL-2.0-only
//! What a review found: states that commands in a row, or between the steps
//! of one, can bring about.

use std::sync::Arc;

use its_arch::access::Width;
use its_arch::gicr::{GICR_CTLR, GICR_INVLPIR, GICR_PENDBASER, GICR_PROPBASER};
use its_arch::gicr::{PendBaser, PropBaser};
use its_arch::gits::GITS_CWRITER;
use its_arch::{GuestPa, Lpi};
use its_core::budget::COMMANDS_PER_TRAP;
use its_testkit::machine::PROPERTIES;
use its_testkit::vcpu::Place;
use its_testkit::{Config, Machine, cmd};

/// LPIs 8192 to 8691 are pending on vCPU 0, each in a slot or waiting for
/// one. Collection n goes to vCPU n of three.
fn many() -> Machine {
    let m = Machine::booted(Config { vcpus: 3, queue_pages: 2, ..Config::default() });
    m.map(5, 500, Lpi::FIRST);
    for event in 0..500 {
        m.fire(5, event);
    }
    m
}

#[test]
fn an_lpi_that_waits_and_fires_disabled_is_pending_once() {
    let m = many();
    let waiting = m.stat("waiting");
    // The guest tells nobody.
    m.disable(8691);
    m.fire(5, 499);
    assert_eq!((m.stat("waiting"), m.stat("dormant")), (waiting - 1, 1));
    m.enable(8691);
    let mut got = m.drain(0);
    m.ok(cmd::invall(0));
    got.extend(m.drain(0));
    got.sort_unstable();
    assert_eq!(got, (8192..8692).collect::<Vec<_>>());
    m.destroy();
}

#[test]
fn invlpir_keeps_a_pending_bit_of_an_lpi_that_is_mapped_later() {
    let m = Machine::new(Config::default());
    m.boot_its(0);
    m.ram.write(Machine::pending_table(0) + u64::from(Lpi::FIRST) / 8, &[1]);
    let propbaser = PropBaser::new().with_id_bits(15).with_address(GuestPa::new(PROPERTIES));
    m.gicr_w64(0, GICR_PROPBASER, propbaser.into());
    let pendbaser = PendBaser::new().with_address(GuestPa::new(Machine::pending_table(0)));
    m.gicr_w64(0, GICR_PENDBASER, pendbaser.into());
    m.gicr_w32(0, GICR_CTLR, 1);
    // From here on an LPI may be anywhere.
    m.ok_all(&[cmd::mapc(3, 1), cmd::unmapc(3)]);
    m.enable(8192);
    m.gicr_write(0, GICR_INVLPIR, Width::Double, 8192);
    m.ok_all(&[cmd::mapc(0, 0), cmd::mapd(5, 1), cmd::mapti(5, 0, 8192, 0)]);
    m.expect(&[8192], &[]);
    m.destroy();
}

#[test]
fn invall_finds_what_movall_took_elsewhere() {
    let m = many();
    for lpi in 8192..8692 {
        m.disable(lpi);
    }
    m.ok(cmd::movall(0, 1));
    m.settle();
    for lpi in 8192..8692 {
        m.enable(lpi);
    }
    // Of the collection that they are mapped to, on vCPU 0.
    m.ok(cmd::invall(0));
    let mut got = [m.drain(0), m.drain(1), m.drain(2)].concat();
    got.sort_unstable();
    assert_eq!(got, (8192..8692).collect::<Vec<_>>());
    assert_eq!(m.stat("dormant"), 0);
    m.destroy();
}

/// Where LPI `lpi` is in the queues of vCPU 0.
fn place(m: &Machine, lpi: u32) -> Option<Place> {
    m.vcpus[0].place(Lpi::new(lpi).expect("an LPI"))
}

const IN_REGISTER: Option<Place> = Some(Place { pending: true, active: false });

#[test]
fn movall_and_what_is_still_in_a_list_register() {
    for (commands, wanted) in [
        // What has left before is left alone.
        ([cmd::movi(5, 0, 2), cmd::movall(0, 1)], 2),
        ([cmd::movall(0, 1), cmd::movall(0, 2)], 1),
        // What would have arrived goes on.
        ([cmd::movall(0, 1), cmd::movall(1, 2)], 2),
        ([cmd::movall(0, 1), cmd::movi(5, 0, 2)], 2),
        // What was disabled would be here.
        ([cmd::inv(5, 0), cmd::movall(0, 1)], 1),
    ] {
        let m = Machine::booted(Config { vcpus: 3, ..Config::default() });
        m.map(5, 1, 8192);
        m.fire(5, 0);
        m.settle();
        assert_eq!(place(&m, 8192), IN_REGISTER);
        m.disable(8192);
        m.ok_all(&commands);
        m.settle();
        let left = m.stat("slots");
        let pending = (0..3).filter(|vcpu| pending_on(&m, *vcpu) != 0).collect::<Vec<_>>();
        assert_eq!((pending, left), (vec![wanted], 0), "{commands:?}");
        m.destroy();
    }
}

/// How many LPIs are pending on a vCPU.
fn pending_on(m: &Machine, vcpu: u16) -> u64 {
    m.domain.dump(&m.host);
    let log = m.world.take_log();
    let start = format!("ITS: vcpu d7v{vcpu} ");
    let line = log.iter().find(|(_, line)| line.starts_with(&start));
    let (_, line) = line.expect("a line for each vCPU");
    let number = |name: &str| {
        let rest = line.split(name).nth(1).expect("it is there");
        rest.split(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a number")
    };
    number(" slots=") + number(" waiting=") + number(" disabled=")
}

#[test]
fn a_step_for_several_virtual_itses_is_no_longer_than_for_one() {
    let m = Machine::booted(Config { its: 4, queue_pages: 2, ..Config::default() });
    for vits in 0..4 {
        let at = m.domain.its_read(vits, GITS_CWRITER, Width::Double).expect("a legal access");
        for n in 0..100 {
            m.put(vits, at + n * 32, &cmd::sync(0).encode());
        }
        m.write_on(vits, GITS_CWRITER, Width::Double, at + 3200);
    }
    let mut before = m.stat("commands");
    let mut more = true;
    while more {
        more = m.domain.work(&m.host);
        let now = m.stat("commands");
        assert!(now - before <= COMMANDS_PER_TRAP.into(), "{} in one step", now - before);
        before = now;
    }
    m.destroy();
}

/// One stray was counted. LPI 8194 is disabled.
fn one_stray_that_is_gone() -> Machine {
    let m = Machine::booted(Config::default());
    m.map(5, 3, 8192);
    m.fire(5, 0);
    m.ok(cmd::unmapc(0));
    m.ok(cmd::mapc(0, 0));
    assert_eq!(m.drain(0), [8192]);
    m.vcpus[0].cycle(&m.domain);
    m.disable(8194);
    m
}

/// The count of strays is set to 0, and counts up to what it was, while a third
/// CPU is about to set it to 0.
#[test]
fn strays_that_were_counted_since_are_not_forgotten() {
    let m = Arc::new(one_stray_that_is_gone());
    let other = Arc::clone(&m);
    m.vcpus[1].before_lock(move || {
        // vCPU 0 has been looked at by then.
        other.ok(cmd::inv(5, 1));
        other.fire(5, 2);
        other.ok(cmd::unmapc(0));
    });
    m.gicr_write(0, GICR_INVLPIR, Width::Double, 8193);
    // LPI 8194 is pending and disabled on vCPU 0, and mapped to none.
    m.ok(cmd::movi(5, 2, 1));
    m.enable(8194);
    m.ok(cmd::inv(5, 2));
    m.expect(&[], &[8194]);
}

/// The same with nothing at once: the test can pass.
#[test]
fn strays_that_are_counted_are_found() {
    let m = one_stray_that_is_gone();
    m.ok(cmd::inv(5, 1));
    m.fire(5, 2);
    m.ok(cmd::unmapc(0));
    m.ok(cmd::movi(5, 2, 1));
    m.enable(8194);
    m.ok(cmd::inv(5, 2));
    m.expect(&[], &[8194]);
    m.destroy();
}
