// SPDX-License-Identifier: GPL-2.0-only
//! The LPI side of one vCPU's redistributor: which of its LPIs are pending,
//! and which of those are in list registers.
//!
//! A pending LPI of a vCPU is in exactly one of three places:
//!
//! * a slot, which is a list register;
//! * the `ready` bitmap: enabled when last looked at. From there the most
//!   urgent ones get the list registers, on the vCPU's way into the guest;
//! * the `dormant` bitmap: disabled when last looked at.
//!
//! An LPI in a slot may be in `dormant` as well: it fired again and is
//! disabled by now.

use its_arch::{IdBits, Lpi, VcpuId};

use crate::Error;
use crate::bitmap::Bitmap;
use crate::env::{Env, Once, SLOTS, Vcpu, VgicLock};
use crate::rate::{PORTION, Rate};
use crate::slots::{SlotSet, Slots};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::vlpi::{Entry, PropertyTable};

/// How many LPIs that wait are looked at in one go, with interrupts off, for
/// the most urgent ones. If that does not suffice, the search goes on later.
const LOOK_AHEAD: u32 = 64;
/// The index of no LPI.
const NONE: u32 = u32::MAX;
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
    /// LPIs that fired again while they were pending and enabled, or in a slot.
    pub merged: u64,
    /// LPIs that fired while disabled.
    pub disabled: u64,
    /// How often LPIs had to wait, as no list register was free.
    pub waited: u64,
    /// LPIs that the guest has finished with.
    pub done: u64,
    /// LPIs taken back out of a slot: moved, cleared, disabled, or for an
    /// interrupt that is more urgent.
    pub evicted: u64,
}

/// Who gets an LPI that leaves a list register, though it need not be mapped
/// there, unless it is moved meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heir {
    pub(crate) vcpu: VcpuId,
    /// The LPI's collection when that was decided.
    collection: u16,
}

impl Heir {
    /// `vcpu` gets an LPI of this entry.
    pub(crate) fn new(vcpu: VcpuId, entry: Entry) -> Self {
        Self { vcpu, collection: entry.collection() }
    }

    /// So it does, given what the LPI is mapped to by now.
    pub(crate) fn holds(self, entry: Entry) -> bool {
        entry.mapped() && entry.collection() == self.collection
    }
}

/// LPIs that have to be raised anew, once the vGIC lock is released.
pub(crate) struct Displaced {
    /// Room for what was in all slots twice: before the vCPU was switched on,
    /// and since.
    lpis: [Option<(Lpi, Option<Heir>)>; 2 * SLOTS],
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
    fn push(&mut self, lpi: Lpi, heir: Option<Heir>) {
        if self.iter().any(|(known, _)| known == lpi) {
            return;
        }
        if let Some(place) = self.lpis.get_mut(self.used) {
            *place = Some((lpi, heir));
            self.used = self.used.saturating_add(1);
        }
    }

    /// Is there none?
    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The LPIs, each with the vCPU that gets it wherever it is mapped to
    /// (MOVALL), if there is one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Lpi, Option<Heir>)> + '_ {
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

/// What came of re-reading the properties of the LPIs in a word.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Refreshed {
    /// Where to go on, if there is more.
    pub(crate) next: Option<u32>,
    /// How many were enabled.
    pub(crate) enabled: u32,
    /// The vCPU has to be told.
    pub(crate) kick: bool,
}

