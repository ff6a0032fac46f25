// SPDX-License-Identifier: GPL-2.0-only
//! Devices on host ITSes that misbehave.
#![no_main]

use its_fuzz::Bytes;
use its_testkit::hosting;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| hosting::run(Bytes::new(bytes)));
