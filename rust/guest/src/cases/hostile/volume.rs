// SPDX-License-Identifier: GPL-2.0-only
//! Very much of everything: no command, and no number of commands, may keep Xen
//! from other work.

use super::D;
use crate::bed::{Bed, Fail, Outcome::Pass, Outcome::Skip, Verdict, check, equal};
use crate::cases::Case;
use crate::console::say;
use crate::cpus;
use crate::gic::{SPURIOUS, gicr};
use crate::hw;
use crate::its::{self, reg};

pub const CASES: &[Case] = &[
    ("mapd-thousands", thousands),
    ("quota-exhausted", quota),
    ("invall-flood", invall_flood),
    ("invall-flood-disabled-pending", invall_disabled),
    ("mapd-unmap-large", unmap_large),
    ("mapc-moves-thousands", mapc_thousands),
    ("movall-moves-thousands", movall_thousands),
    ("invallr-storm", invallr_storm),
    ("movi-storm", movi_storm),
];

/// The first of so many LPIs that belong to one device.
const L: u32 = 9000;
const MANY: u32 = 4000;

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
    Ok(Pass)
}

/// Maps devices of 1024 events until one more does not work; how many did.
fn map_all(bed: &Bed, first: u32) -> Result<u32, Fail> {
    for n in 0..80 {
        let (device, lpi) = (first + n, L + n);
        let itt = bed.its.itts + u64::from(n % 32) * 0x4000;
        bed.run(&[its::mapd(device, itt, 10), its::mapti(device, n, lpi, 0)])?;
        bed.run(&[its::int(device, n)])?;
        match bed.on(0, cpus::take, hw::ms(50)) as u32 {
            SPURIOUS => return Ok(n),
            taken => equal("the LPI is taken", taken, lpi)?,
        }
    }
    Ok(80)
}

/// Devices are mapped until there are no more host LPIs, or the guest has used
/// up its share. The ones it has go on working, and the rest comes back.
fn quota(bed: &mut Bed) -> Verdict {
    let first = map_all(bed, 1000)?;
    check("some devices can be mapped", first != 0)?;
    // Neither larger nor smaller ones, and not the same once more.
    let behind = bed.its.itts + (1 << 19);
    for n in 0..200 {
        bed.its.put(its::mapd(2000 + n, behind + u64::from(n) * 256, 1 + n % 14));
        bed.its.put(its::mapti(2000 + n, 0, L + 500, 0));
        bed.its.put(its::unmapd(2000 + n));
    }
    bed.run(&[])?;
    for n in 0..first {
        bed.run(&[its::int(1000 + n, n)])?;
        bed.expect(0, L + n)?;
    }
    bed.run_many((0..80).map(|n| its::unmapd(1000 + n)))?;
    its::zero(bed.its.itts, 1 << 20);
    equal("as many devices can be mapped again", map_all(bed, 1000)?, first)?;
    bed.run_many((0..80).map(|n| its::unmapd(1000 + n)))?;
    say!("# quota-exhausted: {first} devices with 1024 events each");
    Ok(Pass)
}

fn invall_flood(bed: &mut Bed) -> Verdict {
    bed.run(&[its::mapd(D, bed.its.itts, 11)])?;
    (0..2000).for_each(|n| bed.its.put(its::mapti(D, n, L + n, 0)));
    bed.run(&[])?;
    bed.its.disable();
    bed.its.set_queue(bed.its.queue, 256);
    bed.its.enable();
    (0..32767).for_each(|_| bed.its.put(its::invall(0)));
    let start = hw::now();
    bed.its.ring();
    let ended = bed.its.wait(120_000);
    let all = hw::now() - start;
    say!("# invall-flood: {} ms for 32767 INVALLs", all / hw::ms(1));
    check("commands end", ended)?;
    equal("GITS_CREADR", bed.its.read(reg::CREADR), 32767u64 * 32)?;
    bed.run(&[its::int(D, 1999)])?;
    bed.expect(0, L + 1999)?;
    Ok(Pass)
}

/// Maps `MANY` LPIs to collection 0 and makes them pending; every `nth` of them
/// is enabled, none if that is 0.
fn many_pending(bed: &Bed, nth: u32) -> Result<(), Fail> {
    for n in 0..MANY {
        let enabled = nth != 0 && n % nth == 0;
        bed.its.property(L + n, if enabled { 0xa1 } else { 0xa0 });
    }
    bed.run(&[its::mapd(D, bed.its.itts, 12)])?;
    bed.run_many((0..MANY).map(|n| its::mapti(D, n, L + n, 0)))?;
    bed.run(&[its::invall(0)])?;
    bed.run_many((0..MANY).map(|n| its::int(D, n)))
}

/// Enables all of these LPIs. Fails unless each is then taken once, on `cpu`.
fn all_come(bed: &Bed, cpu: usize) -> Result<(), Fail> {
    (0..MANY).for_each(|n| bed.its.property(L + n, 0xa1));
    bed.run(&[its::invall(cpu as u16)])?;
    let mut seen = [0u64; MANY as usize / 64 + 1];
    for _ in 0..MANY {
        let lpi = bed.take(cpu);
        let n = lpi.wrapping_sub(L);
        let Some(word) = seen.get_mut(n as usize / 64) else {
            return Err(Fail("each of the thousands is taken", lpi.into(), L.into()));
        };
        check("none of them is taken twice", *word & 1 << (n % 64) == 0)?;
        *word |= 1 << (n % 64);
    }
    bed.expect_none()
}

