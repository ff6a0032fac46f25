/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * marks: a QEMU TCG plugin that counts what a guest's operation costs EL2.
 *
 * The guest brackets an operation with two instructions that do nothing, HINT
 * #124 and HINT #125, with the operation's number in x0. All that the
 * hypervisor executes on any CPU between the two is the operation's, whatever
 * its functions are called. It wants -icount: then all CPUs run in one thread
 * of QEMU's, in the same order each time, and counts are exact.
 *
 * Nothing is counted until the guest begins operation 0, which does not end:
 * booting is faster so. Code is then translated anew, a moment later. x1 and
 * x2 say where the memory of the guest's is that it shares with its ITS, by
 * physical address: [x1, x2).
 *
 * Arguments, all as name=value; numbers are hexadecimal with 0x:
 *   lo, hi    the hypervisor's window of virtual addresses, [lo, hi)
 *   out       file written when the machine stops
 *   vec       address of the EL2 vector table (2 KiB)
 *   harden    LO:HI, copies of the vector table that jump on to `vec`
 *   lock      entry of a function that acquires a lock; may be repeated
 *   point     entry of a function that is called where other work, softirqs or
 *             other vCPUs, may go first; may be repeated
 *   others    the same, where the function is that other work
 *   alloc     ARG:UNIT:ENTRY[:LO:HI], a function that allocates as many times
 *             UNIT bytes as its argument ARG says (for UNIT 0x1000: pages, as
 *             a power of two), unless it is called from [LO, HI); repeatable
 *   free      entry of a function that gives back what its argument 0 points
 *             to, as an allocator has returned it; repeatable
 *   span      NUMBER:ENTRY, a function of the hypervisor's whose calls are an
 *             operation, too; repeatable. Then all is counted from the start
 *   lines     if 1, also count the cache lines that are touched, and accesses
 *             to that memory; slow
 *   profile   number of an operation to count by function
 *   syms      for profile: file of "ADDRESS SIZE NAME" lines, by address
 *
 * A trip is what the hypervisor runs from a guest's exception to its return to
 * a guest. A hold is the longest stretch of a trip without a `point`; it is
 * known with one CPU only. Nothing of `others` is in it, nor of interrupts that
 * the hypervisor takes from itself: when the timer ticks is chance.
 *
 * Where code for several CPUs runs in one thread, QEMU 10.0 translates it with
 * the number of whichever CPU is the first to need it. So nothing here relies
 * on the `vcpu` of a callback, nor, with several CPUs, on counters per vCPU.
 */
#define PLUGIN "marks"
#include "common.h"

#define MAX_OPS     1024
#define MAX_CPUS    8
#define MAX_SITES   32
#define PAGE        0x1000u
#define LINE_SHIFT  6
#define LINES       (1u << 16)
#define INSN_BEGIN  0xd5032f9fu     /* HINT #124 */
#define INSN_END    0xd5032fbfu     /* HINT #125 */

/* What is counted, in the order in which it is printed. */
enum {
    INSNS,      /* instructions */
    MEM,        /* memory operations; a pair of registers is one, STXR two */
    TRIPS,      /* ways from a guest into the hypervisor */
    ATOMICS,    /* stores by which an atomic read-modify-write ends */
    BARRIERS,   /* DMB and DSB */
    LOCKS,      /* lock acquisitions */
    BYTES,      /* allocated */
    FREED,      /* of these, since the start, given back; with free= only */
    TOUCHED,    /* distinct cache lines */
    DIRTY,      /* those of them that were written */
    SHARED,     /* those that one CPU wrote, and another touched */
    GUEST,      /* memory operations on what the guest shares with its ITS */
    NR_COUNTS
};
static const char *const names[NR_COUNTS] = {
    "insns", "mem", "trips", "atomics", "barriers",
    "locks", "bytes", "freed", "lines", "dirty", "shared", "guest",
};

