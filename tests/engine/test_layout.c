/* The plan is the ledger: what the terms say is what opening allocates, to the byte and class
 * by class; values that are alive together do not share bytes; groups of weights are named. */
#include "tests/engine/engine_rig.h"
#include "tests/model/gguf_build.h"

#include "memory/plan.h"
#include "model/words.h"

/* A tiny model in a memory file. */
static void tiny_open(gb *b, char path[64], const model_config *c, dtype type) {
    gb_init(b);
    gb_model_keys(b, c);
    gb_model_tensors(b, c, type, 1);
    gb_open(b, path);
}

static const dtype kv_types[] = {DT_F16, DT_BF16, DT_F32, DT_INT8, DT_Q8_0, DT_FP8, DT_INT4};
enum { N_KV_TYPES = sizeof kv_types / sizeof *kv_types };

static const term *find_term(const terms *t, mem_class cls, const char *what) {
    for (size_t i = 0; i < t->n; i++)
        if (t->v[i].cls == cls && strcmp(t->v[i].what, what) == 0) return &t->v[i];
    ck_abort_msg("no term \"%s\" in class %s", what, mem_class_name(cls));
}

/* Opens on a ledger limited by the plan and compares class by class. */
/* Returns the bytes of its KV cache; blocks, added up: those of each group times its layers, of
 * tails in blocks[1]. */
static uint64_t assert_plan_is_ledger_of(const char *path, const engine_options *wanted,
                                         uint64_t *blocks) {
    engine_options o = *wanted;
    checkpoint *file;
    model *m;
    ledger *l;
    engine *eng;
    terms t = {0};
    kv_request kv = {0};
    plan p = {0};
    ledger_view v;
    err e;
    ck_assert_msg(checkpoint_open(&file, path, &e) == OK, "%s", e.text);
    ck_assert_msg(model_open(&m, file, &e) == OK, "%s", e.text);
    ck_assert_msg(backend_cpu.terms(&m->program, &o, &t, &kv, &e) == OK, "%s", e.text);
    kv.min_tokens = kv.max_tokens = kv.want_tokens = (uint64_t)o.n_blocks[0] * o.block_tokens;
    kv.max_seqs = 1;
    kv.max_rows = o.max_rows;
    budget none = {.bytes = UINT64_MAX / 2, .source = "a test", .automatic = true};
    ck_assert_msg(plan_solve(&p, &t, &kv, &none, &e) == OK, "%s", e.text);
    ck_assert_uint_eq(p.kv_blocks, o.n_blocks[0]);
    for (uint32_t g = 0; g < p.n_groups; g++) {
        o.n_blocks[g] = p.group_blocks[g];
        const bool tail = g >= m->program.n_groups;
        ck_assert(kv.group[g].tail == tail && (!tail || kv.group[g].window <= 64));
        blocks[tail] += (uint64_t)p.group_blocks[g] * kv.group[g].n_layers;
    }
    ck_assert_msg(ledger_open(&l, &p, &e) == OK, "%s", e.text);
    ck_assert_msg(engine_open(&eng, &backend_cpu, m, &o, l, NULL, &e) == OK, "%s", e.text);
    ledger_read(l, &v);
    for (int c = 0; c < MEM_N_CLASSES; c++) {
        uint64_t planned = terms_sum(&p.terms, (mem_class)c);
        ck_assert_msg(v.cls[c].ledger_bytes == planned, "class %s: planned %lu, held %lu",
                      mem_class_name((mem_class)c), (unsigned long)planned,
                      (unsigned long)v.cls[c].ledger_bytes);
    }
    uint64_t bounce = 0;
    for (size_t i = 0; i < t.n; i++)
        if (t.v[i].while_loading) bounce += t.v[i].bytes;
    ck_assert(bounce > 0 && v.cls[MEM_LOADING].peak_bytes == bounce);
    ck_assert_uint_eq(v.cls[MEM_LOADING].ledger_bytes, 0);
    ck_assert_uint_eq(v.cls[MEM_KV].ledger_bytes, p.kv_bytes);
    engine_close(eng);
    ledger_read(l, &v);
    ck_assert_uint_eq(v.ledger_bytes, 0);
    ledger_close(l);
    const uint64_t kv_bytes = p.kv_bytes;
    plan_clear(&p);
    terms_clear(&t);
    model_close(m);
    checkpoint_close(file);
    return kv_bytes;
}

