// SPDX-License-Identifier: GPL-2.0-only
//! The registers of a virtual ITS, and its command queue.

use its_arch::GuestPa;
use its_arch::access::Width;
use its_arch::error::CommandError;
use its_arch::gits::{
    Baser, BaserType, Cbaser, Creadr, Ctlr, Cwriter, GITS_BASER, GITS_CBASER, GITS_CREADR,
    GITS_CTLR, GITS_CWRITER, GITS_IIDR, GITS_MPAMIDR, GITS_PARTIDR, GITS_PIDR2, GITS_SIZE,
    GITS_STATUSR, GITS_TRANSLATER, GITS_TYPER, PageSize, TRANSLATION_FRAME, Typer,
};
use its_arch::memory::{Cacheability, Shareability};
use its_core::Error;
use its_testkit::machine::{PROPERTIES, QUEUE};
use its_testkit::{Config, Machine, cmd, scaled};

const BASER1: u64 = GITS_BASER + 8;
const WIDTHS: [Width; 4] = [Width::Byte, Width::Half, Width::Word, Width::Double];

fn fresh() -> Machine {
    Machine::new(Config::default())
}

fn booted() -> Machine {
    Machine::booted(Config::default())
}

fn queue_creadr(m: &Machine) -> u64 {
    Creadr::from(m.r64(GITS_CREADR)).byte_offset()
}

// ---- Values ----

#[test]
fn reset_values() {
    let m = fresh();
    let ctlr = Ctlr::from_bits(u32::try_from(m.r32(GITS_CTLR)).expect("32 bits"));
    assert!(!ctlr.enabled() && ctlr.quiescent());
    assert_eq!(m.r32(GITS_IIDR), 0x5800_034c);
    assert_eq!(m.r64(GITS_CBASER) & 0x800f_ffff_ffff_f3ff, 0, "not valid, no address, no size");
    assert_eq!(m.r64(GITS_CWRITER), 0);
    assert_eq!(m.r64(GITS_CREADR), 0);
    let devices = Baser::from(m.r64(GITS_BASER));
    assert_eq!(devices.table_type(), BaserType::Devices);
    let collections = Baser::from(m.r64(BASER1));
    assert_eq!(collections.table_type(), BaserType::Collections);
    for baser in [devices, collections] {
        assert!(!baser.valid() && !baser.indirect());
        assert_eq!(baser.page_size(), PageSize::Size64K, "so that a guest tries 64 KB first");
        assert_eq!(baser.entry_bytes(), 8);
        assert_eq!(baser.shareability(), Shareability::Inner);
        assert_eq!(baser.inner_cache(), Cacheability::RaWaWb);
    }
    for n in 2..8 {
        assert_eq!(m.r64(GITS_BASER + n * 8), 0, "GITS_BASER{n} is not implemented");
    }
    assert_eq!(m.r32(GITS_PIDR2), 0x3b);
}

#[test]
fn typer_says_what_the_host_its_can_do() {
    let m = Machine::new(Config { device_bits: 11, event_bits: 9, ..Config::default() });
    let typer = Typer::from(m.r64(GITS_TYPER));
    assert!(typer.physical_lpis() && !typer.virtual_lpis());
    assert!(!typer.pta(), "RDbase is a processor number");
    assert_eq!(typer.device_id_bits(), 11);
    assert_eq!(typer.event_id_bits().get(), 9);
    assert_eq!(typer.collection_id_bits(), 8);
    assert_eq!(typer.hcc(), 0, "collections need a table");
    assert_eq!(typer.itt_entry_bytes(), 8);
    // Nothing that this ITS does not have.
    assert!(!typer.seis() && !typer.vmovp() && !typer.vsgi() && !typer.umsi() && !typer.mpam());
    assert_eq!(u64::from(typer) >> 37, 0);
}

#[test]
fn a_virtual_its_has_no_itt_that_would_take_long_to_zero() {
    for (host, virtual_bits) in [(15, 15), (16, 16), (17, 16), (32, 16)] {
        let m = Machine::new(Config { event_bits: host, ..Config::default() });
        assert_eq!(Typer::from(m.r64(GITS_TYPER)).event_id_bits().get(), virtual_bits, "{host}");
    }
    let bits = Config { event_bits: 20, host_id_bits: 20, ..Config::default() };
    let m = Machine::booted(Config { max_events: Some(1 << 18), ..bits });
    m.fails(cmd::mapd(5, 17), CommandError::MAPD_ITTSIZE_OOR);
    m.ok(cmd::mapd(5, scaled(16, 5)));
    m.destroy();
}

