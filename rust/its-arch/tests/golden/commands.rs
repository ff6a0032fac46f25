// SPDX-License-Identifier: GPL-2.0-only
//! Each command as its four words.

use crate::bits;
use its_arch::command::{
    COMMAND_SIZE, Command, Opcode, RawCommand, Rdbase, UnknownOpcode, opcode_name,
};
use its_arch::ids::{CollectionId, DeviceId, EventBits, EventId, GuestPa, Intid};

struct Golden {
    name: &'static str,
    command: Command,
    /// DW0 to DW3.
    dwords: [u64; 4],
    /// The bits of each word that the command's table gives to a field.
    fields: [u64; 4],
}

/// DW0 of a command with a DeviceID, and without one.
const DEVICE: u64 = 0xffff_ffff_0000_00ff;
const PLAIN: u64 = 0x0000_0000_0000_00ff;
/// RDbase.
const RDBASE: u64 = 0x000f_ffff_ffff_0000;

fn goldens() -> Vec<Golden> {
    let device = DeviceId::new(0x89ab_cdef);
    let event = EventId::new(0x0123_4567);
    let collection = CollectionId::new(0xfedc);
    let event_fields = [DEVICE, 0xffff_ffff, 0, 0];
    let mapi_fields = [DEVICE, 0xffff_ffff, 0xffff, 0];
    vec![
        Golden {
            name: "MAPD",
            command: Command::Mapd {
                device,
                size: EventBits::from_field(0x0f),
                itt: GuestPa::new(0x000f_edcb_a987_6500),
                valid: true,
            },
            dwords: [0x89ab_cdef_0000_0008, 0x0f, 0x800f_edcb_a987_6500, 0],
            fields: [DEVICE, 0x1f, 0x800f_ffff_ffff_ff00, 0],
        },
        Golden {
            name: "MAPD",
            command: Command::Mapd {
                device: DeviceId::new(u32::MAX),
                size: EventBits::MAX,
                itt: GuestPa::new(0),
                valid: false,
            },
            dwords: [0xffff_ffff_0000_0008, 0x1f, 0, 0],
            fields: [DEVICE, 0x1f, 0x800f_ffff_ffff_ff00, 0],
        },
        Golden {
            name: "MAPC",
            command: Command::Mapc { collection, rdbase: Rdbase::from_field(0x321), valid: true },
            dwords: [0x09, 0, 0x8000_0000_0321_fedc, 0],
            fields: [PLAIN, 0, 0x800f_ffff_ffff_ffff, 0],
        },
        Golden {
            name: "MAPC",
            command: Command::Mapc {
                collection: CollectionId::new(1),
                rdbase: Rdbase::from_field(0xc_5678_9abc),
                valid: false,
            },
            dwords: [0x09, 0, 0x000c_5678_9abc_0001, 0],
            fields: [PLAIN, 0, 0x800f_ffff_ffff_ffff, 0],
        },
        Golden {
            name: "MAPTI",
            command: Command::Mapti { device, event, intid: Intid::new(0x0076_5432), collection },
            dwords: [0x89ab_cdef_0000_000a, 0x0076_5432_0123_4567, 0xfedc, 0],
            fields: [DEVICE, !0, 0xffff, 0],
        },
        Golden {
            name: "MAPI",
            command: Command::Mapi { device, event, collection },
            dwords: [0x89ab_cdef_0000_000b, 0x0123_4567, 0xfedc, 0],
            fields: mapi_fields,
        },
        Golden {
            name: "MOVI",
            command: Command::Movi { device, event, collection },
            dwords: [0x89ab_cdef_0000_0001, 0x0123_4567, 0xfedc, 0],
            fields: mapi_fields,
        },
        Golden {
            name: "MOVALL",
            command: Command::Movall { from: Rdbase::from_field(5), to: Rdbase::from_field(9) },
            dwords: [0x0e, 0, 0x0005_0000, 0x0009_0000],
            fields: [PLAIN, 0, RDBASE, RDBASE],
        },
        Golden {
            name: "DISCARD",
            command: Command::Discard { device, event },
            dwords: [0x89ab_cdef_0000_000f, 0x0123_4567, 0, 0],
            fields: event_fields,
        },
        Golden {
            name: "CLEAR",
            command: Command::Clear { device, event },
            dwords: [0x89ab_cdef_0000_0004, 0x0123_4567, 0, 0],
            fields: event_fields,
        },
        Golden {
            name: "INT",
            command: Command::Int { device, event },
            dwords: [0x89ab_cdef_0000_0003, 0x0123_4567, 0, 0],
            fields: event_fields,
        },
        Golden {
            name: "INV",
            command: Command::Inv { device, event },
            dwords: [0x89ab_cdef_0000_000c, 0x0123_4567, 0, 0],
            fields: event_fields,
        },
        Golden {
            name: "INVALL",
            command: Command::Invall { collection },
            dwords: [0x0d, 0, 0xfedc, 0],
            fields: [PLAIN, 0, 0xffff, 0],
        },
        Golden {
            name: "SYNC",
            command: Command::Sync { rdbase: Rdbase::from_field(0xf_ffff_ffff) },
            dwords: [0x05, 0, 0x000f_ffff_ffff_0000, 0],
            fields: [PLAIN, 0, RDBASE, 0],
        },
    ]
}

