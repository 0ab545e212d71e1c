/* The whole engine on tiny models of every kind, against a forward pass in float64 (naive.h);
 * sampling, scoring, copies; batches and models that must be refused. */
#include "engine/cpu/rope.h"
#include "tests/engine/naive.h"
#include "tests/model/gguf_build.h"

/* ---- tiny models ---- */

typedef struct kind {
    const char *arch;
    dtype type;
    uint32_t heads, kv_heads, head_dim, rope_dims, block_tokens;
    bool tied, biases, factors;
    rope_scaling scaling;
    uint32_t layers, window;
    uint32_t experts, used; /* where the family has dense models, too */
} kind;

static const kind kinds[] = {
    {"llama", DT_F32, 4, 2, 32, 32, 16, true, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"qwen2", DT_F16, 6, 2, 16, 16, 8, false, true, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"llama", DT_BF16, 5, 1, 64, 32, 32, false, false, true, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"llama", DT_Q8_0, 2, 2, 80, 80, 16, true, false, false, ROPE_SCALING_LINEAR, 2, 0, 0, 0},
    {"qwen2", DT_Q4_0, 4, 4, 24, 24, 8, true, true, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"llama", DT_Q4_1, 2, 1, 128, 128, 256, false, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"llama", DT_F16, 1, 1, 256, 64, 16, true, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"llama", DT_Q5_0, 4, 2, 32, 32, 16, true, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"qwen2", DT_Q5_1, 4, 2, 32, 32, 16, false, true, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"llama", DT_IQ4_NL, 4, 2, 32, 32, 16, true, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"llama", DT_Q2_K, 4, 2, 64, 64, 16, true, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"qwen2", DT_Q3_K, 4, 2, 64, 64, 16, false, true, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"llama", DT_Q4_K, 4, 2, 64, 64, 16, true, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"llama", DT_Q5_K, 4, 1, 64, 64, 16, false, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"llama", DT_Q6_K, 4, 2, 64, 64, 16, true, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"llama", DT_IQ4_XS, 8, 2, 32, 32, 16, true, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"llama", DT_IQ2_S, 4, 2, 64, 64, 16, true, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"qwen2", DT_TQ1_0, 4, 2, 64, 64, 16, false, true, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"llama", DT_NVFP4, 4, 2, 64, 64, 16, true, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"qwen2", DT_NVFP4, 4, 2, 64, 64, 16, false, true, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"llama", DT_MXFP4, 4, 2, 32, 32, 16, true, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"qwen3", DT_F16, 6, 2, 32, 32, 16, true, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"qwen3", DT_Q4_K, 4, 1, 48, 48, 8, false, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"phi3", DT_F32, 4, 4, 24, 24, 16, false, false, false, ROPE_SCALING_NONE, 2, 33, 0, 0},
    {"phi3", DT_Q8_0, 4, 2, 64, 48, 16, true, false, true, ROPE_SCALING_LONGROPE, 2, 0, 0, 0},
    {"phi3", DT_Q4_1, 6, 3, 32, 32, 16, false, false, true, ROPE_SCALING_LONGROPE, 2, 20, 0, 0},
    {"gemma3", DT_BF16, 4, 1, 256, 256, 16, true, false, false, ROPE_SCALING_NONE, 7, 20, 0, 0},
    {"gemma3", DT_Q5_0, 4, 1, 64, 64, 8, true, false, false, ROPE_SCALING_LINEAR, 6, 9, 0, 0},
    {"gemma3", DT_F16, 2, 2, 32, 32, 32, true, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"llama", DT_Q4_0, 4, 2, 32, 32, 16, false, false, false, ROPE_SCALING_NONE, 2, 0, 8, 2},
    {"llama", DT_F16, 4, 2, 32, 32, 16, true, false, false, ROPE_SCALING_NONE, 2, 0, 3, 3},
    {"qwen2moe", DT_Q8_0, 4, 4, 32, 32, 16, false, true, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"qwen2moe", DT_BF16, 4, 2, 16, 16, 16, true, true, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"qwen3moe", DT_Q4_K, 4, 2, 64, 64, 16, false, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
    {"qwen3moe", DT_MXFP4, 4, 2, 32, 32, 16, false, false, false, ROPE_SCALING_NONE, 2, 0, 0,
     0},
    {"qwen3moe", DT_F32, 4, 2, 32, 32, 8, true, false, false, ROPE_SCALING_NONE, 2, 0, 0, 0},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds, N_TOKENS = 70 };

static void tiny_open(gb *b, char path[64], const kind *k, uint32_t window) {
    model_config c = gb_tiny(k->arch);
    char key[64];
    /* Blocks of 256 divide all rows but those of ffn_down, which fall back to blocks of 32. */
    if (dtype_get(k->type)->block_elems > 32) c.n_embd = 256;
    c.n_heads = k->heads, c.n_kv_heads = k->kv_heads, c.head_dim = k->head_dim;
    c.rope.n_dims = k->rope_dims;
    c.tied_head = k->tied;
    c.qkv_bias = k->biases;
    c.n_ctx_train = 2048;
    c.n_layers = k->layers;
    c.window = window ? window : k->window;
    if (k->experts) c.n_experts = k->experts, c.n_experts_used = k->used, c.experts_norm = true;
    gb_init(b);
    gb_model_keys(b, &c);
    if (k->scaling == ROPE_SCALING_LINEAR) {
        snprintf(key, sizeof key, "%s.rope.scaling.type", k->arch);
        gb_str(b, key, "linear");
        snprintf(key, sizeof key, "%s.rope.scaling.factor", k->arch);
        gb_float(b, key, 4);
    }
    gb_model_tensors(b, &c, k->type, 7);
    if (k->scaling == ROPE_SCALING_LONGROPE) {
        gb_int(b, "phi3.rope.scaling.original_context_length", 100);
        gb_float(b, "phi3.rope.scaling.attn_factor", 1.2f);
        gb_vector(b, "rope_factors_short.weight", k->rope_dims / 2, 3, 2, 1);
        gb_vector(b, "rope_factors_long.weight", k->rope_dims / 2, 4, 5, 2);
    } else if (k->factors)
        gb_vector(b, "rope_freqs.weight", k->rope_dims / 2, 3, 2, 1);
    gb_open(b, path);
}

static engine_options tiny_options(const kind *k) {
    engine_options o = rig_options();
    o.max_model_len = 256;
    o.max_logit_rows = 256;
    o.block_tokens = k->block_tokens;
    return o;
}

/* Relative distance of the engine's logits from the naive ones, all positions of one sequence,
 * in two chunks beside a second sequence. */
static double distance(rig *r, const int32_t *tokens, const double *want) {
    int32_t other[N_TOKENS], table[32], table2[32];
    const uint32_t V = r->n_vocab, blocks = (uint32_t)ceil_div(N_TOKENS, r->opt.block_tokens);
    double diff = 0, all = 0;
    rig_tokens(r, other, N_TOKENS, 99);
    rig_table(r, table, 0, blocks, 1);
    rig_table(r, table2, 1, blocks, 1);
    rig_poison(r);
    const uint32_t cut = 41;
    for (uint32_t at = 0; at < N_TOKENS; at += cut) {
        uint32_t n = N_TOKENS - at < cut ? N_TOKENS - at : cut;
        part p[2] = {{other, table2, at / cut * 3, 3, 1, NULL, 0},
                     {tokens, table, at, n, n, NULL, 0}};
        step_result s = rig_run(r, p, 2);
        for (uint32_t i = 0; i < n * V; i++) {
            double w = want[(size_t)at * V + i], x = s.logits[V + i] - w;
            diff += x * x;
            all += w * w;
        }
    }
    return sqrt(diff / all);
}

START_TEST(logits_are_those_of_a_naive_forward_pass) {
    const kind *k = &kinds[_i];
    gb b;
    char path[64];
    int32_t tokens[N_TOKENS];
    tiny_open(&b, path, k, 0);
    engine_options o = tiny_options(k);
    for (int variant = 0; variant < 5; variant++) {
        rig r;
        o.activations = variant == 4 ? ACTIVATION_BF16
                        : variant    ? ACTIVATION_F32
                                     : ACTIVATION_INT8;
        o.kv_k = o.kv_v = variant >= 3 ? DT_F32 : variant == 2 ? DT_BF16 : DT_F16;
        rig_open(&r, path, &o);
        rig_tokens(&r, tokens, N_TOKENS, 1);
        double *want = naive_forward(r.model, o.max_model_len, tokens, N_TOKENS);
        double d = distance(&r, tokens, want);
        static const double limit[] = {0.03, 3e-3, 2e-2, 1e-5, 2e-2};
        /* Rounding may choose another expert, in all but one of the variants. */
        const double more = r.model->program.config.n_experts && variant != 3 ? 20 : 1;
        ck_assert_msg(d < limit[variant] * more, "kind %d, variant %d: distance %g", _i,
                      variant, d);
        free(want);
        rig_close(&r);
    }
    gb_clear(&b);
}
END_TEST

/* Takes away the blocks of a group that no row after len tokens sees: their entries become -1,
 * and what was in them NaN. */
static void release_blocks(rig *r, uint32_t g, int32_t *table, uint32_t len) {
    cpu_engine *e = (cpu_engine *)r->engine;
    const uint64_t bytes = cpu_block_bytes(&e->layout, g);
    const uint32_t window = e->program->group[g].window;
    if (window == 0 || len < window) return;
    for (uint32_t i = 0; i < (len + 1 - window) / r->opt.block_tokens; i++) {
        if (table[i] >= 0) memset(e->kv[g] + (uint32_t)table[i] * bytes, 0xff, bytes);
        table[i] = -1;
    }
}

/* All logits of a sequence, prefilled in two chunks, then token by token, with no block kept
 * longer than it is seen. [N_TOKENS][n_vocab]; to be freed. */
static float *run_with_window(rig *r, const int32_t *tokens, uint32_t seed) {
    int32_t table[2][32];
    const uint32_t V = r->n_vocab;
    float *got = malloc(sizeof(float) * N_TOKENS * V);
    ck_assert_ptr_nonnull(got);
    for (uint32_t g = 0; g < 2; g++)
        rig_table(r, table[g], 0, (uint32_t)ceil_div(N_TOKENS, r->opt.block_tokens), seed + g);
    r->table1 = table[1];
    rig_poison(r);
    for (uint32_t at = 0, n; at < N_TOKENS; at += n) {
        n = at == 0 ? 23 : at == 23 ? 18 : 1;
        part p = {tokens, table[0], at, n, n, NULL, 0};
        memcpy(got + (size_t)at * V, rig_run(r, &p, 1).logits, sizeof(float) * n * V);
        for (uint32_t g = 0; g < r->model->program.n_groups; g++)
            release_blocks(r, g, table[g], at + n);
    }
    r->table1 = NULL;
    return got;
}

START_TEST(a_window_sees_as_many_tokens_and_touches_no_others) {
    static const uint32_t windows[] = {1, 5, 16, 33, 69, 200};
    static const int some[] = {0, 1, 2, 3, 18, 21, 22};
    const kind *k = &kinds[some[_i % 7]];
    const uint32_t window = windows[_i % 6];
    gb b;
    char path[64];
    int32_t tokens[N_TOKENS];
    float *kept = NULL;
    tiny_open(&b, path, k, window);
    engine_options o = tiny_options(k);
    o.activations = ACTIVATION_F32;
    o.kv_k = o.kv_v = DT_F32;
    for (int isa = ISA_PLAIN; isa <= ISA_AVX512; isa++) {
        rig r;
        o.isa = (cpu_isa)isa;
        if (!linear_kernels_get(o.isa)) continue;
        rig_open(&r, path, &o);
        ck_assert_uint_eq(r.model->program.group[0].window, window);
        ck_assert_uint_eq(r.model->program.n_groups, 1 + (k->layers > 2));
        rig_tokens(&r, tokens, N_TOKENS, 1);
        double *want = naive_forward(r.model, o.max_model_len, tokens, N_TOKENS);
        float *got = run_with_window(&r, tokens, (uint32_t)isa);
        double diff = 0, all = 0;
        for (uint32_t i = 0; i < N_TOKENS * r.n_vocab; i++) {
            diff += (got[i] - want[i]) * (got[i] - want[i]);
            all += want[i] * want[i];
        }
        ck_assert_msg(sqrt(diff / all) < 1e-4, "window %u, isa %d: distance %g", window, isa,
                      sqrt(diff / all));
        if (kept) ck_assert_mem_eq(kept, got, sizeof(float) * N_TOKENS * r.n_vocab);
        free(kept);
        kept = got;
        free(want);
        rig_close(&r);
    }
    free(kept);
    gb_clear(&b);
}
END_TEST

START_TEST(tiny_models_have_the_same_bits_on_every_isa) {
    static const cpu_isa isas[] = {ISA_PLAIN, ISA_AVX2, ISA_AVXVNNI, ISA_AVX512, ISA_AMX};
    const kind *k = &kinds[_i];
    gb b;
    char path[64];
    int32_t tokens[N_TOKENS], table[32];
    float *kept = NULL;
    tiny_open(&b, path, k, 0);
    engine_options o = tiny_options(k);
    for (int i = 0; i < 12; i++) {
        rig r;
        o.isa = isas[i % 4];
        o.activations = i < 4 ? ACTIVATION_INT8 : i < 8 ? ACTIVATION_F32 : ACTIVATION_BF16;
        o.n_threads = 1 + (uint32_t)i % 2;
        if (!linear_kernels_get(o.isa)) continue;
        rig_open(&r, path, &o);
        rig_tokens(&r, tokens, N_TOKENS, 1);
        rig_table(&r, table, 0, (uint32_t)ceil_div(N_TOKENS, o.block_tokens), (uint32_t)i);
        rig_poison(&r);
        part p = {tokens, table, 0, N_TOKENS - 1, 1, NULL, 0};
        rig_run(&r, &p, 1);
        p = (part){tokens, table, N_TOKENS - 1, 1, 1, NULL, 0};
        const float *logits = rig_run(&r, &p, 1).logits;
        const size_t bytes = sizeof(float) * r.n_vocab;
        if (i % 4 == 0) {
            free(kept);
            kept = malloc(bytes);
            ck_assert_ptr_nonnull(kept);
            memcpy(kept, logits, bytes);
        }
        ck_assert_mem_eq(kept, logits, bytes);
        rig_close(&r);
    }
    free(kept);
    gb_clear(&b);
}
END_TEST

/* Several splits of 512, more than one long sequence, and more threads than processors. */
START_TEST(long_sequences_have_the_same_bits_however_they_are_split) {
    enum { LONG = 1100, SEQS = 3 };
    gb b;
    char path[64];
    static int32_t tokens[SEQS][LONG + 4];
    int32_t table[SEQS][RIG_MAX_TABLE / SEQS];
    float *kept = NULL;
    const kind *k = &kinds[_i == 2 ? 22 : 0]; /* 22: windows on most layers */
    tiny_open(&b, path, k, _i == 0 ? 0 : 600);
    engine_options o = tiny_options(k);
    o.max_model_len = LONG + 4, o.block_tokens = 16;
    for (uint32_t g = 0; g < PROGRAM_MAX_GROUPS; g++) o.n_blocks[g] = RIG_MAX_TABLE;
    for (o.n_threads = 1; o.n_threads <= 5; o.n_threads += 2) {
        rig r;
        part p[SEQS];
        rig_open(&r, path, &o);
        rig_poison(&r);
        const uint32_t V = r.n_vocab;
        for (uint32_t i = 0; i < SEQS; i++) {
            rig_tokens(&r, tokens[i], LONG + 4, i);
            rig_table(&r, table[i], i, RIG_MAX_TABLE / SEQS, o.n_threads);
            for (uint32_t at = 0, n; at < LONG - 300 * i; at += n) {
                n = LONG - 300 * i - at < 200 ? LONG - 300 * i - at : 200;
                p[0] = (part){tokens[i], table[i], at, n, 0, NULL, 0};
                rig_run(&r, p, 1);
            }
        }
        float *got = malloc(sizeof(float) * 4 * SEQS * V);
        ck_assert_ptr_nonnull(got);
        for (uint32_t step = 0; step < 4; step++) {
            for (uint32_t i = 0; i < SEQS; i++)
                p[i] = (part){tokens[i], table[i], LONG - 300 * i + step, 1, 1, NULL, 0};
            step_result s = rig_run(&r, p, SEQS);
            memcpy(got + (size_t)step * SEQS * V, s.logits, sizeof(float) * SEQS * V);
        }
        if (kept) ck_assert_mem_eq(kept, got, sizeof(float) * 4 * SEQS * V);
        free(kept);
        kept = got;
        rig_close(&r);
    }
    free(kept);
    gb_clear(&b);
}
END_TEST

/* ---- what a step gives ---- */

START_TEST(sampled_and_scored_rows_are_those_of_the_sampler) {
    gb b;
    char path[64];
    rig r;
    int32_t tokens[32], table[2] = {5, 2};
    tiny_open(&b, path, &kinds[0], 0);
    engine_options o = tiny_options(&kinds[0]);
    rig_open(&r, path, &o);
    rig_tokens(&r, tokens, 32, 4);
    void *scratch = aligned_alloc(64, align_up(sampling_scratch_bytes(r.n_vocab), 64));
    float *copy = malloc(sizeof(float) * r.n_vocab);
    ck_assert(scratch && copy);
    sampling sp;
    sampling_defaults(&sp);
    sp.seed = 12, sp.temperature = 0.8f, sp.n_logprobs = 3, sp.repetition_penalty = 1.3f;
    part p = {tokens, table, 0, 20, 20, &sp, 1 + 4};
    step_result s = rig_run(&r, &p, 1);
    for (uint32_t i = 0; i < 20; i++) {
        const float *row = s.logits + (size_t)i * r.n_vocab;
        sampled want;
        memcpy(copy, row, sizeof(float) * r.n_vocab);
        if (i == 19) {
            sampling_history h = {tokens, 20, 20};
            sampling_draw(&want, copy, r.n_vocab, &sp, NULL, &h, 20, scratch);
            ck_assert_int_eq(want.token, s.token[0].token);
            ck_assert(want.logprob == s.token[0].logprob);
            ck_assert_uint_eq(s.token[0].n_top, 3);
            continue;
        }
        sampling_score(&want, copy, r.n_vocab, tokens[i + 1], 4, scratch);
        ck_assert_int_eq(s.scored[i].token, tokens[i + 1]);
        ck_assert(want.logprob == s.scored[i].logprob);
        ck_assert_uint_eq(s.scored[i].n_top, 4);
        ck_assert_int_eq(s.scored[i].top[3].token, want.top[3].token);
    }
    free(copy);
    free(scratch);
    rig_close(&r);
    gb_clear(&b);
}
END_TEST

START_TEST(a_mask_holds_for_the_drawn_row_and_not_for_scores) {
    gb b;
    char path[64];
    rig r;
    int32_t tokens[32], table[2] = {5, 2};
    tiny_open(&b, path, &kinds[0], 0);
    engine_options o = tiny_options(&kinds[0]);
    rig_open(&r, path, &o);
    rig_tokens(&r, tokens, 32, 4);
    void *scratch = aligned_alloc(64, align_up(sampling_scratch_bytes(r.n_vocab), 64));
    sampling sp;
    sampling_defaults(&sp);
    sp.seed = 3, sp.n_logprobs = 2;
    part p = {tokens, table, 0, 20, 20, &sp, 1 + 2};
    step_result s = rig_run(&r, &p, 1);
    const sampled first_score = s.scored[0];
    for (int which = RIG_ALLOW_ALL; which <= RIG_ALLOW_NONE; which++) {
        uint32_t *mask = rig_mask(&r, which);
        r.allowed = mask;
        s = rig_run(&r, &p, 1);
        float *row = (float *)s.logits + (size_t)19 * r.n_vocab; /* the test's last use of it */
        sampling_history h = {tokens, 20, 20};
        sampled want;
        sampling_draw(&want, row, r.n_vocab, &sp, mask, &h, 20, scratch);
        ck_assert_int_eq(s.token[0].token, want.token);
        ck_assert_int_eq(want.token == -1, which == RIG_ALLOW_NONE);
        ck_assert_mem_eq(&s.token[0].logprob, &want.logprob, sizeof want.logprob);
        ck_assert_int_eq(s.scored[0].token, first_score.token);
        ck_assert(s.scored[0].logprob == first_score.logprob && s.scored[0].n_top == 2);
        free(mask);
    }
    /* The token that there is not is another row's input: that row is for nobody, but runs. */
    batch_seq q = {.n_rows = 1,
                   .first_pos = 20,
                   .tokens = tokens,
                   .input_from = 0,
                   .blocks = {table},
                   .n_blocks = {2},
                   .n_logit_rows = 1,
                   .sample = true,
                   .n_score = -1,
                   .params = &sp,
                   .n_prompt = 20};
    const batch next = {.seq = &q, .n_seqs = 1, .n_rows = 1, .n_logit_rows = 1};
    err e;
    ck_assert_msg(engine_submit(r.engine, &next, &e) == OK, "%s", e.text);
    ck_assert_int_eq(engine_collect(r.engine, &s, &e), OK);
    free(scratch);
    rig_close(&r);
    gb_clear(&b);
}
END_TEST

START_TEST(a_row_can_read_what_the_previous_step_drew) {
    gb b;
    char path[64];
    rig r;
    int32_t tokens[32], table[2] = {0, 1};
    tiny_open(&b, path, &kinds[0], 0);
    engine_options o = tiny_options(&kinds[0]);
    rig_open(&r, path, &o);
    rig_tokens(&r, tokens, 32, 4);
    sampling greedy;
    sampling_defaults(&greedy);
    greedy.temperature = 0;
    part p = {tokens, table, 0, 10, 1, &greedy, 0};
    tokens[10] = rig_run(&r, &p, 1).token[0].token;
    p = (part){tokens, table, 10, 1, 1, &greedy, 0};
    int32_t want = rig_run(&r, &p, 1).token[0].token;
    p = (part){tokens, table, 0, 10, 1, &greedy, 0};
    rig_run(&r, &p, 1);
    tokens[10] = -1; /* not to be read */
    batch_seq q = {.n_rows = 1,
                   .first_pos = 10,
                   .tokens = tokens,
                   .input_from = 0,
                   .blocks = {table},
                   .n_blocks = {1},
                   .n_logit_rows = 1,
                   .sample = true,
                   .n_score = -1,
                   .params = &greedy,
                   .n_prompt = 10};
    batch in = {.seq = &q, .n_seqs = 1, .n_rows = 1, .n_logit_rows = 1};
    step_result s;
    err e;
    ck_assert(engine_submit(r.engine, &in, &e) == OK && engine_collect(r.engine, &s, &e) == OK);
    ck_assert_int_eq(s.token[0].token, want);
    rig_close(&r);
    gb_clear(&b);
}
END_TEST

START_TEST(a_copied_block_serves_as_its_original) {
    gb b;
    char path[64];
    rig r;
    int32_t tokens[40], table[3] = {7, 1, 4};
    tiny_open(&b, path, &kinds[0], 0);
    engine_options o = tiny_options(&kinds[0]);
    rig_open(&r, path, &o);
    rig_tokens(&r, tokens, 40, 4);
    float *want = malloc(sizeof(float) * r.n_vocab);
    ck_assert_ptr_nonnull(want);
    part p = {tokens, table, 0, 39, 0, NULL, 0};
    rig_run(&r, &p, 1);
    p = (part){tokens, table, 39, 1, 1, NULL, 0};
    memcpy(want, rig_run(&r, &p, 1).logits, sizeof(float) * r.n_vocab);
    int32_t other[3] = {9, 8, 11};
    block_copy copies[3] = {{7, 9, 0}, {1, 8, 0}, {4, 11, 0}};
    batch_seq q = {.n_rows = 1,
                   .first_pos = 39,
                   .tokens = tokens,
                   .input_from = -1,
                   .blocks = {other},
                   .n_blocks = {3},
                   .n_logit_rows = 1,
                   .n_score = -1};
    batch in = {&q, 1, 1, 1, copies, 3};
    step_result s;
    err e;
    ck_assert(engine_submit(r.engine, &in, &e) == OK && engine_collect(r.engine, &s, &e) == OK);
    ck_assert_mem_eq(want, s.logits, sizeof(float) * r.n_vocab);
    free(want);
    rig_close(&r);
    gb_clear(&b);
}
END_TEST

static void one_row(rig *r, const int32_t *tokens, const int32_t *table,
                    const block_copy *copies, uint32_t n_copies, float *out) {
    batch_seq q = {.n_rows = 1,
                   .first_pos = 39,
                   .tokens = tokens,
                   .input_from = -1,
                   .blocks = {table},
                   .n_blocks = {3},
                   .n_logit_rows = 1,
                   .n_score = -1};
    batch in = {&q, 1, 1, 1, copies, n_copies};
    step_result s;
    err e;
    ck_assert(engine_submit(r->engine, &in, &e) == OK &&
              engine_collect(r->engine, &s, &e) == OK);
    memcpy(out, s.logits, sizeof(float) * r->n_vocab);
}

START_TEST(a_cache_shrinks_below_its_moved_blocks_and_grows_back) {
    gb b;
    char path[64];
    rig r;
    err e;
    ledger_view v;
    step_result s;
    int32_t tokens[40];
    const int32_t table[3] = {17, 11, 14}, moved[3] = {2, 0, 1};
    const block_copy copies[3] = {{17, 2, 0}, {11, 0, 0}, {14, 1, 0}};
    tiny_open(&b, path, &kinds[0], 0);
    engine_options o = tiny_options(&kinds[0]);
    o.n_blocks[0] = 18;
    o.max_blocks[0] = 20;
    rig_open(&r, path, &o);
    rig_tokens(&r, tokens, 40, 4);
    float *want = malloc(sizeof(float) * r.n_vocab), *got = malloc(sizeof(float) * r.n_vocab);
    ck_assert(want && got);
    part p = {tokens, table, 0, 39, 0, NULL, 0};
    rig_run(&r, &p, 1);
    one_row(&r, tokens, table, NULL, 0, want);
    one_row(&r, tokens, moved, copies, 3, got);
    ck_assert_mem_eq(want, got, sizeof(float) * r.n_vocab);
    ledger_read(r.ledger, &v);
    const uint64_t block = v.cls[MEM_KV].ledger_bytes / 18;
    const uint32_t few[PLAN_MAX_GROUPS] = {3}, many[PLAN_MAX_GROUPS] = {20},
                   most[PLAN_MAX_GROUPS] = {21};
    ck_assert_int_eq(engine_kv_resize(r.engine, few, &e), OK);
    ledger_read(r.ledger, &v);
    ck_assert_uint_eq(v.cls[MEM_KV].ledger_bytes, 3 * block);
    one_row(&r, tokens, moved, NULL, 0, got);
    ck_assert_mem_eq(want, got, sizeof(float) * r.n_vocab);
    p = (part){tokens, table, 39, 1, 1, NULL, 0};
    ck_assert_int_eq(rig_try(&r, &p, 1, &s, &e), ERR_INVALID); /* such blocks are gone */
    ck_assert_int_eq(engine_kv_resize(r.engine, most, &e), ERR_INVALID);
    ck_assert_int_eq(engine_kv_resize(r.engine, many, &e), OK);
    ledger_read(r.ledger, &v);
    ck_assert_uint_eq(v.cls[MEM_KV].ledger_bytes, 20 * block);
    p = (part){tokens, table, 0, 39, 0, NULL, 0};
    rig_run(&r, &p, 1);
    one_row(&r, tokens, table, NULL, 0, got);
    ck_assert_mem_eq(want, got, sizeof(float) * r.n_vocab);
    free(want);
    free(got);
    rig_close(&r);
    gb_clear(&b);
}
END_TEST

/* ---- refusals ---- */

START_TEST(batches_that_would_reach_out_of_bounds_are_refused) {
    gb b;
    char path[64];
    rig r;
    err e;
    step_result s;
    int32_t tokens[300], table[16];
    tiny_open(&b, path, &kinds[0], 0);
    engine_options o = tiny_options(&kinds[0]);
    o.n_blocks[0] = 16;
    rig_open(&r, path, &o);
    rig_tokens(&r, tokens, 300, 4);
    rig_table(&r, table, 0, 16, 1);
    sampling sp;
    sampling_defaults(&sp);
    const part good = {tokens, table, 0, 20, 1, &sp, 0};
    part p = good;
    p.n = 257;
    ck_assert_int_eq(rig_try(&r, &p, 1, &s, &e), ERR_INVALID); /* rows */
    p = good, p.n = 0;
    ck_assert_int_eq(rig_try(&r, &p, 1, &s, &e), ERR_INVALID);
    p = good, p.first = 240;
    ck_assert_int_eq(rig_try(&r, &p, 1, &s, &e), ERR_INVALID); /* past max_model_len */
    p = good, p.first = UINT32_MAX - 5;
    ck_assert_int_eq(rig_try(&r, &p, 1, &s, &e), ERR_INVALID);
    p = good, p.n_logits = 21;
    ck_assert_int_eq(rig_try(&r, &p, 1, &s, &e), ERR_INVALID);
    p = good, p.n_logits = 0; /* samples without logits */
    ck_assert_int_eq(rig_try(&r, &p, 1, &s, &e), ERR_INVALID);
    p = good, p.n_score = 2 + SAMPLING_MAX_LOGPROBS;
    ck_assert_int_eq(rig_try(&r, &p, 1, &s, &e), ERR_INVALID);
    tokens[7] = 128;
    ck_assert_int_eq(rig_try(&r, &good, 1, &s, &e), ERR_INVALID); /* vocabulary */
    tokens[7] = -1;
    ck_assert_int_eq(rig_try(&r, &good, 1, &s, &e), ERR_INVALID);
    tokens[7] = 0;
    const int32_t second = table[1];
    table[1] = 16;
    ck_assert_int_eq(rig_try(&r, &good, 1, &s, &e), ERR_INVALID); /* blocks */
    table[1] = -1;
    ck_assert_int_eq(rig_try(&r, &good, 1, &s, &e), ERR_INVALID);
    table[1] = second;
    ck_assert_int_eq(rig_try(&r, &good, 1, &s, &e), OK);
    ck_assert_int_eq(engine_collect(r.engine, &s, &e), ERR_INVALID); /* nothing submitted */
    rig_close(&r);
    gb_clear(&b);
}
END_TEST

static void assert_refused(const char *path, const engine_options *o, status want,
                           const char *field) {
    checkpoint *file;
    model *m;
    ledger *l;
    engine *eng;
    err e;
    ck_assert(checkpoint_open(&file, path, &e) == OK && model_open(&m, file, &e) == OK);
    ck_assert(ledger_open_unlimited(&l, &e) == OK);
    ck_assert_int_eq(engine_open(&eng, &backend_cpu, m, o, l, NULL, &e), want);
    ck_assert_ptr_null(eng);
    ck_assert_str_eq(e.field, field);
    ledger_close(l); /* checks that all was given back */
    model_close(m);
    checkpoint_close(file);
}

START_TEST(what_cannot_run_is_refused_and_leaves_nothing_behind) {
    gb b;
    char path[64];
    engine_options o = tiny_options(&kinds[0]);
    tiny_open(&b, path, &kinds[0], 0);
    o.isa = linear_kernels_get(ISA_AMX) ? (cpu_isa)(ISA_AMX + 1) : ISA_AMX;
    assert_refused(path, &o, ERR_UNSUPPORTED, "cpu_isa");
    o = tiny_options(&kinds[0]);
    o.n_blocks[0] = 0;
    assert_refused(path, &o, ERR_INVALID, "n_blocks");
    o = tiny_options(&kinds[0]);
    o.activations = ACTIVATION_F16;
    assert_refused(path, &o, ERR_UNSUPPORTED, "activation_dtype");
    gb_clear(&b);
}
END_TEST

/* The file ends early once the engine begins to read it. */
START_TEST(a_file_that_shrinks_is_an_error_of_loading) {
    gb b;
    char path[64];
    checkpoint *file;
    model *m;
    ledger *l;
    engine *eng;
    err e;
    engine_options o = tiny_options(&kinds[0]);
    tiny_open(&b, path, &kinds[0], 0);
    ck_assert(checkpoint_open(&file, path, &e) == OK && model_open(&m, file, &e) == OK);
    ck_assert(ledger_open_unlimited(&l, &e) == OK);
    ck_assert(ftruncate(b.fd, (off_t)b.file.n / 2) == 0);
    ck_assert_int_eq(engine_open(&eng, &backend_cpu, m, &o, l, NULL, &e), ERR_IO);
    ledger_close(l);
    model_close(m);
    checkpoint_close(file);
    gb_clear(&b);
}
END_TEST

/* ---- rotary frequencies ---- */

START_TEST(scaled_rotary_frequencies_follow_their_papers) {
    double f[64], plain[64];
    rope_config r = {.n_dims = 128,
                     .theta = 10000,
                     .factor = 4,
                     .original_len = 4096,
                     .beta_fast = 32,
                     .beta_slow = 1};
    ck_assert(rope_frequencies(&r, NULL, plain) == 1);
    ck_assert(fabs(plain[32] - 0.01) < 1e-12);
    r.scaling = ROPE_SCALING_YARN;
    double scale = rope_frequencies(&r, NULL, f);
    ck_assert(fabs(scale - (0.1 * log(4) + 1)) < 1e-12);
    /* transformers 4.44, modeling_rope_utils.py, _compute_yarn_parameters: low = 20, high = 46
     */
    for (int i = 0; i < 64; i++) {
        double ramp = fmin(fmax((i - 20) / 26.0, 0), 1);
        double want = plain[i] / 4 * ramp + plain[i] * (1 - ramp);
        ck_assert_msg(fabs(f[i] - want) < 1e-12, "dimension %d: %g, wanted %g", i, f[i], want);
    }
    /* Llama 3.1: theta 5e5, factor 8, 1 and 4 turns of 8192. */
    r = (rope_config){.n_dims = 128,
                      .theta = 500000,
                      .scaling = ROPE_SCALING_LLAMA3,
                      .factor = 8,
                      .original_len = 8192,
                      .low_freq_factor = 1,
                      .high_freq_factor = 4};
    rope_frequencies(&r, NULL, f);
    for (int i = 0; i < 64; i++) {
        double base = pow(500000, -i / 64.0), wave = 2 * M_PI / base, want = base;
        double smooth = (8192 / wave - 1) / 3;
        if (wave > 8192)
            want = base / 8;
        else if (wave >= 2048)
            want = (1 - smooth) * base / 8 + smooth * base;
        ck_assert_msg(fabs(f[i] - want) < 1e-12, "dimension %d: %g, wanted %g", i, f[i], want);
    }
}
END_TEST

int main(void) {
    Suite *s = suite_create("engine");
    TCase *t = check_case(s, "engine");
    tcase_add_loop_test(t, logits_are_those_of_a_naive_forward_pass, 0, N_KINDS);
    tcase_add_loop_test(t, a_window_sees_as_many_tokens_and_touches_no_others, 0, 14);
    tcase_add_loop_test(t, tiny_models_have_the_same_bits_on_every_isa, 0, N_KINDS);
    tcase_add_loop_test(t, long_sequences_have_the_same_bits_however_they_are_split, 0, 3);
    tcase_add_test(t, sampled_and_scored_rows_are_those_of_the_sampler);
    tcase_add_test(t, a_mask_holds_for_the_drawn_row_and_not_for_scores);
    tcase_add_test(t, a_row_can_read_what_the_previous_step_drew);
    tcase_add_test(t, a_copied_block_serves_as_its_original);
    tcase_add_test(t, a_cache_shrinks_below_its_moved_blocks_and_grows_back);
    tcase_add_test(t, batches_that_would_reach_out_of_bounds_are_refused);
    tcase_add_test(t, what_cannot_run_is_refused_and_leaves_nothing_behind);
    tcase_add_test(t, a_file_that_shrinks_is_an_error_of_loading);
    tcase_add_test(t, scaled_rotary_frequencies_follow_their_papers);
    return check_run(s);
}
