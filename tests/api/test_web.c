/* The page's files, and what a browser is sent with them. */
#include "api/web.h"

#include "api/web_files.h"
#include "tests/api/fake_one.h"
#include "tests/check_main.h"

START_TEST(gzip_is_sent_to_those_who_take_it) {
    static const char *const yes[] = {
        "gzip",       "GZIP",         "x-gzip", "deflate, gzip, br",     "gzip;q=0.5",
        "gzip ; q=1", "gzip;q=0.001", "*",      "identity;q=0, *;q=0.1", "*;q=0, gzip",
        ",,gzip,,"};
    static const char *const no[] = {
        "",        "identity",    "br",      "gzip;q=0", "gzip;q=0.000", "gzip;Q=0",
        "*;q=0",   "*, gzip;q=0", "gzipped", "gz",       "gzip;q=-1",    "gzip;q=nan",
        "gzip;q=", "gzip;q=zip",  ";;;",     "\xff\xfe"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        ck_assert_msg(web_takes_gzip(yes[i]), "%s", yes[i]);
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        ck_assert_msg(!web_takes_gzip(no[i]), "%s", no[i]);
    ck_assert(!web_takes_gzip(NULL));
}
END_TEST

static reply ask(const char *method, const char *path, const char *headers) {
    char text[1024];
    const int n =
        snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n",
                 method, path, headers);
    return fake_raw(&f, text, (size_t)n);
}

static void serve(bool page) {
    fake_init(&f);
    f.opt.web_page = page;
    fake_start(&f);
}

static void assert_guarded(const reply *r) {
    assert_has(r->head, "Content-Security-Policy: default-src 'none'; script-src 'self'; ");
    assert_has(r->head, "frame-ancestors 'none'");
    assert_has(r->head, "X-Content-Type-Options: nosniff");
    assert_has(r->head, "Referrer-Policy: no-referrer");
    assert_has(r->head, "Cache-Control: no-cache");
    assert_has(r->head, "Vary: Accept-Encoding");
}

/* Each as it is, compressed, its head alone, and not at all where the client has it. */
static void check_file(const char *path, const web_file *w) {
    char known[100];
    reply r = ask("GET", path, "");
    ck_assert_int_eq(r.status, 200);
    assert_guarded(&r);
    assert_has(r.head, w->type);
    ck_assert_ptr_null(strstr(r.head, "Content-Encoding"));
    ck_assert_uint_eq(r.n_body, w->plain.len);
    ck_assert_mem_eq(r.body, w->plain.ptr, w->plain.len);
    reply_free(&r);
    r = ask("GET", path, "Accept-Encoding: br, gzip\r\n");
    assert_has(r.head, "Content-Encoding: gzip");
    ck_assert_uint_eq(r.n_body, w->gzip.len);
    ck_assert_mem_eq(r.body, w->gzip.ptr, w->gzip.len);
    reply_free(&r);
    r = ask("HEAD", path, "");
    ck_assert_int_eq(r.status, 200);
    ck_assert_uint_eq(r.n_body, 0);
    reply_free(&r);
    for (int packed = 0; packed < 2; packed++) {
        snprintf(known, sizeof known, "If-None-Match: W/\"%s%s\"\r\n", w->tag,
                 packed ? "-gzip" : "");
        r = ask("GET", path, known);
        ck_assert_int_eq(r.status, 304);
        assert_guarded(&r);
        assert_has(r.head, w->tag);
        ck_assert_uint_eq(r.n_body, 0);
        reply_free(&r);
    }
}

START_TEST(files_of_the_page_are_served) {
    char path[100];
    serve(true);
    ck_assert_uint_gt(n_web_files, 0);
    for (size_t i = 0; i < n_web_files; i++) {
        snprintf(path, sizeof path, "/web/%s", web_files[i].name);
        check_file(path, &web_files[i]);
        if (strcmp(web_files[i].name, "index.html") == 0) check_file("/", &web_files[i]);
    }
    reply r = ask("POST", "/web/icon.svg", "Content-Length: 0\r\n");
    ck_assert_int_eq(r.status, 405);
    assert_has(r.head, "Allow: GET, HEAD, OPTIONS");
    reply_free(&r);
    stop();
}
END_TEST

START_TEST(nothing_else_is_found_there) {
    static const char *const paths[] = {"/web",
                                        "/web/",
                                        "/web/none.js",
                                        "/web/../web/icon.svg",
                                        "/web/%2e%2e/icon.svg",
                                        "/web//icon.svg",
                                        "/web/icon.svg/x",
                                        "/web/Icon.svg",
                                        "/web/icon.svg%2f.."};
    serve(true);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        reply r = ask("GET", paths[i], "");
        ck_assert_msg(r.status == 404, "%s: %d", paths[i], r.status);
        reply_free(&r);
    }
    stop();
}
END_TEST

START_TEST(without_the_option_there_is_no_page) {
    serve(false);
    reply r = ask("GET", "/", "");
    ck_assert_int_eq(r.status, 200);
    assert_has(r.head, "text/plain");
    assert_has(r.body, "POST /v1/completions");
    reply_free(&r);
    r = ask("GET", "/web/icon.svg", "");
    ck_assert_int_eq(r.status, 404);
    reply_free(&r);
    stop();
}
END_TEST

int main(void) {
    Suite *s = suite_create("web");
    TCase *t = check_case(s, "web");
    tcase_add_test(t, gzip_is_sent_to_those_who_take_it);
    tcase_add_test(t, files_of_the_page_are_served);
    tcase_add_test(t, nothing_else_is_found_there);
    tcase_add_test(t, without_the_option_there_is_no_page);
    return check_run(s);
}
