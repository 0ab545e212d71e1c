/* The programs of ranks and stages: together they have all of a model, each output once. */
#include <stdlib.h>

#include "model/shard.h"
#include "tests/check_main.h"
#include "tests/model/gguf_build.h"

static gb b;
static checkpoint *file;
static model *whole;

static void open_model(const model_config *c, dtype type) {
    char path[64];
    err e;
    gb_init(&b);
    gb_model_keys(&b, c);
    gb_model_tensors(&b, c, type, 1);
    gb_open(&b, path);
    ck_assert_msg(checkpoint_open(&file, path, &e) == OK, "%s", e.text);
    ck_assert_msg(model_open(&whole, file, &e) == OK, "%s", e.text);
}

static void close_model(void) {
    model_close(whole);
    checkpoint_close(file);
    gb_clear(&b);
}

static model *part_of(shard s) {
    model *m;
    err e;
    ck_assert_msg(model_shard(&m, whole, &s, &e) == OK, "%s", e.text);
    return m;
}

static uint64_t n_ops(const program *p, op_kind k) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) n += p->ops[i].kind == k;
    return n;
}

/* Rows of all matrices of a name, of K and V apart, which ranks may hold together. */
static void count_rows(const program *p, uint64_t *matrices, uint64_t *kv) {
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const weight *w = &p->weights[i];
        if (!weight_is_matrix(w) || strstr(w->name, "gate_inp")) continue;
        const bool is_kv = strstr(w->name, "attn_k.") || strstr(w->name, "attn_v.");
        *(is_kv ? kv : matrices) += weight_rows(w);
    }
}

START_TEST(outputs_are_cut_once) {
    for (uint32_t n = 1; n < 400; n += 1 + n / 7)
        for (uint32_t ranks = 1; ranks <= 9; ranks++) {
            uint32_t at = 0;
            for (uint32_t r = 0; r < ranks; r++) {
                const shard_range x = shard_outputs(&(shard){.rank = r, .n_ranks = ranks}, n);
                ck_assert_uint_eq(x.from, at);
                ck_assert(n / SHARD_STRIP < ranks || x.from % SHARD_STRIP == 0);
                ck_assert(n < ranks || x.n > 0);
                at += x.n;
            }
            ck_assert_uint_eq(at, n);
        }
}
END_TEST

/* Every query head is one rank's, and stands beside its KV head there. */
START_TEST(heads_are_cut_once) {
    static const head_shape shapes[] = {
        {9, 3, 64}, {8, 1, 64}, {32, 8, 128}, {11, 11, 32}, {10, 5, 16}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        const head_shape *h = &shapes[k];
        const uint32_t group = heads_group(h);
        for (uint32_t ranks = 1; ranks <= h->n_heads; ranks++) {
            uint32_t at = 0;
            for (uint32_t r = 0; r < ranks; r++) {
                const shard_heads x = shard_heads_of(&(shard){.rank = r, .n_ranks = ranks}, h);
                ck_assert_uint_eq(x.q.from, at);
                ck_assert_uint_gt(x.q.n, 0);
                ck_assert_uint_eq(x.q.from / group, x.kv.from);
                ck_assert_uint_eq((x.q.from + x.q.n - 1) / group, x.kv.from + x.kv.n - 1);
                ck_assert_uint_eq(x.q.n % x.kv.n, 0);
                ck_assert_uint_le(x.kv.n, ceil_div(h->n_kv_heads, ranks));
                at += x.q.n;
            }
            ck_assert_uint_eq(at, h->n_heads);
        }
    }
}
END_TEST

