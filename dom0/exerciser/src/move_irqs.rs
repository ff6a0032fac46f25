// SPDX-License-Identifier: GPL-2.0-only
//! Affinity changes under load: what Linux turns into MOVI, while the events are pending, queued
//! or in a list register.

use crate::ivshmem::{Ivshmem, Memory, Pace, follow, follow_all, judge};
use crate::report::Outcome;
use crate::sysfs;

/// How a run goes.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Vectors that are rung and moved, from the first on.
    pub vectors: usize,
    /// Affinity changes in all.
    pub changes: u64,
    /// Seed of the choices.
    pub seed: u64,
    /// Rest between two sweeps of rings, in microseconds.
    pub pause_us: u64,
    /// How many rings may come on the CPU that a vector has just left.
    pub late: u64,
}

/// Marsaglia's xorshift: choices that a seed repeats.
struct Choices(u64);

impl Choices {
    fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// One of `items`.
    fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let index = (self.0 >> 33).checked_rem(items.len() as u64)?;
        items.get(usize::try_from(index).ok()?)
    }
}

/// The vectors of a device that take part, with what is needed to move them.
struct Field {
    memory: Memory,
    irqs: Vec<(usize, u32)>,
    cpus: Vec<u32>,
}

impl Field {
    fn new(device: &Ivshmem, settings: Settings) -> Result<Self, String> {
        let irqs = device.irqs(&sysfs::interrupts()?)?;
        if settings.vectors == 0 || irqs.len() < settings.vectors {
            return Err(format!("{} vectors wanted, there are {}", settings.vectors, irqs.len()));
        }
        let cpus = sysfs::online()?;
        if cpus.len() < 2 {
            return Err("with one CPU nothing can move".to_owned());
        }
        let irqs = irqs.into_iter().take(settings.vectors).enumerate().collect();
        Ok(Self { memory: device.memory()?, irqs, cpus })
    }
}

/// Writes an affinity, and checks that Linux took it.
fn aim(irq: u32, cpu: u32) -> Result<(), String> {
    sysfs::write(format!("/proc/irq/{irq}/smp_affinity_list"), &cpu.to_string())?;
    let target = sysfs::effective_cpu(irq)?;
    if target == cpu {
        Ok(())
    } else {
        Err(format!("irq {irq}: aimed at CPU {cpu}, is on {target}"))
    }
}

/// Runs `body` while the host rings all vectors, and judges the records of that time.
fn under_load(
    device: &Ivshmem,
    settings: Settings,
    body: impl FnOnce(&Field) -> Result<(u64, u64), String>,
) -> Outcome {
    let field = Field::new(device, settings)?;
    let before = field.memory.records(settings.vectors)?;
    field.memory.ring(Pace::Paced, settings.vectors, 0, settings.pause_us)?;
    let result = body(&field);
    let stopped = field.memory.stop();
    let after = field.memory.records(settings.vectors)?;
    judge(&before, &after, Pace::Paced)?;
    let (changes, late) = result?;
    let rings = stopped?.rings;
    let idle = before.iter().zip(&after).filter(|(b, a)| a.calls == b.calls).count();
    if idle > 0 {
        return Err(format!("{idle} vectors were never rung: there was no load on them"));
    }
    if late > settings.late {
        return Err(format!("{late} rings came on the CPU before the last, {} may", settings.late));
    }
    let (vectors, cpus) = (settings.vectors, field.cpus.len());
    Ok(format!("vectors={vectors} changes={changes} cpus={cpus} rings={rings} late={late}"))
}

/// Changes one affinity after the other, and follows each to the first ring on its new CPU.
///
/// # Errors
/// Something was lost, doubled, merged, or came on another CPU.
pub fn each_change(device: &Ivshmem, settings: Settings) -> Outcome {
    under_load(device, settings, |field| {
        let mut choices = Choices::new(settings.seed);
        let mut late = 0;
        for _ in 0..settings.changes {
            let Some(&(vector, irq)) = choices.pick(&field.irqs) else { break };
            let current = sysfs::effective_cpu(irq)?;
            let others: Vec<u32> =
                field.cpus.iter().copied().filter(|cpu| *cpu != current).collect();
            let Some(&cpu) = choices.pick(&others) else { break };
            aim(irq, cpu)?;
            late += follow(&field.memory, vector, irq)?;
        }
        Ok((settings.changes, late))
    })
}

/// Changes affinities as fast as Linux takes them, then checks where all vectors have ended up.
///
/// # Errors
/// As [`each_change`].
pub fn bursts(device: &Ivshmem, settings: Settings) -> Outcome {
    under_load(device, settings, |field| {
        let mut choices = Choices::new(!settings.seed);
        let (mut changes, mut late) = (0, 0);
        while changes < settings.changes {
            // Each burst moves every vector once, and some of them again.
            for &(_, irq) in &field.irqs {
                let Some(&cpu) = choices.pick(&field.cpus) else { break };
                aim(irq, cpu)?;
                changes += 1;
            }
            late += follow_all(&field.memory, &field.irqs)?;
        }
        Ok((changes, late))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_repeat_with_the_seed_and_reach_everything() {
        let draw = |seed| {
            let mut choices = Choices::new(seed);
            (0..200)
                .filter_map(|_| choices.pick(&[0, 1, 2, 3, 4, 5, 6, 7]).copied())
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!((0..8).all(|item| draw(0).contains(&item)));
        assert_eq!(Choices::new(1).pick::<u8>(&[]), None);
    }
}
