// SPDX-License-Identifier: GPL-2.0-only
//! Xen's security advisories, and faults of its vGIC that had none.

use std::sync::Arc;

use its_arch::access::Width;
use its_arch::error::CommandError;
use its_arch::gicr::{GICR_CTLR, GICR_INVALLR, GICR_INVLPIR, GICR_PENDBASER, GICR_PROPBASER};
use its_arch::gicr::{PendBaser, PropBaser};
use its_arch::gits::{GITS_BASER, GITS_CBASER, GITS_CREADR, GITS_CTLR, GITS_CWRITER, GITS_SIZE};
use its_arch::{Command, GuestPa, Lpi, RawCommand, Rdbase, VcpuId};
use its_core::env::Level;
use its_core::{Domain, DomainConfig, Error};
use its_testkit::guest::{FakeGuest, Ram};
use its_testkit::machine::PROPERTIES;
use its_testkit::vcpu::{FakeVcpu, Place};
use its_testkit::world::assert_no_lock;
use its_testkit::{Config, Fake, Machine, World, cmd, scaled, world};

use super::{LPI, end, shared, works_anew};

const WIDTHS: [Width; 4] = [Width::Byte, Width::Half, Width::Word, Width::Double];

/// XSA-94: a read of one register used a structure that was not there. Every
/// offset and width is answered or aborts, also while what is behind it does
/// not exist yet, or no more.
#[test]
fn xsa_94_every_register_offset_and_width() {
    let config = Config { vcpus: 3, ..Config::default() };
    let (host, _its) = config.host().expect("memory");
    let ram = Arc::new(Ram::default());
    let domain = Domain::<Fake>::new(&host, FakeGuest(Arc::clone(&ram)), config.domain());
    let domain = domain.expect("memory");
    let walk = |state: &str| {
        let spread = (0..0x200).chain((0x200..GITS_SIZE).step_by(509));
        let all = spread.chain(0xff00..0x1_0100).chain(GITS_SIZE - 8..GITS_SIZE + 8);
        for offset in all.step_by(scaled(1, 61)) {
            for width in WIDTHS {
                for value in [0, u64::MAX] {
                    let read = domain.its_read(0, offset, width);
                    let written = domain.its_write(&host, 0, offset, width, value);
                    assert_eq!(read.is_ok(), written.is_ok(), "{state} {offset:#x} {width:?}");
                    let id = VcpuId::new(2);
                    let read = domain.gicr_read(id, offset, width);
                    let written = domain.gicr_write(id, offset, width, value);
                    assert_eq!(read.is_ok(), written.is_ok(), "{state} {offset:#x} {width:?}");
                }
                while domain.work(&host) {}
                let off = domain.its_write(&host, 0, GITS_CTLR, Width::Word, 0);
                assert_eq!(off, Ok(false));
            }
        }
    };
    walk("without any vCPU");
    domain.add_vcpu(VcpuId::new(2), FakeVcpu::new(2, 4)).expect("new");
    walk("with one vCPU");
    while domain.relinquish(&host) {}
    walk("dying");
    let world = World::current();
    assert!(world.take_log().iter().all(|(level, _)| *level == Level::Guest));
}

