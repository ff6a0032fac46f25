// SPDX-License-Identifier: GPL-2.0-only
//! virtio-net NICs, all on one hub of QEMU's: a frame that one sends is received by the others.
//! Each has three vectors or more: configuration, and receive and transmit for each queue pair.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::path::Path;
use std::time::Duration;

use crate::irqs::Snapshot;
use crate::ivshmem::Memory;
use crate::sysfs;

/// Frames are sent in bursts of this many, until every vector has come.
const BURST: usize = 64;
const IFF_UP: &str = "0x1003";

/// A NIC.
#[derive(Debug, Clone)]
pub struct Nic {
    /// Name of the network interface.
    pub name: String,
    /// Name of the virtio device, which its interrupts' names begin with.
    pub virtio: String,
    index: u32,
}

/// A number of NICs.
///
/// # Errors
/// There are not as many.
pub fn expect(count: u64) -> Result<Vec<Nic>, String> {
    let mut found = Vec::new();
    for name in sysfs::list("/sys/class/net")? {
        let root = Path::new("/sys/class/net").join(&name);
        let Ok(device) = sysfs::resolve(root.join("device")) else { continue };
        let virtio = sysfs::last(&device);
        if virtio.starts_with("virtio") {
            let index = sysfs::read(root.join("ifindex"))?;
            let index = index.parse().map_err(|_| format!("{name}: odd ifindex '{index}'"))?;
            found.push(Nic { name, virtio, index });
        }
    }
    if found.len() as u64 != count {
        return Err(format!("expected {count} virtio-net, found {}", found.len()));
    }
    Ok(found)
}

/// Switches on all NICs, with an address that can send at once.
///
/// # Errors
/// The kernel refused.
pub fn up(nics: &[Nic]) -> Result<(), String> {
    for nic in nics {
        // No wait for others that may have the same address: there are none.
        sysfs::write(format!("/proc/sys/net/ipv6/conf/{}/accept_dad", nic.name), "0")?;
        sysfs::write(format!("/sys/class/net/{}/flags", nic.name), IFF_UP)?;
    }
    for nic in nics {
        let what = format!("link-local address of {}", nic.name);
        sysfs::wait_for(&what, Duration::from_secs(20), || {
            let all = sysfs::read("/proc/net/if_inet6")?;
            Ok(all.lines().any(|line| line.starts_with("fe80") && line.ends_with(&nic.name)))
        })?;
    }
    Ok(())
}

impl Nic {
    /// The names of its vectors' interrupts.
    pub fn vectors(&self, now: &Snapshot) -> BTreeSet<String> {
        let prefix = format!("{}-", self.virtio);
        now.its().map(|irq| irq.name.clone()).filter(|name| name.starts_with(&prefix)).collect()
    }

    /// Sends a burst of frames to all nodes on the link.
    fn burst(&self) -> Result<(), String> {
        let fail = |error| format!("{}: {error}", self.name);
        let socket =
            UdpSocket::bind(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0)).map_err(fail)?;
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let target = SocketAddrV6::new(all_nodes, 9, 0, self.index);
        for _ in 0..BURST {
            match socket.send_to(&[0; 512], target) {
                Ok(_) => {}
                // The transmit ring is full: that is as good a reason for interrupts as any.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(fail(error)),
            }
        }
        Ok(())
    }
}

/// Sends on every NIC from every CPU until each receive and transmit vector has come.
///
/// # Errors
/// One never did, or came on a CPU that it is not for.
pub fn traffic(nics: &[Nic]) -> Result<String, String> {
    let before = sysfs::interrupts()?;
    let queues: BTreeSet<String> = nics
        .iter()
        .flat_map(|nic| nic.vectors(&before))
        .filter(|name| !name.ends_with("-config"))
        .collect();
    if queues.len() < 2 * nics.len() {
        return Err(format!("{} NICs have only {} queue vectors", nics.len(), queues.len()));
    }
    let mut silent = queues.clone();
    for _ in 0..200 {
        for cpu in sysfs::online()? {
            sysfs::pin(cpu)?;
            nics.iter().try_for_each(Nic::burst)?;
        }
        sysfs::unpin()?;
        std::thread::sleep(Duration::from_millis(5));
        let delta = sysfs::interrupts()?.since(&before);
        silent.retain(|name| delta.named(name).is_ok_and(|irq| irq.total() == 0));
        if silent.is_empty() {
            let total: u64 = queues
                .iter()
                .filter_map(|name| delta.named(name).ok())
                .map(|irq| irq.total())
                .sum();
            for name in &queues {
                misrouted(&delta, name)?;
            }
            return Ok(format!("vectors={} irqs={total}", queues.len()));
        }
    }
    Err(format!("no interrupt on {}", silent.into_iter().collect::<Vec<_>>().join(", ")))
}

/// Has the host change the links until each configuration vector has come.
///
/// # Errors
/// One never did, or came on a CPU that it is not for.
pub fn links(nics: &[Nic], memory: &Memory, times: u64) -> Result<String, String> {
    let before = sysfs::interrupts()?;
    memory.wait(memory.flap_links(times)?)?;
    let mut least = u64::MAX;
    for nic in nics {
        let name = format!("{}-config", nic.virtio);
        sysfs::wait_for(&name, Duration::from_secs(10), || {
            Ok(sysfs::interrupts()?.since(&before).named(&name)?.total() >= times)
        })?;
        let delta = sysfs::interrupts()?.since(&before);
        misrouted(&delta, &name)?;
        least = least.min(delta.named(&name)?.total());
    }
    Ok(format!("vectors={} changes={} irqs-each={least}", nics.len(), 2 * times))
}

/// All of an interrupt's counts must be on the CPU that it is for.
fn misrouted(delta: &Snapshot, name: &str) -> Result<(), String> {
    let irq = delta.named(name)?;
    let target = sysfs::effective_cpu(irq.number)?;
    match irq.counts.iter().find(|(cpu, count)| **cpu != target && **count > 0) {
        None => Ok(()),
        Some((cpu, count)) => {
            Err(format!("{name} is for CPU {target}, but came {count} times on {cpu}"))
        }
    }
}
