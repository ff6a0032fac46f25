/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What Xen provides to the ITS component: implemented in Xen's
 * xen/arch/arm/its-rust.c, called from rust/xen-sys, and from nowhere else.
 *
 * Nothing here shares a layout with Xen: domains, vCPUs and host ITSes are
 * opaque pointers that the component got from Xen and only hands back.
 *
 * "Contexts" say where the component may call a service:
 *   init   boot, or a CPU coming up
 *   trap   a guest's trap or a hypercall: interrupts on, no vGIC lock held
 *   vgic   v->arch.vgic.lock of the vCPU in question is held, interrupts off
 *   any    all of them, and interrupt context
 */
#ifndef XEN_ITS_SERVICES_H
#define XEN_ITS_SERVICES_H

#ifdef XEN_ITS_BINDGEN
/* bindgen runs without a C library. */
#define bool _Bool
typedef unsigned char uint8_t;
typedef unsigned int uint32_t;
typedef unsigned long uint64_t;
typedef unsigned long size_t;
#else
#include <xen/types.h>
#endif

struct domain;
struct vcpu;
struct host_its;

/* Memory. init, trap. Zeroed; NULL when there is none. */
void *xen_its_svc_alloc(size_t size, size_t align);
void xen_its_svc_free(void *ptr);

/*
 * A table that the ITS hardware reads or writes: zeroed, physically
 * contiguous, written back to memory. *maddr is its machine address.
 * init, trap.
 */
void *xen_its_svc_table_alloc(size_t size, size_t align, uint64_t *maddr);
void xen_its_svc_table_free(void *ptr);

/*
 * A spinlock_t of Xen's lives in this storage. It holds one in every
 * configuration of Xen, which its-rust.c checks at build time.
 */
struct xen_its_lock {
    uint64_t storage[4];
};

void xen_its_svc_lock_init(struct xen_its_lock *lock);
void xen_its_svc_lock(struct xen_its_lock *lock);                  /* trap */
void xen_its_svc_unlock(struct xen_its_lock *lock);
unsigned long xen_its_svc_lock_irqsave(struct xen_its_lock *lock); /* any */
void xen_its_svc_unlock_irqrestore(struct xen_its_lock *lock,
                                   unsigned long flags);

/* v->arch.vgic.lock. any; after every lock above. */
unsigned long xen_its_svc_vgic_lock(struct vcpu *v);
void xen_its_svc_vgic_unlock(struct vcpu *v, unsigned long flags);
/* The same where interrupts are off already. */
void xen_its_svc_vgic_lock_in_irq(struct vcpu *v);
void xen_its_svc_vgic_unlock_in_irq(struct vcpu *v);

/* System time in nanoseconds. any */
uint64_t xen_its_svc_now(void);
/* About a microsecond of waiting for hardware. any */
void xen_its_svc_relax(void);

/*
 * Copy @len bytes from guest physical address @gpa. The range lies within
 * one 4 KiB page. 0, or a negative errno when it is not RAM. trap
 */
int xen_its_svc_guest_read(struct domain *d, uint64_t gpa, void *buf,
                           size_t len);

/*
 * Take a reference on the guest's RAM page at the page-aligned @gpa and
 * return where Xen sees it, until the page is unpinned; NULL when it is not
 * RAM. trap
 */
const void *xen_its_svc_page_pin(struct domain *d, uint64_t gpa);
void xen_its_svc_page_unpin(const void *page);

/*
 * Slots: slot n is list register n, as far as LPIs use it. All: vgic. The
 * functions that return an int give a slot, or -1 if there is none.
 */
#define XEN_ITS_SLOTS 16 /* more than any CPU has */

/* A list register of the current vCPU that nobody uses. */
int xen_its_svc_slot_free(struct vcpu *v);
/*
 * Take a list register of the current vCPU from an interrupt other than an LPI
 * that is less urgent than @priority, and that the guest has not taken.
 */
int xen_its_svc_slot_displace(struct vcpu *v, uint8_t priority);
/*
 * Make LPI @lpi pending in the list register @slot of the current vCPU, which
 * nobody uses.
 */
void xen_its_svc_slot_load(struct vcpu *v, uint32_t slot, uint32_t lpi,
                           uint8_t priority);
/*
 * The LPI in @slot fired again: it is pending once more when the guest took
 * it. True if that changes nothing, as it is known to be pending already.
 */
bool xen_its_svc_slot_again(struct vcpu *v, uint32_t slot);
/*
 * Take the LPI in @slot of the current vCPU back. Returns a set of
 * XEN_ITS_EVICT_*: what the LPI was.
 */
#define XEN_ITS_EVICT_PENDING 1 /* not yet taken by the guest, or again */
#define XEN_ITS_EVICT_ACTIVE  2 /* the guest handles it: the slot stays */
uint32_t xen_its_svc_slot_evict(struct vcpu *v, uint32_t slot);
/*
 * Empty @slot of a vCPU that does not run, or of the current one, which goes
 * off. True when the LPI was still pending.
 */
bool xen_its_svc_slot_reset(struct vcpu *v, uint32_t slot);
/*
 * Have xen_its_sync() called before this vCPU next enters the guest, sleeps
 * or goes off. vgic
 */
void xen_its_svc_request_sync(struct vcpu *v);
/*
 * Have xen_its_fill() called before this vCPU next enters the guest. False if
 * it need not be kicked for that: it is on its way. vgic
 */
bool xen_its_svc_request_fill(struct vcpu *v);

/* Make a vCPU notice what was requested. any, vGIC lock not held */
void xen_its_svc_kick(struct vcpu *v);

/*
 * The host ITS: GITS_CREADR as it is, the queue's slots (an offset past the
 * end begins anew), GITS_CWRITER. any
 */
uint64_t xen_its_svc_host_creadr(const struct host_its *its);
void xen_its_svc_host_write_command(struct host_its *its, uint64_t offset,
                                    const uint64_t command[4]);
/* Orders all commands written before it, then moves GITS_CWRITER. */
void xen_its_svc_host_set_cwriter(struct host_its *its, uint64_t offset);

/*
 * Write the enable bit of host LPI @lpi to the table of the redistributors:
 * who reads it from now on sees it. any
 */
void xen_its_svc_host_lpi_enable(uint32_t lpi, bool enable);

/*
 * Have xen_its_tick() called for the domain once, @after nanoseconds from now,
 * or sooner if that was asked for before. any
 */
void xen_its_svc_request_tick(struct domain *d, uint64_t after);

/* May a line about a guest's mistake be printed? Limits their rate. any */
bool xen_its_svc_may_complain(void);
/* Print one line; no newline at its end. any */
#define XEN_ITS_LOG_GUEST 0 /* a guest's mistake, that may be printed */
#define XEN_ITS_LOG_ERROR 1
#define XEN_ITS_LOG_INFO  2
void xen_its_svc_log(uint32_t level, const char *text, size_t len);

/* The end: only reachable through a bug in the component. */
void xen_its_svc_panic(uint32_t line) __attribute__((__noreturn__));

#endif /* XEN_ITS_SERVICES_H */
