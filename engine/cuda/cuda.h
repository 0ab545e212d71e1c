/* Inside of the CUDA engine: what open, load, the steps and the graphs share. C++, within the
 * plugin only. One thread at a time; each entry of the plugin makes the engine's device the
 * thread's own. */
#ifndef VRAMD_ENGINE_CUDA_CUDA_H
#define VRAMD_ENGINE_CUDA_CUDA_H

#include "engine/cuda/gemm.h"
#include "engine/cuda/kernels.h"
#include "engine/cuda/plugin.h"

/* Weights of an operation that compute together. */
typedef struct cuda_part {
    cu_matrix w;
    const float *bias;  /* NULL: none */
    uint32_t first_col; /* of the output */
    uint64_t stride;    /* bytes from an expert's matrix to the next */
} cuda_part;

/* An operation with its weights found. */
typedef struct cuda_op {
    const op *o;
    uint32_t n_parts;
    cuda_part part[3];
    const float *vec[3]; /* weights of these places that are vectors */
    const float *bias;   /* of the first of them */
    bool
        feeds_codes; /* the next operation alone reads its result, by packed weights that meet int8 codes */
} cuda_op;

/* A run of the CPU, as the driver calls it. */
typedef struct cuda_call {
    const cuda_host *host;
    uint32_t run, n_rows;
} cuda_call;

/* One of the CUDA_DEPTH steps that can be on their way. */
typedef struct cuda_slot {
    unsigned char *tables;   /* pinned */
    sampled *token, *scored; /* pinned: [max_seqs], [max_logit_rows] */
    float *logits;           /* pinned; NULL unless they are kept */
    cudaEvent_t done;
    /* [n_staged][2]: when operations began to wait for a staged layer, and when they had it */
    cudaEvent_t *waits;
    struct cuda_call *calls;    /* [n_host_runs] */
    const tables_score *scores; /* pinned: in the tables */
    uint32_t n_scores;
} cuda_slot;

/* What a step runs, beyond what its tables say: enough for a graph. */
typedef struct cuda_run {
    tables_shape shape;
    uint32_t n_splits; /* of decode attention */
    bool is_short;     /* the graph for sequences of up to CUDA_SHORT tokens */
    bool singles;      /* entries of one row are computed by decode attention */
    bool graph;        /* one that graphs exist for, padded to its bucket */
    uint32_t copies[ENGINE_COPY_STATE + 1]; /* of each group, then of states: as in the table */
} cuda_run;

typedef struct cuda_graphs {
    cudaGraphExec_t *exec; /* [n]; by entries, then by cuda_graph_kinds; NULL before capture */
    uint32_t n;
} cuda_graphs;

/* Memory of one group's KV blocks that grows and shrinks at its end. */
typedef struct cuda_pool {
    unsigned char *base;  /* NULL: in the arena, whose size is fixed */
    uint64_t bytes, most; /* mapped, of addresses reserved; multiples of CUDA_GRANULE */
} cuda_pool;

/* Brings the layers that lie in the host's memory (stage.cu). */
typedef struct cuda_stager {
    cudaStream_t stream;
    cudaEvent_t arrived[CUDA_STAGES], spent[CUDA_STAGES]; /* what is in a slot */
    uint32_t next;      /* of layout.staged: whose operations come next */
    cudaEvent_t *waits; /* of the step that is put on the stream; NULL: not timed */
    bool pinned;
} cuda_stager;

struct cuda_ranks;
typedef struct cuda_engine {
    engine head;
    const program *p;
    const cuda_layout *l;
    const cuda_host *host;
    engine_options opt;
    int device;
    cudaStream_t stream;
    cudaStream_t copies; /* of KV blocks to the host and back */
    unsigned char *arena;
    uint64_t arena_bytes;
    bool pinned_staging;
    cuda_stager stager;
    bool idle; /* warming up: no layers come from the host, and the CPU computes nothing */
    cuda_call *calls; /* of the step that is put on the stream */
    gemm *lt;
    struct cuda_ranks *ranks;           /* NULL: it is the only one */
    bool has_wgmma;                     /* many rows of packed weights are cu_linear_many's */
    cuda_op *op;                        /* [p->n_ops] */
    unsigned char *kv[PLAN_MAX_GROUPS]; /* layer 0's block 0 */
    bool pools_move;                    /* pool is in use: engine_kv_resize can */
    cuda_pool pool[PLAN_MAX_GROUPS];
    cuda_graphs graphs;
    float *kept; /* in the arena; NULL unless logits are kept */
    cuda_slot slot[CUDA_DEPTH];
    uint32_t first, n_in_flight;
    bool broken; /* the device failed: nothing works any more */
    err error;
    cuda_memory memory;
    cuda_device info;
} cuda_engine;

