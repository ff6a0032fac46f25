// SPDX-License-Identifier: GPL-2.0-only
//! A host, a guest on it, and what the guest's kernel would do.

use std::sync::Arc;

use its_arch::access::Width;
use its_arch::error::CommandError;
use its_arch::gicr::{GICR_CTLR, GICR_PENDBASER, GICR_PROPBASER, PendBaser, PropBaser};
use its_arch::gits::{self, Baser, Cbaser, PageSize};
use its_arch::{
    Command, DeviceId, EventBits, GuestPa, IdBits, Lpi, LpiProperty, RawCommand, Rdbase, VcpuId,
};
use its_core::env::Level;
use its_core::host::{HostIts, HostItsConfig};
use its_core::{Domain, DomainConfig, Error, Host};

use crate::cmd;
use crate::env::Fake;
use crate::guest::{FakeGuest, Ram};
use crate::its::FakeHostIts;
use crate::scaled;
use crate::vcpu::{FakeVcpu, Mode};
use crate::world::{self, World};

/// Where the command queue of virtual ITS 0 is; those of the others follow in
/// steps of 1 MiB.
pub const QUEUE: u64 = 0x4000_0000;
/// Where the LPI configuration table is.
pub const PROPERTIES: u64 = 0x5000_0000;
/// Where the pending table of vCPU 0 is; the others follow.
pub const PENDING: u64 = 0x5800_0000;
/// Where tables that nobody reads are.
pub const TABLES: u64 = 0x6000_0000;

/// What other work of a CPU takes between two steps of long work, in
/// nanoseconds.
pub const TIME_BETWEEN_STEPS: u64 = 1_000_000;

/// What it takes until a hypercall that had more to do comes again, in
/// nanoseconds.
const TIME_BETWEEN_CALLS: u64 = 20_000;

/// What to make a [`Machine`] of.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// vCPUs.
    pub vcpus: u16,
    /// Physical CPUs.
    pub cpus: u16,
    /// Host ITSes, and as many virtual ones.
    pub its: usize,
    /// INTID bits of the guest.
    pub id_bits: u8,
    /// INTID bits of the host.
    pub host_id_bits: u8,
    /// DeviceID bits.
    pub device_bits: u8,
    /// EventID bits.
    pub event_bits: u8,
    /// Bytes of the host ITS's command queue.
    pub host_queue_bytes: u32,
    /// It is the hardware domain.
    pub hardware: bool,
    /// Host LPIs that its MAPD may take; see [`DomainConfig::max_events`].
    pub max_events: Option<u32>,
    /// List registers of each CPU.
    pub list_registers: usize,
    /// 4 KiB pages of the guest's command queue.
    pub queue_pages: u8,
    /// Interrupts that the guest's devices may raise in a second. No limit
    /// that matters by default, as time stands still.
    pub lpi_rate: Option<u32>,
    /// Mask host LPIs when its-core says so.
    pub masking: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vcpus: 2,
            cpus: 4,
            its: 1,
            // Seven times as many LPIs take seven times as long to set up.
            id_bits: scaled(16, 14),
            host_id_bits: scaled(16, 14),
            device_bits: 16,
            event_bits: 16,
            host_queue_bytes: 4096,
            hardware: true,
            max_events: None,
            list_registers: 4,
            queue_pages: 1,
            lpi_rate: Some(u32::MAX),
            masking: true,
        }
    }
}

/// The host's number for the domain.
pub const DOMAIN_ID: u16 = 7;

/// A host with a guest.
pub struct Machine {
    /// Heap, clock and log.
    pub world: Arc<World>,
    /// The host.
    pub host: Host<Fake>,
    /// Its ITSes.
    pub its: Vec<FakeHostIts>,
    /// The guest's RAM.
    pub ram: Arc<Ram>,
    /// The guest.
    pub domain: Domain<Fake>,
    /// Its vCPUs, all of them in the guest at first.
    pub vcpus: Vec<FakeVcpu>,
    /// What it was made of.
    pub config: Config,
}

