/* The table of errors and their JSON. Owns nothing. */
#include "api/errors.h"

#include <stdarg.h>
#include <stdio.h>

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

void failure_json(buf *b, const failure *f) {
    buf_add(b, STR("{\"error\":{\"message\":\""));
    add_lossy(b, f->err.text);
    if (f->err.hint[0]) {
        buf_add(b, STR("; "));
        add_lossy(b, f->err.hint);
    }
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
