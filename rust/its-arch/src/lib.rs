// SPDX-License-Identifier: GPL-2.0-only
//! The GICv3 Interrupt Translation Service as types.
//!
//! Names, field positions and numbers are those of the Arm GIC architecture
//! specification, Arm IHI 0069 (GICv3 and GICv4). The crate holds no state and
//! no policy: it says what the bits mean, for both directions. The virtual ITS
//! decodes what a guest wrote, the host driver encodes what hardware reads.
//!
//! | module      | holds                                                    |
//! |-------------|----------------------------------------------------------|
//! | [`ids`]     | DeviceID, EventID, INTID and the other numbers           |
//! | [`command`] | the ITS commands, 32 bytes each                          |
//! | [`error`]   | the architecture's command error numbers                 |
//! | [`gits`]    | the ITS registers, `GITS_*`                              |
//! | [`gicr`]    | the LPI registers of a Redistributor, `GICR_*`           |
//! | [`table`]   | the LPI configuration (property) table entry             |
//! | [`memory`]  | memory attributes that several registers share           |
//! | [`access`]  | parts of a register as an MMIO access reaches them       |
//!
//! Everything here is total: any bit pattern decodes to a value or to an error,
//! and no function can panic or allocate. A register's `with_*` and `set_*` drop
//! the bits of a value that its field has no room for; their `*_checked` twins
//! do the same and never fail.
#![no_std]
#![forbid(unsafe_code)]

pub mod access;
pub mod command;
pub mod error;
mod field;
pub mod gicr;
pub mod gits;
pub mod ids;
pub mod memory;
pub mod table;

pub use command::{COMMAND_SIZE, Command, RawCommand, Rdbase};
pub use ids::{CollectionId, DeviceId, EventBits, EventId, GuestPa, IdBits, Intid, Lpi, VcpuId};
pub use table::LpiProperty;
