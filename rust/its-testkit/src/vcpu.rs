// SPDX-License-Identifier: GPL-2.0-only
//! One vCPU: Xen's vGIC queues and list registers for LPIs, and the guest
//! that takes interrupts from them.
//!
//! It follows the vGIC of Xen 4.20: an interrupt is queued by priority until
//! a list register is free, an LPI that fires again while it is in one is
//! remembered by one bit, and what became of the list registers is only
//! looked at when the guest is left.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use its_arch::{Lpi, VcpuId};
use its_core::Domain;
use its_core::env::{Evicted, SLOTS, Vcpu};

use crate::env::Fake;
use crate::world::{self, VGIC_RANK, World, lock};

/// Longest that a thread waits for a vGIC lock before the test has failed.
const LOCK_PATIENCE: Duration = Duration::from_secs(120);
/// How often entering the guest may ask for yet another [`Domain::sync`].
/// Each may find 64 LPIs disabled, of 57344.
const SYNCS_PER_ENTRY: u32 = 1000;

thread_local! {
    static ME: u64 = {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
    static ON_VCPU: Cell<Option<u16>> = const { Cell::new(None) };
}

fn me() -> u64 {
    ME.with(|me| *me)
}

/// Where the vCPU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the guest: the list registers are the hardware's.
    Guest,
    /// In the hypervisor, on its way out of or into the guest.
    Hypervisor,
    /// Switched off.
    Off,
}

/// What a slot holds.
#[derive(Clone, Copy, Debug)]
struct Carried {
    lpi: Lpi,
    priority: u8,
    /// It fired, and no list register says so yet.
    queued: bool,
}

/// A list register.
#[derive(Clone, Copy, Debug)]
struct Register {
    slot: u8,
    lpi: Lpi,
    priority: u8,
    pending: bool,
    active: bool,
}

/// Where an LPI is in the queues of a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It waits for a list register.
    Queued,
    /// In a list register: pending, active.
    Register {
        /// The guest has yet to take it.
        pending: bool,
        /// The guest handles it.
        active: bool,
    },
}

struct Queues {
    mode: Mode,
    slots: [Option<Carried>; SLOTS],
    registers: Vec<Option<Register>>,
    /// Slots that wait for a list register, most urgent first.
    waiting: Vec<u8>,
    /// What the guest took.
    taken: Vec<Lpi>,
    /// An LPI stays active until the guest ends it. Otherwise a list register
    /// is free as soon as the guest took the LPI.
    active_state: bool,
    /// Use a free list register at once where Xen would.
    direct: bool,
}

struct Inner {
    id: VcpuId,
    /// The thread that holds the vGIC lock; 0: none.
    owner: AtomicU64,
    queues: Mutex<Queues>,
    on_lock: Mutex<Option<Meanwhile>>,
    kicked: AtomicBool,
    sync_requested: AtomicBool,
    kicks: AtomicUsize,
    syncs: AtomicUsize,
}

/// What another CPU does meanwhile.
type Meanwhile = Box<dyn FnOnce() + Send>;

/// A vCPU, as its-core and the test see it. It starts switched on, in the
/// guest.
#[derive(Clone)]
pub struct FakeVcpu(Arc<Inner>);

/// Proof that the vGIC lock of a vCPU is held.
pub struct Held(FakeVcpu);

impl Held {
    /// Is it that of `vcpu`?
    pub(crate) fn is_of(&self, vcpu: &FakeVcpu) -> bool {
        Arc::ptr_eq(&self.0.0, &vcpu.0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.owner.store(0, Ordering::Release);
        world::release(VGIC_RANK, "a vGIC lock");
    }
}

impl Queues {
    fn carried(&mut self, slot: u8, who: &str) -> &mut Carried {
        self.slots[usize::from(slot)]
            .as_mut()
            .unwrap_or_else(|| panic!("{who}: slot {slot} is free"))
    }

    fn register_of(&mut self, slot: u8) -> Option<&mut Option<Register>> {
        self.registers.iter_mut().find(|lr| lr.is_some_and(|lr| lr.slot == slot))
    }

    fn wait(&mut self, slot: u8) {
        let priority = self.slots[usize::from(slot)].expect("in use").priority;
        let before = |other: &u8| {
            self.slots[usize::from(*other)].is_some_and(|other| other.priority <= priority)
        };
        let at = self.waiting.iter().position(|other| !before(other));
        self.waiting.insert(at.unwrap_or(self.waiting.len()), slot);
    }

    fn load(&mut self, at: usize, slot: u8) {
        let carried = self.slots[usize::from(slot)].as_mut().expect("in use");
        carried.queued = false;
        self.registers[at] = Some(Register {
            slot,
            lpi: carried.lpi,
            priority: carried.priority,
            pending: true,
            active: false,
        });
    }

