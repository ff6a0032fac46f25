// SPDX-License-Identifier: GPL-2.0-only
//! More LPIs than slots, and which of them comes first.

use its_arch::gits::GITS_CWRITER;
use its_arch::{Command, Lpi, VcpuId};
use its_testkit::vcpu::Place;
use its_testkit::{Config, Machine, cmd, scaled};

/// Device 5 with `count` events, LPI 8192 + n of priority `priority(n)`.
fn machine(config: Config, count: u32, priority: impl Fn(u32) -> u8) -> Machine {
    let m = Machine::booted(config);
    let mut commands = vec![cmd::mapd(5, 8)];
    for event in 0..count {
        m.set_property(8192 + event, priority(event), true);
        commands.push(cmd::mapti(5, event, 8192 + event, 0));
    }
    m.ok_all(&commands);
    m
}

/// More than are looked at in one go.
const MANY: u32 = scaled(240, 100);
/// More than one step moves.
const HUNDREDS: u32 = scaled(600, 300);

fn place(m: &Machine, lpi: u32) -> Option<Place> {
    m.vcpus[0].place(Lpi::new(lpi).expect("an LPI"))
}

#[test]
fn the_most_urgent_come_first_however_many_are_pending() {
    for &list_registers in scaled(&[1, 2, 4, 16][..], &[2]) {
        for &(step, offset) in scaled(&[(1, 0), (7, 3), (59, 11), (37, 30)][..], &[(7, 3)]) {
            let config = Config { list_registers, ..Config::default() };
            // A priority has six bits.
            let m = machine(config, MANY, |event| u8::try_from(event & !3).expect("small"));
            for n in 0..MANY {
                m.fire(5, (n * step + offset) % MANY);
            }
            let mut got = m.drain(0);
            // All slots may be in list registers by the time that a more
            // urgent LPI fires; never more than those overtake it.
            if step == 1 || list_registers < 16 {
                let in_order = got.is_sorted_by_key(|lpi| lpi & !3);
                assert!(in_order, "{list_registers} list registers, step {step}: {got:?}");
            }
            got.sort_unstable();
            assert_eq!(got, (8192..8192 + MANY).collect::<Vec<_>>());
            assert_eq!(m.stat("slots") + m.stat("waiting"), 0);
            m.destroy();
        }
    }
}

#[test]
fn an_urgent_lpi_takes_the_list_register_of_one_that_is_not() {
    let m = machine(Config::default(), 20, |event| if event == 19 { 0 } else { 0xa0 });
    for event in 0..16 {
        m.fire(5, event);
    }
    m.settle();
    assert_eq!((m.vcpus[0].used_slots(), m.stat("waiting")), (4, 12));
    m.fire(5, 19);
    m.settle();
    assert_eq!((m.vcpus[0].used_slots(), m.stat("waiting")), (4, 13));
    assert!(place(&m, 8211).is_some(), "it is not behind the others");
    // It is the next that the guest takes, though list registers were full.
    assert_eq!(m.take(0), Some(8211));
    let mut rest = m.drain(0);
    rest.sort_unstable();
    assert_eq!(rest, (8192..8208).collect::<Vec<_>>());
    m.destroy();
}

#[test]
fn the_least_urgent_of_all_gives_way() {
    let priorities = [0xb0, 0xd0, 0xa0, 0xc0, 0x10, 0x20, 0x30];
    let m =
        machine(Config::default(), 7, |event| priorities[usize::try_from(event).expect("small")]);
    for event in 0..4 {
        m.fire(5, event);
    }
    m.settle();
    for (urgent, out) in [(4, 1), (5, 3), (6, 0)] {
        m.fire(5, urgent);
        m.settle();
        assert_eq!(place(&m, 8192 + out), None);
        assert_eq!(m.vcpus[0].used_slots(), 4);
    }
    assert_eq!(m.stat("evicted"), 3, "more than had to gave way");
    assert_eq!(m.drain(0), [8196, 8197, 8198, 8194, 8192, 8195, 8193]);
    m.destroy();
}

#[test]
fn an_lpi_that_is_as_urgent_waits() {
    let m = machine(Config::default(), 20, |_| 0xa0);
    for event in 0..4 {
        m.fire(5, event);
    }
    m.settle();
    m.fire(5, 16);
    m.settle();
    assert_eq!(place(&m, 8208), None);
    assert_eq!((m.stat("waiting"), m.stat("evicted")), (1, 0));
    assert_eq!(m.drain(0), [8192, 8193, 8194, 8195, 8208]);
    m.destroy();
}

