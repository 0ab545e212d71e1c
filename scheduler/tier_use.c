/* The tier below memory, as sequences use it: what a start may load, and what is offered to be stored
 * when a sequence ends or is preempted. load.c has the loads under way.
 *
 * A hit in the tier is what a hit in memory is: every group has what the next row sees. Groups
 * without a window need all blocks; a group with one those that a row at the end of the hit sees,
 * which a chunk may lack if they were out of sight when it was stored.
 *
 * Stored is when a sequence ends or is preempted, not when its blocks are taken for something else: by then a step
 * waits for them, and what is only in memory does not survive a restart. Until a chunk's turn comes,
 * its blocks are cached as any others; what is taken meanwhile is not stored. So storing holds no
 * block, and admission and preemption do not know of it. */
#include <string.h>

#include "scheduler/state.h"

static prefix_hash root_of(uint64_t salt) {
    return (prefix_hash){{salt, salt}};
}

/* ---- what a start may load ---- */

/* Groups that the tier has of chunk c of the probe. */
static uint32_t groups_of(const sched *s, uint32_t c) {
    const uint32_t i = tier_find(&s->tier, &s->probe.hash[(c + 1) * s->cfg.chunk_blocks - 1]);
    return i == NO_CHUNK ? 0 : s->tier.chunk[i].groups;
}

/* Whether chunks [from, n) have, of each group with a window, what a row behind them sees. */
static bool windows_there(const sched *s, uint32_t from, uint32_t n) {
    for (uint32_t k = 0; s->windows && k < s->n_groups; k++) {
        const seq_group *g = &s->group[k];
        if (!g->window) continue;
        const uint32_t seen = first_seen(s, g, n * chunk_tokens(s)) / s->cfg.chunk_blocks;
        for (uint32_t c = max_u32(seen, from); c < n; c++)
            if (!(groups_of(s, c) >> k & 1)) return false;
    }
    return true;
}

static uint32_t whole_groups(const sched *s) {
    uint32_t groups = 0;
    for (uint32_t k = 0; k < s->n_groups; k++) groups |= (uint32_t)!s->group[k].window << k;
    return groups;
}

uint32_t load_probe(sched *s, uint64_t salt, const int32_t *tokens, uint32_t n_found,
                    uint32_t most) {
    const uint32_t bpc = s->cfg.chunk_blocks, from = n_found / bpc, need = whole_groups(s);
    uint32_t best = 0;
    for (uint32_t c = from; (c + 1) * bpc <= most; c++) {
        cache_hash(s, salt, tokens, (c + 1) * bpc);
        const uint32_t groups = groups_of(s, c);
        if (groups == 0 || (groups & need) != need) break;
        if (windows_there(s, from, c + 1)) best = c + 1;
    }
    return best * bpc > n_found ? best * bpc : 0;
}

void load_use(sched *s, uint32_t n_found) {
    const uint32_t bpc = s->cfg.chunk_blocks;
    if (n_found < bpc) return;
    const uint32_t i = tier_find(&s->tier, &s->probe.hash[n_found / bpc * bpc - 1]);
    if (i != NO_CHUNK) tier_use(&s->tier, i);
}

void load_begin(sched *s, uint32_t slot, const start *st) {
    const uint32_t bpc = s->cfg.chunk_blocks, from = st->n_found / bpc;
    const seq_record *r = &s->record[record_of(s->hot[slot].id)];
    s->load[slot] =
        (seq_load){.serial = ++s->n_loads,
                   .hash = from > 0 ? s->probe.hash[from * bpc - 1] : root_of(r->spec.salt),
                   .done = from,
                   .named = from,
                   .target = st->n_load / bpc,
                   .n_found = st->n_found,
                   .since_us = s->now_us};
    s->n_loading++;
    /* Now, so that none of them goes for others while they are read. */
    tier_use(&s->tier, tier_find(&s->tier, &s->probe.hash[st->n_load - 1]));
}

void load_stop(sched *s, uint32_t slot) {
    seq_record *r = &s->record[record_of(s->hot[slot].id)];
    r->cost.load_us += s->now_us - s->load[slot].since_us;
    s->load[slot].serial = 0;
    s->n_loading--;
}

/* ---- stores ---- */

/* The node of each block of a chunk, and its hash. False: some are not in memory. */
static bool find_nodes(const sched *s, const int32_t *tokens, prefix_hash *at, uint64_t *parent,
                       store_item *out) {
    const seq_group *g = &s->group[s->chain_group];
    bool all = true;
    for (uint32_t i = 0; i < s->cfg.chunk_blocks; i++, tokens += s->cfg.block_tokens) {
        *at = prefix_extend(s->cfg.hash_key, at, tokens, s->cfg.block_tokens);
        const int32_t b = all ? prefix_find(&g->index, at, *parent, tokens) : -1;
        all = b >= 0;
        if (!all) continue;
        out->block[i] = b;
        out->serial[i] = *parent = g->index.serial[b];
    }
    return all;
}

/* The blocks of a chunk in every group, as far as they are there, into store_block; bit g: group
 * g's. The chain group's must be there. */
static uint32_t gather(const sched *s, const store_item *x) {
    const seq_group *chain = &s->group[s->chain_group];
    const uint32_t bpc = s->cfg.chunk_blocks;
    uint32_t groups = 0;
    for (uint32_t i = 0; i < bpc; i++)
        if (!(chain->kv.flags[x->block[i]] & BLOCK_CACHED) ||
            chain->index.serial[x->block[i]] != x->serial[i])
            return 0;
    for (uint32_t k = 0; k < s->n_groups; k++) {
        int32_t *out = s->store_block + (size_t)k * SCHED_MAX_CHUNK_BLOCKS;
        uint32_t i = 0;
        for (; i < bpc; i++) {
            out[i] = k == s->chain_group
                         ? x->block[i]
                         : prefix_find(&s->group[k].index, &chain->index.hash[x->block[i]],
                                       x->serial[i], NULL);
            if (out[i] < 0) break;
        }
        groups |= (uint32_t)(i == bpc) << k;
    }
    return groups;
}

