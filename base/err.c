/* Error records. Owns nothing; any thread. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

const char *status_text(status s) {
    switch (s) {
#define X(code, text, exit_code)                                                               \
    case code: return text;
        STATUS_LIST(X)
#undef X
    }
    return "unknown status";
}

int status_exit_code(status s) {
    switch (s) {
#define X(code, text, exit_code)                                                               \
    case code: return exit_code;
        STATUS_LIST(X)
#undef X
    }
    return 1;
}

static void format(char *out, size_t size, const char *fmt, va_list ap) {
    char raw[400], clean[3 * sizeof raw];
    int n = vsnprintf(raw, sizeof raw, fmt, ap);
    str s = {raw, n < 0 ? 0 : (size_t)n};
    if (s.len > sizeof raw - 1) s.len = utf8_complete((str){raw, sizeof raw - 1});
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)raw[i] < ' ' || raw[i] == 0x7f) raw[i] = ' ';
    s = (str){clean, utf8_sanitise(s, clean)};
    if (s.len > size - 1) s.len = utf8_complete((str){clean, size - 1});
    memcpy(out, clean, s.len);
    out[s.len] = '\0';
}

status err_set(err *e, status code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    format(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    e->field[0] = e->hint[0] = '\0';
    return e->code = code;
}

status err_field(err *e, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    format(e->field, sizeof e->field, fmt, ap);
    va_end(ap);
    return e->code;
}

status err_hint(err *e, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    format(e->hint, sizeof e->hint, fmt, ap);
    va_end(ap);
    return e->code;
}
