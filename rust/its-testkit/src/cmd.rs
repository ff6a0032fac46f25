// SPDX-License-Identifier: GPL-2.0-only
//! Commands from plain numbers.

use its_arch::{CollectionId, Command, DeviceId, EventBits, EventId, GuestPa, Intid, Rdbase};

/// MAPD with V=1 and `bits` EventID bits, 1 to 32.
#[must_use]
pub fn mapd(device: u32, bits: u8) -> Command {
    Command::Mapd {
        device: DeviceId::new(device),
        size: EventBits::new(bits).expect("1 to 32 EventID bits"),
        // Somewhere; nothing may depend on what is there.
        itt: GuestPa::new(0x1234_5600),
        valid: true,
    }
}

/// MAPD with V=0.
#[must_use]
pub fn unmapd(device: u32) -> Command {
    Command::Mapd {
        device: DeviceId::new(device),
        size: EventBits::MIN,
        itt: GuestPa::new(0),
        valid: false,
    }
}

fn rdbase(vcpu: u16) -> Rdbase {
    Rdbase::from_processor_number(vcpu)
}

/// MAPC with V=1.
#[must_use]
pub fn mapc(collection: u16, vcpu: u16) -> Command {
    Command::Mapc { collection: CollectionId::new(collection), rdbase: rdbase(vcpu), valid: true }
}

/// MAPC with V=0.
#[must_use]
pub fn unmapc(collection: u16) -> Command {
    Command::Mapc { collection: CollectionId::new(collection), rdbase: rdbase(0), valid: false }
}

/// MAPTI.
#[must_use]
pub fn mapti(device: u32, event: u32, intid: u32, collection: u16) -> Command {
    Command::Mapti {
        device: DeviceId::new(device),
        event: EventId::new(event),
        intid: Intid::new(intid),
        collection: CollectionId::new(collection),
    }
}

/// MAPI.
#[must_use]
pub fn mapi(device: u32, event: u32, collection: u16) -> Command {
    Command::Mapi {
        device: DeviceId::new(device),
        event: EventId::new(event),
        collection: CollectionId::new(collection),
    }
}

/// MOVI.
#[must_use]
pub fn movi(device: u32, event: u32, collection: u16) -> Command {
    Command::Movi {
        device: DeviceId::new(device),
        event: EventId::new(event),
        collection: CollectionId::new(collection),
    }
}

/// MOVALL.
#[must_use]
pub fn movall(from: u16, to: u16) -> Command {
    Command::Movall { from: rdbase(from), to: rdbase(to) }
}

/// DISCARD.
#[must_use]
pub fn discard(device: u32, event: u32) -> Command {
    Command::Discard { device: DeviceId::new(device), event: EventId::new(event) }
}

/// CLEAR.
#[must_use]
pub fn clear(device: u32, event: u32) -> Command {
    Command::Clear { device: DeviceId::new(device), event: EventId::new(event) }
}

/// INT.
#[must_use]
pub fn int(device: u32, event: u32) -> Command {
    Command::Int { device: DeviceId::new(device), event: EventId::new(event) }
}

/// INV.
#[must_use]
pub fn inv(device: u32, event: u32) -> Command {
    Command::Inv { device: DeviceId::new(device), event: EventId::new(event) }
}

/// INVALL.
#[must_use]
pub fn invall(collection: u16) -> Command {
    Command::Invall { collection: CollectionId::new(collection) }
}

/// SYNC.
#[must_use]
pub fn sync(vcpu: u16) -> Command {
    Command::Sync { rdbase: rdbase(vcpu) }
}
