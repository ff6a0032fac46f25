// SPDX-License-Identifier: GPL-2.0-only
//! Domains come and go, and whatever fails on the way leaves nothing behind.

use std::sync::Arc;

use its_arch::access::Width;
use its_arch::gicr::{GICR_CTLR, GICR_PENDBASER, GICR_PROPBASER, PendBaser, PropBaser};
use its_arch::{DeviceId, GuestPa, Lpi, VcpuId};
use its_core::{Domain, DomainConfig, Error};
use its_testkit::guest::{FakeGuest, Ram};
use its_testkit::its::Pace;
use its_testkit::machine::{DOMAIN_ID, PROPERTIES, TIME_BETWEEN_STEPS};
use its_testkit::vcpu::FakeVcpu;
use its_testkit::{Config, Fake, Machine, World, cmd, scaled, world};

#[test]
fn a_host_that_cannot_be_set_up_leaves_nothing() {
    let world = World::current();
    let config = Config { its: 2, ..Config::default() };
    for n in 0.. {
        world.fail_once_after(n);
        let result = config.host();
        let untouched = world.stop_failing();
        assert_eq!(untouched, result.is_ok(), "{n}");
        drop(result);
        assert_eq!(world.live(), 0, "{n}");
        if untouched {
            assert!(n > 3);
            return;
        }
    }
}

#[test]
fn a_domain_that_cannot_be_created_leaves_nothing() {
    let world = World::current();
    let config = Config { its: 3, vcpus: 4, ..Config::default() };
    let (host, _its) = config.host().expect("memory");
    let live = world.live();
    for n in 0.. {
        let ram = Arc::new(Ram::default());
        world.fail_once_after(n);
        let result = Domain::<Fake>::new(&host, FakeGuest(Arc::clone(&ram)), config.domain());
        let untouched = world.stop_failing();
        assert_eq!(untouched, result.is_ok(), "{n}");
        if let Err(error) = &result {
            assert_eq!(*error, Error::NoMemory);
        }
        drop(result);
        assert_eq!(world.live(), live, "{n}");
        assert_eq!(Arc::strong_count(&ram), 1);
        if untouched {
            assert!(n > 3);
            return;
        }
    }
}

#[test]
fn a_domain_cannot_have_more_itses_than_the_host() {
    let config = Config::default();
    let (host, _its) = config.host().expect("memory");
    let guest = || FakeGuest(Arc::new(Ram::default()));
    let more = DomainConfig { vits: 2, ..config.domain() };
    assert_eq!(Domain::<Fake>::new(&host, guest(), more).err(), Some(Error::NotFound));
    let none = DomainConfig { vits: 0, vcpus: 0, ..config.domain() };
    let domain = Domain::<Fake>::new(&host, guest(), none).expect("an empty domain");
    assert_eq!(domain.its_read(0, 0, Width::Word), Err(Error::NotFound));
    assert!(!domain.work(&host));
    world::in_irq(|| domain.deliver(Lpi::MIN));
    domain.dump(&host);
    while domain.relinquish(&host) {}
}

#[test]
fn a_device_that_cannot_be_added_leaves_nothing() {
    let m = Machine::booted(Config::default());
    // More than the map of devices has room for at first.
    for device in 0..8 {
        m.add_device(device, 32).expect("room");
    }
    for n in 0.. {
        let (in_use, tables) = (m.host.lpis.in_use(), m.world.live_tables());
        m.world.fail_once_after(n);
        let result = m.add_device(100, scaled(2000, 64));
        if m.world.stop_failing() {
            result.expect("nothing has failed");
            assert!(n >= scaled(3, 2));
            break;
        }
        assert_eq!(result, Err(Error::NoMemory), "{n}");
        assert_eq!((m.host.lpis.in_use(), m.world.live_tables()), (in_use, tables), "{n}");
        m.check();
    }
    m.map(100, 1, 8192);
    m.fire(100, 0);
    m.expect(&[8192], &[]);
    m.destroy();
}

#[test]
fn a_mapd_that_runs_out_of_memory_can_be_tried_again() {
    let m = Machine::booted(Config::default());
    for n in 0.. {
        m.world.fail_once_after(n);
        let log = m.run_on(0, &[cmd::mapd(100, scaled(11, 6))]);
        if m.world.stop_failing() {
            assert!(log.is_empty() && n >= 3);
            break;
        }
        assert!(log.len() == 1 && log[0].contains("MAPD_"), "{log:?}");
        assert_eq!(m.its[0].mapped(), (0, 0));
        m.check();
    }
    m.map(100, 1, 8192);
    m.fire(100, 0);
    m.expect(&[8192], &[]);
    m.destroy();
}

