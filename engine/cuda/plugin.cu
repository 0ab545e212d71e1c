/* The plugin: opens an engine (context, arena, weights, GEMM algorithms, graphs) and closes it;
 * the one exported symbol. */
#include "engine/cuda/cuda.h"
#include "engine/cuda/w8a8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/cuda/linear_many.h"

/* ---- device memory ---- */

typedef struct section {
    mem_class cls;
    uint64_t bytes;
} section;

enum { N_SECTIONS = 6 };

static void sections_of(const cuda_engine *e, section out[N_SECTIONS]) {
    const cuda_layout *l = e->l;
    uint64_t kv = e->arena_bytes - l->fixed_bytes;
    for (uint32_t g = 0; g < l->n_groups; g++) kv += e->pool[g].bytes;
    const section all[N_SECTIONS] = {
        {MEM_WEIGHTS, l->weights_bytes},
        {MEM_ACTIVATIONS, l->values_bytes},
        {MEM_LOGITS, l->logits_bytes},
        {MEM_WORKSPACE, l->workspace_bytes + l->staged_slots_bytes},
        {MEM_STATE, l->states_bytes},
        {MEM_KV, kv}};
    memcpy(out, all, sizeof all);
}

static void release_sections(cuda_engine *e, uint32_t n) {
    section s[N_SECTIONS];
    sections_of(e, s);
    for (uint32_t i = 0; i < n; i++) e->host->release(e->host->account, s[i].cls, s[i].bytes);
}

static status reserve_sections(cuda_engine *e, err *er) {
    section s[N_SECTIONS];
    sections_of(e, s);
    for (uint32_t i = 0; i < N_SECTIONS; i++) {
        if (e->host->reserve(e->host->account, s[i].cls, s[i].bytes)) continue;
        release_sections(e, i);
        return cuda_fail(e->host, er, ERR_BUDGET, "%llu bytes of the device exceed the plan",
                         (unsigned long long)s[i].bytes);
    }
    return OK;
}

/* Checks sizes; pools in the arena follow what is fixed. */
static status find_kv(cuda_engine *e, err *er) {
    uint64_t at = e->l->fixed_bytes;
    for (uint32_t g = 0; g < e->l->n_groups; g++) {
        const uint64_t block = kv_block_bytes(&e->l->kv[g], e->l->kv_layers[g]);
        uint32_t *most = &e->opt.max_blocks[g];
        if (!*most) *most = e->opt.n_blocks[g];
        if (e->opt.n_blocks[g] < 1 || e->opt.n_blocks[g] > *most || *most > INT32_MAX ||
            block > UINT64_MAX / 16 / *most)
            return cuda_fail_hint(e->host, er, ERR_INVALID, "n_blocks", "",
                                  "%u blocks of KV cache in group %u", e->opt.n_blocks[g], g);
        e->kv[g] = (unsigned char *)at; /* an offset until there is an arena */
        if (!e->pools_move) at += cuda_pool_bytes(e->l, g, e->opt.n_blocks[g]);
    }
    e->arena_bytes = at;
    return OK;
}

static status no_arena(cuda_engine *e, cudaError_t ce, uint64_t free_bytes, err *er) {
    (void)cudaGetLastError();
    e->arena = NULL;
    return cuda_fail_hint(e->host, er, ERR_NO_MEMORY, "memory",
                          "give a smaller memory, or see what else runs on the device",
                          "the device cannot give %llu bytes (%llu are free): %s",
                          (unsigned long long)e->arena_bytes, (unsigned long long)free_bytes,
                          cudaGetErrorString(ce));
}

/* The pools, each beside the arena where they can move. What they hold counts at once. */
static status open_pools(cuda_engine *e, err *er) {
    status s = OK;
    e->memory.arena_bytes = e->arena_bytes;
    for (uint32_t g = 0; g < e->l->n_groups && s == OK; g++) {
        if (!e->pools_move) {
            e->kv[g] = e->arena + (uintptr_t)e->kv[g];
            continue;
        }
        const uint64_t bytes = cuda_pool_bytes(e->l, g, e->opt.n_blocks[g]);
        if (!e->host->reserve(e->host->account, MEM_KV, bytes))
            return cuda_fail(e->host, er, ERR_BUDGET,
                             "%llu bytes of the device exceed the plan of class kv",
                             (unsigned long long)bytes);
        s = cuda_pool_open(&e->pool[g], e->host, e->device, bytes,
                           cuda_pool_bytes(e->l, g, e->opt.max_blocks[g]), er);
        if (s != OK) e->host->release(e->host->account, MEM_KV, bytes);
        e->kv[g] = e->pool[g].base;
        e->memory.arena_bytes += e->pool[g].bytes;
    }
    return s;
}

