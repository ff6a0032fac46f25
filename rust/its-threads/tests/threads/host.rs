// SPDX-License-Identifier: GPL-2.0-only
//! The host's side: LPIs that go from one domain to another, and the command
//! queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use its_arch::{Command, DeviceId, IdBits, Lpi, Rdbase};
use its_core::Host;
use its_threads::checker::thread;
use its_threads::host::HostIts;
use its_threads::rig::{DEVICE, DOMAIN_ID, FIRST, host_its, job};
use its_threads::{Checked, Rig, explore};

#[test]
fn reuse() {
    /// Who gets the LPIs next.
    const OTHER: u16 = DOMAIN_ID + 1;
    explore("look-up of a host LPI against its way to another domain", || {
        let rig = Rig::new();
        let first = Lpi::new(FIRST).expect("an LPI");
        let theirs = Arc::new(AtomicBool::new(false));
        let got = Arc::clone(&theirs);
        rig.race([
            job(move |rig| {
                for _ in 0..2 {
                    // Whoever has it: a virtual LPI is the first domain's.
                    if let Some(entry) = rig.host.claim(first) {
                        let vlpi = Lpi::new(entry.vlpi());
                        assert!(entry.domain() == DOMAIN_ID || vlpi.is_none(), "{entry:?}");
                    }
                }
            }),
            job(move |rig| {
                let range = rig.host.lpis.alloc(OTHER, 32).expect("there are many");
                rig.host.lpis.make_room(&range, 0).expect("memory");
                let device = DeviceId::new(DEVICE + 1);
                let lpis = rig.host.lpis.unassigned(&range, 0, device, 0).expect("room");
                lpis.for_each(|lpi| lpi.assign(0));
                got.store(range.get(0) == Some(first), Ordering::Relaxed);
            }),
            job(|rig| {
                rig.remove_device();
            }),
        ]);
        let owner = rig.host.lpis.get(first).map(|entry| entry.domain());
        assert_eq!(owner, theirs.load(Ordering::Relaxed).then_some(OTHER));
    });
}

#[test]
fn queue() {
    explore("two who fill a host command queue of 4 slots, and wait", || {
        let its = HostIts::new(4, true);
        let host = Host::<Checked>::new(IdBits::new(14).expect("14 INTID bits"));
        let host = Arc::new(host.expect("memory"));
        host.add_its(its.clone(), host_its(4)).expect("memory");
        let set_up = |host: &Host<Checked>, its: &HostIts, cpus: [u16; 2]| {
            for cpu in cpus {
                let rdbase = Rdbase::from_processor_number(cpu);
                host.setup_collection(0, cpu, rdbase).expect("the ITS answers");
                let sync = Command::Sync { rdbase };
                assert!(its.executed().contains(&sync), "it was not waited for");
            }
        };
        let other = {
            let (host, its) = (Arc::clone(&host), its.clone());
            thread::spawn(move || set_up(&host, &its, [0, 1]))
        };
        set_up(&host, &its, [2, 3]);
        other.join().expect("the other");
        let executed = its.executed();
        for cpus in [[0, 1], [2, 3]] {
            let of = |command: &Command| match *command {
                Command::Mapc { rdbase, .. } => (rdbase.processor_number(), 'M'),
                Command::Sync { rdbase } => (rdbase.processor_number(), 'S'),
                ref other => panic!("{other:?}"),
            };
            let [a, b] = cpus;
            let own: Vec<_> =
                executed.iter().map(of).filter(|(cpu, _)| cpus.contains(cpu)).collect();
            assert_eq!(own, [(a, 'M'), (a, 'S'), (b, 'M'), (b, 'S')]);
        }
        assert_eq!(executed.len(), 8);
    });
}
