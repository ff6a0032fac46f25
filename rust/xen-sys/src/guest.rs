// SPDX-License-Identifier: GPL-2.0-only
//! Guest memory. No reference to it is ever made: the guest may write it at
//! any time.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};

use its_arch::GuestPa;
use its_core::Error;
use its_core::env::{Guest, Page};

use crate::bindings;

/// Bytes of a page.
const PAGE_SIZE: usize = 4096;

/// A domain of Xen's, which outlives its ITS state. As an argument from C:
/// that domain.
#[repr(transparent)]
pub struct XenGuest(NonNull<bindings::domain>);

// SAFETY: it is a name for a domain. The services that take it may be called
// on any CPU.
unsafe impl Send for XenGuest {}
// SAFETY: as above.
unsafe impl Sync for XenGuest {}

impl Guest for XenGuest {
    type Page = XenPage;

    fn read(&self, from: GuestPa, to: &mut [u8]) -> Result<(), Error> {
        // SAFETY: the domain exists, and `to` is ours for its whole length.
        let result = unsafe {
            bindings::xen_its_svc_guest_read(
                self.0.as_ptr(),
                from.get(),
                to.as_mut_ptr().cast(),
                to.len(),
            )
        };
        if result == 0 { Ok(()) } else { Err(Error::BadAccess) }
    }

    fn pin(&self, at: GuestPa) -> Result<XenPage, Error> {
        // SAFETY: the domain exists.
        let page = unsafe { bindings::xen_its_svc_page_pin(self.0.as_ptr(), at.get()) };
        if page.is_null() {
            return Err(Error::BadAccess);
        }
        Ok(XenPage(AtomicPtr::new(page.cast_mut().cast())))
    }

    fn request_tick(&self, after: u64) {
        // SAFETY: the domain exists, and so does its timer, which may be set
        // anywhere; once it is killed, that does nothing.
        unsafe { bindings::xen_its_svc_request_tick(self.0.as_ptr(), after) }
    }
}

/// A pinned page of guest RAM; null once it has been given back.
pub struct XenPage(AtomicPtr<u8>);

impl Page for XenPage {
    #[inline]
    fn byte(&self, offset: usize) -> u8 {
        let page = self.0.load(Ordering::Relaxed);
        if page.is_null() || offset >= PAGE_SIZE {
            return 0;
        }
        // SAFETY: the page is pinned until `release`, which the trait's
        // contract keeps apart from this, in Xen's direct map; the offset is
        // within it. The guest may write meanwhile: to Rust that is another
        // thread, hence an atomic.
        unsafe { AtomicU8::from_ptr(page.add(offset)) }.load(Ordering::Relaxed)
    }

    #[inline]
    fn read(&self, offset: usize, to: &mut [u64]) {
        let page = self.0.load(Ordering::Relaxed);
        let end = offset.saturating_add(size_of_val(to));
        if page.is_null() || end > PAGE_SIZE || !offset.is_multiple_of(8) {
            to.fill(0);
            return;
        }
        for (n, word) in to.iter_mut().enumerate() {
            // SAFETY: as in `byte`; all that `to` has room for is within the
            // page, and aligned, as pages are.
            let from = unsafe { AtomicU64::from_ptr(page.add(offset).cast::<u64>().add(n)) };
            *word = u64::from_le(from.load(Ordering::Relaxed));
        }
    }

    fn release(&self) {
        let page = self.0.swap(core::ptr::null_mut(), Ordering::Relaxed);
        if !page.is_null() {
            // SAFETY: it came from the service, and the swap makes this the
            // only time that it is given back.
            unsafe { bindings::xen_its_svc_page_unpin(page.cast_const().cast()) };
        }
    }
}

impl Drop for XenPage {
    fn drop(&mut self) {
        self.release();
    }
}
