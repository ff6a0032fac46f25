/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the plugins share: the hypervisor's window and vectors, symbols, and
 * arguments. A plugin is one translation unit; it defines PLUGIN, its name.
 */
#ifndef XEN_ITS_PLUGIN_COMMON_H
#define XEN_ITS_PLUGIN_COMMON_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <glib.h>
#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define VEC_SIZE    0x800u  /* one EL2 vector table */
#define VEC_STEP    0x80u   /* one vector */
#define VEC_OWN     0x200u  /* taken from EL2 itself: 0x200..0x400 */
#define VEC_GUEST   0x400u  /* taken from EL1 or EL0: 0x400..0x800 */
#define INSN_ERET   0xd69f03e0u
#define PSTATE_EL   0xcu
#define PSTATE_EL2  0x8u

struct sym {
    uint64_t addr, size;
    char *name;
};

static uint64_t win_lo, win_hi, vec_base, harden_lo, harden_hi;
static const char *out_path;
static struct sym *syms;
static size_t nr_syms;
static struct qemu_plugin_register *reg_lr, *reg_sp, *reg_pstate;
static GByteArray *reg_buf;

static void die(const char *what, const char *which)
{
    fprintf(stderr, PLUGIN ": %s: %s\n", what, which);
    exit(1);
}

static void *zalloc(size_t n, size_t size)
{
    void *p = calloc(n, size);

    if ( !p )
        die("out of memory", strerror(errno));

    return p;
}

static uint64_t read_reg(struct qemu_plugin_register *reg, size_t bytes)
{
    uint64_t val = 0;

    g_byte_array_set_size(reg_buf, 0);
    if ( qemu_plugin_read_register(reg, reg_buf) < (int)bytes )
        die("cannot read a register", "short read");
    memcpy(&val, reg_buf->data, bytes);

    return val;
}

/* A guest may use the hypervisor's virtual addresses, too. */
static bool in_el2(void)
{
    return (read_reg(reg_pstate, 4) & PSTATE_EL) == PSTATE_EL2;
}

static const struct sym *find_sym(uint64_t pc)
{
    size_t lo = 0, hi = nr_syms;

    while ( lo < hi )
    {
        size_t mid = lo + (hi - lo) / 2;

        if ( syms[mid].addr <= pc )
            lo = mid + 1;
        else
            hi = mid;
    }
    if ( !lo || pc - syms[lo - 1].addr >= syms[lo - 1].size )
        return NULL;

    return &syms[lo - 1];
}

/* Byte offset of `pc` in [base, base + VEC_SIZE) if a vector starts there. */
static bool starts_vector(uint64_t pc, uint64_t base, uint64_t *off)
{
    *off = pc - base;

    return pc >= base && *off < VEC_SIZE && !(*off % VEC_STEP);
}

/* Parse a number, up to ':' or the end; advance past the ':'. */
static uint64_t parse_u64(const char **s, const char *arg)
{
    char *end;
    uint64_t val;

    errno = 0;
    val = strtoull(*s, &end, 0);
    if ( errno || end == *s || (*end && *end != ':') )
        die("bad number in argument", arg);
    *s = *end ? end + 1 : end;

    return val;
}

static void load_syms(const char *path)
{
    FILE *f = fopen(path, "r");
    char name[512];
    uint64_t addr, size;
    size_t room = 0;

    if ( !f )
        die("cannot read", path);
    while ( fscanf(f, "%" SCNx64 " %" SCNx64 " %511s", &addr, &size,
                   name) == 3 )
    {
        if ( nr_syms && addr <= syms[nr_syms - 1].addr )
            die("symbols are not sorted by address", name);
        if ( nr_syms == room )
        {
            room = room ? room * 2 : 1024;
            syms = realloc(syms, room * sizeof(*syms));
            if ( !syms )
                die("out of memory", path);
        }
        syms[nr_syms++] = (struct sym){ addr, size, strdup(name) };
    }
    if ( !feof(f) || !nr_syms )
        die("not a symbol list", path);
    fclose(f);
}

/* Note a register that both plugins want, if it is one. */
static void note_register(const qemu_plugin_reg_descriptor *r)
{
    if ( !strcmp(r->name, "x30") )
        reg_lr = r->handle;
    else if ( !strcmp(r->name, "sp") )
        reg_sp = r->handle;
    else if ( !strcmp(r->name, "cpsr") )
        reg_pstate = r->handle;
}

/* Take `arg` if both plugins have it; its name has `n` bytes. */
static bool common_argument(const char *arg, size_t n, const char *val)
{
    if ( n == 2 && !memcmp(arg, "lo", n) )
        win_lo = parse_u64(&val, arg);
    else if ( n == 2 && !memcmp(arg, "hi", n) )
        win_hi = parse_u64(&val, arg);
    else if ( n == 3 && !memcmp(arg, "vec", n) )
        vec_base = parse_u64(&val, arg);
    else if ( n == 3 && !memcmp(arg, "out", n) )
        out_path = strdup(val);
    else if ( n == 6 && !memcmp(arg, "harden", n) )
    {
        harden_lo = parse_u64(&val, arg);
        harden_hi = parse_u64(&val, arg);
    }
    else
        return false;

    return true;
}

/*
 * QEMU closes its console before it runs what is registered for its exit.
 * Whoever reads the console may take its end for QEMU's and kill what is left:
 * keep it open, so that it ends with the process.
 */
static void keep_console(void)
{
    if ( dup(STDOUT_FILENO) < 0 )
        die("cannot keep the console open", strerror(errno));
}

#endif