impl Config {
    /// The host alone: with its ITSes, each with a collection for each CPU.
    ///
    /// # Errors
    /// Those of its-core.
    pub fn host(&self) -> Result<(Host<Fake>, Vec<FakeHostIts>), Error> {
        let host = Host::new(IdBits::new(self.host_id_bits).expect("14 to 32 INTID bits"))?;
        let mut all = Vec::new();
        for index in 0..self.its {
            let config = HostItsConfig {
                queue_bytes: self.host_queue_bytes,
                device_bits: self.device_bits,
                event_bits: EventBits::new(self.event_bits).expect("1 to 32 EventID bits"),
                itt_entry_bytes: 8,
            };
            let its = FakeHostIts::new(config);
            assert_eq!(host.add_its(its.clone(), config)?, index);
            all.push(its);
            for cpu in 0..self.cpus {
                host.setup_collection(index, cpu, Rdbase::from_processor_number(cpu))?;
            }
        }
        Ok((host, all))
    }

    /// What its-core is told of the guest.
    #[must_use]
    pub fn domain(&self) -> DomainConfig {
        DomainConfig {
            id: DOMAIN_ID,
            vcpus: self.vcpus,
            id_bits: IdBits::new(self.id_bits).expect("14 to 32 INTID bits"),
            hardware: self.hardware,
            vits: self.its,
            max_events: self.max_events,
            lpi_rate: self.lpi_rate,
        }
    }
}