/* What a CPU is about. */
struct cpu {
    uint64_t tpidr;         /* by which Xen knows its CPUs */
    uint64_t hold_from;     /* instructions when the stretch began */
    uint64_t own_from;      /* the same when `own_depth` became 1 */
    unsigned int own_depth; /* exceptions that EL2 took from itself */
    bool in_trip, via_harden;
};

struct sample {
    uint64_t counts[NR_COUNTS], calls;
};

struct op {
    struct sample *samples;
    size_t used, room;
    uint64_t calls, hold;
};

struct site {
    uint64_t entry, skip_lo, skip_hi;
    uint64_t arg, unit;     /* of an allocator; `arg` is a span's number */
    bool others;            /* of a point */
};

struct line {
    uint64_t number, generation;
    uint32_t touched, dirty;    /* a bit for each CPU */
};

static qemu_plugin_id_t plugin;
static struct op ops[MAX_OPS];
static uint64_t current;            /* operation in progress, or 0 */
static struct sample start;         /* the counters when it began */
static uint64_t broken;             /* marks that do not fit together */
static bool armed;                  /* the guest is about to begin */

static struct site locks[MAX_SITES], points[MAX_SITES], allocs[MAX_SITES];
static struct site spans[MAX_SITES], frees[MAX_SITES];
static unsigned int nr_locks, nr_points, nr_allocs, nr_spans, nr_frees;

/* A call in progress, by where it returns to. */
struct open_call {
    uint64_t ret, sp, bytes;
};
static struct open_call open_span, open_alloc, open_others;
static GHashTable *sizes;           /* of what is allocated, by address */

static bool count_lines;
static struct line lines[LINES];
static uint64_t generation;
static uint64_t touched, dirty, shared;
static uint64_t guest_lo, guest_hi;

static uint64_t profiled;
static uint64_t *profile, *profile_start;

static bool one_cpu;
static struct cpu cpus[MAX_CPUS];
static unsigned int nr_cpus;

/* To these, generated code adds without a callback if there is one CPU. */
static struct qemu_plugin_scoreboard *score, *prof_score;
static uint64_t *counts, *by_sym;
static struct qemu_plugin_register *reg_x[3], *reg_tpidr;

/* The CPU that runs now. */
static struct cpu *this_cpu(void)
{
    uint64_t tpidr = one_cpu ? 0 : read_reg(reg_tpidr, 8);
    unsigned int i;

    for ( i = 0; i < nr_cpus; i++ )
        if ( cpus[i].tpidr == tpidr )
            return &cpus[i];
    if ( nr_cpus == MAX_CPUS )
        die("too many CPUs", "raise MAX_CPUS");
    cpus[nr_cpus].tpidr = tpidr;

    return &cpus[nr_cpus++];
}

static void count_all(struct sample *to)
{
    memcpy(to->counts, counts, sizeof(to->counts));
    to->counts[TOUCHED] = touched;
    to->counts[DIRTY] = dirty;
    to->counts[SHARED] = shared;
}

static void record(struct op *op, const struct sample *one)
{
    struct sample *s;

    for ( s = op->samples; s < op->samples + op->used; s++ )
        if ( !memcmp(s->counts, one->counts, sizeof(s->counts)) )
        {
            s->calls++;
            return;
        }
    if ( op->used == op->room )
    {
        op->room = op->room ? op->room * 2 : 16;
        op->samples = realloc(op->samples, op->room * sizeof(*op->samples));
        if ( !op->samples )
            die("out of memory", "samples");
    }
    s = &op->samples[op->used++];
    *s = *one;
    s->calls = 1;
}

static void on_armed(qemu_plugin_id_t id);

static void begin(uint64_t op)
{
    current = op;
    generation++;
    touched = dirty = shared = 0;
    if ( profiled == op )
        memcpy(profile_start, by_sym, nr_syms * sizeof(*by_sym));
    count_all(&start);
}

