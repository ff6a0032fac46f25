// SPDX-License-Identifier: GPL-2.0-only
//! The host's side: LPIs, collections, and the command queue of an ITS that
//! is slow, stalls or dies.

use its_arch::{DeviceId, EventId, IdBits, Lpi, Rdbase};
use its_core::host::lpi::{BLOCK, LpiRange};
use its_core::host::{HostDevice, HostItsConfig, HostLpis, MAX_ITS};
use its_core::{Error, Host};
use its_testkit::its::{FakeHostIts, Pace};
use its_testkit::numbers::{Numbers, Random};
use its_testkit::{Config, Fake, World, hosting, scaled};

fn device(id: u32) -> DeviceId {
    DeviceId::new(id)
}

fn map(host: &Host<Fake>, id: u32, events: u64) -> Result<HostDevice<Fake>, Error> {
    host.map_device(0, device(id), 7, events)
}

fn config(queue_bytes: u32) -> Config {
    Config { host_queue_bytes: queue_bytes, ..Config::default() }
}

// ---- LPIs ----

#[test]
fn lpis_come_in_blocks_and_are_used_again() {
    let lpis = HostLpis::<Fake>::new(IdBits::new(14).expect("14 bits")).expect("memory");
    for bad in [0, 1, 16, 31, 33, 48, 96] {
        assert_eq!(lpis.alloc(1, bad), Err(Error::OutOfRange), "{bad}");
    }
    assert_eq!(lpis.alloc(1, 16384), Err(Error::NoLpis));
    let all: Vec<_> = (0..256).map(|_| lpis.alloc(1, BLOCK).expect("8192 LPIs")).collect();
    assert_eq!(lpis.alloc(1, BLOCK), Err(Error::NoLpis));
    assert_eq!(lpis.in_use(), 8192);
    let mut seen: Vec<u32> = all.iter().flat_map(|range| range.iter().map(Lpi::get)).collect();
    seen.sort_unstable();
    assert_eq!(seen, (8192..16384).collect::<Vec<_>>(), "each once");
    for range in all {
        lpis.free(range);
    }
    assert_eq!(lpis.in_use(), 0);
    let range = lpis.alloc(2, 8192).expect("all of them in one");
    assert_eq!(range.get(8191), Lpi::new(16383));
    assert_eq!(range.get(8192), None);
    lpis.free(range);
}

/// All LPIs of a range, block by block.
fn assign_all(lpis: &HostLpis<Fake>, range: &LpiRange) {
    for first in (0..range.count()).step_by(32) {
        let unassigned = lpis.unassigned(range, 0, device(9), first).expect("there is room");
        unassigned.for_each(|lpi| lpi.assign(0));
    }
}

#[test]
fn the_lpis_of_a_block_are_assigned_one_by_one() {
    let lpis = HostLpis::<Fake>::new(IdBits::new(16).expect("16 bits")).expect("memory");
    let range = lpis.alloc(3, 64).expect("room");
    assert!(lpis.make_room(&range, 0).expect("memory") >= range.count());
    let from = |first| lpis.unassigned(&range, 0, device(9), first).expect("there is room");
    from(0).take(5).for_each(|lpi| lpi.assign(7));
    let assigned = || (0..64).filter(|n| lpis.get(range.get(*n).expect("64")).is_some());
    assert!(assigned().eq(0..5));
    let rest: Vec<_> = from(5).map(|lpi| (lpi.event.get(), Some(lpi.lpi))).collect();
    assert!(rest.into_iter().eq((5..32).map(|n| (n, range.get(n)))), "the rest of the block");
    assert!(assigned().eq(0..5), "nobody has assigned those");
    from(32).skip(31).for_each(|lpi| lpi.assign(7));
    assert!(assigned().eq((0..5).chain([63])));
    assert_eq!(lpis.unassigned(&range, 0, device(9), 64).err(), Some(Error::OutOfRange));
    assert_eq!(lpis.unassigned(&range, 256, device(9), 0).err(), Some(Error::OutOfRange));
    lpis.disown(&range, 0);
    assert!(assigned().eq([63]));
    lpis.free(range);
}

