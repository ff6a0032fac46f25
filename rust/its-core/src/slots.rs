// SPDX-License-Identifier: GPL-2.0-only
//! Which LPI is in each list register of a vCPU.

use its_arch::Lpi;

use crate::env::SLOTS;

const _: () = assert!(SLOTS <= 16, "sets of slots are 16 bits wide");

/// A set of slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotSet(u16);

impl SlotSet {
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
    /// What each carries, with the priority that it has in the list register.
    lpis: [(Lpi, u8); SLOTS],
    used: SlotSet,
}

impl Slots {
    /// All free.
    pub(crate) const fn new() -> Self {
        Self { lpis: [(Lpi::MIN, 0); SLOTS], used: SlotSet(0) }
    }

    /// The slots in use, and what they carry, with its priority.
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u8, Lpi, u8)> + '_ {
        self.used.iter().filter_map(|slot| {
            let (lpi, priority) = *self.lpis.get(usize::from(slot))?;
            Some((slot, lpi, priority))
        })
    }

    /// The slot that carries `lpi`.
    #[inline]
    pub(crate) fn find(&self, lpi: Lpi) -> Option<u8> {
        self.iter().find(|(_, found, _)| *found == lpi).map(|(slot, _, _)| slot)
    }

    /// Let a free slot carry `lpi`.
    #[inline]
    pub(crate) fn put(&mut self, slot: u8, lpi: Lpi, priority: u8) {
        if let Some(place) = self.lpis.get_mut(usize::from(slot)) {
            *place = (lpi, priority);
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
        self.lpis.get(usize::from(slot)).map(|(lpi, _)| *lpi)
    }

    /// The slots in use.
    pub(crate) fn used(&self) -> SlotSet {
        self.used
    }

    /// What a slot carries, if it is in use.
    pub(crate) fn get(&self, slot: u8) -> Option<Lpi> {
        if !self.used.contains(slot) {
            return None;
        }
        self.lpis.get(usize::from(slot)).map(|(lpi, _)| *lpi)
    }

    /// How many are in use.
    pub(crate) fn len(&self) -> usize {
        self.used.iter().count()
    }
}
