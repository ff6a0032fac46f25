// SPDX-License-Identifier: GPL-2.0-only
//! A line of the log, put together without `core::fmt`, whose machinery can
//! panic and is larger than the rest of this crate.

use crate::env::{Env, Level};

/// Print what a guest did wrong, if that may be said now: only then the line is
/// made. Any context.
pub(crate) fn complain<E: Env>(line: impl FnOnce() -> Line) {
    if E::may_complain() {
        E::log(Level::Guest, line().as_str());
    }
}

/// Longest line; what does not fit is cut off.
const CAPACITY: usize = 240;

/// A line under construction.
pub(crate) struct Line {
    text: [u8; CAPACITY],
    len: usize,
}

impl Line {
    /// An empty line.
    pub(crate) fn new() -> Self {
        Self { text: [0; CAPACITY], len: 0 }
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.text.get_mut(self.len) {
            *slot = byte;
            self.len = self.len.saturating_add(1);
        }
    }

    /// Append ASCII text.
    #[inline(never)]
    pub(crate) fn text(mut self, text: &str) -> Self {
        for byte in text.bytes() {
            self.push(if byte.is_ascii() { byte } else { b'?' });
        }
        self
    }

    /// Append a number in decimal.
    pub(crate) fn dec(self, value: u64) -> Self {
        self.digits(value, 10)
    }

    /// Append a number in hexadecimal, with 0x.
    pub(crate) fn hex(self, value: u64) -> Self {
        self.text("0x").digits(value, 16)
    }

    #[inline(never)]
    fn digits(mut self, value: u64, base: u64) -> Self {
        let mut reversed = [0_u8; 20];
        let mut rest = value;
        let mut count = 0_usize;
        for slot in &mut reversed {
            let digit = rest.checked_rem(base).unwrap_or(0);
            *slot = u8::try_from(digit).map_or(b'?', |d| {
                if d < 10 {
                    b'0'.saturating_add(d)
                } else {
                    b'a'.saturating_add(d.saturating_sub(10))
                }
            });
            rest = rest.checked_div(base).unwrap_or(0);
            count = count.saturating_add(1);
            if rest == 0 {
                break;
            }
        }
        for digit in reversed.iter().take(count).rev() {
            self.push(*digit);
        }
        self
    }

    /// What has been put together.
    pub(crate) fn as_str(&self) -> &str {
        self.text.get(..self.len).and_then(|text| core::str::from_utf8(text).ok()).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_text() {
        let line = Line::new().text("a ").dec(0).text(" ").dec(u64::MAX).text(" ").hex(0xdead_beef);
        assert_eq!(line.as_str(), "a 0 18446744073709551615 0xdeadbeef");
        assert_eq!(Line::new().hex(u64::MAX).as_str(), "0xffffffffffffffff");
    }

    #[test]
    fn what_does_not_fit_is_cut_off() {
        let mut line = Line::new();
        for _ in 0..100 {
            line = line.text("1234567");
        }
        assert_eq!(line.as_str().len(), CAPACITY);
        assert_eq!(Line::new().text("é").as_str(), "??");
    }
}
