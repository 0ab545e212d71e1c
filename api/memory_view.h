/* Memory as documents: the plan, and the live account of /v1/memory. */
#ifndef VRAMD_API_MEMORY_VIEW_H
#define VRAMD_API_MEMORY_VIEW_H

#include "base/buf.h"
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

#endif
