/* memory/plan.c, memory/budget.c and memory/term.c through their headers. */
#include <stdlib.h>

#include "memory/plan.h"
#include "tests/check_main.h"

enum { MIB = 1 << 20 };

static terms fixed_terms(void) {
    terms t = {0};
    terms_add(&t, MEM_WEIGHTS, TERM_EXACT, 90 * MIB, "blk.*.ffn_* Q4_1");
    terms_add(&t, MEM_ACTIVATIONS, TERM_EXACT, 10 * MIB, "step of %d rows", 512);
    terms_add(&t, MEM_LOADING, TERM_EXACT, 4 * MIB, "bounce buffer");
    terms_last_while_loading(&t);
    return t;
}

/* 1 KiB a token, blocks of 16: 16 KiB a block. */
static kv_request request(uint64_t min, uint64_t max, uint64_t want) {
    return (kv_request){.group = {{.n_layers = 2, .bytes_per_token = 1024}},
                        .n_groups = 1,
                        .block_tokens = 16,
                        .min_tokens = min,
                        .max_tokens = max,
                        .want_tokens = want};
}

START_TEST(the_cache_takes_exactly_what_is_left) {
    terms t = fixed_terms();
    kv_request kv = request(1024, 1 << 20, 0);
    budget b = {120 * MIB + 5, "memory = 120MiB", false, NULL};
    plan p;
    err e;
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), OK);
    ck_assert(p.fits);
    ck_assert_uint_eq(p.kv_block_bytes, 16 * 1024);
    ck_assert_uint_eq(p.kv_blocks, 20 * MIB / (16 * 1024));
    ck_assert_uint_eq(p.total_bytes, 120 * MIB);
    ck_assert_uint_eq(p.kv_tokens, p.kv_blocks * 16);
    ck_assert_uint_eq(terms_sum(&p.terms, MEM_KV), 20 * MIB);
    ck_assert_uint_eq(p.budget_bytes, b.bytes);
    plan_clear(&p);
    terms_clear(&t);
}
END_TEST

START_TEST(more_than_all_sequences_can_use_is_not_taken) {
    terms t = fixed_terms();
    kv_request kv = request(100, 1000, 0);
    budget b = {4096ull * MIB, "memory = 4GiB", false, NULL};
    plan p;
    err e;
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), OK);
    ck_assert_uint_eq(p.kv_blocks, 63); /* 1000 tokens round up to 63 blocks */
    plan_clear(&p);
    kv.want_tokens = 320;
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), OK);
    ck_assert_uint_eq(p.kv_blocks, 20);
    plan_clear(&p);
    terms_clear(&t);
}
END_TEST

START_TEST(an_automatic_budget_becomes_what_the_plan_takes) {
    terms t = fixed_terms();
    kv_request kv = request(16, 160, 0);
    budget b = {4096ull * MIB, "the memory available now", true, NULL};
    plan p;
    err e;
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), OK);
    ck_assert_uint_eq(p.total_bytes, 100 * MIB + 160 * 1024);
    ck_assert_uint_eq(p.load_peak_bytes, 104 * MIB); /* loading needs more than the cache */
    ck_assert_uint_eq(p.budget_bytes, p.load_peak_bytes);
    plan_clear(&p);
    terms_clear(&t);
}
END_TEST

START_TEST(a_refusal_names_the_term_and_the_smallest_budget_which_then_works) {
    terms t = fixed_terms();
    kv_request kv = request(8192, 1 << 20, 0);
    budget b = {105 * MIB, "memory = 105MiB", false, NULL};
    plan p;
    err e;
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), ERR_BUDGET);
    ck_assert(!p.fits);
    ck_assert_str_eq(e.field, "memory");
    ck_assert_ptr_nonnull(strstr(e.text, "class kv"));
    ck_assert_uint_eq(p.smallest_budget_bytes, 108 * MIB);
    ck_assert_ptr_nonnull(strstr(e.hint, "113,246,208"));
    b.bytes = p.smallest_budget_bytes;
    plan_clear(&p);
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), OK);
    ck_assert_uint_eq(p.kv_tokens, 8192);
    plan_clear(&p);
    b.bytes--;
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), ERR_BUDGET);
    plan_clear(&p);
    b.bytes = 50 * MIB;
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), ERR_BUDGET);
    ck_assert_ptr_nonnull(strstr(e.text, "blk.*.ffn_* Q4_1"));
    plan_clear(&p);
    /* The hint names what can help: no option shrinks the weights. */
    ck_assert_ptr_nonnull(strstr(e.hint, "smaller type of weights"));
    ck_assert_ptr_null(strstr(e.hint, "lower"));
    b.bytes = 95 * MIB; /* the weights fit, a step's arenas do not */
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), ERR_BUDGET);
    ck_assert_ptr_nonnull(strstr(e.hint, "lower max_num_batched_tokens"));
    plan_clear(&p);
    b.bytes = 105 * MIB;
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), ERR_BUDGET);
    ck_assert_ptr_nonnull(strstr(e.hint, "lower max_model_len"));
    plan_clear(&p);
    terms_clear(&t);
}
END_TEST

