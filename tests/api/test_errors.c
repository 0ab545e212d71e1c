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

/* The form's text of a failure with this case and field. */
static const char *form_text(const error_form *form, api_case what, const char *field, buf *b) {
    failure f;
    failure_set(&f, what, "no \"x\"");
    err_field(&f.err, "%s", field);
    err_hint(&f.err, "try y");
    b->len = 0;
    form->write(b, &f, "id\"1");
    return buf_cstr(b);
}

START_TEST(other_apis_have_their_own_form_and_names) {
    static const struct {
        api_case what;
        int http;
        const char *type;
    } t[] = {{API_INVALID, 400, "invalid_request_error"},
             {API_PARAMETER, 400, "invalid_request_error"},
             {API_TOO_LONG, 400, "invalid_request_error"},
             {API_NO_KEY, 401, "authentication_error"},
             {API_NOT_FOUND, 404, "not_found_error"},
             {API_BODY_TOO_LARGE, 413, "request_too_large"},
             {API_BUSY, 429, "rate_limit_error"},
             {API_INTERNAL, 500, "api_error"},
             {API_UNAVAILABLE, 503, "overloaded_error"},
             {API_NO_MEMORY, 503, "overloaded_error"}};
    buf b;
    buf_init(&b, NULL);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        failure f = {.what = t[i].what};
        char want[200];
        ck_assert_int_eq(errors_anthropic.http(&f), t[i].http);
        snprintf(want, sizeof want,
                 "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":"
                 "\"stop_sequences: no \\\"x\\\"; try y\"},\"request_id\":\"id\\\"1\"}",
                 t[i].type);
        ck_assert_str_eq(form_text(&errors_anthropic, t[i].what, "stop", &b), want);
    }
    ck_assert_str_eq(form_text(&errors_responses, API_INVALID, "messages", &b),
                     "{\"error\":{\"message\":\"no \\\"x\\\"; try y\",\"type\":"
                     "\"invalid_request_error\",\"param\":\"input\",\"code\":400}}");
    buf_clear(&b);
}
END_TEST

CHECK_MAIN("errors", other_apis_have_their_own_form_and_names,
           each_error_has_its_status_type_and_fields)
