// SPDX-License-Identifier: GPL-2.0-only
//! The ITS commands (IHI 0069, "ITS commands").
//!
//! A command is four 64-bit little-endian words, DW0 to DW3. Fields that a
//! command does not use are RES0: [`Command::decode`] ignores them and
//! [`Command::encode`] writes zero.

use crate::field::{low5, low36, low44};
use crate::ids::{CollectionId, DeviceId, EventBits, EventId, GuestPa, Intid};
use bitfield_struct::bitfield;
use core::fmt;

/// The size of a command in bytes, and of a slot in the command queue.
pub const COMMAND_SIZE: u64 = 32;

/// The command number, DW0 bits 7:0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Opcode {
    /// Move an event to another collection.
    Movi = 0x01,
    /// Make an event pending.
    Int = 0x03,
    /// Clear the pending state of an event.
    Clear = 0x04,
    /// Wait until earlier commands have taken effect on a Redistributor.
    Sync = 0x05,
    /// Map a device to its interrupt translation table.
    Mapd = 0x08,
    /// Map a collection to a Redistributor.
    Mapc = 0x09,
    /// Map an event to an INTID and a collection (MAPVI in early issues).
    Mapti = 0x0a,
    /// Map an event to the INTID of the same number and a collection.
    Mapi = 0x0b,
    /// Reload the configuration of one event's LPI.
    Inv = 0x0c,
    /// Reload the configuration of all LPIs of a collection.
    Invall = 0x0d,
    /// Move all pending LPIs of one Redistributor to another.
    Movall = 0x0e,
    /// Unmap an event.
    Discard = 0x0f,
    /// GICv4: move a virtual interrupt to another vPE.
    Vmovi = 0x21,
    /// GICv4: move a vPE to another Redistributor.
    Vmovp = 0x22,
    /// GICv4.1: configure a virtual SGI.
    Vsgi = 0x23,
    /// GICv4: wait until earlier commands have taken effect on a vPE.
    Vsync = 0x25,
    /// GICv4: map a vPE to a Redistributor.
    Vmapp = 0x29,
    /// GICv4: map an event to a virtual INTID and a vPE.
    Vmapti = 0x2a,
    /// GICv4: map an event to the virtual INTID of the same number and a vPE.
    Vmapi = 0x2b,
    /// GICv4: reload the configuration of all interrupts of a vPE.
    Vinvall = 0x2d,
    /// GICv4.1: reload the configuration of a vPE's default doorbell.
    Invdb = 0x2e,
}

impl Opcode {
    /// The command with this number, or `None` where the architecture has none.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0x01 => Self::Movi,
            0x03 => Self::Int,
            0x04 => Self::Clear,
            0x05 => Self::Sync,
            0x08 => Self::Mapd,
            0x09 => Self::Mapc,
            0x0a => Self::Mapti,
            0x0b => Self::Mapi,
            0x0c => Self::Inv,
            0x0d => Self::Invall,
            0x0e => Self::Movall,
            0x0f => Self::Discard,
            0x21 => Self::Vmovi,
            0x22 => Self::Vmovp,
            0x23 => Self::Vsgi,
            0x25 => Self::Vsync,
            0x29 => Self::Vmapp,
            0x2a => Self::Vmapti,
            0x2b => Self::Vmapi,
            0x2d => Self::Vinvall,
            0x2e => Self::Invdb,
            _ => return None,
        })
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self as u8
    }

    /// The architecture's name, in capitals.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Movi => "MOVI",
            Self::Int => "INT",
            Self::Clear => "CLEAR",
            Self::Sync => "SYNC",
            Self::Mapd => "MAPD",
            Self::Mapc => "MAPC",
            Self::Mapti => "MAPTI",
            Self::Mapi => "MAPI",
            Self::Inv => "INV",
            Self::Invall => "INVALL",
            Self::Movall => "MOVALL",
            Self::Discard => "DISCARD",
            Self::Vmovi => "VMOVI",
            Self::Vmovp => "VMOVP",
            Self::Vsgi => "VSGI",
            Self::Vsync => "VSYNC",
            Self::Vmapp => "VMAPP",
            Self::Vmapti => "VMAPTI",
            Self::Vmapi => "VMAPI",
            Self::Vinvall => "VINVALL",
            Self::Invdb => "INVDB",
        }
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of a command number for a log line: the architecture's, GICv4
/// included, or `"unknown"`.
#[must_use]
pub const fn opcode_name(number: u8) -> &'static str {
    match Opcode::from_u8(number) {
        Some(opcode) => opcode.name(),
        None => "unknown",
    }
}