START_TEST(a_group_with_a_window_gets_what_all_sequences_can_hold_of_it) {
    terms t = fixed_terms();
    kv_request kv = request(1024, 64 * 1024, 0);
    budget b = {4096ull * MIB, "memory = 4GiB", false, NULL};
    plan p;
    err e;
    kv.n_groups = 2;
    kv.group[1] = (kv_group_cost){.n_layers = 10, .window = 100, .bytes_per_token = 4096};
    kv.max_seqs = 8;
    kv.max_rows = 50;
    for (kv.depth = 1; kv.depth <= 2; kv.depth++) {
        uint32_t most = kv.depth == 1 ? 11 : 14; /* (99 + 50 or 100 tokens) in 16s, and one */
        ck_assert_uint_eq(kv_window_blocks(100, 16, kv.depth * 50), most);
        ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), OK);
        ck_assert_uint_eq(p.group_blocks[0], 4096);
        ck_assert_uint_eq(p.group_blocks[1], 8 * most);
        ck_assert_uint_eq(p.kv_bytes, 4096ull * 16 * 1024 + 8 * most * 16 * 4096);
        ck_assert_uint_eq(p.total_bytes, 100ull * MIB + p.kv_bytes);
        ck_assert_uint_eq(terms_sum(&p.terms, MEM_KV), p.kv_bytes);
        plan_clear(&p);
    }
    /* n sequences of the longest length, and their windows: the smallest budget holds one. */
    kv.depth = 1;
    kv.min_tokens = 16 * 1024;
    const uint64_t longest = 1024 * 16 * 1024, window = 11 * 16 * 4096;
    for (uint32_t n = 1; n <= 4; n++) {
        b.bytes = 100ull * MIB + n * (longest + window) + 5;
        ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), OK);
        ck_assert_uint_eq(p.smallest_budget_bytes, 100ull * MIB + longest + window);
        ck_assert(p.group_blocks[0] == 1024 * n && p.group_blocks[1] == 11 * n);
        plan_clear(&p);
    }
    /* All 4 of them: what is left goes to windows, for up to 8 shorter sequences. */
    b.bytes = 100ull * MIB + 4 * longest + 6 * window + 5;
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), OK);
    ck_assert(p.group_blocks[0] == 4096 && p.group_blocks[1] == 66);
    plan_clear(&p);
    /* A sequence shorter than the window needs as many blocks of each. */
    kv.min_tokens = 128;
    b.bytes = 100 * MIB + 64 * 16 * (1024 + 4096) + 7;
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), OK);
    ck_assert(p.group_blocks[0] == 64 && p.group_blocks[1] == 64);
    plan_clear(&p);
    terms_clear(&t);
}
END_TEST

/* The newest 64 tokens of another group in a larger type: a block for the rows of a step is there
 * once, not for each sequence, and a token is not said to take both. */
