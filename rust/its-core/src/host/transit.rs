// SPDX-License-Identifier: GPL-2.0-only
//! A device on its way onto a host ITS, or off it: its host commands, as far as
//! the budget and the command queue allow.

use its_arch::{Command, EventId, GuestPa, RawCommand};

use crate::Error;
use crate::budget::{Budget, Step};
use crate::env::{Env, Table};
use crate::host::lpi::BLOCK;
use crate::host::queue::{Patience, Ticket};
use crate::host::{Host, HostDevice, HostIts};

/// What comes next.
#[derive(Clone, Copy)]
enum Stage {
    /// MAPD V=0 for a device that the ITS may have mapped since before.
    Clean,
    /// MAPD V=1.
    Map,
    /// A MAPTI for each event.
    Install,
    /// Take its LPIs away from the domain, so that nobody masks them any more:
    /// those from this one on.
    Disown(u32),
    /// An INV for each LPI that is masked: who gets the LPIs next finds them
    /// enabled.
    Unmask,
    /// A DISCARD for each event, which makes its LPI not pending: who gets
    /// the LPI next does not see an interrupt of this device.
    Discard,
    /// MAPD V=0.
    Unmap,
    /// A SYNC for each redistributor that LPIs go to; so many have had it.
    Sync(usize),
    /// Wait for all of that.
    Wait,
}

/// A device on its way.
pub(crate) struct Transit<E: Env> {
    device: HostDevice<E>,
    stage: Stage,
    /// It is on its way off; if that is because it could not be mapped, why.
    leaving: bool,
    failed: Option<Error>,
    sent: Sent<E>,
}

impl<E: Env> Transit<E> {
    /// Map a device that [`super::Preparation`] has prepared. What it
    /// replaces has left before, or was abandoned.
    pub(crate) fn install(host: &Host<E>, device: HostDevice<E>) -> Self {
        let abandoned = host.its(device.its).is_ok_and(|its| its.is_abandoned(device.device));
        let first = if abandoned { Stage::Clean } else { Stage::Map };
        Self::new(device, first, false)
    }

    /// Unmap a device, and take back its LPIs and its ITT if the ITS confirms
    /// that it uses neither any more; otherwise they are never used again.
    pub(crate) fn remove(device: HostDevice<E>) -> Self {
        Self::new(device, Stage::Disown(0), true)
    }

    fn new(device: HostDevice<E>, stage: Stage, leaving: bool) -> Self {
        Self {
            device,
            stage,
            leaving,
            failed: None,
            sent: Sent { last: None, patience: Patience::new() },
        }
    }

    /// Go on. Done with the device if it is mapped now, with `None` if it is
    /// gone. Trap context.
    ///
    /// # Errors
    /// Those of the host command queue; [`Error::NotFound`] without a
    /// collection. The device could not be mapped, and is gone.
    pub(crate) fn advance(
        mut self,
        host: &Host<E>,
        budget: &mut Budget,
    ) -> Step<Self, Result<Option<HostDevice<E>>, Error>> {
        loop {
            if budget.is_spent() {
                return Step::More(self);
            }
            let its = host.its(self.device.its);
            let arrived = match its.and_then(|its| self.step(host, its, budget)) {
                Ok(arrived) => arrived,
                Err(error) if self.leaving => {
                    host.abandon_device(self.device, error);
                    return Step::Done(self.failed.map_or(Ok(None), Err));
                }
                Err(error) => {
                    if matches!(self.stage, Stage::Clean | Stage::Map) {
                        // The ITS has not heard of it.
                        host.free_device(self.device);
                        return Step::Done(Err(error));
                    }
                    // What the ITS may have seen of it has to be taken back.
                    self = Self { failed: Some(error), ..Self::remove(self.device) };
                    continue;
                }
            };
            if let (Arrived::Yes, Ok(its)) = (&arrived, host.its(self.device.its)) {
                its.set_abandoned(self.device.device, false);
            }
            match arrived {
                Arrived::Yes if self.leaving => {
                    host.free_device(self.device);
                    return Step::Done(self.failed.map_or(Ok(None), Err));
                }
                Arrived::Yes => return Step::Done(Ok(Some(self.device))),
                Arrived::NotYet => {}
                Arrived::Busy => return Step::More(self),
            }
        }
    }

