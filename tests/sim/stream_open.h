/* Of stream.h: the scheduler that a stream is given, chosen by its first bytes. Included by it alone. */
#ifndef TESTS_SIM_STREAM_OPEN_H
#define TESTS_SIM_STREAM_OPEN_H

/* As many places as its bytes have, each as large as a chunk can be. */
static inline void stream_open_host(stream *m) {
    m->cfg.tier_chunks = 1 + m->cfg.tier_chunks % 4;
    m->cfg.tier_bytes = m->cfg.tier_chunks * STREAM_PLACE;
    m->cfg.store_tokens = m->cfg.chunk_blocks * m->cfg.block_tokens;
}

/* Chunks that fit blocks or do not, and few slots besides those that sequences need. */
static inline void stream_open_states(stream *m) {
    m->cfg.state_chunk = 1 + stream_take(m, 8);
    m->cfg.state_slots = m->cfg.max_seqs + stream_take(m, 8);
}

static inline void stream_open(stream *m) {
    static const int32_t end_tokens[] = {0};
    m->cfg = (sched_config){.n_groups = 1,
                            .block_tokens = 1 + stream_take(m, 4),
                            .max_seqs = 1 + stream_take(m, STREAM_SEQS),
                            .max_waiting = 1 + stream_take(m, 12),
                            .max_waiting_tokens = 1 + stream_take(m, 200),
                            .max_model_len = 8 + stream_take(m, STREAM_LEN - 7),
                            .watermark_permille = stream_take(m, 4) * 50,
                            .n_end_tokens = 1,
                            .end_tokens = end_tokens};
    m->cfg.max_rows = m->cfg.max_seqs + stream_take(m, 16);
    m->cfg.max_logit_rows = m->cfg.max_seqs + stream_take(m, 8);
    m->cfg.max_prefill_share = stream_take(m, 8);
    m->depth = 1 + stream_take(m, 2);
    m->cfg.depth = m->depth;
    m->cfg.apart = m->depth == 2 && m->cfg.max_prefill_share == 3;
    m->cfg.prefix_cache = stream_take(m, 4) > 0;
    m->cfg.n_groups = 1 + stream_take(m, 3);
    for (uint32_t k = 0; k < m->cfg.n_groups; k++) {
        m->cfg.group[k].n_blocks = 1 + stream_take(m, 24);
        bool window = stream_take(m, 8) < (k ? 7 : 2);
        if (m->crowded) m->cfg.group[k].n_blocks = 1 + m->cfg.group[k].n_blocks % 6;
        m->cfg.group[k].window = window || m->crowded ? 1 + stream_take(m, 12) : 0;
        if (m->rows_once && m->cfg.group[k].window && stream_take(m, 3)) {
            m->cfg.group[k].rows_once = true;
            m->cfg.group[k].n_blocks += m->cfg.max_rows * (1 + stream_take(m, 3)) / 2;
        }
        m->n_blocks[k] = m->cfg.group[k].n_blocks;
        if (m->resizes) m->cfg.group[k].max_blocks = m->n_blocks[k] + stream_take(m, 16);
    }
    if (m->forgets) m->cfg.recent_tokens = stream_take(m, 4) ? stream_take(m, 400) : 0;
    m->cfg.batching = m->batching;
    m->cfg.batch_window_us = 12;
    if (m->resizes) m->cfg.max_moves = 1 + stream_take(m, 8);
    m->may_pause = stream_take(m, 4) == 0 || m->crowded;
    if (m->tier && m->cfg.prefix_cache) {
        m->cfg.group[0].window = 0; /* and few blocks, so that memory forgets */
        m->cfg.group[0].rows_once = false;
        m->n_blocks[0] = m->cfg.group[0].n_blocks = 2 + m->cfg.group[0].n_blocks % 12;
        if (m->resizes) m->cfg.group[0].max_blocks = m->n_blocks[0] + 8;
        m->cfg.tier_chunks = 1 + stream_take(m, 1 + stream_take(m, STREAM_CHUNKS - 1));
        m->cfg.tier_bytes = 200 + 40 * stream_take(m, 200);
        m->cfg.chunk_blocks = 1 + stream_take(m, 8) / 6 + stream_take(m, 8) / 7;
        m->cfg.store_tokens = stream_take(m, 4) ? 0 : 8;
        if (m->host) stream_open_host(m);
    }
    m->tier = m->cfg.tier_chunks > 0;
    if (m->states) stream_open_states(m);
    m->policy = (sched_policy){.self = m,
                               .waiting_key = stream_waiting_key,
                               .ticket_key = stream_ticket_key,
                               .prefill_share = stream_share};
    if (m->priority) m->cfg.policy = &sched_aging;
    if (m->shortest) m->cfg.policy = &sched_shortest;
    if (m->aging || m->fair) m->cfg.policy = m->aging ? &m->policy : &sched_fair;
    if (m->timed) m->cfg.itl_slo_us = 100 + 100 * stream_take(m, 32);
    if (m->timed)
        m->cfg.max_rows += 4 * stream_take(m, 8); /* more than prompts may have at least */
    if (m->timed && m->ttft_first) m->cfg.ttft_slo_us = 2 + 2 * stream_take(m, 128);
    err e;
    size_t bytes = sched_bytes(&m->cfg);
    CHECK(bytes > 0);
    m->mem = aligned_alloc(64, bytes);
    CHECK(m->mem && fake_open(&m->engine, &m->cfg, STREAM_VOCAB, &e) == OK);
    memset(m->mem, 0xa5, bytes);
    m->s = sched_init(m->mem, &m->cfg);
    CHECK(m->cfg.chunk_blocks * fake_block_bytes(m->engine) <= STREAM_CHUNK_BYTES);
}

#endif
