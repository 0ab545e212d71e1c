/* CUDA graphs of decode steps: cuda_graph_kinds of them for each bucket of entries, all
 * captured when the engine opens, so that no memory moves afterwards.
 * Their addresses follow from the shape alone (tables.h). */
#include "engine/cuda/cuda.h"

#include <stdlib.h>

static uint32_t bucket_index(const cuda_engine *e, uint32_t n_seqs) {
    uint32_t i = 0;
    for (uint32_t b = 1; b < n_seqs; b = cuda_bucket_after(b, e->opt.max_seqs)) i++;
    return i;
}

static cudaGraphExec_t *slot_of(const cuda_engine *e, const cuda_run *r) {
    const uint32_t i = bucket_index(e, r->shape.n_seqs), kind = !r->is_short;
    return &e->graphs.exec[i * cuda_graph_kinds(e->l) + kind];
}

cudaGraphExec_t cuda_graph_of(const cuda_engine *e, const cuda_run *r) {
    return *slot_of(e, r);
}

static cudaError_t capture_one(cuda_engine *e, const cuda_run *run) {
    cudaGraph_t graph = NULL;
    cudaError_t ce = cudaStreamBeginCapture(e->stream, cudaStreamCaptureModeThreadLocal);
    if (ce != cudaSuccess) return ce;
    cudaError_t body = cuda_run_program(e, run);
    ce = cudaStreamEndCapture(e->stream, &graph);
    if (body != cudaSuccess) ce = body;
    if (ce == cudaSuccess) ce = cudaGraphInstantiate(slot_of(e, run), graph, 0);
    if (ce == cudaSuccess) ce = cudaGraphUpload(*slot_of(e, run), e->stream);
    if (graph) cudaGraphDestroy(graph);
    return ce;
}

status cuda_capture(cuda_engine *e, err *er) {
    cudaError_t ce = cudaSuccess;
    e->graphs.n = cuda_graph_count(e->l, e->opt.max_seqs);
    e->graphs.exec = (cudaGraphExec_t *)calloc(e->graphs.n, sizeof *e->graphs.exec);
    if (!e->graphs.exec)
        return cuda_fail(e->host, er, ERR_NO_MEMORY, "no memory for the table of graphs");
    for (uint32_t b = 1; ce == cudaSuccess; b = cuda_bucket_after(b, e->opt.max_seqs)) {
        const uint32_t longest[] = {1, e->opt.max_model_len};
        for (uint32_t k = 0; k < cuda_graph_kinds(e->l) && ce == cudaSuccess; k++) {
            const cuda_run run = cuda_graph_run(e, b, longest[k]);
            ce = capture_one(e, &run);
        }
        if (b == e->opt.max_seqs) break;
    }
    if (ce == cudaSuccess) ce = cudaStreamSynchronize(e->stream);
    return cuda_check(e->host, ce, "capturing graphs", er);
}

void cuda_graphs_clear(cuda_engine *e) {
    for (uint32_t i = 0; i < e->graphs.n && e->graphs.exec; i++)
        if (e->graphs.exec[i]) cudaGraphExecDestroy(e->graphs.exec[i]);
    free(e->graphs.exec);
    e->graphs = cuda_graphs();
}
