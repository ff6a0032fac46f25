// SPDX-License-Identifier: GPL-2.0-only
//! What the fuzzer sends: commands of each kind by weight, for few devices,
//! events, LPIs and collections, so that they meet each other.

use crate::bed::Bed;
use crate::its::{self, Cmd};

/// A generator of numbers: splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Mostly below `limit`, seldom anything.
    fn mostly(&mut self, limit: u64) -> u64 {
        if self.once_in(64) { self.next() } else { self.below(limit) }
    }
}

/// Devices that are always there, but for short times, and the events of each.
const DEVICES: u64 = 4;
const EVENTS: u64 = 16;
const EVENT_BITS: u32 = 4;
/// The LPIs, from 8192.
pub const LPIS: u64 = 64;

/// The kinds of commands, and how many in a thousand are of each.
const KINDS: [(&str, u64); 17] = [
    ("MAPD", 6),
    ("MAPD-other", 6),
    ("MAPD-V0", 5),
    ("MAPC", 20),
    ("MAPC-V0", 3),
    ("MAPTI", 160),
    ("MAPI", 5),
    ("MOVI", 100),
    ("MOVALL", 20),
    ("DISCARD", 20),
    ("CLEAR", 50),
    ("INT", 470),
    ("INV", 80),
    ("INVALL", 20),
    ("SYNC", 20),
    ("GICv4", 5),
    ("any-bits", 10),
];

/// Commands that were sent, by kind.
#[derive(Clone, Copy, Default)]
pub struct Sent([u64; KINDS.len()]);

impl Sent {
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub fn interrupts(&self) -> u64 {
        self.0[11]
    }

    /// Whether some of each kind were sent.
    pub fn has_all(&self) -> bool {
        self.0.iter().all(|count| *count != 0)
    }
}

impl core::fmt::Display for Sent {
    fn fmt(&self, to: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        KINDS.iter().zip(self.0).try_for_each(|((name, _), count)| write!(to, " {name}={count}"))
    }
}

/// Commands that put some order into everything: each collection has a CPU,
/// and each device is mapped with all of its events.
pub fn map_everything(bed: &Bed, random: &mut Random, sent: &mut Sent) {
    for collection in 0..=bed.cpus {
        send(bed, sent, 3, its::mapc(collection as u16, rdbase(bed, random)));
    }
    for device in 0..DEVICES {
        map_device(bed, random, sent, device as u32);
    }
}

/// MAPD, and MAPTI for each event.
fn map_device(bed: &Bed, random: &mut Random, sent: &mut Sent, device: u32) {
    // ITTs overlap and are used again without being cleared.
    send(bed, sent, 0, its::mapd(device, bed.its.itt(random.below(16) as u32), EVENT_BITS));
    for event in 0..EVENTS {
        let collection = random.below(bed.cpus as u64 + 1) as u16;
        send(bed, sent, 5, its::mapti(device, event as u32, lpi(random), collection));
    }
}

fn lpi(random: &mut Random) -> u32 {
    8192 + random.below(LPIS) as u32
}

/// Mostly a CPU's; often that of CPU 0, which is the fastest to take LPIs.
fn rdbase(bed: &Bed, random: &mut Random) -> u64 {
    let cpu = if random.once_in(3) { 0 } else { random.mostly(bed.cpus as u64) };
    bed.its.rdbase.get(cpu as usize).copied().unwrap_or(cpu) & 0xf_ffff_ffff
}

fn send(bed: &Bed, sent: &mut Sent, kind: usize, command: Cmd) {
    bed.its.put(command);
    sent.0[kind] += 1;
}

/// Puts a random command into the queue; a device that is mapped gets its
/// events as well.
pub fn send_one(bed: &Bed, random: &mut Random, sent: &mut Sent) {
    let mut left = random.below(1000);
    let kind = KINDS.iter().position(|(_, weight)| match left.checked_sub(*weight) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    });
    let kind = kind.unwrap_or(KINDS.len() - 1);
    let device = random.mostly(DEVICES) as u32;
    let event = random.mostly(EVENTS) as u32;
    let collection = random.mostly(bed.cpus as u64 + 1) as u16;
    let command = match kind {
        0 => return map_device(bed, random, sent, device % DEVICES as u32),
        1 => {
            let other = (DEVICES + random.below(200)) as u32;
            its::mapd(other, bed.its.itt(other), random.mostly(6) as u32)
        }
        2 if random.once_in(4) => its::unmapd(device),
        2 => its::unmapd((DEVICES + random.below(200)) as u32),
        3 => its::mapc(collection, rdbase(bed, random)),
        4 => its::unmapc(collection),
        5 => its::mapti(device, event, 8192 + random.mostly(LPIS) as u32, collection),
        6 => its::mapi(device, event, collection),
        7 => its::movi(device, event, collection),
        8 => its::movall(rdbase(bed, random), rdbase(bed, random)),
        9 => its::discard(device, event),
        10 => its::clear(device, event),
        11 => its::int(device, event),
        12 => its::inv(device, event),
        13 => its::invall(collection),
        14 => its::sync(rdbase(bed, random)),
        15 => [0x20 | random.below(16), random.next(), random.next(), random.next()],
        _ => [random.next(), random.next(), random.next(), random.next()],
    };
    send(bed, sent, kind, command);
}

/// A byte for the LPI configuration table: mostly enabled, one of eight priorities.
pub fn property(random: &mut Random) -> u8 {
    let enabled = u8::from(!random.once_in(6));
    (random.below(8) as u8) << 5 | 0x10 | enabled
}