#[test]
fn identification_and_reserved_space() {
    let m = fresh();
    for (offset, value) in [(0xfff0, 0x0d), (0xfff4, 0xf0), (0xfff8, 0x05), (0xfffc, 0xb1)] {
        assert_eq!(m.r32(offset), value, "component identification at {offset:#x}");
    }
    let implemented = [
        GITS_CTLR,
        GITS_IIDR,
        GITS_TYPER,
        GITS_TYPER + 4,
        GITS_CBASER,
        GITS_CBASER + 4,
        GITS_CWRITER,
        GITS_CREADR,
        GITS_BASER,
        GITS_BASER + 4,
        BASER1,
        BASER1 + 4,
        GITS_PIDR2,
        0xfff0,
        0xfff4,
        0xfff8,
        0xfffc,
    ];
    for offset in (0..TRANSLATION_FRAME).step_by(4) {
        if !implemented.contains(&offset) {
            assert_eq!(m.r32(offset), 0, "at {offset:#x}");
            m.w32(offset, 0xffff_ffff);
            assert_eq!(m.r32(offset), 0, "at {offset:#x}, after a write");
        }
    }
    m.quiet();
}

#[test]
fn read_only_registers_ignore_writes() {
    let m = booted();
    for offset in [GITS_TYPER, GITS_CREADR] {
        let before = m.r64(offset);
        m.w64(offset, !before);
        assert_eq!(m.r64(offset), before, "at {offset:#x}");
    }
    let ctlr = m.r32(GITS_CTLR);
    for offset in [GITS_IIDR, GITS_PIDR2, 0xfff0] {
        let before = m.r32(offset);
        for value in [before, !before & 0xffff_ffff] {
            m.w32(offset, value);
            assert_eq!(m.r32(offset), before, "at {offset:#x}");
            // GITS_CTLR is in the same eight bytes as GITS_IIDR.
            assert_eq!(m.r32(GITS_CTLR), ctlr, "at {offset:#x}");
        }
    }
}

// ---- Accesses ----

#[test]
fn every_offset_and_width_is_answered_or_aborts() {
    let m = fresh();
    let pairs = [GITS_CTLR, GITS_MPAMIDR, GITS_PARTIDR, GITS_STATUSR];
    // All of the registers, and samples of the space around them.
    let offsets = (0..0x200).chain((0x200..0xff00).step_by(253)).chain(0xff00..0x1_0100);
    for offset in offsets.chain(GITS_SIZE - 8..GITS_SIZE + 8) {
        for width in WIDTHS {
            let legal = match offset {
                TRANSLATION_FRAME..GITS_SIZE => true,
                GITS_SIZE.. => false,
                _ => {
                    width.is_aligned(offset)
                        && match width {
                            Width::Byte | Width::Half => false,
                            Width::Word => true,
                            Width::Double => !pairs.contains(&offset),
                        }
                }
            };
            let read = m.domain.its_read(0, offset, width);
            assert_eq!(read.is_ok(), legal, "read of {width:?} at {offset:#x}: {read:?}");
            for value in [0, u64::MAX] {
                let written = m.domain.its_write(&m.host, 0, offset, width, value);
                assert_eq!(written.is_ok(), legal, "{width:?} to {offset:#x}: {written:?}");
                if !legal {
                    assert_eq!(written, Err(Error::BadAccess));
                }
            }
            // What is set up by that may be anything; the next offset finds
            // the ITS disabled.
            let _more = m.domain.its_write(&m.host, 0, GITS_CTLR, Width::Word, 0);
        }
    }
    let _log = m.world.take_log();
    m.destroy();
}

#[test]
fn there_is_no_other_its() {
    let m = fresh();
    assert_eq!(m.domain.its_read(1, 0, Width::Word), Err(Error::NotFound));
    assert_eq!(m.domain.its_write(&m.host, 1, 0, Width::Word, 1), Err(Error::NotFound));
}

#[test]
fn both_halves_of_64_bit_registers() {
    let m = fresh();
    let value = m.cbaser(0).with_size(3).into_bits();
    for offset in [GITS_CBASER, GITS_BASER, BASER1] {
        m.w32(offset + 4, value >> 32);
        m.w32(offset, value & 0xffff_ffff);
        let whole = m.r64(offset);
        assert_eq!(m.r32(offset), whole & 0xffff_ffff);
        assert_eq!(m.r32(offset + 4), whole >> 32);
        assert_eq!(whole >> 63, 1, "valid, at {offset:#x}");
        // The other half stays.
        m.w32(offset + 4, 0);
        assert_eq!(m.r32(offset), whole & 0xffff_ffff);
        assert_eq!(m.r32(offset + 4) & 0x8000_ffff, 0);
    }
    assert_eq!(m.r64(GITS_TYPER), m.r32(GITS_TYPER) | m.r32(GITS_TYPER + 4) << 32);
    m.w64(GITS_CBASER, m.cbaser(0).into());
    m.w32(GITS_CWRITER, 0x40);
    m.w32(GITS_CWRITER + 4, 0xffff_ffff);
    assert_eq!(m.r64(GITS_CWRITER), 0x40);
    assert_eq!(m.r32(GITS_CWRITER), 0x40);
    assert_eq!(m.r32(GITS_CREADR + 4), 0);
}

