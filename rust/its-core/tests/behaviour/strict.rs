// SPDX-License-Identifier: GPL-2.0-only
//! What the model of a host ITS insists on: here, nobody drives it properly.

use std::panic::{AssertUnwindSafe, catch_unwind};

use its_arch::{Command, DeviceId, EventBits, EventId, GuestPa, Intid, Lpi, Rdbase};
use its_core::env::{Env, HostHw, Table};
use its_core::host::HostItsConfig;
use its_testkit::its::{FakeHostIts, Pace};
use its_testkit::{Fake, cmd};

/// A host ITS without anybody who drives it: with one event, of device 1. Its
/// ITT comes first, so that it is dropped last.
fn bare() -> (impl Table, FakeHostIts, impl Fn(Command)) {
    let its = FakeHostIts::new(HostItsConfig {
        queue_bytes: 4096,
        device_bits: 16,
        event_bits: EventBits::new(16).expect("few"),
        itt_entry_bytes: 8,
    });
    let itt = Fake::alloc_table(256, 256).expect("memory");
    let at = std::cell::Cell::new(0);
    let same = its.clone();
    let submit = move |command: Command| {
        same.write_command(at.get(), &command.encode());
        at.set(at.get() + 32);
        same.set_cwriter(at.get());
    };
    submit(cmd::mapc(0, 0));
    submit(cmd::mapc(1, 1));
    submit(mapd(1, &itt));
    submit(mapti(0));
    submit(cmd::sync(0));
    (itt, its, submit)
}

/// A device gets an ITT for 32 events.
fn mapd(device: u32, itt: &impl Table) -> Command {
    let (device, itt) = (DeviceId::new(device), GuestPa::new(itt.address()));
    Command::Mapd { device, size: EventBits::new(5).expect("few"), itt, valid: true }
}

/// An event of that device becomes the first LPI.
fn mapti(event: u32) -> Command {
    let (device, event, intid) = (DeviceId::new(1), EventId::new(event), Intid::new(8192));
    Command::Mapti { device, event, intid, collection: its_arch::CollectionId::new(0) }
}

#[test]
fn the_model_remembers_properties_until_inv_and_sync() {
    let (_itt, its, submit) = bare();
    let sync = |rdbase| Command::Sync { rdbase: Rdbase::from_processor_number(rdbase) };
    let lpi = Lpi::MIN;
    Fake::set_host_enabled(lpi, false);
    assert_eq!(its.disabled(1, 0), Some((false, false)), "nobody told it");
    submit(cmd::inv(1, 0));
    submit(sync(1));
    assert_eq!(its.disabled(1, 0), Some((false, false)), "the wrong redistributor");
    assert!(its.fire(1, 0).is_some());
    submit(sync(0));
    assert_eq!(its.fire(1, 0), None);
    assert_eq!(its.disabled(1, 0), Some((true, true)));
    Fake::set_host_enabled(lpi, true);
    submit(sync(0));
    assert_eq!(its.disabled(1, 0), Some((true, true)), "it does not look without INV");
    assert!(its.take_due().is_empty());
    submit(cmd::inv(1, 0));
    submit(sync(0));
    assert_eq!(its.take_due(), [lpi]);
    assert_eq!(its.disabled(1, 0), Some((false, false)));
    its.check_properties();
}

#[test]
#[should_panic(expected = "was enabled without an INV")]
fn the_model_notices_a_missing_inv() {
    let (_itt, its, submit) = bare();
    Fake::set_host_enabled(Lpi::MIN, false);
    submit(cmd::inv(1, 0));
    submit(cmd::sync(0));
    Fake::set_host_enabled(Lpi::MIN, true);
    its.check_properties();
}

#[test]
#[should_panic(expected = "reserved for INV")]
fn the_model_notices_who_takes_what_is_reserved() {
    let (_itt, its, submit) = bare();
    its.set_pace(Pace::Hang(0));
    for _ in 0..128 {
        submit(cmd::sync(0));
    }
}

#[test]
#[should_panic(expected = "device 0x1 has that LPI")]
fn the_model_notices_an_lpi_of_two_events() {
    let (_itt, _, submit) = bare();
    submit(mapti(1));
}

#[test]
#[should_panic(expected = "the LPI was unmapped, but not SYNCed")]
fn the_model_notices_an_lpi_that_is_used_again_before_a_sync() {
    let (_itt, _, submit) = bare();
    for rdbase in [0, 1] {
        // The one that its events went to counts.
        submit(cmd::discard(1, 0));
        submit(cmd::sync(rdbase));
        submit(mapti(0));
    }
}

