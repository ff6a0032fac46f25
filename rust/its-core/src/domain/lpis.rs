// SPDX-License-Identifier: GPL-2.0-only
//! What the redistributors share: enabling LPIs, and the tables for that.

use its_arch::gicr::{PendBaser, PropBaser};
use its_arch::{GuestPa, IdBits, Lpi, VcpuId};

use crate::Error;
use crate::domain::Domain;
use crate::env::{Env, Guest, Lock, Once, VgicLock};
use crate::line::{Line, complain};
use crate::redist::{LpiState, Redist};
use crate::sync::Ordering;
use crate::vlpi::PropertyTable;

impl<E: Env> Domain<E> {
    /// Write GICR_PROPBASER, unless LPIs are enabled on a vCPU.
    pub(crate) fn update_propbaser(&self, update: impl FnOnce(PropBaser) -> PropBaser) {
        let common = self.common.lock();
        if !common.enabled {
            let old = PropBaser::from(self.propbaser.load(Ordering::Relaxed));
            self.propbaser.store(update(old).into(), Ordering::Release);
        }
    }

    /// Write GICR_PENDBASER of a vCPU, unless its LPIs are enabled.
    pub(crate) fn update_pendbaser(
        &self,
        redist: &Redist<E>,
        update: impl FnOnce(PendBaser) -> PendBaser,
    ) {
        let _common = self.common.lock();
        if redist.with(|_, _| ()).is_none() {
            let old = PendBaser::from(redist.pendbaser.load(Ordering::Relaxed));
            redist.pendbaser.store(update(old).into(), Ordering::Relaxed);
        }
    }

    /// The guest sets GICR_CTLR.EnableLPIs of vCPU `id`. True if there is
    /// something left over for [`Self::work`]. Trap context.
    pub(crate) fn enable_lpis(&self, id: VcpuId) -> bool {
        let Some(redist) = self.redist(id) else { return false };
        let mut common = self.common.lock();
        let Some(lock) = redist.lock.get() else { return false };
        if redist.with(|_, _| ()).is_some() {
            return false;
        }
        let mut state = match self.lpi_state(self.propbaser.load(Ordering::Relaxed).into()) {
            Ok(state) => state,
            Err(error) => {
                self.complain("GICR_CTLR.EnableLPIs ignored: ", error);
                return false;
            }
        };
        let Some(table) = self.properties.get() else { return false };
        let pendbaser = PendBaser::from(redist.pendbaser.load(Ordering::Relaxed));
        if !pendbaser.ptz() {
            self.read_pending_table(pendbaser.address(), table.id_bits(), &mut state);
        }
        common.enabled = true;
        let mut guard = lock.lock();
        if state.waiting() != (0, 0) {
            // What the pending table says may be mapped elsewhere, or not at all.
            self.count_stray();
        }
        *guard = Some(state);
        drop(guard);
        redist.enabled.store(true, Ordering::Release);
        drop(common);
        self.refresh_redist(id)
    }

    fn complain(&self, what: &str, error: Error) {
        let why = match error {
            Error::NoMemory => "no memory",
            Error::OutOfRange => "GICR_PROPBASER.IDbits is below 13",
            _ => "failed",
        };
        complain::<E>(|| {
            Line::new().text("ITS: d").dec(self.config.id.into()).text(": ").text(what).text(why)
        });
    }

    /// The LPIs of a vCPU, none of them pending, and with the first of these
    /// the properties. If there is no room for both, the guest may still
    /// change GICR_PROPBASER.
    fn lpi_state(&self, propbaser: PropBaser) -> Result<LpiState<E>, Error> {
        if let Some(table) = self.properties.get() {
            return LpiState::new(table.id_bits());
        }
        // Fewer than 14 bits: no LPI exists (GICR_PROPBASER.IDbits).
        let bits = propbaser.intid_bits().ok_or(Error::OutOfRange)?.min(self.config.id_bits);
        let state = LpiState::new(bits)?;
        self.pin_properties(propbaser, bits)?;
        Ok(state)
    }

    fn pin_properties(&self, propbaser: PropBaser, bits: IdBits) -> Result<(), Error> {
        let table = PropertyTable::pin(&self.guest, propbaser.address(), bits)?;
        if table.holes() != 0 {
            complain::<E>(|| {
                Line::new()
                    .text("ITS: d")
                    .dec(self.config.id.into())
                    .text(": pages of the LPI configuration table that are not RAM: ")
                    .dec(u64::try_from(table.holes()).unwrap_or(u64::MAX))
            });
        }
        self.properties.set(table).map_err(|_| Error::Exists)
    }

    /// Take over the pending bits that the guest left (GICR_PENDBASER.PTZ =
    /// 0). Bit `n` of the table is INTID `n`.
    fn read_pending_table(&self, base: GuestPa, id_bits: IdBits, state: &mut LpiState<E>) {
        // Bits of INTIDs below 8192 are in the first KiB, and not ours.
        let end = id_bits.count() / 8;
        let mut offset = u64::from(Lpi::FIRST) / 8;
        while offset < end {
            let mut chunk = [0_u8; 512];
            let Some(at) = base.checked_add(offset) else { return };
            if self.guest.read(at, &mut chunk).is_ok() {
                let first = offset.saturating_mul(8).saturating_sub(Lpi::FIRST.into());
                let mut index = u32::try_from(first).unwrap_or(u32::MAX);
                for word in chunk.chunks_exact(8) {
                    let mut bytes = [0_u8; 8];
                    bytes.copy_from_slice(word);
                    state.preset(index, u64::from_le_bytes(bytes));
                    index = index.saturating_add(64);
                }
            }
            offset = offset.saturating_add(512);
        }
    }
}
