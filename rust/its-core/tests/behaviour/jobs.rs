// SPDX-License-Identifier: GPL-2.0-only
//! Commands that take more than one step: how much a step does, and what may
//! happen between two of them.

use std::cell::Cell;
use std::sync::Arc;

use its_arch::access::Width;
use its_arch::error::CommandError;
use its_arch::gicr::{GICR_CTLR, GICR_INVALLR, GICR_INVLPIR, GICR_PENDBASER, GICR_PROPBASER};
use its_arch::gicr::{GICR_SYNCR, PendBaser, PropBaser};
use its_arch::gits::{GITS_BASER, GITS_CBASER, GITS_CREADR, GITS_CTLR, GITS_CWRITER};
use its_arch::{Command, DeviceId, GuestPa, Lpi, VcpuId};
use its_core::budget::{COMMAND, TRAP};
use its_core::env::SLOTS;
use its_core::{Domain, DomainConfig, Error};
use its_testkit::env::Fake;
use its_testkit::guest::{FakeGuest, Ram};
use its_testkit::its::Pace;
use its_testkit::machine::PROPERTIES;
use its_testkit::vcpu::FakeVcpu;
use its_testkit::{Config, Machine, World, cmd, scaled};

/// LPIs that one step may look at: the last batch may begin before the budget
/// is spent.
const STEP: u64 = TRAP as u64 + SLOTS as u64;

/// LPIs of a job that takes many steps.
const MANY: u32 = scaled(3000, 300);
/// EventID bits of the device that has them, and its events.
const BITS: u8 = scaled(12, 9);
const EVENTS: u32 = 1 << BITS;
/// A step that is not the last one.
const SOME_STEP: u32 = scaled(5, 1);

/// Put commands in the queue of virtual ITS 0, and ring once. True if there
/// is more to do.
pub fn ring(m: &Machine, commands: &[Command]) -> bool {
    let mut at = m.r64(GITS_CWRITER);
    for command in commands {
        m.put(0, at, &command.encode());
        at = (at + 32) % m.cbaser(0).size_bytes();
    }
    m.w64(GITS_CWRITER, at)
}

/// Execute `commands`, and call `between` after each step but the last. How
/// many steps it took.
fn in_steps(m: &Machine, commands: &[Command], mut between: impl FnMut(u32)) -> u32 {
    let mut more = ring(m, commands);
    let mut steps = 1_u32;
    while more {
        between(steps);
        more = m.domain.work(&m.host);
        steps += 1;
        assert!(steps < 100_000, "it never ends");
    }
    assert_eq!(m.r64(GITS_CREADR), m.r64(GITS_CWRITER));
    steps
}

/// Checks that a figure changes by at most a step's worth.
struct Pace1 {
    last: Cell<u64>,
}

impl Pace1 {
    fn new(start: u64) -> Self {
        Self { last: Cell::new(start) }
    }

    #[track_caller]
    fn check(&self, now: u64) {
        let moved = self.last.replace(now).abs_diff(now);
        assert!(moved <= STEP, "{moved} in one step");
    }
}

/// All LPIs of `MANY` events of device 5 are mapped to collection 0 on vCPU
/// 0, disabled, and pending.
fn dormant() -> Machine {
    let m = Machine::booted(Config { queue_pages: 2, ..Config::default() });
    m.ok(cmd::mapd(5, BITS));
    let map: Vec<_> = (0..MANY).map(|n| cmd::mapti(5, n, 8192 + n, 0)).collect();
    m.ok_all(&map);
    for event in 0..MANY {
        m.fire(5, event);
    }
    assert_eq!(m.stat("dormant"), MANY.into());
    m
}

fn enable_all(m: &Machine) {
    for n in 0..MANY {
        m.enable(8192 + n);
    }
}

/// Both vCPUs take all there is: each LPI once, on one of them.
fn all_once(m: &Machine) {
    let mut got = [m.drain(0), m.drain(1), m.drain(0)].concat();
    got.sort_unstable();
    assert_eq!(got, (8192..8192 + MANY).collect::<Vec<_>>());
}

#[test]
fn invall_goes_on_step_by_step() {
    let m = dormant();
    enable_all(&m);
    let pace = Pace1::new(MANY.into());
    let creadr = m.r64(GITS_CREADR);
    let steps = in_steps(&m, &[cmd::invall(0)], |_| {
        pace.check(m.stat("dormant"));
        assert_eq!(m.r64(GITS_CREADR), creadr, "it is not done");
    });
    pace.check(0);
    assert!(steps >= MANY / 272, "{steps}");
    let both = m.drain(0);
    assert_eq!(both.len(), usize::try_from(MANY).expect("few"));
    m.destroy();
}

#[test]
fn invall_passes_over_what_stays_disabled() {
    let m = dormant();
    // 4 units for 64 LPIs that are pending.
    assert!(in_steps(&m, &[cmd::invall(0)], |_| ()) <= 1 + MANY.div_ceil(64) * 4 / TRAP);
    // Some of each word, and a whole word, which is more than a batch.
    let enabled = |n: u32| n % 7 == 3 || n / 64 == 2;
    for n in (0..MANY).filter(|n| enabled(*n)) {
        m.enable(8192 + n);
    }
    m.ok(cmd::invall(0));
    let mut got = m.drain(0);
    got.sort_unstable();
    assert_eq!(got, (0..MANY).filter(|n| enabled(*n)).map(|n| 8192 + n).collect::<Vec<_>>());
    m.destroy();
}

#[test]
fn invall_with_nothing_newly_pending_takes_one_step() {
    let m = Machine::booted(Config::default());
    m.map(5, 2, 8192);
    assert_eq!(in_steps(&m, &[cmd::invall(0); 31], |_| ()), 1);
    m.fire(5, 0);
    assert_eq!(in_steps(&m, &[cmd::invall(0); 31], |_| ()), 1);
    m.expect(&[8192], &[]);
    m.destroy();
}