static void end(void)
{
    struct sample now;
    unsigned int i;
    size_t n;

    count_all(&now);
    for ( i = 0; i < NR_COUNTS; i++ )
        now.counts[i] -= start.counts[i];
    ops[current].calls++;
    record(&ops[current], &now);
    if ( profiled == current )
        for ( n = 0; n < nr_syms; n++ )
            profile[n] += by_sym[n] - profile_start[n];
    current = 0;
}

static void on_begin(unsigned int vcpu, void *opaque)
{
    uint64_t op = read_reg(reg_x[0], 8);

    if ( !op && !armed )
    {
        armed = true;
        guest_lo = read_reg(reg_x[1], 8);
        guest_hi = read_reg(reg_x[2], 8);
        qemu_plugin_reset(plugin, on_armed);
    }
    else if ( op && armed && !current && op < MAX_OPS )
        begin(op);
    else if ( op || !nr_spans )
        broken++;
}

static void on_end(unsigned int vcpu, void *opaque)
{
    if ( current && current == read_reg(reg_x[0], 8) )
        end();
    else
        broken++;
}

static void open_call(struct open_call *call, uint64_t bytes)
{
    call->ret = read_reg(reg_lr, 8);
    call->sp = read_reg(reg_sp, 8);
    call->bytes = bytes;
}

/* Whether a block that starts at `pc` is where the call returns to. */
static bool returns(struct open_call *call, uint64_t pc)
{
    if ( call->ret != pc || call->sp != read_reg(reg_sp, 8) )
        return false;
    call->ret = 0;

    return true;
}

/* Of spans that are in each other, only the outer one is looked at. */
static void on_span(unsigned int vcpu, void *opaque)
{
    const struct site *span = opaque;

    if ( current || !in_el2() )
        return;
    open_call(&open_span, 0);
    begin(span->arg);
}

/* A stretch without a preemption point is over, and another begins. */
static void end_stretch(struct cpu *cpu)
{
    uint64_t hold = counts[INSNS] - cpu->hold_from;

    if ( one_cpu && hold > ops[current].hold )
        ops[current].hold = hold;
    cpu->hold_from = counts[INSNS];
}

static void on_point(unsigned int vcpu, void *opaque)
{
    const struct site *point = opaque;
    struct cpu *cpu = this_cpu();

    if ( !cpu->in_trip || cpu->own_depth || !in_el2() )
        return;
    end_stretch(cpu);
    if ( point->others )
        open_call(&open_others, 0);
}

/* What a return goes to always starts a block. */
static void on_block(unsigned int vcpu, void *opaque)
{
    if ( returns(&open_others, (uintptr_t)opaque) )
        this_cpu()->hold_from = counts[INSNS];
    if ( returns(&open_alloc, (uintptr_t)opaque) )
        g_hash_table_insert(sizes, (void *)(uintptr_t)read_reg(reg_x[0], 8),
                            (void *)(uintptr_t)open_alloc.bytes);
    if ( returns(&open_span, (uintptr_t)opaque) )
        end();
}

static void on_free(unsigned int vcpu, void *opaque)
{
    const void *what = (void *)(uintptr_t)read_reg(reg_x[0], 8);

    if ( !what || !in_el2() )
        return;
    counts[FREED] += (uintptr_t)g_hash_table_lookup(sizes, what);
    g_hash_table_remove(sizes, what);
}

static void on_guest_vector(unsigned int vcpu, void *opaque)
{
    struct cpu *cpu = this_cpu();

    if ( cpu->via_harden )
    {
        cpu->via_harden = false;
        return;
    }
    counts[TRIPS]++;
    cpu->in_trip = true;
    cpu->own_depth = 0;
    cpu->hold_from = counts[INSNS];
}

/* A hardened copy of the vectors jumps to the real one, seen next. */
static void on_guest_harden(unsigned int vcpu, void *opaque)
{
    on_guest_vector(vcpu, opaque);
    this_cpu()->via_harden = true;
}