impl Machine {
    /// A machine whose guest has not started to use its ITSes.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let world = World::current();
        let (host, its) = config.host().expect("the host has memory");
        let ram = Arc::new(Ram::default());
        for index in 0..config.its {
            let queue = u64::from(config.queue_pages).max(1) * 4096;
            ram.add(QUEUE + Self::step(index), queue);
        }
        let id_bits = IdBits::new(config.id_bits).expect("14 to 32 INTID bits");
        ram.add(PROPERTIES, id_bits.lpis());
        for vcpu in 0..config.vcpus {
            let bytes = (id_bits.count() / 8).next_multiple_of(4096);
            ram.add(Self::pending_table(vcpu), bytes);
        }
        let domain = Domain::new(&host, FakeGuest(Arc::clone(&ram)), config.domain());
        let domain = domain.expect("the domain has memory");
        let mut vcpus = Vec::new();
        for id in 0..config.vcpus {
            let vcpu = FakeVcpu::new(id, config.list_registers);
            domain.add_vcpu(VcpuId::new(id), vcpu.clone()).expect("a new vCPU");
            vcpus.push(vcpu);
        }
        Self { world, host, its, ram, domain, vcpus, config }
    }

    /// A machine whose guest has set up its ITSes and redistributors:
    /// collection n goes to vCPU n.
    #[must_use]
    pub fn booted(config: Config) -> Self {
        let machine = Self::new(config);
        for index in 0..config.its {
            machine.boot_its(index);
        }
        for vcpu in 0..config.vcpus {
            machine.boot_redist(vcpu);
        }
        for index in 0..config.its {
            for vcpu in 0..config.vcpus {
                machine.ok_on(index, cmd::mapc(vcpu, vcpu));
            }
        }
        machine.quiet();
        machine
    }

    fn step(index: usize) -> u64 {
        u64::try_from(index).expect("small") * 0x10_0000
    }

    /// Where the pending table of a vCPU is.
    #[must_use]
    pub fn pending_table(vcpu: u16) -> u64 {
        PENDING + u64::from(vcpu) * 0x10_0000
    }

    // ---- Registers ----

    /// Read a 64-bit register of virtual ITS 0.
    #[must_use]
    pub fn r64(&self, offset: u64) -> u64 {
        self.domain.its_read(0, offset, Width::Double).expect("a legal access")
    }

    /// Read a 32-bit register of virtual ITS 0.
    #[must_use]
    pub fn r32(&self, offset: u64) -> u64 {
        self.domain.its_read(0, offset, Width::Word).expect("a legal access")
    }

    /// Write a 64-bit register of virtual ITS 0, and nothing after it.
    pub fn w64(&self, offset: u64, value: u64) -> bool {
        self.write_on(0, offset, Width::Double, value)
    }

    /// Write a 32-bit register of virtual ITS 0, and nothing after it.
    pub fn w32(&self, offset: u64, value: u64) -> bool {
        self.write_on(0, offset, Width::Word, value)
    }

    /// Write a register of a virtual ITS.
    pub fn write_on(&self, vits: usize, offset: u64, width: Width, value: u64) -> bool {
        world::assert_no_lock("a guest traps");
        let more = self.domain.its_write(&self.host, vits, offset, width, value);
        more.expect("a legal access")
    }

    /// Execute what a write left over.
    pub fn work(&self) {
        while self.domain.work(&self.host) {
            // Softirqs and other vCPUs take their time in between.
            self.world.advance(20_000);
        }
    }

    /// Read a register of a redistributor.
    #[must_use]
    pub fn gicr_read(&self, vcpu: u16, offset: u64, width: Width) -> u64 {
        let value = self.domain.gicr_read(VcpuId::new(vcpu), offset, width);
        value.expect("a legal access")
    }

    /// Write a 64-bit register of a redistributor, and do what is left over.
    pub fn gicr_w64(&self, vcpu: u16, offset: u64, value: u64) {
        self.gicr_write(vcpu, offset, Width::Double, value);
        self.work();
    }

    /// Write a 32-bit register of a redistributor, and do what is left over.
    pub fn gicr_w32(&self, vcpu: u16, offset: u64, value: u64) {
        self.gicr_write(vcpu, offset, Width::Word, value);
        self.work();
    }

    /// Write a register of a redistributor, and nothing after it. True if
    /// work is left over.
    pub fn gicr_write(&self, vcpu: u16, offset: u64, width: Width, value: u64) -> bool {
        world::assert_no_lock("a guest traps");
        let more = self.domain.gicr_write(VcpuId::new(vcpu), offset, width, value);
        more.expect("a legal access")
    }

    /// The GITS_CBASER of a virtual ITS's queue.
    #[must_use]
    pub fn cbaser(&self, vits: usize) -> Cbaser {
        Cbaser::new()
            .with_valid(true)
            .with_size(self.config.queue_pages.max(1) - 1)
            .with_address(GuestPa::new(QUEUE + Self::step(vits)))
    }

    /// A GITS_BASER<n> for a flat table of 64 KiB pages.
    #[must_use]
    pub fn baser(pages: u16) -> Baser {
        let size = u8::try_from(pages - 1).expect("at most 256 pages");
        Baser::new()
            .with_valid(true)
            .with_page_size(PageSize::Size64K)
            .with_size(size)
            .with_address(GuestPa::new(TABLES))
            .expect("aligned")
    }

    /// Set up the tables and the queue of a virtual ITS, and enable it.
    pub fn boot_its(&self, vits: usize) {
        let write = |offset, value| self.write_on(vits, offset, Width::Double, value);
        write(gits::GITS_BASER, Self::baser(8).into());
        write(gits::GITS_BASER + 8, Self::baser(1).into());
        write(gits::GITS_CBASER, self.cbaser(vits).into());
        self.write_on(vits, gits::GITS_CTLR, Width::Word, 1);
    }

    /// Set GICR_PROPBASER and GICR_PENDBASER of a vCPU with an empty pending
    /// table, and enable LPIs.
    pub fn boot_redist(&self, vcpu: u16) {
        let propbaser = PropBaser::new()
            .with_id_bits(self.config.id_bits - 1)
            .with_address(GuestPa::new(PROPERTIES));
        self.gicr_w64(vcpu, GICR_PROPBASER, propbaser.into());
        let pendbaser =
            PendBaser::new().with_ptz(true).with_address(GuestPa::new(Self::pending_table(vcpu)));
        self.gicr_w64(vcpu, GICR_PENDBASER, pendbaser.into());
        self.gicr_w32(vcpu, GICR_CTLR, 1);
    }

    // ---- Commands ----

    /// Write a command to the queue of a virtual ITS at a byte offset.
    pub fn put(&self, vits: usize, offset: u64, raw: &RawCommand) {
        self.ram.write(QUEUE + Self::step(vits) + offset, &raw.to_le_bytes());
    }

    /// Queue raw commands on a virtual ITS, ring GITS_CWRITER once for all of
    /// them, and return what was logged. They are all executed, or skipped,
    /// when this returns.
    pub fn run_raw(&self, vits: usize, commands: &[RawCommand]) -> Vec<String> {
        let read =
            |offset| self.domain.its_read(vits, offset, Width::Double).expect("a legal access");
        let size = self.cbaser(vits).size_bytes();
        let mut at = read(gits::GITS_CWRITER);
        assert!(
            u64::try_from(commands.len()).expect("few") < size / 32,
            "more commands than the queue has room for"
        );
        for raw in commands {
            self.put(vits, at, raw);
            at = (at + 32) % size;
        }
        let before = self.world.take_log();
        assert!(before.is_empty(), "unread log lines: {before:?}");
        self.write_on(vits, gits::GITS_CWRITER, Width::Double, at);
        self.work();
        assert_eq!(read(gits::GITS_CREADR), at, "GITS_CREADR has not reached GITS_CWRITER");
        self.world.take_log().into_iter().map(|(_, line)| line).collect()
    }

    /// Queue commands on a virtual ITS; see [`Self::run_raw`].
    pub fn run_on(&self, vits: usize, commands: &[Command]) -> Vec<String> {
        let raw: Vec<RawCommand> = commands.iter().map(Command::encode).collect();
        self.run_raw(vits, &raw)
    }

    /// Queue commands on virtual ITS 0, in portions that fit in the queue,
    /// and expect no complaint.
    pub fn ok_all(&self, commands: &[Command]) {
        for portion in commands.chunks(100) {
            let log = self.run_on(0, portion);
            assert!(log.is_empty(), "{log:?}");
        }
    }

    /// Execute a command on a virtual ITS, and expect no complaint.
    pub fn ok_on(&self, vits: usize, command: Command) {
        let log = self.run_on(vits, &[command]);
        assert!(log.is_empty(), "{command:?}: {log:?}");
    }

    /// Execute a command on virtual ITS 0, and expect no complaint.
    pub fn ok(&self, command: Command) {
        self.ok_on(0, command);
    }

    /// Execute a command on virtual ITS 0, and expect it to be skipped with
    /// one line that names the error and its number.
    pub fn fails(&self, command: Command, error: CommandError) {
        let log = self.run_on(0, &[command]);
        let number = format!("({:#x})", error.number());
        assert!(
            log.len() == 1 && log[0].contains(error.name()) && log[0].contains(&number),
            "{command:?}: expected {} {number}, not {log:?}",
            error.name()
        );
    }

    /// Nothing was logged since it was last asked.
    pub fn quiet(&self) {
        let log = self.world.take_log();
        assert!(log.is_empty(), "{log:?}");
    }

    // ---- Properties, devices, interrupts ----

    /// Set priority and enable bit of an LPI in the guest's table.
    pub fn set_property(&self, lpi: u32, priority: u8, enabled: bool) {
        let property = LpiProperty::with(priority, enabled);
        self.ram.write(PROPERTIES + u64::from(lpi - Lpi::FIRST), &[property.get()]);
    }

    /// Enable an LPI at the usual priority.
    pub fn enable(&self, lpi: u32) {
        self.set_property(lpi, 0xa0, true);
    }

    /// Disable an LPI.
    pub fn disable(&self, lpi: u32) {
        self.set_property(lpi, 0xa0, false);
    }

    /// Announce a device of virtual ITS 0, in as many steps as it takes.
    ///
    /// # Errors
    /// Those of [`Domain::add_device`].
    pub fn add_device(&self, device: u32, events: u64) -> Result<(), Error> {
        while self.begin_add(device, events)? {
            self.world.advance(TIME_BETWEEN_CALLS);
        }
        Ok(())
    }

    /// A step of that. True if there is more to do.
    ///
    /// # Errors
    /// Those of [`Domain::add_device`].
    pub fn begin_add(&self, device: u32, events: u64) -> Result<bool, Error> {
        world::assert_no_lock("a hypercall");
        self.domain.add_device(&self.host, 0, DeviceId::new(device), events)
    }

    /// Take a device of virtual ITS 0 away, in as many steps as it takes.
    ///
    /// # Errors
    /// Those of [`Domain::remove_device`].
    pub fn remove_device(&self, device: u32) -> Result<(), Error> {
        while self.begin_remove(device)? {
            self.world.advance(TIME_BETWEEN_CALLS);
        }
        self.work();
        Ok(())
    }

    /// A step of that. True if it has not begun.
    ///
    /// # Errors
    /// Those of [`Domain::remove_device`].
    pub fn begin_remove(&self, device: u32) -> Result<bool, Error> {
        world::assert_no_lock("a hypercall");
        self.domain.remove_device(&self.host, 0, DeviceId::new(device))
    }

    /// Map a device with `events` events and make each an enabled LPI from
    /// `first` on, for collection 0.
    pub fn map(&self, device: u32, events: u32, first: u32) {
        let bits = EventBits::for_events(events.into()).expect("few events");
        self.ok(cmd::mapd(device, bits.get()));
        for event in 0..events {
            self.enable(first + event);
            self.ok(cmd::mapti(device, event, first + event, 0));
        }
    }

    /// A device of host ITS 0 raises an event. True if it came as far as the
    /// guest's LPIs.
    pub fn fire(&self, device: u32, event: u32) -> bool {
        self.fire_on(0, device, event)
    }

    /// A device of a host ITS raises an event.
    pub fn fire_on(&self, its: usize, device: u32, event: u32) -> bool {
        let Some((host_lpi, _)) = self.its[its].fire(device, event) else { return false };
        self.interrupt(host_lpi)
    }

    /// A CPU takes a host LPI. True if it came as far as the guest's LPIs.
    pub fn interrupt(&self, host_lpi: Lpi) -> bool {
        world::in_irq(|| {
            let Some(entry) = self.host.claim(host_lpi) else { return false };
            assert_eq!(entry.domain(), DOMAIN_ID, "{host_lpi} is another domain's");
            let lpi = Lpi::new(entry.vlpi());
            let storm = match lpi {
                Some(lpi) => self.domain.deliver(lpi),
                None => self.domain.unmapped(),
            };
            if storm && self.config.masking {
                self.domain.mask(&self.host, host_lpi);
            }
            lpi.is_some()
        })
    }

    /// The CPUs take the host LPIs that were pending and have been enabled.
    pub fn take_due(&self) {
        for its in &self.its {
            for host_lpi in its.take_due() {
                self.interrupt(host_lpi);
            }
        }
    }

    /// Let time pass until the domain's timer goes off; false if it is not
    /// running.
    pub fn tick(&self) -> bool {
        let Some(due) = self.ram.tick_due() else { return false };
        self.world.advance(due.saturating_sub(self.world.now()));
        assert!(self.ram.stop_tick(self.world.now()), "the timer goes off when it is due");
        world::assert_no_lock("a softirq");
        self.domain.tick(&self.host);
        self.take_due();
        true
    }

    /// Let the domain's timer go off once, if it runs, and each vCPU that has
    /// been kicked leave and enter the guest, until none is.
    pub fn settle(&self) {
        self.tick();
        for round in 0.. {
            assert!(round < 100, "vCPUs are kicked for ever");
            let mut any = false;
            self.take_due();
            for vcpu in self.vcpus.iter().filter(|vcpu| vcpu.mode() != Mode::Off) {
                if vcpu.kicked() || vcpu.mode() == Mode::Hypervisor {
                    self.cycle(vcpu);
                    any = true;
                }
            }
            if !any {
                return;
            }
        }
    }

    /// A vCPU leaves the guest and enters it again.
    fn cycle(&self, vcpu: &FakeVcpu) {
        vcpu.cycle(&self.domain);
        vcpu.unmask_taken(&self.domain, &self.host);
        self.take_due();
    }

    /// The guest takes and ends one interrupt on a vCPU.
    pub fn take(&self, vcpu: usize) -> Option<u32> {
        self.settle();
        let vcpu = &self.vcpus[vcpu];
        if vcpu.mode() == Mode::Off {
            return None;
        }
        let lpi = vcpu.ack()?;
        vcpu.eoi(lpi);
        self.cycle(vcpu);
        Some(lpi.get())
    }

    /// The guest takes all interrupts on a vCPU, in order.
    pub fn drain(&self, vcpu: usize) -> Vec<u32> {
        let mut all = Vec::new();
        while let Some(lpi) = self.take(vcpu) {
            all.push(lpi);
            assert!(all.len() < 100_000, "interrupts never end");
        }
        all
    }

    /// The guest takes all interrupts: on vCPU 0 exactly `first`, on vCPU 1
    /// exactly `second`, and none elsewhere.
    #[track_caller]
    pub fn expect(&self, first: &[u32], second: &[u32]) {
        for (index, _) in self.vcpus.iter().enumerate() {
            let want = match index {
                0 => first,
                1 => second,
                _ => &[],
            };
            let got = self.drain(index);
            assert_eq!(got, want, "on vCPU {index}");
        }
    }

    /// The number that follows `name=` in what the debug key prints of the
    /// domain.
    #[must_use]
    pub fn stat(&self, name: &str) -> u64 {
        let kept = self.world.take_log();
        assert!(kept.is_empty(), "unread log lines: {kept:?}");
        self.domain.dump(&self.host);
        let log = self.world.take_log();
        assert!(log.iter().all(|(level, _)| *level == Level::Info));
        let wanted = format!(" {name}=");
        let totals = log
            .iter()
            .filter(|(_, line)| line.starts_with("ITS: stats") || line.starts_with("ITS: state"));
        let found = totals.flat_map(|(_, line)| line.split(&wanted).nth(1));
        let number = found.flat_map(|rest| rest.split(' ').next()).next();
        let number = number.unwrap_or_else(|| panic!("no {name} in {log:?}"));
        number.parse().expect("a number")
    }

    // ---- In the end ----

    /// All that its-core thinks of the host agrees with the host ITSes: each
    /// LPI that is mapped is the domain's, and no others are in use.
    #[track_caller]
    pub fn check(&self) {
        let mut mapped = 0;
        for its in &self.its {
            for lpi in its.lpis() {
                let entry = self.host.lpis.get(lpi);
                assert!(entry.is_some(), "{lpi} is mapped on the host, but free");
                mapped += 1;
            }
        }
        assert_eq!(
            usize::try_from(self.host.lpis.in_use()).expect("few"),
            mapped,
            "host LPIs in use, and those mapped on the ITSes"
        );
        self.its.iter().for_each(FakeHostIts::check_properties);
        let devices: usize = self.its.iter().map(|its| its.mapped().0).sum();
        assert_eq!(self.world.live_tables(), devices, "ITTs");
    }

    /// Devices that a host ITS would not let go of.
    #[must_use]
    pub fn abandoned(&self) -> u64 {
        let its = (0..self.config.its).filter_map(|index| self.host.its(index).ok());
        its.map(HostIts::abandoned).sum()
    }

    /// End the guest, then the host; nothing may be left of either, but for
    /// what a host ITS did not let go of.
    #[track_caller]
    pub fn destroy(self) {
        while self.domain.relinquish(&self.host) {
            self.world.advance(TIME_BETWEEN_STEPS);
        }
        let abandoned = self.abandoned();
        let Self { world, host, its, ram, domain, vcpus, .. } = self;
        assert_eq!(ram.pins(), 0, "pages of a dying domain are pinned");
        let tables = u64::try_from(world.live_tables()).expect("64 bits");
        assert_eq!(tables, abandoned, "ITTs of a dying domain");
        if abandoned == 0 {
            assert_eq!(host.lpis.in_use(), 0, "host LPIs of a dying domain");
            assert!(its.iter().all(|its| its.mapped() == (0, 0)), "devices of a dying domain");
            its.iter().for_each(FakeHostIts::check_properties);
            assert_eq!(world.disabled(), 0, "host LPIs of a dying domain that are disabled");
        }
        assert!(!domain.relinquish(&host), "there is more to give back");
        drop((domain, vcpus));
        assert_eq!(Arc::strong_count(&ram), 1, "somebody refers to the guest's RAM");
        drop(host);
        assert_eq!(world.live(), 0, "arrays that were not freed");
    }
}
