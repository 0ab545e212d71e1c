/* Percentiles, prompts, figures and what is written of them. */
#include "tests/check_main.h"

#include <math.h>

#include "json/in.h"
#include "load/plot.h"
#include "load/report.h"

START_TEST(percentiles_are_numpys) {
    /* numpy.percentile([15, 20, 35, 40, 50], [50, 90, 99]) */
    double v[] = {50, 15, 40, 20, 35}, one[] = {7};
    load_dist d = load_dist_of(v, 5);
    ck_assert_double_eq_tol(d.mean, 32, 1e-12);
    ck_assert_double_eq_tol(d.p50, 35, 1e-12);
    ck_assert_double_eq_tol(d.p90, 46, 1e-12);
    ck_assert_double_eq_tol(d.p99, 49.6, 1e-12);
    ck_assert_double_eq_tol(d.max, 50, 1e-12);
    d = load_dist_of(one, 1);
    ck_assert_double_eq_tol(d.p99, 7, 1e-12);
    ck_assert_uint_eq(load_dist_of(NULL, 0).n, 0);
}
END_TEST

/* ---- prompts ---- */

static const json_t *body_of(load_spec *s, const load_vocab *v, uint64_t index,
                             const trace_row *row, arena *mem) {
    load_job j = {.index = index};
    const json_t *o;
    err e;
    s->model = "m\"x";
    ck_assert_int_eq(load_job_make(&j, s, v, row, &e), OK);
    ck_assert_int_eq(json_in_parse(&o, mem, buf_str(&j.body), &e), OK);
    buf_clear(&j.body);
    return o;
}

static size_t shared(const json_t *a, const json_t *b) {
    size_t n = 0;
    while (n < json_array_size(a) && n < json_array_size(b) &&
           json_equal(json_array_get(a, n), json_array_get(b, n)))
        n++;
    return n;
}

static load_vocab some_ids(void) {
    load_vocab v = {.tokens_per_word = 1};
    vec_i32_init(&v.ids, NULL);
    for (int i = 0; i < 1000; i++) vec_i32_push(&v.ids, 100 + i);
    return v;
}

START_TEST(prompts_are_the_same_by_seed_and_share_what_they_are_told_to) {
    arena mem;
    arena_init(&mem, chunks_heap(), 0);
    load_vocab v = some_ids();
    load_spec s = {.prompt_tokens = 100, .output_tokens = 7, .prefix_share = 0.25, .seed = 3};
    const json_t *a = json_object_get(body_of(&s, &v, 0, NULL, &mem), "prompt");
    const json_t *again = json_object_get(body_of(&s, &v, 0, NULL, &mem), "prompt");
    const json_t *b = json_object_get(body_of(&s, &v, 1, NULL, &mem), "prompt");
    ck_assert_uint_eq(json_array_size(a), 100);
    ck_assert(json_equal(a, again));
    ck_assert_uint_ge(shared(a, b), 25);
    ck_assert_uint_lt(shared(a, b), 29);
    s.seed = 4;
    const json_t *other = json_object_get(body_of(&s, &v, 0, NULL, &mem), "prompt");
    ck_assert_uint_lt(shared(a, other), 4);
    vec_i32_clear(&v.ids);
    arena_clear(&mem);
}
END_TEST

START_TEST(a_body_asks_for_a_stream_with_usage_and_no_early_end) {
    arena mem;
    arena_init(&mem, chunks_heap(), 0);
    load_vocab v = {.tokens_per_word = 2};
    load_spec s = {.prompt_tokens = 20, .output_tokens = 7, .chat = true};
    const json_t *o = body_of(&s, &v, 0, NULL, &mem);
    ck_assert_str_eq(json_string_value(json_object_get(o, "model")), "m\"x");
    ck_assert(json_is_true(json_object_get(o, "stream")));
    ck_assert(json_is_true(json_object_get(o, "ignore_eos")));
    ck_assert(
        json_is_true(json_object_get(json_object_get(o, "stream_options"), "include_usage")));
    ck_assert_int_eq(json_integer_value(json_object_get(o, "max_tokens")), 7);
    const char *text = json_string_value(
        json_object_get(json_array_get(json_object_get(o, "messages"), 0), "content"));
    size_t words = 1;
    for (const char *p = text; *p; p++) words += *p == ' ';
    ck_assert_uint_eq(words, 10); /* of two tokens each */
    arena_clear(&mem);
}
END_TEST

