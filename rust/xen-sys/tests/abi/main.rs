// SPDX-License-Identifier: GPL-2.0-only
//! The component as Xen has it: entered through the functions of
//! `include/xen_its.h`, and on those of `include/xen_services.h`, which are
//! written in Rust here. What it is for is Miri: this runs every `unsafe` block
//! of the component. Behaviour is tested in its-core.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that goes wrong shall stop with a panic, in a helper too"
)]

/// The entry points, which only a static library is made of otherwise.
#[path = "../../../xen-its/src/lib.rs"]
mod entries;

mod c;
mod guest;
mod machine;
mod parts;
mod services;
mod whole;
