// SPDX-License-Identifier: GPL-2.0-only
//! What each virtual LPI is mapped to: 8 bytes an LPI, in pages that are
//! allocated when the first of their LPIs is mapped.

use bitfield_struct::bitfield;
use its_arch::{IdBits, Lpi};

use crate::Error;
use crate::env::{Env, Once};
use crate::sync::{AtomicU64, Ordering};

/// LPIs in one page of the table: 4 KiB.
const LPIS_PER_PAGE: u32 = 512;

/// Where a virtual LPI comes from and goes to.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Entry {
    /// The host LPI of the event that was mapped to it last.
    pub host_lpi: u32,
    /// The collection, counted through all virtual ITSes of the domain.
    pub collection: u16,
    /// How many events are mapped to it; 0: it is not mapped.
    pub events: u16,
}

impl Entry {
    /// Is any event mapped to the LPI?
    #[inline]
    pub const fn mapped(self) -> bool {
        self.events() != 0
    }
}

/// The place of one virtual LPI's entry.
#[derive(Clone, Copy)]
pub struct EntryCell<'a>(&'a AtomicU64);

impl EntryCell<'_> {
    /// The entry as it is now.
    #[inline]
    pub fn load(self) -> Entry {
        Entry::from(self.0.load(Ordering::Acquire))
    }
}

/// The virtual LPIs of one domain. Written under the domain's device map
/// lock, read without a lock.
pub struct VlpiTable<E: Env> {
    pages: E::Buf<E::Once<E::Buf<AtomicU64>>>,
    id_bits: IdBits,
}

impl<E: Env> VlpiTable<E> {
    /// A table for LPIs of up to `id_bits` bits, none of them mapped.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn new(id_bits: IdBits) -> Result<Self, Error> {
        let lpis = usize::try_from(id_bits.lpis()).map_err(|_| Error::OutOfRange)?;
        Ok(Self { pages: E::alloc(lpis.div_ceil(512), |_| E::Once::new())?, id_bits })
    }

    /// The number of INTID bits.
    pub fn id_bits(&self) -> IdBits {
        self.id_bits
    }

    #[inline]
    fn split(lpi: Lpi) -> (usize, usize) {
        let index = lpi.index();
        #[expect(
            clippy::as_conversions,
            reason = "u32 to usize does not lose bits on 64-bit targets"
        )]
        ((index / LPIS_PER_PAGE) as usize, (index % LPIS_PER_PAGE) as usize)
    }

    /// The place of `lpi`, if it has one: it keeps it. IRQ context.
    #[inline]
    pub fn cell(&self, lpi: Lpi) -> Option<EntryCell<'_>> {
        let (page, offset) = Self::split(lpi);
        self.pages.get(page)?.get()?.get(offset).map(EntryCell)
    }

    /// What `lpi` is mapped to. IRQ context.
    #[inline]
    pub fn get(&self, lpi: Lpi) -> Entry {
        self.cell(lpi).map_or(Entry::new(), EntryCell::load)
    }

    /// Make sure that [`Self::set`] has a place for `lpi`. Trap context.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] beyond the table's bits, [`Error::NoMemory`].
    pub fn reserve(&self, lpi: Lpi) -> Result<(), Error> {
        let (page, _) = Self::split(lpi);
        let cell = self.pages.get(page).ok_or(Error::OutOfRange)?;
        if cell.get().is_some() {
            return Ok(());
        }
        // The lock that writers hold makes this the only one to set the cell.
        cell.set(E::alloc(512, |_| AtomicU64::new(0))?).map_err(|_| Error::Exists)
    }

    /// Change the entry of `lpi`, for which a place was reserved.
    pub fn set(&self, lpi: Lpi, entry: Entry) {
        if let Some(cell) = self.cell(lpi) {
            cell.0.store(entry.into(), Ordering::Release);
        }
    }

    /// Bytes of the table itself and of its pages.
    pub fn bytes(&self) -> usize {
        let pages = self.pages.iter().filter(|page| page.get().is_some()).count();
        size_of::<E::Once<E::Buf<AtomicU64>>>()
            .saturating_mul(self.pages.len())
            .saturating_add(pages.saturating_mul(4096))
    }
}
