// SPDX-License-Identifier: GPL-2.0-only
//! What a guest can make Xen write to its log: one line for a command that is
//! skipped, in the architecture's own words, and nothing for anything else.

use its_arch::error::CommandError;
use its_arch::{Command, RawCommand};
use its_core::env::Level;
use its_testkit::{Config, Machine, cmd};

/// A mistake for each error that a command can have, for a guest of which
/// device 5 has 32 events at most, event 0 is mapped, and collection 40 is
/// not.
pub(crate) fn mistakes() -> Vec<(Command, CommandError)> {
    type E = CommandError;
    // Beyond the device table; not mapped.
    const FAR: u32 = 1 << 16;
    const GONE: u32 = 77;
    vec![
        (cmd::mapd(FAR, 5), E::MAPD_DEVICE_OOR),
        (cmd::mapd(5, 17), E::MAPD_ITTSIZE_OOR),
        (cmd::mapc(0, 99), E::MAPC_PROCNUM_OOR),
        (cmd::mapc(256, 0), E::MAPC_COLLECTION_OOR),
        (cmd::mapti(FAR, 0, 8200, 0), E::MAPTI_DEVICE_OOR),
        (cmd::mapti(5, 0, 8200, 256), E::MAPTI_COLLECTION_OOR),
        (cmd::mapti(GONE, 0, 8200, 0), E::MAPTI_UNMAPPED_DEVICE),
        (cmd::mapti(5, 32, 8200, 0), E::MAPTI_ID_OOR),
        (cmd::mapti(5, 0, 8191, 0), E::MAPTI_PHYSICALID_OOR),
        (cmd::mapi(FAR, 0, 0), E::MAPI_DEVICE_OOR),
        (cmd::mapi(5, 0, 256), E::MAPI_COLLECTION_OOR),
        (cmd::mapi(GONE, 0, 0), E::MAPI_UNMAPPED_DEVICE),
        (cmd::mapi(5, 32, 0), E::MAPI_ID_OOR),
        (cmd::mapi(5, 0, 0), E::MAPI_PHYSICALID_OOR),
        (cmd::movi(FAR, 0, 0), E::MOVI_DEVICE_OOR),
        (cmd::movi(5, 0, 256), E::MOVI_COLLECTION_OOR),
        (cmd::movi(GONE, 0, 0), E::MOVI_UNMAPPED_DEVICE),
        (cmd::movi(5, 32, 0), E::MOVI_ID_OOR),
        (cmd::movi(5, 9, 0), E::MOVI_UNMAPPED_INTERRUPT),
        (cmd::movi(5, 0, 40), E::MOVI_UNMAPPED_COLLECTION),
        (cmd::movall(99, 0), E::MOVALL_PROCNUM_OOR),
        (cmd::movall(0, 99), E::MOVALL_PROCNUM_OOR),
        (cmd::discard(FAR, 0), E::DISCARD_DEVICE_OOR),
        (cmd::discard(GONE, 0), E::DISCARD_UNMAPPED_DEVICE),
        (cmd::discard(5, 32), E::DISCARD_ID_OOR),
        (cmd::discard(5, 9), E::DISCARD_UNMAPPED_INTERRUPT),
        (cmd::clear(FAR, 0), E::CLEAR_DEVICE_OOR),
        (cmd::clear(GONE, 0), E::CLEAR_UNMAPPED_DEVICE),
        (cmd::clear(5, 32), E::CLEAR_ID_OOR),
        (cmd::clear(5, 9), E::CLEAR_UNMAPPED_INTERRUPT),
        (cmd::int(FAR, 0), E::INT_DEVICE_OOR),
        (cmd::int(GONE, 0), E::INT_UNMAPPED_DEVICE),
        (cmd::int(5, 32), E::INT_ID_OOR),
        (cmd::int(5, 9), E::INT_UNMAPPED_INTERRUPT),
        (cmd::inv(FAR, 0), E::INV_DEVICE_OOR),
        (cmd::inv(GONE, 0), E::INV_UNMAPPED_DEVICE),
        (cmd::inv(5, 32), E::INV_ID_OOR),
        (cmd::inv(5, 9), E::INV_UNMAPPED_INTERRUPT),
        (cmd::invall(256), E::INVALL_COLLECTION_OOR),
        (cmd::invall(40), E::INVALL_UNMAPPED_COLLECTION),
        (cmd::sync(99), E::SYNC_PROCNUM_OOR),
    ]
}

