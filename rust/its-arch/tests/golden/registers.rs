// SPDX-License-Identifier: GPL-2.0-only
//! Every field of every register at its bits.

use crate::bits;
use its_arch::gicr::{self, *};
use its_arch::gits::{self, *};
use its_arch::ids::{EventBits, GuestPa, IdBits, Intid};
use its_arch::memory::{Cacheability, Shareability};
use its_arch::table::LpiProperty;

/// The type that a register is made of, and a value with all bits set.
trait AllOnes {
    const ONES: Self;
}
impl AllOnes for u8 {
    const ONES: Self = !0;
}
impl AllOnes for u16 {
    const ONES: Self = !0;
}
impl AllOnes for u32 {
    const ONES: Self = !0;
}
impl AllOnes for u64 {
    const ONES: Self = !0;
}
impl AllOnes for bool {
    const ONES: Self = true;
}
impl AllOnes for Shareability {
    const ONES: Self = Self::Reserved;
}
impl AllOnes for Cacheability {
    const ONES: Self = Self::RaWaWb;
}
impl AllOnes for BaserType {
    const ONES: Self = Self::Reserved7;
}
impl AllOnes for PageSize {
    const ONES: Self = Self::Reserved;
}

/// Checks that each field of a register is where the table says, that no two
/// share a bit, and that the bits no field has are `reserved`.
///
/// The value that is set is wider than the field where its type is, so this
/// also checks that a setter drops what has no place.
macro_rules! check_fields {
    ($register:ident: $repr:ty, reserved $reserved:expr;
     $($get:ident / $with:ident @ $high:literal : $low:literal;)*) => {{
        let mut seen: u64 = 0;
        $({
            let mask = bits($high, $low);
            let name = concat!(stringify!($register), ".", stringify!($get));
            assert_eq!(seen & mask, 0, "{name} shares bits with another");
            seen |= mask;

            let set = $register::new().$with(AllOnes::ONES).into_bits();
            assert_eq!(u64::from(set), mask, "{name} set");
            let mask = <$repr>::try_from(mask).unwrap();
            let ones = $register::from_bits(mask).$get();
            let zeros = $register::new().$get();
            assert_eq!($register::from_bits(<$repr>::MAX).$get(), ones, "{name} got");
            assert_eq!($register::from_bits(!mask).$get(), zeros, "{name} got");
            assert_ne!(ones, zeros, "{name}");
            assert_eq!($register::new().$with(ones).into_bits(), mask, "{name} back");
        })*
        assert_eq!(seen | $reserved, u64::from(<$repr>::MAX), "a bit without a field");
        assert_eq!(seen & $reserved, 0, "a reserved bit in a field");
    }};
}

#[test]
fn gits_offsets() {
    assert_eq!([GITS_CTLR, GITS_IIDR, GITS_TYPER, GITS_MPAMIDR], [0x0, 0x4, 0x8, 0x10]);
    assert_eq!([GITS_PARTIDR, GITS_MPIDR, GITS_STATUSR, GITS_UMSIR], [0x14, 0x18, 0x40, 0x48]);
    assert_eq!([GITS_CBASER, GITS_CWRITER, GITS_CREADR], [0x80, 0x88, 0x90]);
    assert_eq!([GITS_BASER, GITS_PIDR4, GITS_PIDR2], [0x100, 0xffd0, 0xffe8]);
    assert_eq!([GITS_PIDR0, GITS_PIDR1, GITS_PIDR3], [0xffe0, 0xffe4, 0xffec]);
    assert_eq!([GITS_CIDR0, GITS_CIDR1, GITS_CIDR2, GITS_CIDR3], [0xfff0, 0xfff4, 0xfff8, 0xfffc]);
    assert_eq!([TRANSLATION_FRAME, GITS_TRANSLATER], [0x1_0000, 0x1_0040]);
    assert_eq!([gits::FRAME_SIZE, GITS_SIZE], [0x1_0000, 0x2_0000]);
}

#[test]
fn gicr_offsets() {
    assert_eq!([gicr::GICR_CTLR, GICR_TYPER], [0x0, 0x8]);
    assert_eq!(
        [GICR_SETLPIR, GICR_CLRLPIR, GICR_PROPBASER, GICR_PENDBASER],
        [0x40, 0x48, 0x70, 0x78]
    );
    assert_eq!([GICR_INVLPIR, GICR_INVALLR, GICR_SYNCR], [0xa0, 0xb0, 0xc0]);
}

