/* Errors that the world causes: a status to branch on, and an err that explains what
 * went wrong, where, and what to try. Broken invariants are not errors: see base/check.h.
 *
 * A function that can fail returns a status and, when it is not OK, has filled *err (every
 * caller passes one). It writes no log line: who handles the error decides who reads it. */
#ifndef VRAMD_BASE_ERR_H
#define VRAMD_BASE_ERR_H

/* X(code, text, exit code of the process when the error ends a subcommand) */
#define STATUS_LIST(X)                                                                         \
    X(OK, "ok", 0)                                                                             \
    X(ERR_INVALID, "invalid value", 2)                                                         \
    X(ERR_NOT_FOUND, "not found", 3)                                                           \
    X(ERR_IO, "input/output error", 4)                                                         \
    X(ERR_FORMAT, "malformed file", 5)                                                         \
    X(ERR_UNSUPPORTED, "not supported", 6)                                                     \
    X(ERR_BUDGET, "does not fit the memory budget", 7)                                         \
    X(ERR_NO_MEMORY, "out of memory", 8)                                                       \
    X(ERR_BUSY, "queue full", 9)                                                               \
    X(ERR_TOO_LONG, "too long", 10)                                                            \
    X(ERR_DEVICE, "device error", 11)                                                          \
    X(ERR_UNAVAILABLE, "not available", 12)

typedef enum status {
#define X(code, text, exit_code) code,
    STATUS_LIST(X)
#undef X
} status;

typedef struct err {
    status code;
    char field[96]; /* the option, key, tensor or parameter at fault; "" if none */
    char text[400]; /* what happened, one sentence without a final stop */
    char hint[240]; /* what to try; "" if nothing helps */
} err;

const char *status_text(status);
int status_exit_code(status);

/* What a message quotes may come from outside: ill-formed UTF-8 becomes U+FFFD, control
 * characters blanks, and a text too long ends before a character that is cut. Arguments may
 * point into *e.
 *
 * Fills e and returns code, so that a failure is one line: return err_set(e, ERR_IO, ...).
 * Clears field and hint; set those after it with err_field and err_hint. */
status err_set(err *e, status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
status err_field(err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
status err_hint(err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
