/* What a client is answered for each status. */
#include <jansson.h>

#include "api/errors.h"
#include "tests/check_main.h"

START_TEST(each_error_has_its_status_type_and_fields) {
    static const struct {
        status code;
        int http;
        const char *type;
    } t[] = {{ERR_INVALID, 400, "invalid_request_error"},
             {ERR_TOO_LONG, 400, "exceed_context_size_error"},
             {ERR_BUDGET, 400, "exceed_memory_budget_error"},
             {ERR_NOT_FOUND, 404, "not_found_error"},
             {ERR_BUSY, 429, "rate_limit_error"},
             {ERR_UNSUPPORTED, 400, "invalid_request_error"},
             {ERR_UNAVAILABLE, 503, "unavailable_error"},
             {ERR_NO_MEMORY, 503, "unavailable_error"},
             {ERR_DEVICE, 500, "server_error"},
             {ERR_IO, 500, "server_error"}};
    buf b;
    buf_init(&b, NULL);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        err e;
        failure f;
        err_set(&e, t[i].code, "said \"%s\"", "why");
        err_field(&e, "f[%d]", 2);
        err_hint(&e, "try");
        failure_from(&f, &e);
        f.n_prompt_tokens = 9, f.n_ctx = 8, f.bytes_needed = 7, f.budget = 6;
        ck_assert_int_eq(failure_http(&f), t[i].http);
        b.len = 0;
        failure_json(&b, &f);
        json_t *v = json_loadb(b.ptr, b.len, 0, NULL), *o = json_object_get(v, "error");
        ck_assert_str_eq(json_string_value(json_object_get(o, "type")), t[i].type);
        ck_assert_str_eq(json_string_value(json_object_get(o, "message")), "said \"why\"; try");
        ck_assert_str_eq(json_string_value(json_object_get(o, "param")), "f[2]");
        if (t[i].code == ERR_UNSUPPORTED)
            ck_assert_str_eq(json_string_value(json_object_get(o, "code")),
                             "unsupported_parameter");
        else
            ck_assert_int_eq(json_integer_value(json_object_get(o, "code")), t[i].http);
        ck_assert_int_eq(json_object_get(o, "n_ctx") != NULL, t[i].code == ERR_TOO_LONG);
        ck_assert_int_eq(json_object_get(o, "budget_bytes") != NULL, t[i].code == ERR_BUDGET);
        json_decref(v);
    }
    buf_clear(&b);
}
END_TEST

CHECK_MAIN("errors", each_error_has_its_status_type_and_fields)
