// SPDX-License-Identifier: GPL-2.0-only
//! The atomics that the core uses: `core`'s, or those of a model checker when
//! `rust/its-threads` compiles these sources for one.

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
use core::sync::atomic;
#[cfg(feature = "loom")]
use loom::sync::atomic;
#[cfg(feature = "shuttle")]
use shuttle::sync::atomic;

pub(crate) use atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
