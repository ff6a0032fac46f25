// SPDX-License-Identifier: GPL-2.0-only
//! Ways through the code that no other test takes, as coverage tells.

use std::sync::Arc;

use its_arch::gits::{GITS_BASER, GITS_CREADR, GITS_CTLR, GITS_CWRITER};
use its_arch::{DeviceId, VcpuId};
use its_core::env::Level;
use its_core::{Domain, DomainConfig, Error};
use its_testkit::guest::{FakeGuest, Ram};
use its_testkit::its::Pace;
use its_testkit::vcpu::FakeVcpu;
use its_testkit::{Config, Fake, Machine, cmd, scaled};

fn domain(m: &Machine, config: DomainConfig) -> Result<Domain<Fake>, Error> {
    Domain::new(&m.host, FakeGuest(Arc::new(Ram::default())), config)
}

#[test]
fn a_domain_has_at_most_32767_vcpus() {
    let m = Machine::new(Config::default());
    let live = m.world.live();
    let with = |vcpus| domain(&m, DomainConfig { vcpus, ..m.config.domain() });
    // The number of a vCPU and what a collection is share 16 bits.
    assert_eq!(with(1 << 15).err(), Some(Error::OutOfRange));
    assert_eq!(with(u16::MAX).err(), Some(Error::OutOfRange));
    let most = with(scaled((1 << 15) - 1, 300)).expect("as many as there can be");
    let last = VcpuId::new(scaled((1 << 15) - 2, 299));
    assert_eq!(most.add_vcpu(last, FakeVcpu::new(0, 4)), Ok(()));
    drop(most);
    assert_eq!(m.world.live(), live);
}

#[test]
fn a_full_queue_whose_creadr_is_nonsense_fails_what_comes_next() {
    let m = Machine::new(Config { host_queue_bytes: 256, ..Config::default() });
    m.its[0].set_pace(Pace::Hang(3));
    m.its[0].set_garbage(Some(0xf_ffe0));
    let since = m.world.now();
    assert_eq!(m.add_device(1, 32), Err(Error::Confused));
    assert!(m.world.now() - since < 1_000_000, "nonsense is waited for");
    let log = m.world.take_log();
    let lines = log.iter().filter(|(_, line)| line.contains("GITS_CREADR 0xfffe0")).count();
    assert_eq!(lines, 1, "{log:?}");
    // It comes to its senses.
    m.its[0].set_garbage(None);
    m.its[0].set_pace(Pace::Immediate);
    assert_eq!(m.add_device(2, 32), Ok(()));
    assert!(m.its[0].fire(2, 31).is_some());
}

#[test]
fn an_its_that_stalls_after_all_its_commands_has_executed_them() {
    let m = Machine::new(Config::default());
    // MAPC and SYNC for 4 CPUs; MAPD, 32 MAPTI, 4 SYNC.
    let done = (8 + 37) * 32;
    m.its[0].set_garbage(Some(done | 1));
    assert_eq!(m.add_device(1, 32), Ok(()));
    m.quiet();
    // The next one finds it stalled.
    assert_eq!(m.add_device(2, 32), Err(Error::Stalled));
    let log = m.world.take_log();
    assert!(log.iter().all(|(level, _)| *level == Level::Error) && !log.is_empty(), "{log:?}");
    m.its[0].set_garbage(None);
    assert_eq!(m.add_device(3, 32), Ok(()));
}

/// The host ITS hangs, and a MAPD of the guest's waits for it. There is another domain, too.
fn a_mapd_that_waits() -> (Machine, Domain<Fake>) {
    let m = Machine::booted(Config::default());
    let config = DomainConfig { id: 8, hardware: false, ..m.config.domain() };
    let other = domain(&m, config).expect("memory");
    m.its[0].set_pace(Pace::Hang(0));
    let at = m.r64(GITS_CWRITER);
    m.put(0, at, &cmd::mapd(5, 5).encode());
    assert!(m.w64(GITS_CWRITER, at + 32), "it waits for the host");
    (m, other)
}

#[test]
fn a_command_that_waits_learns_that_another_domain_gave_up() {
    let (m, other) = a_mapd_that_waits();
    let result = loop {
        match other.add_device(&m.host, 0, DeviceId::new(6), 32) {
            Ok(true) => m.world.advance(scaled(10_000, 1_000_000)),
            result => break result,
        }
    };
    assert_eq!(result, Err(Error::TimedOut));
    let since = m.world.now();
    m.work();
    assert!(m.world.now() - since < 1_000_000, "it waits for an ITS that was given up");
    let log = m.world.take_log();
    let of = |wanted| log.iter().filter(|(level, _)| *level == wanted).count();
    // One for the ITS, one for each device that it may have been told of, and
    // one for the guest whose command was skipped.
    assert_eq!((of(Level::Error), of(Level::Guest)), (3, 1), "{log:?}");
    m.its[0].set_pace(Pace::Immediate);
    m.map(7, 1, 8192);
    m.fire(7, 0);
    m.expect(&[8192], &[]);
}

#[test]
fn a_command_that_waits_learns_that_another_domain_has_seen_it_done() {
    let (m, other) = a_mapd_that_waits();
    let add = || other.add_device(&m.host, 0, DeviceId::new(6), 32);
    assert_eq!(add(), Ok(true));
    m.its[0].set_pace(Pace::Immediate);
    assert_eq!(add(), Ok(false));
    let (submitted, completed) = m.host.its(0).expect("there").command_counts();
    assert_eq!(submitted, completed, "nothing is left for the other one to see");
    assert!(!m.domain.work(&m.host));
    assert_eq!(m.r64(GITS_CREADR), m.r64(GITS_CWRITER));
    m.check();
    while other.relinquish(&m.host) {}
    drop(other);
    m.destroy();
}

#[test]
fn many_small_devices_go_in_steps_of_bounded_size() {
    let m = Machine::booted(Config::default());
    let devices = scaled(60_u32, 8);
    for device in 0..devices {
        m.ok(cmd::mapd(device, u8::try_from(device % 5).expect("small") + 1));
    }
    let _setup = m.its[0].take_executed();
    m.w32(GITS_CTLR, 0);
    let mut more = m.w64(GITS_BASER, 0);
    let mut steps = 1;
    loop {
        let commands = m.its[0].take_executed().len();
        assert!(commands <= 256 + 16, "{commands} host commands");
        if !more {
            break;
        }
        more = m.domain.work(&m.host);
        steps += 1;
    }
    // DISCARD for each of 32 events, MAPD, SYNC for each CPU.
    assert!(steps > devices * 37 / 272, "{steps} steps");
    assert_eq!(m.its[0].mapped(), (0, 0));
    m.check();
    m.destroy();
}
