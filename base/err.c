/* Error records. Owns nothing; any thread. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>

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

status err_set(err *e, status code, const char *fmt, ...) {
    e->code = code;
    e->field[0] = e->hint[0] = '\0';
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    return code;
}

status err_field(err *e, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->field, sizeof e->field, fmt, ap);
    va_end(ap);
    return e->code;
}

status err_hint(err *e, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->hint, sizeof e->hint, fmt, ap);
    va_end(ap);
    return e->code;
}
