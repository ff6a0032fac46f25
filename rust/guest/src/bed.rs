// SPDX-License-Identifier: GPL-2.0-only
//! The test bed: CPUs that do as they are told, an ITS, and what tests say to them.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::boot::MAX_CPUS;
use crate::cpus::{self, Job};
use crate::fdt::Machine;
use crate::gic::{self, SPURIOUS, gicr};
use crate::hw;
use crate::its::{self, Cmd, Its, LPIS, reg};

/// Why a case failed: what should hold, what was seen, and what was expected.
pub struct Fail(pub &'static str, pub u64, pub u64);

/// What a case gives.
pub enum Outcome {
    /// All held.
    Pass,
    /// The machine has not what this is about.
    Skip(&'static str),
}

/// What a case gives, or why it failed.
pub type Verdict = Result<Outcome, Fail>;

/// Fails unless the two are equal.
pub fn equal(what: &'static str, got: impl Into<u64>, want: impl Into<u64>) -> Result<(), Fail> {
    let (got, want) = (got.into(), want.into());
    if got == want { Ok(()) } else { Err(Fail(what, got, want)) }
}

/// Fails unless it is true.
pub fn check(what: &'static str, holds: bool) -> Result<(), Fail> {
    if holds { Ok(()) } else { Err(Fail(what, 0, 1)) }
}

/// Memory for tables.
#[repr(C, align(65536))]
struct Arena([u8; ARENA]);
const ARENA: usize = 12 << 20;
static mut MEMORY: Arena = Arena([0; ARENA]);

/// The bed.
pub struct Bed {
    /// The machine.
    pub machine: Machine,
    /// The ITS.
    pub its: Its,
    /// CPUs that run.
    pub cpus: usize,
    /// Their RD_base frames.
    pub redistributors: [u64; MAX_CPUS],
    /// Their pending tables.
    pub pending: [u64; MAX_CPUS],
    /// LPIs are enabled there.
    pub enabled: [bool; MAX_CPUS],
    /// The fuzzer's first seed.
    pub seed: u64,
    /// How many seeds it uses.
    pub seeds: u64,
    /// How many commands it sends with each.
    pub fuzz: u64,
    /// Interrupts a second that Xen lets a device raise; 0 if nobody said.
    pub rate: u64,
    next: u64,
}

impl Bed {
    /// Finds and starts everything. LPIs are enabled nowhere yet.
    pub fn new(machine: &Machine) -> Result<Self, Fail> {
        check("there are a GICD, a GICR and an ITS", machine.its.1 != 0 && machine.gicrs != 0)?;
        gic::init_distributor(machine);
        let its = Its {
            base: machine.its.0,
            queue_home: 0,
            queue: 0,
            devices: 0,
            devices_size: 0,
            collections: 0,
            properties: 0,
            itts: 0,
            baser: [0; 2],
            queue_size: 0,
            rdbase: [0; MAX_CPUS],
            tail: AtomicU64::new(0),
            mapped: [const { AtomicU64::new(0) }; 128],
        };
        let mut bed = Self {
            machine: *machine,
            its,
            cpus: 0,
            redistributors: [0; MAX_CPUS],
            pending: [0; MAX_CPUS],
            enabled: [false; MAX_CPUS],
            seed: 1,
            seeds: 1,
            fuzz: 100_000,
            rate: 0,
            next: (&raw mut MEMORY) as u64,
        };
        bed.start_cpus()?;
        bed.make_tables()?;
        Ok(bed)
    }

    fn start_cpus(&mut self) -> Result<(), Fail> {
        let pta = self.its.read(reg::TYPER) & (1 << 19) != 0;
        let all = self.machine.ncpus.min(MAX_CPUS);
        for number in 0..all {
            let mpidr = self.machine.cpus[number];
            let Some(frame) = gic::find_redistributor(&self.machine, mpidr) else {
                return Err(Fail("the CPU with this MPIDR has a redistributor", mpidr, 0));
            };
            cpus::know(number, mpidr, frame);
            self.redistributors[number] = frame;
            let typer = hw::read64(frame + gicr::TYPER);
            self.its.rdbase[number] = if pta { frame >> 16 } else { (typer >> 8) & 0xffff };
        }
        gic::init_cpu(self.redistributors[0]);
        self.cpus = 1;
        // With six or more, the last is left for the case that starts it late.
        let at_once = if all >= 6 { all - 1 } else { all };
        (1..at_once).try_for_each(|_| self.start_next_cpu())
    }

    /// Starts the first CPU that does not run.
    pub fn start_next_cpu(&mut self) -> Result<(), Fail> {
        self.switch_on(self.cpus)?;
        self.cpus += 1;
        Ok(())
    }

    /// Switches a CPU on.
    pub fn switch_on(&self, cpu: usize) -> Result<(), Fail> {
        let (answer, up) = cpus::switch_on(&self.machine, cpu);
        equal("CPU_ON succeeds", answer.cast_unsigned(), 0u64)?;
        check("a CPU that was switched on runs", up)
    }

    /// Where the memory for tables and queues is, which has one address for all.
    pub fn arena() -> (u64, u64) {
        let start = (&raw mut MEMORY) as u64;
        (start, start + ARENA as u64)
    }

    /// Memory, 64 KB aligned. It is zero.
    fn memory(&mut self, size: u64) -> Result<u64, Fail> {
        let start = (&raw mut MEMORY) as u64;
        let at = self.next;
        self.next += (size + 0xffff) & !0xffff;
        check("the arena is large enough", self.next <= start + ARENA as u64)?;
        Ok(at)
    }

    fn make_tables(&mut self) -> Result<(), Fail> {
        let typer = self.its.read(reg::TYPER);
        let mut entry = 8;
        for n in 0..8 {
            let register = reg::BASER + 8 * n;
            let baser = self.its.read(register);
            match (baser >> 56) & 7 {
                1 => {
                    self.its.baser[0] = register;
                    entry = ((baser >> 48) & 31) + 1;
                }
                4 => self.its.baser[1] = register,
                _ => {}
            }
        }
        let device_bits = ((typer >> 13) & 31) + 1;
        self.its.devices_size = ((entry << device_bits).min(4 << 20) + 0xffff) & !0xffff;
        self.its.devices = self.memory(self.its.devices_size)?;
        self.its.collections = self.memory(0x1_0000)?;
        self.its.queue_home = self.memory(1 << 20)?;
        self.its.queue = self.its.queue_home;
        self.its.itts = self.memory(1 << 20)?;
        self.its.properties = self.memory(0x1_0000)?;
        for cpu in 0..self.machine.ncpus.min(MAX_CPUS) {
            self.pending[cpu] = self.memory(0x1_0000)?;
        }
        Ok(())
    }

    /// Enables LPIs on a CPU, with its pending table as it is unless `ptz`.
    pub fn enable_lpis(&mut self, cpu: usize, ptz: bool) {
        let properties = self.its.properties;
        its::enable_lpis(self.redistributors[cpu], properties, self.pending[cpu], ptz);
        self.enabled[cpu] = true;
    }

    /// A fresh start for a case: collection n is CPU n's, every LPI is enabled
    /// with priority 0xa0, nothing is pending.
    pub fn reset(&mut self) -> Result<(), Fail> {
        // Whether it became quiescent is a case of its own, and no other's fault.
        self.its.reset();
        its::fill(self.its.properties, LPIS.into(), 0xa1a1_a1a1_a1a1_a1a1);
        for cpu in 0..self.cpus {
            self.its.put(its::mapc(cpu as u16, self.its.rdbase[cpu]));
            self.its.put(its::invall(cpu as u16));
        }
        self.run(&[])?;
        self.drain_all();
        Ok(())
    }

    /// Executes commands, with a SYNC for each CPU behind them.
    pub fn run(&self, commands: &[Cmd]) -> Result<(), Fail> {
        commands.iter().for_each(|command| self.its.put(*command));
        for cpu in 0..self.cpus {
            self.its.put(its::sync(self.its.rdbase[cpu]));
        }
        self.its.ring();
        if self.its.wait(10_000) {
            return Ok(());
        }
        let tail = self.its.tail.load(Ordering::Relaxed);
        Err(Fail("GITS_CREADR reaches GITS_CWRITER", self.its.read(reg::CREADR), tail))
    }

    /// Puts commands into the queue, and lets the ITS see them when it is full
    /// and at the end: for more than the queue holds.
    pub fn run_many(&self, commands: impl Iterator<Item = Cmd>) -> Result<(), Fail> {
        for (n, command) in (1u32..).zip(commands) {
            self.its.put(command);
            if n % 4096 == 0 {
                self.run(&[])?;
            }
        }
        self.run(&[])
    }

    /// Has a CPU do something. CPU 0 does it here.
    pub fn on(&self, cpu: usize, job: Job, argument: u64) -> u64 {
        if cpu == 0 {
            return job(argument);
        }
        cpus::start(cpu, job, argument);
        cpus::finish(cpu)
    }

    /// The next interrupt that a CPU takes and ends, within a second; or 1023.
    pub fn take(&self, cpu: usize) -> u32 {
        self.on(cpu, cpus::take, hw::ms(1000)) as u32
    }

    /// The same, for what should not come: within a few milliseconds.
    pub fn peek(&self, cpu: usize) -> u32 {
        self.on(cpu, cpus::take, hw::ms(5)) as u32
    }

    /// Takes and forgets all that is pending.
    pub fn drain(&self, cpu: usize) {
        self.on(cpu, cpus::drain, hw::ms(5));
    }

    /// Fails unless the CPU takes this LPI next.
    pub fn expect(&self, cpu: usize, lpi: u32) -> Result<(), Fail> {
        equal("the LPI is taken", self.take(cpu), lpi)
    }

    /// Takes and forgets all that is pending, on all CPUs.
    pub fn drain_all(&self) {
        self.on_all(cpus::drain);
    }

    /// Has all CPUs do something for 5 ms, at once; their results.
    fn on_all(&self, job: Job) -> [u64; MAX_CPUS] {
        let mut results = [u64::from(SPURIOUS); MAX_CPUS];
        (1..self.cpus).for_each(|cpu| cpus::start(cpu, job, hw::ms(5)));
        results[0] = job(hw::ms(5));
        (1..self.cpus).for_each(|cpu| results[cpu] = cpus::finish(cpu));
        results
    }

    /// Fails if any CPU has something pending.
    pub fn expect_none(&self) -> Result<(), Fail> {
        self.on_all(cpus::take)
            .iter()
            .try_for_each(|lpi| equal("nothing is pending", *lpi, SPURIOUS))
    }

    /// Maps a device with 16 events, its ITT the one of its number.
    pub fn device(&self, device: u32) -> Cmd {
        its::mapd(device, self.its.itt(device), 4)
    }

    /// The same with an ITT of zeroes, as the ITS wants it: it may keep there what
    /// it likes. Nothing may be mapped to this ITT any more.
    pub fn fresh_device(&self, device: u32) -> Cmd {
        its::zero(self.its.itt(device), 256);
        self.device(device)
    }

    /// GICR_INVLPIR and GICR_INVALLR work: GICR_TYPER.DirectLPI or GICR_CTLR.IR.
    pub fn has_direct_invalidation(&self) -> bool {
        let frame = self.redistributors[0];
        hw::read64(frame + gicr::TYPER) & 8 != 0 || hw::read32(frame + gicr::CTLR) & 4 != 0
    }

    /// Whether the ITS still works: a device is mapped, fires, and is taken.
    pub fn probe(&mut self) -> Result<(), Fail> {
        self.reset().map_err(|why| Fail("afterwards: the ITS can be set up", why.1, why.2))?;
        for cpu in (0..self.cpus).filter(|cpu| self.enabled[*cpu]) {
            let (device, lpi) = (0x700 + cpu as u32, 8192 + 77 + cpu as u32);
            let target = cpu as u16;
            let commands =
                [self.device(device), its::mapti(device, 3, lpi, target), its::int(device, 3)];
            self.run(&commands)
                .map_err(|why| Fail("afterwards: commands are executed", why.1, why.2))?;
            self.expect(cpu, lpi)
                .map_err(|why| Fail("afterwards: an LPI is taken", why.1, why.2))?;
        }
        self.expect_none()
    }
}
