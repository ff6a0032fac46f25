// SPDX-License-Identifier: GPL-2.0-only
//! Hypercalls that the ITS has a part in.

use super::{D, L};
use crate::bed::{Bed, Fail, Outcome::Pass, Outcome::Skip, Verdict, check, equal};
use crate::boot::MAX_CPUS;
use crate::cases::Case;
use crate::console::say;
use crate::cpus;
use crate::gic::gicr;
use crate::hw;
use crate::its;

pub const CASES: &[Case] = &[
    ("devices-announced-meanwhile", announced_meanwhile),
    ("announced-until-none-is-left", announced_until_full),
    ("lpi-ends-a-block", ends_a_block),
];

/// The first of some PCI functions, which need not be there: Xen gives 32 LPIs to
/// each of them.
const FUNCTION: u16 = 0x180;
const FUNCTIONS: u16 = 6;

/// Announces them and takes them away, in an order that `from` begins.
fn announcer(from: u64) -> u64 {
    let mut times = 0;
    while !cpus::stopped() {
        let number = from + times;
        hw::announce(FUNCTION + (number % u64::from(FUNCTIONS)) as u16, number % 7 < 4);
        times += 1;
    }
    times
}

/// All CPUs but two announce devices and take them away, while commands map and
/// unmap the same ones.
fn announced_meanwhile(bed: &mut Bed) -> Verdict {
    if !bed.machine.xen || bed.cpus < 3 {
        return Ok(Skip("needs a hypervisor and three CPUs"));
    }
    let others = 1..bed.cpus - 1;
    others.clone().for_each(|cpu| cpus::start_endless(cpu, announcer, cpu as u64 * 3));
    let mut all = true;
    for n in 0..150u32 {
        let device = u32::from(FUNCTION) + n % u32::from(FUNCTIONS);
        bed.its.put(its::mapd(device, bed.its.itts + u64::from(n % 8) * 0x4000, 1 + n % 10));
        for event in 0..2 {
            bed.its.put(its::mapti(device, event, L + 8 * event + n % 8, event as u16));
            bed.its.put(its::int(device, event));
        }
        if n % 3 != 0 {
            bed.its.put(its::unmapd(device));
        }
        bed.its.ring();
        if n % 16 == 0 {
            bed.its.disable();
            bed.its.set_table(0, bed.its.devices, bed.its.devices_size, false);
            bed.its.set_table(0, bed.its.devices, bed.its.devices_size, true);
            bed.its.enable();
        }
        all &= bed.its.wait(10_000);
        cpus::take_some();
    }
    cpus::stop(others.clone());
    let times: [u64; MAX_CPUS] =
        core::array::from_fn(|cpu| if others.contains(&cpu) { cpus::finish(cpu) } else { 0 });
    check(
        "the other CPUs announced",
        others.clone().all(|cpu| !matches!(times[cpu], 0 | u64::MAX)),
    )?;
    for n in 0..FUNCTIONS {
        let answer = hw::announce(FUNCTION + n, false);
        equal("a function is taken away", answer.cast_unsigned(), 0u64)?;
    }
    bed.drain_all();
    say!("# devices-announced-meanwhile: {} calls", times.iter().sum::<u64>());
    check("commands go on", all)?;
    Ok(Pass)
}

/// Announces functions on all buses until Xen wants no more; how many.
fn announce_all(here: bool) -> u64 {
    let functions = (0x100..=u16::MAX).step_by(8);
    functions.take_while(|function| hw::announce(*function, here) == 0).count() as u64
}

/// Devices are announced until there are no more host LPIs. All come back.
fn announced_until_full(bed: &mut Bed) -> Verdict {
    if !bed.machine.xen {
        return Ok(Skip("needs a hypervisor"));
    }
    let first = announce_all(true);
    check("some can be announced", first != 0)?;
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 0), its::unmapd(D)])?;
    announce_all(false);
    let second = announce_all(true);
    announce_all(false);
    say!("# announced-until-none-is-left: {first} functions");
    equal("as many can be announced again", second, first)?;
    Ok(Pass)
}

/// Has Xen block this vCPU. What ends that comes by vector.
fn blocker(_: u64) -> u64 {
    let mut times = 0;
    while !cpus::stopped() {
        hw::block();
        hw::mask_irqs();
        times += 1;
    }
    times
}

/// So many LPIs end it.
const ROUNDS: u64 = 150;

/// A vCPU that had itself blocked wakes up for an LPI that fires, that moves to it,
/// and that is enabled.
fn ends_a_block(bed: &mut Bed) -> Verdict {
    if !bed.machine.xen || bed.cpus < 2 {
        return Ok(Skip("needs a hypervisor and two CPUs"));
    }
    bed.run(&[bed.device(D), its::mapti(D, 1, L, 1), its::mapti(D, 2, L + 1, 0)])?;
    let before = cpus::vectored(1).0;
    let taken = || cpus::vectored(1).0 - before;
    cpus::start_endless(1, blocker, 0);
    let mut fired = 0;
    while taken() == fired && fired < ROUNDS {
        match fired % 3 {
            0 => bed.run(&[its::int(D, 1)])?,
            1 => {
                bed.its.property(L + 1, 0xa0);
                bed.run(&[its::movi(D, 2, 0), its::inv(D, 2), its::int(D, 2)])?;
                bed.its.property(L + 1, 0xa1);
                bed.run(&[its::movi(D, 2, 1), its::inv(D, 2)])?;
            }
            _ => {
                bed.its.property(L, 0xa0);
                bed.run(&[its::inv(D, 1), its::int(D, 1)])?;
                bed.its.property(L, 0xa1);
                hw::write64(bed.redistributors[1] + gicr::INVLPIR, L.into());
            }
        }
        fired += 1;
        hw::wait(5000, || taken() >= fired);
    }
    cpus::stop(1..2);
    let times = cpus::finish(1);
    if taken() != ROUNDS {
        return Err(Fail("each LPI ends the block, and is taken once", taken(), fired));
    }
    check("the vCPU does not spin instead", times < 20 * ROUNDS)?;
    bed.expect_none()?;
    Ok(Pass)
}
