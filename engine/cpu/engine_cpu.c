/* The CPU backend: opens an engine (layout, arenas, weights, team) and runs one step per
 * submit, at once; collect hands out what it gave. Called by one thread; the team's workers
 * live here too. */
#include "engine/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "engine/cpu/isa.h"
#include "engine/cpu/rope.h"
#include "engine/cpu/step.h"
#include "engine/tables.h"
#include "memory/term.h"

static status cpu_terms(const program *p, const engine_options *o, terms *out, kv_request *kv,
                        err *e) {
    cpu_layout l;
    status s = cpu_layout_init(&l, p, o, e);
    if (s != OK) return s;
    cpu_layout_terms(&l, p, o, out);
    kv_costs(kv, &l.groups, 1, l.kv);
    cpu_layout_clear(&l);
    return OK;
}

status cpu_group_shape(group_shape *out, const program *p, const engine_options *o, err *e) {
    cpu_layout l;
    const status s = cpu_layout_init(&l, p, o, e);
    if (s != OK) return s;
    *out = l.shared;
    cpu_layout_clear(&l);
    return OK;
}

static status check_blocks(const cpu_layout *l, const engine_options *o, err *e) {
    for (uint32_t g = 0; g < l->groups.n; g++) {
        if (o->n_blocks[g] >= 1 && o->n_blocks[g] <= INT32_MAX) continue;
        err_set(e, ERR_INVALID, "%u blocks of KV cache in group %u", o->n_blocks[g], g);
        return err_field(e, "n_blocks");
    }
    return OK;
}

static status choose_kernels(cpu_engine *e, err *er) {
    e->linear = e->layout.family == ACTIVATION_BF16 ? linear_kernels_bf16(e->opt.isa)
                                                    : linear_kernels_get(e->opt.isa);
    e->exact = linear_kernels_get(e->opt.isa);
    if (e->linear && e->exact) {
        e->ops = op_kernels_get(e->linear->isa);
        return OK;
    }
    err_set(er, ERR_UNSUPPORTED, "cpu_isa = %s: %s", cpu_isa_name(e->opt.isa),
            isa_lack(e->opt.isa));
    err_hint(er, "use cpu_isa = auto");
    return err_field(er, "cpu_isa");
}

static status alloc_arenas(cpu_engine *e, err *er) {
    const cpu_layout *l = &e->layout;
    void *p = NULL;
    status s = ledger_alloc_raw(e->ledger, &p, MEM_WEIGHTS, l->weights_bytes, "weights", er);
    e->weights = p;
    p = NULL;
    if (s == OK)
        s = ledger_alloc(e->ledger, &p, MEM_ACTIVATIONS, l->activations_bytes, "activations",
                         er);
    e->activations = p;
    p = NULL;
    if (s == OK && l->logits_bytes) /* an encoder has none */
        s = ledger_alloc(e->ledger, &p, MEM_LOGITS, l->logits_bytes, "logits", er);
    e->logits = p;
    if (s == OK && e->opt.keep_logits) e->kept = e->logits + l->kept_at / sizeof(float);
    if (e->opt.group) {
        e->shared = e->opt.group->base + e->opt.group->at.values;
        e->arena_of_logits = e->logits;
        e->logits = (float *)(void *)(e->opt.group->base + e->opt.group->at.logits);
    }
    p = NULL;
    if (s == OK)
        s = ledger_alloc(e->ledger, &p, MEM_WORKSPACE, l->workspace_bytes, "workspace", er);
    e->workspace = p;
    return s;
}

/* After loading: the plan counts on the reading buffers being gone by then. Nothing is read that no row
 * has written, so what was in the pages stays. */
