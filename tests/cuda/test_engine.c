/* The CUDA engine on the shim: tiny models of every weight type against the CPU engine, steps
 * in flight, graphs, batch_invariant, memory, and what must be refused or fail cleanly. */
#include "tests/cuda/engine_models.h"

enum { SEQS = 10, PROMPT = 6, STEPS = 6, LINE = PROMPT + STEPS + 1 };
#include "tests/cuda/crowd.h"

/* Prompts of so many rows that packed weights meet the library's GEMM as slices; without the
 * library, and in batch_invariant, the engine's own kernel takes them; on compute capability 9.0 the
 * one that multiplies by wgmma. */
START_TEST(long_prompts_with_packed_weights_give_the_logits_of_the_cpu_engine) {
    enum { N = 100, SLICES = 0, KERNEL, INVARIANT, WGMMA };
    const kind *k = &kinds[FIRST_PACKED + _i % N_PACKED];
    const int way = SLICES + _i / N_PACKED;
    gb b;
    char path[64];
    int32_t tokens[N], table[32];
    rig cpu, cuda;
    tiny_open(&b, path, k);
    engine_options o = tiny_options(k);
    o.max_rows = o.max_logit_rows = N;
    cpu_open(&cpu, path, &o);
    const size_t n = (size_t)N * cpu.n_vocab;
    float *want = malloc(n * sizeof *want);
    ck_assert_ptr_nonnull(want);
    rig_tokens(&cpu, tokens, N, 1);
    rig_table(&cpu, table, 0, (uint32_t)ceil_div(N, o.block_tokens), 1);
    part p = {tokens, table, 0, N, N, NULL, 0};
    memcpy(want, rig_run(&cpu, &p, 1).logits, n * sizeof *want);
    rig_close(&cpu);
    o.batch_invariant = way == INVARIANT;
    cushim_set_library(way != KERNEL);
    cushim_set_capability(way == WGMMA ? 90 : 80);
    cuda_open(&cuda, path, &o);
    const long before = cushim_count().matmuls;
    const double d = distance(rig_run(&cuda, &p, 1).logits, want, n);
    const long matmuls = cushim_count().matmuls - before;
    /* Two layers: q | k | v (v alone where k ends within a tile), output, gate, up, down; and
     * the logits. */
    const int linears = k->kv_heads * k->head_dim % CU_STORE_ROWS ? 6 : 5;
    ck_assert_int_eq(matmuls, way == SLICES ? 2 * linears + 1 : 0);
    ck_assert_msg(d < k->limit, "kind %s: distance %g", dtype_name(k->type), d);
    ck_assert(d > 0);
    cushim_set_library(true), cushim_set_capability(90);
    free(want);
    rig_close(&cuda);
    gb_clear(&b);
}
END_TEST

/* ---- generation ---- */

/* Prompts, then one row each; the host waits for every step. kept: [STEPS + 1][n][n_vocab] or
 * NULL. */
static void generate(rig *r, crowd *c, uint32_t n, float *kept) {
    batch_seq s[SEQS];
    err e;
    for (uint32_t step = 0; step <= STEPS; step++) {
        const uint32_t rows = step ? 1 : PROMPT, first = step ? PROMPT + step - 1 : 0;
        for (uint32_t i = 0; i < n; i++) {
            crowd_part(c, &s[i], i, first, rows);
            s[i].first_row = i * rows;
        }
        batch b = crowd_batch(s, n, rows);
        step_result out;
        ck_assert_msg(engine_submit(r->engine, &b, &e) == OK, "%s", e.text);
        ck_assert_msg(engine_collect(r->engine, &out, &e) == OK, "%s", e.text);
        crowd_take(c, &out, n, PROMPT + step);
        const size_t bytes = sizeof(float) * n * r->n_vocab;
        if (kept) memcpy((char *)kept + step * bytes, out.logits, bytes);
    }
}

