// SPDX-License-Identifier: GPL-2.0-only
//! What each command does, seen by taking the LPI (IHI 0069, 5.3), and the
//! rules on pending LPIs and their priorities.

use super::Case;
use crate::bed::{Bed, Fail, Outcome::Pass, Outcome::Skip, Verdict, check, equal};
use crate::gic::{self, SPURIOUS, gicr};
use crate::hw;
use crate::its::{self, Cmd};

pub const CASES: &[Case] = &[
    ("int-on-each-cpu", each_cpu),
    ("mapi-lpi-is-event", mapi),
    ("int-twice-is-one", twice),
    ("int-while-taken-comes-again", while_taken),
    ("mapc-remap-routes", mapc_routes),
    ("mapc-remap-pending-once", mapc_pending),
    ("movi-routes", movi_routes),
    ("movi-moves-pending", movi_pending),
    ("movall-moves-pending", movall_pending),
    ("movall-moves-disabled-pending", movall_disabled),
    ("movall-leaves-mappings", movall_alone),
    ("movall-to-and-fro", movall_to_and_fro),
    ("discard-unmaps", discard_unmaps),
    ("discard-drops-pending", discard_pending),
    ("discard-then-mapti", discard_mapti),
    ("clear-drops-pending", clear_pending),
    ("clear-keeps-mapping", clear_mapping),
    ("mapd-unmap", mapd_unmap),
    ("mapd-again", mapd_again),
    ("mapc-unmap", mapc_unmap),
    ("disabled-until-inv", disabled_inv),
    ("disabled-until-invall", disabled_invall),
    ("disabled-until-invlpir", disabled_invlpir),
    ("disabled-until-invallr", disabled_invallr),
    ("inv-disables", inv_disables),
    ("disabled-pending-moves", disabled_moves),
    ("sync-each-cpu", sync),
    ("priority-order-of-3", order_3),
    ("priority-order-of-28", order_28),
    ("pending-200", pending_200),
    ("pmr-masks", pmr),
    ("running-priority", running),
    ("inv-changes-priority", inv_priority),
    ("many-events-one-device", many_events),
    ("many-devices", many_devices),
];

/// An LPI number for a case.
const L: u32 = 8400;
const D: u32 = 5;

fn mapped(bed: &Bed, collection: u16) -> Result<(), Fail> {
    bed.run(&[bed.device(D), its::mapti(D, 1, L, collection)])
}

fn two(bed: &Bed) -> bool {
    bed.cpus >= 2
}
const ONE: crate::bed::Outcome = Skip("needs two CPUs");

fn each_cpu(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(D)])?;
    for cpu in (0..bed.cpus).filter(|cpu| bed.enabled[*cpu]) {
        let n = cpu as u32;
        bed.run(&[its::mapti(D, n, L + n, cpu as u16), its::int(D, n)])?;
        bed.expect(cpu, L + n)?;
    }
    bed.expect_none()?;
    Ok(Pass)
}

fn mapi(bed: &mut Bed) -> Verdict {
    let typer = bed.its.read(its::reg::TYPER);
    if (typer >> 8) & 31 < 13 {
        return Ok(Skip("EventIDs do not reach LPIs"));
    }
    // 14 EventID bits, in the first part of the ITTs.
    let commands = [its::mapd(D, bed.its.itts, 14), its::mapi(D, 8250, 0), its::int(D, 8250)];
    bed.run(&commands)?;
    bed.expect(0, 8250)?;
    bed.run(&[its::unmapd(D)])?;
    Ok(Pass)
}

fn twice(bed: &mut Bed) -> Verdict {
    mapped(bed, 0)?;
    bed.run(&[its::int(D, 1), its::int(D, 1)])?;
    bed.expect(0, L)?;
    bed.expect_none()?;
    Ok(Pass)
}

fn while_taken(bed: &mut Bed) -> Verdict {
    mapped(bed, 0)?;
    bed.run(&[its::int(D, 1)])?;
    let mut intid = SPURIOUS;
    hw::wait(1000, || {
        intid = gic::acknowledge();
        intid != SPURIOUS
    });
    equal("the LPI is taken", intid, L)?;
    let fired = bed.run(&[its::int(D, 1)]);
    gic::end(intid);
    fired?;
    bed.expect(0, L)?;
    bed.expect_none()?;
    Ok(Pass)
}

fn mapc_routes(bed: &mut Bed) -> Verdict {
    if !two(bed) {
        return Ok(ONE);
    }
    mapped(bed, 0)?;
    bed.run(&[its::mapc(0, bed.its.rdbase[1]), its::int(D, 1)])?;
    bed.expect(1, L)?;
    bed.expect_none()?;
    Ok(Pass)
}

