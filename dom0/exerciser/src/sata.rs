// SPDX-License-Identifier: GPL-2.0-only
//! A SATA disk on an AHCI controller, which has one MSI vector: where there is no NVMe, it gives
//! interrupts by the ITS that can be counted, and that can be sent to any CPU.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
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

/// A disk and its controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sata {
    /// Name of the block device, `sda`.
    pub disk: String,
    /// Address of the PCI device, `0000:00:01.0`.
    pub address: String,
}

/// Waits for a number of disks, and until the kernel does not read them any more.
///
/// # Errors
/// There are fewer after a while, or more.
pub fn expect(count: u64) -> Result<Vec<Sata>, String> {
    let ready = || Ok(all().is_ok_and(|found| found.len() as u64 >= count));
    let waited = sysfs::wait_for("SATA disks", Duration::from_secs(40), ready);
    let found = all()?;
    if found.len() as u64 == count {
        found.iter().try_for_each(Sata::quiet)?;
        return Ok(found);
    }
    waited?;
    Err(format!("expected {count} SATA disks, found {}", found.len()))
}

/// All SATA disks on PCI.
fn all() -> Result<Vec<Sata>, String> {
    let root = Path::new("/sys/block");
    let mut found = Vec::new();
    for disk in sysfs::list(root)? {
        let place = sysfs::resolve(root.join(&disk))?;
        if let Some(address) = controller(&place)
            && Path::new("/dev").join(&disk).exists()
        {
            found.push(Sata { disk, address });
        }
    }
    Ok(found)
}

/// The PCI device that a disk's folder in sysfs is below: `.../0000:00:01.0/ata1/host0/.../sda`.
fn controller(place: &Path) -> Option<String> {
    let names: Vec<&str> = place.iter().filter_map(|name| name.to_str()).collect();
    let port = names.iter().position(|name| name.strip_prefix("ata").is_some_and(is_number))?;
    let address = names.get(port.checked_sub(1)?)?;
    (address.matches(':').count() == 2).then(|| (*address).to_owned())
}

fn is_number(text: &str) -> bool {
    text.parse::<u32>().is_ok()
}

impl Sata {
    /// What `/proc/interrupts` calls the controller's vector.
    fn vector(&self) -> String {
        format!("ahci[{}]", self.address)
    }

    /// Waits until the kernel's own first reads, as for partitions, are over.
    fn quiet(&self) -> Result<(), String> {
        let mut last = sysfs::interrupts()?;
        sysfs::wait_for(&format!("{} to become quiet", self.disk), Duration::from_secs(20), || {
            std::thread::sleep(Duration::from_millis(100));
            let now = sysfs::interrupts()?;
            let still = now.since(&last).named(&self.vector())?.total() == 0;
            last = now;
            Ok(still)
        })
    }

    /// Has the vector come on `cpu`, and reads: as many interrupts must come there, and none
    /// elsewhere.
    ///
    /// # Errors
    /// A read failed; an interrupt is missing, came too often, or on another CPU.
    pub fn reads_to(&self, cpu: u32, count: u64) -> Outcome {
        let number = sysfs::interrupts()?.named(&self.vector())?.number;
        sysfs::write(format!("/proc/irq/{number}/smp_affinity_list"), &cpu.to_string())?;
        let path = format!("/dev/{}", self.disk);
        let disk = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(&path)
            .map_err(|error| format!("{path}: {error}"))?;
        // Linux moves it when it comes the next time, which may be on the old CPU still.
        self.read(&disk, 1)?;
        let before = sysfs::interrupts()?;
        self.read(&disk, count)?;
        let delta = sysfs::interrupts()?.since(&before);
        self.judge(&delta, cpu, count)
            .map(|facts| format!("reads={count} {facts}"))
            .map_err(|reason| format!("{count} reads with the vector on CPU {cpu}: {reason}"))
    }

    fn read(&self, disk: &File, count: u64) -> Result<(), String> {
        let mut buffer = Box::new(Buffer([0; BLOCK]));
        for i in 0..count {
            disk.read_exact_at(&mut buffer.0, (i % SPAN) * BLOCK as u64)
                .map_err(|error| format!("{}: read {i}: {error}", self.disk))?;
        }
        Ok(())
    }

    fn judge(&self, delta: &Snapshot, cpu: u32, count: u64) -> Outcome {
        let vector = delta.named(&self.vector())?;
        if !vector.is_its() {
            return Err(format!("{} is not an MSI of the ITS but {}", vector.name, vector.chip));
        }
        let (total, there) = (vector.total(), vector.counts.get(&cpu).copied().unwrap_or(0));
        if total != count {
            return Err(format!("{total} interrupts"));
        }
        if there != count {
            return Err(format!("they came as {:?}", vector.counts));
        }
        Ok(format!("irqs={total} irq={} hwirq={} cpu={cpu}", vector.number, vector.hwirq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_controller_of_a_disk() {
        let of = |place: &str| controller(Path::new(place));
        let disk = "/sys/devices/platform/40000000.pci/pci0000:00/0000:00:01.0/ata1/host0/target0:0:0/0:0:0:0/block/sda";
        assert_eq!(of(disk).as_deref(), Some("0000:00:01.0"));
        assert_eq!(of("/sys/devices/pci0000:00/0000:00:02.0/nvme/nvme0/nvme0n1"), None);
        assert_eq!(of("/sys/devices/platform/7000.sata/ata1/host0/block/sda"), None);
        assert_eq!(of("/sys/devices/virtual/block/loop0"), None);
    }

    fn judged(line: &str) -> String {
        let sata = Sata { disk: "sda".into(), address: "0000:00:01.0".into() };
        let delta = Snapshot::parse(&format!("  CPU0 CPU1\n{line}")).expect("parses");
        sata.judge(&delta, 1, 50).unwrap_or_else(|reason| format!("bad: {reason}"))
    }

    #[test]
    fn reads_must_give_as_many_interrupts_on_the_right_cpu() {
        let good = " 9: 0 50 ITS-MSI 11 Edge ahci[0000:00:01.0]\n";
        assert_eq!(judged(good), "irqs=50 irq=9 hwirq=11 cpu=1");
        for (bad, why) in [
            (good.replace("50", "49"), "bad: 49 interrupts"),
            (good.replace("50", "51"), "bad: 51 interrupts"),
            (good.replace("0 50", "1 49"), "bad: they came as"),
            (
                good.replace("ITS-MSI 11", "GICv2m 11"),
                "bad: ahci[0000:00:01.0] is not an MSI of the ITS",
            ),
            (good.replace("01.0", "02.0"), "bad: no interrupt is named ahci[0000:00:01.0]"),
        ] {
            assert!(judged(&bad).starts_with(why), "{}", judged(&bad));
        }
    }
}
