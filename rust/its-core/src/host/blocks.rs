// SPDX-License-Identifier: GPL-2.0-only
//! Which blocks of host LPIs are free, a bit each. A search looks at each word
//! once, whatever is free.

use crate::Error;
use crate::env::Env;

/// Blocks in a word.
const WORD: u32 = 64;

/// A number of blocks, some of which are free.
pub(super) struct Blocks<E: Env> {
    free: E::Buf<u64>,
    used: u32,
}

/// The lowest `count` bits of a word.
const fn ones(count: u32) -> u64 {
    match u64::MAX.checked_shr(WORD.saturating_sub(count)) {
        Some(ones) => ones,
        None => 0,
    }
}

/// Where in a word `count` bits in a row are set that begin at a multiple of
/// `count`, a power of two of at most 64.
fn runs(word: u64, count: u32) -> u64 {
    let (mut runs, mut length) = (word, 1_u32);
    while length < count {
        runs &= runs.wrapping_shr(length);
        length = length.saturating_mul(2);
    }
    runs & u64::MAX.checked_div(ones(count)).unwrap_or(0)
}

impl<E: Env> Blocks<E> {
    /// So many blocks, all of them free.
    pub(super) fn new(count: u32) -> Result<Self, Error> {
        let words = usize::try_from(count.div_ceil(WORD)).map_err(|_| Error::OutOfRange)?;
        let mut left = count;
        let free = E::alloc(words, |_| {
            let here = left.min(WORD);
            left = left.saturating_sub(here);
            ones(here)
        })?;
        Ok(Self { free, used: 0 })
    }

    /// How many are not free.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// Take the first `count` blocks in a row that begin at a multiple of
    /// `count`, a power of two: aligned runs keep large holes whole.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        let words = usize::try_from(count.div_ceil(WORD)).ok()?;
        let mut at = 0_usize;
        loop {
            let run = self.free.get_mut(at..at.checked_add(words)?)?;
            let starts =
                run.iter().fold(u64::MAX, |starts, word| starts & runs(*word, count.min(WORD)));
            if starts != 0 {
                let bit = starts.trailing_zeros();
                run.iter_mut().for_each(|word| *word &= !ones(count).wrapping_shl(bit));
                self.used = self.used.saturating_add(count);
                return u32::try_from(at).ok()?.checked_mul(WORD)?.checked_add(bit);
            }
            at = at.checked_add(words)?;
        }
    }

    /// Give back what [`Self::take`] gave.
    pub(super) fn give(&mut self, first: u32, count: u32) {
        let words = first / WORD..(first / WORD).saturating_add(count.div_ceil(WORD));
        for word in words {
            let at = usize::try_from(word).unwrap_or(usize::MAX);
            if let Some(word) = self.free.get_mut(at) {
                *word |= ones(count).wrapping_shl(first % WORD);
            }
        }
        self.used = self.used.saturating_sub(count);
    }
}
