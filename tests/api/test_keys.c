/* Keys and the limits of tenants: the file, its errors, reading it again, rates by a clock that
 * the test moves, and all of it before the endpoints. The hashes are sha256sum's. */
#include "api/keys.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include "api/secret.h"
#include "tests/api/fake_one.h"
#include "tests/check_main.h"

/* printf %s WORD | sha256sum */
#define SHA_ABC   "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" /* abc */
#define SHA_EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define SHA_A     "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb" /* a */

enum { SECOND = 1000000 };

static char path[64];
static ledger *book;

static void write_bytes(const char *text, size_t n) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ck_assert(fd >= 0 && write(fd, text, n) == (ssize_t)n);
    close(fd);
}
static void write_file(const char *text) {
    write_bytes(text, strlen(text));
}

static void set_up(const char *text) {
    err e;
    snprintf(path, sizeof path, "/tmp/vramd-test-keys-%d", (int)getpid());
    write_file(text);
    ck_assert(ledger_open_unlimited(&book, &e) == OK);
}

static void tear_down(void) {
    unlink(path);
    ledger_close(book);
}

static keys *opened(const char *text) {
    keys *k;
    err e;
    set_up(text);
    ck_assert_msg(keys_open(&k, path, book, 0, &e) == OK, "%s", e.text);
    return k;
}

START_TEST(a_bucket_gives_a_minute_at_once_and_then_its_rate) {
    bucket b = {0};
    double wait;
    bucket_rate(&b, 60, 0);
    for (int i = 0; i < 60; i++) ck_assert(bucket_take(&b, 1, 0, &wait));
    ck_assert(!bucket_take(&b, 1, 0, &wait));
    ck_assert_double_eq_tol(wait, 1, 1e-9);
    ck_assert(!bucket_take(&b, 30, SECOND / 2, &wait));
    ck_assert_double_eq_tol(wait, 29.5, 1e-9);
    ck_assert(bucket_take(&b, 1, SECOND, &wait) && wait == 0);
    ck_assert(!bucket_take(&b, 1, SECOND, &wait));
    /* never more than a minute's worth */
    ck_assert(bucket_take(&b, 60, 1000ull * SECOND, &wait));
    ck_assert(!bucket_take(&b, 1, 1000ull * SECOND, &wait));
}
END_TEST

START_TEST(what_no_bucket_can_hold_is_taken_from_a_full_one_on_credit) {
    bucket b = {0};
    double wait;
    bucket_rate(&b, 100, 0);
    ck_assert(bucket_take(&b, 250, 0, &wait));
    ck_assert(!bucket_take(&b, 1, 0, &wait));
    ck_assert_double_eq_tol(wait, 151 * 0.6, 1e-9);
    bucket_give_back(&b, 240, 0);
    ck_assert(bucket_take(&b, 90, 0, &wait));
    ck_assert(!bucket_take(&b, 1, 0, &wait));
}
END_TEST

START_TEST(another_rate_keeps_what_a_bucket_holds) {
    bucket b = {0};
    double wait;
    bucket_rate(&b, 100, 0);
    ck_assert(bucket_take(&b, 90, 0, &wait));
    bucket_rate(&b, 1000, 0);
    ck_assert(!bucket_take(&b, 11, 0, &wait) && bucket_take(&b, 10, 0, &wait));
    bucket_rate(&b, 0, 0);
    ck_assert(bucket_take(&b, 1u << 30, 0, &wait));
    bucket_rate(&b, 5, SECOND);
    ck_assert(bucket_take(&b, 5, SECOND, &wait) && !bucket_take(&b, 1, SECOND, &wait));
}
END_TEST

