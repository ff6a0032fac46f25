// SPDX-License-Identifier: GPL-2.0-only
//! A map in a sorted array: few insertions, many look-ups.

use core::cmp::Ordering;

use crate::Error;
use crate::env::Env;

/// Entries the array starts with.
const FIRST_CAPACITY: usize = 8;

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

/// A map from `K` to `V`.
pub(crate) struct SortedMap<K: Copy + Ord + Send + Sync, V: Send + Sync, E: Env> {
    /// `Some` up to `len`, ordered by key; `None` from there on.
    entries: Option<E::Buf<Option<(K, V)>>>,
    len: usize,
}

impl<K: Copy + Ord + Send + Sync, V: Send + Sync, E: Env> SortedMap<K, V, E> {
    /// An empty map. Does not allocate.
    pub(crate) const fn new() -> Self {
        Self { entries: None, len: 0 }
    }

    fn slots(&self) -> &[Option<(K, V)>] {
        self.entries.as_ref().and_then(|entries| entries.get(..self.len)).unwrap_or(&[])
    }

    fn slots_mut(&mut self) -> &mut [Option<(K, V)>] {
        self.entries.as_mut().and_then(|entries| entries.get_mut(..self.len)).unwrap_or(&mut [])
    }

    fn position(&self, key: K) -> Result<usize, usize> {
        self.slots().binary_search_by(|slot| {
            slot.as_ref().map_or(Ordering::Greater, |(found, _)| found.cmp(&key))
        })
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        let at = self.position(key).ok()?;
        self.slots().get(at)?.as_ref().map(|(_, value)| value)
    }

    /// The value of `key`, to change.
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let at = self.position(key).ok()?;
        self.slots_mut().get_mut(at)?.as_mut().map(|(_, value)| value)
    }

    /// The first entry whose key is `key` or above.
    pub(crate) fn next(&self, key: K) -> Option<(K, &V)> {
        let at = self.position(key).unwrap_or_else(|at| at);
        self.slots().get(at)?.as_ref().map(|(key, value)| (*key, value))
    }

    /// Make room for one more entry, so that the next [`Self::insert`] cannot
    /// fail.
    pub(crate) fn reserve(&mut self) -> Result<(), Error> {
        let capacity = self.entries.as_ref().map_or(0, |entries| entries.len());
        if self.len < capacity {
            return Ok(());
        }
        let mut wider = E::alloc(capacity.saturating_mul(2).max(FIRST_CAPACITY), |_| None)?;
        for (to, from) in wider.iter_mut().zip(self.slots_mut()) {
            *to = from.take();
        }
        self.entries = Some(wider);
        Ok(())
    }

    /// Add an entry that is not there yet.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Result<(), Error> {
        let Err(at) = self.position(key) else { return Err(Error::Exists) };
        self.reserve()?;
        let grown = self.len.saturating_add(1);
        let Some(tail) = self.entries.as_mut().and_then(|entries| entries.get_mut(at..grown))
        else {
            return Err(Error::OutOfRange);
        };
        // The slot at the end is free: bring it to the front of the tail.
        rotate_right(tail);
        if let Some(slot) = tail.first_mut() {
            *slot = Some((key, value));
        }
        self.len = grown;
        Ok(())
    }

    /// Take an entry out.
    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let at = self.position(key).ok()?;
        let tail = self.slots_mut().get_mut(at..)?;
        let (_, value) = tail.first_mut()?.take()?;
        rotate_left(tail);
        self.len = self.len.saturating_sub(1);
        Some(value)
    }
}
