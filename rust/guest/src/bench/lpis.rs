// SPDX-License-Identifier: GPL-2.0-only
//! An LPI that a device raises, and the guest's exit when it has finished one.

use super::{Bench, EDU_LPI, TIMES, drain, nothing, settle};
use crate::bed::{Bed, Fail, equal};
use crate::gic;
use crate::hw;
use crate::its;

/// The guest runs on the only CPU. Whether it has its interrupts masked is no
/// matter to the hypervisor, and here it has.
pub fn one_cpu(bench: &mut Bench) -> Result<(), Fail> {
    let edu = bench.with_edu()?;
    let fire = || {
        edu.fire();
        settle();
    };
    let act = |_: &Bed, _: u32| fire();
    let fired = |_: &Bed, _: u32| {
        fire();
        equal("the LPI is pending", gic::pending(), EDU_LPI)
    };
    let took = |bed: &Bed, _: u32| bed.expect(0, EDU_LPI);
    let cleaned = |bed: &Bed, n: u32| {
        took(bed, n)?;
        // The list register is empty again once Xen has looked at it.
        hw::xen_version();
        equal("nothing else is pending", gic::pending(), gic::SPURIOUS)
    };
    let drained = |_: &Bed, _: u32| {
        drain();
        hw::xen_version();
        Ok(())
    };
    bench.measure(TIMES, format_args!("lpi/running"), nothing, act, cleaned)?;
    bench.measure(TIMES, format_args!("lpi/running,one-finished"), nothing, act, took)?;
    bench.measure(TIMES, format_args!("lpi/pending"), fired, act, drained)?;

    let activated = |bed: &Bed, n: u32| {
        fired(bed, n)?;
        equal("the LPI is acknowledged", gic::acknowledge(), EDU_LPI)
    };
    let ended = |bed: &Bed, n: u32| {
        gic::end(EDU_LPI);
        hw::xen_version();
        drained(bed, n)
    };
    bench.measure(TIMES, format_args!("lpi/active"), activated, act, ended)?;

    // In between it reaches the guest each time, and there are fewer than it takes
    // until one that does not is held back.
    let times = 12;
    let reaches = |bed: &Bed, command: its::Cmd| {
        bed.run(&[command])?;
        drain();
        fired(bed, 0)?;
        drained(bed, 0)
    };
    let (device, event) = (edu.device, 0);
    bench.measure(
        times,
        format_args!("lpi/disabled"),
        |bed, _| {
            bed.its.property(EDU_LPI, 0xa0);
            bed.run(&[its::inv(device, event)])
        },
        act,
        |bed, _| {
            bed.its.property(EDU_LPI, 0xa1);
            reaches(bed, its::inv(device, event))
        },
    )?;
    bench.measure(
        times,
        format_args!("lpi/unmapped"),
        |bed, _| bed.run(&[its::discard(device, event)]),
        act,
        |bed, _| reaches(bed, its::mapti(device, event, EDU_LPI, 0)),
    )?;
    edu.clear();
    Ok(())
}

/// The shortest hypercall, without and with a list register to look at.
pub fn exits(bench: &mut Bench) -> Result<(), Fail> {
    let edu = bench.with_edu()?;
    let act = |_: &Bed, _: u32| {
        hw::xen_version();
    };
    let finished = |bed: &Bed, _: u32| {
        edu.fire();
        settle();
        bed.expect(0, EDU_LPI)
    };
    let after = |_: &Bed, _: u32| {
        hw::xen_version();
        Ok(())
    };
    bench.measure(TIMES, format_args!("exit/nothing"), nothing, act, after)?;
    bench.measure(TIMES, format_args!("exit/one-finished"), finished, act, after)
}
