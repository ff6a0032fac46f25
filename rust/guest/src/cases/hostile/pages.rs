// SPDX-License-Identifier: GPL-2.0-only
//! Pages of the queue and of the property table leave the guest's memory while they
//! are in use, or are Xen's.

use core::sync::atomic::Ordering;

use super::{D, L};
use crate::bed::{Bed, Fail, Outcome::Pass, Outcome::Skip, Verdict, check, equal};
use crate::cases::Case;
use crate::cpus;
use crate::gic::{SPURIOUS, gicr};
use crate::hw;
use crate::its::{self, reg};

pub const CASES: &[Case] = &[
    ("queue-page-away", queue_away),
    ("queue-on-pages-of-xen", queue_of_xen),
    ("property-page-away", properties_away),
];

const PAGE: u64 = 4096;
const LPIS: u32 = 32;
const WHY: &str = "needs a hypervisor";

/// Does something while a page is away, and brings it back.
fn without<R>(page: u64, balloon: bool, work: impl FnOnce() -> R) -> Result<R, Fail> {
    hw::barrier();
    // SAFETY: it is of the arena, and `work` keeps away from it.
    check("Xen takes the page away", unsafe { hw::page_away(page, balloon) })?;
    let result = work();
    check("Xen gives it back", hw::page_back(page))?;
    Ok(result)
}

/// The queue stalls at a page that is away. One that goes when commands of it have
/// been executed is read as it was.
fn queue_away(bed: &mut Bed) -> Verdict {
    if !bed.machine.xen {
        return Ok(Skip(WHY));
    }
    for balloon in [false, true] {
        bed.its.disable();
        bed.its.set_queue(bed.its.queue, 4);
        bed.its.enable();
        let second = bed.its.queue + PAGE;
        bed.run(&[bed.fresh_device(D), its::mapti(D, 1, L, 0)])?;
        while bed.its.tail.load(Ordering::Relaxed) < PAGE {
            bed.its.put(its::inv(D, 1));
        }
        bed.its.put(its::int(D, 1));
        let stalled = without(second, balloon, || {
            bed.its.ring();
            hw::wait(1000, || bed.its.read(reg::CREADR) == PAGE | 1)
        })?;
        check("GITS_CREADR is stalled at the page that is away", stalled)?;
        bed.its.write(reg::CWRITER, bed.its.tail.load(Ordering::Relaxed) | 1);
        check("it goes on when the page is back", bed.its.wait(1000))?;
        bed.expect(0, L)?;
        (0..5).for_each(|_| bed.its.put(its::inv(D, 1)));
        bed.its.put(its::int(D, 1));
        let executed = without(second, balloon, || {
            bed.its.ring();
            bed.its.wait(1000)
        })?;
        check("what was in the page is executed", executed)?;
        bed.expect(0, L)?;
        bed.reset()?;
    }
    Ok(Pass)
}

/// The queue is what Xen shares with the guest.
fn queue_of_xen(bed: &mut Bed) -> Verdict {
    if !bed.machine.xen {
        return Ok(Skip(WHY));
    }
    let page = bed.its.queue + PAGE;
    for space in [0, 1] {
        // SAFETY: the page is of the arena, and the queue is empty.
        let there = unsafe { hw::page_of_xen(page, space) };
        check("Xen puts its page there", there)?;
        bed.its.disable();
        bed.its.set_queue(page, 1);
        bed.its.enable();
        bed.its.write(reg::CWRITER, 0xfe0);
        let executed = hw::wait(1000, || bed.its.read(reg::CREADR) == 0xfe0);
        bed.its.disable();
        check("Xen takes its page away", hw::page_back(page))?;
        check("what is there is skipped", executed)?;
        bed.reset()?;
    }
    Ok(Pass)
}

/// GICR_INVALLR and GICR_INVLPIR of the redistributor there.
fn invaller(frame: u64) -> u64 {
    let mut times = 0u64;
    while !cpus::stopped() {
        hw::write64(frame + gicr::INVALLR, 0);
        hw::write64(frame + gicr::INVLPIR, L.into());
        times += 1;
    }
    times
}

/// What was in the property table holds while it is away.
fn properties_away(bed: &mut Bed) -> Verdict {
    if !bed.machine.xen || bed.cpus < 2 {
        return Ok(Skip("needs a hypervisor and two CPUs"));
    }
    bed.run(&[its::mapd(D, bed.its.itts, 5)])?;
    bed.run_many((0..LPIS).map(|n| its::mapti(D, n, L + n, (n % 2) as u16)))?;
    let page = bed.its.properties + u64::from(L - 8192) / PAGE * PAGE;
    for round in 0..20u32 {
        without(page, round % 2 == 0, || {
            cpus::start_endless(1, invaller, bed.redistributors[0]);
            let ints = (0..LPIS).map(|n| its::int(D, n));
            let moves = (0..LPIS).map(|n| its::movi(D, n, ((n + round) % 2) as u16));
            let executed = bed.run_many(ints.chain(moves).chain([its::invall(0), its::invall(1)]));
            cpus::wait_for_a_round();
            cpus::stop(1..2);
            check("the other CPU wrote", !matches!(cpus::finish(1), 0 | u64::MAX))?;
            executed
        })??;
        let taken = |cpu| (0..2 * LPIS).take_while(|_| bed.peek(cpu) != SPURIOUS).count();
        equal("each LPI is taken once", (taken(0) + taken(1)) as u64, u64::from(LPIS))?;
    }
    bed.its.property(L, 0xa0);
    bed.run(&[its::movi(D, 0, 0), its::inv(D, 0), its::int(D, 0)])?;
    equal("a change is seen when it is back", bed.peek(0), SPURIOUS)?;
    bed.its.property(L, 0xa1);
    bed.run(&[its::inv(D, 0)])?;
    bed.expect(0, L)?;
    Ok(Pass)
}
