/* Memory as documents: the plan, and the live account of /v1/memory. */
#ifndef VRAMD_API_MEMORY_VIEW_H
#define VRAMD_API_MEMORY_VIEW_H

#include "api/app.h"
#include "base/buf.h"
#include "json/diff.h"
#include "memory/plan.h"
#include "model/config.h"

/* Of docs/plan.schema.json: another one where a member is taken away or means something else. */
enum { PLAN_JSON_VERSION = 1 };

/* Appends the plan as one JSON object: {"schema","version","model":{...},"device","budget_bytes","fits",
 * "load_peak_bytes","total_bytes","smallest_budget_bytes","terms":[{"class","bytes","kind",
 * "what"}],"kv":{"type_k","type_v","bytes_per_token","block_tokens","blocks","tokens"}}. A term
 * that is held while loading only has "while_loading":true. host: what the host holds beside a
 * device, as "host":{"budget_bytes",...,"terms"}, or NULL. more: further members, each with a
 * comma in front; or nothing. */
void plan_json(buf *out, const plan *, const plan *host, const model_config *,
               uint64_t n_params, dtype kv_k, dtype kv_v, const char *device, str more);

enum { MEMORY_MAX_SEQUENCES = 256, MEMORY_MAX_MODELS = 16, MEMORY_MAX_RANKS = 64 };

typedef struct memory_model { /* one of several */
    const char *id, *state;
    uint64_t plan_bytes, ledger_bytes;
    uint32_t n_requests, n_held;
} memory_model;

/* All that GET /v1/memory answers, read at one moment. */
typedef struct memory_view {
    ledger_view host, device;
    bool has_device;
    const char *device_name;
    machine_stats stats;
    memory_sample sample;
    uint64_t pool_bytes, pool_used, pool_peak;
    size_t n_sequences;
    seq_view sequence[MEMORY_MAX_SEQUENCES];
    uint32_t n_models;
    memory_model model[MEMORY_MAX_MODELS];
    uint32_t n_ranks;                   /* 0: one process has the model */
    int32_t first_device;               /* of ranks; -1: they have none */
    ledger_view rank[MEMORY_MAX_RANKS]; /* then those of their devices */
} memory_view;

/* With the app's latest sample. */
void memory_view_read(const app *, memory_view *);
/* Members of the answer, without braces. Whole: was is now; else what differs. Sequences and ranks are written
 * with the whole alone. */
void memory_view_write(json_diff *, const memory_view *now, const memory_view *was);
/* Anonymous memory beyond the ledger, where it is known. */
int64_t memory_unaccounted(const memory_sample *);
/* What the driver has in use beyond our arenas and what was measured of its own. */
int64_t memory_device_unaccounted(const memory_sample *);
/* The members of a sequence; was is now where it is new, and all are written. */
void memory_sequence_write(json_diff *, const seq_view *now, const seq_view *was);

#endif