/// XSA-117: a reserved value of a field was taken for impossible, and ended
/// Xen. Here it is as good as some other value, or an error to the guest.
#[test]
fn xsa_117_reserved_encodings_are_errors() {
    let m = Machine::new(Config::default());
    // Each 2 and 3 bit field of the base registers, at each value.
    for offset in [GITS_BASER, GITS_BASER + 8, GITS_CBASER] {
        let before = m.r64(offset);
        for bit in 0..62 {
            for value in 0..8_u64 {
                m.w64(offset, value << bit);
            }
        }
        m.w64(offset, before);
    }
    for (offset, bits) in [(GICR_PROPBASER, 61), (GICR_PENDBASER, 61)] {
        for bit in 0..bits {
            for value in 0..8_u64 {
                m.gicr_w64(0, offset, value << bit);
            }
        }
    }
    // GITS_BASER.Page_Size = 3 is 64 KiB.
    m.w64(GITS_BASER, u64::from(Machine::baser(1)) | 3 << 8);
    assert_eq!(m.r64(GITS_BASER) >> 8 & 3, 2);
    m.boot_its(0);
    // GICR_PROPBASER.IDbits: any number.
    for id_bits in 0..32 {
        World::renew();
        let m = Machine::new(Config { id_bits: 14, ..Config::default() });
        let propbaser = PropBaser::new().with_address(GuestPa::new(PROPERTIES));
        m.gicr_w64(0, GICR_PROPBASER, propbaser.with_id_bits(id_bits).into());
        let pendbaser = PendBaser::new().with_ptz(true);
        m.gicr_w64(0, GICR_PENDBASER, pendbaser.into());
        m.gicr_w32(0, GICR_CTLR, 1);
        let enabled = m.gicr_read(0, GICR_CTLR, Width::Word) & 1;
        assert_eq!(enabled, u64::from(id_bits >= 13), "IDbits {id_bits}");
        assert_eq!(m.world.take_log().len(), usize::from(id_bits < 13));
    }
    // INTIDs of all kinds that are no LPIs.
    World::renew();
    let m = Machine::booted(Config::default());
    m.map(5, 1, LPI);
    for intid in [0, 1, 15, 16, 31, 32, 1019, 1020, 1023, 1024, 4096, 8191, 1 << 16, u32::MAX] {
        m.fails(cmd::mapti(5, 0, intid, 0), CommandError::MAPTI_PHYSICALID_OOR);
        m.gicr_w64(0, GICR_INVLPIR, intid.into());
    }
    m.gicr_w64(0, GICR_INVLPIR, u64::MAX);
    m.fire(5, 0);
    m.expect(&[LPI], &[]);
    m.destroy();
}

/// XSA-118: a guest could write lines to the console without end. Only a
/// command that is skipped, a queue that cannot be read, and LPIs that cannot
/// be enabled are worth a line, which Xen limits as one of a guest's.
#[test]
fn xsa_118_no_log_flood() {
    let m = Machine::booted(Config::default());
    m.map(5, 2, LPI);
    // Interrupts that go nowhere: unmapped, disabled, of an unmapped
    // collection, of nobody, with the ITS off.
    m.disable(LPI);
    m.ok_all(&[cmd::mapti(5, 1, LPI + 1, 9), cmd::inv(5, 0)]);
    let nobody = Lpi::new(50_000).expect("an LPI");
    for _ in 0..scaled(1000, 40) {
        m.fire(5, 0);
        m.fire(5, 1);
        m.fire(5, 31);
        world::in_irq(|| m.domain.deliver(nobody));
        assert_eq!(m.host.claim(nobody), None);
    }
    m.w32(GITS_CTLR, 0);
    for _ in 0..scaled(1000, 40) {
        m.fire(5, 0);
    }
    m.w32(GITS_CTLR, 1);
    m.quiet();
    // Registers: nothing that the guest writes there is worth a line.
    for offset in (0..0x1000).step_by(8) {
        for value in [0, u64::MAX, 1 << 63] {
            let _aborts = m.domain.its_write(&m.host, 0, offset, Width::Double, value);
            let _aborts = m.domain.gicr_write(VcpuId::new(0), offset, Width::Double, value);
        }
        m.w32(GITS_CTLR, 0);
    }
    m.quiet();
    // A queue in nowhere: one line for each time that the guest asks for it.
    m.w64(GITS_CBASER, m.cbaser(0).with_address(GuestPa::new(0x10_0000)).into());
    m.w32(GITS_CTLR, 1);
    m.w64(GITS_CWRITER, 0x40);
    for _ in 0..100 {
        m.w64(GITS_CWRITER, 0x80);
        m.work();
    }
    let log = m.world.take_log();
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log.iter().all(|(level, _)| *level == Level::Guest), "{log:?}");
    // And one for each bad command: see logs.rs.
    m.destroy();
}

