// SPDX-License-Identifier: GPL-2.0-only
//! Many CPUs at once: vCPUs that take interrupts, devices that raise them,
//! and guest kernels that move, disable, discard and enable them meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use its_arch::{Command, Lpi};
use its_testkit::{Config, Machine, cmd, scaled};

/// Longest that one interrupt may take before it counts as lost. Generous:
/// other work of the machine must not fail the test.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the guest knows of each event.
struct Event {
    /// It has been raised, and the guest has not seen it yet.
    outstanding: AtomicBool,
    /// How often the guest saw it.
    seen: AtomicU32,
}

/// The first LPI of the device.
const FIRST: u32 = 8192;

/// Ends the others.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Ends the others if this thread fails.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

struct Rig {
    m: Machine,
    events: Vec<Event>,
    stop: AtomicBool,
}

impl Rig {
    /// A device whose events are LPIs from [`FIRST`] on, spread over the
    /// vCPUs.
    fn new(vcpus: u16, events: u32) -> Self {
        let m = Machine::booted(Config { vcpus, id_bits: 14, ..Config::default() });
        for (index, vcpu) in m.vcpus.iter().enumerate() {
            if index % 2 == 0 {
                vcpu.raise_other(0x80);
            }
            vcpu.set_active_state(index % 3 != 2);
        }
        m.ok(cmd::mapd(5, 7));
        for event in 0..events {
            m.set_property(FIRST + event, u8::try_from(event % 8).expect("small") * 16, true);
            let collection = u16::try_from(event).expect("few") % vcpus;
            m.ok(cmd::mapti(5, event, FIRST + event, collection));
        }
        let new = || Event { outstanding: AtomicBool::new(false), seen: AtomicU32::new(0) };
        Self { m, events: (0..events).map(|_| new()).collect(), stop: AtomicBool::new(false) }
    }

    /// One vCPU until the end: takes what comes.
    fn vcpu(&self, index: usize, strict: bool) {
        self.m.world.enter();
        let vcpu = &self.m.vcpus[index];
        while !self.stop.load(Ordering::SeqCst) {
            let mut active = Vec::new();
            for _ in 0..3 {
                if let Some(lpi) = vcpu.ack() {
                    active.push(lpi);
                    self.saw(lpi, strict);
                }
            }
            while let Some(lpi) = active.pop() {
                vcpu.eoi(lpi);
            }
            vcpu.cycle(&self.m.domain);
            std::thread::yield_now();
        }
    }

    fn saw(&self, lpi: Lpi, strict: bool) {
        let event = usize::try_from(lpi.get() - FIRST).expect("few");
        self.events[event].seen.fetch_add(1, Ordering::SeqCst);
        let first = self.events[event].outstanding.swap(false, Ordering::SeqCst);
        assert!(first || !strict, "{lpi} came twice");
    }

    /// Raise every event `times` times, each only after the guest has seen it
    /// the last time.
    fn raise(&self, times: u32) {
        self.m.world.enter();
        for _ in 0..times {
            for (number, event) in (0..).zip(&self.events) {
                self.await_seen(number);
                event.outstanding.store(true, Ordering::SeqCst);
                assert!(self.m.fire(5, number), "the event is not mapped");
            }
        }
        for (number, _) in (0..).zip(&self.events) {
            self.await_seen(number);
        }
    }

    fn await_seen(&self, number: u32) {
        let since = Instant::now();
        let event = &self.events[usize::try_from(number).expect("few")];
        while event.outstanding.load(Ordering::SeqCst) {
            assert!(!self.stop.load(Ordering::SeqCst), "another thread has failed");
            assert!(since.elapsed() < PATIENCE, "event {number} is lost");
            std::thread::yield_now();
        }
    }

    /// Have `command` executed again and again until the end.
    fn command(&self, mut command: impl FnMut(u32) -> Vec<Command>) {
        self.m.world.enter();
        for round in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let _errors = self.m.run_on(0, &command(round));
            std::thread::yield_now();
        }
    }

    /// Run vCPUs, one device and one kernel at once until the device is done.
    fn run(&self, times: u32, strict: bool, kernel: impl FnMut(u32) -> Vec<Command> + Send) {
        std::thread::scope(|scope| {
            for index in 0..self.m.vcpus.len() {
                scope.spawn(move || {
                    let _stop = StopOnPanic(&self.stop);
                    self.vcpu(index, strict);
                });
            }
            scope.spawn(move || {
                let _stop = StopOnPanic(&self.stop);
                self.command(kernel);
            });
            let _stop = Stop(&self.stop);
            self.raise(times);
        });
        self.stop.store(false, Ordering::SeqCst);
    }
}

const fn scale(times: u32) -> u32 {
    scaled(times, 2)
}

#[test]
fn every_interrupt_comes_once_while_nothing_else_happens() {
    let rig = Rig::new(4, 40);
    rig.run(scale(1500), true, |_| Vec::new());
    for event in &rig.events {
        assert_eq!(event.seen.load(Ordering::SeqCst), scale(1500));
    }
    rig.m.destroy();
}