fn machine() -> Machine {
    let m = Machine::booted(Config::default());
    m.ok_all(&[cmd::mapd(5, 5), cmd::mapti(5, 0, 8192, 0)]);
    m.enable(8192);
    m
}

#[test]
fn each_mistake_is_one_line_in_the_architectures_words() {
    let m = machine();
    let mistakes = mistakes();
    for (command, error) in &mistakes {
        assert_eq!(m.run_on(0, &[*command]).len(), 1);
        m.fails(*command, *error);
    }
    // All that the architecture names, but those that need a table in the
    // guest's memory to be wrong: that is not looked at.
    for error in CommandError::ALL {
        let made = mistakes.iter().any(|(_, known)| known == error);
        assert_eq!(made, !error.name().ends_with("ITE_INVALID"), "{}", error.name());
    }
    m.fire(5, 0);
    m.expect(&[8192], &[]);
    m.destroy();
}

/// However many there are: one each, all of them of the level that Xen limits.
#[test]
fn a_flood_of_mistakes_is_a_line_each_and_of_the_guests_level() {
    let m = machine();
    let raw = |command: &Command| command.encode();
    let mut all: Vec<RawCommand> = mistakes().iter().map(|(command, _)| raw(command)).collect();
    all.push(RawCommand([0, 0, 0, 0]));
    all.push(RawCommand([u64::MAX; 4]));
    let at = m.r64(its_arch::gits::GITS_CREADR);
    let count = u64::try_from(all.len()).expect("few");
    for (n, raw) in (0..).zip(&all) {
        m.put(0, (at + n * 32) % 4096, raw);
    }
    m.w64(its_arch::gits::GITS_CWRITER, (at + count * 32) % 4096);
    m.work();
    let log = m.world.take_log();
    assert_eq!(log.len(), all.len());
    for (level, line) in log {
        assert_eq!(level, Level::Guest, "{line}");
        assert!(line.starts_with("ITS: d7 vITS0: "), "{line}");
        assert!(line.len() <= 120 && line.is_ascii() && !line.contains('\n'), "{line}");
    }
    m.destroy();
}

/// A command that is done is worth no line, and neither is one that finds
/// nothing to do.
#[test]
fn commands_that_work_are_silent() {
    let m = machine();
    m.ok_all(&[
        cmd::mapd(6, 1),
        cmd::unmapd(6),
        cmd::unmapd(6),
        cmd::mapc(3, 1),
        cmd::unmapc(3),
        cmd::unmapc(3),
        cmd::mapti(5, 1, 8193, 3),
        cmd::movi(5, 0, 1),
        cmd::movall(0, 1),
        cmd::movall(1, 1),
        cmd::clear(5, 0),
        cmd::inv(5, 0),
        cmd::invall(0),
        cmd::int(5, 0),
        cmd::sync(1),
        cmd::discard(5, 1),
    ]);
    m.destroy();
}

#[test]
fn a_guest_whose_lines_are_too_many_is_not_heard() {
    let m = Machine::booted(Config::default());
    m.world.mute(true);
    let skipped = m.stat("skipped");
    let said = m.run_on(0, &[cmd::int(5, 0), cmd::inv(5, 0)]);
    assert!(said.is_empty(), "{said:?}");
    assert_eq!(m.stat("skipped"), skipped + 2);
    m.world.mute(false);
    m.fails(cmd::int(5, 0), CommandError::INT_UNMAPPED_DEVICE);
    m.destroy();
}