/// XSA-223: a disabled interrupt that fired again was written to a list
/// register that it did not have. It stays out of the list registers until it
/// is enabled, and comes once.
#[test]
fn xsa_223_disabled_in_flight_then_fires_again() {
    let lpi = Lpi::new(LPI).expect("an LPI");
    for taken in [false, true] {
        for in_register in [false, true] {
            let m = Machine::booted(Config { id_bits: 14, ..Config::default() });
            m.map(5, 1, LPI);
            m.fire(5, 0);
            if in_register || taken {
                m.settle();
            }
            if taken {
                assert_eq!(m.vcpus[0].ack(), Some(lpi));
            }
            m.disable(LPI);
            m.ok(cmd::inv(5, 0));
            for _ in 0..3 {
                m.fire(5, 0);
            }
            m.settle();
            m.fire(5, 0);
            m.settle();
            let place = m.vcpus[0].place(lpi);
            let active = Place { pending: false, active: true };
            assert_eq!(place, taken.then_some(active), "taken {taken}, {in_register}");
            if taken {
                m.vcpus[0].eoi(lpi);
                m.vcpus[0].cycle(&m.domain);
            }
            m.expect(&[], &[]);
            m.enable(LPI);
            m.ok(cmd::inv(5, 0));
            m.expect(&[LPI], &[]);
            m.expect(&[], &[]);
            m.destroy();
        }
    }
}

/// XSA-225, and 7ad6cfa66f: the number of a vCPU was not checked, or checked
/// against how many there may be rather than which there are. One that is
/// absent is an error, and is not taken for another by cutting its number.
#[test]
fn xsa_225_rdbase_of_an_absent_vcpu() {
    let config = Config { vcpus: 4, ..Config::default() };
    let (host, _its) = config.host().expect("memory");
    let ram = Arc::new(Ram::default());
    ram.add(0, 4096);
    let domain = Domain::<Fake>::new(&host, FakeGuest(Arc::clone(&ram)), config.domain());
    let domain = domain.expect("memory");
    // There may be four; there are 0 and 2.
    for id in [0, 2] {
        domain.add_vcpu(VcpuId::new(id), FakeVcpu::new(id, 4)).expect("new");
    }
    let write = |offset, width, value| {
        domain.its_write(&host, 0, offset, width, value).expect("a legal access")
    };
    write(GITS_BASER, Width::Double, Machine::baser(8).into());
    write(GITS_BASER + 8, Width::Double, Machine::baser(1).into());
    write(GITS_CBASER, Width::Double, 1 << 63);
    write(GITS_CTLR, Width::Word, 1);
    let world = World::current();
    let run = |command: Command| {
        write(GITS_CTLR, Width::Word, 0);
        write(GITS_CBASER, Width::Double, 1 << 63);
        write(GITS_CTLR, Width::Word, 1);
        ram.write(0, &command.encode().to_le_bytes());
        write(GITS_CWRITER, Width::Double, 32);
        while domain.work(&host) {}
        world.take_log()
    };
    let rdbase = Rdbase::from_field;
    let mapc = |field| {
        let collection = its_arch::CollectionId::new(1);
        Command::Mapc { collection, rdbase: rdbase(field), valid: true }
    };
    for absent in [1, 3, 4, 5, 0xffff, 1 << 16, (1 << 16) + 2, 1 << 32, (1 << 36) - 1] {
        for command in [
            mapc(absent),
            Command::Sync { rdbase: rdbase(absent) },
            Command::Movall { from: rdbase(absent), to: rdbase(2) },
            Command::Movall { from: rdbase(0), to: rdbase(absent) },
        ] {
            let log = run(command);
            assert!(log.len() == 1 && log[0].1.contains("PROCNUM_OOR"), "{command:?}: {log:?}");
        }
    }
    for present in [0, 2] {
        assert_eq!(run(mapc(present)), []);
        assert_eq!(run(Command::Sync { rdbase: rdbase(present) }), []);
    }
    for absent in [1, 3, 4, u16::MAX] {
        let id = VcpuId::new(absent);
        let _ctlr = domain.gicr_write(id, GICR_CTLR, Width::Word, 1);
        let _all = domain.gicr_write(id, GICR_INVALLR, Width::Word, 0);
        domain.sync(id);
    }
    assert_eq!(world.take_log(), []);
}

