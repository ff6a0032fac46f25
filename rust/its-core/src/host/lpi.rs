// SPDX-License-Identifier: GPL-2.0-only
//! The host's LPIs: who has which, and what each is for the guest.
//!
//! This table is also the interrupt translation table of the virtual ITSes:
//! an event of a device has a fixed host LPI, and that LPI's entry names the
//! virtual LPI which the guest mapped the event to.

use bitfield_struct::bitfield;
use its_arch::{DeviceId, EventId, IdBits, Lpi};

use crate::Error;
use crate::env::{Env, Lock, Once};
use crate::host::blocks::Blocks;
use crate::sync::{AtomicU64, Ordering};

/// LPIs are handed out in aligned blocks of this many.
pub const BLOCK: u32 = 32;
/// The same as an index.
const LPIS_PER_BLOCK: usize = 32;
/// Entries in one page of the table: 4 KiB.
const LPIS_PER_PAGE: u32 = 512;

/// A host LPI that is assigned to a domain.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct HostEntry {
    /// The virtual LPI's INTID; 0: the guest has not mapped the event.
    pub vlpi: u32,
    /// The domain.
    pub domain: u16,
    /// Where it goes to: a collection of its host ITS, by when it came up.
    pub(crate) collection: u8,
    #[bits(7)]
    __: u8,
    /// It is assigned at all: the host ITS has been told of the event.
    pub assigned: bool,
}

impl HostEntry {
    /// Bit 63 set, the domain in bits 47:32, the virtual LPI in bits 31:0.
    #[inline]
    pub const fn owner(self) -> u64 {
        self.with_collection(0).into_bits()
    }
}

/// Which events a block of host LPIs is for.
#[bitfield(u64)]
struct Events {
    device: u32,
    /// The first of the events, divided by [`BLOCK`].
    #[bits(24)]
    first_block: u32,
    its: u8,
}

/// Where the interrupts of a host LPI come from, and go to.
pub(crate) struct Origin {
    /// Index of the host ITS.
    pub(crate) its: usize,
    pub(crate) device: DeviceId,
    pub(crate) event: EventId,
    /// See [`HostEntry::collection`].
    pub(crate) collection: usize,
}

/// A run of host LPIs for one device of one domain. Given back by
/// [`HostLpis::free`], not on drop: only the host ITS's confirmation makes
/// that safe.
#[derive(Debug, PartialEq, Eq)]
pub struct LpiRange {
    first: Lpi,
    count: u32,
    domain: u16,
}

impl LpiRange {
    /// How many LPIs.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The LPI at position `index`.
    pub fn get(&self, index: u32) -> Option<Lpi> {
        if index < self.count {
            Lpi::from_index(self.first.index().checked_add(index)?)
        } else {
            None
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Lpi> + '_ {
        (0..self.count).filter_map(|index| self.get(index))
    }
}

/// A host LPI on its way to a domain, for an event.
pub struct Unassigned<'a> {
    entry: &'a AtomicU64,
    domain: u16,
    /// The LPI.
    pub lpi: Lpi,
    /// The event.
    pub event: EventId,
}

impl Unassigned<'_> {
    /// The host ITS is told of the event before it is told to do anything with
    /// it: from here on the LPI is the domain's. `collection`: see
    /// [`HostEntry::collection`].
    pub fn assign(self, collection: u8) {
        let entry = HostEntry::new().with_domain(self.domain).with_collection(collection);
        self.entry.store(entry.with_assigned(true).into(), Ordering::Release);
    }
}

/// Host LPIs that are next to each other.
struct Page<E: Env> {
    /// A [`HostEntry`] for each.
    entries: E::Buf<AtomicU64>,
    /// An [`Events`] for each block.
    events: E::Buf<AtomicU64>,
}

/// The host's LPIs. Looked up without a lock; allocated under one.
pub struct HostLpis<E: Env> {
    pages: E::Buf<E::Once<Page<E>>>,
    /// How many there are.
    total: u32,
    /// The lock under which pages come, too.
    blocks: E::Lock<Blocks<E>>,
}

