// SPDX-License-Identifier: GPL-2.0-only
//! A guest that does anything it likes, on a host where anything may fail: any
//! value to any register, any bytes as commands and tables, memory that
//! changes while it is read, allocations that fail, host ITSes that hang.
//!
//! The guest may break its own interrupts, and nothing else. What must hold
//! is checked after each step; in the end, all is given back.

use its_arch::access::Width;
use its_arch::gicr::{
    GICR_CTLR, GICR_INVALLR, GICR_INVLPIR, GICR_PENDBASER, GICR_PROPBASER, PendBaser, PropBaser,
};
use its_arch::gits::{self, GITS_BASER, GITS_CBASER, GITS_CREADR, GITS_CTLR, GITS_CWRITER};
use its_arch::{COMMAND_SIZE, Command, GuestPa, Lpi, RawCommand, VcpuId};
use its_core::budget::COMMANDS_PER_TRAP;
use its_core::env::Level;

use crate::cmd;
use crate::its::Pace;
use crate::machine::{DOMAIN_ID, PENDING, PROPERTIES, QUEUE, TIME_BETWEEN_STEPS};
use crate::numbers::{Numbers, Trace};
use crate::vcpu::Mode;
use crate::world::{self, World};
use crate::{Config, Machine};

const VCPUS: u16 = 3;
/// LPIs that commands name, mostly: 8192 and on.
const LPIS: u32 = 56;
/// Devices and events that they name.
const DEVICES: u32 = 4;
const EVENTS: u32 = 40;
/// Steps of [`its_core::Domain::work`] in a row that are too many: more than
/// a full queue of the longest commands needs.
const TOO_MUCH_WORK: u32 = 20_000;
/// A GITS_CREADR beyond any queue. One within could not be told from the truth.
pub(crate) const NO_SLOT: u64 = 1 << 19;
/// Times that the timer goes off before an interrupt is late: it may be masked.
const LATE: u32 = 20;
/// More arrays than any of these guests can have its-core allocate.
const TOO_MANY_ARRAYS: usize = 160;

/// A guest, and the numbers that it follows.
struct Run<N> {
    m: Machine,
    numbers: N,
    /// What the guest took on each vCPU, and has not ended.
    active: Vec<Vec<Lpi>>,
    /// Commands that were executed or skipped, as last seen.
    commands: u64,
    /// The configuration table was where it is not any more.
    table_lost: bool,
    trace: Trace,
}

/// The numbers behind ` name=` in what the debug key prints.
struct Printed(Vec<String>);

impl Printed {
    fn of(m: &Machine) -> Self {
        m.domain.dump(&m.host);
        Self(m.world.take_log().into_iter().map(|(_, line)| line).collect())
    }

    fn find(line: &str, name: &str) -> Option<u64> {
        line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    }

    /// From the totals.
    fn total(&self, name: &str) -> u64 {
        let total = |line: &&String| line.starts_with("ITS: stat");
        let found = self.0.iter().filter(total).find_map(|line| Self::find(line, name));
        found.unwrap_or_else(|| panic!("no {name} in {:?}", self.0))
    }

    /// From the line of a vCPU, if it has one.
    fn of_vcpu(&self, vcpu: usize, name: &str) -> Option<u64> {
        let start = format!("ITS: vcpu d{DOMAIN_ID}v{vcpu} ");
        let line = self.0.iter().find(|line| line.starts_with(&start))?;
        Self::find(line, name)
    }
}