START_TEST(a_tail_has_the_rows_of_a_step_once) {
    terms t = fixed_terms();
    kv_request kv = request(16 * 1024, 64 * 1024, 0);
    budget b = {4096ull * MIB, "memory = 4GiB", false, NULL};
    plan p;
    err e;
    kv.n_groups = 2, kv.depth = 1, kv.max_seqs = 8, kv.max_rows = 500;
    kv.group[1] =
        (kv_group_cost){.n_layers = 10, .window = 64, .bytes_per_token = 4096, .tail = true};
    ck_assert_uint_eq(kv_window_share(64, 16), 6);
    ck_assert_uint_eq(kv_rows_blocks(1, 500, 16), 32);
    ck_assert_uint_eq(kv_rows_blocks(2, 500, 16), 94);
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), OK);
    ck_assert(p.group_blocks[0] == 4096 && p.group_blocks[1] == 8 * 6 + 32);
    ck_assert(p.kv_bytes_per_token == 1024 && p.tail_bytes_per_token == 4096);
    ck_assert_uint_eq(terms_sum(&p.terms, MEM_KV), p.kv_bytes);
    const term *last = &p.terms.v[p.terms.n - 1];
    ck_assert_str_eq(last->what, "80 blocks of 16 tokens, 10 layers: newest 64 tokens in full");
    plan_clear(&p);
    /* Two sequences of the longest length. */
    b.bytes = 100ull * MIB + 2048 * 16 * 1024 + (2 * 6 + 32) * 16 * 4096 + 5;
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), OK);
    ck_assert_uint_eq(p.smallest_budget_bytes,
                      100ull * MIB + 1024 * 16 * 1024 + 38 * 16 * 4096);
    ck_assert(p.group_blocks[0] == 2048 && p.group_blocks[1] == 2 * 6 + 32);
    plan_clear(&p);
    terms_clear(&t);
}
END_TEST

/* Gemma 3 27B beside 10.4 GB: 10 layers without a window, 52 with one of 1,024, 16 heads of 128
 * in f16: a sequence of 8,192 tokens needs 512 blocks and 97, so that 43,276 blocks of a layer
 * hold 4.25 of them. Blocks in equal numbers would hold 1.4. */
START_TEST(short_of_memory_groups_share_it_in_proportion_to_what_a_sequence_needs) {
    enum { LAYER = 2 * 16 * 128 * 2 };
    terms t = {0};
    kv_request kv = {.group = {{.n_layers = 52, .window = 1024, .bytes_per_token = 52 * LAYER},
                               {.n_layers = 10, .bytes_per_token = 10 * LAYER}},
                     .n_groups = 2,
                     .block_tokens = 16,
                     .min_tokens = 8192,
                     .max_tokens = 32 * 8192,
                     .max_seqs = 32,
                     .depth = 1,
                     .max_rows = 512};
    const uint64_t layer_block = 16ull * LAYER;
    budget b = {43276 * layer_block, "memory", false, NULL};
    plan p;
    err e;
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), OK);
    ck_assert(p.group_blocks[1] * 100 / 512 >= 424 && p.group_blocks[0] * 100 / 97 >= 424);
    ck_assert_uint_eq(p.kv_tokens, p.group_blocks[1] * 16);
    ck_assert(plan_sequences(&p) > 4.24 && plan_sequences(&p) < 4.27);
    ck_assert_uint_eq(p.kv_bytes,
                      (p.group_blocks[0] * 52 + p.group_blocks[1] * 10) * layer_block);
    ck_assert_uint_le(p.kv_bytes, b.bytes);
    ck_assert_uint_lt(b.bytes - p.kv_bytes, 62 * layer_block); /* nothing is lost */
    ck_assert(p.in_proportion);
    plan_clear(&p);
    b.bytes *= 100;
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), OK);
    ck_assert(!p.in_proportion && p.group_blocks[0] == 32 * 97);
    plan_clear(&p);
    /* The same without what the budget holds beyond: for the difference between two plans. */
    kv.in_proportion = true;
    kv.want_tokens = 2 * 8192;
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), OK);
    ck_assert(p.group_blocks[0] == 2 * 97 && p.group_blocks[1] == 2 * 512);
    plan_clear(&p);
}
END_TEST

static uint64_t beside(void *arg, const uint32_t *n) {
    return *(uint64_t *)arg + n[0] * 100ull;
}

START_TEST(memory_that_goes_with_the_blocks_is_in_the_budget_to_the_byte) {
    terms t = fixed_terms();
    kv_request kv = request(320, 1 << 20, 0);
    uint64_t fixed = MIB;
    plan p;
    err e;
    kv.beside = beside;
    kv.arg = &fixed;
    for (uint64_t extra = 0; extra < 40000; extra += 997) {
        budget b = {120 * MIB + extra, "memory = 120MiB", false, NULL};
        ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), OK);
        const uint64_t each = 16 * 1024 + 100;
        ck_assert_uint_eq(p.kv_blocks, (19 * MIB + extra) / each);
        ck_assert_uint_eq(p.beside_bytes, MIB + p.kv_blocks * 100);
        ck_assert_uint_eq(terms_sum(&p.terms, MEM_SCHEDULER), p.beside_bytes);
        ck_assert_uint_le(p.total_bytes, b.bytes);
        b.bytes = p.smallest_budget_bytes;
        plan_clear(&p);
        ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), OK);
        ck_assert_uint_ge(p.kv_blocks, 20);
        b.bytes--;
        plan_clear(&p);
        ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), ERR_BUDGET);
        plan_clear(&p);
    }
    terms_clear(&t);
}
END_TEST

