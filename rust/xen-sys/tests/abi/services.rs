// SPDX-License-Identifier: GPL-2.0-only
//! The hypervisor's half of `include/xen_services.h`: heap, locks, clock, log.
//! They insist on what the header asks of their callers.

use std::alloc::Layout;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_char, c_ulong, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lock a mutex whose last holder may have failed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The heap and the host are everybody's: one test at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = lock(&ALONE);
    fail_after(None);
    lock(&LOG).clear();
    alone
}

// ---- Heap ----

/// What a block is for: each kind has its own way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Heap,
    Table,
}

static BLOCKS: Mutex<BTreeMap<usize, (Kind, Layout)>> = Mutex::new(BTreeMap::new());
static BUDGET: AtomicI64 = AtomicI64::new(-1);

/// Blocks and tables that have not been freed.
pub fn live() -> usize {
    lock(&BLOCKS).len()
}

/// Let `successes` allocations succeed, and none after them; `None`: all do.
pub fn fail_after(successes: Option<u32>) {
    BUDGET.store(successes.map_or(-1, i64::from), Ordering::Relaxed);
}

fn allocate(kind: Kind, size: usize, align: usize) -> *mut c_void {
    assert!(IRQS_ON.get(), "{kind:?} memory is allocated with interrupts off");
    assert!(align.is_power_of_two() && size != 0, "{size} bytes aligned to {align}");
    let Ok(layout) = Layout::from_size_align(size, align) else { return null_mut() };
    let spend = |left: i64| if left == 0 { None } else { Some(left - i64::from(left > 0)) };
    if BUDGET.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_err() {
        return null_mut();
    }
    // SAFETY: the size is not zero.
    let memory = unsafe { std::alloc::alloc_zeroed(layout) };
    lock(&BLOCKS).insert(memory.addr(), (kind, layout));
    memory.cast()
}

fn free(kind: Kind, memory: *mut c_void) {
    assert!(IRQS_ON.get(), "{kind:?} memory is freed with interrupts off");
    let block = lock(&BLOCKS).remove(&memory.addr());
    let (was, layout) = block.expect("memory is freed that is not allocated");
    assert_eq!(was, kind, "memory is freed as what it is not");
    // SAFETY: it was allocated with this layout, and has just left the list.
    unsafe { std::alloc::dealloc(memory.cast(), layout) }
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_alloc(size: usize, align: usize) -> *mut c_void {
    allocate(Kind::Heap, size, align)
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_free(memory: *mut c_void) {
    free(Kind::Heap, memory);
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_table_alloc(size: usize, align: usize, maddr: &mut u64) -> *mut c_void {
    let memory = allocate(Kind::Table, size, align);
    *maddr = 0x80_0000_0000 + u64::try_from(memory.addr()).expect("64 bits") % (1 << 38);
    memory
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_table_free(memory: *mut c_void) {
    free(Kind::Table, memory);
}

// ---- Locks ----

thread_local! {
    /// Whether this CPU takes interrupts.
    static IRQS_ON: Cell<bool> = const { Cell::new(true) };
}

/// Turn interrupts off; gives the flags to restore them from.
pub fn irqs_off() -> c_ulong {
    IRQS_ON.replace(false).into()
}

/// Turn them on again, if `flags` says that they were.
pub fn irqs_restore(flags: c_ulong) {
    assert!(!IRQS_ON.get(), "interrupts are restored that are on");
    IRQS_ON.set(flags != 0);
}

/// Whether interrupts are on.
pub fn irqs_on() -> bool {
    IRQS_ON.get()
}

/// `struct xen_its_lock`: its first word says what it is.
#[repr(C)]
pub struct XenItsLock {
    storage: [u64; 4],
}

const UNLOCKED: u64 = 0x10c4;
const LOCKED: u64 = 0x10c5;

impl XenItsLock {
    /// # Safety
    /// `this` points to a lock that nobody accesses but by these functions.
    unsafe fn word<'a>(this: *mut Self) -> &'a AtomicU64 {
        // SAFETY: as the caller says; it is aligned for a u64.
        unsafe { AtomicU64::from_ptr((&raw mut (*this).storage).cast()) }
    }

    /// # Safety
    /// As for [`Self::word`].
    unsafe fn acquire(this: *mut Self) {
        // SAFETY: passed on from the caller.
        let word = unsafe { Self::word(this) };
        while let Err(found) =
            word.compare_exchange(UNLOCKED, LOCKED, Ordering::Acquire, Ordering::Relaxed)
        {
            assert_eq!(found, LOCKED, "this is no lock");
            std::thread::yield_now();
        }
    }

    /// # Safety
    /// As for [`Self::word`].
    unsafe fn release(this: *mut Self) {
        // SAFETY: passed on from the caller.
        let found = unsafe { Self::word(this) }.swap(UNLOCKED, Ordering::Release);
        assert_eq!(found, LOCKED, "a lock is released that is not held");
    }
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_lock_init(lock: &mut XenItsLock) {
    lock.storage = [UNLOCKED, 0, 0, 0];
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xen_its_svc_lock(lock: *mut XenItsLock) {
    assert!(IRQS_ON.get(), "a plain lock is taken with interrupts off");
    // SAFETY: the component takes locks that it has initialised.
    unsafe { XenItsLock::acquire(lock) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xen_its_svc_unlock(lock: *mut XenItsLock) {
    // SAFETY: as for `xen_its_svc_lock`.
    unsafe { XenItsLock::release(lock) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xen_its_svc_lock_irqsave(lock: *mut XenItsLock) -> c_ulong {
    let flags = irqs_off();
    // SAFETY: as for `xen_its_svc_lock`.
    unsafe { XenItsLock::acquire(lock) };
    flags
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xen_its_svc_unlock_irqrestore(lock: *mut XenItsLock, flags: c_ulong) {
    // SAFETY: as for `xen_its_svc_lock`.
    unsafe { XenItsLock::release(lock) };
    irqs_restore(flags);
}

// ---- The host's LPIs ----

static DISABLED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// The host LPIs that are disabled in the property table.
pub fn disabled() -> BTreeSet<u32> {
    lock(&DISABLED).clone()
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_host_lpi_enable(lpi: u32, enable: bool) {
    let mut disabled = lock(&DISABLED);
    if enable {
        disabled.remove(&lpi);
    } else {
        disabled.insert(lpi);
    }
}

// ---- Clock and log ----

static CLOCK: AtomicU64 = AtomicU64::new(0);
static LOG: Mutex<Vec<(u32, String)>> = Mutex::new(Vec::new());

/// The lines that were printed since it was last asked, each with its level.
pub fn take_log() -> Vec<(u32, String)> {
    std::mem::take(&mut *lock(&LOG))
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_now() -> u64 {
    CLOCK.load(Ordering::Relaxed)
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_relax() {
    CLOCK.fetch_add(20_000, Ordering::Relaxed);
    std::thread::yield_now();
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_may_complain() -> bool {
    true
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xen_its_svc_log(level: u32, text: *const c_char, len: usize) {
    // SAFETY: the caller gives `len` bytes.
    let text = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    let text = std::str::from_utf8(text).expect("a line of text");
    lock(&LOG).push((level, text.to_owned()));
}
