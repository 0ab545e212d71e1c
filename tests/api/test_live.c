/* Streams of the account: what they say, who may have one, how they end; and the history behind them. */
#include "api/live.h"

#include <math.h>

#include "api/metrics.h"
#include "tests/api/fake_one.h"
#include "tests/check_main.h"

/* printf %s WORD | sha256sum */
#define SHA_ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" /* abc */
#define SHA_A   "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb" /* a */

static char keys_path[64];

/* keys: text of a file of keys, or NULL. */
static void serve(const char *keys) {
    fake_init(&f);
    f.opt.web_page = true;
    if (keys) {
        snprintf(keys_path, sizeof keys_path, "/tmp/vramd-test-live-%d", (int)getpid());
        FILE *file = fopen(keys_path, "w");
        ck_assert_ptr_nonnull(file);
        fputs(keys, file);
        fclose(file);
        chmod(keys_path, 0600);
        f.opt.api_keys_file = keys_path;
    }
}

static void end(void) {
    stop();
    if (f.opt.api_keys_file) unlink(keys_path);
}

/* A connection that has asked for a stream. */
static int ask_stream(const char *headers) {
    char text[512];
    const int fd = fake_connect(&f);
    const int n =
        snprintf(text, sizeof text,
                 "GET /v1/memory/stream HTTP/1.1\r\nHost: localhost\r\n%s\r\n", headers);
    fake_send(fd, text, (size_t)n);
    return fd;
}

static reply answer_of(int fd) {
    bool closed;
    size_t n;
    char *raw = fake_read(fd, "\"code\":", 5000, &n, &closed);
    return fake_parse(raw, n);
}

/* Reads until needle is there; free the text. */
static char *read_until(int fd, const char *needle) {
    bool closed;
    char *text = fake_read(fd, needle, 8000, NULL, &closed);
    ck_assert_msg(strstr(text, needle) != NULL, "no %s in:\n%s", needle, text);
    return text;
}

/* The data of the first event of a kind. Events are shorter than a chunk of HTTP may be: they come in one. */
static const json_t *event(char *text, const char *kind) {
    char begin[64];
    snprintf(begin, sizeof begin, "event: %s\ndata: ", kind);
    char *from = strstr(text, begin), *to = from ? strstr(from, "}\n\n") : NULL;
    ck_assert_msg(from && to, "no event %s in:\n%s", kind, text);
    to[1] = '\0';
    const json_t *v = parse(from + strlen(begin));
    to[1] = '\n';
    return v;
}

START_TEST(a_stream_begins_with_the_whole_and_its_history) {
    serve(NULL);
    f.device = true;
    fake_start(&f);
    const int fd = ask_stream("");
    char *text = read_until(fd, "\"itl_p99_ms\":null}\n\n");
    assert_has(text, "HTTP/1.1 200 OK");
    assert_has(text, "Content-Type: text/event-stream");
    const json_t *whole = event(text, "whole"), *memory = at(whole, "memory"), *member;
    reply r = fake_get(&f, "/v1/memory");
    const json_t *account = parse(r.body);
    const char *name;
    json_object_foreach((json_t *)account, name, member) at(memory, name);
    reply_free(&r);
    ck_assert_str_eq(text_of(at(whole, "state")), "ready");
    ck_assert_str_eq(text_of(at(at(whole, "may"), "keys")), "none");
    ck_assert(json_is_true(at(at(whole, "may"), "resize")));
    ck_assert_int_eq(int_of(at(at(at(whole, "rates"), "counts"), "generated_tokens")), 7);
    ck_assert_uint_eq(json_array_size(at(whole, "latency")), LIVE_WINDOWS);
    assert_has(text,
               "\"blocks\":[{\"group\":0,\"n\":10,\"stride\":1,\"cells\":[[8,1,\"cached\"]]}]");
    ck_assert_ptr_null(json_object_get(whole, "keys"));
    ck_assert_ptr_null(json_object_get(whole, "states"));
    const json_t *history = event(text, "history");
    ck_assert_str_eq(text_of(at(history, "of")), "cuda:0");
    ck_assert_uint_ge(json_array_size(at(history, "at")), 1);
    ck_assert_int_eq(int_of(at(at(history, "classes"), "weights")), 1 << 19); /* a constant */
    ck_assert_int_eq(int_of(at(history, "ledger_bytes")), 1 << 19);
    ck_assert_ptr_null(json_object_get(at(history, "classes"), "kv"));
    free(text);
    close(fd);
    end();
}
END_TEST

