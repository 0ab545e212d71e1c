/* Of stream.h: the tier below memory, whose chunks come late, or never. Included by it alone. */
#ifndef TESTS_SIM_STREAM_TIER_H
#define TESTS_SIM_STREAM_TIER_H

static inline stream_chunk *stream_chunk_of(stream *m, const uint64_t hash[2]) {
    for (uint32_t i = 0; i < STREAM_CHUNKS; i++)
        if (m->chunk[i].bytes && memcmp(m->chunk[i].hash, hash, sizeof m->chunk[i].hash) == 0)
            return &m->chunk[i];
    return NULL;
}

/* A step in flight may move blocks: its copies would come after ours. */
static inline bool moves_in_flight(const stream *m) {
    return m->resizes && fake_in_flight(m->engine) > 0;
}

/* The tier makes room, and copies what it is to store. */
static inline void stream_store(stream *m) {
    stream_chunk *c = &m->storing;
    uint64_t hash[2];
    if (c->bytes || moves_in_flight(m) || !sched_store_next(m->s, &m->stored)) return;
    *c = (stream_chunk){.groups = m->stored.groups, .bytes = 100 + stream_take(m, 50)};
    if (m->host) c->bytes = STREAM_PLACE;
    memcpy(c->hash, m->stored.hash, sizeof c->hash);
    memcpy(c->tokens, m->stored.tokens,
           m->cfg.chunk_blocks * m->cfg.block_tokens * sizeof *c->tokens);
    for (uint32_t k = 0; k < m->cfg.n_groups; k++)
        for (uint32_t i = 0; (c->groups >> k & 1) && i < m->cfg.chunk_blocks; i++)
            fake_export(m->engine, k, m->stored.block[k][i],
                        c->cells[k] + i * fake_block_bytes(m->engine));
    while (sched_tier_evict(m->s, c->bytes, hash)) {
        CHECK(stream_chunk_of(m, hash));
        stream_chunk_of(m, hash)->bytes = 0;
        m->n_evictions++;
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < STREAM_CHUNKS; i++) n += m->chunk[i].bytes > 0;
    if (!sched_tier_fits(m->s, c->bytes)) { /* what it hangs on fills the tier */
        CHECK(!sched_store_done(m->s, &m->stored, c->bytes));
        if (stream_chunk_of(m, c->hash)) stream_chunk_of(m, c->hash)->bytes = 0;
        c->bytes = 0;
        return;
    }
    CHECK(n < m->cfg.tier_chunks);
    m->n_stores++;
}

static inline void stream_stored(stream *m, bool fails) {
    if (!m->storing.bytes) return;
    stream_chunk *c = stream_chunk_of(m, m->storing.hash); /* with fewer groups */
    for (uint32_t i = 0; !c && i < STREAM_CHUNKS; i++)
        if (!m->chunk[i].bytes) c = &m->chunk[i];
    CHECK(c);
    sched_stats was, is;
    sched_read(m->s, &was);
    sched_store_done(m->s, &m->stored, fails ? 0 : m->storing.bytes);
    sched_read(m->s, &is);
    const bool added = is.count.kv_tier_stores > was.count.kv_tier_stores;
    if (added)
        *c = m->storing;
    else if (!fails)
        c->bytes = 0; /* the file is removed, and with it the one of fewer groups */
    m->storing.bytes = 0;
    CHECK(is.tier_bytes <= m->cfg.tier_bytes && is.tier_chunks <= m->cfg.tier_chunks);
    stream_check(m);
}

static inline void stream_load(stream *m) {
    if (m->n_loading == STREAM_LOADS || !sched_load_next(m->s, &m->loading[m->n_loading]))
        return;
    const sched_chunk *c = &m->loading[m->n_loading++];
    const stream_chunk *has = stream_chunk_of(m, c->hash);
    if (has)
        CHECK(memcmp(has->tokens, c->tokens,
                     m->cfg.chunk_blocks * m->cfg.block_tokens * sizeof *c->tokens) == 0);
    m->n_loads++;
    stream_check(m);
}

/* The oldest load ends. */
static inline void stream_load_done(stream *m, bool fails) {
    if (m->n_loading == 0 || moves_in_flight(m)) return;
    sched_chunk c = m->loading[0];
    const stream_chunk *has = stream_chunk_of(m, c.hash);
    memmove(&m->loading[0], &m->loading[1], --m->n_loading * sizeof c);
    const bool wanted = sched_load_blocks(m->s, &c);
    if (m->host) CHECK(!wanted || (has && (has->groups & c.groups) == c.groups));
    fails |= !has || (has->groups & c.groups) != c.groups;
    for (uint32_t k = 0; wanted && k < m->cfg.n_groups; k++)
        for (uint32_t i = c.first[k]; i < m->cfg.chunk_blocks; i++)
            fake_import(m->engine, k, c.block[k][i],
                        fails ? NULL : has->cells[k] + i * fake_block_bytes(m->engine));
    m->n_late_loads += !wanted;
    m->n_failed_loads += fails;
    if (fails && has) stream_chunk_of(m, c.hash)->bytes = 0;
    sched_load_done(m->s, &c, !fails);
    stream_check(m);
}

/* Host memory: copies are made before anything else happens, and are used only while that is
 * quicker than computing. */
static inline void stream_use_host(stream *m) {
    if (moves_in_flight(m)) return;
    for (stream_load(m); m->n_loading > 0; stream_load(m)) stream_load_done(m, false);
    for (uint32_t i = 0; i < 4 && stream_take(m, 4) > 0; i++)
        stream_store(m), stream_stored(m, false);
    if (stream_take(m, 32) == 0) sched_tier_switch(m->s, stream_take(m, 2));
}

static inline void stream_use_tier(stream *m) {
    if (m->host) {
        stream_use_host(m);
        return;
    }
    switch (stream_take(m, 8)) {
    case 0: stream_store(m); break;
    case 1: stream_stored(m, stream_take(m, 8) == 0); break;
    case 2:
    case 3: stream_load(m); break;
    case 4:
    case 5: stream_load_done(m, stream_take(m, 8) == 0); break;
    case 6:
        if (stream_take(m, 16) == 0) sched_tier_switch(m->s, stream_take(m, 2));
        break;
    default:
        sched_tier_switch(m->s, true);
        for (uint32_t i = 0; i < 8; i++) stream_store(m), stream_stored(m, false);
    }
}

#endif
