/* The layout of the CUDA engine, which needs no CUDA: bytes of a public model, weights that lie
 * together, values that are alive together apart, options and models it must refuse. */
#include "tests/engine/engine_rig.h"
#include "tests/model/gguf_build.h"
#include "tests/model/gguf_shaped.h"
#include "tests/model/config_params.h"

#include "engine/arrange.h"
#include "engine/cuda/backend_cuda.h"
#include "engine/cuda/hosting.h"

/* Llama-3-8B: 32 layers, 8,030,261,248 parameters, 131,072 bytes of KV cache a token. */
static model_config llama3_8b(void) {
    model_config c = gb_tiny("llama");
    c.n_layers = 32, c.n_embd = 4096, c.n_heads = 32, c.n_kv_heads = 8, c.head_dim = 128;
    c.n_ff = 14336, c.n_vocab = 128256, c.n_ctx_train = 8192;
    c.rope.n_dims = 128, c.tied_head = false;
    return c;
}

static engine_options big_options(void) {
    engine_options o = rig_options();
    o.max_rows = 2048, o.max_seqs = 64, o.max_logit_rows = 64, o.max_model_len = 8192;
    o.activations = ACTIVATION_AUTO;
    o.n_sms = 132;
    return o;
}

static model *planned(const model_config *c, dtype type) {
    model *m;
    err e;
    ck_assert_msg(model_from_config(&m, c, type, &e) == OK, "%s", e.text);
    return m;
}

static uint64_t sum_of(const terms *t, mem_class cls, bool device) {
    uint64_t n = 0;
    for (size_t i = 0; i < t->n; i++)
        if (t->v[i].cls == cls && t->v[i].on_device == device) n += t->v[i].bytes;
    return n;
}

START_TEST(a_public_model_has_its_published_bytes) {
    model_config c = llama3_8b();
    model *m = planned(&c, DT_BF16);
    engine_options o = big_options();
    terms t = {0};
    kv_request kv = {0};
    err e;
    ck_assert_msg(backend_cuda.terms(&m->program, &o, &t, &kv, &e) == OK, "%s", e.text);
    const uint64_t norms = 65 * 4096; /* stay float32 */
    ck_assert_uint_eq(model_config_params(&c), 8030261248u);
    ck_assert_uint_eq(sum_of(&t, MEM_WEIGHTS, true), 2 * (8030261248u - norms) + 4 * norms);
    ck_assert_uint_eq(sum_of(&t, MEM_WEIGHTS, false), 0);
    ck_assert_uint_eq(sum_of(&t, MEM_LOGITS, true), 64ull * 128256 * 4);
    ck_assert_uint_eq(kv.group[0].bytes_per_token, 131072);
    ck_assert_uint_eq(kv.depth, 2);
    /* The residual stream, its norm, and gate | up with what comes of it, of 2048 rows. */
    ck_assert_uint_eq(sum_of(&t, MEM_ACTIVATIONS, true),
                      2048ull * (4 * 4096 + 2 * 4096 + 2 * 3 * 14336));
    uint64_t context = 0;
    for (size_t i = 0; i < t.n; i++) {
        if (t.v[i].cls != MEM_CONTEXT) continue;
        ck_assert(t.v[i].on_device && t.v[i].kind == TERM_CALIBRATED);
        context += t.v[i].bytes;
    }
    ck_assert_uint_gt(context, 132 * (3 << 20));
    ck_assert_uint_gt(sum_of(&t, MEM_WORKSPACE, false), 0); /* pinned tables */
    ck_assert_uint_gt(sum_of(&t, MEM_LOADING, false), 0);
    ck_assert_uint_eq(sum_of(&t, MEM_LOADING, true), 0); /* where values will lie */
    terms_clear(&t);
    model_close(m);
}
END_TEST

static const cuda_place *place_of(const cuda_layout *l, const program *p, const char *name) {
    for (uint32_t i = 0; i < p->n_weights; i++)
        if (strcmp(p->weights[i].name, name) == 0) return &l->places[l->weights[i].place];
    ck_abort_msg("no weight %s", name);
}

