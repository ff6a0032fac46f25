// SPDX-License-Identifier: GPL-2.0-only
//! The lines that the host reads from the console.

use std::fs::File;
use std::io::Write;

use rustix::termios::tcdrain;

use crate::irqs::Snapshot;

/// What a check gives: `key=value` words, or the reason why it failed.
pub type Outcome = Result<String, String>;

/// Writes report lines. Each is one `write`, drained before the next, because Xen and the
/// kernel write to the same console.
pub struct Report {
    console: File,
    done: usize,
    failed: usize,
}

impl Report {
    /// A report to this terminal or file.
    pub fn new(console: File) -> Self {
        Self { console, done: 0, failed: 0 }
    }

    /// One line with our prefix.
    pub fn line(&mut self, text: &str) {
        let line = format!("XENITS: {}\n", text.replace('\n', " "));
        // There is nobody else to tell that the console is gone.
        let _ = self.console.write_all(line.as_bytes());
        let _ = tcdrain(&self.console);
    }

    /// How many checks will follow.
    pub fn plan(&mut self, checks: usize) {
        self.line(&format!("plan {checks}"));
    }

    /// The outcome of the next check.
    pub fn check(&mut self, name: &str, outcome: &Outcome) {
        self.done += 1;
        match outcome {
            Ok(facts) => self.line(format!("ok {} {name} {facts}", self.done).trim_end()),
            Err(reason) => {
                self.failed += 1;
                self.line(&format!("not ok {} {name} {reason}", self.done));
            }
        }
    }

    /// The table of all MSIs that the ITS translates.
    pub fn irqs(&mut self, now: &Snapshot) {
        for irq in now.its() {
            self.line(&format!("irq {irq}"));
        }
    }

    /// Checks that failed so far.
    pub fn failures(&self) -> usize {
        self.failed
    }
}