/// The architecture leaves the place to the ITS; but it must come once.
fn mapc_pending(bed: &mut Bed) -> Verdict {
    if !two(bed) {
        return Ok(ONE);
    }
    mapped(bed, 0)?;
    bed.run(&[its::int(D, 1)])?;
    bed.run(&[its::mapc(0, bed.its.rdbase[1])])?;
    let mut seen = 0u64;
    for cpu in [0, 1, 0, 1] {
        match bed.peek(cpu) {
            SPURIOUS => {}
            L => seen += 1,
            other => equal("the LPI is taken", other, L)?,
        }
    }
    equal("it is taken once", seen, 1u64)?;
    Ok(Pass)
}

fn movi_routes(bed: &mut Bed) -> Verdict {
    if !two(bed) {
        return Ok(ONE);
    }
    mapped(bed, 0)?;
    bed.run(&[its::movi(D, 1, 1), its::int(D, 1)])?;
    bed.expect(1, L)?;
    bed.run(&[its::movi(D, 1, 0), its::int(D, 1)])?;
    bed.expect(0, L)?;
    bed.expect_none()?;
    Ok(Pass)
}

fn movi_pending(bed: &mut Bed) -> Verdict {
    if !two(bed) {
        return Ok(ONE);
    }
    mapped(bed, 0)?;
    bed.run(&[its::int(D, 1)])?;
    bed.run(&[its::movi(D, 1, 1)])?;
    bed.expect(1, L)?;
    bed.expect_none()?;
    Ok(Pass)
}

fn movall_pending(bed: &mut Bed) -> Verdict {
    if !two(bed) {
        return Ok(ONE);
    }
    bed.run(&[bed.device(D)])?;
    for n in 0..3 {
        bed.run(&[its::mapti(D, n, L + n, 0), its::int(D, n)])?;
    }
    let [from, to] = [bed.its.rdbase[0], bed.its.rdbase[1]];
    bed.run(&[its::mapc(0, to), its::movall(from, to)])?;
    let mut seen = 0u64;
    for _ in 0..3 {
        let lpi = bed.take(1);
        check("an LPI that was pending is taken", (L..L + 3).contains(&lpi))?;
        seen |= 1 << (lpi - L);
    }
    equal("each is taken", seen, 7u64)?;
    bed.expect_none()?;
    Ok(Pass)
}

fn movall_disabled(bed: &mut Bed) -> Verdict {
    if !two(bed) {
        return Ok(ONE);
    }
    disabled_and_fired(bed)?;
    let [from, to] = [bed.its.rdbase[0], bed.its.rdbase[1]];
    bed.run(&[its::mapc(0, to), its::movall(from, to)])?;
    bed.expect_none()?;
    bed.its.property(L, 0xa1);
    bed.run(&[its::inv(D, 1)])?;
    bed.expect(1, L)?;
    Ok(Pass)
}

/// Without a MAPC it is MOVALL alone that moves what is pending, and only that.
fn movall_alone(bed: &mut Bed) -> Verdict {
    if !two(bed) {
        return Ok(ONE);
    }
    mapped(bed, 0)?;
    let [from, to] = [bed.its.rdbase[0], bed.its.rdbase[1]];
    bed.run(&[its::int(D, 1), its::movall(from, to)])?;
    bed.expect(1, L)?;
    bed.expect_none()?;
    bed.run(&[its::int(D, 1)])?;
    bed.expect(0, L)?;
    Ok(Pass)
}

/// Back at once, while the LPI may still be in a list register.
fn movall_to_and_fro(bed: &mut Bed) -> Verdict {
    if !two(bed) {
        return Ok(ONE);
    }
    mapped(bed, 0)?;
    let [here, there] = [bed.its.rdbase[0], bed.its.rdbase[1]];
    bed.run(&[its::int(D, 1), its::movall(here, there), its::movall(there, here)])?;
    bed.expect(0, L)?;
    bed.expect_none()?;
    bed.run(&[its::int(D, 1)])?;
    bed.run(&[its::movall(here, there), its::movall(there, here), its::movall(here, there)])?;
    bed.expect(1, L)?;
    bed.expect_none()?;
    Ok(Pass)
}

fn discard_unmaps(bed: &mut Bed) -> Verdict {
    mapped(bed, 0)?;
    bed.run(&[its::discard(D, 1), its::int(D, 1)])?;
    bed.expect_none()?;
    Ok(Pass)
}

fn discard_pending(bed: &mut Bed) -> Verdict {
    mapped(bed, 0)?;
    bed.run(&[its::int(D, 1), its::discard(D, 1)])?;
    bed.expect_none()?;
    Ok(Pass)
}