START_TEST(blocks_with_the_same_hash_are_the_same_tokens) {
    arena mem;
    arena_init(&mem, chunks_heap(), 0);
    load_vocab v = some_ids();
    uint64_t hashes[] = {5, 6, 5, 7};
    load_spec s = {.mode = LOAD_TRACE, .trace = {.hashes = hashes, .n_hashes = 4}};
    trace_row one = {.prompt_tokens = 600, .output_tokens = 9, .n_hashes = 2, .hashes = 0};
    trace_row two = {.prompt_tokens = 1000, .output_tokens = 9, .n_hashes = 2, .hashes = 2};
    const json_t *a = json_object_get(body_of(&s, &v, 0, &one, &mem), "prompt");
    const json_t *b = json_object_get(body_of(&s, &v, 1, &two, &mem), "prompt");
    ck_assert_uint_eq(json_array_size(a), 600);
    ck_assert_uint_eq(json_array_size(b), 1000);
    ck_assert_uint_ge(shared(a, b), 512);
    ck_assert_uint_lt(shared(a, b), 516);
    s.cap_prompt = s.cap_output = true;
    s.prompt_tokens = 40, s.output_tokens = 2;
    const json_t *o = body_of(&s, &v, 2, &one, &mem);
    ck_assert_uint_eq(json_array_size(json_object_get(o, "prompt")), 40);
    ck_assert_int_eq(json_integer_value(json_object_get(o, "max_tokens")), 2);
    vec_i32_clear(&v.ids);
    arena_clear(&mem);
}
END_TEST

START_TEST(lengths_vary_as_they_are_told_to) {
    arena mem;
    arena_init(&mem, chunks_heap(), 0);
    load_vocab v = some_ids();
    load_spec s = {.prompt_tokens = 100, .prompt_stddev = 20, .output_tokens = 7, .seed = 9};
    double sum = 0, squares = 0;
    enum { N = 2000 };
    for (uint64_t i = 0; i < N; i++) {
        double n =
            (double)json_array_size(json_object_get(body_of(&s, &v, i, NULL, &mem), "prompt"));
        sum += n, squares += n * n;
        arena_clear(&mem);
    }
    double mean = sum / N;
    ck_assert_double_eq_tol(mean, 100, 2);
    ck_assert_double_eq_tol(sqrt(squares / N - mean * mean), 20, 2);
    vec_i32_clear(&v.ids);
}
END_TEST

/* ---- figures ---- */

/* Two whole answers, one 429, one reset, one aborted, over 4 s. */
static load_level a_level(load_sample *v, uint32_t *gaps) {
    v[0] = (load_sample){.due_us = 1000000,
                         .ttft_us = 100000,
                         .e2e_us = 1000000,
                         .last_us = 900000,
                         .prompt_tokens = 10,
                         .output_tokens = 3,
                         .n_gaps = 2,
                         .http = 200};
    v[1] = (load_sample){.due_us = 2000000,
                         .ttft_us = 300000,
                         .e2e_us = 3000000,
                         .last_us = 2300000,
                         .prompt_tokens = 10,
                         .output_tokens = 5,
                         .n_gaps = 1,
                         .http = 200,
                         .short_output = true};
    v[2] = (load_sample){
        .due_us = 2500000, .fault = FAULT_STATUS, .http = 429, .why = "say \"please\""};
    v[3] = (load_sample){.due_us = 2500000, .fault = FAULT_CONNECTION, .why = "reset"};
    v[4] = (load_sample){.due_us = 2500000, .fault = FAULT_ABORTED, .why = "interrupted"};
    gaps[0] = 400000, gaps[1] = 400000, gaps[2] = 2000000;
    return (load_level){.value = 2, .v = v, .n = 5, .gaps = {gaps, 3, 3}, .interrupted = true};
}

