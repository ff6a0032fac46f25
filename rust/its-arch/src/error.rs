// SPDX-License-Identifier: GPL-2.0-only
//! The architecture's numbers for ITS command errors (IHI 0069, "ITS command
//! error encodings").
//!
//! An ITS reports them to software in an IMPLEMENTATION DEFINED way, if it
//! does. Here they name an error in a log line and in a test.
//!
//! The numbers were checked against what others made of the specification:
//! **L** the KVM part of Linux, **4** the hypervisor uvmm of L4Re, **Q** the
//! startup code of QNX, **T** the reference manual of the GIC-600AE. Each
//! error says where its number was found. All that were found agree, and all
//! but two follow one rule ([`CommandError::number`]), so a number found once
//! is unlikely to be wrong; one found nowhere is only the rule's.

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
    /// 0x010801, found in L, 4.
    MAPD_DEVICE_OOR = Mapd, DeviceOutOfRange;
    /// 0x010802, found in L, 4.
    MAPD_ITTSIZE_OOR = Mapd, IttSizeOutOfRange;
    /// 0x010902, found in L.
    MAPC_PROCNUM_OOR = Mapc, ProcnumOutOfRange;
    /// 0x010903, found in L, 4, T.
    MAPC_COLLECTION_OOR = Mapc, CollectionOutOfRange;
    /// 0x010a01, found in 4.
    MAPTI_DEVICE_OOR = Mapti, DeviceOutOfRange;
    /// 0x010a03, found in 4.
    MAPTI_COLLECTION_OOR = Mapti, CollectionOutOfRange;
    /// 0x010a04, found in L.
    MAPTI_UNMAPPED_DEVICE = Mapti, UnmappedDevice;
    /// 0x010a05, found in L, 4.
    MAPTI_ID_OOR = Mapti, IdOutOfRange;
    /// 0x010a06, found in L, 4, T.
    MAPTI_PHYSICALID_OOR = Mapti, PhysicalIdOutOfRange;
    /// 0x010b01, found in T.
    MAPI_DEVICE_OOR = Mapi, DeviceOutOfRange;
    /// 0x010b03, found in T.
    MAPI_COLLECTION_OOR = Mapi, CollectionOutOfRange;
    /// 0x010b04, found in T.
    MAPI_UNMAPPED_DEVICE = Mapi, UnmappedDevice;
    /// 0x010b05, found in T.
    MAPI_ID_OOR = Mapi, IdOutOfRange;
    /// 0x010b06, **found nowhere**.
    MAPI_PHYSICALID_OOR = Mapi, PhysicalIdOutOfRange;
    /// 0x010101, found in T.
    MOVI_DEVICE_OOR = Movi, DeviceOutOfRange;
    /// 0x010103, found in T.
    MOVI_COLLECTION_OOR = Movi, CollectionOutOfRange;
    /// 0x010104, found in T.
    MOVI_UNMAPPED_DEVICE = Movi, UnmappedDevice;
    /// 0x010105, found in T.
    MOVI_ID_OOR = Movi, IdOutOfRange;
    /// 0x010107, found in L, 4, T.
    MOVI_UNMAPPED_INTERRUPT = Movi, UnmappedInterrupt;
    /// 0x010109, found in L, 4, T.
    MOVI_UNMAPPED_COLLECTION = Movi, UnmappedCollection;
    /// 0x010e01, found in L.
    MOVALL_PROCNUM_OOR = Movall, ProcnumOutOfRange;
    /// 0x010f01, found in 4.
    DISCARD_DEVICE_OOR = Discard, DeviceOutOfRange;
    /// 0x010f04, **found nowhere**.
    DISCARD_UNMAPPED_DEVICE = Discard, UnmappedDevice;
    /// 0x010f05, found in 4.
    DISCARD_ID_OOR = Discard, IdOutOfRange;
    /// 0x010f07, found in L, 4, T.
    DISCARD_UNMAPPED_INTERRUPT = Discard, UnmappedInterrupt;
    /// 0x010f10, found in T.
    DISCARD_ITE_INVALID = Discard, IteInvalid;
    /// 0x010501, found in Q, T.
    CLEAR_DEVICE_OOR = Clear, DeviceOutOfRange;
    /// 0x010504, found in T.
    CLEAR_UNMAPPED_DEVICE = Clear, UnmappedDevice;
    /// 0x010505, found in Q, T.
    CLEAR_ID_OOR = Clear, IdOutOfRange;
    /// 0x010507, found in L, 4, Q, T.
    CLEAR_UNMAPPED_INTERRUPT = Clear, UnmappedInterrupt;
    /// 0x010510, found in Q, T.
    CLEAR_ITE_INVALID = Clear, IteInvalid;
    /// 0x010301, found in T.
    INT_DEVICE_OOR = Int, DeviceOutOfRange;
    /// 0x010304, found in T.
    INT_UNMAPPED_DEVICE = Int, UnmappedDevice;
    /// 0x010305, found in Q, T.
    INT_ID_OOR = Int, IdOutOfRange;
    /// 0x010307, found in L, 4, Q, T.
    INT_UNMAPPED_INTERRUPT = Int, UnmappedInterrupt;
    /// 0x010310, found in Q, T.
    INT_ITE_INVALID = Int, IteInvalid;
    /// 0x010c01, found in Q, T.
    INV_DEVICE_OOR = Inv, DeviceOutOfRange;
    /// 0x010c04, found in Q, T.
    INV_UNMAPPED_DEVICE = Inv, UnmappedDevice;
    /// 0x010c05, found in Q.
    INV_ID_OOR = Inv, IdOutOfRange;
    /// 0x010c07, found in L, 4, Q.
    INV_UNMAPPED_INTERRUPT = Inv, UnmappedInterrupt;
    /// 0x010c10, found in Q.
    INV_ITE_INVALID = Inv, IteInvalid;
    /// 0x010d03, found in Q, T.
    INVALL_COLLECTION_OOR = Invall, CollectionOutOfRange;
    /// 0x010d09, found in L, 4, T.
    INVALL_UNMAPPED_COLLECTION = Invall, UnmappedCollection;
    /// 0x010502, **found nowhere**.
    SYNC_PROCNUM_OOR = Sync, ProcnumOutOfRange;
}
