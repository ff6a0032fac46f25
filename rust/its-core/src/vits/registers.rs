// SPDX-License-Identifier: GPL-2.0-only
//! The register frames: GITS_* of a virtual ITS (IHI 0069, 12.19), and the
//! LPI registers among GICR_* (12.11).

use its_arch::access::{Width, read_part, write_part};
use its_arch::gicr::{self, GicrCtlr, InvLpir, PendBaser, PropBaser};
use its_arch::gits::{self, Baser, Cbaser, Ctlr, Cwriter, PageSize, Typer};
use its_arch::memory::{Cacheability, Shareability};
use its_arch::{EventBits, IdBits, VcpuId};

use crate::Error;
use crate::budget::Budget;
use crate::domain::{COLLECTION_BITS, Domain, ForgetDevices, Job};
use crate::env::{Env, Lock};
use crate::host::Host;
use crate::sync::Ordering;
use crate::vits::{ENTRY_BYTES, Registers, Running, Vits};

/// Implementer and product of GITS_IIDR: what Xen has always said.
const IIDR: u32 = 0x5800_034c;
/// GITS_PIDR2: GICv3, and a JEP106 code is used.
const PIDR2: u32 = 0x3b;
/// The device table's GITS_BASER.
const DEVICES: u64 = gits::GITS_BASER;
/// The collection table's.
const COLLECTIONS: u64 = gits::GITS_BASER + 8;

/// The byte of its eight at which a legal access to the registers of the ITS is.
#[inline(always)]
fn byte_of(offset: u64, width: Width) -> Result<u64, Error> {
    let legal = match width {
        Width::Word => true,
        // A pair of 32-bit registers cannot be reached in one access, but
        // space without registers can.
        Width::Double => {
            !matches!(offset & !7, gits::GITS_CTLR | gits::GITS_MPAMIDR | gits::GITS_STATUSR)
        }
        Width::Byte | Width::Half => false,
    };
    if legal && width.is_aligned(offset) { Ok(offset & 7) } else { Err(Error::BadAccess) }
}

/// Two registers of 32 bits, as the eight bytes that they are.
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

impl<E: Env> Vits<E> {
    /// GITS_TYPER.
    pub(super) fn typer(event_bits: EventBits, device_bits: u8) -> Typer {
        Typer::new()
            .with_physical_lpis(true)
            .with_itt_entry_size(ENTRY_BYTES - 1)
            .with_id_bits(event_bits.field())
            .with_devbits(device_bits.saturating_sub(1))
            .with_cil(true)
            .with_cid_bits(COLLECTION_BITS - 1)
    }

    /// No lock: who reads does not wait for a batch of commands.
    #[inline]
    fn read(&self, offset: u64, width: Width) -> Result<u64, Error> {
        let byte = byte_of(offset, width)?;
        let shown = &self.shown;
        let eight = match offset & !7 {
            gits::GITS_CTLR => pair(shown.ctlr.load(Ordering::Acquire), IIDR),
            gits::GITS_TYPER => self.typer.into(),
            gits::GITS_CBASER => shown.cbaser.load(Ordering::Acquire),
            gits::GITS_CWRITER => shown.cwriter.load(Ordering::Acquire),
            gits::GITS_CREADR => shown.creadr.load(Ordering::Acquire),
            DEVICES => shown.devices.load(Ordering::Acquire),
            COLLECTIONS => shown.collections.load(Ordering::Acquire),
            gits::GITS_PIDR2 => PIDR2.into(),
            // The component identification of every CoreSight part.
            gits::GITS_CIDR0 => pair(0x0d, 0xf0),
            gits::GITS_CIDR2 => pair(0x05, 0xb1),
            // Reserved, not implemented, or write-only.
            _ => 0,
        };
        Ok(read_part(eight, byte, width))
    }

