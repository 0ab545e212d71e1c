/* The same request gives the same logits, bit for bit, whatever else is in its batches, however
 * its prompt is cut, wherever its blocks lie, whoever computed its beginning, after preemption or a fork,
 * on any number of threads and on every instruction set. On the real model, on a tiny one with
 * norms of q and k, multi-query attention and windows on most layers, with each type of cache,
 * and on a tiny one of each other family (of Gemma 4 with heads of two sizes, shared KV layers and experts), of some in bf16;
 * a prompt long enough for two splits of attention.
 */
#include "tests/engine/engine_rig.h"
#include "tests/model/gguf_build.h"
#include "tests/model/gguf_hybrid.h"
#include "tests/model/gguf_shaped.h"

enum {
    PROMPT = RIG_SANITIZED ? 40 : 520,
    DECODED = 3,
    LEN = PROMPT + DECODED,
    BLOCKS = (LEN + 15) / 16,
    N_OTHERS = RIG_SANITIZED ? 4 : 31,
    N_ROWS = DECODED + 1,                     /* rows of logits kept of a run */
    N_PREEMPTED = RIG_SANITIZED ? 2 : N_ROWS, /* runs that end in a preemption */
    N_CHUNKINGS = RIG_SANITIZED ? 1 : 3,
    PLAIN_LEN = 6,
    CHECKPOINT = 40 /* slot of a state that no run has */
};

typedef struct run {
    int32_t tokens[LEN];
    int32_t table[BLOCKS];
    float *logits;   /* [N_ROWS][n_vocab]: after the prompt, and after each decoded token */
    rig_state state; /* its checkpoint is written once */
} run;

/* The tiny model with each type of cache that has codes, and a mixture; then other families, and
 * one with sinks. arch NULL: the real model. */
static const struct {
    const char *arch;
    dtype k, v;
    bool sinks;
    activation_dtype activations;
} models[] = {
    {NULL, DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"gemma3", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"gemma3", DT_INT8, DT_INT8, false, ACTIVATION_INT8},
    {"gemma3", DT_Q8_0, DT_Q8_0, false, ACTIVATION_INT8},
    {"gemma3", DT_FP8, DT_FP8, false, ACTIVATION_INT8},
    {"gemma3", DT_INT8, DT_INT4, false, ACTIVATION_INT8},
    {"gemma3", DT_INT4, DT_INT4, false, ACTIVATION_INT8},
    {"gemma2", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"gemma2", DT_INT4, DT_INT8, false, ACTIVATION_INT8},
    {"llama", DT_BF16, DT_BF16, true, ACTIVATION_INT8},
    {"gemma2", DT_INT8, DT_INT8, true, ACTIVATION_INT8},
    {"smollm3", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"mistral3", DT_INT8, DT_INT8, false, ACTIVATION_INT8},
    {"olmo2", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"glm4", DT_BF16, DT_F16, false, ACTIVATION_INT8},
    {"granite", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"qwen2", DT_F32, DT_F32, false, ACTIVATION_INT8},
    {"qwen3", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"phi3", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"qwen2moe", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"qwen3moe", DT_INT8, DT_INT8, false, ACTIVATION_INT8},
    {"gemma4", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"gemma4", DT_INT8, DT_INT8, false, ACTIVATION_INT8},
    {"granitemoe", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"glm4moe", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"gpt-oss", DT_F16, DT_F16, true, ACTIVATION_INT8},
    {"gpt-oss", DT_INT8, DT_INT4, true, ACTIVATION_INT8},
    {"lfm2", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"lfm2moe", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"qwen35", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"qwen35moe", DT_INT8, DT_INT8, false, ACTIVATION_INT8},
    {"deepseek2", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"deepseek2", DT_BF16, DT_BF16, false, ACTIVATION_INT8},
    {"deepseek2", DT_INT8, DT_INT8, false, ACTIVATION_INT8},
    {"deepseek2", DT_FP8, DT_FP8, false, ACTIVATION_INT8},
    {"deepseek2", DT_INT4, DT_INT4, false, ACTIVATION_INT8},
    {"granitehybrid", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"nemotron_h", DT_F16, DT_F16, false, ACTIVATION_INT8},
    {"nemotron_h_moe", DT_INT8, DT_INT8, false, ACTIVATION_INT8},
    {"granitehybrid", DT_F16, DT_F16, false, ACTIVATION_BF16},
    {"llama", DT_F16, DT_F16, false, ACTIVATION_BF16},
    {"qwen3moe", DT_F16, DT_F16, false, ACTIVATION_BF16},
    {"gpt-oss", DT_BF16, DT_BF16, false, ACTIVATION_BF16},
    {"qwen35", DT_F16, DT_F16, false, ACTIVATION_BF16},
    {"deepseek2", DT_F16, DT_F16, false, ACTIVATION_BF16},
};
enum { N_MODELS = sizeof models / sizeof *models };

