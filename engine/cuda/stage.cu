/* Layers whose matrices lie in the host's memory (staging.h): while the layers before compute, a stream of
 * its own copies the next ones to their slots. An event says that a copy has arrived, and another one that
 * a slot's operations are done, so that the copy of the next step's first layers begins during this one.
 * Engine thread, but for the counters, which any thread reads. */
#include "engine/cuda/cuda.h"

#include <stdlib.h>

static const uint64_t MEASURED_BYTES = 256 << 20;

static unsigned char *on_host(const cuda_engine *e, const cuda_staged *x) {
    return (unsigned char *)e->host->weights + x->host_at;
}

/* A staged layer to its slot, once what was in it is spent. */
static cudaError_t fetch(cuda_engine *e, uint32_t i) {
    const cuda_staged *x = &e->l->staged[i];
    cuda_stager *g = &e->stager;
    const uint32_t slot = i % CUDA_STAGES;
    cudaError_t ce = cudaStreamWaitEvent(g->stream, g->spent[slot], 0);
    if (ce == cudaSuccess)
        ce = cudaMemcpyAsync(cuda_at(e, x->at), on_host(e, x), x->bytes, cudaMemcpyHostToDevice,
                             g->stream);
    return ce == cudaSuccess ? cudaEventRecord(g->arrived[slot], g->stream) : ce;
}

cudaError_t cuda_stage_begin(cuda_engine *e) {
    cuda_stager *g = &e->stager;
    cudaError_t ce = cudaSuccess;
    g->next = 0;
    for (uint32_t i = 0; i < CUDA_STAGES && i < e->l->n_staged && !e->idle; i++)
        if (ce == cudaSuccess) ce = fetch(e, i);
    return ce;
}

cudaError_t cuda_stage_before(cuda_engine *e, uint32_t op) {
    cuda_stager *g = &e->stager;
    const uint32_t i = g->next;
    if (i == e->l->n_staged || e->l->staged[i].first_op != op || e->idle) return cudaSuccess;
    cudaError_t ce = g->waits ? cudaEventRecord(g->waits[2 * i], e->stream) : cudaSuccess;
    if (ce == cudaSuccess) ce = cudaStreamWaitEvent(e->stream, g->arrived[i % CUDA_STAGES], 0);
    if (ce == cudaSuccess && g->waits) ce = cudaEventRecord(g->waits[2 * i + 1], e->stream);
    return ce;
}

cudaError_t cuda_stage_behind(cuda_engine *e, uint32_t op) {
    cuda_stager *g = &e->stager;
    const uint32_t i = g->next;
    if (i == e->l->n_staged || e->l->staged[i].last_op != op || e->idle) return cudaSuccess;
    g->next++;
    const cudaError_t ce = cudaEventRecord(g->spent[i % CUDA_STAGES], e->stream);
    if (ce != cudaSuccess || i + CUDA_STAGES >= e->l->n_staged) return ce;
    return fetch(e, i + CUDA_STAGES);
}

cudaError_t cuda_stage_store(cuda_engine *e, uint32_t i) {
    const cuda_staged *x = &e->l->staged[i];
    return cudaMemcpyAsync(on_host(e, x), cuda_at(e, x->at), x->bytes, cudaMemcpyDeviceToHost,
                           e->stream);
}

cudaError_t cuda_stage_count(cuda_engine *e, const cuda_slot *slot) {
    double ms = 0;
    if (!e->l->n_staged) return cudaSuccess;
    for (uint32_t i = 0; i < e->l->n_staged; i++) {
        float one = 0;
        const cudaError_t ce =
            cudaEventElapsedTime(&one, slot->waits[2 * i], slot->waits[2 * i + 1]);
        if (ce != cudaSuccess) return ce;
        ms += (double)one;
    }
    __atomic_fetch_add(&e->memory.staged_bytes, e->l->staged_bytes, __ATOMIC_RELAXED);
    __atomic_fetch_add(&e->memory.stall_us, (uint64_t)(ms * 1000), __ATOMIC_RELAXED);
    return cudaSuccess;
}

/* ---- opening and closing ---- */

