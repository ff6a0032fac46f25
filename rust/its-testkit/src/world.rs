// SPDX-License-Identifier: GPL-2.0-only
//! What the fakes of one test share, and the checks that they make.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use its_core::Error;
use its_core::env::Level;

use crate::its::Model;

/// Lock a mutex whose last holder may have panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a read of the clock takes, and what goes with it.
const CLOCK_READ_NS: u64 = 2_000;

/// The rank of a vCPU's vGIC lock: the innermost.
pub(crate) const VGIC_RANK: u8 = 5;

/// What one poll of the hardware takes: longer than in truth, so that waiting
/// in vain takes fewer of them.
const RELAX_NS: u64 = 200_000;

/// A lock that this thread holds.
#[derive(Clone, Copy)]
struct HeldLock {
    rank: u8,
    irq: bool,
    name: &'static str,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
    static HELD: RefCell<Vec<HeldLock>> = const { RefCell::new(Vec::new()) };
    static IN_IRQ: Cell<u32> = const { Cell::new(0) };
    static MAY_COMPLAIN: Cell<bool> = const { Cell::new(false) };
}

/// One test's hypervisor: heap accounting, fault injection, clock and log.
#[derive(Default)]
pub struct World {
    live: AtomicUsize,
    bytes: AtomicUsize,
    peak: AtomicUsize,
    allocated: AtomicUsize,
    /// How many allocations still succeed; negative: no limit.
    budget: AtomicI64,
    /// Whether all allocations fail once the budget is used up, or one.
    sticky: AtomicUsize,
    tables: Mutex<BTreeMap<u64, usize>>,
    next_table: AtomicU64,
    clock: AtomicU64,
    /// What waiting once takes, in nanoseconds.
    relax: AtomicU64,
    /// Other threads than the first are in it.
    shared: AtomicBool,
    log: Mutex<Vec<(Level, String)>>,
    /// Nothing may be printed about a guest's mistakes.
    muted: AtomicBool,
    models: Mutex<Vec<Weak<Mutex<Model>>>>,
    /// The host's LPI configuration table: those that are disabled.
    disabled: Mutex<BTreeSet<u32>>,
    on_clock: Mutex<Option<(u32, Happening)>>,
}

/// What happens when a CPU reads the clock: it may have been held up.
type Happening = Box<dyn FnOnce() + Send>;

impl World {
    fn new() -> Arc<Self> {
        let world = Self::default();
        world.budget.store(-1, Ordering::Relaxed);
        world.relax.store(RELAX_NS, Ordering::Relaxed);
        world.next_table.store(0x80_0000_0000, Ordering::Relaxed);
        Arc::new(world)
    }

    /// This thread's world. A thread starts with one of its own.
    #[must_use]
    pub fn current() -> Arc<Self> {
        CURRENT.with_borrow_mut(|current| Arc::clone(current.get_or_insert_with(Self::new)))
    }

    /// Give the calling thread a new world: for one test that is many.
    pub fn renew() {
        CURRENT.set(Some(Self::new()));
    }

    /// Make it the calling thread's world: for threads that a test starts.
    pub fn enter(self: &Arc<Self>) {
        self.shared.store(true, Ordering::Relaxed);
        CURRENT.set(Some(Arc::clone(self)));
    }

    // ---- Heap ----

    /// Let the next `successes` allocations succeed and the one after them
    /// fail; those after that succeed again.
    pub fn fail_once_after(&self, successes: u32) {
        self.sticky.store(0, Ordering::Relaxed);
        self.budget.store(successes.into(), Ordering::Relaxed);
    }

    /// Let the next `successes` allocations succeed, and no more after them.
    pub fn fail_all_after(&self, successes: u32) {
        self.sticky.store(1, Ordering::Relaxed);
        self.budget.store(successes.into(), Ordering::Relaxed);
    }

    /// Allocations succeed again. True if the failure that was asked for has
    /// not happened yet.
    pub fn stop_failing(&self) -> bool {
        self.budget.swap(-1, Ordering::Relaxed) >= 0 && self.sticky.load(Ordering::Relaxed) != 2
    }

    /// Arrays that are allocated now, those of length 0 not counted.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Bytes of those arrays now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The most that [`Self::bytes`] has been since this was last asked.
    #[must_use]
    pub fn take_peak(&self) -> usize {
        self.peak.swap(self.bytes(), Ordering::Relaxed)
    }

