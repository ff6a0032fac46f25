// SPDX-License-Identifier: GPL-2.0-only
//! One host ITS: collections and devices.

use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU64, Ordering};

use its_arch::{CollectionId, Command, DeviceId, EventBits, EventId, GuestPa, Lpi, Rdbase};

use crate::Error;
use crate::env::{Env, Level, Lock, Table};
use crate::host::lpi::{BLOCK, LpiRange};
use crate::host::queue::{Queue, Ticket};
use crate::host::{Host, MAX_CPUS};
use crate::line::Line;

/// An ITT is aligned to 256 bytes (IHI 0069, MAPD).
const ITT_ALIGN: usize = 256;

/// What GITS_TYPER says of a host ITS, and how long its queue is.
#[derive(Clone, Copy, Debug)]
pub struct HostItsConfig {
    /// Size of the command queue in bytes.
    pub queue_bytes: u32,
    /// DeviceID bits.
    pub device_bits: u8,
    /// EventID bits.
    pub event_bits: EventBits,
    /// Bytes of an ITT entry.
    pub itt_entry_bytes: u32,
}

struct Collections<E: Env> {
    /// Where each collection was routed; in order of their coming up.
    routed: E::Buf<Option<(CollectionId, Rdbase)>>,
    count: usize,
    /// The one that the next event goes to.
    next: usize,
}

/// One ITS of the machine.
pub struct HostIts<E: Env> {
    queue: Queue<E>,
    config: HostItsConfig,
    collections: E::IrqLock<Collections<E>>,
    /// ITTs and LPIs that had to be left to an ITS that did not answer.
    abandoned: AtomicU64,
}

/// A device as mapped on a host ITS: all its events, each to an LPI. Given
/// back by [`HostIts::unmap_device`].
pub struct HostDevice<E: Env> {
    /// Index of the host ITS.
    pub its: usize,
    /// DeviceID there.
    pub device: DeviceId,
    bits: EventBits,
    /// Its first events that the ITS has been told of.
    installed: u32,
    lpis: LpiRange,
    /// Dropped when the ITS has let go of it, and never before.
    itt: ManuallyDrop<E::Table>,
}

impl<E: Env> HostDevice<E> {
    /// How many events are mapped.
    pub fn events(&self) -> u32 {
        self.lpis.count()
    }

    /// The host LPI of `event`.
    pub fn lpi(&self, event: EventId) -> Option<Lpi> {
        self.lpis.get(event.get())
    }

    /// All its host LPIs.
    pub fn lpis(&self) -> impl Iterator<Item = Lpi> + '_ {
        self.lpis.iter()
    }
}

impl<E: Env> HostIts<E> {
    pub(crate) fn new(hw: E::HostHw, config: HostItsConfig) -> Result<Self, Error> {
        Ok(Self {
            queue: Queue::new(hw, config.queue_bytes)?,
            config,
            collections: E::IrqLock::new(Collections {
                routed: E::alloc(MAX_CPUS.into(), |_| None)?,
                count: 0,
                next: 0,
            }),
            abandoned: AtomicU64::new(0),
        })
    }

    /// What it can do.
    pub fn config(&self) -> &HostItsConfig {
        &self.config
    }

    /// Commands put in, and executed as far as known.
    pub fn command_counts(&self) -> (u64, u64) {
        self.queue.counts()
    }

    /// Devices given up on because the ITS did not confirm their unmapping.
    pub fn abandoned(&self) -> u64 {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Have the ITS finish all commands for `rdbase`, which puts the caller's
    /// commands before it into effect.
    fn sync(&self, rdbase: Rdbase) -> Result<Ticket, Error> {
        self.queue.submit(&Command::Sync { rdbase })
    }

    pub(crate) fn map_collection(
        &self,
        collection: CollectionId,
        rdbase: Rdbase,
    ) -> Result<(), Error> {
        self.queue.submit(&Command::Mapc { collection, rdbase, valid: true })?;
        self.queue.wait(self.sync(rdbase)?)?;
        let mut collections = self.collections.lock();
        let count = collections.count;
        if let Some(known) = collections
            .routed
            .iter_mut()
            .take(count)
            .flatten()
            .find(|(known, _)| *known == collection)
        {
            known.1 = rdbase;
        } else if let Some(place) = collections.routed.get_mut(count) {
            *place = Some((collection, rdbase));
            collections.count = count.saturating_add(1);
        }
        Ok(())
    }

    /// The collection for the next event: each CPU in turn.
    fn pick(&self) -> Result<(CollectionId, Rdbase), Error> {
        let mut collections = self.collections.lock();
        let at = collections.next;
        collections.next = at.wrapping_add(1).checked_rem(collections.count).unwrap_or(0);
        collections.routed.get(at).copied().flatten().ok_or(Error::NotFound)
    }

    fn routed(&self, index: usize) -> Option<Rdbase> {
        self.collections.lock().routed.get(index).copied().flatten().map(|(_, rdbase)| rdbase)
    }

    /// SYNC all redistributors that LPIs go to, and wait.
    fn sync_all(&self) -> Result<(), Error> {
        let mut last = None;
        for index in 0..usize::from(MAX_CPUS) {
            let Some(rdbase) = self.routed(index) else { break };
            last = Some(self.sync(rdbase)?);
        }
        last.map_or(Ok(()), |ticket| self.queue.wait(ticket))
    }
}

impl<E: Env> Host<E> {
    /// Map `device` with at least `events` events on host ITS `its`, each to
    /// an LPI of `domain`. Trap context; waits for the ITS.
    ///
    /// # Errors
    /// Those of [`Self::prepare_device`] and [`Self::install_device`]. Nothing
    /// is mapped then.
    pub fn map_device(
        &self,
        its: usize,
        device: DeviceId,
        domain: u16,
        events: u64,
    ) -> Result<HostDevice<E>, Error> {
        self.install_device(self.prepare_device(its, device, domain, events)?)
    }

