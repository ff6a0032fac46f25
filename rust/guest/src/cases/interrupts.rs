// SPDX-License-Identifier: GPL-2.0-only
//! LPIs taken through the vector table, as a kernel takes them.

use super::Case;
use crate::bed::{Bed, Fail, Outcome::Pass, Outcome::Skip, Verdict, check, equal};
use crate::cpus;
use crate::hw;
use crate::its;

pub const CASES: &[Case] = &[
    ("irq-by-vector", by_vector),
    ("irq-wakes-from-wfi", wakes),
    ("irq-by-vector-on-each-cpu", each_cpu),
    ("irq-by-vector-200", two_hundred),
];

const D: u32 = 11;
const L: u32 = 8450;

/// What a CPU has taken by vector grows by so many.
fn grows(cpu: usize, from: u64, by: u64) -> Result<(), Fail> {
    hw::wait(2000, || cpus::vectored(cpu).0 >= from + by);
    equal("interrupts taken by vector", cpus::vectored(cpu).0 - from, by)
}

fn by_vector(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0)])?;
    let before = cpus::vectored(0).0;
    hw::unmask_irqs();
    let fired = bed.run(&[its::int(D, 1)]).and_then(|()| grows(0, before, 1));
    hw::mask_irqs();
    fired?;
    equal("the LPI is taken", cpus::vectored(0).1, L)?;
    bed.expect_none()?;
    Ok(Pass)
}

fn wakes(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(Skip("needs two CPUs"));
    }
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 1)])?;
    cpus::start_endless(1, cpus::take_by_vector, 0);
    let mut seen = Ok(());
    for _ in 0..20 {
        let before = cpus::vectored(1).0;
        // Long enough for it to be asleep.
        hw::wait(2, || false);
        seen = seen.and_then(|()| bed.run(&[its::int(D, 1)])).and_then(|()| grows(1, before, 1));
    }
    cpus::stop(1..2);
    check("the other CPU answers", cpus::finish(1) != u64::MAX)?;
    seen?;
    equal("the LPI is taken", cpus::vectored(1).1, L)?;
    Ok(Pass)
}

fn each_cpu(bed: &mut Bed) -> Verdict {
    let all = 1..bed.cpus;
    bed.run(&[bed.device(D)])?;
    all.clone().for_each(|cpu| cpus::start_endless(cpu, cpus::take_by_vector, 0));
    let mut seen = Ok(());
    for cpu in all.clone().filter(|cpu| bed.enabled[*cpu]) {
        let before = cpus::vectored(cpu).0;
        let n = cpu as u32;
        let commands = [its::mapti(D, n, L + n, cpu as u16), its::int(D, n)];
        seen = seen.and_then(|()| bed.run(&commands)).and_then(|()| grows(cpu, before, 1));
        seen = seen.and_then(|()| equal("the LPI is taken", cpus::vectored(cpu).1, L + n));
    }
    cpus::stop(all.clone());
    for cpu in all {
        check("the other CPU answers", cpus::finish(cpu) != u64::MAX)?;
    }
    seen?;
    bed.expect_none()?;
    Ok(Pass)
}

fn two_hundred(bed: &mut Bed) -> Verdict {
    bed.run(&[its::mapd(D, bed.its.itts, 8)])?;
    bed.run_many((0..200).map(|n| its::mapti(D, n, L + n, 0)))?;
    let before = cpus::vectored(0).0;
    bed.run_many((0..200).map(|n| its::int(D, n)))?;
    hw::unmask_irqs();
    let all = grows(0, before, 200);
    hw::mask_irqs();
    all?;
    bed.expect_none()?;
    Ok(Pass)
}
