/* Terms: what memory is for, one line each. A module that will hold memory lists its terms;
 * the planner adds them up before anything is loaded, and the module allocates exactly them. */
#ifndef VRAMD_MEMORY_TERM_H
#define VRAMD_MEMORY_TERM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* X(class, name in /metrics and JSON) */
#define MEM_CLASS_LIST(X)                                                                      \
    X(MEM_WEIGHTS, "weights")                                                                  \
    X(MEM_EXPERTS, "experts") /* slots for those that are read when rows go to them */         \
    X(MEM_KV, "kv")                                                                            \
    X(MEM_STATE, "state") /* what recurrent layers keep of each sequence */                    \
    X(MEM_ACTIVATIONS, "activations")                                                          \
    X(MEM_LOGITS, "logits")                                                                    \
    X(MEM_WORKSPACE, "workspace")                                                              \
    X(MEM_DRAFT, "draft") /* a draft model, but for its KV cache */                            \
    X(MEM_TOKENIZER, "tokenizer")                                                              \
    X(MEM_GRAMMAR, "grammar") /* structured output */                                          \
    X(MEM_SCHEDULER, "scheduler")                                                              \
    X(MEM_REQUESTS, "requests") /* bodies, queue, outbox: one pool */                          \
    X(MEM_HTTP, "http")         /* libmicrohttpd's pool per connection */                      \
    X(MEM_RUNTIME, "runtime")   /* stacks, the C library, small objects: calibrated */         \
    X(MEM_CONTEXT, "context")   /* what a device's driver takes */                             \
    X(MEM_LOADING, "loading")   /* held while loading only */

typedef enum mem_class {
#define X(cls, name) cls,
    MEM_CLASS_LIST(X)
#undef X
        MEM_N_CLASSES
} mem_class;

const char *mem_class_name(mem_class);
/* ERR_NO_MEMORY for what the system refused: text and field name the class, the hint what to do
 * about it. */
status mem_exhausted(err *, mem_class, const char *what_fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* exact: allocated by us, to the byte. calibrated: measured on such a machine; the text of the
 * term names it. assumed: neither. */
typedef enum term_kind { TERM_EXACT, TERM_CALIBRATED, TERM_ASSUMED } term_kind;
const char *term_kind_name(term_kind);

typedef struct term {
    mem_class cls;
    term_kind kind;
    uint64_t bytes;
    char what[72];
    bool while_loading; /* part of the load-time peak only */
    bool on_device; /* in a device's own memory, which has a budget and a ledger of its own */
} term;

/* A growing list; zero-initialise, then clear. failed: an addition was lost because memory
 * ran out; plan_solve refuses such a list. */
typedef struct terms {
    term *v;
    size_t n, cap;
    bool failed;
} terms;

void terms_clear(terms *);
void terms_add(terms *, mem_class, term_kind, uint64_t bytes, const char *what_fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* Marks the newest term as part of the load-time peak only. */
void terms_last_while_loading(terms *);
/* Marks the newest term as memory of the device. */
void terms_last_on_device(terms *);
/* Moves the device's terms from t to device, both in order. */
void terms_split(terms *t, terms *device);
uint64_t terms_sum(const terms *, mem_class); /* steady-state terms of one class */

#endif
