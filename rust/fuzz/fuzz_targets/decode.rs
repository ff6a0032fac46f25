// SPDX-License-Identifier: GPL-2.0-only
//! Commands and registers as types: what goes in comes out.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use its_arch::access::{Width, read_part, write_part};
use its_arch::command::{Opcode, Rdbase};
use its_arch::gicr::{PendBaser, PropBaser};
use its_arch::gits::{Baser, Cbaser, Creadr, Cwriter, Typer};
use its_arch::{
    Command, DeviceId, EventBits, EventId, IdBits, Intid, Lpi, LpiProperty, RawCommand,
};
use libfuzzer_sys::fuzz_target;

/// What is decoded.
#[derive(Arbitrary, Debug)]
struct Input {
    command: [u8; 32],
    words: [u64; 2],
    offset: u8,
    width: u8,
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    command(&input.command);
    let [word, other] = input.words;
    registers(word);
    numbers(word);
    if let Some(width) = Width::from_log2(input.width % 5) {
        parts(word, other, input.offset.into(), width);
    }
});

fn command(bytes: &[u8; 32]) {
    let raw = RawCommand::from_le_bytes(bytes);
    assert_eq!(raw.to_le_bytes(), *bytes);
    match Command::decode(&raw) {
        Ok(command) => {
            assert_eq!(Opcode::from_u8(raw.opcode()), Some(command.opcode()));
            let encoded = command.encode();
            assert_eq!(Command::decode(&encoded), Ok(command), "{raw:?}");
            // Reserved bits are dropped, and none is made up; a size of 0 bits
            // is one that cannot be said.
            for (is, was) in encoded.0.into_iter().zip(raw.0) {
                assert_eq!(is & !was, 0, "{raw:?} became {encoded:?}");
            }
        }
        Err(unknown) => {
            assert_eq!(unknown.0, raw.opcode());
            // Whatever else it says.
            let bare = RawCommand([unknown.0.into(), 0, 0, 0]);
            assert_eq!(Command::decode(&bare), Err(unknown));
        }
    }
}

fn registers(word: u64) {
    assert_eq!(u64::from(Cbaser::from(word)), word);
    let cbaser = Cbaser::from(word);
    assert_eq!(cbaser.with_address(cbaser.address()).address(), cbaser.address());
    assert_eq!(cbaser.size_bytes(), ((word & 0xff) + 1) << 12);
    assert_eq!(cbaser.slots() * 32, cbaser.size_bytes());
    assert_eq!(cbaser.address().get() & !0xf_ffff_ffff_0000, 0);

    let baser = Baser::from(word);
    assert_eq!(u64::from(baser), word);
    if let Some(again) = baser.with_address(baser.address()) {
        assert_eq!(again.address(), baser.address());
        assert_eq!(again.valid(), baser.valid());
    }
    // Two-level: each page of the table stands for a page of entries.
    assert!(baser.indirect() || baser.capacity() * baser.entry_bytes() <= baser.table_bytes());

    let (cwriter, creadr) = (Cwriter::from(word), Creadr::from(word));
    assert_eq!(cwriter.byte_offset(), word & 0xf_ffe0);
    assert_eq!(Cwriter::from_byte_offset(cwriter.byte_offset()).byte_offset(), word & 0xf_ffe0);
    assert_eq!(creadr.byte_offset(), word & 0xf_ffe0);
    assert_eq!(creadr.stalled(), word & 1 != 0);

    let typer = Typer::from(word);
    assert_eq!(u64::from(typer.event_id_bits().get()), (word >> 8 & 0x1f) + 1);
    assert_eq!(u64::from(typer.device_id_bits()), (word >> 13 & 0x1f) + 1);

    let propbaser = PropBaser::from(word);
    assert_eq!(propbaser.with_address(propbaser.address()).into_bits(), word);
    let bits = propbaser.intid_bits().map(|bits| u64::from(bits.get()));
    assert_eq!(bits, Some((word & 0x1f) + 1).filter(|bits| *bits >= 14));
    let pendbaser = PendBaser::from(word);
    assert_eq!(pendbaser.with_address(pendbaser.address()).into_bits(), word);
}

fn numbers(word: u64) {
    let [a, b, c, d, ..] = word.to_le_bytes();
    let number = u32::from_le_bytes([a, b, c, d]);
    let lpi = Lpi::new(number);
    assert_eq!(lpi.is_some(), number >= 8192);
    assert_eq!(Intid::new(number).lpi(), lpi);
    if let Some(lpi) = lpi {
        assert_eq!(Lpi::from_index(lpi.index()), Some(lpi));
        assert_eq!((lpi.get(), lpi.intid().get()), (number, number));
    }
    if let Some(bits) = IdBits::new(a) {
        assert_eq!(bits.count(), 1 << a);
        assert_eq!(bits.contains(Intid::new(number)), u64::from(number) < 1 << a);
        assert_eq!(bits.lpis() + 8192, bits.count());
    }
    if let Some(bits) = EventBits::new(a) {
        assert_eq!(EventBits::from_field(bits.field()), bits);
        assert_eq!(bits.contains(EventId::new(number)), u64::from(number) < 1 << a);
    }
    match EventBits::for_events(word) {
        Some(bits) => {
            assert!(word <= bits.count());
            assert!(bits == EventBits::MIN || word > bits.count() / 2);
        }
        None => assert!(word > 1 << 32),
    }
    let rdbase = Rdbase::from_field(word);
    assert_eq!(Rdbase::from_field(rdbase.get()), rdbase);
    assert_eq!(Rdbase::from_address(rdbase.address()), Some(rdbase));
    let property = LpiProperty::new(a);
    assert_eq!((property.priority(), property.enabled()), (a & 0xfc, a & 1 != 0));
    let again = LpiProperty::with(property.priority(), property.enabled());
    assert_eq!((again.priority(), again.enabled()), (a & 0xfc, a & 1 != 0));
    assert_eq!(DeviceId::new(number).get(), number);
}

fn parts(old: u64, new: u64, offset: u64, width: Width) {
    let written = write_part(old, offset, width, new);
    if offset >= 8 {
        assert_eq!((written, read_part(old, offset, width)), (old, 0));
        return;
    }
    let end = (offset + width.bytes()).min(8);
    let (was, is) = (old.to_le_bytes(), written.to_le_bytes());
    let (read, said) = (read_part(old, offset, width).to_le_bytes(), new.to_le_bytes());
    for at in 0..8_u64 {
        let index = usize::try_from(at).expect("small");
        let inside = (offset..end).contains(&at);
        let from = usize::try_from(at.saturating_sub(offset)).expect("small");
        assert_eq!(is[index], if inside { said[from] } else { was[index] });
        if inside {
            assert_eq!(read[from], was[index]);
        }
    }
}
