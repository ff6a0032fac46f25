// SPDX-License-Identifier: GPL-2.0-only
//! What the ITS component does, without a word about Xen.
//!
//! A [`Host`] is the machine's side: the host's LPIs and ITSes. A [`Domain`]
//! is one guest's: its virtual ITSes, redistributors and virtual LPIs. Both
//! reach the hypervisor through the traits in [`env`], so that the same code
//! runs inside Xen, in tests, under Miri and under a fuzzer.
//!
//! Lock order, outermost first; a lock is never taken while one below it is
//! held:
//!
//! 1. a virtual ITS's registers and queue ([`vits::Vits`])
//! 2. what the domain's redistributors share ([`Domain`])
//! 3. the domain's device map ([`Domain`])
//! 4. the host's LPI allocator ([`host::lpi::HostLpis`]), or which host LPIs
//!    are masked, and then a host ITS's command queue ([`host::queue::Queue`])
//! 5. one vCPU's vGIC lock ([`redist::Redist`]); never two of them

#![no_std]
#![forbid(unsafe_code)]

mod bitmap;
pub mod budget;
mod device;
pub mod domain;
mod dump;
pub mod env;
mod error;
pub mod host;
mod line;
pub mod rate;
pub mod redist;
mod slots;
mod sorted;
mod sync;
pub mod vits;
pub mod vlpi;

pub use domain::{Domain, DomainConfig};
pub use error::Error;
pub use host::Host;
