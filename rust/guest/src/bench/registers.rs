// SPDX-License-Identifier: GPL-2.0-only
//! Reads and writes of GITS_* and of GICR_*'s LPI registers.

use super::{Bench, nothing};
use crate::bed::Fail;
use crate::gic::gicr;
use crate::hw;
use crate::its::reg;

const TIMES: u32 = 16;

/// Each register once read, and what may be written.
pub fn all(bench: &mut Bench) -> Result<(), Fail> {
    let gits = bench.bed.its.base;
    let gicr = bench.bed.redistributors[0];
    let ignore = |value: u64| {
        core::hint::black_box(value);
    };
    for (name, at, wide) in [
        ("GITS_CTLR", gits + reg::CTLR, false),
        ("GITS_IIDR", gits + reg::IIDR, false),
        ("GITS_TYPER", gits + reg::TYPER, true),
        ("GITS_CBASER", gits + reg::CBASER, true),
        ("GITS_CWRITER", gits + reg::CWRITER, true),
        ("GITS_CREADR", gits + reg::CREADR, true),
        ("GITS_BASER0", gits + reg::BASER, true),
        ("GITS_PIDR2", gits + reg::PIDR2, false),
        ("GICR_CTLR", gicr + gicr::CTLR, false),
        ("GICR_PROPBASER", gicr + gicr::PROPBASER, true),
        ("GICR_PENDBASER", gicr + gicr::PENDBASER, true),
    ] {
        let read = |_: &crate::bed::Bed, _: u32| {
            ignore(if wide { hw::read64(at) } else { hw::read32(at).into() });
        };
        bench.measure(TIMES, format_args!("read/{name}"), nothing, read, nothing)?;
    }
    let tail = bench.bed.its.read(reg::CWRITER);
    let queue = bench.bed.its.read(reg::CBASER);
    let table = bench.bed.its.read(reg::BASER);
    bench.measure(
        TIMES,
        format_args!("write/GITS_CWRITER,no-command"),
        nothing,
        |bed, _| bed.its.write(reg::CWRITER, tail),
        nothing,
    )?;
    bench.measure(
        TIMES,
        format_args!("write/GITS_CTLR,off"),
        nothing,
        |bed, _| bed.its.switch_off(),
        |bed, _| {
            bed.its.enable();
            Ok(())
        },
    )?;
    bench.measure(
        TIMES,
        format_args!("write/GITS_CTLR,on"),
        |bed, _| {
            bed.its.switch_off();
            Ok(())
        },
        |bed, _| bed.its.enable(),
        nothing,
    )?;
    bench.bed.its.disable();
    bench.measure(
        TIMES,
        format_args!("write/GITS_BASER0"),
        nothing,
        |bed, _| bed.its.write(reg::BASER, table),
        nothing,
    )?;
    bench.measure(
        TIMES,
        format_args!("write/GITS_CBASER"),
        nothing,
        |bed, _| bed.its.write(reg::CBASER, queue),
        nothing,
    )
}
