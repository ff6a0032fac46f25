// SPDX-License-Identifier: GPL-2.0-only
//! What tests of its-core run it on: no hypervisor, but somebody who watches
//! what the core does to one.
//!
//! | module        | holds                                                     |
//! |---------------|-----------------------------------------------------------|
//! | [`world`]     | accounting, fault injection, clock, log, lock order       |
//! | [`env`]       | [`Fake`], the hypervisor's heap, cells and locks          |
//! | [`guest`]     | the guest's RAM                                           |
//! | [`vcpu`]      | one vCPU: the vGIC's queues, list registers, the guest    |
//! | [`its`]       | a strict model of a host ITS                              |
//! | [`reference`] | a slow and obvious model of a virtual ITS                 |
//! | [`machine`]   | all of it put together, and the guest's driver of the ITS |
//! | [`cmd`]       | commands from plain numbers                               |
//! | [`numbers`]   | where the choices of a random run come from               |
//! | [`hostile`]   | a run that does anything, and what must hold all the time |
//! | [`compare`]   | a run that must look like the reference model's           |
//! | [`hosting`]   | a run on host ITSes that misbehave                        |
//!
//! A misuse that the hypervisor would suffer from silently ends the test with
//! a panic that says what was wrong.

#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that goes wrong shall stop with a panic"
)]

pub mod cmd;
pub mod compare;
pub mod env;
pub mod guest;
pub mod hostile;
pub mod hosting;
pub mod its;
pub mod machine;
pub mod numbers;
pub mod reference;
pub mod vcpu;
pub mod world;

pub use env::Fake;
pub use machine::{Config, Machine};
pub use world::World;

/// How much of something to do, which is less under Miri: it is a thousand
/// times slower, and looks for other faults than those that need many rounds.
#[must_use]
pub const fn scaled<T: Copy>(full: T, under_miri: T) -> T {
    if cfg!(miri) { under_miri } else { full }
}