/* The same with two steps in flight: rows read what the step before drew, on the device. */
static void generate_ahead(rig *r, crowd *c, uint32_t n) {
    static batch_seq s[2][SEQS];
    err e;
    for (uint32_t step = 0; step <= STEPS + 1; step++) {
        if (step <= STEPS) {
            const uint32_t rows = step ? 1 : PROMPT, first = step ? PROMPT + step - 1 : 0;
            for (uint32_t i = 0; i < n; i++) {
                batch_seq *x = &s[step % 2][i];
                crowd_part(c, x, i, first, rows);
                if (!step) continue;
                /* Entries change places from step to step. */
                crowd_part(c, x, (i + step) % n, first, rows);
                x->first_row = i;
                x->input_from = (int32_t)((i + 1) % n);
            }
            batch b = crowd_batch(s[step % 2], n, rows);
            ck_assert_msg(engine_submit(r->engine, &b, &e) == OK, "%s", e.text);
        }
        if (!step) continue;
        step_result out;
        ck_assert_msg(engine_collect(r->engine, &out, &e) == OK, "%s", e.text);
        for (uint32_t i = 0; i < n; i++)
            c->tokens[(i + step - 1) % n][PROMPT + step - 1] = out.token[i].token;
    }
}

/* By how much the best logit exceeds the next. */
static float margin_of(const float *logits, uint32_t n) {
    float a = -INFINITY, b = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        if (logits[i] > a)
            b = a, a = logits[i];
        else if (logits[i] > b)
            b = logits[i];
    }
    return a - b;
}

static void check_logits(rig *cpu, rig *cuda, double limit) {
    int32_t tokens[N_TOKENS];
    const size_t n = (size_t)N_TOKENS * cpu->n_vocab;
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    ck_assert(want && got);
    rig_tokens(cpu, tokens, N_TOKENS, 1);
    logits_of(cpu, tokens, want);
    logits_of(cuda, tokens, got);
    double d = distance(got, want, n);
    ck_assert_msg(d < limit, "distance %g", d);
    ck_assert_msg(d > 0, "the same bits would be suspicious");
    free(want);
    free(got);
}

static void check_tokens(rig *cpu, rig *cuda, uint32_t n, double limit) {
    static crowd want, got;
    const uint32_t V = cpu->n_vocab;
    float *logits = malloc(sizeof(float) * (STEPS + 1) * n * V);
    ck_assert_ptr_nonnull(logits);
    crowd_init(&want, cpu, n);
    crowd_init(&got, cuda, n);
    generate(cpu, &want, n, logits);
    generate(cuda, &got, n, NULL);
    uint32_t same = 0;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t step = 0; step <= STEPS; step++) {
            const uint32_t at = PROMPT + step;
            same++;
            if (got.tokens[i][at] == want.tokens[i][at]) continue;
            /* A near-tie: nearer than the logits' tolerance. What follows is another text. */
            float margin = margin_of(logits + ((size_t)step * n + i) * V, V);
            ck_assert_msg(margin < 8 * limit, "sequence %u, step %u: margin %g", i, step,
                          margin);
            same--;
            break;
        }
    ck_assert_uint_ge(same, n * (STEPS + 1) / 3);
    free(logits);
}

START_TEST(logits_and_greedy_tokens_are_those_of_the_cpu_engine) {
    const kind *k = &kinds[_i];
    gb b;
    char path[64];
    rig cpu, cuda;
    tiny_open(&b, path, k);
    engine_options o = tiny_options(k);
    o.max_rows = SEQS * PROMPT;
    cpu_open(&cpu, path, &o);
    cuda_open(&cuda, path, &o);
    check_logits(&cpu, &cuda, k->limit);
    check_tokens(&cpu, &cuda, _i % 2 ? SEQS : 3, k->limit);
    rig_close(&cpu);
    rig_close(&cuda);
    gb_clear(&b);
}
END_TEST

