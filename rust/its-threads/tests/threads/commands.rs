// SPDX-License-Identifier: GPL-2.0-only
//! Two vCPUs that write GITS_CWRITER, and one that disables the ITS.

use its_arch::RawCommand;
use its_arch::access::Width;
use its_arch::gits::{GITS_CREADR, GITS_CTLR, GITS_CWRITER};
use its_threads::env::take_log;
use its_threads::rig::{Job, job};
use its_threads::{Rig, explore};

/// More than one trap executes.
const COMMANDS: u64 = 40;

/// Commands that do not exist, each of its own number, so that the log says
/// which were executed. Gives GITS_CWRITER for all of them.
fn fill(rig: &Rig) -> u64 {
    let from = rig.its_read(GITS_CWRITER) / 32;
    for n in 0..COMMANDS {
        rig.put(0, from + n, &RawCommand([0x10 + n, 0, 0, 0]));
    }
    (from + COMMANDS) * 32
}

/// The numbers of the commands that were executed, in order.
fn executed() -> Vec<u64> {
    let number = |line: String| {
        let rest = line.split("unknown command 0x").nth(1).expect("no other line").to_owned();
        let digits = rest.split(' ').next().expect("a number").to_owned();
        u64::from_str_radix(&digits, 16).expect("a number") - 0x10
    };
    take_log().into_iter().map(number).collect()
}

fn rings(end: u64) -> Job {
    job(move |rig| rig.its_write(0, GITS_CWRITER, Width::Double, end))
}

#[test]
fn two_writers() {
    explore("two writers of GITS_CWRITER", || {
        let rig = Rig::new();
        let end = fill(&rig);
        rig.race([rings(end), rings(end)]);
        assert_eq!(executed(), (0..COMMANDS).collect::<Vec<_>>());
        assert_eq!(rig.its_read(GITS_CREADR), end);
    });
}

#[test]
fn disabling() {
    explore("two writers of GITS_CWRITER, and one that disables the ITS", || {
        let rig = Rig::new();
        let start = rig.its_read(GITS_CREADR);
        let end = fill(&rig);
        rig.race([
            rings(end),
            rings(end),
            job(|rig| {
                rig.its_write(0, GITS_CTLR, Width::Word, 0);
                // From here on nothing is executed.
                let at = rig.its_read(GITS_CREADR);
                assert_eq!(rig.its_read(GITS_CREADR), at);
            }),
        ]);
        let before = executed();
        let done = u64::try_from(before.len()).expect("few");
        assert_eq!(rig.its_read(GITS_CREADR), start + done * 32);
        rig.its_write(0, GITS_CTLR, Width::Word, 1);
        let all: Vec<u64> = before.into_iter().chain(executed()).collect();
        assert_eq!(all, (0..COMMANDS).collect::<Vec<_>>());
        assert_eq!(rig.its_read(GITS_CREADR), end);
    });
}