START_TEST(a_tenant_has_three_limits) {
    tenant t = {.name = "t"};
    double wait;
    const tenant_limits l = {.requests_per_min = 3, .tokens_per_min = 100, .concurrency = 2};
    tenant_set(&t, &l, 0);
    ck_assert(tenant_enter(&t, 0, &wait) == TENANT_OK);
    ck_assert(tenant_enter(&t, 0, &wait) == TENANT_OK);
    ck_assert(tenant_enter(&t, 0, &wait) == TENANT_CONCURRENCY && wait == 0);
    tenant_leave(&t);
    ck_assert(tenant_enter(&t, 0, &wait) == TENANT_OK); /* the refused one cost nothing */
    tenant_leave(&t);
    ck_assert(tenant_enter(&t, 0, &wait) == TENANT_REQUESTS);
    ck_assert_double_eq_tol(wait, 20, 1e-9);
    ck_assert(tenant_charge(&t, 80, 0, &wait) == TENANT_OK);
    ck_assert(tenant_charge(&t, 50, 0, &wait) == TENANT_TOKENS);
    ck_assert_double_eq_tol(wait, 18, 1e-9);
    tenant_settle(&t, 80, 30, 10, 0); /* 40 come back */
    ck_assert(tenant_charge(&t, 60, 0, &wait) == TENANT_OK);
    ck_assert(tenant_charge(&t, 1, 0, &wait) == TENANT_TOKENS);
    ck_assert_uint_eq(t.counts.n_requests, 3);
    ck_assert_uint_eq(t.counts.n_limited, 4);
    ck_assert_uint_eq(t.counts.n_prompt_tokens, 30);
    ck_assert_uint_eq(t.counts.n_output_tokens, 10);
}
END_TEST

START_TEST(a_file_is_read_and_its_keys_are_found) {
    keys *k = opened("# keys\n\n  \t\n"
                     "alice " SHA_ABC
                     " rate=60/min tokens=9000/min concurrency=4 weight=7 priority=-3"
                     " # hers\r\n"
                     "bob-2.x_ " SHA_A "\n"
                     "alice " SHA_EMPTY);
    tenant *t = keys_find(k, STR("abc"));
    ck_assert(t && strcmp(t->name, "alice") == 0);
    ck_assert_uint_eq(t->limits.requests_per_min, 60);
    ck_assert_uint_eq(t->limits.tokens_per_min, 9000);
    ck_assert_uint_eq(t->limits.concurrency, 4);
    ck_assert(t->limits.has_priority && t->limits.priority == -3);
    ck_assert_uint_eq(t->limits.weight, 7);
    ck_assert_ptr_eq(keys_find(k, STR("")), t); /* her second key */
    tenant *b = keys_find(k, STR("a"));
    ck_assert(b && strcmp(b->name, "bob-2.x_") == 0 && !b->limits.has_priority);
    ck_assert_ptr_null(keys_find(k, STR("ab")));
    ck_assert_ptr_null(keys_find(k, STR(SHA_ABC)));
    ck_assert_uint_eq(keys_n_tenants(k), 2);
    /* To the scheduler a tenant is a number, whatever place it has here. */
    const tenant named = {.name = "alice"};
    ck_assert_uint_eq(tenant_id(t), tenant_id(&named));
    ck_assert(tenant_id(t) != tenant_id(b) && tenant_id(t) > 0 && tenant_id(NULL) == 0);
    keys_close(k, book);
    tear_down();
}
END_TEST

static const struct {
    const char *text, *part;
} bad[] = {
    {"", "has no key"},
    {"# nothing\n", "has no key"},
    {"alice\n", "line 1: the name \"alice\" must be followed by a SHA-256"},
    {"alice " SHA_ABC "0\n", "line 1: the name \"alice\" must be followed"},
    {"\nalice g" SHA_ABC "\n", "line 2: the name \"alice\" must be followed"},
    {"-alice " SHA_ABC "\n", "line 1: \"-alice\" is no name"},
    {"a/b " SHA_ABC "\n", "is no name"},
    {"_other " SHA_ABC "\n", "is no name"},
    {"a23456789012345678901234567890123 " SHA_ABC "\n", "\"a23456789012\" is no name"},
    {"a " SHA_ABC "\nb " SHA_ABC "\n", "line 2: this key is in line 1 already"},
    {"a " SHA_ABC "\na " SHA_A " rate=1/min\n", "line 2: the limits of \"a\" are in line 1"},
    {"a " SHA_ABC " rate=60\n", "line 1: \"rate=60\" is no limit"},
    {"a " SHA_ABC " rate=0/min\n", "is no limit"},
    {"a " SHA_ABC " rate=-1/min\n", "is no limit"},
    {"a " SHA_ABC " tokens=1/s\n", "is no limit"},
    {"a " SHA_ABC " tokens=99999999999999999999/min\n", "is no limit"},
    {"a " SHA_ABC " concurrency=x\n", "is no limit"},
    {"a " SHA_ABC " priority=\n", "is no limit"},
    {"a " SHA_ABC " weight=0\n", "is no limit"},
    {"a " SHA_ABC " weight=1001\n", "is no limit"},
    {"a " SHA_ABC " priority=--1\n", "is no limit"},
    {"a " SHA_ABC " share=3\n", "\"share=3\" is no limit"},
    {"\xef\xbb\xbf"
     "a " SHA_ABC "\n",
     "is no name"}, /* a byte order mark */
    {"\xe4 " SHA_ABC "\n", "is no name"},
    {"a " SHA_ABC "\xa0rate=1/min\n", "must be followed by a SHA-256"}, /* a blank of Latin-1 */
};