START_TEST(two_steps_in_flight_draw_what_one_at_a_time_does) {
    gb b;
    char path[64];
    rig r;
    static crowd one, two;
    tiny_open(&b, path, &kinds[0]);
    engine_options o = tiny_options(&kinds[0]);
    o.max_rows = SEQS * PROMPT;
    for (int round = 0; round < 3; round++) {
        const uint32_t n = round ? SEQS : 3;
        o.eager = round == 2;
        cuda_open(&r, path, &o);
        engine_info info;
        engine_describe(r.engine, &info);
        ck_assert_uint_eq(info.depth, 2);
        crowd_init(&one, &r, n);
        crowd_init(&two, &r, n);
        for (uint32_t i = 0; i < n; i++) { /* penalties need the token that is not here yet */
            one.params[i].temperature = two.params[i].temperature = i % 2 ? 0.8f : 0;
            one.params[i].seed = two.params[i].seed = 40 + i;
            one.params[i].repetition_penalty = two.params[i].repetition_penalty =
                i % 3 ? 1 : 1.5f;
        }
        generate(&r, &one, n, NULL);
        generate_ahead(&r, &two, n);
        for (uint32_t i = 0; i < n; i++)
            ck_assert_mem_eq(one.tokens[i], two.tokens[i], sizeof one.tokens[i]);
        rig_close(&r);
    }
    gb_clear(&b);
}
END_TEST

START_TEST(graphs_give_what_eager_steps_give) {
    const kind *k = &kinds[_i];
    gb b;
    char path[64];
    static crowd crowds[2];
    float *kept[2];
    tiny_open(&b, path, k);
    engine_options o = tiny_options(k);
    o.max_rows = SEQS * PROMPT;
    const uint32_t n = _i % 2 ? 5 : SEQS;
    size_t values = 0;
    for (int i = 0; i < 2; i++) {
        rig r;
        o.eager = i == 1;
        cuda_open(&r, path, &o);
        values = (size_t)(STEPS + 1) * n * r.n_vocab;
        kept[i] = calloc(values, sizeof(float));
        ck_assert_ptr_nonnull(kept[i]);
        crowd_init(&crowds[i], &r, n);
        const long before = cushim_count().graph_launches;
        generate(&r, &crowds[i], n, kept[i]);
        ck_assert_int_eq(cushim_count().graph_launches - before, i ? 0 : STEPS);
        rig_close(&r);
    }
    /* Padded to its bucket, a GEMM may add in another order on a device; not on the shim. */
    ck_assert_mem_eq(kept[0], kept[1], values * sizeof(float));
    for (uint32_t i = 0; i < n; i++)
        ck_assert_mem_eq(crowds[0].tokens[i], crowds[1].tokens[i], sizeof crowds[0].tokens[i]);
    free(kept[0]);
    free(kept[1]);
    gb_clear(&b);
}
END_TEST

START_TEST(a_sequence_preempted_and_computed_again_goes_on_as_before) {
    gb b;
    char path[64];
    rig r;
    static crowd c;
    tiny_open(&b, path, &kinds[0]);
    engine_options o = tiny_options(&kinds[0]);
    cuda_open(&r, path, &o);
    crowd_init(&c, &r, 2);
    generate(&r, &c, 2, NULL);
    /* Others got its blocks meanwhile; now it has those of the end, in one chunk. */
    int32_t table[32];
    rig_table(&r, table, 7, (uint32_t)ceil_div(LINE, o.block_tokens), 5);
    part p = {c.tokens[0], table, 0, PROMPT + STEPS, STEPS + 1, &c.params[0], 0};
    step_result out = rig_run(&r, &p, 1);
    for (uint32_t i = 0; i <= STEPS; i++) {
        const float *logits = out.logits + (size_t)i * r.n_vocab;
        uint32_t best = 0;
        for (uint32_t v = 1; v < r.n_vocab; v++)
            if (logits[v] > logits[best]) best = v;
        ck_assert((int32_t)best == c.tokens[0][PROMPT + i] ||
                  margin_of(logits, r.n_vocab) < 8 * kinds[0].limit);
    }
    rig_close(&r);
    gb_clear(&b);
}
END_TEST

/* ---- the sampler and scores, copies ---- */