#[test]
fn baser_offsets_and_numbers() {
    let offsets = [0x100, 0x108, 0x110, 0x118, 0x120, 0x128, 0x130, 0x138];
    for (n, offset) in offsets.into_iter().enumerate() {
        assert_eq!(baser_offset(n), Some(offset));
        for byte in 0..8 {
            assert_eq!(baser_index(offset + byte), Some(n));
        }
    }
    assert_eq!([8, usize::MAX].map(baser_offset), [None; 2]);
    assert_eq!([0, 0xff, 0x140, 0x1_0100, u64::MAX].map(baser_index), [None; 5]);
}

#[test]
fn gits_ctlr() {
    check_fields!(Ctlr: u32, reserved bits(3, 2) | bits(30, 9);
        enabled / with_enabled @ 0:0;
        im_de / with_im_de @ 1:1;
        its_number / with_its_number @ 7:4;
        umsi_irq / with_umsi_irq @ 8:8;
        quiescent / with_quiescent @ 31:31;
    );
    assert_eq!(Ctlr::WRITE_MASK, 1);
}

#[test]
fn gits_iidr() {
    check_fields!(Iidr: u32, reserved bits(23, 20);
        implementer / with_implementer @ 11:0;
        revision / with_revision @ 15:12;
        variant / with_variant @ 19:16;
        product_id / with_product_id @ 31:24;
    );
}

#[test]
fn gits_typer() {
    check_fields!(Typer: u64, reserved bits(23, 20) | bits(63, 47);
        physical_lpis / with_physical_lpis @ 0:0;
        virtual_lpis / with_virtual_lpis @ 1:1;
        cct / with_cct @ 2:2;
        im_def / with_im_def @ 3:3;
        itt_entry_size / with_itt_entry_size @ 7:4;
        id_bits / with_id_bits @ 12:8;
        devbits / with_devbits @ 17:13;
        seis / with_seis @ 18:18;
        pta / with_pta @ 19:19;
        hcc / with_hcc @ 31:24;
        cid_bits / with_cid_bits @ 35:32;
        cil / with_cil @ 36:36;
        vmovp / with_vmovp @ 37:37;
        mpam / with_mpam @ 38:38;
        vsgi / with_vsgi @ 39:39;
        vmapp / with_vmapp @ 40:40;
        svpet / with_svpet @ 42:41;
        nid / with_nid @ 43:43;
        umsi / with_umsi @ 44:44;
        umsi_irq / with_umsi_irq @ 45:45;
        inv / with_inv @ 46:46;
    );
}

#[test]
fn gits_typer_counts_from_one() {
    // As QEMU has it: 12 byte entries, 16 EventID and DeviceID bits, and 16
    // collection bits with CIL set.
    let typer = Typer::from_bits(0x0000_001f_0001_efb1);
    assert_eq!(typer.itt_entry_bytes(), 12);
    assert_eq!(typer.event_id_bits(), EventBits::new(16).unwrap());
    assert_eq!(typer.device_id_bits(), 16);
    assert_eq!(typer.collection_id_bits(), 16);

    assert_eq!(typer.with_cid_bits(3).collection_id_bits(), 4);
    assert_eq!(typer.with_cid_bits(3).with_cil(false).collection_id_bits(), 16);
    assert_eq!(typer.with_devbits(31).device_id_bits(), 32);
    assert_eq!(typer.with_id_bits(31).event_id_bits(), EventBits::MAX);
}

#[test]
fn gits_cbaser() {
    let reserved = bits(9, 8) | bits(52, 52) | bits(58, 56) | bits(62, 62);
    check_fields!(Cbaser: u64, reserved reserved;
        size / with_size @ 7:0;
        shareability / with_shareability @ 11:10;
        physical_address / with_physical_address @ 51:12;
        outer_cache / with_outer_cache @ 55:53;
        inner_cache / with_inner_cache @ 61:59;
        valid / with_valid @ 63:63;
    );
    assert_eq!(Cbaser::WRITE_MASK, !(reserved | bits(15, 12)));

    // What Linux writes: 64 KB of queue, inner shareable, RaWaWb.
    let cbaser = Cbaser::from_bits(0xb800_0000_4321_040f);
    assert!(cbaser.valid());
    assert_eq!(cbaser.inner_cache(), Cacheability::RaWaWb);
    assert_eq!(cbaser.outer_cache(), Cacheability::DeviceOrInner);
    assert_eq!(cbaser.shareability(), Shareability::Inner);
    assert_eq!(cbaser.address(), GuestPa::new(0x4321_0000));
    assert_eq!(cbaser.size_bytes(), 0x1_0000);
    assert_eq!(cbaser.slots(), 2048);

    assert_eq!(Cbaser::new().size_bytes(), 0x1000);
    assert_eq!(Cbaser::from_bits(0xff).slots(), 0x8000);
    // Address bits 15:12 count as zero.
    assert_eq!(Cbaser::from_bits(0x1_f000).address(), GuestPa::new(0x1_0000));
    assert_eq!(Cbaser::from_bits(!0).address(), GuestPa::new(bits(51, 16)));
    assert_eq!(Cbaser::new().with_address(GuestPa::new(!0)).into_bits(), bits(51, 16));
}

