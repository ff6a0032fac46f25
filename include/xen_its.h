/* SPDX-License-Identifier: GPL-2.0-only */

#ifndef XEN_ITS_H
#define XEN_ITS_H

/* Generated from rust/xen-its/src/lib.rs by scripts/regen; do not edit. */

#include <xen/types.h>

struct domain;
struct vcpu;
struct host_its;

/* The ITS state of one domain. */
struct xen_its_domain;

/*
 * Set up the host's LPIs, whose INTIDs have `lpi_id_bits` bits (14 to 32).
 * Boot, once.
 */
int32_t xen_its_host_init(uint32_t lpi_id_bits);

/*
 * Add a host ITS whose tables and command queue are set up and which is
 * enabled, with GITS_CWRITER and GITS_CREADR at 0. Boot. Returns its index:
 * 0 for the first, and so on.
 */
int32_t xen_its_host_add(struct host_its *its,
                         uint32_t queue_bytes,
                         uint32_t device_bits,
                         uint32_t event_bits,
                         uint32_t itt_entry_bytes);

/*
 * Route LPIs for physical CPU `cpu` of host ITS `its` to the redistributor
 * `rdbase` (bits 51:16 as in a command: its number, or its address). CPU bring-up, also
 * when the CPU comes up again; interrupts may be off.
 */
int32_t xen_its_host_setup_collection(uint32_t its,
                                      uint32_t cpu,
                                      uint64_t rdbase);

/*
 * Whose the host LPI `lpi` is: 0 for nobody's; else bit 63 is set, bits 47:32
 * are the domain, and bits 31:0 the virtual LPI, or 0 for an event that the
 * guest has not mapped. Interrupt context; takes no lock.
 */
uint64_t xen_its_host_lpi(uint32_t lpi);

/* Print the host's LPIs and ITSes. */
void xen_its_host_dump(void);

/*
 * Make the ITS state of domain `d`, whose number is `id`: `max_vcpus` vCPUs,
 * `id_bits` INTID bits, and `nr_vits` virtual ITSes, number n for host ITS n.
 * `hardware_domain`: its MAPD may map devices that were not announced, with
 * `max_events` host LPIs in all, 0 for half of the host's. `lpi_rate`: how
 * many interrupts its devices may raise in a second; 0: 200000. On success
 * `*out` is the state.
 */
int32_t xen_its_domain_create(struct domain *d,
                              uint32_t id,
                              uint32_t max_vcpus,
                              uint32_t id_bits,
                              bool hardware_domain,
                              uint32_t nr_vits,
                              uint32_t max_events,
                              uint32_t lpi_rate,
                              struct xen_its_domain **out);

/* vCPU `id` of the domain is `v`. */
int32_t xen_its_vcpu_init(const struct xen_its_domain *its,
                          struct vcpu *v,
                          uint32_t id);

/*
 * Unmap all devices on the host, and give back the guest's pages. The domain
 * is dying, and none of its vCPUs runs any more. 1: there is more to do, call
 * again; that is harmless in any case.
 */
int32_t xen_its_domain_relinquish(const struct xen_its_domain *its);

/* Free the state; NULL is fine. Nobody uses it any more. */
void xen_its_domain_destroy(struct xen_its_domain *its);

/* Print devices, vCPUs, LPIs and counters. */
void xen_its_dump(const struct xen_its_domain *its);

/*
 * A host LPI of the domain has fired, and `xen_its_host_lpi` said that its
 * virtual LPI is `lpi`, or 0. True: call `xen_its_mask`. Interrupt context, no
 * lock held.
 */
bool xen_its_deliver(const struct xen_its_domain *its, uint32_t lpi);

/*
 * The host LPI `host_lpi` of the domain fires too often: disable it, until an
 * interrupt of it makes a difference again. Interrupt context, no lock held.
 */
void xen_its_mask(const struct xen_its_domain *its, uint32_t host_lpi);

/*
 * The time that `xen_its_svc_request_tick` was given is over. Softirq
 * context, no lock held.
 */
void xen_its_tick(const struct xen_its_domain *its);

/*
 * The guest is done with the LPI in `slot` of `locked`, the current vCPU,
 * and the list register is free. Its vGIC lock is held.
 */