START_TEST(sampled_and_scored_rows_are_those_of_the_sampler) {
    gb b;
    char path[64];
    rig r;
    int32_t tokens[3][N_TOKENS], table[3][32];
    sampling params[3];
    const logit_bias bias[2] = {{5, 3.5f}, {9, -100}};
    const int32_t end[2] = {3, 4};
    tiny_open(&b, path, &kinds[0]);
    engine_options o = tiny_options(&kinds[0]);
    cuda_open(&r, path, &o);
    void *scratch = aligned_alloc(64, align_up(sampling_scratch_bytes(r.n_vocab), 64));
    float *row = malloc(sizeof(float) * r.n_vocab);
    ck_assert(scratch && row);
    for (uint32_t i = 0; i < 3; i++) {
        rig_tokens(&r, tokens[i], N_TOKENS, 3 + i);
        rig_table(&r, table[i], i, blocks_of(&r), 2);
        sampling_defaults(&params[i]);
        params[i].seed = 77 + i;
        params[i].n_logprobs = (int16_t)(3 * i);
    }
    params[0].top_k = 20, params[0].bias = bias, params[0].n_bias = 2;
    params[1].top_p = 0.8f, params[1].repetition_penalty = 1.3f, params[1].temperature = 1.4f;
    params[2].min_p = 0.02f, params[2].presence_penalty = 0.5f;
    params[2].min_tokens = 8, params[2].end_tokens = end, params[2].n_end_tokens = 2;
    for (uint32_t at = 0; at < 4; at++) {
        const uint32_t first = at ? 11 + at : 0, n = at ? 1 : 12;
        part p[3] = {{tokens[0], table[0], first, n, n, &params[0], at ? 0 : 4},
                     {tokens[1], table[1], first, n, 1, &params[1], 0},
                     {tokens[2], table[2], first, n, 1, &params[2], 0}};
        uint32_t *mask = rig_mask(&r, (int)at);
        r.allowed = at ? mask : NULL;
        step_result s = rig_run(&r, p, 3);
        for (uint32_t i = 0, k = 0; i < 3; k += p[i++].n_logits) {
            const float *logits = s.logits + (size_t)(k + p[i].n_logits - 1) * r.n_vocab;
            const sampling_history h = {tokens[i], first + n, first + n};
            sampled want;
            memcpy(row, logits, sizeof(float) * r.n_vocab);
            sampling_draw(&want, row, r.n_vocab, &params[i], r.allowed, &h, first + n, scratch);
            ck_assert_int_eq(s.token[i].token, want.token);
            ck_assert_uint_eq(s.token[i].n_top, want.n_top);
            if (at == RIG_ALLOW_NONE)
                ck_assert_int_eq(want.token, -1);
            else
                ck_assert_float_eq_tol(s.token[i].logprob, want.logprob, 1e-4f);
            for (uint32_t t = 0; t < want.n_top; t++)
                ck_assert_int_eq(s.token[i].top[t].token, want.top[t].token);
        }
        for (uint32_t k = 0; !at && k + 1 < n; k++) {
            sampled want;
            sampling_score(&want, s.logits + (size_t)k * r.n_vocab, r.n_vocab, tokens[0][k + 1],
                           3, scratch);
            ck_assert_int_eq(s.scored[k].token, want.token);
            ck_assert_float_eq_tol(s.scored[k].logprob, want.logprob, 1e-4f);
            ck_assert_uint_eq(s.scored[k].n_top, want.n_top);
        }
        free(mask);
    }
    free(scratch);
    free(row);
    rig_close(&r);
    gb_clear(&b);
}
END_TEST

