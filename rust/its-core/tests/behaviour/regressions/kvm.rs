// SPDX-License-Identifier: GPL-2.0-only
//! CVEs of Linux: KVM's virtual ITS, and the driver of the host's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use its_arch::access::Width;
use its_arch::error::CommandError;
use its_arch::gicr::{GICR_CTLR, GICR_INVALLR, GICR_INVLPIR, GICR_PENDBASER, GICR_PROPBASER};
use its_arch::gicr::{PendBaser, PropBaser};
use its_arch::gits::{GITS_BASER, GITS_CTLR};
use its_arch::{Command, GuestPa, Lpi, VcpuId};
use its_core::Error;
use its_testkit::machine::{PROPERTIES, TABLES};
use its_testkit::vcpu::FakeVcpu;
use its_testkit::{Config, Machine, World, cmd, scaled, world};

use super::{LPI, end, works_anew};

/// CVE-2026-46316 ("ITScape"): three ways to invalidate, each under another
/// lock, gave up the same reference more than once. All that unmaps or
/// invalidates is done here at once: the ITS disabled, its tables taken away,
/// commands, GICR_CTLR and its neighbours, hypercalls, interrupts.
#[test]
fn cve_2026_46316_itscape_concurrent_invalidators() {
    let machine = Machine::booted(Config { id_bits: 14, vcpus: 3, ..Config::default() });
    let m = &machine;
    let stop = AtomicBool::new(false);
    let rounds = scaled(400, 2);
    let until_stopped = |each: &dyn Fn(u32)| {
        m.world.enter();
        for round in 0.. {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            each(round);
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        for index in 0..3 {
            let until_stopped = &until_stopped;
            scope.spawn(move || until_stopped(&|_| take_one(m, index)));
        }
        scope.spawn(|| {
            until_stopped(&|round| {
                m.fire(5, round % 8);
            });
        });
        scope.spawn(|| {
            until_stopped(&|round| {
                let id = round % 3;
                let redist = u16::try_from(id).expect("small");
                m.gicr_w32(redist, GICR_CTLR, u64::from(round % 2));
                m.gicr_w64(redist, GICR_INVLPIR, u64::from(LPI + round % 8));
                m.gicr_w64(redist, GICR_INVALLR, 0);
            });
        });
        scope.spawn(|| {
            until_stopped(&|_| {
                m.add_device(5, 32).expect("room");
                m.remove_device(5).expect("announced");
            });
        });
        scope.spawn(|| {
            until_stopped(&|_| {
                let _more = m.domain.work(&m.host);
            });
        });
        m.world.enter();
        for round in 0..rounds {
            m.w32(GITS_CTLR, 0);
            match round % 3 {
                0 => m.w64(GITS_BASER, 0),
                1 => m.w64(GITS_BASER + 8, 0),
                _ => false,
            };
            m.boot_its(0);
            let vcpu = u16::try_from(round % 3).expect("small");
            let mut batch = vec![cmd::mapc(0, vcpu), cmd::mapc(1, (vcpu + 1) % 3), cmd::mapd(5, 5)];
            for event in 0..8 {
                batch.push(cmd::mapti(5, event, LPI + event, u16::from(event % 2 == 0)));
                m.enable(LPI + event);
            }
            batch.extend([cmd::invall(0), cmd::movall(vcpu, (vcpu + 2) % 3), cmd::inv(5, 3)]);
            batch.extend([cmd::discard(5, 1), cmd::unmapc(1), cmd::unmapd(5)]);
            let at = m.r64(its_arch::gits::GITS_CWRITER);
            for (n, command) in (0..).zip(&batch) {
                m.put(0, (at + n * 32) % 4096, &command.encode());
            }
            let count = u64::try_from(batch.len()).expect("few");
            m.w64(its_arch::gits::GITS_CWRITER, (at + count * 32) % 4096);
            m.work();
            let _errors = m.world.take_log();
        }
        stop.store(true, Ordering::SeqCst);
    });
    m.w32(GITS_CTLR, 0);
    m.boot_its(0);
    m.settle();
    for vcpu in 0..3 {
        m.drain(vcpu);
    }
    let _errors = m.world.take_log();
    m.check();
    m.ok_all(&[cmd::unmapc(1), cmd::invall(0)]);
    works_anew(m);
    assert_eq!(m.stat("slots") + m.stat("waiting") + m.stat("dormant"), 0);
    machine.destroy();
}

