// SPDX-License-Identifier: GPL-2.0-only
//! Interrupts that come before the guest is ready for them. One that the
//! architecture has ignored is gone, one that it has made pending is seen, and
//! neither keeps the next one from coming.

use its_arch::gits::GITS_CTLR;
use its_arch::{Command, Lpi};
use its_testkit::vcpu::Mode;
use its_testkit::{Config, Machine, cmd, scaled};

/// What is masked for being too much comes later: see `storms`.
fn config() -> Config {
    Config { id_bits: 14, masking: false, ..Config::default() }
}

const LPI: u32 = 8192;

/// What a guest does before it can take its first LPI, in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// GITS_CTLR.Enabled.
    Its,
    /// MAPD and MAPTI.
    Event,
    /// MAPC.
    Collection,
    /// GICR_CTLR.EnableLPIs.
    Lpis,
    /// The LPI's configuration, and INV once there is something to
    /// invalidate.
    Property,
    /// PSCI CPU_ON.
    Vcpu,
}

use Step::{Collection, Event, Its, Lpis, Property, Vcpu};

const STEPS: [Step; 6] = [Its, Event, Collection, Lpis, Property, Vcpu];

/// A guest on its way up. All of it happens on vCPU 1, which vCPU 0 brings up.
struct Guest {
    m: Machine,
    done: Vec<Step>,
}

impl Guest {
    fn new() -> Self {
        let m = Machine::new(config());
        m.boot_its(0);
        m.w32(GITS_CTLR, 0);
        m.vcpus[1].power_off(&m.domain);
        Self { m, done: Vec::new() }
    }

    fn has(&self, step: Step) -> bool {
        self.done.contains(&step)
    }

    /// Commands are executed while the ITS is enabled, so enable it for them.
    fn commands(&self, commands: &[Command]) {
        self.m.w32(GITS_CTLR, 1);
        self.m.ok_all(commands);
        self.m.w32(GITS_CTLR, u64::from(self.has(Its)));
    }

    fn step(&mut self, step: Step) {
        match step {
            Its => {
                self.m.w32(GITS_CTLR, 1);
            }
            Event => self.commands(&[cmd::mapd(5, 5), cmd::mapti(5, 0, LPI, 1)]),
            Collection => self.commands(&[cmd::mapc(1, 1)]),
            Lpis => self.m.boot_redist(1),
            Property => self.m.enable(LPI),
            Vcpu => self.m.vcpus[1].power_on(&self.m.domain),
        }
        self.done.push(step);
        // A guest invalidates what it changed as soon as it can.
        if self.has(Property) && self.has(Event) && self.has(Collection) {
            self.commands(&[cmd::inv(5, 0)]);
        }
    }

    /// Does the architecture make an LPI pending that comes now? Its
    /// configuration and whether the vCPU is on do not matter for that.
    fn listens(&self) -> bool {
        [Its, Event, Collection, Lpis].into_iter().all(|step| self.has(step))
    }
}

/// All orders of `rest` after `start`.
fn orders(start: &mut Vec<Step>, rest: &[Step], each: &mut impl FnMut(&[Step])) {
    if rest.is_empty() {
        each(start);
    }
    for (at, step) in rest.iter().enumerate() {
        start.push(*step);
        let others: Vec<Step> = [&rest[..at], &rest[at + 1..]].concat();
        orders(start, &others, each);
        start.pop();
    }
}

/// In each order of the steps, at each point of it, an interrupt comes: it is
/// seen once in the end if it was made pending, and not at all otherwise. The
/// ones after it come as they should.
#[test]
fn an_interrupt_at_each_point_of_each_way_up() {
    let mut seen = 0;
    let mut count = 0_u32;
    orders(&mut Vec::new(), &STEPS, &mut |order| {
        count += 1;
        if !count.is_multiple_of(scaled(1, 360)) {
            return;
        }
        for at in 0..=STEPS.len() {
            its_testkit::World::renew();
            let mut guest = Guest::new();
            let mut expected = false;
            for (n, step) in order.iter().enumerate() {
                if n == at {
                    guest.m.fire(5, 0);
                    expected = guest.listens();
                }
                guest.step(*step);
            }
            if at == STEPS.len() {
                guest.m.fire(5, 0);
                expected = true;
            }
            let m = guest.m;
            let want: &[u32] = if expected { &[LPI] } else { &[] };
            assert_eq!(m.drain(1), want, "{order:?}, fires before step {at}");
            seen += u32::from(expected);
            // Neither is it seen twice, nor does it hold up the next.
            m.ok_all(&[cmd::inv(5, 0), cmd::invall(1)]);
            m.expect(&[], &[]);
            for _ in 0..2 {
                assert!(m.fire(5, 0));
                m.expect(&[], &[LPI]);
            }
            m.destroy();
        }
    });
    assert_eq!(count, 720);
    // Each order's last point, and the points after the four that matter.
    assert!(seen > scaled(720, 1), "{seen}");
}

/// A device that fires all the way up does not wedge anything either, and
/// leaves one pending LPI.
#[test]
fn a_device_that_never_stops_on_the_way_up() {
    let mut count = 0_u32;
    orders(&mut Vec::new(), &STEPS, &mut |order| {
        count += 1;
        if !count.is_multiple_of(scaled(1, 360)) {
            return;
        }
        its_testkit::World::renew();
        let mut guest = Guest::new();
        let mut expected = false;
        for step in order {
            for _ in 0..20 {
                guest.m.fire(5, 0);
            }
            expected |= guest.listens();
            guest.step(*step);
        }
        let m = guest.m;
        let want: &[u32] = if expected { &[LPI] } else { &[] };
        assert_eq!(m.drain(1), want, "{order:?}");
        assert_eq!(m.stat("slots") + m.stat("waiting") + m.stat("dormant"), 0);
        m.quiet();
        m.fire(5, 0);
        m.expect(&[], &[LPI]);
        m.destroy();
    });
}

/// A vCPU that is off when it is given interrupts, and never was on before:
/// they wait, are moved away if the guest wants it, and come when it is on.
#[test]
fn interrupts_wait_for_a_vcpu_that_was_never_on() {
    let m = Machine::new(config());
    m.vcpus[1].power_off(&m.domain);
    m.boot_its(0);
    m.boot_redist(0);
    m.boot_redist(1);
    m.ok_all(&[cmd::mapc(0, 0), cmd::mapc(1, 1), cmd::mapd(5, 7)]);
    // More than there are slots.
    for event in 0..40 {
        m.enable(LPI + event);
        m.ok(cmd::mapti(5, event, LPI + event, 1));
    }
    for _ in 0..3 {
        for event in 0..40 {
            m.fire(5, event);
        }
    }
    assert_eq!(m.vcpus[1].mode(), Mode::Off);
    m.ok_all(&[cmd::movi(5, 7, 0), cmd::clear(5, 8), cmd::discard(5, 9)]);
    assert_eq!(m.drain(0), [LPI + 7]);
    m.vcpus[1].power_on(&m.domain);
    let mut got = m.drain(1);
    got.sort_unstable();
    let want: Vec<u32> = (0..40).filter(|event| !(7..10).contains(event)).collect();
    assert_eq!(got, want.into_iter().map(|event| LPI + event).collect::<Vec<_>>());
    assert!(m.vcpus[1].place(Lpi::MIN).is_none());
    m.destroy();
}
