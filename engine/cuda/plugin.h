/* The door between vramd and its CUDA engine, which is a shared object of its own
 * (vramd-cuda.so): the base binary links nothing of CUDA, and the plugin imports no symbol of
 * the base. It exports one function, vramd_cuda_plugin; everything else goes through the two
 * structs below. Both sides are built from one tree: CUDA_PLUGIN_ABI changes with the sizes of
 * what crosses here, and by hand where a meaning does; another one is refused. */
#ifndef VRAMD_ENGINE_CUDA_PLUGIN_H
#define VRAMD_ENGINE_CUDA_PLUGIN_H

#include "engine/cuda/layout.h"
#include "engine/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the plugin may ask of the base. */
typedef struct cuda_host {
    uint32_t abi;
    const void *model; /* for the readers */
    /* NULL: matrices are filled with random numbers, for measurements. */
    status (*read_rows)(const void *model, weight_id, uint32_t row, uint32_t n, void *dst,
                        err *);
    status (*read_vector)(const void *model, weight_id, float *dst, err *);
    /* Page-aligned memory of the host, which the plugin pins: layout->staging_bytes as long as
     * the engine lives; CUDA_BOUNCES x layout->bounce_bytes until open returns. */
    void *staging, *bounce;
    /* The same for staged layers: layout->host_bytes as long as the engine lives; NULL: none are. */
    void *weights;
    /* Rotary embedding, for each of the program's ropes: [n_ropes][n_dims / 2] radians per
     * position, until open returns, and what multiplies cosine and sine. */
    const double *freqs;
    float rope_scale[PROGRAM_MAX_ROPES];
    /* Computes run i of layout->host_runs for so many rows, whose values cross in staging: called from within
     * the device's stream, by a thread of the driver. NULL: there are none. */
    void *computer;
    void (*compute)(void *computer, uint32_t run, uint32_t n_rows);
    /* Device memory by class, against the plan's limits: false when it would exceed them. */
    void *account;
    bool (*reserve)(void *account, mem_class, uint64_t bytes);
    void (*release)(void *account, mem_class, uint64_t bytes);
    /* Fills an err and returns code; field and hint may be "". */
    status (*fail)(err *, status code, const char *field, const char *text, const char *hint);
    void (*log)(int level, const char *text); /* level as base/log.h */
    /* Of several ranks that share the model; NULL: it is the only one. */
    void *group;
    /* Rank 0 gives the others bytes before any of them computes. False: the group is broken. */
    bool (*exchange)(void *group, void *bytes, uint64_t n);
    /* Called again and again while the device has not done what was submitted; first: a wait begins. False: the
     * group is broken, or a rank does not answer. */
    bool (*waits)(void *group, bool first);
} cuda_host;

typedef struct cuda_device {
    char name[128];
    uint32_t major, minor; /* compute capability */
    uint32_t n_sms;
    uint32_t driver, runtime; /* 13000: 13.0 */
    uint32_t n_devices;       /* that the driver shows; this is one of them */
    uint64_t total_bytes, free_bytes;
} cuda_device;

/* Device memory as the driver sees it, beside what was reserved. */
typedef struct cuda_memory {
    uint64_t driver_total, driver_used; /* whole device, other processes too */
    uint64_t context_bytes;             /* measured; 0 where the driver's library cannot tell */
    uint64_t library_bytes;             /* cuBLASLt's handle and kernels */
    uint64_t graph_bytes;               /* instantiated graphs */
    uint64_t arena_bytes;               /* the one cudaMalloc, and the pools at first */
    /* What steps have copied of staged layers, how long their operations waited for it, and the rate of
     * the link as it was measured; 0: none are staged. */
    uint64_t staged_bytes, stall_us, link_bytes_per_s;
} cuda_memory;

typedef struct cuda_plugin {
    uint32_t abi;
    const char *version; /* of vramd */
    /* Errors: ERR_DEVICE: no driver, too old a driver, no device, or none with that index. */
    status (*probe)(uint32_t device, cuda_device *out, const cuda_host *, err *);
    /* Everything pointed to is borrowed while the engine lives. */
    status (*open)(engine **out, uint32_t device, const program *, const engine_options *,
                   const cuda_layout *, const cuda_host *, err *);
    void (*close)(engine *);
    status (*submit)(engine *, const batch *, err *);
    status (*collect)(engine *, step_result *, err *);
    void (*info)(const engine *, engine_info *);
    void (*memory)(const engine *, cuda_memory *out);
    /* As engine_kv_export and engine_kv_import. */
    status (*kv_export)(engine *, uint32_t group, int32_t block, void *out, err *);
    status (*kv_import)(engine *, uint32_t group, int32_t block, const void *in, err *);
    /* As engine_kv_resize, one group. */
    status (*kv_resize)(engine *, uint32_t group, uint32_t n_blocks, err *);
    /* As engine_pin and engine_unpin. */
    status (*pin)(engine *, void *p, uint64_t bytes, err *);
    void (*unpin)(engine *, void *p);
} cuda_plugin;

#define CUDA_PLUGIN_MIX(abi, type) ((abi)*31u + (uint32_t)sizeof(type))
#define CUDA_PLUGIN_MIX_3(abi, a, b, c)                                                        \
    CUDA_PLUGIN_MIX(CUDA_PLUGIN_MIX(CUDA_PLUGIN_MIX(abi, a), b), c)
#define CUDA_PLUGIN_ABI                                                                        \
    CUDA_PLUGIN_MIX_3(CUDA_PLUGIN_MIX_3(CUDA_PLUGIN_MIX_3(7u, op, weight, value), program,     \
                                        engine_options, cuda_layout),                          \
                      cuda_host, batch_seq, sampled)

/* The one exported symbol. NULL when abi is not this build's. */
const cuda_plugin *vramd_cuda_plugin(uint32_t abi);
typedef const cuda_plugin *vramd_cuda_plugin_function(uint32_t abi);

#ifdef __cplusplus
}
#endif
#endif
