// SPDX-License-Identifier: GPL-2.0-only
//! Each command: what it does, and each way in which it can be wrong.

use its_arch::command::Opcode;
use its_arch::error::CommandError;
use its_arch::error::Reason;
use its_arch::{Command, RawCommand, Rdbase};
use its_testkit::vcpu::Mode;
use its_testkit::{Config, Machine, cmd, scaled};

/// A machine with device 5, whose event 0 is LPI 8192 on vCPU 0.
fn machine() -> Machine {
    let m = Machine::booted(Config::default());
    m.map(5, 1, 8192);
    m
}

/// A DeviceID that the guest's device table has no room for, though the ITS
/// does: 8 pages of 64 KiB hold 2^16 entries of 8 bytes.
const OVER: u32 = 1 << 16;

/// An ITS with more DeviceID bits than the device table has room for.
fn roomy() -> Machine {
    let m = Machine::booted(Config { device_bits: 20, ..Config::default() });
    m.map(5, 1, 8192);
    m
}

// ---- Errors in general ----

#[test]
fn creadr_passes_a_bad_command_and_later_ones_run() {
    let m = machine();
    let log = m.run_on(
        0,
        &[
            cmd::int(5, 0),
            cmd::mapti(5, 1, 100, 0),
            cmd::mapti(9, 0, 8200, 0),
            cmd::movi(5, 0, 1),
            cmd::int(5, 0),
        ],
    );
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(log[0].contains("MAPTI_PHYSICALID_OOR (0x10a06)"), "{log:?}");
    assert!(log[1].contains("MAPTI_UNMAPPED_DEVICE (0x10a04)"), "{log:?}");
    // The MOVI moved the pending LPI, and the second INT merged with it.
    m.expect(&[], &[8192]);
    assert_eq!(m.stat("skipped"), 2);
    m.destroy();
}

#[test]
fn a_line_about_an_error_says_whose_and_which() {
    let m = machine();
    let log = m.run_on(0, &[cmd::mapti(5, 1, 100, 3)]);
    let want =
        "ITS: d7 vITS0: MAPTI_PHYSICALID_OOR (0x10a06), skipped 0x50000000a 0x6400000001 0x3";
    assert_eq!(log, [want]);
    m.destroy();
}

#[test]
fn unknown_commands_are_skipped() {
    let m = machine();
    let known = [1, 3, 4, 5, 8, 9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf];
    let mut skipped = 0;
    let opcodes = (0..=u8::MAX).step_by(scaled(1, 3));
    for opcode in opcodes.filter(|opcode| !known.contains(opcode)) {
        for fill in [0, u64::MAX] {
            let raw = RawCommand([fill << 8 | u64::from(opcode), fill, fill, fill]);
            let log = m.run_raw(0, &[raw]);
            assert_eq!(log.len(), 1);
            assert!(log[0].contains(&format!("unknown command {opcode:#x} (")), "{log:?}");
            skipped += 1;
        }
    }
    assert!(m.run_raw(0, &[RawCommand([0x2a, 0, 0, 0])])[0].contains("(VMAPTI)"));
    assert_eq!(m.stat("skipped"), skipped + 1);
    m.fire(5, 0);
    m.expect(&[8192], &[]);
    m.destroy();
}

#[test]
fn reserved_bits_of_a_command_are_ignored() {
    let m = machine();
    let dirty = |command: Command, masks: [u64; 4]| {
        let mut raw = command.encode();
        for (word, mask) in raw.0.iter_mut().zip(masks) {
            assert_eq!(*word & mask, 0);
            *word |= mask;
        }
        raw
    };
    let log = m.run_raw(
        0,
        &[
            dirty(cmd::mapd(6, 3), [0xffff_ff00, !0x1f, 0x7ff0_0000_0000_00ff, u64::MAX]),
            dirty(cmd::mapti(6, 2, 8300, 1), [0xffff_ff00, 0, !0xffff, u64::MAX]),
            dirty(cmd::int(6, 2), [0xffff_ff00, !0 << 32, u64::MAX, u64::MAX]),
            dirty(cmd::sync(1), [!0xff, u64::MAX, 0xfff0_0000_0000_ffff, u64::MAX]),
        ],
    );
    assert!(log.is_empty(), "{log:?}");
    m.set_property(8300, 0, true);
    m.ok(cmd::invall(1));
    m.expect(&[], &[8300]);
    m.destroy();
}

