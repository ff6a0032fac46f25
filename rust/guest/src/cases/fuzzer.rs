// SPDX-License-Identifier: GPL-2.0-only
//! Random plausible commands, then the usual probe.

use super::Case;
use crate::bed::{Bed, Outcome::Pass, Verdict};
use crate::console::say;
use crate::its::{self, Cmd};

pub const CASES: &[Case] = &[("fuzz-commands", fuzz)];

/// A generator of numbers: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Mostly below `limit`, seldom anything.
    fn mostly(&mut self, limit: u64) -> u64 {
        if self.below(64) == 0 { self.next() } else { self.below(limit) }
    }
}

fn command(bed: &Bed, random: &mut Random) -> Cmd {
    let device = random.mostly(4) as u32;
    let event = random.mostly(10) as u32;
    let collection = random.mostly(bed.cpus as u64 + 2) as u16;
    let lpi = (8192 + random.mostly(64)) as u32;
    let rdbase = random.mostly(bed.cpus as u64) & 0xf_ffff_ffff;
    // ITTs overlap and are used again without being cleared.
    let itt = bed.its.itt(random.below(16) as u32);
    match random.below(32) {
        0 => its::mapd(device, itt, random.mostly(6) as u32),
        1 => its::unmapd(device),
        2..=4 => its::mapc(collection, rdbase),
        5 => its::unmapc(collection),
        6..=12 => its::mapti(device, event, lpi, collection),
        13 => its::mapi(device, event, collection),
        14 | 15 => its::movi(device, event, collection),
        16 => its::movall(rdbase, random.mostly(bed.cpus as u64) & 0xf_ffff_ffff),
        17 | 18 => its::discard(device, event),
        19 | 20 => its::clear(device, event),
        21..=26 => its::int(device, event),
        27 | 28 => its::inv(device, event),
        29 => its::invall(collection),
        30 => its::sync(rdbase),
        _ => [random.next(), random.next(), random.next(), random.next()],
    }
}

fn fuzz(bed: &mut Bed) -> Verdict {
    let mut random = Random(bed.seed);
    say!("# fuzz-commands: its.seed={:#x} its.fuzz={}", bed.seed, bed.fuzz);
    let (mut sent, mut taken) = (0, 0u64);
    let mut told = 0;
    while sent < bed.fuzz {
        // Keeps the watchdog content, which minds silence.
        if sent - told >= 10_000 {
            told = sent;
            say!("#progress {sent}");
        }
        let batch = 1 + random.below(64);
        for _ in 0..batch {
            let command = command(bed, &mut random);
            bed.its.put(command);
        }
        bed.run(&[])?;
        sent += batch;
        if random.below(4) == 0 {
            bed.its.property(8192 + random.below(64) as u32, random.next() as u8);
        }
        let cpu = random.below(bed.cpus as u64) as usize;
        taken += u64::from(bed.on(cpu, |_| quick(), 0) != 0);
    }
    bed.drain_all();
    say!("# fuzz-commands: {sent} commands, {taken} times LPIs were taken");
    bed.probe()?;
    Ok(Pass)
}

/// Takes what is pending now; how many.
fn quick() -> u64 {
    (0..8)
        .filter(|_| {
            let intid = crate::gic::acknowledge();
            let real = intid != crate::gic::SPURIOUS;
            if real {
                crate::gic::end(intid);
            }
            real
        })
        .count() as u64
}
