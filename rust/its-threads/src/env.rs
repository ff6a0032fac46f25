// SPDX-License-Identifier: GPL-2.0-only
//! The hypervisor: its heap is std's, its locks are the model checker's.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

use its_arch::{GuestPa, Lpi};
use its_core::Error;
use its_core::env::{Env, Guest, Level, Lock, Once, Page, Table, VgicLock};

use crate::checker::{self, Mutex, MutexGuard, thread};
use crate::host::HostIts;
use crate::vcpu::{Held, Vcpu};

/// The hypervisor under a model checker.
pub struct Checked;

thread_local! {
    /// The checkers run all threads of a scenario on one.
    static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// The host's LPI configuration table: those that are disabled.
    static DISABLED: RefCell<BTreeSet<u32>> = const { RefCell::new(BTreeSet::new()) };
}

/// The lines that were logged since it was last asked.
pub fn take_log() -> Vec<String> {
    LOG.take()
}

/// All host LPIs are enabled, as at boot.
pub(crate) fn reset_properties() {
    DISABLED.take();
}

/// Is a host LPI disabled in the configuration table?
#[must_use]
pub fn is_disabled(lpi: u32) -> bool {
    DISABLED.with_borrow(|disabled| disabled.contains(&lpi))
}

impl Env for Checked {
    type Buf<T: Send + Sync> = Vec<T>;
    type Once<T: Send + Sync> = Cell<T>;
    type Lock<T: Send> = Spin<T>;
    type IrqLock<T: Send> = Spin<T>;
    type VgicLock<T: Send> = UnderVgic<T>;
    type Held = Held;
    type Table = Itt;
    type HostHw = HostIts;
    type Guest = Ram;
    type Vcpu = Vcpu;

    fn alloc<T: Send + Sync>(len: usize, make: impl FnMut(usize) -> T) -> Result<Vec<T>, Error> {
        Ok((0..len).map(make).collect())
    }

    fn alloc_table(_size: usize, align: usize) -> Result<Itt, Error> {
        Ok(Itt(u64::try_from(align).map_err(|_| Error::OutOfRange)?))
    }

    fn now() -> u64 {
        0
    }

    fn relax() {
        thread::yield_now();
    }

    fn may_complain() -> bool {
        true
    }

    fn log(_level: Level, line: &str) {
        LOG.with_borrow_mut(|log| log.push(line.to_owned()));
    }

    fn set_host_enabled(lpi: Lpi, enabled: bool) {
        DISABLED.with_borrow_mut(|disabled| {
            if enabled { disabled.remove(&lpi.get()) } else { disabled.insert(lpi.get()) }
        });
    }
}

/// A cell that is set once. Not what is checked here: see `once.rs` among the
/// tests.
pub struct Cell<T>(OnceLock<T>);

impl<T: Send + Sync> Once<T> for Cell<T> {
    fn new() -> Self {
        Self(OnceLock::new())
    }

    fn get(&self) -> Option<&T> {
        self.0.get()
    }

    fn set(&self, value: T) -> Result<(), T> {
        self.0.set(value)
    }
}

/// A lock that the checker sees.
pub struct Spin<T>(Mutex<T>);

impl<T: Send> Lock<T> for Spin<T> {
    type Guard<'a>
        = MutexGuard<'a, T>
    where
        Self: 'a;

    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        checker::lock(&self.0)
    }
}

/// A value under a vCPU's vGIC lock.
pub struct UnderVgic<T> {
    vcpu: Vcpu,
    /// Never contended: the vGIC lock is held.
    value: std::sync::Mutex<T>,
}

/// The value, while the vGIC lock is held.
pub struct Guard<'a, T> {
    value: std::sync::MutexGuard<'a, T>,
    /// Released after the value.
    _held: Held,
    _lock: MutexGuard<'a, ()>,
}

