// SPDX-License-Identifier: GPL-2.0-only
//! Everything that may fail, at every point of every operation: the n-th
//! allocation, for each n, and the host ITS, which hangs, stalls or talks
//! nonsense after the n-th command.
//!
//! Whatever fails: nothing leaks, nothing dangles (the host ITS and the heap
//! of its-testkit see to that), the log has what it should and no more, and
//! the guest goes on: another device works at once, and the same operation
//! does what it is for once nothing fails any more.

use std::sync::Arc;

use its_arch::access::Width;
use its_arch::gicr::{GICR_CTLR, GICR_PENDBASER, GICR_PROPBASER, PendBaser, PropBaser};
use its_arch::gits::{GITS_BASER, GITS_CTLR};
use its_arch::{Command, DeviceId, GuestPa, VcpuId};
use its_core::Domain;
use its_core::env::Level;
use its_testkit::guest::{FakeGuest, Ram};
use its_testkit::its::Pace;
use its_testkit::machine::{PROPERTIES, TIME_BETWEEN_STEPS};
use its_testkit::vcpu::FakeVcpu;
use its_testkit::{Config, Fake, Machine, World, cmd, scaled};

/// The LPI of a device that nothing happens to.
const STEADY: u32 = 8192;
/// The LPI of event 0 of the device in question.
const LPI: u32 = 12_000;
/// That device.
const DEVICE: u32 = 30;
/// EventID bits that it grows to, and the last event then.
const GROWN: u8 = scaled(8, 6);
const LAST: u32 = (1 << GROWN) - 1;

/// An operation.
struct Op {
    name: &'static str,
    /// What comes before it.
    before: fn(&Machine),
    /// What it is; false if it failed.
    run: fn(&Machine) -> bool,
    /// How many devices there are afterwards.
    devices: u64,
}

/// Did the guest's command go through? If not, one line says so.
fn command(m: &Machine, command: Command) -> bool {
    let at = m.r64(its_arch::gits::GITS_CWRITER);
    m.put(0, at, &command.encode());
    let skipped = skipped(m);
    m.w64(its_arch::gits::GITS_CWRITER, (at + 32) % 4096);
    m.work();
    assert_eq!(m.r64(its_arch::gits::GITS_CREADR), (at + 32) % 4096, "GITS_CREADR goes on");
    self::skipped(m) == skipped
}

/// How many commands were skipped; lines that wait to be read stay.
fn skipped(m: &Machine) -> u64 {
    let kept = m.world.take_log();
    let count = m.stat("skipped");
    for (level, line) in kept {
        m.world.put_log(level, &line);
    }
    count
}

fn add(m: &Machine) -> bool {
    m.add_device(DEVICE, 64).is_ok()
}

fn nothing(_: &Machine) {}

static OPS: [Op; 10] = [
    Op { name: "device add", before: nothing, run: add, devices: 9 },
    Op {
        name: "device add after MAPD",
        before: |m| m.ok(cmd::mapd(DEVICE, 5)),
        run: add,
        devices: 9,
    },
    Op {
        name: "device remove",
        before: |m| {
            m.add_device(DEVICE, 64).expect("room");
            m.map(DEVICE, 2, LPI);
        },
        run: |m| m.remove_device(DEVICE).is_ok(),
        devices: 8,
    },
    Op {
        name: "MAPD of a new device",
        before: nothing,
        run: |m| command(m, cmd::mapd(DEVICE, 7)),
        devices: 9,
    },
    Op {
        name: "MAPD again",
        before: |m| m.map(DEVICE, 2, LPI),
        run: |m| command(m, cmd::mapd(DEVICE, 5)),
        devices: 9,
    },
    Op {
        name: "MAPD that grows",
        before: |m| m.map(DEVICE, 2, LPI),
        run: |m| command(m, cmd::mapd(DEVICE, GROWN)),
        devices: 9,
    },
    Op {
        name: "MAPD that grows an announced device",
        before: |m| {
            m.add_device(DEVICE, 32).expect("room");
            m.map(DEVICE, 2, LPI);
        },
        run: |m| command(m, cmd::mapd(DEVICE, GROWN)),
        devices: 9,
    },
    Op {
        name: "MAPD V=0",
        before: |m| m.map(DEVICE, 2, LPI),
        run: |m| command(m, cmd::unmapd(DEVICE)),
        devices: 8,
    },
    Op {
        name: "MAPTI",
        before: |m| m.ok(cmd::mapd(DEVICE, 5)),
        run: |m| command(m, cmd::mapti(DEVICE, 0, LPI, 0)),
        devices: 9,
    },
    Op {
        name: "no device table",
        before: |m| m.map(DEVICE, 2, LPI),
        run: |m| {
            m.w32(GITS_CTLR, 0);
            m.w64(GITS_BASER, 0);
            m.work();
            m.w64(GITS_BASER, Machine::baser(8).into());
            m.w32(GITS_CTLR, 1);
            true
        },
        devices: 7,
    },
];

