// SPDX-License-Identifier: GPL-2.0-only
//! The ITS registers (IHI 0069, "ITS register map").
//!
//! Offsets are in bytes from the base of the control frame. Fields are at the
//! architecture's bit positions. A `WRITE_MASK` has a one for each bit that
//! software can change in a GICv3 ITS; the rest is read-only or reserved.

use crate::command::COMMAND_SIZE;
use crate::field::{low2, low4, low5, low12, low15, low36, low40};
use crate::ids::{EventBits, GuestPa};
use crate::memory::{Cacheability, Shareability};
use bitfield_struct::bitfield;

/// The size of each frame, in bytes.
pub const FRAME_SIZE: u64 = 0x1_0000;
/// The size of the two frames of a GICv3 ITS, control then translation.
pub const GITS_SIZE: u64 = 0x2_0000;

/// ITS Control Register, 32 bits: [`Ctlr`].
pub const GITS_CTLR: u64 = 0x0000;
/// ITS Identification Register, 32 bits: [`Iidr`].
pub const GITS_IIDR: u64 = 0x0004;
/// ITS Type Register, 64 bits: [`Typer`].
pub const GITS_TYPER: u64 = 0x0008;
/// Report maximum PARTID and PMG, 32 bits (GICv3.2 with MPAM).
pub const GITS_MPAMIDR: u64 = 0x0010;
/// Set PARTID and PMG, 32 bits (GICv3.2 with MPAM).
pub const GITS_PARTIDR: u64 = 0x0014;
/// Report the ITS's affinity, 32 bits (GICv4.1).
pub const GITS_MPIDR: u64 = 0x0018;
/// ITS Error Reporting Status Register, 32 bits, optional.
pub const GITS_STATUSR: u64 = 0x0040;
/// ITS Unmapped MSI register, 64 bits, optional.
pub const GITS_UMSIR: u64 = 0x0048;
/// ITS Command Queue Descriptor, 64 bits: [`Cbaser`].
pub const GITS_CBASER: u64 = 0x0080;
/// ITS Write Register, 64 bits: [`Cwriter`].
pub const GITS_CWRITER: u64 = 0x0088;
/// ITS Read Register, 64 bits: [`Creadr`].
pub const GITS_CREADR: u64 = 0x0090;
/// The first ITS Translation Table Descriptor, 64 bits: [`Baser`].
pub const GITS_BASER: u64 = 0x0100;
/// How many `GITS_BASER<n>` there are, implemented or not.
pub const BASER_COUNT: usize = 8;
/// The first of the identification registers, 32 bits each.
pub const GITS_PIDR4: u64 = 0xffd0;
/// Peripheral ID0 Register, 32 bits.
pub const GITS_PIDR0: u64 = 0xffe0;
/// Peripheral ID1 Register, 32 bits.
pub const GITS_PIDR1: u64 = 0xffe4;
/// Peripheral ID2 Register, 32 bits: [`Pidr2`].
pub const GITS_PIDR2: u64 = 0xffe8;
/// Peripheral ID3 Register, 32 bits.
pub const GITS_PIDR3: u64 = 0xffec;
/// Component ID0 Register, 32 bits.
pub const GITS_CIDR0: u64 = 0xfff0;
/// Component ID1 Register, 32 bits.
pub const GITS_CIDR1: u64 = 0xfff4;
/// Component ID2 Register, 32 bits.
pub const GITS_CIDR2: u64 = 0xfff8;
/// Component ID3 Register, 32 bits: the last register of the control frame.
pub const GITS_CIDR3: u64 = 0xfffc;
/// Where the translation frame begins, from the base of the control frame.
pub const TRANSLATION_FRAME: u64 = 0x1_0000;
/// ITS Translation Register, 16 or 32 bits, write-only: a device writes its
/// EventID here.
pub const GITS_TRANSLATER: u64 = 0x1_0040;

/// The offset of `GITS_BASER<n>`, or `None` from 8 on.
#[must_use]
pub const fn baser_offset(n: usize) -> Option<u64> {
    if n < BASER_COUNT { Some(GITS_BASER | ((n as u64) << 3)) } else { None }
}

