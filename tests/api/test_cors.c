/* Origins, and what browsers are told before the endpoints. */
#include "api/cors.h"

#include "tests/api/fake_one.h"
#include "tests/check_main.h"

#define LIST "https://a.example, http://b.example:8080"

START_TEST(origins_match_whole_and_in_any_case) {
    ck_assert_str_eq(cors_match(LIST, "https://a.example"), "https://a.example");
    ck_assert_str_eq(cors_match(LIST, "HTTPS://A.example"), "HTTPS://A.example");
    ck_assert_str_eq(cors_match(LIST, "http://b.example:8080"), "http://b.example:8080");
    static const char *const none[] = {"http://a.example",
                                       "https://a.example.evil",
                                       "https://a.exampl",
                                       "https://a.example:443",
                                       "null",
                                       "",
                                       "*",
                                       LIST};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        ck_assert_ptr_null(cors_match(LIST, none[i]));
    ck_assert_ptr_null(cors_match(LIST, NULL));
    ck_assert_ptr_null(cors_match("", "https://a.example"));
    ck_assert_str_eq(cors_match("*", "https://x"), "*");
    ck_assert_str_eq(cors_match("null", "null"), "null");
    ck_assert(cors_varies(LIST) && !cors_varies("*") && !cors_varies(""));
}
END_TEST

START_TEST(localhost_stands_for_every_page_of_this_machine) {
    static const char *const local[] = {"http://localhost", "https://localhost:3000",
                                        "http://127.0.0.1:8080", "http://[::1]:1",
                                        "HTTP://LOCALHOST:5"};
    static const char *const none[] = {
        "http://localhost.evil", "http://localhost:", "null",      "http",
        "http://localhost:80x",  "ftp://localhost",   "localhost", "http://localhost/",
        "https://a.example"};
    const char *bad;
    ck_assert(cors_list_ok("localhost, https://b", &bad) && cors_varies("localhost"));
    for (size_t i = 0; i < sizeof local / sizeof *local; i++)
        ck_assert_str_eq(cors_match("https://b,localhost", local[i]), local[i]);
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        ck_assert_ptr_null(cors_match("https://b,localhost", none[i]));
}
END_TEST

START_TEST(a_list_is_checked) {
    static const char *const good[] = {"", "*", LIST, "null", "http://[::1]:3000  https://x"};
    static const struct {
        const char *list, *at;
    } wrong[] = {{"a.example", "a.example"},
                 {"https://a/ *", "https://a/ *"},
                 {"* https://", "https://"},
                 {"https://a,ftp://b", "ftp://b"},
                 {"**", "**"}};
    const char *bad;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        ck_assert_msg(cors_list_ok(good[i], &bad), "%s", good[i]);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ck_assert_msg(!cors_list_ok(wrong[i].list, &bad), "%s", wrong[i].list);
        ck_assert_str_eq(bad, wrong[i].at);
    }
    ck_assert(cors_names_ok("authorization, content-type,x-stainless-os"));
    ck_assert(!cors_names_ok("") && !cors_names_ok("a\rb") && !cors_names_ok("a: b"));
}
END_TEST

static reply ask(const char *method, const char *url, const char *headers) {
    char text[1024];
    int n =
        snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n",
                 method, url, headers);
    return fake_raw(&f, text, (size_t)n);
}

static void serve(const char *list) {
    fake_init(&f);
    f.opt.cors_origins = list;
    fake_start(&f);
}

