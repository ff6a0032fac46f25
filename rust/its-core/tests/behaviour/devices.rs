// SPDX-License-Identifier: GPL-2.0-only
//! Devices: announced by a hypercall, or found at the guest's MAPD.

use std::collections::BTreeSet;

use its_arch::DeviceId;
use its_arch::error::CommandError;
use its_arch::gits::GITS_CWRITER;
use its_core::Error;
use its_testkit::its::Pace;
use its_testkit::{Config, Machine, World, cmd, scaled};

fn ordinary() -> Machine {
    Machine::booted(Config { hardware: false, ..Config::default() })
}

fn hardware() -> Machine {
    Machine::booted(Config::default())
}

#[test]
fn no_guest_command_reaches_the_host_its() {
    let m = ordinary();
    m.add_device(5, 40).expect("room");
    assert_eq!(m.its[0].mapped(), (1, 64), "all events are mapped up front");
    let _setup = m.its[0].take_executed();
    m.map(5, 40, 8192);
    m.ok_all(&[
        cmd::movi(5, 0, 1),
        cmd::int(5, 0),
        cmd::inv(5, 0),
        cmd::invall(0),
        cmd::clear(5, 0),
        cmd::movall(0, 1),
        cmd::discard(5, 0),
        cmd::mapc(0, 1),
        cmd::sync(0),
        cmd::unmapd(5),
        cmd::mapd(5, 6),
        cmd::unmapd(77),
    ]);
    assert_eq!(m.its[0].take_executed(), []);
    m.check();
    m.destroy();
}

#[test]
fn a_guest_may_use_only_its_own_devices() {
    let m = ordinary();
    m.fails(cmd::mapd(5, 5), CommandError::MAPD_DEVICE_OOR);
    m.add_device(5, 32).expect("room");
    m.fails(cmd::mapti(5, 0, 8192, 0), CommandError::MAPTI_UNMAPPED_DEVICE);
    m.ok(cmd::mapd(5, 5));
    m.fails(cmd::mapd(5, 6), CommandError::MAPD_ITTSIZE_OOR);
    m.fails(cmd::mapd(6, 5), CommandError::MAPD_DEVICE_OOR);
    m.ok(cmd::unmapd(5));
    assert_eq!(m.its[0].mapped().0, 1, "it stays mapped on the host");
    m.ok(cmd::mapd(5, 5));
    m.remove_device(5).expect("there");
    m.fails(cmd::mapd(5, 5), CommandError::MAPD_DEVICE_OOR);
    m.check();
    m.destroy();
}

#[test]
fn the_hardware_domain_may_map_what_nobody_announced() {
    let m = hardware();
    m.map(5, 3, 8192);
    assert_eq!(m.its[0].mapped(), (1, 32));
    m.fire(5, 2);
    m.expect(&[8194], &[]);
    m.ok(cmd::unmapd(5));
    assert_eq!(m.its[0].mapped(), (0, 0), "and gives it back");
    m.check();
    m.destroy();
}

#[test]
fn announced_devices() {
    let m = hardware();
    assert_eq!(m.add_device(5, 3), Ok(()));
    // Another function with the same DeviceID; the last one to go counts.
    assert_eq!(m.add_device(5, 3), Ok(()));
    assert_eq!(m.remove_device(6), Err(Error::NotFound));
    assert_eq!(m.remove_device(5), Ok(()));
    assert_eq!(m.its[0].mapped().0, 1);
    assert_eq!(m.remove_device(5), Ok(()));
    assert_eq!(m.its[0].mapped().0, 0);
    assert_eq!(m.remove_device(5), Err(Error::NotFound));
    for &events in scaled(&[0, 1, 31, 32, 33, 2048][..], &[0, 33]) {
        m.add_device(5, events).expect("room");
        let want = usize::try_from(events.max(32).next_power_of_two()).expect("few");
        assert_eq!(m.its[0].mapped(), (1, want));
        m.remove_device(5).expect("there");
    }
    m.check();
    m.destroy();
}

