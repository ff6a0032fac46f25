// SPDX-License-Identifier: GPL-2.0-only
//! The CPUs: each but CPU 0 does what it is told, sleeps meanwhile, or beats.
//!
//! The heart of one CPU beats while something hostile is tried elsewhere. The
//! longest time between two beats shows how long Xen kept it from running.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::boot::{self, MAX_CPUS};
use crate::fdt::Machine;
use crate::gic::{self, SPURIOUS};
use crate::hw;

/// What a CPU may be told to do.
pub type Job = fn(u64) -> u64;

/// What is known of a CPU, and what it is told: a `Job` as an address, its
/// argument, its result.
struct Cpu {
    redistributor: AtomicU64,
    mpidr: AtomicU64,
    alive: AtomicBool,
    job: AtomicUsize,
    argument: AtomicU64,
    result: AtomicU64,
    /// Interrupts taken by vector, and the last of them.
    vectored: AtomicU64,
    last_vectored: AtomicU32,
}

static CPUS: [Cpu; MAX_CPUS] = [const {
    Cpu {
        redistributor: AtomicU64::new(0),
        mpidr: AtomicU64::new(0),
        alive: AtomicBool::new(false),
        job: AtomicUsize::new(0),
        argument: AtomicU64::new(0),
        result: AtomicU64::new(0),
        vectored: AtomicU64::new(0),
        last_vectored: AtomicU32::new(SPURIOUS),
    }
}; MAX_CPUS];

/// Jobs that go on until told otherwise look at this, and how often they did.
static STOP: AtomicBool = AtomicBool::new(false);
static LOOKS: AtomicU64 = AtomicU64::new(0);

/// The heart: whose it is, when it last beat, how often, and the longest gap.
static HEART: AtomicUsize = AtomicUsize::new(usize::MAX);
static LAST: AtomicU64 = AtomicU64::new(0);
static BEATS: AtomicU64 = AtomicU64::new(0);
static GAP: AtomicU64 = AtomicU64::new(0);

/// Says where a CPU's redistributor is, before it is started.
pub fn know(number: usize, mpidr: u64, redistributor: u64) {
    CPUS[number].mpidr.store(mpidr, Ordering::Relaxed);
    CPUS[number].redistributor.store(redistributor, Ordering::Release);
}

/// Switches a CPU on. What PSCI answered, and whether it runs.
pub fn switch_on(machine: &Machine, number: usize) -> (i64, bool) {
    let cpu = &CPUS[number];
    cpu.alive.store(false, Ordering::Relaxed);
    let (mpidr, entry) = (cpu.mpidr.load(Ordering::Relaxed), boot::secondary_address());
    let answer = hw::psci(machine.hvc, 0xc400_0003, mpidr, entry, number as u64);
    (answer, hw::wait(5000, || cpu.alive.load(Ordering::Acquire)))
}

/// Waits until PSCI says that a CPU is off.
pub fn wait_off(machine: &Machine, number: usize) -> bool {
    let mpidr = CPUS[number].mpidr.load(Ordering::Relaxed);
    hw::wait(5000, || hw::psci(machine.hvc, 0xc400_0004, mpidr, 0, 0) == 1)
}

/// The life of a secondary CPU.
pub fn secondary(number: usize) -> ! {
    let cpu = &CPUS[number];
    gic::init_cpu(cpu.redistributor.load(Ordering::Acquire));
    // What it was doing when it was switched off is over.
    cpu.job.store(0, Ordering::Relaxed);
    cpu.alive.store(true, Ordering::Release);
    loop {
        let job = cpu.job.load(Ordering::Acquire);
        if job != 0 {
            // SAFETY: only `start` stores here, a `Job`'s address.
            let job = unsafe { core::mem::transmute::<usize, Job>(job) };
            cpu.result.store(job(cpu.argument.load(Ordering::Relaxed)), Ordering::Relaxed);
            cpu.job.store(0, Ordering::Release);
            miss();
        } else if HEART.load(Ordering::Relaxed) == number {
            beat();
        } else {
            hw::sleep();
            gic::forget_wake();
        }
    }
}

/// Has a CPU do something, and does not wait.
pub fn start(cpu: usize, job: Job, argument: u64) {
    CPUS[cpu].argument.store(argument, Ordering::Relaxed);
    CPUS[cpu].job.store(job as usize, Ordering::Release);
    wake(cpu);
}

fn wake(cpu: usize) {
    hw::barrier();
    gic::wake(CPUS[cpu].mpidr.load(Ordering::Relaxed));
}

/// Waits for a CPU, and gives its result; all ones if it does not answer.
pub fn finish(cpu: usize) -> u64 {
    let cpu = &CPUS[cpu];
    if hw::wait(30_000, || cpu.job.load(Ordering::Acquire) == 0) {
        cpu.result.load(Ordering::Relaxed)
    } else {
        u64::MAX
    }
}

