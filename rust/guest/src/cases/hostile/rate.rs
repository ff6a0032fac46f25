// SPDX-License-Identifier: GPL-2.0-only
//! A device that fires more often than Xen lets it. It needs one that fires, and
//! a low limit: Xen's `its-lpi-rate=`, of which `its.rate=` tells this guest.

use super::{D, L};
use crate::bed::{Bed, Fail, Outcome::Pass, Verdict, check, equal};
use crate::cases::Case;
use crate::console::say;
use crate::cpus;
use crate::edu::Edu;
use crate::hw;
use crate::its::{self, reg};

pub const CASES: &[Case] =
    &[("device-above-its-rate", storm), ("device-above-its-rate-loses-none", one_by_one)];

/// Xen counts in portions of so many milliseconds.
const PORTION: u64 = 10;
/// A host spreads a device's events over its CPUs. So many reach them all.
const EVENTS: u16 = 4;
/// For how many milliseconds each fires; on a busy machine longer, so that it is
/// let through again some times.
const STORM: u64 = 500;
const LONGEST_STORM: u64 = 20_000;
const AGAIN: u64 = 4;
/// When nothing came for so many milliseconds, nothing is left that was masked.
const QUIET: u64 = 300;
/// Interrupts of which each is waited for.
const SINGLE: u64 = 150;

/// The device with all its events mapped, and how many interrupts Xen lets
/// through in a portion: its share, and one more of the event that fires,
/// because what is too much is delivered before it is masked.
fn device(bed: &Bed) -> Result<(Edu, u64), Fail> {
    check("there is a rate on the command line", bed.rate != 0)?;
    let edu = Edu::find(&bed.machine, 0, bed.its.base + reg::TRANSLATER);
    let edu = edu.ok_or(Fail("there is an edu device", 0, 1))?;
    bed.run(&[its::mapd(edu.device, bed.its.itt(D), 4)])?;
    for event in 0..u32::from(EVENTS) {
        bed.run(&[its::mapti(edu.device, event, L + event, 0)])?;
    }
    Ok((edu, (bed.rate * PORTION / 1000).max(1) + 1))
}

/// It fires without end, and what comes is taken at once.
fn storm(bed: &mut Bed) -> Verdict {
    let (edu, most) = device(bed)?;
    for event in 0..EVENTS {
        edu.set_event(event);
        let (mut fired, mut taken) = (0u64, 0u64);
        let start = hw::now();
        let enough = |taken| if taken > AGAIN * most { STORM } else { LONGEST_STORM };
        while hw::now() - start < hw::ms(enough(taken)) {
            edu.fire();
            fired += 1;
            taken += u64::from(cpus::take(0) == u64::from(L) + u64::from(event));
        }
        let took = (hw::now() - start) / hw::ms(1);
        // What the vCPU had left, and the portions that had begun or began.
        let limit = (took / PORTION + 3) * most;
        say!(
            "# device-above-its-rate: {fired} times in {took} ms, {taken} taken of {limit} at most"
        );
        check("the device fires far more often than it may", fired > 4 * limit)?;
        if taken > limit {
            return Err(Fail("no more are taken than may come", taken, limit));
        }
        check("it is let through again and again", taken > AGAIN * most)?;
        // Above the rate to its end, it still has not lost the next one.
        bed.on(0, cpus::drain, hw::ms(QUIET));
        edu.fire();
        bed.expect(0, L + u32::from(event))?;
    }
    edu.clear();
    bed.expect_none()?;
    Ok(Pass)
}

/// It fires when the last one has been taken: each comes, but not before its time.
fn one_by_one(bed: &mut Bed) -> Verdict {
    let (edu, most) = device(bed)?;
    edu.set_event(0);
    let start = hw::now();
    for _ in 0..SINGLE {
        edu.fire();
        equal("each is taken", bed.take(0), L)?;
    }
    let took = (hw::now() - start) / hw::ms(1);
    edu.clear();
    bed.expect_none()?;
    let least = (SINGLE / most).saturating_sub(3) * PORTION;
    say!("# device-above-its-rate-loses-none: {SINGLE} in {took} ms, {least} at least");
    if took < least {
        return Err(Fail("they take as many ms as the rate wants", took, least));
    }
    Ok(Pass)
}