// ---- MAPD ----

#[test]
fn mapd_errors() {
    let m = roomy();
    m.fails(cmd::mapd(OVER, 5), CommandError::MAPD_DEVICE_OOR);
    m.fails(cmd::mapd(u32::MAX, 5), CommandError::MAPD_DEVICE_OOR);
    m.fails(cmd::unmapd(OVER), CommandError::MAPD_DEVICE_OOR);
    // The ITS has 16 EventID bits.
    for bits in 17..=32 {
        m.fails(cmd::mapd(6, bits), CommandError::MAPD_ITTSIZE_OOR);
    }
    assert_eq!(m.its[0].mapped().0, 1);
    m.check();
    m.destroy();
}

#[test]
fn mapd_of_a_device_beyond_the_its_fails() {
    // The table has room for 2^16, the ITS 8 bits.
    let m = Machine::booted(Config { device_bits: 8, ..Config::default() });
    m.ok(cmd::mapd(0xff, 5));
    m.fails(cmd::mapd(0x100, 5), CommandError::MAPD_DEVICE_OOR);
    m.destroy();
}

#[test]
fn mapd_wants_as_many_events_as_there_are_lpis() {
    let config = Config { host_id_bits: 14, max_events: Some(8192), ..Config::default() };
    let m = Machine::booted(config);
    // 2^13 host LPIs in all, of which others may have some.
    let bits = scaled(13, 6);
    let others: Vec<_> =
        (bits..13).rev().map(|bits| m.host.lpis.alloc(99, 1 << bits).expect("room")).collect();
    m.fails(cmd::mapd(6, bits + 1), CommandError::MAPD_ITTSIZE_OOR);
    m.ok(cmd::mapd(6, bits));
    m.fails(cmd::mapd(7, 5), CommandError::MAPD_ITTSIZE_OOR);
    m.ok(cmd::unmapd(6));
    m.ok(cmd::mapd(7, 5));
    for range in others {
        m.host.lpis.free(range);
    }
    m.check();
    m.destroy();
}

#[test]
fn mapd_without_v_unmaps_all_events_and_forgets_what_is_pending() {
    let m = machine();
    m.map(6, 3, 8200);
    m.disable(8201);
    for event in 0..3 {
        m.fire(6, event);
    }
    m.ok(cmd::unmapd(6));
    m.enable(8201);
    m.ok(cmd::invall(0));
    m.expect(&[], &[]);
    m.fails(cmd::int(6, 0), CommandError::INT_UNMAPPED_DEVICE);
    assert!(!m.fire(6, 0));
    // The other device is as it was.
    m.fire(5, 0);
    m.expect(&[8192], &[]);
    m.check();
    m.destroy();
}

#[test]
fn mapd_without_v_of_what_is_not_mapped_does_nothing() {
    let m = machine();
    m.ok(cmd::unmapd(77));
    m.ok(cmd::unmapd(5));
    m.ok(cmd::unmapd(5));
    m.check();
    m.destroy();
}

#[test]
fn mapd_of_a_mapped_device_starts_anew() {
    let m = machine();
    m.fire(5, 0);
    m.ok(cmd::mapd(5, 3));
    m.expect(&[], &[]);
    m.fails(cmd::int(5, 0), CommandError::INT_UNMAPPED_INTERRUPT);
    m.ok(cmd::mapti(5, 0, 8192, 1));
    m.fire(5, 0);
    m.expect(&[], &[8192]);
    m.check();
    m.destroy();
}

/// exec.rs promises that a command that is skipped has changed nothing.
#[test]
fn a_mapd_that_fails_leaves_the_device_as_it_was() {
    let m = Machine::booted(Config { hardware: false, ..Config::default() });
    m.add_device(5, 32).expect("room");
    m.map(5, 1, 8192);
    m.fails(cmd::mapd(5, 6), CommandError::MAPD_ITTSIZE_OOR);
    assert!(m.fire(5, 0), "the event is still mapped");
    m.expect(&[8192], &[]);
    m.destroy();
}

// ---- MAPC ----