START_TEST(what_changes_follows) {
    serve(NULL);
    f.says = "abcdefghijklmnopqrstuvwxyz";
    f.step_ms = 20;
    fake_start(&f);
    const int fd = ask_stream("");
    free(read_until(fd, "event: history"));
    const int other = fake_connect(&f);
    char *post = fake_post_text("/v1/completions",
                                JSON({"prompt":"a","max_tokens":90,"ignore_eos":true}));
    fake_send(other, post, strlen(post));
    free(post);
    char *text = read_until(fd, "\"set\":[");
    char *rest = read_until(fd, "\"gone\":[");
    char *all = NULL;
    ck_assert(asprintf(&all, "%s%s]}}\n\n", text, rest) > 0);
    const json_t *delta = event(strstr(all, "event: delta"), "delta");
    while (!json_object_get(delta, "sequences")) { /* connections came first */
        char *next = strstr(all, "event: delta");
        next[0] = 'E';
        delta = event(strstr(all, "event: delta"), "delta");
    }
    const json_t *first = json_array_get(at(at(delta, "sequences"), "set"), 0);
    ck_assert_str_eq(text_of(at(first, "state")), "running");
    at(first, "age_s");
    ck_assert_int_eq(int_of(at(at(delta, "rates"), "running")), 1);
    ck_assert_ptr_null(json_object_get(delta, "state")); /* it has not changed */
    ck_assert_ptr_null(json_object_get(delta, "start"));
    assert_has(rest, "{\"id\":0,\"tokens\":"); /* and nothing else of it */
    assert_has(all, "\"cells\":[[0,1,0]");
    assert_has(rest, "[0,1,\"free\"]");
    free(text);
    free(rest);
    free(all);
    close(fd);
    close(other);
    end();
}
END_TEST

START_TEST(there_are_places_for_some_and_they_come_back) {
    int fd[LIVE_STREAMS];
    serve(NULL);
    fake_start(&f);
    for (int i = 0; i < LIVE_STREAMS; i++) {
        fd[i] = ask_stream("");
        free(read_until(fd[i], "event: history"));
    }
    int more = ask_stream("");
    reply r = answer_of(more);
    ASSERT_ERROR(r, 429, "rate_limit_error", "null");
    assert_has(r.head, "Retry-After: 10");
    reply_free(&r);
    close(more);
    close(fd[3]);
    for (int i = 0; i < 100; i++) {
        more = ask_stream("");
        r = answer_of(more);
        const int status = r.status;
        reply_free(&r);
        close(more);
        if (status == 200) break;
        ck_assert_int_lt(i, 99);
        usleep(10000);
    }
    for (int i = 0; i < LIVE_STREAMS; i++) close(fd[i]);
    end();
}
END_TEST

START_TEST(a_stream_ends_when_the_server_drains) {
    serve(NULL);
    fake_start(&f);
    const int fd = ask_stream("");
    free(read_until(fd, "event: history"));
    end();
    char *text = read_until(fd, "0\r\n\r\n");
    ck_assert_str_eq(text_of(at(event(text, "bye"), "why")), "draining");
    free(text);
    close(fd);
    parsed_free();
}
END_TEST

#define KEY_ABC "Authorization: Bearer abc\r\n"
#define KEY_A   "Authorization: Bearer a\r\n"

