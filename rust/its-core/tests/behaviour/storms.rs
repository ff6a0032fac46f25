// SPDX-License-Identifier: GPL-2.0-only
//! Devices that raise more interrupts than anybody wants: their host LPIs are
//! masked, and the last interrupt arrives in any case.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use its_arch::gicr::{GICR_INVALLR, GICR_INVLPIR};
use its_arch::gits::{GITS_CTLR, GITS_CWRITER};
use its_arch::{DeviceId, EventId, Lpi, VcpuId};
use its_core::host::queue::reserved;
use its_core::{Domain, DomainConfig, Error};
use its_testkit::guest::{FakeGuest, Ram};
use its_testkit::its::Pace;
use its_testkit::machine::DOMAIN_ID;
use its_testkit::{Config, Machine, World, cmd, scaled};

/// The first LPI of device 5.
const FIRST: u32 = 8192;
/// More than it takes for the host LPI to be masked, if each is wasted.
const MANY: u32 = 100;

/// A device whose four events are enabled LPIs of vCPU 0.
fn machine() -> Machine {
    let m = Machine::booted(Config::default());
    m.map(5, 4, FIRST);
    m
}

fn storm(m: &Machine, event: u32) {
    for _ in 0..MANY {
        m.fire(5, event);
    }
}

/// Is the host LPI of an event disabled, and is it pending?
fn host_side(m: &Machine, event: u32) -> (bool, bool) {
    m.its[0].disabled(5, event).expect("mapped on the host")
}

fn masked(m: &Machine, event: u32) -> bool {
    host_side(m, event).0
}

/// The host LPI of an event is masked, and its last interrupt waits there.
#[track_caller]
fn assert_masked(m: &Machine, event: u32) {
    assert_eq!(host_side(m, event), (true, true), "masked, pending");
}

/// All has arrived: no LPI is masked, and each event can be raised again.
#[track_caller]
fn assert_free(m: &Machine, events: u32) {
    assert_eq!(m.stat("masked"), 0);
    assert_eq!(m.world.disabled(), 0);
    for event in 0..events {
        assert_eq!(host_side(m, event), (false, false), "masked, pending");
        assert!(m.fire(5, event));
        let taken: Vec<u32> = (0..m.vcpus.len()).flat_map(|vcpu| m.drain(vcpu)).collect();
        assert_eq!(taken, [FIRST + event]);
    }
    for _ in 0..3 {
        m.tick();
    }
    assert_eq!(m.ram.tick_due(), None, "the timer runs for nothing");
    m.check();
}

/// The guest did something that may make a difference: the timer goes off
/// within a millisecond.
#[track_caller]
fn assert_soon(m: &Machine) {
    let due = m.ram.tick_due().expect("something is masked");
    assert!(due - m.world.now() <= 1_000_000, "{due} {}", m.world.now());
}

/// The guest takes one interrupt on vCPU 0 before the timer goes off.
fn take_at_once(m: &Machine) -> Option<u32> {
    let vcpu = &m.vcpus[0];
    vcpu.cycle(&m.domain);
    let lpi = vcpu.ack()?;
    vcpu.eoi(lpi);
    vcpu.cycle(&m.domain);
    vcpu.unmask_taken(&m.domain, &m.host);
    m.take_due();
    Some(lpi.get())
}

fn host_commands(m: &Machine) -> usize {
    m.its[0].take_executed().len()
}

// ---- Where the LPI is meanwhile ----

#[test]
fn an_lpi_that_is_in_a_list_register() {
    let m = machine();
    m.fire(5, 0);
    m.settle();
    let raised = m.stat("lpis");
    storm(&m, 0);
    assert_masked(&m, 0);
    // One that may come once more, and those that find that one.
    assert_eq!(m.stat("lpis") - raised, 1 + 16);
    assert_eq!((m.stat("masked"), m.stat("storms")), (1, 1));
    assert!(!masked(&m, 1), "others are not affected");
    let now = m.world.now();
    assert_eq!(take_at_once(&m), Some(FIRST));
    assert_eq!(host_side(&m, 0), (false, false));
    assert_eq!(take_at_once(&m), Some(FIRST), "the one that was masked");
    assert_eq!(take_at_once(&m), None);
    assert_eq!(m.world.now(), now, "all of that without the timer");
    assert_free(&m, 4);
    m.destroy();
}

#[test]
fn an_lpi_that_the_current_vcpu_has_in_a_list_register() {
    let m = machine();
    m.vcpus[0].exit(&m.domain);
    storm(&m, 0);
    assert_masked(&m, 0);
    assert_eq!(m.stat("lpis"), 1 + 16);
    m.expect(&[FIRST, FIRST], &[]);
    assert_free(&m, 4);
    m.destroy();
}

