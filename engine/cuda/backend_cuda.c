/* The CUDA backend in the base binary: plans by the layout, loads the plugin, gives it what it
 * may ask of the base, and checks batches before it sees them. The engine thread owns an
 * engine; loading the plugin belongs to the thread that opens. */
#include "engine/cuda/backend_cuda.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "engine/arrange.h"
#include "engine/batch.h"
#include "engine/cpu/rope.h"
#include "engine/cuda/computer.h"
#include "engine/cuda/hosting.h"
#include "engine/cuda/op_list.h"
#include "engine/cuda/upload.h"
#include "engine/group.h"
#include "engine/plugin_file.h"

/* ---- the plugin ---- */

static vramd_cuda_plugin_function *given;

void cuda_backend_use(vramd_cuda_plugin_function *f) {
    given = f;
}

static status host_fail(err *e, status code, const char *field, const char *text,
                        const char *hint) {
    err_set(e, code, "%s", text);
    if (*field) err_field(e, "%s", field);
    if (*hint) err_hint(e, "%s", hint);
    return code;
}

static void host_log(int level, const char *text) {
    switch (level) {
    case 0: log_error("%s", text); break;
    case 1: log_warn("%s", text); break;
    default: log_info("%s", text); break;
    }
}

static bool host_reserve(void *account, mem_class cls, uint64_t bytes) {
    return ledger_reserve(account, cls, bytes);
}

static void host_release(void *account, mem_class cls, uint64_t bytes) {
    ledger_release(account, cls, bytes);
}

/* The file's rows stand behind those that they become, and never under what is written. */
static status host_read_rows(const void *m, weight_id id, uint32_t row, uint32_t n, void *dst,
                             err *e) {
    const weight *w = &((const model *)m)->program.weights[id];
    const dtype as = cu_upload_type(w->type);
    if (as == w->type) return model_read_rows(m, id, row, n, dst, e);
    uint64_t in, out;
    CHECK(dtype_bytes(w->type, 1, w->cols, &in) && dtype_bytes(as, 1, w->cols, &out));
    unsigned char *to = dst, *from = to + n * (out - in) + in;
    const status s = model_read_rows(m, id, row, n, from, e);
    if (s != OK) return s;
    for (uint32_t i = 0; i < n; i++) {
        if (!cu_upload_fits(w->type, from + i * in, w->cols)) {
            err_set(e, ERR_UNSUPPORTED, "%.200s: a scale of row %u is too large for f16",
                    w->name, row + i);
            return err_hint(e, "use backend = cpu, whose scales are those of the file");
        }
        cu_upload(w->type, from + i * in, w->cols, to + i * out);
    }
    return OK;
}

static status host_read_vector(const void *m, weight_id id, float *dst, err *e) {
    return model_read_vector(m, id, dst, e);
}

static const cuda_host host_of_base = {.abi = CUDA_PLUGIN_ABI,
                                       .read_rows = host_read_rows,
                                       .read_vector = host_read_vector,
                                       .reserve = host_reserve,
                                       .release = host_release,
                                       .fail = host_fail,
                                       .log = host_log};

static status no_plugin(err *e, status code, const char *path, const char *why) {
    err_set(e, code, "the CUDA engine %.120s: %.240s", path, why);
    err_hint(e, "build it (make cuda) or install it, or use backend = cpu");
    return err_field(e, "cuda_plugin");
}

/* A plugin once loaded stays: what CUDA leaves behind in a process does not survive dlclose. */
static status load_plugin(const engine_options *o, const cuda_plugin **out, err *e) {
    char path[PLUGIN_PATH] = "";
    const cuda_plugin *p = NULL;
    if (given) {
        p = given(CUDA_PLUGIN_ABI);
    } else {
        const char *why;
        void *lib = plugin_load(o->plugin ? o->plugin : "", "vramd-cuda.so", false, path, &why);
        if (!lib && !why) return no_plugin(e, ERR_NOT_FOUND, path, "there is no such file");
        if (!lib) return no_plugin(e, ERR_UNSUPPORTED, path, why);
        vramd_cuda_plugin_function *f = NULL;
        *(void **)&f = dlsym(lib, "vramd_cuda_plugin");
        if (!f) return no_plugin(e, ERR_UNSUPPORTED, path, "it is no engine of vramd");
        p = f(CUDA_PLUGIN_ABI);
    }
    if (!p || p->abi != CUDA_PLUGIN_ABI || strcmp(p->version, VRAMD_VERSION) != 0)
        return no_plugin(e, ERR_UNSUPPORTED, path, "it is of another version than this vramd");
    *out = p;
    return OK;
}