/// The n of the `GITS_BASER<n>` that the byte at `offset` is part of, below 8;
/// `None` where it is part of none.
#[must_use]
pub const fn baser_index(offset: u64) -> Option<usize> {
    if offset & !0x3f == GITS_BASER { Some(((offset >> 3) & 7) as usize) } else { None }
}

/// `GITS_CTLR`, ITS Control Register.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Ctlr {
    /// Bit 0: commands and translations are processed.
    pub enabled: bool,
    /// Bit 1: IMPLEMENTATION DEFINED.
    pub im_de: bool,
    #[bits(2)]
    __: u8,
    /// Bits 7:4: the number of this ITS, for VMOVP (GICv4).
    #[bits(4, into = low4)]
    pub its_number: u8,
    /// Bit 8: an unmapped MSI raises an interrupt.
    pub umsi_irq: bool,
    #[bits(22)]
    __: u32,
    /// Bit 31, read-only: the ITS is disabled and has finished its work.
    pub quiescent: bool,
}

impl Ctlr {
    /// What software can change in a GICv3 ITS.
    pub const WRITE_MASK: u32 = Self::new().with_enabled(true).into_bits();
}

/// `GITS_IIDR`, ITS Identification Register. Read-only.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Iidr {
    /// Bits 11:0: the JEP106 code of the implementer.
    #[bits(12, into = low12)]
    pub implementer: u16,
    /// Bits 15:12: the minor revision.
    #[bits(4, into = low4)]
    pub revision: u8,
    /// Bits 19:16: the major revision.
    #[bits(4, into = low4)]
    pub variant: u8,
    #[bits(4)]
    __: u8,
    /// Bits 31:24: the product.
    pub product_id: u8,
}

/// `GITS_TYPER`, ITS Type Register. Read-only.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Typer {
    /// Bit 0, Physical: physical LPIs are supported.
    pub physical_lpis: bool,
    /// Bit 1, Virtual: virtual LPIs are supported (GICv4).
    pub virtual_lpis: bool,
    /// Bit 2: collections that have no valid entry in memory are kept in the
    /// ITS (Cumulative Collection Tables).
    pub cct: bool,
    /// Bit 3: IMPLEMENTATION DEFINED.
    pub im_def: bool,
    /// Bits 7:4: bytes of an ITT entry, minus one.
    #[bits(4, into = low4)]
    pub itt_entry_size: u8,
    /// Bits 12:8: EventID bits, minus one.
    #[bits(5, into = low5)]
    pub id_bits: u8,
    /// Bits 17:13: DeviceID bits, minus one.
    #[bits(5, into = low5)]
    pub devbits: u8,
    /// Bit 18: locally generated System Error interrupts are supported.
    pub seis: bool,
    /// Bit 19: `RDbase` holds an address (true) or a processor number.
    pub pta: bool,
    #[bits(4)]
    __: u8,
    /// Bits 31:24: collections that the ITS holds without memory.
    pub hcc: u8,
    /// Bits 35:32: collection identifier bits, minus one, when `cil` is set.
    #[bits(4, into = low4)]
    pub cid_bits: u8,
    /// Bit 36: collection identifiers are limited to `cid_bits`, not 16 bits.
    pub cil: bool,
    /// Bit 37: one VMOVP is enough for all ITSes (GICv4).
    pub vmovp: bool,
    /// Bit 38: MPAM is supported (GICv3.2).
    pub mpam: bool,
    /// Bit 39: direct injection of virtual SGIs is supported (GICv4.1).
    pub vsgi: bool,
    /// Bit 40: VMAPP has the GICv4.1 form.
    pub vmapp: bool,
    /// Bits 42:41: how the vPE table is shared (GICv4.1).
    #[bits(2, into = low2)]
    pub svpet: u8,
    /// Bit 43: individual doorbells are not supported (GICv4.1).
    pub nid: bool,
    /// Bit 44: unmapped MSIs are reported.
    pub umsi: bool,
    /// Bit 45: unmapped MSIs can raise an interrupt.
    pub umsi_irq: bool,
    /// Bit 46: what the ITS caches for a translation table is dropped when its
    /// `GITS_BASER<n>` becomes invalid.
    pub inv: bool,
    #[bits(17)]
    __: u32,
}

