// SPDX-License-Identifier: GPL-2.0-only
//! Any sequence of commands, interrupts and what else a guest does, against
//! the reference model.

use std::collections::BTreeSet;

use its_arch::error::CommandError;
use its_arch::gicr::GICR_INVALLR;
use its_arch::{Command, Lpi};

use crate::numbers::{Numbers, Trace};
use crate::reference::Reference;
use crate::vcpu::Mode;
use crate::{Config, Machine, World, cmd};

/// vCPUs of the guest.
pub const VCPUS: u16 = 3;
/// LPIs in use: 8192 and on.
pub const FIRST: u32 = 8192;
/// More than one vCPU can have in list registers at once would keep a guest
/// that ends nothing from taking any.
const MOST_ACTIVE: usize = 3;

/// A step.
#[derive(Clone, Copy)]
pub enum Op {
    /// The guest's ITS executes a command.
    Command(Command),
    /// A device raises an event.
    Fire(u32, u32),
    /// A device raises all of its events.
    FireAll(u32),
    /// Enable or disable an LPI, and say so.
    Enable(u32, bool),
    /// Enable or disable the LPI of an event, which a device raises before the
    /// guest says so, or without its saying so.
    EnableLate(u32, u32, bool),
    /// The guest takes the most urgent LPI of a vCPU, and is not done.
    Take(u16),
    /// The guest ends all that it took on a vCPU, and takes all the rest.
    Drain(u16),
    /// The vCPUs notice everything.
    Settle,
    /// A vCPU goes off.
    PowerOff(u16),
    /// A vCPU comes on.
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
            Self::FireAll(device) => write!(f, "FireAll({device})"),
            Self::Enable(lpi, enabled) => write!(f, "Enable({lpi}, {enabled})"),
            Self::EnableLate(device, event, on) => write!(f, "EnableLate({device}, {event}, {on})"),
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

/// Whether commands that leave LPIs pending where they are not mapped are
/// among those to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strays {
    /// MOVALL and MAPC V=0 too.
    Some,
    /// No LPI is pending where it is not mapped.
    None,
}

/// What a run starts with.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// LPIs, from [`FIRST`] on, each with an event of device 0 or 1.
    pub lpis: u32,
    /// vCPUs that they are spread over, 1 to [`VCPUS`].
    pub spread: u16,
    /// Whether there may be strays.
    pub strays: Strays,
    /// Of each vCPU: [`crate::vcpu::FakeVcpu::set_active_state`] and
    /// [`crate::vcpu::FakeVcpu::raise_other`].
    pub quirks: [(bool, bool); 3],
    /// List registers of each CPU; more than a guest keeps active at once.
    pub list_registers: usize,
}

/// Do `ops` in turn, and compare what the guest sees.
///
/// # Panics
/// When it sees something else.
pub fn run(case: &Case, ops: impl IntoIterator<Item = Op>) {
    let trace = Trace::new();
    trace.say(|| format!("{case:?}"));
    let mut run = Run::new(case);
    for op in ops {
        trace.say(|| format!("{op:?}"));
        run.step(op);
    }
    run.finish();
}

/// Do what `numbers` say, until there are no more.
///
/// # Panics
/// As for [`run`].
pub fn run_numbers(mut numbers: impl Numbers) {
    let strays = if numbers.once_in(2) { Strays::Some } else { Strays::None };
    let mut quirk = || (!numbers.once_in(3), numbers.once_in(3));
    let quirks = [quirk(), quirk(), quirk()];
    let case = Case {
        lpis: if strays == Strays::Some { 12 } else { 60 },
        spread: VCPUS - numbers.below_u16(VCPUS),
        strays,
        quirks,
        list_registers: MOST_ACTIVE + 1 + numbers.index(8),
    };
    let ops = std::iter::from_fn(|| numbers.more().then(|| op(&mut numbers, &case)));
    run(&case, ops);
}