START_TEST(with_keys_each_sees_its_own_row_and_an_admin_all) {
    serve("one " SHA_ABC " concurrency=1\nboss " SHA_A " admin\n");
    fake_start(&f);
    int fd = ask_stream("");
    reply r = answer_of(fd);
    ck_assert_int_eq(r.status, 401);
    reply_free(&r);
    close(fd);
    fd = ask_stream(KEY_ABC);
    char *text = read_until(fd, "event: history");
    const json_t *whole = event(text, "whole"), *keys = at(whole, "keys");
    ck_assert_str_eq(text_of(at(at(whole, "may"), "keys")), "own");
    ck_assert(json_is_false(at(at(whole, "may"), "resize")));
    ck_assert_uint_eq(json_array_size(keys), 1);
    ck_assert_str_eq(text_of(at(json_array_get(keys, 0), "name")), "one");
    free(text);
    /* the stream is not the one request that the key may have at once */
    reply ok = fake_text(
        &f, "GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" KEY_ABC "\r\n");
    ck_assert_int_eq(ok.status, 200);
    reply_free(&ok);
    const int boss = ask_stream(KEY_A);
    text = read_until(boss, "event: history");
    whole = event(text, "whole");
    ck_assert_str_eq(text_of(at(at(whole, "may"), "keys")), "all");
    ck_assert(json_is_true(at(at(whole, "may"), "resize")));
    ck_assert_uint_eq(json_array_size(at(whole, "keys")), 2);
    free(text);
    close(fd);
    close(boss);
    end();
}
END_TEST

START_TEST(a_key_cannot_take_all_places) {
    int fd[LIVE_STREAMS_OF_KEY];
    serve("one " SHA_ABC "\ntwo " SHA_A "\n");
    fake_start(&f);
    for (int i = 0; i < LIVE_STREAMS_OF_KEY; i++) {
        fd[i] = ask_stream(KEY_ABC);
        free(read_until(fd[i], "event: history"));
    }
    int more = ask_stream(KEY_ABC);
    reply r = answer_of(more);
    ck_assert_int_eq(r.status, 429);
    assert_has(r.body, "the key of one has 4 streams");
    reply_free(&r);
    close(more);
    more = ask_stream(KEY_A);
    free(read_until(more, "event: whole"));
    close(more);
    for (int i = 0; i < LIVE_STREAMS_OF_KEY; i++) close(fd[i]);
    end();
}
END_TEST

START_TEST(the_account_has_the_streams_and_the_history) {
    serve(NULL);
    fake_start(&f);
    const int fd = ask_stream("");
    free(read_until(fd, "event: history"));
    reply r = fake_get(&f, "/v1/memory");
    const json_t *c;
    long long http = 0;
    size_t i;
    json_array_foreach(at(parse(r.body), "classes"), i, c) {
        if (strcmp(text_of(at(c, "class")), "http") == 0) http = int_of(at(c, "ledger_bytes"));
    }
    ck_assert_int_eq(http,
                     (long long)(2 * HTTP_CONN_BYTES + http_table_bytes(64) + live_bytes()));
    reply_free(&r);
    close(fd);
    end();
}
END_TEST

START_TEST(its_head_is_no_stream_and_without_the_option_there_is_none) {
    static const char head[] =
        "HEAD /v1/memory/stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    serve(NULL);
    fake_start(&f);
    reply r = fake_text(&f, head);
    ck_assert_int_eq(r.status, 200);
    assert_has(r.head, "text/event-stream");
    reply_free(&r);
    end();
    fake_init(&f);
    fake_start(&f);
    r = fake_get(&f, "/v1/memory/stream");
    ck_assert_int_eq(r.status, 404);
    reply_free(&r);
    stop();
}
END_TEST

