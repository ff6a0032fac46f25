// SPDX-License-Identifier: GPL-2.0-only
//! The registers of a Redistributor that deal with LPIs (IHI 0069, "The GIC
//! Redistributor register map").
//!
//! Offsets are in bytes from the base of the RD_base frame. A `WRITE_MASK` has
//! a one for each bit that software can change.

use crate::field::{low2, low5, low36, low40};
use crate::ids::{GuestPa, IdBits, Intid};
use crate::memory::{Cacheability, Shareability};
use bitfield_struct::bitfield;

/// Redistributor Control Register, 32 bits: [`GicrCtlr`].
pub const GICR_CTLR: u64 = 0x0000;
/// Redistributor Type Register, 64 bits: [`GicrTyper`].
pub const GICR_TYPER: u64 = 0x0008;
/// Set LPI Pending Register, 64 bits, write-only: an INTID in bits 31:0.
/// Present with `GICR_TYPER.DirectLPI`.
pub const GICR_SETLPIR: u64 = 0x0040;
/// Clear LPI Pending Register, 64 bits, write-only: an INTID in bits 31:0.
/// Present with `GICR_TYPER.DirectLPI`.
pub const GICR_CLRLPIR: u64 = 0x0048;
/// Redistributor Properties Base Address Register, 64 bits: [`PropBaser`].
pub const GICR_PROPBASER: u64 = 0x0070;
/// Redistributor LPI Pending Table Base Address Register, 64 bits:
/// [`PendBaser`].
pub const GICR_PENDBASER: u64 = 0x0078;
/// Redistributor Invalidate LPI Register, 64 bits, write-only: [`InvLpir`].
pub const GICR_INVLPIR: u64 = 0x00a0;
/// Redistributor Invalidate All Register, 64 bits, write-only: [`InvAllr`].
pub const GICR_INVALLR: u64 = 0x00b0;
/// Redistributor Synchronize Register, 32 bits, read-only: [`SyncR`].
pub const GICR_SYNCR: u64 = 0x00c0;

/// `GICR_CTLR`, Redistributor Control Register.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GicrCtlr {
    /// Bit 0, EnableLPIs: physical LPIs are supported and delivered.
    pub enable_lpis: bool,
    /// Bit 1, CES, read-only: software can clear EnableLPIs again.
    pub ces: bool,
    /// Bit 2, IR, read-only: GICR_INVLPIR, GICR_INVALLR and GICR_SYNCR are
    /// implemented.
    pub ir: bool,
    /// Bit 3, RWP, read-only: a register write is still in progress.
    pub rwp: bool,
    #[bits(20)]
    __: u32,
    /// Bit 24, DPG0: no Group 0 SPI is sent here by 1 of N selection.
    pub dpg0: bool,
    /// Bit 25, DPG1NS: as `dpg0`, for Non-secure Group 1.
    pub dpg1ns: bool,
    /// Bit 26, DPG1S: as `dpg0`, for Secure Group 1.
    pub dpg1s: bool,
    #[bits(4)]
    __: u8,
    /// Bit 31, UWP, read-only: upstream writes are still in progress.
    pub uwp: bool,
}

impl GicrCtlr {
    /// What software can change with `GICR_TYPER.DPGS` = 0.
    pub const WRITE_MASK: u32 = Self::new().with_enable_lpis(true).into_bits();
}

/// `GICR_TYPER`, Redistributor Type Register. Read-only.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct GicrTyper {
    /// Bit 0, PLPIS: physical LPIs are supported.
    pub plpis: bool,
    /// Bit 1, VLPIS: virtual LPIs are supported (GICv4).
    pub vlpis: bool,
    /// Bit 2, Dirty: GICR_VPENDBASER.Dirty is implemented (GICv4).
    pub dirty: bool,
    /// Bit 3, DirectLPI: LPIs can be set and cleared by register.
    pub direct_lpi: bool,
    /// Bit 4, Last: this is the last Redistributor of its region.
    pub last: bool,
    /// Bit 5, DPGS: GICR_CTLR.DPG* are implemented.
    pub dpgs: bool,
    /// Bit 6, MPAM (GICv3.2).
    pub mpam: bool,
    /// Bit 7, RVPEID: how the resident vPE is named (GICv4.1).
    pub rvpeid: bool,
    /// Bits 23:8: the number that `RDbase` uses with `GITS_TYPER.PTA` = 0.
    pub processor_number: u16,
    /// Bits 25:24: which Redistributors share the configuration table.
    #[bits(2, into = low2)]
    pub common_lpi_aff: u8,
    /// Bit 26, VSGI (GICv4.1).
    pub vsgi: bool,
    /// Bits 31:27: how many extended PPIs there are.
    #[bits(5, into = low5)]
    pub ppi_num: u8,
    /// Bits 63:32: Aff3 in 31:24 down to Aff0 in 7:0.
    pub affinity: u32,
}

