/* Steps as tables: what was written is read back, and what is broken is refused. */
#include "tests/check_main.h"

#include "tests/engine/tables_rig.h"

static tables_rig r;

static uint64_t end_of(const batch_seq *s) {
    return s->first_pos + s->n_rows;
}

static void same_params(const batch_seq *a, const batch_seq *b) {
    const sampling *p = a->params, *q = b->params;
    ck_assert_float_eq(p->temperature, q->temperature);
    ck_assert_int_eq(p->top_k, q->top_k);
    ck_assert_float_eq(p->top_p, q->top_p);
    ck_assert_float_eq(p->min_p, q->min_p);
    ck_assert_float_eq(p->typical_p, q->typical_p);
    ck_assert_float_eq(p->repetition_penalty, q->repetition_penalty);
    ck_assert_float_eq(p->presence_penalty, q->presence_penalty);
    ck_assert_float_eq(p->frequency_penalty, q->frequency_penalty);
    ck_assert_uint_eq(p->seed, q->seed);
    ck_assert_int_eq(p->n_logprobs, q->n_logprobs);
    ck_assert_uint_eq(p->n_bias, q->n_bias);
    for (uint32_t i = 0; i < p->n_bias; i++) {
        ck_assert_int_eq(p->bias[i].token, q->bias[i].token);
        ck_assert_float_eq(p->bias[i].bias, q->bias[i].bias);
    }
    /* End tokens are carried until min_tokens are reached. */
    const bool early = (end_of(a) > a->n_prompt ? end_of(a) - a->n_prompt : 0) < p->min_tokens;
    ck_assert_uint_eq(q->min_tokens, early ? p->min_tokens : 0);
    ck_assert_uint_eq(q->n_end_tokens, early ? p->n_end_tokens : 0);
    for (uint32_t i = 0; i < q->n_end_tokens; i++)
        ck_assert_int_eq(p->end_tokens[i], q->end_tokens[i]);
    ck_assert_int_eq(a->allowed != NULL, b->allowed != NULL);
    if (a->allowed) ck_assert_mem_eq(a->allowed, b->allowed, TR_WORDS * sizeof *a->allowed);
    if (!sampling_penalises(p)) return;
    const uint64_t n = a->input_from >= 0 ? a->first_pos : end_of(a);
    for (uint64_t k = 0; k < n; k++) ck_assert_int_eq(a->tokens[k], b->tokens[k]);
}

static void same_seq(const batch_seq *a, const batch_seq *b) {
    ck_assert_uint_eq(a->first_row, b->first_row);
    ck_assert_uint_eq(a->n_rows, b->n_rows);
    ck_assert_uint_eq(a->first_pos, b->first_pos);
    ck_assert_int_eq(a->input_from, b->input_from);
    ck_assert_uint_eq(a->n_logit_rows, b->n_logit_rows);
    ck_assert_int_eq(a->sample, b->sample);
    ck_assert_int_eq(a->n_score, b->n_score);
    ck_assert_uint_eq(a->n_prompt, b->n_prompt);
    for (uint64_t k = a->first_pos; a->input_from < 0 && k < end_of(a); k++)
        ck_assert_int_eq(a->tokens[k], b->tokens[k]);
    for (uint32_t k = 0; k < tables_scores_of(a); k++) {
        const uint64_t next = end_of(a) - a->n_logit_rows + k + 1;
        ck_assert_int_eq(a->tokens[next], b->tokens[next]);
    }
    for (uint32_t g = 0; g < TR_GROUPS; g++) {
        ck_assert_uint_eq(a->n_blocks[g], b->n_blocks[g]);
        for (uint32_t k = 0; k < a->n_blocks[g]; k++)
            ck_assert_int_eq(a->blocks[g][k], b->blocks[g][k]);
    }
    if (a->sample) same_params(a, b);
    if (!r.m.n_states) return;
    ck_assert(a->state == b->state && a->n_checkpoints == b->n_checkpoints);
    for (uint32_t k = 0; k < a->n_checkpoints; k++)
        ck_assert_mem_eq(&a->checkpoints[k], &b->checkpoints[k], sizeof *a->checkpoints);
}