#[test]
fn translation_frame_takes_writes_and_does_nothing() {
    let m = booted();
    m.map(0, 2, 8192);
    for width in [Width::Half, Width::Word] {
        m.write_on(0, GITS_TRANSLATER, width, 0);
        m.write_on(0, GITS_TRANSLATER, width, 1);
        assert_eq!(m.domain.its_read(0, GITS_TRANSLATER, width), Ok(0));
    }
    m.expect(&[], &[]);
}

// ---- Tables ----

#[test]
fn baser_keeps_what_can_be_written() {
    let m = fresh();
    for (offset, kind) in [(GITS_BASER, BaserType::Devices), (BASER1, BaserType::Collections)] {
        m.w64(offset, u64::MAX);
        let baser = Baser::from(m.r64(offset));
        assert_eq!(baser.table_type(), kind, "Type is read-only");
        assert_eq!(baser.entry_bytes(), 8, "Entry_Size is read-only");
        assert_eq!(baser.indirect(), kind == BaserType::Devices, "two levels for devices only");
        assert_eq!(baser.page_size(), PageSize::Size64K, "in place of the reserved value");
        assert_eq!(baser.size(), 0xff);
        assert_ne!(baser.shareability(), Shareability::Outer);
        for size in [PageSize::Size4K, PageSize::Size16K, PageSize::Size64K] {
            m.w64(offset, Baser::new().with_page_size(size).into());
            assert_eq!(Baser::from(m.r64(offset)).page_size(), size);
        }
        m.w64(offset, 0);
        assert!(!Baser::from(m.r64(offset)).valid());
    }
    for n in 2..8 {
        m.w64(GITS_BASER + n * 8, u64::MAX);
        assert_eq!(m.r64(GITS_BASER + n * 8), 0);
    }
}

#[test]
fn attributes_are_those_that_hold() {
    let m = fresh();
    let shares = |bits| Shareability::from_bits(bits);
    for bits in 0..4 {
        m.w64(GITS_CBASER, Cbaser::new().with_shareability(shares(bits)).into());
        let got = Cbaser::from(m.r64(GITS_CBASER)).shareability();
        let want = if bits == 0 { Shareability::NonShareable } else { Shareability::Inner };
        assert_eq!(got, want);
        m.w64(GITS_BASER, Baser::new().with_shareability(shares(bits)).into());
        assert_eq!(Baser::from(m.r64(GITS_BASER)).shareability(), want);
    }
    for bits in 0..8 {
        let asked = Cacheability::from_bits(bits);
        m.w64(GITS_CBASER, Cbaser::new().with_inner_cache(asked).into());
        let got = Cbaser::from(m.r64(GITS_CBASER)).inner_cache();
        // A guest that asked for less than cacheable has to see that it did
        // not get it, or it does without cache maintenance that it needs not.
        assert_eq!(got == asked, bits >= 2, "asked for {asked:?}, got {got:?}");
    }
}

#[test]
fn base_registers_are_locked_while_enabled() {
    let m = booted();
    for offset in [GITS_CBASER, GITS_BASER, BASER1] {
        let before = m.r64(offset);
        m.w64(offset, 0);
        m.w64(offset, before ^ 0x1_0000);
        m.w32(offset + 4, 0);
        assert_eq!(m.r64(offset), before, "at {offset:#x}");
    }
    m.ok(cmd::mapd(5, 5));
    m.w32(GITS_CTLR, 0);
    for offset in [GITS_CBASER, GITS_BASER, BASER1] {
        m.w64(offset, 0);
        assert_eq!(m.r64(offset) >> 63, 0, "at {offset:#x}");
    }
    m.destroy();
}

/// The highest DeviceID for which MAPD works, by bisection.
fn capacity(m: &Machine) -> u64 {
    let works = |device: u64| {
        let device = u32::try_from(device).expect("32 bits");
        let log = m.run_on(0, &[cmd::unmapd(device)]);
        assert!(log.is_empty() || log[0].contains(CommandError::MAPD_DEVICE_OOR.name()));
        log.is_empty()
    };
    let (mut good, mut bad) = (0, 1 << 32);
    while bad - good > 1 {
        let middle = (good + bad) / 2;
        if works(middle) { good = middle } else { bad = middle }
    }
    bad
}

