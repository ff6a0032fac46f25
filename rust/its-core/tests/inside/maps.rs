// SPDX-License-Identifier: GPL-2.0-only
//! The map in sorted arrays, next to one of the library's.

use std::collections::BTreeMap;

use its_testkit::numbers::{Numbers, Random};
use its_testkit::{Fake, World, scaled};

use crate::Error;
use crate::sorted::SortedMap;

/// Entries of an array at most, and those that two have together when they become one.
const LEAF: usize = 64;
const FEW: usize = LEAF / 2;

type Map = SortedMap<u32, u32, Fake>;

/// Both have the same entries, in the same order.
#[track_caller]
fn assert_same(map: &mut Map, wanted: &BTreeMap<u32, u32>) {
    let mut next = map.next(0).map(|(key, value)| (key, *value));
    for (key, value) in wanted {
        assert_eq!(next, Some((*key, *value)));
        assert_eq!(map.get(*key), Some(value));
        assert_eq!(map.get_mut(*key).copied(), Some(*value));
        next = map.next(key.saturating_add(1)).map(|(key, value)| (key, *value));
    }
    assert_eq!((next, map.len()), (None, wanted.len()));
}

/// A map of these keys, in this order.
fn map(keys: impl IntoIterator<Item = u32>) -> (Map, BTreeMap<u32, u32>) {
    let (mut map, mut wanted) = (Map::new(), BTreeMap::new());
    for key in keys {
        assert_eq!(map.insert(key, !key), Ok(()));
        wanted.insert(key, !key);
    }
    (map, wanted)
}

#[test]
fn whatever_comes_and_goes() {
    for seed in 1..scaled(200, 3) {
        let mut numbers = Random::new(seed, 40);
        let (mut map, mut wanted) = map([]);
        // Growing, shrinking, and growing again.
        for step in 0..scaled(1500, 150) {
            let key = u32::try_from(numbers.below(700)).expect("small");
            let grows = (step / scaled(500_u32, 50)).is_multiple_of(2);
            if numbers.once_in(4) == grows {
                assert_eq!(map.remove(key), wanted.remove(&key), "{key}");
            } else if let Some(known) = wanted.get(&key) {
                assert_eq!(map.insert(key, step), Err(Error::Exists));
                assert_eq!(map.get(key), Some(known));
            } else {
                assert_eq!(map.insert(key, step), Ok(()));
                wanted.insert(key, step);
            }
            if step % 50 == 0 {
                assert_same(&mut map, &wanted);
            }
        }
        assert_same(&mut map, &wanted);
    }
}

/// Arrays that are there, the one of the arrays with them.
fn arrays() -> usize {
    World::current().live()
}

#[test]
fn an_array_that_is_full_becomes_two() {
    let full = u32::try_from(LEAF).expect("small");
    for between in [0, full / 2, full - 1] {
        World::renew();
        let (mut map, mut wanted) = map((0..full).map(|key| key * 2));
        assert_eq!((arrays(), map.moves()), (2, LEAF + 1));
        let key = between * 2 + 1;
        assert_eq!(map.insert(key, 1), Ok(()));
        wanted.insert(key, 1);
        assert_eq!((arrays(), map.moves()), (3, LEAF + 2), "{key}");
        assert_same(&mut map, &wanted);
        // There is room in both for as many as an array has, without asking for memory.
        World::current().fail_all_after(0);
        for key in (0..full / 2 - 1).map(|n| n * 2 + 1).filter(|key| *key != between * 2 + 1) {
            assert_eq!(map.insert(key, 2), Ok(()), "{key}");
            wanted.insert(key, 2);
        }
        assert!(World::current().stop_failing(), "nothing was asked for");
        assert_same(&mut map, &wanted);
    }
}

#[test]
fn room_that_was_made_is_there() {
    // An array that grows, one that becomes two, and a list of them that grows.
    for len in [0, 8, 16, 32, 64, 96, 256 + 32] {
        for fails in 0..4 {
            World::renew();
            let (mut map, mut wanted) = map(0..len);
            World::current().fail_once_after(fails);
            let room = map.reserve(len);
            let all = World::current().stop_failing();
            assert_eq!(room.is_ok(), all, "{len}, allocation {fails}");
            assert_same(&mut map, &wanted);
            if all {
                World::current().fail_all_after(0);
                assert_eq!(map.insert(len, 1), Ok(()), "{len}");
                assert!(World::current().stop_failing(), "{len}: there was room");
            } else {
                assert_eq!(map.insert(len, 1), Ok(()), "{len}: there is memory again");
            }
            wanted.insert(len, 1);
            assert_same(&mut map, &wanted);
        }
    }
}

#[test]
fn a_full_list_of_arrays_asks_for_no_memory_while_they_have_room() {
    // Seven arrays of 32, and one of 33; a list has room for eight at first.
    let (mut map, mut wanted) = map(0..257);
    assert_eq!(arrays(), 1 + 8);
    World::current().fail_all_after(0);
    assert_eq!(map.insert(257, 1), Ok(()));
    assert!(World::current().stop_failing(), "nothing was asked for");
    wanted.insert(257, 1);
    assert_same(&mut map, &wanted);
}

#[test]
fn two_arrays_that_have_become_small_become_one() {
    let few = u32::try_from(FEW).expect("small");
    // Two arrays: of 32, and of 33.
    let two = || map(0..2 * few + 1);
    for (from, to) in [(0, few), (few, 2 * few), (few, 2 * few + 1), (few / 2, few / 2 + few + 1)] {
        World::renew();
        let (mut map, mut wanted) = two();
        assert_eq!(arrays(), 3);
        for (count, key) in (from..to).enumerate() {
            assert_eq!(map.remove(key), wanted.remove(&key));
            // An empty array goes at once.
            let left = wanted.len();
            let empty = from == 0 && key + 1 == few;
            assert_eq!(arrays(), if left > FEW && !empty { 3 } else { 2 }, "{count} are gone");
            assert_same(&mut map, &wanted);
        }
        // What has become one is an array as any other.
        for key in from..to {
            assert_eq!(map.insert(key, 3), Ok(()));
            wanted.insert(key, 3);
        }
        assert_same(&mut map, &wanted);
    }
}

#[test]
fn the_last_of_an_array_takes_it_along() {
    // Arrays of 32 each, but for the last one.
    for (gone, neighbour) in [(0..32, 32), (32..64, 64), (64..96, 32), (96..129, 64)] {
        World::renew();
        let (mut map, mut wanted) = map(0..129);
        let before = arrays();
        for key in gone {
            assert_eq!(map.remove(key), wanted.remove(&key));
        }
        assert_eq!(arrays(), before - 1);
        assert_eq!(map.get(neighbour), wanted.get(&neighbour));
        assert_same(&mut map, &wanted);
    }
}
