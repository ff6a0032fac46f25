// SPDX-License-Identifier: GPL-2.0-only
//! One guest: its devices, its virtual LPIs, its redistributors.

use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering, fence};

use its_arch::gicr::{PendBaser, PropBaser};
use its_arch::{CollectionId, DeviceId, EventBits, EventId, GuestPa, IdBits, Lpi, VcpuId};

use crate::Error;
use crate::device::{Device, DeviceKey};
use crate::env::{Env, Guest, Level, Lock, Once, Vcpu, VgicLock};
use crate::host::Host;
use crate::line::Line;
use crate::redist::{Displaced, LpiState, Pending, Redist};
use crate::sorted::SortedMap;
use crate::vits::Vits;
use crate::vlpi::{Entry, PropertyTable, VlpiTable};

/// Collections of one virtual ITS: more than one for each vCPU, as
/// GITS_TYPER.HCC = 0 promises (IHI 0069, GITS_TYPER).
pub const COLLECTIONS: u16 = 256;
/// Bits of a CollectionId.
pub(crate) const COLLECTION_BITS: u8 = 8;
/// How often a vCPU is looked through for LPIs to move. One that slips from a
/// slot into the bitmaps at the wrong moment each time is delivered where it
/// is.
const DRAIN_ROUNDS: usize = 4;
/// A collection that is mapped to no vCPU.
const UNMAPPED: u16 = u16::MAX;

/// What a domain is made of.
#[derive(Clone, Copy, Debug)]
pub struct DomainConfig {
    /// The hypervisor's number for it.
    pub id: u16,
    /// vCPUs at most.
    pub vcpus: u16,
    /// INTID bits that the guest is told of.
    pub id_bits: IdBits,
    /// It owns the machine's devices: its MAPD maps a device that no
    /// hypercall has announced.
    pub hardware: bool,
    /// How many virtual ITSes: number `n` stands for host ITS `n`.
    pub vits: usize,
}

/// What the redistributors share.
struct Common {
    propbaser: PropBaser,
    /// LPIs are enabled somewhere: PROPBASER is fixed.
    enabled: bool,
}

/// What became of an LPI that was to be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Routed {
    /// It is pending on its vCPU.
    Raised,
    /// It is not mapped to a vCPU.
    Nowhere,
    /// That vCPU, or the ITS, ignores it.
    Ignored,
}

/// One guest.
pub struct Domain<E: Env> {
    pub(crate) config: DomainConfig,
    pub(crate) guest: E::Guest,
    pub(crate) vits: E::Buf<Vits<E>>,
    pub(crate) vlpis: VlpiTable<E>,
    devices: E::Lock<SortedMap<DeviceKey, Device<E>, E>>,
    /// vCPU of each collection, all virtual ITSes in a row. Written under the
    /// device map lock.
    collections: E::Buf<AtomicU16>,
    pub(crate) redists: E::Buf<Redist<E>>,
    common: E::Lock<Common>,
    properties: E::Once<PropertyTable<E>>,
    /// LPIs may be pending on a vCPU that they are not mapped to: MOVALL took
    /// them there, or their collection was unmapped.
    strays: AtomicBool,
    /// LPIs that fired with no vCPU to go to.
    unrouted: AtomicU64,
}

impl<E: Env> Domain<E> {
    /// A domain without devices, whose vCPUs are yet to come.
    ///
    /// # Errors
    /// [`Error::NoMemory`], [`Error::OutOfRange`], [`Error::NotFound`] when
    /// the host has fewer ITSes.
    pub fn new(host: &Host<E>, guest: E::Guest, config: DomainConfig) -> Result<Self, Error> {
        for its in 0..config.vits {
            host.its(its)?;
        }
        let collections = config.vits.checked_mul(COLLECTIONS.into()).ok_or(Error::OutOfRange)?;
        if u16::try_from(collections).is_err() {
            return Err(Error::OutOfRange);
        }
        Ok(Self {
            config,
            guest,
            vits: E::alloc(config.vits, |index| Vits::new(host, index))?,
            vlpis: VlpiTable::new(config.id_bits)?,
            devices: E::Lock::new(SortedMap::new()),
            collections: E::alloc(collections, |_| AtomicU16::new(UNMAPPED))?,
            redists: E::alloc(config.vcpus.into(), |_| Redist::new())?,
            common: E::Lock::new(Common { propbaser: PropBaser::new(), enabled: false }),
            properties: E::Once::new(),
            strays: AtomicBool::new(false),
            unrouted: AtomicU64::new(0),
        })
    }

