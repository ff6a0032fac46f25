// SPDX-License-Identifier: GPL-2.0-only
//! Virtual LPIs: what each is mapped to, and what the guest set it to.

mod properties;
mod table;

pub use properties::PropertyTable;
pub use table::{Entry, EntryCell, VlpiTable};
