// SPDX-License-Identifier: GPL-2.0-only
//! The distributor, the redistributors and the CPU interface: as much as LPIs need.

use crate::fdt::Machine;
use crate::hw::{self, mrs, msr};

/// INTID of "nothing is pending".
pub const SPURIOUS: u32 = 1023;

/// `GICR_CTLR`, `GICR_TYPER`, `GICR_PROPBASER`, `GICR_PENDBASER`, `GICR_INVLPIR`,
/// `GICR_INVALLR` (IHI 0069, 12.11).
pub mod gicr {
    #![allow(missing_docs, reason = "the names are the architecture's")]
    pub const CTLR: u64 = 0x0;
    pub const TYPER: u64 = 0x8;
    pub const WAKER: u64 = 0x14;
    pub const PROPBASER: u64 = 0x70;
    pub const PENDBASER: u64 = 0x78;
    pub const SETLPIR: u64 = 0x40;
    pub const CLRLPIR: u64 = 0x48;
    pub const INVLPIR: u64 = 0xa0;
    pub const INVALLR: u64 = 0xb0;
    pub const SYNCR: u64 = 0xc0;
    /// In the SGI_base frame.
    pub const IGROUPR0: u64 = 0x1_0080;
    pub const ISENABLER0: u64 = 0x1_0100;
    pub const ICENABLER0: u64 = 0x1_0180;
    pub const IPRIORITYR0: u64 = 0x1_0400;
}

/// Switches the distributor on for Group 1.
pub fn init_distributor(machine: &Machine) {
    let ctlr = machine.gicd.0;
    hw::write32(ctlr, 0);
    // ARE first: the groups may then be enabled with affinity routing.
    hw::write32(ctlr, 1 << 4);
    hw::write32(ctlr, (1 << 4) | 3);
}

/// The RD_base frame of the CPU with this MPIDR.
pub fn find_redistributor(machine: &Machine, mpidr: u64) -> Option<u64> {
    let wanted = (mpidr & 0xff_ffff) | ((mpidr >> 8) & 0xff00_0000);
    for (start, size) in machine.gicr.iter().take(machine.gicrs) {
        let mut frame = *start;
        while frame + 0x2_0000 <= start + size {
            let typer = hw::read64(frame + gicr::TYPER);
            if typer >> 32 == wanted {
                return Some(frame);
            }
            // VLPIS: two more frames.
            frame += if typer & 2 != 0 { 0x4_0000 } else { 0x2_0000 };
            if typer & 0x10 != 0 {
                break;
            }
        }
    }
    None
}

/// The SGI that wakes a CPU. It is never taken for an interrupt.
const WAKE: u32 = 0;

/// Makes this CPU's interface take Group 1 interrupts of any priority, and the
/// SGI that wakes it.
pub fn init_cpu(redistributor: u64) {
    hw::write32(redistributor + gicr::WAKER, hw::read32(redistributor + gicr::WAKER) & !2);
    let start = hw::now();
    while hw::read32(redistributor + gicr::WAKER) & 4 != 0 && hw::now() - start < hw::ms(500) {}
    let sgi = redistributor + gicr::IGROUPR0;
    hw::write32(sgi, hw::read32(sgi) | 1 << WAKE);
    hw::write32(redistributor + gicr::IPRIORITYR0, 0);
    hw::write32(redistributor + gicr::ISENABLER0, 1 << WAKE);
    msr!("S3_0_C12_C12_5", mrs!("S3_0_C12_C12_5") | 1);
    msr!("S3_0_C12_C12_3", 0);
    set_mask(0xff);
    msr!("S3_0_C12_C12_7", 1);
}

/// ICC_PMR_EL1: takes interrupts that are more urgent than this.
pub fn set_mask(priority: u64) {
    msr!("S3_0_C4_C6_0", priority);
}

/// ICC_IAR1_EL1: the most urgent pending interrupt, taken.
pub fn acknowledge() -> u32 {
    loop {
        let intid = mrs!("S3_0_C12_C12_0") as u32;
        hw::barrier();
        if intid != WAKE {
            return intid;
        }
        end(intid);
    }
}

/// ICC_HPPIR1_EL1: the most urgent pending interrupt, which stays pending.
pub fn pending() -> u32 {
    mrs!("S3_0_C12_C12_2") as u32
}

/// Wakes the CPU with this MPIDR.
pub fn wake(mpidr: u64) {
    send(mpidr, WAKE);
}

/// ICC_SGI1R_EL1: sends an SGI to the CPU with this MPIDR.
pub fn send(mpidr: u64, sgi: u32) {
    let list = (mpidr & 0xf0) << 40 | 1 << (mpidr & 15);
    let cluster = (mpidr >> 32 & 0xff) << 48 | (mpidr >> 16 & 0xff) << 32 | (mpidr & 0xff00) << 8;
    msr!("S3_0_C12_C11_5", cluster | list | u64::from(sgi) << 24);
}

/// Takes the SGI that woke this CPU, and nothing else.
pub fn forget_wake() {
    if pending() == WAKE {
        let intid = mrs!("S3_0_C12_C12_0") as u32;
        end(intid);
    }
}

/// ICC_EOIR1_EL1.
pub fn end(intid: u32) {
    hw::barrier();
    msr!("S3_0_C12_C12_1", u64::from(intid));
}
