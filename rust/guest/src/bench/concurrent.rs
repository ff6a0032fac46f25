// SPDX-License-Identifier: GPL-2.0-only
//! Every CPU has a device of its own fire, for itself or all for the first: what do
//! they share, and how many LPIs do they get through?

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Bench, EDU_LPI, begin, end};
use crate::bed::{Fail, check};
use crate::console::say;
use crate::cpus;
use crate::edu::{self, Edu};
use crate::gic;
use crate::hw;
use crate::its::{self, reg};

const TIMES: u32 = 16;
/// Milliseconds for which LPIs are timed.
const LONG: u64 = 1500;

/// The round that goes on; a CPU fires once in each.
static ROUND: AtomicU64 = AtomicU64::new(0);
/// LPIs that have been taken in all rounds.
static TAKEN: AtomicU64 = AtomicU64::new(0);
/// LPIs are for the CPU that has them fired, not for the first.
static OWN: AtomicBool = AtomicBool::new(false);

/// Takes what is pending here, up to `most`.
fn take(most: u64) -> u64 {
    let mut taken = 0;
    while taken < most && gic::pending() >= EDU_LPI && gic::pending() != gic::SPURIOUS {
        gic::end(gic::acknowledge());
        taken += 1;
    }
    TAKEN.fetch_add(taken, Ordering::Release);
    taken
}

/// Fires once in each round, and takes what comes here; a `Job`.
fn in_rounds(bar: u64) -> u64 {
    let mut round = ROUND.load(Ordering::Acquire);
    while !cpus::stopped() {
        if ROUND.load(Ordering::Acquire) != round {
            round += 1;
            edu::raise(bar);
        }
        if OWN.load(Ordering::Relaxed) {
            take(u64::MAX);
        }
        hw::give_way();
    }
    // An LPI that was taken is to leave its list register before its device goes.
    hw::xen_version();
    0
}

/// Fires again whenever its LPI has been taken here; how many were. A `Job`.
fn at_once(bar: u64) -> u64 {
    let mut taken = 0;
    while !cpus::stopped() {
        edu::raise(bar);
        // One that came while another was pending is merged with that.
        for _ in 0..1000 {
            let now = take(u64::MAX);
            taken += now;
            if now != 0 {
                break;
            }
        }
    }
    taken
}

/// A device for each CPU; its LPI goes to that CPU, or then to the first.
fn set_up(bench: &Bench, own: bool) -> Result<[u64; crate::boot::MAX_CPUS], Fail> {
    let doorbell = bench.bed.its.base + reg::TRANSLATER;
    let mut bars = [0; crate::boot::MAX_CPUS];
    for (n, bar) in (0u32..).zip(&mut bars).take(bench.bed.cpus) {
        let edu = Edu::find(&bench.bed.machine, n as usize, doorbell);
        let edu = edu.ok_or(Fail("each CPU has an edu device", n.into(), 0))?;
        // An event each, as a device that was unmapped does not fire again in Xen's C version.
        let (event, target) = if own { (0, n as u16) } else { (1, 0) };
        if own {
            let itt = bench.bed.its.itt(4000 + n);
            bench.bed.run(&[its::mapd(edu.device, itt, 5)])?;
        }
        let lpi = EDU_LPI + 2 * n + event;
        bench.bed.run(&[its::mapti(edu.device, event, lpi, target)])?;
        edu.set_event(event as u16);
        *bar = edu.bar;
    }
    OWN.store(own, Ordering::Relaxed);
    Ok(bars)
}

fn start(bench: &Bench, job: cpus::Job, bars: &[u64]) {
    for (cpu, bar) in bars.iter().enumerate().take(bench.bed.cpus).skip(1) {
        cpus::start_endless(cpu, job, *bar);
    }
}

fn stop(bench: &Bench) -> Result<u64, Fail> {
    let all = 1..bench.bed.cpus;
    cpus::stop(all.clone());
    let mut sum = 0;
    for cpu in all {
        let result = cpus::finish(cpu);
        check("the other CPU answers", result != u64::MAX)?;
        sum += result;
    }
    Ok(sum)
}

/// All CPUs fire once, between two marks.
pub fn counted(bench: &mut Bench) -> Result<(), Fail> {
    let all = bench.bed.cpus as u64;
    for own in [true, false] {
        let bars = set_up(bench, own)?;
        start(bench, in_rounds, &bars);
        let op = bench.next();
        for _ in 0..TIMES {
            hw::wait(1, || {
                hw::give_way();
                false
            });
            let want = TAKEN.load(Ordering::Acquire) + all;
            begin(op);
            ROUND.fetch_add(1, Ordering::Release);
            edu::raise(bars[0]);
            let came = hw::wait(1000, || {
                take(u64::MAX);
                hw::give_way();
                TAKEN.load(Ordering::Acquire) >= want
            });
            end(op);
            check("each LPI is taken", came)?;
        }
        stop(bench)?;
        hw::xen_version();
        let to = if own { "different-vcpus" } else { "one-vcpu" };
        bench.said(TIMES, 0, format_args!("concurrent/{all}/{to}"));
    }
    Ok(())
}

/// All CPUs fire as fast as they can: how many LPIs they take in a while.
pub fn timed(bench: &mut Bench) -> Result<(), Fail> {
    let all = bench.bed.cpus;
    let bars = set_up(bench, true)?;
    start(bench, at_once, &bars);
    let begun = hw::now();
    let mut taken = 0;
    while hw::now() - begun < hw::ms(LONG) {
        edu::raise(bars[0]);
        for _ in 0..1000 {
            let now = take(u64::MAX);
            taken += now;
            if now != 0 {
                break;
            }
        }
    }
    taken += stop(bench)?;
    let took = (hw::now() - begun) / hw::ms(1);
    say!("# throughput cpus={all} lpis={taken} ms={took}");
    Ok(())
}
