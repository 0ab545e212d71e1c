/* Operations that the CPU computes (hosting.h), as work of the stream: values go down to pinned memory, the
 * driver calls the base, which computes, and values come up. Engine thread; what the driver calls runs on a
 * thread of its own, and makes no call of CUDA. */
#include "engine/cuda/cuda.h"

#include <stdlib.h>

static void CUDART_CB call_base(void *arg) {
    const cuda_call *c = (const cuda_call *)arg;
    c->host->compute(c->host->computer, c->run, c->n_rows);
}

/* Where the device has a value, or of a router's the experts, which the weights follow; its bytes. */
static void *on_device(const cuda_engine *e, const cuda_crossing *x, uint64_t n_rows,
                       uint64_t *bytes) {
    const value *v = &e->p->values[x->value];
    const cuda_form form = e->l->values[x->value].form;
    void *at = cuda_at(e, e->l->values[x->value].at);
    *bytes = n_rows * v->cols * (form == CUDA_VALUE_T ? 2 : 4);
    if (form != CUDA_VALUE_ROUTED) return at;
    return cu_routed_at(at, (uint32_t)n_rows, v->cols / 2, x->n_experts).expert;
}

static cudaError_t cross(cuda_engine *e, const cuda_crossing *x, const tables_shape *shape) {
    uint64_t bytes;
    void *device = on_device(
        e, x, value_rows(&e->p->values[x->value], shape->n_rows, shape->n_logit_rows), &bytes);
    void *host = (unsigned char *)e->host->staging + e->l->crossing_at + x->at;
    if (x->up) return cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, e->stream);
    return cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, e->stream);
}

cudaError_t cuda_host_run_put(cuda_engine *e, uint32_t i, const tables_shape *shape) {
    const cuda_host_run *r = &e->l->host_runs[i];
    const cuda_crossing *x = &e->l->crossings[r->first], *end = x + r->n;
    cudaError_t ce = cudaSuccess;
    if (e->idle || !shape->n_rows) return cudaSuccess;
    for (; x < end && !x->up && ce == cudaSuccess; x++) ce = cross(e, x, shape);
    e->calls[i] = cuda_call{e->host, i, shape->n_rows};
    if (ce == cudaSuccess) ce = cudaLaunchHostFunc(e->stream, call_base, &e->calls[i]);
    for (; x < end && ce == cudaSuccess; x++) ce = cross(e, x, shape);
    return ce;
}

status cuda_calls_open(cuda_engine *e, err *er) {
    for (uint32_t s = 0; s < CUDA_DEPTH && e->l->n_host_runs; s++) {
        e->slot[s].calls = (cuda_call *)calloc(e->l->n_host_runs, sizeof(cuda_call));
        if (!e->slot[s].calls)
            return cuda_fail(e->host, er, ERR_NO_MEMORY, "no memory for the engine");
    }
    return OK;
}

void cuda_calls_close(cuda_engine *e) {
    for (uint32_t s = 0; s < CUDA_DEPTH; s++) free(e->slot[s].calls);
}