    /// True if commands are left to execute.
    #[inline]
    fn write(
        &self,
        domain: &Domain<E>,
        host: &Host<E>,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<bool, Error> {
        let byte = byte_of(offset, width)?;
        let update =
            |old: u64, mask: u64| (old & !mask) | (write_part(old, byte, width, value) & mask);
        let mut guard = self.registers.lock();
        let registers = &mut *guard;
        match offset & !7 {
            gits::GITS_CTLR if byte == 0 => {
                registers.enabled = value & u64::from(Ctlr::WRITE_MASK) != 0;
                self.translating.store(registers.enabled, Ordering::Relaxed);
                if !registers.enabled {
                    registers.page = None;
                }
                self.show_ctlr(registers);
            }
            // Base registers are fixed while the ITS is enabled or at work; the
            // architecture calls such a write UNPREDICTABLE.
            gits::GITS_CBASER if registers.quiescent() => {
                let cbaser = update(registers.cbaser.into(), Cbaser::WRITE_MASK);
                registers.cbaser = sanitise_cbaser(Cbaser::from(cbaser));
                // Starts with an empty queue.
                registers.creadr = 0;
                registers.cwriter = 0;
                registers.stalled = false;
                self.shown.cbaser.store(registers.cbaser.into(), Ordering::Release);
                self.show_cwriter(registers);
                self.show_creadr(registers);
            }
            gits::GITS_CWRITER => {
                let old = Cwriter::from_byte_offset(registers.cwriter);
                let new = Cwriter::from(write_part(old.into(), byte, width, value));
                // Beyond the queue: UNPREDICTABLE, and ignored.
                if new.byte_offset() < registers.cbaser.size_bytes() {
                    registers.cwriter = new.byte_offset();
                    self.show_cwriter(registers);
                }
                if new.retry() && registers.stalled {
                    registers.stalled = false;
                    self.show_creadr(registers);
                }
            }
            DEVICES if registers.quiescent() => {
                let old = registers.devices;
                let baser = update(old.into(), Baser::WRITE_MASK);
                registers.devices = sanitise_baser(Baser::from(baser));
                self.shown.devices.store(registers.devices.into(), Ordering::Release);
                if old.valid() && !registers.devices.valid() {
                    self.forget_devices(registers);
                }
            }
            COLLECTIONS if registers.quiescent() => {
                let old = registers.collections;
                let baser = update(old.into(), Baser::WRITE_MASK);
                registers.collections = sanitise_baser(Baser::from(baser)).with_indirect(false);
                self.shown.collections.store(registers.collections.into(), Ordering::Release);
                if old.valid() && !registers.collections.valid() {
                    self.forget_collections(domain);
                }
            }
            // Read-only or fixed, reserved, or not implemented.
            _ => return Ok(false),
        }
        Ok(self.resume(domain, host, registers))
    }

    /// The guest takes away its device table.
    #[cold]
    fn forget_devices(&self, registers: &mut Registers<E>) {
        let job = Job::ForgetDevices(ForgetDevices::new(self.index));
        registers.job = Some(Running { job, command: None });
    }

    /// The same of its collection table.
    #[cold]
    fn forget_collections(&self, domain: &Domain<E>) {
        domain.unmap_all_collections(self.index);
    }

    /// Whatever was written, commands that are executable now are executed:
    /// GITS_CWRITER may have been written before GITS_CTLR.Enabled.
    #[inline]
    fn resume(&self, domain: &Domain<E>, host: &Host<E>, registers: &mut Registers<E>) -> bool {
        registers.has_work() && self.process(domain, host, registers, &mut Budget::trap())
    }
}

/// Outer Shareable is not offered.
fn sanitise_shareability(asked: Shareability) -> Shareability {
    match asked {
        Shareability::NonShareable => Shareability::NonShareable,
        _ => Shareability::Inner,
    }
}

/// The hypervisor's accesses are cacheable; anything less is not offered.
fn sanitise_inner(asked: Cacheability) -> Cacheability {
    match asked {
        Cacheability::DeviceOrInner | Cacheability::NonCacheable => Cacheability::RaWb,
        other => other,
    }
}

fn sanitise_cbaser(asked: Cbaser) -> Cbaser {
    asked
        .with_shareability(sanitise_shareability(asked.shareability()))
        .with_inner_cache(sanitise_inner(asked.inner_cache()))
}

fn sanitise_baser(asked: Baser) -> Baser {
    let page_size = match asked.page_size() {
        PageSize::Reserved => PageSize::Size64K,
        size => size,
    };
    asked
        .with_page_size(page_size)
        .with_shareability(sanitise_shareability(asked.shareability()))
        .with_inner_cache(sanitise_inner(asked.inner_cache()))
}

impl<E: Env> Domain<E> {
    /// The guest reads at `offset` from the start of a virtual ITS's frames.
    /// Trap context.
    ///
    /// # Errors
    /// [`Error::BadAccess`]: the guest gets a data abort. [`Error::NotFound`].
    pub fn its_read(&self, vits: usize, offset: u64, width: Width) -> Result<u64, Error> {
        let vits = self.vits.get(vits).ok_or(Error::NotFound)?;
        match offset {
            ..gits::TRANSLATION_FRAME => vits.read(offset, width),
            // GITS_TRANSLATER is write-only, the rest is reserved.
            gits::TRANSLATION_FRAME..gits::GITS_SIZE => Ok(0),
            _ => Err(Error::BadAccess),
        }
    }

