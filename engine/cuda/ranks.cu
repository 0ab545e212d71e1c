/* Ranks that share a model, by NCCL, which is loaded when there are several: columns are broadcast by the rank
 * that has computed them, words are added as integers. Neither changes a bit, in whatever order it adds. What is put on the stream is
 * captured like kernels. Engine thread. */
#include <dlfcn.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cuda/cuda.h"

/* Of NCCL 2: what is used. Functions return 0 on success. */
extern "C" {
typedef struct ncclComm *ncclComm_t;
typedef struct ncclUniqueId {
    char internal[128];
} ncclUniqueId;
typedef int ncclResult_t;
typedef enum ncclDataType_t { ncclUint8 = 1, ncclUint32 = 3 } ncclDataType_t;
typedef enum ncclRedOp_t { ncclSum = 0 } ncclRedOp_t;
ncclResult_t ncclGetUniqueId(ncclUniqueId *);
ncclResult_t ncclCommInitRank(ncclComm_t *, int n_ranks, ncclUniqueId, int rank);
ncclResult_t ncclCommDestroy(ncclComm_t);
ncclResult_t ncclCommAbort(ncclComm_t);
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t *);
ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);
ncclResult_t ncclBroadcast(const void *from, void *to, size_t n, ncclDataType_t, int root,
                           ncclComm_t, cudaStream_t);
ncclResult_t ncclAllReduce(const void *from, void *to, size_t n, ncclDataType_t, ncclRedOp_t,
                           ncclComm_t, cudaStream_t);
}

#define NCCL_FUNCTIONS(X)                                                                      \
    X(ncclGetUniqueId)                                                                         \
    X(ncclCommInitRank)                                                                        \
    X(ncclCommDestroy)                                                                         \
    X(ncclCommAbort)                                                                           \
    X(ncclCommGetAsyncError)                                                                   \
    X(ncclGroupStart)                                                                          \
    X(ncclGroupEnd)                                                                            \
    X(ncclBroadcast)                                                                           \
    X(ncclAllReduce)

struct cuda_ranks {
#define X(name) decltype(&name) name##_;
    NCCL_FUNCTIONS(X)
#undef X
    void *library;
    ncclComm_t comm;
};

/* ---- the library ---- */

#ifdef CUSHIM /* the stand-in is linked in */
static status load_library(cuda_ranks *r, const cuda_host *, err *) {
#define X(name) r->name##_ = name;
    NCCL_FUNCTIONS(X)
#undef X
    return OK;
}
#else
static status load_library(cuda_ranks *r, const cuda_host *h, err *er) {
    r->library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!r->library)
        return cuda_fail_hint(h, er, ERR_UNSUPPORTED, "tensor_parallel_size",
                              "install NCCL (libnccl2), or set LD_LIBRARY_PATH",
                              "several ranks need NCCL: %s", dlerror());
#define X(name)                                                                                \
    r->name##_ = (decltype(&name))dlsym(r->library, #name);                                    \
    if (!r->name##_) return cuda_fail(h, er, ERR_UNSUPPORTED, "NCCL lacks " #name);
    NCCL_FUNCTIONS(X)
#undef X
    return OK;
}
#endif

static cudaError_t nccl_error(ncclResult_t r) {
    return r == 0 ? cudaSuccess : cudaErrorUnknown;
}

static status nccl_check(const cuda_engine *e, ncclResult_t r, const char *what, err *er) {
    if (r == 0) return OK;
    return cuda_fail(e->host, er, ERR_DEVICE, "NCCL, %s: result %d", what, r);
}

status cuda_ranks_open(cuda_engine *e, err *er) {
    const uint32_t rank = e->p->part.rank;
    ncclUniqueId id = {};
    if (e->l->n_ranks == 1) return OK;
    cuda_ranks *r = (cuda_ranks *)calloc(1, sizeof *r);
    if (!r) return cuda_fail(e->host, er, ERR_NO_MEMORY, "no memory for the engine");
    e->ranks = r;
    status s = load_library(r, e->host, er);
    if (s == OK && rank == 0) s = nccl_check(e, r->ncclGetUniqueId_(&id), "a name", er);
    if (s != OK) return s;
    if (!e->host->exchange(e->host->group, &id, sizeof id))
        return cuda_fail(e->host, er, ERR_DEVICE, "another rank has given up");
    return nccl_check(e, r->ncclCommInitRank_(&r->comm, (int)e->l->n_ranks, id, (int)rank),
                      "joining the ranks", er);
}

void cuda_ranks_close(cuda_engine *e) {
    cuda_ranks *r = e->ranks;
    if (!r) return;
    /* Where another rank is lost, what it has not done is not waited for. */
    const bool broken = e->broken || !e->host->waits(e->host->group, true);
    if (r->comm && broken)
        r->ncclCommAbort_(r->comm);
    else if (r->comm) {
        cudaStreamSynchronize(e->stream);
        cuda_graphs_clear(e); /* they hold on to it */
        r->ncclCommDestroy_(r->comm);
    }
    e->ranks = NULL;
    free(r);
}

/* ---- on the stream ---- */

cudaError_t cuda_ranks_sum(cuda_engine *e, void *words, uint64_t n) {
    return nccl_error(e->ranks->ncclAllReduce_(words, words, n, ncclUint32, ncclSum,
                                               e->ranks->comm, e->stream));
}

cudaError_t cuda_ranks_gather(cuda_engine *e, const void *own, void *joined, uint32_t n_rows,
                              uint32_t width, const uint32_t *cut) {
    cuda_ranks *r = e->ranks;
    ncclResult_t done = r->ncclGroupStart_();
    for (uint32_t i = 0; i < e->l->n_ranks && done == 0; i++) {
        char *to = (char *)joined + (size_t)n_rows * cut[i] * width;
        const size_t bytes = (size_t)n_rows * (cut[i + 1] - cut[i]) * width;
        const void *from = i == e->p->part.rank ? own : to;
        done = r->ncclBroadcast_(from, to, bytes, ncclUint8, (int)i, r->comm, e->stream);
    }
    const ncclResult_t ended = r->ncclGroupEnd_();
    return nccl_error(done ? done : ended);
}

status cuda_ranks_wait(cuda_engine *e, cudaEvent_t done, err *er) {
    ncclResult_t failed = 0;
    for (bool first = true;; first = false) {
        const cudaError_t ce = cudaEventQuery(done);
        if (ce == cudaSuccess) return OK;
        if (ce != cudaErrorNotReady) return cuda_check(e->host, ce, "a step on the device", er);
        (void)cudaGetLastError();
        if (e->ranks->ncclCommGetAsyncError_(e->ranks->comm, &failed) != 0 || failed)
            return cuda_fail(e->host, er, ERR_DEVICE, "NCCL, a step: result %d", failed);
        if (!e->host->waits(e->host->group, first))
            return cuda_fail(e->host, er, ERR_DEVICE, "a rank does not answer");
        sched_yield(); /* where cores are fewer than ranks and their threads */
    }
}
