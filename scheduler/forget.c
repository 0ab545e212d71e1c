/* Forgetting: cached blocks are blocks like any other again, and nothing of their texts is known. What
 * sequences hold stays theirs; only, none can be found there. */
#include "scheduler/state.h"

static void forget_block(sched *s, uint32_t k, uint32_t block, sched_forgotten *out) {
    seq_group *g = &s->group[k];
    forget_cached(s, g, (int32_t)block);
    blocks_uncache(&g->kv, (int32_t)block);
    if (g->kv.ref[block] > 0) return;
    out->blocks++;
    out->bytes += s->cfg.group[k].block_bytes;
}

static void forget_all(sched *s, sched_forgotten *out) {
    for (uint32_t k = 0; k < s->n_groups; k++)
        for (uint32_t b = 0; b < s->group[k].kv.n; b++)
            if (s->group[k].kv.flags[b] & BLOCK_CACHED) forget_block(s, k, b, out);
}

/* Blocks of other groups are found by their node. Those whose node has gone before are found by none: no
 * other node will have its serial. */
static void forget_salt(sched *s, uint64_t salt, sched_forgotten *out) {
    const seq_group *chain = &s->group[s->chain_group];
    for (uint32_t b = 0; b < chain->kv.n; b++) {
        if (!(chain->kv.flags[b] & BLOCK_CACHED) || chain->index.salt[b] != salt) continue;
        for (uint32_t k = 0; k < s->n_groups; k++) {
            if (k == s->chain_group) continue;
            const int32_t other = prefix_find(&s->group[k].index, &chain->index.hash[b],
                                              chain->index.serial[b], NULL);
            if (other >= 0) forget_block(s, k, (uint32_t)other, out);
        }
        forget_block(s, s->chain_group, b, out);
    }
}

/* Running sequences publish no more: what they would add hangs on what is forgotten. */
static void break_chains(sched *s, const uint64_t *salt) {
    for (uint32_t slot = 0; slot < s->cfg.max_seqs; slot++) {
        const seq_hot *h = &s->hot[slot];
        if (h->state == SEQ_FREE || h->n_blocks == 0) continue;
        if (!salt || s->record[record_of(h->id)].spec.salt == *salt)
            s->chain[slot].n = CHAIN_BROKEN;
    }
}

/* Chunks that wait to be stored. */
static void drop_stores(sched *s, const uint64_t *salt) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_store; i++) {
        const store_item *x = &s->store[(s->store_first + i) % STORE_QUEUE];
        if (salt && x->salt != *salt) s->store[(s->store_first + n++) % STORE_QUEUE] = *x;
    }
    s->n_store = n;
}

sched_forgotten sched_forget(sched *s, const uint64_t *salt) {
    sched_forgotten out = {0};
    const uint64_t own = salt ? *salt & UINT64_MAX >> 1 : 0;
    if (!s->cfg.prefix_cache) return out;
    if (salt)
        forget_salt(s, own, &out);
    else
        forget_all(s, &out);
    break_chains(s, salt ? &own : NULL);
    drop_stores(s, salt ? &own : NULL);
    recent_forget(&s->recent, salt ? &own : NULL);
    return out;
}

bool sched_tier_forget(sched *s, const uint64_t *salt, uint32_t *at, uint64_t hash[2],
                       uint64_t *bytes) {
    tier *t = &s->tier;
    for (; *at < t->n_chunks; ++*at) {
        const tier_chunk *c = &t->chunk[*at];
        if (c->bytes == 0 || (salt && c->salt != (*salt & UINT64_MAX >> 1))) continue;
        hash[0] = c->hash.h[0];
        hash[1] = c->hash.h[1];
        *bytes = c->bytes;
        tier_lose(t, *at);
        return true;
    }
    return false;
}
