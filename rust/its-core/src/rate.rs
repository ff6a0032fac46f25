// SPDX-License-Identifier: GPL-2.0-only
//! How many interrupts a domain's devices may raise.
//!
//! A vCPU takes the right to a few interrupts at a time from what the domain
//! has. Only who finds that there is nothing left reads the clock.

use core::marker::PhantomData;

use crate::env::Env;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Interrupts in a second, unless configured otherwise. At some 2000
/// instructions for each, in EL2, this is a fraction of what a CPU can do, and
/// more than storage and network devices raise, which coalesce theirs.
pub const DEFAULT: u32 = 200_000;
/// The share of a second for which a domain gets the right to interrupts at
/// once, in nanoseconds.
pub(crate) const INTERVAL_NS: u64 = 10_000_000;
/// Such intervals in a second.
const PER_SECOND: u32 = 100;
/// What a vCPU takes at a time. As many more than its share the domain can
/// get for each vCPU.
const PORTION: u32 = 64;

/// What is left of a domain's share.
pub struct Rate<E: Env> {
    share: u32,
    left: AtomicU32,
    /// When the share was last renewed.
    since: AtomicU64,
    env: PhantomData<E>,
}

impl<E: Env> Rate<E> {
    /// `rate` interrupts a second.
    pub(crate) fn new(rate: Option<u32>) -> Self {
        let share = (rate.unwrap_or(DEFAULT) / PER_SECOND).max(1);
        Self { share, left: AtomicU32::new(share), since: AtomicU64::new(0), env: PhantomData }
    }

    /// Take the right to some interrupts; 0: none now. IRQ context.
    pub(crate) fn take(&self) -> u32 {
        loop {
            let left = self.left.load(Ordering::Relaxed);
            let portion = left.min(PORTION);
            if portion == 0 {
                if self.renew() {
                    continue;
                }
                return 0;
            }
            let rest = left.saturating_sub(portion);
            let taken =
                self.left.compare_exchange(left, rest, Ordering::Relaxed, Ordering::Relaxed);
            if taken.is_ok() {
                return portion;
            }
        }
    }

    /// Is there something to take? IRQ context.
    pub(crate) fn is_open(&self) -> bool {
        self.left.load(Ordering::Relaxed) != 0 || self.renew()
    }

    /// A new share, if it is time for one.
    fn renew(&self) -> bool {
        let now = E::now();
        let since = self.since.load(Ordering::Relaxed);
        if now.saturating_sub(since) < INTERVAL_NS {
            // Somebody else may have been quicker.
            return self.left.load(Ordering::Relaxed) != 0;
        }
        let ours = self.since.compare_exchange(since, now, Ordering::Relaxed, Ordering::Relaxed);
        if ours.is_ok() {
            self.left.store(self.share, Ordering::Relaxed);
        }
        true
    }
}
