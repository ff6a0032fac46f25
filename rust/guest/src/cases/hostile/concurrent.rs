// SPDX-License-Identifier: GPL-2.0-only
//! Several CPUs at the registers at once.

use core::sync::atomic::Ordering;

use super::{D, L};
use crate::bed::{Bed, Fail, Outcome::Pass, Outcome::Skip, Verdict, check, equal};
use crate::cases::Case;
use crate::cpus;
use crate::gic::SPURIOUS;
use crate::hw;
use crate::its::{self, reg};

pub const CASES: &[Case] = &[
    ("two-writers", two_writers),
    ("cwriter-oor-meanwhile", out_of_range),
    ("disable-while-executing", disable_executing),
    ("queue-moved-meanwhile", queue_moved),
    ("cwriter-then-cpu-off", cpu_off),
    ("cpu-off-with-pending", off_with_pending),
    ("commands-write-over-queue", scribble_queue),
    ("commands-write-over-tables", scribble_tables),
    ("all-registers-at-once", all_registers),
];

const ONE: crate::bed::Outcome = Skip("needs two CPUs");

/// Addresses that jobs are told as one: of a register and a value below 2^32.
fn pack(address: u64, value: u64) -> u64 {
    address << 32 | value
}

/// Writes a value to a register again and again.
fn writer(what: u64) -> u64 {
    let mut writes = 0u64;
    while !cpus::stopped() {
        hw::write64(what >> 32, what & 0xffff_ffff);
        writes += 1;
    }
    writes
}

/// Ends CPU 1's job. Fails if it did nothing, or is dead.
fn end(what: &'static str) -> Result<(), Fail> {
    cpus::wait_for_a_round();
    cpus::stop(1..2);
    let times = cpus::finish(1);
    check(what, times != 0 && times != u64::MAX)
}

/// A queue of 16 KB, with an INT among 63 INVs, up to 0x3f00.
fn fill_queue(bed: &mut Bed) -> Result<(), Fail> {
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0)])?;
    bed.its.disable();
    bed.its.set_queue(bed.its.queue, 4);
    for n in 0..512 {
        bed.its.put(if n % 64 == 0 { its::int(D, 1) } else { its::inv(D, 1) });
    }
    bed.its.tail.store(0x3f00, Ordering::Relaxed);
    bed.its.enable();
    Ok(())
}

fn two_writers(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(ONE);
    }
    fill_queue(bed)?;
    cpus::start_endless(1, writer, pack(bed.its.base + reg::CWRITER, 0x3f00));
    for n in 0..200u64 {
        bed.its.write(reg::CWRITER, n * 0x20 % 0x4000);
        check("GITS_CREADR stays in the queue", bed.its.read(reg::CREADR) & !1 < 0x4000)?;
    }
    end("the other CPU wrote")?;
    bed.its.ring();
    check("commands end", bed.its.wait(10_000))?;
    bed.expect(0, L)?;
    bed.drain(0);
    Ok(Pass)
}

fn out_of_range(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(ONE);
    }
    fill_queue(bed)?;
    // Beyond these 16 KB, but within what the register holds.
    cpus::start_endless(1, writer, pack(bed.its.base + reg::CWRITER, 0xf_ffe0));
    for n in 0..200u64 {
        bed.its.write(reg::CWRITER, n * 0x20 % 0x4000);
        check("GITS_CREADR stays in the queue", bed.its.read(reg::CREADR) & !1 < 0x4000)?;
    }
    end("the other CPU wrote")?;
    bed.its.ring();
    check("commands end", bed.its.wait(10_000))?;
    bed.expect(0, L)?;
    bed.drain(0);
    Ok(Pass)
}

/// Switches the ITS off and on again and again.
fn switcher(base: u64) -> u64 {
    let mut times = 0u64;
    while !cpus::stopped() {
        hw::write32(base + reg::CTLR, 0);
        hw::write32(base + reg::CTLR, 1);
        times += 1;
    }
    times
}

fn disable_executing(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(ONE);
    }
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0)])?;
    cpus::start_endless(1, switcher, bed.its.base);
    for _ in 0..10_000 {
        bed.its.put(its::inv(D, 1));
    }
    bed.its.put(its::int(D, 1));
    bed.its.ring();
    let ended = bed.its.wait(30_000);
    end("the other CPU switched")?;
    check("commands end", ended)?;
    bed.expect(0, L)?;
    bed.expect_none()?;
    Ok(Pass)
}

/// Switches the ITS off, and GITS_CBASER to another queue and back.
fn mover(base: u64) -> u64 {
    let mut times = 0u64;
    let queue = hw::read64(base + reg::CBASER);
    while !cpus::stopped() {
        hw::write32(base + reg::CTLR, 0);
        hw::write64(base + reg::CBASER, queue ^ 0x8_0000);
        hw::write64(base + reg::CBASER, queue);
        hw::write32(base + reg::CTLR, 1);
        times += 1;
    }
    times
}

fn queue_moved(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(ONE);
    }
    fill_queue(bed)?;
    cpus::start_endless(1, mover, bed.its.base);
    for n in 0..500u64 {
        bed.its.write(reg::CWRITER, n * 0x60 % 0x4000);
        check("GITS_CREADR stays in the queue", bed.its.read(reg::CREADR) & !1 < 0x4000)?;
    }
    end("the other CPU moved it")?;
    bed.drain(0);
    Ok(Pass)
}

/// Writes GITS_CWRITER, and is gone.
fn write_and_die(what: u64) -> u64 {
    hw::write64(what >> 32, what & 0xffff_ffff);
    loop {
        hw::psci(true, 0x8400_0002, 0, 0, 0);
    }
}

