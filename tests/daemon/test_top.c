/* What `vramd top` reads and draws, without a server and without a terminal. */
#include "daemon/top/top_draw.h"
#include "tests/check_main.h"
#include "tests/json.h"

static const char account[] = JSON({
    "budget_bytes": 2000000,
    "plan_bytes": 1500000,
    "ledger_bytes": 1400000,
    "peak_bytes": 1450000,
    "classes": [
        {"class": "weights", "plan_bytes": 600000, "ledger_bytes": 600000, "peak_bytes": 600000},
        {"class": "kv", "plan_bytes": 800000, "ledger_bytes": 800000, "peak_bytes": 800000},
        {"class": "logits", "plan_bytes": 10000, "ledger_bytes": 0, "peak_bytes": 9000},
        {"class": "workspace", "plan_bytes": 20000, "ledger_bytes": 0, "peak_bytes": 0},
        {"class": "http", "plan_bytes": 70000, "ledger_bytes": 0, "peak_bytes": 50000},
        {"class": "context", "plan_bytes": 0, "ledger_bytes": 0, "peak_bytes": 0}
    ],
    "unaccounted_bytes": -2048,
    "kv": {
        "type_k": "F16",
        "type_v": "F16",
        "block_tokens": 16,
        "groups": [
            {"window": 0, "block_bytes": 4000, "blocks": 100, "free": 50, "used": 30, "cached": 20,
             "fenced": 10, "peak_used": 60},
            {"window": 512, "tail": true, "block_bytes": 4000, "blocks": 100, "free": 100, "used": 0, "cached": 0,
             "fenced": 0, "peak_used": 1}
        ]
    },
    "sequences": [
        {"id": 7, "state": "running", "tokens": 40, "blocks": 3, "bytes": 12000,
         "cached_tokens": 16, "age_s": 1.5, "itl_ms": 20.0, "tenant": "00000000000000ab"},
        {"id": 8, "state": "running", "tokens": 90, "blocks": 6, "bytes": 24000, "itl_ms": null,
         "tenant": null},
        {"id": 9, "state": "wai\u001b[2Jting", "tokens": 5, "blocks": 0, "bytes": 0}
    ]
});

static const char metrics[] =
    "# HELP vramd_steps_total Steps.\n"
    "vramd_steps_total{model_name=\"tiny\\u001b\"} 100\n"
    "vramd_generated_tokens_total{model_name=\"tiny\"} 500\n"
    "vramd_prefix_cache_queries_total{model_name=\"tiny\"} 200\n"
    "vramd_prefix_cache_hits_total{model_name=\"tiny\"} 50\n"
    "vramd_requests_finished_total{model_name=\"tiny\",reason=\"stop\"} 3\n"
    "vramd_requests_finished_total{model_name=\"tiny\",reason=\"length\"} 4\n"
    "vramd_requests_running{model_name=\"tiny\"} 2\n";

static void read_both(top_sample *s) {
    arena mem;
    err e;
    arena_init(&mem, chunks_heap(), 0);
    memset(s, 0, sizeof *s);
    ck_assert_int_eq(top_read_memory(s, &mem, str_of(account), &e), OK);
    top_read_metrics(s, str_of(metrics));
    arena_clear(&mem);
}

/* The frame without what only a terminal sees; each line is checked for its length. */
static char *draw(const top_sample *s, uint32_t columns, uint32_t lines, bool terminal,
                  uint32_t *n_lines) {
    buf b;
    top_rates r = {.seconds = 1, .generated = 321, .hit_share = 0.25};
    top_view v = {.url = "http://x",
                  .now = s,
                  .rates = &r,
                  .columns = columns,
                  .lines = lines,
                  .terminal = terminal};
    buf_init(&b, NULL);
    top_draw(&b, &v);
    char *out = malloc(b.len + 1);
    size_t n = 0, start = 0;
    *n_lines = 1;
    for (size_t i = 0; i < b.len; i++) {
        if (b.ptr[i] == '\033') {
            while (b.ptr[i] != 'm' && b.ptr[i] != 'K') i++;
            continue;
        }
        out[n++] = b.ptr[i];
        if (b.ptr[i] != '\n') ck_assert_uint_le(n - start, columns);
        if (b.ptr[i] == '\n') start = n, (*n_lines)++;
    }
    if (n > 0 && out[n - 1] == '\n') (*n_lines)--;
    out[n] = '\0';
    buf_clear(&b);
    return out;
}

static uint32_t count(const char *text, char c) {
    uint32_t n = 0;
    for (; *text; text++) n += *text == c;
    return n;
}

