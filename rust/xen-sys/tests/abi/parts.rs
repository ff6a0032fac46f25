// SPDX-License-Identifier: GPL-2.0-only
//! The parts of xen-sys one by one, as its-core uses them.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use its_arch::GuestPa;
use its_core::Error;
use its_core::env::{Env, Guest, Level, Lock, Page, Table};
use xen_sys::{Once, Owned, Xen, XenGuest};

use crate::machine::{Domain, pinned};
use crate::services::{alone, fail_after, irqs_on, live, take_log};

/// Counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn counter() -> Arc<AtomicUsize> {
    Arc::new(AtomicUsize::new(0))
}

// ---- Once ----

#[test]
fn a_cell_is_set_once() {
    let cell = Once::empty();
    assert_eq!(Once::get(&cell), None);
    assert_eq!(Once::set(&cell, String::from("first")), Ok(()));
    assert_eq!(Once::set(&cell, String::from("second")), Err(String::from("second")));
    assert_eq!(Once::get(&cell).map(String::as_str), Some("first"));
}

#[test]
fn a_cell_drops_what_was_set_and_nothing_else() {
    let drops = counter();
    let cell: <Xen as Env>::Once<Counted> = its_core::env::Once::new();
    drop(cell);
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    let cell: <Xen as Env>::Once<Counted> = its_core::env::Once::new();
    assert!(cell.set(Counted(Arc::clone(&drops))).is_ok());
    assert!(cell.get().is_some());
    drop(cell);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

#[test]
fn one_of_several_cpus_sets_a_cell_and_all_see_the_whole_value() {
    for _ in 0..its_testkit::scaled(200, 5) {
        let cell: Once<[u64; 8]> = Once::empty();
        let winners = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for value in 1..=2 {
                let (cell, winners) = (&cell, &winners);
                scope.spawn(move || {
                    if Once::set(cell, [value; 8]).is_ok() {
                        winners.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..4 {
                    if let Some(value) = Once::get(&cell) {
                        assert!(*value == [1; 8] || *value == [2; 8], "{value:?}");
                    }
                }
            });
        });
        assert_eq!(winners.load(Ordering::Relaxed), 1);
    }
}

// ---- Heap ----

#[test]
fn an_array_holds_what_was_made_for_it() {
    let _alone = alone();
    let before = live();
    let mut buf = Xen::alloc(100, |n| n * 3).expect("there is memory");
    assert_eq!(live(), before + 1);
    assert!(buf.iter().copied().eq((0..100).map(|n| n * 3)));
    buf[7] = 1;
    assert_eq!((buf[6], buf[7], buf[8], buf.len()), (18, 1, 24, 100));
    drop(buf);
    assert_eq!(live(), before);
}

#[test]
fn an_array_drops_each_element_once() {
    let _alone = alone();
    let drops = counter();
    let buf = Xen::alloc(5, |_| Counted(Arc::clone(&drops))).expect("there is memory");
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    drop(buf);
    assert_eq!(drops.load(Ordering::Relaxed), 5);
}

#[test]
fn an_array_of_nothing_needs_no_memory() {
    let _alone = alone();
    let before = live();
    fail_after(Some(0));
    let none = Xen::alloc(0, |_| 1_u64).expect("nothing to allocate");
    assert!(none.is_empty());
    let units = Xen::alloc(3, |_| ()).expect("nothing to allocate");
    assert_eq!(units.len(), 3);
    assert_eq!(live(), before);
}

#[test]
fn an_array_is_aligned() {
    #[repr(align(128))]
    struct Aligned(u8);

    let _alone = alone();
    for len in 1..4_u8 {
        let buf = Xen::alloc(len.into(), |_| Aligned(len)).expect("there is memory");
        assert!(buf.iter().all(|one| one.0 == len && (&raw const *one).addr().is_multiple_of(128)));
    }
}

#[test]
fn what_does_not_fit_in_memory_is_an_error() {
    let _alone = alone();
    let before = live();
    let huge = |len| Xen::alloc(len, |n| n).err();
    // Too many bytes for a number of them, and for the heap.
    assert_eq!(huge(usize::MAX), Some(Error::NoMemory));
    assert_eq!(huge(usize::MAX / 8), Some(Error::NoMemory));
    fail_after(Some(0));
    assert_eq!(huge(1), Some(Error::NoMemory));
    assert_eq!(Owned::new(1_u64).err(), Some(Error::NoMemory));
    assert_eq!(Xen::alloc_table(4096, 4096).err(), Some(Error::NoMemory));
    assert_eq!(live(), before);
}

#[test]
fn an_owned_value_is_dropped_with_its_owner() {
    let _alone = alone();
    let before = live();
    let drops = counter();
    let owned = Owned::new(Counted(Arc::clone(&drops))).expect("there is memory");
    assert_eq!(live(), before + 1);
    assert_eq!(Arc::strong_count(&owned.0), 2);
    drop(owned);
    assert_eq!((live(), drops.load(Ordering::Relaxed)), (before, 1));
}

#[test]
fn a_table_is_given_back() {
    let _alone = alone();
    let before = live();
    let table = Xen::alloc_table(1024, 256).expect("there is memory");
    assert!(table.address() >= 0x80_0000_0000 && table.address().is_multiple_of(256));
    assert_eq!(live(), before + 1);
    drop(table);
    assert_eq!(live(), before);
}

// ---- Locks ----

/// Several CPUs count to `times` each.
fn count_on<L: Lock<Box<usize>>>(times: usize) {
    let lock = L::new(Box::new(0));
    // It may be moved while nobody holds it.
    let lock = Box::new(lock);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..times {
                    **lock.lock() += 1;
                }
                assert!(irqs_on());
            });
        }
    });
    assert_eq!(**lock.lock(), 3 * times);
}

