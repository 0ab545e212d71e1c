/* The table of errors and their JSON. Owns nothing. */
#include "api/errors.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "json/out.h"

static const struct {
    int http;
    const char *type;
    status code;
} table[] = {
#define X(name, http, type, code) [name] = {http, type, code},
    API_CASE_LIST(X)
#undef X
};

void failure_from(failure *f, const err *e) {
    *f = (failure){.what = API_INTERNAL, .err = *e};
    for (int i = 0; i < API_N_CASES; i++)
        if (table[i].code == e->code && e->code != OK) f->what = (api_case)i;
}

void failure_set(failure *f, api_case what, const char *fmt, ...) {
    *f = (failure){.what = what};
    f->err.code = table[what].code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->err.text, sizeof f->err.text, fmt, ap);
    va_end(ap);
}

int failure_http(const failure *f) {
    return table[f->what].http;
}

static void add_lossy(buf *b, const char *text) {
    /* Messages quote input and are cut to fit: a cut may fall inside a character. */
    char clean[3 * sizeof(((err *)0)->text)];
    json_esc(b, (str){clean, utf8_sanitise(str_of(text), clean)});
}

/* The message, and the hint behind it, without quotes. */
static void add_message(buf *b, const failure *f) {
    add_lossy(b, f->err.text);
    if (!f->err.hint[0]) return;
    buf_add(b, STR("; "));
    add_lossy(b, f->err.hint);
}

void failure_json(buf *b, const failure *f) {
    buf_add(b, STR("{\"error\":{\"message\":\""));
    add_message(b, f);
    buf_addf(b, "\",\"type\":\"%s\",\"param\":", table[f->what].type);
    if (f->err.field[0]) {
        buf_addc(b, '"');
        add_lossy(b, f->err.field);
        buf_addc(b, '"');
    } else {
        buf_add(b, STR("null"));
    }
    if (f->what == API_PARAMETER)
        buf_add(b, STR(",\"code\":\"unsupported_parameter\""));
    else
        buf_addf(b, ",\"code\":%d", table[f->what].http);
    if (f->what == API_TOO_LONG && f->n_ctx)
        buf_addf(b, ",\"n_prompt_tokens\":%llu,\"n_ctx\":%llu",
                 (unsigned long long)f->n_prompt_tokens, (unsigned long long)f->n_ctx);
    if (f->what == API_BUDGET && f->budget)
        buf_addf(b, ",\"bytes_needed\":%llu,\"budget_bytes\":%llu",
                 (unsigned long long)f->bytes_needed, (unsigned long long)f->budget);
    buf_add(b, STR("}}"));
}

static void write_openai(buf *b, const failure *f, const char *request_id) {
    (void)request_id;
    failure_json(b, f);
}
const error_form errors_openai = {failure_http, write_openai, "data: ", "data: [DONE]\n\n"};

/* ---- the other APIs' ---- */

/* Requests of another API are turned into ones of chat: its own name of a parameter at fault. */
static void rename_field(failure *f, const char *const (*names)[2]) {
    for (; (*names)[0]; names++) {
        if (strcmp(f->err.field, (*names)[0]) != 0) continue;
        err_field(&f->err, "%s", (*names)[1]);
        return;
    }
}

static void write_responses(buf *b, const failure *f, const char *request_id) {
    static const char *const names[][2] = {{"messages", "input"},
                                           {"max_completion_tokens", "max_output_tokens"},
                                           {"response_format", "text.format"},
                                           {"reasoning_effort", "reasoning.effort"},
                                           {0}};
    failure own = *f;
    (void)request_id;
    rename_field(&own, names);
    failure_json(b, &own);
}
const error_form errors_responses = {failure_http, write_responses, "data: ", ""};

static void write_anthropic(buf *b, const failure *f, const char *request_id) {
    static const struct {
        int http;
        const char *type;
    } types[] = {{401, "authentication_error"}, {404, "not_found_error"},
                 {408, "timeout_error"},        {413, "request_too_large"},
                 {429, "rate_limit_error"},     {503, "overloaded_error"}};
    static const char *const names[][2] = {
        {"stop", "stop_sequences"}, {"response_format", "output_config.format"}, {0}};
    failure own = *f;
    int http = failure_http(f);
    const char *type = http >= 500 ? "api_error" : "invalid_request_error";
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].http == http) type = types[i].type;
    buf_addf(b, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"", type);
    rename_field(&own, names);
    /* There is no member for the parameter: the message names it, if it does not already. */
    if (own.err.field[0] && !str_starts(str_of(f->err.text), str_of(own.err.field))) {
        add_lossy(b, own.err.field);
        buf_add(b, STR(": "));
    }
    add_message(b, f);
    buf_add(b, STR("\"},\"request_id\":"));
    json_str(b, str_of(request_id));
    buf_addc(b, '}');
}
const error_form errors_anthropic = {failure_http, write_anthropic, "event: error\ndata: ", ""};

static void write_ollama(buf *b, const failure *f, const char *request_id) {
    (void)request_id;
    buf_add(b, STR("{\"error\":\""));
    if (f->err.field[0]) {
        add_lossy(b, f->err.field);
        buf_add(b, STR(": "));
    }
    add_message(b, f);
    buf_add(b, STR("\"}"));
}
const error_form errors_ollama = {failure_http, write_ollama, "data: ", ""};