#[test]
fn nothing_can_be_taken_back_that_the_guest_handles() {
    let m = machine(Config::default(), 20, |event| if event >= 18 { 0 } else { 0xa0 });
    for event in 0..4 {
        m.fire(5, event);
    }
    m.settle();
    for event in 0..4 {
        assert_eq!(m.vcpus[0].ack(), Lpi::new(8192 + event));
    }
    // One of them fires again meanwhile.
    m.fire(5, 1);
    m.settle();
    m.fire(5, 18);
    m.settle();
    assert_eq!((m.stat("waiting"), m.stat("evicted")), (1, 0));
    assert_eq!(place(&m, 8193), Some(Place { pending: true, active: true }));
    for event in 0..4 {
        m.vcpus[0].eoi(Lpi::new(8192 + event).expect("an LPI"));
    }
    m.vcpus[0].cycle(&m.domain);
    // The urgent one came in, and the other was not forgotten.
    assert_eq!(m.drain(0), [8210, 8193]);
    m.destroy();
}

#[test]
fn other_interrupts_and_lpis_take_list_registers_from_each_other() {
    let m = machine(Config::default(), 20, |event| if event >= 10 { 0x20 } else { 0xa0 });
    let vcpu = &m.vcpus[0];
    // Less urgent LPIs give way.
    for event in 0..4 {
        m.fire(5, event);
    }
    m.settle();
    vcpu.raise_other(0x80);
    vcpu.raise_other(0x60);
    vcpu.cycle(&m.domain);
    assert_eq!(vcpu.others(), (2, 0));
    assert_eq!((vcpu.used_slots(), m.stat("waiting")), (2, 2));
    // More urgent ones take them back, the least urgent first.
    for event in 10..13 {
        m.fire(5, event);
    }
    m.settle();
    assert_eq!(vcpu.others(), (1, 1), "of all the LPIs of 0xa0, and the interrupt of 0x80");
    assert_eq!((vcpu.used_slots(), m.stat("waiting")), (3, 4));
    assert!([8202, 8203, 8204].iter().all(|lpi| place(&m, *lpi).is_some()));
    // What is as urgent waits, on both sides.
    vcpu.raise_other(0x20);
    m.fire(5, 13);
    m.settle();
    vcpu.cycle(&m.domain);
    assert_eq!(vcpu.others(), (0, 3), "{}", vcpu.used_slots());
    let mut rest = m.drain(0);
    rest.sort_unstable();
    assert_eq!(rest, [8192, 8193, 8194, 8195, 8202, 8203, 8204, 8205]);
    assert_eq!(vcpu.others(), (0, 0));
    m.destroy();
}

#[test]
fn an_lpi_that_waits_alone_gets_the_priority_that_it_has_by_then() {
    for command in [cmd::inv(5, 0), cmd::invall(0)] {
        let config = Config { list_registers: 1, ..Config::default() };
        let m = machine(config, 2, |event| if event == 0 { 0xa0 } else { 0x50 });
        m.fire(5, 0);
        m.set_property(8192, 0x10, true);
        m.ok(command);
        m.settle();
        m.fire(5, 1);
        m.settle();
        assert_eq!(m.drain(0), [8192, 8193], "{command:?}");
        assert_eq!(m.stat("evicted"), 0, "{command:?}");
        m.destroy();
    }
}

#[test]
fn a_vcpu_does_not_sleep_while_an_urgent_lpi_waits() {
    let m = machine(Config::default(), 8, |event| u8::try_from(event * 0x10).expect("small"));
    let vcpu = &m.vcpus[0];
    assert!(!vcpu.has_urgent(&m.domain, 256));
    m.fire(5, 3);
    assert!(vcpu.has_urgent(&m.domain, 0x38) && !vcpu.has_urgent(&m.domain, 0x30));
    m.settle();
    // In a list register.
    assert!(vcpu.has_urgent(&m.domain, 0x38) && !vcpu.has_urgent(&m.domain, 0x30));
    m.fire(5, 2);
    assert!(vcpu.has_urgent(&m.domain, 0x28) && !vcpu.has_urgent(&m.domain, 0x20));
    // Disabled, as the guest says so without a command.
    m.set_property(8194, 0x20, false);
    assert!(!vcpu.has_urgent(&m.domain, 0x30));
    m.destroy();
}