/// `GICR_PROPBASER`, Redistributor Properties Base Address Register: where the
/// LPI configuration table is.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PropBaser {
    /// Bits 4:0, IDbits: INTID bits, minus one. See [`PropBaser::intid_bits`].
    #[bits(5, into = low5)]
    pub id_bits: u8,
    #[bits(2)]
    __: u8,
    /// Bits 9:7.
    #[bits(3)]
    pub inner_cache: Cacheability,
    /// Bits 11:10.
    #[bits(2)]
    pub shareability: Shareability,
    /// Bits 51:12: bits 51:12 of the table's address.
    #[bits(40, into = low40)]
    pub physical_address: u64,
    #[bits(4)]
    __: u8,
    /// Bits 58:56.
    #[bits(3)]
    pub outer_cache: Cacheability,
    #[bits(5)]
    __: u8,
}

impl PropBaser {
    /// What software can change.
    pub const WRITE_MASK: u64 = Self::new()
        .with_id_bits(0x1f)
        .with_inner_cache(Cacheability::from_bits(0xff))
        .with_shareability(Shareability::from_bits(0xff))
        .with_physical_address(0xff_ffff_ffff)
        .with_outer_cache(Cacheability::from_bits(0xff))
        .into_bits();

    /// The table's address, a multiple of 4 KB below 2^52.
    #[must_use]
    pub const fn address(self) -> GuestPa {
        GuestPa::new(self.physical_address() << 12)
    }

    /// The same register with the table at `address`, of which only bits 51:12
    /// have a place.
    #[must_use]
    pub const fn with_address(self, address: GuestPa) -> Self {
        self.with_physical_address((address.get() >> 12) & 0xff_ffff_ffff)
    }

    /// How many INTID bits the table is for, or `None` below 14, which means
    /// that it holds no LPI.
    ///
    /// A value above what the GIC implements means what the GIC implements,
    /// which the caller knows.
    #[must_use]
    pub const fn intid_bits(self) -> Option<IdBits> {
        IdBits::new(self.id_bits().saturating_add(1))
    }
}

/// `GICR_PENDBASER`, Redistributor LPI Pending Table Base Address Register.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PendBaser {
    #[bits(7)]
    __: u8,
    /// Bits 9:7.
    #[bits(3)]
    pub inner_cache: Cacheability,
    /// Bits 11:10.
    #[bits(2)]
    pub shareability: Shareability,
    #[bits(4)]
    __: u8,
    /// Bits 51:16: bits 51:16 of the table's address.
    #[bits(36, into = low36)]
    pub physical_address: u64,
    #[bits(4)]
    __: u8,
    /// Bits 58:56.
    #[bits(3)]
    pub outer_cache: Cacheability,
    #[bits(3)]
    __: u8,
    /// Bit 62, Pending Table Zero: the table holds zeros only. Reads as 0.
    pub ptz: bool,
    #[bits(1)]
    __: u8,
}

impl PendBaser {
    /// What software can change and reads back. `ptz` is write-only and so not
    /// in it.
    pub const WRITE_MASK: u64 = Self::new()
        .with_inner_cache(Cacheability::from_bits(0xff))
        .with_shareability(Shareability::from_bits(0xff))
        .with_physical_address(0xf_ffff_ffff)
        .with_outer_cache(Cacheability::from_bits(0xff))
        .into_bits();

    /// The table's address, a multiple of 64 KB below 2^52.
    #[must_use]
    pub const fn address(self) -> GuestPa {
        GuestPa::new(self.physical_address() << 16)
    }

    /// The same register with the table at `address`, of which only bits 51:16
    /// have a place.
    #[must_use]
    pub const fn with_address(self, address: GuestPa) -> Self {
        self.with_physical_address((address.get() >> 16) & 0xf_ffff_ffff)
    }
}

/// `GICR_INVLPIR`, Redistributor Invalidate LPI Register. Write-only.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct InvLpir {
    /// Bits 31:0, INTID: whose configuration to reload. See
    /// [`InvLpir::intid`].
    pub intid_field: u32,
    /// Bits 47:32, vPEID, when `v` is set (GICv4.1).
    pub vpeid: u16,
    #[bits(15)]
    __: u16,
    /// Bit 63, V: the INTID is virtual (GICv4.1).
    pub v: bool,
}

impl InvLpir {
    /// The INTID, which need not be an LPI.
    #[must_use]
    pub const fn intid(self) -> Intid {
        Intid::new(self.intid_field())
    }
}

/// `GICR_INVALLR`, Redistributor Invalidate All Register. Write-only.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct InvAllr {
    __: u32,
    /// Bits 47:32, vPEID, when `v` is set (GICv4.1).
    pub vpeid: u16,
    #[bits(15)]
    __: u16,
    /// Bit 63, V: the LPIs of a vPE are meant (GICv4.1).
    pub v: bool,
}

/// `GICR_SYNCR`, Redistributor Synchronize Register. Read-only.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SyncR {
    /// Bit 0: an invalidation is still in progress.
    pub busy: bool,
    #[bits(31)]
    __: u32,
}
