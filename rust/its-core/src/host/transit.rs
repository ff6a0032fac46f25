// SPDX-License-Identifier: GPL-2.0-only
//! A device on its way onto a host ITS, or off it: one host command after the
//! other, as far as the budget and the command queue allow.

use its_arch::{Command, EventId, GuestPa};

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
    /// The place of the collection that the next event goes to.
    place: u8,
    /// It is on its way off; if that is because it could not be mapped, why.
    leaving: bool,
    failed: Option<Error>,
    last: Option<Ticket>,
    patience: Patience<E>,
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
            place: 0,
            leaving,
            failed: None,
            last: None,
            patience: Patience::new(),
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
            let arrived = match host.its(self.device.its).and_then(|its| self.step(host, its)) {
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
                Arrived::NotYet => budget.spend(1),
                Arrived::Busy => return Step::More(self),
            }
            if budget.is_spent() {
                return Step::More(self);
            }
        }
    }

    /// The next command, or a look at whether all of them are done.
    fn step(&mut self, host: &Host<E>, its: &HostIts<E>) -> Result<Arrived, Error> {
        if let Stage::Disown(from) = self.stage {
            self.stage = if from < self.device.installed {
                host.lpis.disown(&self.device.lpis, from);
                Stage::Disown(from.saturating_add(BLOCK))
            } else {
                Stage::Unmask
            };
            return Ok(Arrived::NotYet);
        }
        let Some(command) = self.next(host, its)? else {
            let done = match self.last {
                Some(ticket) => its.queue.poll(ticket, &mut self.patience)?,
                None => Some(()),
            };
            return Ok(if done.is_some() { Arrived::Yes } else { Arrived::Busy });
        };
        let Some(ticket) = its.queue.try_submit(&command, &mut self.patience)? else {
            return Ok(Arrived::Busy);
        };
        self.last = Some(ticket);
        self.submitted(host)?;
        Ok(Arrived::NotYet)
    }

    /// The command that is to be submitted next; `None` when all have been.
    fn next(&mut self, host: &Host<E>, its: &HostIts<E>) -> Result<Option<Command>, Error> {
        let id = self.device.device;
        loop {
            return Ok(Some(match self.stage {
                Stage::Map => Command::Mapd {
                    device: id,
                    size: self.device.bits,
                    itt: GuestPa::new(self.device.itt.address()),
                    valid: true,
                },
                Stage::Install => {
                    let event = EventId::new(self.device.installed);
                    let Some(lpi) = self.device.lpi(event) else {
                        self.stage = Stage::Sync(0);
                        continue;
                    };
                    let (collection, place) = its.pick()?;
                    self.place = place;
                    Command::Mapti { device: id, event, intid: lpi.intid(), collection }
                }
                Stage::Unmask => match host.left_masked(&self.device.lpis) {
                    Some(event) => Command::Inv { device: id, event },
                    None => {
                        self.stage = Stage::Discard;
                        continue;
                    }
                },
                Stage::Discard => match self.device.installed.checked_sub(1) {
                    Some(last) => Command::Discard { device: id, event: EventId::new(last) },
                    None => {
                        self.stage = Stage::Unmap;
                        continue;
                    }
                },
                Stage::Clean | Stage::Unmap => Command::Mapd {
                    device: id,
                    size: self.device.bits,
                    itt: GuestPa::new(0),
                    valid: false,
                },
                Stage::Sync(index) => match its.routed(index) {
                    Some(rdbase) => Command::Sync { rdbase },
                    // Without any collection there is no SYNC to wait for.
                    None => {
                        self.stage = Stage::Wait;
                        continue;
                    }
                },
                Stage::Disown(_) | Stage::Wait => return Ok(None),
            }));
        }
    }

    /// The command that [`Self::next`] gave is in the queue.
    fn submitted(&mut self, host: &Host<E>) -> Result<(), Error> {
        match &mut self.stage {
            Stage::Clean => self.stage = Stage::Map,
            Stage::Map => self.stage = Stage::Install,
            Stage::Unmask => host.forget_mask(&self.device.lpis),
            Stage::Install => {
                let HostDevice { its, device, installed, ref lpis, .. } = self.device;
                host.lpis.assign(lpis, its, device, installed, self.place)?;
                self.device.installed = installed.saturating_add(1);
            }
            Stage::Discard => {
                self.device.installed = self.device.installed.saturating_sub(1);
            }
            Stage::Unmap => self.stage = Stage::Sync(0),
            Stage::Sync(index) => *index = index.saturating_add(1),
            Stage::Disown(_) | Stage::Wait => {}
        }
        Ok(())
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
