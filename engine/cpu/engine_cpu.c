/* The CPU backend: opens an engine (layout, arenas, weights, team) and runs one step per
 * submit, at once; collect hands out what it gave. Called by one thread; the team's workers
 * live here too. */
#include "engine/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "engine/cpu/experts.h"
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
    kv_costs(kv, &l.groups, o->depth ? o->depth : 1, l.kv);
    cpu_layout_clear(&l);
    return OK;
}

status cpu_group_shape(group_shape *out, const program *p, const engine_options *o, err *e) {
    cpu_layout l;
    const status s = cpu_layout_init(&l, p, o, e);
    if (s != OK) return s;
    memcpy(l.shared.stage, out->stage, p->part.stage * sizeof *out->stage);
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
        e->shared = e->opt.group->base + e->opt.group->own.values;
        e->arena_of_logits = e->logits;
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
        if (!most) continue; /* a stage without layers of the group */
        s = ledger_alloc_within(e->ledger, &p, MEM_KV, bytes, most, "KV cache", er);
        e->kv[g] = p;
    }
    return s;
}

static status alloc_states(cpu_engine *e, err *er) {
    uint64_t bytes;
    void *p = NULL;
    if (!e->layout.n_states || !e->layout.state_floats) return OK;
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
    experts_close(e->experts);
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

/* Where all have the same, and where the stage does. */
static bool same_shape(const group_shape *a, const group_shape *b, uint32_t stage) {
    return a->n_ranks == b->n_ranks && a->n_stages == b->n_stages && a->depth == b->depth &&
           a->by_messages == b->by_messages && a->step_bytes == b->step_bytes &&
           a->logits_bytes == b->logits_bytes &&
           a->stage[stage].values_bytes == b->stage[stage].values_bytes &&
           a->stage[stage].sent_bytes == b->stage[stage].sent_bytes;
}

/* The group's memory was made for this program. */
static status check_group(const cpu_engine *e, err *er) {
    const group_shape *want = &e->layout.shared;
    const group *g = e->opt.group;
    const uint32_t stage = e->program->part.stage, rank = layout_rank(e->program);
    if (!want->n_ranks && !g) return OK;
    const group_shape *have = g ? &group_head_of(g)->shape : NULL;
    if (want->n_ranks && g && g->rank == rank && same_shape(have, want, stage) &&
        (!stage || have->stage[stage - 1].sent_bytes == e->layout.received_bytes))
        return OK;
    return err_set(er, ERR_UNAVAILABLE,
                   "rank %u of %u: the memory of the group is of another model "
                   "or of other options",
                   rank, want->n_ranks);
}

/* Rank 0 has these alone; the others of the first stage, and other stages, have all in front. */
static uint32_t count_front(const cpu_engine *e) {
    const program *p = e->program;
    for (uint32_t i = 0; i < p->n_ops; i++)
        if (p->ops[i].kind == OP_RECV && e->layout.values[p->ops[i].out].is_logits) return i;
    return p->n_ops;
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
    e->n_front = count_front(e);
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
                            e->layout.n_states};
    batch plain = *b;
    plain.seq = e->posted;
    for (uint32_t i = 0; i < b->n_seqs; i++) e->posted[i] = tables_plain(&b->seq[i]);
    const tables_shape s = tables_measure(&m, &plain);
    const tables_at at = tables_lay(m.n_groups, &s);
    unsigned char *to = group_step_at(g, g->posted + 1);
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

/* The group's rank waits for what the operations from there on read: of a stage before, of ranks that may still
 * read what a step of theirs before this one left, of the last stage. */
static status meet(cpu_engine *e, uint32_t from, err *er) {
    group *g = e->opt.group;
    if (!g || g->n_stages == 1) return OK;
    bool ok = true;
    if (from)
        ok = group_receive(g, g->n_stages - 1, e->step.number);
    else if (g->stage)
        ok = group_receive(g, g->stage - 1, e->step.number);
    if (ok && !from && g->n_peers > 1) ok = group_meet(g);
    return ok ? OK : group_error(g, er);
}

static status run_part(cpu_engine *e, uint32_t from, uint32_t to, err *er) {
    const status s = meet(e, from, er);
    if (s != OK) return s;
    if (e->opt.group) e->logits = group_logits_at(e->opt.group, e->step.number);
    atomic_store_explicit(&e->step.failed, false, memory_order_relaxed);
    cpu_step_run(e, from, to);
    if (!atomic_load_explicit(&e->step.failed, memory_order_relaxed)) return OK;
    *er = e->step.error;
    return er->code;
}

static status cpu_submit(engine *head, const batch *b, err *er) {
    cpu_engine *e = (cpu_engine *)head;
    group *g = e->opt.group;
    CHECK(e->n_flights < (g ? g->depth : 1));
    status s = cpu_step_init(e, b, er);
    if (s == OK && g) s = group_error(g, er);
    if (s != OK) return s;
    if (e->posted) post_step(e, b);
    if (g) e->step.number = g->posted;
    s = run_part(e, 0, e->n_front, er);
    if (s != OK && g && g->n_stages > 1) group_break(g, er); /* the next stage would wait */
    if (s != OK) return s;
    if (g && g->n_stages > 1 && g->rank == g->first) {
        cpu_step_put_sent(e);
        group_send(g);
    }
    for (uint32_t i = 0; i < b->n_seqs; i++) e->drew[i] = b->seq[i].sample;
    e->n_drew = b->n_seqs;
    e->flight[e->n_flights++] = (cpu_flight){*b, e->step.number};
    return OK;
}

/* What rank 0 does of a step once the last stage has made its logits. */
static status sample_step(cpu_engine *e, const cpu_flight *f, err *er) {
    if (e->n_front == e->program->n_ops) return OK;
    e->step.number = f->number;
    cpu_step_rows(e, &f->batch);
    return run_part(e, e->n_front, e->program->n_ops, er);
}

static status cpu_collect(engine *head, step_result *out, err *er) {
    cpu_engine *e = (cpu_engine *)head;
    if (!e->n_flights) return err_set(er, ERR_INVALID, "no step is submitted");
    const cpu_flight f = e->flight[0];
    e->n_flights--;
    memmove(e->flight, e->flight + 1, e->n_flights * sizeof *e->flight);
    const status s = sample_step(e, &f, er);
    if (s != OK) return s;
    for (uint32_t i = 0; i < f.batch.n_seqs; i++) accept_run(e, &f.batch.seq[i], i);
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
    *out = (engine_info){.name = "cpu", .depth = e->opt.depth ? e->opt.depth : 1};
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

static void cpu_expert_stats(const engine *head, expert_stats *out) {
    const cpu_engine *e = (const cpu_engine *)head;
    if (e->experts) experts_read_stats(e->experts, out);
}

#define X(kind, ...) | 1ull << OP_##kind
#define T(trait)     | 1ull << TRAIT_##trait
/* What both have. */
#define CPU_BACKEND                                                                            \
    .name = "cpu", .runs = {0 CPU_OPS(X), 0 CPU_TRAITS(T)}, .terms = cpu_terms,                \
    .submit = cpu_submit, .collect = cpu_collect, .info = cpu_info

const backend backend_cpu = {
    CPU_BACKEND,
    .open = cpu_open,
    .close = cpu_close,
    .kv_export = cpu_kv_export,
    .kv_import = cpu_kv_import,
    .kv_resize = cpu_kv_resize,
    .experts = layout_experts,
    .expert_stats = cpu_expert_stats,
};

/* The blocks of a rank are a part of the cache: they do not move by themselves. */
const backend backend_cpu_ranks = {
    CPU_BACKEND,
    .open = cpu_ranks_open,
    .close = cpu_ranks_close,
};
