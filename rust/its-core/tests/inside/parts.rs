// SPDX-License-Identifier: GPL-2.0-only
//! What the core keeps things in.

use its_arch::{IdBits, Lpi};
use its_testkit::Fake;

use crate::Error;
use crate::bitmap::Bitmap;
use crate::host::lpi::{BLOCK, HostLpis};
use crate::slots::Slots;
use crate::sorted::SortedMap;
use crate::vlpi::{Entry, VlpiTable};

/// INTID bits.
fn bits(bits: u8) -> IdBits {
    IdBits::new(bits).expect("14 to 32")
}

#[test]
fn a_bitmap_takes_no_number_beyond_its_words() {
    let mut map = Bitmap::<Fake>::new(100).expect("memory");
    assert!(map.set(5));
    for beyond in [128, 4096, u32::MAX] {
        assert!(!map.set(beyond) && !map.clear(beyond), "{beyond}");
        map.set_word(beyond & !63, u64::MAX);
        assert_eq!((map.contains(beyond), map.next(beyond)), (None, None), "{beyond}");
    }
    assert_eq!((map.count(), map.next(0), map.next(6)), (1, Some(5), None));
}

#[test]
fn a_slot_that_does_not_exist_carries_nothing() {
    let mut slots = Slots::new();
    for slot in [16, 31, u8::MAX] {
        slots.put(slot, Lpi::MIN, 0);
        assert_eq!((slots.len(), slots.find(Lpi::MIN)), (0, None), "{slot}");
    }
    slots.put(15, Lpi::MIN, 0);
    for free in 0..15 {
        assert_eq!((slots.get(free), slots.take(free)), (None, None), "{free}");
    }
    assert_eq!((slots.len(), slots.take(15)), (1, Some(Lpi::MIN)));
}

#[test]
fn a_key_that_is_there_keeps_its_value() {
    let mut map = SortedMap::<u32, u32, Fake>::new();
    assert_eq!(map.insert(5, 1), Ok(()));
    assert_eq!(map.insert(5, 2), Err(Error::Exists));
    assert_eq!((map.len(), map.remove(5), map.len()), (1, Some(1), 0));
}

#[test]
fn an_lpi_without_a_place_is_not_mapped() {
    let table = VlpiTable::<Fake>::new(bits(14)).expect("memory");
    let lpi = Lpi::new(9000).expect("an LPI");
    table.set(lpi, Entry::new().with_events(1));
    assert_eq!(table.get(lpi), Entry::new());
}

#[test]
fn a_host_lpi_that_is_nobodys_has_no_virtual_one() {
    let lpis = HostLpis::<Fake>::new(bits(14)).expect("memory");
    let range = lpis.alloc(7, BLOCK).expect("room");
    let lpi = range.get(3).expect("one of them");
    lpis.set_vlpi(lpi, Some(Lpi::MIN));
    assert_eq!(lpis.get(lpi), None, "there is no page for it");
    lpis.make_room(&range, 0).expect("memory");
    lpis.set_vlpi(lpi, Some(Lpi::MIN));
    assert_eq!((lpis.get(lpi), lpis.vlpi(lpi)), (None, None), "it is not assigned");
}

#[test]
fn host_lpis_that_there_are_not_are_not_given_back() {
    let large = HostLpis::<Fake>::new(bits(15)).expect("memory");
    let all = large.alloc(7, 8192).expect("room");
    let beyond = large.alloc(7, BLOCK).expect("room");
    let small = HostLpis::<Fake>::new(bits(14)).expect("memory");
    assert_eq!(small.alloc(7, 8192).as_ref(), Ok(&all));
    small.free(beyond);
    assert_eq!(small.alloc(7, BLOCK), Err(Error::NoLpis), "none has come back");
}