#[test]
fn mapc_errors() {
    let m = machine();
    m.fails(cmd::mapc(256, 0), CommandError::MAPC_COLLECTION_OOR);
    m.fails(cmd::mapc(u16::MAX, 0), CommandError::MAPC_COLLECTION_OOR);
    m.fails(cmd::unmapc(256), CommandError::MAPC_COLLECTION_OOR);
    m.fails(cmd::mapc(3, 2), CommandError::MAPC_PROCNUM_OOR);
    m.fails(cmd::mapc(3, u16::MAX), CommandError::MAPC_PROCNUM_OOR);
    // A processor number of more than 16 bits is not cut short.
    for field in [1 << 16, 1 << 34, 1 << 35, (1 << 36) - 1] {
        let command = Command::Mapc {
            collection: its_arch::CollectionId::new(3),
            rdbase: Rdbase::from_field(field),
            valid: true,
        };
        m.fails(command, CommandError::MAPC_PROCNUM_OOR);
    }
    m.fails(cmd::invall(3), CommandError::INVALL_UNMAPPED_COLLECTION);
    // V=0 does not look at RDbase.
    m.ok(Command::Mapc {
        collection: its_arch::CollectionId::new(3),
        rdbase: Rdbase::from_field(99),
        valid: false,
    });
    m.ok(cmd::mapc(255, 1));
    m.destroy();
}

#[test]
fn mapc_names_a_vcpu_that_was_never_created() {
    // Three vCPUs at most, of which Machine creates all: so make the domain
    // by hand.
    use its_core::Domain;
    use its_testkit::guest::{FakeGuest, Ram};
    let config = Config { vcpus: 3, ..Config::default() };
    let (host, _its) = config.host().expect("memory");
    let ram = std::sync::Arc::new(Ram::default());
    let domain = Domain::<its_testkit::Fake>::new(&host, FakeGuest(ram), config.domain());
    let domain = domain.expect("memory");
    let id = its_arch::VcpuId::new(0);
    domain.add_vcpu(id, its_testkit::vcpu::FakeVcpu::new(0, 4)).expect("new");
    assert_eq!(
        domain.add_vcpu(id, its_testkit::vcpu::FakeVcpu::new(0, 4)),
        Err(its_core::Error::Exists)
    );
    let far = its_arch::VcpuId::new(3);
    assert_eq!(
        domain.add_vcpu(far, its_testkit::vcpu::FakeVcpu::new(3, 4)),
        Err(its_core::Error::OutOfRange)
    );
    // Reads of its redistributor are fine, enabling LPIs there is not.
    let absent = its_arch::VcpuId::new(2);
    let word = its_arch::access::Width::Word;
    assert_eq!(domain.gicr_write(absent, 0, word, 1), Ok(false));
    assert_eq!(domain.gicr_read(absent, 0, word).map(|ctlr| ctlr & 1), Ok(0));
    assert_eq!(domain.gicr_read(far, 0, word), Err(its_core::Error::NotFound));
}

#[test]
fn mapc_again_with_the_same_vcpu_changes_nothing() {
    let m = machine();
    m.fire(5, 0);
    m.ok(cmd::mapc(0, 0));
    m.expect(&[8192], &[]);
    m.destroy();
}

#[test]
fn an_event_of_an_unmapped_collection_is_dropped() {
    let m = machine();
    m.ok(cmd::unmapc(0));
    assert!(m.fire(5, 0), "the event is mapped, only not routed");
    m.expect(&[], &[]);
    assert_eq!(m.stat("unrouted"), 1);
    m.ok(cmd::mapc(0, 1));
    m.fire(5, 0);
    m.expect(&[], &[8192]);
    m.destroy();
}

// ---- MAPTI, MAPI ----

#[test]
fn mapti_errors() {
    let m = roomy();
    m.ok(cmd::mapd(6, 2));
    m.fails(cmd::mapti(OVER, 0, 8200, 0), CommandError::MAPTI_DEVICE_OOR);
    m.fails(cmd::mapti(7, 0, 8200, 0), CommandError::MAPTI_UNMAPPED_DEVICE);
    let end = 1 << m.config.id_bits;
    for event in [4, 31, 32, 1 << 16, u32::MAX] {
        m.fails(cmd::mapti(6, event, 8200, 0), CommandError::MAPTI_ID_OOR);
    }
    m.fails(cmd::mapti(6, 0, 8200, 256), CommandError::MAPTI_COLLECTION_OOR);
    for intid in [0, 1, 31, 1023, 1024, 8191, end, 1 << 16, 1 << 24, u32::MAX] {
        m.fails(cmd::mapti(6, 0, intid, 0), CommandError::MAPTI_PHYSICALID_OOR);
    }
    assert!(!m.fire(6, 0));
    for intid in [8192, end - 1] {
        m.ok(cmd::mapti(6, 0, intid, 0));
    }
    m.destroy();
}