/* All memory of the device that is ours: one allocation, and the pools. */
static status alloc_arena(cuda_engine *e, err *er) {
    size_t free_bytes = 0, total = 0;
    e->pools_move = cuda_pools_can_move(e->device);
    if (!e->pools_move)
        e->host->log(1, "the device has no virtual memory management: the KV cache keeps its "
                        "size while it serves");
    status s = find_kv(e, er);
    if (s == OK) s = reserve_sections(e, er);
    if (s != OK) return s;
    cudaMemGetInfo(&free_bytes, &total);
    cudaError_t ce = cudaMalloc((void **)&e->arena, e->arena_bytes);
    if (ce != cudaSuccess) {
        release_sections(e, N_SECTIONS);
        return no_arena(e, ce, free_bytes, er);
    }
    if (e->opt.keep_logits) e->kept = (float *)(e->arena + e->l->kept_at);
    return open_pools(e, er);
}

static uint64_t free_now(void) {
    size_t free_bytes = 0, total = 0;
    cudaMemGetInfo(&free_bytes, &total);
    return free_bytes;
}

static uint64_t less(uint64_t a, uint64_t b) {
    return a > b ? a - b : 0;
}

/* ---- open ---- */

static status open_context(cuda_engine *e, err *er) {
    uint64_t total, before = 0, after = 0;
    const bool known = cuda_used_bytes((uint32_t)e->device, &total, &before);
    status s = cuda_check(e->host, cudaSetDevice(e->device), "making a context", er);
    if (s == OK)
        s = cuda_check(e->host, cudaStreamCreateWithFlags(&e->stream, cudaStreamNonBlocking),
                       "making a stream", er);
    if (s == OK)
        s = cuda_check(e->host, cudaStreamCreateWithFlags(&e->copies, cudaStreamNonBlocking),
                       "making a stream", er);
    if (s == OK && known && cuda_used_bytes((uint32_t)e->device, &total, &after))
        e->memory.context_bytes = less(after, before);
    return s;
}

/* Waiting for a step spins, which is the quickest, unless the cores are few, or the CPU computes a part of it: then
 * the loop and the clients' threads, or the CPU engine's, need the one that would be spun on. */
static unsigned wait_flags(const cuda_layout *l) {
    enum { FEW_CORES = 4 };
    const bool few = sysconf(_SC_NPROCESSORS_ONLN) < FEW_CORES;
    return cudaEventDisableTiming | (few || l->n_host_runs ? cudaEventBlockingSync : 0);
}

static status open_slots(cuda_engine *e, err *er) {
    const cuda_layout *l = e->l;
    status s = cuda_check(
        e->host, cudaHostRegister(e->host->staging, l->staging_bytes, cudaHostRegisterDefault),
        "pinning the tables", er);
    if (s != OK) return s;
    e->pinned_staging = true;
    for (uint32_t i = 0; i < CUDA_DEPTH && s == OK; i++) {
        cuda_slot *slot = &e->slot[i];
        slot->tables = (unsigned char *)e->host->staging + i * l->slot_bytes;
        slot->token = (sampled *)(slot->tables + l->slot_results);
        slot->scored = slot->token + e->opt.max_seqs;
        if (e->opt.keep_logits) slot->logits = (float *)(slot->tables + l->slot_logits);
        s = cuda_check(e->host, cudaEventCreateWithFlags(&slot->done, wait_flags(l)), "events",
                       er);
    }
    return s;
}

