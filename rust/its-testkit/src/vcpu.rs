// SPDX-License-Identifier: GPL-2.0-only
//! One vCPU: its list registers, which LPIs share with other interrupts, and
//! the guest that takes interrupts from them.
//!
//! It follows the vGIC of Xen 4.20: list registers are filled on the way into
//! the guest, an LPI that fires again while it is in one is remembered by one
//! bit, and what became of the list registers is only looked at when the guest
//! is left.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use its_arch::{Lpi, VcpuId};
use its_core::env::{Evicted, Vcpu};
use its_core::{Domain, Host};

use crate::env::Fake;
use crate::world::{self, VGIC_RANK, World, lock};

/// Longest that a thread waits for a vGIC lock before the test has failed.
const LOCK_PATIENCE: Duration = Duration::from_secs(120);
/// How often entering the guest may ask for yet another [`Domain::fill`].
/// Each may find 64 LPIs disabled, of 57344.
const ROUNDS_PER_ENTRY: usize = 1000;

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

/// A list register. Slot `n` is list register `n`.
#[derive(Clone, Copy, Debug)]
struct Register {
    /// `None`: an interrupt that is not an LPI.
    lpi: Option<Lpi>,
    priority: u8,
    pending: bool,
    active: bool,
    /// It fired again, and the list register does not say so yet.
    again: bool,
}

/// Where an LPI is in a list register: what that says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The guest has yet to take it.
    pub pending: bool,
    /// The guest handles it.
    pub active: bool,
}

struct Queues {
    mode: Mode,
    registers: Vec<Option<Register>>,
    /// LPIs wait until a list register is free.
    more: bool,
    /// Priorities of other interrupts that wait for a list register.
    others: Vec<u8>,
    /// What the guest took.
    taken: Vec<Lpi>,
    /// An LPI stays active until the guest ends it. Otherwise a list register
    /// is free as soon as the guest took the LPI.
    active_state: bool,
}

struct Inner {
    id: VcpuId,
    /// The thread that holds the vGIC lock; 0: none.
    owner: AtomicU64,
    queues: Mutex<Queues>,
    on_lock: Mutex<Option<Meanwhile>>,
    kicked: AtomicBool,
    sync_requested: AtomicBool,
    /// [`Domain::sync`] said that the guest has taken what somebody waits for.
    has_taken: AtomicBool,
    fill_requested: AtomicBool,
    kicks: AtomicUsize,
    syncs: AtomicUsize,
    fills: AtomicUsize,
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
    /// The list register in which an LPI is.
    fn used(&mut self, slot: u8, who: &str) -> &mut Register {
        let register = self.registers.get_mut(usize::from(slot)).and_then(Option::as_mut);
        register
            .filter(|register| register.lpi.is_some())
            .unwrap_or_else(|| panic!("{who}: no LPI in slot {slot}"))
    }

    fn lpis(&self) -> impl Iterator<Item = &Register> {
        self.registers.iter().flatten().filter(|register| register.lpi.is_some())
    }

