/* What clients get when something is refused or fails: the table of cases, and the JSON
 * body {"error":{"message","type","param","code"}} with code = HTTP status, but
 * "unsupported_parameter" for API_PARAMETER. */
#ifndef VRAMD_API_ERRORS_H
#define VRAMD_API_ERRORS_H

#include "base/buf.h"
#include "base/err.h"

/* X(case, HTTP status, type, the status of err.h that means it by itself) */
#define API_CASE_LIST(X)                                                                       \
    X(API_INVALID, 400, "invalid_request_error", ERR_INVALID)                                  \
    X(API_PARAMETER, 400, "invalid_request_error", ERR_UNSUPPORTED)                            \
    X(API_TOO_LONG, 400, "exceed_context_size_error", ERR_TOO_LONG)                            \
    X(API_BUDGET, 400, "exceed_memory_budget_error", ERR_BUDGET)                               \
    X(API_NO_KEY, 401, "authentication_error", OK)                                             \
    X(API_FORBIDDEN, 403, "permission_error", OK)                                              \
    X(API_NOT_FOUND, 404, "not_found_error", ERR_NOT_FOUND)                                    \
    X(API_METHOD, 405, "invalid_request_error", OK)                                            \
    X(API_TIMEOUT, 408, "timeout_error", OK)                                                   \
    X(API_CONFLICT, 409, "conflict_error", OK)                                                 \
    X(API_BODY_TOO_LARGE, 413, "invalid_request_error", OK)                                    \
    X(API_MEDIA, 415, "invalid_request_error", OK)                                             \
    X(API_BUSY, 429, "rate_limit_error", ERR_BUSY)                                             \
    X(API_HEADERS_TOO_LARGE, 431, "invalid_request_error", OK)                                 \
    X(API_INTERNAL, 500, "server_error", OK)                                                   \
    X(API_UNSUPPORTED, 501, "not_supported_error", OK)                                         \
    X(API_UNAVAILABLE, 503, "unavailable_error", ERR_UNAVAILABLE)                              \
    X(API_NO_MEMORY, 503, "unavailable_error", ERR_NO_MEMORY)

typedef enum api_case {
#define X(name, http, type, code) name,
    API_CASE_LIST(X)
#undef X
        API_N_CASES
} api_case;

typedef struct failure {
    api_case what;
    err err;                         /* text; field = param; the hint is appended */
    uint64_t n_prompt_tokens, n_ctx; /* API_TOO_LONG */
    uint64_t bytes_needed, budget;   /* API_BUDGET */
    double retry_after_s;            /* 429 and 503: at least 1 is sent */
    const char *allow;               /* API_METHOD */
} failure;

/* Clears f; what comes from e->code, API_INTERNAL for what is in no row. */
void failure_from(failure *f, const err *e);
void failure_set(failure *f, api_case, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int failure_http(const failure *);
void failure_json(buf *, const failure *); /* one line, no newline */

/* How an API shows a failure: of a route, for refusals, and of a writer's streams. */
typedef struct error_form {
    int (*http)(const failure *);
    void (*write)(buf *, const failure *, const char *request_id); /* one line, no newline */
    const char *event,
        *last; /* of a stream: before such a line, and what follows the event that ends it */
} error_form;
extern const error_form errors_openai;
/* As OpenAI's, with the names of parameters of /v1/responses. */
extern const error_form errors_responses;
/* {"type": "error", "error": {"type", "message"}, "request_id"}; overloaded_error with 503, not
 * their 529, which no proxy repeats at another server. */
extern const error_form errors_anthropic;
extern const error_form errors_ollama; /* {"error": message} */

#endif