/// DW0 of every command.
#[bitfield(u64)]
struct Dw0 {
    opcode: u8,
    #[bits(24)]
    __: u32,
    device: u32,
}

/// DW1 of the commands that name an event.
#[bitfield(u64)]
struct Dw1Event {
    event: u32,
    /// pINTID, MAPTI only.
    intid: u32,
}

/// DW1 of MAPD.
#[bitfield(u64)]
struct Dw1Mapd {
    #[bits(5, into = low5)]
    size: u8,
    #[bits(59)]
    __: u64,
}

/// DW2 of MAPD.
#[bitfield(u64)]
struct Dw2Mapd {
    __: u8,
    /// Bits 51:8 of the ITT's address.
    #[bits(44, into = low44)]
    itt: u64,
    #[bits(11)]
    __: u64,
    valid: bool,
}

/// DW2 of the commands that name a collection, a Redistributor or both, and
/// DW3 of MOVALL, with the fields that they use.
#[bitfield(u64)]
struct DwTarget {
    icid: u16,
    #[bits(36, into = low36)]
    rdbase: u64,
    #[bits(11)]
    __: u64,
    valid: bool,
}

/// `RDbase`, which names a Redistributor: bits 51:16 of DW2 (for the second
/// one of MOVALL, of DW3).
///
/// What the field holds depends on `GITS_TYPER.PTA`, so the two views are two
/// methods, and the caller knows its ITS.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Rdbase(u64);

impl Rdbase {
    /// The width of the field.
    const BITS: u32 = 36;

    /// The field's value. Bits above the 36 of the field are dropped.
    #[must_use]
    pub const fn from_field(field: u64) -> Self {
        Self(field & ((1 << Self::BITS) - 1))
    }

    /// For an ITS with `PTA` = 0: the Redistributor with this
    /// `GICR_TYPER.Processor_Number`.
    #[must_use]
    pub const fn from_processor_number(number: u16) -> Self {
        Self(number as u64)
    }

    /// For an ITS with `PTA` = 1: the Redistributor whose RD_base frame is at
    /// this address. `None` unless it is a multiple of 64 KB below 2^52.
    #[must_use]
    pub const fn from_address(address: u64) -> Option<Self> {
        let rdbase = Self::from_field(address >> 16);
        if rdbase.address() == address { Some(rdbase) } else { None }
    }

    /// The field's value, 36 bits.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// With `PTA` = 0: the processor number.
    ///
    /// It is wider than the 16 bits of a real processor number on purpose: a
    /// value that no processor has must be found out of range, not cut short.
    #[must_use]
    pub const fn processor_number(self) -> u64 {
        self.0
    }

    /// With `PTA` = 1: the address of the Redistributor's RD_base frame.
    #[must_use]
    pub const fn address(self) -> u64 {
        self.0 << 16
    }
}

impl fmt::Display for Rdbase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A command as it is in the command queue: DW0 to DW3.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct RawCommand(pub [u64; 4]);

impl RawCommand {
    /// The command in these bytes of the queue.
    #[must_use]
    pub fn from_le_bytes(bytes: &[u8; 32]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let mut raw = Self::default();
        for (dword, word) in raw.0.iter_mut().zip(words) {
            *dword = u64::from_le_bytes(*word);
        }
        raw
    }

    /// The bytes for the queue.
    #[must_use]
    pub fn to_le_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let (words, _) = bytes.as_chunks_mut::<8>();
        for (word, dword) in words.iter_mut().zip(self.0) {
            *word = dword.to_le_bytes();
        }
        bytes
    }

    /// The command number, known or not.
    #[must_use]
    pub const fn opcode(&self) -> u8 {
        let [dw0, ..] = self.0;
        Dw0::from_bits(dw0).opcode()
    }
}