#[test]
fn mapi_errors() {
    let m = roomy();
    let bits = scaled(14, 5);
    let end = 1 << bits;
    m.ok(cmd::mapd(6, bits));
    m.fails(cmd::mapi(OVER, 8200, 0), CommandError::MAPI_DEVICE_OOR);
    m.fails(cmd::mapi(7, 8200, 0), CommandError::MAPI_UNMAPPED_DEVICE);
    m.fails(cmd::mapi(6, end, 0), CommandError::MAPI_ID_OOR);
    m.fails(cmd::mapi(6, end - 1, 256), CommandError::MAPI_COLLECTION_OOR);
    for event in [0, 31, 8191].into_iter().filter(|event| *event < end) {
        m.fails(cmd::mapi(6, event, 0), CommandError::MAPI_PHYSICALID_OOR);
    }
    m.destroy();
}

#[test]
fn mapi_makes_the_event_an_lpi_of_the_same_number() {
    let m = Machine::booted(Config { host_id_bits: 16, ..Config::default() });
    m.ok(cmd::mapd(6, 14));
    m.enable(8200);
    m.ok(cmd::mapi(6, 8200, 1));
    m.fire(6, 8200);
    m.expect(&[], &[8200]);
    m.destroy();
}

#[test]
fn mapti_beyond_a_domain_of_14_bits_fails() {
    let m = Machine::booted(Config { id_bits: 14, ..Config::default() });
    m.ok(cmd::mapd(5, 5));
    m.ok(cmd::mapti(5, 0, 16383, 0));
    m.fails(cmd::mapti(5, 1, 16384, 0), CommandError::MAPTI_PHYSICALID_OOR);
    m.destroy();
}

#[test]
fn mapti_may_name_a_collection_that_is_mapped_later() {
    let m = machine();
    m.enable(8200);
    m.ok(cmd::mapti(5, 1 << 0, 8200, 9));
    m.fire(5, 1);
    m.expect(&[], &[]);
    m.ok(cmd::mapc(9, 1));
    m.fire(5, 1);
    m.expect(&[], &[8200]);
    m.destroy();
}

#[test]
fn mapti_of_a_mapped_event_replaces_it() {
    let m = Machine::booted(Config::default());
    m.map(5, 4, 8192);
    m.enable(9000);
    m.fire(5, 2);
    m.ok(cmd::mapti(5, 2, 9000, 1));
    // What the event was before is not mapped, so not pending any more.
    m.expect(&[], &[]);
    m.fire(5, 2);
    m.expect(&[], &[9000]);
    assert_eq!(m.stat("mapped"), 4);
    m.destroy();
}

#[test]
fn mapti_again_with_the_same_lpi_moves_it() {
    let m = machine();
    m.fire(5, 0);
    m.ok(cmd::mapti(5, 0, 8192, 1));
    m.expect(&[], &[8192]);
    m.ok(cmd::discard(5, 0));
    assert!(!m.fire(5, 0));
    m.destroy();
}

#[test]
fn two_events_may_share_an_lpi() {
    let m = Machine::booted(Config::default());
    m.map(5, 2, 8192);
    m.ok(cmd::mapti(5, 1, 8192, 0));
    m.fire(5, 0);
    m.fire(5, 1);
    m.expect(&[8192], &[]);
    // Unmapping one leaves the other, and what is pending.
    m.fire(5, 0);
    m.ok(cmd::discard(5, 0));
    m.expect(&[8192], &[]);
    m.fire(5, 1);
    m.expect(&[8192], &[]);
    m.fire(5, 1);
    m.ok(cmd::discard(5, 1));
    m.expect(&[], &[]);
    // Both gone: the LPI is free for a collection of its own again.
    m.ok(cmd::mapti(5, 0, 8192, 1));
    m.fire(5, 0);
    m.expect(&[], &[8192]);
    m.destroy();
}

// ---- MOVI, MOVALL ----

