// SPDX-License-Identifier: GPL-2.0-only
//! The guest's RAM: pages here and there, nothing between them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use its_arch::GuestPa;
use its_core::Error;
use its_core::env::{Guest, Page};

use crate::world::{self, lock};

/// Bytes of a page.
const PAGE: u64 = 4096;

/// The bytes of a page. The guest may write them whenever it likes.
type Bytes = Arc<Vec<AtomicU8>>;

/// What to do right after the hypervisor has read guest memory.
type Hook = Box<dyn FnMut(&Ram, u64, usize) + Send>;

/// The guest's RAM, as the guest itself sees it.
#[derive(Default)]
pub struct Ram {
    pages: Mutex<BTreeMap<u64, Bytes>>,
    pins: AtomicUsize,
    reads: AtomicUsize,
    hook: Mutex<Option<Hook>>,
}

impl Ram {
    /// Put RAM at `bytes` bytes from `base`, both multiples of 4096.
    pub fn add(&self, base: u64, bytes: u64) {
        assert!(base.is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE), "RAM of whole pages only");
        let mut pages = lock(&self.pages);
        for page in 0..bytes / PAGE {
            let zeros = || Arc::new((0..PAGE).map(|_| AtomicU8::new(0)).collect());
            pages.entry(base / PAGE + page).or_insert_with(zeros);
        }
    }

    /// Take RAM away: pages that are pinned live on, unseen by the guest.
    pub fn remove(&self, base: u64, bytes: u64) {
        let mut pages = lock(&self.pages);
        for page in 0..bytes / PAGE {
            pages.remove(&(base / PAGE + page));
        }
    }

    fn page(&self, at: u64) -> Option<Bytes> {
        lock(&self.pages).get(&(at / PAGE)).cloned()
    }

    /// The guest writes.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        for (address, byte) in (at..).zip(bytes) {
            let page = self.page(address);
            let page = page.unwrap_or_else(|| panic!("no RAM at {address:#x}"));
            page[usize::try_from(address % PAGE).expect("small")].store(*byte, Ordering::Relaxed);
        }
    }

    /// Call `hook` with address and length after each read of the hypervisor.
    pub fn after_read(&self, hook: impl FnMut(&Ram, u64, usize) + Send + 'static) {
        *lock(&self.hook) = Some(Box::new(hook));
    }

    /// Pages that the hypervisor has pinned.
    pub fn pins(&self) -> usize {
        self.pins.load(Ordering::Relaxed)
    }

    /// How often the hypervisor has read.
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }
}

/// The hypervisor's access to a guest.
pub struct FakeGuest(pub Arc<Ram>);

impl Guest for FakeGuest {
    type Page = FakePage;

    fn read(&self, from: GuestPa, to: &mut [u8]) -> Result<(), Error> {
        world::assert_not_atomic("reads guest memory");
        let from = from.get();
        let len = u64::try_from(to.len()).expect("64 bits");
        assert!(from % PAGE + len <= PAGE, "a read of {len} bytes at {from:#x} crosses a page");
        let page = self.0.page(from).ok_or(Error::BadAccess)?;
        let start = usize::try_from(from % PAGE).expect("small");
        for (byte, cell) in to.iter_mut().zip(&page[start..]) {
            *byte = cell.load(Ordering::Relaxed);
        }
        self.0.reads.fetch_add(1, Ordering::Relaxed);
        // The hook may use the RAM, and so runs without its lock.
        let hook = lock(&self.0.hook).take();
        if let Some(mut hook) = hook {
            hook(&self.0, from, to.len());
            lock(&self.0.hook).get_or_insert(hook);
        }
        Ok(())
    }

    fn pin(&self, at: GuestPa) -> Result<FakePage, Error> {
        world::assert_not_atomic("pins guest memory");
        assert!(at.is_aligned_to(PAGE), "{at} is pinned, which is no page");
        let bytes = self.0.page(at.get()).ok_or(Error::BadAccess)?;
        self.0.pins.fetch_add(1, Ordering::Relaxed);
        Ok(FakePage { bytes, ram: Arc::clone(&self.0), released: AtomicBool::new(false) })
    }
}

/// A pinned page.
pub struct FakePage {
    bytes: Bytes,
    ram: Arc<Ram>,
    released: AtomicBool,
}

impl Page for FakePage {
    fn byte(&self, offset: usize) -> u8 {
        if self.released.load(Ordering::Relaxed) {
            return 0;
        }
        self.bytes.get(offset).map_or(0, |byte| byte.load(Ordering::Relaxed))
    }

    fn release(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            self.ram.pins.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for FakePage {
    fn drop(&mut self) {
        self.release();
    }
}