impl Typer {
    /// How many bytes an ITT entry takes, 1 to 16.
    #[must_use]
    pub const fn itt_entry_bytes(self) -> u8 {
        self.itt_entry_size().saturating_add(1)
    }

    /// How many EventID bits the ITS supports, 1 to 32.
    #[must_use]
    pub const fn event_id_bits(self) -> EventBits {
        EventBits::from_field(self.id_bits())
    }

    /// How many DeviceID bits the ITS supports, 1 to 32.
    #[must_use]
    pub const fn device_id_bits(self) -> u8 {
        self.devbits().saturating_add(1)
    }

    /// How many collection identifier bits the ITS supports, 1 to 16.
    #[must_use]
    pub const fn collection_id_bits(self) -> u8 {
        if self.cil() { self.cid_bits().saturating_add(1) } else { 16 }
    }
}

/// `GITS_CBASER`, ITS Command Queue Descriptor.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Cbaser {
    /// Bits 7:0: 4 KB pages of the queue, minus one.
    pub size: u8,
    #[bits(2)]
    __: u8,
    /// Bits 11:10.
    #[bits(2)]
    pub shareability: Shareability,
    /// Bits 51:12: bits 51:12 of the queue's address. See [`Cbaser::address`].
    #[bits(40, into = low40)]
    pub physical_address: u64,
    #[bits(1)]
    __: u8,
    /// Bits 55:53.
    #[bits(3)]
    pub outer_cache: Cacheability,
    #[bits(3)]
    __: u8,
    /// Bits 61:59.
    #[bits(3)]
    pub inner_cache: Cacheability,
    #[bits(1)]
    __: u8,
    /// Bit 63: memory is allocated for the queue.
    pub valid: bool,
}

impl Cbaser {
    /// What software can change.
    ///
    /// Address bits 15:12 are not in it: they must be zero, and where they are
    /// not, an ITS may treat them as zero and read them back as zero.
    pub const WRITE_MASK: u64 = Self::new()
        .with_size(0xff)
        .with_shareability(Shareability::from_bits(0xff))
        .with_physical_address(0xff_ffff_fff0)
        .with_outer_cache(Cacheability::from_bits(0xff))
        .with_inner_cache(Cacheability::from_bits(0xff))
        .with_valid(true)
        .into_bits();

    /// The queue's address, a multiple of 64 KB below 2^52.
    #[must_use]
    pub const fn address(self) -> GuestPa {
        GuestPa::new((self.physical_address() & !0xf) << 12)
    }

    /// The same register with the queue at `address`, of which only bits 51:16
    /// have a place.
    #[must_use]
    pub const fn with_address(self, address: GuestPa) -> Self {
        self.with_physical_address((address.get() >> 12) & 0xff_ffff_fff0)
    }

    /// The queue's size in bytes: 4 KB to 1 MB.
    #[must_use]
    pub const fn size_bytes(self) -> u64 {
        (self.size() as u64).saturating_add(1) << 12
    }

    /// How many commands the queue has room for. One slot always stays free.
    #[must_use]
    pub const fn slots(self) -> u64 {
        self.size_bytes() / COMMAND_SIZE
    }
}

/// `GITS_CWRITER`, ITS Write Register: where software writes next.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Cwriter {
    /// Bit 0: process the command again at which the ITS stalled. Reads as 0.
    pub retry: bool,
    #[bits(4)]
    __: u8,
    /// Bits 19:5: the slot, from the queue's base. See [`Cwriter::byte_offset`].
    #[bits(15, into = low15)]
    pub offset: u16,
    #[bits(44)]
    __: u64,
}

impl Cwriter {
    /// What software can change and reads back.
    pub const WRITE_MASK: u64 = Self::new().with_offset(0x7fff).into_bits();

