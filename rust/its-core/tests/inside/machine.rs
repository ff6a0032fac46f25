// SPDX-License-Identifier: GPL-2.0-only
//! Devices on a host that does not have their ITS, or has never heard of them.

use its_arch::{DeviceId, EventBits, EventId, IdBits, Rdbase};
use its_testkit::its::FakeHostIts;
use its_testkit::{Fake, World};

use crate::Error;
use crate::budget::{Budget, Step};
use crate::host::{Host, HostDevice, HostItsConfig, MAX_ITS, Transit};

/// The domain that devices are for.
const DOMAIN: u16 = 7;
const DEVICE: DeviceId = DeviceId::new(9);

/// A host with so many ITSes, each with `cpus` collections.
pub(crate) fn host(count: usize, cpus: u16) -> (Host<Fake>, Vec<FakeHostIts>) {
    let host = Host::new(IdBits::new(14).expect("14 to 32")).expect("memory");
    let event_bits = EventBits::new(16).expect("1 to 32");
    let mut all = Vec::new();
    for its in 0..count {
        let (queue_bytes, device_bits, itt_entry_bytes) = (4096, 16, 8);
        let model = FakeHostIts::new(its_core::host::HostItsConfig {
            queue_bytes,
            device_bits,
            event_bits,
            itt_entry_bytes,
        });
        let config = HostItsConfig { queue_bytes, device_bits, event_bits, itt_entry_bytes };
        assert_eq!(host.add_its(model.clone(), config), Ok(its));
        for cpu in 0..cpus {
            host.setup_collection(its, cpu, Rdbase::from_processor_number(cpu)).expect("it works");
        }
        all.push(model);
    }
    (host, all)
}

/// A device that has all that it takes to be mapped on `its`.
fn prepared(host: &Host<Fake>, its: usize) -> HostDevice<Fake> {
    let mut preparation = host.prepare_device(its, DEVICE, DOMAIN, 32).expect("room");
    loop {
        match preparation.advance(host, &mut Budget::trap()) {
            Step::Done(result) => return result.expect("memory"),
            Step::More(rest) => preparation = rest,
        }
    }
}

#[test]
fn a_device_of_an_its_that_is_not_there_is_given_up() {
    let (its_own, models) = host(2, 1);
    let (other, _) = host(1, 1);
    let world = World::current();
    other.unmap_device(its_own.map_device(1, DEVICE, DOMAIN, 32).expect("room"));
    let log = world.take_log();
    let [(_, line)] = &log[..] else { panic!("{log:?}") };
    assert!(line.contains("host ITS 1 did not confirm that device 0x9 is unmapped"), "{line}");
    // Nobody frees the ITT, or hands out the LPIs, that the one ITS may still use.
    assert_eq!((models[1].mapped(), world.live_tables()), ((1, 32), 1));
    assert_eq!((other.its(0).expect("there").abandoned(), its_own.lpis.in_use()), (0, 32));
}

#[test]
fn a_device_cannot_be_mapped_on_an_its_that_is_not_there() {
    let (its_own, _) = host(2, 1);
    let (other, _) = host(1, 1);
    let device = prepared(&its_own, 1);
    let mapped = match Transit::install(&other, device).advance(&other, &mut Budget::trap()) {
        Step::Done(result) => result.map(|_| ()),
        Step::More(_) => panic!("there is nothing to wait for"),
    };
    assert_eq!(mapped, Err(Error::NotFound));
    assert_eq!((World::current().live_tables(), other.lpis.in_use()), (0, 0), "it is gone");
}

#[test]
fn a_device_for_which_there_is_no_memory_needs_no_its_to_go() {
    let (its_own, _) = host(2, 1);
    let (other, _) = host(1, 1);
    let preparation = its_own.prepare_device(1, DEVICE, DOMAIN, 32).expect("room");
    World::current().fail_once_after(0);
    let failed = match preparation.advance(&other, &mut Budget::trap()) {
        Step::Done(result) => result.map(|_| ()),
        Step::More(_) => panic!("there is no room to be made"),
    };
    assert_eq!((failed, World::current().stop_failing()), (Err(Error::NoMemory), false));
    assert_eq!(other.lpis.in_use(), 0);
}

#[test]
fn a_device_that_an_its_has_never_heard_of_goes() {
    let (its_own, _) = host(1, 1);
    let (other, models) = host(1, 1);
    other.unmap_device(prepared(&its_own, 0));
    assert_eq!((World::current().live_tables(), models[0].mapped()), (0, (0, 0)));
    assert_eq!(World::current().take_log(), []);
    // It is still nobody's there.
    other.unmap_device(other.map_device(0, DEVICE, DOMAIN + 1, 32).expect("it is free"));
    assert_eq!(other.lpis.in_use(), 0);
}

#[test]
fn cpus_beyond_those_that_are_counted_get_no_lpis() {
    let (host, models) = host(1, 258);
    let device = host.map_device(0, DEVICE, DOMAIN, 512).expect("room");
    let spread = models[0].spread();
    assert!(spread.keys().copied().eq(0..256) && spread.values().all(|count| *count == 2));
    assert!(device.lpi(EventId::new(511)).is_some());
    host.unmap_device(device);
}

#[test]
fn there_are_so_many_itses_at_most() {
    let (host, _) = host(MAX_ITS, 0);
    assert_eq!(host.its(MAX_ITS).map(|_| ()).err(), Some(Error::NotFound));
}
