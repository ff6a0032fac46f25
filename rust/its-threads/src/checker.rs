// SPDX-License-Identifier: GPL-2.0-only
//! The model checker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(feature = "loom")]
pub use loom::{
    sync::{Mutex, MutexGuard},
    thread,
};
#[cfg(feature = "shuttle")]
pub use shuttle::{
    sync::{Mutex, MutexGuard},
    thread,
};

/// How many times as long as usual to look: for a run by hand.
const EFFORT: &str = "ITS_THREADS_EFFORT";

fn effort() -> usize {
    std::env::var(EFFORT).map_or(1, |times| times.parse().expect("ITS_THREADS_EFFORT: a number"))
}

/// Lock a mutex.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with a lock held")
}

/// Run `scenario` again and again, each time in another order, and print how
/// often that was.
pub fn explore(name: &str, scenario: fn()) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let what = run(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        scenario();
    });
    println!("threads: {name}: {} orders ({what})", count.load(Ordering::Relaxed));
}

/// All orders with a few preemptions. A scenario must not wait for anything
/// with [`thread::yield_now`] before it starts its threads: loom finds fewer
/// orders after that.
#[cfg(feature = "loom")]
fn run(scenario: impl Fn() + Send + Sync + 'static) -> String {
    let mut builder = loom::model::Builder::new();
    let preemptions = 2 + effort();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    builder.check(scenario);
    format!("loom: all with up to {preemptions} preemptions")
}

/// Orders at random: half of them at any point, half with few preemptions.
#[cfg(feature = "shuttle")]
fn run(scenario: impl Fn() + Send + Sync + 'static) -> String {
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    /// Of each kind.
    const ORDERS: usize = 1500;
    /// Preemptions, and one.
    const DEPTH: usize = 3;
    let scenario = Arc::new(scenario);
    let mut config = shuttle::Config::new();
    config.silence_warnings = true;
    config.stack_size = 0x2_0000;
    // The same each time, unless asked for more.
    let effort = effort();
    let seed = if effort == 1 { 1 } else { shuttle_seed() };
    let again = Arc::clone(&scenario);
    let random = RandomScheduler::new_from_seed(seed, ORDERS * effort);
    shuttle::Runner::new(random, config.clone()).run(move || again());
    let few = PctScheduler::new_from_seed(seed, DEPTH, ORDERS * effort);
    shuttle::Runner::new(few, config).run(move || scenario());
    format!("shuttle: at random, seed {seed}")
}

#[cfg(feature = "shuttle")]
fn shuttle_seed() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_secs())
}
