// SPDX-License-Identifier: GPL-2.0-only
//! GITS_*: what a guest learns of the ITS, and how it sets it up (IHI 0069, 12.19).

use super::Case;
use crate::bed::{Bed, Outcome::Pass, Verdict, check, equal};
use crate::gic::SPURIOUS;
use crate::hw;
use crate::its::{self, reg};

pub const CASES: &[Case] = &[
    ("iidr-readonly", iidr),
    ("typer-readonly", typer),
    ("typer-halves", typer_halves),
    ("pidr2-gicv3", pidr2),
    ("baser-types", baser_types),
    ("baser-type-readonly", baser_readonly),
    ("baser-page-size-64k", baser_page_size),
    ("baser-unimplemented-razwi", baser_unimplemented),
    ("baser-halves", baser_halves),
    ("cbaser-halves", cbaser_halves),
    ("cwriter-halves", cwriter_halves),
    ("creadr-readonly", creadr),
    ("reserved-razwi", reserved),
    ("ctlr-quiescent", quiescent),
    ("translater-by-cpu", translater),
    ("enable-with-queued", enable_queued),
    ("disabled-executes-nothing", disabled),
    ("bases-locked-while-enabled", locked),
    ("queue-wrap", wrap),
    ("cwriter-oor", cwriter_oor),
    ("int-while-disabled", int_disabled),
];

fn iidr(bed: &mut Bed) -> Verdict {
    let at = bed.its.base + reg::IIDR;
    let before = hw::read32(at);
    hw::write32(at, !before);
    equal("GITS_IIDR is read-only", hw::read32(at), before)?;
    Ok(Pass)
}

fn typer(bed: &mut Bed) -> Verdict {
    let before = bed.its.read(reg::TYPER);
    bed.its.disable();
    bed.its.write(reg::TYPER, !before);
    equal("GITS_TYPER is read-only", bed.its.read(reg::TYPER), before)?;
    equal("GITS_TYPER.Physical", before & 1, 1u64)?;
    Ok(Pass)
}

fn typer_halves(bed: &mut Bed) -> Verdict {
    let whole = bed.its.read(reg::TYPER);
    let low = hw::read32(bed.its.base + reg::TYPER);
    let high = hw::read32(bed.its.base + reg::TYPER + 4);
    equal("GITS_TYPER's low half", low, whole & 0xffff_ffff)?;
    equal("GITS_TYPER's high half", high, whole >> 32)?;
    Ok(Pass)
}

fn pidr2(bed: &mut Bed) -> Verdict {
    let at = bed.its.base + reg::PIDR2;
    let before = hw::read32(at);
    hw::write32(at, 0);
    equal("GITS_PIDR2 is read-only", hw::read32(at), before)?;
    check("GITS_PIDR2.ArchRev is 3 or 4", matches!((before >> 4) & 15, 3 | 4))?;
    Ok(Pass)
}

fn baser_types(bed: &mut Bed) -> Verdict {
    let count = |kind| {
        let bases = (0..8u64).map(|n| bed.its.read(reg::BASER + 8 * n));
        bases.filter(|base| (base >> 56) & 7 == kind).count() as u64
    };
    equal("there is one device table", count(1), 1u64)?;
    check("there is at most one collection table", count(4) <= 1)?;
    Ok(Pass)
}

fn baser_readonly(bed: &mut Bed) -> Verdict {
    bed.its.disable();
    let mask = (7 << 56) | (31 << 48);
    for register in bed.its.baser {
        let before = bed.its.read(register);
        bed.its.write(register, !before & !(1 << 63));
        equal("Type and Entry_Size are read-only", bed.its.read(register) & mask, before & mask)?;
        bed.its.write(register, before);
    }
    Ok(Pass)
}

fn baser_page_size(bed: &mut Bed) -> Verdict {
    for register in bed.its.baser {
        equal("Page_Size is 64 KB", (bed.its.read(register) >> 8) & 3, 2u64)?;
    }
    Ok(Pass)
}

fn baser_unimplemented(bed: &mut Bed) -> Verdict {
    bed.its.disable();
    for register in (0..8u64).map(|n| reg::BASER + 8 * n) {
        if (bed.its.read(register) >> 56) & 7 == 0 {
            bed.its.write(register, u64::MAX);
            equal("GITS_BASER without a table is RAZ/WI", bed.its.read(register), 0u64)?;
        }
    }
    Ok(Pass)
}

fn halves(bed: &Bed, register: u64, mask: u64) -> Verdict {
    let at = bed.its.base + register;
    for value in [0x1111_1111_1111_1111 & mask, 0x0000_2222_2222_2000 & mask, 0] {
        hw::write32(at, value as u32);
        hw::write32(at + 4, (value >> 32) as u32);
        equal("what halves wrote", bed.its.read(register) & mask, value)?;
        equal("the low half", hw::read32(at) & mask as u32, value & 0xffff_ffff)?;
        equal("the high half", hw::read32(at + 4) & (mask >> 32) as u32, value >> 32)?;
    }
    let value = 0x0000_0042_5533_0000 & mask;
    bed.its.write(register, value);
    hw::write32(at + 4, 0);
    equal("a half leaves the other", bed.its.read(register) & mask, value & 0xffff_ffff)?;
    Ok(Pass)
}

fn baser_halves(bed: &mut Bed) -> Verdict {
    bed.its.disable();
    let register = bed.its.baser[0];
    halves(bed, register, 0x0000_ffff_ffff_00ff & !0xf000)
}