/// All of them; under Miri, the one that has the most steps.
fn ops() -> &'static [Op] {
    scaled(&OPS, &OPS[5..6])
}

/// Room for eight devices in the map of devices: the ninth has it grow.
fn machine(config: Config) -> Machine {
    let m = Machine::booted(config);
    m.world.set_relax(TIME_BETWEEN_STEPS);
    m.map(1, 1, STEADY);
    for device in 2..9 {
        m.add_device(device, 32).expect("room");
    }
    m
}

/// The guest can do all of it: a device that was there before works, and so
/// does the one in question once it is mapped. Nobody keeps that one.
fn goes_on(m: &Machine, what: &str) {
    m.drain(0);
    if what.starts_with("no device table") {
        m.map(1, 1, STEADY);
    }
    m.fire(1, 0);
    m.expect(&[STEADY], &[]);
    let log = m.run_on(0, &[cmd::mapd(DEVICE, GROWN), cmd::mapti(DEVICE, LAST, LPI, 1)]);
    assert!(log.is_empty(), "{what}: {log:?}");
    m.enable(LPI);
    m.ok(cmd::inv(DEVICE, LAST));
    m.drain(1);
    assert!(m.fire(DEVICE, LAST), "{what}");
    m.expect(&[], &[LPI]);
    m.ok_all(&[cmd::discard(DEVICE, LAST), cmd::unmapd(DEVICE)]);
    // Once it is nobody's, another domain can have it.
    let _announced = m.remove_device(DEVICE);
    let other = m.host.map_device(0, DeviceId::new(DEVICE), 99, 32);
    m.host.unmap_device(other.expect("it is nobody's"));
}

// ---- Memory ----

/// `fails_once` is one failure, otherwise there is no memory from then on
/// until the operation is over.
fn for_each_allocation(op: &Op, fails_once: bool) -> u32 {
    let mut all = (0..40).step_by(scaled(1, 4));
    loop {
        let n = all.next().expect("it succeeds sooner or later");
        World::renew();
        let m = machine(Config::default());
        (op.before)(&m);
        let (live, in_use) = (m.world.live(), m.host.lpis.in_use());
        let mapped = m.its[0].mapped();
        if fails_once {
            m.world.fail_once_after(n);
        } else {
            m.world.fail_all_after(n);
        }
        let done = (op.run)(&m);
        let untouched = m.world.stop_failing();
        let what = format!("{}, allocation {n}", op.name);
        let log = m.world.take_log();
        m.check();
        if untouched {
            assert!(done && log.is_empty(), "{what}: {log:?}");
            assert_eq!(m.stat("devices"), op.devices, "{what}");
            goes_on(&m, &what);
            m.destroy();
            return n;
        }
        if !done {
            // A hypercall says it by its result.
            let lines = usize::from(op.name.starts_with("MAP"));
            assert_eq!(log.len(), lines, "{what}: {log:?}");
            assert!(log.iter().all(|(level, _)| *level == Level::Guest), "{what}: {log:?}");
            // All is as it was; pages of tables may have come, for good.
            assert_eq!(m.its[0].mapped(), mapped, "{what}");
            assert_eq!(m.host.lpis.in_use(), in_use, "{what}");
            assert!(m.world.live() <= live + 4, "{what}");
            // And there is memory again.
            assert!((op.run)(&m), "{what}, and then again");
        }
        m.quiet();
        goes_on(&m, &what);
        m.destroy();
    }
}