    fn free(&self) -> Option<usize> {
        self.registers.iter().position(Option::is_none)
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
                registers: vec![None; list_registers],
                more: false,
                others: Vec::new(),
                taken: Vec::new(),
                active_state: true,
            }),
            on_lock: Mutex::new(None),
            kicked: AtomicBool::new(false),
            sync_requested: AtomicBool::new(false),
            has_taken: AtomicBool::new(false),
            fill_requested: AtomicBool::new(false),
            kicks: AtomicUsize::new(0),
            syncs: AtomicUsize::new(0),
            fills: AtomicUsize::new(0),
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
        let mine = me();
        assert!(self.0.owner.load(Ordering::Relaxed) != mine, "vGIC lock taken twice");
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
        if !self.try_own(mine) {
            let since = Instant::now();
            while !self.try_own(mine) {
                assert!(since.elapsed() < LOCK_PATIENCE, "deadlock on a vGIC lock");
                std::thread::yield_now();
            }
        }
        Held(self.clone())
    }

    fn try_own(&self, who: u64) -> bool {
        self.0.owner.compare_exchange(0, who, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn assert_held(&self, who: &str) {
        assert!(
            self.0.owner.load(Ordering::Relaxed) == me(),
            "{who} of {} without its vGIC lock",
            self.0.id
        );
    }

    fn assert_current(&self, mode: Mode, who: &str) {
        assert_eq!(
            mode,
            Mode::Hypervisor,
            "{who}: {} is not the current vCPU, on its way to the guest",
            self.0.id
        );
    }

    // ---- Knobs ----

    /// Whether an LPI stays active in a list register until the guest ends
    /// it.
    pub fn set_active_state(&self, active: bool) {
        lock(&self.0.queues).active_state = active;
    }

    /// Another interrupt becomes pending, of this priority: it gets a list
    /// register when the vCPU next enters the guest. The guest takes it, and is
    /// done with it, before less urgent LPIs.
    pub fn raise_other(&self, priority: u8) {
        lock(&self.0.queues).others.push(priority);
    }

    /// How many of these are in list registers, and how many wait for one.
    #[must_use]
    pub fn others(&self) -> (usize, usize) {
        let queues = lock(&self.0.queues);
        let listed = queues.registers.iter().flatten().filter(|register| register.lpi.is_none());
        (listed.count(), queues.others.len())
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
        for (slot, at) in (0_u8..).zip(0..count) {
            let mut queues = lock(&self.0.queues);
            let Some(register) = queues.registers[at].as_mut() else { continue };
            let again = std::mem::take(&mut register.again);
            if register.pending || register.lpi.is_none() {
                continue;
            }
            register.pending = again;
            if !again && !register.active {
                queues.registers[at] = None;
                drop(queues);
                domain.slot_done(&mut held, self.0.id, slot);
            }
        }
    }

    /// As the hypervisor does after it: ask for host LPIs to be unmasked, if
    /// [`Domain::sync`] said so.
    pub fn unmask_taken(&self, domain: &Domain<Fake>, host: &Host<Fake>) {
        if self.0.has_taken.swap(false, Ordering::SeqCst) {
            world::in_irq(|| domain.unmask_taken(host, self.0.id));
        }
    }

    /// Enter the guest, after [`Domain::sync`] and [`Domain::fill`] if they
    /// were asked for.
    pub fn enter(&self, domain: &Domain<Fake>) {
        world::assert_no_lock("a vCPU enters the guest");
        if self.mode() != Mode::Hypervisor {
            return;
        }
        self.0.kicked.store(false, Ordering::SeqCst);
        self.until_done(|| self.meet_sync(domain) || self.fill_registers(domain));
    }

    /// List registers are filled, and the guest is entered. True if it was not,
    /// and this has to go on, after other work.
    fn fill_registers(&self, domain: &Domain<Fake>) -> bool {
        let mut held = self.hold();
        self.place_others(domain, &mut held);
        let room = {
            let queues = lock(&self.0.queues);
            queues.more && queues.free().is_some()
        };
        if self.0.fill_requested.swap(false, Ordering::SeqCst) || room {
            self.0.fills.fetch_add(1, Ordering::Relaxed);
            let more = domain.fill(&mut held, self.0.id);
            lock(&self.0.queues).more = more;
        }
        let again = self.0.fill_requested.load(Ordering::SeqCst);
        if !again {
            lock(&self.0.queues).mode = Mode::Guest;
        }
        again
    }

    /// The other interrupts get list registers, those of less urgent LPIs if
    /// need be.
    fn place_others(&self, domain: &Domain<Fake>, held: &mut Held) {
        let mut others = std::mem::take(&mut lock(&self.0.queues).others);
        others.sort_unstable();
        for priority in others {
            let free = lock(&self.0.queues).free();
            let at = free.or_else(|| domain.yield_slot(held, self.0.id, priority).map(usize::from));
            let mut queues = lock(&self.0.queues);
            if let Some(at) = at {
                assert!(queues.registers[at].is_none(), "slot {at} was not given up");
                let (pending, active, again) = (true, false, false);
                queues.registers[at] =
                    Some(Register { lpi: None, priority, pending, active, again });
            } else {
                queues.others.push(priority);
            }
        }
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

    /// How often [`Domain::fill`] ran.
    #[must_use]
    pub fn fills(&self) -> usize {
        self.0.fills.load(Ordering::Relaxed)
    }

    /// The guest switches the vCPU off: LPIs leave its list registers, so that
    /// they can be had while it is off, and what it was asked for is done.
    pub fn power_off(&self, domain: &Domain<Fake>) {
        self.exit(domain);
        if self.mode() == Mode::Off {
            return;
        }
        let mut held = self.hold();
        domain.vcpu_reset(&mut held, self.0.id);
        drop(held);
        self.until_done(|| self.meet_sync(domain));
        lock(&self.0.queues).mode = Mode::Off;
    }

    /// The vCPU stops where it is, with its list registers as they are: as if
    /// it was destroyed, or the hypervisor knew nothing better.
    pub fn stop(&self, domain: &Domain<Fake>) {
        self.exit(domain);
        lock(&self.0.queues).mode = Mode::Off;
    }

    /// What was asked for on the way to sleep. False if nothing was.
    fn meet_sync(&self, domain: &Domain<Fake>) -> bool {
        let requested = self.0.sync_requested.swap(false, Ordering::SeqCst);
        if requested {
            self.0.syncs.fetch_add(1, Ordering::Relaxed);
            if domain.sync(self.0.id) {
                self.0.has_taken.store(true, Ordering::SeqCst);
            }
        }
        requested
    }

    fn until_done(&self, round: impl Fn() -> bool) {
        let rounds = (0..ROUNDS_PER_ENTRY).take_while(|_| round()).count();
        assert!(rounds < ROUNDS_PER_ENTRY, "{} never gets anywhere", self.0.id);
    }

    /// The guest switches the vCPU on: its-core is told that its list registers
    /// are to be emptied.
    pub fn power_on(&self, domain: &Domain<Fake>) {
        assert_eq!(self.mode(), Mode::Off, "{} is on", self.0.id);
        let mut held = self.hold();
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
        loop {
            let ready = queues.registers.iter().enumerate().filter_map(|(at, lr)| {
                let lr = lr.as_ref()?;
                (lr.pending && !lr.active).then_some((lr.priority, lr.lpi, at))
            });
            let (_, lpi, at) = ready.min()?;
            let Some(lpi) = lpi else {
                queues.registers[at] = None;
                continue;
            };
            let register = queues.registers[at].as_mut().expect("pending");
            register.pending = false;
            register.active = active_state;
            queues.taken.push(lpi);
            return Some(lpi);
        }
    }

    /// The guest ends the interrupt that it took.
    pub fn eoi(&self, lpi: Lpi) {
        let mut queues = lock(&self.0.queues);
        assert_eq!(queues.mode, Mode::Guest, "{} is not in the guest", self.0.id);
        if !queues.active_state {
            return;
        }
        let register = queues.registers.iter_mut().flatten();
        let register = { register }.find(|lr| lr.lpi == Some(lpi) && lr.active);
        register.unwrap_or_else(|| panic!("{lpi} is not active")).active = false;
    }

    /// What the guest took since it was last asked.
    pub fn take_history(&self) -> Vec<u32> {
        std::mem::take(&mut lock(&self.0.queues).taken).into_iter().map(Lpi::get).collect()
    }

    // ---- A look inside ----

    /// Where `lpi` is in the list registers, if anywhere.
    #[must_use]
    pub fn place(&self, lpi: Lpi) -> Option<Place> {
        let queues = lock(&self.0.queues);
        let register = queues.lpis().find(|register| register.lpi == Some(lpi))?;
        Some(Place { pending: register.pending, active: register.active })
    }

    /// How many slots are in use.
    #[must_use]
    pub fn used_slots(&self) -> usize {
        lock(&self.0.queues).lpis().count()
    }

    /// Would an LPI make the hypervisor wake the vCPU up, if it slept, with its
    /// priority mask at `limit`?
    #[must_use]
    pub fn has_urgent(&self, domain: &Domain<Fake>, limit: u32) -> bool {
        let mut held = self.hold();
        let in_register = lock(&self.0.queues)
            .lpis()
            .any(|register| register.pending && u32::from(register.priority) < limit);
        in_register || domain.is_urgent(&mut held, self.0.id, limit)
    }

    /// Is anything left to do before the guest has seen all?
    #[must_use]
    pub fn busy(&self) -> bool {
        self.kicked()
            || self.0.sync_requested.load(Ordering::SeqCst)
            || self.0.fill_requested.load(Ordering::SeqCst)
            || self.used_slots() != 0
    }
}

impl Vcpu for FakeVcpu {
    fn free_slot(&self) -> Option<u8> {
        self.assert_held("free_slot");
        let queues = lock(&self.0.queues);
        self.assert_current(queues.mode, "free_slot");
        queues.free().and_then(|at| u8::try_from(at).ok())
    }

    fn displace(&self, priority: u8) -> Option<u8> {
        self.assert_held("displace");
        let mut queues = lock(&self.0.queues);
        self.assert_current(queues.mode, "displace");
        let less = |at: &usize| {
            let register = queues.registers[*at];
            register.is_some_and(|lr| lr.lpi.is_none() && lr.priority > priority)
        };
        let at = (0..queues.registers.len())
            .filter(less)
            .max_by_key(|at| queues.registers[*at].map(|register| register.priority))?;
        let other = queues.registers[at].take()?;
        queues.others.push(other.priority);
        u8::try_from(at).ok()
    }

    fn load(&self, slot: u8, lpi: Lpi, priority: u8) {
        self.assert_held("load");
        let mut queues = lock(&self.0.queues);
        self.assert_current(queues.mode, "load");
        let twice = queues.lpis().any(|other| other.lpi == Some(lpi));
        assert!(!twice, "load: {lpi} is in a list register already");
        let place = &mut queues.registers[usize::from(slot)];
        assert!(place.is_none(), "load: list register {slot} is in use");
        let (pending, active, again) = (true, false, false);
        *place = Some(Register { lpi: Some(lpi), priority, pending, active, again });
    }

    fn again(&self, slot: u8) -> bool {
        self.assert_held("again");
        let mut queues = lock(&self.0.queues);
        let mode = queues.mode;
        let register = queues.used(slot, "again");
        // The list registers of the current vCPU are at hand; those of others
        // are seen to when they leave their guest.
        let says =
            if mode == Mode::Hypervisor { &mut register.pending } else { &mut register.again };
        std::mem::replace(says, true)
    }

    fn evict(&self, slot: u8) -> Evicted {
        self.assert_held("evict");
        let mut queues = lock(&self.0.queues);
        self.assert_current(queues.mode, "evict");
        let register = queues.used(slot, "evict");
        let again = std::mem::take(&mut register.again);
        let pending = std::mem::take(&mut register.pending) || again;
        let active = register.active;
        if !active {
            queues.registers[usize::from(slot)] = None;
        }
        Evicted { pending, active }
    }

    fn reset(&self, slot: u8) -> bool {
        self.assert_held("reset");
        let mut queues = lock(&self.0.queues);
        assert_ne!(queues.mode, Mode::Guest, "reset: {} runs", self.0.id);
        let register = *queues.used(slot, "reset");
        queues.registers[usize::from(slot)] = None;
        register.pending || register.again
    }

    fn request_fill(&self) -> bool {
        self.assert_held("request_fill");
        self.0.fill_requested.store(true, Ordering::SeqCst);
        self.mode() != Mode::Hypervisor
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
