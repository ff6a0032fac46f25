// SPDX-License-Identifier: GPL-2.0-only
//! The LPI registers of a redistributor.

use its_arch::access::Width;
use its_arch::gicr::{
    GICR_CLRLPIR, GICR_CTLR, GICR_INVALLR, GICR_INVLPIR, GICR_PENDBASER, GICR_PROPBASER,
    GICR_SETLPIR, GICR_SYNCR, GicrCtlr, PendBaser, PropBaser,
};
use its_arch::memory::{Cacheability, Shareability};
use its_arch::{GuestPa, VcpuId};
use its_core::Error;
use its_testkit::machine::PROPERTIES;
use its_testkit::{Config, Machine, cmd};

fn propbaser(id_bits: u8) -> u64 {
    PropBaser::new().with_id_bits(id_bits - 1).with_address(GuestPa::new(PROPERTIES)).into()
}

fn pendbaser(vcpu: u16, ptz: bool) -> u64 {
    let address = GuestPa::new(Machine::pending_table(vcpu));
    PendBaser::new().with_ptz(ptz).with_address(address).into()
}

fn ctlr(m: &Machine, vcpu: u16) -> GicrCtlr {
    let value = m.gicr_read(vcpu, GICR_CTLR, Width::Word);
    GicrCtlr::from_bits(u32::try_from(value).expect("32 bits"))
}

/// Set a bit of the pending table of a vCPU.
fn set_pending(m: &Machine, vcpu: u16, intids: &[u32]) {
    let mut bytes = std::collections::BTreeMap::new();
    for intid in intids {
        *bytes.entry(intid / 8).or_insert(0_u8) |= 1 << (intid % 8);
    }
    for (at, byte) in bytes {
        m.ram.write(Machine::pending_table(vcpu) + u64::from(at), &[byte]);
    }
}

/// ITS set up, LPIs enabled nowhere.
fn without_lpis(config: Config) -> Machine {
    let m = Machine::new(config);
    m.boot_its(0);
    m.ok_all(&[cmd::mapc(0, 0), cmd::mapc(1, 1)]);
    m
}

// ---- GICR_CTLR ----

#[test]
fn enable_lpis_is_set_once() {
    let m = without_lpis(Config::default());
    assert!(!ctlr(&m, 0).enable_lpis());
    assert!(ctlr(&m, 0).ir(), "GICR_INVLPIR and GICR_INVALLR work");
    assert!(!ctlr(&m, 0).ces(), "EnableLPIs cannot be cleared");
    assert!(!ctlr(&m, 0).rwp() && !ctlr(&m, 0).uwp());
    m.boot_redist(0);
    assert!(ctlr(&m, 0).enable_lpis());
    assert!(!ctlr(&m, 1).enable_lpis());
    m.map(5, 1, 8192);
    m.gicr_w32(0, GICR_CTLR, 0);
    assert!(ctlr(&m, 0).enable_lpis());
    m.gicr_w32(0, GICR_CTLR, 0xffff_ffff);
    assert_eq!(m.gicr_read(0, GICR_CTLR, Width::Word), 5);
    m.fire(5, 0);
    m.expect(&[8192], &[]);
    m.destroy();
}

#[test]
fn what_was_mapped_before_works_once_lpis_are_enabled() {
    let m = without_lpis(Config::default());
    m.map(5, 2, 8192);
    m.ok(cmd::movi(5, 1, 1));
    m.boot_redist(0);
    m.boot_redist(1);
    m.fire(5, 0);
    m.fire(5, 1);
    m.expect(&[8192], &[8193]);
    m.destroy();
}

#[test]
fn an_lpi_before_enable_lpis_is_dropped() {
    let m = without_lpis(Config::default());
    m.map(5, 1, 8192);
    m.fire(5, 0);
    m.ok(cmd::int(5, 0));
    m.ok_all(&[cmd::inv(5, 0), cmd::clear(5, 0), cmd::invall(0), cmd::movall(0, 1)]);
    assert_eq!(m.stat("unrouted"), 2);
    m.boot_redist(0);
    m.expect(&[], &[]);
    // The other vCPU still has none.
    m.ok(cmd::movi(5, 0, 1));
    m.fire(5, 0);
    m.expect(&[], &[]);
    m.destroy();
}

#[test]
fn only_enable_lpis_enables_lpis() {
    let m = without_lpis(Config::default());
    m.gicr_w64(0, GICR_PROPBASER, propbaser(16));
    for value in [0, 0xffff_fffe] {
        m.gicr_w32(0, GICR_CTLR, value);
        assert!(!ctlr(&m, 0).enable_lpis(), "{value:#x}");
    }
    m.gicr_w32(0, GICR_CTLR, 1);
    assert!(ctlr(&m, 0).enable_lpis());
    m.destroy();
}