static void on_own_vector(unsigned int vcpu, void *opaque)
{
    struct cpu *cpu = this_cpu();

    if ( cpu->via_harden )
        cpu->via_harden = false;
    else if ( !cpu->own_depth++ )
        cpu->own_from = counts[INSNS];
}

static void on_own_harden(unsigned int vcpu, void *opaque)
{
    on_own_vector(vcpu, opaque);
    this_cpu()->via_harden = true;
}

static void on_eret(unsigned int vcpu, void *opaque)
{
    struct cpu *cpu = this_cpu();

    if ( cpu->own_depth )
    {
        if ( !--cpu->own_depth )
            cpu->hold_from += counts[INSNS] - cpu->own_from;
    }
    else if ( cpu->in_trip )
    {
        end_stretch(cpu);
        cpu->in_trip = false;
    }
}

static void on_alloc(unsigned int vcpu, void *opaque)
{
    const struct site *site = opaque;
    uint64_t from = read_reg(reg_lr, 8);
    uint64_t value = read_reg(reg_x[site->arg], 8);

    if ( (from >= site->skip_lo && from < site->skip_hi) || !in_el2() )
        return;
    value = site->unit == PAGE ? (uint64_t)PAGE << (uint32_t)value
                               : value * site->unit;
    counts[BYTES] += value;
    if ( nr_frees )
        open_call(&open_alloc, value);
}

static void on_mem(unsigned int vcpu, qemu_plugin_meminfo_t info,
                   uint64_t vaddr, void *opaque)
{
    uint64_t number = vaddr >> LINE_SHIFT;
    size_t i = (number * 0x9e3779b97f4a7c15u) >> 48;
    struct qemu_plugin_hwaddr *at;
    bool was_shared;
    struct line *l;
    uint32_t me;

    if ( !current )
        return;
    at = qemu_plugin_get_hwaddr(info, vaddr);
    if ( at && !qemu_plugin_hwaddr_is_io(at) )
    {
        uint64_t where = qemu_plugin_hwaddr_phys_addr(at);

        counts[GUEST] += where >= guest_lo && where < guest_hi;
    }
    me = 1u << (this_cpu() - cpus);
    for ( ; ; i = (i + 1) % LINES )
    {
        l = &lines[i];
        if ( l->generation != generation || l->number == number )
            break;
    }
    if ( l->generation != generation )
    {
        if ( ++touched == LINES )
            die("too many cache lines", "raise LINES");
        *l = (struct line){ .number = number, .generation = generation };
    }
    was_shared = l->dirty && (l->touched & (l->touched - 1));
    l->touched |= me;
    if ( qemu_plugin_mem_is_store(info) )
    {
        dirty += !l->dirty;
        l->dirty |= me;
    }
    shared += !was_shared && l->dirty && (l->touched & (l->touched - 1));
}

/* Store-exclusives, and what Armv8.1 has instead: each ends one attempt. */
static bool is_atomic(uint32_t insn)
{
    return (insn & 0x3fe00000) == 0x08000000 ||     /* STXR, STLXR */
           (insn & 0xbfe00000) == 0x88200000 ||     /* STXP, STLXP */
           (insn & 0xbfa00000) == 0x08200000 ||     /* CASP */
           (insn & 0x3fa00000) == 0x08a00000 ||     /* CAS */
           /* SWP, LDADD and its kind; not LDAPR */
           ((insn & 0x3f200c00) == 0x38200000 && (insn & 0xf000) != 0xc000);
}

static bool is_barrier(uint32_t insn)
{
    return (insn & 0xfffff0ff) == 0xd50330bf ||     /* DMB */
           (insn & 0xfffff0ff) == 0xd503309f;       /* DSB */
}

static void on_count(unsigned int vcpu, void *opaque)
{
    (*(uint64_t *)opaque)++;
}

