// SPDX-License-Identifier: GPL-2.0-only
//! Domains from their creation to their end, through the C ABI alone.

use std::sync::atomic::{AtomicBool, Ordering};

use its_arch::gicr::GICR_CTLR;
use its_arch::gits::{GITS_CREADR, GITS_CTLR};
use its_testkit::{cmd, scaled};

use crate::c;
use crate::guest::{Guest, HOST_ITS, ID_BITS, VCPUS, boot};
use crate::machine::{REGISTERS, pinned};
use crate::services::{alone, disabled, fail_after, live, take_log};

/// Virtual LPIs are numbered from here.
const FIRST: u32 = 8192;

/// A guest with a device whose events are LPIs from [`FIRST`] on, for vCPU 0.
fn with_device(device: u32, events: u32) -> Guest {
    let guest = Guest::booted();
    guest.command(&[cmd::mapd(device, 5)]);
    for event in 0..events {
        guest.set_property(FIRST + event, 0xa0, true);
        guest.command(&[cmd::mapti(device, event, FIRST + event, 0)]);
    }
    guest
}

#[test]
fn an_interrupt_from_end_to_end() {
    let _alone = alone();
    // The host's tables of LPIs come with the first device, and stay.
    drop(with_device(1, 2));
    let before = live();
    let guest = with_device(1, 2);
    assert!(guest.fire(1, 0));
    assert!(guest.vcpus[0].take_kick());
    assert_eq!(guest.drain(0), [FIRST]);
    // It fires again while the guest handles it.
    assert!(guest.fire(1, 1));
    guest.enter(0);
    assert_eq!(guest.take(0), Some(FIRST + 1));
    assert!(guest.fire(1, 1));
    guest.end(0, FIRST + 1);
    assert_eq!(guest.drain(0), [FIRST + 1]);
    assert_eq!(guest.drain(0), []);
    // An event that the guest has not mapped is nobody's.
    assert!(!guest.fire(1, 2));
    assert_eq!(take_log(), []);
    guest.relinquish();
    assert_eq!(pinned(), 0);
    drop(guest);
    assert_eq!(live(), before);
}

#[test]
fn more_lpis_than_slots_come_in_the_order_of_their_priorities() {
    let _alone = alone();
    let guest = with_device(2, 20);
    for event in 0..20_u32 {
        let priority = u8::try_from(event * 8).expect("small");
        guest.set_property(FIRST + event, 0xf8 - priority, true);
    }
    guest.command(&[cmd::invall(0)]);
    for event in 0..20 {
        assert!(guest.fire(2, event));
    }
    assert_eq!(guest.drain(0), (FIRST..FIRST + 20).rev().collect::<Vec<_>>());
}

#[test]
fn an_lpi_in_a_list_register_moves() {
    let _alone = alone();
    let guest = with_device(3, 1);
    guest.fire(3, 0);
    guest.enter(0);
    guest.command(&[cmd::movi(3, 0, 1)]);
    assert!(guest.vcpus[0].locked(|queues| queues.sync), "nobody asked for a sync");
    guest.enter(0);
    assert_eq!((guest.drain(0), guest.drain(1)), (vec![], vec![FIRST]));
}

#[test]
fn an_urgent_interrupt_takes_a_list_register_from_an_lpi() {
    let _alone = alone();
    let guest = with_device(9, 5);
    for event in 0..5 {
        guest.set_property(FIRST + event, 0xa0, true);
        assert!(guest.fire(9, event));
    }
    assert!(guest.is_urgent(0, 0xa1) && !guest.is_urgent(0, 0xa0));
    guest.enter(0);
    // One waits still. None gives way to what is as urgent.
    assert!(guest.is_urgent(0, 0xa1) && !guest.is_urgent(1, 256));
    assert_eq!(guest.yield_slot(0, 0xa0), None);
    let slot = guest.yield_slot(0, 0x98).expect("they are less urgent");
    assert!(usize::try_from(slot).is_ok_and(|slot| slot < REGISTERS));
    assert_eq!(guest.drain(0).len(), 5);
    assert!(!guest.is_urgent(0, 256));
}

#[test]
fn what_is_pending_outlives_a_reset() {
    let _alone = alone();
    let guest = with_device(4, 2);
    guest.fire(4, 0);
    guest.fire(4, 1);
    guest.enter(0);
    let vcpu = &guest.vcpus[0];
    let flags = vcpu.lock();
    // SAFETY: the domain exists, and the lock is held.
    unsafe { c::xen_its_vcpu_reset(guest.its, &raw const *vcpu, 0) };
    vcpu.unlock(flags);
    assert_eq!(guest.drain(0), [FIRST, FIRST + 1]);
}

