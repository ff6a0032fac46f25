// SPDX-License-Identifier: GPL-2.0-only
//! What was found in upstream's C version, by the number of the finding: each
//! as far as a guest without a device can bring it about.

use super::Case;
use crate::bed::{Bed, Outcome::Pass, Outcome::Skip, Verdict, check, equal};
use crate::cpus;
use crate::gic::{self, SPURIOUS};
use crate::hw;
use crate::its::{self, LPIS};

pub const CASES: &[Case] = &[
    ("xen_its_c_3a_1_failed_map", failed_map),
    ("xen_its_c_3a_2_invall_unmapped", invall_unmapped),
    ("xen_its_c_3a_3_only_lpis", only_lpis),
    ("xen_its_c_3a_4_highest_lpis", highest_lpis),
    ("xen_its_c_3a_5_16_bits", sixteen_bits),
    ("xen_its_c_3a_6_itt_changed", itt_changed),
    ("xen_its_c_3a_7_unmap_in_flight", unmap_in_flight),
    ("xen_its_c_3a_9_moved_while_queued", moved_while_queued),
    ("xen_its_c_3a_10_unmap_then_map", unmap_then_map),
    ("xen_its_c_3a_11_lpis_come_back", lpis_come_back),
    ("xen_its_c_3a_12_zero_entry", zero_entry),
];

const D: u32 = 14;
const L: u32 = 8700;

/// A device that cannot be mapped leaves nothing behind.
fn failed_map(bed: &mut Bed) -> Verdict {
    for round in 0..3 {
        its::zero(bed.its.itts, 1 << 20);
        // As long as there is room, 16384 events each, for which no ITS here wants
        // more than 12 bytes; the last ones fail.
        for n in 0..5 {
            let itt = bed.its.itts + u64::from(n) * 0x3_0000;
            bed.run(&[its::mapd(D + n, itt, 14), its::mapti(D + n, 7, L + n, 0)])?;
            bed.run(&[its::int(D + n, 7), its::inv(D + n, 7), its::mapd(D + n, itt, 15)])?;
        }
        bed.drain(0);
        for n in 0..5 {
            bed.run(&[its::discard(D + n, 7), its::unmapd(D + n), its::int(D + n, 7)])?;
        }
        equal("a device that is gone does not fire", bed.peek(0), SPURIOUS)?;
        bed.run(&[bed.fresh_device(D), its::mapti(D, 1, L + round, 0), its::int(D, 1)])?;
        bed.expect(0, L + round)?;
        bed.run(&[its::unmapd(D)])?;
    }
    Ok(Pass)
}

fn invall_unmapped(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0), its::int(D, 1)])?;
    let collections = [bed.cpus as u16 + 1, 7, 100, 255, 256, 0x7fff, 0xffff];
    bed.run_many(collections.into_iter().flat_map(|n| [its::unmapc(n), its::invall(n)]))?;
    bed.expect(0, L)?;
    bed.run(&[its::unmapc(0), its::invall(0), its::mapc(0, bed.its.rdbase[0]), its::int(D, 1)])?;
    bed.expect(0, L)?;
    Ok(Pass)
}

/// INTIDs below 8192 are no LPIs, also not where an LPI has been.
fn only_lpis(bed: &mut Bed) -> Verdict {
    for intid in [0, 1, 15, 16, 27, 31, 32, 1019, 1020, 1023, 1024, 4096, 5119, 8191] {
        // INVALL would find what the INTID before left behind.
        bed.run(&[bed.fresh_device(D), its::invall(0), its::mapti(D, 1, intid, 0)])?;
        bed.run(&[its::int(D, 1), its::inv(D, 1)])?;
        bed.run(&[its::mapti(D, 2, L, 0), its::mapti(D, 2, intid, 0), its::movi(D, 2, 0)])?;
        bed.run(&[its::clear(D, 1), its::discard(D, 1), its::unmapd(D), its::invall(0)])?;
    }
    bed.expect_none()?;
    Ok(Pass)
}

/// All LPIs that GICR_PROPBASER.IDbits promises, and none behind them.
fn highest_lpis(bed: &mut Bed) -> Verdict {
    let end = 8192 + LPIS;
    bed.run(&[bed.device(D)])?;
    for lpi in [end - 8193, end - 8192, end - 2, end - 1] {
        bed.run(&[its::mapti(D, 1, lpi, 0), its::int(D, 1)])?;
        bed.expect(0, lpi)?;
        bed.run(&[its::discard(D, 1)])?;
    }
    bed.run(&[its::mapti(D, 1, end, 0), its::int(D, 1)])?;
    bed.expect_none()?;
    Ok(Pass)
}

/// An INTID of more than 16 bits is not taken for another LPI.
fn sixteen_bits(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0)])?;
    for high in [0x1_0000, 0x10_0000, 0x100_0000, 0x8000_0000] {
        bed.run(&[its::mapti(D, 2, high | (L + 1), 0), its::int(D, 2)])?;
        bed.expect_none()?;
    }
    bed.run(&[its::int(D, 1)])?;
    bed.expect(0, L)?;
    Ok(Pass)
}