START_TEST(a_copied_block_serves_as_its_original) {
    gb b;
    char path[64];
    rig r;
    int32_t tokens[40];
    const int32_t own[3] = {0, 1, 2}, copy[3] = {5, 6, 2};
    tiny_open(&b, path, &kinds[0]);
    engine_options o = tiny_options(&kinds[0]);
    cuda_open(&r, path, &o);
    rig_tokens(&r, tokens, 40, 1);
    part p = {tokens, own, 0, 32, 1, NULL, 0};
    rig_run(&r, &p, 1);
    p = (part){tokens, own, 32, 1, 1, NULL, 0};
    float *want = malloc(sizeof(float) * r.n_vocab);
    ck_assert_ptr_nonnull(want);
    memcpy(want, rig_run(&r, &p, 1).logits, sizeof(float) * r.n_vocab);
    const block_copy copies[2] = {{0, 5, 0}, {1, 6, 0}};
    batch_seq s = {.n_rows = 1,
                   .first_pos = 32,
                   .tokens = tokens,
                   .input_from = -1,
                   .blocks = {copy},
                   .n_blocks = {3},
                   .n_logit_rows = 1,
                   .n_score = -1};
    batch two = {.seq = &s, .n_seqs = 1, .n_rows = 1, .n_logit_rows = 1};
    two.copies = copies, two.n_copies = 2;
    step_result out;
    err e;
    ck_assert_msg(engine_submit(r.engine, &two, &e) == OK, "%s", e.text);
    ck_assert_msg(engine_collect(r.engine, &out, &e) == OK, "%s", e.text);
    ck_assert_mem_eq(out.logits, want, sizeof(float) * r.n_vocab);
    free(want);
    rig_close(&r);
    gb_clear(&b);
}
END_TEST

START_TEST(blocks_before_a_window_may_be_gone) {
    enum { N = 60 };
    gb b;
    char path[64];
    rig r;
    int32_t tokens[N], table[N / 8 + 1];
    model_config c = gb_tiny("llama");
    c.window = 20;
    gb_init(&b);
    gb_model_keys(&b, &c);
    gb_model_tensors(&b, &c, DT_F16, 7);
    gb_open(&b, path);
    engine_options o = tiny_options(&kinds[0]);
    o.block_tokens = 8;
    cuda_open(&r, path, &o);
    ck_assert_uint_eq(r.model->program.group[0].window, 20);
    rig_tokens(&r, tokens, N, 1);
    float *want = malloc(sizeof(float) * r.n_vocab);
    ck_assert_ptr_nonnull(want);
    for (int gone = 0; gone < 2; gone++) {
        rig_table(&r, table, 0, N / 8, 1);
        part p = {tokens, table, 0, 40, 1, NULL, 0};
        rig_run(&r, &p, 1);
        /* Position 40 sees 21 and more: blocks 0 and 1 are another's now. */
        for (int i = 0; i < 2 && gone; i++) table[i] = -1;
        p = (part){tokens, table, 40, 3, 1, NULL, 0}; /* prefill, then decode */
        rig_run(&r, &p, 1);
        p = (part){tokens, table, 43, 1, 1, NULL, 0};
        const float *logits = rig_run(&r, &p, 1).logits;
        if (!gone) memcpy(want, logits, sizeof(float) * r.n_vocab);
        ck_assert_mem_eq(logits, want, sizeof(float) * r.n_vocab);
    }
    free(want);
    rig_close(&r);
    gb_clear(&b);
}
END_TEST

/* ---- batch_invariant ---- */

