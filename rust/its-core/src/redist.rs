// SPDX-License-Identifier: GPL-2.0-only
//! The LPI side of one vCPU's redistributor: which of its LPIs are pending,
//! and which of those travel through the vGIC's queues.
//!
//! A pending LPI of a vCPU is in exactly one of three places:
//!
//! * a queue slot: in Xen's queues, or in a list register;
//! * the `ready` bitmap: enabled when last looked at, no slot was free;
//! * the `dormant` bitmap: disabled when last looked at.
//!
//! An LPI in a slot may be in `dormant` as well: it fired again and is
//! disabled by now.

use its_arch::{IdBits, Lpi, VcpuId};

use crate::Error;
use crate::bitmap::Bitmap;
use crate::env::{Env, Once, SLOTS, Vcpu, VgicLock};
use crate::rate::Rate;
use crate::slots::{SlotSet, Slots};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::vlpi::PropertyTable;

/// Of so many LPIs that wait for a slot the most urgent one is found. If more
/// wait, the others have their turn later.
const LOOK_AHEAD: u32 = 64;
/// As many interrupts in a row that found their LPI pending already are a
/// storm. A guest that is merely late, or was not scheduled for a while, sees
/// fewer from devices that wait for their driver.
pub(crate) const STORM: u32 = 16;

/// How often each thing happened on one vCPU. `queued` is `done`, `evicted`
/// and the slots in use together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Interrupts of devices, and of INT commands.
    pub raised: u64,
    /// LPIs that entered a slot.
    pub queued: u64,
    /// LPIs that fired again while in a slot.
    pub merged: u64,
    /// LPIs that fired while disabled.
    pub disabled: u64,
    /// LPIs that had to wait for a slot.
    pub waited: u64,
    /// LPIs that the guest has finished with.
    pub done: u64,
    /// LPIs taken back out of a slot: moved, cleared, disabled, or for one
    /// that is more urgent.
    pub evicted: u64,
}

/// LPIs that have to be raised anew, once the vGIC lock is released.
pub(crate) struct Displaced {
    /// Room for what was in all slots twice: before the vCPU was switched on,
    /// and since.
    lpis: [Option<(Lpi, Option<VcpuId>)>; 2 * SLOTS],
    used: usize,
    /// The vCPU has to leave the guest: an LPI of it is in a list register.
    pub(crate) kick: bool,
    /// A slot was emptied for good.
    pub(crate) dropped: bool,
}

impl Displaced {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self { lpis: [None; 2 * SLOTS], used: 0, kick: false, dropped: false }
    }

    /// An LPI that is in two places is pending only once.
    fn push(&mut self, lpi: Lpi, heir: Option<VcpuId>) {
        if self.iter().any(|(known, _)| known == lpi) {
            return;
        }
        if let Some(place) = self.lpis.get_mut(self.used) {
            *place = Some((lpi, heir));
            self.used = self.used.saturating_add(1);
        }
    }

    /// The LPIs, each with the vCPU that gets it wherever it is mapped to
    /// (MOVALL), if there is one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Lpi, Option<VcpuId>)> + '_ {
        self.lpis.iter().take(self.used).flatten().copied()
    }
}

/// What came of raising an LPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Raised {
    /// The vCPU has to be told.
    pub(crate) kick: bool,
    /// It was pending already.
    pub(crate) wasted: bool,
}

/// What happens to the pending state of an LPI that is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    /// It is raised anew wherever the LPI belongs by then.
    Keep,
    /// It is forgotten.
    Drop,
}

/// The LPIs of one vCPU. Under its vGIC lock.
pub struct LpiState<E: Env> {
    slots: Slots,
    /// Slots to be emptied before the vCPU next enters the guest.
    evict: SlotSet,
    /// Of those: the ones whose pending state is to be forgotten.
    forget: SlotSet,
    /// Of those: who gets the LPI, other than the vCPU that it is mapped to.
    heirs: [Option<VcpuId>; SLOTS],
    /// Dormant LPIs that were to leave the vCPU when it was switched on.
    leaving: [Option<(Lpi, Option<VcpuId>)>; SLOTS],
    ready: Bitmap<E>,
    dormant: Bitmap<E>,
    /// Where to begin to look for the next LPI in `ready`.
    cursor: u32,
    /// How many commands are taking LPIs away from the vCPU.
    drains: u32,
    /// Where GICR_INVALLR goes on in `dormant`, while it is at work.
    pub(crate) refresh: Option<u32>,
    meter: Meter,
    /// What the guest has taken since [`Self::taken`] was last asked, by the
    /// slot that it was in, if somebody waits for that.
    taken: [Option<Lpi>; SLOTS],
    any_taken: bool,
    /// `raised` goes ahead: it includes what is left of [`Self::meter`].
    counters: Counters,
}

