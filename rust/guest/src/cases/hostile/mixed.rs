// SPDX-License-Identifier: GPL-2.0-only
//! LPIs among other interrupts of the same CPU: they take list registers from each
//! other.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{D, L};
use crate::bed::{Bed, Fail, Outcome::Pass, Outcome::Skip, Verdict, check, equal};
use crate::cases::Case;
use crate::console::say;
use crate::cpus;
use crate::gic::{self, SPURIOUS, gicr};
use crate::hw;
use crate::its;

pub const CASES: &[Case] = &[
    ("sgis-and-lpis-by-priority", by_priority),
    ("lpi-before-less-urgent-sgis", before_patient),
    ("timer-sgis-and-lpis-storm", storm),
];

/// SGIs besides the one that wakes a CPU, the timer's PPI, and LPIs.
const SGIS: core::ops::RangeInclusive<u32> = 1..=7;
const TIMER: u32 = 27;
const LPIS: u32 = 24;

/// Enables these SGIs and PPIs of a redistributor.
fn enable(frame: u64, interrupts: u32) {
    let group = frame + gicr::IGROUPR0;
    hw::write32(group, hw::read32(group) | interrupts);
    hw::write32(frame + gicr::ISENABLER0, interrupts);
}

/// The five bits of priority that Xen keeps, spread over its range.
fn priority(n: u32) -> u8 {
    (8 * (n % 28) + 8) as u8
}

/// Only what wakes the CPU is more urgent than that.
const WAKE_ONLY: u64 = 8;

/// Lets CPU 1 take interrupts, or not.
fn set_mask(bed: &Bed, mask: u64) {
    let set = |mask| {
        gic::set_mask(mask);
        0
    };
    bed.on(1, set, mask);
}

/// What became pending while the CPU took nothing is taken once each, the most
/// urgent first.
fn all_in_order(
    bed: &Bed,
    of_sgi: impl Fn(u32) -> u8,
    of_lpi: impl Fn(u32) -> u8,
) -> Result<(), Fail> {
    let (mut seen, mut last) = (0u64, 0);
    for _ in 0..SGIS.count() as u32 + LPIS {
        let intid = bed.take(1);
        let n = intid.wrapping_sub(L);
        let (bit, priority) = if SGIS.contains(&intid) {
            (intid, of_sgi(intid))
        } else if n < LPIS {
            (8 + n, of_lpi(n))
        } else {
            return Err(Fail("each is taken", intid.into(), seen));
        };
        equal("none is taken twice", seen & 1 << bit, 0u64)?;
        check("the most urgent comes first", priority >= last)?;
        seen |= 1 << bit;
        last = priority;
    }
    Ok(())
}

fn by_priority(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(Skip("needs two CPUs"));
    }
    let (frame, mpidr) = (bed.redistributors[1], bed.machine.cpus[1]);
    enable(frame, 0xfe);
    bed.run(&[its::mapd(D, bed.its.itts, 5)])?;
    bed.run_many((0..LPIS).map(|n| its::mapti(D, n, L + n, 1)))?;
    let mut result = Ok(());
    for round in 0..20u32 {
        set_mask(bed, WAKE_ONLY);
        let of_sgi = |n: u32| priority(5 * n + round);
        let of_lpi = |n: u32| priority(11 * n + 3 * round);
        SGIS.for_each(|n| hw::write8(frame + gicr::IPRIORITYR0 + u64::from(n), of_sgi(n)));
        (0..LPIS).for_each(|n| bed.its.property(L + n, of_lpi(n) | 1));
        bed.run_many((0..LPIS).map(|n| its::inv(D, n)))?;
        for n in 0..LPIS {
            bed.its.put(its::int(D, n));
            if n % 3 == 0 && SGIS.contains(&(n / 3)) {
                bed.its.ring();
                gic::send(mpidr, n / 3);
            }
        }
        bed.run(&[])?;
        set_mask(bed, 0xff);
        result = all_in_order(bed, of_sgi, of_lpi);
        if result.is_err() {
            break;
        }
    }
    hw::write32(frame + gicr::ICENABLER0, 0xfe);
    bed.drain(1);
    result?;
    Ok(Pass)
}

/// SGIs that are more urgent than the LPI, as many as there may be list registers,
/// and so many that are less urgent.
const URGENT: core::ops::RangeInclusive<u32> = 1..=4;
const PATIENT: core::ops::RangeInclusive<u32> = 5..=12;
/// So many of the latter come again and again.
const AGAIN: u64 = 500;