/// The command numbers of GICv3, then of GICv4.
const GICV3: [(u8, &str); 12] = [
    (0x01, "MOVI"),
    (0x03, "INT"),
    (0x04, "CLEAR"),
    (0x05, "SYNC"),
    (0x08, "MAPD"),
    (0x09, "MAPC"),
    (0x0a, "MAPTI"),
    (0x0b, "MAPI"),
    (0x0c, "INV"),
    (0x0d, "INVALL"),
    (0x0e, "MOVALL"),
    (0x0f, "DISCARD"),
];
const GICV4: [(u8, &str); 9] = [
    (0x21, "VMOVI"),
    (0x22, "VMOVP"),
    (0x23, "VSGI"),
    (0x25, "VSYNC"),
    (0x29, "VMAPP"),
    (0x2a, "VMAPTI"),
    (0x2b, "VMAPI"),
    (0x2d, "VINVALL"),
    (0x2e, "INVDB"),
];

#[test]
fn every_command_has_a_vector() {
    let names: Vec<_> = goldens().iter().map(|golden| golden.name).collect();
    for (_, name) in GICV3 {
        assert!(names.contains(&name), "{name} has none");
    }
}

#[test]
fn encode_gives_the_vector() {
    for golden in goldens() {
        assert_eq!(golden.command.encode(), RawCommand(golden.dwords), "{}", golden.name);
        assert_eq!(golden.command.name(), golden.name);
        assert_eq!(golden.command.opcode().name(), golden.name);
    }
}

#[test]
fn decode_gives_the_command() {
    for golden in goldens() {
        assert_eq!(Command::decode(&RawCommand(golden.dwords)), Ok(golden.command));
    }
}

#[test]
fn decode_ignores_reserved_bits() {
    for golden in goldens() {
        let mut dwords = golden.dwords;
        for (dword, fields) in dwords.iter_mut().zip(golden.fields) {
            *dword |= !fields;
        }
        assert_eq!(Command::decode(&RawCommand(dwords)), Ok(golden.command));
    }
}

#[test]
fn decode_sees_each_bit_of_a_field() {
    for golden in goldens() {
        for word in 0..4 {
            for bit in (0..64).filter(|bit| golden.fields[word] >> bit & 1 == 1) {
                let mut dwords = golden.dwords;
                dwords[word] ^= 1 << bit;
                let decoded = Command::decode(&RawCommand(dwords));
                assert_ne!(decoded, Ok(golden.command), "{} DW{word} bit {bit}", golden.name);
                if let Ok(command) = decoded {
                    // The number's own bits change the command, and with it
                    // which fields it has.
                    if command.opcode() == golden.command.opcode() {
                        assert_eq!(command.encode(), RawCommand(dwords));
                    }
                }
            }
        }
    }
}

#[test]
fn bytes_are_little_endian() {
    let raw = RawCommand([
        0x0706_0504_0302_0100,
        0x0f0e_0d0c_0b0a_0908,
        0x1716_1514_1312_1110,
        0x1f1e_1d1c_1b1a_1918,
    ]);
    let mut bytes = [0u8; 32];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(place).unwrap();
    }
    assert_eq!(raw.to_le_bytes(), bytes);
    assert_eq!(RawCommand::from_le_bytes(&bytes), raw);
    assert_eq!(COMMAND_SIZE, 32);
    assert_eq!(raw.opcode(), 0x00);
}

#[test]
fn numbers_have_names_and_only_gicv3_decodes() {
    for number in 0..=u8::MAX {
        let gicv3 = GICV3.iter().find(|(n, _)| *n == number);
        let named = gicv3.or_else(|| GICV4.iter().find(|(n, _)| *n == number));
        assert_eq!(opcode_name(number), named.map_or("unknown", |(_, name)| name));
        assert_eq!(Opcode::from_u8(number).map(Opcode::get), named.map(|_| number));

        let raw = RawCommand([u64::from(number), 0, 0, 0]);
        assert_eq!(raw.opcode(), number);
        match Command::decode(&raw) {
            Ok(command) => {
                assert_eq!(Some(command.name()), gicv3.map(|(_, name)| *name));
                assert_eq!(command.opcode().get(), number);
            }
            Err(error) => {
                assert_eq!(error, UnknownOpcode(number));
                assert!(gicv3.is_none(), "{number:#x} is a GICv3 command");
            }
        }
    }
    assert_eq!(UnknownOpcode(0x29).to_string(), "unknown ITS command 0x29 (VMAPP)");
    assert_eq!(UnknownOpcode(0x02).to_string(), "unknown ITS command 0x02 (unknown)");
}

#[test]
fn mapd_drops_address_bits_that_have_no_place() {
    let command = Command::Mapd {
        device: DeviceId::new(0),
        size: EventBits::MIN,
        itt: GuestPa::new(u64::MAX),
        valid: false,
    };
    assert_eq!(command.encode(), RawCommand([0x08, 0, bits(51, 8), 0]));
}

#[test]
fn rdbase_has_36_bits_and_two_views() {
    let processor = Rdbase::from_processor_number(0xffff);
    assert_eq!(processor.get(), 0xffff);
    assert_eq!(processor.processor_number(), 0xffff);

    // Not cut to the processor 0 that it would look like in 16 bits.
    assert_eq!(Rdbase::from_field(0x1_0000).processor_number(), 0x1_0000);
    assert_eq!(Rdbase::from_field(u64::MAX).get(), bits(35, 0));

    let frame = Rdbase::from_address(0x0000_1234_5678_0000).unwrap();
    assert_eq!(frame.get(), 0x1234_5678);
    assert_eq!(frame.address(), 0x0000_1234_5678_0000);
    assert_eq!(Rdbase::from_address(bits(51, 16)).map(Rdbase::get), Some(bits(35, 0)));
    assert_eq!(Rdbase::from_address(1 << 52), None);
    assert_eq!(Rdbase::from_address(0x8000), None);
    assert_eq!(Rdbase::from_address(0x1_0001), None);
}