/// XSA-235: an error path returned with a lock held. After each error of each
/// kind all locks are free: another CPU goes on at once.
#[test]
fn xsa_235_no_lock_is_held_after_an_error() {
    let m = shared();
    m.ok_all(&[cmd::mapd(5, 5), cmd::mapti(5, 0, LPI, 0)]);
    let other_cpu = |what: &str| {
        assert_no_lock(what);
        let other = Arc::clone(&m);
        let world = Arc::clone(&m.world);
        let done = std::thread::spawn(move || {
            world.enter();
            // These take every lock there is, but a host ITS's.
            other.w32(GITS_CTLR, 1);
            other.gicr_w64(0, GICR_PROPBASER, 0);
            other.fire(5, 0);
            other.add_device(7, 32).expect("room");
            other.remove_device(7).expect("there");
            other.quiet();
        });
        assert!(done.join().is_ok(), "{what}");
        m.expect(&[LPI], &[]);
    };
    for (command, error) in crate::logs::mistakes() {
        m.fails(command, error);
        other_cpu(error.name());
    }
    for raw in [RawCommand([0, 0, 0, 0]), RawCommand([u64::MAX; 4])] {
        assert_eq!(m.run_raw(0, &[raw]).len(), 1);
        other_cpu("an unknown command");
    }
    for (n, command) in [(0, cmd::mapd(9, 5)), (0, cmd::mapti(5, 1, 12_000, 0))] {
        m.world.fail_once_after(n);
        assert_eq!(m.run_on(0, &[command]).len(), 1);
        assert!(!m.world.stop_failing());
        other_cpu("no memory");
    }
    assert_eq!(m.add_device(u32::MAX, 1), Err(Error::OutOfRange));
    assert_eq!(m.add_device(9, u64::MAX), Err(Error::OutOfRange));
    assert_eq!(m.remove_device(9), Err(Error::NotFound));
    other_cpu("a hypercall");
    for width in [Width::Byte, Width::Half] {
        assert_eq!(m.domain.its_read(0, 0, width), Err(Error::BadAccess));
        assert_eq!(m.domain.its_write(&m.host, 0, 0, width, 0), Err(Error::BadAccess));
        assert_eq!(m.domain.gicr_write(VcpuId::new(0), 0, width, 0), Err(Error::BadAccess));
    }
    other_cpu("a bad access");
    end(m);
}

/// XSA-158: what a guest asked for in one trap took as long as the guest
/// liked. One write executes 32 commands at most, whatever they are and
/// whichever register is written.
#[test]
fn xsa_158_work_per_trap_is_bounded() {
    let m = Machine::booted(Config { id_bits: 14, ..Config::default() });
    m.map(5, 1, LPI);
    let at = || m.r64(GITS_CREADR) & 0xf_ffe0;
    for command in [
        cmd::mapd(6, 5),
        cmd::unmapd(6),
        cmd::mapc(0, 0),
        cmd::mapti(5, 0, LPI, 0),
        cmd::movi(5, 0, 1),
        cmd::movall(0, 1),
        cmd::inv(5, 0),
        cmd::invall(0),
        cmd::int(5, 0),
        cmd::clear(5, 0),
        cmd::sync(0),
        cmd::discard(5, 9),
        cmd::mapti(99, 0, LPI, 0),
    ] {
        let start = at();
        for n in 0..127 {
            m.put(0, (start + n * 32) % 4096, &command.encode());
        }
        let end = (start + 127 * 32) % 4096;
        let mut before = start;
        let mut traps = 0;
        // Any register will do to have another look at the queue.
        let writes = [GITS_CWRITER, GITS_CTLR, GITS_CWRITER, GITS_BASER, GITS_CBASER];
        for register in writes.into_iter().cycle() {
            match register {
                GITS_CWRITER => m.w64(GITS_CWRITER, end),
                GITS_CTLR => m.w32(GITS_CTLR, 1),
                // Fixed while the ITS is enabled.
                register => m.w64(register, u64::MAX),
            };
            let done = (at() + 4096 - before) % 4096 / 32;
            assert!(done <= 32, "{command:?}: {done} commands in one trap");
            before = at();
            traps += 1;
            assert!(traps < 200, "{command:?} never ends");
            if before == end {
                break;
            }
        }
        assert!(traps >= 4);
        let _errors = m.world.take_log();
    }
    m.destroy();
}

