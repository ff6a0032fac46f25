// SPDX-License-Identifier: GPL-2.0-only
//! LPIs for a vCPU on another CPU than the one that sets them off. Whether the
//! host's LPI comes to that other CPU is up to the hypervisor; it may depend on
//! the event, so there are two.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{Bench, EDU_LPI, TIMES, begin, end};
use crate::bed::{Fail, check};
use crate::cpus;
use crate::gic;
use crate::hw;
use crate::its;

/// The operation in progress, and how many LPIs have been taken.
static OP: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Takes LPIs as they come, until told to stop; a `Job`. With 1 it sleeps meanwhile.
fn taker(sleeps: u64) -> u64 {
    while !cpus::stopped() {
        if sleeps != 0 {
            hw::sleep();
        } else {
            hw::give_way();
        }
        let intid = gic::pending();
        if intid >= EDU_LPI {
            end(OP.load(Ordering::Relaxed));
            gic::end(gic::acknowledge());
            hw::xen_version();
            TAKEN.fetch_add(1, Ordering::Release);
        }
        gic::forget_wake();
    }
    0
}

/// The target runs, and is blocked.
pub fn all(bench: &mut Bench) -> Result<(), Fail> {
    check("there are two CPUs", bench.bed.cpus > 1)?;
    let edu = bench.with_edu()?;
    for (what, sleeps) in [("running", 0), ("blocked", 1)] {
        for event in 0..2 {
            let device = edu.device;
            let commands =
                [its::discard(device, event), its::mapti(device, event, EDU_LPI + event, 1)];
            bench.bed.run(&commands)?;
            edu.set_event(event as u16);
            let op = bench.next();
            OP.store(op, Ordering::Relaxed);
            cpus::start_endless(1, taker, sleeps);
            for _ in 0..TIMES {
                // Time for the other to fall asleep.
                hw::wait(1, || {
                    hw::give_way();
                    false
                });
                let before = TAKEN.load(Ordering::Acquire);
                begin(op);
                edu.fire();
                let taken = hw::wait(1000, || {
                    hw::give_way();
                    TAKEN.load(Ordering::Acquire) != before
                });
                check("the other CPU takes the LPI", taken)?;
            }
            cpus::stop(1..2);
            check("the other CPU answers", cpus::finish(1) != u64::MAX)?;
            bench.said(TIMES, 0, format_args!("lpi/other-cpu-{what}/event-{event}"));
        }
    }
    Ok(())
}
