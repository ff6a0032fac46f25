// SPDX-License-Identifier: GPL-2.0-only
//! LPIs that come before the guest is ready for them: before the event is
//! mapped, before EnableLPIs, before the CPU runs. With six CPUs, the last two
//! are there for this.

use super::Case;
use crate::bed::{Bed, Outcome::Pass, Outcome::Skip, Verdict, equal};
use crate::gic::SPURIOUS;
use crate::hw;
use crate::its::{self, reg};

pub const CASES: &[Case] = &[
    ("early-int-before-mapti", before_mapti),
    ("early-int-before-mapc", before_mapc),
    ("early-int-before-its-enabled", before_enabled),
    ("early-pending-table-outside-ram", pending_outside),
    ("early-int-before-enablelpis", before_enablelpis),
    ("early-int-before-cpu-on", before_cpu_on),
];

const D: u32 = 12;
const L: u32 = 8320;
/// No machine here has RAM there.
const OUTSIDE: u64 = 0x00f0_0000_0000;
const WHY: &str = "needs six CPUs";

fn before_mapti(bed: &mut Bed) -> Verdict {
    bed.run(&[its::int(D, 1), bed.device(D), its::int(D, 1)])?;
    bed.run(&[its::mapti(D, 1, L, 0)])?;
    equal("an event that was not mapped left nothing", bed.peek(0), SPURIOUS)?;
    bed.run(&[its::int(D, 1)])?;
    bed.expect(0, L)?;
    Ok(Pass)
}

fn before_mapc(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 40), its::int(D, 1)])?;
    bed.run(&[its::mapc(40, bed.its.rdbase[0])])?;
    // The architecture does not say whether this one is kept.
    bed.drain(0);
    bed.run(&[its::int(D, 1)])?;
    bed.expect(0, L)?;
    bed.expect_none()?;
    Ok(Pass)
}

fn before_enabled(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0)])?;
    bed.its.disable();
    bed.its.put(its::int(D, 1));
    bed.its.put(its::int(D, 1));
    bed.its.ring();
    equal("nothing is pending while the ITS is off", bed.peek(0), SPURIOUS)?;
    bed.its.enable();
    equal("GITS_CTLR.Enabled", hw::read32(bed.its.base + reg::CTLR) & 1, 1u64)?;
    bed.expect(0, L)?;
    bed.expect_none()?;
    Ok(Pass)
}

fn pending_outside(bed: &mut Bed) -> Verdict {
    if bed.cpus < 5 || bed.enabled[4] {
        return Ok(Skip(WHY));
    }
    // Real hardware may find anything there. QEMU has a PCI window, which reads as
    // ones: every LPI is pending for good.
    if !bed.machine.xen {
        return Ok(Skip("needs a hypervisor"));
    }
    // With PTZ = 0, so that the table is wanted.
    let table = core::mem::replace(&mut bed.pending[4], OUTSIDE);
    bed.enable_lpis(4, false);
    bed.pending[4] = table;
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 4), its::invall(4), its::int(D, 1)])?;
    bed.expect(4, L)?;
    equal("nothing comes from such a table", bed.peek(4), SPURIOUS)?;
    Ok(Pass)
}

fn before_enablelpis(bed: &mut Bed) -> Verdict {
    if bed.machine.ncpus < 6 || bed.cpus != 5 {
        return Ok(Skip(WHY));
    }
    bed.run(&[its::mapc(5, bed.its.rdbase[5]), its::sync(bed.its.rdbase[5])])?;
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 5), its::int(D, 1), its::inv(D, 1)])?;
    bed.run(&[its::movi(D, 1, 0), its::int(D, 1)])?;
    bed.expect(0, L)?;
    bed.run(&[its::movi(D, 1, 5), its::int(D, 1), its::invall(5)])?;
    bed.run(&[its::movall(bed.its.rdbase[5], bed.its.rdbase[0]), its::clear(D, 1)])?;
    bed.drain(0);
    Ok(Pass)
}

fn before_cpu_on(bed: &mut Bed) -> Verdict {
    if bed.machine.ncpus < 6 || bed.cpus != 5 {
        return Ok(Skip(WHY));
    }
    bed.enable_lpis(5, true);
    bed.run(&[its::mapc(5, bed.its.rdbase[5]), its::sync(bed.its.rdbase[5])])?;
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 5), its::mapti(D, 2, L + 1, 5)])?;
    bed.run(&[its::int(D, 1), its::int(D, 1), its::int(D, 2), its::clear(D, 2)])?;
    bed.start_next_cpu()?;
    bed.expect(5, L)?;
    bed.expect_none()?;
    Ok(Pass)
}