fn discard_mapti(bed: &mut Bed) -> Verdict {
    mapped(bed, 0)?;
    bed.run(&[its::discard(D, 1), its::mapti(D, 1, L + 7, 0), its::int(D, 1)])?;
    bed.expect(0, L + 7)?;
    bed.expect_none()?;
    Ok(Pass)
}

fn clear_pending(bed: &mut Bed) -> Verdict {
    mapped(bed, 0)?;
    bed.run(&[its::int(D, 1), its::clear(D, 1)])?;
    bed.expect_none()?;
    Ok(Pass)
}

fn clear_mapping(bed: &mut Bed) -> Verdict {
    mapped(bed, 0)?;
    bed.run(&[its::clear(D, 1), its::int(D, 1)])?;
    bed.expect(0, L)?;
    Ok(Pass)
}

fn mapd_unmap(bed: &mut Bed) -> Verdict {
    mapped(bed, 0)?;
    bed.run(&[its::unmapd(D), its::int(D, 1)])?;
    bed.expect_none()?;
    Ok(Pass)
}

fn mapd_again(bed: &mut Bed) -> Verdict {
    for _ in 0..20 {
        mapped(bed, 0)?;
        bed.run(&[its::int(D, 1)])?;
        bed.expect(0, L)?;
        bed.run(&[its::discard(D, 1), its::unmapd(D)])?;
    }
    bed.expect_none()?;
    Ok(Pass)
}

fn mapc_unmap(bed: &mut Bed) -> Verdict {
    mapped(bed, 9)?;
    bed.run(&[its::mapc(9, bed.its.rdbase[0]), its::mapti(D, 1, L, 9), its::int(D, 1)])?;
    bed.expect(0, L)?;
    bed.run(&[its::unmapc(9), its::int(D, 1)])?;
    bed.expect_none()?;
    Ok(Pass)
}

fn disabled_and_fired(bed: &Bed) -> Result<(), Fail> {
    bed.its.property(L, 0xa0);
    mapped(bed, 0)?;
    bed.run(&[its::inv(D, 1), its::int(D, 1)])?;
    bed.expect_none()
}

fn disabled(bed: &Bed, commands: &[Cmd]) -> Verdict {
    disabled_and_fired(bed)?;
    bed.its.property(L, 0xa1);
    bed.run(commands)?;
    bed.expect(0, L)?;
    bed.expect_none()?;
    Ok(Pass)
}

fn disabled_inv(bed: &mut Bed) -> Verdict {
    disabled(bed, &[its::inv(D, 1)])
}

fn disabled_invall(bed: &mut Bed) -> Verdict {
    disabled(bed, &[its::invall(0)])
}

const INDIRECT: crate::bed::Outcome = Skip("the redistributor has no GICR_INV*");

fn disabled_invlpir(bed: &mut Bed) -> Verdict {
    if !bed.has_direct_invalidation() {
        return Ok(INDIRECT);
    }
    disabled_and_fired(bed)?;
    bed.its.property(L, 0xa1);
    hw::write64(bed.redistributors[0] + gicr::INVLPIR, L.into());
    bed.expect(0, L)?;
    Ok(Pass)
}

fn disabled_invallr(bed: &mut Bed) -> Verdict {
    if !bed.has_direct_invalidation() {
        return Ok(INDIRECT);
    }
    disabled_and_fired(bed)?;
    bed.its.property(L, 0xa1);
    hw::write64(bed.redistributors[0] + gicr::INVALLR, 0);
    bed.expect(0, L)?;
    Ok(Pass)
}

fn inv_disables(bed: &mut Bed) -> Verdict {
    mapped(bed, 0)?;
    bed.run(&[its::int(D, 1)])?;
    bed.expect(0, L)?;
    bed.its.property(L, 0xa0);
    bed.run(&[its::inv(D, 1), its::int(D, 1)])?;
    bed.expect_none()?;
    bed.its.property(L, 0xa1);
    bed.run(&[its::inv(D, 1)])?;
    bed.expect(0, L)?;
    Ok(Pass)
}

fn disabled_moves(bed: &mut Bed) -> Verdict {
    if !two(bed) {
        return Ok(ONE);
    }
    disabled_and_fired(bed)?;
    bed.run(&[its::movi(D, 1, 1)])?;
    bed.its.property(L, 0xa1);
    bed.run(&[its::inv(D, 1)])?;
    bed.expect(1, L)?;
    bed.expect_none()?;
    Ok(Pass)
}

fn sync(bed: &mut Bed) -> Verdict {
    for cpu in 0..bed.cpus {
        bed.run(&[its::sync(bed.its.rdbase[cpu])])?;
    }
    Ok(Pass)
}