START_TEST(by_default_nothing_is_said) {
    serve("");
    reply r = ask("GET", "/v1/models", "Origin: https://a.example\r\n");
    ck_assert_int_eq(r.status, 200);
    assert_lacks(r.head, "Access-Control");
    assert_lacks(r.head, "Vary");
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

START_TEST(a_page_of_the_list_may_read_answers_and_refusals) {
    serve(LIST);
    static const char *const url[] = {"/v1/models", "/nothing"};
    for (int i = 0; i < 2; i++) {
        reply r = ask("GET", url[i], "Origin: https://a.example\r\n");
        assert_has(r.head, "Access-Control-Allow-Origin: https://a.example\r\n");
        assert_has(r.head, "Access-Control-Expose-Headers: X-Request-Id, Retry-After\r\n");
        assert_has(r.head, "Vary: Origin\r\n");
        reply_free(&r);
    }
    reply r = ask("GET", "/v1/models", "Origin: https://evil.example\r\n");
    ck_assert_int_eq(r.status, 200);
    assert_lacks(r.head, "Access-Control");
    assert_has(r.head, "Vary: Origin");
    reply_free(&r);
    r = ask("GET", "/v1/models", "");
    assert_lacks(r.head, "Access-Control");
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

/* A form or text/plain goes to any server without a preflight; JSON does not. */
START_TEST(a_page_of_elsewhere_cannot_ask_without_a_preflight) {
    serve("https://a.example");
    static const struct {
        const char *headers;
        int status;
    } t[] = {{"Origin: https://evil.example\r\nContent-Type: text/plain\r\n", 415},
             {"Origin: https://evil.example\r\n", 415},
             {"Origin: null\r\nContent-Type: application/x-www-form-urlencoded\r\n", 415},
             {"Origin: https://self\r\nContent-Type: application/json; charset=utf-8\r\n", 200},
             {"Origin: https://a.example\r\nContent-Type: text/plain\r\n", 200},
             {"Content-Type: text/plain\r\n", 200},
             {"Content-Encoding: identity\r\n", 200},
             {"Content-Encoding: gzip\r\n", 415}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char text[512];
        int n = snprintf(text, sizeof text,
                         "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                         "Content-Length: 14\r\n%s\r\n{\"prompt\":\"a\"}",
                         t[i].headers);
        reply r = fake_raw(&f, text, (size_t)n);
        ck_assert_msg(r.status == t[i].status, "%s: %d", t[i].headers, r.status);
        if (r.status == 415) assert_has(r.body, "\"type\":\"invalid_request_error\"");
        reply_free(&r);
    }
    fake_stop(&f);
}
END_TEST

#define PREFLIGHT                                                                              \
    "Access-Control-Request-Method: POST\r\n"                                                  \
    "Access-Control-Request-Headers: authorization,content-type\r\n"

START_TEST(a_preflight_is_answered_without_a_key) {
    serve("*");
    reply r = ask("OPTIONS", "/v1/chat/completions", "Origin: https://x\r\n" PREFLIGHT);
    ck_assert_int_eq(r.status, 204);
    assert_has(r.head, "Access-Control-Allow-Origin: *\r\n");
    assert_has(r.head, "Access-Control-Allow-Methods: POST, OPTIONS\r\n");
    assert_has(r.head, "Access-Control-Allow-Headers: authorization,content-type\r\n");
    assert_has(r.head, "Access-Control-Max-Age: 600");
    assert_has(r.head, "Allow: POST, OPTIONS\r\n");
    assert_lacks(r.head, "Vary");
    reply_free(&r);
    r = ask("OPTIONS", "/v1/models",
            "Origin: https://x\r\nAccess-Control-Request-Method: GET\r\n"
            "Access-Control-Request-Headers: a;b\r\n");
    assert_has(r.head, "Access-Control-Allow-Methods: GET, HEAD, OPTIONS\r\n");
    assert_lacks(r.head, "Access-Control-Allow-Headers");
    reply_free(&r);
    r = ask("OPTIONS", "/v1/models", "");
    ck_assert_int_eq(r.status, 204);
    assert_lacks(r.head, "Access-Control");
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

START_TEST(a_preflight_of_another_origin_is_told_nothing) {
    serve(LIST);
    reply r = ask("OPTIONS", "/v1/chat/completions", "Origin: https://x\r\n" PREFLIGHT);
    ck_assert_int_eq(r.status, 204);
    assert_lacks(r.head, "Access-Control");
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

START_TEST(a_stream_has_the_headers_too) {
    serve("*");
    static const char text[] = "POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                               "Connection: close\r\nOrigin: https://x\r\n"
                               "Content-Length: 28\r\n\r\n{\"prompt\":\"a\",\"stream\":true}";
    reply r = fake_text(&f, text);
    ck_assert_int_eq(r.status, 200);
    assert_has(r.head, "Access-Control-Allow-Origin: *\r\n");
    assert_has(r.body, "data: [DONE]");
    reply_free(&r);
    fake_stop(&f);
}
END_TEST

START_TEST(a_wrong_list_does_not_open) {
    server *s;
    uv_loop_t loop;
    err e;
    fake_init(&f);
    f.opt.cors_origins = "https://a.example a.example";
    port p = {.ops = fake_ops()};
    ck_assert(ledger_open_unlimited(&p.ledger, &e) == OK);
    ck_assert(uv_loop_init(&loop) == 0);
    ck_assert(server_open(&s, &loop, &f.opt, &p, &e) == ERR_INVALID);
    ck_assert_str_eq(e.field, "cors_origins");
    assert_has(e.text, "\"a.example\"");
    ck_assert(uv_loop_close(&loop) == 0);
    ledger_close(p.ledger);
}
END_TEST

CHECK_MAIN("cors", origins_match_whole_and_in_any_case,
           localhost_stands_for_every_page_of_this_machine, a_list_is_checked,
           by_default_nothing_is_said, a_page_of_elsewhere_cannot_ask_without_a_preflight,
           a_page_of_the_list_may_read_answers_and_refusals,
           a_preflight_is_answered_without_a_key, a_preflight_of_another_origin_is_told_nothing,
           a_stream_has_the_headers_too, a_wrong_list_does_not_open)