START_TEST(a_wrong_line_is_named) {
    keys *k;
    err e;
    set_up("");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(bad[i].text);
        ck_assert_msg(keys_open(&k, path, book, 0, &e) == ERR_INVALID, "<%s>", bad[i].text);
        assert_has(e.text, bad[i].part);
        assert_has(e.text, path);
        ck_assert_str_eq(e.field, "api_keys_file");
        ck_assert_ptr_null(k);
    }
    char longest[600];
    memset(longest, '#', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    write_file(longest);
    ck_assert(keys_open(&k, path, book, 0, &e) == ERR_INVALID);
    assert_has(e.text, "line 1: more than 510 bytes");
    tear_down();
}
END_TEST

START_TEST(a_file_that_cannot_be_trusted_is_refused) {
    keys *k;
    err e;
    set_up("a " SHA_ABC "\n");
    ck_assert(chmod(path, 0644) == 0);
    ck_assert(keys_open(&k, path, book, 0, &e) == ERR_INVALID);
    assert_has(e.text, "everybody may read");
    assert_has(e.hint, "chmod");
    ck_assert(chmod(path, 0640) == 0);
    ck_assert(keys_open(&k, path, book, 0, &e) == OK);
    keys_close(k, book);
    ck_assert(keys_open(&k, "/tmp", book, 0, &e) == ERR_INVALID);
    ck_assert(unlink(path) == 0 && mkfifo(path, 0600) == 0); /* nobody writes: not waited for */
    ck_assert(keys_open(&k, path, book, 0, &e) == ERR_INVALID);
    ck_assert(keys_open(&k, "/nonexistent/keys", book, 0, &e) == ERR_NOT_FOUND);
    assert_has(e.text, "/nonexistent/keys");
    ck_assert_str_eq(e.field, "api_keys_file");
    tear_down();
}
END_TEST

START_TEST(a_nul_hides_no_limit) {
    static const char with_end[] = "a " SHA_ABC "\0 rate=1/min\n", last[] = "b " SHA_A "\0x";
    keys *k;
    err e;
    set_up("");
    write_bytes(with_end, sizeof with_end - 1);
    ck_assert(keys_open(&k, path, book, 0, &e) == ERR_INVALID);
    assert_has(e.text, "line 1: a NUL");
    write_bytes(last, sizeof last - 1);
    ck_assert(keys_open(&k, path, book, 0, &e) == ERR_INVALID);
    assert_has(e.text, "line 1: a NUL");
    write_file("a " SHA_ABC " rate=1/min\r\nb " SHA_A); /* CR LF, and no end of the last line */
    ck_assert(keys_open(&k, path, book, 0, &e) == OK);
    ck_assert(keys_find(k, STR("abc"))->limits.requests_per_min == 1 && keys_find(k, STR("a")));
    ck_assert(!keys_find(k, (str){"abc\0x", 5}) && !keys_find(k, STR("")) &&
              !keys_find(k, STR("abc\xff")));
    keys_close(k, book);
    tear_down();
}
END_TEST

START_TEST(a_file_that_changes_while_it_is_read_is_not_taken) {
    static const struct {
        const char *name;
        off_t size;
    } then[] = {{"shorter", 10}, {"longer", 1000}, {"empty", 0}};
    err e;
    for (size_t i = 0; i < sizeof then / sizeof *then; i++) {
        FILE *file;
        char line[200];
        set_up("a " SHA_ABC "\n");
        ck_assert(secret_open(&file, path, 1000, "api_keys_file", &e) == OK);
        while (fgets(line, sizeof line, file)) {
        }
        ck_assert(secret_steady(file, path, "api_keys_file", &e) == OK);
        ck_assert(truncate(path, then[i].size) == 0);
        ck_assert_msg(secret_steady(file, path, "api_keys_file", &e) == ERR_INVALID, "%s",
                      then[i].name);
        assert_has(e.text, "has changed while it was read");
        assert_has(e.hint, "rename");
        ck_assert_str_eq(e.field, "api_keys_file");
        fclose(file);
        tear_down();
    }
}
END_TEST