#[test]
fn without_a_table_for_lpis_enable_lpis_is_ignored() {
    for id_bits in [1_u8, 12, 13] {
        let m = without_lpis(Config::default());
        m.gicr_w64(0, GICR_PROPBASER, propbaser(id_bits));
        m.gicr_w32(0, GICR_CTLR, 1);
        assert!(!ctlr(&m, 0).enable_lpis());
        let log = m.world.take_log();
        assert!(log.len() == 1 && log[0].1.contains("GICR_PROPBASER.IDbits"), "{log:?}");
        // And can be mended.
        m.boot_redist(0);
        assert!(ctlr(&m, 0).enable_lpis());
        m.map(5, 1, 8192);
        m.fire(5, 0);
        m.expect(&[8192], &[]);
        m.destroy();
    }
}

// ---- GICR_PROPBASER ----

#[test]
fn propbaser_keeps_what_can_be_written_until_lpis_are_enabled() {
    let m = without_lpis(Config::default());
    m.gicr_w64(0, GICR_PROPBASER, u64::MAX);
    let all = PropBaser::from(m.gicr_read(0, GICR_PROPBASER, Width::Double));
    assert_eq!(u64::from(all) & !PropBaser::WRITE_MASK, 0);
    assert_eq!(all.id_bits(), 0x1f);
    assert_eq!(all.shareability(), Shareability::Inner);
    assert_eq!(all.inner_cache(), Cacheability::RaWaWb);
    // There is one for all vCPUs (GICR_TYPER.CommonLPIAff).
    m.gicr_w64(1, GICR_PROPBASER, propbaser(16));
    let written = m.gicr_read(0, GICR_PROPBASER, Width::Double);
    assert_eq!(PropBaser::from(written).address(), GuestPa::new(PROPERTIES));
    m.boot_redist(1);
    for vcpu in 0..2 {
        let before = m.gicr_read(vcpu, GICR_PROPBASER, Width::Double);
        m.gicr_w64(vcpu, GICR_PROPBASER, 0);
        m.gicr_w32(vcpu, GICR_PROPBASER + 4, 0xff);
        assert_eq!(m.gicr_read(vcpu, GICR_PROPBASER, Width::Double), before);
    }
    m.destroy();
}

#[test]
fn halves_of_the_base_registers() {
    let m = without_lpis(Config::default());
    for (offset, value) in
        [(GICR_PROPBASER, 0x0700_0012_5000_078f), (GICR_PENDBASER, 0x0700_0012_5801_0780)]
    {
        m.gicr_w32(0, offset + 4, value >> 32);
        m.gicr_w32(0, offset, value & 0xffff_ffff);
        assert_eq!(m.gicr_read(0, offset, Width::Double), value, "{offset:#x}");
        assert_eq!(m.gicr_read(0, offset, Width::Word), value & 0xffff_ffff);
        assert_eq!(m.gicr_read(0, offset + 4, Width::Word), value >> 32);
    }
    m.destroy();
}

#[test]
fn a_property_table_of_fewer_bits_limits_lpis() {
    let m = Machine::new(Config { id_bits: 16, vcpus: 1, ..Config::default() });
    m.boot_its(0);
    m.gicr_w64(0, GICR_PROPBASER, propbaser(14));
    m.gicr_w64(0, GICR_PENDBASER, pendbaser(0, true));
    m.gicr_w32(0, GICR_CTLR, 1);
    m.ok(cmd::mapc(0, 0));
    m.map(5, 1, 16383);
    m.fire(5, 0);
    m.expect(&[16383], &[]);
    // Beyond the table there is no property: nothing is delivered, and
    // nothing else goes wrong.
    m.map(6, 1, 16384);
    m.fire(6, 0);
    m.ok_all(&[cmd::inv(6, 0), cmd::invall(0), cmd::clear(6, 0)]);
    m.expect(&[], &[]);
    m.destroy();
}

#[test]
fn a_property_table_of_more_bits_than_there_are_is_cut_off() {
    let m = Machine::new(Config { id_bits: 14, ..Config::default() });
    m.boot_its(0);
    m.gicr_w64(0, GICR_PROPBASER, propbaser(32));
    m.gicr_w64(0, GICR_PENDBASER, pendbaser(0, false));
    m.gicr_w32(0, GICR_CTLR, 1);
    m.quiet();
    assert_eq!(m.ram.pins(), 2, "8192 LPIs are two pages");
    m.ok(cmd::mapc(0, 0));
    m.map(5, 1, 16383);
    m.fire(5, 0);
    m.expect(&[16383], &[]);
    m.destroy();
}