START_TEST(weights_that_compute_together_lie_together) {
    static const dtype types[] = {DT_F32, DT_BF16, DT_Q4_0, DT_Q8_0};
    for (uint32_t i = 0; i < 4; i++) {
        model_config c = llama3_8b();
        c.n_layers = 2;
        model *m = planned(&c, types[i]);
        engine_options o = big_options();
        cuda_layout l;
        err e;
        ck_assert_msg(cuda_layout_init(&l, &m->program, &o, &e) == OK, "%s", e.text);
        const bool packed = i >= 2;
        const cuda_place *q = place_of(&l, &m->program, "blk.1.attn_q.weight");
        ck_assert_ptr_eq(q, place_of(&l, &m->program, "blk.1.attn_v.weight"));
        ck_assert_uint_eq(q->n_out, 4096 + 2 * 1024);
        const cuda_place *gate = place_of(&l, &m->program, "blk.1.ffn_gate.weight");
        ck_assert(packed != (gate == place_of(&l, &m->program, "blk.1.ffn_up.weight")));
        ck_assert_uint_eq(gate->n_out, packed ? 14336 : 2 * 14336);
        ck_assert(l.needs_gemm != packed && l.wants_gemm);
        ck_assert_int_eq(q->type, packed ? types[i] : DT_BF16);
        ck_assert_int_eq(l.t, CU_BF16);
        uint64_t end = 0;
        for (uint32_t k = 0; k < l.n_places; k++) {
            ck_assert(l.places[k].at == end && end % 256 == 0);
            end += l.places[k].bytes;
        }
        ck_assert_uint_eq(end, l.weights_bytes);
        cuda_layout_clear(&l);
        model_close(m);
    }
}
END_TEST

/* ---- layers of the host ---- */

/* Staged layers come one after the other, each in its slot; what stays lies in front of the slots. */
static void check_staged(const cuda_layout *l, const engine_options *o) {
    uint64_t in_slots[CUDA_STAGES] = {0}, host = 0;
    ck_assert_uint_eq(l->staged_slots_bytes % CUDA_STAGES, 0);
    const uint64_t slot = l->staged_slots_bytes / CUDA_STAGES;
    for (uint32_t i = 0; i < l->n_staged; i++) {
        const cuda_staged *x = &l->staged[i];
        ck_assert_uint_eq(x->at, l->weights_bytes + i % CUDA_STAGES * slot);
        ck_assert(x->bytes > 0 && x->bytes <= slot && x->host_at == host && host % 256 == 0);
        ck_assert(x->first_op <= x->last_op && (!i || x->first_op > x[-1].last_op));
        host += x->bytes;
        in_slots[i % CUDA_STAGES] += x->bytes;
    }
    ck_assert_uint_eq(host, l->staged_bytes);
    for (uint32_t i = 0; i < l->n_places; i++) {
        const cuda_place *x = &l->places[i];
        if (x->staged == CUDA_RESIDENT) {
            ck_assert_uint_le(x->at + x->bytes, l->weights_bytes);
            continue;
        }
        const cuda_staged *s = &l->staged[x->staged];
        ck_assert(!x->is_vector && x->at % 256 == 0);
        ck_assert(x->at >= s->at && x->at + x->bytes <= s->at + s->bytes);
        in_slots[x->staged % CUDA_STAGES] -= x->bytes;
    }
    for (uint32_t i = 0; i < CUDA_STAGES; i++) ck_assert_uint_eq(in_slots[i], 0);
    ck_assert_uint_eq(l->values_at, l->weights_bytes + l->staged_slots_bytes);
    ck_assert_uint_eq(cuda_graph_count(l, o->max_seqs) > 0, l->n_staged == 0);
}

/* Whatever number of layers is on the host, both memories together have the weights once, and the slots. */
START_TEST(weights_of_host_layers_are_in_the_host_s_memory_once) {
    model_config c = llama3_8b();
    model *m = planned(&c, DT_BF16);
    engine_options o = big_options();
    cuda_layout l;
    err e;
    uint64_t before = UINT64_MAX;
    const uint64_t layer = 2ull * (4096 * 4096 * 2 + 4096 * 1024 * 2 + 3ull * 4096 * 14336);
    const uint64_t all = 2 * (8030261248u - 65ull * 4096) + 4 * 65ull * 4096;
    for (uint32_t n = 0; n <= 32; n++) {
        terms t = {0};
        kv_request kv = {0};
        o.host_layers = n;
        ck_assert_msg(backend_cuda.terms(&m->program, &o, &t, &kv, &e) == OK, "%s", e.text);
        ck_assert_msg(cuda_layout_init(&l, &m->program, &o, &e) == OK, "%s", e.text);
        check_staged(&l, &o);
        const uint32_t staged = n > CUDA_STAGES ? n : 0;
        ck_assert_uint_eq(l.n_staged, staged);
        ck_assert_uint_eq(sum_of(&t, MEM_WEIGHTS, false), staged * layer);
        ck_assert_uint_eq(sum_of(&t, MEM_WEIGHTS, true), all - staged * layer);
        ck_assert_uint_eq(l.staged_slots_bytes, staged ? CUDA_STAGES * layer : 0);
        uint64_t device = 0;
        for (size_t i = 0; i < t.n; i++) device += t.v[i].on_device ? t.v[i].bytes : 0;
        ck_assert_uint_le(device, before); /* gpu_layers = auto relies on it */
        before = device;
        for (uint32_t i = 1; i < l.n_staged && n <= 16; i++) /* no two beside each other */
            ck_assert_int_gt(l.staged[i].layer, l.staged[i - 1].layer + 1);
        cuda_layout_clear(&l);
        terms_clear(&t);
    }
    model_close(m);
}
END_TEST