#[test]
fn the_model_notices_who_relies_on_an_event_before_a_sync() {
    let (_itt, its, submit) = bare();
    submit(cmd::discard(1, 0));
    submit(cmd::sync(0));
    submit(mapti(0));
    submit(cmd::sync(1));
    assert_eq!(its.fire(1, 0), None, "the wrong redistributor");
    assert!(its.fire(1, 0).is_some(), "it may be mapped, though");
    submit(cmd::sync(0));
    for _ in 0..2 {
        assert!(its.fire(1, 0).is_some());
    }
}

#[test]
fn what_is_unmapped_fires_until_a_sync() {
    let (_itt, its, submit) = bare();
    let lpi = Some((Lpi::MIN, Rdbase::from_processor_number(0).get()));
    submit(cmd::discard(1, 0));
    submit(cmd::sync(1));
    assert_eq!(its.fire(1, 0), lpi, "the wrong redistributor");
    submit(cmd::sync(0));
    assert_eq!(its.fire(1, 0), None);
    submit(mapti(0));
    submit(cmd::sync(0));
    submit(cmd::unmapd(1));
    submit(cmd::sync(1));
    assert_eq!(its.fire(1, 0), lpi, "its only event went elsewhere");
    submit(cmd::sync(0));
    assert_eq!(its.fire(1, 0), None);
}

#[test]
fn what_a_discard_unmaps_is_not_pending_after_a_sync() {
    let (_itt, its, submit) = bare();
    Fake::set_host_enabled(Lpi::MIN, false);
    submit(cmd::inv(1, 0));
    submit(cmd::sync(0));
    submit(cmd::discard(1, 0));
    assert_eq!(its.fire(1, 0), None, "it is disabled");
    submit(cmd::sync(0));
    submit(mapti(0));
    assert_eq!(its.disabled(1, 0), Some((true, false)));
}

#[test]
#[should_panic(expected = "no such ITT")]
fn the_model_notices_an_itt_that_is_not_aligned() {
    let (_itt, _, submit) = bare();
    let itt = Fake::alloc_table(256, 128).expect("memory");
    submit(mapd(2, &itt));
}

#[test]
#[should_panic(expected = "ITT of 255 bytes, 256 needed")]
fn the_model_notices_an_itt_that_is_too_small() {
    let (_itt, _, submit) = bare();
    let itt = Fake::alloc_table(255, 256).expect("memory");
    submit(mapd(2, &itt));
}

#[test]
#[should_panic(expected = "the ITT is in use: device 0x1 is mapped to it")]
fn the_model_notices_an_itt_of_two_devices() {
    let (itt, _, submit) = bare();
    submit(mapd(2, &itt));
}

#[test]
#[should_panic(expected = "the ITT is in use: no SYNC has followed")]
fn the_model_notices_an_itt_that_is_used_again_before_a_sync() {
    let (itt, _, submit) = bare();
    for rdbase in [0, 1] {
        submit(cmd::unmapd(1));
        submit(cmd::sync(rdbase));
        submit(mapd(2, &itt));
        submit(cmd::unmapd(2));
        submit(cmd::sync(rdbase));
        submit(mapd(1, &itt));
    }
}

#[test]
#[should_panic(expected = "freed, but device 0x1 is mapped to it")]
fn the_model_notices_an_itt_that_is_freed_while_it_is_in_use() {
    let (itt, _its, _submit) = bare();
    drop(itt);
}

#[test]
#[should_panic(expected = "freed, but a MAPD that names it has not been executed")]
fn the_model_notices_an_itt_that_is_freed_before_its_mapd() {
    let (_itt, its, submit) = bare();
    let itt = Fake::alloc_table(256, 256).expect("memory");
    its.set_pace(Pace::Hang(0));
    submit(mapd(2, &itt));
    drop(itt);
}

#[test]
#[should_panic(expected = "freed, but no SYNC has followed the device's unmapping")]
fn the_model_notices_an_itt_that_is_freed_before_a_sync() {
    let (itt, _its, submit) = bare();
    submit(cmd::unmapd(1));
    // The device had an event that went elsewhere.
    submit(cmd::sync(1));
    drop(itt);
}

#[test]
fn an_itt_may_be_freed_after_a_sync() {
    let (itt, its, submit) = bare();
    submit(cmd::unmapd(1));
    submit(cmd::sync(0));
    drop(itt);
    assert_eq!(its.mapped(), (0, 0));
}

#[test]
#[should_panic(expected = "the device is mapped already")]
fn the_model_notices_a_device_that_is_mapped_twice() {
    let (_itt, _, submit) = bare();
    let itt = Fake::alloc_table(256, 256).expect("memory");
    submit(mapd(1, &itt));
}