START_TEST(sums_beyond_64_bits_are_refused) {
    terms t = {0};
    terms_add(&t, MEM_WEIGHTS, TERM_EXACT, UINT64_MAX, "a");
    terms_add(&t, MEM_WEIGHTS, TERM_EXACT, 1, "b");
    kv_request kv = request(16, 16, 0);
    budget b = {1 << 30, "memory = 1GiB", false, NULL};
    plan p;
    err e;
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), ERR_BUDGET);
    plan_clear(&p);
    terms_clear(&t);
    kv = request(UINT64_MAX / 2, UINT64_MAX / 2, 0);
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, &e), ERR_BUDGET);
    ck_assert_str_eq(e.field, "kv_cache_tokens");
    plan_clear(&p);
}
END_TEST

START_TEST(a_budget_is_read_as_bytes_shares_or_auto) {
    const memory_capacity room = memory_capacity_host();
    budget b;
    err e;
    ck_assert_int_eq(budget_parse(&b, "memory", "64MiB", &room, &e), OK);
    ck_assert_uint_eq(b.bytes, 64 * MIB);
    ck_assert(!b.automatic);
    ck_assert_int_eq(budget_parse(&b, "memory", "50%", &room, &e), OK);
    uint64_t half = b.bytes;
    ck_assert_int_eq(budget_parse(&b, "memory", "0.5", &room, &e), OK);
    ck_assert_uint_eq(b.bytes, half);
    ck_assert_uint_gt(half, 0);
    ck_assert_uint_le(half, machine_total_bytes() / 2 + 1);
    ck_assert_int_eq(budget_parse(&b, "memory", "auto", &room, &e), OK);
    ck_assert(b.automatic);
    ck_assert_uint_gt(b.bytes, 0);
    const char *bad[] = {"", "x", "0", "-1", "120%", "1.5", "0.0", "nan", "6GiBs", "0x10"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_msg(budget_parse(&b, "memory", bad[i], &room, &e) == ERR_INVALID, "%s",
                      bad[i]);
        ck_assert_str_eq(e.field, "memory");
    }
    ck_assert_int_eq(budget_parse(&b, "memory", "9000TiB", &room, &e), ERR_BUDGET);
    ck_assert(strstr(e.hint, "give at most ") && strstr(e.hint, " bytes ("));
}
END_TEST

START_TEST(a_budget_without_its_unit_is_refused) {
    const memory_capacity room = {"NVIDIA H200", "the device's free memory", 1000 * MIB,
                                  700 * MIB};
    budget b;
    err e;
    ck_assert_int_eq(budget_parse(&b, "memory", "10", &room, &e), ERR_INVALID);
    ck_assert_str_eq(e.text, "memory = 10 is 10 bytes: a unit is missing");
    ck_assert_str_eq(e.hint, "10GiB, or 10% of NVIDIA H200");
    ck_assert_int_eq(budget_parse(&b, "memory", "2000", &room, &e), ERR_INVALID);
    ck_assert_str_eq(e.hint, "2000MiB, or 2000GiB");
    ck_assert_int_eq(budget_parse(&b, "memory", "104857600", &room, &e), OK);
    ck_assert_uint_eq(b.bytes, 100 * MIB);
}
END_TEST

START_TEST(a_budget_of_a_device_is_a_share_of_its_memory_and_names_its_option) {
    const memory_capacity room = {"NVIDIA H200", "the device's free memory", 1000 * MIB,
                                  700 * MIB};
    budget b;
    err e;
    ck_assert_int_eq(budget_parse(&b, "memory", "50%", &room, &e), OK);
    ck_assert_uint_eq(b.bytes, 500 * MIB);
    ck_assert_int_eq(budget_parse(&b, "memory", "auto", &room, &e), OK);
    ck_assert_uint_eq(b.bytes, 700 * MIB);
    ck_assert_str_eq(b.source, "the device's free memory");
    ck_assert_int_eq(budget_parse(&b, "host_memory", "1001MiB", &room, &e), ERR_BUDGET);
    ck_assert_str_eq(e.field, "host_memory");
    ck_assert_ptr_nonnull(strstr(e.text, "NVIDIA H200 has"));
}
END_TEST