status cuda_backend_available(const engine_options *o, cuda_device *out, err *e) {
    const cuda_plugin *p = NULL;
    status s = load_plugin(o, &p, e);
    return s == OK ? p->probe(o->device, out, &host_of_base, e) : s;
}

/* ---- planning ---- */

static status backend_terms(const program *p, const engine_options *o, terms *out,
                            kv_request *kv, err *e) {
    cuda_layout l;
    status s = cuda_layout_init(&l, p, o, e);
    if (s != OK) return s;
    cuda_layout_terms(&l, p, o, out);
    const kv_groups groups = kv_groups_of(p, o);
    kv_costs(kv, &groups, l.n_ranks > 1 ? 1 : CUDA_DEPTH, l.kv);
    kv->granule = CUDA_GRANULE;
    cuda_layout_clear(&l);
    return OK;
}

/* ---- the engine ---- */

typedef struct cuda_engine_base {
    engine head;
    const model *model;
    engine_options opt;
    cuda_layout layout;
    ledger *host_ledger, *device_ledger;
    const cuda_plugin *plugin;
    cuda_host host;
    computer *computer; /* NULL: the device computes everything */
    engine *inner;
    double *freqs;
    uint64_t outside_bytes; /* reserved: context, libraries, graphs */
    /* Of rank 0 of several, [max_seqs]: entries of a step as the others get it; what the step before drew. */
    batch_seq *posted;
    int32_t *previous;
    bool *drew; /* [max_seqs]: entries of the step submitted last that drew a token */
    uint32_t n_drew;
} cuda_engine_base;

static status alloc_host(cuda_engine_base *e, err *er) {
    status s = ledger_alloc(e->host_ledger, &e->host.staging, MEM_WORKSPACE,
                            e->layout.staging_bytes, "pinned tables", er);
    if (s == OK && e->layout.n_staged)
        s = ledger_alloc_raw(e->host_ledger, &e->host.weights, MEM_WEIGHTS,
                             e->layout.host_bytes, "pinned weights", er);
    return s;
}

static status alloc_loading(cuda_engine_base *e, err *er) {
    return ledger_alloc(e->host_ledger, &e->host.bounce, MEM_LOADING,
                        CUDA_BOUNCES * e->layout.bounce_bytes, "the loader's buffers", er);
}

static status init_rope(cuda_engine_base *e, err *er) {
    const program *p = &e->model->program;
    const uint32_t n = e->layout.rope_pairs;
    uint32_t known = 0;
    status s = OK;
    float *factors = calloc(n + 1, sizeof *factors);
    e->freqs = calloc((size_t)p->n_ropes * n + 1, sizeof *e->freqs);
    if (!e->freqs || !factors)
        s = err_set(er, ERR_NO_MEMORY, "no memory for rotary frequencies");
    for (uint32_t i = 0; i < p->n_ops && s == OK; i++) {
        const op *o = &p->ops[i];
        if (o->kind != OP_ROPE_APPEND || known & 1u << o->rope.table) continue;
        const uint32_t t = o->rope.table;
        const weight_id w = program_rope_factors(p, o, e->opt.max_model_len);
        if (w != NO_WEIGHT) s = model_read_vector(e->model, w, factors, er);
        e->host.rope_scale[t] = (float)rope_frequencies(
            &p->rope[t], w == NO_WEIGHT ? NULL : factors, e->freqs + (size_t)t * n);
        known |= 1u << t;
    }
    e->host.freqs = e->freqs;
    free(factors);
    return s;
}

/* What is not in the arena was planned by rule of thumb; it counts as planned from now on. */
static status reserve_outside(cuda_engine_base *e, err *er) {
    terms t = {0};
    cuda_layout_terms(&e->layout, &e->model->program, &e->opt, &t);
    const uint64_t bytes = terms_sum(&t, MEM_CONTEXT);
    const bool failed = t.failed;
    terms_clear(&t);
    if (failed) return err_set(er, ERR_NO_MEMORY, "no memory for the plan");
    if (!ledger_reserve(e->device_ledger, MEM_CONTEXT, bytes))
        return err_set(er, ERR_BUDGET, "the driver's context exceeds its plan");
    e->outside_bytes = bytes;
    return OK;
}

