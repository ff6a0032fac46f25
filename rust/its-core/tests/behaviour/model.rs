// SPDX-License-Identifier: GPL-2.0-only
//! Any sequence of commands, interrupts and what else a guest does, against
//! the reference model.

use its_arch::Command;
use its_testkit::compare::{Case, FIRST, Op, Strays, VCPUS, run};
use its_testkit::{cmd, scaled};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngSeed};

fn command(lpis: u32, strays: Strays) -> impl Strategy<Value = Command> {
    let device = 0..3_u32;
    let event = 0..(lpis / 2 + 2);
    let both = || (device.clone(), event.clone());
    let intid = prop_oneof![20 => FIRST..FIRST + lpis, 1 => 0..FIRST, 1 => 16384..20000_u32];
    let collection = || prop_oneof![20 => 0..4_u16, 1 => 255..258_u16];
    let vcpu = || prop_oneof![20 => 0..VCPUS, 1 => VCPUS..VCPUS + 2];
    let bits = prop_oneof![20 => 3..7_u8, 1 => 1..3_u8, 1 => 17..20_u8];
    let strays = strays == Strays::Some;
    let instead = cmd::sync(0);
    prop_oneof![
        3 => (prop_oneof![30 => 0..3_u32, 1 => 65535..65538_u32], bits)
            .prop_map(|(device, bits)| cmd::mapd(device, bits)),
        1 => device.clone().prop_map(cmd::unmapd),
        20 => (both(), intid, collection())
            .prop_map(|((device, event), lpi, to)| cmd::mapti(device, event, lpi, to)),
        8 => (both(), collection()).prop_map(|((device, event), to)| cmd::movi(device, event, to)),
        3 => (collection(), vcpu()).prop_map(|(collection, to)| cmd::mapc(collection, to)),
        1 => collection().prop_map(move |from| if strays { cmd::unmapc(from) } else { instead }),
        2 => (vcpu(), vcpu()).prop_map(move |(from, to)| {
            if strays { cmd::movall(from, to) } else { instead }
        }),
        2 => both().prop_map(|(device, event)| cmd::discard(device, event)),
        3 => both().prop_map(|(device, event)| cmd::clear(device, event)),
        8 => both().prop_map(|(device, event)| cmd::int(device, event)),
        2 => both().prop_map(|(device, event)| cmd::inv(device, event)),
        2 => collection().prop_map(cmd::invall),
        1 => vcpu().prop_map(cmd::sync),
        1 => (device, 0..20000_u32, collection())
            .prop_map(|(device, event, to)| cmd::mapi(device, event, to)),
    ]
}

fn op(lpis: u32, strays: Strays) -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => command(lpis, strays).prop_map(Op::Command),
        12 => (0..3_u32, 0..(lpis / 2 + 2)).prop_map(|(device, event)| Op::Fire(device, event)),
        3 => (FIRST..FIRST + lpis, any::<bool>()).prop_map(|(lpi, on)| Op::Enable(lpi, on)),
        1 => (0..3_u32).prop_map(Op::FireAll),
        1 => (0..3_u32, 0..(lpis / 2 + 2), any::<bool>())
            .prop_map(|(device, event, on)| Op::EnableLate(device, event, on)),
        4 => (0..VCPUS).prop_map(Op::Take),
        2 => (0..VCPUS).prop_map(Op::Drain),
        3 => Just(Op::Settle),
        1 => (0..VCPUS).prop_map(Op::PowerOff),
        2 => (0..VCPUS).prop_map(Op::PowerOn),
    ]
}

fn ops(lpis: u32, strays: Strays) -> impl Strategy<Value = Vec<Op>> {
    vec(op(lpis, strays), 1..120)
}

fn quirks() -> impl Strategy<Value = [(bool, bool); 3]> {
    any::<[(bool, bool); 3]>()
}

/// The same sequences at each run; with PROPTEST_CASES, so many new ones.
fn runs() -> Runs {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let rng_seed = if cases.is_some() { RngSeed::Random } else { RngSeed::Fixed(1) };
    Runs {
        cases: cases.unwrap_or(scaled(400, 1)),
        rng_seed,
        failure_persistence: None,
        ..Runs::default()
    }
}

proptest! {
    #![proptest_config(runs())]

    /// Few LPIs, all of which have a slot; every command.
    #[test]
    fn the_guest_sees_what_the_model_says(
        quirks in quirks(),
        spread in 1..VCPUS + 1,
        list_registers in 4..17_usize,
        ops in ops(12, Strays::Some),
    ) {
        run(&Case { lpis: 12, spread, strays: Strays::Some, quirks, list_registers }, ops);
    }

    /// More LPIs than slots, none of which is pending where it is not mapped.
    #[test]
    fn the_guest_sees_what_the_model_says_with_more_lpis_than_slots(
        quirks in quirks(),
        spread in 1..VCPUS + 1,
        list_registers in 4..12_usize,
        ops in ops(60, Strays::None),
    ) {
        run(&Case { lpis: 60, spread, strays: Strays::None, quirks, list_registers }, ops);
    }
}
