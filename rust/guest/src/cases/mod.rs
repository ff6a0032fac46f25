// SPDX-License-Identifier: GPL-2.0-only
//! The cases, and which of them run.

mod commands;
mod errors;
mod fuzzer;
mod hostile;
mod lpis;
mod registers;

use core::sync::atomic::Ordering;

use crate::bed::{Bed, Fail, Outcome, Verdict};
use crate::console::say;
use crate::fdt::Machine;
use crate::hw;

/// A case: its name, and what it does.
pub type Case = (&'static str, fn(&mut Bed) -> Verdict);

const GROUPS: [&[Case]; 6] = [
    // First, because LPIs cannot be switched off again.
    lpis::CASES,
    registers::CASES,
    commands::CASES,
    errors::CASES,
    hostile::CASES,
    fuzzer::CASES,
];

/// Whether a name matches a pattern, in which `*` stands for anything.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|n| matches(rest, &name[n..])),
        Some((byte, rest)) => name.first() == Some(byte) && matches(rest, &name[1..]),
    }
}

/// The value of an option on the command line.
fn option(machine: &Machine, name: &str) -> Option<&'static str> {
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
    let picked =
        |name: &str| chosen.split(',').any(|pattern| matches(pattern.as_bytes(), name.as_bytes()));
    let all = || GROUPS.iter().copied().flatten().filter(|case| picked(case.0));
    say!("1..{}", all().count());
    let mut bed = match Bed::new(machine) {
        Ok(bed) => bed,
        Err(why) => {
            say!("Bail out! {}: {:#x}, not {:#x}", why.0, why.1, why.2);
            return;
        }
    };
    bed.seed = number(machine, "its.seed").unwrap_or_else(hw::now);
    bed.fuzz = number(machine, "its.fuzz").unwrap_or(bed.fuzz);
    say!("# {} CPUs, {}", bed.cpus, if machine.xen { "under Xen" } else { "native" });
    for (n, (name, case)) in (1u64..).zip(all()) {
        if n < from {
            continue;
        }
        say!("# start {n} {name}");
        let verdict = bed.reset().and_then(|()| case(&mut bed)).and_then(|outcome| {
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
}