static void warn_of_context(const cuda_engine_base *e) {
    cuda_memory m;
    char a[32], b[32];
    e->plugin->memory(e->inner, &m);
    const uint64_t found = m.context_bytes + m.library_bytes + m.graph_bytes;
    if (found > e->outside_bytes)
        log_warn("context, cuBLASLt and graphs take %s of the device; %s were planned",
                 bytes_human(found, a), bytes_human(e->outside_bytes, b));
}

static void tell_staged(const cuda_engine_base *e) {
    const cuda_layout *l = &e->layout;
    cuda_memory m;
    char a[32];
    if (!l->n_staged) return;
    e->plugin->memory(e->inner, &m);
    const double rate = (double)m.link_bytes_per_s;
    log_info(
        "the matrices of %u layers, %s, come from the host's memory for each step: %.1f GB/s "
        "were measured, at which that takes %.1f ms; steps run without CUDA graphs",
        l->n_staged, bytes_human(l->staged_bytes, a), rate / 1e9,
        rate > 0 ? (double)l->staged_bytes * 1e3 / rate : 0);
}

static bool host_exchange(void *g, void *bytes, uint64_t n) {
    return group_exchange(g, bytes, n);
}

static bool host_waits(void *g, bool first) {
    return group_look(g, first);
}

/* The group's memory was made for this program. */
static status join_group(cuda_engine_base *e, err *er) {
    group *g = e->opt.group;
    if (e->layout.n_ranks == 1 && !g) return OK;
    const group_shape *have = g ? &group_head_of(g)->shape : NULL;
    if (!g || have->n_ranks != e->layout.n_ranks || have->n_stages != 1 || have->depth != 1 ||
        have->step_bytes != e->layout.tables_bytes || g->rank != e->model->program.part.rank)
        return err_set(er, ERR_UNAVAILABLE,
                       "rank %u of %u: the memory of the group is of another model or of other "
                       "options",
                       e->model->program.part.rank, e->layout.n_ranks);
    e->host.group = g;
    e->host.exchange = host_exchange;
    e->host.waits = host_waits;
    if (g->rank) return OK;
    e->posted = calloc(e->opt.max_seqs, sizeof *e->posted);
    e->previous = calloc(e->opt.max_seqs, sizeof *e->previous);
    if (!e->posted || !e->previous)
        return err_set(er, ERR_NO_MEMORY, "no memory for the engine");
    return OK;
}

/* Before the loader's buffers are there: the CPU's loader has its own. */
static status open_computer(cuda_engine_base *e, err *er) {
    if (!e->layout.host_program) return OK;
    unsigned char *memory = (unsigned char *)e->host.staging + e->layout.crossing_at;
    const status s =
        computer_open(&e->computer, &e->layout, e->model, &e->opt, memory, e->host_ledger, er);
    e->host.computer = e->computer;
    e->host.compute = computer_run;
    return s;
}

static void tell_computed(const cuda_engine_base *e) {
    engine_info i;
    char a[32];
    if (!e->computer) return;
    computer_info(e->computer, &i);
    log_info(
        "%s of matrices stay in the host's memory, where the CPU computes them (%s), in %u "
        "parts of a step: %.1f ms for a row, measured; steps run without CUDA graphs",
        bytes_human(hosting_bytes(&e->layout), a), i.detail, e->layout.n_host_runs,
        (double)computer_measure(e->computer) / 1e3);
}

static status open_parts(cuda_engine_base *e, err *er) {
    const program *p = &e->model->program;
    status s = cuda_layout_init(&e->layout, p, &e->opt, er);
    if (s == OK) s = join_group(e, er);
    if (s == OK) s = load_plugin(&e->opt, &e->plugin, er);
    if (s != OK) return s;
    e->drew = calloc(e->opt.max_seqs, sizeof *e->drew);
    if (!e->drew) return err_set(er, ERR_NO_MEMORY, "no memory for the engine");
    s = init_rope(e, er);
    if (s == OK) s = alloc_host(e, er);
    if (s == OK) s = open_computer(e, er);
    if (s == OK) s = alloc_loading(e, er);
    if (s == OK) s = reserve_outside(e, er);
    if (s == OK)
        s = e->plugin->open(&e->inner, e->opt.device, p, &e->opt, &e->layout, &e->host, er);
    if (s != OK) return s;
    ledger_free(e->host_ledger, e->host.bounce);
    e->host.bounce = NULL;
    warn_of_context(e);
    tell_staged(e);
    tell_computed(e);
    return OK;
}