/// An ITT that the guest writes over between MAPTI and what undoes it.
fn itt_changed(bed: &mut Bed) -> Verdict {
    let at = bed.its.itt(D);
    for word in [0, u64::MAX, 0x0000_2000_0000_2000, u64::from(L), u64::from(L + 1) << 32] {
        bed.run(&[bed.device(D), bed.device(D + 1)])?;
        for n in 0..16 {
            bed.run(&[its::mapti(D, n, L + n, 0), its::mapti(D + 1, n, L + 16 + n, 0)])?;
        }
        bed.run(&[its::int(D, 1), its::int(D, 2), its::int(D + 1, 1)])?;
        // Entries of a Xen in C are 8 bytes, QEMU's 12.
        its::fill(at, 256, word);
        bed.run(&[its::discard(D, 1), its::mapti(D, 3, L + 3, 0), its::unmapd(D)])?;
        bed.run(&[its::int(D + 1, 1), its::invall(0), bed.device(D), its::int(D, 2)])?;
        bed.drain(0);
        bed.run(&[its::unmapd(D), its::unmapd(D + 1), its::invall(0)])?;
        bed.reset()?;
    }
    Ok(Pass)
}

/// A device goes while a CPU has its LPIs in list registers, and one is active.
fn unmap_in_flight(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(Skip("needs two CPUs"));
    }
    for round in 0..20 {
        let cpu = round % 2;
        bed.run(&[bed.fresh_device(D)])?;
        for n in 0..8 {
            bed.run(&[its::mapti(D, n, L + n, cpu as u16), its::int(D, n)])?;
        }
        let active = if cpu == 0 { gic::acknowledge() } else { SPURIOUS };
        bed.run(&[its::unmapd(D)])?;
        bed.run(&[bed.fresh_device(D), its::mapti(D, 0, L + 100, cpu as u16)])?;
        bed.run(&[its::int(D, 0)])?;
        if active != SPURIOUS {
            gic::end(active);
        }
        bed.expect(cpu, L + 100)?;
        bed.expect_none()?;
        bed.run(&[its::unmapd(D)])?;
    }
    Ok(Pass)
}

/// An LPI moves while it is queued, and fires again at once. It comes once.
fn moved_while_queued(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(Skip("needs two CPUs"));
    }
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0)])?;
    for round in 0..50u32 {
        let (from, to) = ((round % 2) as u16, (round + 1) % 2);
        bed.run(&[its::movi(D, 1, from), its::int(D, 1)])?;
        bed.run(&[its::movi(D, 1, to as u16), its::int(D, 1), its::inv(D, 1)])?;
        // It fired twice, and comes once or twice. What fired first may be in a
        // list register of the other CPU, which notices the move when it is
        // disturbed next, and may even take it there; on a busy machine that is
        // a while later.
        let mut taken = 0;
        for cpu in [from as usize, to as usize, from as usize, to as usize, to as usize] {
            let intid = bed.peek(cpu);
            check("the LPI, or nothing", intid == L || intid == SPURIOUS)?;
            taken += u32::from(intid == L);
        }
        check("it comes, and no more often than it fired", taken == 1 || taken == 2)?;
        bed.expect_none()?;
    }
    Ok(Pass)
}

/// A device goes and another comes in its place, in one go.
fn unmap_then_map(bed: &mut Bed) -> Verdict {
    for round in 0..40 {
        let (old, new) = (D + round, D + round + 1);
        bed.run(&[
            bed.fresh_device(old),
            its::mapti(old, 1, L + round, 0),
            its::int(old, 1),
            its::unmapd(old),
            bed.fresh_device(new),
            its::mapti(new, 1, L + 100 + round, 0),
            its::int(new, 1),
            its::int(old, 1),
        ])?;
        bed.expect(0, L + 100 + round)?;
        bed.expect_none()?;
        bed.run(&[its::unmapd(new)])?;
    }
    Ok(Pass)
}

/// More LPIs than a host has, one device after the other.
fn lpis_come_back(bed: &mut Bed) -> Verdict {
    for round in 0..70 {
        let device = D + round % 3;
        its::zero(bed.its.itts, 0x4000);
        bed.run(&[its::mapd(device, bed.its.itts, 10), its::mapti(device, 1000, L + round, 0)])?;
        bed.run(&[its::int(device, 1000)])?;
        bed.expect(0, L + round)?;
        bed.run(&[its::unmapd(device)])?;
    }
    Ok(Pass)
}

/// A device table of zeroes maps no device, and nothing happens at address 0.
fn zero_entry(bed: &mut Bed) -> Verdict {
    for device in [D, 0, 1, 4095] {
        bed.run(&[its::unmapd(device), its::mapti(device, 0, L, 0), its::mapti(device, 1, L, 0)])?;
        bed.run(&[its::int(device, 0), its::inv(device, 1), its::movi(device, 1, 0)])?;
        bed.run(&[its::clear(device, 0), its::discard(device, 0), its::unmapd(device)])?;
    }
    bed.expect_none()?;
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0), its::int(D, 1)])?;
    check("commands go on", bed.its.wait(1000))?;
    equal("the LPI is taken", bed.on(0, cpus::take, hw::ms(1000)), u64::from(L))?;
    Ok(Pass)
}