#[test]
fn an_lpi_belongs_to_one_domain_or_none() {
    let lpis = HostLpis::<Fake>::new(IdBits::new(16).expect("16 bits")).expect("memory");
    let first = lpis.alloc(3, 32).expect("room");
    let second = lpis.alloc(4, 64).expect("room");
    for range in [&first, &second] {
        assert!(range.iter().all(|lpi| lpis.get(lpi).is_none()), "nobody's yet");
        assert!(lpis.make_room(range, 0).expect("memory") >= range.count());
        assign_all(&lpis, range);
    }
    for lpi in first.iter() {
        let entry = lpis.get(lpi).expect("assigned");
        assert_eq!((entry.domain(), entry.vlpi()), (3, 0));
    }
    assert!(second.iter().all(|lpi| lpis.get(lpi).is_some_and(|entry| entry.domain() == 4)));
    let gone: Vec<_> = first.iter().collect();
    lpis.disown(&first, 0);
    lpis.free(first);
    assert!(gone.iter().all(|lpi| lpis.get(*lpi).is_none()));
    assert_eq!(lpis.in_use(), 64);
    for intid in [8192 + 40_000, 65_536, u32::MAX] {
        assert_eq!(lpis.get(Lpi::new(intid).expect("an LPI")), None);
    }
    lpis.free(second);
}

#[test]
fn holes_are_found() {
    let lpis = HostLpis::<Fake>::new(IdBits::new(14).expect("14 bits")).expect("memory");
    let mut ranges: Vec<_> = (0..256).map(|_| lpis.alloc(1, BLOCK).ok()).collect();
    // A hole of two blocks that is not aligned is no place for 64 LPIs.
    for at in [11, 12] {
        lpis.free(ranges[at].take().expect("allocated"));
    }
    assert_eq!(lpis.alloc(1, 64), Err(Error::NoLpis));
    lpis.free(ranges[13].take().expect("allocated"));
    let range = lpis.alloc(1, 64).expect("blocks 12 and 13");
    assert_eq!(range.get(0), Lpi::from_index(12 * 32));
    let range = lpis.alloc(1, 32).expect("block 11");
    assert_eq!(range.get(0), Lpi::from_index(11 * 32));
    assert_eq!(lpis.alloc(1, 32), Err(Error::NoLpis));
    assert_eq!(lpis.in_use(), 8192);
}

#[test]
fn the_first_place_that_is_large_enough_is_taken() {
    let size = |n: u32| usize::try_from(n).expect("few");
    let block_of = |range: &LpiRange| range.get(0).expect("not empty").index() / BLOCK;
    // 3840 blocks: as a list of what is in use.
    let lpis = HostLpis::<Fake>::new(IdBits::new(17).expect("17 bits")).expect("memory");
    let mut used = vec![false; 3840];
    let mut ranges = Vec::new();
    let mut numbers = Random::new(7, 40);
    for _ in 0..scaled(4000, 60) {
        // Mostly full, so that there are holes of all sizes.
        if !ranges.is_empty() && numbers.once_in(3) {
            let range: LpiRange = ranges.swap_remove(numbers.index(ranges.len()));
            used[size(block_of(&range))..][..size(range.count() / BLOCK)].fill(false);
            lpis.free(range);
        }
        let sizes = if numbers.once_in(50) { 11 } else { 7 };
        let blocks = 1_usize << numbers.below(sizes);
        let place = (0..used.len() / blocks).map(|n| n * blocks);
        let place = place.map(|at| at..at + blocks).find(|at| !used[at.clone()].contains(&true));
        let got = lpis.alloc(1, u32::try_from(blocks).expect("few") * BLOCK).ok();
        let first = got.as_ref().map(block_of).map(size);
        assert_eq!(first, place.as_ref().map(|place| place.start));
        if let (Some(range), Some(place)) = (got, place) {
            used[place].fill(true);
            ranges.push(range);
        }
        let count = used.iter().filter(|used| **used).count();
        assert_eq!(lpis.in_use() / BLOCK, u32::try_from(count).expect("few"));
    }
}

