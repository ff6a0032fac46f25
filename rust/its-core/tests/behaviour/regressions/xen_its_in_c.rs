// SPDX-License-Identifier: GPL-2.0-only
//! What was found by reading Xen's ITS in C, by the number it has in the list
//! of those findings.

use its_arch::error::CommandError;
use its_arch::gicr::GICR_INVALLR;
use its_arch::gits::GITS_CTLR;
use its_arch::{Command, DeviceId, EventBits, GuestPa, Lpi};
use its_core::Error;
use its_testkit::its::Pace;
use its_testkit::vcpu::Place;
use its_testkit::{Config, Machine, World, cmd, scaled};

use super::{LPI, end, shared, works_anew};

/// 1: a device whose mapping failed was freed, and stayed in the tree of
/// devices. Nothing is left of it, and nobody finds it.
#[test]
fn xen_its_c_3a_1_failed_device_map_leaves_nothing() {
    // MAPD, 32 MAPTI, 4 SYNC: the host ITS stops at each of them.
    for executed in 0..37 {
        World::renew();
        let m = Machine::booted(Config::default());
        m.its[0].set_pace(Pace::Stall(executed));
        assert_eq!(m.add_device(5, 32), Err(Error::Stalled));
        let _lines = m.world.take_log();
        m.fails(cmd::mapti(5, 0, LPI, 0), CommandError::MAPTI_UNMAPPED_DEVICE);
        assert!(!m.fire(5, 0), "{executed}");
        for lpi in m.its[0].lpis() {
            assert_eq!(m.host.lpis.get(lpi), None, "the ITS may have it still, the domain not");
        }
        assert_eq!(m.remove_device(5), Err(Error::NotFound));
        assert_eq!((m.stat("devices"), m.stat("events")), (0, 0));
        m.its[0].set_pace(Pace::Immediate);
        m.ok_all(&[cmd::mapd(6, 5), cmd::mapti(6, 0, LPI, 0)]);
        m.enable(LPI);
        m.fire(6, 0);
        m.expect(&[LPI], &[]);
    }
}

/// 2: INVALL used the vCPU of a collection that had none. It is an error.
#[test]
fn xen_its_c_3a_2_invall_of_a_collection_without_a_vcpu() {
    let m = Machine::booted(Config::default());
    for collection in [2, 100, 255] {
        m.fails(cmd::invall(collection), CommandError::INVALL_UNMAPPED_COLLECTION);
    }
    for collection in [256, 1000, u16::MAX] {
        m.fails(cmd::invall(collection), CommandError::INVALL_COLLECTION_OOR);
    }
    m.ok(cmd::unmapc(0));
    m.fails(cmd::invall(0), CommandError::INVALL_UNMAPPED_COLLECTION);
    m.ok(cmd::mapc(0, 1));
    m.ok(cmd::invall(0));
    m.destroy();
}

/// 3: any number below the highest LPI could be mapped, and was then looked
/// up among the other interrupts. Only LPIs can be, to the last number.
#[test]
fn xen_its_c_3a_3_only_lpis_can_be_mapped() {
    let m = Machine::booted(Config { id_bits: 14, ..Config::default() });
    m.map(5, 1, LPI);
    for intid in 0..LPI {
        let few = intid.is_multiple_of(scaled(97, 2000));
        if intid > scaled(1100, 33) && !few && intid < LPI - 20 {
            continue;
        }
        m.fails(cmd::mapti(5, 0, intid, 0), CommandError::MAPTI_PHYSICALID_OOR);
    }
    let bits = scaled(14, 6);
    m.ok(cmd::mapd(6, bits));
    for event in [0, 32, 1023, 8191].into_iter().filter(|event| *event < 1 << bits) {
        m.fails(cmd::mapi(6, event, 0), CommandError::MAPI_PHYSICALID_OOR);
    }
    if bits == 14 {
        m.ok_all(&[cmd::mapi(6, 8192, 0), cmd::mapi(6, 16383, 0)]);
    }
    // The event that was mapped still is.
    m.fire(5, 0);
    m.expect(&[LPI], &[]);
    m.destroy();
}

