// SPDX-License-Identifier: GPL-2.0-only
//! A vCPU: Xen's queue of slots, two list registers, and a guest that takes
//! interrupts from them. The fuller model is in its-testkit.

use std::sync::{Arc, PoisonError};

use its_arch::{Lpi, VcpuId};
use its_core::Domain;
use its_core::env::{self, Evicted, SLOTS};

use crate::checker::{self, Mutex, MutexGuard};
use crate::env::Checked;

/// List registers.
const REGISTERS: usize = 2;
/// How often a vCPU may be asked for yet another [`Domain::sync`].
const SYNCS: usize = 100;

/// Where the vCPU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the guest: the list registers are out of the hypervisor's reach.
    Guest,
    /// In the hypervisor, on its way out of or into the guest.
    Hypervisor,
    /// Switched off.
    Off,
}

/// What a slot holds.
#[derive(Clone, Copy)]
struct Carried {
    lpi: Lpi,
    priority: u8,
    /// It fired, and no list register says so yet.
    queued: bool,
}

/// A list register.
#[derive(Clone, Copy)]
struct Register {
    slot: u8,
    pending: bool,
    active: bool,
}

struct State {
    mode: Mode,
    held: bool,
    slots: [Option<Carried>; SLOTS],
    registers: [Option<Register>; REGISTERS],
    kicked: bool,
    sync_requested: bool,
    /// More was queued than there are list registers when it entered the guest:
    /// it leaves once one is done with (the maintenance interrupt).
    more: bool,
}

struct Inner {
    id: VcpuId,
    /// The vGIC lock.
    vgic: Mutex<()>,
    /// What is under it, the guest's side of the list registers, and flags: in
    /// one step each.
    state: std::sync::Mutex<State>,
}

/// A vCPU, as its-core and the test see it. It starts in the guest.
#[derive(Clone)]
pub struct Vcpu(Arc<Inner>);

/// Proof that the vGIC lock of a vCPU is held.
pub struct Held(Vcpu);

impl Held {
    /// Is it that of `vcpu`?
    pub(crate) fn is_of(&self, vcpu: &Vcpu) -> bool {
        Arc::ptr_eq(&self.0.0, &vcpu.0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state().held = false;
    }
}

impl State {
    fn carried(&mut self, slot: u8) -> &mut Carried {
        self.slots[usize::from(slot)].as_mut().expect("a slot in use")
    }

    fn register_of(&mut self, slot: u8) -> Option<&mut Option<Register>> {
        self.registers.iter_mut().find(|lr| lr.is_some_and(|lr| lr.slot == slot))
    }

    /// The most urgent slot that waits for a list register.
    fn next(&self) -> Option<u8> {
        let in_register = |slot| self.registers.iter().flatten().any(|lr| lr.slot == slot);
        let waiting = (0_u8..).zip(&self.slots).filter_map(|(slot, carried)| {
            let carried = carried.as_ref()?;
            (carried.queued && !in_register(slot)).then_some((carried.priority, slot))
        });
        waiting.min().map(|(_, slot)| slot)
    }

