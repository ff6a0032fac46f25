// SPDX-License-Identifier: GPL-2.0-only
//! A cell that is written once and read without a lock.
//!
//! `spin::Once` would do, but for the panic that it has in store for a
//! poisoned cell; see ARCHITECTURE.md.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

// rust/its-threads includes this file, with the atomics of a model checker.
use super::sync::{AtomicU8, Ordering};

const EMPTY: u8 = 0;
const WRITING: u8 = 1;
const SET: u8 = 2;

/// See the module.
pub struct Once<T> {
    state: AtomicU8,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: `set` moves a T in from any thread, and drop may be elsewhere, so T
// has to be Send; `get` shares it, so T has to be Sync. The state orders the
// one write before all reads.
unsafe impl<T: Send + Sync> Sync for Once<T> {}
// SAFETY: a Once owns its T.
unsafe impl<T: Send> Send for Once<T> {}

impl<T> Once<T> {
    /// An empty cell, also for statics.
    pub const fn empty() -> Self {
        Self { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// The value, if it has been set.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if self.state.load(Ordering::Acquire) != SET {
            return None;
        }
        // SAFETY: SET is stored after the value was written, with release
        // order, and nobody writes it afterwards.
        Some(unsafe { (*self.value.get()).assume_init_ref() })
    }

    /// Set it.
    ///
    /// # Errors
    /// Gives the value back when there is one already.
    pub fn set(&self, value: T) -> Result<(), T> {
        let claimed =
            self.state.compare_exchange(EMPTY, WRITING, Ordering::Acquire, Ordering::Relaxed);
        if claimed.is_err() {
            return Err(value);
        }
        // SAFETY: only one caller ever moves the state away from EMPTY, and
        // readers stay away until it is SET.
        unsafe { (*self.value.get()).write(value) };
        self.state.store(SET, Ordering::Release);
        Ok(())
    }
}

impl<T> Drop for Once<T> {
    fn drop(&mut self) {
        if self.state.load(Ordering::Relaxed) == SET {
            // SAFETY: SET says that it was written; nobody else has a
            // reference.
            unsafe { self.value.get_mut().assume_init_drop() };
        }
    }
}

impl<T: Send + Sync> its_core::env::Once<T> for Once<T> {
    fn new() -> Self {
        Self::empty()
    }

    #[inline]
    fn get(&self) -> Option<&T> {
        Once::get(self)
    }

    fn set(&self, value: T) -> Result<(), T> {
        Once::set(self, value)
    }
}