static uint64_t assert_plan_is_ledger(const char *path, const engine_options *wanted) {
    uint64_t blocks[2] = {0, 0};
    return assert_plan_is_ledger_of(path, wanted, blocks);
}

START_TEST(the_plan_of_small_models_is_what_opening_allocates) {
    static const dtype types[] = {
        DT_F32,       DT_F16,  DT_BF16,  DT_Q8_0, DT_Q4_0, DT_Q4_1, DT_Q5_0, DT_Q5_1,
        DT_IQ4_NL,    DT_Q2_K, DT_MXFP4, DT_Q3_K, DT_Q4_K, DT_Q5_K, DT_Q6_K, DT_IQ4_XS,
#define X(name, ...) DT_##name,
        WORDS_LIST(X)
#undef X
    };
    for (uint32_t i = 0; i < sizeof types / sizeof *types; i++) {
        gb b;
        char path[64];
        model_config c = gb_tiny(i % 2 ? "qwen2" : "llama");
        if (dtype_get(types[i])->block_elems > 32) c.n_embd = 256;
        c.tied_head = i % 3 == 0;
        tiny_open(&b, path, &c, types[i]);
        engine_options o = rig_options();
        o.max_model_len = 256;
        o.block_tokens = 8u << i % 6;
        o.kv_k = kv_types[i % N_KV_TYPES], o.kv_v = kv_types[i / 2 % N_KV_TYPES];
        if (o.block_tokens == 8) o.kv_k = o.kv_v = DT_F16;
        o.n_threads = 1 + i % 6;
        o.activations = i % 2 ? ACTIVATION_F32 : ACTIVATION_INT8;
        assert_plan_is_ledger(path, &o);
        o.unfused = !kv_type_get(o.kv_k)->word_bytes && !kv_type_get(o.kv_v)->word_bytes;
        assert_plan_is_ledger(path, &o);
        o.unfused = false;
        o.keep_logits = true;
        assert_plan_is_ledger(path, &o);
        o.max_rows = o.max_seqs = o.max_logit_rows = o.n_blocks[0] = 1;
        assert_plan_is_ledger(path, &o);
        gb_clear(&b);
    }
}
END_TEST

/* Routed rows, biases of experts and sinks; what a folder stores otherwise has the bytes of the file. */
START_TEST(the_plan_of_gpt_oss_is_what_opening_allocates) {
    static const char *const path[] = {"tests/golden/families/gpt-oss.gguf",
                                       "tests/golden/families/gpt-oss"};
    uint64_t kv[2];
    for (int i = 0; i < 4; i++) {
        engine_options o = rig_options();
        o.max_model_len = 256;
        o.activations = i / 2 ? ACTIVATION_F32 : ACTIVATION_INT8;
        o.n_threads = 1 + (uint32_t)i;
        kv[i % 2] = assert_plan_is_ledger(path[i % 2], &o);
        ck_assert(i % 2 == 0 || kv[0] == kv[1]);
    }
}
END_TEST

START_TEST(scores_that_are_written_out_are_a_term_of_the_plan) {
    gb b;
    char path[64];
    model_config c = gb_tiny("llama");
    tiny_open(&b, path, &c, DT_F16);
    checkpoint *file;
    model *m;
    err e;
    ck_assert(checkpoint_open(&file, path, &e) == OK && model_open(&m, file, &e) == OK);
    engine_options o = rig_options();
    o.max_model_len = 1000, o.n_threads = 1;
    uint64_t bytes[2];
    for (int i = 0; i < 2; i++) {
        terms t = {0};
        kv_request kv = {0};
        o.unfused = i;
        ck_assert_msg(backend_cpu.terms(&m->program, &o, &t, &kv, &e) == OK, "%s", e.text);
        bytes[i] = terms_sum(&t, MEM_WORKSPACE);
        char what[128];
        snprintf(what, sizeof what,
                 "scores of %u rows x %u heads x 1000 tokens (attention = unfused)", o.max_rows,
                 c.n_heads);
        if (i)
            ck_assert_uint_eq(find_term(&t, MEM_WORKSPACE, what)->bytes, bytes[1] - bytes[0]);
        terms_clear(&t);
    }
    /* For each row and head: 1024 scores, the factors of 16 tiles, 2 figures of 2 splits. */
    ck_assert_uint_eq(bytes[1] - bytes[0], 4ull * o.max_rows * c.n_heads * (1024 + 32));
    model_close(m);
    checkpoint_close(file);
    gb_clear(&b);
}
END_TEST

