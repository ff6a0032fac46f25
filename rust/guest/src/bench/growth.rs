// SPDX-License-Identifier: GPL-2.0-only
//! How cost grows with the number of LPIs, devices and vCPUs.

use core::fmt::Arguments;

use super::{Bench, D, EDU_LPI, END, L, begin, drain, end, nothing, settle};
use crate::bed::{Bed, Fail, equal};
use crate::cpus;
use crate::gic;
use crate::hw;
use crate::its;

const TIMES: u32 = 8;
/// How many LPIs are mapped; the last is as many as there are.
const LPIS: [u32; 6] = [1, 64, 1024, 4096, 32768, END - L];
/// The devices that they belong to, by EventID bits: as few as a host with as
/// many LPIs has room for, beside the device that fires.
const BITS: [u32; 9] = [15, 14, 12, 11, 10, 9, 8, 7, 6];

/// Event `n` of these devices, one behind the other: device and EventID.
fn event(n: u32) -> (u32, u32) {
    let mut left = n;
    for (device, bits) in (D + 1..).zip(BITS) {
        if left < 1 << bits {
            return (device, left);
        }
        left -= 1 << bits;
    }
    (D, n)
}

/// What an ordinary operation costs with this much around it.
fn usual(bench: &mut Bench, around: Arguments<'_>) -> Result<(), Fail> {
    let edu = bench.edu;
    if let Some(edu) = edu {
        bench.measure(
            TIMES,
            format_args!("{around}/lpi"),
            nothing,
            |_, _| {
                edu.fire();
                settle();
            },
            |bed, _| {
                bed.expect(0, EDU_LPI)?;
                hw::xen_version();
                equal("nothing else is pending", gic::pending(), gic::SPURIOUS)
            },
        )?;
    }
    let ready = |bed: &Bed, _: u32| {
        bed.run(&[its::discard(D, 1), its::mapti(D, 2, L - 1, 0)])?;
        drain();
        Ok(())
    };
    let drained = |_: &Bed| {
        drain();
        Ok(())
    };
    for (name, command) in [
        ("MAPTI", its::mapti(D, 1, L - 2, 0)),
        ("INV", its::inv(D, 2)),
        ("INT", its::int(D, 2)),
        ("MOVI", its::movi(D, 2, 0)),
    ] {
        bench.batch(
            TIMES,
            format_args!("{around}/{name}"),
            ready,
            |bed| bed.its.put(command),
            drained,
        )?;
        bench.bed.run(&[its::discard(D, 2)])?;
    }
    Ok(())
}

/// As many LPIs as can be mapped: the ITS may not take the highest that there are.
fn room(bench: &Bench) -> Result<u32, Fail> {
    for end in [END, END - 8192] {
        bench.bed.run(&[its::mapti(D, 3, end - 1, 0), its::int(D, 3)])?;
        let taken = cpus::take(hw::ms(1) / 10);
        bench.bed.run(&[its::discard(D, 3)])?;
        if taken == u64::from(end - 1) {
            return Ok(end - L);
        }
    }
    Err(Fail("a high LPI can be mapped", 0, 1))
}

/// By the number of LPIs that are mapped.
pub fn lpis(bench: &mut Bench) -> Result<(), Fail> {
    // The large ones first, as they need room at a stretch.
    let mut events = 0;
    for (device, bits) in (D + 1..).zip(BITS) {
        let itt = bench.bed.its.itts + u64::from(events) * 8;
        bench.bed.run(&[its::mapd(device, itt, bits)])?;
        events += 1 << bits;
    }
    bench.with_edu()?;
    bench.bed.run(&[bench.bed.device(D)])?;
    let room = room(bench)?.min(events);
    let int = |n| {
        let (device, event) = event(n);
        its::int(device, event)
    };
    let mut mapped = 0;
    for count in LPIS {
        let count = count.min(room);
        let op = bench.next();
        begin(op);
        bench.bed.run_many((mapped..count).map(|n| {
            let (device, event) = event(n);
            its::mapti(device, event, L + n, 0)
        }))?;
        end(op);
        bench.said(1, 0, format_args!("grow/lpis/{count}/MAPTI,{}-more", count - mapped));
        mapped = count;
        bench.bed.run(&[int(mapped - 1)])?;
        bench.bed.expect(0, L + mapped - 1)?;
        for pending in [0, 64] {
            bench.bed.run_many((0..pending.min(count)).map(int))?;
            for size in [1, 16] {
                bench.batch(
                    TIMES,
                    format_args!("grow/lpis/{count}/INVALL,{pending}-pending,{size}"),
                    nothing,
                    |bed| (0..size).for_each(|_| bed.its.put(its::invall(0))),
                    |_| Ok(()),
                )?;
            }
        }
        drain();
        usual(bench, format_args!("grow/lpis/{count}"))?;
    }
    Ok(())
}

/// By the number of devices that are mapped.
pub fn devices(bench: &mut Bench) -> Result<(), Fail> {
    bench.with_edu()?;
    bench.bed.run(&[bench.bed.device(D)])?;
    let mut mapped = 2;
    for count in [2, 16, 64, 256, 1024] {
        for n in mapped..count {
            bench.bed.run(&[its::mapd(D + n, bench.bed.its.itt(n), 5)])?;
        }
        mapped = count;
        usual(bench, format_args!("grow/devices/{count}"))?;
        bench.batch(
            TIMES,
            format_args!("grow/devices/{count}/MAPD"),
            |bed, _| bed.run(&[its::unmapd(D + 5000)]),
            |bed| bed.its.put(its::mapd(D + 5000, bed.its.itt(5000), 5)),
            |_| Ok(()),
        )?;
        bench.bed.run(&[its::unmapd(D + 5000)])?;
    }
    Ok(())
}

/// By the number of vCPUs: a boot for each.
pub fn vcpus(bench: &mut Bench) -> Result<(), Fail> {
    bench.with_edu()?;
    bench.bed.run(&[bench.bed.device(D)])?;
    let cpus = bench.bed.cpus;
    usual(bench, format_args!("grow/vcpus/{cpus}"))?;
    bench.batch(
        TIMES,
        format_args!("grow/vcpus/{cpus}/INVALL"),
        nothing,
        |bed| bed.its.put(its::invall(0)),
        |_| Ok(()),
    )
}
