/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fncount: a QEMU TCG plugin that counts what one call of a function costs.
 *
 * For every function it is told about, it counts the guest instructions and
 * memory operations executed between the function's first instruction and
 * the moment control is back at its return address, callees included. Only
 * code inside a window of virtual addresses (the hypervisor's image) counts.
 *
 * Arguments, all as name=value:
 *   lo, hi    the window, [lo, hi)
 *   out       file written when the machine stops
 *   fn        NAME:ENTRY[:CALLER_LO:CALLER_HI], at most MAX_FNS times; with
 *             a caller range, calls from elsewhere are not looked at
 *   trip      NAME:FN, at most once: what the hypervisor runs from the guest's
 *             exception to the return to a guest, for those trips in which
 *             the function FN (the name of an fn) is called exactly once
 *   vec       address of the EL2 vector table (2 KiB): what runs between an
 *             interrupt of the hypervisor and its ERET is not the call's
 *   harden    LO:HI, copies of the vector table that jump on to `vec`
 *   profile   NAME of one fn or of the trip: also count by function inside it
 *   syms      for profile: file of "ADDRESS SIZE NAME" lines, by address
 *
 * Numbers are hexadecimal with 0x. The output is one item a line, the first
 * word says what it is; see bench/fncount.py, which reads it.
 *
 * A call is known by its return address and stack pointer, both as on entry,
 * so recursion and tail calls come out right: a function that ends in a tail
 * call lasts until its callee returns. A call that is still open when the
 * guest runs again never returned; it is dropped and reported as lost.
 */
#define PLUGIN "fncount"
#include "common.h"

#define MAX_FNS     32
#define MAX_DEPTH   64
#define MAX_GROUPS  64
#define FNV_BASIS   0xcbf29ce484222325u
#define FNV_PRIME   0x100000001b3u

/* Counters that generated code adds to without a callback. */
struct counters {
    uint64_t insns;
    uint64_t mem;
    uint64_t open;      /* calls in progress: gates the callback per block */
};

struct hist_entry {
    uint64_t insns, mem, calls;
};

/* Calls of the profiled function that took the same number of instructions. */
struct profile_group {
    uint64_t insns, calls;
    uint64_t *by_fn;    /* two a symbol: instructions, entries */
};

struct fn {
    const char *name;
    uint64_t entry;
    uint64_t caller_lo, caller_hi;
    uint64_t lost, total, sequence;
    struct hist_entry *hist;
    size_t hist_used, hist_room;
};

struct frame {
    struct fn *fn;
    uint64_t ret, sp;
    uint64_t insns, mem;
    uint64_t *by_fn;
};

static struct fn fns[MAX_FNS];
static unsigned int nr_fns;
static struct fn *profiled;
static struct fn trip, *trip_fn;    /* trip.name is NULL without trip= */
static uint64_t trip_calls;         /* of trip_fn in this trip */

static struct qemu_plugin_scoreboard *score, *prof_score;
static struct counters *now;        /* of the only vCPU */
static uint64_t *prof_now;

static struct frame frames[MAX_DEPTH];
static unsigned int depth;
static uint64_t overflows, interrupts;
static struct profile_group groups[MAX_GROUPS];
static unsigned int nr_groups;
static uint64_t ungrouped;

/* Nesting of exceptions that EL2 took from itself, and the state before. */
static unsigned int exc_depth;
static bool via_harden;
static uint64_t exc_insns, exc_mem;
static uint64_t *exc_by_fn;

static size_t prof_words(void)
{
    return nr_syms * 2;
}

/* Account one finished call. */
static void record(struct fn *fn, uint64_t insns, uint64_t mem)
{
    struct hist_entry *h = NULL;
    size_t i;

    fn->total += insns;
    fn->sequence = (fn->sequence ^ insns) * FNV_PRIME;
    fn->sequence = (fn->sequence ^ mem) * FNV_PRIME;

    for ( i = 0; i < fn->hist_used; i++ )
        if ( fn->hist[i].insns == insns && fn->hist[i].mem == mem )
        {
            h = &fn->hist[i];
            break;
        }
    if ( !h )
    {
        if ( fn->hist_used == fn->hist_room )
        {
            fn->hist_room = fn->hist_room ? fn->hist_room * 2 : 64;
            fn->hist = realloc(fn->hist, fn->hist_room * sizeof(*h));
            if ( !fn->hist )
                die("out of memory", fn->name);
        }
        h = &fn->hist[fn->hist_used++];
        *h = (struct hist_entry){ .insns = insns, .mem = mem };
    }
    h->calls++;
}

static void record_profile(const struct frame *f, uint64_t insns)
{
    struct profile_group *g;
    size_t i;

    for ( g = groups; g < groups + nr_groups; g++ )
        if ( g->insns == insns )
            break;
    if ( g == groups + nr_groups )
    {
        if ( nr_groups == MAX_GROUPS )
        {
            ungrouped++;
            return;
        }
        nr_groups++;
        g->insns = insns;
        g->by_fn = zalloc(prof_words(), sizeof(*g->by_fn));
    }
    g->calls++;
    for ( i = 0; i < prof_words(); i++ )
        g->by_fn[i] += prof_now[i] - f->by_fn[i];
}

/* The innermost open call is over. */
static void pop_frame(bool returned)
{
    struct frame *f = &frames[--depth];

    now->open = depth;
    if ( !returned )
        f->fn->lost++;
    else
    {
        record(f->fn, now->insns - f->insns, now->mem - f->mem);
        if ( f->by_fn )
            record_profile(f, now->insns - f->insns);
    }
    free(f->by_fn);
    f->by_fn = NULL;
}

static void push_frame(struct fn *fn, uint64_t ret, uint64_t sp)
{
    struct frame *f = &frames[depth];

    *f = (struct frame){
        .fn = fn, .ret = ret, .sp = sp, .insns = now->insns, .mem = now->mem,
    };
    if ( fn == profiled )
    {
        f->by_fn = zalloc(prof_words(), sizeof(*f->by_fn));
        memcpy(f->by_fn, prof_now, prof_words() * sizeof(*f->by_fn));
    }
    now->open = ++depth;
}

/* The first instruction of a named function is about to run. */
static void on_entry(unsigned int vcpu, void *opaque)
{
    struct fn *fn = opaque;
    uint64_t ret = read_reg(reg_lr, 8);

    if ( !in_el2() )
        return;
    if ( fn->caller_hi && (ret < fn->caller_lo || ret >= fn->caller_hi) )
        return;
    if ( depth == MAX_DEPTH )
    {
        overflows++;
        return;
    }

    push_frame(fn, ret, read_reg(reg_sp, 8));
    if ( fn == trip_fn && !exc_depth )
        trip_calls++;
}

/*
 * A block starts while calls are open. A return is an indirect branch, so
 * what it returns to always starts a block.
 */
static void on_block(unsigned int vcpu, void *opaque)
{
    uint64_t pc = (uintptr_t)opaque;

    /* More than one can end here: a tail call shares the return address. */
    while ( depth && frames[depth - 1].ret == pc &&
            frames[depth - 1].sp == read_reg(reg_sp, 8) )
        pop_frame(true);
}

/* A hardened copy of the vectors jumps to the real one, seen next. */
static void on_own_harden(unsigned int vcpu, void *opaque)
{
    if ( exc_depth++ )
        return;
    via_harden = true;
    interrupts++;
    exc_insns = now->insns;
    exc_mem = now->mem;
    if ( profiled )
        memcpy(exc_by_fn, prof_now, prof_words() * sizeof(*exc_by_fn));
}

/* The hypervisor takes an exception from itself, inside a call. */
static void on_own_vector(unsigned int vcpu, void *opaque)
{
    if ( via_harden )
        via_harden = false;
    else
    {
        on_own_harden(vcpu, opaque);
        via_harden = false;
    }
}

/* The hypervisor is entered from a guest: no call can still be open. */
static void on_guest_harden(unsigned int vcpu, void *opaque)
{
    while ( depth )
        pop_frame(false);
    exc_depth = 0;
    via_harden = true;
    if ( !trip.name )
        return;
    /* Return address 1 is no instruction's: ERET ends this one. */
    push_frame(&trip, 1, 0);
    trip_calls = 0;
}

static void on_guest_vector(unsigned int vcpu, void *opaque)
{
    if ( !via_harden )
        on_guest_harden(vcpu, opaque);
    via_harden = false;
}

/*
 * ERET to a guest: the last instruction of the trip. It is counted after this
 * callback, in the profile at `own` if that is not NULL.
 */
static void end_trip(const uint64_t *own)
{
    struct frame *f = &frames[0];

    if ( !trip.name )
        return;
    while ( depth && frames[depth - 1].fn != &trip )
        pop_frame(false);
    if ( !depth )
        return;

    if ( trip_calls == 1 )
    {
        f->insns--;
        if ( f->by_fn && own )
            f->by_fn[own - prof_now]--;
        pop_frame(true);
        return;
    }
    free(f->by_fn);
    f->by_fn = NULL;
    now->open = depth = 0;
}

/* ERET while a call or trip is open: its interrupt, or the trip, is over. */
static void on_eret(unsigned int vcpu, void *opaque)
{
    const uint64_t *own = opaque;   /* profile slot of the ERET, or NULL */
    unsigned int i;
    size_t j;

    if ( !exc_depth )
    {
        end_trip(own);
        return;
    }
    if ( --exc_depth )
        return;

    /* Move the start of every open call on, past the interrupt. */
    for ( i = 0; i < depth; i++ )
    {
        struct frame *f = &frames[i];

        f->insns += now->insns + 1 - exc_insns;
        f->mem += now->mem - exc_mem;
        if ( !f->by_fn )
            continue;
        for ( j = 0; j < prof_words(); j++ )
            f->by_fn[j] += prof_now[j] - exc_by_fn[j];
        if ( own )
            f->by_fn[own - prof_now]++;
    }
}

static void hook_vectors(struct qemu_plugin_insn *insn, uint64_t pc)
{
    qemu_plugin_u64 open =
        qemu_plugin_scoreboard_u64_in_struct(score, struct counters, open);
    uint64_t off;

    if ( vec_base && starts_vector(pc, vec_base, &off) )
    {
        if ( off >= VEC_GUEST )
            qemu_plugin_register_vcpu_insn_exec_cb(
                insn, on_guest_vector, QEMU_PLUGIN_CB_NO_REGS, NULL);
        else if ( off >= VEC_OWN )
            qemu_plugin_register_vcpu_insn_exec_cond_cb(
                insn, on_own_vector, QEMU_PLUGIN_CB_NO_REGS,
                QEMU_PLUGIN_COND_NE, open, 0, NULL);
    }

    if ( pc >= harden_lo && pc < harden_hi &&
         starts_vector(pc, pc - (pc - harden_lo) % VEC_SIZE, &off) )
    {
        if ( off >= VEC_GUEST )
            qemu_plugin_register_vcpu_insn_exec_cb(
                insn, on_guest_harden, QEMU_PLUGIN_CB_NO_REGS, NULL);
        else if ( off >= VEC_OWN )
            qemu_plugin_register_vcpu_insn_exec_cond_cb(
                insn, on_own_harden, QEMU_PLUGIN_CB_NO_REGS,
                QEMU_PLUGIN_COND_NE, open, 0, NULL);
    }
}

static void hook_insn(struct qemu_plugin_insn *insn, uint64_t pc)
{
    qemu_plugin_u64 insns =
        qemu_plugin_scoreboard_u64_in_struct(score, struct counters, insns);
    qemu_plugin_u64 mem =
        qemu_plugin_scoreboard_u64_in_struct(score, struct counters, mem);
    qemu_plugin_u64 open =
        qemu_plugin_scoreboard_u64_in_struct(score, struct counters, open);
    const struct sym *sym = profiled ? find_sym(pc) : NULL;
    uint32_t opcode = 0;
    unsigned int i;

    hook_vectors(insn, pc);

    qemu_plugin_insn_data(insn, &opcode, sizeof(opcode));
    if ( opcode == INSN_ERET )
        qemu_plugin_register_vcpu_insn_exec_cond_cb(
            insn, on_eret, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_COND_NE,
            open, 0, sym ? &prof_now[(sym - syms) * 2] : NULL);

    /* Callbacks run in the order they are added: entries before counting. */
    for ( i = 0; i < nr_fns; i++ )
        if ( fns[i].entry == pc )
            qemu_plugin_register_vcpu_insn_exec_cb(
                insn, on_entry, QEMU_PLUGIN_CB_R_REGS, &fns[i]);

    qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
        insn, QEMU_PLUGIN_INLINE_ADD_U64, insns, 1);
    qemu_plugin_register_vcpu_mem_inline_per_vcpu(
        insn, QEMU_PLUGIN_MEM_RW, QEMU_PLUGIN_INLINE_ADD_U64, mem, 1);

    if ( sym )
    {
        size_t slot = (sym - syms) * 2;
        qemu_plugin_u64 entry = { prof_score, slot * sizeof(uint64_t) };

        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
            insn, QEMU_PLUGIN_INLINE_ADD_U64, entry, 1);
        if ( pc == sym->addr )
        {
            entry.offset += sizeof(uint64_t);
            qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
                insn, QEMU_PLUGIN_INLINE_ADD_U64, entry, 1);
        }
    }
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    size_t n = qemu_plugin_tb_n_insns(tb), i;
    uint64_t start = qemu_plugin_tb_vaddr(tb);

    if ( start < win_lo || start >= win_hi )
        return;

    qemu_plugin_register_vcpu_tb_exec_cond_cb(
        tb, on_block, QEMU_PLUGIN_CB_R_REGS, QEMU_PLUGIN_COND_NE,
        qemu_plugin_scoreboard_u64_in_struct(score, struct counters, open),
        0, (void *)(uintptr_t)start);

    for ( i = 0; i < n; i++ )
    {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint64_t pc = qemu_plugin_insn_vaddr(insn);

        if ( pc < win_hi )
            hook_insn(insn, pc);
    }
}

