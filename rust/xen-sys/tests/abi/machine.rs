// SPDX-License-Identifier: GPL-2.0-only
//! The guest's half of `include/xen_services.h`, and the host ITS: domains,
//! vCPUs and ITSes are structures of C's, which only C looks into.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_ulong, c_void};
use std::ptr::null;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use its_arch::{Command, RawCommand};

use crate::services::{irqs_off, irqs_on, irqs_restore, lock};

// ---- struct domain ----

/// A page, aligned as pages are.
#[repr(align(4096))]
struct PageBytes([AtomicU8; 4096]);

/// A guest's RAM, in pages that stay where they are.
#[derive(Default)]
pub struct Domain {
    pages: BTreeMap<u64, Box<PageBytes>>,
}

static PINNED: Mutex<BTreeMap<usize, u32>> = Mutex::new(BTreeMap::new());

/// Pages with a reference on them.
pub fn pinned() -> usize {
    lock(&PINNED).len()
}

impl Domain {
    /// Put RAM at `bytes` bytes from `base`.
    pub fn add(&mut self, base: u64, bytes: u64) {
        for page in base / 4096..(base + bytes) / 4096 {
            self.pages.insert(page, Box::new(PageBytes([const { AtomicU8::new(0) }; 4096])));
        }
    }

    /// The guest writes.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        for (at, byte) in (at..).zip(bytes) {
            let page = self.pages.get(&(at / 4096)).expect("RAM");
            page.0[usize::try_from(at % 4096).expect("small")].store(*byte, Ordering::Relaxed);
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xen_its_svc_guest_read(
    d: &Domain,
    gpa: u64,
    buf: *mut c_void,
    len: usize,
) -> c_int {
    assert!(irqs_on(), "guest memory is looked up with interrupts off");
    let from = usize::try_from(gpa % 4096).expect("small");
    assert!(from + len <= 4096, "{len} bytes at {gpa:#x} are not in one page");
    let Some(page) = d.pages.get(&(gpa / 4096)) else { return -14 };
    for (n, byte) in page.0[from..from + len].iter().enumerate() {
        // SAFETY: the caller has room for `len` bytes.
        unsafe { buf.cast::<u8>().add(n).write(byte.load(Ordering::Relaxed)) };
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_page_pin(d: &Domain, gpa: u64) -> *const c_void {
    assert!(irqs_on(), "guest memory is looked up with interrupts off");
    assert_eq!(gpa % 4096, 0, "{gpa:#x} is no page");
    let Some(page) = d.pages.get(&(gpa / 4096)) else { return null() };
    let bytes = page.0.as_ptr();
    *lock(&PINNED).entry(bytes.addr()).or_default() += 1;
    bytes.cast()
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_page_unpin(page: *const c_void) {
    let mut pinned = lock(&PINNED);
    let count = pinned.get_mut(&page.addr()).expect("a page is unpinned that is not pinned");
    *count -= 1;
    if *count == 0 {
        pinned.remove(&page.addr());
    }
}

// ---- struct vcpu ----

/// List registers of a CPU.
pub const REGISTERS: usize = 4;

/// A list register; `lpi` is 0 in one that is free.
#[derive(Clone, Copy, Default)]
pub struct Slot {
    /// The LPI it carries.
    pub lpi: u32,
    /// Its priority.
    pub priority: u8,
    /// The guest has yet to take it.
    pub pending: bool,
    /// The guest is handling it.
    pub active: bool,
}

/// What a vCPU's vGIC lock protects.
#[derive(Default)]
pub struct Queues {
    /// The list registers.
    pub slots: [Slot; REGISTERS],
    /// `xen_its_sync` is asked for.
    pub sync: bool,
    /// `xen_its_fill` is asked for.
    pub fill: bool,
    /// It said that LPIs wait until a list register is free.
    pub more: bool,
}

/// A vCPU.
#[derive(Default)]
pub struct Vcpu {
    locked: AtomicBool,
    kicked: AtomicBool,
    queues: UnsafeCell<Queues>,
}

// SAFETY: `queues` is reached through `with` only, under the lock.
unsafe impl Sync for Vcpu {}

impl Vcpu {
    /// Take the vGIC lock.
    pub fn lock(&self) -> c_ulong {
        let flags = irqs_off();
        while self.locked.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
        flags
    }

    /// Release it.
    pub fn unlock(&self, flags: c_ulong) {
        assert!(self.locked.swap(false, Ordering::Release), "the vGIC lock is not held");
        irqs_restore(flags);
    }

    /// Look at the queues; the caller holds the lock. `look` calls nothing of
    /// the component's.
    pub fn with<R>(&self, look: impl FnOnce(&mut Queues) -> R) -> R {
        assert!(self.locked.load(Ordering::Relaxed), "the vGIC lock is not held");
        // SAFETY: the lock is held, and no other `with` is under way in it.
        look(unsafe { &mut *self.queues.get() })
    }

    /// The same, with the lock taken for it.
    pub fn locked<R>(&self, look: impl FnOnce(&mut Queues) -> R) -> R {
        let flags = self.lock();
        let found = self.with(look);
        self.unlock(flags);
        found
    }

    fn slot<R>(&self, slot: u32, look: impl FnOnce(&mut Slot) -> R) -> R {
        let at = usize::try_from(slot).expect("small");
        self.with(|queues| look(&mut queues.slots[at]))
    }

    /// Whether it was kicked since it was last asked.
    pub fn take_kick(&self) -> bool {
        self.kicked.swap(false, Ordering::Relaxed)
    }
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_vgic_lock(v: &Vcpu) -> c_ulong {
    v.lock()
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_vgic_unlock(v: &Vcpu, flags: c_ulong) {
    v.unlock(flags);
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_vgic_lock_in_irq(v: &Vcpu) {
    assert!(!irqs_on(), "interrupts are on");
    let _off = v.lock();
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_vgic_unlock_in_irq(v: &Vcpu) {
    // They stay off.
    v.unlock(0);
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_slot_free(v: &Vcpu) -> i32 {
    let free = v.with(|queues| queues.slots.iter().position(|slot| slot.lpi == 0));
    free.map_or(-1, |at| i32::try_from(at).expect("small"))
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_slot_displace(_: &Vcpu, _: u8) -> i32 {
    // There are LPIs only.
    -1
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_slot_load(v: &Vcpu, slot: u32, lpi: u32, priority: u8) {
    v.slot(slot, |slot| {
        assert_eq!(slot.lpi, 0, "the slot is in use");
        *slot = Slot { lpi, priority, pending: true, ..Slot::default() };
    });
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_slot_again(v: &Vcpu, slot: u32) -> bool {
    v.slot(slot, |slot| {
        assert_ne!(slot.lpi, 0, "the slot is free");
        std::mem::replace(&mut slot.pending, true)
    })
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_request_tick(d: &Domain, after: u64) {
    assert!(!d.pages.is_empty(), "this is no domain");
    assert!(after < 1_000_000_000, "a timer for {after} ns");
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_slot_evict(v: &Vcpu, slot: u32) -> u32 {
    v.slot(slot, |slot| {
        let was = u32::from(slot.pending) | u32::from(slot.active) << 1;
        slot.pending = false;
        if !slot.active {
            *slot = Slot::default();
        }
        was
    })
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_slot_reset(v: &Vcpu, slot: u32) -> bool {
    v.slot(slot, |slot| std::mem::take(slot).pending)
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_request_sync(v: &Vcpu) {
    v.with(|queues| queues.sync = true);
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_request_fill(v: &Vcpu) -> bool {
    v.with(|queues| queues.fill = true);
    true
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_kick(v: &Vcpu) {
    v.kicked.store(true, Ordering::Relaxed);
}

// ---- struct host_its ----

/// Bytes of the host ITS's command queue.
pub const QUEUE_BYTES: u32 = 4096;

struct Queue {
    slots: BTreeMap<u64, RawCommand>,
    cwriter: u64,
    /// What GITS_CREADR stays at.
    held: Option<u64>,
    /// The LPI of each device's event.
    map: BTreeMap<(u32, u32), u32>,
}

/// An ITS that executes commands at once; its-testkit has a strict one.
pub struct HostIts(Mutex<Queue>);

impl HostIts {
    /// An ITS with an empty queue.
    pub const fn new() -> Self {
        Self(Mutex::new(Queue {
            slots: BTreeMap::new(),
            cwriter: 0,
            held: None,
            map: BTreeMap::new(),
        }))
    }

    /// From now on it does not say that it has executed anything more; or it
    /// does again.
    pub fn hold(&self, held: bool) {
        let mut queue = lock(&self.0);
        queue.held = held.then_some(queue.cwriter);
    }

    /// A device raises an event: the LPI that comes of it.
    pub fn fire(&self, device: u32, event: u32) -> Option<u32> {
        lock(&self.0).map.get(&(device, event)).copied()
    }
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_host_creadr(its: &HostIts) -> u64 {
    let queue = lock(&its.0);
    queue.held.unwrap_or(queue.cwriter)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xen_its_svc_host_write_command(
    its: &HostIts,
    offset: u64,
    command: *const u64,
) {
    assert!(offset.is_multiple_of(32) && offset < QUEUE_BYTES.into());
    // SAFETY: a command has four words.
    let words = unsafe { command.cast::<[u64; 4]>().read() };
    lock(&its.0).slots.insert(offset, RawCommand(words));
}

#[unsafe(no_mangle)]
extern "C" fn xen_its_svc_host_set_cwriter(its: &HostIts, offset: u64) {
    let mut queue = lock(&its.0);
    while queue.cwriter != offset {
        let at = queue.cwriter;
        let raw = queue.slots.remove(&at).expect("a command that was written");
        match Command::decode(&raw).expect("a command") {
            Command::Mapti { device, event, intid, .. } => {
                queue.map.insert((device.get(), event.get()), intid.get());
            }
            Command::Discard { device, event } => {
                queue.map.remove(&(device.get(), event.get()));
            }
            Command::Mapd { device, valid: false, .. } => {
                queue.map.retain(|(of, _), _| *of != device.get());
            }
            _ => {}
        }
        queue.cwriter = (at + 32) % u64::from(QUEUE_BYTES);
    }
}
