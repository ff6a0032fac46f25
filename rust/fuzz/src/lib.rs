// SPDX-License-Identifier: GPL-2.0-only
//! What the fuzz targets share: choices out of the fuzzer's bytes.

use arbitrary::Unstructured;
use its_testkit::numbers::Numbers;

/// Most steps of a run: longer ones find no more, and take longer.
const STEPS: u32 = 400;

/// Choices out of the fuzzer's bytes, each of as few of them as will do: a
/// changed byte changes one choice. All are 0 when the bytes are used up.
pub struct Bytes<'a> {
    bytes: Unstructured<'a>,
    steps: u32,
}

impl<'a> Bytes<'a> {
    /// Out of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: Unstructured::new(bytes), steps: STEPS }
    }
}

impl Numbers for Bytes<'_> {
    fn any(&mut self) -> u64 {
        self.bytes.arbitrary().unwrap_or(0)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.bytes.int_in_range(0..=end - 1).unwrap_or(0)
    }

    fn more(&mut self) -> bool {
        self.steps -= 1;
        self.steps != 0 && !self.bytes.is_empty()
    }
}
