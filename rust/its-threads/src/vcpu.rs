// SPDX-License-Identifier: GPL-2.0-only
//! A vCPU: two list registers, and a guest that takes interrupts from them. The
//! fuller model is in its-testkit.

use std::sync::{Arc, PoisonError};

use its_arch::{Lpi, VcpuId};
use its_core::Domain;
use its_core::env::{self, Evicted};

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

/// A list register that is in use. Slot `n` is list register `n`.
#[derive(Clone, Copy)]
struct Register {
    lpi: Lpi,
    priority: u8,
    pending: bool,
    active: bool,
    /// It fired, and the list register does not say so yet.
    again: bool,
}

struct State {
    mode: Mode,
    held: bool,
    registers: [Option<Register>; REGISTERS],
    kicked: bool,
    sync_requested: bool,
    fill_requested: bool,
    /// More wait than there are list registers: it leaves once one is done with
    /// (the maintenance interrupt).
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
    fn used(&mut self, slot: u8) -> &mut Register {
        self.registers[usize::from(slot)].as_mut().expect("a slot in use")
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
                registers: [None; REGISTERS],
                kicked: false,
                sync_requested: false,
                fill_requested: false,
                more: false,
            }),
        }))
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> VcpuId {
        self.0.id
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
        for (slot, at) in (0_u8..).zip(0..REGISTERS) {
            let mut state = self.state();
            let Some(lr) = &mut state.registers[at] else { continue };
            let again = std::mem::take(&mut lr.again);
            if lr.pending {
                continue;
            }
            lr.pending = again;
            if !again && !lr.active {
                state.registers[at] = None;
                drop(state);
                domain.slot_done(&mut held, self.0.id, slot);
            }
        }
    }

    /// What was asked for on the way to sleep. True if LPIs were taken that
    /// somebody waits for.
    fn meet_requests(&self, domain: &Domain<Checked>) -> bool {
        let mut taken = false;
        for _ in 0..SYNCS {
            if !std::mem::take(&mut self.state().sync_requested) {
                return taken;
            }
            taken |= domain.sync(self.0.id);
        }
        panic!("it never gets into the guest");
    }

    /// Enter the guest, after what was asked for.
    fn enter(&self, domain: &Domain<Checked>) -> bool {
        self.state().kicked = false;
        let mut taken = false;
        for _ in 0..SYNCS {
            taken |= self.meet_requests(domain);
            let (_lock, mut held) = self.lock();
            let wanted = {
                let mut state = self.state();
                let room = state.more && state.registers.iter().any(Option::is_none);
                std::mem::take(&mut state.fill_requested) || room
            };
            if wanted {
                let more = domain.fill(&mut held, self.0.id);
                self.state().more = more;
            }
            let mut state = self.state();
            if !state.fill_requested && !state.sync_requested {
                state.mode = Mode::Guest;
                return taken;
            }
        }
        panic!("it never gets into the guest");
    }

    /// Leave the guest and enter it again. True if [`Domain::unmask_taken`] is
    /// due.
    pub fn cycle(&self, domain: &Domain<Checked>) -> bool {
        self.exit(domain);
        self.enter(domain)
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
            domain.vcpu_reset(&mut held, self.0.id);
        }
        let _taken = self.meet_requests(domain);
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
            Some((lr.priority, at))
        });
        let (_, at) = ready.min()?;
        let lr = state.registers[at].as_mut().expect("found");
        (lr.pending, lr.active) = (false, true);
        Some(lr.lpi)
    }

    /// The guest ends the interrupts that it took.
    pub fn eoi(&self) {
        for lr in self.state().registers.iter_mut().flatten() {
            lr.active = false;
        }
    }
}

impl env::Vcpu for Vcpu {
    fn free_slot(&self) -> Option<u8> {
        let state = self.queues("free_slot");
        assert_eq!(state.mode, Mode::Hypervisor, "free_slot: {} is in the guest", self.0.id);
        state.registers.iter().position(Option::is_none).and_then(|at| u8::try_from(at).ok())
    }

    fn displace(&self, _priority: u8) -> Option<u8> {
        // There are LPIs only.
        None
    }

    fn load(&self, slot: u8, lpi: Lpi, priority: u8) {
        let mut state = self.queues("load");
        assert_eq!(state.mode, Mode::Hypervisor, "load: {} is in the guest", self.0.id);
        let twice = state.registers.iter().flatten().any(|other| other.lpi == lpi);
        assert!(!twice, "{lpi} has a slot already");
        let (pending, active, again) = (true, false, false);
        let before = state.registers[usize::from(slot)].replace(Register {
            lpi,
            priority,
            pending,
            active,
            again,
        });
        assert!(before.is_none(), "slot {slot} is in use");
    }

    fn again(&self, slot: u8) -> bool {
        let mut state = self.queues("again");
        let here = state.mode == Mode::Hypervisor;
        let lr = state.used(slot);
        std::mem::replace(if here { &mut lr.pending } else { &mut lr.again }, true)
    }

    fn evict(&self, slot: u8) -> Evicted {
        let mut state = self.queues("evict");
        assert_eq!(state.mode, Mode::Hypervisor, "evict: {} is in the guest", self.0.id);
        let lr = state.used(slot);
        let pending = std::mem::take(&mut lr.pending) | std::mem::take(&mut lr.again);
        let active = lr.active;
        if !active {
            state.registers[usize::from(slot)] = None;
        }
        Evicted { pending, active }
    }

    fn reset(&self, slot: u8) -> bool {
        let mut state = self.queues("reset");
        assert_ne!(state.mode, Mode::Guest, "reset: {} is in the guest", self.0.id);
        let lr = *state.used(slot);
        state.registers[usize::from(slot)] = None;
        lr.pending || lr.again
    }

    fn request_fill(&self) -> bool {
        let mut state = self.queues("request_fill");
        state.fill_requested = true;
        state.mode != Mode::Hypervisor
    }

    fn request_sync(&self) {
        self.queues("request_sync").sync_requested = true;
    }

    fn kick(&self) {
        self.state().kicked = true;
    }
}
