// SPDX-License-Identifier: GPL-2.0-only
//! The architecture's numbers for ITS command errors (IHI 0069, "ITS command
//! error encodings").
//!
//! An ITS reports them to software in an IMPLEMENTATION DEFINED way, if it
//! does. Here they name an error in a log line and in a test.

use crate::command::Opcode;
use core::fmt;

/// What is wrong with a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The DeviceID is beyond what the ITS or its Device table supports.
    DeviceOutOfRange,
    /// MAPD's Size is more than the ITS supports.
    IttSizeOutOfRange,
    /// RDbase names no Redistributor.
    ProcnumOutOfRange,
    /// The collection is beyond what the ITS or its Collection table supports.
    CollectionOutOfRange,
    /// The device is not mapped.
    UnmappedDevice,
    /// The EventID is beyond the size that MAPD gave the device.
    IdOutOfRange,
    /// The INTID is no LPI, or beyond what is supported.
    PhysicalIdOutOfRange,
    /// The event is not mapped.
    UnmappedInterrupt,
    /// The collection is not mapped.
    UnmappedCollection,
    /// The event's translation cannot be used.
    IteInvalid,
}

impl Reason {
    /// The last part of an error's name, in capitals.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeviceOutOfRange => "DEVICE_OOR",
            Self::IttSizeOutOfRange => "ITTSIZE_OOR",
            Self::ProcnumOutOfRange => "PROCNUM_OOR",
            Self::CollectionOutOfRange => "COLLECTION_OOR",
            Self::UnmappedDevice => "UNMAPPED_DEVICE",
            Self::IdOutOfRange => "ID_OOR",
            Self::PhysicalIdOutOfRange => "PHYSICALID_OOR",
            Self::UnmappedInterrupt => "UNMAPPED_INTERRUPT",
            Self::UnmappedCollection => "UNMAPPED_COLLECTION",
            Self::IteInvalid => "ITE_INVALID",
        }
    }
}

/// An ITS command error: which command, and what is wrong with it.
///
/// The architecture gives a number to some pairs only; those are the constants
/// of this type, and [`CommandError::ALL`]. Every pair can be formed, displayed
/// and compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommandError {
    opcode: Opcode,
    reason: Reason,
}

impl CommandError {
    /// The error of this command for this reason.
    #[must_use]
    pub const fn new(opcode: Opcode, reason: Reason) -> Self {
        Self { opcode, reason }
    }

    /// The command.
    #[must_use]
    pub const fn opcode(self) -> Opcode {
        self.opcode
    }

    /// What is wrong with it.
    #[must_use]
    pub const fn reason(self) -> Reason {
        self.reason
    }

    /// The architecture's 24 bit error number.
    ///
    /// 0x01 in bits 23:16, the command in bits 15:8 and the reason in bits 7:0,
    /// with two irregular entries: errors of CLEAR carry 0x05 and not the
    /// command's number 0x04, and MOVALL_PROCNUM_OOR ends in 0x01 and not 0x02.
    #[must_use]
    pub const fn number(self) -> u32 {
        let command = match self.opcode {
            Opcode::Clear => 0x05,
            opcode => opcode.get(),
        };
        let reason: u8 = match self.reason {
            Reason::ProcnumOutOfRange => match self.opcode {
                Opcode::Movall => 0x01,
                _ => 0x02,
            },
            Reason::DeviceOutOfRange => 0x01,
            Reason::IttSizeOutOfRange => 0x02,
            Reason::CollectionOutOfRange => 0x03,
            Reason::UnmappedDevice => 0x04,
            Reason::IdOutOfRange => 0x05,
            Reason::PhysicalIdOutOfRange => 0x06,
            Reason::UnmappedInterrupt => 0x07,
            Reason::UnmappedCollection => 0x09,
            Reason::IteInvalid => 0x10,
        };
        0x01_0000 | (command as u32) << 8 | reason as u32
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.opcode.name(), self.reason.name())
    }
}

impl core::error::Error for CommandError {}

/// Defines the errors by their names in the architecture.
macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $opcode:ident, $reason:ident;)*) => {
        impl CommandError {
            $(
                $(#[$doc])*
                pub const $name: Self = Self::new(Opcode::$opcode, Reason::$reason);
            )*

            /// All errors that have a constant.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The error's name in the architecture, in capitals, as it is
            /// displayed.
            ///
            /// For a pair without a constant it is the reason's name alone.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match (self.opcode, self.reason) {
                    $((Opcode::$opcode, Reason::$reason) => stringify!($name),)*
                    (_, reason) => reason.name(),
                }
            }
        }
    };
}