#[test]
fn mapc_moves_step_by_step() {
    let m = dormant();
    let on_first = || {
        // Looks at vCPU 0 alone: what is dormant there.
        let line = |v: u16| {
            m.domain.dump(&m.host);
            let log = m.world.take_log();
            let start = format!("ITS: vcpu d7v{v} ");
            let line = log.iter().find(|(_, line)| line.starts_with(&start));
            let (_, line) = line.expect("a line for each vCPU");
            line.rsplit('=').next().expect("disabled=").parse::<u64>().expect("a number")
        };
        (line(0), line(1))
    };
    assert_eq!(on_first(), (MANY.into(), 0));
    let pace = Pace1::new(MANY.into());
    let steps = in_steps(&m, &[cmd::mapc(0, 1)], |_| {
        let (first, second) = on_first();
        assert_eq!(first + second, MANY.into());
        pace.check(first);
    });
    assert!(steps >= MANY / 272, "{steps}");
    assert_eq!(on_first(), (0, MANY.into()));
    // What waits for a slot moves as well.
    enable_all(&m);
    m.ok(cmd::invall(0));
    in_steps(&m, &[cmd::mapc(0, 0)], |_| ());
    let got = m.drain(0);
    assert_eq!(got.len(), usize::try_from(MANY).expect("few"));
    m.expect(&[], &[]);
    m.destroy();
}

#[test]
fn movall_moves_step_by_step() {
    let m = dormant();
    enable_all(&m);
    m.ok(cmd::invall(0));
    let waiting = Pace1::new(m.stat("waiting"));
    let steps = in_steps(&m, &[cmd::movall(0, 1)], |_| waiting.check(m.stat("waiting")));
    assert!(steps >= MANY / 272, "{steps}");
    m.settle();
    let (first, second) = (m.drain(0), m.drain(1));
    assert!(first.is_empty(), "{first:?}");
    assert_eq!(second.len(), usize::try_from(MANY).expect("few"));
    m.destroy();
}

#[test]
fn unmapping_a_device_goes_on_step_by_step() {
    let m = dormant();
    let pace = Pace1::new(MANY.into());
    let _setup = m.its[0].take_executed();
    let steps = in_steps(&m, &[cmd::unmapd(5), cmd::sync(0)], |_| {
        pace.check(m.stat("dormant"));
        let commands = m.its[0].take_executed().len();
        assert!(u64::try_from(commands).expect("few") <= STEP, "{commands} host commands");
        assert!(!m.fire(5, MANY - 1) || m.stat("mapped") != 0);
    });
    // The events that are mapped, and then all of them on the host's side.
    assert!(steps >= (MANY + EVENTS) / 256, "{steps}");
    assert_eq!(m.stat("devices"), 0);
    m.fails(cmd::int(5, 0), CommandError::INT_UNMAPPED_DEVICE);
    m.check();
    m.destroy();
}

#[test]
fn mapping_a_device_goes_on_step_by_step() {
    let m = Machine::booted(Config::default());
    let _setup = m.its[0].take_executed();
    let steps = in_steps(&m, &[cmd::mapd(5, BITS), cmd::mapti(5, EVENTS - 1, 8192, 0)], |_| {
        let commands = m.its[0].take_executed().len();
        assert!(u64::try_from(commands).expect("few") <= STEP, "{commands} host commands");
    });
    assert!(steps >= EVENTS / 256, "{steps}");
    m.enable(8192);
    m.fire(5, EVENTS - 1);
    m.expect(&[8192], &[]);
    // Mapping it anew takes its virtual side only, where there is next to
    // nothing to unmap; growing takes all of it.
    assert_eq!(in_steps(&m, &[cmd::mapd(5, BITS - 1)], |_| ()), 1);
    let grown = in_steps(&m, &[cmd::mapd(5, BITS + 1)], |_| ());
    assert!(grown >= (EVENTS + 2 * EVENTS) / 256, "{grown}");
    m.check();
    m.destroy();
}

#[test]
fn a_full_pending_table_is_taken_over_step_by_step() {
    let m = Machine::new(Config::default());
    m.boot_its(0);
    let bytes = scaled(8192, 1024 + 640);
    m.ram.write(Machine::pending_table(0), &vec![0xff; bytes]);
    let pending = u64::try_from(bytes).expect("few") * 8 - 8192;
    let propbaser =
        PropBaser::new().with_id_bits(m.config.id_bits - 1).with_address(GuestPa::new(PROPERTIES));
    m.gicr_w64(0, GICR_PROPBASER, propbaser.into());
    let pendbaser = PendBaser::new().with_address(GuestPa::new(Machine::pending_table(0)));
    m.gicr_w64(0, GICR_PENDBASER, pendbaser.into());
    assert!(m.gicr_write(0, GICR_CTLR, Width::Word, 1));
    assert_eq!(m.gicr_read(0, GICR_SYNCR, Width::Word), 1, "it is at work");
    let mut steps = 1_u32;
    while m.domain.work(&m.host) {
        steps += 1;
    }
    assert_eq!(m.gicr_read(0, GICR_SYNCR, Width::Word), 0);
    assert_eq!(m.stat("dormant"), pending, "nothing is mapped");
    // 4 units for 64 of them.
    assert!(u64::from(steps) >= pending / 64 * 4 / STEP, "{steps}");
    m.destroy();
}

#[test]
fn invallr_goes_on_step_by_step_and_starts_over() {
    let m = dormant();
    let behind = scaled(MANY / 2, 20);
    for n in behind..MANY {
        m.enable(8192 + n);
    }
    let pace = Pace1::new(MANY.into());
    assert!(m.gicr_write(0, GICR_INVALLR, Width::Double, 0));
    for step in 0.. {
        assert_eq!(m.gicr_read(0, GICR_SYNCR, Width::Word), 1);
        pace.check(m.stat("dormant"));
        if step == scaled(4, 0) {
            // Those that were disabled are behind the step: they are found nevertheless.
            enable_all(&m);
            m.gicr_write(0, GICR_INVALLR, Width::Double, 0);
            pace.check(m.stat("dormant"));
        }
        if !m.domain.work(&m.host) {
            break;
        }
    }
    assert_eq!(m.gicr_read(0, GICR_SYNCR, Width::Word), 0);
    assert_eq!(m.stat("dormant"), 0);
    // Another vCPU's redistributor has nothing to do.
    assert!(!m.gicr_write(1, GICR_INVALLR, Width::Double, 0));
    all_once(&m);
    m.destroy();
}