static void on_vcpu_init(qemu_plugin_id_t id, unsigned int vcpu)
{
    GArray *regs = qemu_plugin_get_registers();
    unsigned int i;

    if ( vcpu )
        die("counts are exact with one CPU only", "use -smp 1");

    for ( i = 0; i < regs->len; i++ )
    {
        const qemu_plugin_reg_descriptor *r =
            &((const qemu_plugin_reg_descriptor *)(void *)regs->data)[i];

        if ( !r->feature || strcmp(r->feature, "org.gnu.gdb.aarch64.core") )
            continue;
        note_register(r);
    }
    g_array_free(regs, TRUE);
    if ( !reg_lr || !reg_sp || !reg_pstate )
        die("this machine has no register", "x30, sp or cpsr");

    now = qemu_plugin_scoreboard_find(score, 0);
    if ( prof_score )
        prof_now = qemu_plugin_scoreboard_find(prof_score, 0);
}

static void print_fn(FILE *f, const struct fn *fn)
{
    size_t i;

    fprintf(f, "fn %s total=%" PRIu64 " lost=%" PRIu64
               " sequence=%016" PRIx64 "\n",
            fn->name, fn->total, fn->lost, fn->sequence);
    for ( i = 0; i < fn->hist_used; i++ )
        fprintf(f, "hist %s %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", fn->name,
                fn->hist[i].insns, fn->hist[i].mem, fn->hist[i].calls);
}