#[test]
fn the_device_table_limits_devices() {
    let m = Machine::booted(Config { device_bits: 32, ..Config::default() });
    let set = |baser: Baser| {
        m.w32(GITS_CTLR, 0);
        m.w64(GITS_BASER, baser.into());
        m.w32(GITS_CTLR, 1);
    };
    let new = |size, pages: u8| Baser::new().with_valid(true).with_page_size(size).with_size(pages);
    for (baser, want) in [
        (new(PageSize::Size4K, 0), 512),
        (new(PageSize::Size4K, 2), 3 * 512),
        (new(PageSize::Size16K, 0), 2048),
        (new(PageSize::Size64K, 0), 8192),
        (new(PageSize::Size64K, 0xff), 256 * 8192),
        // Two levels: 8 bytes each for a page of the second.
        (new(PageSize::Size4K, 0).with_indirect(true), 512 * 512),
        (new(PageSize::Size64K, 0).with_indirect(true), 8192 * 8192),
        (new(PageSize::Size64K, 0xff).with_indirect(true), 1 << 32),
    ] {
        set(baser);
        assert_eq!(capacity(&m), want, "{baser:?}");
    }
    m.destroy();
}

#[test]
fn a_device_that_the_guest_has_no_second_level_page_for_is_accepted() {
    // The table is never read: an indirect one without a valid second level
    // works as any other.
    let m = fresh();
    let baser = Machine::baser(1).with_indirect(true);
    m.w64(GITS_BASER, baser.into());
    m.w64(BASER1, Machine::baser(1).into());
    m.w64(GITS_CBASER, m.cbaser(0).into());
    m.w32(GITS_CTLR, 1);
    m.boot_redist(0);
    m.ok(cmd::mapc(0, 0));
    m.map(0xffff, 1, 8192);
    m.fire(0xffff, 0);
    m.expect(&[8192], &[]);
    m.destroy();
}

#[test]
fn the_collection_table_limits_collections() {
    let m = fresh();
    m.w64(BASER1, Machine::baser(1).with_page_size(PageSize::Size4K).into());
    m.w64(GITS_CBASER, m.cbaser(0).into());
    m.w32(GITS_CTLR, 1);
    m.ok(cmd::mapc(255, 0));
    m.fails(cmd::mapc(256, 0), CommandError::MAPC_COLLECTION_OOR);
    m.destroy();
}

#[test]
fn without_its_device_table_a_device_is_unmapped() {
    let m = Machine::booted(Config { its: 2, ..Config::default() });
    m.map(5, 2, 8192);
    m.ok_on(1, cmd::mapd(5, 1));
    m.enable(8300);
    m.ok_on(1, cmd::mapti(5, 0, 8300, 0));
    m.w32(GITS_CTLR, 0);
    m.w64(GITS_BASER, Machine::baser(2).into());
    assert!(m.fire(5, 0), "the table stays valid");
    m.w64(GITS_BASER, 0);
    m.expect(&[], &[]);
    assert!(!m.fire(5, 0));
    assert!(m.fire_on(1, 5, 0), "the other ITS has its own table");
    m.expect(&[8300], &[]);
    m.w64(GITS_BASER, Machine::baser(1).into());
    m.w32(GITS_CTLR, 1);
    m.fails(cmd::int(5, 0), CommandError::INT_UNMAPPED_DEVICE);
    m.map(5, 2, 8192);
    m.fire(5, 0);
    m.expect(&[8192], &[]);
    m.check();
    m.destroy();
}

#[test]
fn without_its_collection_table_a_collection_is_unmapped() {
    let m = Machine::booted(Config { its: 2, ..Config::default() });
    m.map(5, 1, 8192);
    m.ok_on(1, cmd::mapd(5, 1));
    m.enable(8300);
    m.ok_on(1, cmd::mapti(5, 0, 8300, 0));
    m.w32(GITS_CTLR, 0);
    m.w64(BASER1, 0);
    m.w64(BASER1, Machine::baser(1).into());
    m.w32(GITS_CTLR, 1);
    m.fire(5, 0);
    m.fire_on(1, 5, 0);
    m.expect(&[8300], &[]);
    m.ok(cmd::mapc(0, 1));
    m.fire(5, 0);
    m.expect(&[], &[8192]);
    m.destroy();
}

// ---- Enable and disable ----

