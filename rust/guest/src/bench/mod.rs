// SPDX-License-Identifier: GPL-2.0-only
//! Operations to be measured from outside: each is done some times between two
//! marks, which a plugin of QEMU's looks for (bench/plugin/marks.c).
//!
//! Each operation is one line `# bench op=N calls=N late=N name=NAME` on the
//! console. `late` says how often commands were not yet executed when the store
//! to GITS_CWRITER was over, so that their cost is not all in the figure.

mod commands;
mod concurrent;
mod growth;
mod hold;
mod lpis;
mod memory;
mod other_cpu;
mod registers;

use core::arch::asm;
use core::fmt::Arguments;

use crate::bed::{Bed, Fail, check};
use crate::boot::MAX_CPUS;
use crate::cases::matches;
use crate::console::say;
use crate::cpus;
use crate::edu::Edu;
use crate::fdt::Machine;
use crate::hw;
use crate::its::{self, reg};

/// GICR_PROPBASER.IDbits: 16 INTID bits, as many as any ITS here has.
const ID_BITS: u64 = 15;
/// The INTIDs behind the last LPI.
const END: u32 = 2 << ID_BITS;
/// The first LPI; the `edu` device has it, and those behind it are free.
const EDU_LPI: u32 = 8192;
const L: u32 = 8200;
/// A device without hardware.
const D: u32 = 0x800;
/// How often most operations are done.
const TIMES: u32 = 32;

/// A group that needs a boot for itself, in which LPIs are not enabled.
const MEMORY: &str = "memory";

