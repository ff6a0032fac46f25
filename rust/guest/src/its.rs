// SPDX-License-Identifier: GPL-2.0-only
//! Driving an ITS: registers, tables and commands.
//!
//! Commands are encoded here anew, independent of `its-arch`, so that a wrong
//! bit there cannot agree with itself.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::gic::gicr;
use crate::hw;

/// GITS_* (IHI 0069, 12.19).
pub mod reg {
    #![allow(missing_docs, reason = "the names are the architecture's")]
    pub const CTLR: u64 = 0;
    pub const IIDR: u64 = 4;
    pub const TYPER: u64 = 8;
    pub const CBASER: u64 = 0x80;
    pub const CWRITER: u64 = 0x88;
    pub const CREADR: u64 = 0x90;
    pub const BASER: u64 = 0x100;
    pub const PIDR2: u64 = 0xffe8;
    pub const TRANSLATER: u64 = 0x1_0040;
}

/// GICR_PROPBASER.IDbits: 15 INTID bits.
const ID_BITS: u64 = 14;
/// How many LPIs that is; the last is 32767.
pub const LPIS: u32 = (2 << ID_BITS) - 8192;

/// A command: DW0 to DW3.
pub type Cmd = [u64; 4];

const VALID: u64 = 1 << 63;
/// Inner Shareable, write-back.
const MEMORY: u64 = (7 << 59) | (1 << 10);

/// MAPD: `bits` EventID bits.
pub fn mapd(device: u32, itt: u64, bits: u32) -> Cmd {
    [8 | u64::from(device) << 32, u64::from(bits.wrapping_sub(1) & 31), VALID | itt, 0]
}
/// MAPD V=0.
pub fn unmapd(device: u32) -> Cmd {
    [8 | u64::from(device) << 32, 0, 0, 0]
}
/// MAPC.
pub fn mapc(collection: u16, rdbase: u64) -> Cmd {
    [9, 0, VALID | rdbase << 16 | u64::from(collection), 0]
}
/// MAPC V=0.
pub fn unmapc(collection: u16) -> Cmd {
    [9, 0, u64::from(collection), 0]
}
/// MAPTI.
pub fn mapti(device: u32, event: u32, lpi: u32, collection: u16) -> Cmd {
    [10 | u64::from(device) << 32, u64::from(event) | u64::from(lpi) << 32, collection.into(), 0]
}
/// MAPI.
pub fn mapi(device: u32, event: u32, collection: u16) -> Cmd {
    [11 | u64::from(device) << 32, event.into(), collection.into(), 0]
}
/// MOVI.
pub fn movi(device: u32, event: u32, collection: u16) -> Cmd {
    [1 | u64::from(device) << 32, event.into(), collection.into(), 0]
}
/// MOVALL.
pub fn movall(from: u64, to: u64) -> Cmd {
    [14, 0, from << 16, to << 16]
}
/// DISCARD.
pub fn discard(device: u32, event: u32) -> Cmd {
    [15 | u64::from(device) << 32, event.into(), 0, 0]
}
/// CLEAR.
pub fn clear(device: u32, event: u32) -> Cmd {
    [4 | u64::from(device) << 32, event.into(), 0, 0]
}
/// INT.
pub fn int(device: u32, event: u32) -> Cmd {
    [3 | u64::from(device) << 32, event.into(), 0, 0]
}
/// INV.
pub fn inv(device: u32, event: u32) -> Cmd {
    [12 | u64::from(device) << 32, event.into(), 0, 0]
}
/// INVALL.
pub fn invall(collection: u16) -> Cmd {
    [13, 0, collection.into(), 0]
}
/// SYNC.
pub fn sync(rdbase: u64) -> Cmd {
    [5, 0, rdbase << 16, 0]
}

/// The ITS and where its tables are.
pub struct Its {
    /// Address of the control frame.
    pub base: u64,
    /// The memory for queues, 1 MB.
    pub queue_home: u64,
    /// The queue that is in use.
    pub queue: u64,
    /// The device table.
    pub devices: u64,
    /// Its size in bytes.
    pub devices_size: u64,
    /// The collection table, 64 KB.
    pub collections: u64,
    /// The LPI configuration table.
    pub properties: u64,
    /// The ITTs, 1 MB.
    pub itts: u64,
    /// GITS_BASER with type 1, and type 4.
    pub baser: [u64; 2],
    /// Bytes of the queue in use.
    pub queue_size: u64,
    /// RDbase as commands name it, for each CPU.
    pub rdbase: [u64; crate::boot::MAX_CPUS],
    /// Where the next command goes.
    pub tail: AtomicU64,
    /// Devices that were mapped, a bit for each of the first 8192.
    pub mapped: [AtomicU64; 128],
}

/// A block of memory at `address` becomes zero.
pub fn zero(address: u64, size: u64) {
    fill(address, size, 0);
}

/// A block of memory becomes this word.
pub fn fill(address: u64, size: u64, word: u64) {
    for at in (address..address + size).step_by(8) {
        // SAFETY: callers name memory of the arena only.
        unsafe { (at as *mut u64).write_volatile(word) };
    }
    hw::barrier();
}

impl Its {
    /// Reads a register of 64 bits.
    pub fn read(&self, register: u64) -> u64 {
        hw::read64(self.base + register)
    }
    /// Writes a register of 64 bits.
    pub fn write(&self, register: u64, value: u64) {
        hw::write64(self.base + register, value);
    }

    /// Switches it off, and waits until it is quiescent. False if it never is.
    pub fn disable(&self) -> bool {
        self.switch_off();
        hw::wait(2000, || hw::read32(self.base + reg::CTLR) & 0x8000_0000 != 0)
    }