impl<E: Env> HostLpis<E> {
    /// All LPIs of `id_bits` bits, none assigned.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn new(id_bits: IdBits) -> Result<Self, Error> {
        let lpis = u32::try_from(id_bits.lpis()).map_err(|_| Error::OutOfRange)?;
        let pages = usize::try_from(lpis.div_ceil(LPIS_PER_PAGE)).map_err(|_| Error::OutOfRange)?;
        Ok(Self {
            pages: E::alloc(pages, |_| E::Once::new())?,
            total: lpis,
            blocks: E::Lock::new(Blocks::new(lpis / BLOCK)?),
        })
    }

    #[inline]
    fn page(&self, lpi: Lpi) -> Option<(&Page<E>, usize)> {
        let index = lpi.index();
        #[expect(
            clippy::as_conversions,
            reason = "u32 to usize does not lose bits on 64-bit targets"
        )]
        let (page, offset) = ((index / LPIS_PER_PAGE) as usize, (index % LPIS_PER_PAGE) as usize);
        Some((self.pages.get(page)?.get()?, offset))
    }

    #[inline]
    fn slot(&self, lpi: Lpi) -> Option<&AtomicU64> {
        let (page, offset) = self.page(lpi)?;
        page.entries.get(offset)
    }

    fn block(&self, lpi: Lpi) -> Option<&AtomicU64> {
        let (page, offset) = self.page(lpi)?;
        page.events.get(offset / LPIS_PER_BLOCK)
    }

    /// The LPIs of a range from number `first` on, to the end of its block, in
    /// order: they are for the events of `device` with the same numbers. What
    /// comes before them is assigned.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn unassigned<'a>(
        &'a self,
        range: &'a LpiRange,
        its: usize,
        device: DeviceId,
        first: u32,
    ) -> Result<impl Iterator<Item = Unassigned<'a>>, Error> {
        let events = Events::new()
            .with_device(device.get())
            .with_its(u8::try_from(its).map_err(|_| Error::OutOfRange)?)
            .with_first_block_checked(first / BLOCK)
            .map_err(|()| Error::OutOfRange)?;
        let lpi = range.get(first).ok_or(Error::OutOfRange)?;
        self.block(lpi).ok_or(Error::OutOfRange)?.store(events.into(), Ordering::Relaxed);
        let entries = self.entries(range, first).ok_or(Error::OutOfRange)?;
        Ok(entries.iter().zip(first..range.count).filter_map(|(entry, number)| {
            let (lpi, event) = (range.get(number)?, EventId::new(number));
            Some(Unassigned { entry, domain: range.domain, lpi, event })
        }))
    }

    /// The entries from number `first` of a range on, to the end of its block.
    fn entries(&self, range: &LpiRange, first: u32) -> Option<&[AtomicU64]> {
        let (page, offset) = self.page(range.get(first)?)?;
        page.entries.get(offset..(offset | (LPIS_PER_BLOCK - 1)).checked_add(1)?)
    }

    /// Where the interrupts of `lpi` come from, if it is assigned to `domain`.
    /// IRQ context.
    pub(crate) fn origin(&self, lpi: Lpi, domain: u16) -> Option<Origin> {
        let entry = self.get(lpi).filter(|entry| entry.domain() == domain)?;
        let events = Events::from(self.block(lpi)?.load(Ordering::Relaxed));
        let first = events.first_block().checked_mul(BLOCK)?;
        Some(Origin {
            its: events.its().into(),
            device: DeviceId::new(events.device()),
            event: EventId::new(first.checked_add(lpi.index() % BLOCK)?),
            collection: entry.collection().into(),
        })
    }

    /// The entry of `lpi`, if it is assigned to a domain. IRQ context.
    #[inline]
    pub fn get(&self, lpi: Lpi) -> Option<HostEntry> {
        let entry = HostEntry::from(self.slot(lpi)?.load(Ordering::Acquire));
        if entry.assigned() { Some(entry) } else { None }
    }

    fn set(&self, lpi: Lpi, entry: HostEntry) {
        if let Some(slot) = self.slot(lpi) {
            slot.store(entry.into(), Ordering::Release);
        }
    }

    /// The virtual LPI that the event behind `lpi` is mapped to.
    pub fn vlpi(&self, lpi: Lpi) -> Option<Lpi> {
        self.get(lpi).and_then(|entry| Lpi::new(entry.vlpi()))
    }

    /// Map the event behind the assigned `lpi` to a virtual LPI, or to none.
    /// The device map lock of the domain that `lpi` is assigned to is held.
    pub(crate) fn set_vlpi(&self, lpi: Lpi, vlpi: Option<Lpi>) {
        if let Some(entry) = self.get(lpi) {
            self.set(lpi, entry.with_vlpi(vlpi.map_or(0, Lpi::get)));
        }
    }

    /// Which events of the block that event `first` of a range begins are mapped
    /// to a virtual LPI: a bit for each.
    pub(crate) fn mapped_in_block(&self, range: &LpiRange, first: u32) -> u32 {
        let mapped = |entry: &AtomicU64| HostEntry::from(entry.load(Ordering::Relaxed)).vlpi() != 0;
        let entries = self.entries(range, first).into_iter().flatten().rev();
        entries.fold(0, |bits, entry| bits << 1 | u32::from(mapped(entry)))
    }

    /// Take a run of `count` LPIs, a power of two of at least [`BLOCK`], for
    /// `domain`. They are nobody's before [`Self::assign`], for which
    /// [`Self::make_room`] makes room. Trap context.
    ///
    /// # Errors
    /// [`Error::NoLpis`].
    pub fn alloc(&self, domain: u16, count: u32) -> Result<LpiRange, Error> {
        if !count.is_power_of_two() || count < BLOCK {
            return Err(Error::OutOfRange);
        }
        let block = self.blocks.lock().take(count / BLOCK).ok_or(Error::NoLpis)?;
        let first = block.checked_mul(BLOCK).and_then(Lpi::from_index).ok_or(Error::NoLpis)?;
        Ok(LpiRange { first, count, domain })
    }

    /// Make room for the entry of LPI number `index` of a range, and for those
    /// after it in the same page. Where the next page begins. Trap context.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn make_room(&self, range: &LpiRange, index: u32) -> Result<u32, Error> {
        let lpi = range.get(index).ok_or(Error::OutOfRange)?;
        let page = usize::try_from(lpi.index() / LPIS_PER_PAGE).map_err(|_| Error::OutOfRange)?;
        let cell = self.pages.get(page).ok_or(Error::NoLpis)?;
        // Ranges share pages: one of them sets the cell.
        let blocks = self.blocks.lock();
        if cell.get().is_none() {
            let entries = E::alloc(512, |_| AtomicU64::new(0))?;
            let events = E::alloc(512 / LPIS_PER_BLOCK, |_| AtomicU64::new(0))?;
            cell.set(Page { entries, events }).map_err(|_| Error::Exists)?;
        }
        drop(blocks);
        let past = lpi.index() % LPIS_PER_PAGE;
        Ok(index.saturating_add(LPIS_PER_PAGE.saturating_sub(past)))
    }

    /// Take a block of LPIs, from number `first` of a range on, away from
    /// their domain: they are nobody's, until [`Self::free`] lets them be used
    /// again, if it ever does.
    pub fn disown(&self, range: &LpiRange, first: u32) {
        for entry in self.entries(range, first).into_iter().flatten() {
            entry.store(HostEntry::new().into(), Ordering::Release);
        }
    }

    /// Take LPIs back that are nobody's, and that the host ITS no longer maps.
    pub fn free(&self, range: LpiRange) {
        self.blocks.lock().give(range.first.index() / BLOCK, range.count / BLOCK);
    }

    /// How many there are.
    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    /// How many LPIs are assigned.
    pub fn in_use(&self) -> u32 {
        self.blocks.lock().used().saturating_mul(BLOCK)
    }
}