/// Operations that need one another's state, or the same fresh start.
type Group = (&'static str, fn(&mut Bench) -> Result<(), Fail>);

const GROUPS: &[Group] = &[
    ("lpi", lpis::one_cpu),
    ("lpi-cpus", other_cpu::all),
    ("exit", lpis::exits),
    ("commands", commands::all),
    ("batch", commands::thousand),
    ("devices", commands::devices),
    ("registers", registers::all),
    ("hold", hold::all),
    (MEMORY, memory::all),
    ("grow-lpis", growth::lpis),
    ("grow-devices", growth::devices),
    ("grow-vcpus", growth::vcpus),
    ("concurrent", concurrent::counted),
    ("throughput", concurrent::timed),
];

/// What is measured, and where.
struct Bench {
    bed: Bed,
    edu: Option<Edu>,
    op: u64,
}

/// An operation begins: everything in EL2 is its cost from here on.
#[inline(always)]
fn begin(op: u64) {
    // SAFETY: a hint that no CPU knows does nothing.
    unsafe { asm!("hint #124", in("x0") op) };
}

/// From now on there are operations. Tells where the memory is that the ITS sees.
fn arm((start, end): (u64, u64)) {
    // SAFETY: as above.
    unsafe { asm!("hint #124", in("x0") 0u64, in("x1") start, in("x2") end) };
}

/// It ends; on any CPU.
#[inline(always)]
fn end(op: u64) {
    // SAFETY: as above.
    unsafe { asm!("hint #125", in("x0") op) };
}

impl Bench {
    fn new(machine: &Machine, with_lpis: bool) -> Result<Self, Fail> {
        let mut bed = Bed::new(machine)?;
        while bed.cpus < machine.ncpus.min(MAX_CPUS) {
            bed.start_next_cpu()?;
        }
        for cpu in 0..if with_lpis { bed.cpus } else { 0 } {
            let (frame, pending) = (bed.redistributors[cpu], bed.pending[cpu]);
            its::enable_some_lpis(frame, bed.its.properties, pending, true, ID_BITS);
            bed.enabled[cpu] = true;
        }
        let edu = Edu::find(machine, 0, bed.its.base + reg::TRANSLATER);
        Ok(Self { bed, edu, op: 0 })
    }

    /// A fresh start, as `Bed::reset` gives it, for all LPIs that there are here.
    fn reset(&mut self) -> Result<(), Fail> {
        its::fill(self.bed.its.properties, (END - 8192).into(), 0xa1a1_a1a1_a1a1_a1a1);
        self.bed.reset()
    }

    /// The number of the next operation.
    fn next(&mut self) -> u64 {
        self.op += 1;
        self.op
    }

    /// Says what an operation was, once it has been done.
    fn said(&self, calls: u32, late: u32, name: Arguments<'_>) {
        say!("# bench op={} calls={calls} late={late} name={name}", self.op);
    }

    /// Measures `act`, each time between `before` and `after`.
    fn measure(
        &mut self,
        times: u32,
        name: Arguments<'_>,
        before: impl Fn(&Bed, u32) -> Result<(), Fail>,
        act: impl Fn(&Bed, u32),
        after: impl Fn(&Bed, u32) -> Result<(), Fail>,
    ) -> Result<(), Fail> {
        let op = self.next();
        for n in 0..times {
            before(&self.bed, n)?;
            begin(op);
            act(&self.bed, n);
            end(op);
            after(&self.bed, n)?;
        }
        self.said(times, 0, name);
        Ok(())
    }

    /// Measures a batch of commands, from the store that shows them to the ITS.
    fn batch(
        &mut self,
        times: u32,
        name: Arguments<'_>,
        before: impl Fn(&Bed, u32) -> Result<(), Fail>,
        commands: impl Fn(&Bed),
        after: impl Fn(&Bed) -> Result<(), Fail>,
    ) -> Result<(), Fail> {
        let op = self.next();
        let mut late = 0;
        for n in 0..times {
            before(&self.bed, n)?;
            commands(&self.bed);
            begin(op);
            self.bed.its.ring();
            end(op);
            late += u32::from(!self.bed.its.wait(0));
            check("the commands are executed", self.bed.its.wait(60_000))?;
            after(&self.bed)?;
        }
        self.said(times, late, name);
        Ok(())
    }

    /// The device that fires, mapped, its event 0 as `EDU_LPI` in collection 0.
    fn with_edu(&self) -> Result<Edu, Fail> {
        let edu = self.edu.ok_or(Fail("there is an edu device", 0, 1))?;
        self.bed.run(&[
            its::mapd(edu.device, self.bed.its.itt(4000), 5),
            its::mapti(edu.device, 0, EDU_LPI, 0),
        ])?;
        Ok(edu)
    }
}

/// Nothing to do.
fn nothing(_: &Bed, _: u32) -> Result<(), Fail> {
    Ok(())
}

/// Time for what was set off to arrive here, without a trap of its own.
fn settle() {
    for _ in 0..50 {
        core::hint::spin_loop();
    }
}

/// Takes and forgets all that is pending on this CPU, without the patience of
/// `Bed::drain`: one emulated CPU has no other to wait for.
fn drain() {
    cpus::drain(hw::ms(1) / 50);
}

/// Measures the groups that match one of these patterns.
pub fn run(machine: &Machine, chosen: &str) {
    let picked =
        |name: &str| chosen.split(',').any(|pattern| matches(pattern.as_bytes(), name.as_bytes()));
    say!("1..{}", GROUPS.iter().filter(|group| picked(group.0)).count());
    let mut bench = match Bench::new(machine, chosen != MEMORY) {
        Ok(bench) => {
            // The plugin counts from here on; it needs a moment.
            arm(Bed::arena());
            hw::wait(1, || false);
            bench
        }
        Err(why) => {
            say!("Bail out! {}: {:#x}, not {:#x}", why.0, why.1, why.2);
            return;
        }
    };
    for (n, (name, group)) in (1u32..).zip(GROUPS.iter().filter(|group| picked(group.0))) {
        say!("# start {n} {name}");
        match bench.reset().and_then(|()| group(&mut bench)) {
            Ok(()) => say!("ok {n} - {name}"),
            Err(why) => say!("not ok {n} - {name} # {}: {:#x}, not {:#x}", why.0, why.1, why.2),
        }
    }
}