START_TEST(the_plan_of_a_window_is_what_opening_allocates_and_less_than_without) {
    uint64_t kv[2];
    for (uint32_t i = 0; i < 2; i++) {
        gb b;
        char path[64];
        model_config c = gb_tiny("llama");
        c.window = i ? 100 : 0;
        tiny_open(&b, path, &c, DT_F16);
        engine_options o = rig_options();
        kv[i] = assert_plan_is_ledger(path, &o);
        gb_clear(&b);
    }
    /* 64 blocks; one sequence of a window of 100 behind 256 rows in flight needs 24. */
    ck_assert_uint_eq(kv[1] * 64, kv[0] * 24);
}
END_TEST

/* Every pair of types, block size and kind of group: the blocks are counted by the plan; what
 * one of them takes is written out here, and what they take in all is what opening allocates.
 */
START_TEST(the_cache_of_every_pair_of_types_is_planned_to_the_byte) {
    /* Of an element of kv_types, and of the word that a head of 64 has for each so many. */
    const uint32_t halves[] = {4, 4, 8, 2, 2, 2, 1}; /* of a byte */
    const uint32_t per_word[] = {0, 0, 0, 64, 32, 64, 64};
    const uint32_t pairs = N_KV_TYPES * N_KV_TYPES;
    for (uint32_t n = 0; n < pairs * 12; n++) {
        const uint32_t k_type = n % N_KV_TYPES, v_type = n / N_KV_TYPES % N_KV_TYPES;
        const uint32_t i = n / pairs;
        gb b;
        char path[64];
        model_config c = gb_tiny(i % 2 ? "gemma3" : "llama");
        engine_options o = rig_options();
        c.n_layers = 3, c.n_kv_heads = 2, c.head_dim = i % 4 < 2 ? 40 : 64;
        c.rope.n_dims = c.head_dim;
        c.window = i % 2 ? 20 : 0;
        o.block_tokens = 8u << i / 2;
        o.max_model_len = 256;
        o.n_blocks[0] = 256 / o.block_tokens + 1;
        o.kv_k = kv_types[k_type], o.kv_v = kv_types[v_type];
        err e;
        if (kv_sizes_check(o.kv_k, o.kv_v, o.block_tokens, c.head_dim, &e) != OK) continue;
        tiny_open(&b, path, &c, DT_F32);
        const uint32_t v_dims = c.head_dim == 40 ? 48 : 64;
        uint64_t token = (c.head_dim * halves[k_type] + v_dims * halves[v_type]) / 2;
        if (per_word[k_type]) token += 2 * 64 / per_word[k_type];
        if (per_word[v_type]) token += 2 * 64 / per_word[v_type];
        const uint64_t layer = 2ull * align_up(o.block_tokens * token, 64);
        /* In a tail codes of K and V are f16. */
        const uint32_t tail_k = per_word[k_type] ? 4 : halves[k_type];
        const uint32_t tail_v = per_word[v_type] ? 4 : halves[v_type];
        const uint64_t tail = (c.head_dim * tail_k + v_dims * tail_v) / 2 * o.block_tokens;
        uint64_t blocks[2] = {0, 0}; /* times layers */
        const uint64_t got = assert_plan_is_ledger_of(path, &o, blocks);
        ck_assert((blocks[1] > 0) == (o.kv_k == DT_INT4 || o.kv_v == DT_INT4));
        ck_assert_uint_eq(got, layer * blocks[0] + 2 * align_up(tail, 64) * blocks[1]);
        gb_clear(&b);
    }
}
END_TEST

START_TEST(the_plan_of_the_real_model_is_what_opening_allocates) {
    const char *path = test_model();
    engine_options o = rig_options();
    o.max_model_len = 8192;
    o.max_rows = 512;
    o.n_blocks[0] = 100;
    assert_plan_is_ledger(path, &o);
}
END_TEST