/// A physical ITS command (IHI 0069, "ITS commands").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Maps a device to an interrupt translation table, or unmaps it.
    Mapd {
        /// The device.
        device: DeviceId,
        /// How many EventID bits the table has. Without meaning when `valid`
        /// is false.
        size: EventBits,
        /// The table's address, a multiple of 256. Without meaning when
        /// `valid` is false.
        itt: GuestPa,
        /// True to map, false to unmap.
        valid: bool,
    },
    /// Maps a collection to a Redistributor, or unmaps it.
    Mapc {
        /// The collection.
        collection: CollectionId,
        /// The Redistributor. Without meaning when `valid` is false.
        rdbase: Rdbase,
        /// True to map, false to unmap.
        valid: bool,
    },
    /// Maps an event to an INTID and a collection.
    Mapti {
        /// The device.
        device: DeviceId,
        /// The event.
        event: EventId,
        /// The INTID it becomes, as written: it need not be an LPI.
        intid: Intid,
        /// The collection.
        collection: CollectionId,
    },
    /// Maps an event to the INTID with the event's own number.
    Mapi {
        /// The device.
        device: DeviceId,
        /// The event, and the INTID.
        event: EventId,
        /// The collection.
        collection: CollectionId,
    },
    /// Moves an event, with its pending state, to another collection.
    Movi {
        /// The device.
        device: DeviceId,
        /// The event.
        event: EventId,
        /// The collection it moves to.
        collection: CollectionId,
    },
    /// Moves the pending state of all LPIs of a Redistributor to another.
    Movall {
        /// RDbase1, DW2: where they are.
        from: Rdbase,
        /// RDbase2, DW3: where they go.
        to: Rdbase,
    },
    /// Unmaps an event and drops its pending state.
    Discard {
        /// The device.
        device: DeviceId,
        /// The event.
        event: EventId,
    },
    /// Drops the pending state of an event.
    Clear {
        /// The device.
        device: DeviceId,
        /// The event.
        event: EventId,
    },
    /// Makes an event pending, as a write to `GITS_TRANSLATER` would.
    Int {
        /// The device.
        device: DeviceId,
        /// The event.
        event: EventId,
    },
    /// Makes the Redistributor reload the configuration of an event's LPI.
    Inv {
        /// The device.
        device: DeviceId,
        /// The event.
        event: EventId,
    },
    /// Makes the Redistributor reload the configuration of the LPIs of a
    /// collection.
    Invall {
        /// The collection.
        collection: CollectionId,
    },
    /// Waits until earlier commands have taken effect on a Redistributor.
    Sync {
        /// The Redistributor.
        rdbase: Rdbase,
    },
}

/// The command number is none that [`Command`] has.
///
/// GICv4 numbers are among these: [`opcode_name`] tells them by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownOpcode(pub u8);

impl fmt::Display for UnknownOpcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown ITS command {:#04x} ({})", self.0, opcode_name(self.0))
    }
}

impl core::error::Error for UnknownOpcode {}

impl Command {
    /// What the command says.
    ///
    /// Reserved bits are ignored, and no number is checked against the limits
    /// of an ITS.
    ///
    /// # Errors
    ///
    /// [`UnknownOpcode`] for a number without a GICv3 command.
    pub const fn decode(raw: &RawCommand) -> Result<Self, UnknownOpcode> {
        let [dw0, dw1, dw2, dw3] = raw.0;
        let dw0 = Dw0::from_bits(dw0);
        let target = DwTarget::from_bits(dw2);

        let device = DeviceId::new(dw0.device());
        let event = EventId::new(Dw1Event::from_bits(dw1).event());
        let collection = CollectionId::new(target.icid());
        let rdbase = Rdbase::from_field(target.rdbase());

        Ok(match Opcode::from_u8(dw0.opcode()) {
            Some(Opcode::Mapd) => {
                let map = Dw2Mapd::from_bits(dw2);
                Self::Mapd {
                    device,
                    size: EventBits::from_field(Dw1Mapd::from_bits(dw1).size()),
                    itt: GuestPa::new(map.itt() << 8),
                    valid: map.valid(),
                }
            }
            Some(Opcode::Mapc) => Self::Mapc { collection, rdbase, valid: target.valid() },
            Some(Opcode::Mapti) => {
                let intid = Intid::new(Dw1Event::from_bits(dw1).intid());
                Self::Mapti { device, event, intid, collection }
            }
            Some(Opcode::Mapi) => Self::Mapi { device, event, collection },
            Some(Opcode::Movi) => Self::Movi { device, event, collection },
            Some(Opcode::Movall) => {
                let to = Rdbase::from_field(DwTarget::from_bits(dw3).rdbase());
                Self::Movall { from: rdbase, to }
            }
            Some(Opcode::Discard) => Self::Discard { device, event },
            Some(Opcode::Clear) => Self::Clear { device, event },
            Some(Opcode::Int) => Self::Int { device, event },
            Some(Opcode::Inv) => Self::Inv { device, event },
            Some(Opcode::Invall) => Self::Invall { collection },
            Some(Opcode::Sync) => Self::Sync { rdbase },
            Some(
                Opcode::Vmovi
                | Opcode::Vmovp
                | Opcode::Vsgi
                | Opcode::Vsync
                | Opcode::Vmapp
                | Opcode::Vmapti
                | Opcode::Vmapi
                | Opcode::Vinvall
                | Opcode::Invdb,
            )
            | None => return Err(UnknownOpcode(dw0.opcode())),
        })
    }

