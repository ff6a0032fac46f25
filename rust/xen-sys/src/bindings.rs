// SPDX-License-Identifier: GPL-2.0-only
// Generated from include/xen_services.h by scripts/regen; do not edit.

pub const XEN_ITS_SLOTS: u32 = 16;
pub const XEN_ITS_EVICT_PENDING: u32 = 1;
pub const XEN_ITS_EVICT_ACTIVE: u32 = 2;
pub const XEN_ITS_LOG_GUEST: u32 = 0;
pub const XEN_ITS_LOG_ERROR: u32 = 1;
pub const XEN_ITS_LOG_INFO: u32 = 2;
#[repr(C)]
pub struct domain {
    _unused: [u8; 0],
}
#[repr(C)]
pub struct vcpu {
    _unused: [u8; 0],
}
#[repr(C)]
pub struct host_its {
    _unused: [u8; 0],
}
#[repr(C)]
pub struct xen_its_lock {
    pub storage: [u64; 4usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_its_lock"][::core::mem::size_of::<xen_its_lock>() - 32usize];
    ["Alignment of xen_its_lock"][::core::mem::align_of::<xen_its_lock>() - 8usize];
    ["Offset of field: xen_its_lock::storage"]
        [::core::mem::offset_of!(xen_its_lock, storage) - 0usize];
};
unsafe extern "C" {
    pub fn xen_its_svc_alloc(size: usize, align: usize) -> *mut core::ffi::c_void;
    pub fn xen_its_svc_free(ptr: *mut core::ffi::c_void);
    pub fn xen_its_svc_table_alloc(
        size: usize,
        align: usize,
        maddr: *mut u64,
    ) -> *mut core::ffi::c_void;
    pub fn xen_its_svc_table_free(ptr: *mut core::ffi::c_void);
    pub fn xen_its_svc_lock_init(lock: *mut xen_its_lock);
    pub fn xen_its_svc_lock(lock: *mut xen_its_lock);
    pub fn xen_its_svc_unlock(lock: *mut xen_its_lock);
    pub fn xen_its_svc_lock_irqsave(lock: *mut xen_its_lock) -> core::ffi::c_ulong;
    pub fn xen_its_svc_unlock_irqrestore(lock: *mut xen_its_lock, flags: core::ffi::c_ulong);
    pub fn xen_its_svc_vgic_lock(v: *mut vcpu) -> core::ffi::c_ulong;
    pub fn xen_its_svc_vgic_unlock(v: *mut vcpu, flags: core::ffi::c_ulong);
    pub fn xen_its_svc_vgic_lock_in_irq(v: *mut vcpu);
    pub fn xen_its_svc_vgic_unlock_in_irq(v: *mut vcpu);
    pub fn xen_its_svc_now() -> u64;
    pub fn xen_its_svc_relax();
    pub fn xen_its_svc_guest_read(
        d: *mut domain,
        gpa: u64,
        buf: *mut core::ffi::c_void,
        len: usize,
    ) -> core::ffi::c_int;
    pub fn xen_its_svc_page_pin(d: *mut domain, gpa: u64) -> *const core::ffi::c_void;
    pub fn xen_its_svc_page_unpin(page: *const core::ffi::c_void);
    pub fn xen_its_svc_slot_free(v: *mut vcpu) -> core::ffi::c_int;
    pub fn xen_its_svc_slot_displace(v: *mut vcpu, priority: u8) -> core::ffi::c_int;
    pub fn xen_its_svc_slot_load(v: *mut vcpu, slot: u32, lpi: u32, priority: u8);
    pub fn xen_its_svc_slot_again(v: *mut vcpu, slot: u32) -> bool;
    pub fn xen_its_svc_slot_evict(v: *mut vcpu, slot: u32) -> u32;
    pub fn xen_its_svc_slot_reset(v: *mut vcpu, slot: u32) -> bool;
    pub fn xen_its_svc_request_sync(v: *mut vcpu);
    pub fn xen_its_svc_request_fill(v: *mut vcpu) -> bool;
    pub fn xen_its_svc_kick(v: *mut vcpu);
    pub fn xen_its_svc_host_creadr(its: *const host_its) -> u64;
    pub fn xen_its_svc_host_write_command(its: *mut host_its, offset: u64, command: *const u64);
    pub fn xen_its_svc_host_set_cwriter(its: *mut host_its, offset: u64);
    pub fn xen_its_svc_host_lpi_enable(lpi: u32, enable: bool);
    pub fn xen_its_svc_request_tick(d: *mut domain, after: u64);
    pub fn xen_its_svc_may_complain() -> bool;
    pub fn xen_its_svc_log(level: u32, text: *const core::ffi::c_char, len: usize);
    pub fn xen_its_svc_panic(line: u32) -> !;
}