static void on_exit_machine(qemu_plugin_id_t id, void *opaque)
{
    FILE *f = fopen(out_path, "w");
    unsigned int i;
    size_t j;

    if ( !f )
        die("cannot write", out_path);
    fprintf(f, "fncount 1\n");
    fprintf(f, "total insns=%" PRIu64 " mem=%" PRIu64 " interrupts=%" PRIu64
               " overflows=%" PRIu64 "\n",
            now ? now->insns : 0, now ? now->mem : 0, interrupts, overflows);
    for ( i = 0; i < nr_fns; i++ )
        print_fn(f, &fns[i]);
    if ( trip.name )
        print_fn(f, &trip);
    if ( profiled )
        fprintf(f, "profile %s ungrouped=%" PRIu64 "\n", profiled->name,
                ungrouped);
    for ( i = 0; i < nr_groups; i++ )
    {
        fprintf(f, "group %" PRIu64 " calls=%" PRIu64 "\n", groups[i].insns,
                groups[i].calls);
        for ( j = 0; j < nr_syms; j++ )
            if ( groups[i].by_fn[j * 2] )
                fprintf(f, "in %" PRIu64 " %" PRIu64 " %s\n",
                        groups[i].by_fn[j * 2], groups[i].by_fn[j * 2 + 1],
                        syms[j].name);
    }
    /* Without this line the file is cut short. */
    fprintf(f, "end\n");
    if ( fclose(f) )
        die("cannot write", out_path);
}