/// What is counted at each interrupt, in one word: its low half is how many in
/// a row found their LPI pending already, the high half how many may come
/// before the domain's rate has to be asked again.
#[derive(Clone, Copy, Debug, Default)]
struct Meter(u64);

impl Meter {
    /// One in the high half.
    const ONE: u64 = 1 << 32;

    fn left(self) -> u64 {
        self.0 / Self::ONE
    }

    fn refill(&mut self, count: u32) {
        self.0 = (self.0 % Self::ONE) | u64::from(count).wrapping_mul(Self::ONE);
    }

    /// An interrupt that is neither wasted nor the first that is not paid for;
    /// false and nothing done if it is.
    #[inline]
    fn count(&mut self, wasted: bool) -> bool {
        if wasted || self.left() == 0 {
            return false;
        }
        self.0 = self.0.wrapping_sub(Self::ONE) & !(Self::ONE - 1);
        true
    }

    /// Any interrupt that has been paid for. True: it is a storm.
    fn count_slowly(&mut self, wasted: bool) -> bool {
        let next = self.0.wrapping_sub(Self::ONE);
        let row = if wasted { (next % Self::ONE).wrapping_add(1) } else { 0 };
        // If masking does not help, it is tried again after as many.
        let storm = row == STORM.into();
        self.0 = (next & !(Self::ONE - 1)) | if storm { 0 } else { row };
        storm
    }
}

impl<E: Env> LpiState<E> {
    /// No LPI is pending. Trap context.
    pub(crate) fn new(id_bits: IdBits) -> Result<Self, Error> {
        let lpis = u32::try_from(id_bits.lpis()).map_err(|_| Error::OutOfRange)?;
        Ok(Self {
            slots: Slots::new(),
            evict: SlotSet::default(),
            forget: SlotSet::default(),
            heirs: [None; SLOTS],
            leaving: [None; SLOTS],
            ready: Bitmap::new(lpis)?,
            dormant: Bitmap::new(lpis)?,
            cursor: 0,
            drains: 0,
            refresh: None,
            meter: Meter::default(),
            taken: [None; SLOTS],
            any_taken: false,
            counters: Counters::default(),
        })
    }

    /// The slot that carries `lpi`.
    #[inline]
    pub fn slot_of(&self, lpi: Lpi) -> Option<u8> {
        self.slots.find(lpi)
    }

    fn release(&mut self, slot: u8) -> Option<Lpi> {
        self.unmark(slot);
        self.slots.take(slot)
    }

    /// The slot is not to be emptied after all.
    fn unmark(&mut self, slot: u8) {
        self.evict.remove(slot);
        self.forget.remove(slot);
    }

    /// How many LPIs wait for a slot, and how many are disabled.
    pub fn waiting(&self) -> (u32, u32) {
        (self.ready.count(), self.dormant.count())
    }

    /// How many slots are in use.
    pub fn in_slots(&self) -> usize {
        self.slots.len()
    }

    fn enqueue(&mut self, vcpu: &E::Vcpu, slot: u8, lpi: Lpi, priority: u8) {
        self.slots.put(slot, lpi);
        self.counters.queued = self.counters.queued.wrapping_add(1);
        vcpu.queue(slot, lpi, priority);
    }

    /// A device, or an INT command, has raised an LPI, `wasted` as
    /// [`Self::raise`] says. True: it is one too many, as others of its kind
    /// came before, or as the domain has had its share.
    #[inline]
    pub(crate) fn is_too_much(&mut self, wasted: bool, rate: &Rate<E>) -> bool {
        !self.meter.count(wasted) && self.settle(wasted, rate)
    }

    /// The same where [`Meter::count`] does not suffice.
    #[cold]
    fn settle(&mut self, wasted: bool, rate: &Rate<E>) -> bool {
        let paid = self.meter.left() != 0 || self.pay(rate);
        let storm = self.meter.count_slowly(wasted);
        storm || !paid
    }

