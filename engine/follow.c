/* The steps of another rank than the first. Owns nothing. */
#include "engine/follow.h"

static tables_store store_in(void *memory, const tables_model *m, const engine_options *o) {
    const size_t n_copies = (size_t)o->max_seqs * (m->n_groups + (m->n_states > 0));
    tables_store s;
    s.seq = memory; /* the largest alignment first */
    s.params = (sampling *)(void *)(s.seq + o->max_seqs);
    s.tokens = (int32_t *)(void *)(s.params + o->max_seqs);
    s.copies = (block_copy *)(void *)(s.tokens + (size_t)o->max_seqs * o->max_model_len);
    s.checkpoints = m->n_states ? (batch_checkpoint *)(void *)(s.copies + n_copies) : NULL;
    return s;
}

static status run_step(engine *e, group *g, uint64_t bytes, const tables_model *m,
                       const engine_options *o, const tables_store *s, err *er) {
    batch b;
    step_result out;
    if (bytes > g->at.step_bytes)
        return err_set(er, ERR_INVALID, "a step of %llu bytes: more than the group has",
                       (unsigned long long)bytes);
    status st = tables_read(&b, group_step_at(g, g->posted), bytes, m, o, s, er);
    if (st == OK) st = engine_submit(e, &b, er);
    return st == OK ? engine_collect(e, &out, er) : st;
}

status follow(engine *e, group *g, const tables_model *m, const engine_options *o, void *memory,
              const ledger *l, err *er) {
    const tables_store s = store_in(memory, m, o);
    for (uint64_t bytes; (bytes = group_await(g));) {
        const status st = run_step(e, g, bytes, m, o, &s, er);
        if (l) ledger_read(l, &group_rank_of(g, g->rank)->memory);
        if (st == OK) continue;
        group_break(g, er);
        break;
    }
    return group_is_broken(g) ? group_error(g, er) : OK;
}
