// SPDX-License-Identifier: GPL-2.0-only
//! What a hostile guest tries. After each the ITS must work again.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Case;
use crate::bed::{Bed, Outcome::Pass, Outcome::Skip, Verdict, check, equal};
use crate::console::say;
use crate::hw;
use crate::its::{self, reg};

pub const CASES: &[Case] = &[
    ("queue-outside-ram", queue_outside),
    ("queue-on-devices", queue_mmio),
    ("tables-outside-ram", tables_outside),
    ("itt-outside-ram", itt_outside),
    ("queue-over-tables", queue_over_tables),
    ("queue-over-properties", queue_over_properties),
    ("commands-write-over-queue", scribble_queue),
    ("itt-shared", itt_shared),
    ("itt-reused", itt_reused),
    ("tables-scribbled", scribble_tables),
    ("itts-scribbled", scribble_itts),
    ("properties-scribbled", scribble_properties),
    ("mapti-same-lpi-twice", same_lpi),
    ("mapti-over-mapti", mapti_over),
    ("mapd-over-mapd", mapd_over),
    ("mapc-unmap-with-pending", unmapc_pending),
    ("mapd-thousands", thousands),
    ("two-writers", two_writers),
    ("disable-while-executing", disable_executing),
    ("base-flip", base_flip),
    ("invall-flood", invall_flood),
];

const D: u32 = 9;
const L: u32 = 8600;
/// No machine here has RAM there.
const OUTSIDE: u64 = 0x00f0_0000_0000;

fn queue_at(bed: &mut Bed, at: u64) -> Verdict {
    bed.its.disable();
    bed.its.set_queue(at, 16);
    bed.its.enable();
    bed.its.write(reg::CWRITER, 0x80);
    its::wait(20, || bed.its.read(reg::CREADR) == 0x80);
    bed.its.write(reg::CWRITER, 0x100 | 1);
    its::wait(20, || bed.its.read(reg::CREADR) == 0x100);
    bed.probe()?;
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
    bed.probe()?;
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
    bed.probe()?;
    Ok(Pass)
}

fn queue_over(bed: &mut Bed, at: u64) -> Verdict {
    let queue = core::mem::replace(&mut bed.its.queue, at);
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
    bed.its.queue = queue;
    bed.drain(0);
    bed.probe()?;
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

/// Another CPU scribbles over the queue until it is told to stop.
static STOP: AtomicBool = AtomicBool::new(false);

fn scribbler(at: u64) -> u64 {
    let mut rounds = 0u64;
    while !STOP.load(Ordering::Relaxed) {
        its::fill(at, 2048, rounds.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        rounds += 1;
    }
    rounds
}

fn scribble_queue(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(Skip("needs two CPUs"));
    }
    STOP.store(false, Ordering::Relaxed);
    bed.start(1, scribbler, bed.its.queue);
    let mut all = true;
    for n in 0..200 {
        all &= bed.its.run(&[bed.device(n), its::mapti(n, 1, L + n, 0), its::int(n, 1)]);
    }
    STOP.store(true, Ordering::Relaxed);
    check("the other CPU runs", bed.finish(1) != u64::MAX)?;
    check("commands go on", all)?;
    bed.drain(0);
    bed.probe()?;
    Ok(Pass)
}

fn itt_shared(bed: &mut Bed) -> Verdict {
    let itt = bed.its.itt(0);
    bed.run(&[its::mapd(D, itt, 4), its::mapd(D + 1, itt, 4)])?;
    bed.run(&[its::mapti(D, 1, L, 0), its::mapti(D + 1, 1, L + 1, 0), its::int(D, 1)])?;
    bed.run(&[its::unmapd(D), its::int(D + 1, 1), its::discard(D + 1, 1)])?;
    bed.run(&[its::unmapd(D + 1)])?;
    bed.drain(0);
    bed.probe()?;
    Ok(Pass)
}

fn itt_reused(bed: &mut Bed) -> Verdict {
    let itt = bed.its.itt(0);
    for n in 0..20 {
        let device = D + n % 3;
        bed.run(&[its::mapd(device, itt, 4), its::mapti(device, n % 16, L + n, 0)])?;
        bed.run(&[its::int(device, n % 16), its::int(device, (n + 1) % 16)])?;
        bed.run(&[its::unmapd(device), its::mapd(device + 1, itt, 4)])?;
        bed.run(&[its::int(device + 1, n % 16), its::inv(device + 1, n % 16), its::invall(0)])?;
        bed.run(&[its::movi(device + 1, n % 16, 0), its::discard(device + 1, n % 16)])?;
    }
    bed.drain(0);
    bed.probe()?;
    Ok(Pass)
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
    bed.probe()?;
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

fn same_lpi(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(D), bed.device(D + 1)])?;
    bed.run(&[its::mapti(D, 1, L, 0), its::mapti(D + 1, 1, L, 0), its::int(D, 1)])?;
    bed.run(&[its::int(D + 1, 1), its::discard(D, 1), its::int(D + 1, 1)])?;
    bed.run(&[its::unmapd(D), its::unmapd(D + 1)])?;
    bed.drain(0);
    bed.probe()?;
    Ok(Pass)
}

fn mapti_over(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(D)])?;
    for n in 0..50 {
        bed.run(&[its::mapti(D, 1, L + n, 0), its::int(D, 1)])?;
    }
    bed.drain(0);
    bed.probe()?;
    Ok(Pass)
}