static status fill_constants(cuda_engine *e, err *er) {
    const cuda_layout *l = e->l;
    const uint32_t n = e->p->n_ropes * l->rope_pairs;
    cu_freq *f = (cu_freq *)e->slot[0].tables; /* pinned, and no step is on its way */
    for (uint32_t i = 0; i < n; i++) {
        f[i].high = (float)e->host->freqs[i];
        f[i].low = (float)(e->host->freqs[i] - f[i].high);
    }
    cudaError_t ce = cudaMemcpyAsync(cuda_at(e, l->freqs), f, n * sizeof *f,
                                     cudaMemcpyHostToDevice, e->stream);
    if (ce == cudaSuccess) /* -1: nothing was drawn */
        ce = cudaMemsetAsync(cuda_at(e, l->previous), 0xff, l->freqs - l->previous, e->stream);
    if (ce == cudaSuccess)
        ce = cudaMemsetAsync(cuda_at(e, l->results), 0, l->results_bytes, e->stream);
    if (ce == cudaSuccess)
        ce = cudaMemsetAsync(cuda_at(e, l->arrived), 0, l->arrived_bytes, e->stream);
    if (ce == cudaSuccess && l->split_bytes)
        ce = cudaMemsetAsync(cuda_at(e, l->split), 0, CU_SPLIT_COUNTERS, e->stream);
    if (ce == cudaSuccess) ce = cudaStreamSynchronize(e->stream);
    return cuda_check(e->host, ce, "filling in constants", er);
}

/* Can the device multiply activations of e4m3, where the option asks for them? */
static status check_codes(const cuda_engine *e, err *er) {
    int major = 0, minor = 0;
    if (!e->l->codes_bytes) return OK;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, e->device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, e->device);
    if (10 * major + minor >= CU_W8A8_CAPABILITY) return OK;
    return cuda_fail_hint(
        e->host, er, ERR_UNSUPPORTED, "activation_dtype", "set activation_dtype = auto",
        "activation_dtype = fp8 needs compute capability 8.9, and this device "
        "has %d.%d",
        major, minor);
}

static status open_gemm(cuda_engine *e, err *er) {
    const status can = check_codes(e, er);
    e->has_wgmma = cu_linear_many_runs();
    if (can != OK || !e->l->wants_gemm) return can;
    const uint64_t before = free_now();
    /* The KV cache is empty yet. */
    const gemm_memory memory = {cuda_at(e, e->l->gemm), e->l->gemm_bytes, e->kv[0],
                                cuda_pool_bytes(e->l, 0, e->opt.n_blocks[0])};
    status s = gemm_open(&e->lt, e->host, &memory, e->l->batch_invariant, er);
    if (s == ERR_UNSUPPORTED && !e->l->needs_gemm) {
        char text[500];
        snprintf(text, sizeof text, "prefill with packed weights is slower: %.400s", er->text);
        if (!e->has_wgmma) e->host->log(1, text);
        *er = err();
        return OK;
    }
    if (s == OK) s = cuda_tune(e, er);
    e->memory.library_bytes = less(before, free_now());
    return s;
}

static status open_graphs(cuda_engine *e, err *er) {
    status s = cuda_warm_up(e, er);
    const uint64_t before = free_now();
    if (s == OK && !e->opt.eager && cuda_wants_graphs(e->l)) s = cuda_capture(e, er);
    e->memory.graph_bytes = less(before, free_now());
    if (s == OK) s = cuda_stage_measure(e, er);
    return s;
}

static status open_parts(cuda_engine *e, err *er) {
    status s = cuda_probe((uint32_t)e->device, &e->info, e->host, er);
    if (s == OK) s = open_context(e, er);
    if (s == OK) s = alloc_arena(e, er);
    if (s == OK) s = open_slots(e, er);
    e->op = (cuda_op *)calloc(e->p->n_ops + 1, sizeof *e->op);
    if (s == OK && !e->op)
        s = cuda_fail(e->host, er, ERR_NO_MEMORY, "no memory for the engine");
    if (s == OK) s = cuda_stager_open(e, er);
    if (s == OK) s = cuda_calls_open(e, er);
    if (s == OK) s = cuda_load(e, er);
    if (s == OK) s = fill_constants(e, er);
    if (s == OK) s = open_gemm(e, er);
    if (s == OK) s = cuda_ranks_open(e, er);
    if (s == OK) s = open_graphs(e, er);
    return s == OK ? fill_constants(e, er) : s; /* what warming up drew is forgotten */
}

