// SPDX-License-Identifier: GPL-2.0-only
//! Host LPIs that fire too often: masked on the host, so that they cost
//! nothing, until an interrupt of theirs makes a difference again.
//!
//! A host LPI that is masked and fires is pending in its redistributor until
//! it is unmasked. So the last interrupt always arrives, and an LPI may be
//! masked at any time, for any reason. What matters is that it is unmasked,
//! and that does not depend on why it was masked: an LPI stays masked for as
//! long as an interrupt of it would be wasted ([`Domain::is_wasted`]) or one
//! too many ([`crate::rate`]).
//!
//! When the guest has taken an LPI, its host LPI is looked at at once. All
//! else that may make a difference, of which there is much, has the timer
//! look at all that are masked, a bounded number at a time.

use its_arch::{Lpi, VcpuId};

use crate::domain::Domain;
use crate::env::{Env, Guest};
use crate::host::{Host, HostEntry};
use crate::rate::INTERVAL_NS;
use crate::redist::STORM;
use crate::sync::{Ordering, fence};

/// Until masked LPIs are looked at after the guest did something that may
/// make a difference, in nanoseconds. However often it does so, the look takes
/// a small part of a CPU's time.
const SOON_NS: u64 = 1_000_000;
/// The same if it does nothing. Nobody relies on it.
const REST_NS: u64 = 100_000_000;
/// Masked LPIs that are looked at in one go.
const LOOKS: u32 = 256;
/// As many of them are unmasked in one go.
const UNMASKS: u32 = 64;

/// What became of a host LPI that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// It is not masked, or not the domain's.
    Free,
    /// It stays masked until the guest does something.
    Held,
    /// It stays masked for now: the domain has had its share, or the host ITS
    /// has no room.
    Later,
}

impl<E: Env> Domain<E> {
    /// An event happened that the guest has not mapped, or not to a vCPU that
    /// listens. True: its host LPI had better be masked ([`Self::mask`]). IRQ
    /// context.
    pub fn unmapped(&self) -> bool {
        let count = self.useless.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if !count.is_multiple_of(STORM) {
            return !self.rate.is_open();
        }
        // The domain pays for these, too. Who fires most is most likely to be
        // the one whose turn it is.
        self.rate.take(STORM);
        true
    }

    /// Mask a host LPI whose last interrupt was of no use, or one too many:
    /// [`Self::deliver`] or [`Self::unmapped`] said so. IRQ context, no lock
    /// held.
    pub fn mask(&self, host: &Host<E>, host_lpi: Lpi) {
        if !host.mask(host_lpi, self.config.id) {
            return;
        }
        self.storms.fetch_add(1, Ordering::Relaxed);
        self.watch.store(true, Ordering::Relaxed);
        self.guest.request_tick(INTERVAL_NS);
        // The guest may have taken it since it was found to be of no use. It
        // does that under the vGIC lock, as does this, so either this sees it
        // or the guest's taking it sees `watch`.
        let _masked = self.look_at(host, host_lpi);
    }

    /// Unmask a host LPI, unless its interrupts would be wasted.
    fn look_at(&self, host: &Host<E>, host_lpi: Lpi) -> Look {
        if self.is_wasted(host, host_lpi) {
            return Look::Held;
        }
        if self.rate.is_open() && host.unmask(host_lpi, self.config.id) {
            return Look::Free;
        }
        Look::Later
    }

    /// Would an interrupt of a host LPI change nothing?
    fn is_wasted(&self, host: &Host<E>, host_lpi: Lpi) -> bool {
        let Some(lpi) = host.lpis.vlpi(host_lpi) else { return true };
        let entry = self.vlpis.get(lpi);
        if !self.translates(entry) {
            return true;
        }
        let redist = self.target(entry).and_then(|id| self.redist(id));
        redist.and_then(|redist| redist.with(|state, _| state.would_waste(lpi))).unwrap_or(true)
    }

    /// vCPU `id` has taken LPIs that somebody waits for: [`Self::sync`] said
    /// so. Interrupts off, no lock held.
    pub fn unmask_taken(&self, host: &Host<E>, id: VcpuId) {
        let taken = self.redist(id).and_then(|redist| redist.with(|state, _| state.taken()));
        for lpi in taken.into_iter().flatten().flatten() {
            let entry = self.vlpis.get(lpi);
            let host_lpi = Lpi::new(entry.host_lpi());
            // It may be the LPI of several events, or the last one that was
            // mapped to it may have been unmapped, and its host LPI may be
            // somebody else's by now.
            let is_ours =
                |other: HostEntry| other.domain() == self.config.id && other.vlpi() == lpi.get();
            let only = host_lpi.filter(|host_lpi| {
                entry.events() == 1 && host.lpis.get(*host_lpi).is_some_and(is_ours)
            });
            match only.map(|host_lpi| self.look_at(host, host_lpi)) {
                Some(Look::Free | Look::Held) => {}
                Some(Look::Later) => self.guest.request_tick(INTERVAL_NS),
                None => self.guest.request_tick(SOON_NS),
            }
        }
    }

    /// Something has changed that may make a difference to LPIs that are
    /// masked. Any context.
    pub(crate) fn look_again(&self) {
        // See `tick`.
        fence(Ordering::SeqCst);
        if self.watch.load(Ordering::Relaxed) {
            self.guest.request_tick(SOON_NS);
        }
    }

    /// Look at LPIs that are masked; asked for with
    /// [`Guest::request_tick`]. Softirq context, no lock held.
    pub fn tick(&self, host: &Host<E>) {
        if !self.rate.is_open() {
            return self.guest.request_tick(INTERVAL_NS);
        }
        let mut from = self.swept.load(Ordering::Relaxed);
        if from == 0 {
            // Who masks one from now on says so, and those that are masked
            // are found below.
            self.watch.store(false, Ordering::SeqCst);
            self.passed_over.store(false, Ordering::Relaxed);
        }
        let mut unmasked = 0_u32;
        for _ in 0..LOOKS {
            let Some(host_lpi) = host.next_masked(from) else {
                from = 0;
                break;
            };
            from = host_lpi.index().saturating_add(1);
            if host.lpis.get(host_lpi).is_none_or(|entry| entry.domain() != self.config.id) {
                continue;
            }
            // Either the look below sees what the guest does meanwhile, or
            // the guest's doing sees this.
            self.watch.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            match self.look_at(host, host_lpi) {
                Look::Free => unmasked = unmasked.saturating_add(1),
                Look::Held => {}
                Look::Later => self.passed_over.store(true, Ordering::Relaxed),
            }
            if unmasked == UNMASKS {
                break;
            }
        }
        self.swept.store(from, Ordering::Relaxed);
        if from != 0 {
            self.guest.request_tick(SOON_NS);
        } else if self.passed_over.load(Ordering::Relaxed) {
            self.guest.request_tick(INTERVAL_NS);
        } else if self.watch.load(Ordering::Relaxed) {
            self.guest.request_tick(REST_NS);
        }
    }

    /// How often a host LPI was masked, and how many are.
    pub(crate) fn masked(&self, host: &Host<E>) -> (u64, u64) {
        let mut masked = 0_u64;
        let mut from = 0;
        while let Some(lpi) = host.next_masked(from) {
            if host.lpis.get(lpi).is_some_and(|entry| entry.domain() == self.config.id) {
                masked = masked.saturating_add(1);
            }
            from = lpi.index().saturating_add(1);
        }
        (self.storms.load(Ordering::Relaxed), masked)
    }
}