static status alloc_kv(cpu_engine *e, err *er) {
    status s = OK;
    for (uint32_t g = 0; g < e->layout.groups.n && s == OK; g++) {
        const uint64_t block = cpu_block_bytes(&e->layout, g);
        const uint32_t n = e->opt.n_blocks[g];
        uint64_t bytes = 0, most = 0;
        void *p = NULL;
        if (!e->opt.max_blocks[g]) e->opt.max_blocks[g] = n;
        if (n > e->opt.max_blocks[g] || !mul_u64(block, n, &bytes) ||
            !mul_u64(block, e->opt.max_blocks[g], &most))
            return err_set(er, ERR_INVALID, "%u of %u blocks of KV cache: more than can be", n,
                           e->opt.max_blocks[g]);
        s = ledger_alloc_within(e->ledger, &p, MEM_KV, bytes, most, "KV cache", er);
        e->kv[g] = p;
    }
    return s;
}

static status alloc_states(cpu_engine *e, err *er) {
    uint64_t bytes;
    void *p = NULL;
    if (!e->layout.n_states) return OK;
    if (!mul_u64(e->layout.n_states, e->layout.state_floats * sizeof(float), &bytes))
        return err_set(er, ERR_INVALID, "%u recurrent states: more than can be",
                       e->layout.n_states);
    const status s = ledger_alloc(e->ledger, &p, MEM_STATE, bytes, "recurrent states", er);
    e->states = p;
    return s;
}

/* Where each operation's part of a slot begins: one after the other. */
static void init_states(cpu_engine *e) {
    uint64_t at = 0;
    for (uint32_t i = 0; i < e->program->n_ops; i++) {
        e->op[i].state = at;
        at += e->program->ops[i].state_floats;
    }
}

/* Frequencies of each kind of rotary embedding; factors are the same in all its layers. */
static void init_rope(cpu_engine *e) {
    const program *p = e->program;
    uint32_t table = 0, known = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        if (op_appends(o)) table = o->rope.table;
        e->op[i].rope = table;
        if (!op_appends(o) || known & 1u << table) continue;
        const weight_id w = program_rope_factors(p, o, e->opt.max_model_len);
        const float *factors =
            w == NO_WEIGHT ? NULL : (const float *)(e->weights + e->layout.weights[w].at);
        e->rope_scale[table] = rope_frequencies(&p->rope[table], factors, cpu_freqs(e, table));
        known |= 1u << table;
    }
}

static void init_routing(cpu_engine *e) {
    const route_place *p = &e->layout.route;
    e->step.routed = (route_sorted){.first = (uint32_t *)(e->workspace + p->first),
                                    .used = (uint32_t *)(e->workspace + p->used),
                                    .row = (uint32_t *)(e->workspace + p->row),
                                    .weight = (float *)(e->workspace + p->weight),
                                    .by = NO_VALUE};
}

static void cpu_close(engine *head) {
    cpu_engine *e = (cpu_engine *)head;
    team_close(e->team);
    ledger_free(e->ledger, e->weights);
    ledger_free(e->ledger, e->activations);
    ledger_free(e->ledger, e->opt.group ? e->arena_of_logits : e->logits);
    ledger_free(e->ledger, e->workspace);
    for (uint32_t g = 0; g < PLAN_MAX_GROUPS; g++) ledger_free(e->ledger, e->kv[g]);
    ledger_free(e->ledger, e->states);
    cpu_layout_clear(&e->layout);
    checkpoint_rows_close(&e->table);
    free(e->posted);
    free(e->previous);
    free(e->n_tokens);
    free(e->drew);
    free(e->op);
    free(e);
}

static bool same_shape(const group_shape *a, const group_shape *b) {
    return a->n_ranks == b->n_ranks && a->step_bytes == b->step_bytes &&
           a->values_bytes == b->values_bytes && a->logits_bytes == b->logits_bytes;
}

/* The group's memory was made for this program. */
static status check_group(const cpu_engine *e, err *er) {
    const group_shape *want = &e->layout.shared;
    const group *g = e->opt.group;
    if (!want->n_ranks && !g) return OK;
    if (want->n_ranks && g && g->rank == e->program->part.rank &&
        same_shape(&group_head_of(g)->shape, want))
        return OK;
    return err_set(er, ERR_UNAVAILABLE,
                   "rank %u of %u: the memory of the group is of another model "
                   "or of other options",
                   e->program->part.rank, want->n_ranks);
}

