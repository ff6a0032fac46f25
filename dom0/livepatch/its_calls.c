/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The table of a live patch for a Xen with the ITS in Rust: which function of
 * Xen's becomes which one of its_calls_func.c.
 *
 * Two headers are made for each Xen: xen_funcs.h (see its_calls_func.c) from
 * Xen itself, and our_funcs.h from its_calls_func.o:
 *   COUNTER_SIZE, DUMP_CALLS_SIZE: sizes of the functions in it
 */

#include <xen/types.h>
#include <xen/livepatch.h>
#include <xen/livepatch_payload.h>

#include <public/sysctl.h>

#include "our_funcs.h"
#include "xen_funcs.h"

void xen_its_host_dump(void);
void dump_calls(void);

#define DECLARE(fn, insn, size) \
    void fn(void);              \
    void counted_##fn(void);

COUNTED(DECLARE)

#define PATCH(fn, insn, size)                   \
    {                                           \
        .version = LIVEPATCH_PAYLOAD_VERSION,   \
        .name = #fn,                            \
        .new_addr = counted_##fn,               \
        .old_addr = fn,                         \
        .new_size = COUNTER_SIZE,               \
        .old_size = size,                       \
    },

const struct livepatch_func __section(".livepatch.funcs") its_calls[] = {
    COUNTED(PATCH)
    {
        .version = LIVEPATCH_PAYLOAD_VERSION,
        /* Without an address Xen looks for the name. */
        .name = "xen_its_host_dump",
        .new_addr = dump_calls,
        .new_size = DUMP_CALLS_SIZE,
        .old_size = HOST_DUMP_SIZE,
    },
};
