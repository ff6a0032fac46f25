// SPDX-License-Identifier: GPL-2.0-only
//! Xen, as seen from Dom0: its debug keys and its live patches by hypercall.
//!
//! Facts are from Xen 4.20's public headers `sysctl.h` and `xen.h`, and Linux's `privcmd.h`.

use std::ffi::CStr;
use std::fs::OpenOptions;

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::ioctl;

const HYPERVISOR_SYSCTL: u64 = 35;
const SYSCTL_DEBUG_KEYS: u32 = 7;
const SYSCTL_LIVEPATCH: u32 = 27;
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
const _: () = assert!(size_of::<PrivcmdHypercall>() == 48);

const IOCTL_HYPERCALL: ioctl::Opcode =
    ioctl::opcode::none(b'P', 0) | ((size_of::<PrivcmdHypercall>() as ioctl::Opcode) << 16);

/// `struct xen_sysctl`. The union in it is 128 bytes.
#[repr(C)]
struct Sysctl<T> {
    cmd: u32,
    interface_version: u32,
    operation: T,
}

/// `struct xen_sysctl_debug_keys`.
#[repr(C)]
struct DebugKeys {
    keys: u64,
    nr_keys: u32,
    rest: [u32; 29],
}

/// What all operations on live patches begin with.
#[repr(C)]
struct LivepatchOp {
    op: u32,
    flags: u32,
}

/// `struct xen_livepatch_name`; the size includes the final NUL.
#[repr(C)]
struct LivepatchName {
    name: u64,
    size: u16,
    pad: [u16; 3],
}

#[repr(C)]
struct LivepatchUpload {
    op: LivepatchOp,
    name: LivepatchName,
    size: u64,
    payload: u64,
    rest: [u64; 11],
}

#[repr(C)]
struct LivepatchGet {
    op: LivepatchOp,
    name: LivepatchName,
    state: u32,
    rc: i32,
    rest: [u64; 12],
}

#[repr(C)]
struct LivepatchList {
    op: LivepatchOp,
    version: u32,
    idx: u32,
    nr: u32,
    pad: u32,
    /// Two sums, and five places for what is not asked for here.
    totals_and_places: [u64; 6],
    rest: [u64; 7],
}

#[repr(C)]
struct LivepatchAction {
    op: LivepatchOp,
    name: LivepatchName,
    cmd: u32,
    timeout_ns: u32,
    flags: u32,
    pad: u32,
    rest: [u64; 11],
}

/// The `XEN_SYSCTL_LIVEPATCH_*`.
const UPLOAD: u32 = 0;
const GET: u32 = 1;
const LIST: u32 = 2;
const ACTION: u32 = 3;

/// What can be done to a payload that Xen has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Xen forgets it; only if it is not applied.
    Unload = 1,
    /// Xen is as it was.
    Revert = 2,
    /// Xen is changed.
    Apply = 3,
}

/// What became of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// An action is under way.
    Busy,
    /// Xen has it, and it is not applied.
    Checked,
    /// It is applied.
    Applied,
}

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
    let nr_keys = u32::try_from(keys.len()).unwrap_or(0);
    let operation = DebugKeys { keys: address(keys.as_bytes()), nr_keys, rest: [0; 29] };
    call(SYSCTL_DEBUG_KEYS, operation)
        .map(|_| ())
        .map_err(|error| format!("Xen refused debug key '{keys}': {error}"))
}

/// Gives Xen a payload, which it checks and keeps.
///
/// # Errors
/// Xen refused.
pub fn livepatch_upload(name: &CStr, payload: &[u8]) -> Result<(), Errno> {
    let operation = LivepatchUpload {
        op: LivepatchOp { op: UPLOAD, flags: 0 },
        name: name_of(name),
        size: payload.len() as u64,
        payload: address(payload),
        rest: [0; 11],
    };
    call(SYSCTL_LIVEPATCH, operation).map(|_| ())
}