/// Let a guest do what `numbers` say, until there are no more.
///
/// # Panics
/// When something does not hold.
pub fn run(mut numbers: impl Numbers) {
    World::renew();
    let config = Config {
        vcpus: VCPUS,
        cpus: 2,
        id_bits: 14,
        host_id_bits: 14,
        hardware: !numbers.once_in(4),
        max_events: numbers.once_in(4).then_some(128),
        list_registers: numbers.index(6) + 1,
        host_queue_bytes: numbers.pick(&[4096, 256, 1024]),
        queue_pages: numbers.below_u8(2) + 1,
        ..Config::default()
    };
    let m = if numbers.once_in(4) { Machine::new(config) } else { Machine::booted(config) };
    m.world.set_relax(TIME_BETWEEN_STEPS);
    for lpi in Lpi::FIRST..Lpi::FIRST + LPIS {
        m.set_property(lpi, 0x80, lpi % 3 != 1);
    }
    for vcpu in &m.vcpus {
        vcpu.set_active_state(!numbers.once_in(3));
        if numbers.once_in(3) {
            vcpu.raise_other(0x80);
        }
    }
    let active = vec![Vec::new(); VCPUS.into()];
    let mut run = Run { m, numbers, active, commands: 0, table_lost: false, trace: Trace::new() };
    run.trace.say(|| format!("{config:?}"));
    run.check();
    while run.numbers.more() {
        run.step();
        run.check();
    }
    run.finish();
}

impl<N: Numbers> Run<N> {
    // ---- What to do ----

    /// A number that may mean something: few bits, all bits, an address.
    fn value(&mut self) -> u64 {
        match self.numbers.below(10) {
            0 => self.numbers.any(),
            1 => 0,
            2 => u64::MAX,
            3 => 1 << self.numbers.below(64),
            4 => self.numbers.below(0x1000),
            5 => QUEUE | (1 << 63) | (self.numbers.below(16) << 8) | self.numbers.below(3),
            6 => PROPERTIES | (12 + self.numbers.below(4)),
            7 => (self.numbers.below(256) * COMMAND_SIZE) | self.numbers.below(2),
            8 => (Lpi::FIRST + self.numbers.below_u32(LPIS)).into(),
            _ => PENDING | (self.numbers.below(2) << 62),
        }
    }

    fn width(&mut self) -> Width {
        match self.numbers.below(8) {
            0 => Width::Byte,
            1 => Width::Half,
            2..=4 => Width::Word,
            _ => Width::Double,
        }
    }

    /// A command that is nearly right.
    fn command(&mut self) -> RawCommand {
        let n = &mut self.numbers;
        let kind = n.below(20);
        let (device, event) = (n.below_u32(DEVICES), n.below_u32(EVENTS));
        let (collection, vcpu) = (n.below_u16(4), n.below_u16(VCPUS + 1));
        let command = match kind {
            0 => cmd::mapd(device, 1 + n.below_u8(8)),
            1 => cmd::unmapd(device),
            2 => cmd::mapc(collection, vcpu),
            3 => cmd::unmapc(collection),
            4..=7 => cmd::mapti(device, event, Lpi::FIRST - 2 + n.below_u32(LPIS), collection),
            8 => cmd::movi(device, event, collection),
            9 => cmd::movall(vcpu, collection),
            10 => cmd::discard(device, event),
            11 => cmd::clear(device, event),
            12 => cmd::inv(device, event),
            13 => cmd::invall(collection),
            14 => cmd::sync(vcpu),
            15 => cmd::mapi(device, event, collection),
            16 => return RawCommand([n.any(), n.any(), n.any(), n.any()]),
            _ => cmd::int(device, event),
        };
        let mut raw = command.encode();
        if n.once_in(8) {
            let at = n.index(4);
            raw.0[at] ^= 1 << n.below(64);
        }
        raw
    }

    fn step(&mut self) {
        let what = self.numbers.below(40);
        self.trace.say(|| format!("step {what}"));
        match what {
            0..=2 => self.its_access(),
            3 | 4 => self.redist_access(),
            5 => self.boot_again(),
            6..=12 => self.commands(),
            13 => self.tables(),
            14..=19 => self.fire(),
            20..=27 => self.schedule(),
            28 => self.m.settle(),
            29 => {
                let vcpu = self.numbers.index(VCPUS.into());
                self.work_all();
                self.drain(vcpu);
            }
            30 | 31 => {
                let (device, events) = (self.numbers.below_u32(DEVICES), self.numbers.below(100));
                let _known = self.m.add_device(device, events);
            }
            32 => {
                let _known = self.m.remove_device(self.numbers.below_u32(DEVICES));
            }
            33 | 34 => self.memory(),
            35 | 36 => self.host(),
            37 => self.racing_guest(),
            38 => self.foreign_interrupt(),
            _ => {
                let _more = self.work();
            }
        }
    }

