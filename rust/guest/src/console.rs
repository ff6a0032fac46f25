// SPDX-License-Identifier: GPL-2.0-only
//! The console: a PL011, or Xen's hypercall.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::hw;

static UART: AtomicU64 = AtomicU64::new(0);
static XEN: AtomicBool = AtomicBool::new(false);
static BUSY: AtomicBool = AtomicBool::new(false);

/// Says where the console is.
pub fn init(xen: bool, uart: u64) {
    XEN.store(xen, Ordering::Relaxed);
    UART.store(uart, Ordering::Relaxed);
}

struct Line {
    bytes: [u8; 200],
    len: usize,
}

impl Line {
    fn flush(&mut self) {
        let Some(bytes) = self.bytes.get(..self.len) else { return };
        if XEN.load(Ordering::Relaxed) {
            hw::xen_console(bytes);
        } else {
            let uart = UART.load(Ordering::Relaxed);
            for byte in bytes {
                if uart != 0 {
                    while hw::read32(uart + 0x18) & 0x20 != 0 {}
                    hw::write32(uart, u32::from(*byte));
                }
            }
        }
        self.len = 0;
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.len == self.bytes.len() {
                self.flush();
            }
            if let Some(slot) = self.bytes.get_mut(self.len) {
                *slot = byte;
                self.len += 1;
            }
        }
        Ok(())
    }
}

/// Prints, for the macro `say!`.
pub fn print(text: fmt::Arguments<'_>) {
    // A CPU that died with the lock must not silence the others for ever.
    let start = hw::now();
    while BUSY.swap(true, Ordering::Acquire) {
        if hw::now().wrapping_sub(start) > hw::ms(2000) {
            break;
        }
    }
    let mut line = Line { bytes: [0; 200], len: 0 };
    let _ = line.write_fmt(text);
    let _ = line.write_str("\n");
    line.flush();
    BUSY.store(false, Ordering::Release);
}

/// Prints a line.
macro_rules! say {
    ($($word:tt)*) => { $crate::console::print(format_args!($($word)*)) };
}
pub(crate) use say;