    /// Get the right to some interrupts; to this one in any case. False if
    /// there is none.
    fn pay(&mut self, rate: &Rate<E>) -> bool {
        let granted = rate.take();
        self.meter.refill(granted.max(1));
        self.counters.raised = self.counters.raised.wrapping_add(granted.max(1).into());
        granted != 0
    }

    /// How often each thing happened.
    pub(crate) fn counters(&self) -> Counters {
        let raised = self.counters.raised.wrapping_sub(self.meter.left());
        Counters { raised, ..self.counters }
    }

    /// Would it be wasted to raise `lpi` now?
    pub(crate) fn would_waste(&self, lpi: Lpi) -> bool {
        self.slot_of(lpi).is_some()
            || self.ready.contains(lpi.index()) != Some(false)
            || self.dormant.contains(lpi.index()) != Some(false)
    }

    /// What the guest has taken since this was last asked.
    pub(crate) fn taken(&mut self) -> [Option<Lpi>; SLOTS] {
        self.any_taken = false;
        core::mem::take(&mut self.taken)
    }

    /// Has [`Self::taken`] something to tell?
    pub(crate) fn any_taken(&self) -> bool {
        self.any_taken
    }

    /// An LPI of this vCPU is pending: get it on its way.
    pub(crate) fn raise(&mut self, vcpu: &E::Vcpu, table: &PropertyTable<E>, lpi: Lpi) -> Raised {
        let property = table.get(lpi);
        if !property.enabled() {
            self.counters.disabled = self.counters.disabled.wrapping_add(1);
            // It may have fired before, while it was enabled.
            let waited = self.ready.clear(lpi.index());
            let first = self.dormant.set(lpi.index());
            return Raised { kick: false, wasted: waited || !first };
        }
        // It may have fired before, while it was disabled.
        self.dormant.clear(lpi.index());
        if let Some(slot) = self.slot_of(lpi) {
            // If it was about to be taken away, it has come back.
            self.unmark(slot);
            self.counters.merged = self.counters.merged.wrapping_add(1);
            return Raised { kick: true, wasted: vcpu.again(slot) };
        }
        self.place(vcpu, table, lpi, property.priority())
    }

    /// Give an enabled LPI that is in no slot a slot, or let it wait.
    fn place(
        &mut self,
        vcpu: &E::Vcpu,
        table: &PropertyTable<E>,
        lpi: Lpi,
        priority: u8,
    ) -> Raised {
        if let Some(slot) = self.slots.free() {
            self.ready.clear(lpi.index());
            self.enqueue(vcpu, slot, lpi, priority);
            return Raised { kick: true, wasted: false };
        }
        self.counters.waited = self.counters.waited.wrapping_add(1);
        // All slots are taken: the least urgent LPI that has not reached a
        // list register steps back, if it is less urgent than this one.
        let mut tried = if self.drains == 0 { self.evict } else { SlotSet::ALL };
        for _ in 0..SLOTS {
            let victim = self
                .slots
                .iter()
                .filter(|(slot, _)| !tried.contains(*slot))
                .map(|(slot, found)| (slot, table.get(found).priority()))
                .filter(|(_, found)| *found > priority)
                .max_by_key(|(_, found)| *found);
            let Some((slot, _)) = victim else { break };
            tried.insert(slot);
            if vcpu.retract(slot) {
                if let Some(victim) = self.release(slot) {
                    self.counters.evicted = self.counters.evicted.wrapping_add(1);
                    self.ready.set(victim.index());
                }
                self.ready.clear(lpi.index());
                self.enqueue(vcpu, slot, lpi, priority);
                return Raised { kick: true, wasted: false };
            }
        }
        Raised { kick: false, wasted: !self.ready.set(lpi.index()) }
    }

    /// Fill free slots with the most urgent LPIs that wait. True if the vCPU
    /// has to be told.
    #[inline]
    fn refill(&mut self, vcpu: &E::Vcpu, table: &PropertyTable<E>) -> bool {
        self.ready.count() != 0 && self.refill_from_ready(vcpu, table)
    }

    #[inline(never)]
    fn refill_from_ready(&mut self, vcpu: &E::Vcpu, table: &PropertyTable<E>) -> bool {
        let mut tell = false;
        while self.ready.count() != 0 {
            let Some(slot) = self.slots.free() else { break };
            tell = true;
            let Some((lpi, priority)) = self.most_urgent(table) else {
                // All that it looked at is disabled by now. It goes on before
                // the vCPU enters the guest, with other work in between.
                vcpu.request_sync();
                break;
            };
            self.ready.clear(lpi.index());
            self.enqueue(vcpu, slot, lpi, priority);
        }
        tell
    }

