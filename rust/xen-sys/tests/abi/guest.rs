// SPDX-License-Identifier: GPL-2.0-only
//! A domain with its vCPUs, driven as Xen and its guest would.

use std::ptr::null_mut;
use std::sync::Arc;

use its_arch::gicr::{GICR_CTLR, GICR_PENDBASER, GICR_PROPBASER, PendBaser, PropBaser};
use its_arch::gits::{self, Cbaser};
use its_arch::{Command, GuestPa, Lpi, LpiProperty};
use its_testkit::{Machine, cmd};

use crate::c;
use crate::machine::{Domain, HostIts, QUEUE_BYTES, Slot, Vcpu};
use crate::services::{irqs_off, irqs_restore};

/// Where the command queue is: one page.
pub const QUEUE: u64 = 0x4000_0000;
/// Where the LPI configuration table is: one page.
pub const PROPERTIES: u64 = 0x5000_0000;
/// Where the pending table of vCPU 0 is; the others follow.
const PENDING: u64 = 0x5800_0000;
/// INTID bits: 8192 LPIs.
pub const ID_BITS: u32 = 14;
/// vCPUs.
pub const VCPUS: u32 = 2;

/// The host ITS; host ITSes are never taken away.
pub static HOST_ITS: HostIts = HostIts::new();

/// Set up the host, once. The heap that it needs stays in use.
pub fn boot() {
    static BOOTED: std::sync::Once = std::sync::Once::new();
    BOOTED.call_once(|| {
        // SAFETY: the ITS is there for ever.
        unsafe {
            assert_eq!(c::xen_its_host_init(14), 0);
            assert_eq!(c::xen_its_host_add(&raw const HOST_ITS, QUEUE_BYTES, 16, 5, 8), 0);
        }
        for cpu in 0..2 {
            // A CPU that comes up.
            let flags = irqs_off();
            // SAFETY: may be called at boot.
            let done = unsafe { c::xen_its_host_setup_collection(0, cpu, u64::from(cpu) << 16) };
            irqs_restore(flags);
            assert_eq!(done, 0);
        }
    });
}

/// A guest.
pub struct Guest {
    /// Its RAM.
    pub ram: Arc<Domain>,
    /// Its vCPUs.
    pub vcpus: Vec<Vcpu>,
    /// The component's state of it.
    pub its: *mut c::XenItsDomain,
}

// SAFETY: the component's state may be used on any CPU.
unsafe impl Sync for Guest {}

impl Guest {
    /// A guest that has not started yet.
    ///
    /// # Errors
    /// The component's.
    pub fn new() -> Result<Self, i32> {
        boot();
        let mut ram = Domain::default();
        ram.add(QUEUE, 4096);
        ram.add(PROPERTIES, 8192);
        ram.add(PENDING, u64::from(VCPUS) * 0x1_0000);
        let ram = Arc::new(ram);
        let vcpus: Vec<Vcpu> = (0..VCPUS).map(|_| Vcpu::default()).collect();
        let mut its = null_mut();
        // SAFETY: the domain outlives its ITS state; see `drop`.
        let made = unsafe {
            c::xen_its_domain_create(
                &raw const *ram,
                7,
                VCPUS,
                ID_BITS,
                true,
                1,
                0,
                0,
                &raw mut its,
            )
        };
        let guest = Self { ram, vcpus, its };
        if made != 0 {
            assert!(guest.its.is_null(), "an error, and a domain");
            return Err(made);
        }
        for (id, vcpu) in (0..).zip(&guest.vcpus) {
            // SAFETY: the vCPU outlives the ITS state.
            match unsafe { c::xen_its_vcpu_init(guest.its, &raw const *vcpu, id) } {
                0 => {}
                error => return Err(error),
            }
        }
        Ok(guest)
    }

    /// A guest whose kernel has set up ITS and redistributors: collection n
    /// is vCPU n.
    pub fn booted() -> Self {
        let guest = Self::new().expect("there is memory");
        guest.boot();
        guest
    }