/// 4: the number of LPIs was compared with INTIDs, which begin at 8192: the
/// last 8192 LPIs could not be used. All of them can, and none beyond.
#[test]
fn xen_its_c_3a_4_the_last_8192_lpis() {
    for id_bits in 14..=16 {
        World::renew();
        let m = Machine::booted(Config { id_bits, ..Config::default() });
        let end = 1_u32 << id_bits;
        m.ok(cmd::mapd(5, 5));
        for (event, lpi) in (0..).zip([end - 8192, end - 8191, end - 4096, end - 2, end - 1]) {
            m.enable(lpi);
            m.ok(cmd::mapti(5, event, lpi, 0));
            m.fire(5, event);
            m.expect(&[lpi], &[]);
        }
        for intid in [end, end + 1, end + 8191, end + 8192] {
            m.fails(cmd::mapti(5, 9, intid, 0), CommandError::MAPTI_PHYSICALID_OOR);
        }
        m.destroy();
    }
}

/// 7: an interrupt was used after the lock that kept it had been released,
/// while its device went. A slot in use is emptied before it is used for
/// another LPI, whenever its device goes.
#[test]
fn xen_its_c_3a_7_a_device_goes_while_its_lpis_are_in_slots() {
    let m = Machine::booted(Config { id_bits: 14, ..Config::default() });
    for round in 0..scaled(10, 4) {
        m.add_device(5, 32).expect("room");
        m.map(5, 32, LPI);
        for event in 0..32 {
            m.fire(5, event);
        }
        m.settle();
        let taken: Vec<Lpi> = (0..round % 4).filter_map(|_| m.vcpus[0].ack()).collect();
        m.remove_device(5).expect("there");
        // Another device takes the same host LPIs, LPIs and slots at once.
        m.map(6, 20, LPI + 100);
        for event in 0..20 {
            m.fire(6, event);
        }
        for lpi in taken {
            m.vcpus[0].eoi(lpi);
        }
        m.vcpus[0].cycle(&m.domain);
        let mut got = m.drain(0);
        got.sort_unstable();
        assert_eq!(got, (LPI + 100..LPI + 120).collect::<Vec<_>>(), "{round}");
        m.ok(cmd::unmapd(6));
        assert_eq!(m.stat("slots") + m.stat("waiting"), 0);
    }
    m.destroy();
}

/// 8: a lock was taken with interrupts on, and in interrupt context as well.
/// An interrupt may come on a CPU that holds any of the locks that trap
/// context takes.
#[test]
fn xen_its_c_3a_8_an_interrupt_on_a_cpu_that_holds_the_devices() {
    let m = shared();
    m.map(7, 1, LPI + 7);
    // While a device is added the map of devices is locked, and the CPU waits
    // for the host ITS, reading the clock.
    for reads in (0..20).step_by(scaled(1, 3)) {
        m.its[0].set_pace(Pace::PerPoll(3));
        let other = std::sync::Arc::clone(&m);
        m.world.on_clock(reads, move || {
            assert!(other.fire(7, 0));
        });
        m.add_device(100, 32).expect("the ITS works");
        let early = m.world.off_clock();
        m.its[0].set_pace(Pace::Immediate);
        m.remove_device(100).expect("there");
        m.expect(if early { &[] } else { &[LPI + 7] }, &[]);
        assert!(!early || reads > 5, "it waited less often than {reads} times");
    }
    end(m);
}

/// 9: MOVI changed which vCPU's lock an interrupt belongs to, while it was in
/// the queues of the old one. It leaves those first, and is in one vCPU's
/// queues at a time, however often it moves and fires.
#[test]
fn xen_its_c_3a_9_moved_again_and_again_while_it_fires() {
    let m = Machine::booted(Config { id_bits: 14, vcpus: 3, ..Config::default() });
    m.map(5, 1, LPI);
    let lpi = Lpi::new(LPI).expect("an LPI");
    for round in 0..60_u32 {
        m.fire(5, 0);
        if round % 3 != 0 {
            m.settle();
        }
        let to = u16::try_from(round % 3).expect("small");
        m.ok(cmd::movi(5, 0, to));
        m.fire(5, 0);
        if round % 2 == 0 {
            m.settle();
            let places = m.vcpus.iter().filter_map(|vcpu| vcpu.place(lpi));
            let places: Vec<Place> = places.collect();
            assert_eq!(places, [Place { pending: true, active: false }]);
            assert!(m.vcpus[usize::from(to)].place(lpi).is_some());
        }
        if round % 5 == 4 {
            let all: Vec<u32> = (0..3).flat_map(|vcpu| m.drain(vcpu)).collect();
            assert_eq!(all, [LPI]);
        }
    }
    m.destroy();
}