/// Takes what is pending until an LPI comes, and sends each of the less urgent SGIs
/// anew. How many of these came before the LPI: a `Job` for the CPU of that MPIDR.
fn count_patient(mpidr: u64) -> u64 {
    gic::set_mask(0xff);
    let mut count = 0;
    while count < AGAIN {
        let intid = cpus::take(hw::ms(100)) as u32;
        match intid {
            SPURIOUS | 8192.. => break,
            sgi if PATIENT.contains(&sgi) => {
                count += 1;
                gic::send(mpidr, sgi);
            }
            _ => {}
        }
    }
    count
}

/// An LPI that waited for a list register behind urgent SGIs comes before those that
/// are less urgent than it is.
fn before_patient(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(Skip("needs two CPUs"));
    }
    let (frame, mpidr) = (bed.redistributors[1], bed.machine.cpus[1]);
    enable(frame, 0x1ffe);
    let priority = |sgis: core::ops::RangeInclusive<u32>, priority| {
        sgis.for_each(|n| hw::write8(frame + gicr::IPRIORITYR0 + u64::from(n), priority));
    };
    priority(URGENT, 0x20);
    priority(PATIENT, 0xc0);
    bed.its.property(L, 0x81);
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 1), its::inv(D, 1)])?;
    set_mask(bed, WAKE_ONLY);
    URGENT.for_each(|n| gic::send(mpidr, n));
    hw::wait(5, || false);
    bed.run(&[its::int(D, 1)])?;
    PATIENT.for_each(|n| gic::send(mpidr, n));
    hw::wait(5, || false);
    let before = bed.on(1, count_patient, mpidr);
    hw::write32(frame + gicr::ICENABLER0, 0x1ffe);
    bed.drain(1);
    equal("less urgent SGIs that came before the LPI", before, 0u64)?;
    Ok(Pass)
}

static LPI: AtomicU64 = AtomicU64::new(0);
static SGI: AtomicU64 = AtomicU64::new(0);
static PPI: AtomicU64 = AtomicU64::new(0);

/// Takes whatever comes, with a timer that is always late. How many it does not
/// know.
fn taker(_: u64) -> u64 {
    hw::start_timer();
    let mut wrong = 0;
    while !cpus::stopped() {
        let intid = gic::acknowledge();
        let counter = match intid {
            SPURIOUS => continue,
            TIMER => {
                hw::start_timer();
                &PPI
            }
            sgi if SGIS.contains(&sgi) => &SGI,
            8192.. => &LPI,
            _ => {
                wrong += 1;
                continue;
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        gic::end(intid);
    }
    hw::stop_timer();
    wrong
}

/// A CPU is flooded with all kinds at once. Each of them still comes afterwards.
fn storm(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(Skip("needs two CPUs"));
    }
    let (frame, mpidr) = (bed.redistributors[1], bed.machine.cpus[1]);
    // The timer never stops, so it is the least urgent.
    hw::write8(frame + gicr::IPRIORITYR0 + u64::from(TIMER), 0xf0);
    SGIS.for_each(|n| hw::write8(frame + gicr::IPRIORITYR0 + u64::from(n), priority(4 * n)));
    enable(frame, 0xfe | 1 << TIMER);
    [&LPI, &SGI, &PPI].iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    bed.run(&[its::mapd(D, bed.its.itts, 5)])?;
    bed.run_many((0..LPIS).map(|n| its::mapti(D, n, L + n, 1)))?;
    cpus::start_endless(1, taker, 0);
    let mut executed = true;
    for n in 0..300u32 {
        let lpi = n % LPIS;
        bed.its.property(L + lpi, priority(n) | u8::from(n % 3 != 0));
        (0..LPIS).for_each(|n| bed.its.put(its::int(D, n)));
        bed.its.put(its::inv(D, lpi));
        bed.its.ring();
        SGIS.for_each(|n| gic::send(mpidr, n));
        executed &= bed.its.wait(10_000);
    }
    (0..LPIS).for_each(|n| bed.its.property(L + n, 0xa1));
    let mut result = bed.run(&[its::invall(1)]);
    hw::wait(100, || false);
    for counter in [&LPI, &SGI, &PPI] {
        let before = counter.load(Ordering::Relaxed);
        bed.its.put(its::int(D, 3));
        bed.its.ring();
        gic::send(mpidr, 3);
        if !hw::wait(2000, || counter.load(Ordering::Relaxed) > before) {
            result = Err(Fail("each kind still comes", before, before + 1));
        }
    }
    cpus::stop(1..2);
    let wrong = cpus::finish(1);
    hw::write32(frame + gicr::ICENABLER0, 0xfe | 1 << TIMER);
    bed.drain(1);
    let [lpis, sgis, ppis] = [&LPI, &SGI, &PPI].map(|counter| counter.load(Ordering::Relaxed));
    say!("# timer-sgis-and-lpis-storm: {lpis} LPIs, {sgis} SGIs, {ppis} of the timer");
    check("commands end", executed)?;
    result?;
    equal("no other interrupt came", wrong, 0u64)?;
    Ok(Pass)
}