    /// What a guest's kernel does first.
    pub fn boot(&self) {
        self.write(gits::GITS_BASER, 8, Machine::baser(8).into());
        self.write(gits::GITS_BASER + 8, 8, Machine::baser(1).into());
        let cbaser = Cbaser::new().with_valid(true).with_address(GuestPa::new(QUEUE));
        self.write(gits::GITS_CBASER, 8, cbaser.into());
        self.write(gits::GITS_CTLR, 4, 1);
        for id in 0..VCPUS {
            let propbaser =
                PropBaser::new().with_id_bits(13).with_address(GuestPa::new(PROPERTIES));
            self.gicr_write(id, GICR_PROPBASER, 8, propbaser.into());
            let table = PENDING + u64::from(id) * 0x1_0000;
            let pendbaser = PendBaser::new().with_ptz(true).with_address(GuestPa::new(table));
            self.gicr_write(id, GICR_PENDBASER, 8, pendbaser.into());
            self.gicr_write(id, GICR_CTLR, 4, 1);
        }
        self.command(&[cmd::mapc(0, 0), cmd::mapc(1, 1)]);
    }

    fn offset(offset: u64) -> u32 {
        u32::try_from(offset).expect("small")
    }

    /// Write a register of the ITS, and let all that follows be done.
    pub fn write(&self, offset: u64, bytes: u32, value: u64) {
        // SAFETY: the domain exists.
        let left = unsafe {
            c::xen_its_mmio_write(self.its, 0, Self::offset(offset), bytes.ilog2(), value)
        };
        assert!(left == 0 || left == 1, "{left}");
        self.work();
    }

    /// Write a register of a redistributor.
    pub fn gicr_write(&self, id: u32, offset: u64, bytes: u32, value: u64) {
        // SAFETY: the domain exists.
        let left = unsafe {
            c::xen_its_gicr_write(self.its, id, Self::offset(offset), bytes.ilog2(), value)
        };
        assert!(left == 0 || left == 1, "{left}");
        self.work();
    }

    /// What vCPUs do before they enter the guest again.
    pub fn work(&self) {
        // SAFETY: the domain exists.
        while unsafe { c::xen_its_work(self.its) } {}
    }

    /// Read a register of the ITS.
    pub fn read(&self, offset: u64, bytes: u32) -> u64 {
        let mut value = 0;
        // SAFETY: the domain exists.
        let result = unsafe {
            c::xen_its_mmio_read(self.its, 0, Self::offset(offset), bytes.ilog2(), &raw mut value)
        };
        assert_eq!(result, 0);
        value
    }

    /// Have commands executed.
    pub fn command(&self, commands: &[Command]) {
        let mut at = self.read(gits::GITS_CWRITER, 8);
        for command in commands {
            self.ram.write(QUEUE + at, &command.encode().to_le_bytes());
            at = (at + 32) % 4096;
        }
        self.write(gits::GITS_CWRITER, 8, at);
        assert_eq!(self.read(gits::GITS_CREADR, 8), at, "commands are left over");
    }

    /// Set priority and enable bit of an LPI.
    pub fn set_property(&self, lpi: u32, priority: u8, enabled: bool) {
        let property = LpiProperty::with(priority, enabled);
        self.ram.write(PROPERTIES + u64::from(lpi - Lpi::FIRST), &[property.get()]);
    }

    /// A device raises an event. True if it is an LPI of a guest's.
    pub fn fire(&self, device: u32, event: u32) -> bool {
        let Some(lpi) = HOST_ITS.fire(device, event) else { return false };
        let flags = irqs_off();
        // SAFETY: may be called any time; the domain exists.
        let entry = unsafe { c::xen_its_host_lpi(lpi) };
        if entry != 0 {
            assert_eq!(entry >> 32, 1 << 31 | 7, "it is domain 7's");
            let vlpi = u32::try_from(entry & 0xffff_ffff).expect("32 bits");
            // SAFETY: the domain exists.
            if unsafe { c::xen_its_deliver(self.its, vlpi) } {
                // SAFETY: the domain exists.
                unsafe { c::xen_its_mask(self.its, lpi) };
            }
        }
        irqs_restore(flags);
        entry & 0xffff_ffff != 0
    }

