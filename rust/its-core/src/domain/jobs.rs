// SPDX-License-Identifier: GPL-2.0-only
//! What takes more than one step: commands that look at many LPIs, or that
//! issue many host commands.
//!
//! A virtual ITS has one job at most, under its registers' lock while a step
//! is taken. Until it is done no other command is executed, and no device of
//! that virtual ITS comes or goes.

use its_arch::{DeviceId, VcpuId};

use crate::Error;
use crate::budget::{Budget, COMMAND, Step};
use crate::domain::Domain;
use crate::domain::devices::DeviceJob;
use crate::env::{Env, Lock, Once, SLOTS};
use crate::host::Host;
use crate::redist::{Displaced, Heir, Redist};
use crate::sync::{Ordering, fence};

/// A batch of LPIs, in units of the budget.
#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "a small constant")]
const BATCH: u32 = SLOTS as u32;

/// vCPUs on which a command looks for an LPI, for a unit of the budget.
const VISITS: u32 = 4;

/// What it costs to read the properties of the disabled LPIs in a word, of which
/// so many were enabled.
fn word_cost(enabled: u32) -> u32 {
    enabled.saturating_add(4)
}

/// A job in progress.
pub(crate) enum Job<E: Env> {
    /// INVALL.
    Refresh(Refresh),
    /// MOVALL, MAPC.
    Drain(Drain),
    /// MAPD.
    Device(DeviceJob<E>),
    /// GITS_BASER<n>.Valid of the device table is cleared.
    ForgetDevices(ForgetDevices<E>),
}

impl<E: Env> Job<E> {
    /// Go on. Trap context.
    ///
    /// # Errors
    /// Those of [`DeviceJob::advance`].
    pub(crate) fn advance(
        self,
        domain: &Domain<E>,
        host: &Host<E>,
        budget: &mut Budget,
    ) -> Step<Self, Result<(), Error>> {
        match self {
            Self::Refresh(refresh) => match refresh.advance(domain, budget) {
                Step::More(rest) => Step::More(Self::Refresh(rest)),
                Step::Done(()) => Step::Done(Ok(())),
            },
            Self::Drain(drain) => match drain.advance(domain, budget) {
                Step::More(rest) => Step::More(Self::Drain(rest)),
                Step::Done(()) => Step::Done(Ok(())),
            },
            Self::Device(device) => match device.advance(domain, host, budget) {
                Step::More(rest) => Step::More(Self::Device(rest)),
                Step::Done(result) => Step::Done(result),
            },
            Self::ForgetDevices(forget) => match forget.advance(domain, host, budget) {
                Step::More(rest) => Step::More(Self::ForgetDevices(rest)),
                Step::Done(()) => Step::Done(Ok(())),
            },
        }
    }
}

/// Re-reading the properties of the LPIs that are pending on a vCPU and
/// disabled, in order of their numbers.
pub(crate) struct Refresh {
    vcpu: VcpuId,
    from: u32,
    /// After that, the same on all vCPUs from this one on.
    others: Option<u16>,
}

impl Refresh {
    pub(super) const fn new(vcpu: VcpuId) -> Self {
        Self { vcpu, from: 0, others: None }
    }

    fn advance<E: Env>(mut self, domain: &Domain<E>, budget: &mut Budget) -> Step<Self, ()> {
        while !budget.is_spent() {
            let Some(redist) = domain.redist(self.vcpu) else { return Step::Done(()) };
            if let Some(next) = domain.refresh_word(redist, self.from, budget) {
                self.from = next;
                continue;
            }
            let Some(next) = self.others else { return Step::Done(()) };
            let Some(redist) = domain.redist(VcpuId::new(next)) else { return Step::Done(()) };
            domain.refresh_slots(redist);
            budget.spend(BATCH);
            self = Self { vcpu: VcpuId::new(next), from: 0, others: next.checked_add(1) };
        }
        Step::More(self)
    }
}

/// Which LPIs leave a vCPU, and where they go.
#[derive(Clone, Copy)]
pub(super) enum Leaving {
    /// Those of a collection, counted through all virtual ITSes; wherever it
    /// is mapped to (MAPC).
    Collection(u16),
    /// All, to this vCPU (MOVALL).
    All(VcpuId),
}