#[test]
fn the_priority_is_what_the_guest_wrote_last() {
    let m = machine(Config::default(), 20, |_| 0xa0);
    for event in 0..20 {
        m.fire(5, event);
    }
    m.settle();
    // All but four wait; the guest makes the last one urgent.
    m.set_property(8211, 0x10, true);
    m.settle();
    let got = m.drain(0);
    let at = |lpi| got.iter().position(|found| *found == lpi).expect("delivered");
    assert!(at(8211) < at(8208), "{got:?}");
    assert_eq!(got.len(), 20);
    m.destroy();
}

#[test]
fn lpis_that_wait_and_are_disabled_meanwhile_are_passed_over() {
    let m = machine(Config::default(), 40, |_| 0xa0);
    for event in 0..40 {
        m.fire(5, event);
    }
    m.settle();
    assert_eq!(m.stat("waiting"), 36);
    for lpi in (8192..8232).step_by(2) {
        m.disable(lpi);
    }
    m.ok(cmd::invall(0));
    let odd: Vec<u32> = (8193..8232).step_by(2).collect();
    let mut got = m.drain(0);
    got.sort_unstable();
    assert_eq!(got, odd);
    for lpi in (8192..8232).step_by(2) {
        m.enable(lpi);
    }
    m.ok(cmd::invall(0));
    let mut got = m.drain(0);
    got.sort_unstable();
    assert_eq!(got, (8192..8232).step_by(2).collect::<Vec<_>>());
    m.destroy();
}

#[test]
fn slots_that_are_emptied_are_filled_again() {
    // Taking LPIs out of the slots by each command lets those that wait in.
    for command in [cmd::movi(5, 0, 1), cmd::clear(5, 0), cmd::discard(5, 0)] {
        let m = machine(Config::default(), 20, |_| 0xa0);
        for event in 0..20 {
            m.fire(5, event);
        }
        m.settle();
        m.ok(command);
        m.settle();
        assert_eq!(m.vcpus[0].used_slots(), 4, "{command:?}");
        assert_eq!(m.stat("waiting"), 15, "{command:?}");
        let (first, second) = (m.drain(0), m.drain(1));
        assert_eq!(first.len(), 19, "{command:?}");
        let moved = matches!(command, its_arch::Command::Movi { .. });
        assert_eq!(second.len(), usize::from(moved), "{command:?}");
        m.destroy();
    }
}

#[test]
fn many_pending_lpis_move_at_once() {
    for command in [cmd::mapc(0, 1), cmd::movall(0, 1)] {
        for &taken in scaled(&[0, 3][..], &[3]) {
            let count = scaled(200, 60);
            let m = machine(Config::default(), count, |event| {
                u8::try_from(event % 50).expect("small") * 4
            });
            for event in 0..count {
                m.fire(5, event);
            }
            for lpi in (8192..8192 + count).step_by(10) {
                m.disable(lpi);
            }
            m.settle();
            let mut got: Vec<u32> = (0..taken).filter_map(|_| m.take(0)).collect();
            m.ok(command);
            m.settle();
            assert_eq!(m.drain(0), Vec::<u32>::new(), "{command:?}");
            got.extend(m.drain(1));
            for lpi in (8192..8192 + count).step_by(10) {
                m.enable(lpi);
            }
            m.gicr_w64(1, its_arch::gicr::GICR_INVALLR, 0);
            m.gicr_w64(0, its_arch::gicr::GICR_INVALLR, 0);
            got.extend(m.drain(1));
            // MOVALL leaves the mapping: what is raised anew goes there.
            got.extend(m.drain(0));
            got.sort_unstable();
            assert_eq!(got, (8192..8192 + count).collect::<Vec<_>>(), "{command:?}");
            m.destroy();
        }
    }
}

#[test]
fn a_storm_of_a_disabled_lpi_is_one_bit() {
    let m = machine(Config::default(), 1, |_| 0xa0);
    m.disable(8192);
    let allocations = m.world.allocations();
    for _ in 0..scaled(10_000, 200) {
        m.fire(5, 0);
    }
    assert_eq!(m.world.allocations(), allocations);
    assert_eq!(m.stat("dormant"), 1);
    assert_eq!(m.stat("disabled"), 17, "then its host LPI is masked");
    m.enable(8192);
    m.ok(cmd::inv(5, 0));
    // And what came while it was.
    m.expect(&[8192, 8192], &[]);
    m.destroy();
}

fn is_listed(m: &Machine, lpi: u32) -> bool {
    place(m, lpi).is_some()
}

