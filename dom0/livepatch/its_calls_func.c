/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A live patch for a Xen with the ITS in Rust: it counts the calls of functions
 * that each LPI goes through, in Rust and in C, and has a function of the
 * component's print the counts instead of what it prints otherwise.
 *
 * xen_funcs.h is made for each Xen:
 *   COUNTED(X):     X(name, first instruction, size in bytes) for each function
 *   HOST_DUMP_SIZE: the size of xen_its_host_dump()
 */

#include <xen/lib.h>

#include "xen_funcs.h"

void dump_calls(void);

/*
 * Xen puts a branch to counted_FUNCTION in the place of the function's first
 * instruction. So that instruction is executed here, and then the rest of the
 * function. Registers are as they were, but for those that a linker's veneer
 * may change as well.
 */
#define COUNTER(fn, insn, size)                                 \
    unsigned long calls_##fn;                                   \
    asm ( ".pushsection .text, \"ax\", %progbits\n"             \
          ".type counted_" #fn ", %function\n"                  \
          ".globl counted_" #fn "\n"                            \
          "counted_" #fn ":\n"                                  \
          "stp x0, x1, [sp, #-16]!\n"                           \
          "adrp x16, calls_" #fn "\n"                           \
          "add x16, x16, :lo12:calls_" #fn "\n"                 \
          "1: ldxr x17, [x16]\n"                                \
          "add x17, x17, #1\n"                                  \
          "stxr w0, x17, [x16]\n"                               \
          "cbnz w0, 1b\n"                                       \
          "ldp x0, x1, [sp], #16\n"                             \
          ".inst " #insn "\n"                                   \
          "b " #fn " + 4\n"                                     \
          ".size counted_" #fn ", . - counted_" #fn "\n"        \
          ".popsection" );

COUNTED(COUNTER)

/* In the place of xen_its_host_dump(). */
void dump_calls(void)
{
#define PRINT(fn, insn, size) \
    printk("ITS: livepatch " #fn " calls=%lu\n", calls_##fn);

    COUNTED(PRINT)
}