static void plugin_close(engine *head) {
    cuda_engine *e = (cuda_engine *)head;
    cudaSetDevice(e->device);
    cuda_ranks_close(e);
    if (e->stream) cudaStreamSynchronize(e->stream);
    cuda_stager_close(e);
    cuda_calls_close(e);
    cuda_graphs_clear(e);
    gemm_close(e->lt);
    for (uint32_t i = 0; i < CUDA_DEPTH; i++)
        if (e->slot[i].done) cudaEventDestroy(e->slot[i].done);
    if (e->pinned_staging) cudaHostUnregister(e->host->staging);
    if (e->arena) {
        release_sections(e, N_SECTIONS);
        for (uint32_t g = 0; g < e->l->n_groups; g++) cuda_pool_close(&e->pool[g]);
        cudaFree(e->arena);
    }
    if (e->stream) cudaStreamDestroy(e->stream);
    if (e->copies) cudaStreamDestroy(e->copies);
    (void)cudaGetLastError();
    free(e->op);
    free(e);
}

static status plugin_open(engine **out, uint32_t device, const program *p,
                          const engine_options *o, const cuda_layout *l, const cuda_host *host,
                          err *er) {
    cuda_engine *e = (cuda_engine *)calloc(1, sizeof *e);
    *out = NULL;
    if (!e) return cuda_fail(host, er, ERR_NO_MEMORY, "no memory for the engine");
    e->p = p, e->l = l, e->host = host, e->opt = *o, e->device = (int)device;
    status s = open_parts(e, er);
    if (s == OK)
        *out = &e->head;
    else {
        e->broken = true; /* what other ranks have not done is not waited for */
        plugin_close(&e->head);
    }
    return s;
}

/* ---- the rest ---- */

static status plugin_submit(engine *head, const batch *b, err *er) {
    return cuda_submit((cuda_engine *)head, b, er);
}

static status plugin_collect(engine *head, step_result *out, err *er) {
    return cuda_collect((cuda_engine *)head, out, er);
}

static void plugin_info(const engine *head, engine_info *out) {
    const cuda_engine *e = (const cuda_engine *)head;
    memset(out, 0, sizeof *out);
    out->name = "cuda";
    out->depth = e->l->n_ranks > 1 ? 1 : CUDA_DEPTH;
    out->kv_fixed = !e->pools_move;
    snprintf(out->detail, sizeof out->detail, "%.48s, %s activations%s%s", e->info.name,
             e->l->t == CU_BF16 ? "bf16" : "f16",
             e->l->batch_invariant ? ", batch-invariant" : "",
             e->graphs.exec ? "" : ", no graphs");
}

static void plugin_memory(const engine *head, cuda_memory *out) {
    const cuda_engine *e = (const cuda_engine *)head;
    size_t free_bytes = 0, total = 0;
    *out = e->memory;
    out->staged_bytes = __atomic_load_n(&e->memory.staged_bytes, __ATOMIC_RELAXED);
    out->stall_us = __atomic_load_n(&e->memory.stall_us, __ATOMIC_RELAXED);
    if (cudaSetDevice(e->device) == cudaSuccess &&
        cudaMemGetInfo(&free_bytes, &total) == cudaSuccess) {
        out->driver_total = total;
        out->driver_used = total - free_bytes;
    }
}

static status plugin_kv_export(engine *head, uint32_t group, int32_t block, void *out,
                               err *er) {
    return cuda_kv_export((cuda_engine *)head, group, block, out, er);
}

static status plugin_kv_import(engine *head, uint32_t group, int32_t block, const void *in,
                               err *er) {
    return cuda_kv_import((cuda_engine *)head, group, block, in, er);
}

static status plugin_kv_resize(engine *head, uint32_t group, uint32_t n_blocks, err *er) {
    return cuda_kv_resize((cuda_engine *)head, group, n_blocks, er);
}

static status plugin_pin(engine *head, void *p, uint64_t bytes, err *er) {
    return cuda_pin((cuda_engine *)head, p, bytes, er);
}

static void plugin_unpin(engine *head, void *p) {
    cuda_unpin((cuda_engine *)head, p);
}

extern "C" __attribute__((visibility("default"))) const cuda_plugin *
vramd_cuda_plugin(uint32_t abi) {
    static const cuda_plugin plugin = {
        CUDA_PLUGIN_ABI,  VRAMD_VERSION,    cuda_probe,  plugin_open,   plugin_close,
        plugin_submit,    plugin_collect,   plugin_info, plugin_memory, plugin_kv_export,
        plugin_kv_import, plugin_kv_resize, plugin_pin,  plugin_unpin};
    return abi == CUDA_PLUGIN_ABI ? &plugin : NULL;
}
