// SPDX-License-Identifier: GPL-2.0-only
//! What a hostile guest tries. After each the ITS must work again, and while it
//! goes on another CPU's heart must beat (see `cases::hostile`).

pub mod access;
pub mod concurrent;
pub mod hypercalls;
pub mod mappings;
pub mod memory;
pub mod mixed;
pub mod pages;
pub mod rate;
pub mod volume;

/// The device, and the first LPI, that these cases use.
const D: u32 = 9;
const L: u32 = 8600;
