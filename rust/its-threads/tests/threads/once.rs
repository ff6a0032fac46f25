// SPDX-License-Identifier: GPL-2.0-only
//! The cell of xen-sys, from its own source: who finds a value there sees all
//! of it. What it holds are atomics, so that loom sees who made them, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::sync::atomic::AtomicU64;
use loom::thread;

use cell::Once;
use its_threads::explore;

#[path = "../../../xen-sys/src/once.rs"]
mod cell;

/// What the cell's source uses: loom's atomics, made when they are first used,
/// as loom cannot make them in constants.
mod sync {
    use std::sync::OnceLock;

    use loom::sync::atomic;
    pub(super) use loom::sync::atomic::Ordering;

    pub(super) struct AtomicU8(u8, OnceLock<atomic::AtomicU8>);

    impl AtomicU8 {
        pub(super) const fn new(value: u8) -> Self {
            Self(value, OnceLock::new())
        }

        fn seen(&self) -> &atomic::AtomicU8 {
            self.1.get_or_init(|| atomic::AtomicU8::new(self.0))
        }

        pub(super) fn load(&self, order: Ordering) -> u8 {
            self.seen().load(order)
        }

        pub(super) fn store(&self, value: u8, order: Ordering) {
            self.seen().store(value, order);
        }

        pub(super) fn compare_exchange(
            &self,
            from: u8,
            to: u8,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u8, u8> {
            self.seen().compare_exchange(from, to, success, failure)
        }
    }
}

/// A page of atomics that counts how often it is dropped.
struct Page(AtomicU64, Arc<AtomicUsize>);

impl Page {
    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn one_wins() {
    explore("two who set a cell, and one who reads it", || {
        let drops = Arc::new(AtomicUsize::new(0));
        let cell = Arc::new(Once::empty());
        assert!(cell.get().is_none());
        let setter = |value| {
            let (cell, drops) = (Arc::clone(&cell), Arc::clone(&drops));
            move || cell.set(Page(AtomicU64::new(value), drops)).map_err(|page| page.value())
        };
        let (first, second) = (thread::spawn(setter(1)), thread::spawn(setter(2)));
        let before = cell.get().map(Page::value);
        let results = (first.join().expect("first"), second.join().expect("second"));
        let value = cell.get().map(Page::value);
        match results {
            (Ok(()), Err(2)) => assert_eq!(value, Some(1)),
            (Err(1), Ok(())) => assert_eq!(value, Some(2)),
            other => panic!("{other:?}"),
        }
        assert!(before.is_none() || before == value, "{before:?}, then {value:?}");
        // The one that was given back is gone; the other goes with the cell.
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        drop(Arc::into_inner(cell));
        assert_eq!(drops.load(Ordering::Relaxed), 2);
    });
}