    fn its_access(&mut self) {
        let any = self.numbers.below(0x2_1000);
        let offset = self.numbers.pick(&[
            GITS_CTLR,
            GITS_CBASER,
            GITS_CWRITER,
            GITS_CREADR,
            GITS_BASER,
            GITS_BASER + 8,
            GITS_BASER + 16,
            any,
        ]);
        let offset = offset + 4 * self.numbers.below(2);
        let (width, value) = (self.width(), self.value());
        self.trace.say(|| format!("GITS + {offset:#x} = {value:#x}, {width:?}"));
        self.trap(|m| {
            let _more = m.domain.its_write(&m.host, 0, offset, width, value);
        });
        let _value = self.m.domain.its_read(0, offset, width);
    }

    fn redist_access(&mut self) {
        let vcpu = VcpuId::new(self.numbers.below_u16(VCPUS + 1));
        let any = self.numbers.below(0x100);
        let offset = self.numbers.pick(&[
            GICR_CTLR,
            GICR_PROPBASER,
            GICR_PENDBASER,
            GICR_INVLPIR,
            GICR_INVALLR,
            any,
        ]);
        let offset = offset + 4 * self.numbers.below(2);
        let (width, value) = (self.width(), self.value());
        self.trace.say(|| format!("GICR of {vcpu} + {offset:#x} = {value:#x}, {width:?}"));
        self.trap(|m| {
            let _more = m.domain.gicr_write(vcpu, offset, width, value);
        });
        let _value = self.m.domain.gicr_read(vcpu, offset, width);
    }

    /// Set up again what other steps have broken.
    fn boot_again(&mut self) {
        for page in 0..self.m.config.queue_pages {
            self.m.ram.add(QUEUE + u64::from(page) * 4096, 4096);
        }
        let its = [
            (GITS_CTLR, Width::Word, 0),
            (GITS_BASER, Width::Double, Machine::baser(8).into()),
            (GITS_BASER + 8, Width::Double, Machine::baser(1).into()),
            (GITS_CBASER, Width::Double, self.m.cbaser(0).into()),
            (GITS_CTLR, Width::Word, 1),
        ];
        for (offset, width, value) in its {
            self.trap(|m| {
                m.write_on(0, offset, width, value);
            });
            self.work_all();
        }
        let vcpu = self.numbers.below_u16(VCPUS);
        self.trace.say(|| format!("boot the ITS and vCPU {vcpu} again"));
        let propbaser = PropBaser::new().with_id_bits(13).with_address(GuestPa::new(PROPERTIES));
        let pendbaser = PendBaser::new()
            .with_ptz(!self.numbers.once_in(4))
            .with_address(GuestPa::new(Machine::pending_table(vcpu)));
        let redist = [
            (GICR_PROPBASER, Width::Double, propbaser.into()),
            (GICR_PENDBASER, Width::Double, pendbaser.into()),
            (GICR_CTLR, Width::Word, 1),
        ];
        for (offset, width, value) in redist {
            self.trap(|m| {
                m.gicr_write(vcpu, offset, width, value);
            });
        }
        self.work_all();
        // A device with more events than a vCPU has slots.
        let mut all = vec![cmd::mapc(0, vcpu), cmd::mapd(0, 6)];
        all.extend((0..EVENTS).map(|event| cmd::mapti(0, event, Lpi::FIRST + event, 0)));
        let all: Vec<_> = all.iter().map(Command::encode).collect();
        self.submit(&all);
        self.work_all();
    }

    fn commands(&mut self) {
        let most = if self.numbers.once_in(4) { 48 } else { 4 };
        let count = 1 + self.numbers.below(most);
        let all: Vec<_> = (0..count).map(|_| self.command()).collect();
        self.submit(&all);
        if !self.numbers.once_in(4) {
            self.work_all();
        }
    }

