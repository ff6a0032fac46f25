// SPDX-License-Identifier: GPL-2.0-only
//! The ITS commands, one in a batch and sixteen in a batch: what a further one
//! costs is a fifteenth of the difference.

use super::{Bench, D, L, TIMES, drain};
use crate::bed::{Bed, Fail};
use crate::its::{self, Cmd};

/// A device whose EventIDs reach up to LPIs, for MAPI.
const WIDE: u32 = D + 1;
/// The first of sixteen devices for MAPD.
const MORE: u32 = D + 16;
const BATCHES: [u32; 2] = [1, 16];

/// A command that is measured.
struct Command {
    name: &'static str,
    /// What has to be done before number n of a batch can be.
    before: fn(&Bed, u32) -> Cmd,
    /// And after that.
    then: Option<fn(u32) -> Cmd>,
    command: fn(&Bed, u32) -> Cmd,
}

const fn new(
    name: &'static str,
    before: fn(&Bed, u32) -> Cmd,
    command: fn(&Bed, u32) -> Cmd,
) -> Command {
    Command { name, before, then: None, command }
}

fn mapd(bed: &Bed, n: u32) -> Cmd {
    its::mapd(MORE + n, bed.its.itt(MORE + n), 5)
}

fn unmapd(_: &Bed, n: u32) -> Cmd {
    its::unmapd(MORE + n)
}

fn mapc(bed: &Bed, n: u32) -> Cmd {
    its::mapc(16 + n as u16, bed.its.rdbase[0])
}

fn unmapc(_: &Bed, n: u32) -> Cmd {
    its::unmapc(16 + n as u16)
}

fn mapti(_: &Bed, n: u32) -> Cmd {
    its::mapti(D, n, L + n, 0)
}

fn discard(_: &Bed, n: u32) -> Cmd {
    its::discard(D, n)
}

fn sync(bed: &Bed, _: u32) -> Cmd {
    its::sync(bed.its.rdbase[0])
}

const COMMANDS: &[Command] = &[
    new("MAPD", unmapd, mapd),
    new("MAPD,V=0", mapd, unmapd),
    new("MAPTI", discard, mapti),
    new("MAPI", |_, n| its::discard(WIDE, 9000 + n), |_, n| its::mapi(WIDE, 9000 + n, 0)),
    new("MOVI", mapti, |_, n| its::movi(D, n, 15)),
    new("DISCARD", mapti, discard),
    new("INV", mapti, |_, n| its::inv(D, n)),
    new("INT", mapti, |_, n| its::int(D, n)),
    Command { then: Some(int), ..new("INT,pending", mapti, |_, n| its::int(D, n)) },
    new("CLEAR", mapti, |_, n| its::clear(D, n)),
    Command { then: Some(int), ..new("CLEAR,pending", mapti, |_, n| its::clear(D, n)) },
    new("INVALL", sync, |_, _| its::invall(0)),
    new("SYNC", sync, sync),
    new("error", discard, |_, n| its::inv(D, n)),
    // From these on, LPIs may be pending where they are not mapped: that can make other commands
    // cost more, for good.
    new("MAPC", unmapc, mapc),
    new("MAPC,again", mapc, mapc),
    new("MAPC,V=0", mapc, unmapc),
    new("MOVALL", sync, |bed, _| its::movall(bed.its.rdbase[0], bed.its.rdbase[0])),
    new("INV,late", mapti, |_, n| its::inv(D, n)),
    new("INVALL,late", sync, |_, _| its::invall(0)),
];

fn int(n: u32) -> Cmd {
    its::int(D, n)
}

/// Every command, first and further.
pub fn all(bench: &mut Bench) -> Result<(), Fail> {
    bench.bed.run(&[
        its::mapc(15, bench.bed.its.rdbase[0]),
        bench.bed.device(D),
        its::mapd(WIDE, bench.bed.its.itts + (1 << 18), 14),
    ])?;
    for command in COMMANDS {
        for size in BATCHES {
            bench.batch(
                TIMES,
                format_args!("command/{}/{size}", command.name),
                |bed, _| {
                    bed.run_many((0..16).map(|n| discard(bed, n)))?;
                    bed.run_many((0..size).map(|n| (command.before)(bed, n)))?;
                    bed.run_many((0..size).filter_map(|n| Some(command.then?(n))))
                },
                |bed| (0..size).for_each(|n| bed.its.put((command.command)(bed, n))),
                |_| {
                    drain();
                    Ok(())
                },
            )?;
        }
        // What was mapped for one command may be in the way of another.
        bench.bed.run_many((0..16).flat_map(|n| [its::unmapd(MORE + n), its::discard(D, n)]))?;
        bench.bed.run_many((0..16).map(|n| its::discard(WIDE, 9000 + n)))?;
    }
    Ok(())
}

/// A thousand MAPTI in one batch.
pub fn thousand(bench: &mut Bench) -> Result<(), Fail> {
    let itts = bench.bed.its.itts;
    bench.batch(
        4,
        format_args!("command/MAPTI/1000"),
        |bed, _| bed.run(&[its::unmapd(D), its::mapd(D, itts, 10)]),
        |bed| (0..1000).for_each(|n| bed.its.put(its::mapti(D, n, L + n, 0))),
        |_| Ok(()),
    )
}

/// Devices come and go, with none and with all of their events mapped.
pub fn devices(bench: &mut Bench) -> Result<(), Fail> {
    let itts = bench.bed.its.itts;
    for bits in [5, 11] {
        let events = 1 << bits;
        bench.batch(
            4,
            format_args!("device/map/{events}"),
            |bed, _| bed.run(&[its::unmapd(D)]),
            |bed| bed.its.put(its::mapd(D, itts, bits)),
            |_| Ok(()),
        )?;
        for (what, mapped) in [("none", 0), ("all", events)] {
            bench.batch(
                4,
                format_args!("device/unmap/{events}/{what}-mapped"),
                |bed, _| {
                    bed.run(&[its::mapd(D, itts, bits)])?;
                    bed.run_many((0..mapped).map(|n| its::mapti(D, n, L + n, 0)))
                },
                |bed| bed.its.put(its::unmapd(D)),
                |_| Ok(()),
            )?;
        }
    }
    Ok(())
}
