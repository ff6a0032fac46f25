// SPDX-License-Identifier: GPL-2.0-only
//! Any sequence of commands, interrupts and what else a guest does, against
//! the reference model.

use std::collections::BTreeSet;

use its_arch::error::CommandError;
use its_arch::gicr::GICR_INVALLR;
use its_arch::{Command, Lpi};
use its_testkit::reference::Reference;
use its_testkit::vcpu::Mode;
use its_testkit::{Config, Machine, World, cmd, scaled};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngSeed, TestCaseResult};

const VCPUS: u16 = 3;
/// LPIs in use: 8192 and on.
const FIRST: u32 = 8192;
/// More than one vCPU can have in list registers at once would keep a guest
/// that ends nothing from taking any.
const MOST_ACTIVE: usize = 3;

/// A step.
#[derive(Clone, Copy)]
enum Op {
    Command(Command),
    Fire(u32, u32),
    /// Enable or disable an LPI, and say so.
    Enable(u32, bool),
    /// The guest takes the most urgent LPI of a vCPU, and is not done.
    Take(u16),
    /// The guest ends all that it took on a vCPU, and takes all the rest.
    Drain(u16),
    Settle,
    PowerOff(u16),
    PowerOn(u16),
}

/// A step in one line: a failing sequence is a list of these.
impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Command(command) => {
                let [dw0, dw1, dw2, dw3] = command.encode().0;
                let name = command.name();
                write!(f, "{name}({dw0:#x}, {dw1:#x}, {dw2:#x}, {dw3:#x})")
            }
            Self::Fire(device, event) => write!(f, "Fire({device}, {event})"),
            Self::Enable(lpi, enabled) => write!(f, "Enable({lpi}, {enabled})"),
            Self::Take(vcpu) => write!(f, "Take({vcpu})"),
            Self::Drain(vcpu) => write!(f, "Drain({vcpu})"),
            Self::Settle => write!(f, "Settle"),
            Self::PowerOff(vcpu) => write!(f, "PowerOff({vcpu})"),
            Self::PowerOn(vcpu) => write!(f, "PowerOn({vcpu})"),
        }
    }
}

/// Each LPI keeps its priority: a change would count only for LPIs that are
/// not yet queued.
fn priority(lpi: u32) -> u8 {
    u8::try_from(lpi % 8).map_or(0, |low| low * 0x20)
}

struct Run {
    m: Machine,
    model: Reference,
    active: Vec<BTreeSet<u32>>,
    keeps_active: Vec<bool>,
}

impl Run {
    fn new(lpis: u32, quirks: [(bool, bool); 3], list_registers: usize) -> Self {
        World::renew();
        let config = Config { vcpus: VCPUS, id_bits: 14, list_registers, ..Config::default() };
        let m = Machine::booted(config);
        let mut model = Reference::new(VCPUS, 14, 16, 1 << 16);
        for vcpu in 0..VCPUS {
            assert_eq!(model.execute(&cmd::mapc(vcpu, vcpu)), Ok(()));
        }
        for lpi in FIRST..FIRST + lpis {
            let enabled = lpi % 4 != 1;
            m.set_property(lpi, priority(lpi), enabled);
            model.set_enabled(lpi, enabled);
        }
        // Two devices, whose events are spread over the vCPUs.
        let mut start = vec![cmd::mapd(0, 6), cmd::mapd(1, 6)];
        for n in 0..lpis {
            let collection = u16::try_from(n % 3).expect("small");
            start.push(cmd::mapti(n % 2, n / 2, FIRST + n, collection));
        }
        for command in &start {
            assert_eq!(model.execute(command), Ok(()));
        }
        m.ok_all(&start);
        for (vcpu, (active, direct)) in m.vcpus.iter().zip(quirks) {
            vcpu.set_active_state(active);
            vcpu.set_direct(direct);
        }
        let keeps_active = quirks.iter().map(|(active, _)| *active).collect();
        Self { m, model, active: vec![BTreeSet::new(); VCPUS.into()], keeps_active }
    }

    fn is_off(&self, vcpu: u16) -> bool {
        self.m.vcpus[usize::from(vcpu)].mode() == Mode::Off
    }

    /// What the guest can take on a vCPU now.
    fn ready(&self, vcpu: u16) -> BTreeSet<u32> {
        let active = &self.active[usize::from(vcpu)];
        self.model.deliverable(vcpu).difference(active).copied().collect()
    }