    /// What it is made of.
    pub fn config(&self) -> &DomainConfig {
        &self.config
    }

    /// A vCPU has been created.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Exists`].
    pub fn add_vcpu(&self, id: VcpuId, vcpu: E::Vcpu) -> Result<(), Error> {
        let redist = self.redist(id).ok_or(Error::OutOfRange)?;
        redist.lock.set(E::VgicLock::new(vcpu, None)).map_err(|_| Error::Exists)
    }

    #[inline]
    pub(crate) fn redist(&self, id: VcpuId) -> Option<&Redist<E>> {
        self.redists.get(usize::from(id.get()))
    }

    /// Is there such a vCPU?
    pub(crate) fn has_vcpu(&self, id: u64) -> Option<VcpuId> {
        let id = VcpuId::new(u16::try_from(id).ok()?);
        self.redist(id)?.lock.get().map(|_| id)
    }

    // ---- Delivery ----

    /// The vCPU that an LPI goes to.
    #[inline]
    fn target(&self, entry: Entry) -> Option<VcpuId> {
        if !entry.mapped() {
            return None;
        }
        let vcpu = self.collections.get(usize::from(entry.collection()))?.load(Ordering::Acquire);
        if vcpu == UNMAPPED { None } else { Some(VcpuId::new(vcpu)) }
    }

    /// Is the virtual ITS of a mapped LPI enabled? If not, it ignores what
    /// devices write (GITS_CTLR.Enabled).
    #[inline]
    fn translates(&self, entry: Entry) -> bool {
        let vits = self.vits.get(usize::from(entry.collection() / COLLECTIONS));
        vits.is_some_and(Vits::translates)
    }