/// A vCPU takes and ends one interrupt, if there is one.
fn take_one(m: &Machine, vcpu: usize) {
    let vcpu = &m.vcpus[vcpu];
    if let Some(lpi) = vcpu.ack() {
        vcpu.eoi(lpi);
    }
    vcpu.cycle(&m.domain);
}

/// CVE-2024-26598: a look-up gave out an interrupt that DISCARD was freeing.
/// Nothing is given out: an interrupt that was looked up before DISCARD, and
/// is delivered after, goes nowhere.
#[test]
fn cve_2024_26598_looked_up_before_discard_delivered_after() {
    let ways: [&[Command]; 4] = [
        &[cmd::discard(5, 0)],
        &[cmd::unmapd(5)],
        &[cmd::unmapd(5), cmd::mapd(5, 5)],
        &[cmd::mapti(5, 0, LPI + 1, 0), cmd::discard(5, 0)],
    ];
    for commands in ways {
        let m = Machine::booted(Config::default());
        m.map(5, 1, LPI);
        let (host_lpi, _) = m.its[0].fire(5, 0).expect("mapped on the host");
        let entry = m.host.claim(host_lpi).expect("the domain's");
        let lpi = Lpi::new(entry.vlpi()).expect("mapped");
        m.ok_all(commands);
        let unrouted = m.stat("unrouted");
        world::in_irq(|| m.domain.deliver(lpi));
        assert_eq!(m.stat("unrouted"), unrouted + 1);
        m.expect(&[], &[]);
        assert_eq!(m.stat("dormant"), 0, "nor does it wait for who comes next");
        works_anew(&m);
        m.destroy();
    }
}

/// CVE-2026-74568: an interrupt was taken out of its table after another of
/// the same number had been put in. However often an INTID is discarded and
/// given to another event, the last mapping is whole, and is gone when it is
/// discarded.
#[test]
fn cve_2026_74568_discard_then_mapti_of_the_same_intid() {
    // What is masked for being too much would come later: see `storms`.
    let m = Machine::booted(Config { id_bits: 14, masking: false, ..Config::default() });
    m.map(5, 1, LPI);
    let m = Arc::new(m);
    m.ok(cmd::mapd(6, 5));
    for round in 0..scaled(40_u32, 10) {
        // From device 5 to device 6 and back, in either order, while it is
        // pending, in a list register, or being delivered.
        let (from, to) = if round % 2 == 0 { (5, 6) } else { (6, 5) };
        match round % 5 {
            0 => {}
            1 => {
                m.fire(from, 0);
            }
            2 => {
                m.fire(from, 0);
                m.settle();
            }
            3 => {
                m.disable(LPI);
                m.fire(from, 0);
            }
            _ => {
                let other = Arc::clone(&m);
                m.vcpus[0].before_lock(move || {
                    other.ok_all(&[
                        cmd::discard(from, 0),
                        cmd::mapti(to, 0, LPI, 0),
                        cmd::mapti(from, 0, LPI, 0),
                        cmd::discard(to, 0),
                    ]);
                });
                m.fire(from, 0);
                m.drain(0);
            }
        }
        if round % 4 < 2 {
            m.ok_all(&[cmd::discard(from, 0), cmd::mapti(to, 0, LPI, 0)]);
        } else {
            m.ok_all(&[cmd::mapti(to, 0, LPI, 0), cmd::discard(from, 0)]);
        }
        m.enable(LPI);
        m.ok(cmd::inv(to, 0));
        m.drain(0);
        assert!(!m.fire(from, 0));
        assert!(m.fire(to, 0));
        m.expect(&[LPI], &[]);
    }
    m.ok(cmd::discard(5, 0));
    assert!(!m.fire(5, 0));
    let unrouted = m.stat("unrouted");
    world::in_irq(|| m.domain.deliver(Lpi::new(LPI).expect("an LPI")));
    assert_eq!(m.stat("unrouted"), unrouted + 1, "nothing keeps it mapped");
    end(m);
}

