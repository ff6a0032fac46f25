// SPDX-License-Identifier: GPL-2.0-only
//! A guest that does anything it likes, by numbers without a pattern; the
//! fuzz target `guest` looks for more telling ones.

use its_testkit::numbers::Random;
use its_testkit::{hostile, scaled};

#[test]
fn a_hostile_guest_harms_only_itself() {
    for seed in 1..scaled(300, 2) {
        hostile::run(Random::new(seed, scaled(150, 60)));
    }
}