static engine_options options(void) {
    engine_options o = rig_options();
    o.max_rows = 520;
    o.n_states = CHECKPOINT + 1;
    for (uint32_t g = 0; g < PROGRAM_MAX_GROUPS; g++)
        o.n_blocks[g] = 2 * BLOCKS + N_OTHERS * 2 + 4;
    return o;
}

static void open_model(rig *r, int which, const engine_options *wanted) {
    engine_options o = *wanted;
    o.kv_k = models[which].k, o.kv_v = models[which].v;
    o.activations = models[which].activations;
    if (!models[which].arch) {
        rig_open(r, test_model(), &o);
        return;
    }
    model_config c = gb_tiny(models[which].arch);
    c.n_layers = 4, c.n_kv_heads = 1, c.n_embd = 256;
    c.window = PROMPT / 5, c.n_ctx_train = 1024;
    c.sinks = models[which].sinks;
    gb b;
    char path[64];
    gb_init(&b);
    if (gb_is_hybrid(models[which].arch)) {
        c = gb_hybrid_config(models[which].arch, 128);
        gb_hybrid_keys(&b, &c);
        gb_hybrid_tensors(&b, &c, DT_Q4_0, 7);
    } else if (family_find(models[which].arch)->shaped) {
        c = gb_shaped_config(models[which].arch, 128, PROMPT / 5);
        gb_shaped_keys(&b, &c);
        gb_shaped_tensors(&b, &c, DT_Q4_0, 7);
    } else {
        gb_model_keys(&b, &c);
        gb_model_tensors(&b, &c, strcmp(c.arch, "gpt-oss") == 0 ? DT_MXFP4 : DT_Q4_K, 7);
    }
    gb_open(&b, path);
    rig_open(r, path, &o);
    gb_clear(&b);
    ck_assert_uint_eq(r->model->program.n_groups, c.window_every || c.shape.listed ? 2 : 1);
}

static bool has_states(const rig *r) {
    return ((cpu_engine *)r->engine)->states != NULL;
}

/* Attention without fusion reads no codes, and not K and V from one row. */
static bool may_be_unfused(int which) {
    if (models[which].arch && strcmp(models[which].arch, "deepseek2") == 0) return false;
    return !kv_type_get(models[which].k)->word_bytes &&
           !kv_type_get(models[which].v)->word_bytes;
}

static void run_init(run *w, const rig *r, uint32_t seed) {
    rig_tokens(r, w->tokens, LEN, 1);
    rig_table(r, w->table, 0, BLOCKS, seed);
    w->state = (rig_state){0, {0, CHECKPOINT}};
    w->logits = malloc(sizeof(float) * N_ROWS * r->n_vocab);
    ck_assert_ptr_nonnull(w->logits);
}

static void keep(run *w, const rig *r, uint32_t row, const step_result *s, uint32_t from) {
    memcpy(w->logits + (size_t)row * r->n_vocab, s->logits + (size_t)from * r->n_vocab,
           sizeof(float) * r->n_vocab);
}