/* Whether storing these groups would add some to what the tier has. */
static bool adds(const sched *s, const prefix_hash *hash, uint32_t groups) {
    const uint32_t i = tier_find(&s->tier, hash), need = whole_groups(s);
    if ((groups & need) != need) return false;
    return i == NO_CHUNK || (groups & ~s->tier.chunk[i].groups) != 0;
}

void store_offer(sched *s, uint32_t slot) {
    const seq_record *r = &s->record[record_of(s->hot[slot].id)];
    const seq_chain *chain = &s->chain[slot];
    if (!has_tier(s) || r->spec.no_tier || chain->n == CHAIN_BROKEN) return;
    const uint32_t n = chain->n / s->cfg.chunk_blocks, before = s->n_store;
    uint64_t parent = prefix_root(r->spec.salt);
    prefix_hash at = root_of(r->spec.salt);
    for (uint32_t c = 0; c < n && s->n_store < STORE_QUEUE; c++) {
        store_item *x = &s->store[(s->store_first + s->n_store) % STORE_QUEUE];
        *x = (store_item){.parent = at, .salt = r->spec.salt, .chunk = c};
        if (!find_nodes(s, tokens_of(s, slot) + (size_t)c * chunk_tokens(s), &at, &parent, x))
            break;
        x->hash = at;
        s->n_store += adds(s, &at, gather(s, x));
    }
    if ((s->n_store - before) * chunk_tokens(s) < s->cfg.store_tokens) s->n_store = before;
}

bool sched_store_next(sched *s, sched_chunk *out) {
    const prefix_hash *p;
    while (has_tier(s) && s->n_store > 0) {
        const store_item *x = &s->store[s->store_first];
        const uint32_t groups = gather(s, x);
        s->store_first = (s->store_first + 1) % STORE_QUEUE;
        s->n_store--;
        p = x->chunk > 0 ? &x->parent : NULL;
        if (groups == 0 || (p && tier_find(&s->tier, p) == NO_CHUNK)) {
            s->count.kv_tier_dropped++;
            continue;
        }
        if (!adds(s, &x->hash, groups)) continue; /* another sequence was first */
        s->store_on = p ? tier_find(&s->tier, p) : NO_CHUNK;
        *out = (sched_chunk){.hash = {x->hash.h[0], x->hash.h[1]},
                             .parent = {x->parent.h[0], x->parent.h[1]},
                             .salt = x->salt,
                             .chunk = x->chunk,
                             .groups = groups,
                             .tokens = s->store_tokens};
        const prefix *index = &s->group[s->chain_group].index;
        const uint32_t bs = s->cfg.block_tokens;
        for (uint32_t i = 0; i < s->cfg.chunk_blocks; i++)
            memcpy(s->store_tokens + (size_t)i * bs, index->tokens + (size_t)x->block[i] * bs,
                   bs * sizeof *s->store_tokens);
        for (uint32_t k = 0; k < s->n_groups; k++)
            out->block[k] = s->store_block + (size_t)k * SCHED_MAX_CHUNK_BLOCKS;
        return true;
    }
    return false;
}

bool sched_tier_fits(const sched *s, uint64_t bytes) {
    return s->tier.bytes + bytes <= s->cfg.tier_bytes && s->tier.free != NO_CHUNK;
}

/* What it hangs on may have gone meanwhile: it could not be read. */
bool sched_store_done(sched *s, const sched_chunk *c, uint64_t bytes) {
    const prefix_hash h = {{c->hash[0], c->hash[1]}};
    const bool added =
        bytes > 0 && sched_tier_fits(s, bytes) &&
        sched_tier_add(s, c->hash, c->chunk > 0 ? c->parent : NULL, c->salt, c->groups, bytes);
    const uint32_t other = bytes > 0 && !added ? tier_find(&s->tier, &h) : NO_CHUNK;
    if (other != NO_CHUNK) tier_lose(&s->tier, other); /* of fewer groups; its file is gone */
    s->store_on = NO_CHUNK;
    s->count.kv_tier_stores += added;
    s->count.kv_tier_store_errors += bytes == 0;
    s->count.kv_tier_dropped += bytes > 0 && !added;
    return added;
}

/* ---- the tier itself ---- */

bool sched_tier_add(sched *s, const uint64_t hash[2], const uint64_t parent[2], uint64_t salt,
                    uint32_t groups, uint64_t bytes) {
    const prefix_hash h = {{hash[0], hash[1]}};
    const prefix_hash p = parent ? (prefix_hash){{parent[0], parent[1]}} : h;
    return tier_add(&s->tier, &h, parent ? &p : NULL, salt, groups, bytes);
}

void sched_tier_switch(sched *s, bool on) {
    s->tier_off = !on;
    if (!on) s->n_store = 0;
}

bool sched_tier_evict(sched *s, uint64_t bytes, uint64_t hash[2]) {
    tier *t = &s->tier;
    const uint32_t i = sched_tier_fits(s, bytes) ? NO_CHUNK : tier_coldest(t, s->store_on);
    if (i == NO_CHUNK) return false;
    memcpy(hash, t->chunk[i].hash.h, sizeof t->chunk[i].hash.h);
    tier_lose(t, i);
    s->count.kv_tier_evictions++;
    return true;
}