    fn vcpu(&self, id: u32) -> &Vcpu {
        &self.vcpus[usize::try_from(id).expect("small")]
    }

    /// A vCPU enters the guest.
    pub fn enter(&self, id: u32) {
        let vcpu = self.vcpu(id);
        vcpu.take_kick();
        let off = irqs_off();
        if vcpu.locked(|queues| std::mem::take(&mut queues.sync)) {
            // SAFETY: the domain exists.
            unsafe { c::xen_its_sync(self.its, id) };
        }
        let flags = vcpu.lock();
        let room = vcpu.with(|queues| queues.more && queues.slots.iter().any(|slot| slot.lpi == 0));
        if vcpu.with(|queues| std::mem::take(&mut queues.fill)) || room {
            // SAFETY: the domain exists, and the lock is held.
            let more = unsafe { c::xen_its_fill(self.its, &raw const *vcpu, id) };
            vcpu.with(|queues| queues.more = more);
        }
        vcpu.unlock(flags);
        irqs_restore(off);
    }

    /// The guest takes the most urgent LPI in a list register, and is not
    /// done with it.
    pub fn take(&self, id: u32) -> Option<u32> {
        self.vcpu(id).locked(|queues| {
            let ready = queues.slots.iter_mut().filter(|slot| slot.pending);
            let slot = ready.min_by_key(|slot| slot.priority)?;
            (slot.pending, slot.active) = (false, true);
            Some(slot.lpi)
        })
    }

    /// The guest is done with an LPI, and Xen sees it.
    pub fn end(&self, id: u32, lpi: u32) {
        let vcpu = self.vcpu(id);
        let flags = vcpu.lock();
        let (slot, gone) = vcpu.with(|queues| {
            let at = queues.slots.iter().position(|slot| slot.lpi == lpi).expect("it has a slot");
            let slot = &mut queues.slots[at];
            slot.active = false;
            let gone = !slot.pending;
            if gone {
                *slot = Slot::default();
            }
            (u32::try_from(at).expect("small"), gone)
        });
        if gone {
            // SAFETY: the domain exists, the lock is held, the slot is empty.
            unsafe { c::xen_its_slot_done(self.its, &raw const *vcpu, id, slot) };
        }
        vcpu.unlock(flags);
    }

    /// Another interrupt of a vCPU wants a list register.
    pub fn yield_slot(&self, id: u32, priority: u8) -> Option<u32> {
        let vcpu = self.vcpu(id);
        let flags = vcpu.lock();
        // SAFETY: the domain exists, and the lock is held.
        let slot = unsafe { c::xen_its_yield_slot(self.its, &raw const *vcpu, id, priority) };
        vcpu.unlock(flags);
        u32::try_from(slot).ok()
    }

    /// Does an LPI wait that is more urgent than `limit`?
    pub fn is_urgent(&self, id: u32, limit: u32) -> bool {
        let vcpu = self.vcpu(id);
        let flags = vcpu.lock();
        // SAFETY: the domain exists, and the lock is held.
        let urgent = unsafe { c::xen_its_is_urgent(self.its, &raw const *vcpu, id, limit) };
        vcpu.unlock(flags);
        urgent
    }

    /// The guest takes all LPIs of a vCPU.
    pub fn drain(&self, id: u32) -> Vec<u32> {
        let mut all = Vec::new();
        loop {
            self.enter(id);
            let Some(lpi) = self.take(id) else { return all };
            self.end(id, lpi);
            all.push(lpi);
        }
    }

    /// The domain dies.
    pub fn relinquish(&self) {
        // SAFETY: the domain exists.
        while unsafe { c::xen_its_domain_relinquish(self.its) } == 1 {}
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // SAFETY: nobody uses it after this. NULL is fine.
        unsafe { c::xen_its_domain_destroy(self.its) }
    }
}
