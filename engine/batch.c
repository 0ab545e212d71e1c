/* Checks of batches. Pure; any thread. */
#include "engine/batch.h"

#include "base/check.h"
#include "engine/arrange.h"

typedef struct checker {
    const batch *b;
    const program *p;
    const engine_options *o;
    kv_groups groups;
    uint32_t n_states;
    const bool *drew;
    uint32_t n_drew;
    err *e;
} checker;

static status bad(const checker *c, uint32_t entry, const char *what) {
    err_set(c->e, ERR_INVALID, "entry %u of the batch: %s", entry, what);
    return err_field(c->e, "batch");
}

/* Blocks before the first that any of its rows sees may be gone (-1). */
static uint32_t first_seen(const checker *c, const batch_seq *s, uint32_t group) {
    return kv_first_seen(c->groups.group[group].window, s->first_pos) / c->o->block_tokens;
}

static status check_blocks(const checker *c, const batch_seq *s, uint32_t i) {
    const uint64_t n = ceil_div(s->first_pos + s->n_rows, c->o->block_tokens);
    for (uint32_t g = 0; g < c->groups.n; g++) {
        if (s->n_blocks[g] < n) return bad(c, i, "too few blocks for its positions");
        for (uint32_t b = first_seen(c, s, g); b < n; b++)
            if (s->blocks[g][b] < 0 || (uint32_t)s->blocks[g][b] >= c->o->n_blocks[g])
                return bad(c, i, "a block that does not exist");
    }
    return OK;
}

static status check_state(const checker *c, const batch_seq *s, uint32_t i) {
    if (!c->n_states) return OK;
    if (s->state >= c->n_states) return bad(c, i, "a state that does not exist");
    uint32_t from = s->first_pos;
    for (uint32_t k = 0; k < s->n_checkpoints; k++) {
        const batch_checkpoint *x = &s->checkpoints[k];
        if (x->state >= c->n_states || x->state == s->state)
            return bad(c, i, "a checkpoint without a slot of its own");
        if (x->n_tokens <= from || x->n_tokens > s->first_pos + s->n_rows ||
            x->n_tokens % STATE_CHUNK)
            return bad(c, i, "a checkpoint that its rows do not reach");
        from = x->n_tokens;
    }
    return OK;
}

static status check_input(const checker *c, const batch_seq *s, uint32_t i) {
    if (s->input_from >= 0) {
        if (s->n_rows != 1 || (uint32_t)s->input_from >= c->n_drew || !c->drew[s->input_from])
            return bad(c, i, "an input that the previous step did not produce");
        return OK;
    }
    for (uint32_t r = 0; r < s->n_rows; r++) {
        int32_t token = s->tokens[s->first_pos + r];
        if (token < 0 || (uint32_t)token >= c->p->config.n_vocab)
            return bad(c, i, "a token outside the vocabulary");
    }
    return OK;
}

static status check_seq(const checker *c, uint32_t i, uint32_t row) {
    const batch_seq *s = &c->b->seq[i];
    if (s->n_rows == 0 || s->first_row != row || s->n_rows > c->b->n_rows - row)
        return bad(c, i, "rows out of order");
    if (s->n_rows > c->o->max_model_len || s->first_pos > c->o->max_model_len - s->n_rows)
        return bad(c, i, "positions past max_model_len");
    if (s->n_logit_rows > s->n_rows || (s->sample && (!s->n_logit_rows || !s->params)))
        return bad(c, i, "logits that its rows do not give");
    if (s->n_draft > c->o->max_draft || (s->n_draft && !s->sample) ||
        (s->n_draft && (s->n_draft >= s->n_rows || s->n_logit_rows <= s->n_draft)))
        return bad(c, i, "guesses that its rows do not verify");
    if (s->n_score > SAMPLING_MAX_LOGPROBS)
        return bad(c, i, "more than SAMPLING_MAX_LOGPROBS scores");
    if (c->p->config.bidirectional &&
        (s->first_pos || s->n_logit_rows != 1 || s->sample || s->n_score >= 0))
        return bad(c, i, "an encoder takes a whole text, of which the last row has logits");
    status st = check_blocks(c, s, i);
    if (st == OK) st = check_state(c, s, i);
    return st == OK ? check_input(c, s, i) : st;
}

static status check_copies(const checker *c) {
    for (uint32_t i = 0; i < c->b->n_copies; i++) {
        const block_copy *x = &c->b->copies[i];
        const bool state = x->group == ENGINE_COPY_STATE;
        const uint32_t n = state                    ? c->n_states
                           : x->group < c->groups.n ? c->o->n_blocks[x->group]
                                                    : 0;
        if (x->from < 0 || x->to < 0 || (uint32_t)x->from >= n || (uint32_t)x->to >= n)
            return err_set(c->e, ERR_INVALID, "copy %u of the batch: no such %s", i,
                           state ? "state" : "block");
    }
    return OK;
}

status batch_check(const batch *b, const program *p, const engine_options *o, const bool *drew,
                   uint32_t n_drew, err *e) {
    const checker c = {b, p, o, kv_groups_of(p, o), engine_states(p, o), drew, n_drew, e};
    if (b->n_seqs > o->max_seqs || b->n_rows > o->max_rows ||
        b->n_logit_rows > o->max_logit_rows)
        return err_set(e, ERR_INVALID,
                       "a batch of %u sequences, %u rows, %u of logits: more than planned",
                       b->n_seqs, b->n_rows, b->n_logit_rows);
    status st = check_copies(&c);
    uint32_t row = 0, logit_rows = 0;
    for (uint32_t i = 0; i < b->n_seqs && st == OK; i++) {
        st = check_seq(&c, i, row);
        row += b->seq[i].n_rows;
        logit_rows += b->seq[i].n_logit_rows;
        if (st == OK && logit_rows > b->n_logit_rows)
            st = bad(&c, i, "more rows of logits than n_logit_rows");
    }
    if (st != OK || (row == b->n_rows && logit_rows == b->n_logit_rows)) return st;
    return err_set(e, ERR_INVALID, "the parts of the batch do not add up to its rows");
}
