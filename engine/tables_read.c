/* From untrusted tables to a batch: each number is checked before it is used as
 * an index or a length. Owns nothing; any thread. */
#include "engine/tables.h"

#include <string.h>

#include "base/check.h"

typedef struct reader {
    const unsigned char *base;
    const tables_head *head;
    const tables_model *m;
    const engine_options *o;
    const tables_store *to;
    tables_at at;
    uint64_t n_words;
    /* entries before the present one have these */
    uint32_t row, gathered, scores, checkpoints;
    err *e;
} reader;

static status bad(err *e, const char *what) {
    err_set(e, ERR_INVALID, "the tables of a step: %s", what);
    return err_field(e, "tables");
}

static status bad_entry(const reader *r, uint32_t i, const char *what) {
    err_set(r->e, ERR_INVALID, "the tables of a step: entry %u: %s", i, what);
    return err_field(r->e, "tables");
}

static const int32_t *table(const reader *r, uint64_t at) {
    return (const int32_t *)(r->base + at);
}

static const tables_sampling *sampling_of(const reader *r, uint32_t i) {
    return (const tables_sampling *)table(r, r->at.sampling) + i;
}

/* ---- the head ---- */

static status check_shape(const tables_head *h, const tables_model *m, const engine_options *o,
                          err *e) {
    const tables_shape *s = &h->shape;
    const uint64_t n_tiles = (uint64_t)o->max_rows + o->max_seqs,
                   n_copies = (uint64_t)o->max_seqs * (h->n_groups + (m->n_states > 0));
    uint64_t copies = 0;
    for (uint32_t g = 0; g <= ENGINE_COPY_STATE; g++) {
        const bool there = g == ENGINE_COPY_STATE ? m->n_states > 0 : g < h->n_groups;
        copies += h->n_copies[g];
        if (!there && h->n_copies[g]) return bad(e, "copies of no group");
    }
    if (s->n_checkpoints > (m->n_states ? tables_most_checkpoints(o) : 0))
        return bad(e, "more checkpoints than its rows reach");
    if (s->n_seqs > o->max_seqs || s->n_rows > o->max_rows ||
        s->n_logit_rows > o->max_logit_rows || s->n_scores > o->max_logit_rows ||
        s->n_tiles > n_tiles || s->n_copies > n_copies ||
        s->stride > ceil_div(o->max_model_len, o->block_tokens))
        return bad(e, "more than the options allow");
    if (h->n_seqs > s->n_seqs || h->n_rows > s->n_rows || h->n_logit_rows > s->n_logit_rows ||
        copies != s->n_copies)
        return bad(e, "more is real than there is");
    return OK;
}

static status check_head(const tables_head *h, uint64_t n, const tables_model *m,
                         const engine_options *o, err *e) {
    if (n < sizeof *h || (uintptr_t)h % 64 != 0) return bad(e, "truncated, or not aligned");
    if (h->magic != TABLES_MAGIC) return bad(e, "no such tables");
    if (h->version != TABLES_VERSION) return bad(e, "of another version");
    if (h->n_groups != m->n_groups || h->block_tokens != m->block_tokens)
        return bad(e, "of another model or cache");
    if (h->bytes > n || h->bytes % sizeof(int32_t) != 0) return bad(e, "truncated");
    return check_shape(h, m, o, e);
}

/* ---- one entry ---- */