/// CVE-2026-72289: an interrupt moved to a redistributor that had just been
/// flushed. EnableLPIs is not cleared here; one that was never set ignores
/// what moves there, and works as soon as it is set.
#[test]
fn cve_2026_72289_moved_to_a_redistributor_without_lpis() {
    let moves: [Command; 4] =
        [cmd::movi(5, 0, 1), cmd::movall(0, 1), cmd::mapc(0, 1), { cmd::mapti(5, 0, LPI, 1) }];
    for command in moves {
        for in_register in [false, true] {
            World::renew();
            let m = Machine::new(Config { id_bits: 14, ..Config::default() });
            m.boot_its(0);
            m.boot_redist(0);
            m.ok_all(&[cmd::mapc(0, 0), cmd::mapc(1, 1)]);
            m.map(5, 1, LPI);
            m.fire(5, 0);
            if in_register {
                m.settle();
            }
            m.ok(command);
            m.gicr_w32(0, GICR_CTLR, 0);
            assert_eq!(m.gicr_read(0, GICR_CTLR, Width::Word) & 1, 1);
            m.settle();
            m.drain(0);
            m.drain(1);
            assert_eq!(m.stat("slots"), 0);
            m.boot_redist(1);
            m.ok_all(&[cmd::mapc(1, 1), cmd::movi(5, 0, 1)]);
            m.drain(1);
            m.fire(5, 0);
            m.expect(&[], &[LPI]);
            m.destroy();
        }
    }
}

/// CVE-2026-89913: interrupts were freed while all of them were written to
/// the guest's pending table. Here the table is only read, once, and the guest
/// may unmap meanwhile what is pending in it.
#[test]
fn cve_2026_89913_unmapped_while_the_pending_table_is_read() {
    let ways =
        [vec![cmd::discard(5, 0)], vec![cmd::unmapd(5)], vec![cmd::unmapc(0), cmd::movall(0, 1)]];
    for commands in ways {
        let m = Arc::new(Machine::new(Config { id_bits: 14, ..Config::default() }));
        m.boot_its(0);
        m.boot_redist(1);
        m.ok_all(&[cmd::mapc(0, 0), cmd::mapc(1, 1)]);
        m.map(5, 1, LPI);
        m.ram.write(Machine::pending_table(0) + u64::from(LPI / 8), &[0xff; 8]);
        let propbaser = PropBaser::new().with_id_bits(13).with_address(GuestPa::new(PROPERTIES));
        m.gicr_w64(0, GICR_PROPBASER, propbaser.into());
        let pendbaser = PendBaser::new().with_address(GuestPa::new(Machine::pending_table(0)));
        m.gicr_w64(0, GICR_PENDBASER, pendbaser.into());
        let other = Arc::clone(&m);
        let world = Arc::clone(&m.world);
        let mut once = Some(move || {
            world.enter();
            other.ok_all(&commands);
        });
        m.ram.after_read(move |_, at, _| {
            if at >= Machine::pending_table(0)
                && let Some(meanwhile) = once.take()
            {
                let other_cpu = std::thread::spawn(meanwhile);
                other_cpu.join().expect("the other CPU goes on");
            }
        });
        m.gicr_w32(0, GICR_CTLR, 1);
        m.ram.after_read(|_, _, _| ());
        m.drain(0);
        m.drain(1);
        // What the table said of the other LPIs waits for them to be mapped.
        assert!(m.stat("dormant") >= 63);
        m.ok_all(&[cmd::mapc(0, 0), cmd::mapd(5, 5), cmd::mapti(5, 0, LPI, 0)]);
        m.drain(0);
        m.fire(5, 0);
        m.expect(&[LPI], &[]);
        end(m);
    }
}