START_TEST(ranks_have_all_of_a_model) {
    static const struct {
        const char *arch;
        uint32_t heads, kv, experts;
    } of[] = {{"llama", 9, 3, 0}, {"phi3", 8, 2, 0}, {"qwen2", 6, 3, 0}, {"llama", 8, 4, 5}};
    model_config c = gb_tiny(of[_i].arch);
    c.n_heads = of[_i].heads, c.n_kv_heads = of[_i].kv, c.n_vocab = 131;
    if (of[_i].experts) c.n_experts = of[_i].experts, c.n_experts_used = 2;
    open_model(&c, DT_Q8_0);
    uint64_t all = 0, all_kv = 0;
    count_rows(&whole->program, &all, &all_kv);
    for (uint32_t n = 2; n <= c.n_heads; n++) {
        uint64_t sum = 0, sum_kv = 0;
        uint32_t gathers = 0;
        for (uint32_t r = 0; r < n; r++) {
            model *m = part_of((shard){.rank = r, .n_ranks = n});
            const program *p = &m->program;
            count_rows(p, &sum, &sum_kv);
            const uint32_t g = (uint32_t)n_ops(p, OP_ALL_GATHER);
            ck_assert(r == 0 || g == gathers);
            gathers = g;
            ck_assert_uint_eq(n_ops(p, OP_SAMPLE), r == 0);
            ck_assert_uint_eq(
                p->group[0].n_kv_heads,
                shard_heads_of(&p->part, &(head_shape){c.n_heads, c.n_kv_heads, 32}).kv.n);
            model_close(m);
        }
        const bool fused = !all_kv;
        if (n <= c.n_kv_heads || !fused) ck_assert_uint_eq(sum, all);
        if (n <= c.n_kv_heads) ck_assert_uint_eq(sum_kv, all_kv);
        if (n > c.n_kv_heads && !fused) ck_assert_uint_gt(sum_kv, all_kv);
        ck_assert_uint_eq(gathers, 2 + 4 * c.n_layers);
    }
    close_model();
}
END_TEST

START_TEST(stages_have_all_layers) {
    model_config c = gb_tiny("llama");
    c.n_layers = 7;
    open_model(&c, DT_Q8_0);
    for (uint32_t n = 1; n <= 7; n++) {
        uint32_t next = 0;
        for (uint32_t s = 0; s < n; s++) {
            model *m = part_of((shard){.n_ranks = 1, .stage = s, .n_stages = n});
            const program *p = &m->program;
            for (uint32_t i = 0; i < p->n_ops; i++) {
                if (p->ops[i].kind != OP_ATTENTION) continue;
                ck_assert_int_eq(p->ops[i].layer, (int)next);
                next++;
            }
            ck_assert_uint_eq(n_ops(p, OP_EMBED), s == 0);
            ck_assert_uint_eq(n_ops(p, OP_RECV), n > 1); /* the first: logits */
            ck_assert_uint_eq(n_ops(p, OP_SEND), n > 1);
            ck_assert_uint_eq(n_ops(p, OP_SAMPLE), s == 0);
            model_close(m);
        }
        ck_assert_uint_eq(next, 7);
    }
    close_model();
}
END_TEST

START_TEST(what_cannot_be_cut_is_named) {
    model_config c = gb_tiny("llama");
    model *m;
    err e;
    open_model(&c, DT_Q8_0);
    ck_assert_int_eq(model_shard(&m, whole, &(shard){.n_ranks = 5}, &e), ERR_INVALID);
    ck_assert_str_eq(e.field, "tensor_parallel_size");
    ck_assert_str_eq(e.text, "5 ranks, but layer 0 has 4 query heads");
    ck_assert_int_eq(model_shard(&m, whole, &(shard){.n_stages = 3}, &e), ERR_INVALID);
    ck_assert_str_eq(e.text, "3 stages, but the model has 2 layers");
    close_model();
    c = gb_tiny("olmo2");
    open_model(&c, DT_Q8_0);
    ck_assert_int_eq(model_shard(&m, whole, &(shard){.n_ranks = 2}, &e), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "head_norm");
    close_model();
}
END_TEST

int main(void) {
    Suite *s = suite_create("shard");
    TCase *t = check_case(s, "shard");
    tcase_add_test(t, outputs_are_cut_once);
    tcase_add_test(t, heads_are_cut_once);
    tcase_add_loop_test(t, ranks_have_all_of_a_model, 0, 4);
    tcase_add_test(t, stages_have_all_layers);
    tcase_add_test(t, what_cannot_be_cut_is_named);
    return check_run(s);
}
