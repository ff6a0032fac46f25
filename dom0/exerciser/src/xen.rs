// SPDX-License-Identifier: GPL-2.0-only
//! Xen, as seen from Dom0: its debug keys by hypercall.
//!
//! Facts are from Xen 4.20's public headers `sysctl.h` and `xen.h`, and Linux's `privcmd.h`.

use std::fs::{File, OpenOptions};

use rustix::fd::AsFd;
use rustix::ioctl;

const HYPERVISOR_SYSCTL: u64 = 35;
const SYSCTL_DEBUG_KEYS: u32 = 7;
/// Xen refuses a call whose version is not its own. 4.20 has the first, its development tree
/// may have the next.
const SYSCTL_VERSIONS: [u32; 2] = [0x15, 0x16];
const PRIVCMD: &str = "/dev/xen/privcmd";

/// `struct privcmd_hypercall`.
#[repr(C)]
struct PrivcmdHypercall {
    op: u64,
    arg: [u64; 5],
}

/// `struct xen_sysctl` with the part for debug keys; the union in it is 128 bytes.
#[repr(C)]
struct Sysctl {
    cmd: u32,
    interface_version: u32,
    keys: u64,
    nr_keys: u32,
    rest: [u32; 29],
}
const _: () = assert!(size_of::<Sysctl>() == 8 + 128);
const _: () = assert!(size_of::<PrivcmdHypercall>() == 48);

const IOCTL_HYPERCALL: ioctl::Opcode =
    ioctl::opcode::none(b'P', 0) | ((size_of::<PrivcmdHypercall>() as ioctl::Opcode) << 16);

/// Whether this kernel runs on Xen.
pub fn present() -> bool {
    std::path::Path::new("/sys/hypervisor/type").exists()
        || std::path::Path::new("/proc/device-tree/hypervisor").exists()
}

/// Presses keys on Xen's console, so to say. What they print appears there, not here.
///
/// # Errors
/// There is no privcmd device, or Xen refused.
pub fn debug_keys(keys: &str) -> Result<(), String> {
    let privcmd = OpenOptions::new()
        .read(true)
        .write(true)
        .open(PRIVCMD)
        .map_err(|error| format!("{PRIVCMD}: {error}"))?;
    let mut last = String::new();
    for version in SYSCTL_VERSIONS {
        match send(&privcmd, keys.as_bytes(), version) {
            Ok(()) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(format!("Xen refused debug key '{keys}': {last}"))
}

#[expect(unsafe_code, reason = "a hypercall through privcmd has no safe wrapper")]
fn send(privcmd: &File, keys: &[u8], version: u32) -> rustix::io::Result<()> {
    let mut sysctl = Sysctl {
        cmd: SYSCTL_DEBUG_KEYS,
        interface_version: version,
        keys: keys.as_ptr().expose_provenance() as u64,
        nr_keys: u32::try_from(keys.len()).unwrap_or(0),
        rest: [0; 29],
    };
    let call = PrivcmdHypercall {
        op: HYPERVISOR_SYSCTL,
        arg: [(&raw mut sysctl).expose_provenance() as u64, 0, 0, 0, 0],
    };
    // SAFETY: the opcode is privcmd's "hypercall" and takes this structure. Xen reads `keys` and
    // reads and writes `sysctl`, both alive and of the stated sizes until the call returns.
    unsafe { ioctl::ioctl(privcmd.as_fd(), ioctl::Setter::<IOCTL_HYPERCALL, _>::new(call)) }
}