#[test]
fn room_is_made_page_by_page() {
    let world = World::current();
    let lpis = HostLpis::<Fake>::new(IdBits::new(16).expect("16 bits")).expect("memory");
    let range = lpis.alloc(1, 1024).expect("room");
    assert_eq!(lpis.unassigned(&range, 0, device(9), 0).err(), Some(Error::OutOfRange), "no page");
    // A page has two arrays.
    for (first, next) in [(0, 512), (512, 1024)] {
        for successes in 0..2 {
            world.fail_once_after(successes);
            assert_eq!(lpis.make_room(&range, first), Err(Error::NoMemory));
            assert!(!world.stop_failing());
        }
        for _ in 0..2 {
            assert_eq!(lpis.make_room(&range, first), Ok(next));
        }
    }
    // Who shares the page needs no memory.
    lpis.free(range);
    let (_first, second) = (lpis.alloc(1, 64).expect("room"), lpis.alloc(2, 64).expect("room"));
    world.fail_once_after(0);
    assert_eq!(lpis.make_room(&second, 0), Ok(512 - 64));
    assert!(world.stop_failing());
    assert_eq!(lpis.make_room(&second, 64), Err(Error::OutOfRange), "it has 64");
}

// ---- Collections ----

#[test]
fn lpis_are_spread_over_the_cpus() {
    let (host, its) = Config { cpus: 3, ..Config::default() }.host().expect("memory");
    let mut devices = Vec::new();
    for id in 0..3 {
        devices.push(map(&host, id, 64).expect("room"));
    }
    let spread = its[0].spread();
    assert_eq!(spread.values().copied().collect::<Vec<_>>(), [64, 64, 64]);
    for device in devices {
        host.unmap_device(device);
    }
}

#[test]
fn a_cpu_that_comes_up_is_used_and_one_that_comes_again_counts_once() {
    let (host, its) = Config { cpus: 1, ..Config::default() }.host().expect("memory");
    let first = map(&host, 1, 32).expect("room");
    assert_eq!(its[0].spread().len(), 1);
    for _ in 0..3 {
        host.setup_collection(0, 1, Rdbase::from_processor_number(1)).expect("the ITS works");
        // Its redistributor may be another by then.
        host.setup_collection(0, 0, Rdbase::from_processor_number(5)).expect("the ITS works");
    }
    let second = map(&host, 2, 32).expect("room");
    assert_eq!(its[0].spread().values().copied().collect::<Vec<_>>(), [48, 16]);
    assert_eq!(its[0].fire(1, 0).map(|(_, rdbase)| rdbase), Some(5));
    assert_eq!(host.setup_collection(1, 0, Rdbase::from_field(0)), Err(Error::NotFound));
    host.unmap_device(first);
    host.unmap_device(second);
}

#[test]
fn without_a_collection_no_device_can_be_mapped() {
    for pace in [Pace::Immediate, Pace::PerPoll(1), Pace::Slow(30)] {
        let world = World::current();
        let (host, its) = Config { cpus: 0, ..Config::default() }.host().expect("memory");
        its[0].set_pace(pace);
        assert_eq!(map(&host, 1, 32).err(), Some(Error::NotFound));
        assert_eq!(world.live_tables(), 0);
        assert_eq!(host.lpis.in_use(), 0);
        its[0].set_pace(Pace::Immediate);
        assert_eq!(its[0].mapped(), (0, 0));
    }
}

#[test]
fn there_are_not_more_than_so_many_itses() {
    let host = Host::<Fake>::new(IdBits::MIN).expect("memory");
    let config = HostItsConfig {
        queue_bytes: 4096,
        device_bits: 8,
        event_bits: its_arch::EventBits::new(8).expect("8 bits"),
        itt_entry_bytes: 12,
    };
    for index in 0..MAX_ITS {
        assert_eq!(host.add_its(FakeHostIts::new(config), config), Ok(index));
    }
    assert_eq!(host.add_its(FakeHostIts::new(config), config), Err(Error::OutOfRange));
    assert!(host.its(MAX_ITS - 1).is_ok());
    assert!(host.its(MAX_ITS).is_err());
    let tiny = HostItsConfig { queue_bytes: 32, ..config };
    let host = Host::<Fake>::new(IdBits::MIN).expect("memory");
    assert_eq!(host.add_its(FakeHostIts::new(tiny), tiny), Err(Error::OutOfRange));
}

// ---- The queue ----

#[test]
fn the_commands_of_a_device_go_in_together_but_not_too_many() {
    let (host, its) = Config { cpus: 2, ..config(1024 * 32) }.host().expect("memory");
    let _set_up = its[0].take_runs();
    let device = map(&host, 1, 128).expect("room");
    // MAPD, MAPTI by 32, two SYNCs.
    assert_eq!(its[0].take_runs(), [1, 32, 32, 32, 32, 1, 1]);
    host.unmap_device(device);
    assert_eq!(its[0].take_runs(), [32, 32, 32, 32, 1, 1, 1], "DISCARD, MAPD, SYNC");
}