fn cbaser_halves(bed: &mut Bed) -> Verdict {
    bed.its.disable();
    halves(bed, reg::CBASER, 0x000f_ffff_ffff_f0ff & !0xf000)
}

fn cwriter_halves(bed: &mut Bed) -> Verdict {
    bed.its.disable();
    bed.its.set_queue(bed.its.queue, 256);
    let at = bed.its.base + reg::CWRITER;
    hw::write32(at, 0x40);
    hw::write32(at + 4, 0);
    equal("GITS_CWRITER", bed.its.read(reg::CWRITER), 0x40u64)?;
    equal("GITS_CWRITER's low half", hw::read32(at), 0x40u64)?;
    equal("GITS_CWRITER's high half", hw::read32(at + 4), 0u64)?;
    equal("GITS_CREADR's low half", hw::read32(bed.its.base + reg::CREADR), 0u64)?;
    Ok(Pass)
}

fn creadr(bed: &mut Bed) -> Verdict {
    let before = bed.its.read(reg::CREADR);
    bed.its.write(reg::CREADR, before ^ 0x60);
    equal("GITS_CREADR is read-only", bed.its.read(reg::CREADR), before)?;
    Ok(Pass)
}

fn reserved(bed: &mut Bed) -> Verdict {
    for offset in [0x28, 0x60, 0x98, 0xa0, 0x140, 0x1000, 0x8000] {
        let at = bed.its.base + offset;
        hw::write32(at, u32::MAX);
        equal("reserved space is RAZ/WI", hw::read32(at), 0u64)?;
        hw::write64(at & !7, u64::MAX);
        equal("reserved space is RAZ/WI in 64 bits", hw::read64(at & !7), 0u64)?;
    }
    Ok(Pass)
}

fn quiescent(bed: &mut Bed) -> Verdict {
    check("a disabled ITS is quiescent", bed.its.disable())?;
    equal("GITS_CTLR.Enabled", hw::read32(bed.its.base) & 1, 0u64)?;
    bed.its.enable();
    equal("GITS_CTLR.Enabled", hw::read32(bed.its.base) & 1, 1u64)?;
    Ok(Pass)
}

fn translater(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(0), its::mapti(0, 3, 8200, 0)])?;
    hw::EXPECTED.store(true, core::sync::atomic::Ordering::Relaxed);
    hw::write32(bed.its.base + reg::TRANSLATER, 3);
    hw::write16(bed.its.base + reg::TRANSLATER, 3);
    let _ = hw::read16(bed.its.base + reg::TRANSLATER);
    hw::EXPECTED.store(false, core::sync::atomic::Ordering::Relaxed);
    equal("a CPU's own write raises nothing", bed.peek(0), SPURIOUS)?;
    Ok(Pass)
}

fn enable_queued(bed: &mut Bed) -> Verdict {
    bed.its.disable();
    bed.its.set_queue(bed.its.queue, 256);
    for command in [bed.device(1), its::mapti(1, 0, 8201, 0), its::int(1, 0)] {
        bed.its.put(command);
    }
    bed.its.ring();
    equal("nothing is executed yet", bed.its.read(reg::CREADR), 0u64)?;
    bed.its.enable();
    check("enabling executes what is queued", bed.its.wait(2000))?;
    bed.expect(0, 8201)?;
    Ok(Pass)
}

fn disabled(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(1), its::mapti(1, 0, 8202, 0)])?;
    bed.its.disable();
    let before = bed.its.read(reg::CREADR);
    bed.its.put(its::int(1, 0));
    bed.its.ring();
    bed.expect_none()?;
    equal("GITS_CREADR stays", bed.its.read(reg::CREADR), before)?;
    bed.its.enable();
    bed.expect(0, 8202)?;
    Ok(Pass)
}

fn locked(bed: &mut Bed) -> Verdict {
    for register in [reg::CBASER, bed.its.baser[0], bed.its.baser[1]] {
        let before = bed.its.read(register);
        bed.its.write(register, before ^ 0x10_0000);
        equal("a base register stays while the ITS is enabled", bed.its.read(register), before)?;
    }
    Ok(Pass)
}

fn wrap(bed: &mut Bed) -> Verdict {
    bed.its.disable();
    bed.its.set_queue(bed.its.queue, 1);
    bed.its.enable();
    bed.run(&[bed.device(1), its::mapti(1, 0, 8203, 0)])?;
    for _ in 0..300 {
        bed.run(&[its::inv(1, 0)])?;
        check("GITS_CREADR stays in the queue", bed.its.read(reg::CREADR) < 4096)?;
    }
    bed.run(&[its::int(1, 0)])?;
    bed.expect(0, 8203)?;
    Ok(Pass)
}

fn cwriter_oor(bed: &mut Bed) -> Verdict {
    bed.its.disable();
    bed.its.set_queue(bed.its.queue, 1);
    bed.its.enable();
    for value in [0x1000, 0x2020, 0xf_ffe0] {
        bed.its.write(reg::CWRITER, value);
        hw::barrier();
    }
    bed.probe()?;
    Ok(Pass)
}

fn int_disabled(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(2), its::mapti(2, 0, 8204, 0)])?;
    bed.its.disable();
    bed.its.enable();
    bed.run(&[its::int(2, 0)])?;
    bed.expect(0, 8204)?;
    Ok(Pass)
}
