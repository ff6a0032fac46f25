// SPDX-License-Identifier: GPL-2.0-only
//! An LPI on its way to its vCPU, and the vGIC's calls.

use its_arch::{Lpi, VcpuId};

use crate::domain::{COLLECTIONS, Domain, mapped_to};
use crate::env::{Env, Once, Vcpu, VgicLock};
use crate::redist::{Displaced, Heir, LpiState, Redist};
use crate::sync::{AtomicU16, Ordering, fence};
use crate::vits::Vits;
use crate::vlpi::{Entry, EntryCell};

/// What became of an LPI that was to be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Routed {
    /// It is pending on its vCPU.
    Raised,
    /// So it is, but there are too many of them.
    Storm,
    /// It is not mapped to a vCPU.
    Nowhere,
    /// That vCPU, or the ITS, ignores it.
    Ignored,
}

/// What an LPI was mapped to when it was looked up without a lock.
struct Found<'a> {
    cell: EntryCell<'a>,
    entry: Entry,
    collection: &'a AtomicU16,
    target: u16,
}

impl Found<'_> {
    /// Is it so still?
    #[inline]
    fn is_current(&self) -> bool {
        self.cell.load() == self.entry && self.collection.load(Ordering::Acquire) == self.target
    }
}

/// What became of it under the vCPU's lock.
enum Attempt {
    Raised {
        kick: bool,
        storm: bool,
    },
    Ignored,
    /// Its mapping has changed meanwhile: look at it once more.
    Changed,
}

impl<E: Env> Domain<E> {
    /// The vCPU that an LPI goes to.
    #[inline]
    pub(super) fn target(&self, entry: Entry) -> Option<VcpuId> {
        if !entry.mapped() {
            return None;
        }
        mapped_to(self.collections.get(usize::from(entry.collection()))?.load(Ordering::Acquire))
    }

    /// Is the virtual ITS of a mapped LPI enabled? If not, it ignores what
    /// devices write (GITS_CTLR.Enabled).
    #[inline]
    pub(super) fn translates(&self, entry: Entry) -> bool {
        let vits = self.vits.get(usize::from(entry.collection() / COLLECTIONS));
        vits.is_some_and(Vits::translates)
    }

    /// An event that is mapped to the virtual LPI `lpi` happened. True: its
    /// host LPI had better be masked ([`Self::mask`]), because this interrupt
    /// was of no use, or one too many. IRQ context: interrupts off, no lock
    /// held.
    #[inline]
    pub fn deliver(&self, lpi: Lpi) -> bool {
        let routed = self.try_route(lpi, true, true);
        match routed.unwrap_or_else(|| self.route(lpi, true)) {
            Routed::Raised => false,
            Routed::Storm => true,
            Routed::Nowhere | Routed::Ignored => {
                self.unrouted.fetch_add(1, Ordering::Relaxed);
                self.unmapped()
            }
        }
    }