    fn submit(&mut self, commands: &[RawCommand]) {
        let size = self.queue_bytes().min(u64::from(self.m.config.queue_pages) * 4096);
        let mut at = self.m.r64(GITS_CWRITER);
        for raw in commands {
            at %= size;
            self.trace.say(|| format!("at {at:#x}: {:x?} {:?}", raw.0, Command::decode(raw)));
            if self.m.ram.has(QUEUE + at) {
                self.m.put(0, at, raw);
            }
            at += COMMAND_SIZE;
        }
        self.trap(|m| {
            m.w64(GITS_CWRITER, at % size);
        });
    }

    /// The guest writes to its tables.
    fn tables(&mut self) {
        let byte = self.numbers.below_u8(255);
        let at = if self.numbers.once_in(3) {
            PENDING + 1024 + self.numbers.below(8)
        } else {
            PROPERTIES + self.numbers.below(LPIS.into())
        };
        self.trace.say(|| format!("RAM at {at:#x} = {byte:#x}"));
        if self.m.ram.has(at) {
            self.m.ram.write(at, &[byte]);
        }
    }

    fn fire(&mut self) {
        let (device, event) = (self.numbers.below_u32(DEVICES), self.numbers.below_u32(EVENTS));
        // More than there are slots, now and then.
        let count = if self.numbers.once_in(8) { EVENTS } else { 1 };
        let same = self.numbers.once_in(2);
        for n in 0..count {
            // Or the same one again and again.
            let event = if same { event } else { (event + n) % EVENTS };
            let fired = self.m.fire(device, event);
            self.trace.say(|| format!("device {device} fires {event}: {fired}"));
        }
    }

    fn schedule(&mut self) {
        let index = self.numbers.index(VCPUS.into());
        let vcpu = self.m.vcpus[index].clone();
        let domain = &self.m.domain;
        let what = self.numbers.below(8);
        self.trace.say(|| format!("schedule {what} of vCPU {index}, {:?}", vcpu.mode()));
        match (what, vcpu.mode()) {
            (0, Mode::Off) => vcpu.power_on(domain),
            (0, _) => {
                vcpu.power_off(domain);
                self.active[index].clear();
            }
            (1, Mode::Guest | Mode::Hypervisor) if self.numbers.once_in(2) => {
                vcpu.stop(domain);
                self.active[index].clear();
            }
            (2 | 3, Mode::Guest) => vcpu.exit(domain),
            (2 | 3, Mode::Hypervisor) => vcpu.enter(domain),
            (4..=6, Mode::Guest) => self.active[index].extend(vcpu.ack()),
            (7, Mode::Guest) if !self.active[index].is_empty() => {
                let at = self.numbers.index(self.active[index].len());
                vcpu.eoi(self.active[index].remove(at));
            }
            _ => {}
        }
    }

    /// Memory runs out, or there is some again.
    fn memory(&mut self) {
        let successes = self.numbers.below_u32(8);
        match self.numbers.below(3) {
            0 => self.m.world.fail_once_after(successes),
            1 => self.m.world.fail_all_after(successes),
            _ => {
                let _unused = self.m.world.stop_failing();
            }
        }
    }

    /// The host ITS behaves in another way from now on, or from some later
    /// moment.
    fn host(&mut self) {
        let n = self.numbers.below_u32(40);
        let pace = match self.numbers.below(6) {
            0 => Pace::PerPoll(n + 1),
            1 => Pace::Slow(n / 4 + 1),
            2 => Pace::Hang(n),
            3 => Pace::Stall(n),
            _ => Pace::Immediate,
        };
        self.trace.say(|| format!("host ITS: {pace:?}"));
        let garbage = self.numbers.once_in(6).then(|| self.value() | NO_SLOT);
        let its = self.m.its[0].clone();
        let change = move || {
            its.set_garbage(garbage);
            its.set_pace(pace);
        };
        if self.numbers.once_in(2) {
            self.m.world.on_clock(self.numbers.below_u32(6), change);
        } else {
            change();
        }
    }