START_TEST(the_account_and_the_counters_are_read) {
    static top_sample s;
    read_both(&s);
    ck_assert_uint_eq(s.host.n, 5); /* context is neither planned nor used */
    ck_assert_str_eq(s.host.cls[1].name, "kv");
    ck_assert_int_eq(s.host.unaccounted_bytes, -2048);
    ck_assert_uint_eq(s.n_groups, 2);
    ck_assert_uint_eq(s.group[0].fenced, 10);
    ck_assert_uint_eq(s.n_seqs, 3);
    ck_assert_uint_eq(s.seq[0].id, 8); /* the largest first */
    ck_assert_str_eq(s.seq[1].tenant, "00000000000000ab");
    ck_assert_double_eq(s.count.finished, 7);
    ck_assert_double_eq(s.count.generated, 500);
    ck_assert_str_eq(s.seq[2].state, "wai?[2Jting");
    ck_assert(s.device.name[0] == '\0');
}
END_TEST

START_TEST(what_is_no_account_is_refused) {
    static const char *const bad[] = {"", "[]", "{}", "<html>", "{\"ledger_bytes\":\"1\"}"};
    static top_sample s;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        arena mem;
        err e;
        arena_init(&mem, chunks_heap(), 0);
        ck_assert_int_eq(top_read_memory(&s, &mem, str_of(bad[i]), &e), ERR_FORMAT);
        arena_clear(&mem);
    }
}
END_TEST

START_TEST(rates_are_differences_by_time) {
    static top_sample a, b;
    a.at_us = 1000000;
    b.at_us = 3000000;
    b.count = (top_counters){.steps = 10, .generated = 60, .queries = 100, .hits = 25};
    top_rates r = top_rates_between(&a, &b);
    ck_assert_double_eq(r.generated, 30);
    ck_assert_double_eq(r.hit_share, 0.25);
    ck_assert_double_eq(r.preemptions, 0);
    r = top_rates_between(&b, &b);
    ck_assert_double_eq(r.generated, 0);
    a.count.steps = 11; /* it was started anew */
    r = top_rates_between(&a, &b);
    ck_assert_double_eq(r.generated, 0);
    ck_assert(r.hit_share < 0);
}
END_TEST

START_TEST(a_map_has_a_cell_for_whatever_there_is) {
    top_cells c;
    const top_group one = {.used = 2, .fenced = 1, .cached = 1, .free = 9996, .blocks = 9999};
    ck_assert_uint_eq(top_map(&one, 80, &c), 80);
    ck_assert(c.used == 1 && c.fenced == 1 && c.cached == 1 && c.free == 77);
    const top_group few = {.used = 3, .free = 4, .blocks = 7};
    ck_assert_uint_eq(top_map(&few, 80, &c), 7);
    ck_assert(c.used == 3 && c.free == 4);
    const top_group none = {0};
    ck_assert_uint_eq(top_map(&none, 80, &c), 0);
    for (uint64_t used = 0; used <= 50; used++)
        for (uint32_t n = 1; n < 60; n++) {
            const top_group g = {
                .used = used, .fenced = used / 3, .cached = 7, .free = 50 - used};
            const uint32_t m = top_map(&g, n, &c);
            SWEEP(m == (n < 57 ? n : 57) && c.used + c.fenced + c.cached + c.free == m);
        }
}
END_TEST

START_TEST(a_frame_shows_classes_blocks_and_sequences) {
    static top_sample s;
    uint32_t n;
    read_both(&s);
    char *t = draw(&s, 100, 0, false, &n);
    static const char *const want[] = {"321 tokens/s",
                                       "hits 25%",
                                       "budget 1.9 MiB, unaccounted -2.0 KiB",
                                       "weights",
                                       "# 20 used % 10 fenced = 20 cached . 50 free; peak 60",
                                       "kv F16 group 0",
                                       "kv tail group 1, window 512",
                                       "00000000000000ab",
                                       "50.0",
                                       "2 running"};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        ck_assert_msg(strstr(t, want[i]) != NULL, "%s in\n%s", want[i], t);
    ck_assert(strstr(t, "        8  running") < strstr(t, "        7  running"));
    free(t);
}
END_TEST

START_TEST(a_frame_fits_every_terminal) {
    static top_sample s;
    uint32_t n;
    read_both(&s);
    for (uint32_t columns = 1; columns < 200; columns += columns < 20 ? 1 : 13)
        for (uint32_t lines = 1; lines < 60; lines++) {
            char *t = draw(&s, columns, lines, true, &n);
            SWEEP(n <= lines && (t[0] == '\0' || t[strlen(t) - 1] != '\n' || n < lines));
            free(t);
        }
    char *t = draw(&s, 80, 24, true, &n);
    ck_assert(strstr(t, "others") == NULL && strstr(t, "SEQUENCE") && count(t, '=') >= 16);
    free(t);
    t = draw(&s, 80, 14, true, &n); /* small classes become one row */
    ck_assert(strstr(t, "others") && strstr(t, "weights") && strstr(t, "kv "));
    free(t);
}
END_TEST

CHECK_MAIN("top", the_account_and_the_counters_are_read, what_is_no_account_is_refused,
           rates_are_differences_by_time, a_map_has_a_cell_for_whatever_there_is,
           a_frame_shows_classes_blocks_and_sequences, a_frame_fits_every_terminal)