static status read_rows(reader *r, uint32_t i, batch_seq *s) {
    const int32_t first = table(r, r->at.first_row)[i], n = table(r, r->at.n_rows)[i],
                  pos = table(r, r->at.first_pos)[i];
    if (first < 0 || n < 1 || pos < 0 || (uint32_t)first != r->row ||
        (uint32_t)n > r->head->n_rows - r->row)
        return bad_entry(r, i, "rows out of order");
    if ((uint64_t)pos + (uint64_t)n > r->o->max_model_len)
        return bad_entry(r, i, "positions past max_model_len");
    s->first_row = (uint32_t)first, s->n_rows = (uint32_t)n, s->first_pos = (uint32_t)pos;
    s->input_from = table(r, r->at.from)[first];
    int32_t *tokens = r->to->tokens + (size_t)i * r->o->max_model_len;
    for (int32_t k = 0; k < n; k++) {
        const int32_t row = first + k;
        if (table(r, r->at.pos)[row] != pos + k || table(r, r->at.entry)[row] != (int32_t)i ||
            table(r, r->at.from)[row] != s->input_from)
            return bad_entry(r, i, "a row of another entry or position");
        tokens[pos + k] = table(r, r->at.token)[row];
    }
    s->tokens = tokens;
    r->row += s->n_rows;
    if (s->input_from >= -1 && (s->input_from < 0 || n == 1)) return OK;
    return bad_entry(r, i, "an input that no step produces");
}

static status read_blocks(const reader *r, uint32_t i, batch_seq *s) {
    const uint32_t stride = r->head->shape.stride;
    const uint64_t n = ceil_div(s->first_pos + s->n_rows, r->m->block_tokens);
    if (n > stride) return bad_entry(r, i, "too few blocks for its positions");
    for (uint32_t g = 0; g < r->m->n_groups; g++) {
        s->blocks[g] = table(r, r->at.blocks[g]) + (size_t)i * stride;
        s->n_blocks[g] = (uint32_t)n;
    }
    return OK;
}

/* The next checkpoints that name the entry are its own. */
static status read_state(reader *r, uint32_t i, batch_seq *s) {
    const int32_t state = table(r, r->at.state)[i];
    if (!r->m->n_states) return state == -1 ? OK : bad_entry(r, i, "a state of no layer");
    if (state < 0 || (uint32_t)state >= r->m->n_states)
        return bad_entry(r, i, "a state that is not there");
    s->state = (uint32_t)state;
    batch_checkpoint *to = r->to->checkpoints + r->checkpoints;
    s->checkpoints = to;
    for (; r->checkpoints < r->head->shape.n_checkpoints; r->checkpoints++, to++) {
        const int32_t *x = table(r, r->at.checkpoints) + 3 * (size_t)r->checkpoints;
        if (x[0] != (int32_t)i) break;
        if (x[1] < 1 || (uint32_t)x[1] > s->first_pos + s->n_rows || x[2] < 0 ||
            (uint32_t)x[2] >= r->m->n_states)
            return bad_entry(r, i, "a checkpoint that its rows do not reach");
        *to = (batch_checkpoint){(uint32_t)x[1], (uint32_t)x[2]};
        s->n_checkpoints++;
    }
    return OK;
}

/* Its gathered rows are its last ones; the first of them may be scored. */
static status read_gathered(reader *r, uint32_t i, batch_seq *s) {
    const int32_t *gathered = table(r, r->at.gathered);
    const uint32_t end = s->first_row + s->n_rows, from = r->gathered;
    while (r->gathered < r->head->n_logit_rows && gathered[r->gathered] >= 0 &&
           (uint32_t)gathered[r->gathered] < end)
        r->gathered++;
    s->n_logit_rows = r->gathered - from;
    if (s->n_logit_rows > s->n_rows) return bad_entry(r, i, "more logits than rows");
    for (uint32_t k = 0; k < s->n_logit_rows; k++)
        if ((uint32_t)gathered[from + k] != end - s->n_logit_rows + k)
            return bad_entry(r, i, "logits of other rows than its last");
    const tables_score *x = (const tables_score *)table(r, r->at.scores) + r->scores;
    const uint32_t n = tables_scores_of(s), first = end - s->n_logit_rows - s->first_row;
    if (n > s->n_logit_rows || n > r->head->shape.n_scores - r->scores)
        return bad_entry(r, i, "scores of rows without logits");
    int32_t *tokens = r->to->tokens + (size_t)i * r->o->max_model_len;
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t next = s->first_pos + first + k + 1;
        if ((uint32_t)x[k].logit_row != from + k || x[k].n_top != s->n_score ||
            x[k].token < 0 || (uint32_t)x[k].token >= r->m->n_vocab ||
            next >= r->o->max_model_len ||
            (next < s->first_pos + s->n_rows && tokens[next] != x[k].token))
            return bad_entry(r, i, "a score of another row or token");
        tokens[next] = x[k].token;
    }
    r->scores += n;
    return OK;
}

