// SPDX-License-Identifier: GPL-2.0-only
//! A device that fires when it is told to: QEMU's `edu`, with one MSI.

use crate::fdt::Machine;
use crate::hw;

/// Vendor and device.
const ID: u32 = 0x11e8_1234;
/// Bytes of its BAR 0.
const BAR_SIZE: u64 = 1 << 20;
/// In BAR 0: raises the interrupts of these bits, and clears them.
const RAISE: u64 = 0x60;
const CLEAR: u64 = 0x64;
/// In the configuration space.
const COMMAND: u64 = 0x04;
const BAR0: u64 = 0x10;
const CAPABILITIES: u64 = 0x34;
const MSI: u8 = 0x05;

/// The device.
#[derive(Clone, Copy)]
pub struct Edu {
    /// Its DeviceID.
    pub device: u32,
    /// Where its registers are, for `raise`.
    pub bar: u64,
    msi: u64,
}

impl Edu {
    /// Number `nth` of these on bus 0, set up to write its MSIs to `doorbell`.
    pub fn find(machine: &Machine, nth: usize, doorbell: u64) -> Option<Self> {
        let function = |device: u64| machine.pci.0 + (device << 15);
        let is_one = |device: &u64| hw::read32(function(*device)) == ID;
        if machine.pci.1 == 0 || machine.pci_window.1 < (nth as u64 + 1) * BAR_SIZE {
            return None;
        }
        let device = (0..32).filter(is_one).nth(nth)?;
        let config = function(device);
        let bar = machine.pci_window.0 + nth as u64 * BAR_SIZE;
        hw::write32(config + BAR0, bar as u32);
        // Memory, and bus master: an MSI is a write.
        hw::write32(config + COMMAND, 6);
        let mut at = hw::read8(config + CAPABILITIES);
        while at != 0 && hw::read8(config + u64::from(at)) != MSI {
            at = hw::read8(config + u64::from(at) + 1);
        }
        if at == 0 {
            return None;
        }
        let msi = config + u64::from(at);
        hw::write32(msi + 4, doorbell as u32);
        hw::write32(msi + 8, (doorbell >> 32) as u32);
        let edu = Self { device: (device as u32) << 3, bar, msi };
        edu.set_event(0);
        hw::write16(msi + 2, hw::read16(msi + 2) | 1);
        Some(edu)
    }

    /// The EventID that it fires with.
    pub fn set_event(&self, event: u16) {
        hw::write16(self.msi + 12, event);
    }

    /// Fires once.
    pub fn fire(&self) {
        raise(self.bar);
    }

    /// Nothing is raised any more. Its next MSI does not depend on that.
    pub fn clear(&self) {
        hw::write32(self.bar + CLEAR, 1);
    }
}

/// Fires the one whose registers are there.
pub fn raise(bar: u64) {
    hw::write32(bar + RAISE, 1);
}