fn cpu_off(bed: &mut Bed) -> Verdict {
    if bed.cpus < 3 || !bed.machine.hvc {
        return Ok(Skip("needs three CPUs, one of them to switch off"));
    }
    for round in 0..5u32 {
        bed.run(&[bed.fresh_device(D), its::mapti(D, 1, L + round, 0)])?;
        for _ in 0..5000 {
            bed.its.put(its::inv(D, 1));
        }
        bed.its.put(its::int(D, 1));
        let tail = bed.its.tail.load(Ordering::Relaxed);
        hw::barrier();
        cpus::start(1, write_and_die, pack(bed.its.base + reg::CWRITER, tail));
        check("the CPU is off", cpus::wait_off(&bed.machine, 1))?;
        let executed = bed.its.wait(10_000);
        let taken = bed.take(0);
        // In any case, or no other case has it.
        bed.switch_on(1)?;
        check("what it had queued is executed", executed)?;
        equal("the LPI is taken", taken, L + round)?;
        bed.run(&[its::unmapd(D)])?;
    }
    bed.expect_none()?;
    Ok(Pass)
}

fn die(_: u64) -> u64 {
    loop {
        hw::psci(true, 0x8400_0002, 0, 0, 0);
    }
}

/// What is pending on a CPU that is off can be moved, or waits there.
fn off_with_pending(bed: &mut Bed) -> Verdict {
    if bed.cpus < 3 || !bed.machine.hvc {
        return Ok(Skip("needs three CPUs, one of them to switch off"));
    }
    bed.run(&[its::mapd(D, bed.its.itts, 5)])?;
    for n in 0..32 {
        bed.its.put(its::mapti(D, n, L + n, 1));
        bed.its.put(its::int(D, n));
    }
    bed.run(&[])?;
    cpus::start(1, die, 0);
    check("the CPU is off", cpus::wait_off(&bed.machine, 1))?;
    // Some move, some are cleared, some fire once more, some wait.
    for n in 0..8 {
        bed.its.put(its::movi(D, n, 0));
        bed.its.put(its::clear(D, n + 8));
        bed.its.put(its::int(D, n + 16));
    }
    bed.run(&[])?;
    let all = |cpu| {
        let lpis = core::iter::repeat_with(|| bed.peek(cpu)).take_while(|lpi| *lpi != SPURIOUS);
        lpis.fold(0u64, |seen, lpi| seen | 1 << (lpi.wrapping_sub(L) & 63))
    };
    let moved = all(0);
    // In any case, or no other case has it.
    bed.switch_on(1)?;
    let stayed = all(1);
    equal("those that moved are taken", moved, 0xffu64)?;
    equal("the others are taken when it is on again", stayed, 0xffff_0000u64)?;
    Ok(Pass)
}

/// Scribbles over 2 KB until told to stop.
fn scribbler(at: u64) -> u64 {
    let mut rounds = 0u64;
    while !cpus::stopped() {
        its::fill(at, 2048, rounds.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        rounds += 1;
    }
    rounds
}

fn scribble_queue(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(ONE);
    }
    cpus::start_endless(1, scribbler, bed.its.queue);
    let mut all = true;
    for n in 0..200 {
        all &= bed.its.run(&[bed.device(n), its::mapti(n, 1, L + n, 0), its::int(n, 1)]);
    }
    end("the other CPU scribbled")?;
    check("commands go on", all)?;
    bed.drain(0);
    Ok(Pass)
}

fn scribble_tables(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(ONE);
    }
    let tables = [
        bed.its.devices,
        bed.its.collections,
        bed.its.itt(0),
        bed.its.properties,
        bed.pending[0] + 1024,
    ];
    for table in tables {
        cpus::start_endless(1, scribbler, table);
        let mut all = true;
        for n in 0..60 {
            let event = n % 16;
            all &=
                bed.its.run(&[bed.device(0), its::mapti(0, event, L + n, 0), its::int(0, event)]);
            all &= bed.its.run(&[its::inv(0, event), its::invall(0), its::movi(0, event, 1)]);
            all &= bed.its.run(&[its::clear(0, event), its::discard(0, event), its::unmapd(0)]);
        }
        end("the other CPU scribbled")?;
        check("commands go on", all)?;
        bed.reset()?;
    }
    Ok(Pass)
}

/// Reads and writes all registers that a driver uses, with what was in them.
fn meddler(base: u64) -> u64 {
    let mut times = 0u64;
    while !cpus::stopped() {
        for register in [reg::CBASER, reg::BASER, reg::BASER + 8, reg::CREADR, reg::TYPER] {
            let value = hw::read64(base + register);
            hw::write64(base + register, value);
        }
        hw::write64(base + reg::CWRITER, hw::read64(base + reg::CWRITER) | 1);
        times += 1;
    }
    times
}

fn all_registers(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(ONE);
    }
    hw::EXPECTED.store(true, Ordering::Relaxed);
    cpus::start_endless(1, meddler, bed.its.base);
    for n in 0..100u32 {
        let event = n % 16;
        bed.its.put(bed.device(D));
        bed.its.put(its::mapti(D, event, L + event, 0));
        bed.its.put(its::int(D, event));
        bed.its.ring();
        if n % 8 == 0 {
            bed.its.disable();
            bed.its.enable();
        }
        cpus::take_some();
    }
    let ended = end("the other CPU meddled");
    hw::EXPECTED.store(false, Ordering::Relaxed);
    ended?;
    bed.drain(0);
    Ok(Pass)
}