static void on_mem_count(unsigned int vcpu, qemu_plugin_meminfo_t info,
                         uint64_t vaddr, void *opaque)
{
    counts[MEM]++;
}

/* The instruction adds one to element `i` of `to`, which is what `in` has. */
static void add_one(struct qemu_plugin_insn *insn,
                    struct qemu_plugin_scoreboard *in, uint64_t *to, size_t i)
{
    qemu_plugin_u64 at = { in, i * sizeof(*to) };

    if ( one_cpu )
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
            insn, QEMU_PLUGIN_INLINE_ADD_U64, at, 1);
    else
        qemu_plugin_register_vcpu_insn_exec_cb(
            insn, on_count, QEMU_PLUGIN_CB_NO_REGS, &to[i]);
}

static void count_mem(struct qemu_plugin_insn *insn)
{
    qemu_plugin_u64 at = { score, MEM * sizeof(*counts) };

    if ( one_cpu )
        qemu_plugin_register_vcpu_mem_inline_per_vcpu(
            insn, QEMU_PLUGIN_MEM_RW, QEMU_PLUGIN_INLINE_ADD_U64, at, 1);
    else
        qemu_plugin_register_vcpu_mem_cb(
            insn, on_mem_count, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW,
            NULL);
    if ( count_lines )
        qemu_plugin_register_vcpu_mem_cb(insn, on_mem, QEMU_PLUGIN_CB_R_REGS,
                                         QEMU_PLUGIN_MEM_RW, NULL);
}

static void call(struct qemu_plugin_insn *insn,
                 qemu_plugin_vcpu_udata_cb_t what, void *opaque)
{
    qemu_plugin_register_vcpu_insn_exec_cb(insn, what, QEMU_PLUGIN_CB_R_REGS,
                                           opaque);
}

static void hook_vectors(struct qemu_plugin_insn *insn, uint64_t pc)
{
    uint64_t off;

    if ( starts_vector(pc, vec_base, &off) )
    {
        if ( off >= VEC_GUEST )
            call(insn, on_guest_vector, NULL);
        else if ( off >= VEC_OWN )
            call(insn, on_own_vector, NULL);
    }
    if ( pc >= harden_lo && pc < harden_hi &&
         starts_vector(pc, pc - (pc - harden_lo) % VEC_SIZE, &off) )
    {
        if ( off >= VEC_GUEST )
            call(insn, on_guest_harden, NULL);
        else if ( off >= VEC_OWN )
            call(insn, on_own_harden, NULL);
    }
}

static void hook_insn(struct qemu_plugin_insn *insn, uint64_t pc,
                      uint32_t opcode)
{
    const struct sym *sym = nr_syms ? find_sym(pc) : NULL;
    unsigned int i;

    /* In this order: entries before the count, ERET behind it. */
    hook_vectors(insn, pc);
    for ( i = 0; i < nr_spans; i++ )
        if ( spans[i].entry == pc )
            call(insn, on_span, &spans[i]);
    for ( i = 0; i < nr_points; i++ )
        if ( points[i].entry == pc )
            call(insn, on_point, &points[i]);
    for ( i = 0; i < nr_allocs; i++ )
        if ( allocs[i].entry == pc )
            call(insn, on_alloc, &allocs[i]);
    for ( i = 0; i < nr_frees; i++ )
        if ( frees[i].entry == pc )
            call(insn, on_free, NULL);
    for ( i = 0; i < nr_locks; i++ )
        if ( locks[i].entry == pc )
            add_one(insn, score, counts, LOCKS);

    add_one(insn, score, counts, INSNS);
    if ( is_atomic(opcode) )
        add_one(insn, score, counts, ATOMICS);
    if ( is_barrier(opcode) )
        add_one(insn, score, counts, BARRIERS);
    if ( sym )
        add_one(insn, prof_score, by_sym, sym - syms);
    count_mem(insn);
    if ( opcode == INSN_ERET )
        call(insn, on_eret, NULL);
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    size_t n = qemu_plugin_tb_n_insns(tb), i;
    uint64_t first = qemu_plugin_tb_vaddr(tb);

    if ( armed && first >= win_lo && first < win_hi )
        qemu_plugin_register_vcpu_tb_exec_cb(
            tb, on_block, QEMU_PLUGIN_CB_R_REGS, (void *)(uintptr_t)first);

    for ( i = 0; i < n; i++ )
    {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint64_t pc = qemu_plugin_insn_vaddr(insn);
        uint32_t opcode = 0;

        qemu_plugin_insn_data(insn, &opcode, sizeof(opcode));
        if ( pc >= win_lo && pc < win_hi )
        {
            if ( armed )
                hook_insn(insn, pc, opcode);
        }
        else if ( opcode == INSN_BEGIN )
            call(insn, on_begin, NULL);
        else if ( opcode == INSN_END )
            call(insn, on_end, NULL);
    }
}

