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

/// Waits for something. False after that many milliseconds.
pub fn wait(milliseconds: u64, mut done: impl FnMut() -> bool) -> bool {
    let start = now();
    while !done() {
        if now() - start > ms(milliseconds) {
            return done();
        }
        core::hint::spin_loop();
    }
    true
}

/// Sleeps until an interrupt is pending, masked or not.
pub fn sleep() {
    // SAFETY: WFI changes nothing.
    unsafe { asm!("dsb sy", "wfi") };
}

/// Has the virtual timer of this CPU fire at once.
pub fn start_timer() {
    msr!("cntv_tval_el0", 0);
    msr!("cntv_ctl_el0", 1);
}

/// It fires no more.
pub fn stop_timer() {
    msr!("cntv_ctl_el0", 0);
}

/// Lets other CPUs go first, where one thread of an emulator runs them all.
pub fn give_way() {
    // SAFETY: a hint.
    unsafe { asm!("yield") };
}

/// Lets interrupts come by vector; what is pending comes at once.
pub fn unmask_irqs() {
    // SAFETY: the vector saves what it changes. The barrier is where a pending
    // interrupt is taken.
    unsafe { asm!("msr daifclr, #2", "isb") };
}

/// Holds interrupts back.
pub fn mask_irqs() {
    // SAFETY: a mask bit.
    unsafe { asm!("msr daifset, #2") };
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
mmio!(read8, write8, u8, "ldrb {v:w}, [{a}]", "strb {v:w}, [{a}]");
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

/// Calls Xen.
///
/// # Safety
/// The call must not write memory that Rust knows of.
unsafe fn hypercall(number: u64, a: u64, b: u64, c: u64) -> u64 {
    let mut x0 = a;
    // SAFETY: as the caller says. A debug build of Xen spoils the registers
    // that arguments may be in.
    unsafe {
        asm!("hvc #0xea1", inout("x0") x0, inout("x1") b => _, inout("x2") c => _, out("x3") _,
             out("x4") _, out("x5") _, inout("x16") number => _);
    }
    x0
}

/// Xen's console hypercall: writes these bytes.
pub fn xen_console(bytes: &[u8]) {
    // SAFETY: a hypercall that reads `bytes`.
    unsafe { hypercall(18, 0, bytes.len() as u64, bytes.as_ptr() as u64) };
}

/// A hypercall that does next to nothing: asks Xen for its version.
pub fn xen_version() -> u64 {
    // SAFETY: XENVER_version takes no memory.
    unsafe { hypercall(17, 0, 0, 0) }
}

/// `struct xen_sysctl` of Xen's public headers, as far as debug keys need it.
#[repr(C)]
struct Sysctl {
    command: u32,
    version: u32,
    keys: u64,
    count: u32,
    rest: [u32; 29],
}

/// Has Xen do what it does for a key on its console. Only the hardware domain may.
pub fn xen_debug_key(key: u8) {
    let keys = &raw const key;
    // The version of 4.20, and its successor's.
    for version in [0x15, 0x16] {
        let call = Sysctl { command: 7, version, keys: keys as u64, count: 1, rest: [0; 29] };
        // SAFETY: this one reads `call` and `key`.
        if unsafe { hypercall(35, &raw const call as u64, 0, 0) } == 0 {
            return;
        }
    }
}

/// The domain that calls, where a hypercall names one.
const SELF: u16 = 0x7ff0;
/// `HYPERVISOR_memory_op`.
const MEMORY_OP: u64 = 12;

/// `struct xen_memory_reservation`, `struct xen_remove_from_physmap` and `struct
/// xen_add_to_physmap`.
#[repr(C)]
struct Reservation {
    extents: u64,
    count: u64,
    order: u32,
    flags: u32,
    domain: u16,
}
#[repr(C)]
struct Removal {
    domain: u16,
    page: u64,
}
#[repr(C)]
struct Addition {
    domain: u16,
    size: u16,
    space: u32,
    index: u64,
    page: u64,
}

/// Takes the page at `address` out of this domain's memory, as a balloon driver
/// does if `balloon`. False if Xen does not want to.
///
/// # Safety
/// Nobody uses the page before it is back.
pub unsafe fn page_away(address: u64, balloon: bool) -> bool {
    let page = address >> 12;
    if balloon {
        return reserve(1, page);
    }
    let call = Removal { domain: SELF, page };
    // SAFETY: XENMEM_remove_from_physmap reads `call`.
    unsafe { hypercall(MEMORY_OP, 15, &raw const call as u64, 0) == 0 }
}

/// Brings back a page that is away, or in whose place is one of Xen's.
pub fn page_back(address: u64) -> bool {
    reserve(6, address >> 12)
}

/// XENMEM_decrease_reservation (1) or XENMEM_populate_physmap (6) of one page.
fn reserve(operation: u64, page: u64) -> bool {
    let extents = &raw const page as u64;
    let call = Reservation { extents, count: 1, order: 0, flags: 0, domain: SELF };
    // SAFETY: this reads `call` and `page`.
    unsafe { hypercall(MEMORY_OP, operation, &raw const call as u64, 0) == 1 }
}

/// Puts a page of Xen's there: the shared info page (space 0), or one of the
/// grant table (1).
///
/// # Safety
/// As for `page_away`.
pub unsafe fn page_of_xen(address: u64, space: u32) -> bool {
    let call = Addition { domain: SELF, size: 0, space, index: 0, page: address >> 12 };
    // SAFETY: XENMEM_add_to_physmap reads `call`.
    unsafe { hypercall(MEMORY_OP, 7, &raw const call as u64, 0) == 0 }
}

/// Tells Xen that a PCI function of segment 0 came, or went: PHYSDEVOP_pci_device_add
/// and _remove. What it answers.
pub fn announce(function: u16, here: bool) -> i64 {
    let [devfn, bus] = function.to_le_bytes();
    let call = [u32::from_le_bytes([0, 0, bus, devfn]), 0, 0, 0];
    let operation = if here { 25 } else { 26 };
    // SAFETY: this reads `call`.
    unsafe { hypercall(33, operation, &raw const call as u64, 0) }.cast_signed()
}

/// Has Xen block this vCPU until something wakes it (SCHEDOP_block). That unmasks
/// interrupts.
pub fn block() {
    // SAFETY: this takes no memory.
    unsafe { hypercall(29, 1, 0, 0) };
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