#[test]
fn movi_errors() {
    let m = roomy();
    m.fails(cmd::movi(OVER, 0, 1), CommandError::MOVI_DEVICE_OOR);
    m.fails(cmd::movi(6, 0, 1), CommandError::MOVI_UNMAPPED_DEVICE);
    m.fails(cmd::movi(5, 2, 1), CommandError::MOVI_ID_OOR);
    m.fails(cmd::movi(5, 1, 1), CommandError::MOVI_UNMAPPED_INTERRUPT);
    m.fails(cmd::movi(5, 0, 256), CommandError::MOVI_COLLECTION_OOR);
    m.fails(cmd::movi(5, 0, 9), CommandError::MOVI_UNMAPPED_COLLECTION);
    m.fire(5, 0);
    m.expect(&[8192], &[]);
    m.destroy();
}

#[test]
fn movi_of_an_event_whose_collection_is_unmapped_works() {
    let m = machine();
    m.ok(cmd::unmapc(0));
    m.ok(cmd::movi(5, 0, 1));
    m.fire(5, 0);
    m.expect(&[], &[8192]);
    m.destroy();
}

#[test]
fn movall_errors() {
    let m = machine();
    m.fails(cmd::movall(2, 0), CommandError::MOVALL_PROCNUM_OOR);
    m.fails(cmd::movall(0, 2), CommandError::MOVALL_PROCNUM_OOR);
    m.fails(cmd::movall(u16::MAX, u16::MAX), CommandError::MOVALL_PROCNUM_OOR);
    m.fire(5, 0);
    m.ok(cmd::movall(0, 0));
    m.expect(&[8192], &[]);
    m.destroy();
}

// ---- DISCARD, CLEAR, INT, INV ----

#[test]
fn discard_errors() {
    let m = roomy();
    m.fails(cmd::discard(OVER, 0), CommandError::DISCARD_DEVICE_OOR);
    m.fails(cmd::discard(6, 0), CommandError::DISCARD_UNMAPPED_DEVICE);
    m.fails(cmd::discard(5, 2), CommandError::DISCARD_ID_OOR);
    m.fails(cmd::discard(5, 1), CommandError::DISCARD_UNMAPPED_INTERRUPT);
    m.ok(cmd::discard(5, 0));
    m.fails(cmd::discard(5, 0), CommandError::DISCARD_UNMAPPED_INTERRUPT);
    m.destroy();
}

#[test]
fn clear_errors() {
    let m = roomy();
    m.fails(cmd::clear(OVER, 0), CommandError::CLEAR_DEVICE_OOR);
    m.fails(cmd::clear(6, 0), CommandError::CLEAR_UNMAPPED_DEVICE);
    m.fails(cmd::clear(5, 2), CommandError::CLEAR_ID_OOR);
    m.fails(cmd::clear(5, 1), CommandError::CLEAR_UNMAPPED_INTERRUPT);
    m.ok(cmd::clear(5, 0));
    m.ok(cmd::unmapc(0));
    m.fails(cmd::clear(5, 0), CommandError::new(Opcode::Clear, Reason::UnmappedCollection));
    m.destroy();
}

#[test]
fn int_errors() {
    let m = roomy();
    m.fails(cmd::int(OVER, 0), CommandError::INT_DEVICE_OOR);
    m.fails(cmd::int(6, 0), CommandError::INT_UNMAPPED_DEVICE);
    m.fails(cmd::int(5, 2), CommandError::INT_ID_OOR);
    m.fails(cmd::int(5, 1), CommandError::INT_UNMAPPED_INTERRUPT);
    m.ok(cmd::unmapc(0));
    m.fails(cmd::int(5, 0), CommandError::new(Opcode::Int, Reason::UnmappedCollection));
    m.expect(&[], &[]);
    m.destroy();
}

#[test]
fn int_is_as_if_the_device_had_written() {
    let m = machine();
    m.ok(cmd::int(5, 0));
    m.expect(&[8192], &[]);
    m.disable(8192);
    m.ok(cmd::inv(5, 0));
    m.ok(cmd::int(5, 0));
    m.expect(&[], &[]);
    m.enable(8192);
    m.ok(cmd::inv(5, 0));
    m.expect(&[8192], &[]);
    m.destroy();
}

#[test]
fn inv_errors() {
    let m = roomy();
    m.fails(cmd::inv(OVER, 0), CommandError::INV_DEVICE_OOR);
    m.fails(cmd::inv(6, 0), CommandError::INV_UNMAPPED_DEVICE);
    m.fails(cmd::inv(5, 2), CommandError::INV_ID_OOR);
    m.fails(cmd::inv(5, 1), CommandError::INV_UNMAPPED_INTERRUPT);
    m.ok(cmd::unmapc(0));
    m.fails(cmd::inv(5, 0), CommandError::new(Opcode::Inv, Reason::UnmappedCollection));
    m.destroy();
}

