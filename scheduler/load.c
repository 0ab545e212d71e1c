/* Loads under way: which chunk is next, where it goes, what becomes of the sequence when it is there
 * or cannot be had. */
#include <string.h>

#include "scheduler/state.h"

/* Blocks of chunk c before this one need not be loaded. */
static uint32_t first_wanted(const sched *s, uint32_t slot, uint32_t c, uint32_t k) {
    const uint32_t bpc = s->cfg.chunk_blocks;
    uint32_t from = s->load[slot].n_found;
    if (s->group[k].window) from = max_u32(from, s->group[k].held[slot].first);
    return from <= c * bpc ? 0 : min_u32(from - c * bpc, bpc);
}

bool sched_load_next(sched *s, sched_chunk *out) {
    if (s->n_loading == 0) return false;
    uint32_t slot = s->running.head;
    while (slot != NO_SLOT &&
           (s->hot[slot].state != SEQ_LOADING || s->load[slot].named == s->load[slot].target))
        slot = s->hot[slot].run.next;
    if (slot == NO_SLOT) return false;
    seq_load *l = &s->load[slot];
    const uint32_t bpc = s->cfg.chunk_blocks, c = l->named++;
    const int32_t *tokens = tokens_of(s, slot) + (size_t)c * chunk_tokens(s);
    *out = (sched_chunk){.id = s->hot[slot].id,
                         .serial = l->serial,
                         .salt = s->record[record_of(s->hot[slot].id)].spec.salt,
                         .slot = slot,
                         .chunk = c,
                         .tokens = tokens};
    memcpy(out->parent, l->hash.h, sizeof out->parent);
    for (uint32_t i = 0; i < bpc; i++)
        l->hash = prefix_extend(s->cfg.hash_key, &l->hash,
                                tokens + (size_t)i * s->cfg.block_tokens, s->cfg.block_tokens);
    memcpy(out->hash, l->hash.h, sizeof out->hash);
    for (uint32_t k = 0; k < s->n_groups; k++) {
        out->first[k] = first_wanted(s, slot, c, k);
        out->groups |= (uint32_t)(out->first[k] < bpc) << k;
    }
    return true;
}

static bool is_wanted(const sched *s, const sched_chunk *c) {
    return s->hot[c->slot].id == c->id && s->hot[c->slot].state == SEQ_LOADING &&
           s->load[c->slot].serial == c->serial;
}

bool sched_load_blocks(const sched *s, sched_chunk *c) {
    if (!is_wanted(s, c)) return false;
    CHECK(c->chunk == s->load[c->slot].done);
    for (uint32_t k = 0; k < s->n_groups; k++)
        c->block[k] =
            table_of(s, &s->group[k], c->slot) + (size_t)c->chunk * s->cfg.chunk_blocks;
    return true;
}

void sched_load_done(sched *s, const sched_chunk *c, bool filled) {
    const prefix_hash hash = {{c->hash[0], c->hash[1]}};
    const uint32_t i = tier_find(&s->tier, &hash);
    const uint64_t bytes = filled && i != NO_CHUNK ? s->tier.chunk[i].bytes : 0;
    s->count.kv_tier_loads += filled;
    s->count.kv_tier_loaded_bytes += bytes;
    s->count.kv_tier_load_errors += !filled;
    if (!filled && i != NO_CHUNK) tier_lose(&s->tier, i);
    if (!is_wanted(s, c)) return;
    if (!filled) {
        seq_not_loaded(s, c->slot);
        return;
    }
    seq_load *l = &s->load[c->slot];
    seq_hot *h = &s->hot[c->slot];
    CHECK(l->done == c->chunk);
    s->record[record_of(h->id)].cost.loaded_bytes += bytes;
    l->done++;
    h->next_pos = l->done * chunk_tokens(s);
    cache_publish(s, c->slot, h->next_pos);
    if (l->done < l->target) return;
    seq_loaded(s, c->slot);
}

void load_audit(const sched *s) {
    uint32_t n = 0;
    if (s->cfg.tier_chunks == 0) {
        CHECK(s->n_loading == 0 && s->n_store == 0);
        return;
    }
    tier_audit(&s->tier);
    CHECK(s->n_store <= STORE_QUEUE);
    for (uint32_t slot = 0; slot < s->cfg.max_seqs; slot++) {
        const seq_hot *h = &s->hot[slot];
        const seq_load *l = &s->load[slot];
        if (h->state != SEQ_LOADING) {
            CHECK(l->serial == 0);
            continue;
        }
        n++;
        CHECK(l->serial > 0 && l->done <= l->named && l->named <= l->target);
        CHECK(l->done < l->target && l->target * chunk_tokens(s) < h->len);
        CHECK(h->next_pos ==
              max_u32(l->n_found * s->cfg.block_tokens, l->done * chunk_tokens(s)));
        CHECK(h->inflight == 0 && h->pending == 0 && !h->prefilled);
    }
    CHECK(n == s->n_loading);
}