/* What crosses in a run: each value once, those down first, one behind the other. */
static void check_runs(const cuda_layout *l, const program *p, const engine_options *o) {
    uint32_t next = 0;
    for (uint32_t i = 0; i < l->n_host_runs; i++) {
        const cuda_host_run *r = &l->host_runs[i];
        uint64_t at = 0;
        ck_assert(r->first == next && r->n >= 2 && r->first_op <= r->last_op);
        ck_assert(i == 0 || r->first_op > r[-1].last_op + 1);
        for (uint32_t k = 0; k < r->n; k++) {
            const cuda_crossing *x = &l->crossings[r->first + k];
            ck_assert_uint_eq(x->at, at);
            at += align_up((uint64_t)o->max_rows * p->values[x->value].cols *
                               (l->values[x->value].form == CUDA_VALUE_T ? 2 : 4),
                           64);
            ck_assert(k == 0 || x->up >= x[-1].up);
        }
        ck_assert_uint_le(at, l->crossing_bytes);
        ck_assert_uint_eq(r->to - r->from, r->n + r->last_op + 1 - r->first_op);
        next += r->n;
    }
    ck_assert_uint_eq(next, l->n_crossings);
    ck_assert_uint_le(l->crossing_at + l->crossing_bytes, l->staging_bytes);
}

/* Layer 0's q, k and v; for each layer what follows attention, with the next one's q, k and v. */
START_TEST(a_dense_layer_that_the_cpu_computes_is_one_run) {
    model_config c = llama3_8b();
    model *m = planned(&c, DT_BF16);
    engine_options o = big_options();
    cuda_layout l;
    err e;
    uint64_t before = UINT64_MAX;
    o.host_computes = true;
    for (uint32_t n = 0; n <= 32; n++) {
        terms t = {0};
        kv_request kv = {0};
        o.host_layers = n;
        ck_assert_msg(backend_cuda.terms(&m->program, &o, &t, &kv, &e) == OK, "%s", e.text);
        ck_assert_msg(cuda_layout_init(&l, &m->program, &o, &e) == OK, "%s", e.text);
        ck_assert_uint_eq(l.n_host_runs, n ? n + 1 : 0);
        ck_assert_uint_eq(l.n_staged, 0);
        /* q, k and v; and down the heads' output and the residual stream, up that and the next q, k and v */
        ck_assert_uint_eq(l.n_crossings, n ? 2 + 4 * n - 1 : 0);
        check_runs(&l, &m->program, &o);
        uint64_t device = 0;
        for (size_t i = 0; i < t.n; i++) device += t.v[i].on_device ? t.v[i].bytes : 0;
        ck_assert_uint_le(device, before); /* gpu_layers = auto relies on it */
        before = device;
        ck_assert_uint_ge(sum_of(&t, MEM_WEIGHTS, false), hosting_bytes(&l));
        cuda_layout_clear(&l);
        terms_clear(&t);
    }
    model_close(m);
}
END_TEST

START_TEST(experts_of_the_first_layers_come_from_the_host) {
    model_config c = gb_tiny("qwen2moe");
    c.n_layers = 6;
    model *m = planned(&c, DT_F16);
    engine_options o = big_options();
    for (uint32_t n = 0; n <= 6; n++) {
        cuda_layout l;
        err e;
        o.host_experts = n;
        ck_assert_msg(cuda_layout_init(&l, &m->program, &o, &e) == OK, "%s", e.text);
        check_staged(&l, &o);
        ck_assert_uint_eq(l.n_staged, n > CUDA_STAGES ? n : 0);
        for (uint32_t i = 0; i < m->program.n_weights; i++) {
            const weight *w = &m->program.weights[i];
            const bool moved = l.places[l.weights[i].place].staged != CUDA_RESIDENT;
            ck_assert_int_eq(moved, l.n_staged && w->role == WEIGHT_LINEAR &&
                                        weight_is_routed(w) && (uint32_t)w->layer < n);
        }
        cuda_layout_clear(&l);
    }
    model_close(m);
}
END_TEST

