/* The prefix cache: which blocks in front of a sequence are there already, and publishing those
 * that it fills. Nothing here takes or frees a block. */
#include "scheduler/state.h"

static prefix_hash root_hash(uint64_t salt) {
    return (prefix_hash){{salt, salt}};
}

void cache_hash(sched *s, uint64_t salt, const int32_t *tokens, uint32_t n) {
    probe *p = &s->probe;
    const prefix_hash root = root_hash(salt);
    for (; p->n_hashed < n; p->n_hashed++) {
        const uint32_t i = p->n_hashed;
        p->hash[i] =
            prefix_extend(s->cfg.hash_key, i ? &p->hash[i - 1] : &root,
                          tokens + (size_t)i * s->cfg.block_tokens, s->cfg.block_tokens);
    }
}

/* The chain group's blocks from the first on, each confirmed by its tokens and its parent. */
static uint32_t walk_chain(sched *s, uint64_t salt, const int32_t *tokens, uint32_t most) {
    const seq_group *g = &s->group[s->chain_group];
    probe *p = &s->probe;
    uint64_t parent = prefix_root(salt);
    for (uint32_t i = 0; i < most; i++) {
        const int32_t *own = tokens + (size_t)i * s->cfg.block_tokens;
        cache_hash(s, salt, tokens, i + 1);
        int32_t b = prefix_find(&g->index, &p->hash[i], parent, own);
        if (b < 0 || !blocks_hittable(&g->kv, b)) {
            p->at_gap = b < 0; /* else a fence */
            return i;
        }
        p->block[i] = b;
        parent = g->index.serial[b];
    }
    p->at_gap = true;
    return most;
}

static int32_t find_in(const sched *s, uint32_t group, uint32_t i) {
    const seq_group *chain = &s->group[s->chain_group], *g = &s->group[group];
    if (g == chain) return s->probe.block[i];
    int32_t b =
        prefix_find(&g->index, &s->probe.hash[i], chain->index.serial[s->probe.block[i]], NULL);
    return b >= 0 && blocks_hittable(&g->kv, b) ? b : -1;
}

/* The most blocks, up to n, of which a group has all that the next row sees. */
static uint32_t cut_to_group(const sched *s, uint32_t group, uint32_t n) {
    const seq_group *g = &s->group[group];
    for (uint32_t i = n; i > 0 && i > first_seen(s, g, n * s->cfg.block_tokens); i--) {
        if (find_in(s, group, i - 1) < 0) n = i - 1; /* none that needs it can be found */
    }
    return n;
}

uint32_t cache_cut(const sched *s, uint32_t n) {
    for (bool again = true; again;) {
        const uint32_t before = n;
        for (uint32_t k = 0; k < s->n_groups; k++) {
            if (k != s->chain_group) n = cut_to_group(s, k, n);
        }
        again = n < before && s->n_groups > 2;
    }
    return n;
}

uint32_t cache_probe(sched *s, sched_id id, uint64_t salt, const int32_t *tokens, uint32_t n) {
    if (!s->cfg.prefix_cache) return 0;
    if (s->probe.id != id) {
        s->probe.id = id;
        s->probe.n_hashed = 0;
    }
    uint32_t found = walk_chain(s, salt, tokens, n / s->cfg.block_tokens);
    s->probe.n_chain = found;
    found = cache_cut(s, found);
    s->probe.at_gap &= found == s->probe.n_chain; /* else behind it more may be known */
    return found;
}

int32_t cache_probed(const sched *s, uint32_t group, uint32_t i) {
    int32_t b = find_in(s, group, i);
    CHECK(b >= 0);
    return b;
}

void cache_begin(sched *s, uint32_t slot, uint64_t salt, uint32_t n) {
    const prefix *index = &s->group[s->chain_group].index;
    seq_chain *c = &s->chain[slot];
    c->n = n;
    c->hash = n > 0 ? s->probe.hash[n - 1] : root_hash(salt);
    c->serial = n > 0 ? index->serial[s->probe.block[n - 1]] : prefix_root(salt);
    if (has_states(s) && n > 0) state_place(s, slot, n, s->probe.block[n - 1]);
    s->probe.id = 0; /* should it start again, it will have other tokens and needs */
}

/* The next block of a chain is full. Where another sequence has published the same, its node
 * stands, and the chain goes on from there. */
static int32_t publish_next(sched *s, uint32_t slot) {
    seq_chain *c = &s->chain[slot];
    seq_group *g = &s->group[s->chain_group];
    const uint32_t i = c->n++;
    const int32_t *tokens = tokens_of(s, slot) + (size_t)i * s->cfg.block_tokens;
    c->hash = prefix_extend(s->cfg.hash_key, &c->hash, tokens, s->cfg.block_tokens);
    int32_t node = prefix_find(&g->index, &c->hash, c->serial, tokens);
    if (node < 0) {
        node = table_of(s, g, slot)[i];
        prefix_insert(&g->index, node, &c->hash, c->serial, ++s->n_serials,
                      s->record[record_of(s->hot[slot].id)].spec.salt, tokens);
        blocks_cache(&g->kv, node);
    }
    c->serial = g->index.serial[node];
    if (has_states(s)) state_place(s, slot, c->n, node);
    for (uint32_t k = 0; k < s->n_groups; k++) {
        seq_group *o = &s->group[k];
        if (k == s->chain_group || (o->window && i < o->held[slot].first)) continue;
        if (prefix_find(&o->index, &c->hash, c->serial, NULL) >= 0) continue;
        int32_t block = table_of(s, o, slot)[i];
        prefix_insert(&o->index, block, &c->hash, c->serial, 0, 0, NULL);
        blocks_cache(&o->kv, block);
    }
    return node;
}

int32_t cache_publish(sched *s, uint32_t slot, uint32_t n) {
    const seq_chain *c = &s->chain[slot];
    int32_t node = -1;
    if (!s->cfg.prefix_cache) return node;
    while (c->n != CHAIN_BROKEN && (c->n + 1) * s->cfg.block_tokens <= n)
        node = publish_next(s, slot);
    return node;
}
