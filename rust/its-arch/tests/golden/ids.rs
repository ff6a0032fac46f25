// SPDX-License-Identifier: GPL-2.0-only
//! Both sides of each limit.

use its_arch::Rdbase;
use its_arch::command::Opcode;
use its_arch::ids::{
    CollectionId, DeviceId, EventBits, EventId, GuestPa, IdBits, Intid, Lpi, NotAnLpi, VcpuId,
};

#[test]
fn plain_numbers_take_every_value() {
    assert_eq!([0, u32::MAX].map(|n| DeviceId::new(n).get()), [0, u32::MAX]);
    assert_eq!([0, u32::MAX].map(|n| EventId::new(n).get()), [0, u32::MAX]);
    assert_eq!([0, u32::MAX].map(|n| Intid::new(n).get()), [0, u32::MAX]);
    assert_eq!([0, u16::MAX].map(|n| CollectionId::new(n).get()), [0, u16::MAX]);
    assert_eq!([0, u16::MAX].map(|n| VcpuId::new(n).get()), [0, u16::MAX]);
    assert_eq!([0, u64::MAX].map(|n| GuestPa::new(n).get()), [0, u64::MAX]);
    assert!(DeviceId::new(1) < DeviceId::new(2));
}

#[test]
fn numbers_are_displayed_as_a_log_wants_them() {
    assert_eq!(DeviceId::new(0x1a0).to_string(), "0x1a0");
    assert_eq!(EventId::new(31).to_string(), "31");
    assert_eq!(CollectionId::new(3).to_string(), "3");
    assert_eq!(Intid::new(27).to_string(), "27");
    assert_eq!(VcpuId::new(3).to_string(), "v3");
    assert_eq!(GuestPa::new(0x4000_0000).to_string(), "0x40000000");
    assert_eq!(Lpi::new(8192).unwrap().to_string(), "LPI 8192");
    assert_eq!(NotAnLpi(Intid::new(1)).to_string(), "INTID 1 is not an LPI");
    assert_eq!(IdBits::MIN.to_string(), "14 bits");
    assert_eq!(EventBits::MAX.to_string(), "32 bits");
    assert_eq!(Opcode::Mapd.to_string(), "MAPD");
    assert_eq!(Rdbase::from_processor_number(18).to_string(), "0x12");
}

#[test]
fn lpis_begin_at_8192() {
    assert_eq!(Lpi::FIRST, 8192);
    assert_eq!([0, 1019, 1023, 8191].map(Lpi::new), [None; 4]);
    assert_eq!(Lpi::new(8192).map(Lpi::get), Some(8192));
    assert_eq!(Lpi::new(8192).map(Lpi::index), Some(0));
    assert_eq!(Lpi::new(u32::MAX).map(Lpi::index), Some(u32::MAX - 8192));

    assert_eq!(Lpi::from_index(0).map(Lpi::get), Some(8192));
    assert_eq!(Lpi::from_index(u32::MAX - 8192).map(Lpi::get), Some(u32::MAX));
    assert_eq!(Lpi::from_index(u32::MAX - 8191), None);
    assert_eq!(Lpi::from_index(u32::MAX), None);

    let lpi = Lpi::new(9000).unwrap();
    assert_eq!(Intid::from(lpi), Intid::new(9000));
    assert_eq!(Lpi::try_from(Intid::new(9000)), Ok(lpi));
    assert_eq!(Lpi::try_from(Intid::new(8191)), Err(NotAnLpi(Intid::new(8191))));
    assert_eq!(Intid::new(8191).lpi(), None);
}

#[test]
fn addresses_do_not_wrap() {
    assert_eq!(GuestPa::new(1).checked_add(2), Some(GuestPa::new(3)));
    assert_eq!(GuestPa::new(u64::MAX).checked_add(0), Some(GuestPa::new(u64::MAX)));
    assert_eq!(GuestPa::new(u64::MAX).checked_add(1), None);
    assert_eq!(GuestPa::new(2).checked_add(u64::MAX), None);

    assert!(GuestPa::new(0x1_0000).is_aligned_to(0x1_0000));
    assert!(!GuestPa::new(0x1_8000).is_aligned_to(0x1_0000));
    assert!(GuestPa::new(7).is_aligned_to(1));
    assert!(!GuestPa::new(0).is_aligned_to(0));
    assert!(!GuestPa::new(6).is_aligned_to(3));
}

#[test]
fn intid_bits_are_14_to_32() {
    assert_eq!([0, 13, 33, 255].map(IdBits::new), [None; 4]);
    assert_eq!(IdBits::new(14), Some(IdBits::MIN));
    assert_eq!(IdBits::new(32), Some(IdBits::MAX));
    assert_eq!([IdBits::MIN, IdBits::MAX].map(IdBits::get), [14, 32]);
    assert_eq!([IdBits::MIN, IdBits::MAX].map(IdBits::count), [0x4000, 0x1_0000_0000]);
    assert_eq!([IdBits::MIN, IdBits::MAX].map(IdBits::lpis), [8192, 0xffff_e000]);

    let bits = IdBits::new(16).unwrap();
    assert_eq!((bits.count(), bits.lpis()), (0x1_0000, 0xe000));
    assert!(bits.contains(Intid::new(0xffff)));
    assert!(!bits.contains(Intid::new(0x1_0000)));
    assert!(IdBits::MAX.contains(Intid::new(u32::MAX)));
}

#[test]
fn event_bits_are_1_to_32() {
    assert_eq!([0, 33, 255].map(EventBits::new), [None; 3]);
    assert_eq!(EventBits::new(1), Some(EventBits::MIN));
    assert_eq!(EventBits::new(32), Some(EventBits::MAX));
    assert_eq!([EventBits::MIN, EventBits::MAX].map(EventBits::get), [1, 32]);
    assert_eq!([EventBits::MIN, EventBits::MAX].map(EventBits::count), [2, 0x1_0000_0000]);
    for field in 0..32 {
        let bits = EventBits::from_field(field);
        assert_eq!((bits.get(), bits.field()), (field + 1, field));
    }
    assert_eq!(EventBits::from_field(0xe0), EventBits::MIN);

    let bits = EventBits::new(5).unwrap();
    assert!(bits.contains(EventId::new(31)));
    assert!(!bits.contains(EventId::new(32)));
    assert!(EventBits::MAX.contains(EventId::new(u32::MAX)));
}

#[test]
fn event_bits_for_a_number_of_events() {
    let bits = |events| EventBits::for_events(events).map(EventBits::get);
    assert_eq!([0, 1, 2, 3, 4, 5, 32, 33].map(bits), [1, 1, 1, 2, 2, 3, 5, 6].map(Some));
    assert_eq!(bits(0xffff_ffff), Some(32));
    assert_eq!(bits(0x1_0000_0000), Some(32));
    assert_eq!(bits(0x1_0000_0001), None);
    assert_eq!(bits(u64::MAX), None);
}