#[test]
fn every_allocation_may_fail() {
    for op in ops() {
        let once = for_each_allocation(op, true);
        let all = for_each_allocation(op, false);
        assert_eq!(once, all, "{}", op.name);
        let allocates = matches!(
            op.name,
            "device add"
                | "MAPD of a new device"
                | "MAPD that grows"
                | "MAPD that grows an announced device"
                | "MAPTI"
        );
        // What unmaps, or finds what it needs, allocates nothing: it can
        // never fail.
        assert_eq!(once > 0, allocates, "{}: {once} allocations", op.name);
    }
}

#[test]
fn every_allocation_of_enable_lpis_may_fail() {
    for &fails_once in scaled(&[true, false][..], &[true]) {
        for n in (0..).step_by(scaled(1, 3)) {
            World::renew();
            let m = Machine::new(Config::default());
            m.boot_its(0);
            m.ok_all(&[cmd::mapc(0, 0), cmd::mapc(1, 1)]);
            m.map(1, 1, STEADY);
            let propbaser = PropBaser::new().with_id_bits(m.config.id_bits - 1);
            let propbaser = propbaser.with_address(GuestPa::new(PROPERTIES));
            m.gicr_w64(0, GICR_PROPBASER, propbaser.into());
            m.gicr_w64(0, GICR_PENDBASER, PendBaser::new().with_ptz(true).into());
            let before = (m.world.live(), m.ram.pins());
            if fails_once {
                m.world.fail_once_after(n);
            } else {
                m.world.fail_all_after(n);
            }
            m.gicr_w32(0, GICR_CTLR, 1);
            let untouched = m.world.stop_failing();
            let enabled = m.gicr_read(0, GICR_CTLR, Width::Word) & 1;
            assert_eq!(enabled, u64::from(untouched), "{n}");
            let log = m.world.take_log();
            assert_eq!(log.len(), usize::from(!untouched), "{n}: {log:?}");
            if !untouched {
                assert_eq!((m.world.live(), m.ram.pins()), before, "{n}");
                m.fire(1, 0);
                m.expect(&[], &[]);
                m.gicr_w32(0, GICR_CTLR, 1);
            }
            // The second vCPU, too.
            m.boot_redist(1);
            goes_on(&m, "EnableLPIs");
            m.destroy();
            if untouched {
                assert!(n >= 3, "{n} allocations");
                break;
            }
        }
    }
}

#[test]
fn every_allocation_of_a_domain_may_fail_with_its_vcpus() {
    let world = World::current();
    let config = Config { its: 2, vcpus: 3, ..Config::default() };
    let (host, its) = config.host().expect("memory");
    let live = world.live();
    for n in 0.. {
        let ram = Arc::new(Ram::default());
        world.fail_all_after(n);
        let domain = Domain::<Fake>::new(&host, FakeGuest(Arc::clone(&ram)), config.domain());
        // A vCPU needs no memory of the component's.
        let vcpus: Vec<FakeVcpu> = (0..3).map(|id| FakeVcpu::new(id, 4)).collect();
        if let Ok(domain) = &domain {
            for (id, vcpu) in (0..).zip(&vcpus) {
                assert_eq!(domain.add_vcpu(VcpuId::new(id), vcpu.clone()), Ok(()));
            }
        }
        let untouched = world.stop_failing();
        assert_eq!(untouched, domain.is_ok(), "{n}");
        if let Ok(domain) = &domain {
            while domain.relinquish(&host) {}
        }
        drop(domain);
        assert_eq!((world.live(), world.live_tables()), (live, 0), "{n}");
        assert_eq!(Arc::strong_count(&ram), 1);
        assert_eq!(its[0].mapped(), (0, 0));
        if untouched {
            assert!(n >= 4, "{n} allocations");
            return;
        }
    }
}

// ---- The host ITS ----

/// What becomes of the host ITS.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Hang,
    Stall,
    /// GITS_CREADR reads as a number that it cannot have.
    Garbage(u64),
}

impl Failure {
    /// It happens after `n` commands, or looks at the clock.
    fn after(self, m: &Machine, n: u32) {
        let its = m.its[0].clone();
        match self {
            Self::Hang => its.set_pace(Pace::Hang(n)),
            Self::Stall => its.set_pace(Pace::Stall(n)),
            Self::Garbage(value) => {
                its.set_pace(Pace::PerPoll(1));
                m.world.on_clock(n, move || its.set_garbage(Some(value)));
            }
        }
    }

