/* HTTP itself, on raw sockets: bad input, limits, deadlines, disconnects, slow readers, drain.
 */
#include <microhttpd.h>

#include "tests/api/fake_one.h"

#define STREAM_FOREVER JSON({"prompt":"a","stream":true,"ignore_eos":true,"max_tokens":200000})
#define WHOLE_FOREVER  "{\"prompt\":\"a\",\"ignore_eos\":true,\"max_tokens\":200000}"

/* Sends a POST and leaves the connection open. */
static int send_post(int fd, const char *path, const char *body) {
    char *text = fake_post_text(path, body);
    fake_send(fd, text, strlen(text));
    free(text);
    return fd;
}

static int open_post(const char *path, const char *body) {
    return send_post(fake_connect(&f), path, body);
}

START_TEST(what_others_may_read_otherwise_is_refused) {
    start();
    const bool strict = MHD_VERSION >= 0x01000000;
    const struct {
        const char *text;
        int status;
        bool by_library; /* libmicrohttpd answers itself, in HTML */
    } t[] = {
        {"GET /health HTTP/1.1\r\n\r\n", 400, true},
        {"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, false},
        {"GET http://x/health HTTP/1.1\r\nHost: x\r\n\r\n", 400, false},
        {"GET /health%00x HTTP/1.1\r\nHost: x\r\n\r\n", 400, false},
        {"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: "
         "3\r\n\r\n{}"
         "}",
         400, false},
        {"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 2"
         "\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
         400, strict},
        {"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
         "2\r\n{}\r\n0\r\n\r\n",
         strict ? 400 : 501, strict},
        {"POST /tokenize HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
         400, false},
        {"GET /health HTTP/1.0\r\n\r\n", 200, false},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        reply r = {0};
        int fd = fake_connect(&f);
        bool closed;
        size_t n;
        fake_send(fd, t[i].text, strlen(t[i].text));
        char *raw = fake_read(fd, NULL, 3000, &n, &closed);
        r = fake_parse(raw, n);
        ck_assert_msg(r.status == t[i].status, "%s: %d\n%s", t[i].text, r.status, r.body);
        /* After a refused one nothing more is read from that connection. */
        ck_assert_msg(closed, "%s", t[i].text);
        if (r.status != 200 && !t[i].by_library) assert_has(r.body, "{\"error\":{\"message\":");
        close(fd);
        reply_free(&r);
    }
    fake_stop(&f);
}
END_TEST

START_TEST(paths_and_methods) {
    start();
    static const struct {
        const char *method, *path;
        int status;
        const char *allow;
    } t[] = {{"GET", "/nothing", 404, NULL},
             {"GET", "/v1/completions", 405, "Allow: POST, OPTIONS"},
             {"DELETE", "/v1/models", 405, "Allow: GET, HEAD, OPTIONS"},
             {"POST", "/health", 405, "Allow: GET, HEAD, OPTIONS"},
             {"OPTIONS", "/v1/completions", 204, "Allow: POST, OPTIONS"},
             {"HEAD", "/health", 200, NULL},
             {"HEAD", "/v1/completions", 405, "Allow: POST, OPTIONS"},
             {"GET", "/health?x=1", 200, NULL}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char text[256];
        snprintf(text, sizeof text,
                 "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                 t[i].method, t[i].path);
        reply r = fake_text(&f, text);
        ck_assert_msg(r.status == t[i].status, "%s %s: %d", t[i].method, t[i].path, r.status);
        if (t[i].allow) assert_has(r.head, t[i].allow);
        if (strcmp(t[i].method, "HEAD") == 0) ck_assert_uint_eq(r.n_body, 0);
        reply_free(&r);
    }
    fake_stop(&f);
}
END_TEST

START_TEST(a_wrong_path_does_not_cost_the_connection) {
    start();
    int fd = fake_connect(&f);
    bool closed;
    const char *two =
        "GET /no HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    fake_send(fd, two, strlen(two));
    char *raw = fake_read(fd, JSON({"status":"ok"}), 3000, NULL, &closed);
    assert_has(raw, "HTTP/1.1 404");
    assert_has(raw, JSON({"status":"ok"}));
    ck_assert(!closed);
    free(raw);
    close(fd);
    fake_stop(&f);
}
END_TEST

START_TEST(pipelined_requests_are_answered_in_order) {
    start();
    int fd = fake_connect(&f);
    char text[4096] = "";
    for (int i = 0; i < 8; i++) {
        char body[100], one[300];
        snprintf(body, sizeof body, JSON({"prompt":"a","max_tokens":%d}), i + 1);
        snprintf(one, sizeof one,
                 "POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Request-Id: r%d\r\n"
                 "Content-Length: %zu\r\n\r\n%s",
                 i, strlen(body), body);
        strcat(text, one);
    }
    strcat(text, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    fake_send(fd, text, strlen(text));
    bool closed;
    char *raw = fake_read(fd, NULL, 5000, NULL, &closed);
    ck_assert(closed);
    const char *from = raw;
    for (int i = 0; i < 8; i++) {
        char want[40];
        snprintf(want, sizeof want, "X-Request-Id: r%d\r\n", i);
        from = strstr(from, want);
        ck_assert_msg(from != NULL, "%s", want);
        snprintf(want, sizeof want, "\"completion_tokens\":%d,", i + 1);
        from = strstr(from, want);
        ck_assert_msg(from != NULL, "%s", want);
    }
    assert_has(from, JSON({"status":"ok"}));
    free(raw);
    close(fd);
    fake_stop(&f);
}
END_TEST

START_TEST(chunked_uploads_arrive_whole) {
    start();
    int fd = fake_connect(&f);
    const char *head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                       "Transfer-Encoding: chunked\r\n\r\n";
    fake_send(fd, head, strlen(head));
    const char *body = JSON({"prompt":"abc","max_tokens":2});
    for (const char *p = body; *p; p++) {
        char chunk[16];
        int n = snprintf(chunk, sizeof chunk, "1\r\n%c\r\n", *p);
        fake_send(fd, chunk, (size_t)n);
        if (p - body < 5) usleep(2000);
    }
    fake_send(fd, "0\r\n\r\n", 5);
    size_t n;
    bool closed;
    char *raw = fake_read(fd, NULL, 5000, &n, &closed);
    reply r = fake_parse(raw, n);
    ck_assert_int_eq(r.status, 200);
    assert_has(r.body, "\"text\":\"He\"");
    reply_free(&r);
    close(fd);
    fake_stop(&f);
}
END_TEST

START_TEST(a_body_too_large_is_413_however_it_comes) {
    fake_init(&f);
    f.opt.max_body_bytes = 100000;
    fake_start(&f);
    /* announced */
    reply r =
        fake_text(&f, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n"
                      "Connection: close\r\n\r\n");
    ASSERT_ERROR(r, 413, "invalid_request_error", "null");
    reply_free(&r);
    /* chunked: found out on the way, answered at the end */
    int fd = fake_connect(&f);
    const char *head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                       "Transfer-Encoding: chunked\r\n\r\n";
    fake_send(fd, head, strlen(head));
    char chunk[10020];
    int k = sprintf(chunk, "2710\r\n");
    memset(chunk + k, 'y', 10000);
    memcpy(chunk + k + 10000, "\r\n", 2);
    for (int i = 0; i < 30; i++) fake_send(fd, chunk, (size_t)k + 10002);
    fake_send(fd, "0\r\n\r\n", 5);
    size_t n;
    bool closed;
    char *raw = fake_read(fd, NULL, 5000, &n, &closed);
    r = fake_parse(raw, n);
    ASSERT_ERROR(r, 413, "invalid_request_error", "null");
    reply_free(&r);
    close(fd);
    fake_stop(&f);
}
END_TEST

START_TEST(headers_too_large_are_431) {
    start();
    char text[12000];
    int n = sprintf(text, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Pad: ");
    memset(text + n, 'p', 9000);
    strcpy(text + n + 9000, "\r\n\r\n");
    reply r = fake_text(&f, text);
    ASSERT_ERROR(r, 431, "invalid_request_error", "null");
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

START_TEST(a_request_id_is_echoed_or_made) {
    start();
    reply r = fake_text(&f, "GET /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: my-id.7\r\n"
                            "Connection: close\r\n\r\n");
    assert_has(r.head, "X-Request-Id: my-id.7");
    reply_free(&r);
    r = fake_get(&f, "/health");
    char *id = strstr(r.head, "X-Request-Id: ");
    ck_assert(id != NULL && strspn(id + 14, "0123456789abcdef") == 24);
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

START_TEST(a_disconnect_cancels) {
    start();
    static const char *const body[] = {STREAM_FOREVER, WHOLE_FOREVER};
    for (int how = 0; how < 3; how++)
        for (int b = 0; b < 2; b++) {
            unsigned before = atomic_load(&f.n_cancelled);
            int fd = open_post("/v1/completions", body[b]);
            bool closed;
            ck_assert(fake_await(&f.n_live, 1, 3000));
            free(fake_read(fd, b ? NULL : "data: ", b ? 20 : 3000, NULL, &closed));
            if (how == 0) close(fd);
            if (how == 1) shutdown(fd, SHUT_WR);
            if (how == 2) {
                setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0},
                           sizeof(struct linger));
                close(fd);
            }
            ck_assert(fake_await(&f.n_cancelled, before + 1, 30000)); /* or never */
            ck_assert(fake_await(&f.n_live, 0, 30000));
            if (how == 1) close(fd);
        }
    fake_stop(&f);
}
END_TEST

START_TEST(a_disconnect_cancels_all_choices) {
    start();
    int fd =
        open_post("/v1/completions", JSON({"prompt":["a","b"],"n":3,"stream":true,
                                          "ignore_eos":true,
                            "max_tokens":100000}));
    ck_assert(fake_await(&f.n_live, 6, 3000));
    close(fd);
    ck_assert(fake_await(&f.n_cancelled, 6, 3000));
    ck_assert(fake_await(&f.n_live, 0, 3000));
    fake_stop(&f);
}
END_TEST

/* A client whose socket takes little, on a stream of big events (20 logprobs): what it does not
 * read fills the kernel's buffers soon. */
static int open_slow_reader(int receive_bytes, int n, int max_tokens) {
    char body[120];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons(server_port(f.server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ck_assert(connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0);
    snprintf(body, sizeof body,
             "{\"prompt\":\"a\",\"stream\":true,\"ignore_eos\":true,\"logprobs\":20,"
             "\"n\":%d,\"max_tokens\":%d}",
             n, max_tokens);
    return send_post(fd, "/v1/completions", body);
}

START_TEST(a_slow_reader_holds_the_machine_and_loses_nothing) {
    fake_init(&f);
    f.opt.stream_credits = 32;
    f.per_step = 8;
    f.says = "0123456789";
    fake_start(&f);
    int fd = open_slow_reader(4096, 1, 12000);
    unsigned last = 0, same = 0;
    for (int i = 0; i < 400 && same < 5; i++) { /* until nothing moves for 100 ms */
        usleep(20000);
        unsigned now = atomic_load(&f.n_credited);
        same = now == last && now ? same + 1 : 0;
        last = now;
    }
    ck_assert_uint_ge(same, 5);
    ck_assert_uint_le(atomic_load(&f.max_owed), 32);
    ck_assert_uint_lt(last, 12000);
    ck_assert_uint_lt(pool_used(f.port.pool), 512 * 1024);
    bool closed;
    size_t n, events = 0;
    char *raw = fake_read(fd, "data: [DONE]", 50000, &n, &closed);
    for (char *p = raw; (p = strstr(p, "\"finish_reason\":null")); p += 10) events++;
    /* chunked framing may cut a needle in two here and there */
    ck_assert_uint_ge(events, 11800);
    assert_has(raw, "data: [DONE]");
    free(raw);
    close(fd);
    fake_stop(&f);
}
END_TEST

START_TEST(a_reader_that_has_stopped_is_cut_off) {
    fake_init(&f);
    f.opt.idle_timeout_s = 1;
    f.per_step = 8;
    fake_start(&f);
    int fd = open_slow_reader(2048, 1, 100000);
    ck_assert(fake_await(&f.n_live, 1, 3000));
    ck_assert(fake_await(&f.n_live, 0, 40000));
    close(fd);
    fake_stop(&f);
}
END_TEST

START_TEST(an_expectation_is_met_and_http_1_0_is_served) {
    start();
    int fd = fake_connect(&f);
    const char *head = "POST /tokenize HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                       "Expect: 100-continue\r\nContent-Length: 15\r\n\r\n";
    bool closed;
    size_t n;
    fake_send(fd, head, strlen(head));
    char *raw = fake_read(fd, "\r\n\r\n", 3000, NULL, &closed);
    ck_assert(strncmp(raw, "HTTP/1.1 100", 12) == 0);
    free(raw);
    fake_send(fd, JSON({"prompt":"ab"}), 15);
    raw = fake_read(fd, NULL, 3000, NULL, &closed);
    assert_has(raw, "HTTP/1.1 200");
    assert_has(raw, "[97,98]");
    free(raw);
    close(fd);
    fd = fake_connect(&f);
    const char *old = "POST /v1/completions HTTP/1.0\r\nContent-Length: 28\r\n\r\n"
                      "{\"prompt\":\"a\",\"stream\":true}";
    fake_send(fd, old, strlen(old));
    raw = fake_read(fd, NULL, 3000, &n, &closed);
    ck_assert(closed);
    assert_lacks(raw, "chunked");
    ck_assert_str_eq(raw + n - 14, "data: [DONE]\n\n");
    free(raw);
    close(fd);
    fake_stop(&f);
}
END_TEST

START_TEST(text_that_is_held_back_does_not_stall_the_stream) {
    fake_init(&f);
    f.opt.stream_credits = 8;
    f.says = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    fake_start(&f);
    /* 80 tokens without a byte to send, ten times the window */
    char body[300];
    snprintf(body, sizeof body,
             JSON({"prompt":"x","stream":true,"max_tokens":200,"stop":"%s!"}), f.says);
    reply r = fake_post(&f, "/v1/completions", body);
    ck_assert_int_eq(r.status, 200);
    assert_has(r.body, f.says);
    assert_has(r.body, "data: [DONE]");
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

START_TEST(slow_senders_meet_their_deadline) {
    fake_init(&f);
    f.opt.header_timeout_s = 1;
    f.opt.body_timeout_s = 1;
    fake_start(&f);
    static const char *const begin[] = {
        "GET /health HTTP/1.1\r\nHost: ",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"};
    for (int i = 0; i < 2; i++) {
        uint64_t t0 = clock_us();
        int fd = fake_connect(&f);
        fake_send(fd, begin[i], strlen(begin[i]));
        bool closed = false;
        /* A byte each 50 ms: never idle, never done. Without a deadline it is never closed. */
        while (!closed && clock_us() - t0 < 30000000) {
            fake_send(fd, "x", 1);
            free(fake_read(fd, NULL, 50, NULL, &closed));
        }
        ck_assert(closed);
        ck_assert_uint_ge(clock_us() - t0, 900000);
        close(fd);
    }
    fake_stop(&f);
}
END_TEST

START_TEST(a_long_prefill_is_kept_alive_by_comments) {
    fake_init(&f);
    f.opt.heartbeat_s = 1;
    f.prefill_ms = 2500;
    fake_start(&f);
    reply r = fake_post(&f, "/v1/completions", JSON({"prompt":"a","stream":true}));
    ck_assert_int_eq(r.status, 200);
    ck_assert_msg(strncmp(r.body, ":\n\n", 3) == 0, "%s", r.body);
    assert_has(r.body, "data: [DONE]");
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

START_TEST(connections_beyond_the_limit_wait_and_then_get_in) {
    fake_init(&f);
    f.opt.max_connections = 4;
    fake_start(&f);
    int held[4];
    bool closed;
    for (int i = 0; i < 4; i++) held[i] = open_post("/v1/completions", STREAM_FOREVER);
    ck_assert(fake_await(&f.n_live, 4, 3000));
    int late = fake_connect(&f); /* the kernel takes it, the server does not */
    const char *get = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    fake_send(late, get, strlen(get));
    char *raw = fake_read(late, NULL, 200, NULL, &closed);
    ck_assert_str_eq(raw, "");
    free(raw);
    for (int i = 0; i < 4; i++) close(held[i]);
    raw = fake_read(late, NULL, 3000, NULL, &closed);
    assert_has(raw, JSON({"status":"ok"}));
    free(raw);
    close(late);
    fake_stop(&f);
}
END_TEST

START_TEST(a_connection_that_the_ledger_refuses_is_closed) {
    fake_init(&f);
    f.http_limit = http_table_bytes(64) + 2 * HTTP_CONN_BYTES;
    fake_start(&f);
    int a = open_post("/v1/completions", STREAM_FOREVER);
    int b = open_post("/v1/completions", STREAM_FOREVER);
    ck_assert(fake_await(&f.n_live, 2, 3000));
    int c = fake_connect(&f);
    bool closed;
    free(fake_read(c, NULL, 2000, NULL, &closed));
    ck_assert(closed);
    close(a), close(b), close(c);
    ck_assert(fake_await(&f.n_live, 0, 3000));
    reply r = fake_get(&f, "/health");
    ck_assert_int_eq(r.status, 200);
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

START_TEST(an_exhausted_pool_refuses_and_recovers) {
    fake_init(&f);
    f.pool_want = 128 * 1024;
    fake_start(&f);
    int fd[60], n_refused = 0;
    bool closed;
    for (int i = 0; i < 60; i++) fd[i] = open_post("/v1/completions", WHOLE_FOREVER);
    for (int i = 0; i < 60; i++) {
        char *raw = fake_read(fd[i], "}}", 20, NULL, &closed);
        if (strstr(raw, "HTTP/1.1 503")) {
            assert_has(raw, "Retry-After: ");
            assert_has(raw, "unavailable_error");
            n_refused++;
        }
        free(raw);
    }
    ck_assert_int_gt(n_refused, 0);
    ck_assert_uint_gt(atomic_load(&f.n_submitted), 2);
    for (int i = 0; i < 60; i++) close(fd[i]);
    ck_assert(fake_await(&f.n_live, 0, 3000));
    reply r = fake_post(&f, "/v1/completions", JSON({"prompt":"a"}));
    ck_assert_int_eq(r.status, 200);
    reply_free(&r);
    /* One that is too big by itself: retrying is no help. */
    size_t big = 80000;
    char *body = malloc(big + 100);
    int k = sprintf(body, "{\"prompt\":\"");
    memset(body + k, 'x', big);
    strcpy(body + k + big, "\"}");
    r = fake_post(&f, "/v1/completions", body);
    ck_assert_msg(r.status == 413, "%d %s", r.status, r.body);
    reply_free(&r);
    free(body);
    fake_stop(&f);
}
END_TEST

START_TEST(a_stream_that_runs_out_of_memory_ends_with_an_error) {
    fake_init(&f);
    f.pool_want = 768 * 1024; /* half of it for a request: less than these choices need */
    f.opt.stream_credits = 4096;
    f.per_step = 8;
    fake_start(&f);
    int fd = open_slow_reader(2048, 60, 100000);
    ck_assert(fake_await(&f.n_cancelled, 60, 30000)); /* for want of memory */
    ck_assert(fake_await(&f.n_live, 0, 30000));
    bool closed;
    char *raw = fake_read(fd, "data: [DONE]", 20000, NULL, &closed);
    assert_has(raw, "\"type\":\"unavailable_error\"");
    free(raw);
    close(fd);
    fake_stop(&f);
}
END_TEST

/* Whatever stream_credits says: what waits for one reader is bounded in bytes. */
START_TEST(a_stream_that_is_not_read_keeps_to_its_part_of_the_memory) {
    fake_init(&f);
    f.pool_want = 512 * 1024; /* 256 KiB a request */
    f.opt.stream_credits = 4096;
    f.per_step = 8;
    fake_start(&f);
    int fd = open_slow_reader(2048, 1, 100000);
    unsigned last = 0, same = 0;
    for (int i = 0; i < 1000 && same < 10; i++) { /* until nothing moves for 200 ms */
        usleep(20000);
        unsigned now = atomic_load(&f.n_credited);
        same = now == last && now ? same + 1 : 0;
        last = now;
    }
    ck_assert_uint_ge(same, 10);
    ck_assert_uint_eq(atomic_load(&f.n_live), 1);    /* it waits: it has not run out */
    ck_assert_uint_le(atomic_load(&f.max_owed), 16); /* wide events: few of them */
    ck_assert_uint_lt(pool_used(f.port.pool), 256 * 1024);
    close(fd);
    ck_assert(fake_await(&f.n_live, 0, 3000));
    fake_stop(&f);
}
END_TEST

START_TEST(streams_go_on_while_draining) {
    fake_init(&f);
    f.step_ms = 20;
    fake_start(&f);
    int fd = open_post("/v1/completions", JSON({"prompt":"a","stream":true}));
    bool closed;
    free(fake_read(fd, "data: ", 3000, NULL, &closed));
    uv_async_send(&f.quit);
    char *raw = fake_read(fd, NULL, 5000, NULL, &closed);
    assert_has(raw, "\"finish_reason\":\"stop\"");
    assert_has(raw, "data: [DONE]");
    ck_assert(closed);
    free(raw);
    close(fd);
    fake_stop(&f);
    ck_assert(atomic_load(&f.drained));
}
END_TEST

START_TEST(an_abort_ends_what_runs_with_an_error) {
    start();
    int stream = open_post("/v1/completions", STREAM_FOREVER);
    int whole = open_post("/v1/completions", WHOLE_FOREVER);
    int idle = fake_connect(&f);
    ck_assert(fake_await(&f.n_live, 2, 3000));
    usleep(20000);
    atomic_store(&f.abort_now, true);
    uv_async_send(&f.quit);
    bool closed;
    char *raw = fake_read(stream, NULL, 5000, NULL, &closed);
    ck_assert(closed);
    free(raw);
    raw = fake_read(whole, NULL, 5000, NULL, &closed);
    assert_has(raw, "HTTP/1.1 503");
    assert_has(raw, "shutting down");
    free(raw);
    close(stream), close(whole), close(idle);
    fake_stop(&f);
    ck_assert_uint_eq(atomic_load(&f.n_cancelled), 2);
}
END_TEST

START_TEST(unix_sockets_and_inherited_ones) {
    fake_init(&f);
    char host[100];
    snprintf(host, sizeof host, "unix:/tmp/vramd-test-%d.sock", (int)getpid());
    for (int again = 0; again < 2; again++) { /* a stale socket file is no obstacle */
        fake_init(&f);
        f.opt.host = host;
        fake_start(&f);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        strcpy(sa.sun_path, host + 5);
        ck_assert(connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0);
        const char *get = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        bool closed;
        fake_send(fd, get, strlen(get));
        char *raw = fake_read(fd, NULL, 3000, NULL, &closed);
        assert_has(raw, JSON({"status":"ok"}));
        free(raw);
        close(fd);
        fake_stop(&f);
        ck_assert(access(host + 5, F_OK) != 0);
        if (again) continue;
        int stale = socket(AF_UNIX, SOCK_STREAM, 0);
        ck_assert(bind(stale, (struct sockaddr *)&sa, sizeof sa) == 0);
        close(stale);
    }
    fake_init(&f);
    int one = 1;
    f.opt.listen_fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (f.opt.listen_fd < 0) return; /* no IPv6 here */
    struct sockaddr_in6 sa6 = {.sin6_family = AF_INET6};
    setsockopt(f.opt.listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    ck_assert(bind(f.opt.listen_fd, (struct sockaddr *)&sa6, sizeof sa6) == 0);
    ck_assert(listen(f.opt.listen_fd, 16) == 0);
    fake_start(&f);
    reply r = fake_get(&f, "/health");
    ck_assert_int_eq(r.status, 200);
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

START_TEST(a_bad_address_is_an_error_that_names_it) {
    static const struct {
        const char *host;
        status code;
        const char *field;
    } t[] = {{"not.a.host.invalid", ERR_INVALID, "host"},
             {"192.0.2.1", ERR_IO, "port"}, /* TEST-NET-1: no interface has it */
             {"unix:", ERR_INVALID, "host"}};
    start();
    for (size_t i = 0; i < 3; i++) {
        server_options o = f.opt;
        server *s;
        err e;
        uv_loop_t loop;
        ledger *l;
        uv_loop_init(&loop);
        ck_assert(ledger_open_unlimited(&l, &e) == OK);
        port p = f.port;
        p.ledger = l;
        o.host = t[i].host;
        ck_assert_int_eq(server_open(&s, &loop, &o, &p, &e), t[i].code);
        ck_assert_str_eq(e.field, t[i].field);
        o = f.opt;
        o.port = server_port(f.server);
        ck_assert_int_eq(server_open(&s, &loop, &o, &p, &e), ERR_IO);
        assert_has(e.text, "in use");
        ck_assert(uv_loop_close(&loop) == 0);
        ledger_close(l);
    }
    fake_stop(&f);
}
END_TEST

typedef struct crowd {
    int id, ok;
} crowd;

static void *visit(void *arg) {
    crowd *c = arg;
    unsigned seed = (unsigned)c->id;
    for (int i = 0; i < 12; i++) {
        int what = rand_r(&seed) % 4;
        if (what == 0) { /* leaves in the middle */
            int fd = open_post("/v1/completions", STREAM_FOREVER);
            bool closed;
            free(fake_read(fd, NULL, rand_r(&seed) % 15, NULL, &closed));
            close(fd);
            c->ok++;
            continue;
        }
        reply r = what == 1 ? fake_get(&f, "/metrics")
                            : fake_post(&f, "/v1/completions",
                                        what == 2 ? JSON({"prompt":"a","stream":true,"n":2})
                                                         : JSON({"prompt":"a","logprobs":3}));
        if (r.status == 200) c->ok++;
        reply_free(&r);
    }
    return NULL;
}

START_TEST(a_crowd_of_mixed_clients_leaves_nothing_behind) {
    start();
    pthread_t t[16];
    crowd c[16];
    for (int i = 0; i < 16; i++) {
        c[i] = (crowd){.id = i + 1};
        pthread_create(&t[i], NULL, visit, &c[i]);
    }
    for (int i = 0; i < 16; i++) {
        pthread_join(t[i], NULL);
        ck_assert_int_eq(c[i].ok, 12);
    }
    ck_assert(fake_await(&f.n_live, 0, 3000));
    fake_stop(&f); /* checks pool and ledger */
}
END_TEST

int main(void) {
    Suite *s = suite_create("http");
    TCase *t = check_case(s, "http");
    tcase_add_test(t, what_others_may_read_otherwise_is_refused);
    tcase_add_test(t, paths_and_methods);
    tcase_add_test(t, a_wrong_path_does_not_cost_the_connection);
    tcase_add_test(t, pipelined_requests_are_answered_in_order);
    tcase_add_test(t, chunked_uploads_arrive_whole);
    tcase_add_test(t, a_body_too_large_is_413_however_it_comes);
    tcase_add_test(t, headers_too_large_are_431);
    tcase_add_test(t, a_request_id_is_echoed_or_made);
    tcase_add_test(t, a_disconnect_cancels);
    tcase_add_test(t, a_disconnect_cancels_all_choices);
    tcase_add_test(t, a_slow_reader_holds_the_machine_and_loses_nothing);
    tcase_add_test(t, a_reader_that_has_stopped_is_cut_off);
    tcase_add_test(t, an_expectation_is_met_and_http_1_0_is_served);
    tcase_add_test(t, text_that_is_held_back_does_not_stall_the_stream);
    tcase_add_test(t, slow_senders_meet_their_deadline);
    tcase_add_test(t, a_long_prefill_is_kept_alive_by_comments);
    tcase_add_test(t, connections_beyond_the_limit_wait_and_then_get_in);
    tcase_add_test(t, a_connection_that_the_ledger_refuses_is_closed);
    tcase_add_test(t, an_exhausted_pool_refuses_and_recovers);
    tcase_add_test(t, a_stream_that_runs_out_of_memory_ends_with_an_error);
    tcase_add_test(t, a_stream_that_is_not_read_keeps_to_its_part_of_the_memory);
    tcase_add_test(t, streams_go_on_while_draining);
    tcase_add_test(t, an_abort_ends_what_runs_with_an_error);
    tcase_add_test(t, unix_sockets_and_inherited_ones);
    tcase_add_test(t, a_bad_address_is_an_error_that_names_it);
    tcase_add_test(t, a_crowd_of_mixed_clients_leaves_nothing_behind);
    return check_run(s);
}