#[test]
fn every_interrupt_comes_once_while_it_moves() {
    let rig = Rig::new(4, 40);
    rig.run(scale(1000), true, |round| {
        let mut batch: Vec<Command> = (0..40)
            .map(|event| cmd::movi(5, event, u16::try_from((event + round) % 4).expect("small")))
            .collect();
        if round % 7 == 3 {
            let collection = u16::try_from(round % 4).expect("small");
            let to = |n: u32| u16::try_from((round + n) % 4).expect("small");
            batch.push(cmd::mapc(collection, to(1)));
            batch.push(cmd::mapc(collection, to(2)));
        }
        batch
    });
    for event in &rig.events {
        assert_eq!(event.seen.load(Ordering::SeqCst), scale(1000));
    }
    rig.m.destroy();
}

#[test]
fn every_interrupt_comes_once_while_it_is_disabled_and_enabled() {
    let rig = Rig::new(3, 30);
    let ram = std::sync::Arc::clone(&rig.m.ram);
    rig.run(scale(1000), true, move |round| {
        // Disabled in one round, enabled in the next.
        let event = round / 2 % 30;
        let enabled = round % 2 == 1;
        let at = its_testkit::machine::PROPERTIES + u64::from(event);
        ram.write(at, &[u8::from(enabled) | 0x42]);
        let collection = u16::try_from(event % 3).expect("small");
        vec![if round % 8 < 4 { cmd::inv(5, event) } else { cmd::invall(collection) }]
    });
    // The last one may have been left disabled.
    for event in 0..30 {
        rig.m.enable(FIRST + event);
    }
    for event in &rig.events {
        assert_eq!(event.seen.load(Ordering::SeqCst), scale(1000));
    }
    rig.m.destroy();
}

#[test]
fn movall_loses_nothing() {
    let rig = Rig::new(3, 30);
    rig.run(scale(750), true, |round| {
        let vcpu = |n: u32| u16::try_from((round + n) % 3).expect("small");
        vec![cmd::movall(vcpu(0), vcpu(1)), cmd::movi(5, round % 30, vcpu(2))]
    });
    for event in &rig.events {
        assert_eq!(event.seen.load(Ordering::SeqCst), scale(750));
    }
    rig.m.destroy();
}

#[test]
fn unmapping_races_with_delivery() {
    // Interrupts may be lost to CLEAR and DISCARD, which is what they are
    // for; but nothing may break, and afterwards all is as new.
    let rig = Rig::new(3, 16);
    let m = &rig.m;
    std::thread::scope(|scope| {
        for index in 0..3 {
            let rig = &rig;
            scope.spawn(move || rig.vcpu(index, false));
        }
        for _ in 0..2 {
            let rig = &rig;
            scope.spawn(move || {
                rig.m.world.enter();
                for round in 0.. {
                    if rig.stop.load(Ordering::SeqCst) {
                        return;
                    }
                    rig.m.fire(5, round % 16);
                }
            });
        }
        m.world.enter();
        for round in 0..scale(10_000) {
            let event = round % 16;
            let vcpu = u16::try_from(round % 3).expect("small");
            let _errors = m.run_on(
                0,
                &match round % 4 {
                    0 => vec![cmd::clear(5, event), cmd::inv(5, event)],
                    1 => vec![cmd::discard(5, event), cmd::mapti(5, event, FIRST + event, vcpu)],
                    2 => vec![cmd::movi(5, event, vcpu), cmd::movall(vcpu, (vcpu + 1) % 3)],
                    _ if round % 64 == 3 => {
                        let mut batch = vec![cmd::unmapd(5), cmd::mapd(5, 7)];
                        batch
                            .extend((0..16).map(|event| cmd::mapti(5, event, FIRST + event, vcpu)));
                        batch
                    }
                    _ => vec![cmd::unmapc(vcpu), cmd::mapc(vcpu, vcpu)],
                },
            );
        }
        rig.stop.store(true, Ordering::SeqCst);
    });
    rig.m.settle();
    for vcpu in 0..3 {
        rig.m.drain(vcpu);
    }
    rig.m.check();
    for event in 0..16 {
        rig.m.ok(cmd::mapti(5, event, FIRST + event, 0));
        rig.m.fire(5, event);
    }
    let mut all = rig.m.drain(0);
    all.sort_unstable();
    assert_eq!(all, (FIRST..FIRST + 16).collect::<Vec<_>>());
    assert_eq!(rig.m.stat("slots") + rig.m.stat("waiting") + rig.m.stat("dormant"), 0);
    rig.m.destroy();
}

#[test]
fn two_vcpus_write_cwriter_and_call_work_at_once() {
    let m = Machine::booted(Config::default());
    m.map(5, 1, FIRST);
    let at = m.r64(its_arch::gits::GITS_CREADR);
    let before = m.stat("commands");
    let end = |n: u64| (at + n * 32) % 4096;
    for n in 0..120 {
        m.put(0, end(n), &cmd::movi(5, 0, u16::from(n % 2 == 0)).encode());
    }
    std::thread::scope(|scope| {
        for thread in 0..2_u64 {
            let m = &m;
            scope.spawn(move || {
                m.world.enter();
                // Steps that only ever go forward, as a lock of the guest's
                // would see to.
                if thread == 0 {
                    for n in (1..=119).step_by(2) {
                        m.w64(its_arch::gits::GITS_CWRITER, end(n));
                    }
                }
                m.work();
            });
        }
    });
    m.work();
    assert_eq!(m.r64(its_arch::gits::GITS_CREADR), end(119));
    assert_eq!(m.stat("commands"), before + 119);
    m.fire(5, 0);
    m.expect(&[], &[FIRST]);
    m.destroy();
}
