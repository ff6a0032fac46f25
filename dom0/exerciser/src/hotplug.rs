// SPDX-License-Identifier: GPL-2.0-only
//! CPUs that go off and come back while LPIs are sent to them: Linux moves the LPIs away as the
//! CPU dies, and initialises its redistributor again as it returns.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::ivshmem::{Ivshmem, Memory, Pace, follow_all, judge};
use crate::nvme::Nvme;
use crate::report::Outcome;
use crate::sysfs;

/// Reads for which each interrupt is counted, before and after the CPU returns.
const READS: u64 = 40;

fn set_online(cpu: u32, online: bool) -> Result<(), String> {
    let value = if online { "1" } else { "0" };
    sysfs::write(format!("/sys/devices/system/cpu/cpu{cpu}/online"), value)?;
    let limit = Duration::from_secs(30);
    sysfs::wait_for("CPU hot-plug", limit, || Ok(sysfs::online()?.contains(&cpu) == online))
}

/// Aims all vectors at the CPUs in turn, so that every CPU has its share.
fn spread(irqs: &[u32], cpus: &[u32]) -> Result<(), String> {
    for (irq, cpu) in irqs.iter().zip(cpus.iter().cycle()) {
        sysfs::write(format!("/proc/irq/{irq}/smp_affinity_list"), &cpu.to_string())?;
    }
    Ok(())
}

/// Checks that rings from now on come on the CPU that each vector is for, and that it is on-line.
fn settled(memory: &Memory, irqs: &[u32]) -> Result<(), String> {
    let online = sysfs::online()?;
    for (vector, irq) in irqs.iter().enumerate() {
        let target = sysfs::effective_cpu(*irq)?;
        if !online.contains(&target) {
            return Err(format!("vector {vector} (irq {irq}) is for CPU {target}, which is off"));
        }
    }
    let vectors: Vec<(usize, u32)> = irqs.iter().copied().enumerate().collect();
    follow_all(memory, &vectors).map(drop)
}

/// Takes a CPU off and brings it back, with all vectors of the board being rung and reads going on.
///
/// # Errors
/// An interrupt was lost, doubled, or came on another CPU; or the CPU did not go or return.
pub fn cycle(cpu: u32, board: &Ivshmem, disks: &[Nvme], pause_us: u64) -> Outcome {
    let memory = board.memory()?;
    let irqs = board.irqs(&sysfs::interrupts()?)?;
    let before = memory.records(irqs.len())?;
    spread(&irqs, &sysfs::online()?)?;
    memory.ring(Pace::Paced, irqs.len(), 0, pause_us)?;
    let result = off_and_on(cpu, &memory, &irqs, disks);
    // Whatever went wrong, the next check shall find all CPUs.
    let back = set_online(cpu, true);
    let stopped = memory.stop();
    judge(&before, &memory.records(irqs.len())?, Pace::Paced)?;
    let reads = result?;
    back?;
    let rings = stopped?.rings;
    for disk in disks {
        for cpu in sysfs::online()? {
            disk.reads_on(cpu, READS)?;
        }
    }
    Ok(format!("vectors={} rings={rings} reads={reads}", irqs.len()))
}

/// The part of a cycle during which the host rings.
fn off_and_on(cpu: u32, memory: &Memory, irqs: &[u32], disks: &[Nvme]) -> Result<u64, String> {
    settled(memory, irqs)?;
    let reads = with_readers(disks, || set_online(cpu, false))?;
    settled(memory, irqs)?;
    // With the readers gone the counts are exact again.
    for disk in disks {
        disk.reads_on(0, READS)?;
    }
    let more = with_readers(disks, || set_online(cpu, true))?;
    settled(memory, irqs)?;
    spread(irqs, &sysfs::online()?)?;
    settled(memory, irqs)?;
    Ok(reads + more)
}

/// Runs `body` while a thread for each disk reads, free to run anywhere. Gives the number of reads.
fn with_readers(disks: &[Nvme], body: impl FnOnce() -> Result<(), String>) -> Result<u64, String> {
    let stop = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let read = |disk: &Nvme| -> Result<(), String> {
            let file = disk.open()?;
            while !stop.load(Ordering::Relaxed) {
                disk.read(&file, 8)?;
                reads.fetch_add(8, Ordering::Relaxed);
            }
            Ok(())
        };
        let readers: Vec<_> = disks.iter().map(|disk| scope.spawn(move || read(disk))).collect();
        let result = body();
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().map_err(|_| "a reader panicked".to_owned())??;
        }
        result
    })?;
    Ok(reads.into_inner())
}
