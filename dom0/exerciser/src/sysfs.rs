// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's files: CPUs, affinities, PCI devices, modules, its log.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::irqs::Snapshot;

/// Reads a file without the white space at its end.
///
/// # Errors
/// The file cannot be read; the text names it.
pub fn read(path: impl AsRef<Path>) -> Result<String, String> {
    let path = path.as_ref();
    fs::read_to_string(path)
        .map(|text| text.trim_end().to_owned())
        .map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Writes to a file of the kernel's, in one go.
///
/// # Errors
/// The kernel refused; the text names file and value.
pub fn write(path: impl AsRef<Path>, value: &str) -> Result<(), String> {
    let path = path.as_ref();
    fs::write(path, value)
        .map_err(|error| format!("cannot write '{value}' to {}: {error}", path.display()))
}

/// The names in a folder, sorted as numbers where they end in one, so that `nvme10` is after `nvme9`.
///
/// # Errors
/// The folder cannot be read.
pub fn list(path: impl AsRef<Path>) -> Result<Vec<String>, String> {
    let path = path.as_ref();
    let entries = fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    Ok(names)
}

/// Where a symbolic link of sysfs leads.
///
/// # Errors
/// It does not exist.
pub fn resolve(path: impl AsRef<Path>) -> Result<PathBuf, String> {
    let path = path.as_ref();
    fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The last part of a path.
pub fn last(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A list of numbers as the kernel writes it: `0-2,5`.
///
/// # Errors
/// It is none.
pub fn parse_list(text: &str) -> Result<BTreeSet<u32>, String> {
    let mut numbers = BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, end) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<u32>(), end.parse::<u32>()) {
            (Ok(first), Ok(end)) if first <= end => numbers.extend(first..=end),
            _ => return Err(format!("'{text}' is no list of numbers")),
        }
    }
    Ok(numbers)
}

/// CPUs that are on-line.
///
/// # Errors
/// sysfs is not there.
pub fn online() -> Result<Vec<u32>, String> {
    Ok(parse_list(&read("/sys/devices/system/cpu/online")?)?.into_iter().collect())
}

/// The interrupts of this moment.
///
/// # Errors
/// `/proc/interrupts` cannot be read or understood.
pub fn interrupts() -> Result<Snapshot, String> {
    Snapshot::parse(&read("/proc/interrupts")?)
}

/// The CPU that an interrupt is really sent to.
///
/// # Errors
/// The kernel names none, or more than one, which an LPI cannot have.
pub fn effective_cpu(irq: u32) -> Result<u32, String> {
    let text = read(format!("/proc/irq/{irq}/effective_affinity_list"))?;
    let cpus = parse_list(&text)?;
    match cpus.iter().next() {
        Some(cpu) if cpus.len() == 1 => Ok(*cpu),
        _ => Err(format!("irq {irq}: effective affinity is '{text}', not one CPU")),
    }
}

/// Has this thread run on one CPU.
///
/// # Errors
/// The CPU is off-line.
pub fn pin(cpu: u32) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(cpu as usize);
    sched_setaffinity(None, &set).map_err(|error| format!("cannot run on CPU {cpu}: {error}"))
}

/// Lets this thread run everywhere again.
///
/// # Errors
/// The kernel refused.
pub fn unpin() -> Result<(), String> {
    let mut set = CpuSet::new();
    for cpu in 0..CpuSet::MAX_CPU {
        set.set(cpu);
    }
    sched_setaffinity(None, &set).map_err(|error| format!("cannot run on all CPUs: {error}"))
}

/// Waits until `ready` says so.
///
/// # Errors
/// It did not within `limit`; the text says what was waited for.
pub fn wait_for(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<bool, String>,
) -> Result<(), String> {
    let start = Instant::now();
    while !ready()? {
        if start.elapsed() > limit {
            return Err(format!("{what}: not within {} s", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// PCI devices whose `vendor:device` is this, by address.
///
/// # Errors
/// sysfs is not there.
pub fn pci_devices(vendor: u32, device: u32) -> Result<Vec<PathBuf>, String> {
    let root = Path::new("/sys/bus/pci/devices");
    let is = |path: &Path, file: &str, value: u32| {
        read(path.join(file)).is_ok_and(|text| text == format!("{value:#06x}"))
    };
    Ok(list(root)?
        .iter()
        .map(|name| root.join(name))
        .filter(|path| is(path, "vendor", vendor) && is(path, "device", device))
        .collect())
}

/// Loads the modules that the initramfs brings, in its order. `parameters` gives a module's own.
///
/// # Errors
/// A module is missing or the kernel refused it.
pub fn load_modules(parameters: impl Fn(&str) -> String) -> Result<(), String> {
    for name in read("/modules/order")?.lines() {
        let file =
            File::open(Path::new("/modules").join(name)).map_err(|e| format!("{name}: {e}"))?;
        let words = std::ffi::CString::new(parameters(name)).map_err(|e| format!("{name}: {e}"))?;
        match rustix::system::finit_module(&file, &words, 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            // Xen's own modules are of no use elsewhere.
            Err(rustix::io::Errno::NODEV) if name.starts_with("xen-") => {}
            Err(error) => return Err(format!("cannot load module {name}: {error}")),
        }
    }
    Ok(())
}

/// All lines of the kernel's log so far.
///
/// # Errors
/// `/dev/kmsg` cannot be opened or read.
pub fn kernel_log() -> Result<Vec<String>, String> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open("/dev/kmsg")
        .map_err(|error| format!("/dev/kmsg: {error}"))?;
    let mut lines = Vec::new();
    let mut record = vec![0; 8192];
    loop {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                // "priority,sequence,time,flags;message", then lines of context.
                let message = text.split_once(';').map_or("", |(_, rest)| rest);
                lines.push(message.lines().next().unwrap_or_default().to_owned());
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            // A record was overwritten before it was read.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(format!("/dev/kmsg: {error}")),
        }
    }
    Ok(lines)
}

/// Lines of a kernel log that must not be there when all interrupts arrive.
pub fn bad_lines(log: &[String]) -> Vec<String> {
    const BAD: [&str; 13] = [
        // An NVMe request timed out and the driver found it completed: its interrupt was lost.
        "completion polled",
        ", timeout",
        "nobody cared",
        "ITS queue timeout",
        "ITS queue not draining",
        "NETDEV WATCHDOG",
        "WARNING: CPU",
        "Call trace:",
        "BUG: ",
        "Unable to handle kernel",
        "rcu_sched self-detected stall",
        "detected stalls on CPUs",
        "xenits_ivshmem: error",
    ];
    log.iter().filter(|line| BAD.iter().any(|bad| line.contains(bad))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers() {
        assert_eq!(parse_list("0-2,5"), Ok(BTreeSet::from([0, 1, 2, 5])));
        assert_eq!(parse_list("0, 1"), Ok(BTreeSet::from([0, 1])));
        assert_eq!(parse_list(""), Ok(BTreeSet::new()));
        assert!(parse_list("2-0").is_err());
        assert!(parse_list("x").is_err());
    }

    #[test]
    fn a_polled_completion_is_bad() {
        let log = [
            "nvme nvme0: 2/0/0 default/read/poll queues".to_owned(),
            "nvme nvme0: I/O 12 QID 1 timeout, completion polled".to_owned(),
        ];
        assert_eq!(bad_lines(&log), log.get(1..).unwrap_or_default());
    }
}