    /// Another CPU of the guest writes to what is being read, or takes RAM
    /// away.
    fn racing_guest(&mut self) {
        let page = self.numbers.pick(&[QUEUE, QUEUE + 4096, PROPERTIES, PENDING]);
        let what = self.numbers.below(5);
        self.table_lost |= what == 3 && page == PROPERTIES;
        match what {
            0 => self.m.ram.set_flicker(self.numbers.pick(&[1, 0, 0xff, 0x80])),
            1 => {
                let (at, xor) = (self.numbers.index(512), self.numbers.below_u8(255));
                self.m.ram.after_read(move |ram, from, len| {
                    let offset = u64::try_from(at % len.max(1)).expect("64 bits");
                    if ram.has(from + offset) {
                        ram.write(from + offset, &[xor]);
                    }
                });
            }
            2 => self.m.ram.after_read_nothing(),
            3 => self.m.ram.remove(page, 4096),
            _ => self.m.ram.add(page, 4096),
        }
    }

    /// Any host LPI, and any virtual one.
    fn foreign_interrupt(&mut self) {
        let index = match self.numbers.below(3) {
            0 => self.numbers.below_u32(1 << 20),
            _ => self.numbers.below_u32(256),
        };
        let lpi = Lpi::from_index(index).expect("an LPI");
        let whole = self.numbers.once_in(3);
        let ours = self.m.host.lpis.get(lpi).is_some();
        self.m.interrupt(lpi);
        if whole && !ours {
            world::in_irq(|| self.m.domain.deliver(lpi));
        }
    }

    // ---- What the hypervisor does ----

    fn queue_bytes(&self) -> u64 {
        gits::Cbaser::from(self.m.r64(GITS_CBASER)).size_bytes()
    }

    /// What a trap does: no more commands than it may, and no more lines in
    /// the log than one for each of those.
    fn trap(&mut self, what: impl FnOnce(&Machine)) {
        let (cbaser, creadr) = (self.m.r64(GITS_CBASER), self.m.r64(GITS_CREADR));
        let before = self.m.world.take_log();
        assert!(before.is_empty(), "unread log lines: {before:?}");
        what(&self.m);
        let log = self.m.world.take_log();
        let guest = log.iter().filter(|(level, _)| *level == Level::Guest).count();
        let most = usize::try_from(COMMANDS_PER_TRAP).expect("few") + 2;
        assert!(guest <= most, "{guest} lines for one trap: {log:?}");
        let after = self.m.r64(GITS_CREADR);
        // A write of GITS_CBASER makes GITS_CREADR 0.
        if cbaser == self.m.r64(GITS_CBASER) && after != 0 {
            let size = self.queue_bytes();
            let moved = ((after & !1) + size - (creadr & !1)) % size / COMMAND_SIZE;
            // One of them may have begun in the trap before.
            assert!(moved <= u64::from(COMMANDS_PER_TRAP) + 1, "{moved} commands in one trap");
            let most = usize::try_from(moved).expect("few") + 1;
            assert!(guest <= most, "{guest} lines for {moved} commands: {log:?}");
        }
    }

    /// One step of what a trap left over. True if there is more.
    fn work(&mut self) -> bool {
        self.m.world.advance(TIME_BETWEEN_STEPS);
        let mut more = false;
        self.trap(|m| {
            world::assert_no_lock("a vCPU is on its way to the guest");
            more = m.domain.work(&m.host);
        });
        more
    }

    fn work_all(&mut self) {
        for round in 0.. {
            assert!(round < TOO_MUCH_WORK, "commands never end");
            if !self.work() {
                return;
            }
        }
    }

    /// The guest sets all up again, and gets an interrupt, whatever it did
    /// before.
    fn goes_on(&mut self) {
        let (device, event, lpi) = (DEVICES - 1, 5, Lpi::FIRST + 9);
        if self.m.add_device(device, 32).is_err() {
            // There is no LPI left for that.
            return;
        }
        self.boot_again();
        let _log = self.m.world.take_log();
        let ctlr = self.m.gicr_read(0, GICR_CTLR, Width::Word);
        let propbaser = PropBaser::from(self.m.gicr_read(0, GICR_PROPBASER, Width::Double));
        if ctlr & 1 == 0 || propbaser.address().get() != PROPERTIES || self.table_lost {
            // That can be set up once.
            return;
        }
        self.m.set_property(lpi, 0, true);
        let setup = [
            cmd::mapc(0, 0),
            cmd::mapd(device, 5),
            cmd::mapti(device, event, lpi, 0),
            cmd::clear(device, event),
            cmd::inv(device, event),
        ];
        let log = self.m.run_on(0, &setup);
        assert!(log.is_empty(), "{log:?}");
        self.drain(0);
        self.m.fire(device, event);
        for _ in 0..LATE {
            self.m.settle();
            if self.m.drain(0).contains(&lpi) {
                return;
            }
        }
        panic!("{lpi} does not arrive any more");
    }