#[test]
fn what_no_its_can_do_is_refused() {
    let m = hardware();
    for events in [(1 << 16) + 1, 1 << 31, 1 << 32, (1 << 32) + 1, u64::MAX] {
        assert_eq!(m.add_device(5, events), Err(Error::OutOfRange), "{events}");
    }
    assert_eq!(m.add_device(1 << 16, 32), Err(Error::OutOfRange));
    assert_eq!(m.add_device(u32::MAX, 32), Err(Error::OutOfRange));
    let device = DeviceId::new(5);
    assert_eq!(m.domain.add_device(&m.host, 1, device, 32), Err(Error::NotFound));
    assert_eq!(m.domain.remove_device(&m.host, 1, device), Err(Error::NotFound));
    assert_eq!(m.add_device(0xffff, 32), Ok(()));
    m.check();
    m.destroy();
}

#[test]
fn announced_after_the_guests_mapd() {
    let m = hardware();
    m.map(5, 1, 8192);
    let _setup = m.its[0].take_executed();
    assert_eq!(m.add_device(5, 1), Ok(()));
    assert_eq!(m.its[0].take_executed(), [], "it is mapped already");
    m.fire(5, 0);
    m.expect(&[8192], &[]);
    m.ok(cmd::unmapd(5));
    assert_eq!(m.its[0].mapped().0, 1, "it is announced now");
    m.remove_device(5).expect("there");
    assert_eq!(m.its[0].mapped().0, 0, "announced once");
    m.check();
    m.destroy();
}

#[test]
fn an_announced_device_of_the_hardware_domain_grows_at_its_mapd() {
    let m = hardware();
    m.add_device(5, 32).expect("room");
    m.map(5, 20, 8192);
    m.fire(5, 3);
    m.ok(cmd::mapd(5, 7));
    assert_eq!(m.its[0].mapped(), (1, 128));
    m.expect(&[], &[]);
    m.enable(8300);
    m.ok(cmd::mapti(5, 127, 8300, 0));
    m.fire(5, 127);
    m.expect(&[8300], &[]);
    // It is announced as before, and does not shrink.
    m.ok(cmd::mapd(5, 2));
    assert_eq!(m.its[0].mapped(), (1, 128));
    m.fails(cmd::mapti(5, 4, 8300, 0), CommandError::MAPTI_ID_OOR);
    m.ok(cmd::unmapd(5));
    assert_eq!(m.its[0].mapped(), (1, 128));
    m.check();
    m.destroy();
}

#[test]
fn a_device_that_cannot_grow_keeps_what_it_had() {
    let m = Machine::booted(Config { host_id_bits: 14, ..Config::default() });
    m.add_device(5, 64).expect("room");
    let events = scaled(4096_u16, 32);
    m.add_device(6, events.into()).expect("room");
    // 8192 LPIs in all.
    m.fails(cmd::mapd(5, 13), CommandError::MAPD_ITTSIZE_OOR);
    assert_eq!(m.its[0].mapped(), (2, 64 + usize::from(events)));
    m.map(5, 20, 8192);
    m.fire(5, 3);
    m.expect(&[8195], &[]);
    // Neither does a MAPD that fails unmap anything.
    m.fails(cmd::mapd(5, 13), CommandError::MAPD_ITTSIZE_OOR);
    m.fire(5, 19);
    m.expect(&[8211], &[]);
    m.check();
    m.destroy();
}

#[test]
fn a_device_that_cannot_grow_for_want_of_memory_keeps_what_it_had() {
    let m = hardware();
    m.add_device(5, 64).expect("room");
    let bits = scaled(10, 7);
    for n in 0..10 {
        m.world.fail_once_after(n);
        let log = m.run_on(0, &[cmd::mapd(5, bits)]);
        if m.world.stop_failing() {
            break;
        }
        // Only what is allocated before the first step may fail it for good.
        m.check();
        if m.its[0].mapped() == (1, 64) {
            assert_eq!(log.len(), 1);
            m.map(5, 2, 8192);
            m.fire(5, 1);
            m.expect(&[8193], &[]);
        } else {
            assert_eq!(m.its[0].mapped(), (1, 1 << bits));
        }
        m.ok(cmd::unmapd(5));
        m.remove_device(5).expect("announced");
        m.add_device(5, 64).expect("room");
    }
    m.destroy();
}

