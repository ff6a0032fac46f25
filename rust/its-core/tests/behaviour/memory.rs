// SPDX-License-Identifier: GPL-2.0-only
//! What a guest can have the hypervisor allocate, at most.

use its_arch::Command;
use its_core::host::lpi::BLOCK;
use its_testkit::{Config, Machine, cmd, scaled};

const VCPUS: u16 = 4;
/// Host LPIs that MAPD may take.
const ALLOWANCE: u32 = 1024;
const LPIS: usize = 57344;

/// Commands whose result does not matter, in portions.
fn try_all(m: &Machine, commands: impl IntoIterator<Item = Command>) {
    let commands: Vec<_> = commands.into_iter().collect();
    for portion in commands.chunks(100) {
        let _complaints = m.run_on(0, portion);
    }
}

/// What ARCHITECTURE.md says ("Memory"), in bytes.
fn bound(m: &Machine) -> usize {
    let vlpis = LPIS.div_ceil(512) * (4096 + 32);
    // Two bitmaps and their summaries, for each vCPU.
    let redists = usize::from(VCPUS) * 2 * (LPIS / 8 + LPIS / 8 / 64 + 64);
    // The configuration table's pages.
    let properties = LPIS.div_ceil(4096) * 64;
    // A device has a block of LPIs at least. Twice: the arrays double, and
    // the old one lives until the new one is filled.
    let devices = usize::try_from(ALLOWANCE / BLOCK).expect("few") * 2 * 256 * 3 / 2;
    // The host's entries of the LPIs in use, in pages of 512.
    let host = usize::try_from(m.host.lpis.in_use()).expect("few").div_ceil(512) * 4096 + 4096;
    vlpis + redists + properties + devices + host
}

#[test]
fn a_guest_cannot_have_more_than_its_share_of_memory() {
    let config = Config { vcpus: VCPUS, id_bits: 16, ..Config::default() };
    let m = Machine::new(Config { max_events: Some(ALLOWANCE), ..config });
    let start = m.world.bytes();
    let _start = m.world.take_peak();
    m.boot_its(0);
    for vcpu in 0..VCPUS {
        m.boot_redist(vcpu);
        m.ok(cmd::mapc(vcpu, vcpu));
    }
    // As many devices as it can get, each as large as it can be.
    let devices: u32 = scaled(300, 40);
    try_all(&m, (0..devices).map(|device| cmd::mapd(device, 5)));
    for bits in (5..=16).rev() {
        try_all(&m, (0..20).map(|device| cmd::mapd(device, bits)));
    }
    assert!(m.host.lpis.in_use() <= ALLOWANCE, "{}", m.host.lpis.in_use());
    assert!(m.world.table_bytes() <= usize::try_from(ALLOWANCE).expect("few") * 8);
    // All virtual LPIs there are, through one event after the other.
    let step = scaled(37, 509);
    let all = (8192..65536).step_by(step);
    try_all(&m, all.clone().map(|lpi| cmd::mapti(lpi % 32, lpi / 32 % 32, lpi, 0)));
    try_all(&m, all.map(|lpi| cmd::mapti(lpi % 32, 0, lpi, 1)));
    for device in 0..32 {
        m.fire(device, 0);
    }
    let most = m.world.take_peak() - start;
    let bound = bound(&m);
    assert!(most <= bound, "{most} bytes, not {bound}");
    // The bound means something: a good part of it was used.
    assert!(most > bound / 2, "{most} bytes of {bound}");
    // Doing it all again takes no more.
    for _ in 0..scaled(3, 1) {
        try_all(&m, (0..devices).map(cmd::unmapd));
        try_all(&m, (0..devices).map(|device| cmd::mapd(device, 5)));
        try_all(&m, (0..devices).map(|device| cmd::mapti(device, 0, 8192 + device, 0)));
        try_all(&m, (0..VCPUS).map(cmd::invall));
    }
    let again = m.world.take_peak() - start;
    assert!(again <= bound, "{again} bytes, not {bound}");
    m.check();
    m.destroy();
}

#[test]
fn the_debug_key_counts_the_pages_of_the_lpi_table() {
    let m = Machine::booted(Config { id_bits: 16, ..Config::default() });
    m.ok(cmd::mapd(5, 5));
    let empty = m.stat("table_bytes");
    for (event, lpi, pages) in [(0, 8192, 1), (1, 8193, 1), (2, 8192 + 512, 2), (3, 65535, 3)] {
        m.ok(cmd::mapti(5, event, lpi, 0));
        assert_eq!(m.stat("table_bytes"), empty + pages * 4096, "with {lpi}");
    }
    assert!(empty != 0, "places for the pages");
    m.destroy();
}

#[test]
fn a_guest_without_devices_can_have_next_to_nothing() {
    let config = Config { vcpus: VCPUS, hardware: false, ..Config::default() };
    let m = Machine::booted(config);
    let booted = m.world.bytes();
    let _start = m.world.take_peak();
    let times = scaled(200, 20);
    try_all(&m, (0..times).map(|device| cmd::mapd(device, 5)));
    try_all(&m, (8192..8192 + times).map(|lpi| cmd::mapti(0, 0, lpi, 0)));
    assert_eq!((m.world.take_peak(), m.world.table_bytes()), (booted, 0));
    m.destroy();
}