START_TEST(as_many_keys_as_there_may_be_are_found_and_no_more_are_taken) {
    keys *k;
    err e;
    set_up("");
    char *all = malloc(100000 * 90), *at = all, key[16], hash[2 * KEY_HASH_BYTES + 1];
    for (int i = 0; i < 100000; i++) { /* those after the first 1024 need not be real */
        unsigned char sum[KEY_HASH_BYTES] = {0};
        snprintf(key, sizeof key, "key-%d", i);
        if (i < KEYS_MAX) gnutls_hash_fast(GNUTLS_DIG_SHA256, key, strlen(key), sum);
        memcpy(sum, i < KEYS_MAX ? sum : (unsigned char *)&i, sizeof i);
        for (int b = 0; b < KEY_HASH_BYTES; b++) sprintf(hash + 2 * b, "%02x", sum[b]);
        at += sprintf(at, "tenant-%d %s\n", i, hash);
        if (i + 1 == KEYS_MAX) {
            write_bytes(all, (size_t)(at - all));
            ck_assert_msg(keys_open(&k, path, book, 0, &e) == OK, "%s", e.text);
            for (int j = 0; j < KEYS_MAX; j++) {
                snprintf(key, sizeof key, "key-%d", j);
                snprintf(hash, sizeof hash, "tenant-%d", j);
                ck_assert_str_eq(keys_find(k, str_of(key))->name, hash);
            }
        }
        if (i != KEYS_MAX) continue;
        write_bytes(all, (size_t)(at - all));
        ck_assert(keys_reload(k, path, 0, &e) == ERR_INVALID);
        assert_has(e.text, "line 1025: more than 1024 keys");
    }
    write_bytes(all, (size_t)(at - all));
    ck_assert(keys_reload(k, path, 0, &e) == ERR_INVALID);
    assert_has(e.text, "bytes");
    assert_has(e.hint, "at most 1024 keys");
    ck_assert(keys_find(k, STR("key-1023"))); /* those of before */
    free(all);
    keys_close(k, book);
    tear_down();
}
END_TEST

START_TEST(a_bad_file_leaves_the_old_keys_in_force) {
    keys *k = opened("a " SHA_ABC "\n");
    err e;
    write_file("a " SHA_A "\nb nonsense\n");
    ck_assert(keys_reload(k, path, 0, &e) == ERR_INVALID);
    assert_has(e.text, "line 2");
    ck_assert(keys_find(k, STR("abc")) && !keys_find(k, STR("a")));
    unlink(path);
    ck_assert(keys_reload(k, path, 0, &e) == ERR_NOT_FOUND);
    ck_assert(keys_find(k, STR("abc")));
    write_file("b " SHA_A "\n");
    ck_assert(keys_reload(k, path, 0, &e) == OK);
    ck_assert(!keys_find(k, STR("abc")) && keys_find(k, STR("a")));
    keys_close(k, book);
    tear_down();
}
END_TEST

START_TEST(a_tenant_keeps_its_buckets_over_a_reload) {
    keys *k = opened("a " SHA_ABC " rate=2/min\n");
    err e;
    double wait;
    tenant *t = keys_find(k, STR("abc"));
    ck_assert(tenant_enter(t, 0, &wait) == TENANT_OK);
    ck_assert(tenant_enter(t, 0, &wait) == TENANT_OK);
    write_file("b " SHA_A "\na " SHA_EMPTY " rate=2/min\n"); /* another key, another place */
    ck_assert(keys_reload(k, path, 0, &e) == OK);
    ck_assert_ptr_eq(keys_find(k, STR("")), t);
    ck_assert(tenant_enter(t, 0, &wait) == TENANT_REQUESTS);
    ck_assert_uint_eq(t->n_open, 2);
    tenant_leave(t), tenant_leave(t);
    keys_close(k, book);
    tear_down();
}
END_TEST

static char *many(uint32_t from, uint32_t n) {
    char *text = malloc(n * 96 + 1), *at = text;
    for (uint32_t i = from; i < from + n; i++) at += sprintf(at, "t%u %064x\n", i, i);
    *at = '\0';
    return text;
}

