// SPDX-License-Identifier: GPL-2.0-only
//! The numbers that name devices, events, interrupts, collections and
//! addresses.
//!
//! Each is its own type, so that an EventID cannot be passed for a DeviceID.
//! A type without a checked constructor takes every value that its field in a
//! command can hold: whether the number is in range for one ITS is behaviour,
//! and is checked by whoever owns that ITS.

use core::fmt;

/// Defines a newtype for which every value of the inner integer is valid.
macro_rules! plain_id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the number. Every value is valid.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

plain_id! {
    /// A DeviceID: which device sent a message (IHI 0069, "The ITS").
    ///
    /// Up to 32 bits, of which an ITS implements `GITS_TYPER.Devbits + 1`.
    DeviceId(u32), "{:#x}"
}

plain_id! {
    /// An EventID: which of a device's interrupts a message means.
    ///
    /// Up to 32 bits, of which an ITS implements `GITS_TYPER.ID_bits + 1` and a
    /// device has the number its MAPD command gave it ([`EventBits`]).
    EventId(u32), "{}"
}

plain_id! {
    /// A collection identifier (ICID): a group of LPIs with one target.
    CollectionId(u16), "{}"
}

plain_id! {
    /// An interrupt identifier of any kind. See [`Lpi`] for the range from 8192.
    Intid(u32), "{}"
}

plain_id! {
    /// The number of a virtual CPU in its domain, from 0.
    ///
    /// With `GITS_TYPER.PTA` = 0 it is also what `RDbase` holds in a guest's
    /// command, and `GICR_TYPER.Processor_Number`.
    VcpuId(u16), "v{}"
}

plain_id! {
    /// A physical address as the owner of the ITS sees it, in bytes.
    ///
    /// What a guest writes is an address in the guest's memory. In a command
    /// for the host ITS the same field holds a machine address.
    GuestPa(u64), "{:#x}"
}

impl Intid {
    /// This interrupt as an LPI, or `None` if it is below 8192 (an SGI, PPI,
    /// SPI, special or reserved number).
    #[must_use]
    pub const fn lpi(self) -> Option<Lpi> {
        Lpi::new(self.0)
    }
}

impl From<Lpi> for Intid {
    fn from(lpi: Lpi) -> Self {
        lpi.intid()
    }
}

impl GuestPa {
    /// The address `bytes` further on, or `None` where that leaves 64 bits.
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(address) => Some(Self(address)),
            None => None,
        }
    }

    /// Whether the address is a multiple of `align`, a power of two in bytes.
    ///
    /// Any other `align` gives false.
    #[must_use]
    pub const fn is_aligned_to(self, align: u64) -> bool {
        align.is_power_of_two() && self.0 & align.wrapping_sub(1) == 0
    }
}

/// A locality-specific peripheral interrupt: an INTID of 8192 or more.
///
/// # Invariants
///
/// The number is never below [`Lpi::FIRST`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Lpi(u32);

impl Lpi {
    /// The lowest INTID that is an LPI (IHI 0069, "INTIDs").
    pub const FIRST: u32 = 8192;
    /// The LPI with that number.
    pub const MIN: Self = Self(Self::FIRST);

    /// The LPI with this INTID, or `None` below [`Lpi::FIRST`].
    #[must_use]
    pub const fn new(intid: u32) -> Option<Self> {
        if intid >= Self::FIRST { Some(Self(intid)) } else { None }
    }

    /// The LPI at this place counted from the first, or `None` if its INTID
    /// would need more than 32 bits.
    ///
    /// The LPI configuration table is indexed like this; the pending table is
    /// not, it is indexed by INTID.
    #[must_use]
    pub const fn from_index(index: u32) -> Option<Self> {
        match index.checked_add(Self::FIRST) {
            Some(intid) => Some(Self(intid)),
            None => None,
        }
    }

    /// The place of this LPI counted from the first: INTID - 8192.
    #[must_use]
    pub const fn index(self) -> u32 {
        // The invariant makes this exact; saturating keeps it free of a panic.
        self.0.saturating_sub(Self::FIRST)
    }