fn invall_disabled(bed: &mut Bed) -> Verdict {
    many_pending(bed, 0)?;
    bed.expect_none()?;
    let start = hw::now();
    let count = 4000;
    bed.run_many((0..count).map(|_| its::invall(0)))?;
    let took = (hw::now() - start) / hw::ms(1);
    say!("# invall-flood-disabled-pending: {took} ms for {count} INVALLs over {MANY} LPIs");
    all_come(bed, 0)?;
    Ok(Pass)
}

fn unmap_large(bed: &mut Bed) -> Verdict {
    let bits = (((bed.its.read(reg::TYPER) >> 8) & 31) + 1).min(13) as u32;
    let events = 1 << bits;
    let mut longest = 0;
    // Up to 12 bytes for each.
    let itts = [bed.its.itts, bed.its.itts + 0x2_0000];
    for round in 0..3 {
        its::zero(bed.its.itts, 0x4_0000);
        bed.run(&[its::mapd(D, itts[0], bits)])?;
        bed.run_many((0..events).map(|n| its::mapti(D, n, L + n, 0)))?;
        bed.run_many((0..events).map(|n| its::int(D, n)))?;
        let start = hw::now();
        // Mapping it anew takes its events away as well.
        if round == 1 {
            bed.run(&[its::mapd(D, itts[1], bits)])?
        } else {
            bed.run(&[its::unmapd(D)])?
        }
        longest = longest.max(hw::now() - start);
        bed.run_many((0..events).step_by(64).map(|n| its::int(D, n)))?;
        equal("what was unmapped is not pending", bed.peek(0), SPURIOUS)?;
    }
    say!("# mapd-unmap-large: {} ms for {events} events", longest / hw::ms(1));
    Ok(Pass)
}

fn move_to_and_fro(bed: &Bed, name: &str, there: &[its::Cmd], back: &[its::Cmd]) -> Verdict {
    // Every third is enabled: some of those are in list registers.
    many_pending(bed, 3)?;
    let start = hw::now();
    for _ in 0..25 {
        there.iter().chain(back).for_each(|command| bed.its.put(*command));
    }
    bed.run(&[])?;
    say!("# {name}: {} ms for 50 times", (hw::now() - start) / hw::ms(1));
    all_come(bed, 0)?;
    Ok(Pass)
}

fn mapc_thousands(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(Skip("needs two CPUs"));
    }
    let [a, b] = [bed.its.rdbase[0], bed.its.rdbase[1]];
    // MOVALL, because the architecture leaves it to the ITS whether MAPC moves
    // what is pending.
    let there = [its::mapc(0, b), its::movall(a, b)];
    move_to_and_fro(bed, "mapc-moves-thousands", &there, &[its::mapc(0, a), its::movall(b, a)])
}

fn movall_thousands(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(Skip("needs two CPUs"));
    }
    let [a, b] = [bed.its.rdbase[0], bed.its.rdbase[1]];
    move_to_and_fro(bed, "movall-moves-thousands", &[its::movall(a, b)], &[its::movall(b, a)])
}

/// GICR_INVALLR and GICR_INVLPIR of the redistributor there.
fn invaller(frame: u64) -> u64 {
    let mut times = 0u64;
    while !cpus::stopped() {
        hw::write64(frame + gicr::INVALLR, 0);
        hw::write64(frame + gicr::INVLPIR, u64::from(L) + times % u64::from(MANY));
        let _ = hw::read32(frame + gicr::SYNCR);
        times += 1;
    }
    times
}

fn invallr_storm(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 || !bed.has_direct_invalidation() {
        return Ok(Skip("needs two CPUs and GICR_INVALLR"));
    }
    many_pending(bed, 0)?;
    cpus::start_endless(1, invaller, bed.redistributors[0]);
    for _ in 0..200 {
        hw::write64(bed.redistributors[0] + gicr::INVALLR, 0);
        hw::write64(bed.redistributors[1] + gicr::INVALLR, 0);
    }
    cpus::wait_for_a_round();
    cpus::stop(1..2);
    let times = cpus::finish(1);
    check("the other CPU wrote", times != 0 && times != u64::MAX)?;
    all_come(bed, 0)?;
    Ok(Pass)
}

/// Every LPI moves again and again, while both CPUs take what reaches them.
fn movi_storm(bed: &mut Bed) -> Verdict {
    if bed.cpus < 2 {
        return Ok(Skip("needs two CPUs"));
    }
    let events = 64;
    bed.run(&[its::mapd(D, bed.its.itts, 6)])?;
    bed.run_many((0..events).map(|n| its::mapti(D, n, L + n, 0)))?;
    cpus::start_endless(1, cpus::take_by_vector, 0);
    let mut taken = 0;
    for round in 0..100u32 {
        for n in 0..events {
            bed.its.put(its::int(D, n));
            bed.its.put(its::movi(D, n, ((round + n) % 2) as u16));
        }
        bed.its.ring();
        taken += cpus::take_some();
        check("commands end", bed.its.wait(10_000))?;
    }
    cpus::stop(1..2);
    let there = cpus::finish(1);
    check("the other CPU took some", there != 0 && there != u64::MAX)?;
    bed.drain_all();
    say!("# movi-storm: {taken} LPIs taken here, {there} there");
    Ok(Pass)
}