/* Rows [first, first + n), alone. */
static void step_alone(rig *r, run *w, uint32_t first, uint32_t n) {
    bool last = first + n >= PROMPT;
    part p = {w->tokens, w->table, first, n, last, NULL, 0};
    rig_state state = w->state;
    const uint32_t at = state.checkpoint.n_tokens;
    if (at <= first || at > first + n) state.checkpoint.n_tokens = 0;
    r->state = &state;
    step_result s = rig_run(r, &p, 1);
    r->state = NULL;
    if (last) keep(w, r, first + n - PROMPT, &s, 0);
}

/* The prompt in chunks of the given size, then token by token. */
static void run_alone(rig *r, run *w, uint32_t chunk) {
    for (uint32_t at = 0; at < PROMPT; at += chunk)
        step_alone(r, w, at, PROMPT - at < chunk ? PROMPT - at : chunk);
    for (uint32_t i = 0; i < DECODED; i++) step_alone(r, w, PROMPT + i, 1);
}

static void assert_rows(const run *a, const run *b, const rig *r, const char *what,
                        uint32_t n_rows) {
    for (uint32_t row = 0; row < n_rows; row++)
        for (uint32_t i = 0; i < r->n_vocab; i++) {
            size_t at = (size_t)row * r->n_vocab + i;
            ck_assert_msg(bits_of_float(a->logits[at]) == bits_of_float(b->logits[at]),
                          "%s: row %u, logit %u: %a and %a", what, row, i,
                          (double)a->logits[at], (double)b->logits[at]);
        }
}

static void assert_same(const run *a, const run *b, const rig *r, const char *what) {
    assert_rows(a, b, r, what, N_ROWS);
}

/* What every variant is compared with: alone, the prompt at once. */
static void base_run(rig *r, run *w) {
    rig_poison(r);
    run_init(w, r, 1);
    run_alone(r, w, PROMPT);
}

START_TEST(every_family_is_there) {
    const family *f;
    for (size_t i = 0; (f = family_at(i)); i++) {
        uint32_t k = 0;
        while (k < N_MODELS && !(models[k].arch && strcmp(models[k].arch, f->arch) == 0)) k++;
        ck_assert_msg(f->encoder || k < N_MODELS, "no tiny model of %s", f->arch);
    }
}
END_TEST

/* In one engine: chunks of odd sizes, other blocks full of somebody's NaN, recomputation. */
START_TEST(chunks_blocks_and_preemption_change_no_bit) {
    static const uint32_t chunks[] = {PROMPT * 2 / 3, 37, 1 + 16 * 7};
    rig r;
    run base, w;
    engine_options o = options();
    open_model(&r, _i, &o);
    base_run(&r, &base);
    for (uint32_t i = 0; i < N_CHUNKINGS; i++) {
        rig_poison(&r);
        run_init(&w, &r, 2 + i);
        run_alone(&r, &w, chunks[i]);
        assert_same(&base, &w, &r, "chunks");
        free(w.logits);
    }
    /* Preempted after each decoded token: all that was said is computed again, elsewhere. */
    run_init(&w, &r, 9);
    for (uint32_t i = 0; i < N_PREEMPTED; i++) {
        rig_poison(&r);
        rig_table(&r, w.table, 0, BLOCKS, 10 + i);
        uint32_t first = i ? PROMPT / 3 : 0; /* a step has no room for more than PROMPT */
        if (first) step_alone(&r, &w, 0, first);
        step_alone(&r, &w, first, PROMPT + i - first);
    }
    assert_rows(&base, &w, &r, "preemption", N_PREEMPTED);
    free(w.logits);
    free(base.logits);
    rig_close(&r);
}
END_TEST

/* Others come and go around the request: prefills of random lengths beside its chunks, and
 * decode rows beside its decode rows. */
