/* The layout of the CUDA engine as terms of the plan. Pure; any thread. */
#include "base/check.h"
#include "engine/arrange.h"
#include "engine/cuda/layout.h"

/* What is not ours on the device. Not measured yet on a device by this project: the context is
 * the published rule of thumb (H100 with 132 multiprocessors: 0.5 to 0.6 GiB), libraries and
 * graphs are guesses on the high side. The engine measures all three when it opens. */
static const uint64_t CONTEXT_PER_SM = 4 << 20, LIBRARY_BYTES = 96 << 20,
                      GRAPH_BYTES = 64 << 10, GRAPH_NODE_BYTES = 1 << 10;
enum { DEFAULT_SMS = 132 };

static void device_term(terms *t, mem_class cls, uint64_t bytes, const char *what) {
    terms_add(t, cls, TERM_EXACT, bytes, "%s", what);
    terms_last_on_device(t);
}

static void weight_terms(const cuda_layout *l, const program *p, terms *t) {
    const size_t first = t->n;
    for (uint32_t i = 0; i < l->n_places; i++) {
        const cuda_place *x = &l->places[i];
        const char *type = x->is_vector ? "F32" : dtype_name(x->type);
        weight_term_add(t, first, &p->weights[x->first], type, x->bytes);
        terms_last_on_device(t);
    }
}

static void foreign_terms(const cuda_layout *l, const program *p, const engine_options *o,
                          terms *t) {
    const uint32_t sms = o->n_sms ? o->n_sms : DEFAULT_SMS;
    const uint64_t graphs = cuda_graph_count(l, o->max_seqs);
    uint64_t nodes = p->n_ops + 8;
    if (o->max_seqs > CU_MANY_ROWS) nodes += 2 * l->n_slices;
    terms_add(t, MEM_CONTEXT, TERM_ASSUMED, sms * CONTEXT_PER_SM,
              "driver's context and kernels, 4 MiB x %u multiprocessors", sms);
    terms_last_on_device(t);
    if (l->wants_gemm) {
        terms_add(t, MEM_CONTEXT, TERM_ASSUMED, LIBRARY_BYTES, "cuBLASLt's kernels");
        terms_last_on_device(t);
    }
    terms_add(t, MEM_CONTEXT, TERM_ASSUMED, graphs * (GRAPH_BYTES + nodes * GRAPH_NODE_BYTES),
              "%lu CUDA graphs", (unsigned long)graphs);
    terms_last_on_device(t);
}

void cuda_layout_terms(const cuda_layout *l, const program *p, const engine_options *o,
                       terms *t) {
    weight_terms(l, p, t);
    terms_add(t, MEM_ACTIVATIONS, TERM_EXACT, l->values_bytes,
              "values of %u rows; buffers while loading", o->max_rows);
    terms_last_on_device(t);
    terms_add(t, MEM_LOGITS, TERM_EXACT, l->logits_bytes, "%u rows of %u", o->max_logit_rows,
              p->config.n_vocab);
    terms_last_on_device(t);
    device_term(t, MEM_WORKSPACE, l->slice - l->gemm, "workspace of cuBLASLt");
    device_term(t, MEM_WORKSPACE, l->quantized - l->slice, "packed weights as 16-bit slices");
    device_term(t, MEM_WORKSPACE, l->partials - l->quantized, "quantised activations");
    device_term(t, MEM_WORKSPACE, l->sampler - l->partials, "attention of split sequences");
    device_term(t, MEM_WORKSPACE, l->tables - l->sampler, "scratch of the sampler");
    device_term(t, MEM_WORKSPACE, l->workspace_at + l->workspace_bytes - l->tables,
                "tables and results of a step");
    foreign_terms(l, p, o, t);
    terms_add(t, MEM_WORKSPACE, TERM_EXACT, l->staging_bytes,
              "pinned tables and results of %d steps", CUDA_DEPTH);
    terms_add(t, MEM_LOADING, TERM_EXACT, CUDA_BOUNCES * l->bounce_bytes,
              "pinned buffers of the loader");
    terms_last_while_loading(t);
}