fn mapd_over(bed: &mut Bed) -> Verdict {
    for n in 0..30 {
        bed.run(&[its::mapd(D, bed.its.itt(n), 1 + n % 8), its::mapti(D, 1, L + n, 0)])?;
        bed.run(&[its::int(D, 1), its::int(D, 100)])?;
    }
    bed.drain(0);
    bed.probe()?;
    Ok(Pass)
}

fn unmapc_pending(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0), its::int(D, 1), its::unmapc(0)])?;
    bed.run(&[its::inv(D, 1), its::clear(D, 1), its::movi(D, 1, 1), its::discard(D, 1)])?;
    bed.drain(0);
    bed.probe()?;
    Ok(Pass)
}

fn thousands(bed: &mut Bed) -> Verdict {
    let devices = 1000..5000;
    for device in devices.clone() {
        bed.its.put(its::mapd(device, bed.its.itt(device), 4));
    }
    bed.its.ring();
    check("all MAPD are executed", bed.its.wait(60_000))?;
    devices.for_each(|device| bed.its.put(its::unmapd(device)));
    bed.its.ring();
    check("all MAPD V=0 are executed", bed.its.wait(60_000))?;
    bed.probe()?;
    Ok(Pass)
}

static ITS: AtomicU64 = AtomicU64::new(0);

/// Writes GITS_CWRITER again and again.
fn writer(offset: u64) -> u64 {
    let mut writes = 0u64;
    while !STOP.load(Ordering::Relaxed) {
        hw::write64(ITS.load(Ordering::Relaxed) + reg::CWRITER, offset);
        writes += 1;
    }
    writes
}

fn two_writers(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(Skip("needs two CPUs"));
    }
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0)])?;
    bed.its.disable();
    bed.its.set_queue(bed.its.queue, 4);
    for n in 0..512 {
        bed.its.put(if n % 64 == 0 { its::int(D, 1) } else { its::inv(D, 1) });
    }
    bed.its.tail.store(0x3f00, Ordering::Relaxed);
    ITS.store(bed.its.base, Ordering::Relaxed);
    STOP.store(false, Ordering::Relaxed);
    bed.its.enable();
    bed.start(1, writer, 0x3f00);
    for n in 0..2000u64 {
        bed.its.write(reg::CWRITER, n * 0x20 % 0x4000);
        check("GITS_CREADR stays in the queue", bed.its.read(reg::CREADR) & !1 < 0x4000)?;
    }
    STOP.store(true, Ordering::Relaxed);
    let writes = bed.finish(1);
    check("the other CPU wrote", writes != 0 && writes != u64::MAX)?;
    bed.its.ring();
    check("commands end", bed.its.wait(10_000))?;
    bed.expect(0, L)?;
    bed.drain(0);
    bed.probe()?;
    Ok(Pass)
}

/// Switches the ITS off and on again and again.
fn switcher(base: u64) -> u64 {
    let mut times = 0u64;
    while !STOP.load(Ordering::Relaxed) {
        hw::write32(base + reg::CTLR, 0);
        hw::write32(base + reg::CTLR, 1);
        times += 1;
    }
    times
}

fn disable_executing(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(Skip("needs two CPUs"));
    }
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0)])?;
    STOP.store(false, Ordering::Relaxed);
    bed.start(1, switcher, bed.its.base);
    for _ in 0..10_000 {
        bed.its.put(its::inv(D, 1));
    }
    bed.its.put(its::int(D, 1));
    bed.its.ring();
    let ended = bed.its.wait(30_000);
    STOP.store(true, Ordering::Relaxed);
    check("the other CPU runs", bed.finish(1) != u64::MAX)?;
    check("commands end", ended)?;
    bed.expect(0, L)?;
    bed.expect_none()?;
    bed.probe()?;
    Ok(Pass)
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
    bed.probe()?;
    Ok(Pass)
}

/// Longest time between two looks at the counter, in ticks.
fn heartbeat(_: u64) -> u64 {
    let (mut last, mut longest) = (hw::now(), 0);
    while !STOP.load(Ordering::Relaxed) {
        let now = hw::now();
        longest = longest.max(now - last);
        last = now;
    }
    longest
}

fn invall_flood(bed: &mut Bed) -> Verdict {
    bed.run(&[its::mapd(D, bed.its.itts, 11)])?;
    (0..2000).for_each(|n| bed.its.put(its::mapti(D, n, L + n, 0)));
    bed.run(&[])?;
    bed.its.disable();
    bed.its.set_queue(bed.its.queue, 256);
    bed.its.enable();
    (0..32767).for_each(|_| bed.its.put(its::invall(0)));
    STOP.store(false, Ordering::Relaxed);
    let beats = bed.cpus > 1;
    if beats {
        bed.start(1, heartbeat, 0);
    }
    let start = hw::now();
    bed.its.ring();
    let trap = hw::now() - start;
    let ended = bed.its.wait(120_000);
    let all = hw::now() - start;
    STOP.store(true, Ordering::Relaxed);
    let gap = if beats { bed.finish(1) } else { 0 };
    say!(
        "# invall-flood: {all} ticks for 32767 INVALLs, {trap} in the trap, longest gap {gap}; \
         {} ticks are 1 ms",
        hw::ms(1)
    );
    check("commands end", ended)?;
    equal("GITS_CREADR", bed.its.read(reg::CREADR), 32767u64 * 32)?;
    bed.run(&[its::int(D, 1999)])?;
    bed.expect(0, L + 1999)?;
    bed.probe()?;
    Ok(Pass)
}
