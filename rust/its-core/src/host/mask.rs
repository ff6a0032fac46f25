// SPDX-License-Identifier: GPL-2.0-only
//! Host LPIs that are masked: disabled in the property table, of which the
//! redistributor is told with an INV.
//!
//! All of that is possible in interrupt context, as the host ITSes' command
//! queues have room in reserve for it ([`crate::host::queue`]). If even that
//! is used up, nothing happens, and who wants it tries again.

use its_arch::{Command, EventId, Lpi};

use crate::Error;
use crate::bitmap::Bitmap;
use crate::env::{Env, Lock};
use crate::host::lpi::LpiRange;
use crate::host::{Host, HostIts};

struct Masked<E: Env> {
    lpis: Bitmap<E>,
}

impl<E: Env> Masked<E> {
    /// The first LPI of a device's that is masked, and the event that it is
    /// for.
    fn first_in(&self, range: &LpiRange) -> Option<(Lpi, EventId)> {
        let from = range.get(0)?;
        let lpi = Lpi::from_index(self.lpis.next(from.index())?)?;
        let event = lpi.index().checked_sub(from.index())?;
        if event < range.count() { Some((lpi, EventId::new(event))) } else { None }
    }
}

/// Which host LPIs are masked.
pub(super) struct Masks<E: Env> {
    /// Taken before those of a host ITS.
    masked: E::IrqLock<Masked<E>>,
}

impl<E: Env> Masks<E> {
    /// None of `lpis` LPIs is.
    pub(super) fn new(lpis: u32) -> Result<Self, Error> {
        Ok(Self { masked: E::IrqLock::new(Masked { lpis: Bitmap::new(lpis)? }) })
    }
}

impl<E: Env> Host<E> {
    /// Mask `lpi`, if it is assigned to `domain`. False: it is not, or there
    /// is no room for the commands. IRQ context.
    pub(crate) fn mask(&self, lpi: Lpi, domain: u16) -> bool {
        let mut masked = self.masks.masked.lock();
        // Who takes an LPI away from its domain looks whether it is masked
        // only after that. Until he has, its event is mapped on the host ITS.
        let Some((its, commands)) = self.invalidation(lpi, domain) else { return false };
        if masked.lpis.contains(lpi.index()) != Some(false) {
            // The host ITS has yet to get that far.
            return true;
        }
        let done = its.queue.submit_urgent(&commands, || E::set_host_enabled(lpi, false));
        if done {
            masked.lpis.set(lpi.index());
        }
        done
    }

    /// Unmask `lpi`, if it is masked and assigned to `domain`. False: it stays
    /// masked, as there is no room for the commands. IRQ context.
    pub(crate) fn unmask(&self, lpi: Lpi, domain: u16) -> bool {
        let mut masked = self.masks.masked.lock();
        let Some((its, commands)) = self.invalidation(lpi, domain) else { return true };
        if masked.lpis.contains(lpi.index()) != Some(true) {
            return true;
        }
        let done = its.queue.submit_urgent(&commands, || E::set_host_enabled(lpi, true));
        if done {
            masked.lpis.clear(lpi.index());
        }
        done
    }

    /// The first masked LPI of index `from` or above. IRQ context.
    pub(crate) fn next_masked(&self, from: u32) -> Option<Lpi> {
        self.masks.masked.lock().lpis.next(from).and_then(Lpi::from_index)
    }

    /// If an LPI of a range is masked, which are nobody's any more, enable it
    /// in the property table, and return its event: when an INV for that is in
    /// the queue, [`Self::forget_mask`] is due.
    pub(super) fn left_masked(&self, range: &LpiRange) -> Option<EventId> {
        let masked = self.masks.masked.lock();
        let (lpi, event) = masked.first_in(range)?;
        E::set_host_enabled(lpi, true);
        Some(event)
    }

    /// The LPI that [`Self::left_masked`] found is not masked any more.
    pub(super) fn forget_mask(&self, range: &LpiRange) {
        let mut masked = self.masks.masked.lock();
        if let Some((lpi, _)) = masked.first_in(range) {
            masked.lpis.clear(lpi.index());
        }
    }

    /// What makes the redistributor read the property of `lpi` again.
    fn invalidation(&self, lpi: Lpi, domain: u16) -> Option<(&HostIts<E>, [Command; 2])> {
        let origin = self.lpis.origin(lpi, domain)?;
        let its = self.its(origin.its).ok()?;
        let rdbase = its.routed(origin.collection)?;
        let inv = Command::Inv { device: origin.device, event: origin.event };
        Some((its, [inv, Command::Sync { rdbase }]))
    }
}