static void count_each(void *arg, const tenant *t) {
    uint64_t *n = arg;
    n[0]++;
    n[1] += t->counts.n_requests;
    if (strcmp(t->name, "_other") == 0) n[2] = t->counts.n_requests;
}

START_TEST(places_are_bounded_and_nobody_in_progress_loses_his) {
    char *text = many(0, KEYS_MAX);
    keys *k = opened(text);
    err e;
    double wait;
    free(text);
    ck_assert_uint_eq(keys_n_tenants(k), KEYS_MAX);
    uint64_t n[3] = {0};
    keys_each(k, count_each, n);
    ck_assert_uint_eq(n[0], KEYS_SHOWN + 1);
    write_file("t5 " SHA_ABC "\n");
    ck_assert(keys_reload(k, path, 0, &e) == OK);
    tenant *t = keys_find(k, STR("abc"));
    ck_assert(tenant_enter(t, 0, &wait) == TENANT_OK);
    /* all places for others, but one is still taken */
    text = many(KEYS_MAX, KEYS_MAX);
    write_file(text);
    ck_assert(keys_reload(k, path, 0, &e) == ERR_INVALID);
    assert_has(e.text, "requests in progress");
    ck_assert_ptr_eq(keys_find(k, STR("abc")), t);
    tenant_leave(t);
    ck_assert(keys_reload(k, path, 0, &e) == OK);
    ck_assert_uint_eq(keys_n_tenants(k), KEYS_MAX);
    memset(n, 0, sizeof n);
    keys_each(k, count_each, n);
    ck_assert_uint_eq(n[2], 1); /* what t5 had counted is in the rest now */
    free(text);
    text = many(0, KEYS_MAX + 1);
    write_file(text);
    ck_assert(keys_reload(k, path, 0, &e) == ERR_INVALID);
    assert_has(e.text, "line 1025: more than 1024 keys");
    free(text);
    keys_close(k, book);
    tear_down();
}
END_TEST

START_TEST(a_key_is_made_and_found) {
    char key[KEY_TEXT_BYTES], other[KEY_TEXT_BYTES], hash[2 * KEY_HASH_BYTES + 1], line[256];
    err e;
    ck_assert(keys_make("a", " rate=1/min", key, hash, &e) == OK);
    ck_assert(keys_make("a", "", other, hash, &e) == OK);
    ck_assert_str_ne(key, other);
    snprintf(line, sizeof line, "a %s\n", hash);
    keys *k = opened(line);
    ck_assert(keys_find(k, str_of(other)) && !keys_find(k, str_of(key)));
    ck_assert(keys_make("a b", "", key, hash, &e) == ERR_INVALID);
    ck_assert(keys_make("a", "fast=1", key, hash, &e) == ERR_INVALID);
    assert_has(e.text, "fast=1");
    keys_close(k, book);
    tear_down();
}
END_TEST

/* ---- before the endpoints ---- */

static reply ask(const char *method, const char *url, const char *header, const char *body) {
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%sContent-Length: "
                     "%zu\r\n\r\n%s",
                     method, url, header, strlen(body), body);
    return fake_raw(&f, text, (size_t)n);
}

static void serve(const char *text) {
    set_up(text);
    fake_init(&f);
    f.opt.api_keys_file = path;
}

#define ABC "Authorization: Bearer abc\r\n"

START_TEST(without_a_known_key_there_is_nothing_but_health) {
    static const char *const none[] = {"", "Authorization: Bearer ab\r\n",
                                       "Authorization: Basic abc\r\n", "X-Api-Key:\r\n",
                                       "X-Api-Key: " SHA_ABC "\r\n"};
    static const char *const good[] = {ABC, "authorization: bearer  abc \r\n",
                                       "X-API-Key: abc\r\n"};
    static const char *const open_paths[] = {"/health", "/ready", "/metrics"};
    serve("a " SHA_ABC "\n");
    fake_start(&f);
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        reply r = ask("POST", "/v1/completions", none[i], JSON({"prompt":"a"}));
        ASSERT_ERROR(r, 401, "authentication_error", "null");
        assert_has(r.head, "WWW-Authenticate: Bearer");
        reply_free(&r);
    }
    reply r = ask("GET", "/v1/models", "", "");
    ck_assert_int_eq(r.status, 401);
    reply_free(&r);
    r = ask("GET", "/nothing", "", "");
    ck_assert_int_eq(r.status, 401);
    reply_free(&r);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        r = ask("POST", "/v1/completions", good[i], JSON({"prompt":"a"}));
        ck_assert_int_eq(r.status, 200);
        reply_free(&r);
    }
    for (size_t i = 0; i < 3; i++) {
        r = ask("GET", open_paths[i], "", "");
        ck_assert_int_eq(r.status, 200);
        reply_free(&r);
    }
    fake_stop(&f);
    tear_down();
}
END_TEST