/// CVE-2026-89912: an event whose collection had been unmapped had none, and
/// what came next used it all the same. Every command on such an event is an
/// error, or does what it is for.
#[test]
fn cve_2026_89912_every_operation_on_an_event_of_an_unmapped_collection() {
    let every: [(Command, Option<CommandError>); 14] = [
        (cmd::int(5, 0), None),
        (cmd::clear(5, 0), None),
        (cmd::inv(5, 0), None),
        (cmd::invall(0), Some(CommandError::INVALL_UNMAPPED_COLLECTION)),
        (cmd::movi(5, 0, 0), Some(CommandError::MOVI_UNMAPPED_COLLECTION)),
        (cmd::unmapc(0), None),
        (cmd::movall(0, 1), None),
        (cmd::movall(1, 0), None),
        (cmd::sync(0), None),
        (cmd::mapti(5, 0, LPI, 0), None),
        (cmd::mapti(5, 1, LPI, 0), None),
        (cmd::mapd(5, 5), None),
        (cmd::discard(5, 0), None),
        (cmd::unmapd(5), None),
    ];
    for pending in [false, true] {
        for (command, error) in every {
            World::renew();
            let m = Machine::booted(Config { id_bits: 14, ..Config::default() });
            m.map(5, 1, LPI);
            if pending {
                m.disable(LPI);
                m.fire(5, 0);
            }
            m.ok(cmd::unmapc(0));
            let log = m.run_on(0, &[command]);
            // INT, CLEAR and INV say so, too, by an error without a name.
            let unnamed = matches!(
                command,
                Command::Int { .. } | Command::Clear { .. } | Command::Inv { .. }
            );
            assert_eq!(log.len(), usize::from(unnamed || error.is_some()), "{command:?} {log:?}");
            assert!(log.iter().all(|line| line.contains("UNMAPPED_COLLECTION")), "{log:?}");
            m.fire(5, 0);
            for vcpu in 0..2 {
                m.gicr_w64(vcpu, GICR_INVLPIR, LPI.into());
                m.gicr_w64(vcpu, GICR_INVALLR, 0);
            }
            m.settle();
            m.w32(GITS_CTLR, 0);
            m.w32(GITS_CTLR, 1);
            m.check();
            m.enable(LPI);
            m.ok_all(&[cmd::mapc(0, 0), cmd::invall(0)]);
            m.drain(0);
            m.drain(1);
            works_anew(&m);
            m.destroy();
        }
    }
}

/// CVE-2026-64106: what was read back from the guest's device table was
/// believed. Nothing of it is read, so it may say anything.
#[test]
fn cve_2026_64106_the_guest_writes_its_own_tables() {
    let m = Machine::booted(Config::default());
    m.ram.add(TABLES, 0x4000);
    let before = m.ram.reads();
    for fill in [0_u8, 0xff, 0xa5] {
        let scribble = || {
            for page in 0..4 {
                m.ram.write(TABLES + page * 4096, &[fill; 4096]);
            }
        };
        scribble();
        m.map(5, 32, LPI);
        scribble();
        m.ok_all(&[cmd::movi(5, 3, 1), cmd::discard(5, 4), cmd::inv(5, 5), cmd::mapc(1, 1)]);
        scribble();
        m.fails(cmd::mapti(5, 32, LPI, 0), CommandError::MAPTI_ID_OOR);
        m.fire(5, 3);
        assert!(!m.fire(5, 4));
        m.expect(&[], &[LPI + 3]);
        m.ok(cmd::unmapd(5));
        m.fails(cmd::int(5, 3), CommandError::INT_UNMAPPED_DEVICE);
    }
    // Each batch of commands was read, and nothing else was.
    assert_eq!(m.ram.reads() - before, 3 * (1 + 32 + 4 + 1 + 1 + 1 - 3));
    m.check();
    m.destroy();
}

