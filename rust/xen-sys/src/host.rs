// SPDX-License-Identifier: GPL-2.0-only
//! A host ITS, and the memory that it uses.

use core::ptr::NonNull;

use its_arch::RawCommand;
use its_core::Error;
use its_core::env::{HostHw, Table};

use crate::bindings;

/// A host ITS of Xen's; these are never taken away. As an argument from C:
/// that ITS.
#[repr(transparent)]
pub struct XenHostIts(NonNull<bindings::host_its>);

// SAFETY: it is a name for an ITS. The services that take it may be called on
// any CPU.
unsafe impl Send for XenHostIts {}
// SAFETY: as above; who writes to the queue holds the core's queue lock.
unsafe impl Sync for XenHostIts {}

impl HostHw for XenHostIts {
    fn creadr(&self) -> u64 {
        // SAFETY: the ITS exists; reading the register has no side effect.
        unsafe { bindings::xen_its_svc_host_creadr(self.0.as_ptr()) }
    }

    fn write_command(&self, offset: u64, command: &RawCommand) {
        // SAFETY: the ITS exists, the command has the four words that the
        // service reads. It writes to a slot of the queue, whatever the offset.
        unsafe {
            bindings::xen_its_svc_host_write_command(self.0.as_ptr(), offset, command.0.as_ptr());
        }
    }

    fn set_cwriter(&self, offset: u64) {
        // SAFETY: the ITS exists; the commands up to `offset` are written.
        unsafe { bindings::xen_its_svc_host_set_cwriter(self.0.as_ptr(), offset) }
    }
}

/// Memory that the host ITS uses.
pub struct XenTable {
    memory: NonNull<core::ffi::c_void>,
    address: u64,
}

// SAFETY: Rust only keeps it, and gives it back.
unsafe impl Send for XenTable {}
// SAFETY: as above.
unsafe impl Sync for XenTable {}

impl XenTable {
    pub(crate) fn new(size: usize, align: usize) -> Result<Self, Error> {
        let mut address = 0;
        // SAFETY: `address` is ours to be written; the core passes an alignment
        // that is a power of two, which debug builds of Xen check.
        let memory = unsafe { bindings::xen_its_svc_table_alloc(size, align, &raw mut address) };
        Ok(Self { memory: NonNull::new(memory).ok_or(Error::NoMemory)?, address })
    }
}

impl Table for XenTable {
    fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for XenTable {
    fn drop(&mut self) {
        // SAFETY: it came from the service, and the host ITS has let go of it:
        // otherwise its owner forgets it instead of dropping it.
        unsafe { bindings::xen_its_svc_table_free(self.memory.as_ptr()) };
    }
}