/// Fires `count` LPIs at once, with priorities in an order that is none.
fn order(bed: &Bed, count: u32) -> Verdict {
    let priority = |n: u32| (8 + (n * 11 % count) * 8) as u8 & 0xf8;
    bed.run(&[its::mapd(D, bed.its.itts, 8)])?;
    for n in 0..count {
        bed.its.property(L + n, priority(n) | 1);
        bed.its.put(its::mapti(D, n, L + n, 0));
        bed.its.put(its::inv(D, n));
    }
    bed.run(&[])?;
    (0..count).for_each(|n| bed.its.put(its::int(D, n)));
    bed.run(&[])?;
    let mut last = 0;
    for _ in 0..count {
        let lpi = bed.take(0);
        check("each LPI is taken", (L..L + count).contains(&lpi))?;
        let this = priority(lpi - L);
        if this < last {
            return Err(Fail("the more urgent comes first", this.into(), last.into()));
        }
        last = this;
    }
    bed.expect_none()?;
    Ok(Pass)
}

fn order_3(bed: &mut Bed) -> Verdict {
    order(bed, 3)
}

fn order_28(bed: &mut Bed) -> Verdict {
    order(bed, 28)
}

fn pending_200(bed: &mut Bed) -> Verdict {
    bed.run(&[its::mapd(D, bed.its.itts, 8)])?;
    for n in 0..200 {
        bed.its.put(its::mapti(D, n, L + n, 0));
        bed.its.put(its::int(D, n));
    }
    bed.run(&[])?;
    let mut seen = [false; 200];
    for _ in 0..200 {
        let lpi = bed.take(0);
        let slot = seen.get_mut(lpi.wrapping_sub(L) as usize);
        let Some(slot) = slot else { return Err(Fail("each LPI is taken", lpi.into(), 0)) };
        check("no LPI is taken twice", !core::mem::replace(slot, true))?;
    }
    bed.expect_none()?;
    Ok(Pass)
}

fn pmr(bed: &mut Bed) -> Verdict {
    mapped(bed, 0)?;
    gic::set_mask(0x80);
    let fired = bed.run(&[its::int(D, 1)]);
    let masked = bed.peek(0);
    gic::set_mask(0xff);
    fired?;
    equal("ICC_PMR masks what is less urgent", masked, SPURIOUS)?;
    bed.expect(0, L)?;
    Ok(Pass)
}

fn running(bed: &mut Bed) -> Verdict {
    for (n, priority) in [(1, 0x81), (2, 0xc1), (3, 0x41)] {
        bed.its.property(L + n, priority);
    }
    bed.run(&[bed.device(D)])?;
    for n in 1..4 {
        bed.run(&[its::mapti(D, n, L + n, 0), its::inv(D, n)])?;
    }
    bed.run(&[its::int(D, 1)])?;
    let mut first = SPURIOUS;
    hw::wait(1000, || {
        first = gic::acknowledge();
        first != SPURIOUS
    });
    let low = bed.run(&[its::int(D, 2)]).map(|()| bed.peek(0));
    let high = bed.run(&[its::int(D, 3)]).map(|()| bed.take(0));
    if first != SPURIOUS {
        gic::end(first);
    }
    equal("the LPI is taken", first, L + 1)?;
    equal("a less urgent one waits", low?, SPURIOUS)?;
    equal("a more urgent one comes at once", high?, L + 3)?;
    bed.expect(0, L + 2)?;
    Ok(Pass)
}

fn inv_priority(bed: &mut Bed) -> Verdict {
    bed.run(&[bed.device(D)])?;
    bed.its.property(L + 1, 0x81);
    bed.its.property(L + 2, 0x91);
    bed.run(&[its::mapti(D, 1, L + 1, 0), its::mapti(D, 2, L + 2, 0), its::invall(0)])?;
    bed.its.property(L + 2, 0x41);
    bed.run(&[its::inv(D, 2), its::int(D, 1), its::int(D, 2)])?;
    bed.expect(0, L + 2)?;
    bed.expect(0, L + 1)?;
    Ok(Pass)
}

fn many_events(bed: &mut Bed) -> Verdict {
    bed.run(&[its::mapd(D, bed.its.itts, 10)])?;
    (0..1024).for_each(|n| bed.its.put(its::mapti(D, n, L + n, 0)));
    bed.run(&[])?;
    for n in [0, 1, 511, 512, 1023] {
        bed.run(&[its::int(D, n)])?;
        bed.expect(0, L + n)?;
    }
    bed.run(&[its::unmapd(D)])?;
    Ok(Pass)
}

fn many_devices(bed: &mut Bed) -> Verdict {
    for n in 0..100 {
        bed.run(&[bed.device(0x100 + n), its::mapti(0x100 + n, 2, L + n, 0)])?;
    }
    for n in 0..100 {
        bed.run(&[its::int(0x100 + n, 2)])?;
        bed.expect(0, L + n)?;
    }
    Ok(Pass)
}
