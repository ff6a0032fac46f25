// SPDX-License-Identifier: GPL-2.0-only
//! Arrays and single values on Xen's heap.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use its_core::Error;

use crate::bindings;

/// Room for `len` values of `T`, uninitialised.
fn allocate<T>(len: usize) -> Result<NonNull<T>, Error> {
    let bytes = size_of::<T>().checked_mul(len).ok_or(Error::NoMemory)?;
    if bytes == 0 {
        return Ok(NonNull::dangling());
    }
    // SAFETY: the alignment is a power of two; the contexts in which this
    // crate's users allocate are those that the service allows.
    let memory = unsafe { bindings::xen_its_svc_alloc(bytes, align_of::<T>()) };
    NonNull::new(memory.cast()).ok_or(Error::NoMemory)
}

/// Give back what `allocate` returned for `len` values.
///
/// # Safety
/// `memory` came from `allocate::<T>(len)` and is not used after this.
unsafe fn release<T>(memory: NonNull<T>, len: usize) {
    if size_of::<T>() != 0 && len != 0 {
        // SAFETY: not empty, so it came from the service; the caller does not
        // use it any more.
        unsafe { bindings::xen_its_svc_free(memory.as_ptr().cast()) };
    }
}

/// An owned array on Xen's heap.
pub struct Buf<T> {
    first: NonNull<T>,
    len: usize,
    owns: PhantomData<T>,
}

// SAFETY: a Buf owns its elements, as an array does; Xen's heap is not tied
// to a CPU.
unsafe impl<T: Send> Send for Buf<T> {}
// SAFETY: as above: sharing a Buf shares its elements and nothing else.
unsafe impl<T: Sync> Sync for Buf<T> {}

impl<T> Buf<T> {
    /// An array of `len` elements, each from `make(index)`.
    pub(crate) fn new(len: usize, mut make: impl FnMut(usize) -> T) -> Result<Self, Error> {
        let first = allocate::<T>(len)?;
        // Grows with each element that is there, so that a drop at any point
        // drops those.
        let mut buf = Self { first, len: 0, owns: PhantomData };
        for index in 0..len {
            let value = make(index);
            // SAFETY: there is room for `len` elements, `index` is below it,
            // and this one has not been written.
            unsafe { first.add(index).write(value) };
            buf.len = index.saturating_add(1);
        }
        Ok(buf)
    }
}

impl<T> Deref for Buf<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements have been written, live as long as self, and
        // a shared borrow of self keeps them from being written.
        unsafe { core::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Buf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in deref, and the exclusive borrow of self makes this the
        // only reference to them.
        unsafe { core::slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

impl<T> Drop for Buf<T> {
    fn drop(&mut self) {
        let elements: *mut [T] = &mut **self;
        // SAFETY: the elements are initialised, and not used after this. The
        // memory came from `allocate` with a length of zero only if `len` is
        // zero: `new` fails on no element.
        unsafe {
            core::ptr::drop_in_place(elements);
            release(self.first, self.len);
        }
    }
}

/// A value on Xen's heap whose address C keeps: as an argument of an
/// `extern "C"` function, C gives the value back.
#[repr(transparent)]
pub struct Owned<T> {
    value: NonNull<T>,
    owns: PhantomData<T>,
}

impl<T> Owned<T> {
    /// Move `value` to the heap.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn new(value: T) -> Result<Self, Error> {
        let memory = allocate::<T>(1)?;
        // SAFETY: allocated for one T, not yet written.
        unsafe { memory.write(value) };
        Ok(Self { value: memory, owns: PhantomData })
    }
}

impl<T> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: written in `new`, and not dropped before self.
        unsafe { self.value.as_ref() }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: written in `new`; C, or the Rust owner, gives it up for good
        // by passing it here.
        unsafe {
            self.value.drop_in_place();
            release(self.value, 1);
        }
    }
}
