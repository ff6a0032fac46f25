// SPDX-License-Identifier: GPL-2.0-only
//! The cases, and which of them run.

mod alone;
mod commands;
mod early;
mod errors;
mod fuzzer;
mod hostile;
mod interrupts;
mod lpis;
mod registers;
mod xen_its_in_c;

use core::sync::atomic::Ordering;

use crate::bed::{Bed, Fail, Outcome, Verdict};
use crate::console::say;
use crate::cpus;
use crate::fdt::Machine;
use crate::hw;

/// A case: its name, and what it does.
pub type Case = (&'static str, fn(&mut Bed) -> Verdict);

/// Some cases, and how they are run.
struct Group(Kind, &'static [Case]);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Nothing besides.
    Plain,
    /// Another CPU's heart beats meanwhile, and the ITS must work afterwards.
    Hostile,
    /// The same, on a machine of its own: it runs only if it is named.
    Special,
    /// It enables LPIs as nobody else would, so it runs only if it is named,
    /// and needs a boot for itself.
    Alone,
}

const GROUPS: [Group; 18] = [
    Group(Kind::Alone, alone::CASES),
    // First, because LPIs cannot be switched off again.
    Group(Kind::Plain, lpis::CASES),
    Group(Kind::Hostile, early::CASES),
    Group(Kind::Plain, registers::CASES),
    Group(Kind::Plain, commands::CASES),
    Group(Kind::Plain, interrupts::CASES),
    Group(Kind::Plain, errors::CASES),
    Group(Kind::Hostile, hostile::access::CASES),
    Group(Kind::Hostile, hostile::memory::CASES),
    Group(Kind::Hostile, hostile::pages::CASES),
    Group(Kind::Hostile, hostile::mappings::CASES),
    Group(Kind::Hostile, hostile::concurrent::CASES),
    Group(Kind::Hostile, hostile::hypercalls::CASES),
    Group(Kind::Hostile, hostile::mixed::CASES),
    Group(Kind::Hostile, hostile::volume::CASES),
    Group(Kind::Special, hostile::rate::CASES),
    Group(Kind::Hostile, xen_its_in_c::CASES),
    Group(Kind::Hostile, fuzzer::CASES),
];

/// Seconds for which no heart may stand still. Machines that run tests are
/// noisy; the figure that was measured is printed.
const LONGEST_GAP: u64 = 5;

/// Whether a name matches a pattern, in which `*` stands for anything.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|n| matches(rest, &name[n..])),
        Some((byte, rest)) => name.first() == Some(byte) && matches(rest, &name[1..]),
    }
}

/// The value of an option on the command line.
pub fn option(machine: &Machine, name: &str) -> Option<&'static str> {
    machine.bootargs.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn number(machine: &Machine, name: &str) -> Option<u64> {
    let text = option(machine, name)?;
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Runs what the command line asks for.
pub fn run(machine: &Machine) {
    let chosen = option(machine, "its.test").unwrap_or("*");
    let from = number(machine, "its.from").unwrap_or(1);
    let picked = |kind: Kind, name: &str| {
        chosen.split(',').any(|pattern| match kind {
            Kind::Alone | Kind::Special => pattern == name,
            _ => matches(pattern.as_bytes(), name.as_bytes()),
        })
    };
    let all = || {
        let cases = GROUPS.iter().flat_map(|group| group.1.iter().map(|case| (group.0, case)));
        cases.filter(|(kind, case)| picked(*kind, case.0))
    };
    say!("1..{}", all().count());
    let mut bed = match Bed::new(machine) {
        Ok(bed) => bed,
        Err(why) => {
            say!("Bail out! {}: {:#x}, not {:#x}", why.0, why.1, why.2);
            return;
        }
    };
    bed.seed = number(machine, "its.seed").unwrap_or_else(hw::now);
    bed.seeds = number(machine, "its.seeds").unwrap_or(bed.seeds);
    bed.fuzz = number(machine, "its.fuzz").unwrap_or(bed.fuzz);
    bed.rate = number(machine, "its.rate").unwrap_or(bed.rate);
    if all().all(|(kind, _)| kind != Kind::Alone) {
        (0..bed.cpus.min(2)).for_each(|cpu| bed.enable_lpis(cpu, true));
    }
    say!("# {} CPUs, {}", bed.cpus, if machine.xen { "under Xen" } else { "native" });
    for (n, (kind, (name, case))) in (1u64..).zip(all()) {
        if n < from {
            continue;
        }
        say!("# start {n} {name}");
        let verdict = bed.reset().and_then(|()| match kind {
            Kind::Hostile | Kind::Special => hostile(&mut bed, name, *case),
            _ => case(&mut bed),
        });
        let verdict = verdict.and_then(|outcome| {
            let at = hw::ABORT_AT.load(Ordering::Relaxed).wrapping_sub(bed.its.base);
            match hw::ABORTS.swap(0, Ordering::Relaxed) {
                0 => Ok(outcome),
                _ => Err(Fail("a data abort at this offset of the ITS", at, 0)),
            }
        });
        hw::ABORTS.store(0, Ordering::Relaxed);
        match verdict {
            Ok(Outcome::Pass) => say!("ok {n} - {name}"),
            Ok(Outcome::Skip(why)) => say!("ok {n} - {name} # SKIP {why}"),
            Err(why) => say!("not ok {n} - {name} # {}: {:#x}, not {:#x}", why.0, why.1, why.2),
        }
    }
    if machine.xen {
        // The counters of the ITS in Rust; for one in C the key does nothing.
        hw::xen_debug_key(b'L');
    }
}

/// Runs a hostile case while the heart of the last CPU beats. Afterwards the
/// ITS must work.
fn hostile(bed: &mut Bed, name: &str, case: fn(&mut Bed) -> Verdict) -> Verdict {
    let start = hw::now();
    let heart = bed.cpus - 1;
    if heart != 0 {
        cpus::start_heart(heart);
    }
    let verdict = case(bed);
    let took = (hw::now() - start) / hw::ms(1);
    let (beats, gap) = if heart == 0 { (0, 0) } else { cpus::stop_heart() };
    if let Ok(Outcome::Skip(_)) = verdict {
        return verdict;
    }
    let gap_us = gap * 1000 / hw::ms(1);
    say!("# heartbeat {name}: longest gap {gap_us} us, {beats} beats in {took} ms");
    let alive = bed.probe();
    let outcome = verdict?;
    alive?;
    if heart != 0 && beats == 0 {
        return Err(Fail("another CPU's heart beats", 0, 1));
    }
    if gap > hw::ms(1000 * LONGEST_GAP) {
        return Err(Fail("another CPU's heart stands still for so many us", gap_us, 0));
    }
    Ok(outcome)
}