    /// The distance from the queue's base in bytes: a multiple of 32 below
    /// 1 MB, not checked against the size of the queue.
    #[must_use]
    pub const fn byte_offset(self) -> u64 {
        (self.offset() as u64) << 5
    }

    /// The register for a distance in bytes. Only bits 19:5 have a place.
    #[must_use]
    pub const fn from_byte_offset(bytes: u64) -> Self {
        Self::from_bits(bytes & Self::WRITE_MASK)
    }
}

/// `GITS_CREADR`, ITS Read Register: which command the ITS processes next.
/// Read-only.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Creadr {
    /// Bit 0: the ITS has stopped at a command in error.
    pub stalled: bool,
    #[bits(4)]
    __: u8,
    /// Bits 19:5: the slot, from the queue's base. See [`Creadr::byte_offset`].
    #[bits(15, into = low15)]
    pub offset: u16,
    #[bits(44)]
    __: u64,
}

impl Creadr {
    /// The distance from the queue's base in bytes: a multiple of 32 below
    /// 1 MB.
    #[must_use]
    pub const fn byte_offset(self) -> u64 {
        (self.offset() as u64) << 5
    }

    /// The register, not stalled, for a distance in bytes. Only bits 19:5 have
    /// a place.
    #[must_use]
    pub const fn from_byte_offset(bytes: u64) -> Self {
        Self::from_bits(bytes & Self::new().with_offset(0x7fff).into_bits())
    }
}

/// What a `GITS_BASER<n>` is for: its `Type` field. Read-only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum BaserType {
    /// 0b000: the register is not implemented, and RES0.
    Unimplemented = 0,
    /// 0b001: the Device table.
    Devices = 1,
    /// 0b010: the vPE table (GICv4).
    VirtualPes = 2,
    /// 0b011: reserved.
    Reserved3 = 3,
    /// 0b100: the Collection table.
    Collections = 4,
    /// 0b101: reserved.
    Reserved5 = 5,
    /// 0b110: reserved.
    Reserved6 = 6,
    /// 0b111: reserved.
    Reserved7 = 7,
}

impl BaserType {
    /// What the three bits mean. Higher bits are ignored.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0b111 {
            0 => Self::Unimplemented,
            1 => Self::Devices,
            2 => Self::VirtualPes,
            3 => Self::Reserved3,
            4 => Self::Collections,
            5 => Self::Reserved5,
            6 => Self::Reserved6,
            _ => Self::Reserved7,
        }
    }

    /// The three bits.
    #[must_use]
    pub const fn into_bits(self) -> u8 {
        self as u8 & 0b111
    }
}

/// The page size of a table: the `Page_Size` field of a `GITS_BASER<n>`.
///
/// An ITS may support one size only and make the field read-only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PageSize {
    /// 0b00: 4 KB.
    Size4K = 0,
    /// 0b01: 16 KB.
    Size16K = 1,
    /// 0b10: 64 KB.
    Size64K = 2,
    /// 0b11: reserved, treated as 0b10.
    Reserved = 3,
}

impl PageSize {
    /// What the two bits mean. Higher bits are ignored.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0b11 {
            0 => Self::Size4K,
            1 => Self::Size16K,
            2 => Self::Size64K,
            _ => Self::Reserved,
        }
    }

    /// The two bits.
    #[must_use]
    pub const fn into_bits(self) -> u8 {
        self as u8 & 0b11
    }

    /// The size in bytes: 4096, 16384 or 65536.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Size4K => 0x1000,
            Self::Size16K => 0x4000,
            Self::Size64K | Self::Reserved => 0x1_0000,
        }
    }
}