/* Who may administer without keys: DELETE /v1/cache stands for all that they may. */
START_TEST(a_page_may_administer_from_an_address_of_this_machine_alone) {
    static const struct {
        const char *host, *origin;
        int status;
    } cases[] = {{"localhost:8000", "http://localhost:8000", 200},
                 {"127.0.0.1:8000", "http://127.0.0.1:8000", 200},
                 {"[::1]:8000", "https://[::1]:8000", 200},
                 {"localhost:8000", "http://localhost:3000", 403},
                 {"localhost:8000", "http://127.0.0.1:8000", 403},
                 {"evil.example:8000", "http://evil.example:8000", 403},
                 {"localhost.evil:8000", "http://localhost.evil:8000", 403},
                 {"localhost:8000", "http://evil.example", 403},
                 {"localhost:8000", "null", 403}};
    serve(NULL);
    fake_start(&f);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[300];
        snprintf(
            text, sizeof text,
            "DELETE /v1/cache HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nConnection: close\r\n\r\n",
            cases[i].host, cases[i].origin);
        reply r = fake_text(&f, text);
        ck_assert_msg(r.status == cases[i].status, "%s, %s: %d", cases[i].host, cases[i].origin,
                      r.status);
        reply_free(&r);
    }
    end();
}
END_TEST

/* ---- a reader that does not read: the test turns the loop ---- */

static void turn(int n) {
    for (int i = 0; i < n; i++) uv_run(&f.loop, UV_RUN_NOWAIT);
}

START_TEST(one_that_does_not_read_is_given_no_more_and_then_cut) {
    serve(NULL);
    fake_open(&f);
    live *l = ((app *)f.server)->live; /* the app is the server's first member */
    for (int i = 0; i < FAKE_GENS; i++) f.gens[i].live = true;
    const int fd = ask_stream("");
    live_stream *s = &l->stream[0];
    turn(20);
    ck_assert_ptr_nonnull(s->rq);
    size_t most = 0;
    for (int i = 0; i < 5000 && !s->stale; i++) {
        for (int k = 0; k < FAKE_GENS; k++) f.gens[k].n_out++;
        live_tick(l);
        turn(2);
        const size_t pending = http_stream_pending(s->rq);
        if (most < pending) most = pending;
    }
    ck_assert(s->stale && s->behind_since_us > 0);
    const size_t held = http_stream_pending(s->rq);
    for (int i = 0; i < 10; i++) live_tick(l);
    ck_assert_uint_eq(http_stream_pending(s->rq), held);
    ck_assert_uint_lt(most, 2 * LIVE_BEHIND_BYTES);
    s->behind_since_us -= LIVE_BEHIND_US;
    live_tick(l);
    ck_assert_ptr_null(s->rq);
    ck_assert_uint_eq(l->n_streams, 0);
    turn(20);
    for (int i = 0; i < FAKE_GENS; i++) f.gens[i].live = false;
    ck_assert(pthread_create(&f.thread, NULL, fake_main, &f) == 0);
    close(fd);
    end();
}
END_TEST

/* ---- history ---- */

START_TEST(quantiles_are_those_of_prometheus) {
    uint32_t now[PORT_MAX_BUCKETS + 1] = {0}, was[PORT_MAX_BUCKETS + 1] = {0};
    uint64_t n;
    ck_assert(isnan(live_quantile(HIST_TTFT, now, was, 0.5, &n)) && n == 0);
    /* 10 of (0.02, 0.04], 10 of (0.1, 0.25]; 5 more of the first were there before */
    now[histogram_bucket(HIST_TTFT, 0.03)] = 15;
    was[histogram_bucket(HIST_TTFT, 0.03)] = 5;
    now[histogram_bucket(HIST_TTFT, 0.2)] = 10;
    ck_assert_double_eq_tol(live_quantile(HIST_TTFT, now, was, 0.25, &n), 0.03, 1e-9);
    ck_assert_uint_eq(n, 20);
    ck_assert_double_eq_tol(live_quantile(HIST_TTFT, now, was, 0.5, &n), 0.04, 1e-9);
    ck_assert_double_eq_tol(live_quantile(HIST_TTFT, now, was, 0.75, &n), 0.175, 1e-9);
    ck_assert_double_eq_tol(live_quantile(HIST_TTFT, now, was, 1, &n), 0.25, 1e-9);
    now[metrics_n_bounds(HIST_TTFT)] = 1000; /* above all bounds */
    ck_assert_double_eq_tol(live_quantile(HIST_TTFT, now, was, 0.99, &n), 2560, 1e-9);
    was[0] = UINT32_MAX, now[0] = 1; /* two more, over the end of 32 bits */
    live_quantile(HIST_TTFT, now, was, 0.5, &n);
    ck_assert_uint_eq(n, 1022);
    was[1] = 8, now[1] = 3; /* a model was unloaded */
    live_quantile(HIST_TTFT, now, was, 0.5, &n);
    ck_assert_uint_eq(n, 1022);
}
END_TEST