#[test]
fn a_lock_lets_one_in_at_a_time() {
    let _alone = alone();
    count_on::<<Xen as Env>::Lock<Box<usize>>>(its_testkit::scaled(10_000, 20));
}

#[test]
fn an_interrupt_safe_lock_lets_one_in_at_a_time() {
    let _alone = alone();
    count_on::<<Xen as Env>::IrqLock<Box<usize>>>(its_testkit::scaled(10_000, 20));
}

#[test]
fn interrupts_are_off_while_an_interrupt_safe_lock_is_held() {
    let _alone = alone();
    let outer: <Xen as Env>::IrqLock<u8> = Lock::new(1);
    let inner: <Xen as Env>::IrqLock<u8> = Lock::new(2);
    let held = outer.lock();
    assert!(!irqs_on());
    assert_eq!(*inner.lock(), 2);
    assert!(!irqs_on(), "the inner lock's end turned them on");
    assert_eq!(*held, 1);
    drop(held);
    assert!(irqs_on());
}

// ---- Guest memory ----

fn guest(ram: &Domain) -> XenGuest {
    // SAFETY: XenGuest is a pointer to C's domain, which is what C would
    // pass; the domain outlives it.
    unsafe { std::mem::transmute::<NonNull<Domain>, XenGuest>(NonNull::from(ram)) }
}

#[test]
fn guest_memory_is_copied() {
    let _alone = alone();
    let mut ram = Domain::default();
    ram.add(0x1000, 0x1000);
    ram.write(0x1ffd, &[7, 8, 9]);
    let guest = guest(&ram);
    let mut to = [1; 5];
    assert_eq!(guest.read(GuestPa::new(0x1ffd), &mut to[1..4]), Ok(()));
    assert_eq!(to, [1, 7, 8, 9, 1]);
    assert_eq!(guest.read(GuestPa::new(0x2000), &mut to), Err(Error::BadAccess));
    assert_eq!(guest.read(GuestPa::new(0xffd), &mut to[..3]), Err(Error::BadAccess));
}

#[test]
fn a_pinned_page_is_read_until_it_is_released() {
    let _alone = alone();
    let mut ram = Domain::default();
    ram.add(0x1000, 0x1000);
    let guest = guest(&ram);
    assert_eq!(guest.pin(GuestPa::new(0x2000)).err(), Some(Error::BadAccess));
    let page = guest.pin(GuestPa::new(0x1000)).expect("it is RAM");
    ram.write(0x1000, &[3]);
    ram.write(0x1fff, &[4]);
    assert_eq!((page.byte(0), page.byte(1), page.byte(4095)), (3, 0, 4));
    assert_eq!((page.byte(4096), page.byte(usize::MAX)), (0, 0), "beyond the page");
    let read = |offset| {
        let mut to = [1, 1];
        page.read(offset, &mut to);
        to
    };
    assert_eq!((read(0), read(4080)), ([3, 0], [0, 4 << 56]));
    for beyond in [4088, 4096, usize::MAX - 7, 4] {
        assert_eq!(read(beyond), [0, 0], "{beyond}: beyond the page, or not aligned");
    }
    assert_eq!(pinned(), 1);
    page.release();
    assert_eq!((page.byte(0), read(0), pinned()), (0, [0, 0], 0));
    // Neither again, nor at the end.
    page.release();
    drop(page);
    assert_eq!(pinned(), 0);
    drop(guest.pin(GuestPa::new(0x1000)));
    assert_eq!(pinned(), 0);
}

#[test]
fn the_guest_writes_a_page_while_it_is_read() {
    let _alone = alone();
    let mut ram = Domain::default();
    ram.add(0x1000, 0x1000);
    let page = guest(&ram).pin(GuestPa::new(0x1000)).expect("it is RAM");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for value in 0..its_testkit::scaled(100, 10) {
                ram.write(0x1010, &[value]);
            }
        });
        let mut last = 0;
        for _ in 0..its_testkit::scaled(100, 10) {
            let now = page.byte(0x10);
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
    });
}

// ---- Log ----

#[test]
fn a_line_is_printed_as_it_is() {
    let _alone = alone();
    for level in [Level::Guest, Level::Error, Level::Info] {
        Xen::log(level, "as it is");
    }
    Xen::log(Level::Info, "");
    let want = [(0, "as it is"), (1, "as it is"), (2, "as it is"), (2, "")];
    assert_eq!(take_log(), want.map(|(level, line)| (level, line.to_owned())));
}
