// SPDX-License-Identifier: GPL-2.0-only
//! The guest's RAM: pages here and there, nothing between them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use its_arch::GuestPa;
use its_core::Error;
use its_core::env::{Guest, Page};

use crate::world::{self, World, lock};

/// Bytes of a page.
const PAGE: u64 = 4096;

/// The bytes of a page, in words. The guest may write them whenever it likes.
struct Bytes([AtomicU64; 512]);

impl Bytes {
    fn zeros() -> Arc<Self> {
        Arc::new(Self([const { AtomicU64::new(0) }; 512]))
    }

    fn byte(&self, offset: usize) -> u8 {
        let word = self.0.get(offset / 8).map_or(0, |word| word.load(Ordering::Relaxed));
        word.to_le_bytes()[offset % 8]
    }

    fn set_byte(&self, offset: usize, byte: u8) {
        let change = |word: u64| {
            let mut bytes = word.to_le_bytes();
            bytes[offset % 8] = byte;
            Some(u64::from_le_bytes(bytes))
        };
        let _old = self.0[offset / 8].fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }
}

/// What to do right after the hypervisor has read guest memory.
type Hook = Box<dyn FnMut(&Ram, u64, usize) + Send>;

/// The guest's RAM, as the guest itself sees it.
#[derive(Default)]
pub struct Ram {
    pages: Mutex<BTreeMap<u64, Arc<Bytes>>>,
    pins: AtomicUsize,
    reads: AtomicUsize,
    tick: Mutex<Option<u64>>,
    hook: Mutex<Option<Hook>>,
    /// What every other read of a pinned byte differs by.
    flicker: AtomicU8,
    looks: AtomicUsize,
}

impl Ram {
    /// Put RAM at `bytes` bytes from `base`, both multiples of 4096.
    pub fn add(&self, base: u64, bytes: u64) {
        assert!(base.is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE), "RAM of whole pages only");
        let mut pages = lock(&self.pages);
        for page in 0..bytes / PAGE {
            pages.entry(base / PAGE + page).or_insert_with(Bytes::zeros);
        }
    }

    /// Take RAM away: pages that are pinned live on, unseen by the guest.
    pub fn remove(&self, base: u64, bytes: u64) {
        let mut pages = lock(&self.pages);
        for page in 0..bytes / PAGE {
            pages.remove(&(base / PAGE + page));
        }
    }

    fn page(&self, at: u64) -> Option<Arc<Bytes>> {
        lock(&self.pages).get(&(at / PAGE)).cloned()
    }

    /// The guest writes.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        let (mut at, mut rest) = (at, bytes);
        while !rest.is_empty() {
            let start = usize::try_from(at % PAGE).expect("small");
            let page = self.page(at).unwrap_or_else(|| panic!("no RAM at {at:#x}"));
            let (here, beyond) = rest.split_at(rest.len().min(4096 - start));
            if start.is_multiple_of(8) && here.len().is_multiple_of(8) {
                for (word, bytes) in page.0[start / 8..].iter().zip(here.as_chunks().0) {
                    word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
                }
            } else {
                for (offset, byte) in (start..).zip(here) {
                    page.set_byte(offset, *byte);
                }
            }
            at = (at / PAGE + 1) * PAGE;
            rest = beyond;
        }
    }

    /// Call `hook` with address and length after each read of the hypervisor.
    pub fn after_read(&self, hook: impl FnMut(&Ram, u64, usize) + Send + 'static) {
        *lock(&self.hook) = Some(Box::new(hook));
    }

    /// Forget the hook of [`Self::after_read`].
    pub fn after_read_nothing(&self) {
        *lock(&self.hook) = None;
    }

    fn was_read(&self, at: u64, len: usize) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        // The hook may use the RAM, and so runs without its lock.
        let hook = lock(&self.hook).take();
        if let Some(mut hook) = hook {
            hook(self, at, len);
            lock(&self.hook).get_or_insert(hook);
        }
    }

    /// Is there RAM at `at`?
    #[must_use]
    pub fn has(&self, at: u64) -> bool {
        self.page(at).is_some()
    }

    /// Have another CPU of the guest change pinned bytes all the time: every
    /// other read of one differs by the bits in `mask`.
    pub fn set_flicker(&self, mask: u8) {
        self.flicker.store(mask, Ordering::Relaxed);
    }

    /// Pages that the hypervisor has pinned.
    pub fn pins(&self) -> usize {
        self.pins.load(Ordering::Relaxed)
    }

    /// When the domain's timer is due.
    pub fn tick_due(&self) -> Option<u64> {
        *lock(&self.tick)
    }

    /// Stop the timer. True if it was due by `now`, and so goes off.
    pub fn stop_tick(&self, now: u64) -> bool {
        lock(&self.tick).take_if(|due| *due <= now).is_some()
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
        for (offset, byte) in (start..).zip(to) {
            *byte = page.byte(offset);
        }
        self.0.was_read(from, usize::try_from(len).expect("small"));
        Ok(())
    }

    fn pin(&self, at: GuestPa) -> Result<FakePage, Error> {
        world::assert_not_atomic("pins guest memory");
        assert!(at.is_aligned_to(PAGE), "{at} is pinned, which is no page");
        let bytes = self.0.page(at.get()).ok_or(Error::BadAccess)?;
        self.0.pins.fetch_add(1, Ordering::Relaxed);
        let released = AtomicBool::new(false);
        Ok(FakePage { at: at.get(), bytes, ram: Arc::clone(&self.0), released })
    }

    fn request_tick(&self, after: u64) {
        let due = World::current().now() + after;
        let mut tick = lock(&self.0.tick);
        *tick = Some(tick.map_or(due, |before| before.min(due)));
    }
}

/// A pinned page.
pub struct FakePage {
    at: u64,
    bytes: Arc<Bytes>,
    ram: Arc<Ram>,
    released: AtomicBool,
}

impl Page for FakePage {
    fn byte(&self, offset: usize) -> u8 {
        if self.released.load(Ordering::Relaxed) {
            return 0;
        }
        let mask = self.ram.flicker.load(Ordering::Relaxed);
        if mask == 0 {
            return self.bytes.byte(offset);
        }
        let odd = self.ram.looks.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        self.bytes.byte(offset) ^ if odd { mask } else { 0 }
    }

    fn read(&self, offset: usize, to: &mut [u64]) {
        world::assert_not_atomic("reads guest memory");
        assert!(offset.is_multiple_of(8) && offset / 8 + to.len() <= 512, "beyond the page");
        let words = &self.bytes.0[offset / 8..];
        for (word, to) in words.iter().zip(&mut *to) {
            *to = word.load(Ordering::Relaxed);
        }
        let at = self.at + u64::try_from(offset).expect("64 bits");
        self.ram.was_read(at, to.len() * 8);
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