/// How many payloads Xen has.
///
/// # Errors
/// Xen refused.
pub fn livepatch_count() -> Result<u32, Errno> {
    let operation = LivepatchList {
        op: LivepatchOp { op: LIST, flags: 0 },
        version: 0,
        idx: 0,
        nr: 0,
        pad: 0,
        totals_and_places: [0; 6],
        rest: [0; 7],
    };
    Ok(call(SYSCTL_LIVEPATCH, operation)?.nr)
}

/// Begins an action, which may take this long; see `livepatch_state` for its end.
///
/// # Errors
/// Xen refused.
pub fn livepatch_action(name: &CStr, action: Action, timeout_ns: u32) -> Result<(), Errno> {
    let operation = LivepatchAction {
        op: LivepatchOp { op: ACTION, flags: 0 },
        name: name_of(name),
        cmd: action as u32,
        timeout_ns,
        flags: 0,
        pad: 0,
        rest: [0; 11],
    };
    call(SYSCTL_LIVEPATCH, operation).map(|_| ())
}

/// What became of a payload.
///
/// # Errors
/// Xen refused, as it does not know the payload; or the last action has failed.
pub fn livepatch_state(name: &CStr) -> Result<State, Errno> {
    let operation = LivepatchGet {
        op: LivepatchOp { op: GET, flags: 0 },
        name: name_of(name),
        state: 0,
        rc: 0,
        rest: [0; 12],
    };
    let said = call(SYSCTL_LIVEPATCH, operation)?;
    match (said.rc, said.state) {
        (0, 1) => Ok(State::Checked),
        (0, 2) => Ok(State::Applied),
        (0, _) => Err(Errno::PROTO),
        (rc, _) if rc == -Errno::AGAIN.raw_os_error() => Ok(State::Busy),
        (rc, _) => Err(Errno::from_raw_os_error(-rc)),
    }
}

fn name_of(name: &CStr) -> LivepatchName {
    let bytes = name.to_bytes_with_nul();
    // Xen takes 128 bytes at most, and says so if there are more.
    let size = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    LivepatchName { name: address(bytes), size, pad: [0; 3] }
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

/// A hypercall; gives what Xen made of the operation.
fn call<T>(cmd: u32, operation: T) -> Result<T, Errno> {
    let privcmd = OpenOptions::new()
        .read(true)
        .write(true)
        .open(PRIVCMD)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let mut sysctl = Sysctl { cmd, interface_version: 0, operation };
    let mut last = Errno::ACCESS;
    for version in SYSCTL_VERSIONS {
        sysctl.interface_version = version;
        match send(&privcmd, &mut sysctl) {
            Ok(()) => return Ok(sysctl.operation),
            Err(error) => last = error,
        }
        // That is Xen's answer to a version that is not its own.
        if last != Errno::ACCESS {
            break;
        }
    }
    Err(last)
}

#[expect(unsafe_code, reason = "a hypercall through privcmd has no safe wrapper")]
fn send<T>(privcmd: impl AsFd, sysctl: &mut Sysctl<T>) -> rustix::io::Result<()> {
    const { assert!(size_of::<Sysctl<T>>() == 8 + 128) };
    let mut call = PrivcmdHypercall {
        op: HYPERVISOR_SYSCTL,
        arg: [(&raw mut *sysctl).expose_provenance() as u64, 0, 0, 0, 0],
    };
    // SAFETY: the opcode is privcmd's "hypercall" and takes this structure. Xen reads and writes
    // `sysctl`, and reads what it points to; all are alive until the call returns, and of the
    // sizes that Xen takes them for: `sysctl` by the assertion, slices by the length beside them.
    // An `Updater`, because with a `Setter` the compiler may think that nothing is written.
    unsafe { ioctl::ioctl(privcmd.as_fd(), ioctl::Updater::<IOCTL_HYPERCALL, _>::new(&mut call)) }
}
