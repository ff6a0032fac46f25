// SPDX-License-Identifier: GPL-2.0-only
//! A bitmap that is searched quickly: one bit an LPI, and above it a summary
//! with one bit for each word that is not zero.
//!
//! `bitvec` would do for the bits, but not for the summary, and its setters
//! panic; see ARCHITECTURE.md.

use crate::Error;
use crate::env::Env;

/// A set of numbers below a fixed length.
pub(crate) struct Bitmap<E: Env> {
    words: E::Buf<u64>,
    summary: E::Buf<u64>,
    count: u32,
}

/// Word and bit that stand for `index`.
const fn place(index: u32) -> (usize, u64) {
    #[expect(clippy::as_conversions, reason = "u32 to usize does not lose bits on 64-bit targets")]
    let word = (index >> 6) as usize;
    (word, 1 << (index & 63))
}

/// Number of words for `len` bits.
const fn words_for(len: u32) -> usize {
    place(len.saturating_add(63)).0
}

impl<E: Env> Bitmap<E> {
    /// An empty set of numbers below `len`.
    pub(crate) fn new(len: u32) -> Result<Self, Error> {
        let words = words_for(len);
        let groups = words_for(u32::try_from(words).map_err(|_| Error::OutOfRange)?);
        Ok(Self { words: E::alloc(words, |_| 0)?, summary: E::alloc(groups, |_| 0)?, count: 0 })
    }

    /// How many numbers are in it.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Is `index` in it? `None` if it is out of range.
    pub(crate) fn contains(&self, index: u32) -> Option<bool> {
        let (word, bit) = place(index);
        self.words.get(word).map(|value| *value & bit != 0)
    }

    /// Put `index` in. False if it was, or is out of range.
    #[inline(always)]
    pub(crate) fn set(&mut self, index: u32) -> bool {
        let (word, bit) = place(index);
        let Some(value) = self.words.get_mut(word) else { return false };
        if *value & bit != 0 {
            return false;
        }
        *value |= bit;
        self.count = self.count.wrapping_add(1);
        let (group, mark) = place(index >> 6);
        if let Some(summary) = self.summary.get_mut(group) {
            *summary |= mark;
        }
        true
    }

    /// Put `first` and the 63 numbers after it in, as far as their bits in
    /// `bits` are set. `first` is a multiple of 64.
    pub(crate) fn set_word(&mut self, first: u32, bits: u64) {
        let (word, _) = place(first);
        let Some(value) = self.words.get_mut(word) else { return };
        let added = bits & !*value;
        *value |= added;
        self.count = self.count.saturating_add(added.count_ones());
        let (group, mark) = place(first >> 6);
        if let Some(summary) = self.summary.get_mut(group)
            && *value != 0
        {
            *summary |= mark;
        }
    }

    /// Take `index` out. False if it was not in.
    #[inline]
    pub(crate) fn clear(&mut self, index: u32) -> bool {
        self.count != 0 && self.clear_slow(index)
    }

    #[inline(never)]
    fn clear_slow(&mut self, index: u32) -> bool {
        let (word, bit) = place(index);
        let Some(value) = self.words.get_mut(word) else { return false };
        if *value & bit == 0 {
            return false;
        }
        *value &= !bit;
        self.count = self.count.saturating_sub(1);
        if *value == 0 {
            let (group, mark) = place(index >> 6);
            if let Some(summary) = self.summary.get_mut(group) {
                *summary &= !mark;
            }
        }
        true
    }

    /// The numbers from `from` on that share a word with the first of them:
    /// bit `n` is that word's first number, which comes with it, and `n`.
    pub(crate) fn next_word(&self, from: u32) -> Option<(u32, u64)> {
        let next = self.next(from)?;
        let (word, _) = place(next);
        let bits = self.words.get(word)? & (u64::MAX << (next & 63));
        Some((next & !63, bits))
    }

    /// The lowest number in the set that is `from` or above.
    pub(crate) fn next(&self, from: u32) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        let (word, _) = place(from);
        let rest = self.words.get(word)? & (u64::MAX << (from & 63));
        if rest != 0 {
            return Some((from & !63) | rest.trailing_zeros());
        }
        let mut next_word = (from >> 6).checked_add(1)?;
        loop {
            let (group, _) = place(next_word);
            let rest = self.summary.get(group)? & (u64::MAX << (next_word & 63));
            if rest != 0 {
                let found = (next_word & !63) | rest.trailing_zeros();
                let (word, _) = place(found << 6);
                let value = self.words.get(word)?;
                return Some((found << 6) | (value.trailing_zeros() & 63));
            }
            next_word = (next_word | 63).checked_add(1)?;
        }
    }
}