static void on_vcpu_init(qemu_plugin_id_t id, unsigned int vcpu)
{
    GArray *regs = qemu_plugin_get_registers();
    unsigned int i;

    if ( !vcpu )
    {
        counts = qemu_plugin_scoreboard_find(score, 0);
        if ( prof_score )
            by_sym = qemu_plugin_scoreboard_find(prof_score, 0);
    }
    for ( i = 0; i < regs->len; i++ )
    {
        const qemu_plugin_reg_descriptor *r =
            &((const qemu_plugin_reg_descriptor *)(void *)regs->data)[i];

        if ( !strcmp(r->name, "TPIDR_EL2") )
            reg_tpidr = r->handle;
        if ( !r->feature || strcmp(r->feature, "org.gnu.gdb.aarch64.core") )
            continue;
        if ( !strcmp(r->name, "x0") )
            reg_x[0] = r->handle;
        else if ( !strcmp(r->name, "x1") )
            reg_x[1] = r->handle;
        else if ( !strcmp(r->name, "x2") )
            reg_x[2] = r->handle;
        else
            note_register(r);
    }
    g_array_free(regs, TRUE);
    if ( !reg_x[0] || !reg_x[1] || !reg_x[2] || !reg_lr || !reg_sp || !reg_pstate ||
         !reg_tpidr )
        die("this machine lacks a register", "x0 to x2, x30, sp, cpsr, TPIDR");
}

static void on_exit_machine(qemu_plugin_id_t id, void *opaque)
{
    FILE *f = fopen(out_path, "w");
    struct sample all;
    unsigned int op, i;
    size_t n;

    if ( !f )
        die("cannot write", out_path);
    count_all(&all);
    fprintf(f, "marks 1\ntotal broken=%" PRIu64 " open=%" PRIu64, broken,
            current);
    for ( i = 0; i < NR_COUNTS; i++ )
        fprintf(f, " %s=%" PRIu64, names[i], all.counts[i]);
    fprintf(f, "\n");
    for ( op = 0; op < MAX_OPS; op++ )
    {
        if ( op && !ops[op].calls )
            continue;
        fprintf(f, "op %u calls=%" PRIu64 " hold=%" PRIu64 "\n", op,
                ops[op].calls, ops[op].hold);
        for ( n = 0; n < ops[op].used; n++ )
        {
            const struct sample *s = &ops[op].samples[n];

            fprintf(f, "sample %u calls=%" PRIu64, op, s->calls);
            for ( i = 0; i < NR_COUNTS; i++ )
                fprintf(f, " %s=%" PRIu64, names[i], s->counts[i]);
            fprintf(f, "\n");
        }
    }
    for ( n = 0; n < nr_syms; n++ )
        if ( profile[n] )
            fprintf(f, "in %" PRIu64 " %s\n", profile[n], syms[n].name);
    /* Without this line the file is cut short. */
    fprintf(f, "end\n");
    if ( fclose(f) )
        die("cannot write", out_path);
}