static void run_amid_others(rig *r, run *w) {
    int32_t tokens[N_OTHERS][32], tables[N_OTHERS][2];
    uint32_t done[N_OTHERS] = {0}, at = 0;
    for (uint32_t i = 0; i < N_OTHERS; i++) {
        rig_tokens(r, tokens[i], 32, 100 + i);
        rig_table(r, tables[i], (BLOCKS + 1) / 2 + i, 2, 5); /* two blocks each, after ours */
    }
    for (uint32_t step = 0; at < LEN; step++) {
        part p[N_OTHERS + 1];
        uint32_t n = 0, mine = 0, rows = 0, logits = 0, my_logits = 0;
        uint32_t take = at >= PROMPT ? 1 : 1 + (uint32_t)(hash_mix(step) % (PROMPT / 4));
        if (at < PROMPT && take > PROMPT - at) take = PROMPT - at;
        for (uint32_t i = 0; i < N_OTHERS; i++) {
            if (i == N_OTHERS / 2) {
                bool last = at + take >= PROMPT;
                p[mine = n++] = (part){w->tokens, w->table, at, take, last, NULL, 0};
                my_logits = logits;
                rows += take, logits += last;
            }
            uint32_t k = 1 + (uint32_t)(hash_mix(step * 64 + i) % 3) * 4;
            if (done[i] + k > 32) done[i] = 0; /* a new one in its place */
            p[n++] = (part){tokens[i], tables[i], done[i], k, i % 2, NULL, 0};
            rows += k, logits += i % 2, done[i] += k;
        }
        ck_assert_uint_le(rows, r->opt.max_rows);
        step_result s = rig_run(r, p, n);
        at += take;
        if (p[mine].n_logits) keep(w, r, at - PROMPT, &s, my_logits);
    }
}

START_TEST(a_crowd_changes_no_bit) {
    rig r;
    run base, w;
    engine_options o = options();
    open_model(&r, _i, &o);
    base_run(&r, &base);
    rig_poison(&r);
    run_init(&w, &r, 5);
    run_amid_others(&r, &w);
    assert_same(&base, &w, &r, "amid others");
    free(w.logits);
    free(base.logits);
    rig_close(&r);
}
END_TEST

/* As the prefix cache does it: blocks in front come from another sequence that computed the
 * same tokens, in other steps; the rest is computed here, in chunks or at once. */
START_TEST(a_beginning_that_another_computed_changes_no_bit) {
    static const uint32_t found[] = {1, BLOCKS / 3, (PROMPT - 1) / 16};
    rig r;
    run base, w;
    engine_options o = options();
    open_model(&r, _i, &o);
    base_run(&r, &base);
    for (uint32_t i = 0; i < 3; i++) {
        run other;
        rig_poison(&r);
        run_init(&other, &r, 20 + i);
        other.state.checkpoint.n_tokens = found[i] * 16;
        run_alone(&r, &other, i == 0 ? 48 : PROMPT);
        w.logits = malloc(sizeof(float) * N_ROWS * r.n_vocab);
        ck_assert_ptr_nonnull(w.logits);
        memcpy(w.tokens, other.tokens, sizeof w.tokens);
        rig_table(&r, w.table, 1, BLOCKS, 20 + i); /* blocks that the other has not */
        memcpy(w.table, other.table, found[i] * sizeof *w.table);
        const uint32_t chunk = i == 1 ? 37 : PROMPT;
        const block_copy state = {CHECKPOINT, 1, ENGINE_COPY_STATE};
        w.state = (rig_state){.slot = 1};
        r.copies = &state;
        r.n_copies = has_states(&r);
        for (uint32_t at = found[i] * 16; at < PROMPT; at += chunk, r.n_copies = 0)
            step_alone(&r, &w, at, PROMPT - at < chunk ? PROMPT - at : chunk);
        for (uint32_t k = 0; k < DECODED; k++) step_alone(&r, &w, PROMPT + k, 1);
        assert_same(&base, &w, &r, "prefix");
        free(w.logits);
        free(other.logits);
    }
    free(base.logits);
    rig_close(&r);
}
END_TEST

