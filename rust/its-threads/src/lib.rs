// SPDX-License-Identifier: GPL-2.0-only
//! its-core under a model checker, which has several CPUs do things at once,
//! in every order, or in very many.
//!
//! * shuttle chooses orders at random; each operation on an atomic or a lock is
//!   seen by all CPUs at once.
//! * loom tries all orders with a few preemptions, and all that weak memory
//!   allows a load to return.
//!
//! Both see the core's atomics, and the locks of [`Checked`]. What a vCPU, the
//! guest's RAM and a host ITS do by themselves happens in one step.
//!
//! | module      | holds                                                |
//! |-------------|------------------------------------------------------|
//! | [`checker`] | the one that was chosen: its locks, how to run it    |
//! | [`env`]     | [`Checked`], the hypervisor                          |
//! | [`vcpu`]    | a vCPU: slots, list registers, the guest             |
//! | [`host`]    | a host ITS                                           |
//! | [`rig`]     | a host with a guest, and what has to hold in the end |

#![forbid(unsafe_code)]

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
compile_error!("choose a model checker: --features loom, or --features shuttle");
#[cfg(all(feature = "loom", feature = "shuttle"))]
compile_error!("choose one model checker");

pub mod checker;
pub mod env;
pub mod host;
pub mod rig;
pub mod vcpu;

pub use checker::explore;
pub use env::Checked;
pub use rig::Rig;
