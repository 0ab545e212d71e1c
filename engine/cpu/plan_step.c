/* From a batch, checked, to the tables of a step: what each row reads, and how attention is cut
 * into tasks. Engine thread. */
#include "engine/cpu/cpu.h"

#include "base/check.h"
#include "engine/batch.h"

static void fill_rows(cpu_engine *e, const batch *b, uint32_t i, uint32_t *gathered) {
    const batch_seq *s = &b->seq[i];
    step_row *rows = e->step.rows;
    for (uint32_t r = 0; r < s->n_rows; r++) {
        uint32_t pos = s->first_pos + r;
        step_row *row = &rows[s->first_row + r];
        row->seq = i;
        row->pos = pos;
        row->token = s->input_from >= 0 ? e->previous[s->input_from] : s->tokens[pos];
        if (row->token < 0) row->token = 0; /* none was allowed: this row is not read */
    }
    for (uint32_t r = s->n_rows - s->n_logit_rows; r < s->n_rows; r++)
        rows[(*gathered)++].gathered = s->first_row + r;
}

/* Attention of one decode row: over its splits while there are slots for them. */
static void cut_decode(cpu_engine *e, const batch *b, uint32_t i, uint32_t *slot,
                       uint32_t *split_seqs) {
    const batch_seq *s = &b->seq[i];
    const uint32_t len = s->first_pos + 1, n = (uint32_t)ceil_div(len, ATTN_SPLIT);
    attn_task t = {.seq = i, .first_row = s->first_row, .n_rows = 1, .to = len, .slot = -1};
    /* Whole sequences fill the threads evenly once there are several for each of them. */
    uint32_t units = b->n_seqs * e->layout.max_kv_heads;
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

/* Whether so many tasks of equal size keep threads busy for nine tenths of the time that they take, or more. */
static bool fill_threads(uint32_t n, uint32_t n_threads) {
    return 10 * (uint64_t)n >= 9 * align_up(n, n_threads);
}

/* Into how many groups the rows of a sequence are cut: as few as share the most loads, but where the step has little else, so
 * many that the threads have as much to do as each other. */
static uint32_t groups_of_rows(const cpu_engine *e, const batch *b, const batch_seq *s) {
    const uint32_t heads = e->layout.max_kv_heads, threads = e->opt.n_threads;
    const uint32_t least =
        (uint32_t)ceil_div(s->n_rows, ATTN_MAX_QUERIES / e->layout.max_group);
    if (b->n_seqs * least * heads >= 16 * threads) return least;
    uint32_t n = least;
    while (n < s->n_rows && n < least + threads && !fill_threads(n * heads, threads)) n++;
    return fill_threads(n * heads, threads) ? n : least;
}

/* Rows in groups that share their loads, of equal size but for one row; the last first, since they see the most. */
static void cut_rows(cpu_engine *e, const batch *b, uint32_t i) {
    const batch_seq *s = &b->seq[i];
    const uint32_t n_groups = groups_of_rows(e, b, s);
    for (uint32_t k = n_groups; k-- > 0;) {
        const uint32_t from = (uint32_t)((uint64_t)s->n_rows * k / n_groups),
                       to = (uint32_t)((uint64_t)s->n_rows * (k + 1) / n_groups);
        const uint32_t seen = e->program->config.bidirectional ? s->n_rows : to;
        e->step.tasks[e->step.n_tasks++] = (attn_task){.seq = i,
                                                       .first_row = s->first_row + from,
                                                       .n_rows = to - from,
                                                       .to = s->first_pos + seen,
                                                       .slot = -1};
    }
}

static void cut_attention(cpu_engine *e, const batch *b) {
    uint32_t slot = 0, split_seqs = 0;
    e->step.n_tasks = 0;
    e->step.prefill = false;
    if (!e->layout.max_group) return; /* a stage without attention */
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        if (b->seq[i].n_rows == 1) continue;
        e->step.prefill = true;
        cut_rows(e, b, i);
    }
    for (uint32_t i = 0; i < b->n_seqs; i++)
        if (b->seq[i].n_rows == 1) cut_decode(e, b, i, &slot, &split_seqs);
    CHECK(e->step.n_tasks <= e->layout.n_tasks && slot <= e->layout.n_slots);
}

void cpu_step_rows(cpu_engine *e, const batch *b) {
    uint32_t gathered = 0;
    e->step.logits = e->kept != NULL || layout_rank(e->program) > 0; /* rank 0 samples */
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        fill_rows(e, b, i, &gathered);
        e->step.logits |= b->seq[i].sample || b->seq[i].n_score >= 0;
    }
    e->step.batch = b;
}

status cpu_step_init(cpu_engine *e, const batch *b, err *er) {
    const status st = batch_check(b, e->program, &e->opt, e->drew, e->n_drew, er);
    if (st != OK) return st;
    cpu_step_rows(e, b);
    cut_attention(e, b);
    return OK;
}