    /// The next commands, or a look at whether all of them are done.
    fn step(
        &mut self,
        host: &Host<E>,
        its: &HostIts<E>,
        budget: &mut Budget,
    ) -> Result<Arrived, Error> {
        let HostDevice { device, bits: size, installed, .. } = self.device;
        let mapd = |itt, valid| Command::Mapd { device, size, itt: GuestPa::new(itt), valid };
        let (done, next) = match self.stage {
            Stage::Clean => (self.sent.one(its, mapd(0, false))?, Stage::Map),
            Stage::Map => {
                let itt = self.device.itt.address();
                (self.sent.one(its, mapd(itt, true))?, Stage::Install)
            }
            Stage::Install if installed < self.device.events() => {
                (self.map_events(host, its, budget.left())?, Stage::Install)
            }
            Stage::Install => (Some(0), Stage::Sync(0)),
            Stage::Disown(from) if from < installed => {
                host.lpis.disown(&self.device.lpis, from);
                (Some(1), Stage::Disown(from.saturating_add(BLOCK)))
            }
            Stage::Disown(_) => (Some(0), Stage::Unmask),
            Stage::Unmask => match host.left_masked(&self.device.lpis) {
                Some(event) => {
                    let done = self.sent.one(its, Command::Inv { device, event })?;
                    if done.is_some() {
                        host.forget_mask(&self.device.lpis);
                    }
                    (done, Stage::Unmask)
                }
                None => (Some(0), Stage::Discard),
            },
            Stage::Discard if installed != 0 => {
                (self.discard_events(its, budget.left())?, Stage::Discard)
            }
            Stage::Discard => (Some(0), Stage::Unmap),
            Stage::Unmap => (self.sent.one(its, mapd(0, false))?, Stage::Sync(0)),
            Stage::Sync(index) => match its.routed(index) {
                Some(rdbase) => {
                    let next = Stage::Sync(index.saturating_add(1));
                    (self.sent.one(its, Command::Sync { rdbase })?, next)
                }
                // Without any collection there is no SYNC to wait for.
                None => (Some(0), Stage::Wait),
            },
            Stage::Wait => return self.sent.poll(its),
        };
        let Some(done) = done else { return Ok(Arrived::Busy) };
        budget.spend(done);
        self.stage = next;
        Ok(Arrived::NotYet)
    }

    /// A MAPTI for each of the next events, `most` of them. How many; `None`:
    /// there is no room.
    fn map_events(
        &mut self,
        host: &Host<E>,
        its: &HostIts<E>,
        most: u32,
    ) -> Result<Option<u32>, Error> {
        let HostDevice { its: index, device, ref lpis, ref mut installed, .. } = self.device;
        let first = *installed;
        let lpis = host.lpis.unassigned(lpis, index, device, first)?;
        let lpis = lpis.take(usize::try_from(most).unwrap_or(usize::MAX));
        let submitted = self.sent.submit(its, || {
            let mut collections = its.collections();
            lpis.map_while(move |next| {
                let (collection, place) = collections.pick()?;
                let (event, intid) = (next.event, next.lpi.intid());
                next.assign(place);
                *installed = event.get().saturating_add(1);
                Some(Command::Mapti { device, event, intid, collection }.encode())
            })
        })?;
        match self.device.installed.saturating_sub(first) {
            // Without a collection there is nowhere to go.
            0 if submitted => Err(Error::NotFound),
            done => Ok(submitted.then_some(done)),
        }
    }

    /// A DISCARD for each of the last events, `most` of them. How many; `None`:
    /// there is no room.
    fn discard_events(&mut self, its: &HostIts<E>, most: u32) -> Result<Option<u32>, Error> {
        let HostDevice { device, ref mut installed, .. } = self.device;
        let before = *installed;
        let submitted = self.sent.submit(its, || {
            (before.saturating_sub(most)..before).rev().map(|event| {
                *installed = event;
                Command::Discard { device, event: EventId::new(event) }.encode()
            })
        })?;
        Ok(submitted.then_some(before.saturating_sub(self.device.installed)))
    }
}

/// What has been submitted for a device.
struct Sent<E: Env> {
    last: Option<Ticket>,
    patience: Patience<E>,
}

impl<E: Env> Sent<E> {
    /// False: there is no room. See [`Queue::try_submit`].
    ///
    /// [`Queue::try_submit`]: crate::host::queue::Queue::try_submit
    fn submit<C: Iterator<Item = RawCommand>>(
        &mut self,
        its: &HostIts<E>,
        commands: impl FnOnce() -> C,
    ) -> Result<bool, Error> {
        let ticket = its.queue.try_submit(&mut self.patience, commands)?;
        self.last = ticket.or(self.last);
        Ok(ticket.is_some())
    }

    /// One command. How many; `None`: there is no room.
    fn one(&mut self, its: &HostIts<E>, command: Command) -> Result<Option<u32>, Error> {
        Ok(self.submit(its, || core::iter::once(command.encode()))?.then_some(1))
    }

    /// Are all of them done?
    fn poll(&mut self, its: &HostIts<E>) -> Result<Arrived, Error> {
        let done = match self.last {
            Some(ticket) => its.queue.poll(ticket, &mut self.patience)?,
            None => Some(()),
        };
        Ok(if done.is_some() { Arrived::Yes } else { Arrived::Busy })
    }
}

/// How far a device is.
enum Arrived {
    /// All commands for it are done.
    Yes,
    /// There is more to do.
    NotYet,
    /// The ITS has to get on first.
    Busy,
}