static void assert_slices(uint32_t n_out, uint32_t n_in, uint32_t rows) {
    const uint32_t n = cu_slice_rows(n_out, n_in, CU_SLICE_BYTES);
    ck_assert_uint_eq(n, rows);
    ck_assert(n == n_out || n % CU_STORE_ROWS == 0);
    ck_assert_uint_le((uint64_t)n * n_in * 2, CU_SLICE_BYTES);
}

static uint64_t term_of(const terms *t, const char *what) {
    uint64_t n = 0;
    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->v[i].what, what) != 0) continue;
        ck_assert(t->v[i].kind == TERM_EXACT && t->v[i].on_device);
        n += t->v[i].bytes;
    }
    return n;
}

START_TEST(packed_weights_of_many_rows_have_memory_for_a_slice) {
    assert_slices(6144, 4096, 6144);   /* q | k | v: 48 MiB */
    assert_slices(14336, 4096, 3584);  /* gate: four of a size, where three were not */
    assert_slices(4096, 14336, 1024);  /* down */
    assert_slices(128256, 4096, 6144); /* logits: the last one shorter */
    assert_slices(1000, 1000, 1000);
    ck_assert_uint_eq(cu_slice_rows(130, 1024, 1), 64);
    /* type, rows, rows of logits, batch_invariant; rows of 4096 inputs in a slice */
    static const struct {
        dtype type;
        uint32_t rows, logit_rows;
        bool invariant;
        uint32_t slice;
    } cases[] = {{DT_Q4_0, 2048, 64, false, 6144},
                 {DT_Q8_0, 65, 65, false, 6144},
                 {DT_Q4_1, 64, 64, false, 0},
                 {DT_Q4_0, 2048, 64, true, 0},
                 {DT_BF16, 2048, 64, false, 0}};
    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        model_config c = llama3_8b();
        c.n_layers = 2;
        model *m = planned(&c, cases[i].type);
        engine_options o = big_options();
        terms t = {0};
        kv_request kv = {0};
        err e;
        o.max_rows = cases[i].rows, o.max_logit_rows = cases[i].logit_rows;
        o.batch_invariant = cases[i].invariant;
        ck_assert_msg(backend_cuda.terms(&m->program, &o, &t, &kv, &e) == OK, "%s", e.text);
        ck_assert_uint_eq(term_of(&t, "packed weights as 16-bit slices"),
                          (uint64_t)cases[i].slice * 4096 * 2);
        ck_assert_uint_eq(term_of(&t, "workspace of cuBLASLt"),
                          cases[i].slice || cases[i].type == DT_BF16 ? CUDA_GEMM_WORKSPACE : 0);
        terms_clear(&t);
        model_close(m);
    }
}
END_TEST

/* Families with layers of several kinds. */
static const char *const shaped[] = {"gemma4", "glm4moe"};
enum { N_SHAPED = sizeof shaped / sizeof *shaped };

static const char *const archs[] = {"llama",   "qwen2",    "qwen3",    "phi3",   "gemma2",
                                    "gemma3",  "smollm3",  "mistral3", "olmo2",  "glm4",
                                    "granite", "qwen2moe", "qwen3moe", "gpt-oss"};
enum { N_ARCHS = sizeof archs / sizeof *archs };

static uint64_t value_bytes(const cuda_layout *l, const program *p, const engine_options *o,
                            uint32_t i, uint64_t rows) {
    const value *v = &p->values[i];
    const uint64_t n = v->rows == ROWS_GATHERED ? o->max_logit_rows : rows * v->top_k;
    if (l->values[i].form == CUDA_VALUE_ROUTED)
        return cu_routed_bytes((uint32_t)n, v->cols / 2, p->config.n_experts);
    return n * v->cols * (l->values[i].form == CUDA_VALUE_F32 ? 4 : 2);
}

