// SPDX-License-Identifier: GPL-2.0-only
//! One host ITS: collections and devices.

use core::mem::ManuallyDrop;
use core::ops::DerefMut;

use its_arch::{CollectionId, Command, DeviceId, EventBits, EventId, Lpi, Rdbase};

use crate::Error;
use crate::budget::{Budget, Step};
use crate::env::{Env, Level, Lock};
use crate::host::lpi::{BLOCK, LpiRange};
use crate::host::queue::Queue;
use crate::host::transit::Transit;
use crate::host::{Host, MAX_CPUS};
use crate::line::Line;
use crate::sorted::SortedMap;
use crate::sync::{AtomicU64, Ordering};

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

pub(super) struct Collections<E: Env> {
    /// Where each collection was routed; in order of their coming up.
    routed: E::Buf<Option<(CollectionId, Rdbase)>>,
    count: usize,
    /// The one that the next event goes to.
    next: usize,
}

impl<E: Env> Collections<E> {
    /// The collection for the next event, and its place: each CPU in turn.
    /// `None`: there is none.
    pub(super) fn pick(&mut self) -> Option<(CollectionId, u8)> {
        let at = self.next;
        self.next = at.wrapping_add(1).checked_rem(self.count)?;
        let (collection, _) = self.routed.get(at).copied().flatten()?;
        Some((collection, u8::try_from(at).ok()?))
    }

    /// Where the collection that came up as number `index` goes to.
    pub(super) fn rdbase(&self, index: usize) -> Option<Rdbase> {
        self.routed.get(index).copied().flatten().map(|(_, rdbase)| rdbase)
    }
}

/// Whose a device is.
struct Owner {
    domain: u16,
    /// How often it is mapped, or about to be.
    times: u32,
    /// The ITS may have it mapped since before: it did not confirm that it is
    /// unmapped.
    abandoned: bool,
}

/// One ITS of the machine.
pub struct HostIts<E: Env> {
    pub(super) queue: Queue<E>,
    config: HostItsConfig,
    collections: E::IrqLock<Collections<E>>,
    /// Whose each device is. Trap context.
    owners: E::Lock<SortedMap<DeviceId, Owner, E>>,
    /// ITTs and LPIs that had to be left to an ITS that did not answer.
    abandoned: AtomicU64,
}

/// A device as mapped on a host ITS: all its events, each to an LPI. Given
/// back by [`Host::unmap_device`].
pub struct HostDevice<E: Env> {
    /// Index of the host ITS.
    pub its: usize,
    /// DeviceID there.
    pub device: DeviceId,
    pub(super) bits: EventBits,
    /// Its first events that the ITS has been told of.
    pub(super) installed: u32,
    pub(crate) lpis: LpiRange,
    /// Dropped when the ITS has let go of it, and never before.
    pub(super) itt: ManuallyDrop<E::Table>,
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
            owners: E::Lock::new(SortedMap::new()),
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

