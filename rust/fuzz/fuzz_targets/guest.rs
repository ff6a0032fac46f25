// SPDX-License-Identifier: GPL-2.0-only
//! A guest that does anything, on a host where anything may fail.
#![no_main]

use its_fuzz::Bytes;
use its_testkit::hostile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| hostile::run(Bytes::new(bytes)));
