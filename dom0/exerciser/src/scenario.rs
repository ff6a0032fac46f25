// SPDX-License-Identifier: GPL-2.0-only
//! Scenarios: each is a list of checks, composed from what the devices offer.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use crate::hotplug;
use crate::ivshmem::{self, Ivshmem, Pace};
use crate::livepatch;
use crate::move_irqs;
use crate::net;
use crate::nvme::{self, Nvme};
use crate::options::Options;
use crate::rebind;
use crate::report::{Outcome, Report};
use crate::sata;
use crate::storm;
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

/// Makes the checks of the scenario that the options name, once its devices are there.
///
/// # Errors
/// The scenario is unknown or its devices are not there, so that there is nothing to check.
pub fn prepare(options: &Options) -> Result<Vec<Check>, String> {
    let (own, build): (&[&str], Build) = match options.scenario.as_str() {
        "smoke" => (&[], smoke),
        "count" => (&[], count),
        "sata" => (&["sata"], sata),
        "multi" => (&["net", "ivshmem", "rounds", "flaps"], multi),
        "affinity" => (&["ivshmem", "vectors", "changes", "seed", "pause", "late"], affinity),
        "rebind" => (&["ivshmem", "count", "rescans"], rebind),
        "hotplug" => (&["ivshmem", "cycles", "pause"], hotplug),
        "storm" => (&["ivshmem", "rounds", "gap"], storm),
        "livepatch" => (&[], livepatch),
        other => return Err(format!("unknown scenario '{other}'")),
    };
    let unknown = options.unknown(&[&COMMON, own].concat());
    if !unknown.is_empty() {
        return Err(format!("scenario {} has no option {}", options.scenario, unknown.join(", ")));
    }
    build(options)
}

