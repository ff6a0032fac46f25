// SPDX-License-Identifier: GPL-2.0-only
//! Devices that come and go on host ITSes which are slow, hang, stall, or
//! answer nonsense, with memory that runs out.

use its_arch::{DeviceId, EventId, Rdbase};
use its_core::host::HostDevice;
use its_core::{Error, Host};

use crate::Config;
use crate::env::Fake;
use crate::hostile::NO_SLOT;
use crate::its::{FakeHostIts, Pace};
use crate::machine::TIME_BETWEEN_STEPS;
use crate::numbers::Numbers;
use crate::world::World;

/// Devices that are named, mostly.
const DEVICES: u32 = 6;
/// One that is not.
const UNUSED: u32 = 1000;
/// CPUs with a collection at first.
const CPUS: u16 = 2;
/// What an ITS without any progress may cost one caller, in nanoseconds: its
/// patience when it maps, and again when it takes back.
const LONGEST_WAIT: u64 = 2 * (100_000_000 + 4 * TIME_BETWEEN_STEPS);

struct Run<N> {
    host: Host<Fake>,
    its: Vec<FakeHostIts>,
    devices: Vec<HostDevice<Fake>>,
    numbers: N,
    /// ITSes that get on slowly, or that one does not know of.
    slow: Vec<bool>,
    world: std::sync::Arc<World>,
}

/// Do what `numbers` say, until there are no more.
///
/// # Panics
/// When something does not hold.
pub fn run(mut numbers: impl Numbers) {
    World::renew();
    let config = Config {
        cpus: CPUS,
        its: 1 + numbers.index(2),
        host_id_bits: 14,
        device_bits: 16,
        event_bits: numbers.pick(&[10, 5, 16]),
        host_queue_bytes: numbers.pick(&[4096, 64, 96, 256, 1024]),
        ..Config::default()
    };
    let world = World::current();
    world.set_relax(TIME_BETWEEN_STEPS);
    let (host, its) = config.host().expect("memory");
    let slow = vec![false; its.len()];
    let mut run = Run { host, its, devices: Vec::new(), numbers, slow, world };
    while run.numbers.more() {
        run.step();
        run.check();
    }
    run.finish();
}

impl<N: Numbers> Run<N> {
    fn step(&mut self) {
        let started = self.world.now();
        let mut allowed = 0;
        match self.numbers.below(16) {
            0..=4 => self.map(),
            5..=7 if !self.devices.is_empty() => {
                let at = self.numbers.index(self.devices.len());
                let device = self.devices.swap_remove(at);
                self.host.unmap_device(device);
            }
            8..=10 => self.misbehave(),
            11 => {
                let _unused = self.world.stop_failing();
                if self.numbers.once_in(2) {
                    self.world.fail_once_after(self.numbers.below_u32(5));
                }
            }
            12 => {
                let (its, cpu) = (self.numbers.index(3), self.numbers.below_u16(4));
                let _failed =
                    self.host.setup_collection(its, cpu, Rdbase::from_processor_number(cpu));
            }
            13 => self.host.dump(),
            14 => self.fire(),
            _ => {
                allowed = self.numbers.below(1 << 28);
                self.world.advance(allowed);
            }
        }
        if !self.slow.contains(&true) {
            let waited = self.world.now() - started - allowed;
            assert!(waited <= LONGEST_WAIT, "waited {waited} ns for a dead ITS");
        }
        let log = self.world.take_log();
        assert!(log.len() <= 8, "{log:?}");
    }

    fn map(&mut self) {
        let n = &mut self.numbers;
        let its = n.index(3);
        let device =
            if n.once_in(16) { UNUSED + 1 + n.below_u32(1 << 18) } else { n.below_u32(DEVICES) };
        let events = if n.once_in(8) { n.any() >> n.below(64) } else { n.below(200) };
        let domain = n.below_u16(3);
        if self.devices.iter().any(|known| known.its == its && known.device.get() == device) {
            // The domains see to that one that is mapped is not mapped again.
            return;
        }
        let Ok(mapped) = self.host.map_device(its, DeviceId::new(device), domain, events) else {
            return;
        };
        assert!(u64::from(mapped.events()) >= events, "fewer events than were asked for");
        for event in 0..mapped.events() {
            let lpi = mapped.lpi(EventId::new(event)).expect("each event has an LPI");
            let fired = self.its[its].fire(device, event);
            assert_eq!(fired.map(|(lpi, _)| lpi), Some(lpi), "event {event} of device {device}");
            let entry = self.host.claim(lpi).expect("in use");
            assert_eq!((entry.domain(), entry.vlpi()), (domain, 0), "{lpi}");
        }
        self.devices.push(mapped);
    }

