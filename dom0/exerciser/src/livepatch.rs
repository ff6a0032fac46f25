// SPDX-License-Identifier: GPL-2.0-only
//! Live patches: Xen's code is changed and changed back while a disk is read all the time, so that
//! interrupts take the changed way, and none may get lost.
//!
//! The payloads are in a folder of the initramfs; each fits one build of Xen (`dom0/livepatch`, and
//! `scripts/xenits/livepatch.py`, which names them).

use std::cell::RefCell;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::Errno;

use crate::nvme::Nvme;
use crate::report::Outcome;
use crate::sysfs;
use crate::xen::{self, Action, State};

const FOLDER: &str = "/livepatch";
/// Xen's own: it replaces what says the extra version.
const HELLO: &CStr = c"xen_hello_world";
/// The same for another Xen.
const OTHER: &CStr = c"other_xen";
/// Counts calls in the ITS, and prints them when Xen is asked for the ITS' state.
const CALLS: &CStr = c"its_calls";

/// Xen's extra version, as Xen says it each time.
const EXTRA_VERSION: &str = "/sys/hypervisor/version/extra";
/// What `HELLO` has it say.
const HELLO_SAYS: &str = "Hello World";

/// All CPUs must have come together within this time, or Xen leaves it.
const GATHER_NS: u32 = 1_000_000_000;
/// Longest wait for an action, or for the reads that must go on.
const LIMIT: Duration = Duration::from_secs(30);

/// Reads of a disk that go on in the background.
pub struct Load {
    disk: Nvme,
    cpu: u32,
    /// How many there must be in each phase.
    share: u64,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: RefCell<Option<JoinHandle<Outcome>>>,
}

impl Load {
    /// Reads of this disk on this CPU.
    pub fn new(disk: Nvme, cpu: u32, share: u64) -> Self {
        let (stop, done) = (Arc::default(), Arc::default());
        Self { disk, cpu, share, stop, done, thread: RefCell::new(None) }
    }

    /// Begins to read.
    ///
    /// # Errors
    /// It does not get on.
    pub fn start(&self) -> Outcome {
        let (disk, cpu) = (self.disk.clone(), self.cpu);
        let (stop, done) = (Arc::clone(&self.stop), Arc::clone(&self.done));
        let thread = std::thread::spawn(move || {
            disk.reads_by(cpu, |file| {
                while !stop.load(Ordering::Relaxed) {
                    disk.read(file, 1)?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(done.load(Ordering::Relaxed))
            })
        });
        self.thread.replace(Some(thread));
        Ok(format!("reads={}", self.go_on()?))
    }

    /// Waits for some reads that begin from now on; gives their number.
    ///
    /// # Errors
    /// They do not come.
    fn go_on(&self) -> Result<u64, String> {
        // One may be under way, and its interrupt come already.
        let first = self.done.load(Ordering::Relaxed) + 1;
        let since = || self.done.load(Ordering::Relaxed).saturating_sub(first);
        sysfs::wait_for("reads", LIMIT, || Ok(since() >= self.share))?;
        Ok(since())
    }

    /// Ends it, and compares the interrupts that came with the reads that were made.
    ///
    /// # Errors
    /// An interrupt is missing, or came too often, or elsewhere.
    pub fn stop(&self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or("reads never began")?;
        thread.join().map_err(|_| "the reader panicked")?
    }
}

fn path(name: &CStr) -> PathBuf {
    Path::new(FOLDER).join(format!("{}.livepatch", name.to_string_lossy()))
}

/// Whether the initramfs has what is needed.
///
/// # Errors
/// It has not.
pub fn payloads() -> Result<(), String> {
    let missing = [HELLO, OTHER, CALLS].into_iter().map(path).find(|path| !path.exists());
    missing.map_or(Ok(()), |path| Err(format!("this initramfs has no {}", path.display())))
}

/// What Xen's answers mean.
fn explain(what: &str, error: Errno) -> String {
    match error {
        Errno::NOSYS => format!("{what}: this Xen was built without LIVEPATCH"),
        error => format!("{what}: {error}"),
    }
}

fn upload(name: &CStr) -> Result<(), Errno> {
    let payload = std::fs::read(path(name))
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    xen::livepatch_upload(name, &payload)
}

/// Starts an action and waits for its end.
fn act(name: &CStr, action: Action, wanted: State) -> Result<(), String> {
    let what = format!("{action:?} {}", name.to_string_lossy());
    xen::livepatch_action(name, action, GATHER_NS).map_err(|error| explain(&what, error))?;
    sysfs::wait_for(&what, LIMIT, || match xen::livepatch_state(name) {
        Ok(State::Busy) => Ok(false),
        Ok(state) if state == wanted => Ok(true),
        Ok(state) => Err(format!("{what}: it is {state:?}")),
        Err(error) => Err(explain(&what, error)),
    })
}

fn count(wanted: u32) -> Result<(), String> {
    match xen::livepatch_count() {
        Ok(found) if found == wanted => Ok(()),
        Ok(found) => Err(format!("Xen has {found} payloads, not {wanted}")),
        Err(error) => Err(explain("list", error)),
    }
}

/// Uploads a payload, does something while it is applied, and takes it away.
fn while_applied<T>(name: &CStr, body: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    upload(name).map_err(|error| explain("upload", error))?;
    count(1)?;
    act(name, Action::Apply, State::Applied)?;
    let given = body();
    if xen::livepatch_action(name, Action::Unload, 0) != Err(Errno::INVAL) {
        return Err("Xen unloads what is applied".to_owned());
    }
    act(name, Action::Revert, State::Checked)?;
    xen::livepatch_action(name, Action::Unload, 0).map_err(|error| explain("unload", error))?;
    count(0)?;
    given
}

/// A payload for another Xen is refused.
///
/// # Errors
/// It is not, or for another reason.
pub fn other_xen() -> Outcome {
    match upload(OTHER) {
        Ok(()) => Err("Xen took a payload that is for another build".to_owned()),
        Err(Errno::INVAL) => count(0).map(|()| "refused".to_owned()),
        Err(error) => Err(explain("upload", error)),
    }
}

/// Xen's own first example: its extra version is another one while it is applied.
///
/// # Errors
/// Xen refused something, it had no effect, or reads did not go on.
pub fn hello_world(load: &Load) -> Outcome {
    let before = sysfs::read(EXTRA_VERSION)?;
    let (during, reads) =
        while_applied(HELLO, || Ok((sysfs::read(EXTRA_VERSION)?, load.go_on()?)))?;
    let after = sysfs::read(EXTRA_VERSION)?;
    if during != HELLO_SAYS {
        return Err(format!("the extra version is '{during}' while it is applied"));
    }
    if before == during || after != before {
        return Err(format!("the extra version was '{before}', and is '{after}'"));
    }
    Ok(format!("reads={reads}"))
}

/// Functions on each interrupt's way have others before them while it is applied. Xen prints the
/// number of their calls, which the host compares with our number of reads.
///
/// # Errors
/// Xen refused something, or reads did not go on.
pub fn its_calls(load: &Load) -> Outcome {
    let reads = while_applied(CALLS, || {
        let reads = load.go_on()?;
        xen::debug_keys("L")?;
        Ok(reads)
    })?;
    // And without them.
    load.go_on()?;
    Ok(format!("reads={reads}"))
}
