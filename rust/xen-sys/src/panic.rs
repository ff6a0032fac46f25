// SPDX-License-Identifier: GPL-2.0-only
//! The panic handler that `no_std` asks for. `scripts/test` checks that the
//! object linked into Xen holds no call of it.

use crate::bindings;

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let line = info.location().map_or(0, core::panic::Location::line);
    // SAFETY: takes a number, does not return, may be called anywhere.
    unsafe { bindings::xen_its_svc_panic(line) }
}
