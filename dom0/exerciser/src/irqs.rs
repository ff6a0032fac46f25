// SPDX-License-Identifier: GPL-2.0-only
//! `/proc/interrupts`: how often each interrupt came, and on which CPU.

use std::collections::BTreeMap;
use std::fmt;

/// One interrupt's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Irq {
    /// Linux's number, the name of its folder in `/proc/irq`.
    pub number: u32,
    /// The interrupt chip: `ITS-MSI` for MSIs that come as LPIs.
    pub chip: String,
    /// The chip's own number of it, made of PCI device and vector for MSIs.
    pub hwirq: u64,
    /// Who handles it, such as `nvme0q1`.
    pub name: String,
    /// CPU number to count. Linux shows the CPUs that are on-line.
    pub counts: BTreeMap<u32, u64>,
}

impl Irq {
    /// Whether it is an MSI that the ITS translates to an LPI.
    pub fn is_its(&self) -> bool {
        self.chip.starts_with("ITS")
    }

    /// Times it came, over all CPUs that are shown.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

impl fmt::Display for Irq {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}/{} {}", self.number, self.chip, self.hwirq, self.name)?;
        self.counts.values().try_for_each(|count| write!(out, " {count}"))
    }
}

/// All interrupts of one moment, by Linux's number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The lines that have a number; IPIs and error counters are left out.
    pub irqs: BTreeMap<u32, Irq>,
}

impl Snapshot {
    /// Parses the text of `/proc/interrupts`.
    ///
    /// # Errors
    /// The header with the CPUs' names is missing, or a numbered line has too few columns.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        let cpus: Vec<u32> = lines
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .map(|word| word.strip_prefix("CPU").and_then(|number| number.parse().ok()))
            .collect::<Option<_>>()
            .ok_or("/proc/interrupts: the first line does not name CPUs")?;
        if cpus.is_empty() {
            return Err("/proc/interrupts: the first line names no CPU".to_owned());
        }
        let mut irqs = BTreeMap::new();
        for line in lines {
            let Some((number, rest)) = line.split_once(':') else { continue };
            let Ok(number) = number.trim().parse() else { continue };
            let irq = parse_line(number, rest, &cpus)
                .ok_or_else(|| format!("/proc/interrupts: cannot read '{line}'"))?;
            irqs.insert(number, irq);
        }
        Ok(Self { irqs })
    }

    /// MSIs of the ITS.
    pub fn its(&self) -> impl Iterator<Item = &Irq> {
        self.irqs.values().filter(|irq| irq.is_its())
    }

    /// The interrupt that `name` handles.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn named(&self, name: &str) -> Result<&Irq, String> {
        let mut found = self.irqs.values().filter(|irq| irq.name == name);
        let first = found.next().ok_or_else(|| format!("no interrupt is named {name}"))?;
        found.next().map_or(Ok(first), |_| Err(format!("several interrupts are named {name}")))
    }

    /// What came since `earlier`: the same interrupts with the differences as counts.
    ///
    /// An interrupt or CPU that `earlier` did not have counts from zero, and so does one
    /// whose count went down: the device was bound anew meanwhile and Linux started over.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut delta = self.clone();
        for irq in delta.irqs.values_mut() {
            let Some(old) = earlier.irqs.get(&irq.number) else { continue };
            if old.hwirq != irq.hwirq || old.name != irq.name || old.total() > irq.total() {
                continue;
            }
            for (cpu, count) in &mut irq.counts {
                *count = count.saturating_sub(old.counts.get(cpu).copied().unwrap_or(0));
            }
        }
        delta
    }
}

