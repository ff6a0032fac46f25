/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the raiser on the host, the handler in the kernel and the exerciser in
 * Dom0 share in the BAR 2 memory of one ivshmem device.
 *
 * All fields are 64-bit, little-endian and aligned. Each has one writer, named
 * below. raiser.py and ivshmem.rs repeat the offsets; their tests compare them
 * with this file.
 */
#ifndef XENITS_SHM_H
#define XENITS_SHM_H

#define XENITS_SHM_SIZE		0x10000
#define XENITS_SHM_MAGIC	0x3154494d454e4558ULL
#define XENITS_SHM_VECTORS_MAX	256

/* Raiser, before QEMU sees the memory. */
#define XENITS_SHM_OFF_MAGIC	0x000
#define XENITS_SHM_OFF_VECTORS	0x008
/* Handler: vectors it has requested; 0 while no driver is bound. */
#define XENITS_SHM_OFF_READY	0x010

/*
 * Command: the exerciser writes SEQ last. The raiser takes the command when
 * SEQ differs from the last one that it took.
 */
#define XENITS_SHM_OFF_CMD_SEQ		0x100
#define XENITS_SHM_OFF_CMD		0x108
#define XENITS_SHM_OFF_CMD_FIRST	0x110
#define XENITS_SHM_OFF_CMD_COUNT	0x118
#define XENITS_SHM_OFF_CMD_ROUNDS	0x120
#define XENITS_SHM_OFF_CMD_PAUSE_US	0x128
#define XENITS_SHM_OFF_CMD_LIMIT_MS	0x130

/*
 * Ring vectors FIRST .. FIRST + COUNT - 1, each ROUNDS times (0: until the
 * next command), resting PAUSE_US between sweeps over them.
 *
 * PACED rings a vector again only once the last ring was acknowledged, so
 * that each ring must give exactly one interrupt. It gives a vector up for
 * this command when an acknowledgement takes longer than LIMIT_MS.
 * STORM does not wait: interrupts may merge.
 * STOP ends what is going on; PACED then still waits for what is under way.
 * LINK makes QEMU take the links of all network devices down and up again,
 * ROUNDS times, which raises their configuration vectors.
 */
#define XENITS_SHM_CMD_STOP	1
#define XENITS_SHM_CMD_PACED	2
#define XENITS_SHM_CMD_STORM	3
#define XENITS_SHM_CMD_LINK	4

/*
 * Reply: the raiser. TAKEN and DONE become SEQ when the command begins and
 * when it has ended; the others are written before DONE.
 */
#define XENITS_SHM_OFF_TAKEN		0x180
#define XENITS_SHM_OFF_DONE		0x188
#define XENITS_SHM_OFF_STATUS		0x190
#define XENITS_SHM_OFF_RINGS		0x198
#define XENITS_SHM_OFF_LOST		0x1a0
#define XENITS_SHM_OFF_FIRST_LOST	0x1a8

#define XENITS_SHM_STATUS_OK		0
#define XENITS_SHM_STATUS_REFUSED	1
#define XENITS_SHM_STATUS_LOST		2

/* Raiser: one number a vector, the rings so far. Written before each ring. */
#define XENITS_SHM_OFF_RAISED		0x1000
#define XENITS_SHM_RAISED_STRIDE	0x40

/* Handler: one record a vector. */
#define XENITS_SHM_OFF_RECORDS		0x8000
#define XENITS_SHM_RECORD_STRIDE	0x40
/* RAISED as the last finished interrupt saw it; written last, after the rest. */
#define XENITS_SHM_REC_ACKED		0x00
/* Interrupts. */
#define XENITS_SHM_REC_CALLS		0x08
/* Interrupts at which RAISED was what the one before had seen already. */
#define XENITS_SHM_REC_STALE		0x10
/* Rings beyond the first that an interrupt found, summed: merged ones. */
#define XENITS_SHM_REC_MERGED		0x18
/* CPU of the last interrupt. */
#define XENITS_SHM_REC_CPU		0x20
/* Interrupts at which RAISED had gone back: the memory is not what we think. */
#define XENITS_SHM_REC_BACKWARDS	0x28
/* Bit n: some interrupt came on CPU n (modulo 64). */
#define XENITS_SHM_REC_CPUS		0x30

#endif