/* As with n > 1: the full blocks are shared, the last one is copied in each group before the
 * prompt's last row is computed again, while the leader goes on with another token. */
START_TEST(a_fork_changes_no_bit) {
    enum { LAST = (PROMPT - 1) / 16 };
    rig r;
    run base, leader, fork;
    int32_t others[BLOCKS];
    block_copy copies[PLAN_MAX_GROUPS + 1];
    engine_options o = options();
    open_model(&r, _i, &o);
    base_run(&r, &base);
    rig_poison(&r);
    run_init(&leader, &r, 50);
    run_init(&fork, &r, 50);
    step_alone(&r, &leader, 0, PROMPT);
    rig_table(&r, others, 1, BLOCKS, 50);
    fork.table[LAST] = others[LAST];
    r.n_copies = ((cpu_engine *)r.engine)->layout.groups.n;
    for (uint32_t g = 0; g < r.n_copies; g++)
        copies[g] =
            (block_copy){.from = leader.table[LAST], .to = fork.table[LAST], .group = g};
    fork.state.slot = 1;
    if (has_states(&r)) copies[r.n_copies++] = (block_copy){0, 1, ENGINE_COPY_STATE};
    r.copies = copies;
    leader.tokens[PROMPT] = (leader.tokens[PROMPT] + 1) % (int32_t)r.n_vocab;
    const part p[2] = {{leader.tokens, leader.table, PROMPT, 1, 1, NULL, 0},
                       {fork.tokens, fork.table, PROMPT - 1, 1, 1, NULL, 0}};
    const step_result s = rig_run(&r, p, 2);
    keep(&fork, &r, 0, &s, 1);
    r.n_copies = 0;
    for (uint32_t k = 0; k < DECODED; k++) step_alone(&r, &fork, PROMPT + k, 1);
    assert_same(&base, &fork, &r, "fork");
    free(base.logits);
    free(leader.logits);
    free(fork.logits);
    rig_close(&r);
}
END_TEST

START_TEST(threads_change_no_bit) {
    run base, w;
    rig r;
    engine_options o = options();
    open_model(&r, _i, &o);
    base_run(&r, &base);
    rig_close(&r);
    for (o.n_threads = 1; o.n_threads <= 3; o.n_threads += 2) {
        open_model(&r, _i, &o);
        rig_poison(&r);
        run_init(&w, &r, 6);
        run_alone(&r, &w, PROMPT / 2 + 3);
        assert_same(&base, &w, &r, "threads");
        free(w.logits);
        rig_close(&r);
    }
    free(base.logits);
}
END_TEST

/* AVX-512, where AMX is what the engine takes by itself. */
START_TEST(other_isas_change_no_bit) {
    const bool tiles = models[_i].activations == ACTIVATION_BF16 && linear_kernels_get(ISA_AMX);
    run base, w;
    rig r;
    engine_options o = options();
    if (!linear_kernels_get(ISA_AVX2)) return;
    open_model(&r, _i, &o);
    base_run(&r, &base);
    rig_close(&r);
    for (o.isa = ISA_AVX2; o.isa <= (tiles ? ISA_AVX512 : ISA_AVXVNNI); o.isa++) {
        if (!linear_kernels_get(o.isa)) continue;
        open_model(&r, _i, &o);
        rig_poison(&r);
        run_init(&w, &r, 7);
        run_alone(&r, &w, PROMPT / 2 + 3);
        assert_same(&base, &w, &r, cpu_isa_name(o.isa));
        free(w.logits);
        rig_close(&r);
    }
    free(base.logits);
}
END_TEST