/* Words [at, at + n) of the lists; NULL: they are not all there. */
static const int32_t *words(const reader *r, uint32_t at, uint64_t n) {
    return at + n <= r->n_words ? table(r, r->at.lists) + at : NULL;
}

static status read_history(const reader *r, uint32_t i, const batch_seq *s,
                           const tables_sampling *x) {
    const bool has = sampling_penalises(s->params);
    const uint32_t end = s->input_from >= 0 ? s->first_pos : s->first_pos + s->n_rows;
    const uint32_t whole = has ? end : 0;
    int32_t *tokens = r->to->tokens + (size_t)i * r->o->max_model_len;
    const int32_t *list = words(r, x->history_at, x->n_history);
    if (!list || x->n_history != whole || x->history_from != (has ? s->input_from : -1))
        return bad_entry(r, i, "a history of another length");
    if (!has) return OK;
    for (uint32_t k = s->first_pos; k < whole; k++)
        if (list[k] != tokens[k]) return bad_entry(r, i, "a history of other tokens");
    memcpy(tokens, list, (s->first_pos < whole ? s->first_pos : whole) * sizeof *tokens);
    return OK;
}

static status read_lists(const reader *r, uint32_t i, batch_seq *s, sampling *p,
                         const tables_sampling *x) {
    const int32_t *end = words(r, x->end_at, x->n_end),
                  *bias = words(r, x->bias_at, 2 * (uint64_t)x->n_bias),
                  *allowed = words(r, x->allowed_at, x->n_allowed);
    if (!end || !bias || !allowed) return bad_entry(r, i, "a list that is not there");
    if (x->n_allowed && x->n_allowed != sampling_mask_words(r->m->n_vocab))
        return bad_entry(r, i, "a mask of another vocabulary");
    p->end_tokens = x->n_end ? end : NULL, p->n_end_tokens = x->n_end;
    p->bias = x->n_bias ? (const logit_bias *)bias : NULL, p->n_bias = x->n_bias;
    s->allowed = x->n_allowed ? (const uint32_t *)allowed : NULL;
    return read_history(r, i, s, x);
}

static status read_draw(reader *r, uint32_t i, batch_seq *s) {
    const tables_sampling *x = sampling_of(r, i);
    sampling *p = &r->to->params[i];
    s->sample = x->logit_row >= 0;
    s->params = s->sample ? p : NULL;
    if (!s->sample) return x->logit_row == -1 ? OK : bad_entry(r, i, "no row draws its token");
    if (s->n_logit_rows == 0 || (uint32_t)x->logit_row != r->gathered - 1)
        return bad_entry(r, i, "another row draws its token");
    if (x->position != s->first_pos + s->n_rows || x->n_logprobs < -1 ||
        x->n_logprobs > SAMPLING_MAX_LOGPROBS)
        return bad_entry(r, i, "parameters out of range");
    *p = (sampling){.temperature = x->temperature,
                    .top_k = x->top_k,
                    .top_p = x->top_p,
                    .min_p = x->min_p,
                    .typical_p = x->typical_p,
                    .repetition_penalty = x->repetition_penalty,
                    .presence_penalty = x->presence_penalty,
                    .frequency_penalty = x->frequency_penalty,
                    .seed = (uint64_t)x->seed[1] << 32 | x->seed[0],
                    .min_tokens = x->min_tokens,
                    .n_logprobs = (int16_t)x->n_logprobs};
    return read_lists(r, i, s, p, x);
}

