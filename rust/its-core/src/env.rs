// SPDX-License-Identifier: GPL-2.0-only
//! What behaviour needs from the hypervisor, and nothing more.
//!
//! "IRQ" in a doc comment means that the method is called from interrupt
//! context, or with a vCPU's vGIC lock held: it must not allocate, sleep or
//! take a lock that is not interrupt-safe.

use core::ops::{Deref, DerefMut};

use its_arch::{GuestPa, Lpi, RawCommand};

use crate::Error;

/// Slots for LPIs that each vCPU has: slot `n` is list register `n`, of which
/// GICv3 allows 16 at most. LPIs that wait for one are in a bitmap.
pub const SLOTS: usize = 16;

/// How loud a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A guest's mistake: [`Env::may_complain`] has said that it may be printed.
    Guest,
    /// Something failed on the host.
    Error,
    /// What somebody asked for.
    Info,
}

/// The hypervisor.
pub trait Env: Sized + Send + Sync + 'static {
    /// An owned array on the hypervisor's heap.
    type Buf<T: Send + Sync>: Deref<Target = [T]> + DerefMut + Send + Sync;
    /// A cell that is written once, then read without a lock.
    type Once<T: Send + Sync>: Once<T>;
    /// A spinlock for trap context; its holder may allocate.
    type Lock<T: Send>: Lock<T>;
    /// A spinlock for any context: interrupts are off while it is held.
    type IrqLock<T: Send>: Lock<T>;
    /// State under a vCPU's vGIC lock.
    type VgicLock<T: Send>: VgicLock<T, Vcpu = Self::Vcpu, Held = Self::Held>;
    /// Proof that the hypervisor holds the vGIC lock of one vCPU for us.
    type Held;
    /// Memory that the host ITS uses. Freed on drop.
    type Table: Table;
    /// One host ITS.
    type HostHw: HostHw;
    /// One guest.
    type Guest: Guest;
    /// One vCPU.
    type Vcpu: Vcpu;

    /// Make an array of `len` elements, each from `make(index)`.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    fn alloc<T: Send + Sync>(
        len: usize,
        make: impl FnMut(usize) -> T,
    ) -> Result<Self::Buf<T>, Error>;

    /// Zeroed memory for the host ITS: `size` bytes, aligned to `align`, a
    /// power of two, written back so that a non-coherent ITS sees it.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    fn alloc_table(size: usize, align: usize) -> Result<Self::Table, Error>;

    /// Time in nanoseconds since some moment. IRQ.
    fn now() -> u64;
    /// Wait for about a microsecond. IRQ.
    fn relax();
    /// May one more line about a guest's mistake be printed? Its rate is limited.
    /// IRQ.
    fn may_complain() -> bool;
    /// Print `line`. IRQ.
    fn log(level: Level, line: &str);

    /// Write the enable bit of host LPI `lpi` to the property table, so that a
    /// redistributor that reads it from now on sees it. One that has read it
    /// before does not look again before an INV. IRQ.
    fn set_host_enabled(lpi: Lpi, enabled: bool);
}

/// A cell that is set at most once. IRQ, for [`Once::get`].
pub trait Once<T>: Send + Sync {
    /// An empty cell.
    fn new() -> Self;
    /// The value, if it has been set.
    fn get(&self) -> Option<&T>;
    /// Set it. `Err(value)` if it was set before.
    ///
    /// # Errors
    /// Gives the value back.
    fn set(&self, value: T) -> Result<(), T>;
}

/// A spinlock around a value.
pub trait Lock<T>: Send + Sync {
    /// Releases the lock on drop.
    type Guard<'a>: DerefMut<Target = T>
    where
        Self: 'a;
    /// An unlocked lock.
    fn new(value: T) -> Self;
    /// Spin until the lock is ours.
    fn lock(&self) -> Self::Guard<'_>;
}

