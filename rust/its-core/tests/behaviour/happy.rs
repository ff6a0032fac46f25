// SPDX-License-Identifier: GPL-2.0-only
//! From a device's write to the guest's acknowledge, where nothing is odd.

use its_arch::Lpi;
use its_testkit::vcpu::Place;
use its_testkit::{Config, Machine, cmd, scaled, world};

#[test]
fn a_device_raises_an_event_and_the_guest_takes_it() {
    let m = Machine::booted(Config::default());
    m.map(5, 3, 8192);
    assert!(m.fire(5, 1));
    m.expect(&[8193], &[]);
    assert!(m.fire(5, 0));
    assert!(m.fire(5, 2));
    m.expect(&[8192, 8194], &[]);
    m.check();
    m.destroy();
}

#[test]
fn each_collection_has_its_vcpu() {
    let m = Machine::booted(Config::default());
    m.map(5, 2, 9000);
    m.ok(cmd::movi(5, 1, 1));
    for _ in 0..3 {
        assert!(m.fire(5, 0));
        assert!(m.fire(5, 1));
        m.expect(&[9000], &[9001]);
    }
    m.destroy();
}

#[test]
fn an_lpi_that_fires_again_while_it_waits_comes_once() {
    let m = Machine::booted(Config::default());
    m.map(5, 1, 8192);
    for _ in 0..5 {
        m.fire(5, 0);
    }
    m.expect(&[8192], &[]);
    assert_eq!(m.stat("merged"), 4);
    // In a list register, not yet taken.
    m.fire(5, 0);
    m.settle();
    m.fire(5, 0);
    m.fire(5, 0);
    m.expect(&[8192], &[]);
    m.destroy();
}

#[test]
fn an_lpi_that_fires_while_it_is_handled_comes_once_more() {
    for active_state in [true, false] {
        let m = Machine::booted(Config::default());
        m.vcpus[0].set_active_state(active_state);
        m.map(5, 1, 8192);
        m.fire(5, 0);
        m.settle();
        let lpi = m.vcpus[0].ack().expect("pending");
        for _ in 0..4 {
            m.fire(5, 0);
        }
        m.settle();
        if active_state {
            assert_eq!(m.vcpus[0].ack(), None, "it is active");
            assert_eq!(m.vcpus[0].place(lpi), Some(Place { pending: true, active: true }));
        }
        m.vcpus[0].eoi(lpi);
        m.expect(&[8192], &[]);
        m.destroy();
    }
}

#[test]
fn a_slot_is_free_again_when_the_guest_is_done() {
    let m = Machine::booted(Config::default());
    let (rounds, events) = (scaled(20, 2), scaled(64, 20));
    m.map(5, events, 8192);
    for round in 0..rounds {
        for event in 0..events {
            m.fire(5, (event + round) % events);
        }
        let mut all = m.drain(0);
        all.sort_unstable();
        assert_eq!(all, (8192..8192 + events).collect::<Vec<_>>());
        assert_eq!(m.vcpus[0].used_slots(), 0);
    }
    assert_eq!(m.stat("lpis"), u64::from(rounds * events));
    assert_eq!(m.stat("done"), u64::from(rounds * events));
    assert_eq!(m.stat("slots"), 0);
    m.destroy();
}

#[test]
fn the_highest_lpi_of_the_domain_works() {
    for &id_bits in scaled(&[14, 15, 16, 17, 20][..], &[14, 17]) {
        let m = Machine::booted(Config { id_bits, ..Config::default() });
        let last = (1 << id_bits) - 1;
        m.map(5, 1, last);
        m.fire(5, 0);
        m.expect(&[last], &[]);
        assert!(Lpi::new(last).is_some());
        m.destroy();
    }
}

#[test]
fn several_virtual_itses_do_not_mix() {
    let m = Machine::booted(Config { its: 3, ..Config::default() });
    for vits in 0..3_u16 {
        let lpi = 8200 + u32::from(vits);
        m.enable(lpi);
        m.ok_on(vits.into(), cmd::mapd(1, 5));
        m.ok_on(vits.into(), cmd::mapti(1, 0, lpi, vits % 2));
    }
    m.fire_on(2, 1, 0);
    m.expect(&[8202], &[]);
    m.fire_on(1, 1, 0);
    m.expect(&[], &[8201]);
    m.fire_on(0, 1, 0);
    m.expect(&[8200], &[]);
    // The same DeviceID on another ITS stays.
    m.ok_on(1, cmd::unmapd(1));
    assert!(!m.fire_on(1, 1, 0));
    assert!(m.fire_on(2, 1, 0));
    m.expect(&[8202], &[]);
    m.check();
    m.destroy();
}

#[test]
fn an_interrupt_of_nobody_is_counted_and_dropped() {
    let m = Machine::booted(Config::default());
    m.ok(cmd::mapd(5, 5));
    // Mapped on the host, but not by the guest.
    let (host_lpi, _) = m.its[0].fire(5, 3).expect("mapped on the host");
    assert!(!m.fire(5, 3));
    m.ok(cmd::unmapd(5));
    assert_eq!(m.host.claim(host_lpi), None);
    assert_eq!(m.host.claim(Lpi::new(u32::MAX).expect("an LPI")), None);
    assert_eq!(m.host.unclaimed(), 2);
    m.expect(&[], &[]);
    m.destroy();
}

#[test]
fn an_lpi_that_is_not_mapped_is_dropped() {
    let m = Machine::booted(Config::default());
    let unrouted = m.stat("unrouted");
    world::in_irq(|| m.domain.deliver(Lpi::new(8192).expect("an LPI")));
    world::in_irq(|| m.domain.deliver(Lpi::new(u32::MAX).expect("an LPI")));
    m.expect(&[], &[]);
    assert_eq!(m.stat("unrouted"), unrouted + 2);
    m.destroy();
}

#[test]
fn the_debug_key_says_what_there_is() {
    let m = Machine::booted(Config::default());
    m.map(0x1f, 3, 8192);
    m.fire(0x1f, 0);
    m.expect(&[8192], &[]);
    m.disable(8193);
    m.fire(0x1f, 1);
    m.add_device(0x20, 32).expect("room");
    m.domain.dump(&m.host);
    m.host.dump();
    let log: Vec<String> = m.world.take_log().into_iter().map(|(_, line)| line).collect();
    let has = |parts: &[&str]| {
        let found = log.iter().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no line with {parts:?} in {log:#?}");
    };
    has(&["ITS: device d7", "vits=0", "devid=0x1f", "events=32", "guest_bits=2", "mapped=3"]);
    has(&["devid=0x20", "mapped=0", "announced"]);
    assert!(!log.iter().any(|line| line.contains("devid=0x1f") && line.contains("announced")));
    has(&["ITS: vcpu d7v0", "raised=2", "done=1", "slots=0", "waiting=0", "disabled=1"]);
    has(&["ITS: commands d7", "vits=0", "MAPD=1", "MAPTI=3", "MAPC=2", "skipped=0"]);
    has(&["ITS: stats d7", "lpis=2", "done=1", "commands=6"]);
    has(&["ITS: state d7", "devices=2", "events=64", "mapped=3", "dormant=1"]);
    has(&["ITS: state d7", &format!("id_bits={}", m.config.id_bits)]);
    has(&["ITS: host lpis=64"]);
    has(&["ITS: host its=0", "outstanding=0", "abandoned=0"]);
    m.destroy();
}
