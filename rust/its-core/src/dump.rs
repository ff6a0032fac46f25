// SPDX-License-Identifier: GPL-2.0-only
//! What the debug key prints of a domain.

use its_arch::command::opcode_name;
use its_arch::{DeviceId, VcpuId};

use crate::device::DeviceKey;
use crate::domain::Domain;
use crate::env::{Env, Level};
use crate::host::Host;
use crate::line::Line;

fn number(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

impl<E: Env> Domain<E> {
    /// Print devices, vCPUs, LPIs and counters. Not while a lock is held.
    pub fn dump(&self, host: &Host<E>) {
        let start =
            |what: &str| Line::new().text("ITS: ").text(what).text(" d").dec(self.config.id.into());
        let print = |line: Line| E::log(Level::Info, line.as_str());

        let mut mapped_events = 0_u64;
        // No lock is held while a line is printed: the console is slow.
        let mut from = Some(DeviceKey { vits: 0, device: DeviceId::new(0) });
        while let Some(device) = from.and_then(|from| self.summary(host, from)) {
            mapped_events = mapped_events.saturating_add(number(device.mapped));
            print(
                start("device")
                    .text(" vits=")
                    .dec(device.key.vits.into())
                    .text(" devid=")
                    .hex(device.key.device.get().into())
                    .text(" events=")
                    .dec(device.events.into())
                    .text(" guest_bits=")
                    .dec(device.bits.map_or(0, |bits| bits.get().into()))
                    .text(" mapped=")
                    .dec(number(device.mapped))
                    .text(if device.announced { " announced" } else { "" }),
            );
            from = device.key.successor();
        }

        let mut total = crate::redist::Counters::default();
        let (mut waiting, mut dormant, mut in_slots) = (0_u64, 0_u64, 0_u64);
        for (id, redist) in (0_u16..).zip(self.redists.iter()) {
            let Some((counters, waits, slots)) =
                redist.with(|state, _| (state.counters(), state.waiting(), state.in_slots()))
            else {
                continue;
            };
            waiting = waiting.saturating_add(waits.0.into());
            dormant = dormant.saturating_add(waits.1.into());
            in_slots = in_slots.saturating_add(number(slots));
            total.raised = total.raised.saturating_add(counters.raised);
            total.queued = total.queued.saturating_add(counters.queued);
            total.merged = total.merged.saturating_add(counters.merged);
            total.disabled = total.disabled.saturating_add(counters.disabled);
            total.waited = total.waited.saturating_add(counters.waited);
            total.done = total.done.saturating_add(counters.done);
            total.evicted = total.evicted.saturating_add(counters.evicted);
            print(
                start("vcpu")
                    .text("v")
                    .dec(VcpuId::new(id).get().into())
                    .text(" raised=")
                    .dec(counters.raised)
                    .text(" done=")
                    .dec(counters.done)
                    .text(" slots=")
                    .dec(number(slots))
                    .text(" waiting=")
                    .dec(waits.0.into())
                    .text(" disabled=")
                    .dec(waits.1.into()),
            );
        }

        let (mut commands, mut skipped) = (0_u64, 0_u64);
        for (index, vits) in self.vits.iter().enumerate() {
            let (executed, errors) = vits.command_counts();
            skipped = skipped.saturating_add(errors);
            let mut line = start("commands").text(" vits=").dec(number(index));
            for (opcode, count) in (0_u8..).zip(executed) {
                commands = commands.saturating_add(count);
                if count != 0 {
                    line = line.text(" ").text(opcode_name(opcode)).text("=").dec(count);
                }
            }
            print(line.text(" skipped=").dec(errors));
        }

        let (devices, events) = self.device_counts();
        let (storms, masked) = self.masked(host);
        print(
            start("stats")
                .text(" lpis=")
                .dec(total.raised)
                .text(" queued=")
                .dec(total.queued)
                .text(" merged=")
                .dec(total.merged)
                .text(" disabled=")
                .dec(total.disabled)
                .text(" waited=")
                .dec(total.waited)
                .text(" done=")
                .dec(total.done)
                .text(" evicted=")
                .dec(total.evicted)
                .text(" unrouted=")
                .dec(self.unrouted())
                .text(" storms=")
                .dec(storms)
                .text(" commands=")
                .dec(commands)
                .text(" skipped=")
                .dec(skipped),
        );
        print(
            start("state")
                .text(" devices=")
                .dec(number(devices))
                .text(" events=")
                .dec(events)
                .text(" mapped=")
                .dec(mapped_events)
                .text(" slots=")
                .dec(in_slots)
                .text(" waiting=")
                .dec(waiting)
                .text(" dormant=")
                .dec(dormant)
                .text(" masked=")
                .dec(masked)
                .text(" id_bits=")
                .dec(self.id_bits().get().into())
                .text(" table_bytes=")
                .dec(number(self.vlpis.bytes()))
                .text(" property_holes=")
                .dec(self.properties().map_or(0, |table| number(table.holes()))),
        );
    }
}

impl<E: Env> Host<E> {
    /// Print the host's LPIs and ITSes.
    pub fn dump(&self) {
        E::log(
            Level::Info,
            Line::new()
                .text("ITS: host lpis=")
                .dec(self.lpis.in_use().into())
                .text(" unclaimed=")
                .dec(self.unclaimed())
                .as_str(),
        );
        for index in 0..crate::host::MAX_ITS {
            let Ok(its) = self.its(index) else { break };
            let (submitted, completed) = its.command_counts();
            E::log(
                Level::Info,
                Line::new()
                    .text("ITS: host its=")
                    .dec(number(index))
                    .text(" commands=")
                    .dec(submitted)
                    .text(" outstanding=")
                    .dec(submitted.saturating_sub(completed))
                    .text(" abandoned=")
                    .dec(its.abandoned())
                    .as_str(),
            );
        }
    }
}
