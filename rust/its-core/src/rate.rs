// SPDX-License-Identifier: GPL-2.0-only
//! How many interrupts a domain's devices may raise.
//!
//! A vCPU takes the right to a few interrupts at a time from what the domain
//! has. Only who finds that there is nothing left reads the clock.

use core::marker::PhantomData;

use bitfield_struct::bitfield;

use crate::env::Env;
use crate::sync::{AtomicU64, Ordering};

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
pub(crate) const PORTION: u32 = 64;

/// Nanoseconds in a unit of [`Left::since`], as a power of two.
const UNIT: u32 = 10;
/// [`INTERVAL_NS`] in these.
const INTERVAL: u64 = INTERVAL_NS >> UNIT;
/// What [`Left::since`] can hold.
const TIME: u64 = 0xffff_ffff;

/// What is left of a domain's share, and when the share was last renewed: in
/// one word, so that nobody sees one without the other.
#[bitfield(u64)]
struct Left {
    interrupts: u32,
    /// The time in units of 2^[`UNIT`] ns. It wraps after more than an hour: who
    /// comes just then waits for another interval.
    #[bits(32)]
    since: u64,
}

/// The interrupts that a domain may have.
pub struct Rate<E: Env> {
    share: u32,
    /// A [`Left`].
    left: AtomicU64,
    env: PhantomData<E>,
}

impl<E: Env> Rate<E> {
    /// `rate` interrupts a second.
    pub(crate) fn new(rate: Option<u32>) -> Self {
        let share = (rate.unwrap_or(DEFAULT) / PER_SECOND).max(1);
        let left = Left::new().with_interrupts(share);
        Self { share, left: AtomicU64::new(left.into()), env: PhantomData }
    }

    /// Take the right to some interrupts, `most` at most; 0: none now. IRQ
    /// context.
    pub(crate) fn take(&self, most: u32) -> u32 {
        let mut known = self.left.load(Ordering::Relaxed);
        loop {
            let Some(left) = self.renewed(known.into()) else { return 0 };
            let portion = left.interrupts().min(most);
            let rest = left.with_interrupts(left.interrupts().saturating_sub(portion));
            let (now, relaxed) = (rest.into(), Ordering::Relaxed);
            match self.left.compare_exchange(known, now, relaxed, relaxed) {
                Ok(_) => return portion,
                Err(other) => known = other,
            }
        }
    }

    /// Is there something to take? IRQ context.
    pub(crate) fn is_open(&self) -> bool {
        self.renewed(self.left.load(Ordering::Relaxed).into()).is_some()
    }

    /// What there is to take from: what is left, or a new share if it is time
    /// for one.
    fn renewed(&self, left: Left) -> Option<Left> {
        if left.interrupts() != 0 {
            return Some(left);
        }
        let now = E::now() >> UNIT;
        let passed = now.wrapping_sub(left.since()) & TIME;
        let renewed = Left::new().with_interrupts(self.share).with_since(now & TIME);
        (passed >= INTERVAL).then_some(renewed)
    }
}