    /// Bytes of the tables of host ITSes that are allocated now.
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        lock(&self.tables).values().sum()
    }

    /// Allocations made since the start.
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.allocated.load(Ordering::Relaxed)
    }

    /// Tables of host ITSes that are allocated now.
    #[must_use]
    pub fn live_tables(&self) -> usize {
        lock(&self.tables).len()
    }

    fn admit(&self) -> Result<(), Error> {
        assert_not_atomic("allocates");
        let budget = self.budget.load(Ordering::Relaxed);
        if budget == 0 {
            if self.sticky.load(Ordering::Relaxed) == 0 {
                self.budget.store(-1, Ordering::Relaxed);
            } else {
                self.sticky.store(2, Ordering::Relaxed);
            }
            return Err(Error::NoMemory);
        }
        if budget > 0 {
            self.budget.store(budget - 1, Ordering::Relaxed);
        }
        self.allocated.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn allocate(&self, bytes: usize) -> Result<(), Error> {
        self.admit()?;
        self.live.fetch_add(1, Ordering::Relaxed);
        let now = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn free(&self, bytes: usize) {
        if !std::thread::panicking() {
            assert_not_atomic("frees memory");
        }
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn allocate_table(&self, size: usize, align: usize) -> Result<u64, Error> {
        assert!(align.is_power_of_two(), "table alignment {align} is not a power of two");
        assert!(size != 0, "a table of no size");
        self.admit()?;
        let align = u64::try_from(align).expect("64 bits");
        let size_bytes = u64::try_from(size).expect("64 bits");
        let mut tables = lock(&self.tables);
        let mut from = self.next_table.load(Ordering::Relaxed).next_multiple_of(align);
        // Not aligned by luck to more than what was asked for.
        if from.is_multiple_of(2 * align) {
            from += align;
        }
        self.next_table.store(from + size_bytes, Ordering::Relaxed);
        tables.insert(from, size);
        Ok(from)
    }

    pub(crate) fn free_table(&self, address: u64) {
        let known = lock(&self.tables).remove(&address).is_some();
        if std::thread::panicking() {
            return;
        }
        assert_not_atomic("frees a table");
        assert!(known, "table {address:#x} is freed twice");
        for model in lock(&self.models).iter().filter_map(Weak::upgrade) {
            if let Some(why) = lock(&model).uses_itt(address) {
                panic!("ITT {address:#x} is freed, but {why}");
            }
        }
    }

    /// The size of the live table at `address`.
    pub(crate) fn table_size(&self, address: u64) -> Option<usize> {
        lock(&self.tables).get(&address).copied()
    }

    pub(crate) fn add_model(&self, model: &Arc<Mutex<Model>>) {
        lock(&self.models).push(Arc::downgrade(model));
    }

    /// Enable or disable a host LPI in the configuration table.
    pub(crate) fn set_property(&self, lpi: u32, enabled: bool) {
        let mut disabled = lock(&self.disabled);
        if enabled {
            // Who waits for room for the INV may have enabled it before.
            disabled.remove(&lpi);
        } else {
            assert!(disabled.insert(lpi), "host LPI {lpi} is disabled in the table already");
        }
    }

    /// Is a host LPI enabled in the configuration table?
    pub(crate) fn property(&self, lpi: u32) -> bool {
        !lock(&self.disabled).contains(&lpi)
    }

    /// How many host LPIs are disabled in the configuration table.
    #[must_use]
    pub fn disabled(&self) -> usize {
        lock(&self.disabled).len()
    }

    // ---- Clock and log ----

    /// Nanoseconds on the fake clock, which only [`World::advance`], waiting
    /// and the hypervisor's reads of it move.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Let time pass.
    pub fn advance(&self, nanoseconds: u64) {
        self.clock.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Have the clock move by so many nanoseconds each time the hypervisor
    /// waits: more than in truth, so that waiting in vain takes less long.
    pub fn set_relax(&self, nanoseconds: u64) {
        self.relax.store(nanoseconds, Ordering::Relaxed);
    }

    /// The hypervisor waits.
    pub(crate) fn relax(&self) {
        self.advance(self.relax.load(Ordering::Relaxed));
        // Who waits for nobody keeps the CPU: on a busy machine it takes long
        // to get it back.
        if self.shared.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    }

    /// Let `happening` take place when the hypervisor reads the clock the next
    /// time but `reads`.
    pub fn on_clock(&self, reads: u32, happening: impl FnOnce() + Send + 'static) {
        *lock(&self.on_clock) = Some((reads, Box::new(happening)));
    }

    /// Drop what was to happen. True if it had not happened yet.
    pub fn off_clock(&self) -> bool {
        lock(&self.on_clock).take().is_some()
    }

    /// The clock as the hypervisor reads it.
    pub(crate) fn read_clock(&self) -> u64 {
        let mut on_clock = lock(&self.on_clock);
        match on_clock.take() {
            Some((0, happening)) => {
                drop(on_clock);
                happening();
            }
            Some((reads, happening)) => *on_clock = Some((reads - 1, happening)),
            None => {}
        }
        // Time passes, however busily somebody polls.
        self.advance(CLOCK_READ_NS);
        self.now()
    }

    pub(crate) fn print(&self, level: Level, line: &str) {
        let allowed = level != Level::Guest || MAY_COMPLAIN.take();
        assert!(allowed, "printed without asking: {line}");
        self.put_log(level, line);
    }

    pub(crate) fn may_complain(&self) -> bool {
        let may = !self.muted.load(Ordering::Relaxed);
        MAY_COMPLAIN.set(may);
        may
    }

    /// The limit on the rate of lines about guests is reached, or not any more.
    pub fn mute(&self, muted: bool) {
        self.muted.store(muted, Ordering::Relaxed);
    }

    /// Put a line back that was taken.
    pub fn put_log(&self, level: Level, line: &str) {
        lock(&self.log).push((level, line.to_owned()));
    }

    /// The lines that were printed since it was last asked.
    pub fn take_log(&self) -> Vec<(Level, String)> {
        std::mem::take(&mut *lock(&self.log))
    }
}

// ---- Contexts ----

/// Run `work` as if in interrupt context.
pub fn in_irq<R>(work: impl FnOnce() -> R) -> R {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            IN_IRQ.set(IN_IRQ.get() - 1);
        }
    }
    IN_IRQ.set(IN_IRQ.get() + 1);
    let _leave = Leave;
    work()
}

/// Panic where interrupts are on.
pub(crate) fn assert_in_irq(what: &str) {
    assert!(IN_IRQ.get() != 0, "{what} with interrupts on");
}

/// Panic where interrupts are off.
pub(crate) fn assert_not_atomic(what: &str) {
    assert!(IN_IRQ.get() == 0, "{what} in interrupt context");
    HELD.with_borrow(|held| {
        if let Some(lock) = held.iter().find(|lock| lock.irq) {
            panic!("{what} while {} is held, with interrupts off", lock.name);
        }
    });
}

/// Panic if the calling thread holds any lock.
pub fn assert_no_lock(what: &str) {
    HELD.with_borrow(|held| {
        if let Some(lock) = held.first() {
            panic!("{what} while {} is held", lock.name);
        }
    });
}

/// Panic if the calling thread holds a vCPU's vGIC lock.
pub(crate) fn assert_no_vgic_lock(what: &str) {
    HELD.with_borrow(|held| {
        assert!(held.iter().all(|lock| lock.rank != VGIC_RANK), "{what} with a vGIC lock held");
    });
}

/// The calling thread is about to wait for a lock. Panics unless the lock
/// comes after all that are held, which also finds a second lock of one rank,
/// or one that an interrupt could deadlock on.
pub(crate) fn acquire(rank: u8, irq: bool, name: &'static str) {
    assert!(irq || IN_IRQ.get() == 0, "{name} is taken in interrupt context");
    HELD.with_borrow_mut(|held| {
        for before in held.iter() {
            assert!(before.rank < rank, "lock order: {name} is taken with {} held", before.name);
            assert!(irq || !before.irq, "{name} is taken with interrupts off ({})", before.name);
        }
        held.push(HeldLock { rank, irq, name });
    });
}

/// The calling thread lets go of a lock.
pub(crate) fn release(rank: u8, name: &'static str) {
    HELD.with_borrow_mut(|held| {
        let at = held.iter().rposition(|lock| lock.rank == rank && lock.name == name);
        if let Some(at) = at {
            held.remove(at);
        }
    });
}

/// The rank of a lock by the type of what it protects: the order that the
/// documentation of its-core gives. Lower ranks are taken first.
pub(crate) fn rank_of(type_name: &'static str) -> u8 {
    let known = [
        ("vits::Registers", 1),
        ("device::Devices", 2),
        ("domain::Common", 2),
        ("sorted::SortedMap", 3),
        ("host::blocks::Blocks", 3),
        ("host::mask::Masked", 3),
        ("host::queue::State", 4),
        ("host::its::Collections", 5),
    ];
    // By whatever name its-core goes.
    let path = type_name.split_once("::").map_or(type_name, |(_, path)| path);
    known
        .iter()
        .find(|(start, _)| path.starts_with(start))
        .map(|(_, rank)| *rank)
        .unwrap_or_else(|| panic!("no place in the lock order for {type_name}"))
}