START_TEST(batch_invariant_gives_the_same_bits_in_every_company) {
    const kind *k = &kinds[_i];
    gb b;
    char path[64];
    rig r;
    int32_t tokens[12][N_TOKENS], table[12][32];
    tiny_open(&b, path, k);
    engine_options o = tiny_options(k);
    o.batch_invariant = true;
    for (int g = 0; g < PLAN_MAX_GROUPS; g++)
        o.n_blocks[g] = 12 * (uint32_t)ceil_div(N_TOKENS + 16, k->block_tokens);
    cuda_open(&r, path, &o);
    for (uint32_t i = 0; i < 12; i++) {
        rig_tokens(&r, tokens[i], N_TOKENS, i);
        rig_table(&r, table[i], i, blocks_of(&r), 3);
    }
    const size_t bytes = sizeof(float) * r.n_vocab;
    float *kept = malloc(bytes * 2);
    ck_assert_ptr_nonnull(kept);
    /* Positions 35 and 36 of sequence 0: behind one chunk; behind several; in the last one; and
     * all that among others. */
    static const uint32_t cuts[][4] = {{35, 36, 37, 37}, {7, 35, 36, 37}, {1, 13, 36, 37}};
    for (uint32_t round = 0; round < 6; round++) {
        const uint32_t others = round < 3 ? 0 : round == 3 ? 1 : 11;
        uint32_t at = 0;
        for (uint32_t c = 0; c < 4 && at < 37; c++) {
            part p[12];
            uint32_t n = 0;
            const uint32_t to = cuts[round % 3][c];
            for (uint32_t i = 0; i < others; i++)
                p[n++] = (part){tokens[i + 1], table[i + 1], c, 1, 1, NULL, 0};
            p[n++] = (part){tokens[0], table[0], at, to - at, 1, NULL, 0};
            const float *logits = rig_run(&r, p, n).logits + (size_t)others * r.n_vocab;
            at = to;
            for (uint32_t w = 0; w < 2; w++) {
                if (to != 36 + w) continue;
                if (round == 0) memcpy(kept + w * r.n_vocab, logits, bytes);
                ck_assert_mem_eq(logits, kept + w * r.n_vocab, bytes);
            }
        }
    }
    free(kept);
    rig_close(&r);
    gb_clear(&b);
}
END_TEST

/* ---- memory ---- */

START_TEST(the_plan_is_what_opening_allocates) {
    const kind *k = &kinds[_i];
    gb b;
    char path[64];
    err e;
    tiny_open(&b, path, k);
    engine_options o = tiny_options(k);
    o.max_rows = o.max_seqs = o.max_logit_rows = 4;
    ck_assert_msg(open_planned(path, &o, true, &e), "%s", e.text);
    o.keep_logits = true;
    ck_assert_msg(open_planned(path, &o, true, &e), "%s", e.text);
    o.keep_logits = false;
    o.max_rows = o.max_logit_rows = 100; /* slices of packed weights */
    ck_assert_msg(open_planned(path, &o, true, &e), "%s", e.text);
    o.batch_invariant = true;
    o.max_rows = o.max_logit_rows = 20;
    ck_assert_msg(open_planned(path, &o, true, &e), "%s", e.text);
    o.batch_invariant = false;
    o.max_rows = o.max_seqs = o.max_logit_rows = o.n_blocks[0] = 1;
    ck_assert_msg(open_planned(path, &o, true, &e), "%s", e.text);
    gb_clear(&b);
}
END_TEST

START_TEST(any_allocation_may_fail_and_leaves_nothing_behind) {
    gb b;
    char path[64];
    err e;
    tiny_open(&b, path, &kinds[0]);
    engine_options o = tiny_options(&kinds[0]);
    o.max_seqs = 2;
    long failed = 0;
    for (long n = 1;; n++) {
        cushim_fail_alloc(n);
        const bool ok = open_planned(path, &o, false, &e);
        cushim_fail_alloc(0);
        ck_assert_int_eq(cushim_count().allocations, 0);
        ck_assert_uint_eq(cushim_count().bytes, 0);
        if (ok) break;
        ck_assert(e.code == ERR_NO_MEMORY || e.code == ERR_DEVICE);
        ck_assert(e.text[0] != '\0');
        failed++;
        ck_assert_int_lt(n, 200);
    }
    ck_assert_int_ge(failed, 3); /* the arena, cuBLASLt's handle, graphs */
    gb_clear(&b);
}
END_TEST

START_TEST(matrices_of_16_bits_are_refused_without_the_library) {
    gb b;
    char path[64];
    err e;
    tiny_open(&b, path, &kinds[0]);
    engine_options o = tiny_options(&kinds[0]);
    cushim_set_library(false);
    ck_assert(!open_planned(path, &o, false, &e));
    cushim_set_library(true);
    ck_assert_int_eq(e.code, ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(e.text, "cuBLASLt"));
    gb_clear(&b);
}
END_TEST

