// SPDX-License-Identifier: GPL-2.0-only
//! Where the choices of a random run come from: a generator in a test, the
//! fuzzer's bytes in a fuzz target.

/// A source of numbers.
pub trait Numbers {
    /// Any number.
    fn any(&mut self) -> u64;

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: u64) -> u64;

    /// Is there to be another step?
    fn more(&mut self) -> bool;

    /// True once in `n` times.
    fn once_in(&mut self, n: u64) -> bool {
        // Not 0, which is what a source gives that has run dry.
        self.below(n) == n - 1
    }

    /// As [`Self::below`].
    fn below_u32(&mut self, end: u32) -> u32 {
        u32::try_from(self.below(end.into())).expect("below 2^32")
    }

    /// As [`Self::below`].
    fn below_u16(&mut self, end: u16) -> u16 {
        u16::try_from(self.below(end.into())).expect("below 2^16")
    }

    /// As [`Self::below`].
    fn below_u8(&mut self, end: u8) -> u8 {
        u8::try_from(self.below(end.into())).expect("below 2^8")
    }

    /// An index into what has `len` elements, which is not 0.
    fn index(&mut self, len: usize) -> usize {
        let end = u64::try_from(len).expect("64 bits");
        usize::try_from(self.below(end)).expect("below a usize")
    }

    /// One of these.
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }
}

/// Numbers without a pattern, the same for each seed (xorshift), for a given
/// number of steps.
pub struct Random {
    state: u64,
    steps: u32,
}

impl Random {
    /// For `steps` steps.
    #[must_use]
    pub fn new(seed: u64, steps: u32) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, steps }
    }
}

impl Numbers for Random {
    fn any(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn below(&mut self, end: u64) -> u64 {
        self.any() % end
    }

    fn more(&mut self) -> bool {
        self.steps = self.steps.saturating_sub(1);
        self.steps != 0
    }
}

/// What a run does, in words, for who looks into one that failed: on standard
/// error if `XEN_ITS_TRACE` is set.
pub struct Trace(bool);

impl Trace {
    /// As the environment says.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self(std::env::var_os("XEN_ITS_TRACE").is_some())
    }

    /// One line.
    pub(crate) fn say(&self, line: impl FnOnce() -> String) {
        if self.0 {
            eprintln!("{}", line());
        }
    }
}