/// `GITS_BASER<n>`, ITS Translation Table Descriptor.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Baser {
    /// Bits 7:0: pages of the table, minus one.
    pub size: u8,
    /// Bits 9:8.
    #[bits(2)]
    pub page_size: PageSize,
    /// Bits 11:10.
    #[bits(2)]
    pub shareability: Shareability,
    /// Bits 47:12, whose meaning depends on the page size. See
    /// [`Baser::address`].
    #[bits(36, into = low36)]
    pub physical_address: u64,
    /// Bits 52:48, read-only: bytes of a table entry, minus one.
    #[bits(5, into = low5)]
    pub entry_size: u8,
    /// Bits 55:53.
    #[bits(3)]
    pub outer_cache: Cacheability,
    /// Bits 58:56, read-only: `Type`.
    #[bits(3)]
    pub table_type: BaserType,
    /// Bits 61:59.
    #[bits(3)]
    pub inner_cache: Cacheability,
    /// Bit 62: the table has two levels. RES0 where that is not supported.
    pub indirect: bool,
    /// Bit 63: memory is allocated for the table.
    pub valid: bool,
}

impl Baser {
    /// What software can change: everything but `Type` and `Entry_Size`. An
    /// ITS may also fix `Indirect`, `Page_Size` and the attributes.
    pub const WRITE_MASK: u64 = Self::new()
        .with_size(0xff)
        .with_page_size(PageSize::from_bits(0xff))
        .with_shareability(Shareability::from_bits(0xff))
        .with_physical_address(0xf_ffff_ffff)
        .with_outer_cache(Cacheability::from_bits(0xff))
        .with_inner_cache(Cacheability::from_bits(0xff))
        .with_indirect(true)
        .with_valid(true)
        .into_bits();

    /// The table's address.
    ///
    /// Below 2^48 and a multiple of the page size for 4 KB and 16 KB pages; for
    /// 64 KB pages below 2^52, the field's low four bits being the address bits
    /// 51:48.
    #[must_use]
    pub const fn address(self) -> GuestPa {
        let field = self.physical_address();
        GuestPa::new(match self.page_size() {
            PageSize::Size4K => field << 12,
            PageSize::Size16K => (field & !0x3) << 12,
            PageSize::Size64K | PageSize::Reserved => (field & !0xf) << 12 | (field & 0xf) << 48,
        })
    }

    /// The same register with the table at `address`, for the page size that
    /// it has. `None` if the address is not aligned to the page or too high.
    #[must_use]
    pub const fn with_address(self, address: GuestPa) -> Option<Self> {
        let pages = address.get() >> 12;
        let field = match self.page_size() {
            PageSize::Size4K | PageSize::Size16K => pages,
            PageSize::Size64K | PageSize::Reserved => pages & 0xf_ffff_fff0 | (pages >> 36) & 0xf,
        };
        let baser = self.with_physical_address(field & 0xf_ffff_ffff);
        if baser.address().get() == address.get() { Some(baser) } else { None }
    }

    /// The size in bytes of the table, or of its first level if `indirect`.
    #[must_use]
    pub const fn table_bytes(self) -> u64 {
        (self.size() as u64).saturating_add(1).saturating_mul(self.page_size().bytes())
    }

    /// How many bytes an entry takes, 1 to 32.
    #[must_use]
    pub const fn entry_bytes(self) -> u64 {
        (self.entry_size() as u64).saturating_add(1)
    }

    /// How many entries the table has room for, if every second level page is
    /// there. Whether it is valid is not looked at.
    ///
    /// An entry does not cross a page. A first level entry takes 8 bytes.
    #[must_use]
    pub const fn capacity(self) -> u64 {
        let page = self.page_size().bytes();
        let per_page = match page.checked_div(self.entry_bytes()) {
            Some(entries) => entries,
            None => 0,
        };
        let pages = if self.indirect() {
            self.table_bytes() / 8
        } else {
            (self.size() as u64).saturating_add(1)
        };
        pages.saturating_mul(per_page)
    }
}

/// `GITS_PIDR2` and `GICR_PIDR2`, Peripheral ID2 Register. Read-only.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Pidr2 {
    /// Bits 3:0: IMPLEMENTATION DEFINED.
    #[bits(4, into = low4)]
    pub im_def: u8,
    /// Bits 7:4: the GIC architecture's version: 3 or 4.
    #[bits(4, into = low4)]
    pub arch_rev: u8,
    #[bits(24)]
    __: u32,
}