#[test]
fn enabling_starts_commands_that_were_queued() {
    let m = fresh();
    m.w64(GITS_BASER, Machine::baser(1).into());
    m.w64(BASER1, Machine::baser(1).into());
    m.w64(GITS_CBASER, m.cbaser(0).into());
    m.put(0, 0, &cmd::mapc(0, 0).encode());
    m.put(0, 32, &cmd::mapd(5, 5).encode());
    assert!(!m.w64(GITS_CWRITER, 64));
    assert_eq!(m.r64(GITS_CREADR), 0, "not enabled");
    assert_eq!(m.its[0].mapped().0, 0);
    m.w32(GITS_CTLR, 1);
    assert_eq!(m.r64(GITS_CREADR), 64);
    assert_eq!(m.its[0].mapped().0, 1);
    m.quiet();
    m.destroy();
}

#[test]
fn enabling_starts_no_more_than_a_batch() {
    let m = fresh();
    m.w64(GITS_CBASER, m.cbaser(0).into());
    m.boot_redist(0);
    for n in 0..127 {
        m.put(0, n * 32, &cmd::sync(0).encode());
    }
    m.w64(GITS_CWRITER, 127 * 32);
    assert!(m.w32(GITS_CTLR, 1), "there is more to do");
    assert_eq!(m.r64(GITS_CREADR), 32 * 32);
    m.work();
    assert_eq!(m.r64(GITS_CREADR), 127 * 32);
    m.destroy();
}

#[test]
fn a_disabled_its_executes_nothing_and_forgets_nothing() {
    let m = booted();
    m.map(5, 1, 8192);
    m.w32(GITS_CTLR, 0);
    let at = m.r64(GITS_CREADR);
    m.put(0, at, &cmd::movi(5, 0, 1).encode());
    m.w64(GITS_CWRITER, at + 32);
    assert_eq!(m.r64(GITS_CREADR), at);
    m.work();
    assert_eq!(m.r64(GITS_CREADR), at);
    m.w32(GITS_CTLR, 1);
    assert_eq!(m.r64(GITS_CREADR), at + 32);
    m.fire(5, 0);
    m.expect(&[], &[8192]);
    m.destroy();
}

#[test]
fn a_disabled_its_translates_nothing() {
    // IHI 0069, GITS_CTLR.Enabled: writes to GITS_TRANSLATER are ignored.
    let m = Machine::booted(Config { its: 2, ..Config::default() });
    m.map(5, 1, 8192);
    m.ok_on(1, cmd::mapd(5, 1));
    m.enable(8300);
    m.ok_on(1, cmd::mapti(5, 0, 8300, 0));
    // What is pending by then is the redistributor's.
    m.fire(5, 0);
    m.w32(GITS_CTLR, 0);
    m.expect(&[8192], &[]);
    m.fire(5, 0);
    m.fire_on(1, 5, 0);
    m.expect(&[8300], &[]);
    m.w32(GITS_CTLR, 1);
    m.expect(&[], &[]);
    m.fire(5, 0);
    m.expect(&[8192], &[]);
    m.destroy();
}

#[test]
fn quiescent_says_that_nothing_is_left_to_do() {
    let m = booted();
    let quiescent = || m.r32(GITS_CTLR) >> 31 == 1;
    assert!(quiescent());
    let at = queue_creadr(&m);
    for n in 0..40 {
        m.put(0, (at + n * 32) % 4096, &cmd::sync(0).encode());
    }
    assert!(m.w64(GITS_CWRITER, (at + 40 * 32) % 4096));
    assert!(!quiescent());
    m.w32(GITS_CTLR, 0);
    assert!(quiescent(), "disabled in the middle of the queue");
    assert!(m.w32(GITS_CTLR, 0x8000_0001) || queue_creadr(&m) == (at + 40 * 32) % 4096);
    m.work();
    assert!(quiescent());
    assert_eq!(m.r32(GITS_CTLR), 0x8000_0001);
    m.w32(GITS_CTLR, 0xffff_fffe);
    assert_eq!(m.r32(GITS_CTLR), 0x8000_0000, "only Enabled can be written");
    m.destroy();
}

#[test]
fn collections_live_as_long_as_their_table() {
    let m = booted();
    m.map(5, 1, 8192);
    let write = |baser: Baser| {
        m.w32(GITS_CTLR, 0);
        m.w64(BASER1, baser.into());
        m.w32(GITS_CTLR, 1);
    };
    // The table is where it was, or has moved.
    for pages in [1, 2] {
        write(Machine::baser(pages));
        m.fire(5, 0);
        m.expect(&[8192], &[]);
    }
    write(Machine::baser(1).with_valid(false));
    m.fails(cmd::invall(0), CommandError::INVALL_COLLECTION_OOR);
    write(Machine::baser(1));
    m.fails(cmd::invall(0), CommandError::INVALL_UNMAPPED_COLLECTION);
    m.fire(5, 0);
    m.expect(&[], &[]);
    m.ok(cmd::mapc(0, 1));
    m.fire(5, 0);
    m.expect(&[], &[8192]);
    m.destroy();
}