/// LPIs leave a vCPU: first those in the bitmaps, in order of their numbers,
/// then those in slots. From its making to its end, LPIs of that vCPU do not
/// step back from a slot into the bitmaps, where it has already looked; if they
/// had to, because the vCPU went off or they were disabled, it looks once more.
pub(crate) struct Drain {
    vcpu: VcpuId,
    leaving: Leaving,
    /// What has just left a list register may be on its way to the vCPU, but
    /// for those of the vCPUs before this one.
    arrivals: Option<u16>,
    /// Where to go on in the bitmaps.
    from: Option<u32>,
    /// See [`LpiState::begin_drain`].
    since: u32,
}

impl Drain {
    fn advance<E: Env>(mut self, domain: &Domain<E>, budget: &mut Budget) -> Step<Self, ()> {
        let Some(redist) = domain.redist(self.vcpu) else { return Step::Done(()) };
        let (collection, heir) = match self.leaving {
            Leaving::Collection(collection) => (Some(collection), None),
            Leaving::All(heir) => (None, Some(heir)),
        };
        let wanted = |lpi| {
            collection.is_none_or(|collection| {
                let entry = domain.vlpis.get(lpi);
                entry.mapped() && entry.collection() == collection
            })
        };
        if !self.all_have_arrived(domain) {
            return Step::More(self);
        }
        while !budget.is_spent() {
            // Nobody unmaps an LPI while it is on its way to its heir, which
            // gets it whether it is mapped or not.
            let _devices = heir.map(|_| domain.devices.lock());
            let mut displaced = Displaced::new();
            let mut since = self.since;
            let from = redist.with(|state, vcpu| match self.from {
                Some(from) => Some(state.take_waiting(from, &mut displaced, wanted)),
                None => {
                    let heir_of = |lpi| heir.map(|vcpu| Heir::new(vcpu, domain.vlpis.get(lpi)));
                    since = state.end_drain(vcpu, since, heir_of, &mut displaced, wanted)?;
                    Some(Some(0))
                }
            });
            self.since = since;
            budget.spend(BATCH);
            for (lpi, _) in displaced.iter() {
                if !heir.is_some_and(|heir| domain.raise_on(heir, lpi)) {
                    domain.restore(redist, lpi);
                }
            }
            if displaced.kick {
                redist.kick();
            }
            match from.flatten() {
                Some(from) => self.from = from,
                None => {
                    domain.end_looking_everywhere();
                    return Step::Done(());
                }
            }
        }
        Step::More(self)
    }

    /// Is everything where it went that had left a list register before?
    fn all_have_arrived<E: Env>(&mut self, domain: &Domain<E>) -> bool {
        while let Some(next) = self.arrivals {
            let origin = domain.redist(VcpuId::new(next));
            if origin.is_some_and(Redist::is_moving) {
                // Its CPU is about to enter the guest, with interrupts off.
                return false;
            }
            self.arrivals = origin.and(next.checked_add(1));
        }
        true
    }
}

/// All devices of a virtual ITS are unmapped.
pub(crate) struct ForgetDevices<E: Env> {
    vits: u16,
    /// The DeviceIDs from here on are left.
    from: Option<DeviceId>,
    current: Option<DeviceJob<E>>,
}

impl<E: Env> ForgetDevices<E> {
    pub(crate) fn new(vits: u16) -> Self {
        Self { vits, from: Some(DeviceId::new(0)), current: None }
    }

    fn advance(
        mut self,
        domain: &Domain<E>,
        host: &Host<E>,
        budget: &mut Budget,
    ) -> Step<Self, ()> {
        loop {
            if let Some(job) = self.current.take() {
                match job.advance(domain, host, budget) {
                    Step::More(rest) => {
                        self.current = Some(rest);
                        return Step::More(self);
                    }
                    // Unmapping has no errors.
                    Step::Done(_) => budget.spend(1),
                }
            }
            if budget.is_spent() {
                return Step::More(self);
            }
            let next = self.from.and_then(|from| domain.next_device(self.vits, from));
            let Some(device) = next else { return Step::Done(()) };
            self.from = device.get().checked_add(1).map(DeviceId::new);
            self.current = domain.unmap_device(self.vits, device);
        }
    }
}

impl<E: Env> Domain<E> {
    /// All properties of LPIs of a vCPU may have changed (INVALL): slots first,
    /// the rest is a job.
    pub(crate) fn refresh(&self, id: VcpuId) -> Option<Refresh> {
        let redist = self.redist(id)?;
        let waiting = self.refresh_slots(redist);
        if self.may_be_anywhere() {
            return Some(Refresh { others: Some(0), ..Refresh::new(id) });
        }
        waiting.then_some(Refresh::new(id))
    }

