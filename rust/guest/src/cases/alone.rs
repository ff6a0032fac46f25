// SPDX-License-Identifier: GPL-2.0-only
//! Ways to enable LPIs that spoil the ITS for every other case: GICR_PROPBASER
//! cannot be changed afterwards. Each is run in a boot for itself.

use super::Case;
use crate::bed::{Bed, Fail, Outcome::Pass, Verdict, check, equal};
use crate::gic::{SPURIOUS, gicr};
use crate::hw;
use crate::its;

pub const CASES: &[Case] = &[
    ("property-table-outside-ram", outside),
    ("property-table-on-devices", on_devices),
    ("property-table-partly-outside-ram", partly),
    ("idbits-too-small", idbits_small),
    ("idbits-too-large", idbits_large),
    ("xen_its_c_3a_4_14_bits", fourteen_bits),
];

const D: u32 = 13;
const L: u32 = 8192;
const OUTSIDE: u64 = 0x00f0_0000_0000;

/// Enables LPIs on CPU 0 so.
fn enable(bed: &mut Bed, properties: u64, idbits: u64) {
    let frame = bed.redistributors[0];
    its::enable_some_lpis(frame, properties, bed.pending[0], true, idbits);
    bed.enabled[0] = true;
}

/// Commands are executed, whatever becomes of the LPIs.
fn commands_go_on(bed: &Bed) -> Result<(), Fail> {
    for n in 0..50 {
        bed.run(&[bed.device(D), its::mapti(D, 1, L + n, 0), its::int(D, 1), its::inv(D, 1)])?;
        bed.run(&[its::invall(0), its::clear(D, 1), its::discard(D, 1), its::unmapd(D)])?;
    }
    if bed.has_direct_invalidation() {
        hw::write64(bed.redistributors[0] + gicr::INVALLR, 0);
        hw::write64(bed.redistributors[0] + gicr::INVLPIR, L.into());
    }
    check("commands go on", bed.its.wait(1000))
}

/// The configuration table is nowhere: no LPI is enabled.
fn nowhere(bed: &mut Bed, at: u64) -> Verdict {
    enable(bed, at, 14);
    commands_go_on(bed)?;
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0), its::int(D, 1)])?;
    equal("an LPI without a configuration is not taken", bed.peek(0), SPURIOUS)?;
    Ok(Pass)
}

fn outside(bed: &mut Bed) -> Verdict {
    nowhere(bed, OUTSIDE)
}

fn on_devices(bed: &mut Bed) -> Verdict {
    let at = bed.its.base;
    nowhere(bed, at)
}

/// The end of RAM is in the middle of the table.
fn partly(bed: &mut Bed) -> Verdict {
    let ends =
        bed.machine.memory.iter().take(bed.machine.memories).map(|(start, size)| start + size);
    let Some(end) = ends.max() else { return Err(Fail("there is RAM", 0, 1)) };
    // Nothing else is in the last 64 KB of the memory: the image, the device
    // tree and the stacks are at its start.
    let table = end - 0x4000;
    its::fill(table, 0x4000, 0xa1a1_a1a1_a1a1_a1a1);
    enable(bed, table, 15);
    commands_go_on(bed)?;
    let (inside, beyond) = (L + 0x3fff, L + 0x4000);
    bed.run(&[bed.device(D), its::mapti(D, 1, inside, 0), its::mapti(D, 2, beyond, 0)])?;
    bed.run(&[its::int(D, 2), its::int(D, 1)])?;
    bed.expect(0, inside)?;
    equal("an LPI without a configuration is not taken", bed.peek(0), SPURIOUS)?;
    Ok(Pass)
}

/// Fewer than 14 bits: there are no LPIs.
fn idbits_small(bed: &mut Bed) -> Verdict {
    let properties = bed.its.properties;
    enable(bed, properties, 12);
    commands_go_on(bed)?;
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0), its::int(D, 1)])?;
    equal("an LPI that does not exist is not taken", bed.peek(0), SPURIOUS)?;
    Ok(Pass)
}

/// More than there are: as many as there are.
fn idbits_large(bed: &mut Bed) -> Verdict {
    let properties = bed.its.properties;
    enable(bed, properties, 31);
    commands_go_on(bed)?;
    bed.run(&[bed.device(D), its::mapti(D, 1, L + 100, 0), its::int(D, 1)])?;
    bed.expect(0, L + 100)?;
    Ok(Pass)
}

/// With 14 bits there are LPIs 8192 to 16383, and no others.
fn fourteen_bits(bed: &mut Bed) -> Verdict {
    let properties = bed.its.properties;
    enable(bed, properties, 13);
    for lpi in [8192, 16383] {
        bed.run(&[bed.device(D), its::mapti(D, 1, lpi, 0), its::int(D, 1)])?;
        bed.expect(0, lpi)?;
        bed.run(&[its::discard(D, 1)])?;
    }
    bed.run(&[its::mapti(D, 1, 16384, 0), its::int(D, 1)])?;
    equal("an LPI that does not exist is not taken", bed.peek(0), SPURIOUS)?;
    Ok(Pass)
}
