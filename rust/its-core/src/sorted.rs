// SPDX-License-Identifier: GPL-2.0-only
//! A map in sorted arrays: few insertions, many look-ups.
//!
//! None of the arrays has more than [`LEAF`] entries, so what an insertion
//! moves and allocates does not grow with the map; but for the array of
//! arrays, which is shorter by that much.

use core::cmp::Ordering;

use crate::Error;
use crate::env::Env;

/// Entries an array starts with.
const FIRST_CAPACITY: usize = 8;
/// Most entries in an array of the map's: then it becomes two.
const LEAF: usize = 64;
/// Two neighbours become one that have so few entries together.
const FEW: usize = LEAF / 2;

/// Bring the last element to the front. `rotate_right` of the library holds a
/// panic that the compiler cannot rule out.
fn rotate_right<T>(slice: &mut [T]) {
    slice.reverse();
    if let Some(rest) = slice.get_mut(1..) {
        rest.reverse();
    }
}

/// Bring the first element to the end.
fn rotate_left<T>(slice: &mut [T]) {
    if let Some(rest) = slice.get_mut(1..) {
        rest.reverse();
    }
    slice.reverse();
}

/// Move what is in `from` to `to`, which is as long at least, and empty.
fn move_all<T>(from: &mut [Option<T>], to: &mut [Option<T>]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.take();
    }
}

/// Keys with a value each, in a sorted array.
struct Sorted<K: Copy + Ord + Send + Sync, V: Send + Sync, E: Env> {
    /// `Some` up to `len`, ordered by key; `None` from there on.
    entries: Option<E::Buf<Option<(K, V)>>>,
    len: usize,
}

impl<K: Copy + Ord + Send + Sync, V: Send + Sync, E: Env> Sorted<K, V, E> {
    /// An empty one. Does not allocate.
    const fn new() -> Self {
        Self { entries: None, len: 0 }
    }

    fn slots(&self) -> &[Option<(K, V)>] {
        self.entries.as_ref().and_then(|entries| entries.get(..self.len)).unwrap_or(&[])
    }

    /// The slots in `range`, which is within the capacity.
    fn slots_mut(&mut self, range: core::ops::Range<usize>) -> &mut [Option<(K, V)>] {
        self.entries.as_mut().and_then(|entries| entries.get_mut(range)).unwrap_or(&mut [])
    }

    fn position(&self, key: K) -> Result<usize, usize> {
        self.slots().binary_search_by(|slot| {
            slot.as_ref().map_or(Ordering::Greater, |(found, _)| found.cmp(&key))
        })
    }

    fn at(&self, index: usize) -> Option<(K, &V)> {
        self.slots().get(index)?.as_ref().map(|(key, value)| (*key, value))
    }

    fn value_mut(&mut self, index: usize) -> Option<&mut V> {
        let slots = self.slots_mut(0..self.len);
        slots.get_mut(index)?.as_mut().map(|(_, value)| value)
    }

    /// Make room for `more` entries.
    fn reserve(&mut self, more: usize) -> Result<(), Error> {
        let capacity = self.entries.as_ref().map_or(0, |entries| entries.len());
        let needed = self.len.saturating_add(more);
        if needed <= capacity {
            return Ok(());
        }
        let wider = capacity.saturating_mul(2).max(FIRST_CAPACITY).max(needed);
        let mut wider = E::alloc(wider, |_| None)?;
        move_all(self.slots_mut(0..self.len), &mut wider);
        self.entries = Some(wider);
        Ok(())
    }

    /// Put an entry in at `index`, where its key belongs. There is room.
    fn insert(&mut self, index: usize, key: K, value: V) {
        let len = self.len.saturating_add(1);
        // The slot at the end is free: bring it to the front of the tail.
        let tail = self.slots_mut(index..len);
        rotate_right(tail);
        if let Some(slot) = tail.first_mut() {
            *slot = Some((key, value));
            self.len = len;
        }
    }

    /// Take out the entry at `index`.
    fn remove(&mut self, index: usize) -> Option<V> {
        let tail = self.slots_mut(index..self.len);
        let (_, value) = tail.first_mut()?.take()?;
        rotate_left(tail);
        self.len = self.len.saturating_sub(1);
        Some(value)
    }

    /// The entries from `index` on, in an array with room for `capacity`.
    fn split(&mut self, index: usize, capacity: usize) -> Result<Self, Error> {
        let mut upper = Self::new();
        upper.reserve(capacity)?;
        let count = self.len.saturating_sub(index);
        move_all(self.slots_mut(index..self.len), upper.slots_mut(0..count));
        upper.len = count;
        self.len = index;
        Ok(upper)
    }

    /// Take over the entries of `upper`, which are all above one's own. There
    /// is room.
    fn append(&mut self, mut upper: Self) {
        let len = self.len.saturating_add(upper.len);
        move_all(upper.slots_mut(0..upper.len), self.slots_mut(self.len..len));
        self.len = len;
    }
}