/// All list registers are in use, and more LPIs wait than are looked at in one go.
#[test]
fn an_urgent_lpi_is_seen_behind_many_others() {
    let m = Machine::booted(Config::default());
    m.map(5, 100, 8192);
    m.set_property(8291, 0x20, true);
    for event in 0..99 {
        m.fire(5, event);
    }
    m.settle();
    m.fire(5, 99);
    m.settle();
    // The guest masks what is less urgent, so it takes none of those that are
    // in list registers; it leaves and enters the hypervisor all the time.
    for _ in 0..scaled(1000, 100) {
        m.vcpus[0].cycle(&m.domain);
    }
    assert!(is_listed(&m, 8291), "it waits behind less urgent ones for ever");
    m.destroy();
}

/// While LPIs leave a vCPU step by step none gives way; afterwards one does.
#[test]
fn an_urgent_lpi_is_seen_when_a_drain_is_over() {
    let m = Machine::booted(Config { queue_pages: 2, ..Config::default() });
    m.map(5, HUNDREDS, 8192);
    m.set_property(8202, 0x20, true);
    m.ok(cmd::mapc(2, 0));
    for event in (0..HUNDREDS).filter(|event| *event != 10) {
        m.fire(5, event);
    }
    m.settle();
    // MAPC of a collection without LPIs looks at those of the vCPU, in steps.
    let at = m.r64(GITS_CWRITER);
    m.put(0, at, &cmd::mapc(2, 1).encode());
    assert!(m.w64(GITS_CWRITER, at + 32), "in steps");
    m.fire(5, 10);
    m.vcpus[0].cycle(&m.domain);
    assert!(!is_listed(&m, 8202));
    m.work();
    // It leaves the guest only if it is kicked.
    m.settle();
    assert!(is_listed(&m, 8202), "nobody looks again when the MAPC is over");
    m.destroy();
}

#[test]
fn an_urgent_lpi_is_seen_among_hundreds() {
    let m = Machine::booted(Config { queue_pages: 2, ..Config::default() });
    m.map(5, HUNDREDS, 8192);
    m.set_property(8202, 0x20, true);
    for event in (0..HUNDREDS).filter(|event| *event != 10) {
        m.fire(5, event);
    }
    m.settle();
    m.fire(5, 10);
    m.settle();
    assert!(is_listed(&m, 8202));
    m.destroy();
}

/// An LPI that waits becomes urgent, and the guest says so.
fn made_urgent(command: Command) {
    let m = Machine::booted(Config::default());
    m.map(5, 20, 8192);
    for event in 0..20 {
        m.fire(5, event);
    }
    m.settle();
    assert!(!is_listed(&m, 8203));
    m.set_property(8203, 0x20, true);
    m.ok(command);
    // It leaves the guest only if it is kicked.
    m.settle();
    assert!(is_listed(&m, 8203), "{command:?}: it waits");
    m.destroy();
}

#[test]
fn an_lpi_that_waits_is_made_urgent_by_inv() {
    made_urgent(cmd::inv(5, 11));
}

#[test]
fn an_lpi_that_waits_is_made_urgent_by_invall() {
    made_urgent(cmd::invall(0));
}

/// An LPI that nobody could have known of comes at once: its list register is given to
/// one that is more urgent than it, but not than those that wait.
#[test]
fn the_second_most_urgent_of_many_comes_second() {
    let m = machine(Config::default(), 200, |event| match event {
        150 => 0x10,
        199 => 0x20,
        _ => 0xa0,
    });
    for event in (0..200).filter(|event| ![150, 199].contains(event)) {
        m.fire(5, event);
    }
    m.settle();
    m.fire(5, 199);
    m.fire(5, 150);
    m.settle();
    assert!(is_listed(&m, 8192 + 150));
    assert!(is_listed(&m, 8192 + 199));
    m.destroy();
}

/// Any may have become the most urgent one, also while that is being looked for.
#[test]
fn invall_during_a_search() {
    let m = machine(Config::default(), 200, |_| 0xa0);
    for event in 0..200 {
        m.fire(5, event);
    }
    m.settle();
    for urgent in [120, 30, 180, 90] {
        m.set_property(8192 + 199, 0x90, true);
        m.ok(cmd::invall(0));
        // A part of the search, in which it is not urgent yet.
        m.domain.fill(&mut m.vcpus[0].hold(), VcpuId::new(0));
        m.set_property(8192 + urgent, 0x20, true);
        m.ok(cmd::invall(0));
        m.settle();
        for _ in 0..20 {
            m.vcpus[0].cycle(&m.domain);
        }
        assert!(is_listed(&m, 8192 + urgent), "{urgent}");
    }
    m.destroy();
}