    /// It works again. True if the failure had not happened yet.
    fn mend(self, m: &Machine) -> bool {
        let early = match self {
            // It has executed all that it was given.
            Self::Hang | Self::Stall => m.its[0].waiting() == 0,
            Self::Garbage(_) => m.world.off_clock(),
        };
        m.its[0].set_garbage(None);
        m.its[0].set_pace(Pace::Immediate);
        early
    }
}

/// Devices that the host ITS did not confirm as unmapped.
fn abandoned(m: &Machine) -> u64 {
    m.host.its(0).expect("there").abandoned()
}

fn for_each_command(op: &Op, failure: Failure, step: usize) {
    // Each of the first, and of the last of a short operation; then some.
    let most = (0..50).step_by(step).chain((50..1000).step_by(23));
    let all = if cfg!(miri) { vec![7, 60, 999] } else { most.collect() };
    let mut all = all.into_iter();
    loop {
        let n = all.next().expect("it succeeds sooner or later");
        World::renew();
        // A queue that is soon full.
        let m = machine(Config { host_queue_bytes: 2048, ..Config::default() });
        (op.before)(&m);
        let what = format!("{}, {failure:?} after {n}", op.name);
        let since = m.world.now();
        failure.after(&m, n);
        let done = (op.run)(&m);
        let untouched = failure.mend(&m);
        let waited = m.world.now() - since;
        assert!(waited < 300_000_000, "{what}: waited for {waited} ns");
        let log = m.world.take_log();
        if untouched {
            assert!(done && abandoned(&m) == 0 && log.is_empty(), "{what}: {log:?}");
            goes_on(&m, &what);
            m.destroy();
            return;
        }
        // One line for the ITS, one for each device that was given up, one
        // for a command that was skipped.
        let level = |wanted| log.iter().filter(|(level, _)| *level == wanted).count();
        let guest = usize::from(op.name.starts_with("MAP") && !done);
        assert_eq!(level(Level::Guest), guest, "{what}: {log:?}");
        let errors = level(Level::Error);
        assert!(errors <= 2 + usize::try_from(abandoned(&m)).expect("few"), "{what}: {log:?}");
        // What the ITS may still use is nobody's, and all else is as it
        // should be.
        for lpi in m.its[0].lpis() {
            if let Some(entry) = m.host.lpis.get(lpi) {
                assert_eq!(entry.domain(), its_testkit::machine::DOMAIN_ID, "{what}");
            }
        }
        goes_on(&m, &what);
        let devices = m.its[0].mapped().0;
        while m.domain.relinquish(&m.host) {}
        assert!(devices >= 8, "{what}");
        assert_eq!(m.ram.pins(), 0, "{what}");
        let lost = usize::try_from(abandoned(&m)).expect("few");
        assert!(m.world.live_tables() <= lost, "{what}");
        assert!(lost <= 2, "{what}: {lost} devices were given up");
    }
}

#[test]
fn every_host_command_may_hang() {
    for op in ops() {
        for_each_command(op, Failure::Hang, 1);
    }
}

#[test]
fn every_host_command_may_stall() {
    for op in ops() {
        for_each_command(op, Failure::Stall, 1);
    }
}

#[test]
fn every_look_at_creadr_may_find_nonsense() {
    for op in ops() {
        for &value in scaled(&[u64::MAX, 0x800, 0xf_ffe0][..], &[0x800]) {
            for_each_command(op, Failure::Garbage(value), 3);
        }
    }
}

/// A guest that maps devices on a dead ITS again and again: what the ITS was
/// never told of is not lost, and is not worth a line of Xen's own.
#[test]
fn a_dead_its_costs_one_device_however_often_the_guest_tries() {
    let m = machine(Config::default());
    let (tables, in_use) = (m.world.live_tables(), m.host.lpis.in_use());
    m.its[0].set_pace(Pace::Hang(0));
    for _ in 0..scaled(100, 5) {
        assert!(!command(&m, cmd::mapd(DEVICE, 5)));
    }
    assert_eq!(m.world.live_tables(), tables + 1);
    assert_eq!(m.host.lpis.in_use(), in_use + 32);
    assert_eq!(abandoned(&m), 1);
    let log = m.world.take_log();
    let errors: Vec<_> = log.iter().filter(|(level, _)| *level == Level::Error).collect();
    // One for the ITS, one for the device that it was told of.
    assert_eq!(errors.len(), 2, "{errors:?}");
    m.its[0].set_pace(Pace::Immediate);
    goes_on(&m, "the ITS wakes up");
}