static const uint64_t second = 1000000;

START_TEST(a_history_keeps_ten_minutes) {
    static live_history h;
    static memory_view v;
    buf b;
    h.start_us = 5 * second;
    for (uint32_t i = 0; i < 2 * HISTORY_POINTS + 7; i++) {
        v.host.budget_bytes = 1000;
        v.host.cls[MEM_KV].ledger_bytes = i;
        v.stats.count.generated_tokens = 20 * i;
        live_history_add(&h, &v, (5 + HISTORY_STEP_S * (uint64_t)i) * second);
    }
    ck_assert_uint_eq(h.n, HISTORY_POINTS);
    ck_assert_uint_eq(live_history_at(&h, 0)->bytes[MEM_KV], HISTORY_POINTS + 7);
    const live_point *last = live_history_at(&h, h.n - 1);
    ck_assert_uint_eq(last->bytes[MEM_KV], 2 * HISTORY_POINTS + 6);
    ck_assert_ptr_eq(live_history_before(&h, last->at_us, 0), last);
    ck_assert_ptr_eq(live_history_before(&h, last->at_us + second, 3),
                     live_history_at(&h, h.n - 2));
    ck_assert_ptr_eq(live_history_before(&h, last->at_us, 1e6), live_history_at(&h, 0));
    buf_init(&b, NULL);
    live_history_write(&b, &h, "host", last->at_us);
    const json_t *o = parse(buf_cstr(&b));
    ck_assert_int_eq(int_of(at(o, "n")), HISTORY_POINTS);
    ck_assert_int_eq(int_of(at(o, "budget_bytes")), 1000);
    ck_assert_int_eq(int_of(at(o, "waiting")), 0);
    ck_assert_uint_eq(json_array_size(at(at(o, "classes"), "kv")), HISTORY_POINTS);
    const json_t *rate = at(o, "generated_tokens_per_s");
    ck_assert(json_is_null(json_array_get(rate, 0)));
    ck_assert_int_eq(int_of(json_array_get(rate, 1)), 10);
    ck_assert(json_is_null(at(o, "ttft_p50_ms"))); /* there were none */
    buf_clear(&b);
    parsed_free();
}
END_TEST

int main(void) {
    Suite *s = suite_create("live");
    TCase *t = check_case(s, "live");
    tcase_add_test(t, a_stream_begins_with_the_whole_and_its_history);
    tcase_add_test(t, what_changes_follows);
    tcase_add_test(t, there_are_places_for_some_and_they_come_back);
    tcase_add_test(t, a_stream_ends_when_the_server_drains);
    tcase_add_test(t, with_keys_each_sees_its_own_row_and_an_admin_all);
    tcase_add_test(t, a_key_cannot_take_all_places);
    tcase_add_test(t, the_account_has_the_streams_and_the_history);
    tcase_add_test(t, its_head_is_no_stream_and_without_the_option_there_is_none);
    tcase_add_test(t, a_page_may_administer_from_an_address_of_this_machine_alone);
    tcase_add_test(t, one_that_does_not_read_is_given_no_more_and_then_cut);
    tcase_add_test(t, quantiles_are_those_of_prometheus);
    tcase_add_test(t, a_history_keeps_ten_minutes);
    return check_run(s);
}