/* Scores written out, on one thread and several, prompts in chunks, within windows. */
START_TEST(attention_without_fusion_changes_no_bit) {
    if (!may_be_unfused(_i)) return;
    run base, w;
    rig r;
    engine_options o = options();
    open_model(&r, _i, &o);
    base_run(&r, &base);
    rig_close(&r);
    o.unfused = true;
    for (o.n_threads = 1; o.n_threads <= 3; o.n_threads += 2) {
        open_model(&r, _i, &o);
        rig_poison(&r);
        run_init(&w, &r, 6);
        run_alone(&r, &w, o.n_threads == 1 ? PROMPT : PROMPT / 2 + 3);
        assert_same(&base, &w, &r, "unfused");
        free(w.logits);
        rig_close(&r);
    }
    free(base.logits);
}
END_TEST

/* Plain C is slow: a few tokens, prefilled and decoded; under sanitizers the tiny models of
 * test_engine.c have to do. */
START_TEST(plain_c_changes_no_bit) {
    if (RIG_SANITIZED) return;
    engine_options o = options();
    int32_t tokens[PLAIN_LEN], table[1] = {3};
    float *kept[3] = {NULL, NULL, NULL};
    for (uint32_t g = 0; g < PROGRAM_MAX_GROUPS; g++) o.n_blocks[g] = 8;
    for (int i = 0; i < 2 + may_be_unfused(_i); i++) {
        rig r;
        o.isa = i ? ISA_PLAIN : ISA_AUTO;
        o.unfused = i == 2;
        open_model(&r, _i, &o);
        rig_poison(&r);
        rig_tokens(&r, tokens, PLAIN_LEN, 3);
        const size_t bytes = sizeof(float) * r.n_vocab;
        kept[i] = malloc(2 * bytes);
        ck_assert_ptr_nonnull(kept[i]);
        part p = {tokens, table, 0, PLAIN_LEN - 1, 1, NULL, 0};
        memcpy(kept[i], rig_run(&r, &p, 1).logits, bytes);
        p = (part){tokens, table, PLAIN_LEN - 1, 1, 1, NULL, 0};
        memcpy(kept[i] + r.n_vocab, rig_run(&r, &p, 1).logits, bytes);
        if (i) ck_assert_mem_eq(kept[0], kept[i], 2 * bytes);
        rig_close(&r);
    }
    for (int i = 0; i < 3; i++) free(kept[i]);
}
END_TEST

/* After rows up to len: blocks of the tail that no further row sees go, and become NaN. */
static void forget_tail(rig *r, int32_t *table, uint32_t len) {
    cpu_engine *e = (cpu_engine *)r->engine;
    const uint32_t tail = e->layout.groups.tail_at;
    const uint64_t bytes = cpu_block_bytes(&e->layout, tail);
    for (uint32_t i = 0; len >= 64 && i < (len + 1 - 64) / 16; i++) {
        if (table[i] >= 0) memset(e->kv[tail] + (uint32_t)table[i] * bytes, 0xff, bytes);
        table[i] = -1;
    }
}

/* The newest tokens in full precision: from blocks of their own, of which a sequence keeps only
 * those that are seen; and after a hit has no others. */
START_TEST(what_is_behind_the_tail_is_read_as_codes) {
    static const uint32_t chunks[] = {PROMPT, 37, 1};
    float *kept = NULL;
    rig r;
    gb b;
    char path[64];
    model_config c = gb_tiny("llama");
    c.head_dim = c.rope.n_dims = 64, c.n_ctx_train = 1024;
    gb_init(&b);
    gb_model_keys(&b, &c);
    gb_model_tensors(&b, &c, DT_Q4_0, 7);
    gb_open(&b, path);
    engine_options o = options();
    o.kv_k = o.kv_v = DT_INT4;
    rig_open(&r, path, &o);
    for (uint32_t k = 0; k < 3; k++) {
        run w;
        int32_t tail[BLOCKS];
        rig_poison(&r);
        run_init(&w, &r, 30 + k);
        rig_table(&r, tail, 0, BLOCKS, 40 + k);
        r.table1 = tail;
        for (uint32_t at = 0, n; at < LEN; at += n) {
            n = at >= PROMPT ? 1 : PROMPT - at < chunks[k] ? PROMPT - at : chunks[k];
            step_alone(&r, &w, at, n);
            forget_tail(&r, tail, at + n);
        }
        const size_t bytes = sizeof(float) * N_ROWS * r.n_vocab;
        if (!kept) {
            kept = malloc(bytes);
            ck_assert_ptr_nonnull(kept);
            memcpy(kept, w.logits, bytes);
        }
        ck_assert_mem_eq(kept, w.logits, bytes);
        free(w.logits);
    }
    free(kept);
    rig_close(&r);
    gb_clear(&b);
}
END_TEST