    /// A device fires whatever is mapped on its ITS: it is in use, or nobody
    /// gets it.
    fn fire(&mut self) {
        let (its, device) = (self.numbers.index(self.its.len()), self.numbers.below_u32(DEVICES));
        let event = self.numbers.below_u32(64);
        let Some((lpi, _)) = self.its[its].fire(device, event) else { return };
        let owner = self.devices.iter().find(|known| known.lpis().any(|known| known == lpi));
        let claimed = self.host.claim(lpi);
        assert_eq!(claimed.is_some(), owner.is_some(), "{lpi} of device {device}");
        if let Some(owner) = owner {
            assert_eq!((owner.its, owner.device.get()), (its, device), "who has {lpi}");
        }
    }

    fn misbehave(&mut self) {
        // What was to happen to this ITS or another does not.
        let _happened = self.world.off_clock();
        let n = self.numbers.below_u32(70);
        let pace = match self.numbers.below(7) {
            0 => Pace::PerPoll(n + 1),
            1 => Pace::Slow(n / 8 + 1),
            2 | 3 => Pace::Hang(n),
            4 => Pace::Stall(n),
            _ => Pace::Immediate,
        };
        let garbage = self.numbers.once_in(6).then(|| self.numbers.any() | NO_SLOT);
        let at = self.numbers.index(self.its.len());
        let its = self.its[at].clone();
        let gets_on = matches!(pace, Pace::PerPoll(_) | Pace::Slow(_));
        self.slow[at] = gets_on && garbage.is_none();
        let change = move || {
            its.set_garbage(garbage);
            its.set_pace(pace);
        };
        if self.numbers.once_in(2) {
            self.slow[at] = true;
            self.world.on_clock(self.numbers.below_u32(8), change);
        } else {
            change();
        }
    }

    fn abandoned(&self) -> u64 {
        let its = (0..self.its.len()).filter_map(|index| self.host.its(index).ok());
        its.map(its_core::host::HostIts::abandoned).sum()
    }

    /// Nothing is used twice, and what is in use is what is mapped.
    fn check(&self) {
        let tables = u64::try_from(self.world.live_tables()).expect("few");
        let mapped = u64::try_from(self.devices.len()).expect("few");
        assert_eq!(tables, mapped + self.abandoned(), "ITTs");
        let mut lpis: Vec<_> = self.devices.iter().flat_map(HostDevice::lpis).collect();
        let in_use = usize::try_from(self.host.lpis.in_use()).expect("few");
        assert!(in_use >= lpis.len(), "{in_use} LPIs for {} events", lpis.len());
        if self.abandoned() == 0 {
            assert_eq!(in_use, lpis.len(), "LPIs");
        }
        lpis.sort_unstable();
        assert!(lpis.is_sorted_by(|a, b| a < b), "an LPI belongs to two events");
    }

    /// The ITSes are well again: all goes, and a device can be mapped.
    fn finish(mut self) {
        let _unused = self.world.stop_failing();
        let _unused = self.world.off_clock();
        if !self.numbers.once_in(4) {
            for its in &self.its {
                its.set_garbage(None);
                its.set_pace(Pace::Immediate);
            }
            let before = self.abandoned();
            match self.host.map_device(0, DeviceId::new(UNUSED), 1, 1) {
                Ok(device) => self.host.unmap_device(device),
                Err(error) => assert_eq!(error, Error::NoLpis, "a healthy ITS"),
            }
            for device in std::mem::take(&mut self.devices) {
                self.host.unmap_device(device);
            }
            assert_eq!(self.abandoned(), before, "a healthy ITS lets go");
        }
        for device in std::mem::take(&mut self.devices) {
            self.host.unmap_device(device);
        }
        self.check();
        let Self { host, its, world, .. } = self;
        drop((host, its));
        assert_eq!(world.live(), 0, "arrays that were not freed");
    }
}