#[test]
fn gits_cwriter_and_creadr() {
    check_fields!(Cwriter: u64, reserved bits(4, 1) | bits(63, 20);
        retry / with_retry @ 0:0;
        offset / with_offset @ 19:5;
    );
    check_fields!(Creadr: u64, reserved bits(4, 1) | bits(63, 20);
        stalled / with_stalled @ 0:0;
        offset / with_offset @ 19:5;
    );
    assert_eq!(Cwriter::WRITE_MASK, bits(19, 5));
    assert_eq!(Cwriter::from_bits(!0).byte_offset(), 0xf_ffe0);
    assert_eq!(Creadr::from_bits(!0).byte_offset(), 0xf_ffe0);
    assert_eq!(Cwriter::from_byte_offset(0x60).offset(), 3);
    assert_eq!(Creadr::from_byte_offset(0x60).into_bits(), 0x60);
    assert_eq!(Cwriter::from_byte_offset(!0).into_bits(), 0xf_ffe0);
    assert_eq!(Creadr::from_byte_offset(!0).into_bits(), 0xf_ffe0);
}

#[test]
fn gits_baser() {
    check_fields!(Baser: u64, reserved 0;
        size / with_size @ 7:0;
        page_size / with_page_size @ 9:8;
        shareability / with_shareability @ 11:10;
        physical_address / with_physical_address @ 47:12;
        entry_size / with_entry_size @ 52:48;
        outer_cache / with_outer_cache @ 55:53;
        table_type / with_table_type @ 58:56;
        inner_cache / with_inner_cache @ 61:59;
        indirect / with_indirect @ 62:62;
        valid / with_valid @ 63:63;
    );
    assert_eq!(Baser::WRITE_MASK, !(bits(52, 48) | bits(58, 56)));
}

#[test]
fn gits_baser_address_depends_on_the_page_size() {
    let address = |bits| Baser::from_bits(bits).address().get();
    // All address bits set, then the page size.
    assert_eq!(address(0x0000_ffff_ffff_f000), 0x0000_ffff_ffff_f000);
    assert_eq!(address(0x0000_ffff_ffff_f100), 0x0000_ffff_ffff_c000);
    assert_eq!(address(0x0000_ffff_ffff_f200), 0x000f_ffff_ffff_0000);
    assert_eq!(address(0x0000_ffff_ffff_f300), 0x000f_ffff_ffff_0000);
    // Bits 15:12 are the address's 51:48, in that order.
    assert_eq!(address(0x0000_1234_5678_9200), 0x0009_1234_5678_0000);

    let at = |page_size, address| {
        let baser = Baser::new().with_page_size(page_size);
        baser.with_address(GuestPa::new(address)).map(Baser::into_bits)
    };
    assert_eq!(at(PageSize::Size4K, 0x0000_ffff_ffff_f000), Some(0x0000_ffff_ffff_f000));
    assert_eq!(at(PageSize::Size4K, 0x0000_0000_0000_0800), None);
    assert_eq!(at(PageSize::Size4K, 0x0001_0000_0000_0000), None);
    assert_eq!(at(PageSize::Size16K, 0x0000_0000_0001_4000), Some(0x0000_0000_0001_4100));
    assert_eq!(at(PageSize::Size16K, 0x0000_0000_0001_5000), None);
    assert_eq!(at(PageSize::Size64K, 0x0009_1234_5678_0000), Some(0x0000_1234_5678_9200));
    assert_eq!(at(PageSize::Size64K, 0x0000_0000_0001_8000), None);
    assert_eq!(at(PageSize::Size64K, 0x0010_0000_0000_0000), None);
}