START_TEST(metrics_can_be_kept_for_keys_and_tell_of_each) {
    serve("a " SHA_ABC " concurrency=9\n");
    f.opt.metrics_auth = true;
    fake_start(&f);
    reply r = ask("GET", "/metrics", "", "");
    ck_assert_int_eq(r.status, 401);
    reply_free(&r);
    r = ask("POST", "/v1/completions", ABC, JSON({"prompt":"abcd","max_tokens":3}));
    ck_assert_int_eq(r.status, 200);
    reply_free(&r);
    r = ask("GET", "/metrics", ABC, "");
    assert_has(r.body, "vramd_key_requests_total{model_name=\"fake\",key=\"a\"} 2\n");
    assert_has(r.body, "vramd_key_prompt_tokens_total{model_name=\"fake\",key=\"a\"} 4\n");
    assert_has(r.body, "vramd_key_generated_tokens_total{model_name=\"fake\",key=\"a\"} 3\n");
    assert_has(r.body, "vramd_key_limited_total{model_name=\"fake\",key=\"a\"} 0\n");
    assert_lacks(r.body, "_other");
    reply_free(&r);
    fake_stop(&f);
    tear_down();
}
END_TEST

START_TEST(a_rate_is_429_with_the_time_until_the_next) {
    serve("a " SHA_ABC " rate=2/min\nb " SHA_A "\n");
    fake_start(&f);
    for (int i = 0; i < 3; i++) {
        reply r = ask("POST", "/v1/completions", ABC, JSON({"prompt":"a"}));
        if (i < 2) {
            ck_assert_int_eq(r.status, 200);
        } else {
            ASSERT_ERROR(r, 429, "rate_limit_error", "null");
            assert_has(r.body, "the key of a is at its limit of 2 requests a minute");
            int wait = atoi(strstr(r.head, "Retry-After: ") + 13);
            ck_assert_int_ge(wait, 15); /* 30 s less what the test has taken */
            ck_assert_int_le(wait, 30);
        }
        reply_free(&r);
    }
    reply r =
        ask("POST", "/v1/completions", "Authorization: Bearer a\r\n", JSON({"prompt":"a"}));
    ck_assert_int_eq(r.status, 200); /* the other's limit is the other's */
    reply_free(&r);
    fake_stop(&f);
    tear_down();
}
END_TEST

START_TEST(tokens_are_charged_at_most_and_settled_by_what_was_used) {
    serve("a " SHA_ABC " tokens=100/min\n");
    f.says = "0123456789";
    fake_start(&f);
    /* 61 charged, 11 used: three times in a row */
    for (int i = 0; i < 3; i++) {
        reply r = ask("POST", "/v1/completions", ABC, JSON({"prompt":"a","max_tokens":60}));
        ck_assert_int_eq(r.status, 200);
        reply_free(&r);
    }
    reply r = ask("POST", "/v1/completions", ABC, JSON({"prompt":"a","max_tokens":45,"n":2}));
    ASSERT_ERROR(r, 429, "rate_limit_error", "null");
    assert_has(r.body, "100 tokens a minute");
    reply_free(&r);
    r = ask("POST", "/v1/completions", ABC, JSON({"prompt":"","max_tokens":45}));
    ck_assert_int_eq(r.status, 400);
    reply_free(&r);
    r = ask("POST", "/v1/completions", ABC, JSON({"prompt":"a","max_tokens":45}));
    ck_assert_int_eq(r.status, 200);
    reply_free(&r);
    fake_stop(&f);
    tear_down();
}
END_TEST

static int32_t priority_of(const char *key, const char *body) {
    f.says = "x";
    reply r = ask("POST", "/v1/completions", key, body);
    ck_assert_int_eq(r.status, 200);
    reply_free(&r);
    return f.gens[0].spec.priority;
}

