// SPDX-License-Identifier: GPL-2.0-only
//! Commands that are wrong: each is skipped, and later ones work (IHI 0069, 5.3).

use super::Case;
use crate::bed::{Bed, Outcome::Pass, Verdict};
use crate::its::{self, Cmd};

macro_rules! cases {
    ($($name:literal => $commands:expr;)*) => {
        pub const CASES: &[Case] = &[$(($name, |bed| wrong(bed, &$commands))),*];
    };
}

const D: u32 = 6;
const L: u32 = 8500;
/// No device of this number is mapped.
const NONE: u32 = 0x77;

// Events up to 15 of device 6 exist, event 1 is mapped to LPI 8500.
cases! {
    "mapd-size-oor" => [its::mapd(7, 0x4000_0000, 32), its::int(7, 0)];
    "mapd-device-oor" => [its::mapd(u32::MAX, 0x4000_0000, 4), its::int(u32::MAX, 0)];
    "mapc-collection-oor" => [its::mapc(0xffff, 0)];
    "mapc-procnum-oor" => [its::mapc(8, 0xfff), its::mapti(D, 2, L + 2, 8), its::int(D, 2)];
    "mapc-procnum-huge" => [its::mapc(8, 0xf_ffff_ffff), its::invall(8), its::unmapc(8)];
    "mapti-unmapped-device" => [its::mapti(NONE, 0, L + 2, 0), its::int(NONE, 0)];
    "mapti-device-oor" => [its::mapti(u32::MAX, 0, L + 2, 0), its::int(u32::MAX, 0)];
    "mapti-id-oor" => [its::mapti(D, 16, L + 2, 0), its::int(D, 16)];
    "mapti-id-huge" => [its::mapti(D, u32::MAX, L + 2, 0), its::int(D, u32::MAX)];
    "mapti-collection-oor" => [its::mapti(D, 2, L + 2, 0xffff), its::int(D, 2)];
    "mapti-physicalid-small" => [its::mapti(D, 2, 100, 0), its::int(D, 2)];
    "mapti-physicalid-spi" => [its::mapti(D, 2, 8191, 0), its::int(D, 2)];
    "mapti-physicalid-spurious" => [its::mapti(D, 2, 1023, 0), its::int(D, 2)];
    "mapti-physicalid-oor" => [its::mapti(D, 2, 1 << 24, 0), its::int(D, 2)];
    "mapti-physicalid-huge" => [its::mapti(D, 2, u32::MAX, 0), its::int(D, 2)];
    "mapi-physicalid-small" => [its::mapi(D, 2, 0), its::int(D, 2)];
    "movi-unmapped-device" => [its::movi(NONE, 0, 0)];
    "movi-unmapped-event" => [its::movi(D, 2, 0), its::int(D, 2)];
    "movi-id-oor" => [its::movi(D, 9999, 0)];
    "movi-unmapped-collection" => [its::movi(D, 1, 99), its::movi(D, 1, 0)];
    "movi-collection-oor" => [its::movi(D, 1, 0xffff)];
    "movall-procnum-oor" => [its::movall(0, 0xfff), its::movall(0xfff, 0)];
    "movall-to-itself" => [its::movall(0, 0)];
    "discard-unmapped-device" => [its::discard(NONE, 0)];
    "discard-unmapped-event" => [its::discard(D, 2)];
    "discard-id-oor" => [its::discard(D, u32::MAX)];
    "clear-unmapped-device" => [its::clear(NONE, 0)];
    "clear-unmapped-event" => [its::clear(D, 2)];
    "int-unmapped-device" => [its::int(NONE, 0)];
    "int-unmapped-event" => [its::int(D, 2)];
    "int-id-oor" => [its::int(D, 16), its::int(D, u32::MAX)];
    "inv-unmapped-device" => [its::inv(NONE, 0)];
    "inv-unmapped-event" => [its::inv(D, 2)];
    "invall-unmapped-collection" => [its::invall(99)];
    "invall-collection-oor" => [its::invall(0xffff)];
    "sync-procnum-oor" => [its::sync(0xfff), its::sync(0xf_ffff_ffff)];
    "unmapd-unmapped" => [its::unmapd(NONE), its::unmapd(u32::MAX)];
    "unmapc-unmapped" => [its::unmapc(99), its::unmapc(0xffff)];
    "opcode-unknown" => [[0; 4], [2, 0, 0, 0], [0x10, 1, 2, 3], [0xff, 0, 0, 0]];
    "opcode-gicv4" => GICV4;
    "all-ones" => [[u64::MAX; 4]; 20];
    "each-opcode-all-ones" => all_ones();
}

/// VMOVI, VMOVP, VSGI, VSYNC, VMAPP, VMAPTI, VMAPI, VINVALL and INVDB.
const GICV4: [Cmd; 9] = [
    [0x21, 0, 0, 0],
    [0x22, 0, 0, 0],
    [0x23, 0, 0, 0],
    [0x25, 0, 0, 0],
    [0x29, 0, 0, 0],
    [0x2a, 0, 0, 0],
    [0x2b, 0, 0, 0],
    [0x2d, 0, 0, 0],
    [0x2e, 0, 0, 0],
];

fn all_ones() -> [Cmd; 16] {
    core::array::from_fn(|opcode| [!0xff | opcode as u64, u64::MAX, u64::MAX, u64::MAX])
}

fn wrong(bed: &mut Bed, commands: &[Cmd]) -> Verdict {
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0)])?;
    bed.run(commands)?;
    bed.expect_none()?;
    bed.run(&[its::int(D, 1)])?;
    bed.expect(0, L)?;
    bed.probe()?;
    Ok(Pass)
}