#[test]
fn clearing_the_device_table_goes_on_step_by_step() {
    let m = dormant();
    m.ok(cmd::mapd(9, 5));
    m.add_device(11, 32).expect("room");
    m.w32(GITS_CTLR, 0);
    let mut more = m.w64(GITS_BASER, 0);
    let mut steps = 1_u32;
    while more {
        assert_eq!(m.r32(GITS_CTLR) >> 31, 0, "not quiescent");
        // Nothing changes underneath it.
        m.w64(GITS_CBASER, 0);
        m.w64(GITS_BASER, Machine::baser(8).into());
        assert_eq!(m.r64(GITS_CBASER) >> 63, 1);
        assert_eq!(m.r64(GITS_BASER) >> 63, 0);
        more = m.domain.work(&m.host);
        steps += 1;
    }
    assert!(steps >= EVENTS / 256, "{steps}");
    assert_eq!(m.r32(GITS_CTLR) >> 31, 1);
    assert_eq!((m.stat("devices"), m.stat("mapped"), m.stat("dormant")), (1, 0, 0));
    m.check();
    m.destroy();
}

/// 8 blocks of events, 247 that are mapped, and the device itself: not even to see that there is no
/// other device is anything left.
#[test]
fn a_budget_may_end_with_a_device() {
    for mapped in [246, 247] {
        let m = Machine::booted(Config::default());
        m.add_device(5, 256).expect("room");
        m.ok(cmd::mapd(5, 8));
        m.ok_all(&(0..mapped).map(|n| cmd::mapti(5, n, 8192 + n, 0)).collect::<Vec<_>>());
        m.w32(GITS_CTLR, 0);
        assert_eq!(m.w64(GITS_BASER, 0), 8 + mapped + 1 == TRAP);
        assert_eq!(m.stat("mapped"), 0);
        m.work();
        assert_eq!(m.r32(GITS_CTLR) >> 31, 1, "quiescent");
        m.destroy();
    }
}

#[test]
fn a_guest_that_disables_the_its_finds_the_rest_of_the_queue() {
    let m = dormant();
    enable_all(&m);
    let at = m.r64(GITS_CREADR);
    assert!(ring(&m, &[cmd::invall(0), cmd::mapc(1, 0), cmd::sync(0)]));
    // What has begun goes on; that of fewer LPIs ends here.
    let more = m.w32(GITS_CTLR, 0);
    assert_eq!(more, !cfg!(miri));
    assert_eq!(m.r32(GITS_CTLR) >> 31 == 0, more, "neither enabled nor quiescent");
    m.work();
    assert_eq!(m.r32(GITS_CTLR) >> 31, 1);
    assert_eq!(m.r64(GITS_CREADR), at + 32, "the next command has not begun");
    assert_eq!(m.stat("dormant"), 0);
    m.w32(GITS_CTLR, 1);
    assert_eq!(m.r64(GITS_CREADR), at + 96);
    m.destroy();
}

#[test]
fn whoever_comes_by_goes_on_with_it() {
    let m = dormant();
    enable_all(&m);
    assert!(ring(&m, &[cmd::invall(0)]));
    let start = m.stat("dormant");
    // A read does not.
    let _creadr = m.r64(GITS_CREADR);
    assert_eq!(m.stat("dormant"), start);
    // Another vCPU rings.
    let more = ring(&m, &[cmd::sync(1)]);
    assert!(more || cfg!(miri), "that of fewer LPIs is the last step");
    assert!(m.stat("dormant") < start);
    m.work();
    assert_eq!(m.stat("dormant"), 0);
    m.destroy();
}

#[test]
fn interrupts_and_vcpus_between_the_steps() {
    type Meanwhile = fn(&Machine, u32);
    let meanwhile: [(&str, Meanwhile); 8] = [
        ("fire", |m, step| {
            for n in 0..20 {
                m.fire(5, (step * 977 + n * 131) % MANY);
            }
        }),
        ("cycle", |m, _| m.settle()),
        ("off and on", |m, step| {
            if step % 3 == 0 {
                m.vcpus[0].power_off(&m.domain);
                m.vcpus[0].power_on(&m.domain);
                m.settle();
            }
        }),
        ("off and on, the other", |m, step| {
            if step % 3 == 0 {
                m.vcpus[1].power_off(&m.domain);
                m.vcpus[1].power_on(&m.domain);
                m.settle();
            }
        }),
        ("invlpir", |m, step| {
            for n in 0..10 {
                let lpi = 8192 + (step * 313 + n * 89) % MANY;
                m.gicr_write(0, GICR_INVLPIR, Width::Double, lpi.into());
            }
        }),
        ("disabled and enabled", |m, step| {
            let lpi = 8192 + (step * 313) % MANY;
            m.disable(lpi);
            m.gicr_write(1, GICR_INVLPIR, Width::Double, lpi.into());
            m.enable(lpi);
            m.gicr_write(0, GICR_INVLPIR, Width::Double, lpi.into());
        }),
        ("urgent", |m, step| {
            // More urgent than what is in slots, which would step back for it.
            let lpi = 8192 + MANY - 1 - step % 100;
            m.set_property(lpi, 0x10, true);
            m.fire(5, lpi - 8192);
            m.vcpus[0].cycle(&m.domain);
        }),
        ("other interrupts", |m, _| {
            if m.vcpus[0].others() == (0, 0) {
                m.vcpus[0].raise_other(0x20);
            }
            m.vcpus[0].cycle(&m.domain);
        }),
    ];
    let jobs: [(&str, &[Command]); 6] = [
        ("invall", &[cmd::invall(0)]),
        ("mapc", &[cmd::mapc(0, 1)]),
        ("mapc to and fro", &[cmd::mapc(0, 1), cmd::mapc(0, 0)]),
        ("unmap and map", &[cmd::unmapc(0), cmd::mapc(0, 1)]),
        ("movall", &[cmd::movall(0, 1)]),
        ("movall to and fro", &[cmd::movall(0, 1), cmd::movall(1, 0)]),
    ];
    for &(job, commands) in scaled(&jobs[..], &jobs[1..2]) {
        for (what, happens) in scaled(&meanwhile[..], &meanwhile[..1]) {
            let m = dormant();
            enable_all(&m);
            if job != "invall" {
                m.ok(cmd::invall(0));
            }
            m.settle();
            in_steps(&m, commands, |step| happens(&m, step));
            m.work();
            m.settle();
            let mut got = [m.drain(0), m.drain(1), m.drain(0)].concat();
            got.sort_unstable();
            got.dedup();
            let want: Vec<_> = (8192..8192 + MANY).collect();
            assert_eq!(got.len(), want.len(), "{job}, {what}");
            // MAPC leaves nothing where it was; MOVALL only what came later.
            assert_eq!((m.stat("dormant"), m.stat("waiting")), (0, 0), "{job}, {what}");
            m.quiet();
            m.destroy();
        }
    }
}

