// SPDX-License-Identifier: GPL-2.0-only
//! The core's insides: its own sources, compiled once more as a part of this program, as most of it is not to
//! be had from outside.
//!
//! Most tests do what no caller in the core does: numbers out of range, things that were never there. The core
//! has a way out of each that nothing can take as it is; here each does what it says, and harms nothing.

#![forbid(unsafe_code)]
#![expect(dead_code, reason = "most of the core is not asked for here")]
#![expect(
    clippy::expect_used,
    reason = "a test that goes wrong shall stop with a panic, in a helper too"
)]

// The hypervisor is the testkit's, which knows the core from outside.
use its_core::{Error, env};

#[path = "../../src/bitmap.rs"]
mod bitmap;
#[path = "../../src/budget.rs"]
mod budget;
#[path = "../../src/device.rs"]
mod device;
#[path = "../../src/domain/mod.rs"]
mod domain;
#[path = "../../src/dump.rs"]
mod dump;
#[path = "../../src/host/mod.rs"]
mod host;
#[path = "../../src/line.rs"]
mod line;
#[path = "../../src/rate.rs"]
mod rate;
#[path = "../../src/redist.rs"]
mod redist;
#[path = "../../src/slots.rs"]
mod slots;
#[path = "../../src/sorted.rs"]
mod sorted;
#[path = "../../src/sync.rs"]
mod sync;
#[path = "../../src/vits/mod.rs"]
mod vits;
#[path = "../../src/vlpi/mod.rs"]
mod vlpi;

use domain::{Domain, DomainConfig};
use host::Host;

mod guest;
mod machine;
mod maps;
mod parts;
mod vcpus;