/* Partial results of attention are counted by split: as many as a sequence has now, whatever it
 * had in the steps before. */
START_TEST(a_growing_number_of_splits_changes_no_bit) {
    enum { LONG = 1100, AT = 600, N_BLOCKS = LONG / 16 + 1 };
    static int32_t tokens[LONG + 1], table[N_BLOCKS];
    float *kept[2];
    for (uint32_t i = 0; i < 2; i++) {
        rig r;
        gb b;
        char path[64];
        model_config c = gb_tiny("llama");
        c.n_layers = 1, c.n_ctx_train = 2048;
        gb_init(&b);
        gb_model_keys(&b, &c);
        gb_model_tensors(&b, &c, DT_Q4_0, 7);
        gb_open(&b, path);
        engine_options o = rig_options();
        o.max_model_len = 2048, o.max_rows = LONG, o.n_blocks[0] = N_BLOCKS;
        o.n_threads = i ? 2 : 1; /* one thread has no use for splits */
        rig_open(&r, path, &o);
        rig_poison(&r);
        rig_tokens(&r, tokens, LONG + 1, 5);
        rig_table(&r, table, 0, N_BLOCKS, 1);
        part p = {tokens, table, 0, LONG, 1, NULL, 0};
        rig_run(&r, &p, 1);
        p.first = AT, p.n = 1; /* two splits, then three */
        rig_run(&r, &p, 1);
        p.first = LONG;
        kept[i] = malloc(sizeof(float) * r.n_vocab);
        ck_assert_ptr_nonnull(kept[i]);
        memcpy(kept[i], rig_run(&r, &p, 1).logits, sizeof(float) * r.n_vocab);
        if (i) ck_assert_mem_eq(kept[0], kept[1], sizeof(float) * r.n_vocab);
        rig_close(&r);
        gb_clear(&b);
    }
    free(kept[0]);
    free(kept[1]);
}
END_TEST

int main(void) {
    Suite *s = suite_create("same_bits");
    TCase *t = check_case(s, "same_bits");
    tcase_add_test(t, every_family_is_there);
    tcase_add_loop_test(t, chunks_blocks_and_preemption_change_no_bit, 0, N_MODELS);
    tcase_add_loop_test(t, a_crowd_changes_no_bit, 0, N_MODELS);
    tcase_add_loop_test(t, a_beginning_that_another_computed_changes_no_bit, 0, N_MODELS);
    tcase_add_loop_test(t, a_fork_changes_no_bit, 0, N_MODELS);
    tcase_add_loop_test(t, threads_change_no_bit, 0, N_MODELS);
    tcase_add_loop_test(t, attention_without_fusion_changes_no_bit, 0, N_MODELS);
    tcase_add_loop_test(t, other_isas_change_no_bit, 0, N_MODELS);
    tcase_add_loop_test(t, plain_c_changes_no_bit, 0, N_MODELS);
    tcase_add_test(t, what_is_behind_the_tail_is_read_as_codes);
    t = check_case(s, "splits");
    tcase_add_test(t, a_growing_number_of_splits_changes_no_bit);
    return check_run(s);
}