#[test]
fn none_steps_back_behind_what_leaves_the_vcpu() {
    let m = dormant();
    enable_all(&m);
    m.ok(cmd::invall(0));
    m.settle();
    assert_eq!(m.vcpus[0].used_slots(), 4);
    in_steps(&m, &[cmd::mapc(0, 1)], |step| {
        if step == SOME_STEP {
            // More urgent than what is in list registers.
            m.vcpus[0].raise_other(0x20);
        }
        m.vcpus[0].cycle(&m.domain);
    });
    m.work();
    m.settle();
    assert_eq!(m.drain(0), []);
    assert_eq!(m.drain(1).len(), usize::try_from(MANY).expect("few"));
    m.destroy();
}

#[test]
fn however_few_step_back_they_go_along() {
    for steps_back in scaled(1, 3)..=scaled(4, 3) {
        let m = dormant();
        enable_all(&m);
        m.ok(cmd::invall(0));
        m.settle();
        // Those that the guest has taken are gone once its vCPU is off.
        for _ in steps_back..4 {
            assert!(m.vcpus[0].ack().is_some());
        }
        in_steps(&m, &[cmd::mapc(0, 1)], |step| {
            if step == SOME_STEP {
                m.vcpus[0].power_off(&m.domain);
            }
        });
        m.vcpus[0].power_on(&m.domain);
        assert_eq!(m.drain(0), []);
        let left = usize::try_from(MANY).expect("few") - 4 + steps_back;
        assert_eq!(m.drain(1).len(), left, "{steps_back} stepped back");
        m.destroy();
    }
}

#[test]
fn what_is_disabled_while_all_leaves_its_vcpu_goes_along() {
    const LISTED: u32 = 8192;
    const OFFSETS: [u64; 2] = [GICR_INVLPIR, GICR_INVALLR];
    for command in [cmd::movall(0, 1), cmd::mapc(0, 1)] {
        for (offset, enters) in OFFSETS.into_iter().flat_map(|it| [(it, false), (it, true)]) {
            let what = format!("{command:?}, {offset:#x}, it enters the guest: {enters}");
            let m = dormant();
            enable_all(&m);
            m.ok(cmd::invall(0));
            m.settle();
            assert!(m.vcpus[0].place(Lpi::new(LISTED).expect("an LPI")).is_some(), "{what}");
            in_steps(&m, &[command], |step| {
                if step == SOME_STEP {
                    m.disable(LISTED);
                    m.gicr_write(0, offset, Width::Double, LISTED.into());
                    if enters {
                        m.vcpus[0].cycle(&m.domain);
                    }
                }
            });
            m.work();
            m.settle();
            assert_eq!(m.drain(0), [], "{what}");
            let others = usize::try_from(MANY).expect("few") - 1;
            assert_eq!(m.drain(1).len(), others, "{what}");
            m.vcpus[0].power_off(&m.domain);
            m.enable(LISTED);
            m.ok(cmd::inv(5, 0));
            m.settle();
            assert_eq!(m.drain(1), [LISTED], "{what}");
            m.destroy();
        }
    }
}

#[test]
fn mapping_a_collection_to_the_vcpu_that_it_has_costs_nothing() {
    let m = dormant();
    assert_eq!(in_steps(&m, &[cmd::mapc(0, 0); 24], |_| ()), 1);
    m.destroy();
}

#[test]
fn waiting_lpis_that_are_disabled_are_passed_over_step_by_step() {
    let m = dormant();
    enable_all(&m);
    m.ok(cmd::invall(0));
    m.settle();
    // The guest disables all but the last, and tells nobody.
    for n in 0..MANY - 1 {
        m.disable(8192 + n);
    }
    let waiting = m.stat("waiting");
    m.vcpus[0].exit(&m.domain);
    let before = m.vcpus[0].fills();
    // What is in slots comes, as the guest has told nobody; then the last.
    let got = m.drain(0);
    assert_eq!(got.len(), 4 + 1);
    assert_eq!(got.last(), Some(&(8192 + MANY - 1)));
    let looks = u64::try_from(m.vcpus[0].fills() - before).expect("few");
    // It takes one look for each 64, and one for each that was in a slot.
    assert!(looks >= waiting / 64 && looks <= waiting / 64 + 8, "{looks}");
    assert_eq!((m.stat("waiting"), m.stat("slots")), (0, 0));
    enable_all(&m);
    m.ok(cmd::invall(0));
    assert_eq!(m.drain(0).len(), usize::try_from(MANY).expect("few") - 4 - 1);
    m.destroy();
}

#[test]
fn an_lpi_that_moves_can_be_unmapped_from_elsewhere() {
    // Two virtual ITSes share an LPI, which is pending on vCPU 0; one maps its
    // collection elsewhere, and while LPIs move the other's GICR_INVLPIR, and
    // events of its own, find them.
    let m = Machine::booted(Config { its: 2, queue_pages: 2, ..Config::default() });
    m.ok(cmd::mapd(5, BITS));
    let map: Vec<_> = (0..MANY).map(|n| cmd::mapti(5, n, 8192 + n, 0)).collect();
    m.ok_all(&map);
    for event in 0..MANY {
        m.fire(5, event);
    }
    m.ok_on(1, cmd::mapd(7, 5));
    let last = 8192 + MANY - 1;
    in_steps(&m, &[cmd::mapc(0, 1)], |step| {
        if step == scaled(2, 1) {
            // The last one is on vCPU 0 as yet. It goes to collection 1 of
            // the other virtual ITS, and is cleared there.
            m.ok_on(1, cmd::mapti(7, 0, last, 1));
            m.ok_on(1, cmd::clear(7, 0));
        }
    });
    assert_eq!(m.stat("dormant"), u64::from(MANY) - 1);
    enable_all(&m);
    m.ok(cmd::invall(0));
    m.drain(0);
    assert!(!m.drain(1).contains(&last));
    m.destroy();
}

