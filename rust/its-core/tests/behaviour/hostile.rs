// SPDX-License-Identifier: GPL-2.0-only
//! A guest that does anything it likes: any value to any register, any bytes
//! as commands and tables. It may break its own interrupts and nothing else.

use its_arch::access::Width;
use its_arch::gicr::{GICR_CTLR, GICR_INVALLR, GICR_INVLPIR, GICR_PENDBASER, GICR_PROPBASER};
use its_arch::gits::{GITS_BASER, GITS_CBASER, GITS_CREADR, GITS_CTLR, GITS_CWRITER};
use its_arch::{Command, RawCommand, VcpuId};
use its_testkit::machine::{PENDING, PROPERTIES, QUEUE};
use its_testkit::vcpu::Mode;
use its_testkit::{Config, Machine, World, cmd, scaled};

/// Numbers without a pattern, the same at each run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn small(&mut self, end: u32) -> u32 {
        u32::try_from(self.below(end.into())).expect("below 2^32")
    }

    fn collection(&mut self) -> u16 {
        u16::try_from(self.below(4)).expect("small")
    }

    /// A number that may mean something: few bits, all bits, an address.
    fn value(&mut self) -> u64 {
        let any = self.next();
        match self.below(8) {
            0 => any,
            1 => 0,
            2 => u64::MAX,
            3 => 1 << (any % 64),
            4 => any & 0xfff,
            5 => QUEUE | (1 << 63) | (any & 0xf00),
            6 => PROPERTIES | (13 + any % 3),
            _ => PENDING | (any & (1 << 62)),
        }
    }

    fn width(&mut self) -> Width {
        match self.below(6) {
            0 => Width::Byte,
            1 => Width::Half,
            2 | 3 => Width::Word,
            _ => Width::Double,
        }
    }

    /// A command that is nearly right.
    fn command(&mut self) -> RawCommand {
        let (device, event) = (self.small(4), self.small(40));
        let collection = self.collection();
        let vcpu = u16::try_from(self.below(4)).expect("small");
        let command: Command = match self.below(16) {
            0 => cmd::mapd(device, 1 + u8::try_from(self.below(8)).expect("small")),
            1 => cmd::unmapd(device),
            2 => cmd::mapc(collection, vcpu),
            3 => cmd::unmapc(collection),
            4..=7 => cmd::mapti(device, event, 8190 + self.small(60), collection),
            8 => cmd::movi(device, event, collection),
            9 => cmd::movall(vcpu, collection),
            10 => cmd::discard(device, event),
            11 => cmd::clear(device, event),
            12 => cmd::inv(device, event),
            13 => cmd::invall(collection),
            14 => return RawCommand([self.next(), self.next(), self.next(), self.next()]),
            _ => cmd::int(device, event),
        };
        let mut raw = command.encode();
        if self.below(8) == 0 {
            let at = usize::try_from(self.below(4)).expect("small");
            raw.0[at] ^= 1 << self.below(64);
        }
        raw
    }
}

fn step(m: &Machine, numbers: &mut Numbers) {
    let vcpu = usize::try_from(numbers.below(3)).expect("small");
    let id = VcpuId::new(u16::try_from(vcpu).expect("small"));
    match numbers.below(20) {
        0..=2 => {
            let registers = [
                GITS_CTLR,
                GITS_CBASER,
                GITS_CWRITER,
                GITS_CREADR,
                GITS_BASER,
                GITS_BASER + 8,
                GITS_BASER + 16,
                numbers.below(0x2_1000),
            ];
            let which = usize::try_from(numbers.below(8)).expect("small");
            let offset = registers[which] + 4 * numbers.below(2);
            let (width, value) = (numbers.width(), numbers.value());
            let _more = m.domain.its_write(&m.host, 0, offset, width, value);
            let _value = m.domain.its_read(0, offset, width);
        }
        3 | 4 => {
            let registers = [
                GICR_CTLR,
                GICR_PROPBASER,
                GICR_PENDBASER,
                GICR_INVLPIR,
                GICR_INVALLR,
                numbers.below(0x100),
            ];
            let which = usize::try_from(numbers.below(6)).expect("small");
            let offset = registers[which] + 4 * numbers.below(2);
            let (width, value) = (numbers.width(), numbers.value());
            let _aborts = m.domain.gicr_write(id, offset, width, value);
            let _value = m.domain.gicr_read(id, offset, width);
        }
        5 => {
            // Set up again what the others have broken.
            m.w32(GITS_CTLR, 0);
            m.boot_its(0);
            m.boot_redist(id.get());
        }
        6..=10 => {
            let at = m.r64(GITS_CWRITER);
            let count = numbers.below(50);
            for n in 0..count {
                m.put(0, (at + n * 32) % 4096, &numbers.command());
            }
            m.w64(GITS_CWRITER, (at + count * 32) % 4096);
            if numbers.below(2) == 0 {
                m.work();
            }
        }
        11 => {
            let byte = u8::try_from(numbers.below(256)).expect("8 bits");
            m.ram.write(PROPERTIES + numbers.below(60), &[byte]);
            m.ram.write(PENDING + 1024 + numbers.below(8), &[byte]);
        }
        12..=15 => {
            m.fire(numbers.small(4), numbers.small(40));
        }
        16 if m.vcpus[vcpu].mode() == Mode::Off => m.vcpus[vcpu].power_on(&m.domain),
        16 => m.vcpus[vcpu].power_off(&m.domain),
        17 => m.settle(),
        18 => {
            m.work();
            m.drain(vcpu);
        }
        _ => {
            let device = numbers.small(4);
            let _known = m.add_device(device, numbers.below(100));
            let _known = m.remove_device(numbers.small(4));
        }
    }
}

fn run(seed: u64, hardware: bool, steps: u32) {
    World::renew();
    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let config = Config { vcpus: 3, id_bits: 14, host_id_bits: 14, hardware, ..Config::default() };
    let m = if seed.is_multiple_of(3) { Machine::new(config) } else { Machine::booted(config) };
    for lpi in 8192..8250 {
        m.set_property(lpi, 0x80, numbers.below(3) != 0);
    }
    for _ in 0..steps {
        step(&m, &mut numbers);
        let _log = m.world.take_log();
    }
    m.work();
    for (index, vcpu) in m.vcpus.iter().enumerate() {
        if vcpu.mode() == Mode::Off {
            vcpu.power_on(&m.domain);
        }
        m.drain(index);
    }
    let _log = m.world.take_log();
    m.check();
    assert_eq!(m.stat("slots"), 0, "seed {seed}");
    m.destroy();
}

#[test]
fn a_hostile_dom0_harms_only_itself() {
    for seed in 1..scaled(150, 2) {
        run(seed, true, 150);
    }
}

#[test]
fn a_hostile_guest_harms_only_itself() {
    for seed in 1..scaled(150, 2) {
        run(seed, false, 150);
    }
}