#[test]
#[should_panic(expected = "the event is mapped already")]
fn the_model_notices_an_event_that_is_mapped_twice() {
    let (_itt, _, submit) = bare();
    submit(cmd::mapti(1, 0, 8193, 0));
}

#[test]
#[should_panic(expected = "no SYNC has followed the INV")]
fn the_model_notices_a_missing_sync_after_an_inv() {
    let (_itt, its, submit) = bare();
    submit(cmd::inv(1, 0));
    submit(cmd::sync(1));
    its.check_properties();
}

#[test]
#[should_panic(expected = "was disabled without an INV")]
fn the_model_notices_a_missing_inv_of_what_is_disabled() {
    let (_itt, its, _) = bare();
    Fake::set_host_enabled(Lpi::MIN, false);
    its.check_properties();
}

#[test]
#[should_panic(expected = "is overwritten, but has not been executed")]
fn the_model_notices_a_slot_that_is_overwritten() {
    let (_itt, its, submit) = bare();
    its.set_pace(Pace::Hang(0));
    submit(cmd::sync(0));
    // That was the sixth command.
    its.write_command(5 * 32, &cmd::sync(1).encode());
}

#[test]
#[should_panic(expected = "is past slot 5, which was not written")]
fn the_model_notices_a_slot_that_was_not_written() {
    let (_itt, its, _) = bare();
    its.set_cwriter(6 * 32);
}

#[test]
#[should_panic(expected = "GITS_CWRITER passes GITS_CREADR")]
fn the_model_notices_a_queue_that_overflows() {
    let (_itt, its, submit) = bare();
    its.set_pace(Pace::Hang(0));
    submit(cmd::sync(0));
    its.set_cwriter(5 * 32);
}

/// Commands that a real ITS may ignore, without a word.
#[test]
fn the_model_notices_commands_that_make_no_sense() {
    let size = EventBits::new(17).expect("few");
    let large = Command::Mapd { device: DeviceId::new(2), size, itt: GuestPa::new(0), valid: true };
    let far = Fake::alloc_table(256, 256).expect("memory");
    for (command, why) in [
        (mapd(1 << 16, &far), "DeviceID out of range"),
        (large, "Size"),
        (cmd::mapti(1, 1, 8193, 2), "the collection is not mapped"),
        (cmd::mapti(1, 1, 8191, 0), "no LPI"),
        (cmd::mapti(2, 0, 8193, 0), "the device is not mapped"),
        (cmd::mapti(1, 32, 8193, 0), "EventID out of range"),
        (cmd::movi(1, 0, 2), "the collection is not mapped"),
        (cmd::movi(1, 1, 0), "event not mapped"),
        (cmd::discard(2, 0), "the device is not mapped"),
        (cmd::discard(1, 1), "not mapped"),
        (cmd::inv(1, 1), "the event is not mapped"),
        (cmd::clear(1, 1), "the event is not mapped"),
        (cmd::sync(2), "no collection is mapped there"),
    ] {
        let (_itt, _its, submit) = bare();
        let noticed = catch_unwind(AssertUnwindSafe(|| submit(command)));
        let said = noticed.expect_err("it is noticed").downcast::<String>();
        let said = said.expect("it is said what is wrong");
        assert!(said.starts_with("host ITS") && said.contains(why), "{command:?}: {said}");
    }
}

#[test]
#[should_panic(expected = "reserved bits are set in Discard")]
fn the_model_notices_reserved_bits() {
    let (_itt, its, _) = bare();
    let mut raw = cmd::discard(1, 0).encode();
    raw.0[3] = 1;
    its.write_command(5 * 32, &raw);
    its.set_cwriter(6 * 32);
}

#[test]
#[should_panic(expected = "command written at 0x1000 of a queue of 0x1000")]
fn the_model_notices_a_command_past_the_queue() {
    let (_itt, its, _) = bare();
    its.write_command(4096, &cmd::sync(0).encode());
}

#[test]
#[should_panic(expected = "command written at 0xb0 of a queue of 0x1000")]
fn the_model_notices_a_command_between_two_slots() {
    let (_itt, its, _) = bare();
    its.write_command(5 * 32 + 16, &cmd::sync(0).encode());
}

#[test]
#[should_panic(expected = "GITS_CWRITER = 0x1000, queue of 0x1000")]
fn the_model_notices_a_cwriter_past_the_queue() {
    let (_itt, its, _) = bare();
    its.set_cwriter(4096);
}