    // ---- What must hold ----

    fn check(&mut self) {
        let _log = self.m.world.take_log();
        let printed = Printed::of(&self.m);
        let slots = printed.total("slots");
        assert_eq!(
            printed.total("queued"),
            printed.total("done") + printed.total("evicted") + slots,
            "what came into slots, and what left them"
        );
        for (index, vcpu) in self.m.vcpus.iter().enumerate() {
            let used = u64::try_from(vcpu.used_slots()).expect("few");
            let known = printed.of_vcpu(index, "slots");
            // Without LPIs, it has no line.
            assert_eq!(known.unwrap_or(0), used, "slots of vCPU {index}");
        }
        let commands = printed.total("commands") + printed.total("skipped");
        assert!(commands >= self.commands, "commands are taken back");
        self.commands = commands;

        let creadr = self.m.r64(GITS_CREADR);
        let size = self.queue_bytes();
        assert!(creadr & !1 < size && creadr & 0x1e == 0, "GITS_CREADR = {creadr:#x} of {size:#x}");
        let cwriter = self.m.r64(GITS_CWRITER);
        assert!(cwriter < size && cwriter & 0x1f == 0, "GITS_CWRITER = {cwriter:#x} of {size:#x}");

        let live = self.m.world.live();
        assert!(live < TOO_MANY_ARRAYS, "{live} arrays are allocated");
        if self.m.abandoned() == 0 {
            // Besides, one may be on its way.
            let tables = u64::try_from(self.m.world.live_tables()).expect("few");
            let devices = printed.total("devices");
            assert!(tables <= devices + 2, "{tables} ITTs for {devices} devices");
            let (lpis, events) = (u64::from(self.m.host.lpis.in_use()), printed.total("events"));
            assert!(lpis >= events, "{events} events, and {lpis} host LPIs");
        }
    }

    /// The guest ends what it took on a vCPU, and takes all the rest.
    fn drain(&mut self, vcpu: usize) {
        self.m.settle();
        if self.m.vcpus[vcpu].mode() == Mode::Off {
            return;
        }
        for lpi in std::mem::take(&mut self.active[vcpu]) {
            self.m.vcpus[vcpu].eoi(lpi);
        }
        self.m.vcpus[vcpu].cycle(&self.m.domain);
        self.m.drain(vcpu);
    }

    /// The host is well again, and the guest takes all that it can; then it
    /// dies.
    fn finish(mut self) {
        self.m.ram.after_read_nothing();
        self.m.ram.set_flicker(0);
        let _unused = self.m.world.stop_failing();
        let _unused = self.m.world.off_clock();
        let dies_early = self.numbers.once_in(4);
        if !dies_early {
            self.m.its[0].set_garbage(None);
            self.m.its[0].set_pace(Pace::Immediate);
            self.work_all();
        }
        for vcpu in &self.m.vcpus {
            if vcpu.mode() == Mode::Off {
                vcpu.power_on(&self.m.domain);
            }
        }
        for vcpu in 0..self.m.vcpus.len() {
            self.drain(vcpu);
        }
        for vcpu in 0..self.m.vcpus.len() {
            self.drain(vcpu);
        }
        self.check();
        assert_eq!(self.m.stat("slots"), 0, "LPIs that the guest cannot take");
        assert_eq!(self.m.stat("waiting"), 0, "LPIs that wait for ever");
        if !dies_early && self.m.abandoned() == 0 {
            self.m.check();
        }
        if !dies_early {
            self.goes_on();
        }
        self.m.destroy();
    }
}
