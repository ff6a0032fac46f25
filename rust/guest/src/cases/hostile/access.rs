// SPDX-License-Identifier: GPL-2.0-only
//! Accesses that no driver makes: of every width, misaligned, to every register
//! and between them, by instructions that a hypervisor cannot emulate.

use core::arch::asm;
use core::sync::atomic::Ordering;

use crate::bed::{Bed, Outcome::Pass, Verdict, equal};
use crate::cases::Case;
use crate::gic::gicr;
use crate::hw;
use crate::its::reg;

pub const CASES: &[Case] = &[
    ("its-reads-of-all-widths", its_reads),
    ("its-writes-of-all-widths", its_writes),
    ("its-frame-read-throughout", its_throughout),
    ("gicr-reads-of-all-widths", gicr_reads),
    ("gicr-writes-of-all-widths", gicr_writes),
    ("accesses-that-cannot-be-emulated", odd_instructions),
];

const ITS: [u64; 24] = [
    reg::CTLR,
    reg::IIDR,
    reg::TYPER,
    0x10,
    0x18,
    0x20,
    0x40,
    reg::CBASER,
    reg::CWRITER,
    reg::CREADR,
    0x98,
    reg::BASER,
    0x108,
    0x110,
    0x118,
    0x120,
    0x128,
    0x130,
    0x138,
    0xc000,
    0xffd0,
    reg::PIDR2,
    0xfff8,
    reg::TRANSLATER,
];

/// The LPI registers, and those next to them.
const GICR: [u64; 14] = [
    gicr::CTLR,
    0x4,
    gicr::TYPER,
    0x10,
    gicr::SETLPIR,
    gicr::CLRLPIR,
    gicr::PROPBASER,
    gicr::PENDBASER,
    0x80,
    gicr::INVLPIR,
    0xa8,
    gicr::INVALLR,
    gicr::SYNCR,
    0xffe8,
];

const VALUES: [u64; 4] = [0, u64::MAX, 0x5555_5555_5555_5555, 0x8000_0000_0000_0001];

/// Runs something that may end in data aborts; how many came.
fn may_abort(what: impl FnOnce()) {
    hw::EXPECTED.store(true, Ordering::Relaxed);
    what();
    hw::EXPECTED.store(false, Ordering::Relaxed);
}

fn read_all(base: u64, registers: &[u64]) {
    may_abort(|| {
        for at in registers.iter().flat_map(|register| (0..8).map(move |n| base + register + n)) {
            let _ = (hw::read8(at), hw::read16(at), hw::read32(at), hw::read64(at));
        }
    });
}

fn write_all(base: u64, registers: &[u64], value: u64) {
    may_abort(|| {
        for at in registers.iter().flat_map(|register| (0..8).map(move |n| base + register + n)) {
            hw::write8(at, value as u8);
            hw::write16(at, value as u16);
            hw::write32(at, value as u32);
            hw::write64(at, value);
        }
    });
}

fn its_reads(bed: &mut Bed) -> Verdict {
    let before = bed.its.read(reg::CBASER);
    read_all(bed.its.base, &ITS);
    equal("GITS_CBASER is as it was", bed.its.read(reg::CBASER), before)?;
    Ok(Pass)
}

fn its_writes(bed: &mut Bed) -> Verdict {
    for value in VALUES {
        write_all(bed.its.base, &ITS, value);
        bed.its.disable();
        write_all(bed.its.base, &ITS, value);
        bed.reset()?;
    }
    Ok(Pass)
}

/// Every eighth byte of both frames.
fn its_throughout(bed: &mut Bed) -> Verdict {
    may_abort(|| {
        for at in (0..bed.machine.its.1.min(0x2_0000)).step_by(8) {
            let _ = (hw::read32(bed.its.base + at), hw::read64(bed.its.base + at));
        }
    });
    Ok(Pass)
}

fn gicr_reads(bed: &mut Bed) -> Verdict {
    for cpu in 0..bed.cpus {
        let before = hw::read64(bed.redistributors[cpu] + gicr::PENDBASER);
        read_all(bed.redistributors[cpu], &GICR);
        let now = hw::read64(bed.redistributors[cpu] + gicr::PENDBASER);
        equal("GICR_PENDBASER is as it was", now, before)?;
    }
    Ok(Pass)
}

/// Only where LPIs are enabled: elsewhere this would enable them with tables
/// that are nowhere, which are cases of their own.
fn gicr_writes(bed: &mut Bed) -> Verdict {
    let enabled = bed.enabled;
    for cpu in (0..bed.cpus).filter(|cpu| enabled[*cpu]) {
        for value in VALUES {
            write_all(bed.redistributors[cpu], &GICR, value);
        }
        // An ITS may let EnableLPIs be cleared.
        bed.enable_lpis(cpu, true);
    }
    Ok(Pass)
}

/// No syndrome tells a hypervisor what these wanted.
fn odd_instructions(bed: &mut Bed) -> Verdict {
    for base in [bed.its.base, bed.redistributors[0]] {
        for register in [reg::TYPER, gicr::PROPBASER, reg::CBASER, reg::BASER] {
            let at = base + register;
            may_abort(|| {
                // SAFETY: device registers, of which nothing else depends here;
                // an abort is expected, and the instruction is then left out.
                unsafe {
                    asm!("ldp {0}, {1}, [{2}]", out(reg) _, out(reg) _, in(reg) at);
                    asm!("stp {0}, {0}, [{1}]", in(reg) 0u64, in(reg) at);
                    asm!("ldr {0}, [{1}], #8", out(reg) _, inout(reg) at => _);
                    asm!("str {0}, [{1}, #8]!", in(reg) 0u64, inout(reg) at => _);
                    asm!("ldxr {0}, [{1}]", out(reg) _, in(reg) at);
                    asm!("stxr {0:w}, {1}, [{2}]", out(reg) _, in(reg) 0u64, in(reg) at);
                    asm!("ldar {0}, [{1}]", out(reg) _, in(reg) at);
                    asm!("stlr {0}, [{1}]", in(reg) 0u64, in(reg) at);
                    asm!("ldrsw {0}, [{1}]", out(reg) _, in(reg) at);
                    asm!("dc civac, {0}", in(reg) at);
                }
            });
        }
    }
    if !bed.its.disable() {
        bed.its.enable();
    }
    // A redistributor may let GICR_PROPBASER be written while LPIs are enabled.
    bed.enable_lpis(0, true);
    Ok(Pass)
}