START_TEST(a_key_bounds_the_priority_that_its_requests_name) {
    serve("a " SHA_ABC "\nb " SHA_A " priority=-7\n");
    fake_start(&f);
    ck_assert_int_eq(priority_of(ABC, JSON({"prompt":"a","priority":-9})), 0);
    ck_assert_int_eq(priority_of(ABC, JSON({"prompt":"a","priority":9})), 9);
    ck_assert_int_eq(priority_of("Authorization: Bearer a\r\n", JSON({"prompt":"a"})), -7);
    ck_assert_int_eq(
        priority_of("Authorization: Bearer a\r\n", JSON({"prompt":"a","priority":-9})), -7);
    ck_assert_int_eq(
        priority_of("Authorization: Bearer a\r\n", JSON({"prompt":"a","priority":-6})), -6);
    fake_stop(&f);
    tear_down();
}
END_TEST

START_TEST(a_place_is_free_again_when_a_client_has_left) {
    serve("a " SHA_ABC " concurrency=1 priority=-7\n");
    f.says = "x";
    fake_start(&f);
    static const char request[] =
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\n" ABC "Content-Length: 78\r\n\r\n"
        "{\"prompt\":\"a\",\"max_tokens\":100000,\"ignore_eos\":true,"
        "\"stream\":true,\"n\":2}      ";
    int fd = fake_connect(&f);
    bool closed;
    fake_send(fd, request, sizeof request - 1);
    free(fake_read(fd, "data: {", 5000, NULL, &closed));
    ck_assert(!closed);
    ck_assert_int_eq(f.gens[0].spec.priority, -7);
    ck_assert(str_eq(f.gens[0].spec.cache_salt, (str){"a\0", 2}));
    reply r = ask("POST", "/v1/completions", ABC, JSON({"prompt":"a"}));
    ASSERT_ERROR(r, 429, "rate_limit_error", "null");
    assert_has(r.body, "at its limit of 1 requests at once");
    assert_has(r.head, "Retry-After: 3"); /* of the backlog: 2.5 */
    reply_free(&r);
    close(fd);
    ck_assert(fake_await(&f.n_live, 0, 5000));
    for (int i = 0; i < 100; i++) { /* the connection's end follows the generations' */
        r = ask("POST", "/v1/completions", ABC, JSON({"prompt":"a"}));
        int s = r.status;
        reply_free(&r);
        if (s == 200) break;
        ck_assert_int_eq(s, 429);
        ck_assert_int_lt(i, 99);
        usleep(10000);
    }
    fake_stop(&f);
    tear_down();
}
END_TEST

START_TEST(a_server_with_a_bad_file_does_not_open) {
    server_options o;
    server *s;
    uv_loop_t loop;
    port p = {.ops = fake_ops()};
    err e;
    set_up("a b\n");
    fake_init(&f);
    o = f.opt;
    o.api_keys_file = path;
    p.ledger = book;
    ck_assert(uv_loop_init(&loop) == 0);
    ck_assert(server_open(&s, &loop, &o, &p, &e) == ERR_INVALID);
    assert_has(e.text, "line 1");
    ck_assert(uv_loop_close(&loop) == 0);
    tear_down();
}
END_TEST

CHECK_MAIN("keys", a_bucket_gives_a_minute_at_once_and_then_its_rate,
           what_no_bucket_can_hold_is_taken_from_a_full_one_on_credit,
           another_rate_keeps_what_a_bucket_holds, a_tenant_has_three_limits,
           a_file_is_read_and_its_keys_are_found, a_wrong_line_is_named,
           a_file_that_cannot_be_trusted_is_refused, a_nul_hides_no_limit,
           a_file_that_changes_while_it_is_read_is_not_taken,
           as_many_keys_as_there_may_be_are_found_and_no_more_are_taken,
           a_bad_file_leaves_the_old_keys_in_force, a_tenant_keeps_its_buckets_over_a_reload,
           places_are_bounded_and_nobody_in_progress_loses_his, a_key_is_made_and_found,
           without_a_known_key_there_is_nothing_but_health,
           metrics_can_be_kept_for_keys_and_tell_of_each,
           a_rate_is_429_with_the_time_until_the_next,
           tokens_are_charged_at_most_and_settled_by_what_was_used,
           a_key_bounds_the_priority_that_its_requests_name,
           a_place_is_free_again_when_a_client_has_left, a_server_with_a_bad_file_does_not_open)