/* Fills er; field "" and no hint. */
status cuda_fail(const cuda_host *, err *, status code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
status cuda_fail_hint(const cuda_host *, err *, status code, const char *field,
                      const char *hint, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* ERR_NO_MEMORY or ERR_DEVICE, unless it is cudaSuccess. what: "copying the tables". */
status cuda_check(const cuda_host *, cudaError_t, const char *what, err *);

/* driver.cu: what the driver says is in use on the device, by NVML, so that it can be asked
 * before there is a context. False: no NVML. */
bool cuda_used_bytes(uint32_t device, uint64_t *total, uint64_t *used);
/* Errors: as cuda_plugin.probe. */
status cuda_probe(uint32_t device, cuda_device *out, const cuda_host *, err *);

/* pool.cu. Can the device map memory while kernels run, in granules of CUDA_GRANULE? */
bool cuda_pools_can_move(int device);
/* Reserves `most` bytes of addresses, bytes of which are memory. Errors: as resize; then *p is
 * empty. */
status cuda_pool_open(cuda_pool *, const cuda_host *, int device, uint64_t bytes, uint64_t most,
                      err *);
/* Nothing that is on its way touches what goes. Errors: ERR_NO_MEMORY, ERR_DEVICE; then its size
 * is what it was. */
status cuda_pool_resize(cuda_pool *, const cuda_host *, int device, uint64_t bytes, err *);
void cuda_pool_close(cuda_pool *); /* an empty one is fine */

/* load.cu: all weights into the arena; finds those of each operation. */
status cuda_load(cuda_engine *, err *);

/* lower.cu: puts the program, or what is left of it for this run, on the stream. */
cudaError_t cuda_run_program(cuda_engine *, const cuda_run *);
/* Times the algorithms of all GEMMs. */
status cuda_tune(cuda_engine *, err *);

/* fill.cu: the tables of a slot from a batch that was checked. Returns the bytes that the step
 * uses of them. */
uint64_t cuda_fill(const cuda_engine *, const batch *, cuda_slot *, cuda_run *run);
/* Tables of a run in which no row is real. */
uint64_t cuda_fill_blank(const cuda_engine *, cuda_slot *, const cuda_run *);
/* The run of a graph for n_seqs entries, the longest of which has that many tokens. */
cuda_run cuda_graph_run(const cuda_engine *, uint32_t n_seqs, uint32_t longest);

/* stage.cu. All of them do nothing where no layer is staged. */
status cuda_stager_open(cuda_engine *, err *);
void cuda_stager_close(cuda_engine *);
/* Measures the link, once the layers are in the host's memory. */
status cuda_stage_measure(cuda_engine *, err *);
/* While loading: what lies in the slot of staged layer i goes to the host, on the engine's stream. */
cudaError_t cuda_stage_store(cuda_engine *, uint32_t i);
/* In front of a program's operations, of each of them, and behind each. */
cudaError_t cuda_stage_begin(cuda_engine *);
cudaError_t cuda_stage_before(cuda_engine *, uint32_t op);
cudaError_t cuda_stage_behind(cuda_engine *, uint32_t op);
/* Adds a step that is done to the counters. */
cudaError_t cuda_stage_count(cuda_engine *, const cuda_slot *);

/* ranks.cu: NCCL, of an engine whose layout has several ranks; with one rank they do nothing. All ranks make the
 * same calls in the same order. */
status cuda_ranks_open(cuda_engine *, err *);
void cuda_ranks_close(cuda_engine *); /* of a broken engine: without waiting for the others */
/* The sum over ranks of n words, as integers, where each word is 0 but on one rank. */
cudaError_t cuda_ranks_sum(cuda_engine *, void *words, uint64_t n);
/* Rank i has [n_rows][cut[i + 1] - cut[i]] numbers of so many bytes in `joined`, behind those of ranks before it;
 * own: this rank's, which may lie elsewhere. Then all of it is there. */
cudaError_t cuda_ranks_gather(cuda_engine *, const void *own, void *joined, uint32_t n_rows,
                              uint32_t width, const uint32_t *cut);
/* Waits for an event as long as the others answer. */
status cuda_ranks_wait(cuda_engine *, cudaEvent_t, err *);

/* host_run.cu. The calls of all slots. Errors: ERR_NO_MEMORY. */
status cuda_calls_open(cuda_engine *, err *);
void cuda_calls_close(cuda_engine *);
/* Puts run i of layout.host_runs on the stream. */
cudaError_t cuda_host_run_put(cuda_engine *, uint32_t i, const tables_shape *);

/* step.cu: the plugin's submit, collect, and steps of no rows that load every kernel. */
status cuda_submit(cuda_engine *, const batch *, err *);
status cuda_collect(cuda_engine *, step_result *, err *);
status cuda_warm_up(cuda_engine *, err *);

/* kv_move.cu: as engine_kv_resize of one group, engine_kv_export and engine_kv_import. */
status cuda_kv_resize(cuda_engine *, uint32_t group, uint32_t n_blocks, err *);
/* As engine_pin and engine_unpin. */
status cuda_pin(cuda_engine *, void *p, uint64_t bytes, err *);
void cuda_unpin(cuda_engine *, void *p);
status cuda_kv_export(cuda_engine *, uint32_t group, int32_t block, void *out, err *);
status cuda_kv_import(cuda_engine *, uint32_t group, int32_t block, const void *in, err *);

/* graphs.cu */
status cuda_capture(cuda_engine *, err *);
void cuda_graphs_clear(cuda_engine *);
cudaGraphExec_t cuda_graph_of(const cuda_engine *, const cuda_run *);

static inline void *cuda_at(const cuda_engine *e, uint64_t at) {
    return e->arena + at;
}

#endif
