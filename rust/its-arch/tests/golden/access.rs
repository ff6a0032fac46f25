// SPDX-License-Identifier: GPL-2.0-only
//! Parts of a register.

use its_arch::access::{Width, read_part, write_part};

const VALUE: u64 = 0x8877_6655_4433_2211;
const WIDTHS: [Width; 4] = [Width::Byte, Width::Half, Width::Word, Width::Double];

#[test]
fn widths() {
    assert_eq!(WIDTHS.map(Width::bytes), [1, 2, 4, 8]);
    assert_eq!(WIDTHS.map(Width::mask), [0xff, 0xffff, 0xffff_ffff, u64::MAX]);
    assert_eq!([0, 1, 2, 3].map(Width::from_log2), WIDTHS.map(Some));
    assert_eq!([4, 255].map(Width::from_log2), [None; 2]);
    for width in WIDTHS {
        for offset in 0..64 {
            assert_eq!(width.is_aligned(offset), offset % width.bytes() == 0);
        }
    }
}

#[test]
fn reads() {
    assert_eq!(read_part(VALUE, 0, Width::Double), VALUE);
    assert_eq!(read_part(VALUE, 0, Width::Word), 0x4433_2211);
    assert_eq!(read_part(VALUE, 4, Width::Word), 0x8877_6655);
    assert_eq!(read_part(VALUE, 2, Width::Half), 0x4433);
    assert_eq!(read_part(VALUE, 7, Width::Byte), 0x88);
    // Beyond the end.
    assert_eq!(read_part(VALUE, 6, Width::Word), 0x8877);
    assert_eq!(read_part(VALUE, 8, Width::Byte), 0);
    assert_eq!(read_part(VALUE, u64::MAX, Width::Double), 0);
}

#[test]
fn writes() {
    let new = 0xffee_ddcc_bbaa_9900;
    assert_eq!(write_part(VALUE, 0, Width::Double, new), new);
    assert_eq!(write_part(VALUE, 0, Width::Word, new), 0x8877_6655_bbaa_9900);
    assert_eq!(write_part(VALUE, 4, Width::Word, new), 0xbbaa_9900_4433_2211);
    assert_eq!(write_part(VALUE, 2, Width::Half, new), 0x8877_6655_9900_2211);
    assert_eq!(write_part(VALUE, 7, Width::Byte, new), 0x0077_6655_4433_2211);
    // Beyond the end.
    assert_eq!(write_part(VALUE, 6, Width::Word, new), 0x9900_6655_4433_2211);
    assert_eq!(write_part(VALUE, 8, Width::Byte, new), VALUE);
    assert_eq!(write_part(VALUE, u64::MAX, Width::Double, new), VALUE);
}

#[test]
fn a_write_is_read_back_and_changes_nothing_else() {
    for width in WIDTHS {
        for offset in (0..8).filter(|offset| width.is_aligned(*offset)) {
            let written = write_part(VALUE, offset, width, !VALUE);
            assert_eq!(read_part(written, offset, width), !VALUE & width.mask());
            let restored = write_part(written, offset, width, read_part(VALUE, offset, width));
            assert_eq!(restored, VALUE);
            let changed = (written ^ VALUE).count_ones();
            assert!(u64::from(changed) <= width.bytes() * 8);
        }
    }
}
