// SPDX-License-Identifier: GPL-2.0-only
//! Getting what it takes to map a device, in steps: its ITS is left alone.

use core::mem::ManuallyDrop;

use its_arch::{DeviceId, EventBits};

use crate::Error;
use crate::budget::{Budget, COMMAND, Step};
use crate::env::Env;
use crate::host::lpi::{BLOCK, LpiRange};
use crate::host::{Host, HostDevice, lpis_for};

/// An ITT is aligned to 256 bytes (IHI 0069, MAPD).
const ITT_ALIGN: usize = 256;
/// Bytes of an ITT that are zeroed for a unit of the budget.
const BYTES_PER_UNIT: u32 = 1024;

/// A device that is about to be mapped. It has its LPIs, which are what may
/// run out first.
pub(crate) struct Preparation {
    its: usize,
    device: DeviceId,
    bits: EventBits,
    lpis: LpiRange,
    /// Room for the entries of so many of these has been made.
    ready: u32,
    /// Of its ITT.
    bytes: u32,
}

impl<E: Env> Host<E> {
    /// Begin to get what it takes to map `device` with at least `events`
    /// events for `domain`. Trap context.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] beyond what the ITS supports, [`Error::NoLpis`],
    /// [`Error::NoMemory`], [`Error::NotFound`]; [`Error::Exists`] when it is
    /// another domain's.
    pub(crate) fn prepare_device(
        &self,
        its: usize,
        device: DeviceId,
        domain: u16,
        events: u64,
    ) -> Result<Preparation, Error> {
        let hw = self.its(its)?;
        let config = *hw.config();
        if u64::from(device.get()) >> config.device_bits.min(32) != 0 {
            return Err(Error::OutOfRange);
        }
        let bits = EventBits::for_events(events.max(BLOCK.into())).ok_or(Error::OutOfRange)?;
        if bits > config.event_bits {
            return Err(Error::OutOfRange);
        }
        let count = lpis_for(bits)?;
        let bytes = count.checked_mul(config.itt_entry_bytes).ok_or(Error::OutOfRange)?;
        hw.claim(device, domain)?;
        let lpis = self.lpis.alloc(domain, count).inspect_err(|_| hw.disclaim(device))?;
        Ok(Preparation { its, device, bits, lpis, ready: 0, bytes })
    }
}

impl Preparation {
    /// Go on. Done with a device for [`super::Transit::install`]. Trap context.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; all has been given back.
    pub(crate) fn advance<E: Env>(
        mut self,
        host: &Host<E>,
        budget: &mut Budget,
    ) -> Step<Self, Result<HostDevice<E>, Error>> {
        while !budget.is_spent() {
            if self.ready < self.lpis.count() {
                budget.spend(COMMAND);
                match host.lpis.make_room(&self.lpis, self.ready) {
                    Ok(next) => self.ready = next,
                    Err(error) => return Step::Done(Err(self.give_up(host, error))),
                }
                continue;
            }
            // In one go, as it has to be in one piece.
            budget.spend(self.bytes / BYTES_PER_UNIT);
            let bytes = usize::try_from(self.bytes).map_err(|_| Error::OutOfRange);
            return Step::Done(match bytes.and_then(|bytes| E::alloc_table(bytes, ITT_ALIGN)) {
                Ok(itt) => Ok(self.with_table(itt)),
                Err(error) => Err(self.give_up(host, error)),
            });
        }
        Step::More(self)
    }

    fn with_table<E: Env>(self, itt: E::Table) -> HostDevice<E> {
        let Self { its, device, bits, lpis, .. } = self;
        HostDevice { its, device, bits, installed: 0, lpis, itt: ManuallyDrop::new(itt) }
    }

    fn give_up<E: Env>(self, host: &Host<E>, error: Error) -> Error {
        if let Ok(hw) = host.its(self.its) {
            hw.disclaim(self.device);
        }
        host.lpis.free(self.lpis);
        error
    }
}