#[test]
fn a_queue_with_little_room_takes_what_it_can() {
    // Two of the 8 slots are in reserve, one stays empty.
    let (host, its) = Config { cpus: 3, ..config(8 * 32) }.host().expect("memory");
    its[0].set_pace(Pace::PerPoll(2));
    let _set_up = its[0].take_runs();
    for id in 0..3 {
        let device = map(&host, id, 32).expect("the ITS works");
        assert!(its[0].take_runs().iter().all(|run| (1..=5).contains(run)));
        let spread: Vec<_> = its[0].spread().into_values().collect();
        assert_eq!(spread.iter().sum::<usize>(), 32);
        assert!(spread.iter().all(|count| [10, 11].contains(count)), "in turn: {spread:?}");
        host.unmap_device(device);
        assert!(its[0].take_runs().iter().all(|run| (1..=5).contains(run)));
        assert_eq!(its[0].mapped(), (0, 0));
    }
}

#[test]
fn the_queue_wraps_at_any_size() {
    for &slots in scaled(&[2, 3, 5, 17, 128, 2048][..], &[17]) {
        for pace in [Pace::Immediate, Pace::PerPoll(1), Pace::PerPoll(7), Pace::Slow(3)] {
            let (host, its) = config(slots * 32).host().expect("the ITS works");
            its[0].set_pace(pace);
            let rounds = scaled(8, 2);
            for round in 0..rounds {
                let device = map(&host, round, 32).expect("the ITS works");
                assert_eq!(its[0].mapped(), (1, 32), "{slots} {pace:?}");
                let lpi = device.lpi(EventId::new(31));
                assert_eq!(its[0].fire(round, 31).map(|(lpi, _)| lpi), lpi);
                host.unmap_device(device);
                assert_eq!(its[0].mapped(), (0, 0), "confirmed, {slots} {pace:?}");
            }
            assert_eq!(its[0].waiting(), 0);
            let (submitted, completed) = host.its(0).expect("there").command_counts();
            assert_eq!(submitted, completed);
            // MAPC and SYNC for 4 CPUs; MAPD, 32 MAPTI, 4 SYNC, 32 DISCARD,
            // MAPD, 4 SYNC.
            assert_eq!(submitted, 8 + u64::from(rounds) * 74);
        }
    }
}

#[test]
fn a_slow_its_is_waited_for_as_long_as_it_makes_progress() {
    let world = World::current();
    let (host, its) = config(8 * 32).host().expect("memory");
    // 20 ms each, where 100 ms without progress are too long.
    its[0].set_pace(Pace::Slow(100));
    let before = world.now();
    let device = map(&host, 1, 32).expect("it gets there");
    assert!(world.now() - before > 500_000_000);
    its[0].set_pace(Pace::Immediate);
    host.unmap_device(device);
}

#[test]
fn a_cpu_that_is_held_up_does_not_blame_the_its() {
    for reads in 0..10 {
        World::renew();
        let world = World::current();
        let (host, its) = config(12 * 32).host().expect("memory");
        its[0].set_pace(Pace::PerPoll(1));
        // An interrupt, or a slow console, for a second; the ITS works on.
        let held_up = std::sync::Arc::clone(&world);
        let same = its[0].clone();
        world.on_clock(reads, move || {
            held_up.advance(1_000_000_000);
            same.set_pace(Pace::Immediate);
            same.set_pace(Pace::PerPoll(1));
        });
        let device = map(&host, 1, 32);
        assert!(!world.off_clock(), "it waited less often than {reads} times");
        let device = device.expect("the ITS works");
        host.unmap_device(device);
        assert!(world.take_log().is_empty());
        assert_eq!(host.its(0).expect("there").abandoned(), 0);
    }
}