#[test]
fn pages_of_the_property_table_that_are_not_ram_are_disabled_lpis() {
    let m = without_lpis(Config::default());
    m.ram.remove(PROPERTIES + 4096, 4096);
    m.boot_redist(0);
    let log = m.world.take_log();
    assert!(log.len() == 1 && log[0].1.contains("not RAM: 1"), "{log:?}");
    assert_eq!(m.stat("property_holes"), 1);
    m.ok(cmd::mapd(5, 5));
    m.enable(8192);
    m.ok_all(&[cmd::mapti(5, 0, 8192, 0), cmd::mapti(5, 1, 8192 + 4096, 0)]);
    m.fire(5, 0);
    m.fire(5, 1);
    m.expect(&[8192], &[]);
    // RAM that comes later does not count: the table was pinned.
    m.ram.add(PROPERTIES + 4096, 4096);
    m.enable(8192 + 4096);
    m.ok(cmd::inv(5, 1));
    m.expect(&[], &[]);
    m.destroy();
}

#[test]
fn a_property_table_at_the_end_of_the_address_space() {
    let m = without_lpis(Config::default());
    m.gicr_w64(0, GICR_PROPBASER, PropBaser::WRITE_MASK);
    m.gicr_w64(0, GICR_PENDBASER, PendBaser::WRITE_MASK);
    m.gicr_w32(0, GICR_CTLR, 1);
    assert!(ctlr(&m, 0).enable_lpis());
    assert_eq!(m.world.take_log().len(), 1, "all pages are holes");
    m.map(5, 1, 8192);
    m.fire(5, 0);
    m.expect(&[], &[]);
    m.destroy();
}

// ---- GICR_PENDBASER ----

#[test]
fn pendbaser_is_each_vcpus_own_until_lpis_are_enabled() {
    let m = without_lpis(Config::default());
    m.gicr_w64(0, GICR_PENDBASER, u64::MAX);
    let all = PendBaser::from(m.gicr_read(0, GICR_PENDBASER, Width::Double));
    assert_eq!(u64::from(all) & !PendBaser::WRITE_MASK, 0, "PTZ reads as zero");
    assert_eq!(all.shareability(), Shareability::Inner);
    assert_eq!(m.gicr_read(1, GICR_PENDBASER, Width::Double), 0);
    m.boot_redist(0);
    let before = m.gicr_read(0, GICR_PENDBASER, Width::Double);
    m.gicr_w64(0, GICR_PENDBASER, 0);
    assert_eq!(m.gicr_read(0, GICR_PENDBASER, Width::Double), before);
    m.gicr_w64(1, GICR_PENDBASER, pendbaser(1, true));
    assert_ne!(m.gicr_read(1, GICR_PENDBASER, Width::Double), 0);
    m.destroy();
}

#[test]
fn pending_bits_of_the_guest_are_honoured() {
    for (id_bits, lpis) in
        [(14_u8, vec![8192, 8193, 8255, 8256, 12287, 16383]), (16, vec![8192, 8255, 12288, 65535])]
    {
        let m = without_lpis(Config { id_bits, ..Config::default() });
        m.ok(cmd::mapd(5, 5));
        for (event, lpi) in (0..).zip(&lpis) {
            m.enable(*lpi);
            m.ok(cmd::mapti(5, event, *lpi, 0));
        }
        set_pending(&m, 0, &lpis);
        // Bits below 8192 are not LPIs, and stand for none.
        let table = Machine::pending_table(0);
        m.ram.write(table, &[0xff; 1024]);
        m.enable(8200);
        m.ok(cmd::mapti(5, 31, 8200, 0));
        let bits = table + 1024..=table + (1 << id_bits) / 8;
        m.ram.after_read(move |_, at, length| {
            let end = at + u64::try_from(length).expect("short");
            assert!(bits.contains(&at) && bits.contains(&end), "{at:#x} to {end:#x}");
        });
        m.gicr_w64(0, GICR_PROPBASER, propbaser(id_bits));
        m.gicr_w64(0, GICR_PENDBASER, pendbaser(0, false));
        m.gicr_w32(0, GICR_CTLR, 1);
        m.ram.after_read_nothing();
        m.expect(&lpis, &[]);
        m.expect(&[], &[]);
        m.destroy();
    }
}