    /// The enabled LPI of the lowest priority value among those that wait for
    /// a slot; among equals each gets its turn. Those that were disabled
    /// meanwhile become dormant. Looks at [`LOOK_AHEAD`] at most, as this
    /// happens with interrupts off; `None` if none of those is enabled.
    fn most_urgent(&mut self, table: &PropertyTable<E>) -> Option<(Lpi, u8)> {
        let mut best: Option<(Lpi, u8)> = None;
        // From the cursor to the end, then from the start to the cursor.
        let (mut from, mut end) = (self.cursor, u32::MAX);
        for _ in 0..LOOK_AHEAD {
            let Some(index) = self.ready.next(from).filter(|index| *index < end) else {
                if end != u32::MAX {
                    break;
                }
                (from, end) = (0, self.cursor);
                continue;
            };
            from = index.saturating_add(1);
            let Some(lpi) = Lpi::from_index(index) else { continue };
            let property = table.get(lpi);
            if !property.enabled() {
                self.ready.clear(index);
                self.dormant.set(index);
            } else if best.is_none_or(|(_, priority)| property.priority() < priority) {
                best = Some((lpi, property.priority()));
                if property.priority() == 0 {
                    break;
                }
            }
        }
        if let Some((lpi, _)) = best {
            self.cursor = lpi.index().saturating_add(1);
        }
        best
    }

    /// The guest is done with the LPI in `slot`, and Xen took it off its
    /// queues. `note`: somebody waits for that, so it is noted for
    /// [`Self::taken`].
    pub(crate) fn done(&mut self, vcpu: &E::Vcpu, table: &PropertyTable<E>, slot: u8, note: bool) {
        // In a set of slots, one that does not exist would be another.
        if usize::from(slot) >= SLOTS {
            return;
        }
        if let Some(lpi) = self.release(slot) {
            self.counters.done = self.counters.done.wrapping_add(1);
            if note && let Some(place) = self.taken.get_mut(usize::from(slot)) {
                *place = Some(lpi);
                self.any_taken = true;
                vcpu.request_sync();
            }
        }
        self.refill(vcpu, table);
    }

    /// Take `lpi` away from this vCPU. What has to be raised anew goes to
    /// `displaced`.
    pub(crate) fn take(
        &mut self,
        vcpu: &E::Vcpu,
        table: &PropertyTable<E>,
        lpi: Lpi,
        pending: Pending,
        displaced: &mut Displaced,
    ) {
        let waited = self.ready.clear(lpi.index()) | self.dormant.clear(lpi.index());
        if waited && pending == Pending::Keep {
            displaced.push(lpi, None);
        }
        if let Some(slot) = self.slot_of(lpi) {
            self.vacate(vcpu, slot, pending, None, displaced);
            displaced.kick |= self.refill(vcpu, table);
        }
    }

    /// Empty a slot, now or when the vCPU leaves the guest. In the latter
    /// case `heir` gets the LPI if it is pending then.
    fn vacate(
        &mut self,
        vcpu: &E::Vcpu,
        slot: u8,
        pending: Pending,
        heir: Option<VcpuId>,
        displaced: &mut Displaced,
    ) {
        if !self.evict.contains(slot) && vcpu.retract(slot) {
            self.counters.evicted = self.counters.evicted.wrapping_add(1);
            if let Some(lpi) = self.release(slot)
                && pending == Pending::Keep
            {
                displaced.push(lpi, None);
            }
            return;
        }
        if let Some(place) = self.heirs.get_mut(usize::from(slot)) {
            *place = heir;
        }
        self.evict.insert(slot);
        if pending == Pending::Drop {
            self.forget.insert(slot);
        }
        vcpu.request_sync();
        displaced.kick = true;
    }

    /// The guest may have changed the property of `lpi` (INV).
    pub(crate) fn refresh(
        &mut self,
        vcpu: &E::Vcpu,
        table: &PropertyTable<E>,
        lpi: Lpi,
        displaced: &mut Displaced,
    ) {
        let enabled = table.get(lpi).enabled();
        let waited =
            if enabled { self.dormant.clear(lpi.index()) } else { self.ready.clear(lpi.index()) };
        if waited {
            displaced.push(lpi, None);
        }
        if !enabled
            && let Some(slot) = self.slot_of(lpi)
            && !self.evict.contains(slot)
        {
            self.vacate(vcpu, slot, Pending::Keep, None, displaced);
            displaced.kick |= self.refill(vcpu, table);
        }
    }