#[test]
fn a_device_on_an_its_that_died_while_it_grew_is_gone() {
    let m = hardware();
    m.add_device(5, 64).expect("room");
    m.map(5, 2, 8192);
    // It unmaps the old, and then executes nothing any more.
    m.its[0].set_pace(Pace::Hang(5));
    let log = m.run_on(0, &[cmd::mapd(5, 10)]);
    assert!(log.iter().any(|line| line.contains("MAPD")), "{log:?}");
    assert!(!m.fire(5, 1));
    m.fails(cmd::int(5, 1), CommandError::INT_UNMAPPED_DEVICE);
    m.its[0].set_pace(Pace::Immediate);
    m.add_device(6, 32).expect("the ITS lives again");
    m.map(6, 1, 8192);
    m.fire(6, 0);
    m.expect(&[8192], &[]);
}

#[test]
fn a_device_is_removed_while_it_is_in_use() {
    let m = hardware();
    m.add_device(5, 32).expect("room");
    m.map(5, 32, 8192);
    for event in 0..32 {
        m.fire(5, event);
    }
    m.settle();
    let lpi = m.vcpus[0].ack().expect("pending");
    m.remove_device(5).expect("there");
    m.check();
    m.settle();
    m.vcpus[0].eoi(lpi);
    m.vcpus[0].cycle(&m.domain);
    m.expect(&[], &[]);
    assert_eq!(m.stat("slots") + m.stat("waiting") + m.stat("dormant") + m.stat("mapped"), 0);
    // And comes again.
    m.add_device(5, 32).expect("room");
    m.map(5, 32, 8192);
    m.fire(5, 31);
    m.expect(&[8223], &[]);
    m.check();
    m.destroy();
}

#[test]
fn unbind_and_bind_leaks_nothing() {
    let m = hardware();
    let mut live = None;
    for _ in 0..scaled(50, 3) {
        m.add_device(5, 16).expect("room");
        m.map(5, 16, 8192);
        for event in 0..16 {
            m.fire(5, event);
        }
        assert_eq!(m.drain(0).len(), 16);
        for event in 0..16 {
            m.ok(cmd::discard(5, event));
        }
        m.ok(cmd::unmapd(5));
        m.remove_device(5).expect("there");
        m.check();
        assert_eq!(m.host.lpis.in_use(), 0);
        assert_eq!(*live.get_or_insert(m.world.live()), m.world.live());
    }
    m.destroy();
}

#[test]
fn many_devices_come_and_go_in_any_order() {
    let m = Machine::booted(Config { host_id_bits: 17, ..Config::default() });
    let count = scaled(300_u32, 10);
    let order = |n: u32| (n * 7919 + 13) % count * 11;
    for n in 0..count {
        m.add_device(order(n), 32).expect("room");
    }
    assert_eq!(m.stat("devices"), count.into());
    assert_eq!(m.its[0].mapped().0, usize::try_from(count).expect("few"));
    for n in (0..count).step_by(2) {
        m.remove_device(order(n)).expect("there");
        assert_eq!(m.remove_device(order(n)), Err(Error::NotFound));
    }
    m.check();
    for n in (1..count).step_by(2) {
        m.map(order(n), 1, 8192 + n);
        m.fire(order(n), 0);
        m.expect(&[8192 + n], &[]);
    }
    m.check();
    m.destroy();
}

/// The devices of the domain, as it lists them.
fn listed(m: &Machine) -> Vec<u32> {
    m.domain.dump(&m.host);
    let log = m.world.take_log();
    let ids = log.iter().filter_map(|(_, line)| line.split(" devid=0x").nth(1)?.split(' ').next());
    ids.map(|id| u32::from_str_radix(id, 16).expect("a number")).collect()
}