static status open_parts(cpu_engine *e, err *er) {
    status s = cpu_layout_init(&e->layout, e->program, &e->opt, er);
    if (s == OK) s = check_blocks(&e->layout, &e->opt, er);
    CHECK(s != OK || !e->opt.tap || e->layout.family == ACTIVATION_F32);
    if (s == OK) s = check_group(e, er);
    if (s == OK) s = choose_kernels(e, er);
    if (s != OK) return s;
    e->op = calloc(e->program->n_ops, sizeof *e->op);
    e->previous = calloc(e->opt.max_seqs, sizeof *e->previous);
    e->drew = calloc(e->opt.max_seqs, sizeof *e->drew);
    e->n_tokens = calloc(e->opt.max_seqs, sizeof *e->n_tokens);
    const bool posts = e->opt.group && e->opt.group->rank == 0;
    if (posts) e->posted = calloc(e->opt.max_seqs, sizeof *e->posted);
    if (!e->op || !e->previous || !e->drew || !e->n_tokens || (posts && !e->posted))
        return mem_exhausted(er, MEM_RUNTIME, "the engine");
    s = alloc_arenas(e, er);
    if (s == OK) s = team_open(&e->team, e->opt.n_threads, er);
    if (s == OK) s = cpu_load(e, er);
    if (s == OK) s = alloc_kv(e, er);
    if (s == OK) s = alloc_states(e, er);
    if (s != OK) return s;
    init_rope(e);
    init_states(e);
    e->step.rows = (step_row *)(e->workspace + e->layout.rows);
    e->step.tasks = (attn_task *)(e->workspace + e->layout.tasks);
    init_routing(e);
    int32_t *block = (int32_t *)(e->workspace + e->layout.key_blocks);
    for (uint32_t i = 0; i < e->layout.n_key_blocks; i++) block[i] = (int32_t)i;
    e->token = (sampled *)(e->workspace + e->layout.results);
    e->scored = e->token + (size_t)e->opt.max_seqs * max_run(e);
    return OK;
}

static status cpu_open(engine **out, const model *m, const engine_options *o, ledger *l,
                       ledger *device, err *er) {
    cpu_engine *e = calloc(1, sizeof *e);
    (void)device;
    *out = NULL;
    if (!e) return mem_exhausted(er, MEM_RUNTIME, "the engine");
    e->head.backend = &backend_cpu;
    e->model = m;
    e->program = &m->program;
    e->ledger = l;
    e->opt = *o;
    e->table.fd = -1;
    CHECK(m->file);
    status s = open_parts(e, er);
    if (s == OK)
        *out = &e->head;
    else
        cpu_close(&e->head);
    return s;
}

/* The step for the other ranks, which draw nothing: without parameters, with every token as it is. */
static void post_step(cpu_engine *e, const batch *b) {
    group *g = e->opt.group;
    const tables_model m = {e->program->config.n_vocab, e->layout.groups.n, e->opt.block_tokens,
                            0};
    batch plain = *b;
    plain.seq = e->posted;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        e->posted[i] = b->seq[i];
        e->posted[i].sample = false;
        e->posted[i].n_draft = 0;
        e->posted[i].params = NULL;
        e->posted[i].allowed = NULL;
        e->posted[i].n_score = -1;
    }
    const tables_shape s = tables_measure(&m, &plain);
    const tables_at at = tables_lay(m.n_groups, &s);
    unsigned char *to = g->base + g->at.step;
    CHECK(at.lists <= e->layout.shared.step_bytes);
    const uint64_t bytes = tables_fill(to, &m, &s, &plain);
    int32_t *token = (int32_t *)(void *)(to + at.token),
            *from = (int32_t *)(void *)(to + at.from);
    for (uint32_t r = 0; r < b->n_rows; r++) {
        token[r] = e->step.rows[r].token;
        from[r] = -1;
    }
    group_post(g, bytes);
}