START_TEST(a_device_too_small_is_named_with_the_bytes) {
    gb b;
    char path[64];
    err e;
    tiny_open(&b, path, &kinds[0]);
    engine_options o = tiny_options(&kinds[0]);
    cushim_set_memory(1 << 20);
    ck_assert(!open_planned(path, &o, false, &e));
    cushim_set_memory((size_t)4 << 30);
    ck_assert_int_eq(e.code, ERR_NO_MEMORY);
    ck_assert_str_eq(e.field, "memory");
    ck_assert_ptr_nonnull(strstr(e.text, "free"));
    gb_clear(&b);
}
END_TEST

START_TEST(device_memory_does_not_move_while_serving) {
    gb b;
    char path[64];
    rig r;
    static crowd c;
    device_memory before, after;
    tiny_open(&b, path, &kinds[0]);
    engine_options o = tiny_options(&kinds[0]);
    o.max_rows = SEQS * PROMPT;
    rig_open_bare(&r, &backend_cuda, path, &o);
    ck_assert(backend_cuda.device_memory(r.engine, &before));
    const cushim_counts n = cushim_count();
    ck_assert(before.total_bytes > before.used_bytes && before.used_bytes >= n.bytes);
    for (uint32_t round = 1; round <= SEQS; round += 3) {
        crowd_init(&c, &r, round);
        generate(&r, &c, round, NULL);
        generate_ahead(&r, &c, round);
        ck_assert(backend_cuda.device_memory(r.engine, &after));
        ck_assert_uint_eq(after.used_bytes, before.used_bytes);
    }
    const cushim_counts then = cushim_count();
    ck_assert_uint_eq(then.bytes, n.bytes);
    ck_assert_uint_eq(then.peak, n.peak);
    ck_assert_int_eq(then.allocations, n.allocations);
    ck_assert_int_eq(then.pageable_copies, n.pageable_copies); /* no step waits for the host */
    rig_close(&r);
    gb_clear(&b);
}
END_TEST

START_TEST(a_fault_of_the_device_ends_the_engine) {
    gb b;
    char path[64];
    rig r;
    static crowd c;
    batch_seq s[2];
    step_result out;
    err e, again;
    tiny_open(&b, path, &kinds[0]);
    engine_options o = tiny_options(&kinds[0]);
    cuda_open(&r, path, &o);
    crowd_init(&c, &r, 2);
    for (uint32_t i = 0; i < 2; i++) {
        crowd_part(&c, &s[i], i, 0, PROMPT);
        s[i].first_row = i * PROMPT;
    }
    batch step = crowd_batch(s, 2, PROMPT);
    ck_assert(engine_submit(r.engine, &step, &e) == OK);
    cushim_break("a test");
    ck_assert_int_eq(engine_collect(r.engine, &out, &e), ERR_DEVICE);
    ck_assert_ptr_nonnull(strstr(e.text, "CUDA"));
    ck_assert_int_eq(engine_submit(r.engine, &step, &again), ERR_DEVICE);
    ck_assert_str_eq(again.text, e.text);
    ck_assert_int_eq(engine_collect(r.engine, &out, &again), ERR_DEVICE);
    cushim_reset(); /* so that the shim frees what it is asked to */
    rig_close(&r);
    ck_assert_int_eq(cushim_count().allocations, 0);
    gb_clear(&b);
}
END_TEST

/* ---- refusals ---- */

static const cuda_plugin *another_version(uint32_t abi) {
    (void)abi;
    return NULL;
}

static void assert_unavailable(status code, const char *field, const char *text) {
    engine_options o = rig_options();
    cuda_device d;
    err e;
    ck_assert_int_eq(cuda_backend_available(&o, &d, &e), code);
    ck_assert_str_eq(e.field, field);
    ck_assert_msg(strstr(e.text, text) != NULL, "%s", e.text);
    ck_assert(strchr(e.text, '\n') == NULL && e.hint[0] != '\0');
}

