// SPDX-License-Identifier: GPL-2.0-only
//! The guest's LPI configuration table (IHI 0069, 5.1.1), read where it is
//! needed.

use its_arch::{GuestPa, IdBits, Lpi, LpiProperty};

use crate::Error;
use crate::env::{Env, Guest, Page};

/// Bytes in a page of guest memory as the hypervisor handles it.
const PAGE_SIZE: u32 = 4096;

/// The configuration table of one guest: a byte for each LPI.
///
/// Its pages stay pinned, so that the interrupt path reads a byte without a
/// look-up in the guest's address space. The guest may change a byte at any
/// time; whatever it writes is a priority and an enable bit for its own LPI.
pub struct PropertyTable<E: Env> {
    pages: E::Buf<Option<<E::Guest as Guest>::Page>>,
    id_bits: IdBits,
}

impl<E: Env> PropertyTable<E> {
    /// Pin the table at `base`, which holds the LPIs of `id_bits` bits. A page
    /// that is not RAM reads as zeros: its LPIs are disabled.
    ///
    /// Trap context.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn pin(guest: &E::Guest, base: GuestPa, id_bits: IdBits) -> Result<Self, Error> {
        let bytes = usize::try_from(id_bits.lpis()).map_err(|_| Error::OutOfRange)?;
        let pages = E::alloc(bytes.div_ceil(4096), |page| {
            let offset = u64::try_from(page).ok()?.checked_mul(PAGE_SIZE.into())?;
            guest.pin(base.checked_add(offset)?).ok()
        })?;
        Ok(Self { pages, id_bits })
    }

    /// The number of INTID bits that the table covers.
    pub fn id_bits(&self) -> IdBits {
        self.id_bits
    }

    /// Give the guest's pages back; all LPIs read as disabled from now on. No
    /// other CPU reads a property meanwhile.
    pub fn release(&self) {
        for page in self.pages.iter().flatten() {
            page.release();
        }
    }

    /// How many of its pages are not RAM.
    pub fn holes(&self) -> usize {
        self.pages.iter().filter(|page| page.is_none()).count()
    }

    /// Priority and enable bit of `lpi`; disabled when it is beyond the
    /// table. IRQ context.
    #[inline]
    pub fn get(&self, lpi: Lpi) -> LpiProperty {
        let index = lpi.index();
        #[expect(
            clippy::as_conversions,
            reason = "u32 to usize does not lose bits on 64-bit targets"
        )]
        let (page, offset) = ((index / PAGE_SIZE) as usize, (index % PAGE_SIZE) as usize);
        let byte = match self.pages.get(page) {
            Some(Some(page)) => page.byte(offset),
            _ => 0,
        };
        LpiProperty::new(byte)
    }
}
