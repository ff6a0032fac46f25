// SPDX-License-Identifier: GPL-2.0-only
//! Scenarios: each is a list of checks, composed from what the devices offer.

use crate::nvme::{self, Nvme};
use crate::options::Options;
use crate::report::{Outcome, Report};
use crate::sysfs;

/// One check: its name, and what it does.
pub struct Check {
    name: String,
    run: Box<dyn FnOnce() -> Outcome>,
}

/// A check from a name and a function.
fn check(name: impl Into<String>, run: impl FnOnce() -> Outcome + 'static) -> Check {
    Check { name: name.into(), run: Box::new(run) }
}

/// Options that every scenario takes.
const COMMON: [&str; 6] = ["key", "timeout", "pciadd", "nvme", "reads", "sabotage"];

/// Makes the checks of a scenario once its devices are there.
type Build = fn(&Options) -> Result<Vec<Check>, String>;

/// Prepares a scenario, runs its checks, and reports them.
///
/// # Errors
/// The scenario is unknown or its devices are not there, so that there is nothing to check.
pub fn run(options: &Options, report: &mut Report) -> Result<(), String> {
    let (own, build): (&[&str], Build) = match options.scenario.as_str() {
        "smoke" => (&[], smoke),
        "count" => (&[], count),
        other => return Err(format!("unknown scenario '{other}'")),
    };
    let unknown = options.unknown(&[&COMMON, own].concat());
    if !unknown.is_empty() {
        return Err(format!("scenario {} has no option {}", options.scenario, unknown.join(", ")));
    }
    let checks = build(options)?;
    report.plan(checks.len());
    for check in checks {
        let outcome = (check.run)();
        report.check(&check.name, &outcome);
    }
    Ok(())
}

/// The kernel's log has no line that tells of a lost interrupt or worse.
fn log_check(pciadd: bool) -> Check {
    check("kernel-log", move || {
        let log = sysfs::kernel_log()?;
        let mut bad = sysfs::bad_lines(&log);
        if pciadd {
            const REFUSED: &str = "Failed to add - passthrough or MSI/MSI-X might fail!";
            bad.extend(log.iter().filter(|line| line.contains(REFUSED)).cloned());
        }
        match bad.first() {
            None => Ok(format!("lines={}", log.len())),
            Some(first) => Err(format!("{} bad lines, the first: {first}", bad.len())),
        }
    })
}

/// Reads on every CPU in turn, on one NVMe; then every vector it has must have been used.
fn nvme_checks(nvme: &Nvme, reads: u64) -> Result<Vec<Check>, String> {
    let cpus = sysfs::online()?;
    let mut checks = Vec::new();
    let mut queues = std::collections::BTreeSet::new();
    for (i, cpu) in cpus.iter().copied().enumerate() {
        // The first CPU takes what does not divide evenly.
        let share = reads / cpus.len() as u64;
        let count = if i == 0 { reads - share * (cpus.len() as u64 - 1) } else { share };
        queues.insert(nvme.queue_of(cpu)?);
        let nvme = nvme.clone();
        checks.push(check(format!("{}-cpu{cpu}", nvme.name), move || nvme.reads_on(cpu, count)));
    }
    let vectors = nvme.clone();
    checks.push(check(format!("{}-vectors", nvme.name), move || {
        let have = vectors.io_vectors()?;
        if have.len() != queues.len() {
            return Err(format!(
                "{} I/O vectors, but CPUs use {} queues",
                have.len(),
                queues.len()
            ));
        }
        Ok(format!("io={}", have.len()))
    }));
    let admin = nvme.clone();
    checks.push(check(format!("{}-admin", nvme.name), move || admin.admin()));
    Ok(checks)
}

fn smoke(options: &Options) -> Result<Vec<Check>, String> {
    let reads = options.number("reads", 2000)?;
    let devices = nvme::expect(usize::try_from(options.number("nvme", 1)?).unwrap_or(0))?;
    let before = sysfs::interrupts()?;
    let mut checks = Vec::new();
    for device in &devices {
        checks.extend(nvme_checks(device, reads)?);
    }
    let wanted = reads * devices.len() as u64;
    checks.push(check("its-total", move || {
        let delta = sysfs::interrupts()?.since(&before);
        let total: u64 = delta.its().map(|irq| irq.total()).sum();
        if total < wanted {
            return Err(format!("{total} MSIs, expected {wanted} or more"));
        }
        Ok(format!("msis={total}"))
    }));
    checks.push(log_check(options.number("pciadd", 0)? != 0));
    Ok(checks)
}

/// Reads on CPU 0 and nothing else, for counting instructions.
fn count(options: &Options) -> Result<Vec<Check>, String> {
    let reads = options.number("reads", 2000)?;
    let devices = nvme::expect(1)?;
    let device = devices.into_iter().next().ok_or("no NVMe")?;
    Ok(vec![check("reads", move || device.reads_on(0, reads))])
}