#[test]
fn gits_baser_sizes() {
    let baser = Baser::new().with_entry_size(7);
    assert_eq!(baser.entry_bytes(), 8);
    assert_eq!((baser.table_bytes(), baser.capacity()), (0x1000, 512));

    let flat = baser.with_page_size(PageSize::Size64K).with_size(0xff);
    assert_eq!((flat.table_bytes(), flat.capacity()), (0x100_0000, 0x20_0000));

    // 16 KB pages, two of them: 4096 first level entries, each for a page of
    // 2048 entries.
    let two_levels = baser.with_page_size(PageSize::Size16K).with_size(1).with_indirect(true);
    assert_eq!((two_levels.table_bytes(), two_levels.capacity()), (0x8000, 4096 * 2048));

    // 12 byte entries: 341 in a page, and the rest of the page is lost.
    let odd = Baser::new().with_entry_size(11).with_size(2);
    assert_eq!((odd.entry_bytes(), odd.capacity()), (12, 3 * 341));
    assert_eq!(Baser::from_bits(!0).entry_bytes(), 32);
}

#[test]
fn gits_baser_enumerations() {
    let types = [
        BaserType::Unimplemented,
        BaserType::Devices,
        BaserType::VirtualPes,
        BaserType::Reserved3,
        BaserType::Collections,
        BaserType::Reserved5,
        BaserType::Reserved6,
        BaserType::Reserved7,
    ];
    for (value, table_type) in (0..).zip(types) {
        assert_eq!(BaserType::from_bits(value), table_type);
        assert_eq!(BaserType::from_bits(value | 0xf8), table_type);
        assert_eq!(table_type.into_bits(), value);
    }
    let pages = [PageSize::Size4K, PageSize::Size16K, PageSize::Size64K, PageSize::Reserved];
    for (value, page_size) in (0..).zip(pages) {
        assert_eq!(PageSize::from_bits(value), page_size);
        assert_eq!(PageSize::from_bits(value | 0xfc), page_size);
        assert_eq!(page_size.into_bits(), value);
    }
    assert_eq!(pages.map(PageSize::bytes), [4096, 16384, 65536, 65536]);
}

#[test]
fn memory_attributes() {
    let shareabilities = [
        Shareability::NonShareable,
        Shareability::Inner,
        Shareability::Outer,
        Shareability::Reserved,
    ];
    for (value, shareability) in (0..).zip(shareabilities) {
        assert_eq!(Shareability::from_bits(value), shareability);
        assert_eq!(Shareability::from_bits(value | 0xfc), shareability);
        assert_eq!(shareability.into_bits(), value);
    }
    let cacheabilities = [
        Cacheability::DeviceOrInner,
        Cacheability::NonCacheable,
        Cacheability::RaWt,
        Cacheability::RaWb,
        Cacheability::WaWt,
        Cacheability::WaWb,
        Cacheability::RaWaWt,
        Cacheability::RaWaWb,
    ];
    for (value, cacheability) in (0..).zip(cacheabilities) {
        assert_eq!(Cacheability::from_bits(value), cacheability);
        assert_eq!(Cacheability::from_bits(value | 0xf8), cacheability);
        assert_eq!(cacheability.into_bits(), value);
    }
}

#[test]
fn pidr2() {
    check_fields!(Pidr2: u32, reserved bits(31, 8);
        im_def / with_im_def @ 3:0;
        arch_rev / with_arch_rev @ 7:4;
    );
}

#[test]
fn gicr_ctlr() {
    check_fields!(GicrCtlr: u32, reserved bits(23, 4) | bits(30, 27);
        enable_lpis / with_enable_lpis @ 0:0;
        ces / with_ces @ 1:1;
        ir / with_ir @ 2:2;
        rwp / with_rwp @ 3:3;
        dpg0 / with_dpg0 @ 24:24;
        dpg1ns / with_dpg1ns @ 25:25;
        dpg1s / with_dpg1s @ 26:26;
        uwp / with_uwp @ 31:31;
    );
    assert_eq!(GicrCtlr::WRITE_MASK, 1);
}