static void parse_fn(const char *spec)
{
    const char *colon = strchr(spec, ':'), *s;
    struct fn *fn = &fns[nr_fns];

    if ( nr_fns == MAX_FNS )
        die("too many fn= arguments", spec);
    if ( !colon || colon == spec )
        die("fn= wants NAME:ENTRY[:CALLER_LO:CALLER_HI]", spec);
    fn->name = strndup(spec, colon - spec);
    fn->sequence = FNV_BASIS;
    s = colon + 1;
    fn->entry = parse_u64(&s, spec);
    if ( *s )
    {
        fn->caller_lo = parse_u64(&s, spec);
        fn->caller_hi = parse_u64(&s, spec);
    }
    if ( *s )
        die("fn= wants NAME:ENTRY[:CALLER_LO:CALLER_HI]", spec);
    nr_fns++;
}

static struct fn *find_fn(const char *name)
{
    unsigned int i;

    for ( i = 0; i < nr_fns; i++ )
        if ( !strcmp(fns[i].name, name) )
            return &fns[i];

    return NULL;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id,
                                           const qemu_info_t *info,
                                           int argc, char **argv)
{
    const char *profile = NULL, *sym_path = NULL, *trip_spec = NULL;
    int i;

    for ( i = 0; i < argc; i++ )
    {
        const char *eq = strchr(argv[i], '='), *val = eq ? eq + 1 : "";
        size_t n = eq ? (size_t)(eq - argv[i]) : strlen(argv[i]);

#define ARG(s) (n == sizeof(s) - 1 && !memcmp(argv[i], s, n))
        if ( common_argument(argv[i], n, val) )
            continue;
        if ( ARG("fn") )
            parse_fn(val);
        else if ( ARG("trip") )
            trip_spec = val;
        else if ( ARG("profile") )
            profile = val;
        else if ( ARG("syms") )
            sym_path = val;
        else
            die("unknown argument", argv[i]);
#undef ARG
    }

    if ( !info->system_emulation || strcmp(info->target_name, "aarch64") )
        die("made for qemu-system-aarch64, not", info->target_name);
    if ( info->system.max_vcpus != 1 || info->system.smp_vcpus != 1 )
        die("counts are exact with one CPU only", "use -smp 1");
    if ( win_lo >= win_hi || !out_path || !nr_fns )
        die("missing argument", "lo, hi, out and fn are needed");
    if ( trip_spec )
    {
        const char *colon = strchr(trip_spec, ':');

        trip_fn = colon ? find_fn(colon + 1) : NULL;
        if ( !trip_fn || !vec_base )
            die("trip= wants NAME:FN, and vec=", trip_spec);
        trip.name = strndup(trip_spec, colon - trip_spec);
        trip.sequence = FNV_BASIS;
    }
    if ( profile )
    {
        profiled = trip.name && !strcmp(trip.name, profile) ? &trip
                                                            : find_fn(profile);
        if ( !profiled || !sym_path )
            die("profile= wants the name of an fn or trip, and syms=", profile);
        load_syms(sym_path);
        exc_by_fn = zalloc(prof_words(), sizeof(*exc_by_fn));
        prof_score = qemu_plugin_scoreboard_new(prof_words() *
                                                sizeof(uint64_t));
    }

    keep_console();

    score = qemu_plugin_scoreboard_new(sizeof(struct counters));
    reg_buf = g_byte_array_new();
    qemu_plugin_register_vcpu_init_cb(id, on_vcpu_init);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_atexit_cb(id, on_exit_machine, NULL);

    return 0;
}