#[test]
fn a_collection_that_was_unmapped_takes_along_what_is_disabled() {
    let m = Machine::booted(Config::default());
    m.map(5, 1, 8192);
    m.disable(8192);
    m.fire(5, 0);
    m.ok_all(&[cmd::unmapc(0), cmd::mapc(0, 1)]);
    m.enable(8192);
    m.ok(cmd::invall(0));
    m.expect(&[], &[8192]);
    m.destroy();
}

#[test]
fn a_slow_host_its_is_not_waited_for_in_a_trap() {
    let m = Machine::booted(Config { host_queue_bytes: 64 * 32, ..Config::default() });
    m.its[0].set_pace(Pace::Slow(3));
    // The queue of the host is much smaller than what a MAPD puts in.
    let now = m.world.now();
    let mut longest = 0;
    let mut last = now;
    let steps = in_steps(&m, &[cmd::mapd(5, 9), cmd::sync(0)], |_| {
        longest = longest.max(m.world.now() - last);
        last = m.world.now();
    });
    assert!(steps > 512, "{steps}");
    assert!(longest < 10_000, "a step took {longest} ns of waiting");
    m.its[0].set_pace(Pace::Immediate);
    m.check();
    m.destroy();
}

#[test]
fn a_host_its_that_dies_during_a_mapd_fails_that_mapd() {
    let m = Machine::booted(Config { host_queue_bytes: 64 * 32, ..Config::default() });
    m.map(6, 1, 8200);
    m.its[0].set_pace(Pace::Hang(20));
    let mut more = ring(&m, &[cmd::mapd(5, 9), cmd::int(6, 0)]);
    let mut steps = 0;
    while more {
        m.world.advance(1_000_000);
        more = m.domain.work(&m.host);
        steps += 1;
        assert!(steps < 1000, "it is waited for for ever");
    }
    let log = m.world.take_log();
    assert!(log.iter().any(|(_, line)| line.contains("MAPD_DEVICE_OOR")), "{log:?}");
    m.expect(&[8200], &[]);
    // It comes back, and so does the guest.
    m.its[0].set_pace(Pace::Immediate);
    m.map(5, 1, 8192);
    m.fire(5, 0);
    m.expect(&[8192], &[]);
    m.world.take_log();
    while m.domain.relinquish(&m.host) {}
    assert_eq!(m.ram.pins(), 0);
}

#[test]
fn hypercalls_wait_for_the_job_in_progress() {
    let m = dormant();
    m.add_device(5, 32).expect("known");
    assert!(ring(&m, &[cmd::unmapd(5), cmd::mapd(5, BITS), cmd::sync(0)]));
    // They wait their turn step by step, as does everything else.
    let (mut adding, mut removing) = (1_u32, 1_u32);
    while m.begin_add(9, 64).expect("room") {
        adding += 1;
    }
    while m.begin_remove(5).expect("announced") {
        removing += 1;
    }
    assert!(adding > scaled(MANY / 272, 0) && removing == 1, "{adding} and {removing} steps");
    m.work();
    // It was announced, so MAPD V=0 left it; then it was removed; the MAPD
    // that came after maps it as the guest's own.
    assert_eq!(m.stat("devices"), 2);
    m.remove_device(9).expect("announced");
    m.check();
    m.destroy();
}

/// EventID bits of a device that a hypercall announces, and its events.
const ADDED_BITS: u8 = scaled(11, 9);
const ADDED: u32 = 1 << ADDED_BITS;

/// What a hypercall puts in the host's queue, a call at a time; it takes as many
/// as it returns.
fn calls(m: &Machine, mut call: impl FnMut() -> bool) -> u32 {
    let _before = m.its[0].take_executed();
    let mut calls = 1;
    loop {
        let more = call();
        let commands = m.its[0].take_executed().len();
        assert!(u64::try_from(commands).expect("few") <= STEP, "{commands} host commands");
        if !more {
            return calls;
        }
        calls += 1;
    }
}

#[test]
fn hypercalls_go_on_step_by_step() {
    let m = Machine::booted(Config::default());
    let added = calls(&m, || m.begin_add(5, ADDED.into()).expect("room"));
    // A MAPTI for each event.
    assert!((ADDED / 256..ADDED / 128).contains(&added), "{added}");
    m.ok(cmd::mapd(5, ADDED_BITS));
    let map: Vec<_> = (0..ADDED).map(|n| cmd::mapti(5, n, 8192 + n, 0)).collect();
    m.ok_all(&map);
    assert_eq!(calls(&m, || m.begin_remove(5).expect("announced")), 1);
    assert_eq!(m.begin_remove(5), Ok(true), "the first one is not over");
    assert!(m.stat("mapped") > 0);
    // An LPI and a DISCARD for each event.
    let rest = calls(&m, || m.domain.work(&m.host));
    assert!((2 * ADDED / 256 - 2..2 * ADDED / 128).contains(&rest), "{rest}");
    assert_eq!(m.begin_remove(5), Err(Error::NotFound));
    assert_eq!(m.stat("devices"), 0);
    m.check();
    m.destroy();
}

#[test]
fn a_hypercall_that_never_comes_again_leaves_nothing_behind() {
    for &given_up_after in scaled(&[1, 2, 5][..], &[1]) {
        let m = Machine::booted(Config { max_events: Some(4096), ..Config::default() });
        for _ in 0..given_up_after {
            assert_eq!(m.begin_add(5, ADDED.into()), Ok(true));
        }
        // The guest's next trap goes on with it, and so does the next
        // hypercall.
        let waits = calls(&m, || m.begin_add(6, 32).expect("room"));
        assert!(waits + given_up_after >= ADDED / 256, "{waits} after {given_up_after}");
        assert_eq!((m.stat("devices"), m.stat("mapped")), (2, 0));
        assert_eq!(m.remove_device(5), Err(Error::NotFound), "nobody announced it");
        // Who announces it finds it there; MAPD takes it as it is.
        assert_eq!(m.begin_add(5, ADDED.into()), Ok(false));
        m.remove_device(5).expect("announced");
        assert_eq!(m.begin_add(5, ADDED.into()), Ok(true));
        m.ok_all(&[cmd::mapd(5, ADDED_BITS), cmd::mapti(5, ADDED - 1, 8192, 0)]);
        m.enable(8192);
        m.fire(5, ADDED - 1);
        m.expect(&[8192], &[]);
        m.ok(cmd::unmapd(5));
        assert_eq!(m.stat("devices"), 1);
        m.check();
        // Or the domain ends.
        assert_eq!(m.begin_add(5, ADDED.into()), Ok(true));
        m.destroy();
    }
}

