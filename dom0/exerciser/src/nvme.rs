// SPDX-License-Identifier: GPL-2.0-only
//! NVMe: one MSI-X vector for the admin queue and one for each I/O queue. A direct read by a
//! thread on one CPU completes with one interrupt on the vector of that CPU's queue.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;

use crate::irqs::Snapshot;
use crate::report::Outcome;
use crate::sysfs;

/// Bytes per read; also the alignment that direct reads are given.
const BLOCK: usize = 4096;
/// Reads wander over this much of the disk, in blocks.
const SPAN: u64 = 1024;

#[repr(align(4096))]
struct Buffer([u8; BLOCK]);

/// A controller with its first namespace.
#[derive(Debug, Clone)]
pub struct Nvme {
    /// The controller's name, `nvme0`: what its interrupts' names begin with.
    pub name: String,
    /// Name of the block device, `nvme0n1`.
    pub disk: String,
    /// sysfs' folder of its I/O queues.
    pub queues: PathBuf,
    /// Folder of the PCI device.
    pub pci: PathBuf,
}

/// All NVMe controllers that have a disk.
///
/// # Errors
/// sysfs is not as expected.
pub fn all() -> Result<Vec<Nvme>, String> {
    let root = Path::new("/sys/class/nvme");
    let mut found = Vec::new();
    for name in sysfs::list(root)? {
        let folder = root.join(&name);
        // The namespace as this controller reaches it, such as nvme0n1 or nvme0c0n1.
        let path = sysfs::list(&folder)?.into_iter().find(|entry| disk_of(entry).is_some());
        let Some((path, disk)) = path.and_then(|path| Some((folder.join(&path), disk_of(&path)?)))
        else {
            continue;
        };
        let pci = sysfs::resolve(folder.join("device"))?;
        if Path::new("/dev").join(&disk).exists() && path.join("mq").exists() {
            found.push(Nvme { name, disk, queues: path.join("mq"), pci });
        }
    }
    Ok(found)
}

/// The name of the disk that belongs to a namespace's folder, which Linux may list as a path of
/// several to it: `nvme0c1n1` is a path to `nvme0n1`.
fn disk_of(entry: &str) -> Option<String> {
    let (controller, namespace) = entry.strip_prefix("nvme")?.rsplit_once('n')?;
    namespace.parse::<u32>().ok()?;
    let subsystem = controller.split('c').next()?;
    subsystem.parse::<u32>().ok()?;
    Some(format!("nvme{subsystem}n{namespace}"))
}

/// Waits for a number of controllers, whose probing goes on in the background, and for the end of
/// the kernel's own reads: the counts that follow are exact.
///
/// # Errors
/// There are fewer after a while; more are an error too, because a test would leave them out.
pub fn expect(count: u64) -> Result<Vec<Nvme>, String> {
    let ready = || Ok(all().is_ok_and(|found| found.len() as u64 >= count));
    let waited = sysfs::wait_for("NVMe controllers", Duration::from_secs(40), ready);
    let found = all()?;
    if found.len() as u64 == count {
        found.iter().try_for_each(Nvme::quiet)?;
        return Ok(found);
    }
    waited?;
    Err(format!("expected {count} NVMe, found {}", found.len()))
}

impl Nvme {
    /// Address of the PCI device, such as `0000:00:01.0`.
    pub fn address(&self) -> String {
        sysfs::last(&self.pci)
    }

    /// The queue that a CPU's requests go to: 1 for the first I/O queue, as in its interrupt's name.
    ///
    /// # Errors
    /// No queue serves that CPU.
    pub fn queue_of(&self, cpu: u32) -> Result<u32, String> {
        for queue in sysfs::list(&self.queues)? {
            let cpus = sysfs::parse_list(&sysfs::read(self.queues.join(&queue).join("cpu_list"))?)?;
            if cpus.contains(&cpu) {
                let number: u32 = queue.parse().map_err(|_| format!("odd queue '{queue}'"))?;
                return Ok(number + 1);
            }
        }
        Err(format!("{}: no queue for CPU {cpu}", self.disk))
    }