/* Copies come back by group; within a group in order. */
static void same_copies(const batch *a, const batch *b) {
    uint32_t at = 0;
    ck_assert_uint_eq(a->n_copies, b->n_copies);
    for (uint32_t g = 0; g <= ENGINE_COPY_STATE; g++)
        for (uint32_t i = 0; i < a->n_copies; i++) {
            if (a->copies[i].group != g) continue;
            ck_assert_mem_eq(&a->copies[i], &b->copies[at], sizeof(block_copy));
            at++;
        }
}

static status read_back(const void *bytes, uint64_t n, batch *out, err *e) {
    return tables_read(out, bytes, n, &r.m, &r.o, &r.store, e);
}

START_TEST(a_random_batch_comes_back_as_it_was) {
    uint32_t n_masks = 0, n_scores = 0, n_histories = 0;
    for (uint64_t seed = 0; seed < 5000; seed++) {
        batch got;
        err e;
        tr_make(&r, seed);
        const uint64_t n = tr_fill(&r);
        ck_assert_msg(read_back(r.bytes, n, &got, &e) == OK, "seed %lu: %s",
                      (unsigned long)seed, e.text);
        ck_assert_uint_eq(got.n_seqs, r.b.n_seqs);
        ck_assert_uint_eq(got.n_rows, r.b.n_rows);
        ck_assert_uint_eq(got.n_logit_rows, r.b.n_logit_rows);
        for (uint32_t i = 0; i < got.n_seqs; i++) {
            same_seq(&r.b.seq[i], &got.seq[i]);
            n_masks += got.seq[i].allowed != NULL;
            n_scores += tables_scores_of(&got.seq[i]);
            n_histories += got.seq[i].sample && sampling_penalises(got.seq[i].params);
        }
        same_copies(&r.b, &got);
    }
    ck_assert(n_masks > 1000 && n_scores > 1000 && n_histories > 1000);
}
END_TEST

START_TEST(a_batch_read_and_written_again_is_the_same_bytes) {
    static _Alignas(64) unsigned char again[TR_BYTES];
    for (uint64_t seed = 0; seed < 1000; seed++) {
        batch got;
        err e;
        tr_make(&r, seed);
        const uint64_t n = tr_fill(&r);
        ck_assert_int_eq(read_back(r.bytes, n, &got, &e), OK);
        const tables_shape shape = tables_measure(&r.m, &got);
        memset(again, 0, sizeof again);
        ck_assert_uint_eq(tables_fill(again, &r.m, &shape, &got), n);
        ck_assert_mem_eq(again, r.bytes, n);
    }
}
END_TEST

START_TEST(the_layout_is_the_one_that_the_header_draws) {
    const tables_shape s = {.n_rows = 1, .n_seqs = 1, .n_logit_rows = 1, .stride = 3};
    const tables_at t = tables_lay(1, &s);
    ck_assert_uint_eq(t.sampling, 128);
    ck_assert_uint_eq(t.token, 256);
    ck_assert_uint_eq(t.from, 320);
    ck_assert_uint_eq(t.pos, 384);
    ck_assert_uint_eq(t.gathered, 768);
    ck_assert_uint_eq(t.blocks[0], 832);
    ck_assert_uint_eq(t.lists, 896);
    ck_assert_uint_eq(sizeof(tables_sampling), 100);
    ck_assert_uint_eq(sizeof(tables_head), 88);
}
END_TEST

START_TEST(truncated_tables_are_refused) {
    for (uint64_t seed = 0; seed < 40; seed++) {
        batch got;
        err e = {0};
        tr_make(&r, seed);
        const uint64_t n = tr_fill(&r);
        for (uint64_t cut = 0; cut < n; cut++) {
            unsigned char *copy = aligned_alloc(64, align_up(cut + 1, 64));
            memcpy(copy, r.bytes, cut);
            ck_assert_int_eq(read_back(copy, cut, &got, &e), ERR_INVALID);
            ck_assert_str_eq(e.field, "tables");
            free(copy);
        }
    }
}
END_TEST

/* Overwrites 4 bytes of good tables: each must be refused. */
static void refused_with(uint64_t at, uint32_t value) {
    batch got;
    err e = {0};
    const uint64_t n = tr_fill(&r);
    ck_assert_int_eq(read_back(r.bytes, n, &got, &e), OK);
    memcpy(r.bytes + at, &value, 4);
    ck_assert_msg(read_back(r.bytes, n, &got, &e) == ERR_INVALID, "byte %lu as %u",
                  (unsigned long)at, value);
}

