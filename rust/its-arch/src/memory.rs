// SPDX-License-Identifier: GPL-2.0-only
//! Memory attributes that `GITS_CBASER`, `GITS_BASER<n>`, `GICR_PROPBASER` and
//! `GICR_PENDBASER` give to the memory they point at.

/// Who sees the accesses to a table: a two bit `Shareability` field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Shareability {
    /// 0b00: Non-shareable.
    NonShareable = 0,
    /// 0b01: Inner Shareable.
    Inner = 1,
    /// 0b10: Outer Shareable.
    Outer = 2,
    /// 0b11: reserved, treated as 0b00.
    Reserved = 3,
}

impl Shareability {
    /// What the two bits mean. Higher bits are ignored.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0b11 {
            0 => Self::NonShareable,
            1 => Self::Inner,
            2 => Self::Outer,
            _ => Self::Reserved,
        }
    }

    /// The two bits.
    #[must_use]
    pub const fn into_bits(self) -> u8 {
        self as u8 & 0b11
    }
}

/// How the accesses to a table are cached: a three bit `InnerCache` or
/// `OuterCache` field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Cacheability {
    /// 0b000. In `InnerCache`: Device-nGnRnE. In `OuterCache`: the same as
    /// `InnerCache`.
    DeviceOrInner = 0,
    /// 0b001: Normal Non-cacheable.
    NonCacheable = 1,
    /// 0b010: Read-allocate, Write-through.
    RaWt = 2,
    /// 0b011: Read-allocate, Write-back.
    RaWb = 3,
    /// 0b100: Write-allocate, Write-through.
    WaWt = 4,
    /// 0b101: Write-allocate, Write-back.
    WaWb = 5,
    /// 0b110: Read-allocate, Write-allocate, Write-through.
    RaWaWt = 6,
    /// 0b111: Read-allocate, Write-allocate, Write-back.
    RaWaWb = 7,
}

impl Cacheability {
    /// What the three bits mean. Higher bits are ignored.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0b111 {
            0 => Self::DeviceOrInner,
            1 => Self::NonCacheable,
            2 => Self::RaWt,
            3 => Self::RaWb,
            4 => Self::WaWt,
            5 => Self::WaWb,
            6 => Self::RaWaWt,
            _ => Self::RaWaWb,
        }
    }

    /// The three bits.
    #[must_use]
    pub const fn into_bits(self) -> u8 {
        self as u8 & 0b111
    }
}