impl<T> UnderVgic<T> {
    fn value(&self) -> std::sync::MutexGuard<'_, T> {
        match self.value.try_lock() {
            Ok(value) => value,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => panic!("used without the vGIC lock"),
        }
    }
}

impl<T: Send> VgicLock<T> for UnderVgic<T> {
    type Vcpu = Vcpu;
    type Held = Held;
    type Guard<'a>
        = Guard<'a, T>
    where
        Self: 'a;

    fn new(vcpu: Vcpu, value: T) -> Self {
        Self { vcpu, value: std::sync::Mutex::new(value) }
    }

    fn vcpu(&self) -> &Vcpu {
        &self.vcpu
    }

    fn lock(&self) -> Guard<'_, T> {
        let (lock, held) = self.vcpu.lock();
        Guard { value: self.value(), _held: held, _lock: lock }
    }

    fn with_in_irq<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.lock())
    }

    fn with_held<R>(&self, held: &mut Held, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        if held.is_of(&self.vcpu) { Some(f(&mut self.value())) } else { None }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// Memory for a host ITS.
pub struct Itt(u64);

impl Table for Itt {
    fn address(&self) -> u64 {
        self.0
    }
}

/// Longest that the domain's timer is waited for, in nanoseconds. The one of
/// 100 ms is for nothing that has to happen, so that nobody waits for it here.
const SOON: u64 = 10_000_000;

/// The guest's RAM, from address 0 on; and the domain's timer.
#[derive(Clone)]
pub struct Ram {
    bytes: Arc<[AtomicU8]>,
    due: Arc<AtomicBool>,
}

impl Ram {
    /// So many bytes of zeros.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self { bytes: (0..bytes).map(|_| AtomicU8::new(0)).collect(), due: Arc::default() }
    }

    /// Stop the timer. True if it was set to go off soon.
    #[must_use]
    pub fn stop_tick(&self) -> bool {
        self.due.swap(false, Ordering::Relaxed)
    }

    fn bytes(&self, from: u64, len: usize) -> Option<&[AtomicU8]> {
        let from = usize::try_from(from).ok()?;
        self.bytes.get(from..from.checked_add(len)?)
    }

    /// The guest writes.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        let places = self.bytes(at, bytes.len()).expect("no RAM there");
        for (place, byte) in places.iter().zip(bytes) {
            place.store(*byte, Ordering::Relaxed);
        }
    }
}

impl Guest for Ram {
    type Page = Pinned;

    fn read(&self, from: GuestPa, to: &mut [u8]) -> Result<(), Error> {
        let bytes = self.bytes(from.get(), to.len()).ok_or(Error::BadAccess)?;
        for (byte, to) in bytes.iter().zip(to) {
            *to = byte.load(Ordering::Relaxed);
        }
        Ok(())
    }

    fn pin(&self, at: GuestPa) -> Result<Pinned, Error> {
        self.bytes(at.get(), 4096).ok_or(Error::BadAccess)?;
        Ok(Pinned { ram: self.clone(), at: at.get(), released: std::sync::Mutex::new(false) })
    }

    fn request_tick(&self, after: u64) {
        if after <= SOON {
            self.due.store(true, Ordering::Relaxed);
        }
    }
}

/// A pinned page.
pub struct Pinned {
    ram: Ram,
    at: u64,
    released: std::sync::Mutex<bool>,
}

impl Page for Pinned {
    fn byte(&self, offset: usize) -> u8 {
        // Between the look and the load is no point where others run.
        let released = *self.released.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!released, "a page is read that was given back");
        let place = self.ram.bytes(self.at, 4096).and_then(|bytes| bytes.get(offset));
        place.map_or(0, |place| place.load(Ordering::Relaxed))
    }

    fn read(&self, offset: usize, to: &mut [u64]) {
        for (n, word) in to.iter_mut().enumerate() {
            let at = offset + 8 * n;
            *word = u64::from_le_bytes(std::array::from_fn(|byte| self.byte(at + byte)));
        }
    }

    fn release(&self) {
        *self.released.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}