/* Code that was translated is forgotten, and so are all callbacks. */
static void on_armed(qemu_plugin_id_t id)
{
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_atexit_cb(id, on_exit_machine, NULL);
}

static struct site *new_site(struct site *sites, unsigned int *nr,
                             const char *arg)
{
    if ( *nr == MAX_SITES )
        die("too many of these", arg);

    return &sites[(*nr)++];
}

static void parse_alloc(const char *val, const char *arg)
{
    struct site *site = new_site(allocs, &nr_allocs, arg);

    site->arg = parse_u64(&val, arg);
    site->unit = parse_u64(&val, arg);
    site->entry = parse_u64(&val, arg);
    if ( *val )
    {
        site->skip_lo = parse_u64(&val, arg);
        site->skip_hi = parse_u64(&val, arg);
    }
    if ( site->arg > 1 || *val )
        die("alloc= wants ARG:UNIT:ENTRY[:LO:HI], ARG 0 or 1", arg);
}

static void parse_span(const char *val, const char *arg)
{
    struct site *site = new_site(spans, &nr_spans, arg);

    site->arg = parse_u64(&val, arg);
    site->entry = parse_u64(&val, arg);
    if ( !site->arg || site->arg >= MAX_OPS || *val )
        die("span= wants NUMBER:ENTRY", arg);
    armed = true;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id,
                                           const qemu_info_t *info,
                                           int argc, char **argv)
{
    const char *sym_path = NULL;
    int i;

    for ( i = 0; i < argc; i++ )
    {
        const char *eq = strchr(argv[i], '='), *val = eq ? eq + 1 : "";
        size_t n = eq ? (size_t)(eq - argv[i]) : strlen(argv[i]);

#define ARG(s) (n == sizeof(s) - 1 && !memcmp(argv[i], s, n))
        if ( common_argument(argv[i], n, val) )
            continue;
        if ( ARG("lock") )
            new_site(locks, &nr_locks, argv[i])->entry =
                parse_u64(&val, argv[i]);
        else if ( ARG("point") || ARG("others") )
        {
            struct site *point = new_site(points, &nr_points, argv[i]);

            point->others = ARG("others");
            point->entry = parse_u64(&val, argv[i]);
        }
        else if ( ARG("alloc") )
            parse_alloc(val, argv[i]);
        else if ( ARG("free") )
            new_site(frees, &nr_frees, argv[i])->entry =
                parse_u64(&val, argv[i]);
        else if ( ARG("span") )
            parse_span(val, argv[i]);
        else if ( ARG("lines") )
            count_lines = parse_u64(&val, argv[i]);
        else if ( ARG("profile") )
            profiled = parse_u64(&val, argv[i]);
        else if ( ARG("syms") )
            sym_path = val;
        else
            die("unknown argument", argv[i]);
#undef ARG
    }

    if ( !info->system_emulation || strcmp(info->target_name, "aarch64") )
        die("made for qemu-system-aarch64, not", info->target_name);
    one_cpu = info->system.max_vcpus == 1;
    if ( win_lo >= win_hi || !out_path || !vec_base )
        die("missing argument", "lo, hi, vec and out are needed");
    if ( !profiled != !sym_path )
        die("profile= and syms= belong together", "");
    if ( sym_path )
    {
        load_syms(sym_path);
        profile = zalloc(nr_syms, sizeof(*profile));
        profile_start = zalloc(nr_syms, sizeof(*profile_start));
        prof_score = qemu_plugin_scoreboard_new(nr_syms * sizeof(*by_sym));
    }

    keep_console();

    plugin = id;
    score = qemu_plugin_scoreboard_new(NR_COUNTS * sizeof(*counts));
    reg_buf = g_byte_array_new();
    sizes = g_hash_table_new(NULL, NULL);
    qemu_plugin_register_vcpu_init_cb(id, on_vcpu_init);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_atexit_cb(id, on_exit_machine, NULL);

    return 0;
}