/// The part of a line after the colon: counts, chip, hwirq, trigger, name.
fn parse_line(number: u32, rest: &str, cpus: &[u32]) -> Option<Irq> {
    let mut words = rest.split_whitespace();
    let mut counts = BTreeMap::new();
    for cpu in cpus {
        counts.insert(*cpu, words.next()?.parse().ok()?);
    }
    let chip = words.next()?.to_owned();
    // Chips without a number of their own leave that column out.
    let mut words = words.peekable();
    let hwirq = words.next_if(|word| word.parse::<u64>().is_ok());
    let hwirq = hwirq.and_then(|word| word.parse().ok()).unwrap_or(0);
    words.next_if(|word| *word == "Edge" || *word == "Level");
    let name = words.collect::<Vec<_>>().join(" ");
    Some(Irq { number, chip, hwirq, name, counts })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "           CPU0       CPU2       \n\
        \x20 11:       1207        903     GICv3  27 Level     arch_timer\n\
        \x20 45:          3       2000   ITS-MSI 16384 Edge      nvme0q0\n\
        \x20 46:        500          0   ITS-MSI 16385 Edge      nvme0q1\n\
        \x20 47:          0          7   ITS-MSI 32768 Edge      virtio0-input.0\n\
        \x20 50:          0          0   xen-dyn     Edge    -event     hvc_console\n\
        IPI0:        10         20       Rescheduling interrupts\n\
        Err:          0\n";

    #[test]
    fn reads_counts_under_the_cpu_that_the_header_names() {
        let now = Snapshot::parse(TEXT).expect("parses");
        assert_eq!(now.irqs.len(), 5);
        let irq = now.named("nvme0q0").expect("found");
        assert_eq!((irq.number, irq.hwirq), (45, 16384));
        assert_eq!(irq.counts, BTreeMap::from([(0, 3), (2, 2000)]));
        assert_eq!(irq.total(), 2003);
        assert_eq!(now.its().count(), 3);
        assert_eq!(irq.to_string(), "45 ITS-MSI/16384 nvme0q0 3 2000");
    }

    #[test]
    fn a_chip_without_number_keeps_its_name() {
        let now = Snapshot::parse(TEXT).expect("parses");
        assert_eq!(now.irqs.get(&50).map(|irq| irq.chip.as_str()), Some("xen-dyn"));
        assert_eq!(now.irqs.get(&50).map(|irq| irq.is_its()), Some(false));
    }

    #[test]
    fn differences_are_per_cpu() {
        let before = Snapshot::parse(TEXT).expect("parses");
        let after = TEXT.replace("   3       2000", "   4       2010");
        let delta = Snapshot::parse(&after).expect("parses").since(&before);
        let irq = delta.named("nvme0q0").expect("found");
        assert_eq!(irq.counts, BTreeMap::from([(0, 1), (2, 10)]));
        assert_eq!(delta.named("nvme0q1").map(Irq::total), Ok(0));
    }

    #[test]
    fn a_count_that_started_over_is_not_subtracted() {
        let before = Snapshot::parse(TEXT).expect("parses");
        let after = TEXT.replace("   3       2000", "   1          9");
        let delta = Snapshot::parse(&after).expect("parses").since(&before);
        assert_eq!(delta.named("nvme0q0").map(Irq::total), Ok(10));
    }

    #[test]
    fn a_new_owner_of_a_number_starts_from_zero() {
        let before = Snapshot::parse(TEXT).expect("parses");
        let after = TEXT.replace("nvme0q1", "nvme1q1");
        let delta = Snapshot::parse(&after).expect("parses").since(&before);
        assert_eq!(delta.named("nvme1q1").map(Irq::total), Ok(500));
    }

    #[test]
    fn refuses_garbage() {
        assert!(Snapshot::parse("").is_err());
        assert!(Snapshot::parse("CPU0 CPX\n").is_err());
        assert!(Snapshot::parse(" CPU0 CPU1\n 45: 1 ITS-MSI 5 Edge x\n").is_err());
    }

    #[test]
    fn names_must_be_unique() {
        let twice = TEXT.replace("nvme0q1", "nvme0q0");
        assert!(Snapshot::parse(&twice).expect("parses").named("nvme0q0").is_err());
        assert!(Snapshot::parse(TEXT).expect("parses").named("absent").is_err());
    }
}