/// XSA-295: an atomic operation on memory that a guest writes to could go on
/// for ever. Guest memory is only read, each datum once, and what the guest
/// does to it meanwhile does not keep a command from ending.
#[test]
fn xsa_295_guest_memory_that_never_holds_still() {
    let m = shared();
    let evil = Arc::clone(&m);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    // Another vCPU flips all properties and the whole queue.
    let flipper = std::thread::spawn(move || {
        for round in (0..=u8::MAX).cycle() {
            if stopped.load(std::sync::atomic::Ordering::SeqCst) {
                return;
            }
            evil.ram.write(PROPERTIES, &[round, !round, round ^ 1]);
            std::thread::yield_now();
        }
    });
    let reads = m.ram.reads();
    let rounds = scaled(300, 3);
    for _ in 0..rounds {
        m.fire(5, 0);
        m.ok_all(&[cmd::inv(5, 0), cmd::invall(0), cmd::movi(5, 0, 1), cmd::movi(5, 0, 0)]);
        m.gicr_w64(0, GICR_INVALLR, 0);
        m.drain(0);
        m.drain(1);
    }
    // One read for each run of commands that was fetched, at most one more
    // where the queue wraps.
    let reads = m.ram.reads() - reads;
    assert!(reads <= 2 * rounds, "{reads} reads for {rounds} batches");
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    flipper.join().expect("it only writes");
    m.enable(LPI);
    m.ok(cmd::invall(0));
    m.drain(0);
    m.fire(5, 0);
    m.expect(&[LPI], &[]);
    end(m);
}

/// XSA-383, XSA-409: a guest could have Xen allocate without end. What a guest
/// can have is bounded by its INTID bits, by what was assigned to it, and by
/// its quota of host LPIs; doing it all again takes nothing more.
#[test]
fn xsa_383_409_allocation_is_bounded() {
    // 8192 host LPIs, of which MAPD may take half, or the quota.
    let cases = [(false, None, 0), (true, None, 64), (true, Some(640), 10), (true, Some(100), 1)];
    for &(hardware, max_events, devices) in scaled(&cases[..], &cases[2..3]) {
        World::renew();
        let bits = Config { id_bits: 14, host_id_bits: 14, ..Config::default() };
        let m = Machine::booted(Config { hardware, max_events, ..bits });
        let bits = scaled(11, 7);
        m.add_device(5, 1 << bits).expect("room");
        let base = m.world.live();
        let mut after_first = None;
        for _ in 0..scaled(3, 2) {
            // All LPIs, each more than once; all collections; all the devices
            // that there is room for, and those for which there is none.
            let mut commands = vec![cmd::mapd(5, bits)];
            for event in 0..1 << bits {
                commands.push(cmd::mapti(5, event, 8192 + event * 4, 0));
                commands.push(cmd::mapti(5, event, 8192 + event * 4 + 3, 255));
            }
            for collection in 0..=256 {
                commands.push(cmd::mapc(collection, collection % 2));
            }
            for device in 0..scaled(300, 20) {
                commands.push(cmd::mapd(device, 6));
            }
            for portion in commands.chunks(100) {
                let _errors = m.run_on(0, portion);
            }
            assert_eq!(m.world.live_tables(), 1 + devices, "{hardware} {max_events:?}");
            assert_eq!(m.stat("devices"), 1 + u64::try_from(devices).expect("few"));
            let now = m.world.live();
            assert_eq!(*after_first.get_or_insert(now), now);
            // 16 pages of virtual LPIs, and those of host LPIs; the map of so
            // few devices is an array in a list of one.
            assert!(now - base <= 16 + 16 + 2, "{now} arrays, {base} before");
        }
        m.check();
        m.destroy();
    }
}

/// XSA-473: references on guest pages were taken or given up wrongly. A page
/// is pinned once for each use, and given back once, whatever fails.
#[test]
fn xsa_473_pinned_pages_are_given_back_once() {
    let m = Machine::new(Config { id_bits: 16, ..Config::default() });
    assert_eq!(m.ram.pins(), 0);
    m.boot_redist(0);
    // 57344 bytes of properties.
    assert_eq!(m.ram.pins(), 14);
    // The other vCPU uses the same table.
    m.boot_redist(1);
    m.boot_redist(0);
    assert_eq!(m.ram.pins(), 14);
    // A page that the guest gives away lives until the domain lets go of it.
    m.ram.remove(PROPERTIES, 4096);
    assert_eq!(m.ram.pins(), 14);
    for _ in 0..2 {
        while m.domain.relinquish(&m.host) {}
        assert_eq!(m.ram.pins(), 0);
    }
    // A dying guest pins nothing more.
    m.boot_redist(0);
    while m.domain.relinquish(&m.host) {}
    assert_eq!(m.ram.pins(), 0);
    m.destroy();
}