/// CVE-2026-64287: a number of list registers that a guest could choose was
/// an index. A slot that does not exist, or is not in use, is nobody's.
#[test]
fn cve_2026_64287_slot_numbers_are_bounded() {
    let m = Machine::booted(Config::default());
    m.map(5, 20, LPI);
    for event in 0..20 {
        m.fire(5, event);
    }
    m.settle();
    let id = VcpuId::new(0);
    let mut held = m.vcpus[0].hold();
    for slot in 16..=u8::MAX {
        m.domain.slot_done(&mut held, id, slot);
    }
    drop(held);
    assert_eq!((m.stat("slots"), m.stat("waiting"), m.stat("done")), (4, 16, 0));
    assert_eq!(m.drain(0).len(), 20);
    let mut held = m.vcpus[0].hold();
    for slot in 0..16 {
        m.domain.slot_done(&mut held, id, slot);
    }
    drop(held);
    assert_eq!(m.stat("done"), 20, "a slot that is free is not done again");
    m.destroy();
}

/// CVE-2024-40989, CVE-2025-37849: a vCPU whose creation failed was still
/// known. A vCPU is known only once it is there, and only once.
#[test]
fn cve_2024_40989_cve_2025_37849_a_vcpu_that_is_not_created_is_not_known() {
    let m = Machine::booted(Config::default());
    // Its number is taken, or there is none for it.
    for (id, error) in [(0, Error::Exists), (2, Error::OutOfRange), (u16::MAX, Error::OutOfRange)] {
        let vcpu = FakeVcpu::new(id, 4);
        assert_eq!(m.domain.add_vcpu(VcpuId::new(id), vcpu.clone()), Err(error));
        m.map(5, 1, LPI);
        m.fire(5, 0);
        assert!(!vcpu.busy(), "it gets nothing");
        m.expect(&[LPI], &[]);
    }
    m.fails(cmd::mapc(2, 2), CommandError::MAPC_PROCNUM_OOR);
    m.destroy();
}

/// CVE-2026-89727, CVE-2024-36953: a guest, or a host's administrator, could
/// name a vCPU that is not there, and reach a warning or a null pointer.
/// Everything that takes the number of a vCPU takes any.
#[test]
fn cve_2026_89727_cve_2024_36953_any_vcpu_number_anywhere() {
    let m = Machine::booted(Config::default());
    m.map(5, 1, LPI);
    for id in [2, 3, 127, 128, u16::MAX - 1, u16::MAX] {
        let id = VcpuId::new(id);
        for offset in [GICR_CTLR, GICR_PROPBASER, GICR_PENDBASER, GICR_INVLPIR, GICR_INVALLR] {
            let read = m.domain.gicr_read(id, offset, Width::Word);
            assert_eq!(read, Err(Error::NotFound));
            let written = m.domain.gicr_write(id, offset, Width::Word, 1);
            assert_eq!(written, Err(Error::NotFound));
        }
        m.domain.sync(id);
        let mut held = m.vcpus[0].hold();
        assert_eq!(m.domain.yield_slot(&mut held, id, 0), None);
        assert!(!m.domain.is_urgent(&mut held, id, 256));
        assert!(!m.domain.fill(&mut held, id));
        m.domain.slot_done(&mut held, id, 0);
        m.domain.vcpu_reset(&mut held, id);
    }
    m.quiet();
    m.fire(5, 0);
    m.expect(&[LPI], &[]);
    m.destroy();
}