START_TEST(figures_count_whole_answers_over_the_whole_time) {
    load_sample v[5];
    uint32_t gaps[3];
    load_level l = a_level(v, gaps);
    load_spec s = {.slo_ttft_ms = 200, .slo_itl_ms = 1000};
    load_summary m;
    err e;
    ck_assert_int_eq(load_summarise(&m, &l, &s, &e), OK);
    ck_assert_uint_eq(m.n_ok, 2);
    ck_assert_uint_eq(m.n_failed, 2);
    ck_assert_uint_eq(m.n_short, 1);
    ck_assert_uint_eq(m.faults[FAULT_ABORTED], 1);
    ck_assert_int_eq(m.statuses[0].http, 429);
    ck_assert_str_eq(m.first_error, "say \"please\"");
    ck_assert_double_eq_tol(m.wall_s, 4, 1e-9);
    ck_assert_double_eq_tol(m.output_tokens_per_s, 2, 1e-9);
    ck_assert_double_eq_tol(m.requests_per_s, 0.5, 1e-9);
    ck_assert_double_eq_tol(m.ttft.p50, 200, 1e-9);
    ck_assert_double_eq_tol(m.itl.p50, 400, 1e-9);
    ck_assert_double_eq_tol(m.tpot.mean, (400 + 500) / 2.0, 1e-9);
    ck_assert_uint_eq(m.n_good, 1);
}
END_TEST

START_TEST(the_json_parses_and_has_the_figures) {
    load_sample v[5];
    uint32_t gaps[3];
    load_level l = a_level(v, gaps);
    load_spec s = {.url = "http://h", .model = "m\x01\"", .slo_ttft_ms = 200};
    load_run run = {.spec = &s, .levels = &l, .n = 1, .interrupted = true};
    load_summary m;
    buf b;
    arena mem;
    const json_t *o;
    err e;
    buf_init(&b, NULL);
    arena_init(&mem, chunks_heap(), 0);
    ck_assert_int_eq(load_summarise(&m, &l, &s, &e), OK);
    load_report_json(&b, &run, &m, "2026-01-01T00:00:00Z");
    ck_assert_msg(json_in_parse(&o, &mem, buf_str(&b), &e) == OK, "%s", e.text);
    ck_assert(json_is_true(json_object_get(o, "interrupted")));
    ck_assert_str_eq(json_string_value(json_object_get(json_object_get(o, "config"), "model")),
                     "m\x01\"");
    const json_t *level = json_array_get(json_object_get(o, "levels"), 0);
    const json_t *errors = json_object_get(level, "errors");
    ck_assert_int_eq(
        json_integer_value(json_object_get(json_object_get(errors, "status"), "429")), 1);
    ck_assert_int_eq(json_integer_value(json_object_get(errors, "connection")), 1);
    ck_assert_str_eq(json_string_value(json_object_get(errors, "first")), "say \"please\"");
    const json_t *ttft = json_object_get(level, "ttft_ms");
    ck_assert_double_eq_tol(json_number_value(json_object_get(ttft, "p50")), 200, 1e-3);
    ck_assert_int_eq(
        json_integer_value(json_object_get(json_object_get(level, "goodput"), "requests")), 1);
    buf_clear(&b);
    arena_clear(&mem);
}
END_TEST

START_TEST(a_picture_is_drawn_over_time_and_over_levels_and_of_nothing) {
    load_sample v[5];
    uint32_t gaps[3];
    load_level l[2] = {a_level(v, gaps), {.value = 4}};
    load_spec s = {.model = "<&>", .mode = LOAD_OPEN};
    load_run run = {.spec = &s, .levels = l};
    load_summary m[2];
    err e;
    for (size_t i = 0; i < 2; i++) ck_assert_int_eq(load_summarise(&m[i], &l[i], &s, &e), OK);
    for (run.n = 0; run.n <= 2; run.n++) {
        buf b;
        buf_init(&b, NULL);
        ck_assert_int_eq(load_plot(&b, &run, m, &e), OK);
        const char *text = buf_cstr(&b);
        ck_assert(strstr(text, "&lt;&amp;>") && strstr(text, "</svg>"));
        ck_assert(!strstr(text, "nan") && !strstr(text, "inf"));
        ck_assert_int_eq(strstr(text, "<path") != NULL, run.n > 0);
        buf_clear(&b);
    }
}
END_TEST

CHECK_MAIN("report", percentiles_are_numpys,
           prompts_are_the_same_by_seed_and_share_what_they_are_told_to,
           a_body_asks_for_a_stream_with_usage_and_no_early_end,
           blocks_with_the_same_hash_are_the_same_tokens, lengths_vary_as_they_are_told_to,
           figures_count_whole_answers_over_the_whole_time, the_json_parses_and_has_the_figures,
           a_picture_is_drawn_over_time_and_over_levels_and_of_nothing)