/// Starts a job that goes on until `stop`.
pub fn start_endless(cpu: usize, job: Job, argument: u64) {
    STOP.store(false, Ordering::Relaxed);
    LOOKS.store(0, Ordering::Relaxed);
    start(cpu, job, argument);
}

/// Waits until such a job has done something: the machine may be slow.
pub fn wait_for_a_round() {
    hw::wait(10_000, || LOOKS.load(Ordering::Relaxed) > 1);
}

/// Ends the jobs that go on until then; `finish` gives their results.
pub fn stop(cpus: core::ops::Range<usize>) {
    STOP.store(true, Ordering::Relaxed);
    cpus.for_each(wake);
}

/// Whether a job is to end.
pub fn stopped() -> bool {
    LOOKS.fetch_add(1, Ordering::Relaxed);
    STOP.load(Ordering::Relaxed)
}

/// Takes an interrupt and ends it, within so many ticks: a `Job`.
pub fn take(ticks: u64) -> u64 {
    let start = hw::now();
    loop {
        let intid = gic::acknowledge();
        if intid != SPURIOUS {
            gic::end(intid);
            return intid.into();
        }
        if hw::now() - start > ticks {
            return SPURIOUS.into();
        }
        beat();
    }
}

/// Takes interrupts and ends them until none comes for so many ticks; how many:
/// a `Job`.
pub fn drain(ticks: u64) -> u64 {
    (0..100_000).take_while(|_| take(ticks) != SPURIOUS.into()).count() as u64
}

/// Takes what is pending, up to 32 interrupts; how many.
pub fn take_some() -> u64 {
    // Xen may have to put the next ones into list registers.
    let patience = hw::ms(1) / 50;
    (0..32).take_while(|_| take(patience) != SPURIOUS.into()).count() as u64
}

/// An interrupt came by vector.
pub fn on_irq() {
    let cpu = &CPUS[hw::cpu()];
    let intid = gic::acknowledge();
    if intid != SPURIOUS {
        gic::end(intid);
        cpu.last_vectored.store(intid, Ordering::Relaxed);
        cpu.vectored.fetch_add(1, Ordering::Release);
    }
}

/// How many interrupts a CPU took by vector, and the last of them.
pub fn vectored(cpu: usize) -> (u64, u32) {
    let cpu = &CPUS[cpu];
    (cpu.vectored.load(Ordering::Acquire), cpu.last_vectored.load(Ordering::Relaxed))
}

/// Sleeps, and takes interrupts by vector, until told to stop; how many. A
/// `Job`; the argument is the address of an `AtomicBool`, which holds it back.
pub fn take_by_vector(held: u64) -> u64 {
    // SAFETY: callers give the address of a static, or none.
    let held = unsafe { (held as *const AtomicBool).as_ref() };
    let before = vectored(hw::cpu()).0;
    while !stopped() {
        // An interrupt that comes before the WFI ends it, because it is masked.
        hw::sleep();
        if !held.is_some_and(|held| held.load(Ordering::Relaxed)) {
            hw::unmask_irqs();
            hw::mask_irqs();
        }
    }
    vectored(hw::cpu()).0 - before
}

/// A beat, if the heart is this CPU's.
pub fn beat() {
    if HEART.load(Ordering::Relaxed) != hw::cpu() {
        return;
    }
    let now = hw::now();
    let last = LAST.swap(now, Ordering::Relaxed);
    if last != 0 {
        GAP.fetch_max(now - last, Ordering::Relaxed);
        BEATS.fetch_add(1, Ordering::Relaxed);
    }
}

/// The next beat has no gap before it: this CPU was busy of its own will.
fn miss() {
    if HEART.load(Ordering::Relaxed) == hw::cpu() {
        LAST.store(0, Ordering::Relaxed);
    }
}

/// The heart of this CPU beats from now on.
pub fn start_heart(cpu: usize) {
    for counter in [&LAST, &BEATS, &GAP] {
        counter.store(0, Ordering::Relaxed);
    }
    HEART.store(cpu, Ordering::Relaxed);
    wake(cpu);
}

/// It beats no more. How often it did, and the longest gap in ticks; a CPU
/// that does not beat any more now has a gap, too.
pub fn stop_heart() -> (u64, u64) {
    let before = BEATS.load(Ordering::Relaxed);
    hw::wait(5000, || BEATS.load(Ordering::Relaxed) != before);
    let last = LAST.load(Ordering::Relaxed);
    let since = if last == 0 { 0 } else { hw::now().saturating_sub(last) };
    HEART.store(usize::MAX, Ordering::Relaxed);
    (BEATS.load(Ordering::Relaxed), GAP.load(Ordering::Relaxed).max(since))
}