/// No CVE (e9649129d33d and others): DISCARD and MAPD left entries in the
/// guest's tables that were found later. Afterwards the event, or the device,
/// is unmapped for every command, also when it is mapped again.
#[test]
fn kvm_stale_entries_after_discard_and_mapd() {
    let m = Machine::booted(Config::default());
    type E = CommandError;
    m.map(5, 3, LPI);
    m.ok(cmd::discard(5, 1));
    m.fails(cmd::discard(5, 1), E::DISCARD_UNMAPPED_INTERRUPT);
    let unmapped = |event| {
        m.fails(cmd::int(5, event), E::INT_UNMAPPED_INTERRUPT);
        m.fails(cmd::clear(5, event), E::CLEAR_UNMAPPED_INTERRUPT);
        m.fails(cmd::inv(5, event), E::INV_UNMAPPED_INTERRUPT);
        m.fails(cmd::movi(5, event, 1), E::MOVI_UNMAPPED_INTERRUPT);
        assert!(!m.fire(5, event));
    };
    unmapped(1);
    // Fewer events than before, more than before, and none meanwhile.
    for commands in [&[cmd::mapd(5, 1)][..], &[cmd::mapd(5, 7)], &[cmd::unmapd(5), cmd::mapd(5, 5)]]
    {
        m.ok(cmd::mapti(5, 0, LPI, 0));
        m.ok_all(commands);
        for event in 0..2 {
            unmapped(event);
        }
    }
    m.expect(&[], &[]);
    m.destroy();
}

/// No CVE (7d8b44c54e0c, and a null interrupt in MOVALL): MOVALL went through
/// a list of LPIs that changed meanwhile. It moves what is pending, mapped or
/// not, any number of times, whatever is unmapped in between.
#[test]
fn kvm_movall_of_what_is_not_mapped_any_more() {
    let m = Machine::booted(Config { id_bits: 14, ..Config::default() });
    m.map(5, 32, LPI);
    m.disable(LPI + 3);
    for event in 0..32 {
        m.fire(5, event);
    }
    m.settle();
    m.ok(cmd::movall(0, 1));
    for event in 0..16 {
        m.ok(cmd::discard(5, event));
    }
    m.ok_all(&[cmd::movall(1, 0), cmd::unmapc(0), cmd::movall(0, 1), cmd::movall(1, 1)]);
    m.settle();
    let mut got = m.drain(0);
    got.extend(m.drain(1));
    got.sort_unstable();
    assert_eq!(got, (LPI + 16..LPI + 32).collect::<Vec<_>>());
    m.ok_all(&[cmd::movall(0, 1), cmd::movall(1, 0)]);
    m.expect(&[], &[]);
    assert_eq!(m.stat("slots") + m.stat("waiting") + m.stat("dormant"), 0);
    m.destroy();
}

/// The same for LPIs that never were mapped: those that the guest's pending
/// table names.
#[test]
fn kvm_movall_of_what_is_not_mapped_yet() {
    let m = Machine::new(Config { id_bits: 14, ..Config::default() });
    m.boot_its(0);
    m.ok_all(&[cmd::mapc(0, 0), cmd::mapc(1, 1)]);
    m.ram.write(Machine::pending_table(0) + u64::from(LPI / 8), &[0b101]);
    let propbaser = PropBaser::new().with_id_bits(13).with_address(GuestPa::new(PROPERTIES));
    m.gicr_w64(0, GICR_PROPBASER, propbaser.into());
    let pendbaser = PendBaser::new().with_address(GuestPa::new(Machine::pending_table(0)));
    m.gicr_w64(0, GICR_PENDBASER, pendbaser.into());
    m.gicr_w32(0, GICR_CTLR, 1);
    m.boot_redist(1);
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        m.ok(cmd::movall(from, to));
        assert_eq!(m.stat("dormant"), 2);
    }
    m.enable(LPI);
    m.ok_all(&[cmd::mapd(5, 5), cmd::mapti(5, 0, LPI, 1)]);
    m.expect(&[], &[LPI]);
    // So does the other one, though it is mapped elsewhere: it has moved.
    m.enable(LPI + 2);
    m.ok(cmd::mapti(5, 2, LPI + 2, 0));
    m.expect(&[], &[LPI + 2]);
    assert_eq!(m.stat("dormant"), 0);
    m.destroy();
}