    fn end_all(&mut self, vcpu: u16) {
        self.m.settle();
        let index = usize::from(vcpu);
        for lpi in std::mem::take(&mut self.active[index]) {
            self.m.vcpus[index].eoi(Lpi::new(lpi).expect("an LPI"));
        }
        self.m.vcpus[index].cycle(&self.m.domain);
    }

    fn drain(&mut self, vcpu: u16) -> TestCaseResult {
        if self.is_off(vcpu) {
            return Ok(());
        }
        self.end_all(vcpu);
        let got = self.m.drain(vcpu.into());
        let priorities: Vec<u8> = got.iter().map(|lpi| priority(*lpi)).collect();
        prop_assert!(priorities.is_sorted(), "out of order: {got:?}");
        let want = self.ready(vcpu);
        let got: Vec<u32> = got.into_iter().collect();
        let set: BTreeSet<u32> = got.iter().copied().collect();
        prop_assert_eq!(got.len(), set.len(), "some came twice: {:?}", got);
        prop_assert_eq!(set, want, "on vCPU {}", vcpu);
        for lpi in got {
            self.model.take(vcpu, lpi);
        }
        Ok(())
    }

    fn command(&mut self, command: &Command) -> TestCaseResult {
        // An LPI in a list register moves when its vCPU has looked. What fires
        // meanwhile merges with it after MOVALL, and it stays where it is if
        // it is to go nowhere in the end: so let the vCPUs look.
        let nowhere = match command {
            Command::Mapc { valid, .. } => !valid,
            Command::Mapti { collection, .. } | Command::Mapi { collection, .. } => {
                !self.model.is_mapped(*collection)
            }
            Command::Movall { .. } => true,
            _ => false,
        };
        if nowhere {
            self.m.settle();
        }
        let log = self.m.run_on(0, &[*command]);
        let want: Vec<CommandError> = self.model.execute(command).err().into_iter().collect();
        prop_assert_eq!(log.len(), want.len(), "{:?}: {:?}, expected {:?}", command, log, want);
        for (line, error) in log.iter().zip(want) {
            let number = format!("({:#x})", error.number());
            prop_assert!(line.contains(error.name()) && line.contains(&number), "{error}: {line}");
        }
        if nowhere {
            self.m.settle();
        }
        Ok(())
    }

    fn step(&mut self, op: Op) -> TestCaseResult {
        match op {
            Op::Command(command) => self.command(&command)?,
            Op::Fire(device, event) => {
                self.m.fire(device, event);
                self.model.fire(device, event);
            }
            Op::Enable(lpi, enabled) => {
                self.m.set_property(lpi, priority(lpi), enabled);
                for vcpu in 0..VCPUS {
                    self.m.gicr_w64(vcpu, GICR_INVALLR, 0);
                }
                self.model.set_enabled(lpi, enabled);
            }
            Op::Take(vcpu) => {
                let index = usize::from(vcpu);
                if self.is_off(vcpu) || self.active[index].len() >= MOST_ACTIVE {
                    return Ok(());
                }
                self.m.settle();
                let got = self.m.vcpus[index].ack().map(Lpi::get);
                let ready = self.ready(vcpu);
                let most_urgent = ready.iter().map(|lpi| priority(*lpi)).min();
                prop_assert_eq!(got.map(priority), most_urgent, "{:?} of {:?}", got, ready);
                if let Some(lpi) = got {
                    prop_assert!(ready.contains(&lpi), "{lpi} is not among {ready:?}");
                    self.model.take(vcpu, lpi);
                    if self.keeps_active[index] {
                        self.active[index].insert(lpi);
                    }
                }
            }
            Op::Drain(vcpu) => self.drain(vcpu)?,
            Op::Settle => self.m.settle(),
            Op::PowerOff(vcpu) => {
                // With nothing in a list register: what is there stays until
                // the vCPU is on again, whatever the guest does meanwhile.
                self.drain(vcpu)?;
                self.m.vcpus[usize::from(vcpu)].power_off(&self.m.domain);
            }
            Op::PowerOn(vcpu) if self.is_off(vcpu) => {
                self.m.vcpus[usize::from(vcpu)].power_on(&self.m.domain);
            }
            Op::PowerOn(_) => {}
        }
        Ok(())
    }

    fn finish(mut self) -> TestCaseResult {
        for vcpu in 0..VCPUS {
            self.step(Op::PowerOn(vcpu))?;
        }
        for vcpu in 0..VCPUS {
            self.drain(vcpu)?;
        }
        prop_assert_eq!(self.m.stat("slots"), 0);
        prop_assert_eq!(self.m.stat("waiting"), 0);
        self.m.check();
        self.m.destroy();
        Ok(())
    }
}

