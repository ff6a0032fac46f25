// SPDX-License-Identifier: GPL-2.0-only
//! A virtual ITS: what the guest sees of it.
//!
//! * [`registers`](self): the MMIO frames
//! * `queue`: fetching commands, a bounded number at a time
//! * `exec`: what each command does

mod exec;
mod queue;
mod registers;

use its_arch::command::Opcode;
use its_arch::gits::{Baser, BaserType, Cbaser, Creadr, Ctlr, Cwriter, PageSize, Typer};
use its_arch::memory::{Cacheability, Shareability};
use its_arch::{DeviceId, EventBits, RawCommand};

use crate::domain::{DeviceJob, Job};
use crate::env::{Env, Guest, Lock};
use crate::host::Host;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Bytes of an entry in each of the tables that the guest provides. Nothing
/// is ever stored there.
const ENTRY_BYTES: u8 = 8;

/// What EventIDs have at most, 32 times what MSI-X can make use of. An ITT is
/// allocated and zeroed in one piece: this bounds how long that takes.
const MOST_EVENT_BITS: EventBits = match EventBits::new(16) {
    Some(bits) => bits,
    None => EventBits::MIN,
};

/// Commands that are fetched in one go, if they are in one page.
const RUN: usize = 16;

/// The registers, and what hangs on them. What changes is copied to [`Shown`].
struct Registers<E: Env> {
    enabled: bool,
    cbaser: Cbaser,
    /// Byte offset of GITS_CWRITER.
    cwriter: u64,
    /// Byte offset of GITS_CREADR.
    creadr: u64,
    stalled: bool,
    devices: Baser,
    collections: Baser,
    /// The page of the queue that commands were last fetched from, while the
    /// ITS is enabled.
    page: Option<QueuePage<E>>,
    /// Commands as they were last fetched. Here for no other reason than that it
    /// need not be zeroed each time.
    fetched: [[u64; 4]; RUN],
    /// Commands executed, by command number.
    executed: [u64; 16],
    /// Commands skipped because of an error, or unknown.
    skipped: u64,
    /// What a hypercall has begun. The guest's jobs and commands wait for it.
    assignment: Option<DeviceJob<E>>,
    job: Option<Running<E>>,
}

/// A page of the guest's command queue. If the guest puts another one in its
/// place without disabling the ITS, that is noticed when the queue next enters
/// this page.
struct QueuePage<E: Env> {
    at: u64,
    page: <E::Guest as Guest>::Page,
}

/// What the guest has begun.
struct Running<E: Env> {
    job: Job<E>,
    /// The command that it is, if it is one: GITS_CREADR moves when it is
    /// done.
    command: Option<(Opcode, RawCommand)>,
}

/// The registers as the guest reads them, without waiting for a batch of
/// commands. Written under the lock of [`Registers`].
struct Shown {
    ctlr: AtomicU32,
    cbaser: AtomicU64,
    cwriter: AtomicU64,
    creadr: AtomicU64,
    devices: AtomicU64,
    collections: AtomicU64,
}

/// One virtual ITS.
pub struct Vits<E: Env> {
    /// Its index in the domain, and that of the host ITS behind it.
    index: u16,
    device_bits: u8,
    event_bits: EventBits,
    typer: Typer,
    registers: E::Lock<Registers<E>>,
    shown: Shown,
    /// GITS_CTLR.Enabled, for interrupts.
    translating: AtomicBool,
}

/// The attributes that tables and queue have: what the hypervisor's own
/// accesses are.
const fn table(table_type: BaserType) -> Baser {
    Baser::new()
        .with_table_type(table_type)
        .with_entry_size(ENTRY_BYTES - 1)
        .with_page_size(PageSize::Size64K)
        .with_shareability(Shareability::Inner)
        .with_inner_cache(Cacheability::RaWaWb)
}

impl<E: Env> Vits<E> {
    /// Virtual ITS number `index`, as after reset. Has the ID bits of host ITS
    /// number `index`, but for [`MOST_EVENT_BITS`].
    pub(crate) fn new(host: &Host<E>, index: usize) -> Self {
        let config = host.its(index).map(|its| *its.config());
        let (device_bits, event_bits) =
            config.map_or((1, EventBits::MIN), |config| (config.device_bits, config.event_bits));
        let event_bits = event_bits.min(MOST_EVENT_BITS);
        let cbaser = Cbaser::new()
            .with_shareability(Shareability::Inner)
            .with_inner_cache(Cacheability::RaWaWb);
        let (devices, collections) = (table(BaserType::Devices), table(BaserType::Collections));
        Self {
            index: u16::try_from(index).unwrap_or(u16::MAX),
            device_bits,
            event_bits,
            typer: Self::typer(event_bits, device_bits),
            registers: E::Lock::new(Registers {
                enabled: false,
                cbaser,
                cwriter: 0,
                creadr: 0,
                stalled: false,
                devices,
                collections,
                page: None,
                fetched: [[0; 4]; RUN],
                executed: [0; 16],
                skipped: 0,
                assignment: None,
                job: None,
            }),
            shown: Shown {
                ctlr: AtomicU32::new(Ctlr::new().with_quiescent(true).into()),
                cbaser: AtomicU64::new(cbaser.into()),
                cwriter: AtomicU64::new(0),
                creadr: AtomicU64::new(0),
                devices: AtomicU64::new(devices.into()),
                collections: AtomicU64::new(collections.into()),
            },
            translating: AtomicBool::new(false),
        }
    }

    /// Does it translate what devices write? IRQ context.
    #[inline]
    pub(crate) fn translates(&self) -> bool {
        self.translating.load(Ordering::Relaxed)
    }

    /// Index of the host ITS behind it.
    pub(crate) fn host_its(&self) -> usize {
        usize::from(self.index)
    }

    /// Commands executed by number, and commands skipped.
    pub(crate) fn command_counts(&self) -> ([u64; 16], u64) {
        let registers = self.registers.lock();
        (registers.executed, registers.skipped)
    }

    fn show_ctlr(&self, registers: &Registers<E>) {
        let quiescent = !registers.has_work();
        let ctlr = Ctlr::new().with_enabled(registers.enabled).with_quiescent(quiescent);
        self.shown.ctlr.store(ctlr.into(), Ordering::Release);
    }

    fn show_cwriter(&self, registers: &Registers<E>) {
        let cwriter = Cwriter::from_byte_offset(registers.cwriter);
        self.shown.cwriter.store(cwriter.into(), Ordering::Release);
    }

    fn show_creadr(&self, registers: &Registers<E>) {
        let creadr = Creadr::from_byte_offset(registers.creadr).with_stalled(registers.stalled);
        self.shown.creadr.store(creadr.into(), Ordering::Release);
    }

    /// Does the guest's device table have room for `device`? What is in a
    /// two-level table is not looked at: nothing depends on it.
    fn device_in_range(&self, registers: &Registers<E>, device: DeviceId) -> bool {
        let devices = registers.devices;
        devices.valid()
            && u64::from(device.get()) < devices.capacity()
            && u64::from(device.get()) >> self.device_bits.min(32) == 0
    }
}
