/* SPDX-License-Identifier: GPL-2.0-only */
/* What TF-A's reader of the board's device tree needs, to be compiled for the host. */

#include <stdint.h>
#include <stdio.h>

extern int complaints;

#define COMPLAIN(...) (complaints++, fprintf(stderr, __VA_ARGS__))
#define ERROR(...) COMPLAIN(__VA_ARGS__)
#define WARN(...) COMPLAIN(__VA_ARGS__)
#define INFO(...) ((void)0)
#define VERBOSE(...) ((void)0)

#define CASSERT(condition, name) _Static_assert(condition, #name)
#define FCONF_REGISTER_POPULATOR(config, name, function) _Static_assert(1, #name)
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ULL(number) number##ULL

#define ARM_DRAM_NUM_BANKS 2UL
#define MPIDR_AFFLVL2 2
#define PLAT_ARM_CLUSTER_COUNT 2
#define UUID_BYTES_LENGTH 16
#define UUID_STRING_LENGTH 36

struct ns_dram_bank {
    uint64_t base;
    uint64_t size;
};