static status read_entry(reader *r, uint32_t i) {
    const tables_sampling *x = sampling_of(r, i);
    batch_seq *s = &r->to->seq[i];
    *s = (batch_seq){.n_prompt = x->n_prompt, .n_score = (int8_t)x->n_score};
    if (x->n_score < -1 || x->n_score > SAMPLING_MAX_LOGPROBS)
        return bad_entry(r, i, "too many best tokens asked for");
    status st = read_rows(r, i, s);
    if (st == OK) st = read_blocks(r, i, s);
    if (st == OK) st = read_state(r, i, s);
    if (st == OK) st = read_gathered(r, i, s);
    return st == OK ? read_draw(r, i, s) : st;
}

/* ---- the rest ---- */

static void read_copies(const reader *r) {
    const int32_t *pair = table(r, r->at.copies);
    block_copy *to = r->to->copies;
    for (uint32_t g = 0; g <= ENGINE_COPY_STATE; g++)
        for (uint32_t k = 0; k < r->head->n_copies[g]; k++, pair += 2)
            *to++ = (block_copy){pair[0], pair[1], g};
}

static status check_tiles(const reader *r) {
    const int32_t *tile = table(r, r->at.tiles);
    for (uint32_t k = 0; k < r->head->shape.n_tiles; k++, tile += 2)
        if (tile[0] < 0 || (uint32_t)tile[0] >= r->head->shape.n_seqs || tile[1] < 0 ||
            (tile[1] > 0 && tile[1] >= table(r, r->at.n_rows)[tile[0]]))
            return bad(r->e, "a tile of no entry");
    return OK;
}

/* Padding computes nothing that anybody sees. */
static status check_padding(const reader *r) {
    const tables_head *h = r->head;
    for (uint32_t i = h->n_seqs; i < h->shape.n_seqs; i++) {
        const int32_t row = table(r, r->at.first_row)[i];
        if (table(r, r->at.n_rows)[i] != 0 || sampling_of(r, i)->logit_row != -1 || row < 0 ||
            (row > 0 && (uint32_t)row >= h->shape.n_rows))
            return bad(r->e, "padding that computes");
    }
    for (uint32_t i = h->n_rows; i < h->shape.n_rows; i++) {
        const int32_t entry = table(r, r->at.entry)[i];
        if (table(r, r->at.pos)[i] != -1 || table(r, r->at.from)[i] != -1 || entry < 0 ||
            (uint32_t)entry >= h->shape.n_seqs)
            return bad(r->e, "padding that computes");
    }
    for (uint32_t i = h->n_logit_rows; i < h->shape.n_logit_rows; i++) {
        const int32_t row = table(r, r->at.gathered)[i];
        if (row < 0 || (row > 0 && (uint32_t)row >= h->shape.n_rows))
            return bad(r->e, "padding of a row that is not there");
    }
    for (uint32_t i = r->checkpoints; i < h->shape.n_checkpoints; i++)
        if (table(r, r->at.checkpoints)[3 * (size_t)i] != -1)
            return bad(r->e, "a checkpoint of no entry");
    return OK;
}

status tables_read(batch *out, const void *buffer, uint64_t n, const tables_model *m,
                   const engine_options *o, const tables_store *to, err *e) {
    reader r = {.base = buffer, .head = buffer, .m = m, .o = o, .to = to, .e = e};
    status st = check_head(r.head, n, m, o, e);
    if (st != OK) return st;
    r.at = tables_lay(m->n_groups, &r.head->shape);
    if (r.at.lists > r.head->bytes) return bad(e, "truncated");
    r.n_words = (r.head->bytes - r.at.lists) / sizeof(int32_t);
    for (uint32_t i = 0; i < r.head->n_seqs && st == OK; i++) st = read_entry(&r, i);
    if (st == OK && (r.row != r.head->n_rows || r.gathered != r.head->n_logit_rows ||
                     r.scores != r.head->shape.n_scores))
        st = bad(e, "rows of no entry");
    if (st == OK) read_copies(&r);
    if (st == OK) st = check_tiles(&r);
    if (st == OK) st = check_padding(&r);
    if (st != OK) return st;
    *out = (batch){to->seq,    r.head->n_seqs,        r.head->n_rows, r.head->n_logit_rows,
                   to->copies, r.head->shape.n_copies};
    return OK;
}