/* A row counts while its input is what the row before it drew. */
static void accept_run(cpu_engine *e, const batch_seq *s, uint32_t i) {
    const sampled *run = e->token + (size_t)i * max_run(e);
    const int32_t *guess = s->tokens + s->first_pos + s->n_rows - s->n_draft;
    uint32_t n = 0;
    while (n < s->n_draft && run[n].token == guess[n]) n++;
    e->n_tokens[i] = n + 1;
    e->previous[i] = s->sample ? run[n].token : -1;
}

static status cpu_submit(engine *head, const batch *b, err *er) {
    cpu_engine *e = (cpu_engine *)head;
    CHECK(!e->submitted);
    status s = cpu_step_init(e, b, er);
    if (s == OK && e->opt.group) s = group_error(e->opt.group, er);
    if (s != OK) return s;
    if (e->posted) post_step(e, b);
    atomic_store_explicit(&e->step.failed, false, memory_order_relaxed);
    cpu_step_run(e);
    if (atomic_load_explicit(&e->step.failed, memory_order_relaxed)) {
        *er = e->step.error;
        return er->code;
    }
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        e->drew[i] = b->seq[i].sample;
        accept_run(e, &b->seq[i], i);
    }
    e->n_drew = b->n_seqs;
    e->submitted = true;
    return OK;
}

static status cpu_collect(engine *head, step_result *out, err *er) {
    cpu_engine *e = (cpu_engine *)head;
    if (!e->submitted) return err_set(er, ERR_INVALID, "no step is submitted");
    e->submitted = false;
    *out = (step_result){.token = e->token,
                         .n_tokens = e->n_tokens,
                         .max_run = max_run(e),
                         .scored = e->scored,
                         .logits = e->kept,
                         .n_embd = e->program->config.n_embd};
    if (e->layout.hidden == NO_VALUE) return OK;
    out->hidden = value_f(e, e->layout.hidden);
    out->n_embd = e->program->values[e->layout.hidden].cols;
    return OK;
}

static void cpu_info(const engine *head, engine_info *out) {
    static const char *const name[] = {"auto",     "plain C",      "AVX2",
                                       "AVX-VNNI", "AVX-512 VNNI", "AMX"};
    const cpu_engine *e = (const cpu_engine *)head;
    *out = (engine_info){.name = "cpu", .depth = 1};
    snprintf(out->detail, sizeof out->detail, "%s, %s activations%s, %u threads",
             name[e->linear->isa], activation_dtype_name(e->layout.family),
             e->opt.activations == ACTIVATION_AUTO ? " (auto)" : "", e->opt.n_threads);
    snprintf(out->numerics, sizeof out->numerics, "cpu-%d %s", CPU_NUMERICS,
             activation_dtype_name(e->layout.family));
}

static status cpu_ranks_open(engine **out, const model *m, const engine_options *o, ledger *l,
                             ledger *device, err *er) {
    const status s = cpu_open(out, m, o, l, device, er);
    if (s == OK) (*out)->backend = &backend_cpu_ranks;
    return s;
}

static void cpu_ranks_close(engine *head) {
    cpu_engine *e = (cpu_engine *)head;
    if (e->posted) group_post(e->opt.group, 0);
    cpu_close(head);
}

#define X(kind, ...) | 1ull << OP_##kind
#define T(trait)     | 1ull << TRAIT_##trait
const backend backend_cpu = {
    .name = "cpu",
    .runs = {0 CPU_OPS(X), 0 CPU_TRAITS(T)},
    .terms = cpu_terms,
    .open = cpu_open,
    .close = cpu_close,
    .submit = cpu_submit,
    .collect = cpu_collect,
    .info = cpu_info,
    .kv_export = cpu_kv_export,
    .kv_import = cpu_kv_import,
    .kv_resize = cpu_kv_resize,
};

/* The blocks of a rank are a part of the cache: they do not move by themselves. */
const backend backend_cpu_ranks = {
    .name = "cpu",
    .runs = {0 CPU_OPS(X), 0 CPU_TRAITS(T)},
    .terms = cpu_terms,
    .open = cpu_ranks_open,
    .close = cpu_ranks_close,
    .submit = cpu_submit,
    .collect = cpu_collect,
    .info = cpu_info,
};