START_TEST(weights_are_listed_by_group_and_kv_by_token) {
    gb b;
    char path[64];
    model_config c = gb_tiny("llama");
    c.tied_head = true;
    tiny_open(&b, path, &c, DT_Q4_1);
    checkpoint *file;
    model *m;
    terms t = {0};
    kv_request kv = {0};
    err e;
    engine_options o = rig_options();
    ck_assert(checkpoint_open(&file, path, &e) == OK && model_open(&m, file, &e) == OK);
    ck_assert(backend_cpu.terms(&m->program, &o, &t, &kv, &e) == OK);
    /* Q4_1 keeps 20 bytes for 32 weights. */
    ck_assert_uint_eq(find_term(&t, MEM_WEIGHTS, "blk.*.ffn_* Q4_1")->bytes,
                      2 * 3 * 96 * 64 / 32 * 20);
    ck_assert_uint_eq(find_term(&t, MEM_WEIGHTS, "blk.*.attn_* Q4_1")->bytes,
                      2 * (128 + 64 + 64 + 128) * 64 / 32 * 20);
    ck_assert_uint_eq(find_term(&t, MEM_WEIGHTS, "token_embd Q4_1")->bytes, 128 * 64 / 32 * 20);
    ck_assert_uint_eq(find_term(&t, MEM_WEIGHTS, "blk.*.ffn_* F32")->bytes, 2 * 64 * 4);
    ck_assert_uint_eq(find_term(&t, MEM_LOGITS, "64 rows of 128")->bytes, 64 * 128 * 4);
    ck_assert_uint_eq(terms_sum(&t, MEM_LOGITS), 64 * 128 * 4);
    ck_assert_uint_eq(kv.n_groups, 1);
    ck_assert_uint_eq(kv.group[0].bytes_per_token, 2 * 2 * 2 * 32 * 2); /* f16 */
    terms_clear(&t);
    o.keep_logits = true;
    ck_assert(backend_cpu.terms(&m->program, &o, &t, &kv, &e) == OK);
    ck_assert_uint_eq(terms_sum(&t, MEM_LOGITS), 2 * 64 * 128 * 4);
    terms_clear(&t);
    model_close(m);
    checkpoint_close(file);
    gb_clear(&b);
}
END_TEST

static uint64_t end_of(const cpu_layout *l, const program *p, const engine_options *o,
                       uint32_t v) {
    const value_place *x = &l->values[v];
    uint64_t rows = p->values[v].rows == ROWS_GATHERED ? o->max_logit_rows : o->max_rows;
    uint64_t codes = act_bytes_of(l->family, p->values[v].cols, (uint32_t)rows);
    if (x->forms & FORM_REST) return x->rest + codes;
    if (x->forms & FORM_Q) return x->q + codes;
    return x->f + rows * p->values[v].cols * 4;
}

START_TEST(values_alive_together_share_no_bytes) {
    static const dtype types[] = {DT_F32, DT_Q8_0};
    for (uint32_t k = 0; k < 6; k++) {
        gb b;
        char path[64];
        checkpoint *file;
        model *m;
        err e;
        cpu_layout l;
        model_config c = gb_tiny("llama");
        engine_options o = rig_options();
        o.activations = k < 2 ? ACTIVATION_INT8 : k < 4 ? ACTIVATION_F32 : ACTIVATION_BF16;
        tiny_open(&b, path, &c, types[k % 2]);
        ck_assert(checkpoint_open(&file, path, &e) == OK && model_open(&m, file, &e) == OK);
        const program *p = &m->program;
        ck_assert(cpu_layout_init(&l, p, &o, &e) == OK);
        uint64_t sum = 0;
        for (uint32_t i = 0; i < p->n_values; i++) {
            if (l.values[i].is_logits) continue;
            sum += end_of(&l, p, &o, i) - l.values[i].f;
            ck_assert_uint_le(end_of(&l, p, &o, i), l.activations_bytes);
            for (uint32_t j = 0; j < i; j++) {
                const value_place *x = &l.values[i], *y = &l.values[j];
                if (y->is_logits) continue;
                /* A residual sum may take the place of its summand, which dies there. */
                bool apart = x->first_op > y->last_op || y->first_op > x->last_op;
                bool heir = x->first_op == y->last_op && x->f == y->f &&
                            p->ops[x->first_op].residual == j;
                bool disjoint = end_of(&l, p, &o, i) <= y->f || end_of(&l, p, &o, j) <= x->f;
                ck_assert_msg(apart || heir || disjoint, "values %u and %u", j, i);
            }
        }
        ck_assert_uint_lt(l.activations_bytes, sum / 2); /* sharing does happen */
        cpu_layout_clear(&l);
        model_close(m);
        checkpoint_close(file);
        gb_clear(&b);
    }
}
END_TEST

