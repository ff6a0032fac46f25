// SPDX-License-Identifier: GPL-2.0-only
//! Golden vectors: bit patterns written by hand from the tables of Arm IHI
//! 0069, so that a wrong position shows even where encode and decode agree.

#![forbid(unsafe_code)]

mod access;
mod commands;
mod errors;
mod ids;
mod registers;

/// The mask of bits `high` to `low`, both included, as the tables write it.
fn bits(high: u32, low: u32) -> u64 {
    assert!(low <= high && high < 64, "bits {high}:{low} are no field of 64 bits");
    (low..=high).fold(0, |mask, bit| mask | 1 << bit)
}