START_TEST(what_is_missing_is_said_in_one_line) {
    engine_options o = rig_options();
    cuda_device d;
    err e;
    ck_assert_msg(cuda_backend_available(&o, &d, &e) == OK, "%s", e.text);
    ck_assert(d.n_sms > 0 && d.total_bytes > 0 && d.major == 9 && d.name[0]);
    cushim_set_driver(0);
    assert_unavailable(ERR_DEVICE, "backend", "no NVIDIA driver");
    cushim_set_driver(11040);
    assert_unavailable(ERR_DEVICE, "backend", "11.4, too old");
    cushim_set_driver(13000);
    cushim_set_devices(0);
    assert_unavailable(ERR_DEVICE, "backend", "no device");
    cushim_set_devices(1);
    cushim_set_capability(75);
    assert_unavailable(ERR_UNSUPPORTED, "cuda_device", "7.5");
    cushim_set_capability(90);
    o.device = 3;
    ck_assert_int_eq(cuda_backend_available(&o, &d, &e), ERR_DEVICE);
    ck_assert_str_eq(e.field, "cuda_device");
    cuda_backend_use(another_version);
    assert_unavailable(ERR_UNSUPPORTED, "cuda_plugin", "another version");
    cuda_backend_use(NULL);
    o.plugin = "/nonexistent/vramd-cuda.so";
    ck_assert_int_eq(cuda_backend_available(&o, &d, &e), ERR_NOT_FOUND);
    ck_assert_str_eq(e.field, "cuda_plugin");
    o.plugin = "/proc/self/exe"; /* there, and nothing to be loaded */
    ck_assert_int_eq(cuda_backend_available(&o, &d, &e), ERR_UNSUPPORTED);
    cuda_backend_use(vramd_cuda_plugin);
}
END_TEST

/* Tests of kernels run in every order of threads. Of the engine, every kind runs in the order in which kernels also
 * begin before those in front of them have ended, and in one of the others. */
enum { ALL_KINDS = 3 };
static bool runs(int kind) {
    const int order = cushim_get_order();
    return order >= ALL_KINDS + 2 || order == ALL_KINDS ||
           kind % 4 == (order < ALL_KINDS ? order : ALL_KINDS);
}

static void add_kinds(TCase *t, const TTest *test, int n) {
    for (int i = 0; i < n; i++)
        if (runs(i)) tcase_add_loop_test(t, test, i, i + 1);
}

int main(void) {
    Suite *s = suite_create("cuda engine");
    /* What a device can be asked too (tools/device.sh), and what only the shim can show. */
    TCase *t = check_case(s, "anywhere"), *shim = check_case(s, "shim");
    cuda_backend_use(vramd_cuda_plugin);
    add_kinds(t, logits_and_greedy_tokens_are_those_of_the_cpu_engine, N_KINDS);
    add_kinds(shim, long_prompts_with_packed_weights_give_the_logits_of_the_cpu_engine,
              4 * N_PACKED);
    tcase_add_test(shim, matrices_of_16_bits_are_refused_without_the_library);
    tcase_add_test(t, two_steps_in_flight_draw_what_one_at_a_time_does);
    add_kinds(shim, graphs_give_what_eager_steps_give, N_KINDS);
    tcase_add_test(t, a_sequence_preempted_and_computed_again_goes_on_as_before);
    tcase_add_test(t, sampled_and_scored_rows_are_those_of_the_sampler);
    tcase_add_test(t, a_copied_block_serves_as_its_original);
    tcase_add_test(t, blocks_before_a_window_may_be_gone);
    add_kinds(t, batch_invariant_gives_the_same_bits_in_every_company, N_KINDS);
    if (cushim_get_order() == 0) /* bytes do not depend on the order */
        tcase_add_loop_test(shim, the_plan_is_what_opening_allocates, 0, N_KINDS);
    tcase_add_test(shim, any_allocation_may_fail_and_leaves_nothing_behind);
    tcase_add_test(shim, a_device_too_small_is_named_with_the_bytes);
    tcase_add_test(shim, device_memory_does_not_move_while_serving);
    tcase_add_test(shim, a_fault_of_the_device_ends_the_engine);
    tcase_add_test(shim, what_is_missing_is_said_in_one_line);
    return check_run(s);
}