    pub(crate) fn map_collection(
        &self,
        collection: CollectionId,
        rdbase: Rdbase,
    ) -> Result<(), Error> {
        self.queue.submit(&Command::Mapc { collection, rdbase, valid: true })?;
        let sync = self.queue.submit(&Command::Sync { rdbase })?;
        self.queue.wait(sync)?;
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

    /// The collections, under their lock.
    pub(super) fn collections(&self) -> impl DerefMut<Target = Collections<E>> {
        self.collections.lock()
    }

    /// Where the collection that came up as number `index` goes to. IRQ
    /// context.
    pub(super) fn routed(&self, index: usize) -> Option<Rdbase> {
        self.collections.lock().rdbase(index)
    }

    /// `domain` wants to map `device`. It may have mapped it already: then it
    /// has it twice for a while.
    pub(super) fn claim(&self, device: DeviceId, domain: u16) -> Result<(), Error> {
        let mut owners = self.owners.lock();
        if let Some(owner) = owners.get_mut(device) {
            if owner.times != 0 && owner.domain != domain {
                return Err(Error::Exists);
            }
            owner.domain = domain;
            owner.times = owner.times.saturating_add(1);
            return Ok(());
        }
        owners.insert(device, Owner { domain, times: 1, abandoned: false })
    }

    /// Undo a [`Self::claim`].
    pub(super) fn disclaim(&self, device: DeviceId) {
        let mut owners = self.owners.lock();
        let Some(owner) = owners.get_mut(device) else { return };
        owner.times = owner.times.saturating_sub(1);
        if owner.times == 0 && !owner.abandoned {
            owners.remove(device);
        }
    }

    /// May the ITS have `device` mapped since it was abandoned?
    pub(super) fn is_abandoned(&self, device: DeviceId) -> bool {
        self.owners.lock().get_mut(device).is_some_and(|owner| owner.abandoned)
    }

    /// It is not known, or known again, what the ITS thinks of `device`.
    pub(super) fn set_abandoned(&self, device: DeviceId, abandoned: bool) {
        if let Some(owner) = self.owners.lock().get_mut(device) {
            owner.abandoned = abandoned;
        }
    }
}

/// How many host LPIs a device with so many EventID bits takes.
///
/// # Errors
/// [`Error::OutOfRange`]: more than there can be.
pub(crate) fn lpis_for(bits: EventBits) -> Result<u32, Error> {
    u32::try_from(bits.count().max(BLOCK.into())).map_err(|_| Error::OutOfRange)
}

impl<E: Env> Host<E> {
    /// Map `device` with at least `events` events on host ITS `its`, each to
    /// an LPI of `domain`. Trap context; waits for the ITS.
    ///
    /// # Errors
    /// Those of [`Self::prepare_device`] and of the host command queue;
    /// [`Error::NotFound`] without a collection. Nothing is mapped then.
    pub fn map_device(
        &self,
        its: usize,
        device: DeviceId,
        domain: u16,
        events: u64,
    ) -> Result<HostDevice<E>, Error> {
        let mut preparation = self.prepare_device(its, device, domain, events)?;
        let prepared = loop {
            match preparation.advance(self, &mut Budget::trap()) {
                Step::Done(result) => break result?,
                Step::More(rest) => preparation = rest,
            }
        };
        self.complete(Transit::install(self, prepared))?.ok_or(Error::NotFound)
    }

    /// Unmap a device; see [`Transit::remove`]. Trap context; waits for the
    /// ITS.
    pub fn unmap_device(&self, device: HostDevice<E>) {
        // Removing has no errors of its own.
        let _gone = self.complete(Transit::remove(device));
    }

    fn complete(&self, mut transit: Transit<E>) -> Result<Option<HostDevice<E>>, Error> {
        loop {
            match transit.advance(self, &mut Budget::trap()) {
                Step::Done(result) => return result,
                Step::More(rest) => transit = rest,
            }
            E::relax();
        }
    }

    /// Take back what a device had that its ITS does not use.
    pub(super) fn free_device(&self, device: HostDevice<E>) {
        if let Ok(hw) = self.its(device.its) {
            hw.disclaim(device.device);
        }
        self.lpis.free(device.lpis);
        drop(ManuallyDrop::into_inner(device.itt));
    }

    /// Give up on a device whose ITS does not confirm that it is unmapped. Its
    /// LPIs, which are nobody's, are never handed out again.
    pub(super) fn abandon_device(&self, device: HostDevice<E>, error: Error) {
        if let Ok(hw) = self.its(device.its) {
            hw.set_abandoned(device.device, true);
            hw.disclaim(device.device);
            hw.abandoned.fetch_add(1, Ordering::Relaxed);
        }
        let line = Line::new()
            .text("ITS: host ITS ")
            .dec(u64::try_from(device.its).unwrap_or(u64::MAX))
            .text(" did not confirm that device ")
            .hex(device.device.get().into())
            .text(" is unmapped (")
            .text(error.text())
            .text("); its LPIs and ITT are not used again");
        E::log(Level::Error, line.as_str());
    }
}