// ---- The queue ----

#[test]
fn writing_cbaser_starts_an_empty_queue() {
    let m = booted();
    m.w32(GITS_CTLR, 0);
    m.w64(GITS_CWRITER, 0x100);
    m.w64(GITS_CBASER, m.cbaser(0).into());
    assert_eq!(m.r64(GITS_CWRITER), 0);
    assert_eq!(m.r64(GITS_CREADR), 0);
    m.destroy();
}

#[test]
fn an_invalid_queue_executes_nothing() {
    let m = fresh();
    m.w64(GITS_CBASER, m.cbaser(0).with_valid(false).into());
    m.w32(GITS_CTLR, 1);
    assert!(!m.w64(GITS_CWRITER, 0x40));
    m.work();
    assert_eq!(m.r64(GITS_CREADR), 0);
    assert_eq!(m.ram.reads(), 0);
    m.quiet();
    m.destroy();
}

#[test]
fn the_queue_wraps() {
    for &pages in scaled(&[1_u8, 2, 3][..], &[1]) {
        let m = Machine::booted(Config { queue_pages: pages, ..Config::default() });
        m.map(5, 1, 8192);
        let slots = u64::from(pages) * 128;
        let mut total = 0;
        for round in 0..scaled(20_u64, 4) {
            // Portions that end before, at and after the end of the queue.
            let count = (slots / 2 + round * 7) % (slots - 1) + 1;
            let mut batch = vec![cmd::sync(1); usize::try_from(count).expect("few")];
            if let Some(last) = batch.last_mut() {
                *last = cmd::int(5, 0);
            }
            if let Some(first) = batch.first_mut() {
                *first = cmd::int(5, 0);
            }
            let log = m.run_on(0, &batch);
            assert!(log.is_empty(), "{log:?}");
            total += count;
            m.expect(&[8192], &[]);
        }
        // MAPC twice, MAPD and MAPTI.
        assert_eq!(m.stat("commands"), total + 4);
        assert_eq!(m.stat("skipped"), 0);
        m.destroy();
    }
}

#[test]
fn a_full_queue_is_executed() {
    let m = booted();
    let log = m.run_on(0, &[cmd::sync(0); 127]);
    assert!(log.is_empty(), "{log:?}");
    let log = m.run_on(0, &[cmd::sync(0); 127]);
    assert!(log.is_empty(), "{log:?}");
    m.destroy();
}

#[test]
fn the_largest_queue_works() {
    let m = Machine::booted(Config { queue_pages: 255, ..Config::default() });
    m.ram.add(QUEUE, 0x10_0000);
    m.w32(GITS_CTLR, 0);
    m.w64(GITS_CBASER, m.cbaser(0).with_size(255).into());
    m.w32(GITS_CTLR, 1);
    let count = scaled(32767, 200);
    for n in 0..count {
        m.put(0, n * 32, &cmd::sync(0).encode());
    }
    let mut traps = 1;
    let mut more = m.w64(GITS_CWRITER, count * 32);
    while more {
        more = m.domain.work(&m.host);
        traps += 1;
    }
    assert_eq!(queue_creadr(&m), count * 32);
    assert_eq!(traps, count.div_ceil(32));
    m.quiet();
    m.destroy();
}

#[test]
fn cwriter_beyond_the_queue_is_ignored() {
    let m = booted();
    let before = m.r64(GITS_CWRITER);
    for offset in [0x1000, 0x1020, 0xf_ffe0] {
        m.w64(GITS_CWRITER, offset);
        assert_eq!(m.r64(GITS_CWRITER), before, "{offset:#x}");
    }
    assert_eq!(m.r64(GITS_CREADR), before);
    m.ok(cmd::sync(0));
    // Bits outside 19:5 are not part of it.
    let at = m.r64(GITS_CWRITER);
    m.w64(GITS_CWRITER, at | 0xffff_ffff_fff0_001e);
    assert_eq!(m.r64(GITS_CWRITER), at);
    m.destroy();
}

