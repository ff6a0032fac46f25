// SPDX-License-Identifier: GPL-2.0-only
//! Values behind Xen's spinlocks, so that Xen's lock debugging and profiling
//! see them.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use crate::bindings;

/// How a lock is taken.
///
/// # Safety
/// Between the return of `lock` and the call of `unlock`, no other `lock` of
/// the same storage returns.
pub unsafe trait Backend {
    /// What `unlock` needs to know.
    type State: Copy;
    /// Take the lock.
    ///
    /// # Safety
    /// `raw` points to an initialised lock.
    unsafe fn lock(raw: *mut bindings::xen_its_lock) -> Self::State;
    /// Release it.
    ///
    /// # Safety
    /// The caller holds it, with `state` from when it took it.
    unsafe fn unlock(raw: *mut bindings::xen_its_lock, state: Self::State);
}

/// `spin_lock`: trap context.
pub struct Plain;

// SAFETY: that is what a Xen spinlock does.
unsafe impl Backend for Plain {
    type State = ();

    unsafe fn lock(raw: *mut bindings::xen_its_lock) {
        // SAFETY: passed on from the caller.
        unsafe { bindings::xen_its_svc_lock(raw) }
    }

    unsafe fn unlock(raw: *mut bindings::xen_its_lock, (): ()) {
        // SAFETY: passed on from the caller.
        unsafe { bindings::xen_its_svc_unlock(raw) }
    }
}

/// `spin_lock_irqsave`: any context.
pub struct IrqSave;

// SAFETY: that is what a Xen spinlock does.
unsafe impl Backend for IrqSave {
    type State = core::ffi::c_ulong;

    unsafe fn lock(raw: *mut bindings::xen_its_lock) -> Self::State {
        // SAFETY: passed on from the caller.
        unsafe { bindings::xen_its_svc_lock_irqsave(raw) }
    }

    unsafe fn unlock(raw: *mut bindings::xen_its_lock, flags: Self::State) {
        // SAFETY: passed on from the caller.
        unsafe { bindings::xen_its_svc_unlock_irqrestore(raw, flags) }
    }
}

/// A value behind a Xen spinlock.
pub struct Lock<T, B> {
    raw: UnsafeCell<bindings::xen_its_lock>,
    value: UnsafeCell<T>,
    backend: PhantomData<B>,
}

// SAFETY: the lock hands the T to one CPU at a time, so T has to be Send.
unsafe impl<T: Send, B> Sync for Lock<T, B> {}
// SAFETY: a Lock owns its T; an unlocked Xen spinlock may be moved.
unsafe impl<T: Send, B> Send for Lock<T, B> {}

/// The value, while the lock is held.
pub struct Guard<'a, T, B: Backend> {
    lock: &'a Lock<T, B>,
    state: B::State,
    /// A lock is released on the CPU that took it: neither Send nor Sync.
    here: PhantomData<*mut T>,
}

impl<T: Send, B: Backend> its_core::env::Lock<T> for Lock<T, B> {
    type Guard<'a>
        = Guard<'a, T, B>
    where
        Self: 'a;

    fn new(value: T) -> Self {
        let mut raw = bindings::xen_its_lock { storage: [0; 4] };
        // SAFETY: `raw` is ours, and large enough for a spinlock_t, which
        // its-rust.c checks at build time.
        unsafe { bindings::xen_its_svc_lock_init(&raw mut raw) };
        Self { raw: UnsafeCell::new(raw), value: UnsafeCell::new(value), backend: PhantomData }
    }

    fn lock(&self) -> Guard<'_, T, B> {
        // SAFETY: initialised in `new`.
        let state = unsafe { B::lock(self.raw.get()) };
        Guard { lock: self, state, here: PhantomData }
    }
}

impl<T, B: Backend> Deref for Guard<'_, T, B> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held, so nobody else has the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T, B: Backend> DerefMut for Guard<'_, T, B> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held, and self is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T, B: Backend> Drop for Guard<'_, T, B> {
    fn drop(&mut self) {
        // SAFETY: a guard exists only while the lock is held, with the state
        // that taking it gave.
        unsafe { B::unlock(self.lock.raw.get(), self.state) };
    }
}