/// Whether commands that leave LPIs pending where they are not mapped are
/// among those to try.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strays {
    Some,
    None,
}

fn command(lpis: u32, strays: Strays) -> impl Strategy<Value = Command> {
    let device = 0..3_u32;
    let event = 0..(lpis / 2 + 2);
    let both = || (device.clone(), event.clone());
    let intid = prop_oneof![20 => FIRST..FIRST + lpis, 1 => 0..FIRST, 1 => 16384..20000_u32];
    let collection = || prop_oneof![20 => 0..4_u16, 1 => 255..258_u16];
    let vcpu = || prop_oneof![20 => 0..VCPUS, 1 => VCPUS..VCPUS + 2];
    let bits = prop_oneof![20 => 3..7_u8, 1 => 1..3_u8, 1 => 17..20_u8];
    let strays = strays == Strays::Some;
    let instead = cmd::sync(0);
    prop_oneof![
        3 => (prop_oneof![30 => 0..3_u32, 1 => 65535..65538_u32], bits)
            .prop_map(|(device, bits)| cmd::mapd(device, bits)),
        1 => device.clone().prop_map(cmd::unmapd),
        20 => (both(), intid, collection())
            .prop_map(|((device, event), lpi, to)| cmd::mapti(device, event, lpi, to)),
        8 => (both(), collection()).prop_map(|((device, event), to)| cmd::movi(device, event, to)),
        3 => (collection(), vcpu()).prop_map(|(collection, to)| cmd::mapc(collection, to)),
        1 => collection().prop_map(move |from| if strays { cmd::unmapc(from) } else { instead }),
        2 => (vcpu(), vcpu()).prop_map(move |(from, to)| {
            if strays { cmd::movall(from, to) } else { instead }
        }),
        2 => both().prop_map(|(device, event)| cmd::discard(device, event)),
        3 => both().prop_map(|(device, event)| cmd::clear(device, event)),
        8 => both().prop_map(|(device, event)| cmd::int(device, event)),
        2 => both().prop_map(|(device, event)| cmd::inv(device, event)),
        2 => collection().prop_map(cmd::invall),
        1 => vcpu().prop_map(cmd::sync),
        1 => (device, 0..20000_u32, collection())
            .prop_map(|(device, event, to)| cmd::mapi(device, event, to)),
    ]
}

fn op(lpis: u32, strays: Strays) -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => command(lpis, strays).prop_map(Op::Command),
        12 => (0..3_u32, 0..(lpis / 2 + 2)).prop_map(|(device, event)| Op::Fire(device, event)),
        3 => (FIRST..FIRST + lpis, any::<bool>()).prop_map(|(lpi, on)| Op::Enable(lpi, on)),
        4 => (0..VCPUS).prop_map(Op::Take),
        2 => (0..VCPUS).prop_map(Op::Drain),
        3 => Just(Op::Settle),
        1 => (0..VCPUS).prop_map(Op::PowerOff),
        2 => (0..VCPUS).prop_map(Op::PowerOn),
    ]
}

fn ops(lpis: u32, strays: Strays) -> impl Strategy<Value = Vec<Op>> {
    vec(op(lpis, strays), 1..120)
}

fn quirks() -> impl Strategy<Value = [(bool, bool); 3]> {
    any::<[(bool, bool); 3]>()
}

fn run(lpis: u32, quirks: [(bool, bool); 3], registers: usize, ops: Vec<Op>) -> TestCaseResult {
    let mut run = Run::new(lpis, quirks, registers);
    for op in ops {
        run.step(op)?;
    }
    run.finish()
}

/// The same sequences at each run; with PROPTEST_CASES, so many new ones.
fn runs() -> Runs {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let rng_seed = if cases.is_some() { RngSeed::Random } else { RngSeed::Fixed(1) };
    Runs {
        cases: cases.unwrap_or(scaled(400, 2)),
        rng_seed,
        failure_persistence: None,
        ..Runs::default()
    }
}

proptest! {
    #![proptest_config(runs())]

    /// Few LPIs, all of which have a slot; every command.
    #[test]
    fn the_guest_sees_what_the_model_says(
        quirks in quirks(),
        registers in 4..17_usize,
        ops in ops(12, Strays::Some),
    ) {
        run(12, quirks, registers, ops)?;
    }

    /// More LPIs than slots, none of which is pending where it is not mapped.
    #[test]
    fn the_guest_sees_what_the_model_says_with_more_lpis_than_slots(
        quirks in quirks(),
        registers in 4..12_usize,
        ops in ops(60, Strays::None),
    ) {
        run(60, quirks, registers, ops)?;
    }
}
