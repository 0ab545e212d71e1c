/* A document whole, and as what has changed. */
#include "json/diff.h"

#include "tests/check_main.h"
#include "tests/json.h"

typedef struct part {
    const char *name;
    uint64_t bytes;
} part;

typedef struct doc {
    uint64_t n;
    int64_t below;
    bool on;
    const char *text;
    uint64_t ms;
    part part[2];
} doc;

static void write_doc(json_diff *o, const doc *now, const doc *was) {
    json_diff_u64(o, "n", now->n, was->n);
    size_t inner = json_diff_open(o, "inner");
    json_diff_i64(o, "below", now->below, was->below);
    json_diff_bool(o, "on", now->on, was->on);
    json_diff_close(o, inner);
    json_diff_str(o, "text", now->text, was->text);
    json_diff_milli(o, "ms", now->ms, was->ms);
    const size_t list = json_diff_open_list(o, "parts");
    for (int i = 0; i < 2; i++) {
        const size_t at = json_diff_element(o, "name", str_of(now->part[i].name));
        json_diff_u64(o, "bytes", now->part[i].bytes, was->part[i].bytes);
        json_diff_close(o, at);
    }
    json_diff_close_list(o, list);
}

static void check(const doc *now, const doc *was, const char *want) {
    buf b;
    buf_init(&b, NULL);
    json_diff o = {&b, now == was};
    const size_t at = json_diff_open(&o, NULL);
    write_doc(&o, now, was);
    json_diff_close(&o, at);
    ck_assert_str_eq(buf_cstr(&b), want);
    buf_clear(&b);
}

START_TEST(what_has_changed_is_a_merge_patch) {
    const doc a = {7, -1, true, "a\"b", 1234, {{"x", 1}, {"y", 2}}};
    doc b = a;
    check(&a, &a,
          JSON({"n":7,"inner":{"below":-1,"on":true},"text":"a\"b","ms":1.234,"parts":[{"name":"x","bytes":1},{"name":"y","bytes":2}]}));
    check(&b, &a, "");
    b.n = 8;
    check(&b, &a, JSON({"n":8}));
    b.on = false;
    b.part[1].bytes = 3;
    check(&b, &a, JSON({"n":8,"inner":{"on":false},"parts":{"y":{"bytes":3}}}));
    b = a;
    b.text = NULL;
    b.ms = 5;
    b.below = INT64_MIN;
    check(&b, &a, JSON({"inner":{"below":-9223372036854775808},"text":null,"ms":0.005}));
    check(&a, &b, JSON({"inner":{"below":-1},"text":"a\"b","ms":1.234}));
}
END_TEST

START_TEST(null_is_said_once) {
    buf b;
    buf_init(&b, NULL);
    json_diff o = {&b, false};
    json_diff_null(&o, "x", true);
    ck_assert_uint_eq(b.len, 0);
    json_diff_null(&o, "x", false);
    o.whole = true;
    json_diff_null(&o, "x", true);
    ck_assert_str_eq(buf_cstr(&b), "\"x\":null,\"x\":null");
    buf_clear(&b);
}
END_TEST

int main(void) {
    Suite *s = suite_create("diff");
    TCase *t = check_case(s, "diff");
    tcase_add_test(t, what_has_changed_is_a_merge_patch);
    tcase_add_test(t, null_is_said_once);
    return check_run(s);
}