#[test]
fn with_ptz_the_pending_table_is_not_read() {
    let m = without_lpis(Config::default());
    m.map(5, 1, 8192);
    set_pending(&m, 0, &[8192]);
    let reads = m.ram.reads();
    m.boot_redist(0);
    assert_eq!(m.ram.reads(), reads);
    m.expect(&[], &[]);
    // PTZ of one write does not stick to the next.
    m.gicr_w64(1, GICR_PENDBASER, pendbaser(1, true));
    m.gicr_w64(1, GICR_PENDBASER, pendbaser(1, false));
    m.ok(cmd::movi(5, 0, 1));
    set_pending(&m, 1, &[8192]);
    m.gicr_w32(1, GICR_CTLR, 1);
    m.expect(&[], &[8192]);
    m.destroy();
}

#[test]
fn a_pending_bit_of_an_lpi_that_is_mapped_later() {
    let m = without_lpis(Config::default());
    set_pending(&m, 0, &[8192, 8200]);
    m.gicr_w64(0, GICR_PROPBASER, propbaser(16));
    m.gicr_w64(0, GICR_PENDBASER, pendbaser(0, false));
    m.gicr_w32(0, GICR_CTLR, 1);
    m.expect(&[], &[]);
    m.map(5, 1, 8192);
    m.expect(&[8192], &[]);
    // Disabled as yet.
    m.disable(8200);
    m.ok(cmd::mapti(5, 1, 8200, 0));
    m.expect(&[], &[]);
    m.enable(8200);
    m.ok(cmd::inv(5, 1));
    m.expect(&[8200], &[]);
    m.destroy();
}

/// LPI 8192 is pending on vCPU 1, as its pending table says.
fn pending_on_the_second() -> Machine {
    let m = Machine::new(Config::default());
    m.boot_its(0);
    set_pending(&m, 1, &[8192]);
    m.gicr_w64(1, GICR_PROPBASER, propbaser(16));
    m.gicr_w64(1, GICR_PENDBASER, pendbaser(1, false));
    m.gicr_w32(1, GICR_CTLR, 1);
    m
}

/// The redistributor that has it pending delivers it, wherever the ITS would
/// send the next one.
#[test]
fn a_pending_bit_of_an_lpi_whose_collection_is_mapped_elsewhere() {
    let m = pending_on_the_second();
    m.expect(&[], &[]);
    m.map(5, 1, 8192);
    m.ok(cmd::mapc(0, 0));
    m.expect(&[], &[8192]);
    m.destroy();
}

/// DISCARD finds it there.
#[test]
fn a_pending_bit_of_an_lpi_that_is_discarded() {
    let m = pending_on_the_second();
    m.ok(cmd::mapc(0, 0));
    m.map(5, 1, 8192);
    m.ok(cmd::discard(5, 0));
    m.expect(&[], &[]);
    assert_eq!(m.stat("dormant") + m.stat("waiting"), 0);
    m.destroy();
}

#[test]
fn a_pending_table_that_is_not_ram_is_empty() {
    let m = without_lpis(Config::default());
    m.map(5, 1, 8192);
    set_pending(&m, 0, &[8192]);
    m.ram.remove(Machine::pending_table(0), 8192);
    m.gicr_w64(0, GICR_PROPBASER, propbaser(16));
    m.gicr_w64(0, GICR_PENDBASER, pendbaser(0, false));
    m.gicr_w32(0, GICR_CTLR, 1);
    m.expect(&[], &[]);
    m.fire(5, 0);
    m.expect(&[8192], &[]);
    m.destroy();
}

#[test]
fn a_pending_table_full_of_ones_delivers_what_is_mapped_and_enabled() {
    let m = without_lpis(Config { id_bits: 14, ..Config::default() });
    m.ok(cmd::mapd(5, 5));
    for event in 0..20 {
        m.set_property(8192 + event, 0x80, event != 7);
        m.ok(cmd::mapti(5, event, 8192 + event, 0));
    }
    m.ram.write(Machine::pending_table(0), &[0xff; 2048]);
    m.gicr_w64(0, GICR_PROPBASER, propbaser(14));
    m.gicr_w64(0, GICR_PENDBASER, pendbaser(0, false));
    m.gicr_w32(0, GICR_CTLR, 1);
    let want: Vec<u32> = (8192..8212).filter(|lpi| *lpi != 8199).collect();
    m.expect(&want, &[]);
    assert_eq!(m.stat("dormant"), 8192 - 19);
    m.destroy();
}

// ---- GICR_INVLPIR, GICR_INVALLR, GICR_SYNCR ----