    /// The guest says that such an event happened (INT). Trap context.
    pub(crate) fn trigger(&self, lpi: Lpi) {
        if matches!(self.route(lpi, true), Routed::Nowhere | Routed::Ignored) {
            self.unrouted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Make `lpi` pending on the vCPU that it is mapped to. `fresh` if it
    /// fired just now, not if it was pending before.
    fn route(&self, lpi: Lpi, fresh: bool) -> Routed {
        loop {
            if let Some(routed) = self.try_route(lpi, fresh, false) {
                return routed;
            }
        }
    }

    /// The same once. `None`: its mapping has changed meanwhile. This is what
    /// an interrupt costs.
    #[inline(always)]
    fn try_route(&self, lpi: Lpi, fresh: bool, irqs_off: bool) -> Option<Routed> {
        let Some(cell) = self.vlpis.cell(lpi) else { return Some(Routed::Nowhere) };
        let entry = cell.load();
        let collection = self.collections.get(usize::from(entry.collection()));
        let (true, Some(collection)) = (entry.mapped(), collection) else {
            return Some(Routed::Nowhere);
        };
        let target = collection.load(Ordering::Acquire);
        let Some(id) = mapped_to(target) else { return Some(Routed::Nowhere) };
        if fresh && !self.translates(entry) {
            return Some(Routed::Ignored);
        }
        let Some(lock) = self.redist(id).and_then(|redist| redist.lock.get()) else {
            return Some(Routed::Ignored);
        };
        let found = Found { cell, entry, collection, target };
        let attempt = if irqs_off {
            lock.with_in_irq(|state| self.raise_if(&found, state, lock.vcpu(), lpi, fresh))
        } else {
            self.raise_if(&found, &mut lock.lock(), lock.vcpu(), lpi, fresh)
        };
        let (kick, storm) = match attempt {
            Attempt::Raised { kick, storm } => (kick, storm),
            Attempt::Ignored => return Some(Routed::Ignored),
            Attempt::Changed => return None,
        };
        if kick {
            lock.vcpu().kick();
        }
        Some(if storm { Routed::Storm } else { Routed::Raised })
    }

    /// The part of it under the vCPU's lock.
    #[inline(always)]
    fn raise_if(
        &self,
        found: &Found<'_>,
        state: &mut Option<LpiState<E>>,
        vcpu: &E::Vcpu,
        lpi: Lpi,
        fresh: bool,
    ) -> Attempt {
        // The guest has not enabled LPIs on that vCPU: the architecture
        // ignores them (GICR_CTLR.EnableLPIs).
        let (Some(state), Some(table)) = (state, self.properties.get()) else {
            return Attempt::Ignored;
        };
        // Whoever moves or unmaps an LPI changes its entry first, then looks
        // for it under the vCPU's lock. So once that lock is ours, either the
        // entry has changed, or they will find what we do.
        if !found.is_current() {
            return Attempt::Changed;
        }
        let raised = state.raise_inline(vcpu, table, lpi);
        let storm = fresh && state.is_too_much(raised.wasted, &self.rate);
        Attempt::Raised { kick: raised.kick, storm }
    }

    /// Raise an LPI that was taken away from `redist` where it belongs now.
    pub(super) fn restore(&self, redist: &Redist<E>, lpi: Lpi) {
        let Some(table) = self.properties.get() else { return };
        while self.route(lpi, false) == Routed::Nowhere {
            if !self.vlpis.get(lpi).mapped() {
                return;
            }
            // If only its collection is unmapped, it stays where it was. As
            // in `route`, the entry decides under the vCPU's lock.
            let outcome = redist.with(|state, vcpu| {
                self.count_stray();
                // Either the entry is found changed below, or whoever changes
                // it finds that it has to look everywhere: see
                // `with_redists_of`.
                fence(Ordering::SeqCst);
                let entry = self.vlpis.get(lpi);
                if self.target(entry).is_some() {
                    return None;
                }
                Some(entry.mapped() && state.raise(vcpu, table, lpi).kick)
            });
            match outcome {
                Some(None) => continue,
                Some(Some(true)) => redist.kick(),
                _ => {}
            }
            return;
        }
    }

    /// Raise an LPI on a vCPU that it need not be mapped to. False if that
    /// vCPU ignores LPIs.
    pub(super) fn raise_on(&self, id: VcpuId, lpi: Lpi) -> bool {
        let (Some(redist), Some(table)) = (self.redist(id), self.properties.get()) else {
            return false;
        };
        let kick = redist.with(|state, vcpu| {
            self.count_stray();
            state.raise(vcpu, table, lpi).kick
        });
        if kick == Some(true) {
            redist.kick();
        }
        kick.is_some()
    }

    /// Raise an LPI that MOVALL found in a list register on the vCPU that was
    /// to get it. False if that vCPU ignores LPIs, or if the LPI was moved or
    /// unmapped since.
    fn bequeath(&self, heir: Heir, lpi: Lpi) -> bool {
        let (Some(redist), Some(table)) = (self.redist(heir.vcpu), self.properties.get()) else {
            return false;
        };
        let kick = redist.with(|state, vcpu| {
            // Who has changed its mapping since is found out below, or looks
            // for it on every vCPU, and finds it here.
            self.count_stray();
            fence(Ordering::SeqCst);
            heir.holds(self.vlpis.get(lpi)).then(|| state.raise(vcpu, table, lpi).kick)
        });
        let kick = kick.flatten();
        if kick == Some(true) {
            redist.kick();
        }
        kick.is_some()
    }

    /// Raise what was taken away from `redist`, wherever it belongs now.
    pub(super) fn replace(&self, redist: &Redist<E>, displaced: &Displaced) {
        for (lpi, heir) in displaced.iter() {
            if !heir.is_some_and(|heir| self.bequeath(heir, lpi)) {
                self.restore(redist, lpi);
            }
        }
        if displaced.kick {
            redist.kick();
        }
    }

    /// The guest is done with the LPI in `slot` of the current vCPU `id`, and
    /// the list register is free. vGIC lock held.
    pub fn slot_done(&self, held: &mut E::Held, id: VcpuId, slot: u8) {
        let Some(redist) = self.redist(id) else { return };
        let note = self.watch.load(Ordering::Relaxed);
        redist.with_held(held, |state, vcpu| state.done(vcpu, slot, note));
    }

    /// The current vCPU `id` asked for it with `Vcpu::request_fill`, or a list
    /// register is free for which this said that LPIs wait; it is about to
    /// enter the guest. True if LPIs wait until a list register is free.
    /// vGIC lock held.
    pub fn fill(&self, held: &mut E::Held, id: VcpuId) -> bool {
        let (Some(redist), Some(table)) = (self.redist(id), self.properties.get()) else {
            return false;
        };
        redist.with_held(held, |state, vcpu| state.fill(vcpu, table)).unwrap_or(false)
    }

    /// Another interrupt of the current vCPU `id` wants a list register, and
    /// none is free: take one from an LPI that is less urgent than `priority`.
    /// vGIC lock held.
    pub fn yield_slot(&self, held: &mut E::Held, id: VcpuId, priority: u8) -> Option<u8> {
        self.redist(id)?.with_held(held, |state, vcpu| state.yield_slot(vcpu, priority))?
    }

    /// Does an LPI of vCPU `id` wait for a list register that is more urgent
    /// than `limit`, from 0 to 256? vGIC lock held.
    pub fn is_urgent(&self, held: &mut E::Held, id: VcpuId, limit: u32) -> bool {
        let (Some(redist), Some(table)) = (self.redist(id), self.properties.get()) else {
            return false;
        };
        redist.with_held(held, |state, _| state.any_urgent(table, limit)).unwrap_or(false)
    }

    /// vCPU `id` goes off, or is about to be switched on: its LPIs leave the
    /// list registers. vGIC lock held.
    pub fn vcpu_reset(&self, held: &mut E::Held, id: VcpuId) {
        let (Some(redist), Some(table)) = (self.redist(id), self.properties.get()) else { return };
        redist.with_held(held, |state, vcpu| state.reset(vcpu, table));
        self.look_again();
    }

    /// The current vCPU `id` asked for it with `Vcpu::request_sync`, and is
    /// about to enter the guest, or to be descheduled. Interrupts off, no
    /// lock held. True: call [`Self::unmask_taken`] as well.
    pub fn sync(&self, id: VcpuId) -> bool {
        let (Some(redist), Some(table)) = (self.redist(id), self.properties.get()) else {
            return false;
        };
        let mut displaced = Displaced::new();
        let synced = redist.with(|state, vcpu| {
            state.sync(vcpu, table, &mut displaced);
            if !displaced.is_empty() {
                redist.set_out();
            }
            state.any_taken()
        });
        let Some(taken) = synced else { return false };
        if !displaced.is_empty() {
            self.replace(redist, &displaced);
            redist.arrive();
        }
        if displaced.dropped {
            self.look_again();
        }
        taken
    }
}