/// State that a vCPU's vGIC lock protects: the lock belongs to the
/// hypervisor, which shares it with its own interrupt queues. IRQ.
pub trait VgicLock<T>: Send + Sync {
    /// The vCPU.
    type Vcpu;
    /// See [`Env::Held`].
    type Held;
    /// Releases the lock on drop.
    type Guard<'a>: DerefMut<Target = T>
    where
        Self: 'a;
    /// Put `value` under the lock of `vcpu`.
    fn new(vcpu: Self::Vcpu, value: T) -> Self;
    /// The vCPU whose lock this is.
    fn vcpu(&self) -> &Self::Vcpu;
    /// Take the lock, with interrupts off.
    fn lock(&self) -> Self::Guard<'_>;
    /// Run `f` under the lock. Interrupts are off already.
    fn with_in_irq<R>(&self, f: impl FnOnce(&mut T) -> R) -> R;
    /// The hypervisor already holds the lock: run `f` under it. `None`, and
    /// `f` is not run, when `held` is another vCPU's.
    fn with_held<R>(&self, held: &mut Self::Held, f: impl FnOnce(&mut T) -> R) -> Option<R>;
}

/// Memory that the host ITS uses.
pub trait Table: Send + Sync {
    /// Its machine address.
    fn address(&self) -> u64;
}

/// Registers and command queue memory of one host ITS. IRQ.
pub trait HostHw: Send + Sync {
    /// GITS_CREADR as the hardware gives it.
    fn creadr(&self) -> u64;
    /// Write a command to the slot at byte `offset` of the queue.
    fn write_command(&self, offset: u64, command: &RawCommand);
    /// Make all commands written so far visible, then write GITS_CWRITER.
    fn set_cwriter(&self, offset: u64);
}

/// A guest's memory, and its timer.
pub trait Guest: Send + Sync {
    /// A page of the guest's RAM, mapped and referenced until dropped.
    type Page: Page;
    /// Copy from the guest. The range lies in one 4 KiB page.
    ///
    /// # Errors
    /// [`Error::BadAccess`] when it is not RAM.
    fn read(&self, from: GuestPa, to: &mut [u8]) -> Result<(), Error>;
    /// Pin the 4 KiB page at the page-aligned address `at`.
    ///
    /// # Errors
    /// [`Error::BadAccess`] when it is not RAM.
    fn pin(&self, at: GuestPa) -> Result<Self::Page, Error>;
    /// Have [`crate::Domain::tick`] called once, in `after` nanoseconds, or
    /// sooner if that was asked for before. IRQ.
    fn request_tick(&self, after: u64);
}

/// A pinned page of guest RAM. The guest may write it at any time.
pub trait Page: Send + Sync {
    /// One byte, read once. 0 beyond the page. IRQ.
    fn byte(&self, offset: usize) -> u8;
    /// Copy little-endian doublewords from the aligned byte `offset` on, each
    /// read once. All are 0 if they are not in the page.
    fn read(&self, offset: usize, to: &mut [u64]);
    /// Give the page back ahead of the drop; bytes read as 0 from now on. No
    /// other CPU reads meanwhile.
    fn release(&self);
}

/// What [`Vcpu::evict`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// The guest had not taken the LPI, or it had fired again since.
    pub pending: bool,
    /// The guest is handling the LPI: its slot stays in use.
    pub active: bool,
}

/// The list registers of one vCPU, as far as LPIs use them. Except for
/// [`Vcpu::kick`], its vGIC lock is held. `slot` is below [`SLOTS`].
pub trait Vcpu: Send + Sync {
    /// A list register of the current vCPU that nobody uses.
    fn free_slot(&self) -> Option<u8>;
    /// Take a list register of the current vCPU from an interrupt other than
    /// an LPI that is less urgent than `priority`, and that the guest has not
    /// taken; it waits for another one.
    fn displace(&self, priority: u8) -> Option<u8>;
    /// Make `lpi` pending in a list register of the current vCPU that nobody
    /// uses.
    fn load(&self, slot: u8, lpi: Lpi, priority: u8);
    /// The LPI in the slot fired again. True: that changes nothing, because it
    /// is known to be pending already.
    fn again(&self, slot: u8) -> bool;
    /// Take the LPI back from a list register of the current vCPU.
    fn evict(&self, slot: u8) -> Evicted;
    /// Empty the slot of a vCPU that goes off or is being reset. True: the LPI
    /// was pending.
    fn reset(&self, slot: u8) -> bool;
    /// Have [`crate::Domain::sync`] called before the vCPU enters the guest,
    /// sleeps or goes off.
    fn request_sync(&self);
    /// Have [`crate::Domain::fill`] called before the vCPU enters the guest.
    /// False if the vCPU need not be kicked for that.
    fn request_fill(&self) -> bool;
    /// Make the vCPU look at what was requested. Its vGIC lock is not held.
    fn kick(&self);
}