    /// The INTID as a number, 8192 or more.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The INTID.
    #[must_use]
    pub const fn intid(self) -> Intid {
        Intid(self.0)
    }
}

impl TryFrom<Intid> for Lpi {
    type Error = NotAnLpi;

    fn try_from(intid: Intid) -> Result<Self, NotAnLpi> {
        intid.lpi().ok_or(NotAnLpi(intid))
    }
}

impl fmt::Display for Lpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LPI {}", self.0)
    }
}

/// The INTID that was given is below 8192, so it is no LPI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAnLpi(pub Intid);

impl fmt::Display for NotAnLpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "INTID {} is not an LPI", self.0)
    }
}

impl core::error::Error for NotAnLpi {}

/// A number of INTID bits that includes LPIs: 14 to 32.
///
/// `GICD_TYPER.IDbits` and `GICR_PROPBASER.IDbits` hold this number minus one.
/// Below 14 bits there is no LPI, so such a number is not one of these.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct IdBits(u8);

impl IdBits {
    /// The fewest bits with which there are LPIs.
    pub const MIN: Self = Self(14);
    /// The most bits that an INTID has.
    pub const MAX: Self = Self(32);

    /// `bits` INTID bits, or `None` outside 14 to 32.
    #[must_use]
    pub const fn new(bits: u8) -> Option<Self> {
        if bits >= Self::MIN.0 && bits <= Self::MAX.0 { Some(Self(bits)) } else { None }
    }

    /// The number of bits, 14 to 32.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// How many INTIDs there are, SGIs and all: 2^bits.
    #[must_use]
    pub const fn count(self) -> u64 {
        1u64.wrapping_shl(self.0 as u32)
    }

    /// How many LPIs there are: 2^bits - 8192. At least 8192.
    ///
    /// It is also the size of the LPI configuration table in bytes.
    #[must_use]
    pub const fn lpis(self) -> u64 {
        self.count().saturating_sub(Lpi::FIRST as u64)
    }

    /// Whether the INTID is below 2^bits.
    #[must_use]
    pub const fn contains(self, intid: Intid) -> bool {
        (intid.0 as u64) < self.count()
    }
}

impl fmt::Display for IdBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bits", self.0)
    }
}

/// A number of EventID bits: 1 to 32.
///
/// MAPD's `Size` and `GITS_TYPER.ID_bits` hold this number minus one, in five
/// bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct EventBits(u8);

impl EventBits {
    /// The fewest bits that the field can hold: two events.
    pub const MIN: Self = Self(1);
    /// The most bits that an EventID has.
    pub const MAX: Self = Self(32);

    /// `bits` EventID bits, or `None` outside 1 to 32.
    #[must_use]
    pub const fn new(bits: u8) -> Option<Self> {
        if bits >= Self::MIN.0 && bits <= Self::MAX.0 { Some(Self(bits)) } else { None }
    }

    /// What a five bit minus-one field means. Higher bits are ignored.
    #[must_use]
    pub const fn from_field(field: u8) -> Self {
        Self((field & 0x1f).saturating_add(1))
    }

    /// The five bit minus-one field.
    #[must_use]
    pub const fn field(self) -> u8 {
        self.0.saturating_sub(1) & 0x1f
    }

    /// The fewest bits that give `events` events, or `None` above 2^32.
    #[must_use]
    pub const fn for_events(events: u64) -> Option<Self> {
        if events > Self::MAX.count() {
            return None;
        }
        let mut bits = Self::MIN;
        while bits.count() < events {
            bits = Self(bits.0.saturating_add(1));
        }
        Some(bits)
    }

    /// The number of bits, 1 to 32.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// How many events there are: 2^bits.
    #[must_use]
    pub const fn count(self) -> u64 {
        1u64.wrapping_shl(self.0 as u32)
    }

    /// Whether the EventID is below 2^bits.
    #[must_use]
    pub const fn contains(self, event: EventId) -> bool {
        (event.0 as u64) < self.count()
    }
}

impl fmt::Display for EventBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bits", self.0)
    }
}