errors! {
    /// 0x010801
    MAPD_DEVICE_OOR = Mapd, DeviceOutOfRange;
    /// 0x010802
    MAPD_ITTSIZE_OOR = Mapd, IttSizeOutOfRange;
    /// 0x010902
    MAPC_PROCNUM_OOR = Mapc, ProcnumOutOfRange;
    /// 0x010903
    MAPC_COLLECTION_OOR = Mapc, CollectionOutOfRange;
    /// 0x010a01
    MAPTI_DEVICE_OOR = Mapti, DeviceOutOfRange;
    /// 0x010a03
    MAPTI_COLLECTION_OOR = Mapti, CollectionOutOfRange;
    /// 0x010a04
    MAPTI_UNMAPPED_DEVICE = Mapti, UnmappedDevice;
    /// 0x010a05
    MAPTI_ID_OOR = Mapti, IdOutOfRange;
    /// 0x010a06
    MAPTI_PHYSICALID_OOR = Mapti, PhysicalIdOutOfRange;
    /// 0x010b01
    MAPI_DEVICE_OOR = Mapi, DeviceOutOfRange;
    /// 0x010b03
    MAPI_COLLECTION_OOR = Mapi, CollectionOutOfRange;
    /// 0x010b04
    MAPI_UNMAPPED_DEVICE = Mapi, UnmappedDevice;
    /// 0x010b05
    MAPI_ID_OOR = Mapi, IdOutOfRange;
    /// 0x010b06
    MAPI_PHYSICALID_OOR = Mapi, PhysicalIdOutOfRange;
    /// 0x010101
    MOVI_DEVICE_OOR = Movi, DeviceOutOfRange;
    /// 0x010103
    MOVI_COLLECTION_OOR = Movi, CollectionOutOfRange;
    /// 0x010104
    MOVI_UNMAPPED_DEVICE = Movi, UnmappedDevice;
    /// 0x010105
    MOVI_ID_OOR = Movi, IdOutOfRange;
    /// 0x010107
    MOVI_UNMAPPED_INTERRUPT = Movi, UnmappedInterrupt;
    /// 0x010109
    MOVI_UNMAPPED_COLLECTION = Movi, UnmappedCollection;
    /// 0x010110
    MOVI_ITE_INVALID = Movi, IteInvalid;
    /// 0x010e01. Confirmed by one source only (Linux).
    MOVALL_PROCNUM_OOR = Movall, ProcnumOutOfRange;
    /// 0x010f01
    DISCARD_DEVICE_OOR = Discard, DeviceOutOfRange;
    /// 0x010f04
    DISCARD_UNMAPPED_DEVICE = Discard, UnmappedDevice;
    /// 0x010f05
    DISCARD_ID_OOR = Discard, IdOutOfRange;
    /// 0x010f07
    DISCARD_UNMAPPED_INTERRUPT = Discard, UnmappedInterrupt;
    /// 0x010f10
    DISCARD_ITE_INVALID = Discard, IteInvalid;
    /// 0x010501
    CLEAR_DEVICE_OOR = Clear, DeviceOutOfRange;
    /// 0x010504
    CLEAR_UNMAPPED_DEVICE = Clear, UnmappedDevice;
    /// 0x010505
    CLEAR_ID_OOR = Clear, IdOutOfRange;
    /// 0x010507
    CLEAR_UNMAPPED_INTERRUPT = Clear, UnmappedInterrupt;
    /// 0x010510
    CLEAR_ITE_INVALID = Clear, IteInvalid;
    /// 0x010301
    INT_DEVICE_OOR = Int, DeviceOutOfRange;
    /// 0x010304
    INT_UNMAPPED_DEVICE = Int, UnmappedDevice;
    /// 0x010305
    INT_ID_OOR = Int, IdOutOfRange;
    /// 0x010307
    INT_UNMAPPED_INTERRUPT = Int, UnmappedInterrupt;
    /// 0x010310
    INT_ITE_INVALID = Int, IteInvalid;
    /// 0x010c01
    INV_DEVICE_OOR = Inv, DeviceOutOfRange;
    /// 0x010c04
    INV_UNMAPPED_DEVICE = Inv, UnmappedDevice;
    /// 0x010c05
    INV_ID_OOR = Inv, IdOutOfRange;
    /// 0x010c07
    INV_UNMAPPED_INTERRUPT = Inv, UnmappedInterrupt;
    /// 0x010c10
    INV_ITE_INVALID = Inv, IteInvalid;
    /// 0x010d03
    INVALL_COLLECTION_OOR = Invall, CollectionOutOfRange;
    /// 0x010d09
    INVALL_UNMAPPED_COLLECTION = Invall, UnmappedCollection;
    /// 0x010502. Not confirmed: no source names an error of SYNC. The number
    /// follows the rule of the others.
    SYNC_PROCNUM_OOR = Sync, ProcnumOutOfRange;
}