#[test]
fn a_mapti_that_runs_out_of_memory_can_be_tried_again() {
    let m = Machine::booted(Config::default());
    m.map(5, 2, 8192);
    m.enable(12_000);
    m.world.fail_once_after(0);
    let log = m.run_on(0, &[cmd::mapti(5, 0, 12_000, 1)]);
    assert!(!m.world.stop_failing());
    assert!(log.len() == 1 && log[0].contains("MAPTI_"), "{log:?}");
    // The event is what it was.
    m.fire(5, 0);
    m.expect(&[8192], &[]);
    m.ok(cmd::mapti(5, 0, 12_000, 1));
    m.fire(5, 0);
    m.expect(&[], &[12_000]);
    m.destroy();
}

#[test]
fn enable_lpis_that_runs_out_of_memory_can_be_tried_again() {
    for n in 0.. {
        let m = Machine::new(Config { vcpus: 1, ..Config::default() });
        m.boot_its(0);
        m.ok(cmd::mapc(0, 0));
        m.map(5, 1, 8192);
        // The first try is with a table elsewhere.
        let elsewhere = 0x7000_0000;
        m.ram.add(elsewhere, 0xe000);
        let propbaser = |at| PropBaser::new().with_id_bits(15).with_address(GuestPa::new(at));
        m.gicr_w64(0, GICR_PROPBASER, propbaser(elsewhere).into());
        m.gicr_w64(0, GICR_PENDBASER, PendBaser::new().with_ptz(true).into());
        let (live, pins) = (m.world.live(), m.ram.pins());
        m.world.fail_once_after(n);
        m.gicr_w32(0, GICR_CTLR, 1);
        if m.world.stop_failing() {
            assert!(n >= 3);
            return;
        }
        let log = m.world.take_log();
        assert!(log.len() == 1 && log[0].1.contains("no memory"), "{log:?}");
        assert_eq!(m.gicr_read(0, GICR_CTLR, Width::Word) & 1, 0, "{n}");
        assert_eq!(m.world.live(), live, "{n}");
        assert_eq!(m.ram.pins(), pins, "{n}");
        m.fire(5, 0);
        m.expect(&[], &[]);
        // The guest can still change its mind about the table.
        m.gicr_w64(0, GICR_PROPBASER, propbaser(PROPERTIES).into());
        m.gicr_w32(0, GICR_CTLR, 1);
        m.fire(5, 0);
        m.expect(&[8192], &[]);
        m.destroy();
    }
}

#[test]
fn a_guest_that_can_have_no_memory_at_all_does_no_harm() {
    let m = Machine::booted(Config::default());
    m.map(5, 2, 8192);
    m.world.fail_all_after(0);
    let _errors = m.run_on(
        0,
        &[
            cmd::mapd(6, 5),
            cmd::mapti(5, 1, 30_000, 0),
            cmd::mapc(9, 1),
            cmd::movi(5, 1, 9),
            cmd::invall(9),
            cmd::movall(0, 1),
        ],
    );
    // Interrupts need none.
    m.fire(5, 0);
    m.fire(5, 1);
    m.expect(&[8192], &[8193]);
    m.world.stop_failing();
    m.destroy();
}

// ---- The end ----

#[test]
fn a_domain_dies_in_any_state() {
    for state in 0..6 {
        let m = Machine::booted(Config::default());
        if state >= 1 {
            m.add_device(7, 100).expect("room");
            m.map(5, 40, 8192);
        }
        if state >= 2 {
            for event in 0..40 {
                m.fire(5, event);
            }
        }
        if state >= 3 {
            m.settle();
            assert!(m.vcpus[0].ack().is_some());
        }
        if state >= 4 {
            m.ok(cmd::movall(0, 1));
        }
        if state >= 5 {
            m.vcpus[0].power_off(&m.domain);
        }
        m.destroy();
    }
}

#[test]
fn nothing_is_delivered_to_a_domain_that_is_dying() {
    let m = Machine::booted(Config::default());
    m.map(5, 1, 8192);
    while m.domain.relinquish(&m.host) {}
    assert!(!m.fire(5, 0));
    // An interrupt that was on its way.
    world::in_irq(|| m.domain.deliver(Lpi::MIN));
    m.domain.sync(VcpuId::new(0));
    let mut held = m.vcpus[0].hold();
    assert!(!m.domain.is_urgent(&mut held, VcpuId::new(0), 256));
    m.domain.slot_done(&mut held, VcpuId::new(0), 0);
    assert!(!m.domain.fill(&mut held, VcpuId::new(0)));
    drop(held);
    m.expect(&[], &[]);
    m.domain.dump(&m.host);
    let _log = m.world.take_log();
    m.destroy();
}