    /// Into a free list register if Xen would put it there now, else onto the
    /// queue.
    fn raise(&mut self, slot: u8) {
        let free = self.registers.iter().position(Option::is_none);
        match free {
            Some(at) if self.direct && self.mode == Mode::Hypervisor && self.waiting.is_empty() => {
                self.load(at, slot);
            }
            _ => self.wait(slot),
        }
    }

    fn free(&mut self, slot: u8) {
        self.slots[usize::from(slot)] = None;
        self.waiting.retain(|waits| *waits != slot);
    }

    /// Fill the list registers; a more urgent interrupt that waits takes the
    /// place of a less urgent one that the guest has not taken.
    fn fill(&mut self) {
        while let Some(&slot) = self.waiting.first() {
            let priority = self.slots[usize::from(slot)].expect("in use").priority;
            let at = self.registers.iter().position(Option::is_none).or_else(|| {
                let worst = self.registers.iter().enumerate().filter_map(|(at, lr)| {
                    let lr = lr.as_ref()?;
                    (lr.pending && !lr.active && lr.priority > priority)
                        .then_some((lr.priority, at))
                });
                worst.max().map(|(_, at)| at)
            });
            let Some(at) = at else { return };
            if let Some(out) = self.registers[at].take() {
                self.slots[usize::from(out.slot)].as_mut().expect("in use").queued = true;
                self.wait(out.slot);
            }
            self.waiting.retain(|waits| *waits != slot);
            self.load(at, slot);
        }
    }

    fn place(&self, lpi: Lpi) -> Option<Place> {
        let slot = self.slots.iter().position(|slot| slot.is_some_and(|slot| slot.lpi == lpi))?;
        let register = self.registers.iter().flatten().find(|lr| usize::from(lr.slot) == slot);
        Some(match register {
            Some(lr) => Place::Register { pending: lr.pending, active: lr.active },
            None => Place::Queued,
        })
    }
}

impl FakeVcpu {
    /// A vCPU with `list_registers` list registers.
    #[must_use]
    pub fn new(id: u16, list_registers: usize) -> Self {
        Self(Arc::new(Inner {
            id: VcpuId::new(id),
            owner: AtomicU64::new(0),
            queues: Mutex::new(Queues {
                mode: Mode::Guest,
                slots: [None; SLOTS],
                registers: vec![None; list_registers],
                waiting: Vec::new(),
                taken: Vec::new(),
                active_state: true,
                direct: false,
            }),
            on_lock: Mutex::new(None),
            kicked: AtomicBool::new(false),
            sync_requested: AtomicBool::new(false),
            kicks: AtomicUsize::new(0),
            syncs: AtomicUsize::new(0),
        }))
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> VcpuId {
        self.0.id
    }

    /// Take the vGIC lock.
    #[must_use]
    pub fn hold(&self) -> Held {
        assert!(self.0.owner.load(Ordering::Relaxed) != me(), "vGIC lock taken twice");
        let meanwhile = lock(&self.0.on_lock).take();
        if let Some(meanwhile) = meanwhile {
            let world = World::current();
            let other_cpu = std::thread::spawn(move || {
                world.enter();
                meanwhile();
            });
            assert!(other_cpu.join().is_ok(), "the other CPU has failed");
        }
        world::acquire(VGIC_RANK, true, "a vGIC lock");
        let since = Instant::now();
        while self
            .0
            .owner
            .compare_exchange_weak(0, me(), Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            assert!(since.elapsed() < LOCK_PATIENCE, "deadlock on a vGIC lock");
            std::thread::yield_now();
        }
        Held(self.clone())
    }

    fn assert_held(&self, who: &str) {
        assert!(
            self.0.owner.load(Ordering::Relaxed) == me(),
            "{who} of {} without its vGIC lock",
            self.0.id
        );
    }

    // ---- Knobs ----

    /// Whether an LPI stays active in a list register until the guest ends
    /// it.
    pub fn set_active_state(&self, active: bool) {
        lock(&self.0.queues).active_state = active;
    }

    /// Whether an LPI may go to a free list register as soon as it is queued.
    pub fn set_direct(&self, direct: bool) {
        lock(&self.0.queues).direct = direct;
    }

    /// When somebody is about to take the vGIC lock the next time, have
    /// another CPU do something first.
    pub fn before_lock(&self, meanwhile: impl FnOnce() + Send + 'static) {
        *lock(&self.0.on_lock) = Some(Box::new(meanwhile));
    }

    // ---- What the hypervisor around it does ----

    /// Where it is.
    #[must_use]
    pub fn mode(&self) -> Mode {
        lock(&self.0.queues).mode
    }

    /// Leave the guest: see what it did with the list registers. Does nothing
    /// if it is not in the guest.
    pub fn exit(&self, domain: &Domain<Fake>) {
        world::assert_no_lock("a vCPU leaves the guest");
        if self.mode() != Mode::Guest {
            return;
        }
        let mut held = self.hold();
        lock(&self.0.queues).mode = Mode::Hypervisor;
        let count = lock(&self.0.queues).registers.len();
        for at in 0..count {
            let mut done = None;
            {
                let mut queues = lock(&self.0.queues);
                if let Some(register) = queues.registers[at] {
                    let carried = queues.carried(register.slot, "exit");
                    let again = std::mem::take(&mut carried.queued);
                    if register.active {
                        if again && let Some(lr) = &mut queues.registers[at] {
                            lr.pending = true;
                        }
                    } else if !register.pending {
                        queues.registers[at] = None;
                        if again {
                            queues.carried(register.slot, "exit").queued = true;
                            queues.raise(register.slot);
                        } else {
                            queues.free(register.slot);
                            done = Some(register.slot);
                        }
                    }
                }
            }
            if let Some(slot) = done {
                domain.slot_done(&mut held, self.0.id, slot);
            }
        }
    }

    /// Enter the guest, after [`Domain::sync`] if that was asked for.
    pub fn enter(&self, domain: &Domain<Fake>) {
        world::assert_no_lock("a vCPU enters the guest");
        if self.mode() != Mode::Hypervisor {
            return;
        }
        self.0.kicked.store(false, Ordering::SeqCst);
        self.meet_requests(domain);
        let _held = self.hold();
        let mut queues = lock(&self.0.queues);
        queues.fill();
        queues.mode = Mode::Guest;
    }

    /// Leave the guest and enter it again. Does nothing if it is off.
    pub fn cycle(&self, domain: &Domain<Fake>) {
        self.exit(domain);
        self.enter(domain);
    }

    /// Was it kicked since it last entered the guest?
    #[must_use]
    pub fn kicked(&self) -> bool {
        self.0.kicked.load(Ordering::SeqCst)
    }

    /// How often it was kicked at all, and how often [`Domain::sync`] ran.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.0.kicks.load(Ordering::Relaxed), self.0.syncs.load(Ordering::Relaxed))
    }

