// SPDX-License-Identifier: GPL-2.0-only
//! Random plausible commands and register accesses, then the usual probe.
//!
//! In `fuzz-commands` CPU 0 does it all, and a seed repeats it but for the times
//! at which other CPUs take their LPIs. In `fuzz-vcpus` they interfere.

mod mix;

use core::sync::atomic::{AtomicBool, Ordering};

use super::Case;
use crate::bed::{Bed, Fail, Outcome::Pass, Verdict, check};
use crate::boot::MAX_CPUS;
use crate::console::say;
use crate::cpus;
use crate::gic::{self, gicr};
use crate::hw;
use crate::its::{self, reg};
use mix::{LPIS, Random, Sent};

pub const CASES: &[Case] = &[("fuzz-commands", fuzz_commands), ("fuzz-vcpus", fuzz_vcpus)];

/// CPUs that leave pending what reaches them.
static HELD: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];

/// The CPUs that take part besides CPU 0. The last one's heart beats.
fn others(bed: &Bed) -> core::ops::Range<usize> {
    1..(bed.cpus - 1).max(1)
}

/// Runs `one` for each seed, and judges what came of all of them.
fn with_seeds(
    bed: &mut Bed,
    name: &str,
    one: fn(&mut Bed, &mut Random, &mut Sent) -> Result<u64, Fail>,
) -> Verdict {
    for cpu in 0..bed.cpus {
        if !bed.enabled[cpu] {
            bed.enable_lpis(cpu, true);
        }
    }
    let (mut all, mut taken) = (Sent::default(), 0);
    for seed in bed.seed..bed.seed + bed.seeds {
        bed.reset()?;
        let start = hw::now();
        let (mut random, mut sent) = (Random(seed), Sent::default());
        say!("# {name}: its.seed={seed:#x} its.seeds=1 its.fuzz={}", bed.fuzz);
        let more = one(bed, &mut random, &mut sent)?;
        bed.drain_all();
        let ms = (hw::now() - start) / hw::ms(1);
        say!("# {name}: {} commands, {more} LPIs taken, {ms} ms", sent.total());
        all.add(&sent);
        taken += more;
    }
    say!("# {name}: in all {} commands, {taken} LPIs taken", all.total());
    say!("# {name}: sent{all}");
    // A mix in which nothing happens any more would find nothing.
    if all.total() > 10_000 {
        check("some commands of each kind are sent", all.has_all())?;
        if taken < all.interrupts() / 10 {
            return Err(Fail("one LPI is taken for each ten INTs", taken, all.interrupts() / 10));
        }
    }
    Ok(Pass)
}

fn fuzz_commands(bed: &mut Bed) -> Verdict {
    with_seeds(bed, "fuzz-commands", commands)
}

fn commands(bed: &mut Bed, random: &mut Random, sent: &mut Sent) -> Result<u64, Fail> {
    for cpu in others(bed) {
        HELD[cpu].store(false, Ordering::Relaxed);
        cpus::start_endless(cpu, cpus::take_by_vector, (&raw const HELD[cpu]) as u64);
    }
    let mut taken = 0;
    let done = rounds(bed, random, sent, &mut taken);
    gic::set_mask(0xff);
    cpus::stop(others(bed));
    for cpu in others(bed) {
        let more = cpus::finish(cpu);
        check("the other CPU answers", more != u64::MAX)?;
        taken += more;
    }
    done?;
    Ok(taken)
}

fn rounds(
    bed: &mut Bed,
    random: &mut Random,
    sent: &mut Sent,
    taken: &mut u64,
) -> Result<(), Fail> {
    mix::map_everything(bed, random, sent);
    let mut told = 0;
    while sent.total() < bed.fuzz {
        let most = if random.once_in(8) { 256 } else { 32 };
        for _ in 0..1 + random.below(most) {
            mix::send_one(bed, random, sent);
        }
        bed.its.ring();
        if !bed.its.wait(10_000) {
            let tail = bed.its.tail.load(Ordering::Relaxed);
            return Err(Fail("GITS_CREADR reaches GITS_CWRITER", bed.its.read(reg::CREADR), tail));
        }
        *taken += cpus::take_some();
        besides(bed, random, sent, 7);
        if random.once_in(4) {
            *taken += bed.on(bed.cpus - 1, |_| cpus::take_some(), 0);
        }
        // Keeps the watchdog content, which minds silence.
        if sent.total() - told >= 50_000 {
            told = sent.total();
            say!("#progress {told}");
        }
    }
    Ok(())
}

/// What a guest does besides commands. Queues have 4 pages, or twice as many,
/// and so on, `queues` sizes in all.
fn besides(bed: &mut Bed, random: &mut Random, sent: &mut Sent, queues: u64) {
    for _ in 0..random.below(8) {
        let lpi = 8192 + random.below(LPIS) as u32;
        bed.its.property(lpi, mix::property(random));
        invalidate(&bed.redistributors[..bed.cpus], random, lpi);
    }
    if random.once_in(8) {
        let held = random.once_in(4);
        HELD[random.below(MAX_CPUS as u64) as usize].store(held, Ordering::Relaxed);
    }
    match random.below(256) {
        0..=3 => {
            bed.its.switch_off();
            // Room for the largest batch, anywhere in the memory for queues.
            let pages = 4 << random.below(queues);
            bed.its.queue = bed.its.queue_home + random.below(257 - pages) * 4096;
            bed.its.set_queue(bed.its.queue, pages);
            bed.its.enable();
        }
        4..=7 => {
            bed.its.switch_off();
            (0..20).for_each(|_| mix::send_one(bed, random, sent));
            bed.its.ring();
            bed.its.enable();
        }
        8 | 9 => {
            bed.its.switch_off();
            let (devices, size) = (bed.its.devices, bed.its.devices_size);
            bed.its.set_table(0, devices, size, false);
            bed.its.set_table(0, devices, size, true);
            if random.once_in(2) {
                bed.its.set_table(1, bed.its.collections, 0x1_0000, false);
                bed.its.set_table(1, bed.its.collections, 0x1_0000, true);
            }
            bed.its.enable();
            mix::map_everything(bed, random, sent);
        }
        10..=17 => scribble(bed, random),
        18..=30 => gic::set_mask(if random.once_in(4) { 0x80 } else { 0xff }),
        31..=38 => {
            // Out of range, and to what is read-only.
            if bed.its.queue_size < 1 << 20 {
                bed.its.write(reg::CWRITER, bed.its.queue_size | random.below(2));
            }
            bed.its.write(reg::CREADR, random.next());
            hw::write32(bed.its.base + reg::IIDR, random.next() as u32);
            bed.its.ring();
        }
        _ => {}
    }
}