/// 12: a device table entry that was zero was taken for a device with its ITT
/// at address 0. A device is mapped if the guest mapped it, wherever its ITT
/// is.
#[test]
fn xen_its_c_3a_12_a_zero_entry_is_no_device() {
    let m = Machine::booted(Config::default());
    type E = CommandError;
    m.fails(cmd::mapti(0, 0, LPI, 0), E::MAPTI_UNMAPPED_DEVICE);
    m.fails(cmd::mapti(0, 1, LPI, 0), E::MAPTI_UNMAPPED_DEVICE);
    m.fails(cmd::int(0, 0), E::INT_UNMAPPED_DEVICE);
    m.fails(cmd::discard(0, 0), E::DISCARD_UNMAPPED_DEVICE);
    m.ok(cmd::unmapd(0));
    let at = |address| Command::Mapd {
        device: DeviceId::new(0),
        size: EventBits::MIN,
        itt: GuestPa::new(address),
        valid: true,
    };
    for address in [0, 0x100, 0xf_ffff_ffff_ff00] {
        m.ok_all(&[at(address), cmd::mapti(0, 1, LPI, 0)]);
        m.enable(LPI);
        m.fire(0, 1);
        m.expect(&[LPI], &[]);
        m.fails(cmd::mapti(0, 2, LPI, 0), E::MAPTI_ID_OOR);
    }
    m.destroy();
}

/// 14: only a guest's MAPD took a device away; a domain that died left them.
/// All devices go with their domain, announced and mapped or not.
#[test]
fn xen_its_c_3a_14_a_domain_leaves_no_device() {
    for hardware in [false, true] {
        World::renew();
        let m = Machine::booted(Config { hardware, its: 2, ..Config::default() });
        for device in 0..20 {
            m.add_device(device, 32).expect("room");
        }
        m.domain.add_device(&m.host, 1, DeviceId::new(3), 64).expect("room");
        m.map(3, 32, LPI);
        m.fire(3, 7);
        m.w32(GITS_CTLR, 0);
        assert_eq!(m.its[0].mapped().0 + m.its[1].mapped().0, 21);
        // `destroy` looks for what is left.
        m.destroy();
    }
}

/// Section 2 of the same list: MOVALL was ignored, what was pending stayed
/// where it was at MOVI, GICR_INVALLR did nothing, and commands that were
/// queued before the ITS was enabled waited for the next write.
#[test]
fn xen_its_c_2_what_was_not_implemented() {
    let m = Machine::booted(Config::default());
    m.map(5, 2, LPI);
    m.fire(5, 0);
    m.ok(cmd::movi(5, 0, 1));
    m.expect(&[], &[LPI]);
    m.fire(5, 1);
    m.ok(cmd::movall(0, 1));
    m.expect(&[], &[LPI + 1]);
    m.disable(LPI);
    m.fire(5, 0);
    m.enable(LPI);
    m.gicr_w64(1, GICR_INVALLR, 0);
    m.expect(&[], &[LPI]);
    m.w32(GITS_CTLR, 0);
    let at = m.r64(its_arch::gits::GITS_CWRITER);
    m.put(0, at, &cmd::int(5, 1).encode());
    m.w64(its_arch::gits::GITS_CWRITER, at + 32);
    m.expect(&[], &[]);
    m.w32(GITS_CTLR, 1);
    m.work();
    m.expect(&[LPI + 1], &[]);
    works_anew(&m);
    m.destroy();
}
