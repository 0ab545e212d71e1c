/* Rows that verify guesses: each draws what it would draw alone, to the bit and with its
 * log-probabilities, a run ends at the first wrong guess, and what stands behind it in the KV cache
 * changes nothing. On the real model and on a tiny one with windows, with types of cache that have codes
 * and a tail in full precision; on some with recurrent states, whose guesses do not reach the end of a chunk. */
#include "tests/engine/engine_rig.h"
#include "tests/model/gguf_build.h"
#include "tests/model/gguf_hybrid.h"

enum { PROMPT = 90, OUTPUT = 24, LEN = PROMPT + OUTPUT + 1, DRAFT = 7, BLOCKS = LEN / 16 + 1 };

static const struct {
    const char *arch; /* NULL: the real model */
    dtype k, v;
} models[] = {{NULL, DT_F16, DT_F16},       {NULL, DT_INT4, DT_INT4},
              {"gemma3", DT_F16, DT_F16},   {"gemma3", DT_INT8, DT_INT4},
              {"qwen3moe", DT_F16, DT_F16}, {"qwen35", DT_F16, DT_F16},
              {"lfm2", DT_F16, DT_F16},     {"granitehybrid", DT_INT8, DT_INT8}};
enum {
    N_MODELS = sizeof models / sizeof *models,
    GREEDY = 0,
    SAMPLED,
    PENALISED,
    MASKED,
    N_WAYS
};

typedef struct text {
    int32_t tokens[LEN];
    sampled drawn[OUTPUT];
} text;

static int32_t table[BLOCKS];
static uint32_t *masks; /* [OUTPUT][words]; NULL: every token is allowed */
static uint32_t words;
static bool states; /* the model has some, which go back within a chunk */

static void open_model(rig *r, int which) {
    engine_options o = rig_options();
    o.max_draft = DRAFT, o.kv_k = models[which].k, o.kv_v = models[which].v;
    if (!models[which].arch) {
        rig_open_bare(r, &backend_cpu, test_model(), &o);
    } else {
        model_config c = gb_tiny(models[which].arch);
        gb b;
        char path[64];
        c.n_layers = 4, c.n_kv_heads = 1, c.n_embd = 256, c.window = 20, c.n_ctx_train = 1024;
        gb_init(&b);
        if (gb_is_hybrid(models[which].arch)) {
            c = gb_hybrid_config(models[which].arch, 128);
            gb_hybrid_keys(&b, &c);
            gb_hybrid_tensors(&b, &c, DT_Q4_0, 7);
        } else {
            gb_model_keys(&b, &c);
            gb_model_tensors(&b, &c, DT_Q4_K, 7);
        }
        gb_open(&b, path);
        rig_open_bare(r, &backend_cpu, path, &o);
        gb_clear(&b);
    }
    for (int i = 0; i < BLOCKS; i++) table[i] = BLOCKS - i;
    words = sampling_mask_words(r->n_vocab);
    states = engine_states(&r->model->program, &r->opt) > 0;
}

static sampling sampling_of(int way) {
    sampling p;
    sampling_defaults(&p);
    p.temperature = way == GREEDY ? 0 : 0.9f;
    p.seed = 5;
    p.n_logprobs = 3;
    if (way == PENALISED) p.repetition_penalty = 1.2f, p.frequency_penalty = 0.3f;
    return p;
}

/* Rows from position first on, of which the last draw; the tokens that they drew. */
static uint32_t step(rig *r, const text *t, uint32_t first, uint32_t n_rows, uint32_t n_draft,
                     const sampling *p, sampled *out) {
    const uint32_t end = first + n_rows, n_blocks = (end + 15) / 16;
    const uint32_t drawn = end - n_draft - PROMPT;
    const batch_seq q = {.n_rows = n_rows,
                         .first_pos = first,
                         .tokens = t->tokens,
                         .input_from = -1,
                         .blocks = {table, table, table, table},
                         .n_blocks = {n_blocks, n_blocks, n_blocks, n_blocks},
                         .n_logit_rows = 1 + n_draft,
                         .sample = true,
                         .n_draft = n_draft,
                         .n_score = -1,
                         .params = p,
                         .allowed = masks ? masks + (size_t)drawn * words : NULL,
                         .allowed_stride = words,
                         .n_prompt = PROMPT};
    const batch b = {.seq = &q, .n_seqs = 1, .n_rows = n_rows, .n_logit_rows = 1 + n_draft};
    step_result s;
    err e;
    ck_assert_msg(engine_submit(r->engine, &b, &e) == OK, "%s", e.text);
    ck_assert_int_eq(engine_collect(r->engine, &s, &e), OK);
    memcpy(out, s.token, s.n_tokens[0] * sizeof *out);
    return s.n_tokens[0];
}

static void same(const sampled *a, const sampled *b) {
    ck_assert_int_eq(a->token, b->token);
    ck_assert_mem_eq(&a->logprob, &b->logprob, sizeof a->logprob);
    ck_assert_uint_eq(a->n_top, b->n_top);
    ck_assert_mem_eq(a->top, b->top, a->n_top * sizeof *a->top);
}

