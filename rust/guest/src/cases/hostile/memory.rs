// SPDX-License-Identifier: GPL-2.0-only
//! Queues and tables that are nowhere, overlap, or are written over.

use super::{D, L};
use crate::bed::{Bed, Outcome::Pass, Verdict};
use crate::cases::Case;
use crate::hw;
use crate::its::{self, reg};

pub const CASES: &[Case] = &[
    ("queue-outside-ram", queue_outside),
    ("queue-on-devices", queue_mmio),
    ("tables-outside-ram", tables_outside),
    ("itt-outside-ram", itt_outside),
    ("queue-over-tables", queue_over_tables),
    ("queue-over-properties", queue_over_properties),
    ("tables-scribbled", scribble_tables),
    ("itts-scribbled", scribble_itts),
    ("properties-scribbled", scribble_properties),
    ("base-flip", base_flip),
];

/// No machine here has RAM there.
const OUTSIDE: u64 = 0x00f0_0000_0000;

fn queue_at(bed: &mut Bed, at: u64) -> Verdict {
    bed.its.disable();
    bed.its.set_queue(at, 16);
    bed.its.enable();
    bed.its.write(reg::CWRITER, 0x80);
    hw::wait(20, || bed.its.read(reg::CREADR) == 0x80);
    bed.its.write(reg::CWRITER, 0x100 | 1);
    hw::wait(20, || bed.its.read(reg::CREADR) == 0x100);
    Ok(Pass)
}

fn queue_outside(bed: &mut Bed) -> Verdict {
    queue_at(bed, OUTSIDE)
}

fn queue_mmio(bed: &mut Bed) -> Verdict {
    let its = bed.its.base;
    queue_at(bed, its)?;
    let gicd = bed.machine.gicd.0;
    queue_at(bed, gicd)
}

fn tables_outside(bed: &mut Bed) -> Verdict {
    for at in [OUTSIDE, bed.its.base, 0] {
        bed.its.disable();
        bed.its.set_table(0, at, bed.its.devices_size, true);
        bed.its.set_table(1, at, 0x1_0000, true);
        bed.its.enable();
        let commands = [
            its::mapc(0, 0),
            bed.device(D),
            its::mapti(D, 1, L, 0),
            its::int(D, 1),
            its::unmapd(D),
        ];
        commands.iter().for_each(|command| bed.its.put(*command));
        bed.its.ring();
        bed.its.wait(100);
    }
    Ok(Pass)
}

fn itt_outside(bed: &mut Bed) -> Verdict {
    for at in [OUTSIDE, bed.its.base, 0, 0x000f_ffff_ffff_ff00] {
        let commands =
            [its::mapd(D, at, 4), its::mapti(D, 1, L, 0), its::int(D, 1), its::discard(D, 1)];
        commands.iter().for_each(|command| bed.its.put(*command));
        bed.its.put(its::unmapd(D));
        bed.its.ring();
        bed.its.wait(100);
    }
    bed.drain(0);
    Ok(Pass)
}

fn queue_over(bed: &mut Bed, at: u64) -> Verdict {
    bed.its.queue = at;
    bed.its.disable();
    bed.its.set_queue(at, 1);
    bed.its.enable();
    for n in 0..60 {
        let commands =
            [its::mapd(n, bed.its.itt(n), 4), its::mapti(n, 1, L + n, 0), its::int(n, 1)];
        for command in commands {
            bed.its.put(command);
            bed.its.ring();
            bed.its.wait(20);
        }
    }
    bed.its.queue = bed.its.queue_home;
    bed.drain(0);
    Ok(Pass)
}

fn queue_over_tables(bed: &mut Bed) -> Verdict {
    let at = bed.its.devices;
    queue_over(bed, at)?;
    let at = bed.its.collections;
    queue_over(bed, at)
}

fn queue_over_properties(bed: &mut Bed) -> Verdict {
    let at = bed.its.properties;
    queue_over(bed, at)
}

const PATTERNS: [u64; 6] =
    [u64::MAX, 0x0000_2000_0000_2000, 0x8000_0000_4000_0001, 0x2001_2001_2001_2001, 1, 0x0101_0101];

fn scribble(bed: &mut Bed, at: u64, size: u64) -> Verdict {
    for pattern in PATTERNS {
        bed.run(&[bed.device(D), its::mapti(D, 1, L, 0)])?;
        its::fill(at, size, pattern);
        for n in [D, D + 1, 0, 200] {
            bed.its.put(its::int(n, 1));
            bed.its.put(its::inv(n, 1));
            bed.its.put(its::movi(n, 1, 1));
            bed.its.put(its::clear(n, 2));
            bed.its.put(its::discard(n, 3));
            bed.its.put(its::invall(n as u16));
        }
        bed.its.put(its::unmapd(D));
        bed.run(&[])?;
        bed.reset()?;
    }
    Ok(Pass)
}

fn scribble_tables(bed: &mut Bed) -> Verdict {
    let (at, size) = (bed.its.devices, bed.its.devices_size);
    scribble(bed, at, size)?;
    let at = bed.its.collections;
    scribble(bed, at, 0x1_0000)
}

fn scribble_itts(bed: &mut Bed) -> Verdict {
    let at = bed.its.itts;
    scribble(bed, at, 0x2_0000)
}

fn scribble_properties(bed: &mut Bed) -> Verdict {
    let at = bed.its.properties;
    scribble(bed, at, 0x2000)
}

fn base_flip(bed: &mut Bed) -> Verdict {
    for n in 0..40u64 {
        bed.run(&[bed.device(D), its::mapti(D, 1, L, 0), its::int(D, 1)])?;
        if n % 2 == 0 {
            bed.drain(0);
        }
        bed.its.disable();
        for register in bed.its.baser {
            bed.its.write(register, n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1);
            bed.its.write(register, u64::MAX);
            bed.its.write(register, 0);
        }
        bed.its.write(reg::CBASER, u64::MAX);
        bed.its.write(reg::CBASER, 0);
        bed.reset()?;
    }
    Ok(Pass)
}