void xen_its_slot_done(const struct xen_its_domain *its,
                       struct vcpu *locked,
                       uint32_t id,
                       uint32_t slot);

/*
 * Another interrupt of `locked`, the current vCPU, whose number is `id`, wants
 * a list register: take one from an LPI that is less urgent than `priority`.
 * -1: there is none. Its vGIC lock is held.
 */
int32_t xen_its_yield_slot(const struct xen_its_domain *its,
                           struct vcpu *locked,
                           uint32_t id,
                           uint8_t priority);

/*
 * Does an LPI of `locked`, which is vCPU `id`, wait for a list register that is
 * more urgent than `limit`, 0 to 256? Its vGIC lock is held.
 */
bool xen_its_is_urgent(const struct xen_its_domain *its,
                       struct vcpu *locked,
                       uint32_t id,
                       uint32_t limit);

/*
 * `locked`, the current vCPU, whose number is `id`, is about to enter the
 * guest: LPIs get list registers. `xen_its_svc_request_fill` asked for it, or a
 * list register is free for which this said that LPIs wait. True: LPIs wait
 * until a list register is free. Its vGIC lock is held.
 */
bool xen_its_fill(const struct xen_its_domain *its,
                  struct vcpu *locked,
                  uint32_t id);

/*
 * `locked`, which is vCPU `id`, goes off, or is about to be switched on: its
 * LPIs leave the list registers. Its vGIC lock is held.
 */
void xen_its_vcpu_reset(const struct xen_its_domain *its,
                        struct vcpu *locked,
                        uint32_t id);

/*
 * The current vCPU `id` asked for this with `xen_its_svc_request_sync`, and
 * is about to enter the guest, or to be descheduled. Interrupts off, no lock
 * held.
 */
void xen_its_sync(const struct xen_its_domain *its, uint32_t id);

/*
 * The guest reads 2^`size` bytes at `offset` of virtual ITS `vits`'s 128 KiB.
 * A negative errno: it gets a data abort.
 */
int32_t xen_its_mmio_read(const struct xen_its_domain *its,
                          uint32_t vits,
                          uint32_t offset,
                          uint32_t size,
                          uint64_t *value);

/*
 * The guest writes there. 1: commands are left over, call `xen_its_work`
 * before the vCPU enters the guest. A negative errno: it gets a data abort.
 */
int32_t xen_its_mmio_write(const struct xen_its_domain *its,
                           uint32_t vits,
                           uint32_t offset,
                           uint32_t size,
                           uint64_t value);

/*
 * Execute the next batch of commands. True: there are more, call again after
 * the CPU's other work. Interrupts on, no lock held.
 */
bool xen_its_work(const struct xen_its_domain *its);

/*
 * The guest reads an LPI register of the redistributor of vCPU `id`: GICR_
 * CTLR, SETLPIR, CLRLPIR, PROPBASER, PENDBASER, INVLPIR, INVALLR, SYNCR.
 * -ENOENT: it is none of these. Another negative errno: it gets a data abort.
 */
int32_t xen_its_gicr_read(const struct xen_its_domain *its,
                          uint32_t id,
                          uint32_t offset,
                          uint32_t size,
                          uint64_t *value);

/*
 * The guest writes one of them. 1: work is left over, as for
 * `xen_its_mmio_write`.
 */
int32_t xen_its_gicr_write(const struct xen_its_domain *its,
                           uint32_t id,
                           uint32_t offset,
                           uint32_t size,
                           uint64_t value);

/*
 * Assign the device that host ITS `vits` knows as `device`, with `events`
 * events at least, to the domain. One that is assigned already is shared:
 * functions with the same DeviceID announce it one by one. 1: it is not yet,
 * call again with the same arguments; nothing is lost if nobody does.
 */
int32_t xen_its_device_add(const struct xen_its_domain *its,
                           uint32_t vits,
                           uint32_t device,
                           uint32_t events);

/*
 * Take it away again, or one of the functions that share it. 1: that has not
 * begun, call again. 0: it is not the caller's any more; call `xen_its_work`
 * for what is left over. -ENOENT when it was not announced.
 */
int32_t xen_its_device_remove(const struct xen_its_domain *its,
                              uint32_t vits,
                              uint32_t device);

#endif  /* XEN_ITS_H */