#[test]
fn a_guest_that_keeps_up_is_left_alone() {
    let m = machine();
    for round in 0..scaled(1000, 40) {
        // Each fires once more while the guest handles it.
        m.fire(5, round % 4);
        m.settle();
        let lpi = m.vcpus[0].ack().expect("it is pending");
        m.fire(5, round % 4);
        m.vcpus[0].eoi(lpi);
        assert_eq!(m.drain(0), [FIRST + round % 4]);
    }
    assert_eq!(m.stat("storms"), 0);
    m.destroy();
}

#[test]
fn an_lpi_that_waits_for_a_slot() {
    let m = Machine::booted(Config::default());
    m.map(5, 17, FIRST);
    for event in 0..17 {
        m.fire(5, event);
    }
    m.settle();
    assert_eq!(m.stat("waiting"), 13);
    storm(&m, 16);
    assert_masked(&m, 16);
    assert_eq!(m.stat("lpis"), 17 + 16);
    let mut taken = Vec::new();
    while let Some(lpi) = take_at_once(&m) {
        taken.push(lpi);
    }
    taken.sort_unstable();
    let want: Vec<u32> = (FIRST..FIRST + 17).chain([FIRST + 16]).collect();
    assert_eq!(taken, want, "the last one twice");
    assert_free(&m, 17);
    m.destroy();
}

#[test]
fn an_lpi_that_is_disabled() {
    let enable: [fn(&Machine); 4] = [
        |m| m.ok(cmd::inv(5, 0)),
        |m| m.ok(cmd::invall(0)),
        |m| m.gicr_w64(0, GICR_INVLPIR, FIRST.into()),
        |m| m.gicr_w64(0, GICR_INVALLR, 0),
    ];
    for enable in enable {
        World::renew();
        let m = machine();
        m.disable(FIRST);
        storm(&m, 0);
        assert_masked(&m, 0);
        assert_eq!(m.stat("lpis"), 1 + 16);
        host_commands(&m);
        for _ in 0..50 {
            assert!(m.tick(), "the timer runs for as long as one is masked");
        }
        assert_masked(&m, 0);
        assert_eq!(host_commands(&m), 0, "it costs nothing");
        m.enable(FIRST);
        enable(&m);
        assert_soon(&m);
        m.expect(&[FIRST, FIRST], &[]);
        assert_free(&m, 4);
        m.destroy();
    }
}

#[test]
fn an_event_that_is_not_mapped() {
    let m = Machine::booted(Config::default());
    m.add_device(5, 32).expect("room");
    storm(&m, 3);
    assert_masked(&m, 3);
    assert_eq!(m.stat("storms"), 1);
    // Mapped as a device, but not this event of it.
    m.ok(cmd::mapd(5, 5));
    m.tick();
    assert_masked(&m, 3);
    m.enable(FIRST);
    m.ok(cmd::mapti(5, 3, FIRST, 0));
    assert_soon(&m);
    m.expect(&[FIRST], &[]);
    assert_eq!(host_side(&m, 3), (false, false));
    m.destroy();
}

/// What makes an LPI go nowhere, and what undoes it.
type Detour = (fn(&Machine), fn(&Machine));

#[test]
fn an_lpi_that_goes_nowhere() {
    let detours: [Detour; 3] = [
        (|m| m.ok(cmd::unmapc(0)), |m| m.ok(cmd::mapc(0, 0))),
        (|m| assert!(!m.w32(GITS_CTLR, 0)), |m| assert!(!m.w32(GITS_CTLR, 1))),
        (|m| m.ok(cmd::mapti(5, 0, FIRST, 7)), |m| m.ok(cmd::movi(5, 0, 0))),
    ];
    for (away, back) in detours {
        World::renew();
        let m = machine();
        away(&m);
        storm(&m, 0);
        assert_masked(&m, 0);
        assert_eq!(m.stat("unrouted"), 16);
        for _ in 0..10 {
            m.tick();
        }
        assert_masked(&m, 0);
        back(&m);
        assert_soon(&m);
        m.expect(&[FIRST], &[]);
        assert_free(&m, 4);
        m.destroy();
    }
}