fn op(n: &mut impl Numbers, case: &Case) -> Op {
    let kind = n.below(32);
    let (device, event) = (n.below_u32(3), n.below_u32(case.lpis / 2 + 2));
    let lpi = FIRST + n.below_u32(case.lpis);
    let vcpu = n.below_u16(VCPUS);
    match kind {
        0..=13 => Op::Command(command(n, case, device, event)),
        14..=19 => Op::Fire(device, event),
        20 => Op::FireAll(device),
        21 | 22 => Op::Enable(lpi, n.once_in(2)),
        23 => Op::EnableLate(device, event, n.once_in(2)),
        24..=26 => Op::Take(vcpu),
        27 | 28 => Op::Drain(vcpu),
        29 => Op::Settle,
        30 => Op::PowerOff(vcpu),
        _ => Op::PowerOn(vcpu),
    }
}

fn command(n: &mut impl Numbers, case: &Case, device: u32, event: u32) -> Command {
    let kind = n.below(28);
    let odd = n.once_in(16);
    let collection = if odd { 255 + n.below_u16(3) } else { n.below_u16(4) };
    let vcpu = n.below_u16(VCPUS + u16::from(odd));
    let far = if odd { 65_534 + n.below_u32(4) } else { device };
    let lpi = if odd { n.below_u32(20_000) } else { FIRST + n.below_u32(case.lpis) };
    // Host LPIs do not run out, of which the reference model knows nothing.
    let bits = if odd { n.pick(&[1, 2, 7, 17, 20]) } else { 3 + n.below_u8(4) };
    match kind {
        0 | 1 => cmd::mapd(far, bits),
        2 => cmd::unmapd(far),
        3..=9 => cmd::mapti(device, event, lpi, collection),
        10..=13 => cmd::movi(device, event, collection),
        14 | 15 => cmd::mapc(collection, vcpu),
        16 if case.strays == Strays::Some => cmd::unmapc(collection),
        17 if case.strays == Strays::Some => cmd::movall(vcpu, n.below_u16(VCPUS)),
        18 => cmd::discard(device, event),
        19 | 20 => cmd::clear(device, event),
        21 => cmd::inv(device, event),
        22 => cmd::invall(collection),
        23 => cmd::mapi(device, if odd { lpi } else { event }, collection),
        24 => cmd::sync(vcpu),
        _ => cmd::int(device, event),
    }
}

struct Run {
    lpis: u32,
    m: Machine,
    model: Reference,
    active: Vec<BTreeSet<u32>>,
    keeps_active: Vec<bool>,
}

impl Run {
    fn new(case: &Case) -> Self {
        World::renew();
        let Case { lpis, spread, quirks, list_registers, .. } = *case;
        // The model knows nothing of interrupts that come later for being many.
        let config = Config {
            vcpus: VCPUS,
            id_bits: 14,
            list_registers,
            masking: false,
            ..Config::default()
        };
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
            let collection = u16::try_from(n % u32::from(spread)).expect("small");
            start.push(cmd::mapti(n % 2, n / 2, FIRST + n, collection));
        }
        for command in &start {
            assert_eq!(model.execute(command), Ok(()));
        }
        m.ok_all(&start);
        for (vcpu, (active, other)) in m.vcpus.iter().zip(quirks) {
            vcpu.set_active_state(active);
            if other {
                vcpu.raise_other(0x80);
            }
        }
        let keeps_active = quirks.iter().map(|(active, _)| *active).collect();
        Self { lpis, m, model, active: vec![BTreeSet::new(); VCPUS.into()], keeps_active }
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

    fn drain(&mut self, vcpu: u16) {
        if self.is_off(vcpu) {
            return;
        }
        self.end_all(vcpu);
        let got = self.m.drain(vcpu.into());
        let priorities: Vec<u8> = got.iter().map(|lpi| priority(*lpi)).collect();
        assert!(priorities.is_sorted(), "out of order: {got:?}");
        let want = self.ready(vcpu);
        let set: BTreeSet<u32> = got.iter().copied().collect();
        assert_eq!(got.len(), set.len(), "some came twice: {got:?}");
        assert_eq!(set, want, "on vCPU {vcpu}");
        for lpi in got {
            self.model.take(vcpu, lpi);
        }
    }

