// SPDX-License-Identifier: GPL-2.0-only
//! Which LPI each queue slot of a vCPU carries.

use its_arch::Lpi;

use crate::env::SLOTS;

const _: () = assert!(SLOTS <= 16, "sets of slots are 16 bits wide");

/// A set of slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotSet(u16);

impl SlotSet {
    pub(crate) const ALL: Self = Self(if SLOTS == 16 { u16::MAX } else { (1 << SLOTS) - 1 });

    #[inline]
    const fn bit(slot: u8) -> u16 {
        1_u16.wrapping_shl(slot as u32)
    }

    #[inline]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(crate) const fn contains(self, slot: u8) -> bool {
        self.0 & Self::bit(slot) != 0
    }

    #[inline]
    pub(crate) fn insert(&mut self, slot: u8) {
        self.0 |= Self::bit(slot);
    }

    #[inline]
    pub(crate) fn remove(&mut self, slot: u8) {
        self.0 &= !Self::bit(slot);
    }

    /// The lowest slot in it.
    #[inline]
    fn first(self) -> Option<u8> {
        // At most 15, so the conversion does not cut anything off.
        if self.0 == 0 { None } else { u8::try_from(self.0.trailing_zeros()).ok() }
    }

    /// The slots in it, lowest first.
    #[inline]
    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        let mut rest = self;
        core::iter::from_fn(move || {
            let slot = rest.first()?;
            rest.remove(slot);
            Some(slot)
        })
    }
}

/// The slots of one vCPU.
pub(crate) struct Slots {
    lpis: [Lpi; SLOTS],
    used: SlotSet,
}

impl Slots {
    /// All free.
    pub(crate) const fn new() -> Self {
        Self { lpis: [Lpi::MIN; SLOTS], used: SlotSet(0) }
    }

    /// The slots in use, and what they carry.
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u8, Lpi)> + '_ {
        self.used.iter().filter_map(|slot| Some((slot, *self.lpis.get(usize::from(slot))?)))
    }

    /// The slot that carries `lpi`.
    #[inline]
    pub(crate) fn find(&self, lpi: Lpi) -> Option<u8> {
        self.iter().find(|(_, found)| *found == lpi).map(|(slot, _)| slot)
    }

    /// A slot that is not in use.
    #[inline]
    pub(crate) fn free(&self) -> Option<u8> {
        SlotSet(SlotSet::ALL.0 & !self.used.0).first()
    }

    /// Let a free slot carry `lpi`.
    #[inline]
    pub(crate) fn put(&mut self, slot: u8, lpi: Lpi) {
        if let Some(place) = self.lpis.get_mut(usize::from(slot)) {
            *place = lpi;
            self.used.insert(slot);
        }
    }

    /// Make a slot free. What it carried, if it was in use.
    #[inline]
    pub(crate) fn take(&mut self, slot: u8) -> Option<Lpi> {
        if !self.used.contains(slot) {
            return None;
        }
        self.used.remove(slot);
        self.lpis.get(usize::from(slot)).copied()
    }

    /// The slots in use.
    pub(crate) fn used(&self) -> SlotSet {
        self.used
    }

    /// What a slot carries, if it is in use.
    pub(crate) fn get(&self, slot: u8) -> Option<Lpi> {
        if self.used.contains(slot) { self.lpis.get(usize::from(slot)).copied() } else { None }
    }

    /// How many are in use.
    pub(crate) fn len(&self) -> usize {
        self.used.iter().count()
    }
}