#[test]
fn one_trap_executes_a_batch_and_work_the_rest() {
    let m = booted();
    m.map(5, 1, 8192);
    let at = queue_creadr(&m);
    for n in 0..100 {
        m.put(0, (at + n * 32) % 4096, &cmd::int(5, 0).encode());
    }
    let before = m.stat("commands");
    assert!(m.w64(GITS_CWRITER, (at + 100 * 32) % 4096));
    assert_eq!(m.stat("commands"), before + 32);
    assert_eq!(queue_creadr(&m), (at + 32 * 32) % 4096, "GITS_CREADR shows progress");
    assert!(m.domain.work(&m.host));
    assert_eq!(m.stat("commands"), before + 64);
    assert!(m.domain.work(&m.host));
    assert!(!m.domain.work(&m.host));
    assert_eq!(m.stat("commands"), before + 100);
    assert!(!m.domain.work(&m.host), "nothing is left");
    assert_eq!(m.stat("commands"), before + 100);
    m.destroy();
}

#[test]
fn a_second_writer_of_cwriter_repeats_and_skips_nothing() {
    let m = booted();
    m.map(5, 1, 8192);
    let at = queue_creadr(&m);
    let end = |n: u64| (at + n * 32) % 4096;
    let before = m.stat("commands");
    for n in 0..120 {
        // MOVI to and fro: in the right order the last one decides.
        let to = u16::from(n % 2 == 0);
        m.put(0, end(n), &cmd::movi(5, 0, to).encode());
    }
    assert!(m.w64(GITS_CWRITER, end(60)));
    assert!(m.w64(GITS_CWRITER, end(90)), "another vCPU adds commands meanwhile");
    assert!(m.w64(GITS_CWRITER, end(119)));
    m.work();
    assert_eq!(queue_creadr(&m), end(119));
    assert_eq!(m.stat("commands"), before + 119);
    m.fire(5, 0);
    m.expect(&[], &[8192]);
    m.destroy();
}

#[test]
fn a_disable_in_the_middle_stops_where_creadr_says() {
    let m = booted();
    m.map(5, 1, 8192);
    let at = queue_creadr(&m);
    let before = m.stat("commands");
    for n in 0..100 {
        m.put(0, (at + n * 32) % 4096, &cmd::int(5, 0).encode());
    }
    assert!(m.w64(GITS_CWRITER, (at + 100 * 32) % 4096));
    assert!(!m.w32(GITS_CTLR, 0));
    assert!(!m.domain.work(&m.host));
    assert_eq!(m.stat("commands"), before + 32);
    assert_eq!(queue_creadr(&m), (at + 32 * 32) % 4096);
    assert!(m.w32(GITS_CTLR, 1));
    m.work();
    assert_eq!(m.stat("commands"), before + 100);
    m.destroy();
}

#[test]
fn a_queue_that_is_not_ram_stalls_until_a_retry() {
    let m = Machine::booted(Config { queue_pages: 2, ..Config::default() });
    m.map(5, 1, 8192);
    // Up to the end of the first page; the second is gone.
    let at = queue_creadr(&m);
    let rest = usize::try_from((4096 - at) / 32).expect("few");
    let mut batch = vec![cmd::sync(0); rest];
    batch.push(cmd::int(5, 0));
    for (n, command) in (0..).zip(&batch) {
        m.put(0, at + n * 32, &command.encode());
    }
    m.ram.remove(QUEUE + 4096, 4096);
    m.w64(GITS_CWRITER, 4096 + 32);
    m.work();
    let creadr = Creadr::from(m.r64(GITS_CREADR));
    assert!(creadr.stalled());
    assert_eq!(creadr.byte_offset(), 4096);
    let log = m.world.take_log();
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].1.contains("stalled at 0x1000"), "{log:?}");
    // It stays so, without another line.
    m.w64(GITS_CWRITER, 4096 + 32);
    m.work();
    assert!(Creadr::from(m.r64(GITS_CREADR)).stalled());
    m.quiet();
    assert_eq!(m.r32(GITS_CTLR) >> 31, 1, "a stalled ITS is quiescent");
    // A retry of what still fails stalls again.
    m.w64(GITS_CWRITER, Cwriter::from_byte_offset(4096 + 32).with_retry(true).into());
    assert!(Creadr::from(m.r64(GITS_CREADR)).stalled());
    assert_eq!(m.world.take_log().len(), 1);
    // With RAM it goes on. Retry reads as 0.
    m.ram.add(QUEUE + 4096, 4096);
    m.put(0, 4096, &cmd::int(5, 0).encode());
    m.w64(GITS_CWRITER, Cwriter::from_byte_offset(4096 + 32).with_retry(true).into());
    assert_eq!(m.r64(GITS_CREADR), 4096 + 32);
    assert_eq!(m.r64(GITS_CWRITER), 4096 + 32);
    m.expect(&[8192], &[]);
    m.destroy();
}