    /// The guest switches the vCPU off: LPIs leave its list registers, so that
    /// they can be had while it is off, and what it was asked for is done.
    pub fn power_off(&self, domain: &Domain<Fake>) {
        self.exit(domain);
        if self.mode() == Mode::Off {
            return;
        }
        let mut held = self.hold();
        let registers: Vec<_> =
            lock(&self.0.queues).registers.iter_mut().filter_map(Option::take).collect();
        for register in registers {
            let mut queues = lock(&self.0.queues);
            let carried = queues.carried(register.slot, "power_off");
            carried.queued |= register.pending;
            if carried.queued {
                queues.wait(register.slot);
            } else {
                queues.free(register.slot);
                drop(queues);
                domain.slot_done(&mut held, self.0.id, register.slot);
            }
        }
        drop(held);
        self.meet_requests(domain);
        lock(&self.0.queues).mode = Mode::Off;
    }

    /// The vCPU stops where it is, with its list registers as they are: as if
    /// it was destroyed, or the hypervisor knew nothing better.
    pub fn stop(&self, domain: &Domain<Fake>) {
        self.exit(domain);
        lock(&self.0.queues).mode = Mode::Off;
    }

    fn meet_requests(&self, domain: &Domain<Fake>) {
        for round in 0.. {
            assert!(round < SYNCS_PER_ENTRY, "{} never gets anywhere", self.0.id);
            if !self.0.sync_requested.swap(false, Ordering::SeqCst) {
                return;
            }
            self.0.syncs.fetch_add(1, Ordering::Relaxed);
            domain.sync(self.0.id);
        }
    }

    /// The guest switches the vCPU on: the vGIC empties its queues, then asks
    /// its-core what is pending.
    pub fn power_on(&self, domain: &Domain<Fake>) {
        assert_eq!(self.mode(), Mode::Off, "{} is on", self.0.id);
        let mut held = self.hold();
        {
            let mut queues = lock(&self.0.queues);
            let Queues { slots, registers, waiting, .. } = &mut *queues;
            for register in registers.iter_mut() {
                if let Some(register) = register.take() {
                    let carried = slots[usize::from(register.slot)].as_mut().expect("in use");
                    carried.queued |= register.pending;
                }
            }
            waiting.clear();
        }
        domain.vcpu_reset(&mut held, self.0.id);
        lock(&self.0.queues).mode = Mode::Hypervisor;
    }

    // ---- The guest ----