START_TEST(options_out_of_range_are_named) {
    static const bad_option bad[] = {
        {"block_size", offsetof(engine_options, block_tokens), 4, ERR_INVALID},
        {"block_size", offsetof(engine_options, block_tokens), 24, ERR_INVALID},
        {"block_size", offsetof(engine_options, block_tokens), 512, ERR_INVALID},
        {"threads", offsetof(engine_options, n_threads), 0, ERR_INVALID},
        {"threads", offsetof(engine_options, n_threads), 257, ERR_INVALID},
        {"max_num_seqs", offsetof(engine_options, max_seqs), 0, ERR_INVALID},
        {"max_num_seqs", offsetof(engine_options, max_seqs), 257, ERR_INVALID},
        {"max_logit_rows", offsetof(engine_options, max_logit_rows), 31, ERR_INVALID},
        {"max_model_len", offsetof(engine_options, max_model_len), 0, ERR_INVALID},
        {"activation_dtype", offsetof(engine_options, activations), ACTIVATION_F16,
         ERR_UNSUPPORTED},
        {"cache_type_k", offsetof(engine_options, kv_k), DT_Q5_0, ERR_UNSUPPORTED},
        {"cache_type_v", offsetof(engine_options, kv_v), DT_Q4_0, ERR_UNSUPPORTED},
    };
    model *m;
    err e;
    model_config c = gb_tiny("llama");
    engine_options o = rig_options();
    ck_assert(model_from_config(&m, &c, DT_F16, &e) == OK);
    rig_refuses(&backend_cpu, &m->program, &o, bad, sizeof bad / sizeof *bad);
    model_close(m);
    o.unfused = true, o.kv_v = DT_INT8;
    rig_unsupported(&backend_cpu, &c, DT_F16, &o, "attention", "f16, bf16 or f32");
}
END_TEST

/* Groups of layers and their tails are four at most. */
START_TEST(more_groups_than_have_tails_are_refused) {
    static const struct {
        dtype k, v;
        const char *field;
    } row[] = {{DT_INT4, DT_INT4, "kv_cache_dtype"},
               {DT_INT4, DT_F16, "cache_type_k"},
               {DT_INT8, DT_INT4, "cache_type_v"}};
    model *m;
    err e;
    model_config c = gb_tiny("gemma3");
    engine_options o = rig_options();
    c.window = 20, c.n_layers = 7;
    ck_assert(model_from_config(&m, &c, DT_F16, &e) == OK);
    terms t = {0};
    kv_request kv = {0};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        o.kv_k = row[i].k, o.kv_v = row[i].v;
        ck_assert_uint_eq(m->program.n_groups, 2);
        ck_assert_msg(backend_cpu.terms(&m->program, &o, &t, &kv, &e) == OK, "%s", e.text);
        ck_assert(kv.n_groups == 4 && !kv.group[1].tail && kv.group[2].tail);
        ck_assert(kv.group[2].window == 20 || kv.group[3].window == 20);
        terms_clear(&t);
        m->program.n_groups = 3;
        ck_assert_int_eq(backend_cpu.terms(&m->program, &o, &t, &kv, &e), ERR_UNSUPPORTED);
        ck_assert_str_eq(e.field, row[i].field);
        ck_assert_ptr_nonnull(strstr(e.text, "newest 64 tokens"));
        m->program.n_groups = 2;
    }
    model_close(m);
}
END_TEST

START_TEST(a_type_without_kernels_is_named_with_its_tensor) {
    engine_options o = rig_options();
    model_config c = gb_tiny("llama");
    terms t = {0};
    kv_request kv;
    model *m;
    err e;
    ck_assert_msg(model_from_config(&m, &c, DT_Q8_0, &e) == OK, "%s", e.text);
    m->program.weights[0].type = DT_I32; /* all types of weights have kernels */
    ck_assert_int_eq(backend_cpu.terms(&m->program, &o, &t, &kv, &e), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "token_embd.weight");
    ck_assert_ptr_nonnull(strstr(e.text, "I32"));
    terms_clear(&t);
    model_close(m);
}
END_TEST

CHECK_MAIN("layout", the_plan_of_small_models_is_what_opening_allocates,
           the_plan_of_gpt_oss_is_what_opening_allocates,
           scores_that_are_written_out_are_a_term_of_the_plan,
           the_plan_of_a_window_is_what_opening_allocates_and_less_than_without,
           the_cache_of_every_pair_of_types_is_planned_to_the_byte,
           the_plan_of_the_real_model_is_what_opening_allocates,
           weights_are_listed_by_group_and_kv_by_token, values_alive_together_share_no_bytes,
           options_out_of_range_are_named, more_groups_than_have_tails_are_refused,
           a_type_without_kernels_is_named_with_its_tensor)
