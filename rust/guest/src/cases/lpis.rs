// SPDX-License-Identifier: GPL-2.0-only
//! What can be tried once for each CPU only: enabling LPIs there (IHI 0069, 5.1).

use super::Case;
use crate::bed::{Bed, Outcome::Pass, Outcome::Skip, Verdict, equal};
use crate::gic::{SPURIOUS, gicr};
use crate::hw;
use crate::its::{self};

pub const CASES: &[Case] = &[
    ("enablelpis-after-mapping", after_mapping),
    ("pending-table-ptz0", ptz0),
    ("enablelpis-reads-back", reads_back),
];

const WHY: &str = "needs four CPUs";

fn after_mapping(bed: &mut Bed) -> Verdict {
    if bed.cpus < 4 || bed.enabled[2] {
        return Ok(Skip(WHY));
    }
    bed.run(&[bed.device(1), its::mapti(1, 0, 8300, 2)])?;
    equal("nothing is pending before EnableLPIs", bed.peek(2), SPURIOUS)?;
    bed.enable_lpis(2, true);
    bed.run(&[its::invall(2), its::int(1, 0)])?;
    bed.expect(2, 8300)?;
    Ok(Pass)
}

fn ptz0(bed: &mut Bed) -> Verdict {
    if bed.cpus < 4 || bed.enabled[3] {
        return Ok(Skip(WHY));
    }
    bed.run(&[bed.device(1), its::mapti(1, 0, 8301, 3), its::mapti(1, 1, 8302, 3)])?;
    // LPI n is bit n % 8 of byte n / 8.
    let at = bed.pending[3] + 8302 / 8 / 8 * 8;
    its::fill(at, 8, 1 << (8302 % 64));
    bed.enable_lpis(3, false);
    bed.run(&[its::invall(3)])?;
    bed.expect(3, 8302)?;
    equal("only what the table had is pending", bed.peek(3), SPURIOUS)?;
    Ok(Pass)
}

fn reads_back(bed: &mut Bed) -> Verdict {
    for cpu in (0..bed.cpus).filter(|cpu| bed.enabled[*cpu]) {
        let frame = bed.redistributors[cpu];
        equal("GICR_CTLR.EnableLPIs", hw::read32(frame + gicr::CTLR) & 1, 1u64)?;
        let base = hw::read64(frame + gicr::PROPBASER) & 0x000f_ffff_ffff_f000;
        equal("GICR_PROPBASER's address", base, bed.its.properties)?;
        let base = hw::read64(frame + gicr::PENDBASER) & 0x000f_ffff_ffff_0000;
        equal("GICR_PENDBASER's address", base, bed.pending[cpu])?;
    }
    Ok(Pass)
}
