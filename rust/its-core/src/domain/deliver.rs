// SPDX-License-Identifier: GPL-2.0-only
//! An LPI on its way to its vCPU, and the vGIC's calls.

use its_arch::{Lpi, VcpuId};

use crate::domain::{COLLECTIONS, Domain, mapped_to};
use crate::env::{Env, Once, Vcpu, VgicLock};
use crate::redist::{Displaced, Redist};
use crate::sync::{Ordering, fence};
use crate::vits::Vits;
use crate::vlpi::Entry;

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
    /// was of no use, or one too many. IRQ context, no lock held.
    #[inline]
    pub fn deliver(&self, lpi: Lpi) -> bool {
        match self.route_as::<true>(lpi) {
            Routed::Raised => false,
            Routed::Storm => true,
            Routed::Nowhere | Routed::Ignored => {
                self.unrouted.fetch_add(1, Ordering::Relaxed);
                self.unmapped()
            }
        }
    }

    /// Make `lpi` pending on the vCPU that it is mapped to. `fresh` if it
    /// fired just now, not if it was pending before.
    pub(super) fn route(&self, lpi: Lpi, fresh: bool) -> Routed {
        if fresh { self.route_as::<true>(lpi) } else { self.route_as::<false>(lpi) }
    }

    /// The same, in two versions: this is what an interrupt costs.
    #[inline]
    fn route_as<const FRESH: bool>(&self, lpi: Lpi) -> Routed {
        let Some(cell) = self.vlpis.cell(lpi) else { return Routed::Nowhere };
        loop {
            let entry = cell.load();
            let collection = self.collections.get(usize::from(entry.collection()));
            let (true, Some(collection)) = (entry.mapped(), collection) else {
                return Routed::Nowhere;
            };
            let target = collection.load(Ordering::Acquire);
            let Some(id) = mapped_to(target) else { return Routed::Nowhere };
            if FRESH && !self.translates(entry) {
                return Routed::Ignored;
            }
            let lock = self.redist(id).and_then(|redist| redist.lock.get());
            let (Some(lock), Some(table)) = (lock, self.properties.get()) else {
                return Routed::Ignored;
            };
            let (kick, storm) = {
                let mut guard = lock.lock();
                // The guest has not enabled LPIs on that vCPU: the
                // architecture ignores them (GICR_CTLR.EnableLPIs).
                let Some(state) = guard.as_mut() else { return Routed::Ignored };
                // Whoever moves or unmaps an LPI changes its entry first, then
                // looks for it under the vCPU's lock. So once that lock is
                // ours, either the entry has changed, or they will find what
                // we do.
                if cell.load() != entry || collection.load(Ordering::Acquire) != target {
                    continue;
                }
                let raised = state.raise(lock.vcpu(), table, lpi);
                (raised.kick, FRESH && state.is_too_much(raised.wasted, &self.rate))
            };
            if kick {
                lock.vcpu().kick();
            }
            return if storm { Routed::Storm } else { Routed::Raised };
        }
    }

    /// Raise an LPI that was taken away from `redist` where it belongs now.
    pub(super) fn restore(&self, redist: &Redist<E>, lpi: Lpi) {
        let Some(table) = self.properties.get() else { return };
        while self.route(lpi, false) == Routed::Nowhere {
            if !self.vlpis.get(lpi).mapped() {
                return;
            }
            self.strays.store(true, Ordering::Relaxed);
            // Either the entry is found changed below, or whoever changes it
            // finds that it has to look everywhere: see `with_redists_of`.
            fence(Ordering::SeqCst);
            // If only its collection is unmapped, it stays where it was. As
            // in `route`, the entry decides under the vCPU's lock.
            let outcome = redist.with(|state, vcpu| {
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
        let kick = redist.with(|state, vcpu| state.raise(vcpu, table, lpi).kick);
        if kick == Some(true) {
            redist.kick();
        }
        kick.is_some()
    }

    /// Raise an LPI that MOVALL found in a list register on the vCPU that was
    /// to get it. False if that vCPU ignores LPIs.
    fn bequeath(&self, heir: VcpuId, lpi: Lpi) -> bool {
        let (Some(redist), Some(table)) = (self.redist(heir), self.properties.get()) else {
            return false;
        };
        let kick = redist.with(|state, vcpu| {
            // Being in a list register, it was mapped. Who has unmapped it
            // since looks for it on every vCPU, because of MOVALL: here as
            // well, before this or after it.
            self.vlpis.get(lpi).mapped() && state.raise(vcpu, table, lpi).kick
        });
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

    /// The queue slot of vCPU `id` that carries `lpi`. vGIC lock held.
    pub fn slot_of(&self, held: &mut E::Held, id: VcpuId, lpi: Lpi) -> Option<u8> {
        self.redist(id)?.with_held(held, |state, _| state.slot_of(lpi))?
    }

    /// The guest is done with the LPI in `slot` of the current vCPU `id`.
    /// vGIC lock held.
    pub fn slot_done(&self, held: &mut E::Held, id: VcpuId, slot: u8) {
        let (Some(redist), Some(table)) = (self.redist(id), self.properties.get()) else { return };
        let note = self.watch.load(Ordering::Relaxed);
        redist.with_held(held, |state, vcpu| state.done(vcpu, table, slot, note));
    }

    /// vCPU `id` is switched on and its queues have been emptied. vGIC lock
    /// held.
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
        let synced = redist.with(|state, vcpu| (state.sync(vcpu, table), state.any_taken()));
        let Some((displaced, taken)) = synced else { return false };
        self.replace(redist, &displaced);
        if displaced.dropped {
            self.look_again();
        }
        taken
    }
}
