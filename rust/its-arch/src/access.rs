// SPDX-License-Identifier: GPL-2.0-only
//! An MMIO access to a register that is as wide as the access, or wider.
//!
//! A 64-bit GIC register is reached with one 64-bit access, or as two 32-bit
//! halves at offsets 0 and 4. Byte and halfword parts work the same way; which
//! widths a register takes is for its owner to say.

/// The width of an MMIO access.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
    /// 64 bits.
    Double,
}

impl Width {
    /// The width from the log2 of its bytes, as a data abort syndrome
    /// (`ESR_EL2.ISS.SAS`) has it; `None` above 3.
    #[must_use]
    pub const fn from_log2(log2: u8) -> Option<Self> {
        match log2 {
            0 => Some(Self::Byte),
            1 => Some(Self::Half),
            2 => Some(Self::Word),
            3 => Some(Self::Double),
            _ => None,
        }
    }

    /// The width in bytes: 1, 2, 4 or 8.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }

    /// The bits that the access carries, from bit 0.
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
            Self::Byte => 0xff,
            Self::Half => 0xffff,
            Self::Word => 0xffff_ffff,
            Self::Double => u64::MAX,
        }
    }

    /// Whether an access of this width at `offset` is naturally aligned.
    #[must_use]
    pub const fn is_aligned(self, offset: u64) -> bool {
        offset & self.bytes().wrapping_sub(1) == 0
    }
}

/// The bits of `value` that a read of `width` at byte `offset_in_reg` gives,
/// from bit 0.
///
/// The part beyond the register's end reads as zero, so an offset of 8 or more
/// gives 0.
#[must_use]
pub const fn read_part(value: u64, offset_in_reg: u64, width: Width) -> u64 {
    if offset_in_reg >= 8 {
        return 0;
    }
    (value >> bit_shift(offset_in_reg)) & width.mask()
}

/// `old` with the bits replaced that a write of `width` at byte
/// `offset_in_reg` reaches.
///
/// `new` holds the written value from bit 0; its bits above the width are
/// ignored. The part beyond the register's end is dropped, so an offset of 8
/// or more changes nothing.
#[must_use]
pub const fn write_part(old: u64, offset_in_reg: u64, width: Width, new: u64) -> u64 {
    if offset_in_reg >= 8 {
        return old;
    }
    let shift = bit_shift(offset_in_reg);
    let mask = width.mask() << shift;
    (old & !mask) | ((new << shift) & mask)
}

/// The bit at which a byte of a register begins, for a byte below 8.
const fn bit_shift(byte: u64) -> u64 {
    (byte & 7) << 3
}