#[test]
fn a_vcpu_that_has_lpis_disabled() {
    let m = Machine::new(Config::default());
    m.boot_its(0);
    m.ok(cmd::mapc(0, 0));
    m.map(5, 4, FIRST);
    storm(&m, 0);
    assert_masked(&m, 0);
    m.tick();
    assert_masked(&m, 0);
    m.boot_redist(0);
    assert_soon(&m);
    m.expect(&[FIRST], &[]);
    assert_free(&m, 4);
    m.destroy();
}

// ---- What the guest does to it meanwhile ----

#[test]
fn whatever_the_guest_does_it_comes_back() {
    let changes: [fn(&Machine); 7] = [
        |m| m.ok(cmd::clear(5, 0)),
        |m| m.ok_all(&[cmd::discard(5, 0), cmd::mapti(5, 0, FIRST, 0)]),
        |m| m.ok(cmd::movi(5, 0, 1)),
        |m| m.ok(cmd::mapc(0, 1)),
        |m| m.ok(cmd::movall(0, 1)),
        |m| m.ok_all(&[cmd::unmapc(0), cmd::mapc(0, 0)]),
        |m| {
            m.ok_all(&[cmd::unmapd(5), cmd::mapd(5, 5)]);
            m.ok_all(&[0, 1, 2, 3].map(|event| cmd::mapti(5, event, FIRST + event, 0)));
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        for in_register in [false, true] {
            World::renew();
            let m = Machine::booted(Config::default());
            // It stays mapped on the host.
            m.add_device(5, 32).expect("room");
            m.map(5, 4, FIRST);
            m.fire(5, 0);
            if in_register {
                m.settle();
            }
            storm(&m, 0);
            assert_masked(&m, 0);
            change(&m);
            assert_soon(&m);
            let taken: Vec<u32> = [m.drain(0), m.drain(1), m.drain(0)].concat();
            assert!(!taken.is_empty(), "change {number}: the last one is lost");
            assert!(taken.iter().all(|lpi| *lpi == FIRST));
            assert_free(&m, 4);
            m.destroy();
        }
    }
}

#[test]
fn a_vcpu_that_goes_off_and_on() {
    let m = machine();
    m.fire(5, 0);
    m.settle();
    storm(&m, 0);
    // The guest took it, and ends it never.
    assert!(m.vcpus[0].ack().is_some());
    m.vcpus[0].power_off(&m.domain);
    assert!(masked(&m, 0));
    m.vcpus[0].power_on(&m.domain);
    m.expect(&[FIRST, FIRST], &[]);
    assert_free(&m, 4);
    m.destroy();
}

#[test]
fn a_vcpu_that_is_stopped_with_an_lpi_it_has_taken() {
    let m = machine();
    m.fire(5, 0);
    m.settle();
    assert!(m.vcpus[0].ack().is_some());
    storm(&m, 0);
    assert_masked(&m, 0);
    m.vcpus[0].stop(&m.domain);
    m.vcpus[0].power_on(&m.domain);
    assert!(m.drain(0).contains(&FIRST));
    assert_free(&m, 4);
    m.destroy();
}

#[test]
fn an_lpi_of_two_events() {
    let m = machine();
    // The entry of the LPI names the second.
    m.ok(cmd::mapti(5, 1, FIRST, 0));
    storm(&m, 0);
    assert_masked(&m, 0);
    assert!(!masked(&m, 1));
    assert_eq!(take_at_once(&m), Some(FIRST));
    assert_soon(&m);
    assert_eq!(m.drain(0), [FIRST]);
    assert_eq!(m.stat("masked"), 0);
    // The second goes, and the entry still names it.
    m.ok(cmd::discard(5, 1));
    storm(&m, 0);
    assert_masked(&m, 0);
    assert_eq!(take_at_once(&m), Some(FIRST));
    assert_soon(&m);
    assert_eq!(m.drain(0), [FIRST]);
    assert_eq!(m.stat("masked"), 0);
    m.destroy();
}

#[test]
fn a_row_goes_on_when_the_rate_is_asked_again() {
    // Somewhere in between a vCPU has used up what it took of the rate.
    for others in (40..70).step_by(scaled(5, 15)) {
        let m = machine();
        for _ in 0..others {
            m.fire(5, 1);
            assert_eq!(m.drain(0), [FIRST + 1]);
        }
        m.disable(FIRST);
        for _ in 0..1 + 15 {
            m.fire(5, 0);
        }
        assert!(!masked(&m, 0), "after {others}");
        m.fire(5, 0);
        assert!(masked(&m, 0), "after {others}");
        m.destroy();
    }
}

#[test]
fn two_vcpus_have_storms_of_their_own() {
    let m = machine();
    m.ok(cmd::movi(5, 1, 1));
    for _ in 0..MANY {
        m.fire(5, 0);
        m.fire(5, 1);
        m.fire(5, 2);
    }
    assert_masked(&m, 0);
    assert_masked(&m, 1);
    assert_masked(&m, 2);
    let mut first = m.drain(0);
    first.sort_unstable();
    assert_eq!(first, [FIRST, FIRST, FIRST + 2, FIRST + 2]);
    assert_eq!(m.drain(1), [FIRST + 1, FIRST + 1]);
    assert_free(&m, 4);
    m.destroy();
}

#[test]
fn int_masks_nothing() {
    let m = machine();
    m.disable(FIRST);
    m.ok_all(&[cmd::int(5, 0); 99]);
    assert_eq!((m.stat("storms"), m.stat("masked")), (0, 0));
    assert_eq!(m.ram.tick_due(), None);
    m.destroy();
}

#[test]
fn many_at_once_come_back_bit_by_bit() {
    const MANY: u32 = scaled(256, 130);
    let m = Machine::booted(Config::default());
    m.add_device(5, 256).expect("room");
    for event in 0..MANY {
        // Any of them may be the one that is masked.
        while !masked(&m, event) {
            m.fire(5, event);
        }
        m.fire(5, event);
    }
    assert_eq!(m.stat("masked"), MANY.into());
    m.ok(cmd::mapd(5, 8));
    for event in 0..MANY {
        m.enable(FIRST + event);
        m.ok(cmd::mapti(5, event, FIRST + event, 0));
    }
    let mut left = MANY.into();
    while left != 0 {
        host_commands(&m);
        assert!(m.tick());
        let now = m.stat("masked");
        assert!(now < left && left - now <= 64, "{left} {now}");
        assert!(host_commands(&m) <= 2 * 64);
        left = now;
    }
    let mut taken = m.drain(0);
    taken.sort_unstable();
    assert_eq!(taken, (FIRST..FIRST + MANY).collect::<Vec<_>>());
    m.destroy();
}

#[test]
fn one_that_was_passed_over_is_looked_at_soon_however_many_there_are() {
    let m = Machine::booted(Config::default());
    m.add_device(5, 300).expect("room");
    for lpi in m.its[0].lpis() {
        m.domain.mask(&m.host, lpi);
    }
    m.ok(cmd::mapd(5, 8));
    m.ok_all(&(0..70).map(|n| cmd::mapti(5, n, FIRST + n, 0)).collect::<Vec<_>>());
    let masked = m.stat("masked");
    assert_eq!(masked, 512);
    // There is room for 63 INVs. Later looks find none, or those of no use only.
    m.its[0].set_pace(Pace::Hang(0));
    for _ in 0..512 / 256 {
        assert!(m.tick());
        assert_soon(&m);
    }
    assert!(m.tick());
    assert_eq!(masked - m.stat("masked"), 63);
    let due = m.ram.tick_due().expect("some are masked") - m.world.now();
    assert!(due <= 10_000_000, "{due} ns");
    m.its[0].set_pace(Pace::Immediate);
    while masked - m.stat("masked") != 70 {
        assert!(m.tick());
    }
    m.destroy();
}

// ---- The host ITS ----

#[test]
fn a_mask_takes_effect_when_the_its_gets_there() {
    let m = machine();
    m.disable(FIRST);
    m.its[0].set_pace(Pace::Hang(0));
    storm(&m, 0);
    assert_eq!(host_side(&m, 0), (false, false), "the redistributor has not been told");
    assert_eq!(m.stat("lpis"), u64::from(MANY), "so it fires on");
    assert_eq!(m.its[0].waiting(), 2, "and is masked once");
    m.its[0].set_pace(Pace::Immediate);
    m.fire(5, 0);
    assert_masked(&m, 0);
    m.enable(FIRST);
    m.ok(cmd::inv(5, 0));
    m.expect(&[FIRST, FIRST], &[]);
    assert_free(&m, 4);
    m.destroy();
}

#[test]
fn without_room_for_an_inv_it_is_tried_again() {
    let m = Machine::booted(Config::default());
    m.map(5, 64, FIRST);
    for event in 0..64 {
        m.disable(FIRST + event);
    }
    let now = m.world.now();
    m.its[0].set_pace(Pace::Hang(0));
    for event in 0..64 {
        storm(&m, event);
    }
    // 128 slots, of which one stays empty.
    assert_eq!((m.stat("masked"), m.its[0].waiting()), (63, 126));
    assert_eq!(m.world.now(), now, "nobody waits");
    m.quiet();
    m.its[0].set_pace(Pace::Immediate);
    storm(&m, 63);
    assert_eq!(m.stat("masked"), 64);
    // The same on the way back.
    for event in 0..64 {
        m.enable(FIRST + event);
    }
    m.its[0].set_pace(Pace::Hang(0));
    m.ok(cmd::invall(0));
    let mut taken = Vec::new();
    for _ in 0..64 {
        taken.extend(take_at_once(&m));
    }
    assert_eq!(taken.len(), 64);
    assert_eq!(m.stat("masked"), 1, "there was room for 63");
    m.tick();
    assert_eq!(m.stat("masked"), 1);
    m.its[0].set_pace(Pace::Immediate);
    while m.stat("masked") != 0 {
        assert!(m.tick(), "the timer tries again");
    }
    assert_eq!(m.drain(0), [FIRST + 63], "only that one was masked in time to be kept");
    assert_free(&m, 64);
    m.destroy();
}

#[test]
fn assignment_leaves_room_for_an_inv() {
    const SLOTS: u64 = 16;
    let m = Machine::booted(Config { host_queue_bytes: 16 * 32, ..Config::default() });
    m.map(5, 1, FIRST);
    m.disable(FIRST);
    m.fire(5, 0);
    let full = usize::try_from(SLOTS - 1 - reserved(SLOTS)).expect("few");
    m.its[0].set_pace(Pace::Hang(0));
    while m.its[0].waiting() < full {
        assert_eq!(m.begin_add(6, 64), Ok(true));
    }
    // The queue is as full as it may be, and the rest waits for room.
    assert_eq!(m.begin_add(6, 64), Ok(true));
    assert_eq!(m.its[0].waiting(), full);
    for _ in 0..16 {
        m.fire(5, 0);
    }
    assert_eq!((m.stat("masked"), m.its[0].waiting()), (1, full + 2), "an INV and a SYNC");
    m.its[0].set_pace(Pace::Immediate);
    m.add_device(6, 64).expect("it gets there");
    m.fire(5, 0);
    assert_masked(&m, 0);
    m.destroy();
}

#[test]
fn an_its_that_is_dead_is_not_asked_to_mask() {
    let m = machine();
    m.disable(FIRST);
    m.its[0].set_pace(Pace::Hang(0));
    assert_eq!(m.add_device(6, 32), Err(Error::TimedOut));
    let (waiting, now) = (m.its[0].waiting(), m.world.now());
    assert_eq!(m.world.take_log().len(), 2);
    storm(&m, 0);
    assert_eq!((m.stat("storms"), m.its[0].waiting()), (0, waiting));
    assert_eq!(m.world.now(), now);
    m.quiet();
    // It wakes up.
    m.its[0].set_pace(Pace::Immediate);
    storm(&m, 0);
    assert_masked(&m, 0);
    m.enable(FIRST);
    m.ok(cmd::inv(5, 0));
    assert_eq!(m.drain(0), [FIRST, FIRST]);
    assert_eq!(m.world.disabled(), 0);
}

#[test]
fn nobody_masks_what_is_not_his() {
    let m = machine();
    let others = Lpi::from_index(64).expect("an LPI");
    m.domain.mask(&m.host, others);
    let other = m.host.map_device(0, DeviceId::new(9), 8, 32).expect("room");
    let others = other.lpi(EventId::new(0)).expect("it has one");
    m.domain.mask(&m.host, others);
    assert_eq!((m.stat("storms"), m.stat("masked"), m.world.disabled()), (0, 0, 0));
    assert_eq!(m.ram.tick_due(), None);
    m.host.unmap_device(other);
    m.destroy();
}

// ---- The end of a device ----

#[test]
fn the_next_owner_finds_it_enabled() {
    let m = Machine::booted(Config::default());
    m.add_device(5, 32).expect("room");
    m.map(5, 4, FIRST);
    m.disable(FIRST + 2);
    storm(&m, 2);
    assert_masked(&m, 2);
    let lpi = |device| {
        let (lpi, _) = m.its[0].fire(device, 2)?;
        Some(lpi)
    };
    assert_eq!(lpi(5), None, "it is disabled");
    m.remove_device(5).expect("it is there");
    assert_eq!(m.world.disabled(), 0);
    assert_eq!(m.ram.tick_due().is_some(), m.tick());
    assert_eq!(m.stat("masked"), 0);
    m.add_device(6, 32).expect("room");
    let known: Vec<Lpi> = m.its[0].lpis();
    assert!(lpi(6).is_some_and(|lpi| known.contains(&lpi)));
    m.check();
    m.destroy();
}

#[test]
fn the_guest_unmaps_the_device_or_ends() {
    for ends in [false, true] {
        World::renew();
        let m = machine();
        for event in 0..4 {
            m.disable(FIRST + event);
            storm(&m, event);
            assert_masked(&m, event);
        }
        if !ends {
            // Nobody announced it, so it goes on the host as well.
            m.ok(cmd::unmapd(5));
            assert_eq!(m.world.disabled(), 0);
            m.check();
            m.map(5, 4, FIRST);
            assert_free(&m, 4);
        }
        m.destroy();
    }
}

/// The host's queue is full, but for what is in reserve.
#[test]
fn a_device_that_leaves_waits_for_room_for_its_inv() {
    let m = machine();
    m.disable(FIRST);
    storm(&m, 0);
    assert_masked(&m, 0);
    let config = DomainConfig { id: 8, hardware: false, ..m.config.domain() };
    let other = Domain::new(&m.host, FakeGuest(Arc::new(Ram::default())), config).expect("memory");
    m.its[0].set_pace(Pace::Hang(0));
    let assign = || other.add_device(&m.host, 0, DeviceId::new(6), 256);
    assert_eq!(assign(), Ok(true));
    let full = m.its[0].waiting();
    let at = m.r64(GITS_CWRITER);
    m.put(0, at, &cmd::unmapd(5).encode());
    assert!(m.w64(GITS_CWRITER, at + 32));
    assert!(m.domain.work(&m.host));
    assert_eq!((m.its[0].waiting(), m.world.disabled()), (full, 0), "the INV is not there yet");
    m.its[0].set_pace(Pace::Immediate);
    m.work();
    // So that its LPIs can be had by anybody.
    m.its[0].check_properties();
    assert_eq!(m.stat("masked"), 0);
    while assign() == Ok(true) {}
    m.check();
    while other.relinquish(&m.host) {}
    drop(other);
    m.destroy();
}

/// The guest has taken the LPI, and unmaps the device while the timer looks whether it has.
#[test]
fn a_device_leaves_while_the_timer_looks_at_it() {
    let m = Arc::new(machine());
    m.fire(5, 0);
    m.settle();
    storm(&m, 0);
    assert_masked(&m, 0);
    // Nothing of it is pending any more, which only the timer is to find out.
    while let Some(lpi) = m.vcpus[0].ack() {
        m.vcpus[0].eoi(lpi);
        m.vcpus[0].cycle(&m.domain);
    }
    assert!(masked(&m, 0));
    let other = Arc::clone(&m);
    m.vcpus[0].before_lock(move || other.ok(cmd::unmapd(5)));
    assert!(m.tick());
    assert_eq!(m.its[0].mapped(), (0, 0));
    // The way of the device off the host has unmasked it, and nobody else.
    assert_eq!((m.stat("masked"), m.world.disabled()), (0, 0));
    m.its[0].check_properties();
    m.check();
}

#[test]
fn a_device_that_grows_is_unmasked_first() {
    let m = machine();
    m.disable(FIRST);
    storm(&m, 0);
    assert_masked(&m, 0);
    m.ok(cmd::mapd(5, 8));
    m.check();
    m.enable(FIRST);
    m.ok(cmd::mapti(5, 0, FIRST, 0));
    m.fire(5, 0);
    m.expect(&[FIRST], &[]);
    assert_eq!((m.stat("masked"), m.world.disabled()), (0, 0));
    m.destroy();
}

// ---- The rate ----

#[test]
fn what_is_too_much_comes_later() {
    // 100 in 10 ms.
    let m = Machine::booted(Config { lpi_rate: Some(10_000), ..Config::default() });
    m.map(5, 4, FIRST);
    // Nothing is known of the time before.
    m.world.advance(10_000_000);
    let start = m.world.now();
    let intervals = scaled(100_u32, 5);
    let (mut taken, mut ticks) = (0, 0);
    while m.world.now() - start < u64::from(intervals) * 10_000_000 {
        for event in 0..4 {
            m.fire(5, event);
        }
        if (0..4).all(|event| masked(&m, event)) {
            assert!(m.tick());
            ticks += 1;
        }
        while take_at_once(&m).is_some() {
            taken += 1;
        }
    }
    // Each interval begins with the four that were too many in the last one.
    let least = intervals * 95;
    let most = intervals * 106 + scaled(0, 100);
    assert!((least..=most).contains(&taken), "{taken} in {intervals} intervals");
    assert!(ticks >= intervals * 9 / 10, "{ticks}");
    while m.tick() {
        m.drain(0);
    }
    assert_free(&m, 4);
    m.destroy();
}

#[test]
fn a_guest_cannot_get_around_the_rate() {
    let m = Machine::booted(Config { lpi_rate: Some(10_000), ..Config::default() });
    m.map(5, 4, FIRST);
    let mut raised = 0;
    while !masked(&m, 0) {
        m.fire(5, 0);
        assert_eq!(take_at_once(&m), Some(FIRST), "what is too much is not lost");
        raised += 1;
    }
    assert!((100..=200).contains(&raised), "{raised}");
    // It has taken the last one.
    let now = m.world.now();
    m.fire(5, 0);
    m.ok_all(&[cmd::inv(5, 0), cmd::invall(0), cmd::movi(5, 0, 1), cmd::movi(5, 0, 0)]);
    m.gicr_w64(0, GICR_INVALLR, 0);
    assert_eq!(take_at_once(&m), None);
    assert_masked(&m, 0);
    assert_soon(&m);
    while m.world.now() - now < 9_000_000 {
        assert_masked(&m, 0);
        assert!(m.tick());
    }
    while masked(&m, 0) {
        assert!(m.tick());
    }
    m.expect(&[FIRST], &[]);
    assert_free(&m, 4);
    m.destroy();
}

/// A device of 64 events never stops. The guest listens to it (`listen`) only
/// while the timer looks at what is masked, and then no more (`ignore`). How
/// many interrupts come.
fn flood(listen: impl Fn(&Machine), ignore: impl Fn(&Machine)) -> u32 {
    const EVENTS: u32 = 64;
    let m = Machine::booted(Config { lpi_rate: Some(RATE), ..Config::default() });
    m.map(5, EVENTS, FIRST);
    ignore(&m);
    let (start, mut came) = (m.world.now(), 0);
    while m.world.now() - start < INTERVALS * 10_000_000 {
        for event in 0..EVENTS {
            while let Some((host_lpi, _)) = m.its[0].fire(5, event) {
                came += 1;
                m.interrupt(host_lpi);
            }
        }
        listen(&m);
        m.tick();
        ignore(&m);
        while take_at_once(&m).is_some() {}
    }
    m.destroy();
    came
}

/// A domain's interrupts in a second, and how long [`flood`] lasts.
const RATE: u32 = 10_000;
const INTERVALS: u64 = scaled(10, 2);

#[test]
fn interrupts_that_nobody_listens_to_are_part_of_the_rate() {
    let most = 2 * RATE / 100 * u32::try_from(INTERVALS).expect("few");
    let normal = flood(|_| (), |_| ());
    assert!(normal <= most, "{normal}, not {most}");
    let off = flood(
        |m| {
            m.w32(GITS_CTLR, 1);
        },
        |m| {
            m.w32(GITS_CTLR, 0);
        },
    );
    assert!(off <= most, "{off} with the ITS off, not {most}");
    let unmapped = flood(
        |m| m.ok_all(&(0..64).map(|n| cmd::mapti(5, n, FIRST + n, 0)).collect::<Vec<_>>()),
        |m| m.ok_all(&(0..64).map(|n| cmd::discard(5, n)).collect::<Vec<_>>()),
    );
    assert!(unmapped <= most, "{unmapped} of events that are not mapped, not {most}");
}

#[test]
fn a_share_is_renewed_after_a_very_long_time() {
    let m = Machine::booted(Config { lpi_rate: Some(10_000), ..Config::default() });
    m.map(5, 4, FIRST);
    let use_up = || {
        while !masked(&m, 0) {
            m.fire(5, 0);
            take_at_once(&m);
        }
        m.fire(5, 0);
    };
    use_up();
    // When the share was last renewed is kept in 32 bits of 1024 ns: this is
    // when they come round.
    m.world.advance(1 << 42);
    assert!(m.tick());
    assert_masked(&m, 0);
    assert!(m.tick());
    m.expect(&[FIRST], &[]);
    // And not long after that.
    use_up();
    m.world.advance((1 << 42) + 10_000_000);
    assert!(m.tick());
    m.expect(&[FIRST], &[]);
    assert_free(&m, 4);
    m.destroy();
}

#[test]
fn a_host_lpi_that_is_another_domains_by_now() {
    let mut m = machine();
    // LPI 8192 is that of two events. The last one is the one it is known by.
    m.ok_all(&[cmd::mapd(6, 5), cmd::mapti(6, 0, FIRST, 0)]);
    let (host_lpi, _) = m.its[0].fire(6, 0).expect("mapped on the host");
    m.ok(cmd::unmapd(6));

    // Another domain gets that host LPI, for an LPI of its own with the same
    // number.
    let mut other = Machine::new(m.config);
    let config = DomainConfig { id: DOMAIN_ID + 1, ..m.config.domain() };
    let domain = Domain::new(&m.host, FakeGuest(Arc::clone(&other.ram)), config);
    other.domain = domain.expect("room");
    for (id, vcpu) in (0..).zip(&other.vcpus) {
        other.domain.add_vcpu(VcpuId::new(id), vcpu.clone()).expect("a new vCPU");
    }
    let exchange = |m: &mut Machine, other: &mut Machine| {
        std::mem::swap(&mut m.host, &mut other.host);
        std::mem::swap(&mut m.its, &mut other.its);
    };
    exchange(&mut m, &mut other);
    other.boot_its(0);
    other.boot_redist(0);
    other.ok(cmd::mapc(0, 0));
    other.map(6, 1, FIRST);
    let (others, _) = other.its[0].fire(6, 0).expect("mapped on the host");
    assert_eq!(others, host_lpi);
    exchange(&mut m, &mut other);

    // The first domain's is masked, and taken: looking at the other one's does
    // not do.
    m.fire(5, 0);
    m.settle();
    storm(&m, 0);
    assert_masked(&m, 0);
    assert_eq!(take_at_once(&m), Some(FIRST));
    assert_soon(&m);
    assert!(m.tick());
    assert_eq!(take_at_once(&m), Some(FIRST), "the one that was masked");
}

// ---- Many CPUs ----

#[test]
fn the_last_one_arrives_whatever_happens_at_once() {
    const EVENTS: u32 = 8;
    let rounds = if cfg!(miri) { 20 } else { 20_000 };
    let m = Machine::booted(Config { vcpus: 2, cpus: 2, id_bits: 14, ..Config::default() });
    m.map(5, EVENTS, FIRST);
    for event in 0..EVENTS {
        m.ok(cmd::movi(5, event, u16::try_from(event % 2).expect("small")));
    }
    // Raised, and not seen since.
    let raised = [const { AtomicBool::new(false) }; EVENTS as usize];
    let saw = |lpi: Lpi| {
        raised[usize::try_from(lpi.get() - FIRST).expect("few")].store(false, Ordering::SeqCst);
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for vcpu in &m.vcpus {
            let (m, stop, saw) = (&m, &stop, &saw);
            scope.spawn(move || {
                m.world.enter();
                while !stop.load(Ordering::SeqCst) {
                    if let Some(lpi) = vcpu.ack() {
                        // What is raised from here on is pending anew.
                        saw(lpi);
                        vcpu.eoi(lpi);
                    }
                    vcpu.cycle(&m.domain);
                    vcpu.unmask_taken(&m.domain, &m.host);
                    m.take_due();
                }
            });
        }
        let devices: Vec<_> = (0..2)
            .map(|device| {
                let (m, raised) = (&m, &raised);
                scope.spawn(move || {
                    m.world.enter();
                    for round in 0..rounds {
                        let event = (round * 2 + device) % EVENTS;
                        raised[usize::try_from(event).expect("few")].store(true, Ordering::SeqCst);
                        m.fire(5, event);
                    }
                })
            })
            .collect();
        for round in 0.. {
            let event = round % EVENTS;
            let enabled = round % 3 != 0;
            m.set_property(FIRST + event, 0xa0, enabled);
            let _log = m.run_on(0, &[cmd::inv(5, event), cmd::movi(5, event, (round % 2) as u16)]);
            if round % 16 == 0 {
                m.tick();
            }
            if devices.iter().all(|device| device.is_finished()) {
                break;
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(cfg!(miri) || m.stat("storms") != 0, "there was a storm, but in few rounds");
    for event in 0..EVENTS {
        m.enable(FIRST + event);
        m.ok(cmd::inv(5, event));
    }
    let drain = || {
        for vcpu in [0, 1, 0] {
            m.drain(vcpu).into_iter().filter_map(Lpi::new).for_each(saw);
        }
    };
    drain();
    while m.stat("masked") != 0 {
        assert!(m.tick(), "nobody looks at what is masked");
        drain();
    }
    for (event, raised) in (0..EVENTS).zip(&raised) {
        assert_eq!(host_side(&m, event), (false, false));
        assert!(!raised.load(Ordering::SeqCst), "the last interrupt of event {event} is lost");
    }
    assert_free(&m, EVENTS);
    m.destroy();
}