/// The priority counts that it has when it gets its list register.
#[test]
fn an_lpi_that_waits_is_made_less_urgent_by_inv() {
    let config = Config { list_registers: 1, ..Config::default() };
    let m = machine(config, 2, |event| if event == 0 { 0x10 } else { 0xa0 });
    m.fire(5, 0);
    m.set_property(8192, 0xf0, true);
    m.ok(cmd::inv(5, 0));
    m.settle();
    assert!(is_listed(&m, 8192));
    m.fire(5, 1);
    m.settle();
    assert!(is_listed(&m, 8193) && !is_listed(&m, 8192), "it holds on to its list register");
    m.destroy();
}

/// The most urgent one so far is none any more: one that was passed over for it is.
#[test]
fn inv_during_a_search() {
    let m = machine(Config::default(), 200, |_| 0xa0);
    for event in 0..200 {
        m.fire(5, event);
    }
    m.settle();
    for (event, priority) in [(20, 0x10), (30, 0x20)] {
        m.set_property(8192 + event, priority, true);
    }
    m.ok(cmd::invall(0));
    // A part of the search, which comes by both.
    m.domain.fill(&mut m.vcpus[0].hold(), VcpuId::new(0));
    m.set_property(8192 + 20, 0xf0, true);
    m.ok(cmd::inv(5, 20));
    m.settle();
    assert!(is_listed(&m, 8192 + 30));
    m.destroy();
}

/// A search that is not over has found the only one that still waits, which the guest has
/// disabled since.
#[test]
fn the_last_that_waits_is_looked_at_again_after_invall_during_a_search() {
    let m = machine(Config::default(), 200, |_| 0xa0);
    for event in 0..200 {
        m.fire(5, event);
    }
    m.settle();
    m.ok(cmd::invall(0));
    // A part of the search, which finds the first that waits.
    m.domain.fill(&mut m.vcpus[0].hold(), VcpuId::new(0));
    m.ok_all(&(5..200).map(|event| cmd::clear(5, event)).collect::<Vec<_>>());
    m.disable(8192 + 4);
    m.ok(cmd::invall(0));
    assert_eq!(m.stat("waiting"), 1);
    // It finds list registers free, as the guest has taken what was in them.
    while let Some(lpi) = m.vcpus[0].ack() {
        m.vcpus[0].eoi(lpi);
    }
    m.settle();
    assert!(!is_listed(&m, 8192 + 4), "it is disabled");
    assert_eq!((m.stat("waiting"), m.stat("dormant")), (0, 1));
    m.enable(8192 + 4);
    m.ok(cmd::invall(0));
    m.expect(&[8192 + 4], &[]);
    m.destroy();
}

/// Among equals each gets its turn, also if the search has to look at all of them.
#[test]
fn the_first_of_equals_comes_first_after_invall() {
    let m = machine(Config::default(), 20, |_| 0xa0);
    for event in 0..20 {
        m.fire(5, event);
    }
    m.settle();
    m.ok(cmd::invall(0));
    assert_eq!(m.take(0), Some(8192));
    assert!(is_listed(&m, 8196) && !is_listed(&m, 8211));
    m.destroy();
}

/// None can be more urgent than the last one was, so the first as urgent will do.
#[test]
fn one_look_is_enough_among_equals() {
    let m = machine(Config::default(), MANY, |_| 0xa0);
    for event in 0..MANY {
        m.fire(5, event);
    }
    m.settle();
    let before = m.vcpus[0].fills();
    let taken = m.drain(0).len();
    assert_eq!(taken, usize::try_from(MANY).expect("few"));
    let fills = m.vcpus[0].fills() - before;
    assert!(fills <= taken, "{fills} fills for {taken} LPIs");
    m.destroy();
}

/// One that is known to be the most urgent is not looked for, however many wait.
#[test]
fn an_urgent_lpi_takes_one_look() {
    let m = machine(Config::default(), MANY, |event| if event == 0 { 0x20 } else { 0xa0 });
    for event in 1..MANY {
        m.fire(5, event);
    }
    m.settle();
    m.fire(5, 0);
    m.vcpus[0].exit(&m.domain);
    m.domain.fill(&mut m.vcpus[0].hold(), VcpuId::new(0));
    assert!(is_listed(&m, 8192));
    m.destroy();
}
