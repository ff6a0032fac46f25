// SPDX-License-Identifier: GPL-2.0-only
//! Collections, and what changes where an LPI is pending: INV, CLEAR, MOVALL,
//! MAPC.

use core::sync::atomic::{AtomicU16, Ordering, fence};

use its_arch::{CollectionId, Lpi, VcpuId};

use crate::domain::{COLLECTIONS, Domain, UNMAPPED};
use crate::env::{Env, Lock, Once};
use crate::redist::{Displaced, Pending, Redist};
use crate::vlpi::Entry;

/// How often a vCPU is looked through for LPIs to move. One that slips from a
/// slot into the bitmaps at the wrong moment each time is delivered where it
/// is.
const DRAIN_ROUNDS: usize = 4;

impl<E: Env> Domain<E> {
    /// Re-read the property of `lpi` (INV, GICR_INVLPIR).
    pub(crate) fn invalidate(&self, lpi: Lpi) {
        let Some(table) = self.properties.get() else { return };
        self.with_redists_of(self.vlpis.get(lpi), |redist| {
            let mut displaced = Displaced::new();
            redist.with(|state, vcpu| state.refresh(vcpu, table, lpi, &mut displaced));
            self.replace(redist, &displaced);
        });
    }

    /// Re-read the properties of all LPIs of a vCPU (INVALL, GICR_INVALLR).
    /// The work is in proportion to the pending LPIs that are disabled.
    pub(crate) fn invalidate_all(&self, id: VcpuId) {
        let (Some(redist), Some(table)) = (self.redist(id), self.properties.get()) else { return };
        let mut displaced = Displaced::new();
        redist.with(|state, vcpu| state.refresh_slots(vcpu, table, &mut displaced));
        self.replace(redist, &displaced);
        let mut from = Some(0);
        while let Some(at) = from {
            let mut displaced = Displaced::new();
            from = redist
                .with(|state, _| {
                    state.take_waiting(at, &mut displaced, true, |lpi| {
                        table.get(lpi).enabled() && self.vlpis.get(lpi).mapped()
                    })
                })
                .flatten();
            self.replace(redist, &displaced);
        }
    }

    /// Take the LPIs for which `wanted` holds away from a vCPU, and hand each
    /// to `to`. `heir` gets those that are in a list register, once they can
    /// be had.
    pub(super) fn drain(
        &self,
        id: VcpuId,
        heir: Option<VcpuId>,
        wanted: impl Fn(Lpi) -> bool,
        to: impl Fn(Lpi),
    ) {
        let (Some(redist), Some(table)) = (self.redist(id), self.properties.get()) else { return };
        for round in 1..=DRAIN_ROUNDS {
            let mut from = Some(0);
            while let Some(at) = from {
                let mut displaced = Displaced::new();
                from = redist
                    .with(|state, _| state.take_waiting(at, &mut displaced, false, &wanted))
                    .flatten();
                displaced.iter().for_each(|(lpi, _)| to(lpi));
            }
            // An LPI may have got from a slot into the bitmaps meanwhile.
            let mut displaced = Displaced::new();
            let drained = redist.with(|state, vcpu| {
                let last = round == DRAIN_ROUNDS;
                state.drain_slots(vcpu, table, heir, last, &mut displaced, &wanted)
            });
            displaced.iter().for_each(|(lpi, _)| to(lpi));
            if displaced.kick {
                redist.kick();
            }
            if drained != Some(false) {
                return;
            }
        }
    }

    /// Call `each` with every redistributor on which an LPI of this entry may
    /// be pending.
    pub(super) fn with_redists_of(&self, entry: Entry, each: impl Fn(&Redist<E>)) {
        fence(Ordering::SeqCst);
        let strays = self.strays.load(Ordering::Relaxed);
        let target = self.target(entry).map(|id| usize::from(id.get()));
        for (index, redist) in self.redists.iter().enumerate() {
            if strays || target == Some(index) || redist.is_leaving() {
                each(redist);
            }
        }
    }

    /// Take `lpi` away from where `entry` had it.
    pub(super) fn take(&self, entry: Entry, lpi: Lpi, pending: Pending) {
        let Some(table) = self.properties.get() else { return };
        self.with_redists_of(entry, |redist| {
            let mut displaced = Displaced::new();
            redist.with(|state, vcpu| state.take(vcpu, table, lpi, pending, &mut displaced));
            self.replace(redist, &displaced);
        });
    }

    /// Make `lpi` not pending (CLEAR).
    pub(crate) fn clear(&self, lpi: Lpi) {
        self.take(self.vlpis.get(lpi), lpi, Pending::Drop);
    }

    /// All pending LPIs of one vCPU go to another (MOVALL). Their mappings
    /// stay.
    pub(crate) fn move_all(&self, from: VcpuId, to: VcpuId) {
        let Some(redist) = self.redist(to) else { return };
        if from == to || redist.with(|_, _| ()).is_none() {
            return;
        }
        self.strays.store(true, Ordering::Relaxed);
        self.drain(
            from,
            Some(to),
            |_| true,
            |lpi| {
                self.raise_on(to, lpi);
            },
        );
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
        let vcpu = self.collection_cell(vits, collection)?.load(Ordering::Acquire);
        if vcpu == UNMAPPED { None } else { Some(VcpuId::new(vcpu)) }
    }

    /// Map a collection to a vCPU, or to none; its pending LPIs go along
    /// (MAPC). LPIs of an unmapped collection that were pending stay so on
    /// the vCPU that has them.
    pub(crate) fn map_collection(&self, vits: u16, collection: CollectionId, vcpu: Option<VcpuId>) {
        let _devices = self.devices.lock();
        let (Some(index), Some(cell)) =
            (self.collection_index(vits, collection), self.collection_cell(vits, collection))
        else {
            return;
        };
        if vcpu.is_none() && cell.load(Ordering::Acquire) != UNMAPPED {
            self.strays.store(true, Ordering::Relaxed);
        }
        let old = cell.swap(vcpu.map_or(UNMAPPED, VcpuId::get), Ordering::AcqRel);
        let Some(vcpu) = vcpu else { return };
        let is_member = |lpi| {
            let entry = self.vlpis.get(lpi);
            entry.mapped() && entry.collection() == index
        };
        let route = |lpi| {
            self.route(lpi, false);
        };
        if old == UNMAPPED {
            // Its LPIs may be pending since before (GICR_PENDBASER).
            self.invalidate_all(vcpu);
        } else if vcpu.get() != old {
            self.drain(VcpuId::new(old), None, is_member, route);
        }
    }

    /// The guest takes away its collection table: none of the collections of
    /// this virtual ITS is mapped any more.
    pub(crate) fn unmap_all_collections(&self, vits: u16) {
        for collection in 0..COLLECTIONS {
            self.map_collection(vits, CollectionId::new(collection), None);
        }
    }
}
