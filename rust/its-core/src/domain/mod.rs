// SPDX-License-Identifier: GPL-2.0-only
//! One guest: its devices, its virtual LPIs, its redistributors.
//!
//! * `deliver`: an LPI on its way to its vCPU
//! * `moves`: collections, and what changes where an LPI is pending
//! * `devices`: devices and their events
//! * `lpis`: enabling LPIs
//! * `jobs`: what of that takes more than one step
//! * `storms`: masking host LPIs that fire too often

mod deliver;
mod devices;
mod jobs;
mod lpis;
mod moves;
mod storms;

pub(crate) use devices::DeviceJob;
pub(crate) use jobs::{ForgetDevices, Job};

use its_arch::gicr::PropBaser;
use its_arch::{IdBits, VcpuId};

use crate::Error;
use crate::budget::Budget;
use crate::device::Devices;
use crate::env::{Env, Lock, Once, VgicLock};
use crate::host::Host;
use crate::rate::Rate;
use crate::redist::Redist;
use crate::sync::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use crate::vits::Vits;
use crate::vlpi::{PropertyTable, VlpiTable};

/// Collections of one virtual ITS: more than one for each vCPU, as
/// GITS_TYPER.HCC = 0 promises (IHI 0069, GITS_TYPER).
pub const COLLECTIONS: u16 = 256;
/// Bits of a CollectionId.
pub(crate) const COLLECTION_BITS: u8 = 8;
/// vCPUs at most.
const MAX_VCPUS: u16 = 1 << 15;
/// In the place of a collection: it is mapped to no vCPU. The other bits are
/// the vCPU that it was mapped to.
const UNMAPPED: u16 = 1 << 15;
/// It never was mapped to any.
const NEVER_MAPPED: u16 = u16::MAX;

/// The vCPU that a collection with this in its place is mapped to.
#[inline]
fn mapped_to(place: u16) -> Option<VcpuId> {
    if place & UNMAPPED == 0 { Some(VcpuId::new(place)) } else { None }
}

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
    /// Host LPIs, at most, for devices that its MAPD maps, or maps with more
    /// events than a hypercall announced; `None`: half of the host's.
    pub max_events: Option<u32>,
    /// Interrupts that its devices may raise in a second; `None`: see
    /// [`crate::rate::DEFAULT`].
    pub lpi_rate: Option<u32>,
}

/// What the redistributors share.
struct Common {
    /// LPIs are enabled somewhere: GICR_PROPBASER is fixed.
    enabled: bool,
}

/// One guest.
pub struct Domain<E: Env> {
    pub(crate) config: DomainConfig,
    pub(crate) guest: E::Guest,
    pub(crate) vits: E::Buf<Vits<E>>,
    pub(crate) vlpis: VlpiTable<E>,
    devices: E::Lock<Devices<E>>,
    /// vCPU of each collection, all virtual ITSes in a row. Written under the
    /// device map lock.
    collections: E::Buf<AtomicU16>,
    pub(crate) redists: E::Buf<Redist<E>>,
    common: E::Lock<Common>,
    /// GICR_PROPBASER. Written under `common`.
    pub(crate) propbaser: AtomicU64,
    properties: E::Once<PropertyTable<E>>,
    /// LPIs may be pending on a vCPU that they are not mapped to: MOVALL took
    /// them there, or their collection was unmapped. How often that happened.
    strays: AtomicU64,
    /// What the count was when it was last known that there are none.
    settled: AtomicU64,
    /// How many commands are taking LPIs from one vCPU to another.
    drains: AtomicU32,
    /// How many redistributors are at work on GICR_INVALLR.
    refreshes: AtomicU32,
    /// The virtual ITS that is the first of which commands left over are
    /// executed.
    pub(crate) turn: AtomicU32,
    /// LPIs that fired with no vCPU to go to.
    unrouted: AtomicU64,
    /// Interrupts that went nowhere. Wraps.
    useless: AtomicU32,
    /// How many interrupts its devices may raise.
    rate: Rate<E>,
    /// Host LPIs of the domain may be masked.
    watch: AtomicBool,
    /// Where [`Self::tick`] goes on among all host LPIs that are masked.
    swept: AtomicU32,
    /// One that was found to be worth unmasking since the first was looked at
    /// is still masked.
    passed_over: AtomicBool,
    /// How often a host LPI was masked.
    storms: AtomicU64,
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
        let allowance = config.max_events.unwrap_or_else(|| host.lpis.total() / 2);
        let collections = config.vits.checked_mul(COLLECTIONS.into()).ok_or(Error::OutOfRange)?;
        if u16::try_from(collections).is_err() || config.vcpus >= MAX_VCPUS {
            return Err(Error::OutOfRange);
        }
        Ok(Self {
            config,
            guest,
            vits: E::alloc(config.vits, |index| Vits::new(host, index))?,
            vlpis: VlpiTable::new(config.id_bits)?,
            devices: E::Lock::new(Devices::new(allowance)),
            collections: E::alloc(collections, |_| AtomicU16::new(NEVER_MAPPED))?,
            redists: E::alloc(config.vcpus.into(), |_| Redist::new())?,
            common: E::Lock::new(Common { enabled: false }),
            propbaser: AtomicU64::new(PropBaser::new().into()),
            properties: E::Once::new(),
            strays: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            drains: AtomicU32::new(0),
            refreshes: AtomicU32::new(0),
            turn: AtomicU32::new(0),
            unrouted: AtomicU64::new(0),
            useless: AtomicU32::new(0),
            rate: Rate::new(config.lpi_rate),
            watch: AtomicBool::new(false),
            swept: AtomicU32::new(0),
            passed_over: AtomicBool::new(false),
            storms: AtomicU64::new(0),
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

    /// Give back all that refers to the host or to the guest's memory. The
    /// domain is dying, and no vCPU of it runs any more. True if there is more
    /// to give back: call it again, and again when it is done if you like.
    #[must_use]
    pub fn relinquish(&self, host: &Host<E>) -> bool {
        let mut budget = Budget::trap();
        for vits in self.vits.iter() {
            if vits.relinquish(self, host, &mut budget) {
                return true;
            }
        }
        for redist in self.redists.iter() {
            if let Some(lock) = redist.lock.get() {
                // Freed after the lock is released, which has interrupts off.
                let gone = lock.lock().take();
                if gone.is_some_and(|state| state.refresh.is_some()) {
                    self.refreshes.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
        // Whoever reads a property does so with the state just dropped.
        if let Some(table) = self.properties.get() {
            table.release();
        }
        false
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