#[test]
fn an_its_that_hangs_is_given_up_on_in_bounded_time() {
    let world = World::current();
    // What map_device submits: MAPD, 32 MAPTI, 4 SYNC. Undoing it is not even
    // tried, as the ITS does nothing.
    for &executed in scaled(&[0, 1, 2, 20, 33, 36][..], &[2]) {
        for slots in [8, 128] {
            let (host, its) = config(slots * 32).host().expect("memory");
            let tables = world.live_tables();
            its[0].set_pace(Pace::Hang(executed));
            let before = world.now();
            assert_eq!(map(&host, 1, 32).err(), Some(Error::TimedOut), "{executed} {slots}");
            assert!(world.now() - before < 1_000_000_000, "waited for {}", world.now() - before);
            let log = world.take_log();
            assert!(log.len() == 2 && log[0].1.contains("timed out"), "{log:?}");
            assert!(log[1].1.contains("device 0x1"), "{log:?}");
            // The ITS may use them still, so nobody else does.
            assert_eq!(host.its(0).expect("there").abandoned(), 1);
            assert_eq!(host.lpis.in_use(), 32);
            assert_eq!(world.live_tables(), tables + 1, "the ITT");
            let lost = host.claim(Lpi::MIN);
            assert_eq!(lost, None, "its LPIs are nobody's");
            // If it wakes up, others can be mapped.
            its[0].set_pace(Pace::Immediate);
            let device = map(&host, 2, 32).expect("the ITS works");
            assert_eq!(its[0].fire(2, 0).map(|(lpi, _)| lpi), device.lpi(EventId::new(0)));
            host.unmap_device(device);
            assert_eq!(host.lpis.in_use(), 32);
        }
    }
}

#[test]
fn an_its_that_hangs_while_a_device_is_unmapped() {
    let world = World::current();
    for executed in 0..5 {
        let (host, its) = config(4096).host().expect("memory");
        let device = map(&host, 1, 32).expect("the ITS works");
        let tables = world.live_tables();
        its[0].set_pace(Pace::Hang(executed));
        host.unmap_device(device);
        assert_eq!(world.take_log().len(), 2);
        assert_eq!(host.its(0).expect("there").abandoned(), 1);
        assert_eq!(world.live_tables(), tables);
        assert_eq!(host.lpis.in_use(), 32);
        assert!(Lpi::from_index(0).is_some_and(|lpi| host.claim(lpi).is_none()));
        its[0].set_pace(Pace::Immediate);
    }
}

#[test]
fn a_device_that_fires_while_it_is_unmapped_is_nobodys() {
    // 32 DISCARD, MAPD V=0, 4 SYNC, the last of which ends it.
    for &executed in scaled(&[0, 1, 20, 32, 33, 34, 35, 36][..], &[20, 36]) {
        let (host, its) = config(4096).host().expect("memory");
        let device = map(&host, 1, 32).expect("the ITS works");
        its[0].set_pace(Pace::Hang(executed));
        host.unmap_device(device);
        let fired: Vec<_> = (0..32).filter_map(|event| its[0].fire(1, event)).collect();
        assert!(!fired.is_empty(), "{executed}: it may fire");
        assert!(fired.iter().all(|(lpi, _)| host.claim(*lpi).is_none()), "{executed}");
        its[0].set_pace(Pace::Immediate);
        assert!((0..32).all(|event| its[0].fire(1, event).is_none()), "{executed}");
        let _log = World::current().take_log();
    }
}

#[test]
fn a_stall_is_told_from_a_hang() {
    let world = World::current();
    for executed in [0, 5, 33, 36] {
        let (host, its) = config(4096).host().expect("memory");
        its[0].set_pace(Pace::Stall(executed));
        let before = world.now();
        assert_eq!(map(&host, 1, 32).err(), Some(Error::Stalled), "{executed}");
        assert!(world.now() - before < 1_000_000, "no use waiting");
        let log = world.take_log();
        assert!(log.len() == 2 && log[0].1.contains("stalled, GITS_CREADR"), "{log:?}");
        assert_eq!(host.its(0).expect("there").abandoned(), 1);
        its[0].set_pace(Pace::Immediate);
        let device = map(&host, 2, 32).expect("the ITS works");
        host.unmap_device(device);
    }
}

#[test]
fn a_stall_after_ones_own_commands_is_not_ones_own_failure() {
    let (host, its) = config(4096).host().expect("memory");
    let device = map(&host, 1, 32).expect("the ITS works");
    // 32 DISCARDs, MAPD V=0 and four SYNCs are executed; nothing else is
    // waited for.
    its[0].set_pace(Pace::Stall(37));
    host.unmap_device(device);
    assert_eq!(host.its(0).expect("there").abandoned(), 0);
    assert_eq!(host.lpis.in_use(), 0);
}