    /// Switches it off, whatever it is doing.
    pub fn switch_off(&self) {
        hw::write32(self.base + reg::CTLR, 0);
    }

    /// Switches it on.
    pub fn enable(&self) {
        hw::write32(self.base + reg::CTLR, 1);
    }

    /// Sets up an empty command queue of `pages` times 4 KB there.
    pub fn set_queue(&mut self, at: u64, pages: u64) {
        self.write(reg::CBASER, VALID | MEMORY | at | (pages - 1));
        self.write(reg::CWRITER, 0);
        self.queue_size = pages * 4096;
        self.tail.store(0, Ordering::Relaxed);
    }

    /// GITS_BASER for the table `which` (0: devices, 1: collections) there.
    pub fn set_table(&self, which: usize, at: u64, size: u64, valid: bool) {
        let Some(register) = self.baser.get(which) else { return };
        let page_size = self.read(*register) & 0x300;
        let shift = match page_size {
            0 => 12,
            0x100 => 14,
            _ => 16,
        };
        let valid = if valid { VALID } else { 0 };
        self.write(*register, valid | MEMORY | page_size | at | ((size >> shift) - 1));
    }

    /// Sets everything up from the start: nothing is mapped, empty tables.
    pub fn reset(&mut self) -> bool {
        self.unmap_devices();
        let quiet = self.disable();
        self.set_table(0, self.devices, self.devices_size, false);
        self.set_table(1, self.collections, 0x1_0000, false);
        zero(self.devices, self.devices_size);
        zero(self.collections, 0x1_0000);
        zero(self.itts, 1 << 20);
        self.set_table(0, self.devices, self.devices_size, true);
        self.set_table(1, self.collections, 0x1_0000, true);
        self.queue = self.queue_home;
        self.set_queue(self.queue, 256);
        self.enable();
        quiet
    }

    /// Unmaps what a case has left mapped: an ITS may keep devices when
    /// GITS_BASER.Valid is cleared. If commands can be executed at all.
    fn unmap_devices(&self) {
        let on = hw::read32(self.base + reg::CTLR) & 1 != 0;
        let own = self.read(reg::CBASER) & 0x000f_ffff_ffff_f000 == self.queue;
        let idle = self.read(reg::CREADR) == self.tail.load(Ordering::Relaxed);
        for (n, word) in (0..).zip(&self.mapped) {
            let bits = word.swap(0, Ordering::Relaxed);
            if on && own && idle {
                (0..64).filter(|b| bits & (1 << b) != 0).for_each(|b| self.put(unmapd(n * 64 + b)));
            }
        }
        if on && own && idle {
            self.ring();
            self.wait(1000);
        }
    }

    /// Puts a command into the queue; the ITS is not told yet.
    pub fn put(&self, command: Cmd) {
        let device = (command[0] >> 32) as usize;
        if let (8, Some(word)) = (command[0] & 0xff, self.mapped.get(device / 64)) {
            let bit = 1 << (device % 64);
            if command[2] & VALID != 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            } else {
                word.fetch_and(!bit, Ordering::Relaxed);
            }
        }
        let tail = self.tail.load(Ordering::Relaxed);
        for (at, word) in (self.queue + tail..).step_by(8).zip(command) {
            // SAFETY: the queue is memory of the arena.
            unsafe { (at as *mut u64).write_volatile(word) };
        }
        self.tail.store((tail + 32) % self.queue_size, Ordering::Relaxed);
    }

    /// Tells the ITS of what was put into the queue.
    pub fn ring(&self) {
        hw::barrier();
        self.write(reg::CWRITER, self.tail.load(Ordering::Relaxed));
    }

    /// Waits until everything is executed. False after `milliseconds`.
    pub fn wait(&self, milliseconds: u64) -> bool {
        hw::wait(milliseconds, || self.read(reg::CREADR) == self.tail.load(Ordering::Relaxed))
    }

    /// Executes these commands.
    pub fn run(&self, commands: &[Cmd]) -> bool {
        commands.iter().for_each(|command| self.put(*command));
        self.ring();
        self.wait(10_000)
    }

    /// The byte of an LPI in the configuration table: priority, and bit 0 if enabled.
    pub fn property(&self, lpi: u32, value: u8) {
        let at = self.properties + u64::from(lpi - 8192);
        // SAFETY: the table has room for `LPIS`, and callers name those.
        unsafe { (at as *mut u8).write_volatile(value) };
        hw::barrier();
    }

    /// The ITT number `n`, with 256 bytes for each of 4096 of them.
    pub fn itt(&self, n: u32) -> u64 {
        self.itts + u64::from(n) * 256 % (1 << 20)
    }
}

/// Gives a redistributor its LPI tables, and enables LPIs there (IHI 0069, 12.11).
pub fn enable_lpis(redistributor: u64, properties: u64, pending: u64, ptz: bool) {
    enable_some_lpis(redistributor, properties, pending, ptz, ID_BITS);
}

/// The same with this in GICR_PROPBASER.IDbits.
pub fn enable_some_lpis(redistributor: u64, properties: u64, pending: u64, ptz: bool, idbits: u64) {
    hw::write64(redistributor + gicr::PROPBASER, properties | (1 << 10) | (7 << 7) | idbits);
    let ptz = if ptz { 1 << 62 } else { 0 };
    hw::write64(redistributor + gicr::PENDBASER, pending | (1 << 10) | (7 << 7) | ptz);
    hw::write32(redistributor + gicr::CTLR, 1);
}