#[test]
fn a_hypercall_has_its_own_errors_only() {
    let m = Machine::booted(Config { host_id_bits: 17, ..Config::default() });
    // Another hypercall, or the guest, finds that there is no memory for it.
    let others: [fn(&Machine); 2] =
        [|m| assert_eq!(m.begin_add(6, 32), Ok(false)), |m| m.ok(cmd::mapd(7, 5))];
    for (devices, other) in (1..).zip(others) {
        assert_eq!(m.begin_add(5, 32768), Ok(true));
        m.world.fail_once_after(0);
        other(&m);
        assert!(!m.world.stop_failing());
        assert_eq!(m.stat("devices"), devices);
    }
    // Who asked for it finds out when he asks again.
    assert_eq!(m.begin_add(5, 32768), Ok(true));
    m.world.fail_once_after(0);
    assert_eq!(m.begin_add(5, 32768), Err(Error::NoMemory));
    assert!(!m.world.stop_failing());
    assert_eq!(m.add_device(5, scaled(32768, 32)), Ok(()));
    m.check();
    m.destroy();
}

#[test]
fn the_guest_goes_on_while_a_hypercall_is_in_progress() {
    let m = Machine::booted(Config::default());
    m.map(7, 1, 8192);
    assert_eq!(m.begin_add(5, ADDED.into()), Ok(true));
    m.fire(7, 0);
    m.expect(&[8192], &[]);
    // It may disable the ITS, and change its tables at once: a hypercall is
    // none of its commands.
    m.w32(GITS_CTLR, 0);
    assert_eq!(m.r32(GITS_CTLR) >> 31, 1, "quiescent");
    assert!(m.w64(GITS_BASER, 0), "devices are unmapped when the hypercall is done");
    assert_eq!(m.r32(GITS_CTLR) >> 31, 0);
    m.work();
    assert_eq!(m.r32(GITS_CTLR) >> 31, 1);
    // Nobody had announced it yet, so it went with all the others.
    assert_eq!(m.stat("devices"), 0);
    m.add_device(5, ADDED.into()).expect("room");
    m.w64(GITS_BASER, Machine::baser(8).into());
    m.w32(GITS_CTLR, 1);
    m.map(5, 1, 8200);
    m.fire(5, 0);
    m.expect(&[8200], &[]);
    m.check();
    m.destroy();
}

#[test]
fn a_vcpu_that_goes_off_and_on_does_not_hold_up_what_leaves_it() {
    let m = dormant();
    enable_all(&m);
    m.ok(cmd::invall(0));
    let off_and_on = |_| {
        m.vcpus[0].power_off(&m.domain);
        m.vcpus[0].power_on(&m.domain);
        m.settle();
    };
    let steps = in_steps(&m, &[cmd::mapc(0, 1)], off_and_on);
    assert!(steps <= MANY / 128, "{steps}: it starts over");
    assert_eq!(m.drain(0), []);
    assert_eq!(m.drain(1).len(), usize::try_from(MANY).expect("few"));
    m.destroy();
}

#[test]
fn commands_cost_more_while_vcpus_have_lpis_to_give_back() {
    const VCPUS: u32 = scaled(128, 32);
    let vcpus = u16::try_from(VCPUS).expect("few");
    let m = Machine::booted(Config { vcpus, queue_pages: 2, ..Config::default() });
    m.map(5, VCPUS + 1, 8192);
    for vcpu in 0..vcpus {
        m.ok(cmd::movi(5, vcpu.into(), vcpu));
        m.fire(5, vcpu.into());
    }
    m.settle();
    let clears = || in_steps(&m, &[cmd::clear(5, VCPUS); 64], |_| ());
    assert_eq!(clears(), 64 * COMMAND / TRAP);
    // None of the vCPUs comes round to leaving its guest.
    let moves: Vec<_> = (0..vcpus).map(|n| cmd::movi(5, n.into(), (n + 1) % vcpus)).collect();
    in_steps(&m, &moves, |_| ());
    let want = 64 * (COMMAND + VCPUS / 4) / TRAP;
    assert!((want..=want + want / 4).contains(&clears()), "{} steps, not {want}", clears());
    m.settle();
    assert_eq!(clears(), 64 * COMMAND / TRAP);
    m.destroy();
}

#[test]
fn a_dead_domain_has_no_work() {
    let m = dormant();
    enable_all(&m);
    assert!(m.gicr_write(0, GICR_INVALLR, Width::Double, 0), "it takes more than one step");
    while m.domain.relinquish(&m.host) {}
    assert!(!m.domain.work(&m.host));
    m.destroy();
}

#[test]
fn a_domain_dies_in_the_middle_of_any_job() {
    let jobs: [&[Command]; 6] = [
        &[cmd::invall(0)],
        &[cmd::mapc(0, 1)],
        &[cmd::movall(0, 1)],
        &[cmd::unmapd(5)],
        &[cmd::mapd(5, 13)],
        &[cmd::mapd(6, 12)],
    ];
    for commands in scaled(&jobs[..], &jobs[..1]) {
        for &steps in scaled(&[0, 1, 3, 18, 40][..], &[1]) {
            let m = dormant();
            enable_all(&m);
            let mut more = ring(&m, commands);
            for _ in 0..steps {
                more = more && m.domain.work(&m.host);
            }
            m.destroy();
        }
    }
}

#[test]
fn a_domain_gives_back_step_by_step() {
    let m = dormant();
    let _setup = m.its[0].take_executed();
    let mut steps = 1_u32;
    while m.domain.relinquish(&m.host) {
        let commands = m.its[0].take_executed().len();
        assert!(u64::try_from(commands).expect("few") <= STEP, "{commands} host commands");
        steps += 1;
    }
    assert!(steps >= (MANY + EVENTS) / 256, "{steps}");
    m.destroy();
}

