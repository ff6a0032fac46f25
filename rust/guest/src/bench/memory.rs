// SPDX-License-Identifier: GPL-2.0-only
//! What has the hypervisor allocate memory, much of each so that what is rounded up
//! does not matter. It needs a boot in which LPIs are not enabled yet.

use super::{Bench, D, END, ID_BITS, L, begin, end};
use crate::bed::{Bed, Fail};
use crate::its;

const DEVICES: u32 = 500;
const BITS: u32 = 12;
const EVENTS: u32 = 1 << BITS;

/// EnableLPIs on the first and on a further vCPU, devices, events, and LPIs.
pub fn all(bench: &mut Bench) -> Result<(), Fail> {
    for cpu in 0..bench.bed.cpus {
        let (frame, pending) = (bench.bed.redistributors[cpu], bench.bed.pending[cpu]);
        let properties = bench.bed.its.properties;
        let op = bench.next();
        begin(op);
        its::enable_some_lpis(frame, properties, pending, true, ID_BITS);
        end(op);
        bench.said(1, 0, format_args!("memory/EnableLPIs/{cpu}"));
        bench.bed.enabled[cpu] = true;
    }
    let itts = bench.bed.its.itts;
    run(bench, format_args!("memory/devices/{DEVICES}"), |bed| {
        (0..DEVICES).for_each(|n| bed.its.put(its::mapd(D + n, bed.its.itt(n), 5)));
    })?;
    run(bench, format_args!("memory/events/{EVENTS}"), |bed| {
        bed.its.put(its::mapd(D + DEVICES, itts, BITS));
    })?;
    // From an LPI whose neighbours share no block of any size with others.
    let first = END - 2 * 8192;
    debug_assert!(first > L);
    run(bench, format_args!("memory/lpis/{EVENTS}"), |bed| {
        (0..EVENTS).for_each(|n| bed.its.put(its::mapti(D + DEVICES, n, first + n, 0)));
    })
}

fn run(bench: &mut Bench, name: core::fmt::Arguments<'_>, put: impl Fn(&Bed)) -> Result<(), Fail> {
    bench.batch(1, name, |_, _| Ok(()), put, |_| Ok(()))
}