static void backend_close(engine *head) {
    cuda_engine_base *e = (cuda_engine_base *)head;
    if (e->posted) group_post(e->opt.group, 0);
    if (e->inner) e->plugin->close(e->inner);
    computer_close(e->computer);
    if (e->outside_bytes) ledger_release(e->device_ledger, MEM_CONTEXT, e->outside_bytes);
    ledger_free(e->host_ledger, e->host.bounce);
    ledger_free(e->host_ledger, e->host.staging);
    ledger_free(e->host_ledger, e->host.weights);
    cuda_layout_clear(&e->layout);
    free(e->freqs);
    free(e->posted);
    free(e->previous);
    free(e->drew);
    free(e);
}

static status backend_open(engine **out, const model *m, const engine_options *o, ledger *host,
                           ledger *device, err *er) {
    cuda_engine_base *e = calloc(1, sizeof *e);
    *out = NULL;
    if (!e) return err_set(er, ERR_NO_MEMORY, "no memory for the engine");
    CHECK(device && m->file);
    *e = (cuda_engine_base){.head.backend = &backend_cuda,
                            .model = m,
                            .opt = *o,
                            .host_ledger = host,
                            .device_ledger = device,
                            .host = host_of_base};
    e->host.model = m;
    e->host.account = device;
    status s = open_parts(e, er);
    if (s == OK)
        *out = &e->head;
    else
        backend_close(&e->head);
    return s;
}

/* The plugin's tables have room for so many. */
static status check_lists(const cuda_engine_base *e, const batch *b, err *er) {
    if (b->n_copies > e->layout.max_copies)
        return err_set(er, ERR_INVALID, "a batch of %u copies; at most %u can be", b->n_copies,
                       e->layout.max_copies);
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const sampling *p = b->seq[i].sample ? b->seq[i].params : NULL;
        if (!p || 2 * (uint64_t)p->n_bias + p->n_end_tokens <= CUDA_LISTED) continue;
        return err_set(er, ERR_INVALID,
                       "entry %u of the batch: %u biases, %u end tokens: too "
                       "many",
                       i, p->n_bias, p->n_end_tokens);
    }
    return OK;
}

/* The step for the other ranks, which draw nothing: with every token as it is. */
static void post_step(cuda_engine_base *e, const batch *b) {
    group *g = e->opt.group;
    const tables_model m = {e->model->program.config.n_vocab, e->layout.n_groups,
                            e->opt.block_tokens, e->layout.n_states};
    batch plain = *b;
    plain.seq = e->posted;
    for (uint32_t i = 0; i < b->n_seqs; i++) e->posted[i] = tables_plain(&b->seq[i]);
    const tables_shape s = tables_measure(&m, &plain);
    const tables_at at = tables_lay(m.n_groups, &s);
    unsigned char *to = group_step_at(g, g->posted + 1);
    CHECK(at.lists <= e->layout.tables_bytes);
    const uint64_t bytes = tables_fill(to, &m, &s, &plain);
    int32_t *token = (int32_t *)(void *)(to + at.token),
            *from = (int32_t *)(void *)(to + at.from);
    for (uint32_t r = 0; r < b->n_rows; r++) {
        if (from[r] >= 0) token[r] = e->previous[from[r]];
        from[r] = -1;
    }
    group_post(g, bytes);
}

static status backend_submit(engine *head, const batch *b, err *er) {
    cuda_engine_base *e = (cuda_engine_base *)head;
    status s = batch_check(b, &e->model->program, &e->opt, e->drew, e->n_drew, er);
    if (s == OK) s = check_lists(e, b, er);
    if (s == OK && e->opt.group) s = group_error(e->opt.group, er);
    if (s == OK && e->posted) post_step(e, b);
    if (s == OK) s = e->plugin->submit(e->inner, b, er);
    if (s != OK && e->posted) group_break(e->opt.group, er); /* the others would wait */
    for (uint32_t i = 0; i < b->n_seqs && s == OK; i++) e->drew[i] = b->seq[i].sample;
    e->n_drew = s == OK ? b->n_seqs : 0; /* nobody can go on from a step that did not run */
    return s;
}

