// SPDX-License-Identifier: GPL-2.0-only
//! its-core on a fake hypervisor, with a strict host ITS and a simulated
//! vGIC. See its-testkit for what those insist on.

mod commands;
mod happy;
mod redist;
mod registers;