// ---- INVALL, SYNC ----

#[test]
fn invall_errors() {
    let m = machine();
    m.fails(cmd::invall(256), CommandError::INVALL_COLLECTION_OOR);
    m.fails(cmd::invall(9), CommandError::INVALL_UNMAPPED_COLLECTION);
    m.ok(cmd::unmapc(0));
    m.fails(cmd::invall(0), CommandError::INVALL_UNMAPPED_COLLECTION);
    m.ok(cmd::invall(1));
    m.destroy();
}

#[test]
fn sync_errors() {
    let m = machine();
    m.fails(cmd::sync(2), CommandError::SYNC_PROCNUM_OOR);
    m.ok(cmd::sync(1));
    m.destroy();
}

// ---- Nothing is set up ----

#[test]
fn without_tables_every_command_fails() {
    let m = Machine::new(Config::default());
    m.boot_redist(0);
    let base = its_arch::gits::GITS_BASER;
    m.w64(its_arch::gits::GITS_CBASER, m.cbaser(0).into());
    m.w32(its_arch::gits::GITS_CTLR, 1);
    m.fails(cmd::mapd(5, 5), CommandError::MAPD_DEVICE_OOR);
    m.fails(cmd::mapti(5, 0, 8192, 0), CommandError::MAPTI_DEVICE_OOR);
    m.fails(cmd::mapc(0, 0), CommandError::MAPC_COLLECTION_OOR);
    m.fails(cmd::invall(0), CommandError::INVALL_COLLECTION_OOR);
    m.w32(its_arch::gits::GITS_CTLR, 0);
    m.w64(base, Machine::baser(1).into());
    m.w32(its_arch::gits::GITS_CTLR, 1);
    m.ok(cmd::mapd(5, 5));
    m.fails(cmd::mapti(5, 0, 8192, 0), CommandError::MAPTI_COLLECTION_OOR);
    m.destroy();
}

/// Every command, on every combination of a few numbers good and bad, in an
/// order that leaves things half mapped: nothing may break.
#[test]
fn random_plausible_commands_do_no_harm() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let rounds = scaled(400, 5);
    let m = Machine::booted(Config { vcpus: 3, ..Config::default() });
    for lpi in 8192..8200 {
        m.set_property(lpi, 0x40, lpi % 3 != 0);
    }
    for _ in 0..rounds {
        let mut batch = Vec::new();
        for _ in 0..next(60) {
            let device = u32::try_from(next(4)).expect("small");
            let event = u32::try_from(next(6)).expect("small");
            let lpi = 8190 + u32::try_from(next(9)).expect("small");
            let collection = u16::try_from(next(5)).expect("small");
            let vcpu = u16::try_from(next(4)).expect("small");
            batch.push(match next(14) {
                0 => cmd::mapd(device, 1 + u8::try_from(next(3)).expect("small")),
                1 => cmd::unmapd(device),
                2 => cmd::mapc(collection, vcpu),
                3 => cmd::unmapc(collection),
                4 | 5 => cmd::mapti(device, event, lpi, collection),
                6 => cmd::movi(device, event, collection),
                7 => cmd::movall(vcpu, u16::try_from(next(3)).expect("small")),
                8 => cmd::discard(device, event),
                9 => cmd::clear(device, event),
                10 => cmd::inv(device, event),
                11 => cmd::invall(collection),
                12 => cmd::sync(vcpu),
                _ => cmd::int(device, event),
            });
        }
        let _errors = m.run_on(0, &batch);
        for _ in 0..next(10) {
            m.fire(u32::try_from(next(4)).expect("small"), u32::try_from(next(6)).expect("small"));
        }
        let vcpu = &m.vcpus[usize::try_from(next(3)).expect("small")];
        match next(6) {
            0 if vcpu.mode() == Mode::Off => vcpu.power_on(&m.domain),
            1 if vcpu.mode() != Mode::Off => vcpu.power_off(&m.domain),
            2 => m.set_property(8192 + u32::try_from(next(8)).expect("small"), 0x80, true),
            3 => m.settle(),
            _ => {
                m.drain(usize::try_from(next(3)).expect("small"));
            }
        }
        m.check();
    }
    m.destroy();
}
