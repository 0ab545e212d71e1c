/* The KV cache changes its size (engine_kv_resize), and its blocks go out and come in
 * (engine_kv_export, engine_kv_import). A block is one range of
 * bytes (kv_block.h), and no step that is under way touches it, so copies have a stream of their
 * own and wait for no step. Engine thread. */
#include "engine/cuda/cuda.h"

/* As the ledger counts it before memory comes, and after it went. */
static status count(const cuda_engine *e, uint64_t was, uint64_t bytes, err *er) {
    if (bytes <= was || e->host->reserve(e->host->account, MEM_KV, bytes - was)) return OK;
    return cuda_fail(e->host, er, ERR_BUDGET,
                     "%llu bytes of the device exceed the plan of class kv",
                     (unsigned long long)bytes);
}

status cuda_kv_resize(cuda_engine *e, uint32_t group, uint32_t n_blocks, err *er) {
    if (!e->pools_move)
        return cuda_fail(e->host, er, ERR_UNSUPPORTED,
                         "the device cannot change the size of the KV cache");
    if (group >= e->l->n_groups || n_blocks < 1 || n_blocks > e->opt.max_blocks[group])
        return cuda_fail(e->host, er, ERR_INVALID, "%u blocks of KV cache in group %u",
                         n_blocks, group);
    cuda_pool *p = &e->pool[group];
    const uint64_t was = p->bytes, bytes = cuda_pool_bytes(e->l, group, n_blocks);
    status s = cuda_check(e->host, cudaSetDevice(e->device), "resizing the KV cache", er);
    if (s == OK) s = count(e, was, bytes, er);
    if (s != OK) return s;
    /* Steps under way touch no block that goes, but how a driver unmaps beside a running kernel is
     * not promised. */
    if (bytes < was)
        s = cuda_check(e->host, cudaStreamSynchronize(e->stream), "resizing the KV cache", er);
    if (s == OK) s = cuda_pool_resize(p, e->host, e->device, bytes, er);
    const uint64_t held = was > bytes ? was : bytes;
    if (held > p->bytes) e->host->release(e->host->account, MEM_KV, held - p->bytes);
    if (s == OK) e->opt.n_blocks[group] = n_blocks;
    return s;
}

static status move(cuda_engine *e, uint32_t group, int32_t block, void *host, bool in,
                   err *er) {
    if (group >= e->l->n_groups || block < 0 || (uint32_t)block >= e->opt.n_blocks[group])
        return cuda_fail(e->host, er, ERR_INVALID, "block %d of group %u does not exist", block,
                         group);
    const uint64_t n = kv_block_bytes(&e->l->kv[group], e->l->kv_layers[group]);
    unsigned char *at = e->kv[group] + (uint64_t)block * n;
    cudaError_t ce = cudaSetDevice(e->device);
    if (ce == cudaSuccess)
        ce = in ? cudaMemcpyAsync(at, host, n, cudaMemcpyHostToDevice, e->copies)
                : cudaMemcpyAsync(host, at, n, cudaMemcpyDeviceToHost, e->copies);
    if (ce == cudaSuccess) ce = cudaStreamSynchronize(e->copies);
    return cuda_check(e->host, ce, "moving a KV block", er);
}

status cuda_kv_export(cuda_engine *e, uint32_t group, int32_t block, void *out, err *er) {
    return move(e, group, block, out, false, er);
}

status cuda_kv_import(cuda_engine *e, uint32_t group, int32_t block, const void *in, err *er) {
    return move(e, group, block, (void *)in, true, er);
}

status cuda_pin(cuda_engine *e, void *p, uint64_t bytes, err *er) {
    cudaError_t ce = cudaSetDevice(e->device);
    if (ce == cudaSuccess) ce = cudaHostRegister(p, bytes, cudaHostRegisterDefault);
    return cuda_check(e->host, ce, "pinning the buffers of KV blocks", er);
}

void cuda_unpin(cuda_engine *e, void *p) {
    if (cudaSetDevice(e->device) == cudaSuccess) cudaHostUnregister(p);
    (void)cudaGetLastError();
}
