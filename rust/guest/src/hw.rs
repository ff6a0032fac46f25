// SPDX-License-Identifier: GPL-2.0-only
//! System registers, MMIO, firmware calls and the identity map.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Reads a system register.
macro_rules! mrs {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: reading the registers that are used here has no side effect
        // but those that the architecture gives them, none of them on memory.
        unsafe { core::arch::asm!(concat!("mrs {}, ", $register), out(reg) value) };
        value
    }};
}
/// Writes a system register, and waits until it has taken effect.
macro_rules! msr {
    ($register:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the registers that are written here are those of the
        // interrupt interface and of the identity map.
        unsafe { core::arch::asm!(concat!("msr ", $register, ", {}"), "isb", in(reg) value) };
    }};
}
pub(crate) use {mrs, msr};

/// The number of this CPU.
pub fn cpu() -> usize {
    mrs!("tpidr_el1") as usize
}

/// Ticks of the counter since some time.
pub fn now() -> u64 {
    mrs!("cntvct_el0")
}

/// Ticks for this many milliseconds.
pub fn ms(milliseconds: u64) -> u64 {
    mrs!("cntfrq_el0") / 1000 * milliseconds
}

/// All earlier memory accesses are complete.
pub fn barrier() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", "isb") };
}

/// Waits for an event, or a while.
pub fn relax() {
    core::hint::spin_loop();
}

macro_rules! mmio {
    ($read:ident, $write:ident, $type:ty, $ld:literal, $st:literal) => {
        /// Reads a device register by an instruction that a hypervisor can emulate.
        pub fn $read(address: u64) -> $type {
            let value: u64;
            // SAFETY: callers name device registers; a bad one is an
            // exception, which is reported.
            unsafe { asm!($ld, v = out(reg) value, a = in(reg) address) };
            value as $type
        }
        /// Writes a device register so.
        pub fn $write(address: u64, value: $type) {
            let value = u64::from(value);
            // SAFETY: as for reading. The barrier is for tables that the
            // device reads because of this write.
            unsafe { asm!("dsb sy", $st, v = in(reg) value, a = in(reg) address) };
        }
    };
}
mmio!(read16, write16, u16, "ldrh {v:w}, [{a}]", "strh {v:w}, [{a}]");
mmio!(read32, write32, u32, "ldr {v:w}, [{a}]", "str {v:w}, [{a}]");
mmio!(read64, write64, u64, "ldr {v}, [{a}]", "str {v}, [{a}]");

/// Calls the firmware, or the hypervisor in its place.
pub fn psci(hvc: bool, function: u64, a: u64, b: u64, c: u64) -> i64 {
    let mut x0 = function;
    // SAFETY: an SMCCC call, which keeps x18 and above.
    unsafe {
        if hvc {
            asm!("hvc #0", inout("x0") x0, inout("x1") a => _, inout("x2") b => _,
                 inout("x3") c => _, out("x4") _, out("x5") _, out("x6") _, out("x7") _,
                 out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _,
                 out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _);
        } else {
            asm!("smc #0", inout("x0") x0, inout("x1") a => _, inout("x2") b => _,
                 inout("x3") c => _, out("x4") _, out("x5") _, out("x6") _, out("x7") _,
                 out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _,
                 out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _);
        }
    }
    x0.cast_signed()
}

/// Xen's console hypercall: writes these bytes.
pub fn xen_console(bytes: &[u8]) {
    // SAFETY: a hypercall that reads `bytes`; only x0 and x16 change.
    unsafe {
        asm!("hvc #0xea1", inout("x0") 0u64 => _, in("x1") bytes.len(), in("x2") bytes.as_ptr(),
             inout("x16") 18u64 => _);
    }
}

#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

/// The only translation table: 1 GB blocks, 39 bits of address.
static MAP: Table = Table([const { AtomicU64::new(0) }; 512]);

/// Maps the gigabytes from `start` to `end`. False if one is mapped as
/// something else already, or beyond the map.
pub fn map(start: u64, end: u64, device: bool) -> bool {
    let attributes: u64 = if device { (3 << 53) | 0x401 } else { 0x701 | (1 << 2) };
    let mut good = true;
    for gigabyte in (start >> 30)..=((end - 1) >> 30) {
        let entry = (gigabyte << 30) | attributes;
        let Some(slot) = MAP.0.get(gigabyte as usize) else { return false };
        let old = slot.swap(entry, Ordering::Relaxed);
        good &= old == 0 || old == entry;
    }
    good
}

/// Turns the identity map and the caches on, for this CPU.
pub fn mmu_on() {
    msr!("mair_el1", 0xff04);
    msr!("tcr_el1", 25 | (1 << 8) | (1 << 10) | (3 << 12) | (1 << 23) | (2 << 32));
    msr!("ttbr0_el1", (&raw const MAP) as u64);
    // SAFETY: code and data are mapped where they are.
    unsafe { asm!("tlbi vmalle1", "ic iallu", "dsb sy", "isb") };
    msr!("sctlr_el1", 0x30d0_0800 | (1 << 12) | (1 << 2) | 1);
}

/// A data abort may come: an access is then left out, and no harm is done.
pub static EXPECTED: AtomicBool = AtomicBool::new(false);
/// Data aborts that came all the same.
pub static ABORTS: AtomicU64 = AtomicU64::new(0);
/// The address of the last of these.
pub static ABORT_AT: AtomicU64 = AtomicU64::new(0);
