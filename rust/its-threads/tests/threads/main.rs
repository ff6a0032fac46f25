// SPDX-License-Identifier: GPL-2.0-only
//! What several CPUs do at once: each test is a scenario, and what has to hold
//! after each order of it.
//!
//! | module       | against interrupts                                     |
//! |--------------|--------------------------------------------------------|
//! | `deliver`    | other interrupts, the vCPU itself, full slots          |
//! | `moves`      | MOVI, MAPC, MOVALL                                     |
//! | `unmaps`     | DISCARD, MAPD, MAPC with V=0; removing, destroying     |
//! | `properties` | INV, INVALL, GICR_INVALLR; enabling LPIs               |
//! | `power`      | vCPUs that go off and come on (PSCI)                   |
//! | `commands`   | two writers of GITS_CWRITER, and one of GITS_CTLR      |
//! | `storms`     | masking host LPIs, and unmasking them                  |
//! | `host`       | host LPIs given to another domain; host command queue  |
//! | `many`       | much at once: shuttle                                  |
//! | `once`       | the cell of xen-sys: loom                              |

mod commands;
mod deliver;
mod host;
#[cfg(feature = "shuttle")]
mod many;
mod moves;
#[cfg(feature = "loom")]
mod once;
mod power;
mod properties;
mod storms;
mod unmaps;