#[test]
fn commands_cost_more_while_an_lpi_may_be_anywhere() {
    const VCPUS: u32 = scaled(128, 32);
    let vcpus = u16::try_from(VCPUS).expect("few");
    let m = Machine::booted(Config { vcpus, ..Config::default() });
    m.map(5, 1, 8192);
    m.disable(8192);
    m.ok(cmd::inv(5, 0));
    let one = |why: &str| assert_eq!(in_steps(&m, &[cmd::inv(5, 0); 64], |_| ()), 2, "{why}");
    one("nothing is pending");
    m.ok_all(&[cmd::movall(0, 1), cmd::movall(1, 0), cmd::unmapc(0), cmd::mapc(0, 0)]);
    one("nothing was pending");
    m.fire(5, 0);
    one("it is pending where it is mapped");
    let everywhere = |what: &str| {
        // Each looks at all vCPUs from now on.
        let steps = in_steps(&m, &[cmd::inv(5, 0); 64], |_| ());
        let want = 64 * (COMMAND + VCPUS / 4) / TRAP;
        assert!(steps >= want && steps <= want + want / 4, "{what}: {steps}");
    };
    m.ok(cmd::movall(0, 1));
    everywhere("MOVALL took it along");
    // Until nothing is pending anywhere, and somebody has seen that.
    m.ok(cmd::clear(5, 0));
    one("it is gone");
    m.ok_all(&[cmd::mapti(5, 1, 8193, 2), cmd::int(5, 1), cmd::unmapc(2)]);
    everywhere("it stays where it was");
    m.ok_all(&[cmd::discard(5, 1), cmd::inv(5, 0)]);
    one("it is gone");
    m.destroy();
}

#[test]
fn getting_what_a_device_takes_goes_on_step_by_step() {
    let m = Machine::booted(Config { host_id_bits: 17, ..Config::default() });
    let mut last = m.world.bytes();
    let mut tables = 0;
    let mut more = ring(&m, &[cmd::mapd(5, 15)]);
    let mut steps = 1;
    while more {
        let grown = m.world.bytes() - last;
        last = m.world.bytes();
        // A page of entries costs as much as a command.
        let pages = usize::try_from(TRAP / COMMAND).expect("few");
        assert!(grown <= pages * (4096 + 128), "{grown} bytes in one step");
        if tables == 0 {
            tables = m.world.live_tables();
            assert!(tables == 0 || steps > 32768 / 512 / (TRAP / COMMAND), "after all the rest");
        } else if cfg!(miri) {
            // What is left is to map each event, and to unmap it.
            return;
        }
        more = m.domain.work(&m.host);
        steps += 1;
    }
    assert!(tables != 0 && steps > 2 + 32768 / TRAP, "{steps}");
    m.check();
    m.destroy();
}

#[test]
fn a_device_among_many_costs_little_more() {
    const TIMES: u32 = scaled(100, 8);
    // In arrays of 32, 16 of which make a unit.
    const DEVICES: u32 = scaled(540, 70);
    let commands = [cmd::mapd(0, 5), cmd::unmapd(0)];
    let commands = commands.repeat(usize::try_from(TIMES).expect("few"));
    let steps = |m: &Machine| in_steps(m, &commands, |_| ());
    let m = Machine::booted(Config { queue_pages: 2, ..Config::default() });
    let alone = steps(&m);
    m.ok_all(&(1..DEVICES).map(|device| cmd::mapd(device, 5)).collect::<Vec<_>>());
    // At most 64 others and the list of arrays are moved aside, and back, 16
    // for a unit.
    let more = steps(&m) - alone;
    let arrays = DEVICES / 32;
    let expected = 2 * TIMES * ((64 + arrays) / 16) / TRAP;
    assert!((expected..=expected + 2).contains(&more), "{more}, not {expected}");
    m.destroy();
}

#[test]
fn commands_are_fetched_together() {
    let m = Machine::booted(Config { queue_pages: 2, ..Config::default() });
    m.ok(cmd::mapd(5, 7));
    let at = m.r64(GITS_CWRITER) / 32;
    // A run ends with the trap's 32 commands and with the page, and MAPC is no
    // reason to read anything twice.
    let map: Vec<_> = (0..64).map(|n| cmd::mapti(5, n, 8192 + n, 0)).collect();
    let reads = m.ram.reads();
    in_steps(&m, &map, |_| ());
    assert_eq!(m.ram.reads() - reads, 64 / 16, "no page ends between {at} and {}", at + 64);
    let reads = m.ram.reads();
    in_steps(&m, &[cmd::unmapc(1), cmd::mapc(1, 1), cmd::invall(1), cmd::sync(1)], |_| ());
    // The command; its LPI's property is read from a page that is pinned.
    in_steps(&m, &[cmd::inv(5, 0)], |_| ());
    assert_eq!(m.ram.reads() - reads, 2);
    m.destroy();
}

// ---- What a guest may have ----

#[test]
fn a_device_that_cannot_be_had_costs_no_memory() {
    let m = Machine::booted(Config { host_id_bits: 14, ..Config::default() });
    // 2^13 LPIs in all, of which others may have some.
    let bits = scaled(12, 6);
    let others: Vec<_> =
        (bits + 1..13).rev().map(|bits| m.host.lpis.alloc(99, 1 << bits).expect("room")).collect();
    m.add_device(1, 1 << bits).expect("room");
    m.add_device(2, 1 << bits).expect("room");
    m.world.fail_once_after(0);
    m.fails(cmd::mapd(3, 5), CommandError::MAPD_ITTSIZE_OOR);
    m.fails(cmd::mapd(1, bits + 1), CommandError::MAPD_ITTSIZE_OOR);
    assert!(m.world.stop_failing(), "nothing was asked for");
    // Both are as they were.
    m.ok_all(&[cmd::mapd(1, bits), cmd::mapti(1, (1 << bits) - 1, 8192, 0)]);
    for range in others {
        m.host.lpis.free(range);
    }
    m.destroy();
}

#[test]
fn only_what_was_announced_can_be_removed() {
    let m = Machine::booted(Config::default());
    m.map(5, 1, 8192);
    assert_eq!(m.remove_device(5), Err(Error::NotFound));
    m.fire(5, 0);
    m.expect(&[8192], &[]);
    m.destroy();
}

