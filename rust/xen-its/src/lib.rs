// SPDX-License-Identifier: GPL-2.0-only
//! What Xen calls: one thin function for each entry.
//!
//! `include/xen_its.h` is generated from this file. An argument's type says
//! what the caller promises: a reference is a valid pointer, an
//! `Option<&T>` may be NULL, [`VgicHeld`] is a vCPU whose vGIC lock the caller
//! holds. Unless said otherwise, functions are called in trap or hypercall
//! context and return 0 or a negative errno.

// On the host it is only linted, with std's panic handler.
#![cfg_attr(target_os = "none", no_std)]
#![expect(
    unsafe_code,
    reason = "only for the attribute no_mangle: each function here is an exported symbol"
)]

use its_arch::access::Width;
use its_arch::{DeviceId, EventBits, IdBits, Lpi, Rdbase, VcpuId};
use its_core::host::{HostEntry, HostItsConfig};
use its_core::{Domain, DomainConfig, Error, Host};
use xen_sys::{Once, Owned, VgicHeld, Xen, XenGuest, XenHostIts, XenVcpu};

/// The machine: set by `xen_its_host_init` at boot.
static HOST: Once<Host<Xen>> = Once::empty();

/// The ITS state of one domain.
pub struct XenItsDomain(Domain<Xen>);

/// The same, as C keeps it: an owning pointer, or NULL.
type DomainHandle = Option<Owned<XenItsDomain>>;

/// Xen's errno of an error.
const fn errno(error: Error) -> i32 {
    match error {
        Error::NoMemory => -12,
        Error::NoLpis => -28,
        Error::OutOfRange => -22,
        Error::NotFound => -2,
        Error::Exists => -17,
        Error::TimedOut => -110,
        Error::Stalled | Error::Confused => -5,
        Error::BadAccess => -14,
    }
}

fn outcome(result: Result<(), Error>) -> i32 {
    result.map_or_else(errno, |()| 0)
}

fn host() -> Result<&'static Host<Xen>, Error> {
    HOST.get().ok_or(Error::NotFound)
}

fn vcpu_id(id: u32) -> Result<VcpuId, Error> {
    u16::try_from(id).map(VcpuId::new).map_err(|_| Error::OutOfRange)
}

/// From the log2 of its bytes.
fn width(size: u32) -> Result<Width, Error> {
    u8::try_from(size).ok().and_then(Width::from_log2).ok_or(Error::BadAccess)
}

fn vits_number(index: u32) -> Result<usize, Error> {
    usize::try_from(index).map_err(|_| Error::OutOfRange)
}

fn vits_index(index: u32) -> Result<u16, Error> {
    u16::try_from(index).map_err(|_| Error::OutOfRange)
}

// ---- The machine ----

/// Set up the host's LPIs, whose INTIDs have `lpi_id_bits` bits (14 to 32).
/// Boot, once.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_host_init(lpi_id_bits: u32) -> i32 {
    let bits = u8::try_from(lpi_id_bits).ok().and_then(IdBits::new).ok_or(Error::OutOfRange);
    outcome(bits.and_then(Host::new).and_then(|host| HOST.set(host).map_err(|_| Error::Exists)))
}

/// Add a host ITS whose tables and command queue are set up and which is
/// enabled, with GITS_CWRITER and GITS_CREADR at 0. Boot. Returns its index:
/// 0 for the first, and so on.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_host_add(
    its: XenHostIts,
    queue_bytes: u32,
    device_bits: u32,
    event_bits: u32,
    itt_entry_bytes: u32,
) -> i32 {
    let add = move || {
        let config = HostItsConfig {
            queue_bytes,
            device_bits: u8::try_from(device_bits).map_err(|_| Error::OutOfRange)?,
            event_bits: u8::try_from(event_bits)
                .ok()
                .and_then(EventBits::new)
                .ok_or(Error::OutOfRange)?,
            itt_entry_bytes,
        };
        let index = host()?.add_its(its, config)?;
        i32::try_from(index).map_err(|_| Error::OutOfRange)
    };
    add().unwrap_or_else(errno)
}

/// Route LPIs for physical CPU `cpu` of host ITS `its` to the redistributor
/// `rdbase` (bits 51:16 as in a command: its number, or its address). CPU bring-up, also
/// when the CPU comes up again; interrupts may be off.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_host_setup_collection(its: u32, cpu: u32, rdbase: u64) -> i32 {
    let setup = || {
        let cpu = u16::try_from(cpu).map_err(|_| Error::OutOfRange)?;
        let its = usize::try_from(its).map_err(|_| Error::OutOfRange)?;
        host()?.setup_collection(its, cpu, Rdbase::from_field(rdbase >> 16))
    };
    outcome(setup())
}

