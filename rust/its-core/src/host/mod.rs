// SPDX-License-Identifier: GPL-2.0-only
//! The machine's side: its LPIs and its ITSes.

mod blocks;
pub mod its;
pub mod lpi;
mod mask;
mod prepare;
pub mod queue;
mod transit;

pub(crate) use its::lpis_for;
pub use its::{HostDevice, HostIts, HostItsConfig};
pub use lpi::{HostEntry, HostLpis};
pub(crate) use prepare::Preparation;
pub(crate) use transit::Transit;

use its_arch::{CollectionId, IdBits, Lpi, Rdbase};

use crate::Error;
use crate::env::{Env, Once};
use crate::host::mask::Masks;
use crate::sync::{AtomicU64, Ordering};

/// Host ITSes at most.
pub const MAX_ITS: usize = 32;
/// Physical CPUs that interrupts are spread over at most. Others have their
/// collection, and get no LPIs.
const MAX_CPUS: u16 = 256;

/// All that is shared by the domains.
pub struct Host<E: Env> {
    /// The host's LPIs.
    pub lpis: HostLpis<E>,
    its: [E::Once<HostIts<E>>; MAX_ITS],
    masks: Masks<E>,
    /// LPIs that fired and belonged to nobody, or to an unmapped event.
    unclaimed: AtomicU64,
}

impl<E: Env> Host<E> {
    /// A host whose LPIs have up to `id_bits` bits, without an ITS yet.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn new(id_bits: IdBits) -> Result<Self, Error> {
        Ok(Self {
            lpis: HostLpis::new(id_bits)?,
            masks: Masks::new(u32::try_from(id_bits.lpis()).map_err(|_| Error::OutOfRange)?)?,
            its: [const { None::<()> }; MAX_ITS].map(|_| E::Once::new()),
            unclaimed: AtomicU64::new(0),
        })
    }

    /// Add an ITS whose tables and queue are set up and which is enabled.
    /// Returns its index: 0, 1, and so on. At init only.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when there are too many.
    pub fn add_its(&self, hw: E::HostHw, config: HostItsConfig) -> Result<usize, Error> {
        let free = self.its.iter().position(|its| its.get().is_none()).ok_or(Error::OutOfRange)?;
        let its = HostIts::new(hw, config)?;
        let cell = self.its.get(free).ok_or(Error::OutOfRange)?;
        cell.set(its).map_err(|_| Error::Exists)?;
        Ok(free)
    }

    /// The ITS with this index.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn its(&self, index: usize) -> Result<&HostIts<E>, Error> {
        self.its.get(index).and_then(|cell| cell.get()).ok_or(Error::NotFound)
    }

    /// Route the collection of physical CPU `cpu` to its redistributor, and
    /// use it for LPIs mapped from now on. A CPU that comes up again may do so
    /// again.
    ///
    /// # Errors
    /// Those of the host command queue; [`Error::NotFound`].
    pub fn setup_collection(&self, its: usize, cpu: u16, rdbase: Rdbase) -> Result<(), Error> {
        self.its(its)?.map_collection(CollectionId::new(cpu), rdbase)
    }

    /// Whose host LPI `lpi` is. Counts those of nobody. IRQ context.
    #[inline]
    pub fn claim(&self, lpi: Lpi) -> Option<HostEntry> {
        let entry = self.lpis.get(lpi);
        if entry.is_none() {
            self.unclaimed.fetch_add(1, Ordering::Relaxed);
        }
        entry
    }

    /// How many host LPIs belonged to nobody.
    pub fn unclaimed(&self) -> u64 {
        self.unclaimed.load(Ordering::Relaxed)
    }
}
