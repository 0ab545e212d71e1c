/* Blocks of the KV cache out and in. A block is one range of bytes (kv_block.h). Engine thread. */
#include <string.h>

#include "base/check.h"
#include "engine/cpu/cpu.h"

static unsigned char *block_at(const cpu_engine *e, uint32_t group, int32_t block,
                               uint64_t *n) {
    CHECK(group < e->layout.groups.n && block >= 0);
    CHECK((uint32_t)block < e->opt.n_blocks[group]);
    *n = cpu_block_bytes(&e->layout, group);
    return e->kv[group] + (uint32_t)block * *n;
}

status cpu_kv_export(engine *head, uint32_t group, int32_t block, void *out, err *er) {
    uint64_t n;
    const unsigned char *at = block_at((cpu_engine *)head, group, block, &n);
    (void)er;
    memcpy(out, at, n);
    return OK;
}

status cpu_kv_import(engine *head, uint32_t group, int32_t block, const void *in, err *er) {
    uint64_t n;
    unsigned char *at = block_at((cpu_engine *)head, group, block, &n);
    (void)er;
    memcpy(at, in, n);
    return OK;
}