/* What an operation puts aside: for itself, or of its input; no bytes where it does not. */
static life aside_life(const cuda_layout *l, const program *p, uint32_t at, bool own,
                       uint64_t rows) {
    const op *o = &p->ops[at];
    life x = {at, at, own ? l->aside[at].own : l->aside[at].in, 0};
    if (!x.at) return x;
    if (!own) x.bytes = rows * 2 * p->values[o->in].cols;
    if (own && o->kind == OP_GATE_UP) x.bytes = rows * 4 * p->values[o->out].cols;
    if (own && o->kind == OP_ROUTE) x.bytes = rows * 4 * p->config.n_experts;
    if (own && o->kind == OP_EXPERTS_DOWN)
        x.bytes = rows * p->config.n_experts_used * 4 * p->values[o->out].cols;
    ck_assert(x.bytes > 0);
    return x;
}

START_TEST(values_alive_together_share_no_bytes) {
    for (uint32_t k = 0; k < N_ARCHS + N_SHAPED; k++) {
        model_config c =
            k < N_ARCHS ? gb_tiny(archs[k]) : gb_shaped_config(shaped[k - N_ARCHS], 128, 24);
        model *m = planned(&c, k < 2 ? DT_F16 : DT_Q8_0);
        engine_options o = rig_options();
        const program *p = &m->program;
        cuda_layout l;
        err e;
        o.activations = ACTIVATION_AUTO;
        o.batch_invariant = k % 2;
        o.max_rows = 1000;
        ck_assert_msg(cuda_layout_init(&l, p, &o, &e) == OK, "%s", e.text);
        const uint32_t n = p->n_values + 2 * p->n_ops;
        const uint64_t rows = cuda_rows_up(1000, l.rows_unit);
        ck_assert_uint_eq(rows, k % 2 ? 1024 : 1000);
        life *lives = calloc(n, sizeof *lives);
        ck_assert_ptr_nonnull(lives);
        lives_of_values(p, lives);
        for (uint32_t i = 0; i < n; i++) {
            life *x = &lives[i];
            if (i >= p->n_values) {
                const uint32_t a = i - p->n_values;
                *x = aside_life(&l, p, a / 2, a % 2 != 0, rows);
                if (!x->bytes) continue;
            } else if (l.values[i].form != CUDA_VALUE_LOGITS) {
                x->at = l.values[i].at;
                x->bytes = value_bytes(&l, p, &o, i, rows);
            } else {
                continue;
            }
            ck_assert(x->at >= l.values_at && x->at + x->bytes <= l.values_at + l.values_bytes);
            for (uint32_t j = 0; j < i; j++) {
                const life *y = &lives[j];
                if (y->bytes == 0 || x->first_op > y->last_op || y->first_op > x->last_op)
                    continue;
                const bool heir =
                    j < p->n_values && x->first_op == y->last_op && x->at == y->at &&
                    (p->ops[x->first_op].residual == j || p->ops[x->first_op].kind == OP_SCALE);
                ck_assert(heir || x->at + x->bytes <= y->at || y->at + y->bytes <= x->at);
            }
        }
        free(lives);
        cuda_layout_clear(&l);
        model_close(m);
    }
}
END_TEST

START_TEST(tables_of_every_shape_fit_the_largest) {
    const tables_shape most = {48, 12, 20, 20, 13, 24, 7, 9};
    const tables_at last = tables_lay(2, &most);
    tables_shape s = most;
    uint32_t *field = (uint32_t *)&s;
    for (uint32_t i = 0; i < sizeof s / sizeof *field; i++) {
        s = most;
        field[i] = 1;
        ck_assert_uint_lt(tables_lay(2, &s).lists, last.lists);
    }
    for (uint32_t n = 1; n <= 300; n++) {
        const uint32_t b = cuda_bucket(n, 256);
        ck_assert(b >= n || b == 256);
        ck_assert(b <= 256 && (b % 8 == 0 || b == 1 || b == 2 || b == 4));
        ck_assert_uint_eq(cuda_bucket(b, 256), b);
    }
}
END_TEST

/* What latent attention needs; then --backend auto takes the CPU. */
START_TEST(what_its_kernels_lack_is_named) {
    err e;
    for (size_t i = 0; i < N_ARCHS; i++) {
        model_config c = gb_tiny(archs[i]);
        c.n_layers = 4, c.sinks = true;
        model *m = planned(&c, DT_F16);
        ck_assert_msg(engine_check_runs(&backend_cuda, &m->program, &e) == OK, "%s", e.text);
        model_close(m);
    }
    for (int i = 0; i < N_SHAPED + 1; i++) {
        model_config c = gb_shaped_config(i < N_SHAPED ? shaped[i] : "deepseek2", 128, 24);
        if (i == 0) c.shape.full_head_dim = 512;
        model *m = planned(&c, DT_F16);
        const status s = engine_check_runs(&backend_cuda, &m->program, &e);
        ck_assert_int_eq(s, i < N_SHAPED ? OK : ERR_UNSUPPORTED);
        if (s != OK) ck_assert_msg(strstr(e.text, "latent_kv") != NULL, "%s", e.text);
        ck_assert_int_eq(engine_check_runs(&backend_cpu, &m->program, &e), OK);
        model_close(m);
    }
}
END_TEST