    /// The guest may have changed any property (INVALL): give back the slots
    /// of LPIs that are disabled by now.
    pub(crate) fn refresh_slots(
        &mut self,
        vcpu: &E::Vcpu,
        table: &PropertyTable<E>,
        displaced: &mut Displaced,
    ) {
        for slot in self.slots.used().iter() {
            let disabled = self.slots.get(slot).is_some_and(|lpi| !table.get(lpi).enabled());
            if disabled && !self.evict.contains(slot) {
                self.vacate(vcpu, slot, Pending::Keep, None, displaced);
            }
        }
        displaced.kick |= self.refill(vcpu, table);
    }

    /// LPIs are about to leave the vCPU: from now on none steps back from a
    /// slot into the bitmaps for one that is more urgent.
    pub(crate) fn begin_drain(&mut self) {
        self.drains = self.drains.saturating_add(1);
    }

    /// None of the LPIs that are about to leave is left in the bitmaps: empty
    /// the slots of those for which `wanted` holds, keeping them pending, and
    /// fill them anew. `heir` gets those that are in a list register.
    pub(crate) fn end_drain(
        &mut self,
        vcpu: &E::Vcpu,
        table: &PropertyTable<E>,
        heir: Option<VcpuId>,
        displaced: &mut Displaced,
        wanted: impl Fn(Lpi) -> bool,
    ) {
        self.drains = self.drains.saturating_sub(1);
        for slot in self.slots.used().iter() {
            // What was about to leave before MOVALL came is not this vCPU's.
            let gone = heir.is_some() && self.evict.contains(slot);
            if !gone && self.slots.get(slot).is_some_and(&wanted) {
                self.vacate(vcpu, slot, Pending::Keep, heir, displaced);
            }
        }
        displaced.kick |= self.refill(vcpu, table);
    }

    /// Of the LPIs that are about to leave a list register, those for which
    /// `wanted` holds, given their heirs, get `heir` instead.
    pub(crate) fn redirect(&mut self, heir: VcpuId, wanted: impl Fn(Lpi, Option<VcpuId>) -> bool) {
        for slot in self.evict.iter() {
            let (Some(lpi), Some(place)) =
                (self.slots.get(slot), self.heirs.get_mut(usize::from(slot)))
            else {
                continue;
            };
            if wanted(lpi, *place) {
                *place = Some(heir);
            }
        }
        for (lpi, place) in self.leaving.iter_mut().flatten() {
            if wanted(*lpi, *place) {
                *place = Some(heir);
            }
        }
    }

    /// Take up to a batch of LPIs for which `wanted` holds out of the
    /// bitmaps, from `from` on. Returns where to go on, if there is more.
    pub(crate) fn take_waiting(
        &mut self,
        from: u32,
        displaced: &mut Displaced,
        dormant_only: bool,
        wanted: impl Fn(Lpi) -> bool,
    ) -> Option<u32> {
        let mut at = from;
        // Looks at a bounded number of LPIs, whatever `wanted` says of them.
        for _ in 0..SLOTS {
            let ready = if dormant_only { None } else { self.ready.next(at) };
            let dormant = self.dormant.next(at);
            let index = match (ready, dormant) {
                (Some(a), Some(b)) => a.min(b),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => return None,
            };
            at = index.saturating_add(1);
            let Some(lpi) = Lpi::from_index(index) else { continue };
            if wanted(lpi) {
                if !dormant_only {
                    self.ready.clear(index);
                }
                self.dormant.clear(index);
                displaced.push(lpi, None);
            }
        }
        Some(at)
    }

    /// The vCPU is about to enter the guest: empty the slots that were to be
    /// emptied, list registers included. The vCPU is the current one.
    pub(crate) fn sync(&mut self, vcpu: &E::Vcpu, table: &PropertyTable<E>) -> Displaced {
        let mut displaced = Displaced::new();
        for (lpi, heir) in core::mem::take(&mut self.leaving).into_iter().flatten() {
            // It may have been cleared or moved meanwhile.
            if self.dormant.clear(lpi.index()) {
                displaced.push(lpi, heir);
            }
        }
        for slot in self.evict.iter() {
            let Some(lpi) = self.slots.get(slot) else { continue };
            let heir = self.heirs.get(usize::from(slot)).copied().flatten();
            let forget = self.forget.contains(slot);
            let was = vcpu.evict(slot);
            self.unmark(slot);
            if !was.active {
                self.counters.evicted = self.counters.evicted.wrapping_add(1);
                self.release(slot);
            }
            if was.pending && !forget {
                displaced.push(lpi, heir);
            } else {
                displaced.dropped = true;
            }
        }
        self.refill(vcpu, table);
        displaced
    }