#[test]
fn a_new_queue_ends_a_stall() {
    let m = booted();
    m.w32(GITS_CTLR, 0);
    m.ram.remove(QUEUE, 4096);
    m.w32(GITS_CTLR, 1);
    let at = m.r64(GITS_CREADR);
    m.w64(GITS_CWRITER, at + 32);
    assert!(Creadr::from(m.r64(GITS_CREADR)).stalled());
    assert_eq!(m.world.take_log().len(), 1);
    m.w32(GITS_CTLR, 0);
    m.ram.add(QUEUE, 4096);
    m.w64(GITS_CBASER, m.cbaser(0).into());
    m.w32(GITS_CTLR, 1);
    assert_eq!(m.r64(GITS_CREADR), 0);
    m.ok(cmd::sync(0));
    m.destroy();
}

#[test]
fn one_page_of_the_queue_is_pinned_while_the_its_is_enabled() {
    let m = Machine::booted(Config { queue_pages: 2, ..Config::default() });
    m.map(5, 1, 8192);
    let pins = m.ram.pins();
    m.w32(GITS_CTLR, 0);
    assert_eq!(m.ram.pins(), pins - 1);
    // The guest may put another page in its place, and what was in the old one
    // is not seen any more.
    let at = queue_creadr(&m);
    m.put(0, at, &cmd::int(5, 0).encode());
    m.ram.remove(QUEUE, 4096);
    m.ram.add(QUEUE, 4096);
    m.w32(GITS_CTLR, 1);
    assert_eq!(m.ram.pins(), pins - 1, "nothing has been fetched");
    assert_eq!(m.run_on(0, &[cmd::sync(0)]), [""; 0]);
    m.expect(&[], &[]);
    assert_eq!(m.ram.pins(), pins);
    // From page to page.
    for _ in 0..300 {
        m.ok(cmd::sync(0));
        assert_eq!(m.ram.pins(), pins);
    }
    m.destroy();
}

/// As ARCHITECTURE.md says: another page in its place is not looked at.
#[test]
fn a_page_of_the_queue_that_is_pinned_is_not_looked_up_again() {
    let m = booted();
    m.map(5, 2, 8192);
    let at = queue_creadr(&m);
    for (slot, event) in (0..2).zip(0..) {
        m.put(0, at + slot * 32, &cmd::int(5, event).encode());
    }
    m.ram.remove(QUEUE, 4096);
    m.w64(GITS_CWRITER, at + 32);
    assert_eq!(queue_creadr(&m), at + 32);
    m.quiet();
    m.expect(&[8192], &[]);
    // A page that is not there any more cannot be pinned again.
    m.w32(GITS_CTLR, 0);
    m.w32(GITS_CTLR, 1);
    m.w64(GITS_CWRITER, at + 64);
    assert!(Creadr::from(m.r64(GITS_CREADR)).stalled());
    assert_eq!(m.world.take_log().len(), 1);
    m.destroy();
}

#[test]
fn a_queue_at_the_end_of_the_address_space_stalls() {
    let m = fresh();
    let cbaser = m.cbaser(0).with_address(GuestPa::new(u64::MAX));
    m.w64(GITS_CBASER, cbaser.with_size(255).into());
    m.w32(GITS_CTLR, 1);
    m.w64(GITS_CWRITER, 0xf_ffe0);
    assert!(Creadr::from(m.r64(GITS_CREADR)).stalled());
    assert_eq!(m.world.take_log().len(), 1);
    m.destroy();
}

#[test]
fn a_command_is_read_once() {
    let m = booted();
    m.map(5, 2, 8192);
    // The guest overwrites its queue as soon as it has been read.
    m.ram.after_read(|ram, at, len| {
        let evil = cmd::mapti(5, 0, 8192, 1).encode().to_le_bytes();
        for slot in 0..len / 32 {
            ram.write(at + u64::try_from(slot).expect("few") * 32, &evil);
        }
    });
    m.ok_all(&[cmd::int(5, 0), cmd::int(5, 1)]);
    m.expect(&[8192, 8193], &[]);
    assert_eq!(m.stat("skipped"), 0);
    m.destroy();
}

#[test]
fn the_guests_tables_are_never_looked_at() {
    // Nothing at all is where the guest says its tables are: only the queue
    // and the properties are RAM.
    let m = booted();
    m.ram.remove(Machine::pending_table(0), 8192);
    m.map(5, 4, 8192);
    m.fire(5, 3);
    m.expect(&[8195], &[]);
    m.ram.remove(PROPERTIES, 0xe000);
    m.fire(5, 2);
    m.expect(&[8194], &[]);
    m.destroy();
}