/// A search for the most urgent LPI that waits, in progress.
#[derive(Clone, Copy, Debug)]
struct Search {
    /// Where to go on.
    from: u32,
    /// It has begun anew at the start of the bitmap, and ends here.
    end: Option<u32>,
    /// No LPI is more urgent than that: it ends at the first of this priority.
    enough: u8,
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
    /// Of those: the ones whose LPI stays on this vCPU, as it is only disabled.
    stay: SlotSet,
    /// Of those: who gets the LPI, other than the vCPU that it is mapped to.
    heirs: [Option<Heir>; SLOTS],
    /// Dormant LPIs that were to leave the vCPU when it was switched on.
    leaving: [Option<(Lpi, Option<Heir>)>; SLOTS],
    ready: Bitmap<E>,
    dormant: Bitmap<E>,
    /// Where to begin to look for the next LPI in `ready`.
    cursor: u32,
    /// The index of the most urgent LPI in `ready`, or [`NONE`] if that is not
    /// known; and a priority than which none of them is more urgent. During a
    /// search: of those found so far.
    urgent: (u32, u8),
    search: Option<Search>,
    /// What the search has found so far may be wrong, as properties have
    /// changed: another one follows.
    once_more: bool,
    /// How many commands are taking LPIs away from the vCPU.
    drains: u32,
    /// How often LPIs stepped back into the bitmaps nevertheless.
    stepped_back: u32,
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
            stay: SlotSet::default(),
            heirs: [None; SLOTS],
            leaving: [None; SLOTS],
            ready: Bitmap::new(lpis)?,
            dormant: Bitmap::new(lpis)?,
            cursor: 0,
            urgent: (NONE, u8::MAX),
            search: None,
            once_more: false,
            drains: 0,
            stepped_back: 0,
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
        self.stay.remove(slot);
    }

    /// How many LPIs wait for a slot, and how many are disabled.
    pub fn waiting(&self) -> (u32, u32) {
        (self.ready.count(), self.dormant.count())
    }

    /// How many slots are in use.
    pub fn in_slots(&self) -> usize {
        self.slots.len()
    }

    /// An enabled LPI waits for a list register.
    #[inline(always)]
    fn wait(&mut self, vcpu: &E::Vcpu, lpi: Lpi, priority: u8) -> Raised {
        if !self.ready.set(lpi.index()) {
            return Raised { kick: false, wasted: true };
        }
        if self.ready.count() == 1 || priority < self.urgent.1 {
            self.urgent = (lpi.index(), priority);
        }
        Raised { kick: vcpu.request_fill(), wasted: false }
    }

    /// The same for one that was in a list register. It may have fired again
    /// since, and be disabled by now.
    #[inline(never)]
    fn step_back(&mut self, vcpu: &E::Vcpu, lpi: Lpi, priority: u8) {
        if self.dormant.contains(lpi.index()) == Some(false) {
            self.wait(vcpu, lpi, priority);
        }
    }

    /// A property, or what has a list register, has changed. True: the vCPU
    /// has to be told.
    fn look_again(&mut self, vcpu: &E::Vcpu) -> bool {
        self.ready.count() != 0 && vcpu.request_fill()
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
        let granted = rate.take(PORTION);
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
    #[inline(never)]
    pub(crate) fn raise(&mut self, vcpu: &E::Vcpu, table: &PropertyTable<E>, lpi: Lpi) -> Raised {
        self.raise_inline(vcpu, table, lpi)
    }

    /// The same for a caller that is in a hurry.
    #[inline(always)]
    pub(crate) fn raise_inline(
        &mut self,
        vcpu: &E::Vcpu,
        table: &PropertyTable<E>,
        lpi: Lpi,
    ) -> Raised {
        let property = table.get(lpi);
        if !property.enabled() {
            return self.raise_disabled(lpi);
        }
        // It may have fired before, while it was disabled.
        self.dormant.clear(lpi.index());
        self.raise_enabled(vcpu, lpi, property.priority())
    }

    #[inline(always)]
    fn raise_enabled(&mut self, vcpu: &E::Vcpu, lpi: Lpi, priority: u8) -> Raised {
        if let Some(slot) = self.slot_of(lpi) {
            return self.raise_again(vcpu, slot);
        }
        let raised = self.wait(vcpu, lpi, priority);
        if raised.wasted {
            self.counters.merged = self.counters.merged.wrapping_add(1);
        }
        raised
    }

    #[inline(never)]
    fn raise_disabled(&mut self, lpi: Lpi) -> Raised {
        self.counters.disabled = self.counters.disabled.wrapping_add(1);
        // It may have fired before, while it was enabled.
        let waited = self.ready.clear(lpi.index());
        let first = self.dormant.set(lpi.index());
        Raised { kick: false, wasted: waited || !first }
    }

    #[inline(never)]
    fn raise_again(&mut self, vcpu: &E::Vcpu, slot: u8) -> Raised {
        // If it was about to be taken away, it has come back.
        self.unmark(slot);
        self.counters.merged = self.counters.merged.wrapping_add(1);
        let wasted = vcpu.again(slot);
        Raised { kick: !wasted, wasted }
    }

    /// The vCPU is about to enter the guest: give list registers to the most
    /// urgent LPIs that wait. Looks at [`LOOK_AHEAD`] of them at most; if it has
    /// to look at more, it asks to be called again. True if LPIs wait until
    /// a list register is free. The vCPU is the current one.
    pub(crate) fn fill(&mut self, vcpu: &E::Vcpu, table: &PropertyTable<E>) -> bool {
        let (index, priority) = self.urgent;
        if self.ready.count() == 1
            && self.search.is_none()
            && let Some(lpi) = Lpi::from_index(index)
            && let Some(slot) = vcpu.free_slot()
            && self.ready.clear(index)
        {
            // It was the only one.
            self.load(vcpu, slot, lpi, priority);
            return false;
        }
        self.fill_by_priority(vcpu, table)
    }

    #[inline]
    fn load(&mut self, vcpu: &E::Vcpu, slot: u8, lpi: Lpi, priority: u8) {
        self.slots.put(slot, lpi, priority);
        self.counters.queued = self.counters.queued.wrapping_add(1);
        vcpu.load(slot, lpi, priority);
    }

    /// The same if it takes more than a look.
    #[inline(never)]
    fn fill_by_priority(&mut self, vcpu: &E::Vcpu, table: &PropertyTable<E>) -> bool {
        let mut looks = LOOK_AHEAD;
        while self.ready.count() != 0 {
            let Some((lpi, priority)) = self.most_urgent(table, &mut looks) else {
                let _current = self.look_again(vcpu);
                break;
            };
            if core::mem::take(&mut self.once_more) {
                self.urgent = (NONE, 0);
                let _current = self.look_again(vcpu);
            }
            let Some(slot) = vcpu.free_slot().or_else(|| self.make_room(vcpu, priority)) else {
                self.counters.waited = self.counters.waited.wrapping_add(1);
                break;
            };
            self.ready.clear(lpi.index());
            self.urgent.0 = NONE;
            self.cursor = lpi.index().saturating_add(1);
            self.load(vcpu, slot, lpi, priority);
        }
        self.ready.count() != 0
    }

    /// The enabled LPI of the lowest priority value among those that wait;
    /// among equals each gets its turn. Those that were disabled meanwhile
    /// become dormant. `None` if it takes more looks than `looks` allows, or
    /// none of them is enabled.
    fn most_urgent(&mut self, table: &PropertyTable<E>, looks: &mut u32) -> Option<(Lpi, u8)> {
        while *looks != 0 && self.ready.count() != 0 {
            *looks = looks.saturating_sub(1);
            // What a search has found is taken as it is by now: so that it gets
            // somewhere, whatever the guest does to its table.
            let limit = match self.search {
                Some(search) => {
                    self.search = self.look(table, search);
                    u8::MAX
                }
                None => self.urgent.1,
            };
            if self.search.is_some() {
                continue;
            }
            let known = self.known(table, limit);
            if known.is_some() {
                return known;
            }
            let (from, enough) = (self.cursor, self.urgent.1);
            self.search = Some(Search { from, end: None, enough });
            self.urgent = (NONE, u8::MAX);
        }
        None
    }

    /// The LPI that is known to be the most urgent one, if it still waits and is
    /// no less urgent than `limit`.
    fn known(&mut self, table: &PropertyTable<E>, limit: u8) -> Option<(Lpi, u8)> {
        let (index, _) = self.urgent;
        let lpi = Lpi::from_index(index)?;
        if self.ready.contains(index) != Some(true) {
            return None;
        }
        let property = table.get(lpi);
        if !property.enabled() {
            self.ready.clear(index);
            self.dormant.set(index);
            return None;
        }
        (property.priority() <= limit).then_some((lpi, property.priority()))
    }

    /// Look at the next LPI that waits. What is left of the search.
    fn look(&mut self, table: &PropertyTable<E>, search: Search) -> Option<Search> {
        let next =
            self.ready.next(search.from).filter(|next| search.end.is_none_or(|end| *next < end));
        let Some(index) = next else {
            // From the cursor to the end, then from the start to the cursor.
            return search.end.is_none().then_some(Search {
                from: 0,
                end: Some(self.cursor),
                ..search
            });
        };
        let lpi = Lpi::from_index(index)?;
        let property = table.get(lpi);
        if !property.enabled() {
            self.ready.clear(index);
            self.dormant.set(index);
        } else if self.urgent.0 == NONE || property.priority() < self.urgent.1 {
            self.urgent = (index, property.priority());
        }
        let found = self.urgent.0 != NONE && self.urgent.1 <= search.enough;
        (!found).then_some(Search { from: index.saturating_add(1), ..search })
    }

    /// All list registers are in use: take one for an LPI of this priority
    /// from an interrupt that is less urgent, and that the guest has not
    /// taken.
    fn make_room(&mut self, vcpu: &E::Vcpu, priority: u8) -> Option<u8> {
        self.yield_slot(vcpu, priority).or_else(|| vcpu.displace(priority))
    }

    /// Take a slot for an interrupt of this priority from an LPI that is less
    /// urgent, and that the guest has not taken; it waits for another one. The
    /// vCPU is the current one.
    pub(crate) fn yield_slot(&mut self, vcpu: &E::Vcpu, priority: u8) -> Option<u8> {
        // What leaves the vCPU must not step back into the bitmaps: see
        // `begin_drain`.
        if self.drains != 0 {
            return None;
        }
        let mut tried = self.evict;
        for _ in 0..SLOTS {
            let least = self
                .slots
                .iter()
                .filter(|(slot, _, found)| !tried.contains(*slot) && *found > priority)
                .max_by_key(|(_, _, found)| *found);
            let (slot, lpi, found) = least?;
            tried.insert(slot);
            let was = vcpu.evict(slot);
            if was.active {
                if was.pending {
                    vcpu.again(slot);
                }
                continue;
            }
            self.counters.evicted = self.counters.evicted.wrapping_add(1);
            self.release(slot);
            self.step_back(vcpu, lpi, found);
            return Some(slot);
        }
        None
    }

    /// Does an LPI wait that is enabled, and more urgent than `limit`? May be
    /// wrong in saying so if very many wait.
    pub(crate) fn any_urgent(&self, table: &PropertyTable<E>, limit: u32) -> bool {
        let mut from = 0;
        for _ in 0..LOOK_AHEAD {
            let Some(index) = self.ready.next(from) else { return false };
            from = index.saturating_add(1);
            let property = Lpi::from_index(index).map(|lpi| table.get(lpi));
            if property.is_some_and(|it| it.enabled() && u32::from(it.priority()) < limit) {
                return true;
            }
        }
        true
    }

    /// The guest is done with the LPI in `slot`, and the list register is free.
    /// `note`: somebody waits for that, so it is noted for [`Self::taken`].
    pub(crate) fn done(&mut self, vcpu: &E::Vcpu, slot: u8, note: bool) {
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
        let _current = self.look_again(vcpu);
    }

    /// Take `lpi` away from this vCPU. What has to be raised anew goes to
    /// `displaced`.
    pub(crate) fn take(
        &mut self,
        vcpu: &E::Vcpu,
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
        }
    }

    /// Empty a slot when the vCPU leaves the guest. `heir` gets the LPI if it is
    /// pending then.
    fn vacate(
        &mut self,
        vcpu: &E::Vcpu,
        slot: u8,
        pending: Pending,
        heir: Option<Heir>,
        displaced: &mut Displaced,
    ) {
        if let Some(place) = self.heirs.get_mut(usize::from(slot)) {
            *place = heir;
        }
        self.evict.insert(slot);
        self.stay.remove(slot);
        if pending == Pending::Drop {
            self.forget.insert(slot);
        }
        vcpu.request_sync();
        displaced.kick = true;
    }

    /// The same for an LPI that is disabled by now, unless its slot is to be
    /// emptied anyway: it stays pending on this vCPU, whatever it is mapped to.
    fn retire(&mut self, vcpu: &E::Vcpu, slot: u8, displaced: &mut Displaced) {
        if !self.evict.contains(slot) {
            self.vacate(vcpu, slot, Pending::Keep, None, displaced);
            self.stay.insert(slot);
        }
    }

    /// The guest may have changed the property of `lpi` (INV). It stays
    /// pending on this vCPU.
    pub(crate) fn refresh(
        &mut self,
        vcpu: &E::Vcpu,
        table: &PropertyTable<E>,
        lpi: Lpi,
        displaced: &mut Displaced,
    ) {
        // If it is not pending, its property is read when it fires.
        if !self.would_waste(lpi) {
            return;
        }
        let property = table.get(lpi);
        if property.enabled() {
            displaced.kick |= self.enable(vcpu, lpi, property.priority());
            displaced.kick |= self.reprioritize(vcpu, lpi, property.priority());
            return;
        }
        if self.ready.clear(lpi.index()) {
            self.dormant.set(lpi.index());
        }
        if let Some(slot) = self.slot_of(lpi) {
            self.retire(vcpu, slot, displaced);
        }
    }

    /// `lpi` is enabled: if it waits, its priority may be another one by now.
    /// True: the vCPU has to be told.
    fn reprioritize(&mut self, vcpu: &E::Vcpu, lpi: Lpi, priority: u8) -> bool {
        if self.ready.contains(lpi.index()) != Some(true) {
            return false;
        }
        if priority <= self.urgent.1 {
            self.urgent = (lpi.index(), priority);
        } else if self.urgent.0 == lpi.index() {
            self.urgent.0 = NONE;
            // The search has passed over others for it.
            self.once_more |= self.search.is_some();
        }
        self.look_again(vcpu)
    }

    /// `lpi` is enabled by now: if it is dormant, it waits for a list register.
    /// True: the vCPU has to be told.
    fn enable(&mut self, vcpu: &E::Vcpu, lpi: Lpi, priority: u8) -> bool {
        // What is to leave does so soon, and is looked at where it goes.
        !self.has_left(lpi)
            && self.dormant.clear(lpi.index())
            && self.raise_enabled(vcpu, lpi, priority).kick
    }

    /// The guest may have changed any property (INVALL): give back the slots
    /// of LPIs that are disabled by now.
    pub(crate) fn refresh_slots(
        &mut self,
        vcpu: &E::Vcpu,
        table: &PropertyTable<E>,
        displaced: &mut Displaced,
    ) {
        if self.search.is_some() {
            self.once_more = true;
        } else {
            self.urgent = (NONE, 0);
        }
        for slot in self.slots.used().iter() {
            if let Some(lpi) = self.slots.get(slot)
                && !table.get(lpi).enabled()
            {
                self.retire(vcpu, slot, displaced);
            }
        }
        displaced.kick |= self.look_again(vcpu);
    }

    /// LPIs are about to leave the vCPU: from now on none steps back from a
    /// slot into the bitmaps for one that is more urgent. Returns what
    /// [`Self::end_drain`] wants to know.
    pub(crate) fn begin_drain(&mut self) -> u32 {
        self.drains = self.drains.saturating_add(1);
        self.stepped_back
    }

    /// None of the LPIs that are about to leave is left in the bitmaps: empty
    /// the slots of those for which `wanted` holds, keeping them pending.
    /// `heir` says who gets each, if that is decided. If LPIs may have stepped back into the
    /// bitmaps since `begin_drain` returned `since`, because the vCPU went off or
    /// they were disabled: nothing happens, and what to say the next time is
    /// returned.
    pub(crate) fn end_drain(
        &mut self,
        vcpu: &E::Vcpu,
        since: u32,
        heir: impl Fn(Lpi) -> Option<Heir>,
        displaced: &mut Displaced,
        wanted: impl Fn(Lpi) -> bool,
    ) -> Option<u32> {
        if self.stepped_back != since {
            return Some(self.stepped_back);
        }
        self.drains = self.drains.saturating_sub(1);
        // Something urgent may wait for what could not step back.
        displaced.kick |= self.look_again(vcpu);
        for slot in self.slots.used().iter() {
            let Some(lpi) = self.slots.get(slot).filter(|lpi| wanted(*lpi)) else { continue };
            let heir = heir(lpi);
            // What was about to leave before MOVALL came is not this vCPU's.
            if heir.is_none() || !self.leaves(slot) {
                self.vacate(vcpu, slot, Pending::Keep, heir, displaced);
            }
        }
        None
    }

    /// LPIs that are about to leave a list register get the heir that `heir`
    /// names, given the one they have, if it does.
    pub(crate) fn redirect(&mut self, heir: impl Fn(Lpi, Option<Heir>) -> Option<Heir>) {
        for slot in self.evict.iter() {
            let (Some(lpi), Some(place)) =
                (self.slots.get(slot), self.heirs.get_mut(usize::from(slot)))
            else {
                continue;
            };
            *place = heir(lpi, *place).or(*place);
        }
        for (lpi, place) in self.leaving.iter_mut().flatten() {
            *place = heir(*lpi, *place).or(*place);
        }
    }

    /// Is the LPI in `slot` on its way to another vCPU, or unmapped?
    fn leaves(&self, slot: u8) -> bool {
        self.evict.contains(slot) && !self.stay.contains(slot)
    }

    /// Was `lpi` on its way to another vCPU, or unmapped, when the vCPU went
    /// off, and still is?
    fn has_left(&self, lpi: Lpi) -> bool {
        self.leaving.iter().map_while(|place| *place).any(|(left, _)| left == lpi)
    }

    /// Take up to a batch of LPIs for which `wanted` holds out of the
    /// bitmaps, from `from` on. Returns where to go on, if there is more.
    pub(crate) fn take_waiting(
        &mut self,
        from: u32,
        displaced: &mut Displaced,
        wanted: impl Fn(Lpi) -> bool,
    ) -> Option<u32> {
        let mut at = from;
        // Looks at a bounded number of LPIs, whatever `wanted` says of them.
        for _ in 0..SLOTS {
            let index = match (self.ready.next(at), self.dormant.next(at)) {
                (Some(a), Some(b)) => a.min(b),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => return None,
            };
            at = index.saturating_add(1);
            let Some(lpi) = Lpi::from_index(index) else { continue };
            if wanted(lpi) && !self.has_left(lpi) {
                self.ready.clear(index);
                self.dormant.clear(index);
                displaced.push(lpi, None);
            }
        }
        Some(at)
    }

    /// LPIs that are enabled by now, and for which `mapped` holds, wait for a
    /// list register: up to a batch of those in the first word of `dormant`
    /// from `from` on.
    pub(crate) fn refresh_word(
        &mut self,
        vcpu: &E::Vcpu,
        table: &PropertyTable<E>,
        from: u32,
        mapped: impl Fn(Lpi) -> bool,
    ) -> Refreshed {
        let mut refreshed = Refreshed::default();
        let Some((first, mut bits)) = self.dormant.next_word(from) else { return refreshed };
        while bits != 0 {
            let index = first | bits.trailing_zeros();
            bits &= bits.wrapping_sub(1);
            let Some(lpi) = Lpi::from_index(index) else { continue };
            let property = table.get(lpi);
            if property.enabled() && mapped(lpi) {
                if usize::try_from(refreshed.enabled) == Ok(SLOTS) {
                    refreshed.next = Some(index);
                    return refreshed;
                }
                refreshed.enabled = refreshed.enabled.saturating_add(1);
                refreshed.kick |= self.enable(vcpu, lpi, property.priority());
            }
        }
        refreshed.next = first.checked_add(64);
        refreshed
    }

    /// The vCPU is about to enter the guest: empty the slots that were to be
    /// emptied, list registers included. The vCPU is the current one.
    pub(crate) fn sync(
        &mut self,
        vcpu: &E::Vcpu,
        table: &PropertyTable<E>,
        displaced: &mut Displaced,
    ) {
        for place in &mut self.leaving {
            // It is filled from the front.
            let Some((lpi, heir)) = place.take() else { break };
            // It may have been cleared or moved meanwhile.
            if self.dormant.clear(lpi.index()) {
                displaced.push(lpi, heir);
            }
        }
        for slot in self.evict.iter() {
            let Some(lpi) = self.slots.get(slot) else { continue };
            let heir = self.heirs.get(usize::from(slot)).copied().flatten();
            let (forget, stays) = (self.forget.contains(slot), self.stay.contains(slot));
            let was = vcpu.evict(slot);
            self.unmark(slot);
            if !was.active {
                self.counters.evicted = self.counters.evicted.wrapping_add(1);
                self.release(slot);
            }
            if !was.pending || forget {
                displaced.dropped = true;
            } else if stays {
                self.raise(vcpu, table, lpi);
                self.stepped_back = self.stepped_back.wrapping_add(1);
            } else {
                displaced.push(lpi, heir);
            }
        }
        let _current = self.look_again(vcpu);
    }

    /// The vCPU goes off, or is about to be switched on: no LPI stays in a list
    /// register.
    pub(crate) fn reset(&mut self, vcpu: &E::Vcpu, table: &PropertyTable<E>) {
        for slot in self.slots.used().iter() {
            let Some(lpi) = self.slots.get(slot) else { continue };
            let (leaves, stays) = (self.leaves(slot), self.stay.contains(slot));
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
                if stays {
                    self.raise(vcpu, table, lpi);
                } else {
                    self.step_back(vcpu, lpi, table.get(lpi).priority());
                }
                self.stepped_back = self.stepped_back.wrapping_add(1);
            }
        }
        let _off = self.look_again(vcpu);
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
    /// GICR_CTLR.EnableLPIs: the state is there. Written under the domain's
    /// redistributor lock.
    pub(crate) enabled: AtomicBool,
    /// GICR_PENDBASER. Written under the same lock.
    pub(crate) pendbaser: AtomicU64,
    /// Slots are to be emptied when the vCPU leaves the guest. Written under
    /// the vGIC lock.
    leaving: AtomicBool,
    /// LPIs that were in them are pending nowhere yet. Set under the vGIC lock,
    /// by the vCPU alone.
    moving: AtomicBool,
}

impl<E: Env> Redist<E> {
    /// A redistributor whose vCPU does not exist yet.
    pub(crate) fn new() -> Self {
        Self {
            lock: E::Once::new(),
            enabled: AtomicBool::new(false),
            pendbaser: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            moving: AtomicBool::new(false),
        }
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

    /// LPIs have left their list registers, and are on their way. vGIC lock
    /// held.
    pub(crate) fn set_out(&self) {
        self.moving.store(true, Ordering::Relaxed);
    }

    /// They have arrived.
    pub(crate) fn arrive(&self) {
        self.moving.store(false, Ordering::Release);
    }

    /// Are any on their way? Who sees that none is finds them where they went.
    pub(crate) fn is_moving(&self) -> bool {
        self.moving.load(Ordering::Acquire)
    }

    /// Have the vCPU leave the guest, or wake up.
    #[inline]
    pub(crate) fn kick(&self) {
        if let Some(lock) = self.lock.get() {
            lock.vcpu().kick();
        }
    }
}