    /// The vCPU is switched on, and its vGIC queues were emptied: queue what
    /// is pending anew, each LPI through the slot that it has.
    pub(crate) fn reset(&mut self, vcpu: &E::Vcpu, table: &PropertyTable<E>) {
        for slot in self.slots.used().iter() {
            let Some(lpi) = self.slots.get(slot) else { continue };
            let leaves = self.evict.contains(slot);
            let pending = vcpu.reset(slot) && !self.forget.contains(slot);
            self.counters.evicted = self.counters.evicted.wrapping_add(1);
            self.release(slot);
            if pending && leaves {
                // Which it can do once the vGIC lock is released.
                let heir = self.heirs.get(usize::from(slot)).copied().flatten();
                self.dormant.set(lpi.index());
                if let Some(place) = self.leaving.iter_mut().find(|place| place.is_none()) {
                    *place = Some((lpi, heir));
                }
                vcpu.request_sync();
            } else if pending {
                self.enqueue(vcpu, slot, lpi, table.get(lpi).priority());
            }
        }
        self.refill(vcpu, table);
    }

    /// Mark LPIs pending that the guest's pending table says are: bit `n` of
    /// `bits` is the LPI of index `first + n`, `first` a multiple of 64.
    pub(crate) fn preset(&mut self, first: u32, bits: u64) {
        self.dormant.set_word(first, bits);
    }
}

/// The LPI side of one vCPU's redistributor.
pub(crate) struct Redist<E: Env> {
    /// Set when the vCPU is created. The state is there once the guest has
    /// enabled LPIs (GICR_CTLR.EnableLPIs), and stays.
    pub(crate) lock: E::Once<E::VgicLock<Option<LpiState<E>>>>,
    /// GICR_PENDBASER. Written under the domain's redistributor lock.
    pub(crate) pendbaser: AtomicU64,
    /// Slots are to be emptied when the vCPU leaves the guest. Written under
    /// the vGIC lock.
    leaving: AtomicBool,
}

impl<E: Env> Redist<E> {
    /// A redistributor whose vCPU does not exist yet.
    pub(crate) fn new() -> Self {
        Self { lock: E::Once::new(), pendbaser: AtomicU64::new(0), leaving: AtomicBool::new(false) }
    }

    /// Run `work` on the vCPU's LPIs, under its vGIC lock. `None` before the
    /// guest has enabled LPIs.
    #[inline]
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut LpiState<E>, &E::Vcpu) -> R) -> Option<R> {
        let lock = self.lock.get()?;
        let mut guard = lock.lock();
        guard.as_mut().map(|state| self.run(state, lock.vcpu(), work))
    }

    #[inline]
    fn run<R>(
        &self,
        state: &mut LpiState<E>,
        vcpu: &E::Vcpu,
        work: impl FnOnce(&mut LpiState<E>, &E::Vcpu) -> R,
    ) -> R {
        let result = work(state, vcpu);
        // `leaving` is filled from the front.
        let leaving = !state.evict.is_empty() || matches!(state.leaving, [Some(_), ..]);
        if self.leaving.load(Ordering::Relaxed) != leaving {
            self.leaving.store(leaving, Ordering::Release);
        }
        result
    }

    /// May it have LPIs that have left for another vCPU, but are in a list
    /// register as yet?
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// The same where the hypervisor holds the lock already.
    pub(crate) fn with_held<R>(
        &self,
        held: &mut E::Held,
        work: impl FnOnce(&mut LpiState<E>, &E::Vcpu) -> R,
    ) -> Option<R> {
        let lock = self.lock.get()?;
        lock.with_held(held, |guard| {
            guard.as_mut().map(|state| self.run(state, lock.vcpu(), work))
        })?
    }

    /// Have the vCPU leave the guest, or wake up.
    #[inline]
    pub(crate) fn kick(&self) {
        if let Some(lock) = self.lock.get() {
            lock.vcpu().kick();
        }
    }
}