static cudaError_t open_events(cuda_engine *e) {
    cuda_stager *g = &e->stager;
    cudaError_t ce = cudaStreamCreateWithFlags(&g->stream, cudaStreamNonBlocking);
    for (uint32_t i = 0; i < CUDA_STAGES && ce == cudaSuccess; i++) {
        ce = cudaEventCreateWithFlags(&g->arrived[i], cudaEventDisableTiming);
        if (ce == cudaSuccess)
            ce = cudaEventCreateWithFlags(&g->spent[i], cudaEventDisableTiming);
    }
    for (uint32_t s = 0; s < CUDA_DEPTH; s++)
        for (uint32_t i = 0; i < 2 * e->l->n_staged && ce == cudaSuccess; i++)
            ce = cudaEventCreateWithFlags(&e->slot[s].waits[i], cudaEventDefault);
    return ce;
}

status cuda_stager_open(cuda_engine *e, err *er) {
    const cuda_layout *l = e->l;
    if (!l->n_staged) return OK;
    for (uint32_t s = 0; s < CUDA_DEPTH; s++) {
        e->slot[s].waits = (cudaEvent_t *)calloc(2 * l->n_staged, sizeof(cudaEvent_t));
        if (!e->slot[s].waits)
            return cuda_fail(e->host, er, ERR_NO_MEMORY, "no memory for the engine");
    }
    const cudaError_t ce =
        cudaHostRegister(e->host->weights, l->host_bytes, cudaHostRegisterDefault);
    e->stager.pinned = ce == cudaSuccess;
    if (!e->stager.pinned) {
        (void)cudaGetLastError();
        return cuda_fail_hint(
            e->host, er, ERR_NO_MEMORY, "gpu_layers",
            "keep more layers on the device (gpu_layers), or fewer experts on "
            "the host (n_cpu_moe)",
            "the driver cannot pin the %llu bytes of host memory that the "
            "layers of the host have: %s",
            (unsigned long long)l->host_bytes, cudaGetErrorString(ce));
    }
    return cuda_check(e->host, open_events(e), "events", er);
}

void cuda_stager_close(cuda_engine *e) {
    cuda_stager *g = &e->stager;
    if (g->stream) cudaStreamSynchronize(g->stream);
    for (uint32_t i = 0; i < CUDA_STAGES; i++) {
        if (g->arrived[i]) cudaEventDestroy(g->arrived[i]);
        if (g->spent[i]) cudaEventDestroy(g->spent[i]);
    }
    for (uint32_t s = 0; s < CUDA_DEPTH; s++) {
        for (uint32_t i = 0; i < 2 * e->l->n_staged && e->slot[s].waits; i++)
            if (e->slot[s].waits[i]) cudaEventDestroy(e->slot[s].waits[i]);
        free(e->slot[s].waits);
    }
    if (g->stream) cudaStreamDestroy(g->stream);
    if (g->pinned) cudaHostUnregister(e->host->weights);
}

/* The first layers, up to so many bytes; the first of them twice, since its pages are new to the link. */
static cudaError_t copy_some(cuda_engine *e, cudaEvent_t begin, cudaEvent_t end,
                             uint64_t *bytes) {
    cudaError_t ce = fetch(e, 0);
    if (ce == cudaSuccess) ce = cudaEventRecord(begin, e->stager.stream);
    for (uint32_t i = 0; i < e->l->n_staged && *bytes < MEASURED_BYTES && ce == cudaSuccess;
         i++) {
        ce = fetch(e, i);
        *bytes += e->l->staged[i].bytes;
    }
    if (ce == cudaSuccess) ce = cudaEventRecord(end, e->stager.stream);
    return ce == cudaSuccess ? cudaStreamSynchronize(e->stager.stream) : ce;
}

status cuda_stage_measure(cuda_engine *e, err *er) {
    cudaEvent_t begin = NULL, end = NULL;
    uint64_t bytes = 0;
    float ms = 0;
    if (!e->l->n_staged) return OK;
    cudaError_t ce = cudaEventCreateWithFlags(&begin, cudaEventDefault);
    if (ce == cudaSuccess) ce = cudaEventCreateWithFlags(&end, cudaEventDefault);
    if (ce == cudaSuccess) ce = copy_some(e, begin, end, &bytes);
    if (ce == cudaSuccess) ce = cudaEventElapsedTime(&ms, begin, end);
    if (begin) cudaEventDestroy(begin);
    if (end) cudaEventDestroy(end);
    e->memory.link_bytes_per_s = ms > 0 ? (uint64_t)((double)bytes * 1e3 / (double)ms) : 0;
    return cuda_check(e->host, ce, "measuring the link to the host", er);
}