    /// An event that is mapped to the virtual LPI `lpi` happened. IRQ
    /// context, no lock held.
    #[inline]
    pub fn deliver(&self, lpi: Lpi) {
        if self.route(lpi, true) != Routed::Raised {
            self.unrouted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Make `lpi` pending on the vCPU that it is mapped to. `fresh` if it
    /// fired just now, not if it was pending before.
    #[inline]
    fn route(&self, lpi: Lpi, fresh: bool) -> Routed {
        let Some(cell) = self.vlpis.cell(lpi) else { return Routed::Nowhere };
        loop {
            let entry = cell.load();
            let collection = self.collections.get(usize::from(entry.collection()));
            let (true, Some(collection)) = (entry.mapped(), collection) else {
                return Routed::Nowhere;
            };
            let target = collection.load(Ordering::Acquire);
            if target == UNMAPPED {
                return Routed::Nowhere;
            }
            if fresh && !self.translates(entry) {
                return Routed::Ignored;
            }
            let lock = self.redist(VcpuId::new(target)).and_then(|redist| redist.lock.get());
            let (Some(lock), Some(table)) = (lock, self.properties.get()) else {
                return Routed::Ignored;
            };
            let kick = {
                let mut guard = lock.lock();
                // The guest has not enabled LPIs on that vCPU: the
                // architecture ignores them (GICR_CTLR.EnableLPIs).
                let Some(state) = guard.as_mut() else { return Routed::Ignored };
                // Whoever moves or unmaps an LPI changes its entry first, then
                // looks for it under the vCPU's lock. So once that lock is
                // ours, either the entry has changed, or they will find what
                // we do.
                if cell.load() != entry || collection.load(Ordering::Acquire) != target {
                    continue;
                }
                if fresh {
                    state.counters.raised = state.counters.raised.wrapping_add(1);
                }
                state.raise(lock.vcpu(), table, lpi)
            };
            if kick {
                lock.vcpu().kick();
            }
            return Routed::Raised;
        }
    }

    /// Raise an LPI that was taken away from `redist` where it belongs now.
    fn restore(&self, redist: &Redist<E>, lpi: Lpi) {
        let Some(table) = self.properties.get() else { return };
        while self.route(lpi, false) == Routed::Nowhere {
            if !self.vlpis.get(lpi).mapped() {
                return;
            }
            self.strays.store(true, Ordering::Relaxed);
            // Either the entry is found changed below, or whoever changes it
            // finds that it has to look everywhere: see `with_redists_of`.
            fence(Ordering::SeqCst);
            // If only its collection is unmapped, it stays where it was. As
            // in `route`, the entry decides under the vCPU's lock.
            let outcome = redist.with(|state, vcpu| {
                let entry = self.vlpis.get(lpi);
                if self.target(entry).is_some() {
                    return None;
                }
                Some(entry.mapped() && state.raise(vcpu, table, lpi))
            });
            match outcome {
                Some(None) => continue,
                Some(Some(true)) => redist.kick(),
                _ => {}
            }
            return;
        }
    }

    /// Raise an LPI on a vCPU that it need not be mapped to. False if that
    /// vCPU ignores LPIs.
    fn raise_on(&self, id: VcpuId, lpi: Lpi) -> bool {
        let (Some(redist), Some(table)) = (self.redist(id), self.properties.get()) else {
            return false;
        };
        let kick = redist.with(|state, vcpu| state.raise(vcpu, table, lpi));
        if kick == Some(true) {
            redist.kick();
        }
        kick.is_some()
    }

    /// Raise what was taken away from `redist`, wherever it belongs now.
    fn replace(&self, redist: &Redist<E>, displaced: &Displaced) {
        for (lpi, heir) in displaced.iter() {
            if !heir.is_some_and(|heir| self.raise_on(heir, lpi)) {
                self.restore(redist, lpi);
            }
        }
        if displaced.kick {
            redist.kick();
        }
    }

    // ---- The vGIC's calls ----

    /// The queue slot of vCPU `id` that carries `lpi`. vGIC lock held.
    pub fn slot_of(&self, held: &mut E::Held, id: VcpuId, lpi: Lpi) -> Option<u8> {
        self.redist(id)?.with_held(held, |state, _| state.slot_of(lpi))?
    }

    /// The guest is done with the LPI in `slot` of the current vCPU `id`.
    /// vGIC lock held.
    pub fn slot_done(&self, held: &mut E::Held, id: VcpuId, slot: u8) {
        let (Some(redist), Some(table)) = (self.redist(id), self.properties.get()) else { return };
        redist.with_held(held, |state, vcpu| state.done(vcpu, table, slot));
    }

    /// vCPU `id` is switched on and its queues have been emptied. vGIC lock
    /// held.
    pub fn vcpu_reset(&self, held: &mut E::Held, id: VcpuId) {
        let (Some(redist), Some(table)) = (self.redist(id), self.properties.get()) else { return };
        redist.with_held(held, |state, vcpu| state.reset(vcpu, table));
    }

    /// The current vCPU `id` asked for it with `Vcpu::request_sync`, and is
    /// about to enter the guest, or to be descheduled. Interrupts off, no
    /// lock held.
    pub fn sync(&self, id: VcpuId) {
        let (Some(redist), Some(table)) = (self.redist(id), self.properties.get()) else { return };
        if let Some(displaced) = redist.with(|state, vcpu| state.sync(vcpu, table)) {
            self.replace(redist, &displaced);
        }
    }

    // ---- Redistributor registers ----

    /// GICR_PROPBASER.
    pub(crate) fn propbaser(&self) -> PropBaser {
        self.common.lock().propbaser
    }

    /// Write GICR_PROPBASER, unless LPIs are enabled on a vCPU.
    pub(crate) fn update_propbaser(&self, update: impl FnOnce(PropBaser) -> PropBaser) {
        let mut common = self.common.lock();
        if !common.enabled {
            common.propbaser = update(common.propbaser);
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

    /// The guest sets GICR_CTLR.EnableLPIs of vCPU `id`. Trap context.
    pub(crate) fn enable_lpis(&self, id: VcpuId) {
        let Some(redist) = self.redist(id) else { return };
        let mut common = self.common.lock();
        let Some(lock) = redist.lock.get() else { return };
        if redist.with(|_, _| ()).is_some() {
            return;
        }
        let mut state = match self.lpi_state(common.propbaser) {
            Ok(state) => state,
            Err(error) => return self.complain("GICR_CTLR.EnableLPIs ignored: ", error),
        };
        let Some(table) = self.properties.get() else { return };
        let pendbaser = PendBaser::from(redist.pendbaser.load(Ordering::Relaxed));
        if !pendbaser.ptz() {
            self.read_pending_table(pendbaser.address(), table.id_bits(), &mut state);
        }
        common.enabled = true;
        *lock.lock() = Some(state);
        drop(common);
        // What the pending table said, and what it is mapped to.
        self.invalidate_all(id);
    }

    fn complain(&self, what: &str, error: Error) {
        let why = match error {
            Error::NoMemory => "no memory",
            Error::OutOfRange => "GICR_PROPBASER.IDbits is below 13",
            _ => "failed",
        };
        let line =
            Line::new().text("ITS: d").dec(self.config.id.into()).text(": ").text(what).text(why);
        E::log(Level::Guest, line.as_str());
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
            let line = Line::new()
                .text("ITS: d")
                .dec(self.config.id.into())
                .text(": pages of the LPI configuration table that are not RAM: ")
                .dec(u64::try_from(table.holes()).unwrap_or(u64::MAX));
            E::log(Level::Guest, line.as_str());
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

    // ---- What changes LPIs ----

    /// Re-read the property of `lpi` (INV, GICR_INVLPIR).
    pub(crate) fn invalidate(&self, lpi: Lpi) {
        let Some(table) = self.properties.get() else { return };
        self.with_redists_of(self.vlpis.get(lpi), |redist| {
            let mut displaced = Displaced::new();
            redist.with(|state, vcpu| state.refresh(vcpu, table, lpi, &mut displaced));
            self.replace(redist, &displaced);
        });
    }

    /// Re-read the properties of all LPIs of a vCPU (INVALL, GICR_INVALLR).
    /// The work is in proportion to the pending LPIs that are disabled.
    pub(crate) fn invalidate_all(&self, id: VcpuId) {
        let (Some(redist), Some(table)) = (self.redist(id), self.properties.get()) else { return };
        let mut displaced = Displaced::new();
        redist.with(|state, vcpu| state.refresh_slots(vcpu, table, &mut displaced));
        self.replace(redist, &displaced);
        let mut from = Some(0);
        while let Some(at) = from {
            let mut displaced = Displaced::new();
            from = redist
                .with(|state, _| {
                    state.take_waiting(at, &mut displaced, true, |lpi| {
                        table.get(lpi).enabled() && self.vlpis.get(lpi).mapped()
                    })
                })
                .flatten();
            self.replace(redist, &displaced);
        }
    }

    /// Take the LPIs for which `wanted` holds away from a vCPU, and hand each
    /// to `to`. `heir` gets those that are in a list register, once they can
    /// be had.
    fn drain(
        &self,
        id: VcpuId,
        heir: Option<VcpuId>,
        wanted: impl Fn(Lpi) -> bool,
        to: impl Fn(Lpi),
    ) {
        let (Some(redist), Some(table)) = (self.redist(id), self.properties.get()) else { return };
        for round in 1..=DRAIN_ROUNDS {
            let mut from = Some(0);
            while let Some(at) = from {
                let mut displaced = Displaced::new();
                from = redist
                    .with(|state, _| state.take_waiting(at, &mut displaced, false, &wanted))
                    .flatten();
                displaced.iter().for_each(|(lpi, _)| to(lpi));
            }
            // An LPI may have got from a slot into the bitmaps meanwhile.
            let mut displaced = Displaced::new();
            let drained = redist.with(|state, vcpu| {
                let last = round == DRAIN_ROUNDS;
                state.drain_slots(vcpu, table, heir, last, &mut displaced, &wanted)
            });
            displaced.iter().for_each(|(lpi, _)| to(lpi));
            if displaced.kick {
                redist.kick();
            }
            if drained != Some(false) {
                return;
            }
        }
    }

    /// Call `each` with every redistributor on which an LPI of this entry may
    /// be pending.
    fn with_redists_of(&self, entry: Entry, each: impl Fn(&Redist<E>)) {
        fence(Ordering::SeqCst);
        let strays = self.strays.load(Ordering::Relaxed);
        let target = self.target(entry).map(|id| usize::from(id.get()));
        for (index, redist) in self.redists.iter().enumerate() {
            if strays || target == Some(index) || redist.is_leaving() {
                each(redist);
            }
        }
    }

    /// Take `lpi` away from where `entry` had it.
    fn take(&self, entry: Entry, lpi: Lpi, pending: Pending) {
        let Some(table) = self.properties.get() else { return };
        self.with_redists_of(entry, |redist| {
            let mut displaced = Displaced::new();
            redist.with(|state, vcpu| state.take(vcpu, table, lpi, pending, &mut displaced));
            self.replace(redist, &displaced);
        });
    }

    /// Make `lpi` not pending (CLEAR).
    pub(crate) fn clear(&self, lpi: Lpi) {
        self.take(self.vlpis.get(lpi), lpi, Pending::Drop);
    }

    /// All pending LPIs of one vCPU go to another (MOVALL). Their mappings
    /// stay.
    pub(crate) fn move_all(&self, from: VcpuId, to: VcpuId) {
        let Some(redist) = self.redist(to) else { return };
        if from == to || redist.with(|_, _| ()).is_none() {
            return;
        }
        self.strays.store(true, Ordering::Relaxed);
        self.drain(
            from,
            Some(to),
            |_| true,
            |lpi| {
                self.raise_on(to, lpi);
            },
        );
    }

    /// The number of a collection among those of all virtual ITSes.
    fn collection_index(&self, vits: u16, collection: CollectionId) -> Option<u16> {
        if collection.get() >= COLLECTIONS {
            return None;
        }
        vits.checked_mul(COLLECTIONS)?.checked_add(collection.get())
    }

    fn collection_cell(&self, vits: u16, collection: CollectionId) -> Option<&AtomicU16> {
        let index = self.collection_index(vits, collection)?;
        self.collections.get(usize::from(index))
    }

    /// The vCPU of a collection, if it is mapped.
    pub(crate) fn collection(&self, vits: u16, collection: CollectionId) -> Option<VcpuId> {
        let vcpu = self.collection_cell(vits, collection)?.load(Ordering::Acquire);
        if vcpu == UNMAPPED { None } else { Some(VcpuId::new(vcpu)) }
    }

    /// Map a collection to a vCPU, or to none; its pending LPIs go along
    /// (MAPC). LPIs of an unmapped collection that were pending stay so on
    /// the vCPU that has them.
    pub(crate) fn map_collection(&self, vits: u16, collection: CollectionId, vcpu: Option<VcpuId>) {
        let _devices = self.devices.lock();
        let (Some(index), Some(cell)) =
            (self.collection_index(vits, collection), self.collection_cell(vits, collection))
        else {
            return;
        };
        if vcpu.is_none() && cell.load(Ordering::Acquire) != UNMAPPED {
            self.strays.store(true, Ordering::Relaxed);
        }
        let old = cell.swap(vcpu.map_or(UNMAPPED, VcpuId::get), Ordering::AcqRel);
        let Some(vcpu) = vcpu else { return };
        let is_member = |lpi| {
            let entry = self.vlpis.get(lpi);
            entry.mapped() && entry.collection() == index
        };
        let route = |lpi| {
            self.route(lpi, false);
        };
        if old == UNMAPPED {
            // Its LPIs may be pending since before (GICR_PENDBASER).
            self.invalidate_all(vcpu);
        } else if vcpu.get() != old {
            self.drain(VcpuId::new(old), None, is_member, route);
        }
    }

    /// The guest takes away its collection table: none of the collections of
    /// this virtual ITS is mapped any more.
    pub(crate) fn unmap_all_collections(&self, vits: u16) {
        for collection in 0..COLLECTIONS {
            self.map_collection(vits, CollectionId::new(collection), None);
        }
    }

    // ---- Devices and events ----

    /// Assign a device: map it on the host with `events` events. `vits` is the
    /// virtual ITS, whose host ITS knows the device by the same DeviceID.
    /// Hypercall context; waits for the host ITS.
    ///
    /// # Errors
    /// Those of [`Host::map_device`]. Nothing changes then.
    pub fn add_device(
        &self,
        host: &Host<E>,
        vits: u16,
        device: DeviceId,
        events: u64,
    ) -> Result<(), Error> {
        let its = self.vits.get(usize::from(vits)).ok_or(Error::NotFound)?.host_its();
        let key = DeviceKey { vits, device };
        let mut devices = self.devices.lock();
        if let Some(known) = devices.get_mut(key) {
            // The guest's MAPD may have come first, or another function with
            // the same DeviceID.
            known.announcements = known.announcements.saturating_add(1);
            return Ok(());
        }
        devices.reserve()?;
        let mapped = host.map_device(its, device, self.config.id, events)?;
        devices.insert(key, Device { host: mapped, announcements: 1, mapped: None })
    }

    /// Take a device away: what the guest mapped of it is unmapped, then the
    /// host's side. Hypercall context.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn remove_device(&self, host: &Host<E>, vits: u16, device: DeviceId) -> Result<(), Error> {
        let key = DeviceKey { vits, device };
        let mut devices = self.devices.lock();
        let known = devices.get_mut(key).ok_or(Error::NotFound)?;
        if known.announcements > 1 {
            known.announcements = known.announcements.saturating_sub(1);
            return Ok(());
        }
        let gone = devices.remove(key).ok_or(Error::NotFound)?;
        self.unmap_events(host, &gone);
        host.unmap_device(gone.host);
        Ok(())
    }

    /// Give back all that refers to the host or to the guest's memory. The
    /// domain is dying, and no vCPU of it runs any more. May be called again.
    pub fn relinquish(&self, host: &Host<E>) {
        self.remove_all_devices(host);
        for redist in self.redists.iter() {
            if let Some(lock) = redist.lock.get() {
                // Freed after the lock is released, which has interrupts off.
                let gone = lock.lock().take();
                drop(gone);
            }
        }
        // Whoever reads a property does so with the state just dropped.
        if let Some(table) = self.properties.get() {
            table.release();
        }
    }

    /// Take all devices away.
    fn remove_all_devices(&self, host: &Host<E>) {
        loop {
            let next = {
                let devices = self.devices.lock();
                devices.next(DeviceKey { vits: 0, device: DeviceId::new(0) }).map(|(key, _)| key)
            };
            let Some(key) = next else { return };
            if self.remove_device(host, key.vits, key.device).is_err() {
                return;
            }
        }
    }

    /// How many events a device has; 0 if it is not the domain's.
    pub(crate) fn events(&self, vits: u16, device: DeviceId) -> u64 {
        let devices = self.devices.lock();
        devices.get(DeviceKey { vits, device }).map_or(0, |known| known.host.events().into())
    }

    /// How many LPIs of a vCPU are pending, and in no slot.
    pub(crate) fn waiting(&self, id: VcpuId) -> u64 {
        let counts = self.redist(id).and_then(|redist| redist.with(|state, _| state.waiting()));
        counts.map_or(0, |(ready, dormant)| u64::from(ready).saturating_add(dormant.into()))
    }

    /// Number of devices, and of their events.
    pub(crate) fn device_counts(&self) -> (usize, u64) {
        let devices = self.devices.lock();
        let mut events = 0_u64;
        let mut from = DeviceKey { vits: 0, device: DeviceId::new(0) };
        while let Some((key, device)) = devices.next(from) {
            events = events.saturating_add(device.host.events().into());
            let Some(next) = key.successor() else { break };
            from = next;
        }
        (devices.len(), events)
    }

    /// Call `each` with every device: virtual ITS, DeviceID, events on the
    /// host, the guest's EventID bits, whether it was announced, how many
    /// events are mapped.
    pub(crate) fn for_each_device(
        &self,
        host: &Host<E>,
        mut each: impl FnMut(u16, DeviceId, u32, Option<EventBits>, bool, u32),
    ) {
        let devices = self.devices.lock();
        let mut from = DeviceKey { vits: 0, device: DeviceId::new(0) };
        while let Some((key, device)) = devices.next(from) {
            let mapped = device.host.lpis().filter(|lpi| host.lpis.vlpi(*lpi).is_some()).count();
            let mapped = u32::try_from(mapped).unwrap_or(u32::MAX);
            each(
                key.vits,
                key.device,
                device.host.events(),
                device.mapped,
                device.announcements != 0,
                mapped,
            );
            let Some(next) = key.successor() else { break };
            from = next;
        }
    }

    /// The guest maps a device (MAPD V=1): whatever it had mapped of it
    /// before is gone. Trap context; for the hardware domain it may map the
    /// device on the host.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the device is not the guest's,
    /// [`Error::OutOfRange`] when it has fewer events than the guest wants;
    /// those of [`Host::map_device`].
    pub(crate) fn map_device(
        &self,
        host: &Host<E>,
        vits: u16,
        device: DeviceId,
        bits: EventBits,
    ) -> Result<(), Error> {
        let its = self.vits.get(usize::from(vits)).ok_or(Error::NotFound)?.host_its();
        let key = DeviceKey { vits, device };
        let mut devices = self.devices.lock();
        match devices.get_mut(key) {
            Some(known) => {
                let too_few = u64::from(known.host.events()) < bits.count();
                if too_few && !self.config.hardware {
                    return Err(Error::OutOfRange);
                }
                if too_few {
                    // The host's side has to grow. What can fail for want of
                    // anything comes before the old mapping goes.
                    let grown = host.prepare_device(its, device, self.config.id, bits.count())?;
                    self.unmap_events(host, known);
                    let announcements = known.announcements;
                    if let Some(old) = devices.remove(key) {
                        host.unmap_device(old.host);
                    }
                    let host = host.install_device(grown)?;
                    return devices.insert(key, Device { host, announcements, mapped: Some(bits) });
                }
                self.unmap_events(host, known);
                known.mapped = Some(bits);
                Ok(())
            }
            None if self.config.hardware => {
                devices.reserve()?;
                let mapped = host.map_device(its, device, self.config.id, bits.count())?;
                let device = Device { host: mapped, announcements: 0, mapped: Some(bits) };
                devices.insert(key, device)
            }
            None => Err(Error::NotFound),
        }
    }

    /// The guest unmaps a device (MAPD V=0). Unmapping one that is not mapped
    /// does nothing.
    pub(crate) fn unmap_device(&self, host: &Host<E>, vits: u16, device: DeviceId) {
        let key = DeviceKey { vits, device };
        let mut devices = self.devices.lock();
        let Some(known) = devices.get_mut(key) else { return };
        self.unmap_events(host, known);
        known.mapped = None;
        if known.announcements == 0
            && let Some(gone) = devices.remove(key)
        {
            host.unmap_device(gone.host);
        }
    }

    /// The guest takes away its device table: none of its devices on this
    /// virtual ITS is mapped any more.
    pub(crate) fn unmap_all_devices(&self, host: &Host<E>, vits: u16) {
        let mut from = DeviceId::new(0);
        loop {
            let next = {
                let devices = self.devices.lock();
                devices.next(DeviceKey { vits, device: from }).map(|(key, _)| key)
            };
            let Some(key) = next.filter(|key| key.vits == vits) else { return };
            self.unmap_device(host, vits, key.device);
            let Some(device) = key.device.get().checked_add(1) else { return };
            from = DeviceId::new(device);
        }
    }

    fn unmap_events(&self, host: &Host<E>, device: &Device<E>) {
        for lpi in device.host.lpis() {
            self.unmap_event(host, lpi);
        }
    }

    /// Disconnect the event behind `host_lpi` from its virtual LPI, and
    /// forget that it is pending. The device map lock is held.
    fn unmap_event(&self, host: &Host<E>, host_lpi: Lpi) {
        let Some(vlpi) = host.lpis.vlpi(host_lpi) else { return };
        host.lpis.set_vlpi(host_lpi, None);
        let entry = self.vlpis.get(vlpi);
        let events = entry.events().saturating_sub(1);
        self.vlpis.set(vlpi, if events == 0 { Entry::new() } else { entry.with_events(events) });
        if events == 0 {
            self.take(entry, vlpi, Pending::Drop);
        }
    }

    /// Run `work` on a device that the guest has mapped. `None` if it is not.
    pub(crate) fn with_mapped<R>(
        &self,
        vits: u16,
        device: DeviceId,
        work: impl FnOnce(&Self, MappedDevice<'_, E>) -> R,
    ) -> Option<R> {
        let devices = self.devices.lock();
        let found = devices.get(DeviceKey { vits, device })?;
        found.mapped?;
        Some(work(self, MappedDevice { device: found }))
    }

    /// Give an event of a device an LPI and a collection (MAPTI, MAPI). An
    /// event that was mapped is unmapped first.
    ///
    /// # Errors
    /// [`Error::NoMemory`], [`Error::OutOfRange`].
    pub(crate) fn map_event(
        &self,
        host: &Host<E>,
        host_lpi: Lpi,
        vlpi: Lpi,
        vits: u16,
        collection: CollectionId,
    ) -> Result<(), Error> {
        let index = self.collection_index(vits, collection).ok_or(Error::OutOfRange)?;
        self.vlpis.reserve(vlpi)?;
        let entry = self.vlpis.get(vlpi);
        if host.lpis.vlpi(host_lpi) == Some(vlpi) {
            self.move_event(vlpi, index);
        } else {
            let events = entry.events().checked_add(1).ok_or(Error::OutOfRange)?;
            self.unmap_event(host, host_lpi);
            let base = if entry.mapped() { entry } else { Entry::new().with_collection(index) };
            self.vlpis.set(vlpi, base.with_events(events).with_host_lpi(host_lpi.get()));
            self.move_event(vlpi, index);
            // From here on the device's interrupts arrive.
            host.lpis.set_vlpi(host_lpi, Some(vlpi));
        }
        // It may be pending since before it was mapped (GICR_PENDBASER).
        self.invalidate(vlpi);
        Ok(())
    }

    /// The virtual LPI of an event, if it is mapped.
    pub(crate) fn vlpi(&self, host: &Host<E>, host_lpi: Lpi) -> Option<Lpi> {
        host.lpis.vlpi(host_lpi)
    }

    /// The vCPU that a mapped LPI goes to.
    pub(crate) fn lpi_target(&self, lpi: Lpi) -> Option<VcpuId> {
        self.target(self.vlpis.get(lpi))
    }

    /// Move an LPI to a collection; if it is pending, it goes along (MOVI).
    pub(crate) fn move_lpi(&self, lpi: Lpi, vits: u16, collection: CollectionId) {
        if let Some(index) = self.collection_index(vits, collection) {
            self.move_event(lpi, index);
        }
    }

    fn move_event(&self, lpi: Lpi, index: u16) {
        let old = self.vlpis.get(lpi);
        let new = old.with_collection(index);
        self.vlpis.set(lpi, new);
        if self.target(old) != self.target(new) {
            self.take(old, lpi, Pending::Keep);
        }
    }

    /// Unmap an event (DISCARD).
    pub(crate) fn discard(&self, host: &Host<E>, host_lpi: Lpi) {
        self.unmap_event(host, host_lpi);
    }

    /// LPIs that fired with no vCPU to go to.
    pub(crate) fn unrouted(&self) -> u64 {
        self.unrouted.load(Ordering::Relaxed)
    }

    /// The guest's configuration table, once LPIs are enabled.
    pub(crate) fn properties(&self) -> Option<&PropertyTable<E>> {
        self.properties.get()
    }
}

/// A device that the guest has mapped, while the device map lock is held.
pub(crate) struct MappedDevice<'a, E: Env> {
    device: &'a Device<E>,
}

impl<E: Env> MappedDevice<'_, E> {
    /// The host LPI of `event`; `None` beyond what the guest's MAPD allows.
    pub(crate) fn host_lpi(&self, event: EventId) -> Option<Lpi> {
        self.device.host_lpi(event)
    }
}