#[test]
fn devices_come_and_go_by_hypercall() {
    let _alone = alone();
    let guest = Guest::booted();
    // SAFETY: the domain exists.
    let add = |device, events| unsafe { c::xen_its_device_add(guest.its, 0, device, events) };
    // SAFETY: as above.
    let remove = |device| unsafe { c::xen_its_device_remove(guest.its, 0, device) };
    let before = live();
    assert_eq!(add(5, 4), 0);
    assert!(live() > before, "there is no ITT");
    guest.command(&[cmd::mapd(5, 2), cmd::mapti(5, 3, FIRST, 1)]);
    guest.set_property(FIRST, 0, true);
    assert!(guest.fire(5, 3));
    assert_eq!(guest.drain(1), [FIRST]);
    assert_eq!(remove(5), 0);
    assert_eq!(remove(5), -2, "it is gone");
    // There is more to do while the host ITS has not answered.
    HOST_ITS.hold(true);
    assert_eq!(add(5, 4), 1);
    assert_eq!((add(6, 4), remove(5)), (1, 1), "others have to wait, too");
    HOST_ITS.hold(false);
    assert_eq!(add(5, 4), 0);
    HOST_ITS.hold(true);
    assert_eq!(remove(5), 0, "the rest is work for later");
    assert_eq!(add(5, 4), 1);
    HOST_ITS.hold(false);
    guest.work();
    assert_eq!(remove(5), -2, "it is gone");
    assert!(!guest.fire(5, 3));
    assert_eq!(add(1 << 16, 4), -22, "the ITS has 16 DeviceID bits");
    assert_eq!(add(6, 33), -22, "and 5 EventID bits");
}

#[test]
fn both_dumps_are_lines_of_text() {
    let _alone = alone();
    let guest = with_device(7, 1);
    // SAFETY: the domain exists.
    unsafe {
        c::xen_its_host_dump();
        c::xen_its_dump(guest.its);
    }
    let log = take_log();
    assert!(
        log.len() > 3 && log.iter().all(|(level, line)| *level == 2 && line.starts_with("ITS"))
    );
}

#[test]
fn arguments_that_name_nothing_are_errors() {
    let _alone = alone();
    let guest = Guest::booted();
    let its = guest.its;
    let mut value = 1;
    let out = &raw mut value;
    let (creadr, ctlr) = (u32::try_from(GITS_CREADR), u32::try_from(GICR_CTLR));
    let (creadr, ctlr) = (creadr.expect("small"), ctlr.expect("small"));
    // SAFETY: pointers are what C would pass; numbers may be any.
    unsafe {
        assert_eq!(c::xen_its_host_init(14), -17);
        assert_eq!(c::xen_its_host_init(13), -22);
        assert_eq!(c::xen_its_host_init(300), -22);
        assert_eq!(c::xen_its_host_setup_collection(1, 0, 0), -2);
        assert_eq!(c::xen_its_host_setup_collection(0, 1 << 16, 0), -22);
        assert_eq!(c::xen_its_host_lpi(0), 0);
        assert_eq!(c::xen_its_host_lpi(u32::MAX), 0);
        assert_eq!(c::xen_its_vcpu_init(its, &raw const guest.vcpus[0], VCPUS), -22);
        assert_eq!(c::xen_its_vcpu_init(its, &raw const guest.vcpus[0], 1 << 16), -22);
        assert_eq!(c::xen_its_vcpu_init(its, &raw const guest.vcpus[0], 0), -17);
        assert_eq!(c::xen_its_mmio_read(its, 1, creadr, 3, out), -2);
        assert_eq!(c::xen_its_mmio_read(its, 1 << 16, creadr, 3, out), -2);
        assert_eq!(c::xen_its_mmio_read(its, 0, creadr, 4, out), -14);
        assert_eq!(c::xen_its_mmio_write(its, 0, creadr, 1 << 8, 0), -14);
        assert_eq!(c::xen_its_gicr_read(its, VCPUS, ctlr, 2, out), -2);
        assert_eq!(c::xen_its_gicr_write(its, 1 << 16, ctlr, 2, 0), -22);
        assert_eq!(c::xen_its_device_add(its, 1, 0, 1), -2);
        assert_eq!(c::xen_its_device_remove(its, 1 << 16, 0), -22);
        c::xen_its_deliver(its, 0);
        c::xen_its_deliver(its, FIRST);
        c::xen_its_deliver(its, u32::MAX);
        c::xen_its_mask(its, 0);
        c::xen_its_mask(its, u32::MAX);
        c::xen_its_tick(its);
        assert!(disabled().is_empty(), "there was nothing to mask");
        c::xen_its_sync(its, VCPUS);
        c::xen_its_sync(its, u32::MAX);
    }
    assert_eq!(value, 1, "an error, and a value");
    // SAFETY: as above.
    unsafe { assert_eq!(c::xen_its_gicr_read(its, 0, ctlr, 2, out), 0) };
    assert_eq!(value & 1, 1);
}

