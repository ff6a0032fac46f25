// SPDX-License-Identifier: GPL-2.0-only
//! The hypervisor's heap, cells and locks, on std.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use its_arch::Lpi;
use its_core::Error;
use its_core::env::{Env, Level, Lock, Once, Table, VgicLock};

use crate::guest::FakeGuest;
use crate::its::FakeHostIts;
use crate::vcpu::{FakeVcpu, Held};
use crate::world::{self, World};

/// The fake hypervisor.
pub struct Fake;

impl Env for Fake {
    type Buf<T: Send + Sync> = Buf<T>;
    type Once<T: Send + Sync> = Cell<T>;
    type Lock<T: Send> = FakeLock<T, false>;
    type IrqLock<T: Send> = FakeLock<T, true>;
    type VgicLock<T: Send> = FakeVgicLock<T>;
    type Held = Held;
    type Table = FakeTable;
    type HostHw = FakeHostIts;
    type Guest = FakeGuest;
    type Vcpu = FakeVcpu;

    fn alloc<T: Send + Sync>(
        len: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> Result<Self::Buf<T>, Error> {
        let world = if len == 0 {
            None
        } else {
            let world = World::current();
            world.allocate(len * size_of::<T>())?;
            Some(world)
        };
        // As with Xen's heap: the elements are made once there is room.
        let mut buf = Buf { elements: Vec::with_capacity(len), world };
        // Miri takes three times as long to extend it by an iterator.
        for index in 0..len {
            buf.elements.push(make(index));
        }
        Ok(buf)
    }

    fn alloc_table(size: usize, align: usize) -> Result<Self::Table, Error> {
        let world = World::current();
        Ok(FakeTable { address: world.allocate_table(size, align)?, world })
    }

    fn now() -> u64 {
        World::current().read_clock()
    }

    fn relax() {
        World::current().relax();
    }

    fn may_complain() -> bool {
        World::current().may_complain()
    }

    fn log(level: Level, line: &str) {
        World::current().print(level, line);
    }

    fn set_host_enabled(lpi: Lpi, enabled: bool) {
        World::current().set_property(lpi.get(), enabled);
    }
}

/// An array that is counted.
pub struct Buf<T> {
    elements: Vec<T>,
    world: Option<Arc<World>>,
}

impl<T> Deref for Buf<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.elements
    }
}

impl<T> DerefMut for Buf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.elements
    }
}

impl<T> Drop for Buf<T> {
    fn drop(&mut self) {
        if let Some(world) = &self.world {
            world.free(self.elements.len() * size_of::<T>());
        }
    }
}

/// A cell that is set once.
pub struct Cell<T>(OnceLock<T>);

impl<T: Send + Sync> Once<T> for Cell<T> {
    fn new() -> Self {
        Self(OnceLock::new())
    }

    fn get(&self) -> Option<&T> {
        self.0.get()
    }

    fn set(&self, value: T) -> Result<(), T> {
        self.0.set(value)
    }
}

/// A lock that knows its place in the lock order. `IRQ`: interrupts are off
/// while it is held.
pub struct FakeLock<T, const IRQ: bool> {
    value: Mutex<T>,
    rank: u8,
    name: &'static str,
}

/// The value, while the lock is held.
pub struct Guard<'a, T> {
    value: MutexGuard<'a, T>,
    rank: u8,
    name: &'static str,
}

impl<T: Send, const IRQ: bool> Lock<T> for FakeLock<T, IRQ> {
    type Guard<'a>
        = Guard<'a, T>
    where
        Self: 'a;

    fn new(value: T) -> Self {
        let name = std::any::type_name::<T>();
        Self { value: Mutex::new(value), rank: world::rank_of(name), name }
    }

    fn lock(&self) -> Guard<'_, T> {
        world::acquire(self.rank, IRQ, self.name);
        Guard { value: world::lock(&self.value), rank: self.rank, name: self.name }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        world::release(self.rank, self.name);
    }
}

/// A value under a vCPU's vGIC lock.
pub struct FakeVgicLock<T> {
    vcpu: FakeVcpu,
    value: Mutex<T>,
}

/// The value, while the vGIC lock is held.
pub struct VgicGuard<'a, T> {
    value: MutexGuard<'a, T>,
    /// Released after the value.
    _held: Held,
}

impl<T: Send> VgicLock<T> for FakeVgicLock<T> {
    type Vcpu = FakeVcpu;
    type Held = Held;
    type Guard<'a>
        = VgicGuard<'a, T>
    where
        Self: 'a;

    fn new(vcpu: FakeVcpu, value: T) -> Self {
        Self { vcpu, value: Mutex::new(value) }
    }

    fn vcpu(&self) -> &FakeVcpu {
        &self.vcpu
    }

    fn lock(&self) -> VgicGuard<'_, T> {
        let held = self.vcpu.hold();
        VgicGuard { value: world::lock(&self.value), _held: held }
    }

    fn with_in_irq<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        world::assert_in_irq("a vGIC lock is taken as if they were off");
        f(&mut self.lock())
    }

    fn with_held<R>(&self, held: &mut Held, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        if !held.is_of(&self.vcpu) {
            return None;
        }
        Some(f(&mut world::lock(&self.value)))
    }
}

impl<T> Deref for VgicGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for VgicGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// Memory of a host ITS.
pub struct FakeTable {
    address: u64,
    world: Arc<World>,
}

impl Table for FakeTable {
    fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for FakeTable {
    fn drop(&mut self) {
        self.world.free_table(self.address);
    }
}