/// Invalidates an LPI by register, or all of a CPU's.
fn invalidate(frames: &[u64], random: &mut Random, lpi: u32) {
    let Some(frame) = frames.get(random.below(frames.len() as u64) as usize) else { return };
    match random.below(4) {
        0 => hw::write64(frame + gicr::INVLPIR, lpi.into()),
        1 => hw::write64(frame + gicr::INVALLR, 0),
        _ => {}
    }
}

/// Any bits into the tables that the ITS owns.
fn scribble(bed: &Bed, random: &mut Random) {
    let tables = [
        (bed.its.devices, bed.its.devices_size),
        (bed.its.collections, 0x1_0000),
        (bed.its.itts, 0x4000),
        (bed.pending[0], 0x1_0000),
    ];
    for _ in 0..8 {
        let (at, size) = tables[random.below(4) as usize];
        its::fill(at + random.below(size / 64) * 64, 64, random.next());
    }
}

/// What the other CPUs of `fuzz-vcpus` need to know.
struct Scene {
    seed: u64,
    base: u64,
    queue: u64,
    properties: u64,
    frames: [u64; MAX_CPUS],
    cpus: usize,
}

fn fuzz_vcpus(bed: &mut Bed) -> Verdict {
    if bed.cpus < 3 {
        return Ok(crate::bed::Outcome::Skip("needs three CPUs"));
    }
    with_seeds(bed, "fuzz-vcpus", all_at_once)
}

fn all_at_once(bed: &mut Bed, random: &mut Random, sent: &mut Sent) -> Result<u64, Fail> {
    let scene = Scene {
        seed: random.next(),
        base: bed.its.base,
        queue: bed.its.queue_home,
        properties: bed.its.properties,
        frames: bed.redistributors,
        cpus: bed.cpus,
    };
    // A small one: who writes GITS_CWRITER late has all of it executed again.
    bed.its.disable();
    bed.its.set_queue(bed.its.queue, 4);
    bed.its.enable();
    mix::map_everything(bed, random, sent);
    for cpu in others(bed) {
        cpus::start_endless(cpu, meddle, (&raw const scene) as u64);
    }
    let mut taken = 0;
    // Far fewer than one CPU alone sends, because all of them wait for each
    // other, and the others have several times as many executed again.
    while sent.total() < bed.fuzz / 32 {
        for _ in 0..1 + random.below(128) {
            mix::send_one(bed, random, sent);
        }
        if random.once_in(32) {
            mix::map_everything(bed, random, sent);
            say!("#progress {}", sent.total());
        }
        bed.its.ring();
        taken += cpus::take_some();
        besides(bed, random, sent, 2);
        if random.once_in(4) {
            taken += bed.on(bed.cpus - 1, |_| cpus::take_some(), 0);
        }
    }
    gic::set_mask(0xff);
    cpus::stop(others(bed));
    let more: [u64; MAX_CPUS] =
        core::array::from_fn(|cpu| if others(bed).contains(&cpu) { cpus::finish(cpu) } else { 0 });
    // One that does not answer still uses the scene.
    assert!(!more.contains(&u64::MAX), "a CPU of fuzz-vcpus does not answer");
    Ok(taken + more.iter().sum::<u64>())
}

/// Interferes until told to stop; how many LPIs it took.
fn meddle(scene: u64) -> u64 {
    // SAFETY: `all_at_once` keeps it until this CPU has ended.
    let scene = unsafe { &*(scene as *const Scene) };
    let mut random = Random(scene.seed ^ hw::cpu() as u64);
    let mut taken = 0;
    while !cpus::stopped() {
        match random.below(256) {
            0 => hw::write32(scene.base + reg::CTLR, random.below(2) as u32),
            1..=3 => hw::write32(scene.base + reg::CTLR, 1),
            4..=31 => {
                // Some more stale slots, and at times beyond the end.
                let head = hw::read64(scene.base + reg::CREADR) & !1;
                hw::write64(scene.base + reg::CWRITER, head + random.below(64) * 32);
            }
            32 => hw::write64(scene.base + reg::CWRITER, random.next() | 0xf_0000),
            33..=63 => {
                let lpi = random.below(LPIS);
                let at = scene.properties + lpi;
                // SAFETY: the table has room for these LPIs.
                unsafe { (at as *mut u8).write_volatile(mix::property(&mut random)) };
                invalidate(&scene.frames[..scene.cpus], &mut random, 8192 + lpi as u32);
            }
            64 => its::fill(scene.queue + random.below(0x2000) * 32, 32, random.next()),
            65..=80 => {
                let _ = hw::read64(scene.base + reg::CREADR);
                let _ = hw::read32(scene.base + reg::CTLR);
            }
            _ => taken += cpus::take_some(),
        }
    }
    taken
}
