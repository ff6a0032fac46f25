// SPDX-License-Identifier: GPL-2.0-only
//! A bare-metal arm64 guest that drives a GICv3 ITS and reports in TAP.
//!
//! The same image runs as Dom0's kernel under Xen and natively on QEMU; it finds
//! out from the device tree. `its.test=GLOB[,GLOB]` on the command line picks
//! cases, `its.from=N` leaves out those before number N. `its.seed=N`, `its.seeds=N`
//! and `its.fuzz=N` are the fuzzer's first seed, how many it uses, and how many
//! commands it sends with each of them. `its.rate=N` says what Xen was told by
//! `its-lpi-rate=N`. `its.bench=GLOB[,GLOB]` has it measure
//! instead of testing (see `bench`).
#![no_std]
#![no_main]

mod bed;
mod bench;
mod boot;
mod cases;
mod console;
mod cpus;
mod edu;
mod fdt;
mod gic;
mod hw;
mod its;

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use console::say;
use hw::mrs;

/// PSCI by HVC, for the end.
static HVC: AtomicBool = AtomicBool::new(true);

#[unsafe(no_mangle)]
extern "C" fn rust_main(device_tree: u64) -> ! {
    let Some(machine) = fdt::parse(device_tree) else { power_off() };
    HVC.store(machine.hvc, Ordering::Relaxed);
    let mut mapped = true;
    for (start, size) in machine.memory.iter().take(machine.memories) {
        mapped &= hw::map(*start, start + size, false);
    }
    let devices = [machine.gicd, machine.its, machine.uart, machine.pci, machine.pci_window];
    for (start, size) in devices.into_iter().chain(machine.gicr) {
        if size != 0 {
            mapped &= hw::map(start, start + size, true);
        }
    }
    hw::mmu_on();
    console::init(machine.xen, machine.uart.0);
    say!("TAP version 13");
    if !mapped {
        say!("Bail out! memory and devices share a gigabyte, or are beyond 512 GB");
        power_off();
    }
    match cases::option(&machine, "its.bench") {
        Some(chosen) => bench::run(&machine, chosen),
        None => cases::run(&machine),
    }
    say!("XENITS-GUEST: done");
    power_off();
}

#[unsafe(no_mangle)]
extern "C" fn rust_secondary(_context: u64, number: u64) -> ! {
    hw::mmu_on();
    cpus::secondary(number as usize)
}

#[unsafe(no_mangle)]
extern "C" fn rust_exception(vector: u64) {
    if vector == 5 {
        return cpus::on_irq();
    }
    let syndrome = mrs!("esr_el1");
    let pc = mrs!("elr_el1");
    // A data abort from EL1 at a register: the access is left out, and the case
    // that did it fails unless it expects as much.
    if vector == 4 && syndrome >> 26 == 0x25 && mrs!("far_el1") < 1 << 30 {
        if !hw::EXPECTED.load(Ordering::Relaxed) {
            hw::ABORTS.fetch_add(1, Ordering::Relaxed);
            hw::ABORT_AT.store(mrs!("far_el1"), Ordering::Relaxed);
        }
        hw::msr!("elr_el1", pc + 4);
        return;
    }
    say!(
        "Bail out! exception {vector} on CPU {}: ESR {syndrome:#x} PC {:#x} FAR {:#x}",
        hw::cpu(),
        pc.wrapping_sub(boot::load_address()),
        mrs!("far_el1")
    );
    power_off();
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("Bail out! {info}");
    power_off();
}

/// Ends the machine, or the domain.
fn power_off() -> ! {
    loop {
        hw::psci(HVC.load(Ordering::Relaxed), 0x8400_0008, 0, 0, 0);
    }
}