    /// Give back the slots of LPIs that are disabled by now. False if none
    /// waits outside the slots for its property to be read.
    fn refresh_slots(&self, redist: &Redist<E>) -> bool {
        let Some(table) = self.properties.get() else { return false };
        let mut displaced = Displaced::new();
        let dormant = redist.with(|state, vcpu| {
            let (_, dormant) = state.waiting();
            state.refresh_slots(vcpu, table, &mut displaced);
            dormant != 0
        });
        self.replace(redist, &displaced);
        dormant == Some(true)
    }

    /// Re-read the properties of a word of LPIs that are disabled. Where to
    /// go on, if there are more.
    fn refresh_word(&self, redist: &Redist<E>, from: u32, budget: &mut Budget) -> Option<u32> {
        let table = self.properties.get()?;
        let refreshed = redist.with(|state, vcpu| {
            state.refresh_word(vcpu, table, from, |lpi| self.vlpis.get(lpi).mapped())
        })?;
        if refreshed.kick {
            redist.kick();
        }
        budget.spend(word_cost(refreshed.enabled));
        refreshed.next
    }

    /// All properties of LPIs of a vCPU may have changed, and that vCPU's
    /// redistributor finds out by itself (GICR_INVALLR, EnableLPIs). True if
    /// it takes until [`Self::work`].
    pub(crate) fn refresh_redist(&self, id: VcpuId) -> bool {
        let Some(redist) = self.redist(id) else { return false };
        if self.refresh_slots(redist) {
            redist.with(|state, _| {
                if state.refresh.replace(0).is_none() {
                    self.refreshes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        self.work_on_redists()
    }

    /// Go on with what [`Self::refresh_redist`] has left over, one batch for
    /// all redistributors. True if there is more.
    pub(crate) fn work_on_redists(&self) -> bool {
        if self.refreshes.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let Some(table) = self.properties.get() else { return false };
        let mut budget = Budget::trap();
        for redist in self.redists.iter() {
            while !budget.is_spent() {
                let refreshed = redist.with(|state, vcpu| {
                    let from = state.refresh?;
                    let mapped = |lpi| self.vlpis.get(lpi).mapped();
                    let refreshed = state.refresh_word(vcpu, table, from, mapped);
                    state.refresh = refreshed.next;
                    if state.refresh.is_none() {
                        self.refreshes.fetch_sub(1, Ordering::Relaxed);
                    }
                    Some(refreshed)
                });
                let Some(refreshed) = refreshed.flatten() else { break };
                if refreshed.kick {
                    redist.kick();
                }
                budget.spend(word_cost(refreshed.enabled));
            }
        }
        self.refreshes.load(Ordering::Relaxed) != 0
    }

    /// The LPIs of `leaving` are about to leave vCPU `id`, and what changes
    /// their mapping follows. `None` if there are none.
    pub(super) fn drain(&self, id: VcpuId, leaving: Leaving) -> Option<Drain> {
        let redist = self.redist(id)?;
        // Before the mapping changes.
        self.begin_looking_everywhere();
        let Some(since) = redist.with(|state, _| state.begin_drain()) else {
            self.end_looking_everywhere();
            return None;
        };
        Some(Drain { vcpu: id, leaving, arrivals: Some(0), from: Some(0), since })
    }

    /// LPIs are on their way: who looks for one looks everywhere from now on.
    pub(super) fn begin_looking_everywhere(&self) {
        self.drains.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// All of them have arrived. Those that are not mapped to where they are
    /// have been counted as strays.
    pub(super) fn end_looking_everywhere(&self) {
        self.drains.fetch_sub(1, Ordering::Release);
    }

    /// An LPI may be pending elsewhere than where it is mapped to.
    pub(super) fn may_be_anywhere(&self) -> bool {
        self.is_draining() || self.has_strays()
    }

    /// LPIs are on their way from one vCPU to another.
    pub(super) fn is_draining(&self) -> bool {
        fence(Ordering::SeqCst);
        // Who sees that all have arrived sees what was counted as a stray.
        self.drains.load(Ordering::Acquire) != 0
    }

    /// What a command costs that looks for an LPI, in units of the budget.
    pub(crate) fn lookup_cost(&self) -> u32 {
        let all = u32::from(self.config.vcpus) / VISITS;
        if self.may_be_anywhere() {
            all
        } else if all < COMMAND {
            // As much as any command may do.
            0
        } else {
            // Those that have LPIs to give back.
            let leaving = self.redists.iter().filter(|redist| redist.is_leaving()).count();
            u32::try_from(leaving).map_or(all, |leaving| leaving / VISITS)
        }
    }
}
