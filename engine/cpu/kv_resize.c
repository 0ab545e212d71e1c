/* The KV cache of the CPU engine grows and shrinks at its end: a pool is an array of blocks, so that
 * giving blocks back is giving back the pages of one range. Engine thread. */
#include "base/check.h"
#include "engine/cpu/cpu.h"

status cpu_kv_resize(engine *head, const uint32_t n_blocks[PLAN_MAX_GROUPS], err *er) {
    cpu_engine *e = (cpu_engine *)head;
    CHECK(!e->n_flights);
    for (uint32_t g = 0; g < e->layout.groups.n; g++) {
        const uint64_t block = cpu_block_bytes(&e->layout, g);
        if (n_blocks[g] < 1 || n_blocks[g] > e->opt.max_blocks[g])
            return err_set(er, ERR_INVALID, "%u blocks of KV cache in group %u of at most %u",
                           n_blocks[g], g, e->opt.max_blocks[g]);
        if (n_blocks[g] == e->opt.n_blocks[g]) continue;
        status s = ledger_resize(e->ledger, e->kv[g], block * n_blocks[g], er);
        if (s != OK) return s;
        e->opt.n_blocks[g] = n_blocks[g];
    }
    return OK;
}
