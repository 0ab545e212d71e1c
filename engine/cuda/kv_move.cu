/* Blocks of the KV cache out and in (engine_kv_export, engine_kv_import). A block is one range of
 * bytes (kv_block.h), and no step that is under way touches it, so copies have a stream of their
 * own and wait for no step. Engine thread. */
#include "engine/cuda/cuda.h"

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
