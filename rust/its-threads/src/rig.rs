// SPDX-License-Identifier: GPL-2.0-only
//! A host with a guest, and what has to hold in the end.

use std::sync::{Arc, Mutex, PoisonError};

use its_arch::access::Width;
use its_arch::gicr::{GICR_CTLR, GICR_PENDBASER, GICR_PROPBASER, PendBaser, PropBaser};
use its_arch::gits::{self, Cbaser};
use its_arch::{
    Command, DeviceId, EventBits, GuestPa, IdBits, Lpi, LpiProperty, RawCommand, Rdbase, VcpuId,
};
use its_core::host::HostItsConfig;
use its_core::{Domain, DomainConfig, Host};
use its_testkit::{Machine, cmd};

use crate::checker::{self, thread};
use crate::env::{Checked, Ram, is_disabled, reset_properties, take_log};
use crate::host::HostIts;
use crate::vcpu::Vcpu;

/// The device of virtual ITS 0, which is mapped from the start. Those of the
/// others have the numbers after it.
pub const DEVICE: u32 = 5;
/// Event `e` of the device becomes LPI `FIRST + e`.
pub const FIRST: u32 = Lpi::FIRST;
/// Events that are mapped from the start, for collection 0 of virtual ITS 0.
pub const EVENTS: u32 = 2;
/// The host's number for the domain.
pub const DOMAIN_ID: u16 = 7;
/// The usual priority. Lower is more urgent.
pub const PRIORITY: u8 = 0xa0;

/// Where the LPI configuration table is: 2 pages, for 14 INTID bits, after the
/// first command queue.
const PROPERTIES: u64 = 0x1000;
/// From the command queue of a virtual ITS, the first of which is at 0, to the
/// next one's.
const QUEUE_STEP: u64 = 0x1_0000;
/// Bytes of a command queue.
const QUEUE_BYTES: u64 = 0x1000;

/// Where the command queue of a virtual ITS is.
fn queue(vits: usize) -> u64 {
    u64::try_from(vits).expect("few") * QUEUE_STEP
}

/// What a host ITS is like, and how many slots its queue has.
#[must_use]
pub fn host_its(slots: u32) -> HostItsConfig {
    HostItsConfig {
        queue_bytes: slots * 32,
        device_bits: 8,
        event_bits: EventBits::new(8).expect("1 to 32 EventID bits"),
        itt_entry_bytes: 8,
    }
}

/// What happened to an LPI, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Its device is about to raise it.
    Fires,
    /// The guest took it.
    Taken { on: usize },
}

/// A host with a guest whose ITSes and redistributors are set up: collection n
/// goes to vCPU n.
pub struct Rig {
    /// The host.
    pub host: Box<Host<Checked>>,
    /// The guest.
    pub domain: Box<Domain<Checked>>,
    /// Its vCPUs, all of them in the guest at first.
    pub vcpus: Vec<Vcpu>,
    /// The ITSes of the host.
    its: Vec<HostIts>,
    ram: Ram,
    /// See [`Self::step`].
    steps: checker::Mutex<()>,
    /// What happened, in order.
    story: Mutex<Vec<(u32, Step)>>,
}

/// What one CPU does.
pub type Job = Box<dyn FnOnce(&Rig) + Send>;

/// Box a job.
pub fn job(work: impl FnOnce(&Rig) + Send + 'static) -> Job {
    Box::new(work)
}