#[test]
fn a_lock_of_another_vcpu_opens_nothing() {
    let _alone = alone();
    let guest = with_device(8, 1);
    guest.fire(8, 0);
    let other = &guest.vcpus[1];
    let flags = other.lock();
    // SAFETY: the domain exists, and this vCPU's lock is held.
    unsafe {
        assert!(!c::xen_its_is_urgent(guest.its, &raw const *other, 0, 256));
        assert!(!c::xen_its_is_urgent(guest.its, &raw const *other, 1, 256));
        assert!(!c::xen_its_is_urgent(guest.its, &raw const *other, VCPUS, 256));
        assert!(!c::xen_its_fill(guest.its, &raw const *other, 0));
        assert!(!c::xen_its_fill(guest.its, &raw const *other, u32::MAX));
        assert_eq!(c::xen_its_yield_slot(guest.its, &raw const *other, 0, 0), -1);
        assert_eq!(c::xen_its_yield_slot(guest.its, &raw const *other, u32::MAX, 0), -1);
        c::xen_its_slot_done(guest.its, &raw const *other, 0, 0);
        c::xen_its_vcpu_reset(guest.its, &raw const *other, 0);
    }
    other.unlock(flags);
    assert_eq!((guest.drain(0), guest.drain(1)), (vec![FIRST], vec![]));
}

#[test]
fn no_domain_is_freed_without_a_domain() {
    // SAFETY: NULL is fine.
    unsafe { c::xen_its_domain_destroy(std::ptr::null_mut()) }
}

#[test]
fn a_domain_whose_memory_ran_out_leaves_nothing() {
    let _alone = alone();
    boot();
    let before = live();
    let mut failures = 0;
    loop {
        fail_after(Some(failures));
        let made = Guest::new().map(drop);
        assert_eq!(live(), before, "after {failures} allocations");
        if made.is_ok() {
            break;
        }
        assert_eq!(made, Err(-12));
        failures += 1;
    }
    assert!(failures > u32::from(u8::try_from(VCPUS).expect("few")), "{failures} of {ID_BITS}");
}

#[test]
fn a_guest_starts_again_when_there_is_memory_again() {
    let _alone = alone();
    let guest = with_device(9, 1);
    fail_after(Some(0));
    guest.command(&[cmd::mapd(10, 1)]);
    assert_eq!(take_log().len(), 1, "one line says why");
    assert!(!guest.fire(10, 0));
    fail_after(None);
    guest.command(&[cmd::mapd(10, 1), cmd::mapti(10, 0, FIRST + 1, 1)]);
    guest.set_property(FIRST + 1, 0, true);
    assert!(guest.fire(10, 0) && guest.fire(9, 0));
    assert_eq!((guest.drain(0), guest.drain(1)), (vec![FIRST], vec![FIRST + 1]));
}

#[test]
fn devices_vcpus_and_commands_at_once() {
    let _alone = alone();
    let guest = with_device(11, 4);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (guest, stop) = (&guest, &stop);
        for id in 0..VCPUS {
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for lpi in guest.drain(id) {
                        assert!((FIRST..FIRST + 4).contains(&lpi), "{lpi}");
                    }
                    std::thread::yield_now();
                }
            });
        }
        scope.spawn(move || {
            for _ in 0..scaled(500, 4) {
                for event in 0..4 {
                    guest.fire(11, event);
                }
            }
        });
        for round in 0..scaled(500, 4) {
            let to = round % 2;
            guest.command(&[cmd::movi(11, 0, to), cmd::movall(to, 1 - to), cmd::invall(to)]);
            guest.command(&[cmd::discard(11, 1), cmd::mapti(11, 1, FIRST + 1, to)]);
        }
        // The ITS off and on again, which no interrupt may trip over.
        guest.write(GITS_CTLR, 4, 0);
        guest.write(GITS_CTLR, 4, 1);
        stop.store(true, Ordering::Relaxed);
    });
    // What was still on its way, then one of each that nothing keeps from it.
    for id in 0..VCPUS {
        guest.drain(id);
    }
    for event in 0..4 {
        assert!(guest.fire(11, event));
    }
    let mut all: Vec<u32> = (0..VCPUS).flat_map(|id| guest.drain(id)).collect();
    all.sort_unstable();
    assert_eq!(all, (FIRST..FIRST + 4).collect::<Vec<_>>());
}
