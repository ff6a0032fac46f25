// SPDX-License-Identifier: GPL-2.0-only
//! Errors of the hypervisor's side; a guest's mistakes are
//! [`its_arch::CommandError`]s.

/// Why something that the hypervisor asked for was not done. Whoever gets one
/// finds the state as it was before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No memory.
    NoMemory,
    /// No LPIs left on the host.
    NoLpis,
    /// Beyond what the host ITS, or this domain, can address.
    OutOfRange,
    /// There is no such device, ITS or vCPU.
    NotFound,
    /// It is there already.
    Exists,
    /// The host ITS did not execute a command in time.
    TimedOut,
    /// The host ITS stopped at a command (GITS_CREADR.Stalled).
    Stalled,
    /// Not a legal access to this register.
    BadAccess,
}
