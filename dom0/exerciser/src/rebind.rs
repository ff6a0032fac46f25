// SPDX-License-Identifier: GPL-2.0-only
//! Devices that lose their driver, or go altogether, and come back: MAPD with V=0 and V=1 again,
//! with other LPIs for the same events.

use std::path::Path;
use std::time::Duration;

use crate::ivshmem::{self, Ivshmem, Pace};
use crate::nvme::{self, Nvme};
use crate::report::Outcome;
use crate::sysfs;

const LIMIT: Duration = Duration::from_secs(40);

/// Takes the driver from a device (or the device from the bus), and gives it back.
fn turn(address: &str, driver: &str, whole: bool) -> Result<(), String> {
    let device = Path::new("/sys/bus/pci/devices").join(address);
    let bound = device.join("driver");
    if whole {
        sysfs::write(device.join("remove"), "1")?;
        sysfs::wait_for("removal of the device", LIMIT, || Ok(!device.exists()))?;
        sysfs::write("/sys/bus/pci/rescan", "1")?;
    } else {
        sysfs::write(format!("/sys/bus/pci/drivers/{driver}/unbind"), address)?;
        sysfs::wait_for("unbinding", LIMIT, || Ok(!bound.exists()))?;
        let left = leftovers(address)?;
        if left > 0 {
            return Err(format!("{left} interrupts are left of a device without driver"));
        }
        sysfs::write(format!("/sys/bus/pci/drivers/{driver}/bind"), address)?;
    }
    sysfs::wait_for("binding", LIMIT, || Ok(bound.exists()))
}

/// MSIs that Linux still has for a device.
fn leftovers(address: &str) -> Result<usize, String> {
    let folder = Path::new("/sys/bus/pci/devices").join(address).join("msi_irqs");
    if folder.exists() { Ok(sysfs::list(folder)?.len()) } else { Ok(0) }
}

/// Binds an NVMe anew, and reads on a CPU each time: every vector takes its turn.
///
/// # Errors
/// It did not come back, or an interrupt was missing.
pub fn nvme(disk: &Nvme, times: u64, whole: bool) -> Outcome {
    const READS: u64 = 20;
    let address = disk.address();
    let cpus = sysfs::online()?;
    let mut irqs = 0;
    for (time, cpu) in (0..times).zip(cpus.iter().copied().cycle()) {
        let number = time + 1;
        turn(&address, "nvme", whole).map_err(|reason| format!("time {number}: {reason}"))?;
        let mut back = None;
        sysfs::wait_for(&format!("time {number}: disk of {address}"), LIMIT, || {
            back = nvme::all()?.into_iter().find(|found| found.address() == address);
            Ok(back.is_some())
        })?;
        let Some(back) = back else { continue };
        back.quiet()?;
        back.reads_on(cpu, READS).map_err(|reason| format!("time {number}: {reason}"))?;
        irqs += READS;
    }
    Ok(format!("times={times} irqs={irqs}"))
}

/// Binds an ivshmem anew, and rings all of its vectors each time.
///
/// # Errors
/// It did not come back, or an interrupt was missing.
pub fn ivshmem(board: &Ivshmem, times: u64, whole: bool) -> Outcome {
    let mut rings = 0;
    for time in 1..=times {
        turn(&board.address, "xenits_ivshmem", whole)
            .map_err(|reason| format!("time {time}: {reason}"))?;
        board.wait_ready()?;
        rings += ivshmem::ring_and_check(board, Pace::Paced, 2, 200)
            .map_err(|reason| format!("time {time}: {reason}"))?;
    }
    Ok(format!("times={times} vectors={} rings={rings}", board.vectors()?))
}
