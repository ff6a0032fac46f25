// SPDX-License-Identifier: GPL-2.0-only
//! [`Xen`]: everything that the core needs, from Xen.

use its_arch::Lpi;
use its_core::Error;
use its_core::env::{Env, Level};

use crate::bindings;
use crate::guest::XenGuest;
use crate::heap::Buf;
use crate::host::{XenHostIts, XenTable};
use crate::lock::{IrqSave, Lock, Plain};
use crate::once::Once;
use crate::vgic::{VgicHeld, VgicLock, XenVcpu};

/// The Xen hypervisor.
pub struct Xen;

impl Env for Xen {
    type Buf<T: Send + Sync> = Buf<T>;
    type Once<T: Send + Sync> = Once<T>;
    type Lock<T: Send> = Lock<T, Plain>;
    type IrqLock<T: Send> = Lock<T, IrqSave>;
    type VgicLock<T: Send> = VgicLock<T>;
    type Held = VgicHeld;
    type Table = XenTable;
    type HostHw = XenHostIts;
    type Guest = XenGuest;
    type Vcpu = XenVcpu;

    fn alloc<T: Send + Sync>(len: usize, make: impl FnMut(usize) -> T) -> Result<Buf<T>, Error> {
        Buf::new(len, make)
    }

    fn alloc_table(size: usize, align: usize) -> Result<XenTable, Error> {
        XenTable::new(size, align)
    }

    fn now() -> u64 {
        // SAFETY: reads a counter.
        unsafe { bindings::xen_its_svc_now() }
    }

    fn relax() {
        // SAFETY: waits; may be called anywhere.
        unsafe { bindings::xen_its_svc_relax() }
    }

    fn may_complain() -> bool {
        // SAFETY: may be called anywhere.
        unsafe { bindings::xen_its_svc_may_complain() }
    }

    fn log(level: Level, line: &str) {
        let level = match level {
            Level::Guest => bindings::XEN_ITS_LOG_GUEST,
            Level::Error => bindings::XEN_ITS_LOG_ERROR,
            Level::Info => bindings::XEN_ITS_LOG_INFO,
        };
        // SAFETY: the text is `len` bytes, and C reads no more of it.
        unsafe { bindings::xen_its_svc_log(level, line.as_ptr().cast(), line.len()) }
    }

    fn set_host_enabled(lpi: Lpi, enabled: bool) {
        // SAFETY: may be called anywhere, and the service checks the LPI
        // against the table.
        unsafe { bindings::xen_its_svc_host_lpi_enable(lpi.get(), enabled) }
    }
}