/* Token by token. */
static void write_text(rig *r, text *t, const sampling *p) {
    rig_tokens(r, t->tokens, PROMPT, 3);
    rig_poison(r);
    for (uint32_t n = 0; n < OUTPUT; n++) {
        const uint32_t first = n ? PROMPT + n - 1 : 0;
        ck_assert_uint_eq(step(r, t, first, n ? 1 : PROMPT, 0, p, &t->drawn[n]), 1);
        t->tokens[PROMPT + n] = t->drawn[n].token;
    }
}

/* Again, by runs of guesses of which the first n_right are right. */
static void guess_text(rig *r, const text *want, const sampling *p, uint32_t n_right) {
    text t = {{0}, {{0}}};
    sampled run[1 + DRAFT];
    rig_poison(r);
    memcpy(t.tokens, want->tokens, PROMPT * sizeof *t.tokens);
    uint32_t n = step(r, &t, 0, PROMPT, 0, p, &t.drawn[0]);
    same(&t.drawn[0], &want->drawn[0]);
    t.tokens[PROMPT] = t.drawn[0].token;
    while (n < OUTPUT) {
        uint32_t n_draft = OUTPUT - n - 1 < DRAFT ? OUTPUT - n - 1 : DRAFT;
        const uint32_t left = STATE_CHUNK - 1 - (PROMPT + n - 1) % STATE_CHUNK;
        if (states && n_draft >= left) n_draft = left ? left - 1 : 0;
        for (uint32_t i = 0; i < n_draft; i++) {
            const int32_t right = want->tokens[PROMPT + n + i];
            t.tokens[PROMPT + n + i] = i < n_right ? right : (right + 1) % (int32_t)r->n_vocab;
        }
        const uint32_t got = step(r, &t, PROMPT + n - 1, 1 + n_draft, n_draft, p, run);
        ck_assert_uint_eq(got, 1 + (n_right < n_draft ? n_right : n_draft));
        for (uint32_t i = 0; i < got; i++) {
            same(&run[i], &want->drawn[n + i]);
            t.tokens[PROMPT + n + i] = run[i].token;
        }
        n += got;
    }
}

START_TEST(guesses_change_no_bit_of_a_text) {
    rig r;
    open_model(&r, _i);
    for (int way = 0; way < N_WAYS; way++) {
        const sampling p = sampling_of(way);
        text t;
        if (way == MASKED) {
            masks = malloc((size_t)OUTPUT * words * sizeof *masks);
            for (size_t i = 0; i < (size_t)OUTPUT * words; i++)
                masks[i] = (uint32_t)hash_mix(i) | (uint32_t)hash_mix(~i);
        }
        write_text(&r, &t, &p);
        for (uint32_t n = 0; n <= DRAFT; n += n < 2 ? 1 : 5) guess_text(&r, &t, &p, n);
        free(masks);
        masks = NULL;
    }
    rig_close(&r);
}
END_TEST

START_TEST(guesses_without_rows_of_their_own_are_refused) {
    rig r;
    open_model(&r, 2);
    const sampling p = sampling_of(GREEDY);
    text t;
    rig_tokens(&r, t.tokens, LEN, 3);
    const struct {
        uint32_t n_rows, n_logit_rows, n_draft;
        bool sample, good;
    } tries[] = {{8, 8, 7, true, true},  {9, 9, 8, true, false},  {7, 7, 7, true, false},
                 {8, 7, 7, true, false}, {8, 8, 7, false, false}, {8, 2, 1, true, true},
                 {8, 1, 1, true, false}};
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        const batch_seq q = {.n_rows = tries[i].n_rows,
                             .tokens = t.tokens,
                             .input_from = -1,
                             .blocks = {table, table, table, table},
                             .n_blocks = {1, 1, 1, 1},
                             .n_logit_rows = tries[i].n_logit_rows,
                             .sample = tries[i].sample,
                             .n_draft = tries[i].n_draft,
                             .n_score = -1,
                             .params = &p,
                             .n_prompt = 1};
        const batch b = {
            .seq = &q, .n_seqs = 1, .n_rows = q.n_rows, .n_logit_rows = q.n_logit_rows};
        step_result s;
        err e;
        ck_assert_int_eq(engine_submit(r.engine, &b, &e), tries[i].good ? OK : ERR_INVALID);
        if (tries[i].good) ck_assert_int_eq(engine_collect(r.engine, &s, &e), OK);
    }
    rig_close(&r);
}
END_TEST

int main(void) {
    Suite *s = suite_create("guesses");
    TCase *t = check_case(s, "guesses");
    tcase_add_loop_test(t, guesses_change_no_bit_of_a_text, 0, N_MODELS);
    tcase_add_test(t, guesses_without_rows_of_their_own_are_refused);
    return check_run(s);
}