/// What another CPU does.
type Way = fn(&Machine);

/// XSA-486: something was mapped while another CPU was freeing it. Whatever
/// unmaps an event while its interrupt is on the way to a vCPU's queues finds
/// that interrupt there, or the interrupt finds the event gone.
#[test]
fn xsa_486_unmapped_while_its_interrupt_is_on_its_way() {
    let ways: [(&str, Way); 7] = [
        ("DISCARD", |m| m.ok(cmd::discard(5, 0))),
        ("MAPD V=0", |m| m.ok(cmd::unmapd(5))),
        ("MAPD again", |m| m.ok(cmd::mapd(5, 5))),
        ("MAPD that grows", |m| m.ok(cmd::mapd(5, 9))),
        ("no device table", |m| {
            m.w32(GITS_CTLR, 0);
            m.w64(GITS_BASER, 0);
            m.w64(GITS_BASER, Machine::baser(8).into());
            m.w32(GITS_CTLR, 1);
        }),
        ("removal", |m| {
            m.add_device(5, 32).expect("there already");
            m.remove_device(5).expect("there");
        }),
        ("MAPTI of another LPI", |m| {
            m.ok(cmd::mapti(5, 0, LPI + 1, 0));
        }),
    ];
    for (name, unmap) in ways {
        let m = shared();
        let other = Arc::clone(&m);
        m.vcpus[0].before_lock(move || unmap(&other));
        m.fire(5, 0);
        m.expect(&[], &[]);
        assert_eq!(m.vcpus[0].used_slots(), 0, "{name}");
        m.check();
        works_anew(&m);
        end(m);
    }
    // The domain itself.
    let m = shared();
    let other = Arc::clone(&m);
    m.vcpus[0].before_lock(move || while other.domain.relinquish(&other.host) {});
    m.fire(5, 0);
    m.expect(&[], &[]);
    end(m);
}

/// dcc18294ff: a domain was freed that had not been set up. One without
/// vCPUs, without ITSes, or with neither goes as any other does.
#[test]
fn xen_dcc18294_freed_before_it_was_set_up() {
    let config = Config { its: 2, ..Config::default() };
    let (host, _its) = config.host().expect("memory");
    let live = World::current().live();
    for (vits, vcpus) in [(0, 0), (0, 4), (2, 0), (2, 4)] {
        let config = DomainConfig { vits, vcpus, ..config.domain() };
        let ram = Arc::new(Ram::default());
        let domain = Domain::<Fake>::new(&host, FakeGuest(Arc::clone(&ram)), config);
        let domain = domain.expect("memory");
        domain.dump(&host);
        while domain.relinquish(&host) {}
        while domain.relinquish(&host) {}
        drop(domain);
        assert_eq!(Arc::strong_count(&ram), 1);
        assert_eq!(World::current().live(), live);
    }
}

/// 56e1b3ebc9: an LPI was unmapped while it was in a list register, and the
/// look-up that followed was used without a check. There is a slot for it
/// until the list register is empty, and none after that.
#[test]
fn xen_56e1b3eb_unmapped_in_a_list_register() {
    let lpi = Lpi::new(LPI).expect("an LPI");
    let m = Machine::booted(Config::default());
    m.map(5, 1, LPI);
    m.fire(5, 0);
    m.settle();
    assert_eq!(m.vcpus[0].ack(), Some(lpi));
    m.ok(cmd::unmapd(5));
    m.settle();
    assert_eq!(m.stat("slots"), 1, "the guest handles it still");
    m.vcpus[0].eoi(lpi);
    m.vcpus[0].cycle(&m.domain);
    assert_eq!(m.stat("slots"), 0);
    // Taken, and not ended, by a vCPU without an active state.
    m.vcpus[0].set_active_state(false);
    works_anew(&m);
    m.fire(5, 0);
    m.settle();
    m.ok(cmd::unmapd(5));
    m.settle();
    assert_eq!(m.stat("slots"), 0);
    m.expect(&[], &[]);
    m.destroy();
}