START_TEST(tables_that_contradict_themselves_are_refused) {
    uint64_t seed = 0;
    do tr_make(&r, seed++);
    while (r.b.n_seqs < 3 || !r.m.n_states || !r.seq[1].n_checkpoints || !r.seq[1].allowed ||
           !sampling_penalises(&r.params[1]) || r.seq[1].input_from >= 0 ||
           !r.params[1].n_bias);
    const tables_shape s = tables_measure(&r.m, &r.b);
    const tables_at t = tables_lay(TR_GROUPS, &s);
    const uint64_t one = t.sampling + sizeof(tables_sampling); /* of entry 1 */
    refused_with(offsetof(tables_head, magic), 7);
    refused_with(offsetof(tables_head, version), 1);
    refused_with(offsetof(tables_head, n_groups), 3);
    refused_with(offsetof(tables_head, block_tokens), 16);
    refused_with(offsetof(tables_head, n_rows), r.b.n_rows + 1);
    refused_with(offsetof(tables_head, shape.n_rows), UINT32_MAX);
    refused_with(offsetof(tables_head, shape.stride), 1u << 30);
    refused_with(t.first_row + 4, 0);
    refused_with(t.n_rows + 4, 0);
    refused_with(t.first_pos + 4, TR_LEN);
    refused_with(t.pos, (uint32_t)-1);
    refused_with(t.entry, 1);
    refused_with(t.from, (uint32_t)-2);
    refused_with(t.gathered, (uint32_t)-1);
    refused_with(t.state + 4, TR_STATES);
    refused_with(t.state + 4, (uint32_t)-1);
    refused_with(t.checkpoints, TR_SEQS);
    refused_with(t.checkpoints + 4, TR_LEN + 1);
    refused_with(t.checkpoints + 8, TR_STATES);
    refused_with(offsetof(tables_head, shape.n_checkpoints), 1u << 20);
    refused_with(one + offsetof(tables_sampling, logit_row), 60);
    refused_with(one + offsetof(tables_sampling, position), 0);
    refused_with(one + offsetof(tables_sampling, n_score), 99);
    refused_with(one + offsetof(tables_sampling, n_allowed), TR_WORDS - 1);
    refused_with(one + offsetof(tables_sampling, allowed_at), UINT32_MAX);
    refused_with(one + offsetof(tables_sampling, bias_at), UINT32_MAX);
    refused_with(one + offsetof(tables_sampling, n_bias), UINT32_MAX);
    refused_with(one + offsetof(tables_sampling, n_end), UINT32_MAX);
    refused_with(one + offsetof(tables_sampling, n_history), 0);
    refused_with(one + offsetof(tables_sampling, history_from), 3);
    refused_with(one + offsetof(tables_sampling, n_logprobs), 21);
}
END_TEST

START_TEST(padding_is_accepted_only_where_it_computes_nothing) {
    batch got;
    err e;
    tr_make(&r, 3);
    tables_shape s = tables_measure(&r.m, &r.b);
    const tables_shape real = s;
    ck_assert_uint_lt(s.n_seqs, TR_SEQS);
    s.n_seqs++, s.n_rows++;
    const tables_at t = tables_lay(TR_GROUPS, &s);
    memset(r.bytes, 0, sizeof r.bytes);
    const uint64_t n = tables_fill(r.bytes, &r.m, &s, &r.b);
    int32_t *logit_row =
        (int32_t *)(r.bytes + t.sampling + real.n_seqs * sizeof(tables_sampling));
    int32_t *pos = (int32_t *)(r.bytes + t.pos) + real.n_rows,
            *from = (int32_t *)(r.bytes + t.from) + real.n_rows;
    *logit_row = *pos = *from = -1;
    ck_assert_msg(read_back(r.bytes, n, &got, &e) == OK, "%s", e.text);
    ck_assert_uint_eq(got.n_seqs, real.n_seqs);
    *logit_row = 0;
    ck_assert_int_eq(read_back(r.bytes, n, &got, &e), ERR_INVALID);
    *logit_row = -1, *pos = 0;
    ck_assert_int_eq(read_back(r.bytes, n, &got, &e), ERR_INVALID);
}
END_TEST

CHECK_MAIN("tables", a_random_batch_comes_back_as_it_was,
           a_batch_read_and_written_again_is_the_same_bytes,
           the_layout_is_the_one_that_the_header_draws, truncated_tables_are_refused,
           tables_that_contradict_themselves_are_refused,
           padding_is_accepted_only_where_it_computes_nothing)