/// Whose the host LPI `lpi` is: 0 for nobody's; else bit 63 is set, bits 47:32
/// are the domain, and bits 31:0 the virtual LPI, or 0 for an event that the
/// guest has not mapped. Interrupt context; takes no lock.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_host_lpi(lpi: u32) -> u64 {
    let entry = Lpi::new(lpi).and_then(|lpi| HOST.get()?.claim(lpi));
    entry.map_or(0, HostEntry::owner)
}

/// Print the host's LPIs and ITSes.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_host_dump() {
    if let Ok(host) = host() {
        host.dump();
    }
}

// ---- Domains ----

/// Make the ITS state of domain `d`, whose number is `id`: `max_vcpus` vCPUs,
/// `id_bits` INTID bits, and `nr_vits` virtual ITSes, number n for host ITS n.
/// `hardware_domain`: its MAPD may map devices that were not announced, with
/// `max_events` host LPIs in all, 0 for half of the host's. `lpi_rate`: how
/// many interrupts its devices may raise in a second; 0: 200000. On success
/// `*out` is the state.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_domain_create(
    d: XenGuest,
    id: u32,
    max_vcpus: u32,
    id_bits: u32,
    hardware_domain: bool,
    nr_vits: u32,
    max_events: u32,
    lpi_rate: u32,
    out: &mut DomainHandle,
) -> i32 {
    let create = move || {
        let config = DomainConfig {
            id: u16::try_from(id).map_err(|_| Error::OutOfRange)?,
            vcpus: u16::try_from(max_vcpus).map_err(|_| Error::OutOfRange)?,
            id_bits: u8::try_from(id_bits).ok().and_then(IdBits::new).ok_or(Error::OutOfRange)?,
            hardware: hardware_domain,
            vits: usize::try_from(nr_vits).map_err(|_| Error::OutOfRange)?,
            max_events: if max_events == 0 { None } else { Some(max_events) },
            lpi_rate: if lpi_rate == 0 { None } else { Some(lpi_rate) },
        };
        Owned::new(XenItsDomain(Domain::new(host()?, d, config)?))
    };
    outcome(create().map(|domain| *out = Some(domain)))
}

/// vCPU `id` of the domain is `v`.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_vcpu_init(its: &XenItsDomain, v: XenVcpu, id: u32) -> i32 {
    let add = move || its.0.add_vcpu(vcpu_id(id)?, v);
    outcome(add())
}

/// Unmap all devices on the host, and give back the guest's pages. The domain
/// is dying, and none of its vCPUs runs any more. 1: there is more to do, call
/// again; that is harmless in any case.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_domain_relinquish(its: &XenItsDomain) -> i32 {
    host().map_or_else(errno, |host| its.0.relinquish(host).into())
}

/// Free the state; NULL is fine. Nobody uses it any more.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_domain_destroy(its: DomainHandle) {
    if let Some(its) = its {
        if let Ok(host) = host() {
            while its.0.relinquish(host) {}
        }
        drop(its);
    }
}

/// Print devices, vCPUs, LPIs and counters.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_dump(its: &XenItsDomain) {
    if let Ok(host) = host() {
        its.0.dump(host);
    }
}

// ---- Interrupts ----

/// A host LPI of the domain has fired, and `xen_its_host_lpi` said that its
/// virtual LPI is `lpi`, or 0. True: call `xen_its_mask`. Interrupt context, no
/// lock held.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_deliver(its: &XenItsDomain, lpi: u32) -> bool {
    match Lpi::new(lpi) {
        Some(lpi) => its.0.deliver(lpi),
        None => its.0.unmapped(),
    }
}

/// The host LPI `host_lpi` of the domain fires too often: disable it, until an
/// interrupt of it makes a difference again. Interrupt context, no lock held.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_mask(its: &XenItsDomain, host_lpi: u32) {
    if let (Ok(host), Some(host_lpi)) = (host(), Lpi::new(host_lpi)) {
        its.0.mask(host, host_lpi);
    }
}

/// The time that `xen_its_svc_request_tick` was given is over. Softirq
/// context, no lock held.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_tick(its: &XenItsDomain) {
    if let Ok(host) = host() {
        its.0.tick(host);
    }
}

/// The guest is done with the LPI in `slot` of `locked`, the current vCPU,
/// and the list register is free. Its vGIC lock is held.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_slot_done(its: &XenItsDomain, mut locked: VgicHeld, id: u32, slot: u32) {
    if let (Ok(id), Ok(slot)) = (vcpu_id(id), u8::try_from(slot)) {
        its.0.slot_done(&mut locked, id, slot);
    }
}

/// Another interrupt of `locked`, the current vCPU, whose number is `id`, wants
/// a list register: take one from an LPI that is less urgent than `priority`.
/// -1: there is none. Its vGIC lock is held.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_yield_slot(
    its: &XenItsDomain,
    mut locked: VgicHeld,
    id: u32,
    priority: u8,
) -> i32 {
    let slot = vcpu_id(id).ok().and_then(|id| its.0.yield_slot(&mut locked, id, priority));
    slot.map_or(-1, i32::from)
}