    /// Opens the disk so that each read reaches the device.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(&self) -> Result<File, String> {
        let path = format!("/dev/{}", self.disk);
        OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(&path)
            .map_err(|error| format!("{path}: {error}"))
    }

    /// Waits until the kernel's own first reads, as for partitions, are over.
    ///
    /// # Errors
    /// They are not after a while.
    pub fn quiet(&self) -> Result<(), String> {
        let mut last = sysfs::interrupts()?;
        sysfs::wait_for(&format!("{} to become quiet", self.name), Duration::from_secs(20), || {
            std::thread::sleep(Duration::from_millis(30));
            let now = sysfs::interrupts()?;
            let still = now.since(&last).its().all(|irq| irq.total() == 0 || !self.owns(&irq.name));
            last = now;
            Ok(still)
        })
    }

    /// Reads `count` blocks one after the other.
    ///
    /// # Errors
    /// A read failed or was short.
    pub fn read(&self, disk: &File, count: u64) -> Result<(), String> {
        let mut buffer = Box::new(Buffer([0; BLOCK]));
        for i in 0..count {
            disk.read_exact_at(&mut buffer.0, (i % SPAN) * BLOCK as u64)
                .map_err(|error| format!("{}: read {i}: {error}", self.disk))?;
        }
        Ok(())
    }

    /// Reads on one CPU, and compares what came on each vector of this controller with what the
    /// reads must have caused.
    ///
    /// # Errors
    /// An interrupt is missing, came too often, on another vector or on another CPU.
    pub fn reads_on(&self, cpu: u32, count: u64) -> Outcome {
        self.reads_by(cpu, |disk| self.read(disk, count).map(|()| count))
    }

    /// The same for what `reader` reads; it is given the disk, and gives the number of its reads.
    ///
    /// # Errors
    /// As `reads_on`.
    pub fn reads_by(&self, cpu: u32, reader: impl FnOnce(&File) -> Result<u64, String>) -> Outcome {
        let queue = self.queue_of(cpu)?;
        let disk = self.open()?;
        sysfs::pin(cpu)?;
        let before = sysfs::interrupts()?;
        let result = reader(&disk);
        let delta = sysfs::interrupts()?.since(&before);
        sysfs::unpin()?;
        let count = result?;
        self.judge_reads(&delta, queue, count, sysfs::effective_cpu)
            .map(|facts| format!("reads={count} {facts}"))
            .map_err(|reason| format!("{count} reads on CPU {cpu}: {reason}"))
    }

    /// Whether these interrupts are what `count` reads through a queue must have caused: as many on
    /// its vector, all on its target, and none on the other I/O vectors.
    fn judge_reads(
        &self,
        delta: &Snapshot,
        queue: u32,
        count: u64,
        target_of: impl Fn(u32) -> Result<u32, String>,
    ) -> Outcome {
        let vector = delta.named(&format!("{}q{queue}", self.name))?;
        let (name, total) = (&vector.name, vector.total());
        if !vector.is_its() {
            return Err(format!("{name} is not an MSI of the ITS but {}", vector.chip));
        }
        if total != count {
            return Err(format!("{total} interrupts on {name}"));
        }
        let target = target_of(vector.number)?;
        if vector.counts.get(&target).copied().unwrap_or(0) != count {
            return Err(format!("{name} is for CPU {target}, but came as {:?}", vector.counts));
        }
        let mut others = delta.its().filter(|irq| self.owns_io_vector(&irq.name));
        if let Some(other) = others.find(|irq| irq.name != *name && irq.total() != 0) {
            return Err(format!("{} interrupts on {}, not {name}", other.total(), other.name));
        }
        let (number, hwirq) = (vector.number, vector.hwirq);
        Ok(format!("irqs={total} vector={name} irq={number} hwirq={hwirq} cpu={target}"))
    }

    /// Has the controller complete admin commands, and waits for the admin vector.
    ///
    /// # Errors
    /// It did not come, or on another CPU than its effective affinity names.
    pub fn admin(&self) -> Outcome {
        let name = format!("{}q0", self.name);
        let before = sysfs::interrupts()?;
        sysfs::write(format!("/sys/class/nvme/{}/rescan_controller", self.name), "1")?;
        let mut delta = before.clone();
        sysfs::wait_for(&name, Duration::from_secs(20), || {
            delta = sysfs::interrupts()?.since(&before);
            Ok(delta.named(&name)?.total() > 0)
        })?;
        let vector = delta.named(&name)?;
        let target = sysfs::effective_cpu(vector.number)?;
        let on_target = vector.counts.get(&target).copied().unwrap_or(0);
        if on_target != vector.total() {
            return Err(format!("{name} is for CPU {target}, but came as {:?}", vector.counts));
        }
        Ok(format!("irqs={on_target} irq={} hwirq={} cpu={target}", vector.number, vector.hwirq))
    }

    /// The I/O vectors of this controller that its driver asked for.
    ///
    /// # Errors
    /// `/proc/interrupts` cannot be read.
    pub fn io_vectors(&self) -> Result<Vec<String>, String> {
        let now = sysfs::interrupts()?;
        Ok(now.its().map(|irq| irq.name.clone()).filter(|name| self.owns_io_vector(name)).collect())
    }

    fn owns(&self, name: &str) -> bool {
        name == format!("{}q0", self.name) || self.owns_io_vector(name)
    }

    fn owns_io_vector(&self, name: &str) -> bool {
        name.strip_prefix(&self.name)
            .and_then(|rest| rest.strip_prefix('q'))
            .is_some_and(|queue| queue != "0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_disk_of_a_path() {
        assert_eq!(disk_of("nvme0n1").as_deref(), Some("nvme0n1"));
        assert_eq!(disk_of("nvme3c3n2").as_deref(), Some("nvme3n2"));
        assert_eq!(disk_of("nvme0"), None);
        assert_eq!(disk_of("numa_node"), None);
        assert_eq!(disk_of("hwmon0"), None);
    }

    fn judged(lines: &str) -> String {
        let (queues, pci) = (PathBuf::new(), PathBuf::new());
        let nvme = Nvme { name: "nvme0".into(), disk: "nvme0n1".into(), queues, pci };
        let text = format!("  CPU0 CPU1\n{lines}");
        let delta = Snapshot::parse(&text).expect("parses");
        nvme.judge_reads(&delta, 1, 50, |_| Ok(1)).unwrap_or_else(|reason| format!("bad: {reason}"))
    }

    #[test]
    fn reads_must_give_as_many_interrupts_on_the_right_vector_and_cpu() {
        let good = " 8: 3 0 ITS-MSI 10 Edge nvme0q0\n 9: 0 50 ITS-MSI 11 Edge nvme0q1\n";
        assert_eq!(judged(good), "irqs=50 vector=nvme0q1 irq=9 hwirq=11 cpu=1");
        let other = format!("{good} 10: 1 0 ITS-MSI 12 Edge nvme0q2\n");
        for (bad, why) in [
            (good.replace("50", "49"), "bad: 49 interrupts on nvme0q1"),
            (good.replace("50", "51"), "bad: 51 interrupts on nvme0q1"),
            (good.replace("0 50", "1 49"), "bad: nvme0q1 is for CPU 1"),
            (good.replace("ITS-MSI 11", "GICv2m 11"), "bad: nvme0q1 is not an MSI of the ITS"),
            (good.replace("q1", "q3"), "bad: no interrupt is named nvme0q1"),
            (other, "bad: 1 interrupts on nvme0q2, not nvme0q1"),
        ] {
            assert!(judged(&bad).starts_with(why), "{}", judged(&bad));
        }
    }

    #[test]
    fn tells_its_vectors_from_others() {
        let (queues, pci) = (PathBuf::new(), PathBuf::new());
        let nvme = Nvme { name: "nvme1".into(), disk: "nvme1n1".into(), queues, pci };
        assert!(nvme.owns_io_vector("nvme1q1"));
        assert!(nvme.owns_io_vector("nvme1q64"));
        assert!(!nvme.owns_io_vector("nvme1q0"));
        assert!(!nvme.owns_io_vector("nvme11q1"));
        assert!(!nvme.owns_io_vector("virtio0-config"));
    }
}
