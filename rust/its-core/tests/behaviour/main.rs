// SPDX-License-Identifier: GPL-2.0-only
//! its-core on a fake hypervisor, with a strict host ITS and a simulated
//! vGIC. See its-testkit for what those insist on.

#![forbid(unsafe_code)]
#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that goes wrong shall stop with a panic, in a helper too"
)]

mod commands;
mod corners;
mod devices;
mod early;
mod faults;
mod happy;
mod host;
mod hostile;
mod jobs;
mod life;
mod logs;
mod memory;
mod model;
mod places;
mod priority;
mod redist;
mod registers;
mod regressions;
mod review;
mod storms;
mod strict;
mod threads;
