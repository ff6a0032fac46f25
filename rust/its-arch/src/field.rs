// SPDX-License-Identifier: GPL-2.0-only
//! Values cut to the width of their register field.
//!
//! A setter that `bitfield-struct` generates panics for a value wider than its
//! field. Every field that is narrower than its Rust type names one of these
//! as its `into`, so that the setter drops the high bits instead and no panic
//! is left in the program.

/// Defines a function for each width that a field has. Not one generic
/// function: Clippy takes the arithmetic of the generated code for ours then.
macro_rules! low_bits {
    ($($name:ident($type:ty) = $bits:literal;)*) => {
        $(
            pub(crate) const fn $name(value: $type) -> $type {
                const MASK: $type = <$type>::MAX >> (<$type>::BITS - $bits);
                value & MASK
            }
        )*

        #[cfg(test)]
        #[test]
        fn the_low_bits_stay_and_the_others_go() {
            $(
                assert_eq!($name(<$type>::MAX).count_ones(), $bits);
                assert_eq!($name(<$type>::MAX).trailing_ones(), $bits);
                assert_eq!($name(0), 0);
            )*
        }
    };
}

low_bits! {
    low2(u8) = 2;
    low4(u8) = 4;
    low5(u8) = 5;
    low12(u16) = 12;
    low15(u16) = 15;
    low36(u64) = 36;
    low40(u64) = 40;
    low44(u64) = 44;
}