#[test]
fn many_devices_are_found_whatever_the_order_of_their_coming_and_going() {
    // More than an array of 64 has room for.
    const EACH: u32 = scaled(300, 66);
    let m = Machine::booted(Config { host_id_bits: 16, ..Config::default() });
    let mut there = BTreeSet::new();
    // Up, down, all over the place, and between others that are there.
    let waves: [&dyn Fn(u32) -> u32; 5] =
        [&|n| 1000 + n, &|n| 999 - n, &|n| 2000 + n * 389 % 500, &|n| 5000 + n * 8, &|n| {
            5001 + n * 7919 % 500 * 4
        }];
    for (round, wave) in scaled(&waves[..], &waves[2..3]).iter().enumerate() {
        for n in 0..EACH {
            m.add_device(wave(n), 1).expect("room");
            there.insert(wave(n));
        }
        assert!(listed(&m).iter().eq(&there), "wave {round}");
        // Some of them go, then all in the middle.
        let middle = EACH / 3..EACH * 2 / 3;
        let going: Vec<_> = (0..EACH).filter(|n| n % 7 == 3 || middle.contains(n)).collect();
        for n in going {
            m.remove_device(wave(n)).expect("it is there");
            there.remove(&wave(n));
        }
        assert!(listed(&m).iter().eq(&there), "after wave {round}");
        assert!(m.its[0].mapped().0 == there.len());
    }
    // All of them are told apart by their LPIs.
    for (lpi, &device) in (8192..).zip(&there) {
        m.map(device, 1, lpi);
    }
    for (lpi, &device) in (8192..).zip(&there).step_by(50) {
        m.fire(device, 0);
        m.expect(&[lpi], &[]);
    }
    let arrays = m.world.live();
    // All but a few; then from the middle outwards.
    let (few, mut order): (Vec<(usize, u32)>, Vec<_>) =
        there.iter().copied().enumerate().partition(|(n, _)| n % 25 == 0);
    order.sort_by_key(|(_, device)| device.abs_diff(3000));
    let order: Vec<u32> = order.into_iter().map(|(_, device)| device).collect();
    for (n, &device) in order.iter().enumerate() {
        m.remove_device(device).expect("it is there");
        there.remove(&device);
        if n % 50 == 0 {
            assert!(listed(&m).iter().eq(&there), "{n} are gone");
        }
    }
    // The arrays of 64 at most, on either side, are given back.
    assert!(arrays - m.world.live() >= 2 * (order.len() / 64), "{arrays}");
    for (_, device) in few {
        m.remove_device(device).expect("it is there");
    }
    assert_eq!(listed(&m), []);
    m.check();
    m.destroy();
}

#[test]
fn devices_are_found_when_all_next_to_them_have_gone() {
    // The map's arrays have 32 or 64 of these each.
    let up = (0..scaled(128, 66)).collect();
    let down = (0..128).rev().collect();
    let between = (0..128).rev().map(|n| n * 2).chain((193..256).step_by(2)).collect();
    let all: [Vec<u32>; 3] = [up, down, between];
    for coming in &all[..scaled(3, 1)] {
        for first in (0..256).step_by(scaled(32, 256)) {
            for going in &[first..first + 64, first..first + 32][..scaled(2, 1)] {
                World::renew();
                let m = Machine::booted(Config::default());
                let mut there = BTreeSet::new();
                for &device in coming {
                    m.add_device(device, 1).expect("room");
                    there.insert(device);
                }
                for device in going.clone().filter(|device| coming.contains(device)) {
                    m.remove_device(device).expect("it is there");
                    there.remove(&device);
                }
                assert!(listed(&m).iter().eq(&there), "{going:?} of {coming:?}");
                m.check();
                m.destroy();
            }
        }
    }
}

#[test]
fn each_of_many_devices_is_had_whole_or_not_at_all() {
    // Those for which an array becomes two, 256 for which the list of arrays
    // becomes full, and the one after it.
    for count in (64..=257).step_by(32).chain([257]).take(scaled(9, 1)) {
        for fails in (0..).step_by(scaled(1, 12)) {
            World::renew();
            let m = Machine::booted(Config { host_id_bits: 16, ..Config::default() });
            for device in 0..count {
                m.add_device(device, 1).expect("room");
            }
            let state = || (m.host.lpis.in_use(), m.stat("devices"), m.its[0].mapped());
            let before = state();
            m.world.fail_once_after(fails);
            let added = m.add_device(count, 1);
            let all = m.world.stop_failing();
            if !all {
                assert_eq!(added, Err(Error::NoMemory), "device {count}, allocation {fails}");
                assert_eq!(state(), before, "device {count}, allocation {fails}");
                m.add_device(count, 1).expect("room");
            }
            assert!(listed(&m).iter().copied().eq(0..=count));
            m.check();
            m.destroy();
            if all {
                break;
            }
        }
    }
}

