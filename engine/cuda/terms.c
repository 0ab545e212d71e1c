/* The layout of the CUDA engine as terms of the plan. Pure; any thread. */
#include "base/check.h"
#include "engine/arrange.h"
#include "engine/cuda/hosting.h"
#include "engine/cuda/layout.h"
#include "engine/cuda/staging.h"
#include "engine/follow.h"

/* What the driver and the libraries allocate on the device, beside the arena. Measured on an
 * H100 (132 multiprocessors, driver 580.159, CUDA 13.0; bench/results/cuda-first-h100.txt):
 * context and kernels 523.6 MiB; cuBLASLt 6.0 MiB; 170 MiB for 175 graphs of 264 operations, 2
 * MiB for 8 graphs of 20; 7 MiB that none of these explains. On other devices the numbers are
 * the same assumption. The driver allocates graphs and kernels in units of 2 MiB: hence the
 * slack. The engine measures all of them when it opens. */
static const uint64_t CONTEXT_PER_SM = 4 << 20, LIBRARY_BYTES = 32 << 20,
                      GRAPH_BYTES = 128 << 10, GRAPH_NODE_BYTES = 4 << 10,
                      SLACK_BYTES = 64 << 20;
/* Assumed: no device with NCCL was to be had. */
static const uint64_t NCCL_BYTES = 256 << 20;
enum { DEFAULT_SMS = 132 };

static void device_term(terms *t, mem_class cls, uint64_t bytes, const char *what) {
    terms_add(t, cls, TERM_EXACT, bytes, "%s", what);
    terms_last_on_device(t);
}

static void weight_terms(const cuda_layout *l, const program *p, terms *t) {
    const size_t first = t->n;
    for (uint32_t i = 0; i < l->n_places; i++) {
        const cuda_place *x = &l->places[i];
        if (x->staged != CUDA_RESIDENT) continue;
        const char *type = x->is_vector ? "F32" : dtype_name(x->type);
        weight_term_add(t, first, &p->weights[x->first], type, x->bytes);
        terms_last_on_device(t);
    }
}

void cuda_context_terms(uint32_t n_sms, terms *t) {
    const uint32_t sms = n_sms ? n_sms : DEFAULT_SMS;
    terms_add(t, MEM_CONTEXT, TERM_CALIBRATED, sms * CONTEXT_PER_SM,
              "driver's context and kernels, 4 MiB x %u multiprocessors", sms);
    terms_last_on_device(t);
    terms_add(t, MEM_CONTEXT, TERM_CALIBRATED, SLACK_BYTES, "what the driver rounds up");
    terms_last_on_device(t);
}

static void foreign_terms(const cuda_layout *l, const program *p, const engine_options *o,
                          terms *t) {
    const uint64_t graphs = cuda_graph_count(l, o->max_seqs);
    uint64_t nodes = p->n_ops + 8;
    if (o->max_seqs > CU_MANY_ROWS) nodes += 2 * l->n_slices;
    cuda_context_terms(o->n_sms, t);
    if (l->wants_gemm) {
        terms_add(t, MEM_CONTEXT, TERM_CALIBRATED, LIBRARY_BYTES, "cuBLASLt's kernels");
        terms_last_on_device(t);
    }
    if (l->n_ranks > 1) {
        terms_add(t, MEM_CONTEXT, TERM_ASSUMED, NCCL_BYTES, "NCCL's buffers, not measured");
        terms_last_on_device(t);
    }
    if (!graphs) return;
    terms_add(t, MEM_CONTEXT, TERM_CALIBRATED,
              graphs * (GRAPH_BYTES + nodes * GRAPH_NODE_BYTES), "%lu CUDA graphs",
              (unsigned long)graphs);
    terms_last_on_device(t);
}

/* Of several ranks, in the host's memory. */
static void group_terms(const cuda_layout *l, const program *p, const engine_options *o,
                        terms *t) {
    const group_shape all = cuda_shape_of(l);
    if (l->n_ranks == 1) return;
    if (p->part.rank)
        terms_add(t, MEM_WORKSPACE, TERM_EXACT, follow_bytes(p, o, l->n_groups),
                  "a step as it was read");
    else
        terms_add(t, MEM_WORKSPACE, TERM_EXACT, group_share(&all, 0, MEM_WORKSPACE),
                  "shared by %u ranks: the step", l->n_ranks);
}

void cuda_layout_terms(const cuda_layout *l, const program *p, const engine_options *o,
                       terms *t) {
    weight_terms(l, p, t);
    staging_terms(l, p, t);
    hosting_terms(l, o, t);
    terms_add(t, MEM_ACTIVATIONS, TERM_EXACT, l->values_bytes,
              "values of %u rows; buffers while loading", o->max_rows);
    terms_last_on_device(t);
    const uint64_t computed = l->kept_at - l->logits_at;
    terms_add(t, MEM_LOGITS, TERM_EXACT, computed, "%u rows of %u", o->max_logit_rows,
              p->config.n_vocab);
    terms_last_on_device(t);
    if (o->keep_logits)
        device_term(t, MEM_LOGITS, l->logits_bytes - computed,
                    "the same rows as they were before sampling");
    if (l->n_ranks > 1)
        device_term(t, MEM_WORKSPACE, l->gemm - l->joined, "what ranks send each other");
    device_term(t, MEM_WORKSPACE, l->slice - l->gemm, "workspace of cuBLASLt");
    device_term(t, MEM_WORKSPACE, l->codes - l->slice,
                l->codes_bytes ? "slices of packed weights, sums of their products"
                               : "packed weights as 16-bit slices");
    device_term(t, MEM_WORKSPACE, l->quantized - l->codes, "activations as fp8");
    device_term(t, MEM_WORKSPACE, l->split - l->quantized, "quantised activations");
    device_term(t, MEM_WORKSPACE, l->arrived - l->split, "sums of split matrices");
    device_term(t, MEM_WORKSPACE, l->partials - l->arrived, "counters of blocks");
    device_term(t, MEM_WORKSPACE, l->sampler - l->partials, "attention of split sequences");
    device_term(t, MEM_WORKSPACE, l->tables - l->sampler, "scratch of the sampler");
    device_term(t, MEM_WORKSPACE, l->workspace_at + l->workspace_bytes - l->tables,
                "tables and results of a step");
    if (l->n_states) {
        state_term_add(t, p, o);
        if (!t->failed) t->v[t->n - 1].bytes = l->states_bytes; /* as they lie, rounded up */
        terms_last_on_device(t);
    }
    foreign_terms(l, p, o, t);
    group_terms(l, p, o, t);
    if (l->crossing_bytes)
        terms_add(t, MEM_WORKSPACE, TERM_EXACT, l->crossing_bytes,
                  "pinned values of %u rows between CPU and device", o->max_rows);
    terms_add(t, MEM_WORKSPACE, TERM_EXACT, l->staging_bytes - l->crossing_bytes,
              "pinned tables and results of %d steps%s", CUDA_DEPTH,
              o->keep_logits ? ", their logits too" : "");
    terms_add(t, MEM_LOADING, TERM_EXACT, CUDA_BOUNCES * l->bounce_bytes,
              "pinned buffers of the loader");
    terms_last_while_loading(t);
}