#[test]
fn a_domain_dies_on_an_its_that_is_dead() {
    for pace in [Pace::Hang(0), Pace::Stall(0), Pace::Hang(7)] {
        let m = Machine::booted(Config::default());
        for device in 0..3 {
            m.add_device(device, 32).expect("room");
        }
        m.map(1, 2, 8192);
        m.its[0].set_pace(pace);
        let before = m.world.now();
        while m.domain.relinquish(&m.host) {
            m.world.advance(TIME_BETWEEN_STEPS);
        }
        assert!(m.world.now() - before < 2_000_000_000, "in bounded time");
        assert_eq!(m.ram.pins(), 0, "the guest's memory is given back anyway");
        assert!(!m.fire(1, 0), "and its LPIs are nobody's");
        let abandoned = m.host.its(0).expect("there").abandoned();
        assert!(abandoned >= 1);
        // One line for the ITS, and one for each device.
        assert_eq!(m.world.take_log().len(), 1 + usize::try_from(abandoned).expect("few"));
        assert_eq!(m.stat("devices"), 0);
        while m.domain.relinquish(&m.host) {}
        m.quiet();
    }
}

#[test]
fn two_domains_share_a_host() {
    let m = Machine::booted(Config::default());
    m.map(5, 1, 8192);
    let ram = Arc::new(Ram::default());
    let config = DomainConfig { id: 8, hardware: false, ..m.config.domain() };
    let other = Domain::<Fake>::new(&m.host, FakeGuest(Arc::clone(&ram)), config).expect("memory");
    other.add_vcpu(VcpuId::new(0), FakeVcpu::new(0, 4)).expect("new");
    other.add_device(&m.host, 0, DeviceId::new(6), 32).expect("room");
    let owner = |device| {
        let (lpi, _) = m.its[0].fire(device, 0).expect("mapped on the host");
        m.host.claim(lpi).map(|entry| (entry.domain(), entry.vlpi(), entry.owner()))
    };
    // The last is what C gets: bit 63, the domain in bits 47:32, the LPI.
    let all = |domain: u16| 1 << 63 | u64::from(domain) << 32;
    assert_eq!(owner(5), Some((DOMAIN_ID, 8192, all(DOMAIN_ID) | 8192)));
    assert_eq!(owner(6), Some((8, 0, all(8))));
    // One goes, the other stays.
    while other.relinquish(&m.host) {}
    drop(other);
    assert_eq!(m.its[0].mapped().0, 1);
    m.fire(5, 0);
    m.expect(&[8192], &[]);
    m.check();
    m.destroy();
}

#[test]
fn a_vcpu_is_reset_before_it_has_lpis() {
    let m = Machine::new(Config::default());
    for vcpu in &m.vcpus {
        vcpu.power_off(&m.domain);
        vcpu.power_on(&m.domain);
    }
    m.settle();
    m.destroy();
}

#[test]
fn the_lock_of_another_vcpu_is_not_mistaken_for_ones_own() {
    let m = Machine::booted(Config::default());
    m.map(5, 1, 8192);
    m.fire(5, 0);
    let mut held = m.vcpus[1].hold();
    assert!(!m.domain.is_urgent(&mut held, VcpuId::new(0), 256));
    m.domain.slot_done(&mut held, VcpuId::new(0), 0);
    m.domain.vcpu_reset(&mut held, VcpuId::new(0));
    assert_eq!(m.domain.yield_slot(&mut held, VcpuId::new(0), 0), None);
    assert!(!m.domain.fill(&mut held, VcpuId::new(0)));
    drop(held);
    let mut held = m.vcpus[0].hold();
    assert!(m.domain.is_urgent(&mut held, VcpuId::new(0), 256));
    // Slots and vCPUs that do not exist.
    m.domain.slot_done(&mut held, VcpuId::new(0), 16);
    m.domain.slot_done(&mut held, VcpuId::new(0), u8::MAX);
    m.domain.slot_done(&mut held, VcpuId::new(9), 0);
    assert!(!m.domain.fill(&mut held, VcpuId::new(9)));
    drop(held);
    m.domain.sync(VcpuId::new(9));
    m.expect(&[8192], &[]);
    m.destroy();
}