START_TEST(a_cgroups_limit_holds_the_budget_and_the_kernels_part) {
    const uint64_t total = 1000 * MIB, available = 700 * MIB, limit = 510 * MIB;
    budget b;
    err e;
    memory_capacity room = memory_capacity_within(limit, total, available);
    ck_assert_int_eq(budget_parse(&b, "memory", "auto", &room, &e), OK);
    ck_assert_uint_eq(b.bytes, 500 * MIB);
    ck_assert_str_eq(b.source, "the cgroup's memory.max less 2%");
    ck_assert_int_eq(budget_parse(&b, "memory", "100%", &room, &e), OK);
    ck_assert_uint_eq(b.bytes, 500 * MIB);
    ck_assert_int_eq(budget_parse(&b, "memory", "500MiB", &room, &e), OK);
    ck_assert_int_eq(budget_parse(&b, "memory", "501MiB", &room, &e), ERR_BUDGET);
    ck_assert_str_eq(e.text, "memory = 501MiB is 501.0 MiB, but the cgroup, less 2% for the "
                             "kernel, has 500.0 MiB");
    room = memory_capacity_within(limit, total, 300 * MIB); /* others have taken the rest */
    ck_assert_uint_eq(room.available, 300 * MIB);
    ck_assert_uint_eq(room.total, 500 * MIB);
    room = memory_capacity_within(UINT64_MAX, total, available);
    ck_assert_uint_eq(room.total, total);
    ck_assert_uint_eq(room.available, available);
    ck_assert_str_eq(room.name, "the machine");
}
END_TEST

START_TEST(terms_of_a_device_are_planned_apart_from_the_hosts) {
    terms t = {0}, dev = {0};
    terms_add(&t, MEM_WEIGHTS, TERM_EXACT, 100 * MIB, "weights");
    terms_last_on_device(&t);
    terms_add(&t, MEM_TOKENIZER, TERM_EXACT, 3 * MIB, "vocabulary");
    terms_add(&t, MEM_LOADING, TERM_EXACT, 5 * MIB, "bounce");
    terms_last_while_loading(&t);
    terms_last_on_device(&t);
    terms_split(&t, &dev);
    ck_assert_uint_eq(t.n, 1);
    ck_assert_uint_eq(dev.n, 2);
    ck_assert(dev.v[1].while_loading && dev.v[1].on_device);
    ck_assert_uint_eq(terms_sum(&dev, MEM_WEIGHTS), 100 * MIB);
    /* Host memory beside a device: nothing but its terms. */
    kv_request none = {.block_tokens = 16};
    budget b = {2 * MIB, "host_memory = 2MiB", false, "host_memory"};
    plan p;
    err e;
    ck_assert_int_eq(plan_solve(&p, &t, &none, &b, &e), ERR_BUDGET);
    ck_assert_str_eq(e.field, "host_memory");
    ck_assert_uint_eq(p.smallest_budget_bytes, 3 * MIB);
    plan_clear(&p);
    b.bytes = 3 * MIB;
    ck_assert_int_eq(plan_solve(&p, &t, &none, &b, &e), OK);
    ck_assert_uint_eq(p.total_bytes, 3 * MIB);
    ck_assert_uint_eq(p.kv_blocks, 0);
    plan_clear(&p);
    terms_clear(&t);
    terms_clear(&dev);
}
END_TEST

CHECK_MAIN("plan", the_cache_takes_exactly_what_is_left,
           more_than_all_sequences_can_use_is_not_taken,
           an_automatic_budget_becomes_what_the_plan_takes,
           a_refusal_names_the_term_and_the_smallest_budget_which_then_works,
           a_group_with_a_window_gets_what_all_sequences_can_hold_of_it,
           a_tail_has_the_rows_of_a_step_once,
           short_of_memory_groups_share_it_in_proportion_to_what_a_sequence_needs,
           memory_that_goes_with_the_blocks_is_in_the_budget_to_the_byte,
           sums_beyond_64_bits_are_refused, a_budget_is_read_as_bytes_shares_or_auto,
           a_budget_without_its_unit_is_refused,
           a_budget_of_a_device_is_a_share_of_its_memory_and_names_its_option,
           a_cgroups_limit_holds_the_budget_and_the_kernels_part,
           terms_of_a_device_are_planned_apart_from_the_hosts)