#[test]
fn gicr_typer() {
    check_fields!(GicrTyper: u64, reserved 0;
        plpis / with_plpis @ 0:0;
        vlpis / with_vlpis @ 1:1;
        dirty / with_dirty @ 2:2;
        direct_lpi / with_direct_lpi @ 3:3;
        last / with_last @ 4:4;
        dpgs / with_dpgs @ 5:5;
        mpam / with_mpam @ 6:6;
        rvpeid / with_rvpeid @ 7:7;
        processor_number / with_processor_number @ 23:8;
        common_lpi_aff / with_common_lpi_aff @ 25:24;
        vsgi / with_vsgi @ 26:26;
        ppi_num / with_ppi_num @ 31:27;
        affinity / with_affinity @ 63:32;
    );
}

#[test]
fn gicr_propbaser() {
    let reserved = bits(6, 5) | bits(55, 52) | bits(63, 59);
    check_fields!(PropBaser: u64, reserved reserved;
        id_bits / with_id_bits @ 4:0;
        inner_cache / with_inner_cache @ 9:7;
        shareability / with_shareability @ 11:10;
        physical_address / with_physical_address @ 51:12;
        outer_cache / with_outer_cache @ 58:56;
    );
    assert_eq!(PropBaser::WRITE_MASK, !reserved);

    // What Linux writes for 16 INTID bits.
    let propbaser = PropBaser::from_bits(0x0000_0000_4567_078f);
    assert_eq!(propbaser.address(), GuestPa::new(0x4567_0000));
    assert_eq!(propbaser.inner_cache(), Cacheability::RaWaWb);
    assert_eq!(propbaser.shareability(), Shareability::Inner);
    assert_eq!(propbaser.intid_bits(), IdBits::new(16));

    assert_eq!(PropBaser::from_bits(!0).address(), GuestPa::new(bits(51, 12)));
    assert_eq!(PropBaser::new().with_address(GuestPa::new(!0)).into_bits(), bits(51, 12));
    assert_eq!(PropBaser::new().with_address(GuestPa::new(0x4567_0fff)).into_bits(), 0x4567_0000);
    assert_eq!(PropBaser::new().with_id_bits(12).intid_bits(), None);
    assert_eq!(PropBaser::new().with_id_bits(13).intid_bits(), Some(IdBits::MIN));
    assert_eq!(PropBaser::new().with_id_bits(31).intid_bits(), Some(IdBits::MAX));
}

#[test]
fn gicr_pendbaser() {
    let reserved = bits(6, 0) | bits(15, 12) | bits(55, 52) | bits(61, 59) | bits(63, 63);
    check_fields!(PendBaser: u64, reserved reserved;
        inner_cache / with_inner_cache @ 9:7;
        shareability / with_shareability @ 11:10;
        physical_address / with_physical_address @ 51:16;
        outer_cache / with_outer_cache @ 58:56;
        ptz / with_ptz @ 62:62;
    );
    assert_eq!(PendBaser::WRITE_MASK, !(reserved | bits(62, 62)));
    assert_eq!(PendBaser::from_bits(!0).address(), GuestPa::new(bits(51, 16)));
    assert_eq!(PendBaser::new().with_address(GuestPa::new(!0)).into_bits(), bits(51, 16));
    assert_eq!(PendBaser::new().with_address(GuestPa::new(0x4567_ffff)).into_bits(), 0x4567_0000);
}

#[test]
fn gicr_invalidation_registers() {
    check_fields!(InvLpir: u64, reserved bits(62, 48);
        intid_field / with_intid_field @ 31:0;
        vpeid / with_vpeid @ 47:32;
        v / with_v @ 63:63;
    );
    assert_eq!(InvLpir::from_bits(0xffff_ffff_0000_2001).intid(), Intid::new(0x2001));
    check_fields!(InvAllr: u64, reserved bits(31, 0) | bits(62, 48);
        vpeid / with_vpeid @ 47:32;
        v / with_v @ 63:63;
    );
    check_fields!(SyncR: u32, reserved bits(31, 1);
        busy / with_busy @ 0:0;
    );
}

#[test]
fn lpi_configuration_byte() {
    for byte in 0..=u8::MAX {
        let property = LpiProperty::new(byte);
        assert_eq!(property.get(), byte);
        assert_eq!(property.priority(), byte / 4 * 4);
        assert_eq!(property.enabled(), byte % 2 == 1);
    }
    assert_eq!(LpiProperty::with(0xa0, true).get(), 0xa3);
    assert_eq!(LpiProperty::with(0xa0, false).get(), 0xa2);
    assert_eq!(LpiProperty::with(0xff, false).get(), 0xfe);
}
