// SPDX-License-Identifier: GPL-2.0-only
//! A device that raises interrupts as fast as it can, while another CPU has something to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::ivshmem::{Ivshmem, Pace, judge};
use crate::report::Outcome;
use crate::{sysfs, xen};

/// The vector that is disabled.
const VECTOR: usize = 0;
/// The CPU that gets all interrupts, and the one that has something else to do.
const TARGET: u32 = 0;
const OTHER: u32 = 1;
/// Longest that the host may take for its rings.
const LIMIT: Duration = Duration::from_secs(100);

/// A CPU that wants to run every millisecond.
struct Heartbeat {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Duration, String>>,
}

impl Heartbeat {
    fn start(cpu: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            sysfs::pin(cpu)?;
            let mut longest = Duration::ZERO;
            while !ends.load(Ordering::Relaxed) {
                let before = Instant::now();
                std::thread::sleep(Duration::from_millis(1));
                longest = longest.max(before.elapsed());
            }
            Ok(longest)
        });
        Self { stop, thread }
    }

    /// The longest time between two beats, in milliseconds, unless that is more than `most`.
    fn stop(self, most: u64) -> Result<u128, String> {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self.thread.join().map_err(|_| "the heartbeat panicked")??.as_millis();
        if longest > most.into() {
            return Err(format!("CPU {OTHER} did not get to run for {longest} ms"));
        }
        Ok(longest)
    }
}

/// All vectors go to one CPU.
fn aim(device: &Ivshmem) -> Result<(), String> {
    for irq in device.irqs(&sysfs::interrupts()?)? {
        sysfs::write(format!("/proc/irq/{irq}/smp_affinity_list"), &TARGET.to_string())?;
    }
    Ok(())
}

/// Rings a vector that is disabled, then enables it.
///
/// # Errors
/// Some interrupt came while it was disabled, the last one did not come afterwards, or the other
/// CPU was held up for more than `gap` ms.
pub fn disabled(device: &Ivshmem, rounds: u64, gap: u64) -> Outcome {
    aim(device)?;
    let memory = device.memory()?;
    let before = memory.record(VECTOR)?;
    let heartbeat = Heartbeat::start(OTHER);
    device.hold(VECTOR, true)?;
    let command = memory.ring(Pace::Storm, VECTOR + 1, rounds, 0)?;
    let start = Instant::now();
    let rung = sysfs::wait_for("rings", LIMIT, || {
        Ok(memory.record(VECTOR)?.raised == before.raised + rounds)
    });
    let took = start.elapsed();
    let held = memory.record(VECTOR)?;
    // Xen says what it thinks of that.
    let pressed = xen::debug_keys("L");
    device.hold(VECTOR, false)?;
    let longest = heartbeat.stop(gap);
    rung.and(pressed)?;
    if held.calls != before.calls {
        return Err(format!("{} interrupts while disabled", held.calls - before.calls));
    }
    let after = memory.wait_acked(VECTOR, before.raised + rounds)?;
    memory.wait(command)?;
    after.judge(&before, Pace::Storm)?;
    let (calls, longest) = (after.calls - before.calls, longest?);
    let rate = u128::from(rounds) * 1000 / took.as_millis().max(1);
    Ok(format!("rings={rounds} per_s={rate} interrupts={calls} gap_ms={longest}"))
}

/// Rings all vectors without waiting for anything.
///
/// # Errors
/// The last ring of some vector was lost, or the other CPU was held up for more than `gap` ms.
pub fn enabled(device: &Ivshmem, rounds: u64, gap: u64) -> Outcome {
    aim(device)?;
    let count = device.vectors()?;
    let memory = device.memory()?;
    let before = memory.records(count)?;
    let heartbeat = Heartbeat::start(OTHER);
    let start = Instant::now();
    let waited = memory.wait(memory.ring(Pace::Storm, count, rounds, 0)?);
    let took = start.elapsed();
    let longest = heartbeat.stop(gap);
    let after = memory.records(count)?;
    judge(&before, &after, Pace::Storm)?;
    let calls: u64 = before.iter().zip(&after).map(|(b, a)| a.calls - b.calls).sum();
    let rings = waited?.rings;
    let rate = u128::from(rings) * 1000 / took.as_millis().max(1);
    Ok(format!("rings={rings} per_s={rate} interrupts={calls} gap_ms={}", longest?))
}