    /// The guest takes its most urgent interrupt that is pending. It has to
    /// be in the guest.
    pub fn ack(&self) -> Option<Lpi> {
        let mut queues = lock(&self.0.queues);
        assert_eq!(queues.mode, Mode::Guest, "{} is not in the guest", self.0.id);
        let active_state = queues.active_state;
        let ready = queues.registers.iter().enumerate().filter_map(|(at, lr)| {
            let lr = lr.as_ref()?;
            (lr.pending && !lr.active).then_some((lr.priority, lr.lpi, at))
        });
        let (_, lpi, at) = ready.min()?;
        let register = queues.registers[at].as_mut().expect("pending");
        register.pending = false;
        register.active = active_state;
        queues.taken.push(lpi);
        Some(lpi)
    }

    /// The guest ends the interrupt that it took.
    pub fn eoi(&self, lpi: Lpi) {
        let mut queues = lock(&self.0.queues);
        assert_eq!(queues.mode, Mode::Guest, "{} is not in the guest", self.0.id);
        if !queues.active_state {
            return;
        }
        let register = queues.registers.iter_mut().flatten();
        let register = { register }.find(|lr| lr.lpi == lpi && lr.active);
        register.unwrap_or_else(|| panic!("{lpi} is not active")).active = false;
    }

    /// What the guest took since it was last asked.
    pub fn take_history(&self) -> Vec<u32> {
        std::mem::take(&mut lock(&self.0.queues).taken).into_iter().map(Lpi::get).collect()
    }

    // ---- A look inside ----

    /// Where `lpi` is in the queues, if anywhere.
    #[must_use]
    pub fn place(&self, lpi: Lpi) -> Option<Place> {
        lock(&self.0.queues).place(lpi)
    }

    /// How many slots are in use.
    #[must_use]
    pub fn used_slots(&self) -> usize {
        lock(&self.0.queues).slots.iter().flatten().count()
    }

    /// Is anything left to do before the guest has seen all?
    #[must_use]
    pub fn busy(&self) -> bool {
        let queues = lock(&self.0.queues);
        self.kicked()
            || self.0.sync_requested.load(Ordering::SeqCst)
            || queues.slots.iter().any(Option::is_some)
    }
}

impl Vcpu for FakeVcpu {
    fn queue(&self, slot: u8, lpi: Lpi, priority: u8) {
        self.assert_held("queue");
        let mut queues = lock(&self.0.queues);
        let at = usize::from(slot);
        assert!(queues.slots[at].is_none(), "queue: slot {slot} is in use");
        let other = queues.slots.iter().flatten().find(|other| other.lpi == lpi);
        assert!(other.is_none(), "queue: {lpi} has a slot already");
        queues.slots[at] = Some(Carried { lpi, priority, queued: true });
        queues.raise(slot);
    }

    fn again(&self, slot: u8) -> bool {
        self.assert_held("again");
        let mut queues = lock(&self.0.queues);
        let mut known = std::mem::replace(&mut queues.carried(slot, "again").queued, true);
        // The list registers of the current vCPU are at hand; those of others
        // are seen to when they leave their guest.
        if queues.mode == Mode::Hypervisor
            && let Some(Some(register)) = queues.register_of(slot)
        {
            known |= std::mem::replace(&mut register.pending, true);
            queues.carried(slot, "again").queued = false;
        }
        known
    }

    fn retract(&self, slot: u8) -> bool {
        self.assert_held("retract");
        let mut queues = lock(&self.0.queues);
        queues.carried(slot, "retract");
        if queues.register_of(slot).is_some() {
            return false;
        }
        queues.free(slot);
        true
    }

    fn evict(&self, slot: u8) -> Evicted {
        self.assert_held("evict");
        let mut queues = lock(&self.0.queues);
        assert_eq!(
            queues.mode,
            Mode::Hypervisor,
            "evict: {} is not the current vCPU, on its way to the guest",
            self.0.id
        );
        let queued = std::mem::take(&mut queues.carried(slot, "evict").queued);
        let Some(place) = queues.register_of(slot) else {
            queues.free(slot);
            return Evicted { pending: true, active: false };
        };
        let register = place.as_mut().expect("found by its slot");
        let pending = std::mem::take(&mut register.pending) || queued;
        if register.active {
            return Evicted { pending, active: true };
        }
        *place = None;
        queues.free(slot);
        Evicted { pending, active: false }
    }

    fn reset(&self, slot: u8) -> bool {
        self.assert_held("reset");
        let mut queues = lock(&self.0.queues);
        assert_eq!(queues.mode, Mode::Off, "reset: {} runs", self.0.id);
        let pending = queues.carried(slot, "reset").queued;
        queues.free(slot);
        pending
    }

    fn request_sync(&self) {
        self.assert_held("request_sync");
        self.0.sync_requested.store(true, Ordering::SeqCst);
    }

    fn kick(&self) {
        world::assert_no_vgic_lock("kick");
        self.0.kicks.fetch_add(1, Ordering::Relaxed);
        self.0.kicked.store(true, Ordering::SeqCst);
    }
}
