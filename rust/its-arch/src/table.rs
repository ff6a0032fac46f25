// SPDX-License-Identifier: GPL-2.0-only
//! The LPI configuration table: one byte an LPI, in memory (IHI 0069, "LPI
//! Configuration tables").
//!
//! The byte of LPI n is at `GICR_PROPBASER.Physical_Address + n - 8192`.

/// One entry of the LPI configuration table.
///
/// | bits | field                                         |
/// |------|-----------------------------------------------|
/// | 7:2  | Priority, its low two bits are zero           |
/// | 1    | RES1 (without the NMI extension of GICv3.3)   |
/// | 0    | Enable                                        |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct LpiProperty(u8);

impl LpiProperty {
    const PRIORITY: u8 = 0xfc;
    const RES1: u8 = 1 << 1;
    const ENABLE: u8 = 1 << 0;

    /// The byte as it is in the table. Every value is valid.
    #[must_use]
    pub const fn new(byte: u8) -> Self {
        Self(byte)
    }

    /// The entry with this priority, of which the low two bits are dropped,
    /// and with the reserved bit as it should be written.
    #[must_use]
    pub const fn with(priority: u8, enabled: bool) -> Self {
        let enable = if enabled { Self::ENABLE } else { 0 };
        Self((priority & Self::PRIORITY) | Self::RES1 | enable)
    }

    /// The byte.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The priority, 0 (highest) to 252, a multiple of four.
    #[must_use]
    pub const fn priority(self) -> u8 {
        self.0 & Self::PRIORITY
    }

    /// Whether the LPI is enabled.
    #[must_use]
    pub const fn enabled(self) -> bool {
        self.0 & Self::ENABLE != 0
    }
}