static status backend_collect(engine *head, step_result *out, err *er) {
    cuda_engine_base *e = (cuda_engine_base *)head;
    const status s = e->plugin->collect(e->inner, out, er);
    for (uint32_t i = 0; i < e->n_drew && s == OK && e->previous; i++)
        e->previous[i] = out->token[i].token;
    if (s == OK || !e->opt.group) return s;
    group_break(e->opt.group, er);
    return group_error(e->opt.group, er);
}

static void backend_info(const engine *head, engine_info *out) {
    const cuda_engine_base *e = (const cuda_engine_base *)head;
    e->plugin->info(e->inner, out);
    out->name = backend_cuda.name;
}

static bool backend_memory(const engine *head, device_memory *out) {
    const cuda_engine_base *e = (const cuda_engine_base *)head;
    cuda_memory m;
    e->plugin->memory(e->inner, &m);
    *out = (device_memory){.total_bytes = m.driver_total,
                           .used_bytes = m.driver_used,
                           .outside_bytes = m.context_bytes + m.library_bytes + m.graph_bytes,
                           .step_bytes = e->layout.staged_bytes,
                           .staged_bytes = m.staged_bytes,
                           .stall_us = m.stall_us,
                           .link_bytes_per_s = m.link_bytes_per_s,
                           .computed_bytes = hosting_bytes(&e->layout),
                           .computed_us = computer_us(e->computer)};
    return m.driver_total > 0;
}

static status backend_kv_export(engine *head, uint32_t group, int32_t block, void *out,
                                err *er) {
    cuda_engine_base *e = (cuda_engine_base *)head;
    return e->plugin->kv_export(e->inner, group, block, out, er);
}

static status backend_kv_import(engine *head, uint32_t group, int32_t block, const void *in,
                                err *er) {
    cuda_engine_base *e = (cuda_engine_base *)head;
    return e->plugin->kv_import(e->inner, group, block, in, er);
}

static status backend_kv_resize(engine *head, const uint32_t n_blocks[PLAN_MAX_GROUPS],
                                err *er) {
    cuda_engine_base *e = (cuda_engine_base *)head;
    for (uint32_t g = 0; g < e->layout.n_groups; g++) {
        if (n_blocks[g] == e->opt.n_blocks[g]) continue;
        status s = e->plugin->kv_resize(e->inner, g, n_blocks[g], er);
        if (s != OK) return s;
        e->opt.n_blocks[g] = n_blocks[g];
    }
    return OK;
}

static status backend_pin(engine *head, void *p, uint64_t bytes, err *er) {
    cuda_engine_base *e = (cuda_engine_base *)head;
    return e->plugin->pin(e->inner, p, bytes, er);
}

static void backend_unpin(engine *head, void *p) {
    cuda_engine_base *e = (cuda_engine_base *)head;
    e->plugin->unpin(e->inner, p);
}

#define X(kind, ...) | 1ull << OP_##kind
#define T(trait)     | 1ull << TRAIT_##trait
/* What both have. */
#define CUDA_BACKEND                                                                           \
    .name = "cuda", .runs = {0 CUDA_OPS(X), 0 CUDA_TRAITS(T)}, .terms = backend_terms,         \
    .close = backend_close, .submit = backend_submit, .collect = backend_collect,              \
    .info = backend_info, .device_memory = backend_memory

const backend backend_cuda = {
    CUDA_BACKEND,
    .open = backend_open,
    .kv_export = backend_kv_export,
    .kv_import = backend_kv_import,
    .kv_resize = backend_kv_resize,
    .pin = backend_pin,
    .unpin = backend_unpin,
};

static status ranks_open(engine **out, const model *m, const engine_options *o, ledger *host,
                         ledger *device, err *er) {
    const status s = backend_open(out, m, o, host, device, er);
    if (s == OK) (*out)->backend = &backend_cuda_ranks;
    return s;
}

/* The blocks of a rank are a part of the cache: they do not move by themselves. */
const backend backend_cuda_ranks = {
    CUDA_BACKEND,
    .open = ranks_open,
};
