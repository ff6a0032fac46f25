// SPDX-License-Identifier: GPL-2.0-only
//! The most that a guest can ask for at once: how long does one trap hold the CPU?
//! Each of these comes in sizes, as what matters is that it does not grow.

use super::{Bench, D, L, begin, drain, end};
use crate::bed::{Bed, Fail};
use crate::gic::gicr;
use crate::hw;
use crate::its::{self, Cmd};

/// EventID bits of the device that has most.
const BITS: u32 = 13;
const EVENTS: u32 = 1 << BITS;

/// Everything that is long. The second vCPU sleeps; it is there to be a target.
pub fn all(bench: &mut Bench) -> Result<(), Fail> {
    let [first, second] = [0, 1].map(|cpu| bench.bed.its.rdbase[cpu.min(bench.bed.cpus - 1)]);
    let itts = bench.bed.its.itts;

    let none = |_: &Bed| Ok(());
    for size in [16, 64, 256] {
        once(bench, format_args!("hold/error/{size}"), size, none, |n| its::inv(D, n))?;
    }
    // A step may read some thousands of properties: both of these are more.
    for events in [64, EVENTS / 2, EVENTS] {
        let mapped = |bed: &Bed| {
            bed.run(&[its::mapd(D, itts, BITS)])?;
            bed.run_many((0..events).map(|n| its::mapti(D, n, L + n, 0)))
        };
        let pending = |bed: &Bed| {
            // Some of them in list registers, and most not enabled.
            (0..events).for_each(|n| bed.its.property(L + n, if n % 3 == 0 { 0xa1 } else { 0xa0 }));
            mapped(bed)?;
            bed.run(&[its::invall(0)])?;
            bed.run_many((0..events).map(|n| its::int(D, n)))
        };
        once(bench, format_args!("hold/INVALL/{events}-lpis"), 16, mapped, |_| its::invall(0))?;
        for (name, command) in [
            ("INVALL", its::invall(0)),
            ("MOVALL", its::movall(first, second)),
            ("MAPC", its::mapc(0, second)),
            ("MAPD,V=0", its::unmapd(D)),
        ] {
            let name = format_args!("hold/{name}/{events}-pending");
            once(bench, name, 1, pending, |_| command)?;
        }
        if bench.bed.has_direct_invalidation() {
            pending(&bench.bed)?;
            let op = bench.next();
            begin(op);
            hw::write64(bench.bed.redistributors[0] + gicr::INVALLR, 0);
            end(op);
            bench.said(1, 0, format_args!("hold/GICR_INVALLR/{events}-pending"));
            clean(bench)?;
        }
    }
    for size in [64, 256, 1024] {
        let mapped = |bed: &Bed| {
            bed.run(&[its::mapd(D, itts, BITS)])?;
            bed.run_many((0..64).map(|n| its::mapti(D, n, L + n, 0)))
        };
        let name = format_args!("hold/INVALL,in-a-queue/{size}");
        once(bench, name, size, mapped, |_| its::invall(0))?;
    }
    for bits in [7, 10, BITS] {
        let name = format_args!("hold/MAPD/{}-events", 1 << bits);
        once(bench, name, 1, none, |_| its::mapd(D, itts, bits))?;
    }
    let mapped = |bed: &Bed| bed.run(&[its::mapd(D, itts, BITS)]);
    once(bench, format_args!("hold/MAPTI/{EVENTS}"), EVENTS, mapped, |n| its::mapti(D, n, L + n, 0))
}

/// A batch of so many commands, once.
fn once(
    bench: &mut Bench,
    name: core::fmt::Arguments<'_>,
    size: u32,
    before: impl Fn(&Bed) -> Result<(), Fail>,
    command: impl Fn(u32) -> Cmd,
) -> Result<(), Fail> {
    let put = |bed: &Bed| (0..size).for_each(|n| bed.its.put(command(n)));
    bench.batch(1, name, |bed, _| before(bed), put, |_| Ok(()))?;
    clean(bench)
}

/// Nothing is mapped or pending any more.
fn clean(bench: &mut Bench) -> Result<(), Fail> {
    drain();
    bench.reset()
}