#[test]
fn invlpir_and_invallr_deliver_what_was_enabled() {
    let m = Machine::booted(Config::default());
    m.map(5, 3, 8192);
    for (write, vcpu) in [(0, 0_u16), (1, 0), (2, 1), (3, 0)] {
        for lpi in 8192..8195 {
            m.disable(lpi);
        }
        m.ok(cmd::invall(0));
        for event in 0..3 {
            m.fire(5, event);
        }
        m.expect(&[], &[]);
        m.enable(8193);
        m.expect(&[], &[]);
        match write {
            0 => m.gicr_w64(vcpu, GICR_INVLPIR, 8193),
            1 => m.gicr_w32(vcpu, GICR_INVLPIR, 8193),
            // Through the redistributor of another vCPU.
            2 => m.gicr_w64(vcpu, GICR_INVLPIR, 8193),
            _ => m.gicr_w64(vcpu, GICR_INVALLR, 0),
        }
        m.expect(&[8193], &[]);
        m.enable(8192);
        m.enable(8194);
        m.gicr_w32(0, GICR_INVALLR, 0);
        m.expect(&[8192, 8194], &[]);
    }
    assert_eq!(m.gicr_read(0, GICR_SYNCR, Width::Word), 0, "never busy");
    m.destroy();
}

#[test]
fn invlpir_of_what_is_no_lpi_or_a_vpes_is_ignored() {
    let m = Machine::booted(Config::default());
    m.map(5, 1, 8192);
    m.disable(8192);
    m.fire(5, 0);
    m.enable(8192);
    for value in [0, 8191, 65536, u64::from(u32::MAX), 8192 | 1 << 63] {
        m.gicr_w64(0, GICR_INVLPIR, value);
        m.expect(&[], &[]);
    }
    m.gicr_w32(0, GICR_INVLPIR + 4, 8192);
    m.expect(&[], &[]);
    m.gicr_w64(0, GICR_INVLPIR, 8192);
    m.expect(&[8192], &[]);
    m.destroy();
}

// ---- Accesses ----

#[test]
fn accesses_to_redistributor_registers() {
    let m = Machine::booted(Config::default());
    let id = VcpuId::new(0);
    let read = |offset, width| m.domain.gicr_read(id, offset, width);
    for offset in [GICR_CTLR, GICR_SYNCR] {
        assert_eq!(read(offset, Width::Double), Err(Error::BadAccess));
        assert!(read(offset, Width::Word).is_ok());
    }
    let wide =
        [GICR_SETLPIR, GICR_CLRLPIR, GICR_PROPBASER, GICR_PENDBASER, GICR_INVLPIR, GICR_INVALLR];
    for offset in wide {
        assert!(read(offset, Width::Double).is_ok());
        assert!(read(offset, Width::Word).is_ok());
        assert!(read(offset + 4, Width::Word).is_ok());
        assert_eq!(read(offset + 4, Width::Double), Err(Error::BadAccess));
        assert_eq!(read(offset + 2, Width::Word), Err(Error::BadAccess));
    }
    for offset in 0..0x100 {
        let known =
            wide.contains(&(offset & !7)) || [GICR_CTLR, GICR_SYNCR].contains(&(offset & !3));
        let error = Err(if known { Error::BadAccess } else { Error::NotFound });
        for width in [Width::Byte, Width::Half] {
            assert_eq!(read(offset, width), error);
            assert_eq!(m.domain.gicr_write(id, offset, width, 1).map(u64::from), error);
        }
        for width in [Width::Word, Width::Double] {
            let legal = m.domain.gicr_write(id, offset, width, 0).is_ok();
            assert_eq!(legal, read(offset, width).is_ok(), "{offset:#x} {width:?}");
            assert!(legal || read(offset, width) == error, "{offset:#x} {width:?}");
        }
    }
    // Write-only ones read as zero, and DirectLPI's do nothing.
    for offset in [GICR_SETLPIR, GICR_CLRLPIR, GICR_INVLPIR, GICR_INVALLR] {
        assert_eq!(read(offset, Width::Double), Ok(0));
    }
    m.map(5, 1, 8192);
    m.gicr_w64(0, GICR_SETLPIR, 8192);
    m.expect(&[], &[]);
    m.fire(5, 0);
    m.gicr_w64(0, GICR_CLRLPIR, 8192);
    m.expect(&[8192], &[]);
    assert_eq!(m.domain.gicr_read(VcpuId::new(2), 0, Width::Word), Err(Error::NotFound));
    assert_eq!(m.domain.gicr_write(VcpuId::new(2), 0, Width::Word, 1), Err(Error::NotFound));
    m.destroy();
}