START_TEST(what_it_cannot_compute_is_named) {
    static const bad_option bad[] = {
        {"block_size", offsetof(engine_options, block_tokens), 12, ERR_INVALID},
        {"max_num_seqs", offsetof(engine_options, max_seqs), 0, ERR_INVALID},
        {"max_logit_rows", offsetof(engine_options, max_logit_rows), 31, ERR_INVALID},
        {"max_model_len", offsetof(engine_options, max_model_len), 0, ERR_INVALID},
        {"activation_dtype", offsetof(engine_options, activations), ACTIVATION_INT8,
         ERR_UNSUPPORTED},
        {"cache_type_k", offsetof(engine_options, kv_k), DT_F32, ERR_UNSUPPORTED},
        {"cache_type_v", offsetof(engine_options, kv_v), DT_Q8_0, ERR_UNSUPPORTED},
        {"cache_type_v", offsetof(engine_options, kv_v), DT_BF16, ERR_UNSUPPORTED},
        {"embeddings", offsetof(engine_options, hidden), 1, ERR_UNSUPPORTED},
    };
    model_config c = gb_tiny("llama"), gemma = gb_shaped_config("gemma4", 128, 24);
    engine_options o = rig_options();
    o.activations = ACTIVATION_AUTO;
    model *m = planned(&c, DT_F16);
    rig_refuses(&backend_cuda, &m->program, &o, bad, sizeof bad / sizeof *bad);
    model_close(m);
    c.head_dim = 112; /* seven segments */
    o.kv_k = o.kv_v = DT_INT8;
    rig_unsupported(&backend_cuda, &c, DT_F16, &o, "kv_cache_dtype", "INT8");
    o.kv_k = DT_INT4;
    rig_unsupported(&backend_cuda, &c, DT_F16, &o, "kv_cache_dtype", "INT4");
    c.head_dim = 64, o.kv_k = DT_F16, o.kv_v = DT_INT4; /* numbers beside codes */
    rig_unsupported(&backend_cuda, &c, DT_F16, &o, "cache_type_v", "K in F16 and V in INT4");
    o.kv_k = o.kv_v = DT_F16, c.head_dim = gb_tiny("llama").head_dim;
    gemma.shape.full_head_dim = 528;
    rig_unsupported(&backend_cuda, &gemma, DT_F16, &o, "head_dim", "heads of 528");
    gemma.shape.full_head_dim = 512, o.kv_k = o.kv_v = DT_INT8;
    rig_unsupported(&backend_cuda, &gemma, DT_F16, &o, "kv_cache_dtype", "heads of 512");
    c.n_embd = c.n_ff = 256, o.kv_k = o.kv_v = DT_F16;
    rig_unsupported(&backend_cuda, &c, DT_NVFP4, &o, "token_embd.weight", "NVFP4");
}
END_TEST

START_TEST(a_plugin_that_is_not_there_is_said_in_one_line) {
    engine_options o = rig_options();
    cuda_device d;
    err e;
    o.plugin = "/nonexistent/vramd-cuda.so";
    ck_assert_int_eq(cuda_backend_available(&o, &d, &e), ERR_NOT_FOUND);
    ck_assert_str_eq(e.field, "cuda_plugin");
    ck_assert_ptr_nonnull(strstr(e.text, "/nonexistent/vramd-cuda.so"));
    ck_assert_ptr_null(strchr(e.text, '\n'));
    ck_assert(e.hint[0] != '\0');
}
END_TEST

CHECK_MAIN("cuda layout", a_public_model_has_its_published_bytes,
           weights_that_compute_together_lie_together,
           packed_weights_of_many_rows_have_memory_for_a_slice,
           weights_of_host_layers_are_in_the_host_s_memory_once,
           a_dense_layer_that_the_cpu_computes_is_one_run,
           experts_of_the_first_layers_come_from_the_host, values_alive_together_share_no_bytes,
           tables_of_every_shape_fit_the_largest, what_its_kernels_lack_is_named,
           what_it_cannot_compute_is_named, a_plugin_that_is_not_there_is_said_in_one_line)
