// SPDX-License-Identifier: GPL-2.0-only
//! A vCPU's vGIC lock, and its interrupt queues.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use its_arch::Lpi;
use its_core::env::{Evicted, SLOTS, Vcpu};

use crate::bindings;

const _: () = {
    #[expect(clippy::as_conversions, reason = "u32 to usize in a constant")]
    let slots = bindings::XEN_ITS_SLOTS as usize;
    assert!(slots == SLOTS, "xen_services.h and its-core disagree on the slots of a vCPU");
};

/// A vCPU of Xen's, which outlives the domain's ITS state. As an argument
/// from C: that vCPU.
#[repr(transparent)]
pub struct XenVcpu(NonNull<bindings::vcpu>);

// SAFETY: it is a name for a vCPU. The services that take it may be called on
// any CPU.
unsafe impl Send for XenVcpu {}
// SAFETY: as above; what they change is under the vGIC lock.
unsafe impl Sync for XenVcpu {}

/// As an argument from C: the vCPU whose vGIC lock the caller holds, with
/// interrupts off, until the call returns.
#[repr(transparent)]
pub struct VgicHeld(NonNull<bindings::vcpu>);

impl XenVcpu {
    const fn raw(&self) -> *mut bindings::vcpu {
        self.0.as_ptr()
    }
}

impl Vcpu for XenVcpu {
    #[inline]
    fn free_slot(&self) -> Option<u8> {
        // SAFETY: the vCPU exists; the trait's contract is the service's: the
        // vGIC lock is held, and the vCPU is the current one.
        let slot = unsafe { bindings::xen_its_svc_slot_free(self.raw()) };
        u8::try_from(slot).ok()
    }

    fn displace(&self, priority: u8) -> Option<u8> {
        // SAFETY: as for `free_slot`.
        let slot = unsafe { bindings::xen_its_svc_slot_displace(self.raw(), priority) };
        u8::try_from(slot).ok()
    }

    #[inline]
    fn load(&self, slot: u8, lpi: Lpi, priority: u8) {
        // SAFETY: as for `free_slot`, and the slot is free. C checks its range.
        unsafe { bindings::xen_its_svc_slot_load(self.raw(), slot.into(), lpi.get(), priority) }
    }

    fn again(&self, slot: u8) -> bool {
        // SAFETY: the vCPU exists, its vGIC lock is held, and the slot is in
        // use.
        unsafe { bindings::xen_its_svc_slot_again(self.raw(), slot.into()) }
    }

    fn evict(&self, slot: u8) -> Evicted {
        // SAFETY: as for `again`, and the vCPU is the current one.
        let was = unsafe { bindings::xen_its_svc_slot_evict(self.raw(), slot.into()) };
        Evicted {
            pending: was & bindings::XEN_ITS_EVICT_PENDING != 0,
            active: was & bindings::XEN_ITS_EVICT_ACTIVE != 0,
        }
    }

    fn reset(&self, slot: u8) -> bool {
        // SAFETY: as for `again`, and the vCPU does not run, or is the current
        // one and goes off.
        unsafe { bindings::xen_its_svc_slot_reset(self.raw(), slot.into()) }
    }

    fn request_sync(&self) {
        // SAFETY: the vCPU exists and its vGIC lock is held.
        unsafe { bindings::xen_its_svc_request_sync(self.raw()) }
    }

    #[inline]
    fn request_fill(&self) -> bool {
        // SAFETY: the vCPU exists and its vGIC lock is held.
        unsafe { bindings::xen_its_svc_request_fill(self.raw()) }
    }

    fn kick(&self) {
        // SAFETY: the vCPU exists; no vGIC lock is held.
        unsafe { bindings::xen_its_svc_kick(self.raw()) }
    }
}

/// A value under a vCPU's vGIC lock.
pub struct VgicLock<T> {
    vcpu: XenVcpu,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands the T to one CPU at a time, so T has to be Send.
unsafe impl<T: Send> Sync for VgicLock<T> {}
// SAFETY: a VgicLock owns its T.
unsafe impl<T: Send> Send for VgicLock<T> {}

/// The value, while the lock is held.
pub struct VgicGuard<'a, T> {
    lock: &'a VgicLock<T>,
    flags: core::ffi::c_ulong,
    /// A lock is released on the CPU that took it: neither Send nor Sync.
    here: PhantomData<*mut T>,
}

impl<T: Send> its_core::env::VgicLock<T> for VgicLock<T> {
    type Vcpu = XenVcpu;
    type Held = VgicHeld;
    type Guard<'a>
        = VgicGuard<'a, T>
    where
        Self: 'a;

    fn new(vcpu: XenVcpu, value: T) -> Self {
        Self { vcpu, value: UnsafeCell::new(value) }
    }

    #[inline]
    fn vcpu(&self) -> &XenVcpu {
        &self.vcpu
    }

    #[inline]
    fn lock(&self) -> VgicGuard<'_, T> {
        // SAFETY: the vCPU exists, and so does its lock.
        let flags = unsafe { bindings::xen_its_svc_vgic_lock(self.vcpu.raw()) };
        VgicGuard { lock: self, flags, here: PhantomData }
    }

    #[inline]
    fn with_in_irq<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: the vCPU exists, and so does its lock; the trait's contract
        // is the service's: interrupts are off.
        unsafe { bindings::xen_its_svc_vgic_lock_in_irq(self.vcpu.raw()) };
        // SAFETY: the lock is held until after `f`, which cannot unwind in
        // Xen, so nobody else has the value.
        let result = f(unsafe { &mut *self.value.get() });
        // SAFETY: taken above.
        unsafe { bindings::xen_its_svc_vgic_unlock_in_irq(self.vcpu.raw()) };
        result
    }

    #[inline]
    fn with_held<R>(&self, held: &mut VgicHeld, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        if held.0 != self.vcpu.0 {
            return None;
        }
        // SAFETY: `held` says that the C caller holds this vCPU's lock, and
        // being borrowed exclusively, that no other `with_held` of that call
        // is under way. A guard of this lock cannot exist at the same time:
        // taking it would wait for the C caller.
        Some(f(unsafe { &mut *self.value.get() }))
    }
}

impl<T> Deref for VgicGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held, so nobody else has the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for VgicGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held, and self is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for VgicGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: a guard exists only while the lock is held, and keeps the
        // interrupt state from when it was taken.
        unsafe { bindings::xen_its_svc_vgic_unlock(self.lock.vcpu.raw(), self.flags) };
    }
}
