/* Of stream.h: forgetting, and reasons for misses. Included by it alone. */
#ifndef TESTS_SIM_STREAM_FORGET_H
#define TESTS_SIM_STREAM_FORGET_H

/* Those that hold blocks publish no more, unless they begin again: by a preemption, which an
 * event says, or by a pause or a load that no event says anything of. */
static inline void stream_forget(stream *m) {
    const bool all = stream_take(m, 2);
    const uint64_t salt = stream_take(m, 3);
    sched_stats was, is;
    sched_read(m->s, &was);
    const sched_forgotten f = sched_forget(m->s, all ? NULL : &salt);
    sched_read(m->s, &is);
    CHECK(is.blocks_used == was.blocks_used && is.blocks_fenced == was.blocks_fenced);
    CHECK(was.blocks_cached - is.blocks_cached <= f.blocks);
    CHECK(!all || (is.blocks_cached == 0 && is.n_storing == 0));
    m->n_forgotten += was.blocks_cached - is.blocks_cached;
    for (uint32_t i = 0; i < m->n; i++) {
        stream_request *q = &m->r[i];
        if (!q->admitted || (!all && q->spec.salt != salt)) continue;
        q->forgotten |= !q->live || (!m->pauses && sched_kv_blocks_of(m->s, q->id) > 0);
    }
    stream_check(m);
    if (!m->tier) return;
    m->storing.bytes = 0;
    sched_tier_switch(m->s, false);
    uint32_t at = 0, n = 0;
    uint64_t hash[2], bytes;
    for (; sched_tier_forget(m->s, all ? NULL : &salt, &at, hash, &bytes); n++) {
        CHECK(stream_chunk_of(m, hash) && bytes > 0);
        stream_chunk_of(m, hash)->bytes = 0;
    }
    CHECK(n <= was.tier_chunks);
    sched_read(m->s, &is);
    CHECK(is.tier_chunks + n == was.tier_chunks && (!all || is.tier_bytes == 0));
    sched_tier_switch(m->s, true);
    stream_check(m);
}

/* The reason for some request, which has just been admitted, or runs for long. */
static inline void stream_explain(stream *m) {
    if (m->n == 0) return;
    const stream_request *q = &m->r[stream_take(m, m->n)];
    const uint32_t n = q->spec.n_prompt;
    sched_miss x;
    sched_explain(m->s, q->id, &x);
    CHECK(x.why == WHY_NONE || (q->live && q->admitted));
    CHECK(x.why != WHY_NONE || (x.n_old == 0 && x.nearest[0] == '\0'));
    CHECK((x.why == WHY_OFF) == (!m->cfg.prefix_cache && q->live && q->admitted));
    CHECK(x.why != WHY_SCORED_PROMPT || q->spec.score_prompt);
    CHECK(x.why != WHY_SALT_DIFFERS || q->spec.salt > 0);
    CHECK(x.why != WHY_WINDOW_GAP || m->cfg.n_groups > 1);
    CHECK(x.at_token <= n && (x.n_old > 0) == (x.why == WHY_TOKENS_DIFFER));
    if (x.n_old && x.at_token < n) CHECK(x.old[0] != q->text[x.at_token]);
    m->n_why[x.why]++;
}

#endif