/// Runs checks in order, and reports each.
pub fn run(checks: Vec<Check>, report: &mut Report) {
    report.plan(checks.len());
    for check in checks {
        let start = Instant::now();
        let outcome = (check.run)();
        let outcome = outcome.map(|facts| format!("{facts} ms={}", start.elapsed().as_millis()));
        report.check(&check.name, &outcome);
    }
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
    let mut queues = BTreeSet::new();
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
    let devices = nvme::expect(options.number("nvme", 1)?)?;
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

/// Disks with one vector each, which goes to every CPU in turn.
fn sata(options: &Options) -> Result<Vec<Check>, String> {
    let reads = options.number("reads", 500)?;
    let mut checks = Vec::new();
    for disk in sata::expect(options.number("sata", 1)?)? {
        // Back to the first CPU at the end.
        for (i, cpu) in sysfs::online()?.into_iter().chain([0]).enumerate() {
            let disk = disk.clone();
            let name = format!("{}-{i}-cpu{cpu}", disk.disk);
            checks.push(check(name, move || disk.reads_to(cpu, reads)));
        }
    }
    if checks.is_empty() {
        return Err("this scenario needs a SATA disk".to_owned());
    }
    checks.push(log_check(options.number("pciadd", 0)? != 0));
    Ok(checks)
}

/// A check that rings all vectors of a device.
fn ring_check(name: &str, device: &Rc<Ivshmem>, pace: Pace, rounds: u64, pause_us: u64) -> Check {
    let device = Rc::clone(device);
    check(format!("{}-{name}", device.address), move || {
        let rings = ivshmem::ring_and_check(&device, pace, rounds, pause_us)?;
        Ok(format!("vectors={} rings={rings}", device.vectors()?))
    })
}

/// Many devices, many queues: every vector there is must come, on its CPU, as often as it must.
fn multi(options: &Options) -> Result<Vec<Check>, String> {
    let reads = options.number("reads", 400)?;
    let rounds = options.number("rounds", 20)?;
    let flaps = options.number("flaps", 2)?;
    let disks = nvme::expect(options.number("nvme", 4)?)?;
    let nics = net::expect(options.number("net", 3)?)?;
    let boards: Vec<Rc<Ivshmem>> =
        ivshmem::expect(options.number("ivshmem", 2)?)?.into_iter().map(Rc::new).collect();
    net::up(&nics)?;
    let before = sysfs::interrupts()?;

    let mut checks = Vec::new();
    for disk in &disks {
        checks.extend(nvme_checks(disk, reads)?);
    }
    if !nics.is_empty() {
        let senders = nics.clone();
        checks.push(check("net-traffic", move || net::traffic(&senders)));
        if let Some(board) = boards.first().cloned() {
            let nics = nics.clone();
            checks.push(check("net-links", move || net::links(&nics, &board.memory()?, flaps)));
        }
    }
    for board in &boards {
        checks.push(ring_check("paced", board, Pace::Paced, rounds, 200));
        checks.push(ring_check("storm", board, Pace::Storm, rounds * 5, 1000));
        // After the storm no vector may be stuck.
        checks.push(ring_check("after-storm", board, Pace::Paced, 2, 200));
    }
    checks.push(check("every-vector", move || {
        let delta = sysfs::interrupts()?.since(&before);
        let silent: Vec<&str> =
            delta.its().filter(|irq| irq.total() == 0).map(|irq| irq.name.as_str()).collect();
        let vectors = delta.its().count();
        match silent.first() {
            None => Ok(format!("vectors={vectors}")),
            Some(first) => Err(format!("{} of {vectors} never came, as {first}", silent.len())),
        }
    }));
    checks.push(log_check(options.number("pciadd", 0)? != 0));
    Ok(checks)
}

/// Vectors change their CPUs while they are raised all the time.
fn affinity(options: &Options) -> Result<Vec<Check>, String> {
    let vectors = options.number("vectors", 64)?;
    let changes = options.number("changes", 400)?;
    let boards = ivshmem::expect(options.number("ivshmem", 1)?)?;
    let board = Rc::new(boards.into_iter().next().ok_or("this scenario needs an ivshmem")?);
    let settings = move_irqs::Settings {
        vectors: usize::try_from(vectors).unwrap_or(0),
        // Each of the two checks makes as many.
        changes: changes.div_ceil(2),
        seed: options.number("seed", 1)?,
        pause_us: options.number("pause", 10_000)?,
        late: options.number("late", u64::MAX)?,
    };
    let (first, second) = (Rc::clone(&board), Rc::clone(&board));
    Ok(vec![
        ring_check("before", &board, Pace::Paced, 2, 200),
        check("each-change", move || move_irqs::each_change(&first, settings)),
        check("bursts", move || move_irqs::bursts(&second, settings)),
        ring_check("after", &board, Pace::Paced, 2, 200),
        log_check(options.number("pciadd", 0)? != 0),
    ])
}

/// Drivers and devices go and come back.
fn rebind(options: &Options) -> Result<Vec<Check>, String> {
    let count = options.number("count", 50)?;
    let rescans = options.number("rescans", 5)?;
    let disks = nvme::expect(options.number("nvme", 1)?)?;
    let boards = ivshmem::expect(options.number("ivshmem", 0)?)?;
    let mut checks = Vec::new();
    for disk in disks {
        let name = disk.address();
        let again = disk.clone();
        checks.push(check(format!("{name}-rebind"), move || rebind::nvme(&disk, count, false)));
        checks.push(check(format!("{name}-rescan"), move || rebind::nvme(&again, rescans, true)));
    }
    for board in boards {
        let name = board.address.clone();
        let again = board.clone();
        let binds = count.min(10);
        checks.push(check(format!("{name}-rebind"), move || rebind::ivshmem(&board, binds, false)));
        checks
            .push(check(format!("{name}-rescan"), move || rebind::ivshmem(&again, rescans, true)));
    }
    checks.push(log_check(options.number("pciadd", 0)? != 0));
    Ok(checks)
}

/// CPUs go off and on while interrupts are sent to them.
fn hotplug(options: &Options) -> Result<Vec<Check>, String> {
    let cycles = options.number("cycles", 3)?;
    let pause = options.number("pause", 10_000)?;
    let disks = nvme::expect(options.number("nvme", 1)?)?;
    let boards = ivshmem::expect(options.number("ivshmem", 1)?)?;
    let board = Rc::new(boards.into_iter().next().ok_or("this scenario needs an ivshmem")?);
    let cpus: Vec<u32> = sysfs::online()?.into_iter().filter(|cpu| *cpu != 0).collect();
    if cpus.is_empty() {
        return Err("there is one CPU only, which cannot go off-line".to_owned());
    }
    let mut checks = vec![ring_check("before", &board, Pace::Paced, 2, 200)];
    for cycle in 1..=cycles {
        for cpu in cpus.iter().copied() {
            let (board, disks) = (Rc::clone(&board), disks.clone());
            checks.push(check(format!("cpu{cpu}-cycle{cycle}"), move || {
                hotplug::cycle(cpu, &board, &disks, pause)
            }));
        }
    }
    checks.push(ring_check("after", &board, Pace::Paced, 2, 200));
    for disk in &disks {
        checks.extend(nvme_checks(disk, 200)?);
    }
    checks.push(log_check(options.number("pciadd", 0)? != 0));
    Ok(checks)
}

/// One device raises interrupts as fast as it can.
fn storm(options: &Options) -> Result<Vec<Check>, String> {
    let rounds = options.number("rounds", 5000)?;
    let gap = options.number("gap", 2000)?;
    let boards = ivshmem::expect(options.number("ivshmem", 1)?)?;
    let board = Rc::new(boards.into_iter().next().ok_or("this scenario needs an ivshmem")?);
    let (first, second) = (Rc::clone(&board), Rc::clone(&board));
    Ok(vec![
        ring_check("before", &board, Pace::Paced, 2, 200),
        check("disabled", move || storm::disabled(&first, rounds, gap)),
        ring_check("between", &board, Pace::Paced, 2, 200),
        check("enabled", move || storm::enabled(&second, rounds.div_ceil(20), gap)),
        ring_check("after", &board, Pace::Paced, 2, 200),
        log_check(options.number("pciadd", 0)? != 0),
    ])
}

/// Xen's code is changed and changed back while an NVMe is read all the time.
fn livepatch(options: &Options) -> Result<Vec<Check>, String> {
    let reads = options.number("reads", 500)?;
    let disk = nvme::expect(options.number("nvme", 1)?)?.into_iter().next().ok_or("no NVMe")?;
    livepatch::payloads()?;
    let cpu = sysfs::online()?.into_iter().next_back().ok_or("no CPU")?;
    let load = Rc::new(livepatch::Load::new(disk, cpu, reads));
    let (first, second, third, last) =
        (Rc::clone(&load), Rc::clone(&load), Rc::clone(&load), Rc::clone(&load));
    Ok(vec![
        check("reads-begin", move || first.start()),
        check("other-xen", livepatch::other_xen),
        check("hello-world", move || livepatch::hello_world(&second)),
        check("its-calls", move || livepatch::its_calls(&third)),
        check("reads-end", move || last.stop()),
        log_check(options.number("pciadd", 0)? != 0),
    ])
}