/// A map from `K` to `V`.
pub(crate) struct SortedMap<K: Copy + Ord + Send + Sync, V: Send + Sync, E: Env> {
    /// Each has the keys from its own, the first one those below, too. None is
    /// empty if there are several, all of which then have room for [`LEAF`].
    leaves: Sorted<Option<K>, Sorted<K, V, E>, E>,
    len: usize,
}

impl<K: Copy + Ord + Send + Sync, V: Send + Sync, E: Env> SortedMap<K, V, E> {
    /// An empty map. Does not allocate.
    pub(crate) const fn new() -> Self {
        Self { leaves: Sorted::new(), len: 0 }
    }

    /// Where among the leaves the one for `key` is, if there are any.
    fn leaf(&self, key: K) -> usize {
        let others = self.leaves.slots().get(1..).unwrap_or(&[]);
        others.partition_point(|leaf| leaf.as_ref().is_some_and(|(from, _)| *from <= Some(key)))
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many entries one that is put in or taken out moves at most, and how
    /// many arrays.
    pub(crate) fn moves(&self) -> usize {
        self.len.min(LEAF).saturating_add(self.leaves.len)
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        let (_, leaf) = self.leaves.at(self.leaf(key))?;
        let (_, value) = leaf.at(leaf.position(key).ok()?)?;
        Some(value)
    }

    /// The value of `key`, to change.
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let at = self.leaf(key);
        let leaf = self.leaves.value_mut(at)?;
        leaf.value_mut(leaf.position(key).ok()?)
    }

    /// The first entry whose key is `key` or above.
    pub(crate) fn next(&self, key: K) -> Option<(K, &V)> {
        let at = self.leaf(key);
        let (_, leaf) = self.leaves.at(at)?;
        leaf.at(leaf.position(key).unwrap_or_else(|at| at)).or_else(|| {
            let (_, leaf) = self.leaves.at(at.saturating_add(1))?;
            leaf.at(0)
        })
    }

    /// Make room for `key`, so that [`Self::insert`] cannot fail.
    pub(crate) fn reserve(&mut self, key: K) -> Result<(), Error> {
        let at = self.leaf(key);
        if self.leaves.at(at).is_none_or(|(_, leaf)| leaf.len == LEAF) {
            // Not before: the list may be full when there is room for the key.
            self.leaves.reserve(1)?;
        }
        if self.leaves.len == 0 {
            self.leaves.insert(0, None, Sorted::new());
        }
        let Some(leaf) = self.leaves.value_mut(at) else { return Err(Error::OutOfRange) };
        if leaf.len < LEAF {
            return leaf.reserve(1);
        }
        let upper = leaf.split(LEAF / 2, LEAF)?;
        let first = upper.at(0).map(|(key, _)| key);
        self.leaves.insert(at.saturating_add(1), first, upper);
        Ok(())
    }

    /// Add an entry that is not there yet.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Result<(), Error> {
        self.reserve(key)?;
        let at = self.leaf(key);
        let Some(leaf) = self.leaves.value_mut(at) else { return Err(Error::OutOfRange) };
        let Err(at) = leaf.position(key) else { return Err(Error::Exists) };
        leaf.insert(at, key, value);
        self.len = self.len.saturating_add(1);
        Ok(())
    }

    /// Take an entry out.
    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let at = self.leaf(key);
        let leaf = self.leaves.value_mut(at)?;
        let value = leaf.remove(leaf.position(key).ok()?)?;
        self.len = self.len.saturating_sub(1);
        if !self.join(at) {
            self.join(at.wrapping_sub(1));
        }
        Some(value)
    }

    /// Make one of the leaf at `at` and the next, if both exist and that is
    /// small, or one of them is empty. False: they are as they were.
    fn join(&mut self, at: usize) -> bool {
        let after = at.wrapping_add(1);
        let len = |at| self.leaves.at(at).map(|(_, leaf)| leaf.len);
        let (Some(lower), Some(upper)) = (len(at), len(after)) else { return false };
        if lower != 0 && upper != 0 && lower.saturating_add(upper) > FEW {
            return false;
        }
        let upper = self.leaves.remove(after);
        if let (Some(lower), Some(upper)) = (self.leaves.value_mut(at), upper) {
            lower.append(upper);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_element_goes_to_the_other_end() {
        for len in 0..5 {
            let mut slice: [u8; 5] = [0, 1, 2, 3, 4];
            let slice = &mut slice[..len];
            let mut wanted: [u8; 5] = [0, 1, 2, 3, 4];
            let wanted = &mut wanted[..len];
            wanted.rotate_right(len.min(1));
            rotate_right(slice);
            assert_eq!(slice, wanted);
            rotate_left(slice);
            assert!(slice.is_sorted());
        }
    }
}
