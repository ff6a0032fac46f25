// SPDX-License-Identifier: GPL-2.0-only
//! A guest that does what guests do, against the reference model.
#![no_main]

use its_fuzz::Bytes;
use its_testkit::compare;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| compare::run_numbers(Bytes::new(bytes)));