#[test]
fn an_announced_device_that_cannot_grow_stays_announced() {
    // 32 DISCARD, MAPD and 4 SYNC; then MAPD, 256 MAPTI and 4 SYNC.
    for fails_after in [20, 60] {
        World::renew();
        let m = Machine::booted(Config { max_events: Some(256), ..Config::default() });
        m.add_device(5, 32).expect("room");
        m.its[0].set_pace(Pace::Hang(fails_after));
        let mut more = ring(&m, &[cmd::mapd(5, 8)]);
        while more {
            m.world.advance(1_000_000);
            more = m.domain.work(&m.host);
        }
        let log = m.world.take_log();
        m.its[0].set_pace(Pace::Immediate);
        let failed = log.iter().any(|(_, line)| line.contains("MAPD_DEVICE_OOR"));
        assert!(failed, "{log:?}");
        assert_eq!(m.stat("devices"), 1);
        // Another function finds it gone, and maps it again.
        m.add_device(5, 64).expect("it works");
        m.ok_all(&[cmd::mapd(5, 6), cmd::mapti(5, 63, 8192, 0)]);
        m.enable(8192);
        m.fire(5, 63);
        m.expect(&[8192], &[]);
        for _ in 0..2 {
            m.remove_device(5).expect("announced");
        }
        assert_eq!(m.remove_device(5), Err(Error::NotFound));
        assert_eq!(m.stat("devices"), 0);
        // The allowance is what it was.
        m.ok_all(&[cmd::mapd(6, 8), cmd::unmapd(6)]);
        m.destroy();
    }
}

#[test]
fn mapd_takes_no_more_lpis_than_its_allowance() {
    let m = Machine::booted(Config { max_events: Some(100), ..Config::default() });
    m.ok_all(&[cmd::mapd(1, 5), cmd::mapd(2, 5), cmd::mapd(3, 5)]);
    // 96 of 100 are taken; an announced device does not count.
    let before = m.world.live();
    m.fails(cmd::mapd(4, 5), CommandError::MAPD_ITTSIZE_OOR);
    m.fails(cmd::mapd(1, 6), CommandError::MAPD_ITTSIZE_OOR);
    assert_eq!(m.world.live(), before);
    m.add_device(5, 128).expect("room");
    m.ok(cmd::mapd(5, 7));
    m.check();
    // The device that could not grow is as it was.
    m.enable(8192);
    m.ok(cmd::mapti(1, 31, 8192, 0));
    m.fire(1, 31);
    m.expect(&[8192], &[]);
    // What is given back can be had again, whichever way it goes.
    m.ok_all(&[cmd::unmapd(1), cmd::unmapd(2), cmd::mapd(2, 6)]);
    m.ok_all(&[cmd::unmapd(2), cmd::unmapd(3), cmd::mapd(9, 5), cmd::mapd(9, 6)]);
    m.ok_all(&[cmd::unmapd(9), cmd::mapd(1, 6), cmd::mapd(2, 5)]);
    m.fails(cmd::mapd(3, 5), CommandError::MAPD_ITTSIZE_OOR);
    // An announced device that grows counts as a whole.
    m.ok_all(&[cmd::unmapd(1), cmd::unmapd(2)]);
    m.add_device(7, 32).expect("room");
    m.ok(cmd::mapd(7, 6));
    m.fails(cmd::mapd(3, 6), CommandError::MAPD_ITTSIZE_OOR);
    m.remove_device(7).expect("announced");
    m.ok(cmd::mapd(3, 6));
    m.check();
    m.destroy();
}

#[test]
fn a_mapd_that_fails_on_the_way_costs_nothing() {
    let m = Machine::booted(Config { max_events: Some(64), ..Config::default() });
    for n in 0.. {
        m.world.fail_once_after(n);
        let log = m.run_on(0, &[cmd::mapd(1, 6)]);
        if m.world.stop_failing() {
            assert!(log.is_empty() && n >= 3, "{log:?}");
            break;
        }
        assert_eq!(log.len(), 1, "{log:?}");
    }
    m.fails(cmd::mapd(2, 5), CommandError::MAPD_ITTSIZE_OOR);
    m.ok_all(&[cmd::unmapd(1), cmd::mapd(2, 5), cmd::mapd(3, 5)]);
    m.check();
    m.destroy();
}

#[test]
fn half_of_the_hosts_lpis_are_the_default_allowance() {
    let m = Machine::booted(Config { host_id_bits: scaled(15, 14), ..Config::default() });
    // 24576 LPIs in all; or 8192.
    m.fails(cmd::mapd(1, scaled(14, 13)), CommandError::MAPD_ITTSIZE_OOR);
    m.ok_all(scaled(&[cmd::mapd(1, 13), cmd::mapd(2, 12)][..], &[cmd::mapd(1, 12)]));
    m.fails(cmd::mapd(3, 5), CommandError::MAPD_ITTSIZE_OOR);
    m.add_device(3, scaled(8192, 32)).expect("half of them are for devices that are announced");
    m.destroy();
}

#[test]
fn a_device_of_another_domain_cannot_be_had() {
    let m = Machine::booted(Config::default());
    let ram = Arc::new(Ram::default());
    let config = DomainConfig { id: 8, hardware: false, ..m.config.domain() };
    let other = Domain::<Fake>::new(&m.host, FakeGuest(Arc::clone(&ram)), config).expect("memory");
    other.add_vcpu(VcpuId::new(0), FakeVcpu::new(0, 4)).expect("new");
    other.add_device(&m.host, 0, DeviceId::new(6), 32).expect("room");
    let _setup = m.its[0].take_executed();
    // The hardware domain's MAPD does not take it away, nor does a hypercall.
    m.fails(cmd::mapd(6, 5), CommandError::MAPD_DEVICE_OOR);
    assert_eq!(m.add_device(6, 32), Err(Error::Exists));
    assert_eq!(m.its[0].take_executed(), []);
    // Another ITS may have a device of the same number; here there is one ITS.
    m.ok(cmd::mapd(7, 5));
    assert_eq!(other.add_device(&m.host, 0, DeviceId::new(7), 32), Err(Error::Exists));
    // Once it is given back, anybody can.
    other.remove_device(&m.host, 0, DeviceId::new(6)).expect("its own");
    m.ok(cmd::mapd(6, 6));
    m.ok(cmd::unmapd(7));
    other.add_device(&m.host, 0, DeviceId::new(7), 32).expect("free");
    while other.relinquish(&m.host) {}
    drop(other);
    m.check();
    m.destroy();
}