impl Rig {
    /// Two vCPUs and one virtual ITS.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with(2, 1)
    }

    /// So many vCPUs, and virtual ITSes.
    #[must_use]
    pub fn with(vcpus: u16, vits: usize) -> Arc<Self> {
        Self::build(vcpus, vits, vcpus)
    }

    /// So many vCPUs, and virtual ITSes; LPIs are enabled on the first
    /// `enabled` vCPUs.
    #[must_use]
    pub fn build(vcpus: u16, vits: usize, enabled: u16) -> Arc<Self> {
        let _old = take_log();
        reset_properties();
        let id_bits = IdBits::new(14).expect("14 INTID bits");
        let host = Box::new(Host::new(id_bits).expect("memory"));
        let its: Vec<HostIts> = (0..vits).map(|_| HostIts::new(128, false)).collect();
        for (index, its) in its.iter().enumerate() {
            host.add_its(its.clone(), host_its(128)).expect("memory");
            host.setup_collection(index, 0, Rdbase::from_processor_number(0)).expect("it answers");
        }
        let ram = Ram::new(queue(vits) + 0x1000);
        let config = DomainConfig {
            id: DOMAIN_ID,
            vcpus,
            id_bits,
            hardware: false,
            vits,
            max_events: None,
            lpi_rate: Some(u32::MAX),
        };
        let domain = Domain::new(&host, ram.clone(), config).expect("memory");
        let domain = Box::new(domain);
        let vcpus: Vec<Vcpu> = (0..vcpus).map(Vcpu::new).collect();
        let steps = checker::Mutex::new(());
        let rig = Self { host, domain, vcpus, its, ram, steps, story: Mutex::default() };
        rig.boot(vits, enabled);
        let log = take_log();
        assert!(log.is_empty(), "{log:?}");
        Arc::new(rig)
    }

    fn boot(&self, vits: usize, enabled: u16) {
        for (id, vcpu) in (0..).zip(&self.vcpus) {
            self.domain.add_vcpu(VcpuId::new(id), vcpu.clone()).expect("a new vCPU");
            if id < enabled {
                self.enable_lpis(id, &[]);
            }
        }
        for (index, device) in (0..vits).zip(DEVICE..) {
            let write = |offset, value| self.its_write(index, offset, Width::Double, value);
            write(gits::GITS_BASER, Machine::baser(1).into());
            write(gits::GITS_BASER + 8, Machine::baser(1).into());
            let at = GuestPa::new(queue(index));
            let cbaser = Cbaser::new().with_valid(true).with_address(at);
            write(gits::GITS_CBASER, cbaser.into());
            self.its_write(index, gits::GITS_CTLR, Width::Word, 1);
            let number = u16::try_from(index).expect("few");
            let add = || self.domain.add_device(&self.host, number, DeviceId::new(device), 32);
            while add().expect("a new device") {
                thread::yield_now();
            }
            let mut commands: Vec<Command> = (0..self.vcpus.len())
                .filter_map(|vcpu| u16::try_from(vcpu).ok())
                .map(|vcpu| cmd::mapc(vcpu, vcpu))
                .collect();
            commands.push(cmd::mapd(device, 5));
            self.commands_on(index, &commands);
        }
        self.map(EVENTS);
    }

    /// Map the first `events` events of the device, each to an enabled LPI.
    pub fn map(&self, events: u32) {
        for event in 0..events {
            self.set_property(event, PRIORITY, true);
            self.commands(&[cmd::mapti(DEVICE, event, FIRST + event, 0)]);
        }
    }

    /// The guest sets GICR_CTLR.EnableLPIs of a vCPU, whose pending table has
    /// the LPIs of these events, of which there are at most eight.
    pub fn enable_lpis(&self, vcpu: u16, events: &[u32]) {
        let table = queue(self.its.len());
        let bits = events.iter().fold(0, |bits, event| bits | 1 << event);
        self.ram.write(table + u64::from(FIRST / 8), &[bits]);
        let propbaser = PropBaser::new().with_id_bits(13).with_address(GuestPa::new(PROPERTIES));
        self.gicr_write(vcpu, GICR_PROPBASER, Width::Double, propbaser.into());
        let pendbaser =
            PendBaser::new().with_ptz(events.is_empty()).with_address(GuestPa::new(table));
        self.gicr_write(vcpu, GICR_PENDBASER, Width::Double, pendbaser.into());
        self.gicr_write(vcpu, GICR_CTLR, Width::Word, 1);
    }

    // ---- What the CPUs do ----

    /// Each job on a CPU of its own, all at once. Returns when all are done.
    pub fn race(self: &Arc<Self>, jobs: impl IntoIterator<Item = Job>) {
        let mut jobs: Vec<Job> = jobs.into_iter().collect();
        let own = jobs.pop().expect("jobs");
        let others: Vec<_> = jobs
            .into_iter()
            .map(|job| {
                let rig = Arc::clone(self);
                thread::spawn(move || job(&rig))
            })
            .collect();
        own(self);
        for other in others {
            other.join().expect("a job failed");
        }
    }

    /// The checker orders what all jobs do that call this at their start: also
    /// what it does not know of, as [`Self::set_property`], right after that.
    /// Without it the last job's comes first.
    pub fn step(&self) {
        drop(checker::lock(&self.steps));
    }

    /// Write a register of a redistributor, and do what is left over.
    pub fn gicr_write(&self, vcpu: u16, offset: u64, width: Width, value: u64) {
        let more = self.domain.gicr_write(VcpuId::new(vcpu), offset, width, value);
        self.work(more.expect("a legal access"));
    }

    /// What a vCPU does before it enters the guest, if there is anything left.
    fn work(&self, mut more: bool) {
        while more {
            more = self.domain.work(&self.host);
            if more {
                thread::yield_now();
            }
        }
    }

    /// Write a register of a virtual ITS, and do what is left over.
    pub fn its_write(&self, vits: usize, offset: u64, width: Width, value: u64) {
        let more = self.domain.its_write(&self.host, vits, offset, width, value);
        self.work(more.expect("a legal access"));
    }

    /// A hypercall takes the device of virtual ITS 0 away.
    pub fn remove_device(&self) {
        let remove = || self.domain.remove_device(&self.host, 0, DeviceId::new(DEVICE));
        while remove().expect("it is there") {
            thread::yield_now();
        }
        self.work(true);
    }

    /// Read a register of virtual ITS 0.
    #[must_use]
    pub fn its_read(&self, offset: u64) -> u64 {
        self.domain.its_read(0, offset, Width::Double).expect("a legal access")
    }

    /// Put a raw command into slot `slot` of the queue of a virtual ITS.
    pub fn put(&self, vits: usize, slot: u64, raw: &RawCommand) {
        self.ram.write(queue(vits) + slot * 32, &raw.to_le_bytes());
    }

    /// Queue commands on virtual ITS 0, and execute them.
    pub fn commands(&self, commands: &[Command]) {
        self.commands_on(0, commands);
    }

    /// Queue commands on a virtual ITS, and execute them. One CPU at a time.
    pub fn commands_on(&self, vits: usize, commands: &[Command]) {
        let cwriter = self.domain.its_read(vits, gits::GITS_CWRITER, Width::Double);
        let mut at = cwriter.expect("a legal access");
        for command in commands {
            self.put(vits, at / 32, &command.encode());
            at = (at + 32) % QUEUE_BYTES;
        }
        self.its_write(vits, gits::GITS_CWRITER, Width::Double, at);
    }

    /// The guest sets priority and enable bit of an event's LPI in its table.
    pub fn set_property(&self, event: u32, priority: u8, enabled: bool) {
        let property = LpiProperty::with(priority, enabled);
        self.ram.write(PROPERTIES + u64::from(event), &[property.get()]);
    }

    fn tell(&self, event: u32, step: Step) {
        self.story.lock().unwrap_or_else(PoisonError::into_inner).push((event, step));
    }

    /// The device of virtual ITS 0 raises an event. True if it is mapped.
    pub fn fire(&self, event: u32) -> bool {
        self.tell(event, Step::Fires);
        !self.its[0].fire(FIRST + event) || self.interrupt(FIRST + event)
    }

    /// A CPU takes a host LPI.
    fn interrupt(&self, host_lpi: u32) -> bool {
        let host_lpi = Lpi::new(host_lpi).expect("an LPI");
        let Some(entry) = self.host.claim(host_lpi) else { return false };
        assert_eq!(entry.domain(), DOMAIN_ID, "another domain's");
        let Some(lpi) = Lpi::new(entry.vlpi()) else { return false };
        self.domain.deliver(lpi);
        true
    }

    /// A CPU finds that the host LPI of an event had better be masked. It may
    /// be for any reason.
    pub fn mask(&self, event: u32) {
        self.domain.mask(&self.host, Lpi::new(FIRST + event).expect("an LPI"));
        self.take_due();
    }

    /// The CPUs take the host LPIs that were pending and have been unmasked.
    fn take_due(&self) {
        for host_lpi in self.its[0].take_due() {
            self.interrupt(host_lpi);
        }
    }

    /// The domain's timer goes off, if it was asked to do so soon.
    pub fn tick(&self) -> bool {
        let due = self.ram.stop_tick();
        if due {
            self.domain.tick(&self.host);
            self.take_due();
        }
        due
    }

    /// A vCPU leaves the guest and enters it.
    pub fn cycle(&self, vcpu: usize) {
        if self.vcpus[vcpu].cycle(&self.domain) {
            self.domain.unmask_taken(&self.host, self.vcpus[vcpu].id());
            self.take_due();
        }
    }

    /// A vCPU leaves the guest and enters it, takes what it has, and ends it:
    /// so many times.
    pub fn run_vcpu(&self, vcpu: usize, times: u32) {
        for _ in 0..times {
            self.cycle(vcpu);
            self.take(vcpu);
        }
    }

    /// The guest takes and ends what is in the list registers of a vCPU. True
    /// if that was anything.
    pub fn take(&self, vcpu: usize) -> bool {
        let mut any = false;
        while let Some(lpi) = self.vcpus[vcpu].ack() {
            self.tell(lpi.get() - FIRST, Step::Taken { on: vcpu });
            any = true;
        }
        self.vcpus[vcpu].eoi();
        any
    }

    // ---- In the end ----

    /// Let each vCPU that has to leave and enter the guest, until none has.
    pub fn settle(&self) {
        for _ in 0..100 {
            let interrupted: Vec<usize> =
                (0..self.vcpus.len()).filter(|vcpu| self.vcpus[*vcpu].interrupted()).collect();
            if interrupted.is_empty() {
                return;
            }
            interrupted.into_iter().for_each(|vcpu| self.cycle(vcpu));
        }
        panic!("vCPUs leave the guest for ever");
    }

    /// The guest takes all interrupts: the events of those that each vCPU
    /// takes from now on, in order.
    pub fn drain(&self) -> Vec<Vec<u32>> {
        let before = self.story().len();
        self.settle();
        for vcpu in 0..self.vcpus.len() {
            while self.take(vcpu) {
                self.cycle(vcpu);
                self.settle();
            }
        }
        let mut taken = vec![Vec::new(); self.vcpus.len()];
        for (event, step) in &self.story()[before..] {
            if let Step::Taken { on } = step {
                taken[*on].push(*event);
            }
        }
        taken
    }

    /// The guest takes all interrupts, and the timer goes off as long as
    /// somebody asks for it. No host LPI of the device's first `events` stays
    /// masked.
    pub fn expect_unmasked(&self, events: u32) {
        for _ in 0..10 {
            let _taken = self.drain();
            // What the guest is done with shows when it is left.
            (0..self.vcpus.len()).for_each(|vcpu| self.cycle(vcpu));
            if !self.tick() {
                break;
            }
        }
        assert_eq!(self.its[0].masked(), [], "the redistributor believes them to be disabled");
        assert!((FIRST..FIRST + events).all(|lpi| !is_disabled(lpi)), "disabled in the table");
    }

    /// Nothing is pending, on any vCPU.
    pub fn expect_nothing(&self) {
        let taken = self.drain();
        assert!(taken.iter().all(Vec::is_empty), "pending on each vCPU: {taken:?}");
    }

    fn story(&self) -> Vec<(u32, Step)> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often the guest took an event.
    #[must_use]
    pub fn taken(&self, event: u32) -> usize {
        let is = |step: &(u32, Step)| step.0 == event && step.1 != Step::Fires;
        self.story().iter().filter(|step| is(step)).count()
    }

    /// The guest takes all that is pending. After that, no edge is lost: it
    /// took each event after the event fired last, and no more often than it
    /// fired.
    pub fn expect_all(&self, events: u32) -> Vec<Vec<u32>> {
        let taken = self.drain();
        let story = self.story();
        for event in 0..events {
            let steps: Vec<Step> =
                story.iter().filter(|step| step.0 == event).map(|step| step.1).collect();
            assert_ne!(steps.last(), Some(&Step::Fires), "event {event} is lost: {story:?}");
            let fired = steps.iter().filter(|step| **step == Step::Fires).count();
            assert!(steps.len() - fired <= fired, "event {event} came from nowhere: {steps:?}");
        }
        taken
    }
}
