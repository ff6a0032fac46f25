// SPDX-License-Identifier: GPL-2.0-only
//! The command error numbers, as the module's sources list them.

use its_arch::command::Opcode;
use its_arch::error::{CommandError, Reason};

const NUMBERS: [(&str, u32); 44] = [
    ("MOVI_DEVICE_OOR", 0x01_0101),
    ("MOVI_COLLECTION_OOR", 0x01_0103),
    ("MOVI_UNMAPPED_DEVICE", 0x01_0104),
    ("MOVI_ID_OOR", 0x01_0105),
    ("MOVI_UNMAPPED_INTERRUPT", 0x01_0107),
    ("MOVI_UNMAPPED_COLLECTION", 0x01_0109),
    ("INT_DEVICE_OOR", 0x01_0301),
    ("INT_UNMAPPED_DEVICE", 0x01_0304),
    ("INT_ID_OOR", 0x01_0305),
    ("INT_UNMAPPED_INTERRUPT", 0x01_0307),
    ("INT_ITE_INVALID", 0x01_0310),
    ("CLEAR_DEVICE_OOR", 0x01_0501),
    ("SYNC_PROCNUM_OOR", 0x01_0502),
    ("CLEAR_UNMAPPED_DEVICE", 0x01_0504),
    ("CLEAR_ID_OOR", 0x01_0505),
    ("CLEAR_UNMAPPED_INTERRUPT", 0x01_0507),
    ("CLEAR_ITE_INVALID", 0x01_0510),
    ("MAPD_DEVICE_OOR", 0x01_0801),
    ("MAPD_ITTSIZE_OOR", 0x01_0802),
    ("MAPC_PROCNUM_OOR", 0x01_0902),
    ("MAPC_COLLECTION_OOR", 0x01_0903),
    ("MAPTI_DEVICE_OOR", 0x01_0a01),
    ("MAPTI_COLLECTION_OOR", 0x01_0a03),
    ("MAPTI_UNMAPPED_DEVICE", 0x01_0a04),
    ("MAPTI_ID_OOR", 0x01_0a05),
    ("MAPTI_PHYSICALID_OOR", 0x01_0a06),
    ("MAPI_DEVICE_OOR", 0x01_0b01),
    ("MAPI_COLLECTION_OOR", 0x01_0b03),
    ("MAPI_UNMAPPED_DEVICE", 0x01_0b04),
    ("MAPI_ID_OOR", 0x01_0b05),
    ("MAPI_PHYSICALID_OOR", 0x01_0b06),
    ("INV_DEVICE_OOR", 0x01_0c01),
    ("INV_UNMAPPED_DEVICE", 0x01_0c04),
    ("INV_ID_OOR", 0x01_0c05),
    ("INV_UNMAPPED_INTERRUPT", 0x01_0c07),
    ("INV_ITE_INVALID", 0x01_0c10),
    ("INVALL_COLLECTION_OOR", 0x01_0d03),
    ("INVALL_UNMAPPED_COLLECTION", 0x01_0d09),
    ("MOVALL_PROCNUM_OOR", 0x01_0e01),
    ("DISCARD_DEVICE_OOR", 0x01_0f01),
    ("DISCARD_UNMAPPED_DEVICE", 0x01_0f04),
    ("DISCARD_ID_OOR", 0x01_0f05),
    ("DISCARD_UNMAPPED_INTERRUPT", 0x01_0f07),
    ("DISCARD_ITE_INVALID", 0x01_0f10),
];

#[test]
fn numbers_and_names_are_the_architectures() {
    let mut found: Vec<_> =
        CommandError::ALL.iter().map(|error| (error.name(), error.number())).collect();
    found.sort_by_key(|(_, number)| *number);
    assert_eq!(found, NUMBERS);
}

#[test]
fn a_name_is_displayed_as_it_is() {
    for error in CommandError::ALL {
        assert_eq!(error.to_string(), error.name());
        assert_eq!(CommandError::new(error.opcode(), error.reason()), *error);
    }
}

#[test]
fn a_pair_without_a_number_still_has_a_name() {
    let error = CommandError::new(Opcode::Invall, Reason::DeviceOutOfRange);
    assert_eq!(error.name(), "DEVICE_OOR");
    assert_eq!(error.to_string(), "INVALL_DEVICE_OOR");
}
