/* From a batch to the tables of a step: what each row reads, and how attention is cut into
 * tasks. Checks everything that would be used as an index. Engine thread. */
#include "engine/cpu/cpu.h"

#include "base/check.h"

static status bad_batch(err *e, uint32_t seq, const char *what) {
    err_set(e, ERR_INVALID, "entry %u of the batch: %s", seq, what);
    return err_field(e, "batch");
}

static status check_blocks(const cpu_engine *e, const batch_seq *s, uint32_t i, err *er) {
    uint32_t end = s->first_pos + s->n_rows;
    for (uint32_t g = 0; g < e->program->n_groups; g++) {
        if (s->n_blocks[g] < ceil_div(end, e->opt.block_tokens))
            return bad_batch(er, i, "too few blocks for its positions");
        /* What no row sees may be gone. */
        const uint32_t w = e->program->group[g].window;
        const uint32_t seen = w && s->first_pos >= w ? s->first_pos + 1 - w : 0;
        for (uint32_t b = seen / e->opt.block_tokens; b < ceil_div(end, e->opt.block_tokens);
             b++)
            if (s->blocks[g][b] < 0 || (uint32_t)s->blocks[g][b] >= e->opt.n_blocks[g])
                return bad_batch(er, i, "a block that does not exist");
    }
    return OK;
}

static status check_seq(const cpu_engine *e, const batch *b, uint32_t i, uint32_t row,
                        err *er) {
    const batch_seq *s = &b->seq[i];
    if (s->n_rows == 0 || s->first_row != row || s->n_rows > b->n_rows - row)
        return bad_batch(er, i, "rows out of order");
    if (s->n_rows > e->opt.max_model_len || s->first_pos > e->opt.max_model_len - s->n_rows)
        return bad_batch(er, i, "positions past max_model_len");
    if (s->n_logit_rows > s->n_rows || (s->sample && (!s->n_logit_rows || !s->params)))
        return bad_batch(er, i, "logits that its rows do not give");
    if (s->n_score > SAMPLING_MAX_LOGPROBS)
        return bad_batch(er, i, "too many best tokens asked for");
    if (s->input_from >= 0 && (s->n_rows != 1 || (uint32_t)s->input_from >= e->n_previous))
        return bad_batch(er, i, "an input that the previous step did not produce");
    return check_blocks(e, s, i, er);
}

static status fill_rows(cpu_engine *e, const batch *b, uint32_t i, uint32_t *gathered,
                        err *er) {
    const batch_seq *s = &b->seq[i];
    step_row *rows = e->step.rows;
    for (uint32_t r = 0; r < s->n_rows; r++) {
        uint32_t pos = s->first_pos + r;
        int32_t token = s->input_from >= 0 ? e->previous[s->input_from] : s->tokens[pos];
        if (token < 0 || (uint32_t)token >= e->program->config.n_vocab)
            return bad_batch(er, i, "a token outside the vocabulary");
        step_row *row = &rows[s->first_row + r];
        row->seq = i;
        row->pos = pos;
        row->token = token;
    }
    for (uint32_t r = s->n_rows - s->n_logit_rows; r < s->n_rows; r++)
        rows[(*gathered)++].gathered = s->first_row + r;
    return OK;
}

/* Attention of one decode row: over its splits while there are slots for them. */
static void cut_decode(cpu_engine *e, const batch *b, uint32_t i, uint32_t *slot,
                       uint32_t *split_seqs) {
    const batch_seq *s = &b->seq[i];
    const uint32_t len = s->first_pos + 1, n = (uint32_t)ceil_div(len, ATTN_SPLIT);
    attn_task t = {.seq = i, .first_row = s->first_row, .n_rows = 1, .to = len, .slot = -1};
    /* Whole sequences fill the threads evenly once there are several for each of them. */
    uint32_t units = b->n_seqs * e->program->config.n_kv_heads;
    bool split = n > 1 && e->layout.n_slots - *slot >= n && units < 16 * e->opt.n_threads;
    if (!split) {
        e->step.tasks[e->step.n_tasks++] = t;
        return;
    }
    t.n_splits = n;
    t.done = (*split_seqs)++;
    for (uint32_t k = 0; k < n; k++) {
        t.from = k * ATTN_SPLIT;
        t.to = len - t.from < ATTN_SPLIT ? len : t.from + ATTN_SPLIT;
        t.slot = (int32_t)(*slot)++;
        e->step.tasks[e->step.n_tasks++] = t;
    }
}

/* Prefill rows in groups that share their loads; the last first, since they see the most. */
static void cut_prefill(cpu_engine *e, const batch_seq *s, uint32_t i) {
    const model_config *c = &e->program->config;
    const uint32_t per = ATTN_MAX_QUERIES / (c->n_heads / c->n_kv_heads);
    for (uint32_t k = (uint32_t)ceil_div(s->n_rows, per); k-- > 0;) {
        uint32_t n = s->n_rows - k * per < per ? s->n_rows - k * per : per;
        e->step.tasks[e->step.n_tasks++] = (attn_task){.seq = i,
                                                       .first_row = s->first_row + k * per,
                                                       .n_rows = n,
                                                       .to = s->first_pos + k * per + n,
                                                       .slot = -1};
    }
}

static void cut_attention(cpu_engine *e, const batch *b) {
    uint32_t slot = 0, split_seqs = 0;
    e->step.n_tasks = 0;
    e->step.prefill = false;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        if (b->seq[i].n_rows == 1) continue;
        e->step.prefill = true;
        cut_prefill(e, &b->seq[i], i);
    }
    for (uint32_t i = 0; i < b->n_seqs; i++)
        if (b->seq[i].n_rows == 1) cut_decode(e, b, i, &slot, &split_seqs);
    CHECK(e->step.n_tasks <= e->layout.n_tasks && slot <= e->layout.n_slots);
}

static status check_copies(const cpu_engine *e, const batch *b, err *er) {
    for (uint32_t i = 0; i < b->n_copies; i++) {
        const block_copy *c = &b->copies[i];
        if (c->group >= e->program->n_groups || c->from < 0 || c->to < 0 ||
            (uint32_t)c->from >= e->opt.n_blocks[c->group] ||
            (uint32_t)c->to >= e->opt.n_blocks[c->group])
            return err_set(er, ERR_INVALID, "copy %u of the batch: no such block", i);
    }
    return OK;
}

status cpu_step_init(cpu_engine *e, const batch *b, err *er) {
    if (b->n_seqs > e->opt.max_seqs || b->n_rows > e->opt.max_rows ||
        b->n_logit_rows > e->opt.max_logit_rows)
        return err_set(er, ERR_INVALID,
                       "a batch of %u sequences, %u rows, %u of logits: more than planned",
                       b->n_seqs, b->n_rows, b->n_logit_rows);
    status st = check_copies(e, b, er);
    uint32_t row = 0, gathered = 0, logit_rows = 0;
    for (uint32_t i = 0; i < b->n_seqs && st == OK; i++) {
        st = check_seq(e, b, i, row, er);
        logit_rows += b->seq[i].n_logit_rows;
        if (st == OK && logit_rows > b->n_logit_rows)
            st = bad_batch(er, i, "more rows of logits than the batch says");
        if (st == OK) st = fill_rows(e, b, i, &gathered, er);
        row += b->seq[i].n_rows;
    }
    if (st != OK) return st;
    if (row != b->n_rows || gathered != b->n_logit_rows)
        return err_set(er, ERR_INVALID, "the parts of the batch do not add up to its rows");
    e->step.batch = b;
    cut_attention(e, b);
    return OK;
}
