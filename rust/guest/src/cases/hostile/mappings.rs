// SPDX-License-Identifier: GPL-2.0-only
//! Mappings that contradict each other, or lead nowhere.

use super::{D, L};
use crate::bed::{Bed, Outcome::Pass, Outcome::Skip, Verdict, equal};
use crate::cases::Case;
use crate::gic::SPURIOUS;
use crate::its::{self, reg};

pub const CASES: &[Case] = &[
    ("itt-shared", itt_shared),
    ("itt-reused", itt_reused),
    ("mapti-same-lpi-twice", same_lpi),
    ("mapti-over-mapti", mapti_over),
    ("mapd-over-mapd", mapd_over),
    ("mapc-unmap-with-pending", unmapc_pending),
    ("rdbase-of-the-other-kind", other_rdbase),
    ("tables-withdrawn-with-pending", withdrawn),
];

fn itt_shared(bed: &mut Bed) -> Verdict {
    let itt = bed.its.itt(0);
    bed.run(&[its::mapd(D, itt, 4), its::mapd(D + 1, itt, 4)])?;
    bed.run(&[its::mapti(D, 1, L, 0), its::mapti(D + 1, 1, L + 1, 0), its::int(D, 1)])?;
    bed.run(&[its::unmapd(D), its::int(D + 1, 1), its::discard(D + 1, 1)])?;
    bed.run(&[its::unmapd(D + 1)])?;
    bed.drain(0);
    Ok(Pass)
}

fn itt_reused(bed: &mut Bed) -> Verdict {
    let itt = bed.its.itt(0);
    for n in 0..20 {
        let device = D + n % 3;
        bed.run(&[its::mapd(device, itt, 4), its::mapti(device, n % 16, L + n, 0)])?;
        bed.run(&[its::int(device, n % 16), its::int(device, (n + 1) % 16)])?;
        bed.run(&[its::unmapd(device), its::mapd(device + 1, itt, 4)])?;
        bed.run(&[its::int(device + 1, n % 16), its::inv(device + 1, n % 16), its::invall(0)])?;
        bed.run(&[its::movi(device + 1, n % 16, 0), its::discard(device + 1, n % 16)])?;
    }
    bed.drain(0);
    Ok(Pass)
}

fn same_lpi(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(D), bed.device(D + 1)])?;
    bed.run(&[its::mapti(D, 1, L, 0), its::mapti(D + 1, 1, L, 0), its::int(D, 1)])?;
    bed.run(&[its::int(D + 1, 1), its::discard(D, 1), its::int(D + 1, 1)])?;
    bed.run(&[its::unmapd(D), its::unmapd(D + 1)])?;
    bed.drain(0);
    Ok(Pass)
}

fn mapti_over(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(D)])?;
    for n in 0..50 {
        bed.run(&[its::mapti(D, 1, L + n, 0), its::int(D, 1)])?;
    }
    bed.drain(0);
    Ok(Pass)
}

fn mapd_over(bed: &mut Bed) -> Verdict {
    for n in 0..30 {
        bed.run(&[its::mapd(D, bed.its.itt(n), 1 + n % 8), its::mapti(D, 1, L + n, 0)])?;
        bed.run(&[its::int(D, 1), its::int(D, 100)])?;
    }
    bed.drain(0);
    Ok(Pass)
}

fn unmapc_pending(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0), its::int(D, 1), its::unmapc(0)])?;
    bed.run(&[its::inv(D, 1), its::clear(D, 1), its::movi(D, 1, 1), its::discard(D, 1)])?;
    bed.drain(0);
    Ok(Pass)
}

/// RDbase as an ITS with the other GITS_TYPER.PTA would take it: an address,
/// or a number.
fn other_rdbase(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0)])?;
    let pta = bed.its.read(reg::TYPER) & (1 << 19) != 0;
    for cpu in 0..bed.cpus {
        let other = if pta { cpu as u64 + 1 } else { bed.redistributors[cpu] >> 16 };
        let own = bed.its.rdbase[0];
        bed.run(&[its::mapc(9, other), its::mapti(D, 2, L + 2, 9), its::int(D, 2)])?;
        bed.run(&[its::invall(9), its::sync(other), its::unmapc(9)])?;
        bed.run(&[its::movall(other, own), its::movall(own, other), its::discard(D, 2)])?;
    }
    bed.expect_none()?;
    bed.run(&[its::int(D, 1)])?;
    bed.expect(0, L)?;
    Ok(Pass)
}

/// GITS_BASER.Valid is cleared under mappings with LPIs pending, and set again.
fn withdrawn(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(Skip("needs two CPUs"));
    }
    for round in 0..10u32 {
        bed.run(&[its::mapd(D, bed.its.itts, 6)])?;
        for n in 0..64 {
            bed.its.property(L + n, if n % 2 == 0 { 0xa1 } else { 0xa0 });
            bed.its.put(its::mapti(D, n, L + n, (n % 2) as u16));
            bed.its.put(its::inv(D, n));
            bed.its.put(its::int(D, n));
        }
        bed.run(&[])?;
        bed.its.disable();
        if round % 3 != 0 {
            bed.its.set_table(0, bed.its.devices, bed.its.devices_size, false);
            bed.its.set_table(0, bed.its.devices, bed.its.devices_size, true);
        }
        if round % 3 != 1 {
            bed.its.set_table(1, bed.its.collections, 0x1_0000, false);
            bed.its.set_table(1, bed.its.collections, 0x1_0000, true);
        }
        bed.its.enable();
        for n in 0..64 {
            bed.its.put(its::int(D, n));
            bed.its.put(its::inv(D, n));
        }
        bed.run(&[])?;
        bed.drain_all();
        bed.reset()?;
    }
    equal("nothing is left", bed.peek(0), SPURIOUS)?;
    Ok(Pass)
}