    /// What is queued goes into list registers.
    fn fill(&mut self) {
        for at in 0..REGISTERS {
            if self.registers[at].is_none()
                && let Some(slot) = self.next()
            {
                self.registers[at] = Some(Register { slot, pending: false, active: false });
            }
            if let Some(slot) = self.registers[at].map(|lr| lr.slot) {
                let again = std::mem::take(&mut self.carried(slot).queued);
                if let Some(lr) = &mut self.registers[at] {
                    lr.pending |= again;
                }
            }
        }
        self.more = self.next().is_some();
    }
}

impl Vcpu {
    /// vCPU number `id`.
    #[must_use]
    pub fn new(id: u16) -> Self {
        Self(Arc::new(Inner {
            id: VcpuId::new(id),
            vgic: Mutex::new(()),
            state: std::sync::Mutex::new(State {
                mode: Mode::Guest,
                held: false,
                slots: [None; SLOTS],
                registers: [None; REGISTERS],
                kicked: false,
                sync_requested: false,
                more: false,
            }),
        }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Take the vGIC lock.
    pub(crate) fn lock(&self) -> (MutexGuard<'_, ()>, Held) {
        let lock = checker::lock(&self.0.vgic);
        self.state().held = true;
        (lock, Held(self.clone()))
    }

    /// What is under the vGIC lock, which is held.
    fn queues(&self, who: &str) -> std::sync::MutexGuard<'_, State> {
        let state = self.state();
        assert!(state.held, "{who}: the vGIC lock is not held");
        state
    }

    // ---- The hypervisor around its-core ----

    /// Leave the guest: see what it did with the list registers.
    fn exit(&self, domain: &Domain<Checked>) {
        assert_eq!(self.state().mode, Mode::Guest, "it is not in the guest");
        let (_lock, mut held) = self.lock();
        self.state().mode = Mode::Hypervisor;
        for at in 0..REGISTERS {
            let mut state = self.state();
            let Some(lr) = state.registers[at].filter(|lr| !lr.pending && !lr.active) else {
                continue;
            };
            state.registers[at] = None;
            if !state.carried(lr.slot).queued {
                state.slots[usize::from(lr.slot)] = None;
                drop(state);
                domain.slot_done(&mut held, self.0.id, lr.slot);
            }
        }
    }

    fn meet_requests(&self, domain: &Domain<Checked>) {
        for _ in 0..SYNCS {
            if !std::mem::take(&mut self.state().sync_requested) {
                return;
            }
            domain.sync(self.0.id);
        }
        panic!("it never gets into the guest");
    }

    /// Enter the guest, after what was asked for.
    fn enter(&self, domain: &Domain<Checked>) {
        self.state().kicked = false;
        self.meet_requests(domain);
        let (_lock, _held) = self.lock();
        let mut state = self.state();
        state.fill();
        state.mode = Mode::Guest;
    }

    /// Leave the guest and enter it again.
    pub fn cycle(&self, domain: &Domain<Checked>) {
        self.exit(domain);
        self.enter(domain);
    }

    /// Does something make it leave the guest?
    #[must_use]
    pub fn interrupted(&self) -> bool {
        let state = self.state();
        let idle = |lr: &Option<Register>| lr.is_none_or(|lr| !lr.pending && !lr.active);
        let underflow = state.more && state.registers.iter().any(idle);
        (state.kicked || underflow) && state.mode == Mode::Guest
    }

    /// The vCPU switches itself off (PSCI): LPIs leave its list registers.
    pub fn power_off(&self, domain: &Domain<Checked>) {
        self.exit(domain);
        {
            let (_lock, mut held) = self.lock();
            for at in 0..REGISTERS {
                let mut state = self.state();
                let Some(lr) = state.registers[at].take() else { continue };
                let carried = state.carried(lr.slot);
                carried.queued |= lr.pending;
                if !carried.queued {
                    state.slots[usize::from(lr.slot)] = None;
                    drop(state);
                    domain.slot_done(&mut held, self.0.id, lr.slot);
                }
            }
        }
        self.meet_requests(domain);
        self.state().mode = Mode::Off;
    }

    /// Another vCPU switches it on, and it enters the guest.
    pub fn power_on(&self, domain: &Domain<Checked>) {
        assert_eq!(self.state().mode, Mode::Off, "it is on");
        {
            let (_lock, mut held) = self.lock();
            domain.vcpu_reset(&mut held, self.0.id);
        }
        self.state().mode = Mode::Hypervisor;
        self.enter(domain);
    }

    /// It stops where it is, as all do when their domain is destroyed.
    pub fn stop(&self) {
        self.state().mode = Mode::Off;
    }

    // ---- The guest ----

    /// The guest takes its most urgent interrupt.
    #[must_use]
    pub fn ack(&self) -> Option<Lpi> {
        let mut state = self.state();
        assert_eq!(state.mode, Mode::Guest, "it is not in the guest");
        let ready = (0..REGISTERS).filter_map(|at| {
            let lr = state.registers[at].filter(|lr| lr.pending && !lr.active)?;
            Some((state.slots[usize::from(lr.slot)].expect("in use").priority, at))
        });
        let (_, at) = ready.min()?;
        let lr = state.registers[at].as_mut().expect("found");
        (lr.pending, lr.active) = (false, true);
        let slot = lr.slot;
        Some(state.carried(slot).lpi)
    }

    /// The guest ends the interrupts that it took.
    pub fn eoi(&self) {
        for lr in self.state().registers.iter_mut().flatten() {
            lr.active = false;
        }
    }
}

impl env::Vcpu for Vcpu {
    fn queue(&self, slot: u8, lpi: Lpi, priority: u8) {
        let mut state = self.queues("queue");
        let twice = state.slots.iter().flatten().any(|other| other.lpi == lpi);
        assert!(!twice, "{lpi} has a slot already");
        let before =
            state.slots[usize::from(slot)].replace(Carried { lpi, priority, queued: true });
        assert!(before.is_none(), "slot {slot} is in use");
    }

    fn again(&self, slot: u8) -> bool {
        std::mem::replace(&mut self.queues("again").carried(slot).queued, true)
    }

    fn retract(&self, slot: u8) -> bool {
        let mut state = self.queues("retract");
        let _in_use = state.carried(slot);
        if state.register_of(slot).is_some() {
            return false;
        }
        state.slots[usize::from(slot)] = None;
        true
    }

    fn evict(&self, slot: u8) -> Evicted {
        let mut state = self.queues("evict");
        assert_eq!(state.mode, Mode::Hypervisor, "evict: {} is in the guest", self.0.id);
        let queued = std::mem::take(&mut state.carried(slot).queued);
        let Some(place) = state.register_of(slot) else {
            state.slots[usize::from(slot)] = None;
            return Evicted { pending: queued, active: false };
        };
        let lr = place.as_mut().expect("found by its slot");
        let pending = std::mem::take(&mut lr.pending) || queued;
        let active = lr.active;
        if !active {
            *place = None;
            state.slots[usize::from(slot)] = None;
        }
        Evicted { pending, active }
    }

    fn reset(&self, slot: u8) -> bool {
        let mut state = self.queues("reset");
        assert_eq!(state.mode, Mode::Off, "reset: {} is on", self.0.id);
        assert!(state.register_of(slot).is_none(), "reset: in a list register");
        state.slots[usize::from(slot)].take().expect("a slot in use").queued
    }

    fn request_sync(&self) {
        self.queues("request_sync").sync_requested = true;
    }

    fn kick(&self) {
        self.state().kicked = true;
    }
}