/// Does an LPI of `locked`, which is vCPU `id`, wait for a list register that is
/// more urgent than `limit`, 0 to 256? Its vGIC lock is held.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_is_urgent(
    its: &XenItsDomain,
    mut locked: VgicHeld,
    id: u32,
    limit: u32,
) -> bool {
    vcpu_id(id).is_ok_and(|id| its.0.is_urgent(&mut locked, id, limit))
}

/// `locked`, the current vCPU, whose number is `id`, is about to enter the
/// guest: LPIs get list registers. `xen_its_svc_request_fill` asked for it, or a
/// list register is free for which this said that LPIs wait. True: LPIs wait
/// until a list register is free. Its vGIC lock is held.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_fill(its: &XenItsDomain, mut locked: VgicHeld, id: u32) -> bool {
    vcpu_id(id).is_ok_and(|id| its.0.fill(&mut locked, id))
}

/// `locked`, which is vCPU `id`, goes off, or is about to be switched on: its
/// LPIs leave the list registers. Its vGIC lock is held.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_vcpu_reset(its: &XenItsDomain, mut locked: VgicHeld, id: u32) {
    if let Ok(id) = vcpu_id(id) {
        its.0.vcpu_reset(&mut locked, id);
    }
}

/// The current vCPU `id` asked for this with `xen_its_svc_request_sync`, and
/// is about to enter the guest, or to be descheduled. Interrupts off, no lock
/// held.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_sync(its: &XenItsDomain, id: u32) {
    if let Ok(id) = vcpu_id(id)
        && its.0.sync(id)
        && let Ok(host) = host()
    {
        its.0.unmask_taken(host, id);
    }
}

// ---- Registers ----

/// The guest reads 2^`size` bytes at `offset` of virtual ITS `vits`'s 128 KiB.
/// A negative errno: it gets a data abort.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_mmio_read(
    its: &XenItsDomain,
    vits: u32,
    offset: u32,
    size: u32,
    value: &mut u64,
) -> i32 {
    let read = || its.0.its_read(vits_number(vits)?, offset.into(), width(size)?);
    outcome(read().map(|read| *value = read))
}

/// The guest writes there. 1: commands are left over, call `xen_its_work`
/// before the vCPU enters the guest. A negative errno: it gets a data abort.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_mmio_write(
    its: &XenItsDomain,
    vits: u32,
    offset: u32,
    size: u32,
    value: u64,
) -> i32 {
    let write = || its.0.its_write(host()?, vits_number(vits)?, offset.into(), width(size)?, value);
    write().map_or_else(errno, i32::from)
}

/// Execute the next batch of commands. True: there are more, call again after
/// the CPU's other work. Interrupts on, no lock held.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_work(its: &XenItsDomain) -> bool {
    host().is_ok_and(|host| its.0.work(host))
}

/// The guest reads an LPI register of the redistributor of vCPU `id`: GICR_
/// CTLR, SETLPIR, CLRLPIR, PROPBASER, PENDBASER, INVLPIR, INVALLR, SYNCR.
/// -ENOENT: it is none of these. Another negative errno: it gets a data abort.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_gicr_read(
    its: &XenItsDomain,
    id: u32,
    offset: u32,
    size: u32,
    value: &mut u64,
) -> i32 {
    let read = || its.0.gicr_read(vcpu_id(id)?, offset.into(), width(size)?);
    outcome(read().map(|read| *value = read))
}

/// The guest writes one of them. 1: work is left over, as for
/// `xen_its_mmio_write`.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_gicr_write(
    its: &XenItsDomain,
    id: u32,
    offset: u32,
    size: u32,
    value: u64,
) -> i32 {
    let write = || its.0.gicr_write(vcpu_id(id)?, offset.into(), width(size)?, value);
    write().map_or_else(errno, i32::from)
}

// ---- Devices ----

/// Assign the device that host ITS `vits` knows as `device`, with `events`
/// events at least, to the domain. One that is assigned already is shared:
/// functions with the same DeviceID announce it one by one. 1: it is not yet,
/// call again with the same arguments; nothing is lost if nobody does.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_device_add(
    its: &XenItsDomain,
    vits: u32,
    device: u32,
    events: u32,
) -> i32 {
    let add = || its.0.add_device(host()?, vits_index(vits)?, DeviceId::new(device), events.into());
    add().map_or_else(errno, i32::from)
}

/// Take it away again, or one of the functions that share it. 1: that has not
/// begun, call again. 0: it is not the caller's any more; call `xen_its_work`
/// for what is left over. -ENOENT when it was not announced.
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_device_remove(its: &XenItsDomain, vits: u32, device: u32) -> i32 {
    let remove = || its.0.remove_device(host()?, vits_index(vits)?, DeviceId::new(device));
    remove().map_or_else(errno, i32::from)
}