    fn command(&mut self, command: &Command) {
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
        assert_eq!(log.len(), want.len(), "{command:?}: {log:?}, expected {want:?}");
        for (line, error) in log.iter().zip(want) {
            let number = format!("({:#x})", error.number());
            assert!(line.contains(error.name()) && line.contains(&number), "{error}: {line}");
        }
        if nowhere {
            self.m.settle();
        }
    }

    fn fire(&mut self, device: u32, event: u32) {
        self.m.fire(device, event);
        self.model.fire(device, event);
    }

    /// All redistributors look at the properties again.
    fn invalidate_all(&self) {
        for vcpu in 0..VCPUS {
            self.m.gicr_w64(vcpu, GICR_INVALLR, 0);
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Command(command) => self.command(&command),
            Op::Fire(device, event) => self.fire(device, event),
            Op::FireAll(device) => {
                for event in 0..self.lpis / 2 {
                    self.fire(device, event);
                }
            }
            Op::Enable(lpi, enabled) => {
                self.m.set_property(lpi, priority(lpi), enabled);
                self.invalidate_all();
                self.model.set_enabled(lpi, enabled);
            }
            Op::EnableLate(device, event, enabled) => {
                let Some(lpi) = self.model.lpi_of(device, event) else { return };
                self.m.set_property(lpi, priority(lpi), enabled);
                self.m.fire(device, event);
                // An LPI that fires has its property read on its vCPU, and
                // if it is enabled nothing is left to be said there.
                let knows = self.model.target(lpi).filter(|_| enabled);
                for vcpu in (0..VCPUS).filter(|vcpu| Some(*vcpu) != knows) {
                    self.m.gicr_w64(vcpu, GICR_INVALLR, 0);
                }
                self.model.fire(device, event);
                self.model.set_enabled(lpi, enabled);
            }
            Op::Take(vcpu) => {
                let index = usize::from(vcpu);
                if self.is_off(vcpu) || self.active[index].len() >= MOST_ACTIVE {
                    return;
                }
                self.m.settle();
                let vcpu_itself = &self.m.vcpus[index];
                // When no list register has any left, the maintenance
                // interrupt has them filled anew.
                let got = vcpu_itself.ack().or_else(|| {
                    vcpu_itself.cycle(&self.m.domain);
                    vcpu_itself.ack()
                });
                let got = got.map(Lpi::get);
                let ready = self.ready(vcpu);
                let most_urgent = ready.iter().map(|lpi| priority(*lpi)).min();
                assert_eq!(got.map(priority), most_urgent, "{got:?} of {ready:?}");
                if let Some(lpi) = got {
                    assert!(ready.contains(&lpi), "{lpi} is not among {ready:?}");
                    self.model.take(vcpu, lpi);
                    if self.keeps_active[index] {
                        self.active[index].insert(lpi);
                    }
                }
            }
            Op::Drain(vcpu) => self.drain(vcpu),
            Op::Settle => self.m.settle(),
            Op::PowerOff(vcpu) => {
                // With nothing in a list register: what is there stays until
                // the vCPU is on again, whatever the guest does meanwhile.
                self.drain(vcpu);
                self.m.vcpus[usize::from(vcpu)].power_off(&self.m.domain);
            }
            Op::PowerOn(vcpu) if self.is_off(vcpu) => {
                self.m.vcpus[usize::from(vcpu)].power_on(&self.m.domain);
            }
            Op::PowerOn(_) => {}
        }
    }

    fn finish(mut self) {
        for vcpu in 0..VCPUS {
            self.step(Op::PowerOn(vcpu));
        }
        for vcpu in 0..VCPUS {
            self.drain(vcpu);
        }
        assert_eq!(self.m.stat("slots"), 0);
        assert_eq!(self.m.stat("waiting"), 0);
        self.m.check();
        self.m.destroy();
    }
}