    /// The guest writes there. True if commands are left over, for
    /// [`Domain::work`]. Trap context.
    ///
    /// # Errors
    /// As for [`Domain::its_read`].
    pub fn its_write(
        &self,
        host: &Host<E>,
        vits: usize,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<bool, Error> {
        let vits = self.vits.get(vits).ok_or(Error::NotFound)?;
        match offset {
            ..gits::TRANSLATION_FRAME => {
                let more = vits.write(self, host, offset, width, value);
                self.look_again();
                more
            }
            // A write of a CPU carries no DeviceID, so it translates to
            // nothing (IHI 0069, GITS_TRANSLATER).
            gits::TRANSLATION_FRAME..gits::GITS_SIZE => Ok(false),
            _ => Err(Error::BadAccess),
        }
    }

    /// The guest reads an LPI register of the redistributor of vCPU `id`, at
    /// `offset` from RD_base. Trap context.
    ///
    /// # Errors
    /// [`Error::BadAccess`]: the guest gets a data abort. [`Error::NotFound`]:
    /// there is no such vCPU, or that is none of these registers.
    #[inline]
    pub fn gicr_read(&self, id: VcpuId, offset: u64, width: Width) -> Result<u64, Error> {
        let redist = self.redist(id).ok_or(Error::NotFound)?;
        let byte = gicr_byte_of(offset, width)?;
        let eight = match offset & !7 {
            // IR: GICR_INVLPIR and GICR_INVALLR work. CES = 0: EnableLPIs
            // cannot be cleared.
            gicr::GICR_CTLR => {
                let enabled = redist.enabled.load(Ordering::Acquire);
                GicrCtlr::new().with_enable_lpis(enabled).with_ir(true).into_bits().into()
            }
            gicr::GICR_PROPBASER => self.propbaser.load(Ordering::Acquire),
            gicr::GICR_PENDBASER => {
                PendBaser::from(redist.pendbaser.load(Ordering::Relaxed)).with_ptz(false).into()
            }
            gicr::GICR_SYNCR => {
                let busy = redist.with(|state, _| state.refresh.is_some());
                u64::from(busy == Some(true))
            }
            // The others are write-only.
            _ => 0,
        };
        Ok(read_part(eight, byte, width))
    }

    /// The guest writes there. True if work is left over, for
    /// [`Domain::work`]. Trap context.
    ///
    /// # Errors
    /// As for [`Domain::gicr_read`].
    pub fn gicr_write(
        &self,
        id: VcpuId,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<bool, Error> {
        let redist = self.redist(id).ok_or(Error::NotFound)?;
        let byte = gicr_byte_of(offset, width)?;
        let update =
            |old: u64, mask: u64| (old & !mask) | (write_part(old, byte, width, value) & mask);
        let written = write_part(0, byte, width, value);
        let more = match offset & !7 {
            gicr::GICR_CTLR if written & u64::from(GicrCtlr::WRITE_MASK) != 0 => {
                self.enable_lpis(id)
            }
            gicr::GICR_PROPBASER => {
                self.update_propbaser(|old| {
                    let new = PropBaser::from(update(old.into(), PropBaser::WRITE_MASK));
                    new.with_shareability(sanitise_shareability(new.shareability()))
                        .with_inner_cache(sanitise_inner(new.inner_cache()))
                });
                false
            }
            gicr::GICR_PENDBASER => {
                self.update_pendbaser(redist, |old| {
                    // PTZ reads as zero, but is kept for when LPIs are enabled.
                    let mask = PendBaser::WRITE_MASK | PendBaser::new().with_ptz(true).into_bits();
                    let new = PendBaser::from(update(old.into(), mask));
                    new.with_shareability(sanitise_shareability(new.shareability()))
                        .with_inner_cache(sanitise_inner(new.inner_cache()))
                });
                false
            }
            // The INTID is in the low half; V = 1 would name a vPE's.
            gicr::GICR_INVLPIR if byte == 0 && !InvLpir::from(written).v() => {
                if let Some(lpi) = InvLpir::from(written).intid().lpi() {
                    self.invalidate(lpi);
                }
                false
            }
            gicr::GICR_INVALLR => self.refresh_redist(id),
            _ => false,
        };
        self.look_again();
        Ok(more)
    }

    /// INTID bits that exist for the guest.
    pub fn id_bits(&self) -> IdBits {
        self.config().id_bits
    }
}

/// The byte of its eight at which a legal access to an LPI register of a
/// redistributor is: 64-bit registers in one piece or in halves, 32-bit ones in
/// one.
#[inline(always)]
fn gicr_byte_of(offset: u64, width: Width) -> Result<u64, Error> {
    let legal = match (offset & !7, width) {
        // What is beside them is not the component's.
        (gicr::GICR_CTLR | gicr::GICR_SYNCR, _) if offset & 4 != 0 => return Err(Error::NotFound),
        (gicr::GICR_CTLR | gicr::GICR_SYNCR, _) => width == Width::Word,
        (
            gicr::GICR_SETLPIR
            | gicr::GICR_CLRLPIR
            | gicr::GICR_PROPBASER
            | gicr::GICR_PENDBASER
            | gicr::GICR_INVLPIR
            | gicr::GICR_INVALLR,
            _,
        ) => matches!(width, Width::Word | Width::Double),
        _ => return Err(Error::NotFound),
    };
    if legal && width.is_aligned(offset) { Ok(offset & 7) } else { Err(Error::BadAccess) }
}
