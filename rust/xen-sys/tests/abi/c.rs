// SPDX-License-Identifier: GPL-2.0-only
//! `include/xen_its.h` as C sees it: pointers, and no more known of them than
//! C knows.

use crate::machine::{Domain, HostIts, Vcpu};

/// `struct xen_its_domain`.
#[repr(C)]
pub struct XenItsDomain {
    _unused: [u8; 0],
}

#[expect(improper_ctypes, reason = "the structures are those that only C looks into")]
unsafe extern "C" {
    pub fn xen_its_host_init(lpi_id_bits: u32) -> i32;
    pub fn xen_its_host_add(
        its: *const HostIts,
        queue_bytes: u32,
        device_bits: u32,
        event_bits: u32,
        itt_entry_bytes: u32,
    ) -> i32;
    pub fn xen_its_host_setup_collection(its: u32, cpu: u32, rdbase: u64) -> i32;
    pub fn xen_its_host_lpi(lpi: u32) -> u64;
    pub fn xen_its_host_dump();
    pub fn xen_its_domain_create(
        d: *const Domain,
        id: u32,
        max_vcpus: u32,
        id_bits: u32,
        hardware_domain: bool,
        nr_vits: u32,
        max_events: u32,
        lpi_rate: u32,
        out: *mut *mut XenItsDomain,
    ) -> i32;
    pub fn xen_its_vcpu_init(its: *const XenItsDomain, v: *const Vcpu, id: u32) -> i32;
    pub fn xen_its_domain_relinquish(its: *const XenItsDomain) -> i32;
    pub fn xen_its_domain_destroy(its: *mut XenItsDomain);
    pub fn xen_its_dump(its: *const XenItsDomain);
    pub fn xen_its_deliver(its: *const XenItsDomain, lpi: u32) -> bool;
    pub fn xen_its_mask(its: *const XenItsDomain, host_lpi: u32);
    pub fn xen_its_tick(its: *const XenItsDomain);
    pub fn xen_its_fill(its: *const XenItsDomain, locked: *const Vcpu, id: u32) -> bool;
    pub fn xen_its_yield_slot(
        its: *const XenItsDomain,
        locked: *const Vcpu,
        id: u32,
        priority: u8,
    ) -> i32;
    pub fn xen_its_is_urgent(
        its: *const XenItsDomain,
        locked: *const Vcpu,
        id: u32,
        limit: u32,
    ) -> bool;
    pub fn xen_its_slot_done(its: *const XenItsDomain, locked: *const Vcpu, id: u32, slot: u32);
    pub fn xen_its_vcpu_reset(its: *const XenItsDomain, locked: *const Vcpu, id: u32);
    pub fn xen_its_sync(its: *const XenItsDomain, id: u32);
    pub fn xen_its_mmio_read(
        its: *const XenItsDomain,
        vits: u32,
        offset: u32,
        size: u32,
        value: *mut u64,
    ) -> i32;
    pub fn xen_its_mmio_write(
        its: *const XenItsDomain,
        vits: u32,
        offset: u32,
        size: u32,
        value: u64,
    ) -> i32;
    pub fn xen_its_work(its: *const XenItsDomain) -> bool;
    pub fn xen_its_gicr_read(
        its: *const XenItsDomain,
        id: u32,
        offset: u32,
        size: u32,
        value: *mut u64,
    ) -> i32;
    pub fn xen_its_gicr_write(
        its: *const XenItsDomain,
        id: u32,
        offset: u32,
        size: u32,
        value: u64,
    ) -> i32;
    pub fn xen_its_device_add(its: *const XenItsDomain, vits: u32, device: u32, events: u32)
    -> i32;
    pub fn xen_its_device_remove(its: *const XenItsDomain, vits: u32, device: u32) -> i32;
}
