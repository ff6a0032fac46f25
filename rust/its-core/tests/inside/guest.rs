// SPDX-License-Identifier: GPL-2.0-only
//! A domain that is told of vCPUs and collections that it does not have.

use std::sync::Arc;

use its_arch::access::Width;
use its_arch::gits::GITS_CTLR;
use its_arch::{CollectionId, IdBits, Lpi, VcpuId};
use its_testkit::Fake;
use its_testkit::guest::{FakeGuest, Ram};
use its_testkit::vcpu::FakeVcpu;
use its_testkit::world::in_irq;

use crate::machine::host;
use crate::{Domain, DomainConfig, Host};

const NOBODY: VcpuId = VcpuId::new(99);
const COLLECTION: CollectionId = CollectionId::new(3);
/// There are 256.
const BEYOND: CollectionId = CollectionId::new(256);
const LPI: Lpi = Lpi::MIN;

/// With one vCPU, whose LPIs are not enabled.
fn domain(host: &Host<Fake>) -> Domain<Fake> {
    let config = DomainConfig {
        id: 7,
        vcpus: 1,
        id_bits: IdBits::new(14).expect("14 to 32"),
        hardware: true,
        vits: 1,
        max_events: None,
        lpi_rate: None,
    };
    let domain = Domain::new(host, FakeGuest(Arc::new(Ram::default())), config).expect("memory");
    domain.add_vcpu(VcpuId::new(0), FakeVcpu::new(0, 4)).expect("new");
    domain
}

#[test]
fn a_vcpu_that_is_not_there_has_no_lpis() {
    let (host, _) = host(1, 1);
    let domain = domain(&host);
    assert!(!domain.enable_lpis(NOBODY) && !domain.refresh_redist(NOBODY));
    assert!(domain.refresh(NOBODY).is_none() && domain.move_all(NOBODY, NOBODY).is_none());
    assert!(!domain.sync(NOBODY));
}

#[test]
fn what_goes_to_a_vcpu_that_is_not_there_is_dropped() {
    let (host, _) = host(1, 1);
    let domain = domain(&host);
    assert!(domain.map_collection(0, COLLECTION, Some(NOBODY)).is_none());
    assert_eq!(domain.map_event(&host, LPI, LPI, 0, COLLECTION), Ok(()));
    assert_eq!(domain.its_write(&host, 0, GITS_CTLR, Width::Word, 1), Ok(false));
    assert!(!in_irq(|| domain.deliver(LPI)), "no storm");
    assert_eq!(domain.unrouted(), 1);
    // Nor is anything pending there when it is unmapped.
    assert!(domain.map_collection(0, COLLECTION, None).is_none());
    assert_eq!((domain.collection(0, COLLECTION), domain.lookup_cost()), (None, 0));
}

#[test]
fn a_collection_that_is_not_there_has_no_lpis() {
    let (host, _) = host(1, 1);
    let domain = domain(&host);
    let vcpu = VcpuId::new(0);
    assert!(domain.map_collection(0, COLLECTION, Some(vcpu)).is_none());
    assert_eq!(domain.map_event(&host, LPI, LPI, 0, COLLECTION), Ok(()));
    assert!(domain.map_collection(0, BEYOND, Some(vcpu)).is_none());
    assert_eq!(domain.collection(0, BEYOND), None);
    assert!(domain.map_event(&host, LPI, LPI, 0, BEYOND).is_err());
    domain.move_lpi(LPI, 0, BEYOND);
    assert_eq!(domain.lpi_target(LPI), Some(vcpu), "it is where it was");
}