    /// The command as the ITS reads it, with zero in all reserved bits.
    ///
    /// The low eight bits of an ITT address have no place in the command and
    /// are dropped, as are its bits from 52.
    #[must_use]
    // The variant is known wherever it is called.
    #[inline(always)]
    pub const fn encode(&self) -> RawCommand {
        let dw0 = Dw0::new().with_opcode(self.opcode().get());
        let target = DwTarget::new();
        let (dw0, dw1, dw2, dw3) = match *self {
            Self::Mapd { device, size, itt, valid } => {
                // An address field of 44 bits, so that no out of range value
                // reaches the setter.
                let itt = Dw2Mapd::from_bits(itt.get()).itt();
                (
                    dw0.with_device(device.get()),
                    Dw1Mapd::new().with_size(size.field()).into_bits(),
                    Dw2Mapd::new().with_itt(itt).with_valid(valid).into_bits(),
                    0,
                )
            }
            Self::Mapc { collection, rdbase, valid } => {
                let target = target.with_icid(collection.get()).with_rdbase(rdbase.get());
                (dw0, 0, target.with_valid(valid).into_bits(), 0)
            }
            Self::Mapti { device, event, intid, collection } => (
                dw0.with_device(device.get()),
                Dw1Event::new().with_event(event.get()).with_intid(intid.get()).into_bits(),
                target.with_icid(collection.get()).into_bits(),
                0,
            ),
            Self::Mapi { device, event, collection } | Self::Movi { device, event, collection } => {
                (
                    dw0.with_device(device.get()),
                    Dw1Event::new().with_event(event.get()).into_bits(),
                    target.with_icid(collection.get()).into_bits(),
                    0,
                )
            }
            Self::Movall { from, to } => (
                dw0,
                0,
                target.with_rdbase(from.get()).into_bits(),
                target.with_rdbase(to.get()).into_bits(),
            ),
            Self::Discard { device, event }
            | Self::Clear { device, event }
            | Self::Int { device, event }
            | Self::Inv { device, event } => (
                dw0.with_device(device.get()),
                Dw1Event::new().with_event(event.get()).into_bits(),
                0,
                0,
            ),
            Self::Invall { collection } => {
                (dw0, 0, target.with_icid(collection.get()).into_bits(), 0)
            }
            Self::Sync { rdbase } => (dw0, 0, target.with_rdbase(rdbase.get()).into_bits(), 0),
        };
        RawCommand([dw0.into_bits(), dw1, dw2, dw3])
    }

    /// The command number.
    #[must_use]
    pub const fn opcode(&self) -> Opcode {
        match self {
            Self::Mapd { .. } => Opcode::Mapd,
            Self::Mapc { .. } => Opcode::Mapc,
            Self::Mapti { .. } => Opcode::Mapti,
            Self::Mapi { .. } => Opcode::Mapi,
            Self::Movi { .. } => Opcode::Movi,
            Self::Movall { .. } => Opcode::Movall,
            Self::Discard { .. } => Opcode::Discard,
            Self::Clear { .. } => Opcode::Clear,
            Self::Int { .. } => Opcode::Int,
            Self::Inv { .. } => Opcode::Inv,
            Self::Invall { .. } => Opcode::Invall,
            Self::Sync { .. } => Opcode::Sync,
        }
    }

    /// The architecture's name, in capitals.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.opcode().name()
    }
}