#[test]
fn a_cpu_does_not_come_up_on_a_dead_its() {
    let (host, its) = config(4096).host().expect("memory");
    its[0].set_pace(Pace::Hang(1));
    let rdbase = Rdbase::from_processor_number(9);
    assert_eq!(host.setup_collection(0, 9, rdbase), Err(Error::TimedOut));
    its[0].set_pace(Pace::Stall(1));
    assert_eq!(host.setup_collection(0, 9, rdbase), Err(Error::Stalled));
    its[0].set_pace(Pace::Immediate);
    // It is not used for events, as it never was confirmed.
    let device = map(&host, 1, 64).expect("the ITS works");
    assert!(!its[0].spread().contains_key(&9));
    host.setup_collection(0, 9, rdbase).expect("the ITS works");
    host.unmap_device(device);
}

#[test]
fn a_creadr_that_makes_no_sense_is_an_error() {
    let world = World::current();
    for garbage in [u64::MAX, 0x1000, 0xf_ffe0] {
        let (host, its) = config(4096).host().expect("memory");
        its[0].set_garbage(Some(garbage));
        assert!(map(&host, 1, 32).is_err(), "{garbage:#x}");
        its[0].set_garbage(None);
        let _log = world.take_log();
        let device = map(&host, 2, 32).expect("it has recovered");
        host.unmap_device(device);
    }
}

#[test]
fn a_creadr_that_went_back_is_no_progress() {
    // An ITS that was reset starts over at 0: what it says it has executed
    // was never submitted.
    let world = World::current();
    let (host, its) = config(4096).host().expect("memory");
    let first = map(&host, 1, 32).expect("the ITS works");
    its[0].set_pace(Pace::Hang(0));
    its[0].set_garbage(Some(0));
    assert_eq!(map(&host, 2, 32).err(), Some(Error::Confused));
    let log = world.take_log();
    assert!(log[0].1.contains("impossible GITS_CREADR"), "{log:?}");
    assert_eq!(host.its(0).expect("there").abandoned(), 1);
    its[0].set_garbage(None);
    its[0].set_pace(Pace::Immediate);
    host.unmap_device(first);
    assert_eq!(host.its(0).expect("there").abandoned(), 1, "it works again");
}

#[test]
fn a_table_that_cannot_be_had_maps_nothing() {
    let world = World::current();
    let (host, its) = config(4096).host().expect("memory");
    let live = world.live();
    let _setup = its[0].take_executed();
    for n in 0..5 {
        world.fail_once_after(n);
        let result = map(&host, 1, 2048);
        if world.stop_failing() {
            let device = result.expect("nothing has failed");
            host.unmap_device(device);
            assert!(n >= 3, "an ITT, and pages of the LPI table");
            return;
        }
        assert_eq!(result.err(), Some(Error::NoMemory));
        assert_eq!(host.lpis.in_use(), 0);
        assert_eq!(world.live_tables(), 0);
        assert_eq!(its[0].take_executed(), []);
        // Pages of the LPI table stay for the next one: two arrays each; and so
        // does the array of owners.
        assert!(world.live() <= live + 2 * 4 + 1);
    }
}

#[test]
fn several_cpus_use_one_queue() {
    let threads = scaled(4, 2);
    let rounds = scaled(30, 1);
    for (slots, pace) in [(8, Pace::PerPoll(1)), (128, Pace::PerPoll(3)), (64, Pace::Immediate)] {
        let world = World::current();
        let (host, its) = config(slots * 32).host().expect("memory");
        its[0].set_pace(pace);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (host, world) = (&host, &world);
                scope.spawn(move || {
                    world.enter();
                    for round in 0..rounds {
                        let id = thread * 1000 + round;
                        let device = map(host, id, 32).expect("the ITS works");
                        host.unmap_device(device);
                    }
                });
            }
        });
        assert_eq!(host.lpis.in_use(), 0);
        assert_eq!(world.live_tables(), 0);
        assert_eq!(its[0].mapped(), (0, 0));
    }
}

// ---- Anything ----

#[test]
fn a_misbehaving_its_costs_what_it_has_and_no_more() {
    for seed in 1..scaled(200, 3) {
        hosting::run(Random::new(seed, 40));
    }
}