    /// Get what it takes to map `device`, and leave the ITS alone. Followed by
    /// [`Self::install_device`].
    ///
    /// # Errors
    /// [`Error::OutOfRange`] beyond what the ITS supports, [`Error::NoLpis`],
    /// [`Error::NoMemory`], [`Error::NotFound`].
    pub(crate) fn prepare_device(
        &self,
        its: usize,
        device: DeviceId,
        domain: u16,
        events: u64,
    ) -> Result<HostDevice<E>, Error> {
        let config = *self.its(its)?.config();
        if u64::from(device.get()) >> config.device_bits.min(32) != 0 {
            return Err(Error::OutOfRange);
        }
        let bits = EventBits::for_events(events.max(BLOCK.into())).ok_or(Error::OutOfRange)?;
        if bits > config.event_bits {
            return Err(Error::OutOfRange);
        }
        let count = u32::try_from(bits.count()).map_err(|_| Error::OutOfRange)?;
        let bytes = count.checked_mul(config.itt_entry_bytes).ok_or(Error::OutOfRange)?;
        let itt =
            E::alloc_table(usize::try_from(bytes).map_err(|_| Error::OutOfRange)?, ITT_ALIGN)?;
        let lpis = self.lpis.alloc(domain, count)?;
        Ok(HostDevice { its, device, bits, installed: 0, lpis, itt: ManuallyDrop::new(itt) })
    }

    /// Map a device that was prepared. Trap context; waits for the ITS.
    ///
    /// # Errors
    /// Those of the host command queue; [`Error::NotFound`] without a
    /// collection. The device is unmapped, and given back, then.
    pub(crate) fn install_device(&self, mut device: HostDevice<E>) -> Result<HostDevice<E>, Error> {
        match self.its(device.its).and_then(|hw| hw.map_events(&mut device)) {
            Ok(()) => Ok(device),
            Err(error) => {
                // What the ITS may have seen of it has to be taken back.
                self.unmap_device(device);
                Err(error)
            }
        }
    }

    /// Unmap a device and take back its LPIs and its ITT, if the ITS confirms
    /// that it uses neither any more; otherwise they are never used again.
    /// Trap context; waits for the ITS.
    pub fn unmap_device(&self, device: HostDevice<E>) {
        let confirmed = self.its(device.its).and_then(|hw| {
            let result = hw.unmap_events(&device);
            if result.is_err() {
                hw.abandoned.fetch_add(1, Ordering::Relaxed);
            }
            result
        });
        if let Err(error) = confirmed {
            let line = Line::new()
                .text("ITS: host ITS ")
                .dec(u64::try_from(device.its).unwrap_or(u64::MAX))
                .text(" did not confirm that device ")
                .hex(device.device.get().into())
                .text(" is unmapped (")
                .text(error.text())
                .text("); its LPIs and ITT are not used again");
            E::log(Level::Error, line.as_str());
            self.lpis.retire(device.lpis);
        } else {
            self.lpis.free(device.lpis);
            drop(ManuallyDrop::into_inner(device.itt));
        }
    }
}

impl<E: Env> HostIts<E> {
    fn map_events(&self, device: &mut HostDevice<E>) -> Result<(), Error> {
        self.queue.submit(&Command::Mapd {
            device: device.device,
            size: device.bits,
            itt: GuestPa::new(device.itt.address()),
            valid: true,
        })?;
        for (event, lpi) in (0_u32..).zip(device.lpis.iter()) {
            let (collection, _) = self.pick()?;
            self.queue.submit(&Command::Mapti {
                device: device.device,
                event: EventId::new(event),
                intid: lpi.intid(),
                collection,
            })?;
            device.installed = event.saturating_add(1);
        }
        self.sync_all()
    }

    /// Unmap the events one by one, which makes their LPIs not pending: who
    /// gets the LPIs next does not see an interrupt of this device. Then the
    /// device.
    fn unmap_events(&self, device: &HostDevice<E>) -> Result<(), Error> {
        for event in 0..device.installed {
            let event = EventId::new(event);
            self.queue.submit(&Command::Discard { device: device.device, event })?;
        }
        let ticket = self.queue.submit(&Command::Mapd {
            device: device.device,
            size: device.bits,
            itt: GuestPa::new(0),
            valid: false,
        })?;
        // Without any collection there is no SYNC to wait for.
        self.sync_all()?;
        self.queue.wait(ticket)
    }
}
