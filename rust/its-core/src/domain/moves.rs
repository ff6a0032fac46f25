// SPDX-License-Identifier: GPL-2.0-only
//! Collections, and what changes where an LPI is pending: INV, CLEAR, MOVALL,
//! MAPC.

use its_arch::{CollectionId, Lpi, VcpuId};

use crate::domain::jobs::{Drain, Job, Leaving};
use crate::domain::{COLLECTIONS, Domain, NEVER_MAPPED, UNMAPPED, mapped_to};
use crate::env::{Env, Lock, Once};
use crate::redist::{Displaced, Heir, LpiState, Pending};
use crate::sync::{AtomicU16, Ordering};
use crate::vlpi::Entry;

/// Is no LPI pending on a vCPU?
fn is_idle<E: Env>(state: &LpiState<E>) -> bool {
    state.in_slots() == 0 && state.waiting() == (0, 0)
}

impl<E: Env> Domain<E> {
    /// Re-read the property of `lpi` (INV, GICR_INVLPIR). One that is not
    /// mapped, and pending since GICR_PENDBASER, waits for that.
    pub(crate) fn invalidate(&self, lpi: Lpi) {
        let Some(table) = self.properties.get() else { return };
        let entry = self.vlpis.get(lpi);
        if !entry.mapped() {
            return;
        }
        self.with_redists_of(entry, |state, vcpu, displaced| {
            state.refresh(vcpu, table, lpi, displaced);
        });
    }

    /// Run `work` on every vCPU on which an LPI of this entry may be pending,
    /// and raise what it displaces.
    fn with_redists_of(
        &self,
        entry: Entry,
        work: impl Fn(&mut LpiState<E>, &E::Vcpu, &mut Displaced),
    ) {
        let strays = self.strays.load(Ordering::Relaxed);
        let draining = self.is_draining();
        let anywhere = draining || self.has_strays();
        let target = self.target(entry);
        let mut nothing_pending = true;
        for (id, redist) in (0..).map(VcpuId::new).zip(self.redists.iter()) {
            if anywhere || target == Some(id) || redist.is_leaving() {
                let mut displaced = Displaced::new();
                let idle = redist.with(|state, vcpu| {
                    work(state, vcpu, &mut displaced);
                    anywhere && is_idle(state)
                });
                nothing_pending &= idle.unwrap_or(true);
                self.replace(redist, &displaced);
            }
        }
        if anywhere && !draining && nothing_pending {
            // There are no strays, but for those counted since. What was
            // displaced above is where it belongs, or was counted.
            self.settled.fetch_max(strays, Ordering::Relaxed);
        }
    }

    /// An LPI is pending, or about to be, on a vCPU that it may not be mapped
    /// to. That vCPU's vGIC lock is held: whoever looks there later finds the
    /// LPI, and whoever has looked before finds that the count has changed.
    pub(super) fn count_stray(&self) {
        self.strays.fetch_add(1, Ordering::Relaxed);
    }

    /// May there be strays?
    pub(super) fn has_strays(&self) -> bool {
        self.strays.load(Ordering::Relaxed) != self.settled.load(Ordering::Relaxed)
    }

    /// Take `lpi` away from where `entry` had it.
    pub(super) fn take(&self, entry: Entry, lpi: Lpi, pending: Pending) {
        self.with_redists_of(entry, |state, vcpu, displaced| {
            state.take(vcpu, lpi, pending, displaced);
        });
    }

    /// Make `lpi` not pending (CLEAR).
    pub(crate) fn clear(&self, lpi: Lpi) {
        self.take(self.vlpis.get(lpi), lpi, Pending::Drop);
    }

    /// All pending LPIs of one vCPU go to another (MOVALL). Their mappings
    /// stay.
    pub(crate) fn move_all(&self, from: VcpuId, to: VcpuId) -> Option<Drain> {
        let redist = self.redist(to)?;
        if from == to || redist.with(|_, _| ()).is_none() {
            return None;
        }
        self.redirect(from, to, |_| true);
        self.drain(from, Leaving::All(to))
    }

    /// What is on its way to `from`, but in a list register elsewhere yet, goes
    /// to another vCPU if `wanted` holds for its entry.
    fn redirect(&self, from: VcpuId, to: VcpuId, wanted: impl Fn(Entry) -> bool) {
        for redist in self.redists.iter().filter(|redist| redist.is_leaving()) {
            redist.with(|state, _| {
                state.redirect(|lpi, heir| {
                    let entry = self.vlpis.get(lpi);
                    let bound_for = heir.map(|heir| heir.vcpu).or_else(|| self.target(entry));
                    (bound_for == Some(from) && wanted(entry)).then_some(Heir::new(to, entry))
                });
            });
        }
    }

    /// The number of a collection among those of all virtual ITSes.
    pub(super) fn collection_index(&self, vits: u16, collection: CollectionId) -> Option<u16> {
        if collection.get() >= COLLECTIONS {
            return None;
        }
        vits.checked_mul(COLLECTIONS)?.checked_add(collection.get())
    }

    pub(super) fn collection_cell(
        &self,
        vits: u16,
        collection: CollectionId,
    ) -> Option<&AtomicU16> {
        let index = self.collection_index(vits, collection)?;
        self.collections.get(usize::from(index))
    }

    /// The vCPU of a collection, if it is mapped.
    pub(crate) fn collection(&self, vits: u16, collection: CollectionId) -> Option<VcpuId> {
        mapped_to(self.collection_cell(vits, collection)?.load(Ordering::Acquire))
    }

    /// Map a collection to a vCPU, or to none; its pending LPIs go along
    /// (MAPC). LPIs of an unmapped collection that were pending stay so on
    /// the vCPU that has them, until the collection is mapped again. What
    /// takes more than one step is left over.
    pub(crate) fn map_collection(
        &self,
        vits: u16,
        collection: CollectionId,
        vcpu: Option<VcpuId>,
    ) -> Option<Job<E>> {
        let _devices = self.devices.lock();
        let index = self.collection_index(vits, collection)?;
        let cell = self.collection_cell(vits, collection)?;
        let old = cell.load(Ordering::Acquire);
        let Some(vcpu) = vcpu else {
            if mapped_to(old).is_some() {
                self.unmap_collection(cell, old);
            }
            return None;
        };
        let home = VcpuId::new(old & !UNMAPPED);
        let drain = if old == NEVER_MAPPED || home == vcpu {
            None
        } else {
            self.redirect(home, vcpu, |entry| entry.mapped() && entry.collection() == index);
            self.drain(home, Leaving::Collection(index))
        };
        cell.store(vcpu.get(), Ordering::Release);
        drain.map(Job::Drain)
    }

    /// LPIs of the collection stay where they are pending.
    fn unmap_collection(&self, cell: &AtomicU16, old: u16) {
        self.begin_looking_everywhere();
        cell.store(old | UNMAPPED, Ordering::Release);
        if let Some(redist) = self.redist(VcpuId::new(old)) {
            redist.with(|state, _| {
                if !is_idle(state) {
                    self.count_stray();
                }
            });
        }
        self.end_looking_everywhere();
    }

    /// The guest takes away its collection table: none of the collections of
    /// this virtual ITS is mapped any more.
    pub(crate) fn unmap_all_collections(&self, vits: u16) {
        for collection in 0..COLLECTIONS {
            // Unmapping leaves nothing over.
            let _none = self.map_collection(vits, CollectionId::new(collection), None);
        }
    }
}
