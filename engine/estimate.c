/* What a model would take if an engine ran it. Arenas: the values of one layer at a time, as the
 * layouts of the engines have them. Pure; any thread. */
#include "engine/estimate.h"

#include <string.h>

#include "base/check.h"
#include "engine/arrange.h"
#include "engine/cuda/layout.h"
#include "engine/cuda/staging.h"

enum { MAX_MODEL_LEN = 1 << 26 };

/* Of all weights, or of those that the options want on the host of a device, or of the others. */
static void weight_terms(const program *p, const quant_scheme *stored, const engine_options *o,
                         bool staged, terms *t) {
    const size_t first = t->n;
    const bool some = staging_count(p, o) > 0 || o->host_computes;
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const weight *w = &p->weights[i];
        bool quantised = false;
        if ((some && staging_wants(p, o, w)) != staged) continue;
        uint64_t bytes = stored ? hf_quant_bytes(stored, w, &quantised) : weight_bytes(w);
        const char *type = dtype_name(stored ? stored->rest : w->type);
        if (quantised) type = stored->name;
        weight_term_add(t, first, w, type, bytes);
    }
}

/* Slots of the device for the largest of the host's layers. */
static void slot_terms(const program *p, const quant_scheme *stored, const engine_options *o,
                       terms *t) {
    uint64_t most = 0, bytes = 0;
    int32_t layer = -1;
    if (!staging_count(p, o)) return;
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const weight *w = &p->weights[i];
        bool quantised = false;
        if (!staging_wants(p, o, w)) continue;
        if (w->layer != layer) bytes = 0;
        layer = w->layer;
        bytes += stored ? hf_quant_bytes(stored, w, &quantised) : weight_bytes(w);
        if (bytes > most) most = bytes;
    }
    terms_add(t, MEM_WORKSPACE, TERM_EXACT, CUDA_STAGES * most,
              "%d slots for layers of the host", CUDA_STAGES);
}

/* Columns of the values that live at once in a layer: the residual stream and its norm, and
 * either q | k | v and the heads' outputs or gate and up of each expert that a row is routed to. */
static uint64_t columns_at_once(const model_config *c) {
    const uint64_t q = (uint64_t)c->n_heads * c->head_dim;
    const uint64_t kv = (uint64_t)c->n_kv_heads * c->head_dim;
    const uint64_t routed = c->n_experts_used ? c->n_experts_used : 1;
    const uint64_t attention = 2 * q + 2 * kv, feed_forward = 2 * routed * c->n_ff;
    return 2ull * c->n_embd + (attention > feed_forward ? attention : feed_forward);
}

static void arena_terms(const program *p, const engine_options *o, bool on_device, terms *t) {
    const uint64_t workspace = on_device ? 128ull << 20 : 1ull << 20;
    terms_add(t, MEM_ACTIVATIONS, TERM_ASSUMED,
              o->max_rows * columns_at_once(&p->config) * (on_device ? 2 : 4),
              "values of %u rows", o->max_rows);
    terms_add(t, MEM_LOGITS, TERM_EXACT,
              (o->keep_logits ? 8ull : 4ull) * o->max_logit_rows * p->config.n_vocab,
              "%u rows of %u", o->max_logit_rows, p->config.n_vocab);
    terms_add(t, MEM_WORKSPACE, TERM_ASSUMED, on_device ? workspace : workspace * o->n_threads,
              "scratch of the kernels");
}

status estimate_terms(const program *p, const quant_scheme *stored, const engine_options *o,
                      bool on_device, terms *t, kv_request *kv, err *e) {
    static const dtype kv_types[] = {DT_F16,  DT_BF16, DT_F32, DT_INT8,
                                     DT_Q8_0, DT_FP8,  DT_INT4};
    kv_format formats[PLAN_MAX_GROUPS];
    const size_t first = t->n;
    status s = engine_options_check(o, MAX_MODEL_LEN, e);
    if (s == OK)
        s = kv_options_check(p, o, kv_types, on_device ? 2 : sizeof kv_types / sizeof *kv_types,
                             on_device ? "CUDA" : "CPU", e);
    if (s != OK) return s;
    engine_options placed = *o;
    if (!on_device) placed.host_layers = placed.host_experts = 0;
    weight_terms(p, stored, &placed, false, t);
    arena_terms(p, o, on_device, t);
    state_term_add(t, p, o);
    if (on_device) {
        cuda_context_terms(o->n_sms, t);
        slot_terms(p, stored, o, t);
        for (size_t i = first; i < t->n; i++) t->v[i].on_device = true;
        weight_terms(p, stored, o, true, t);
    }
    const kv_groups groups = kv_groups_of(p, o);
    kv_formats_init(formats, on_device ? KV_ROWS : KV_LANES, &groups, o);
    kv_costs(kv, &groups, on_device ? CUDA_DEPTH : 1, formats);
    kv->granule = on_device ? CUDA_GRANULE : 0;
    return OK;
}