#[test]
fn the_highest_device_ids_work() {
    let m = Machine::booted(Config { device_bits: 32, its: 2, ..Config::default() });
    let last = DeviceId::new(u32::MAX);
    for vits in 0..2 {
        m.domain.add_device(&m.host, vits, last, 32).expect("room");
    }
    assert_eq!(m.stat("devices"), 2);
    assert_eq!(m.stat("events"), 64, "those of the second ITS count too");
    m.w32(0, 0);
    m.w64(its_arch::gits::GITS_BASER, 0);
    for vits in 0..2 {
        m.domain.remove_device(&m.host, vits, last).expect("there");
    }
    m.check();
    m.destroy();
}

#[test]
fn a_dead_its_is_waited_for_once_in_a_trap() {
    let m = hardware();
    m.its[0].set_pace(Pace::Hang(0));
    let before = m.world.now();
    let commands: Vec<_> = (0..scaled(32, 4)).map(|device| cmd::mapd(device, 5)).collect();
    let log = m.run_on(0, &commands);
    assert!(m.world.now() - before < 200_000_000, "{} ns", m.world.now() - before);
    assert!(log.iter().any(|line| line.contains("command queue timed out")), "{log:?}");
    assert_eq!(m.stat("devices"), 0);
    // It wakes up: the guest goes on.
    m.its[0].set_pace(Pace::Immediate);
    m.ok(cmd::mapd(40, 5));
}

#[test]
fn lpis_of_one_priority_that_wait_each_get_their_turn() {
    let m = hardware();
    m.map(5, 200, 8192);
    for event in 0..200 {
        m.fire(5, event);
    }
    // The low ones keep firing; the others come all the same. Which of the
    // last ones comes first is for the list registers to say.
    let mut taken = 0;
    loop {
        m.vcpus[0].cycle(&m.domain);
        let lpi = m.vcpus[0].ack().expect("200 are pending");
        m.vcpus[0].eoi(lpi);
        taken += 1;
        if lpi.get() > 8192 + 190 {
            break;
        }
        assert!(taken < 250, "starved");
        m.fire(5, taken % 20);
    }
    m.check();
}

#[test]
fn one_among_some_devices_takes_no_more_steps_than_the_first() {
    let m = Machine::booted(Config::default());
    let steps = |device| {
        let adding = (1..).take_while(|_| m.begin_add(device, 1).expect("room")).count();
        let removing = (1..).take_while(|_| m.begin_remove(device).expect("it is there")).count();
        m.work();
        (adding, removing)
    };
    let first = steps(0);
    for device in 1..scaled(64, 20) {
        m.add_device(device, 1).expect("room");
    }
    assert_eq!(steps(100), first);
    m.check();
    m.destroy();
}

#[test]
fn a_device_that_grows_is_never_mapped_twice() {
    // The ITS is so slow that it is given up on while the old mapping goes,
    // and shows progress just before the new one comes.
    let mut grown = 0;
    for polls in (1..24).step_by(scaled(1, 4)) {
        World::renew();
        let m = Machine::booted(Config { host_queue_bytes: 256, ..Config::default() });
        m.add_device(1, 32).expect("room");
        m.its[0].set_pace(Pace::Slow(polls));
        m.put(0, m.r64(GITS_CWRITER), &cmd::mapd(1, 7).encode());
        let mut more = m.w64(GITS_CWRITER, m.r64(GITS_CWRITER) + 32);
        while more {
            m.world.advance(60_000_000);
            more = m.domain.work(&m.host);
            if m.abandoned() != 0 {
                // It executes all that is in its queue.
                m.its[0].set_pace(Pace::Immediate);
            }
        }
        m.its[0].set_pace(Pace::Immediate);
        let _log = m.world.take_log();
        grown += u32::from(m.abandoned() != 0 && m.its[0].mapped() == (1, 128));
        m.destroy();
    }
    assert_ne!(grown, 0, "no ITS came back in time");
}
