/* From a batch to the tables of a step (engine/tables.h), in the pinned memory of a slot, with
 * the tiles of prefill attention, and the padding of a graph's bucket. The batch was checked by
 * the base (engine/batch.h). Pure but for the slot; engine thread. */
#include "engine/cuda/cuda.h"

#include <string.h>

static tables_model model_of(const cuda_engine *e) {
    tables_model m = {};
    m.n_vocab = e->p->config.n_vocab, m.n_groups = e->l->n_groups;
    m.block_tokens = e->opt.block_tokens, m.n_states = e->l->n_states;
    return m;
}

static uint32_t end_of(const batch_seq *s) {
    return s->first_pos + s->n_rows;
}

static uint32_t tiles_of(const cuda_engine *e, const batch_seq *s) {
    if (s->n_rows == 1 && !e->l->batch_invariant) return 0;
    return (s->n_rows + CU_PREFILL_TILE - 1) / CU_PREFILL_TILE;
}

cuda_run cuda_graph_run(const cuda_engine *e, uint32_t n_seqs, uint32_t longest) {
    const cuda_layout *l = e->l;
    cuda_run r = {};
    const uint32_t n = cuda_bucket(n_seqs, e->opt.max_seqs);
    const uint32_t most = longest > CUDA_SHORT ? e->opt.max_model_len : (uint32_t)CUDA_SHORT;
    const uint32_t stride = (most + e->opt.block_tokens - 1) / e->opt.block_tokens;
    r.n_splits = cu_attn_splits(n, most);
    r.is_short = longest <= CUDA_SHORT;
    r.shape.n_rows = r.shape.n_seqs = r.shape.n_logit_rows = n;
    r.shape.n_tiles = l->batch_invariant ? n : 0;
    r.shape.n_checkpoints = l->n_states ? n : 0;
    r.shape.stride = stride < l->max_stride ? stride : l->max_stride;
    r.singles = !l->batch_invariant;
    r.graph = true;
    return r;
}

static cuda_run run_of(const cuda_engine *e, const tables_model *m, const batch *b) {
    cuda_run r = {};
    uint32_t longest = 1, longest_single = 1;
    r.shape = tables_measure(m, b);
    bool decode = b->n_copies == 0 && b->n_seqs > 0 && r.shape.n_scores == 0 && e->graphs.exec;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const batch_seq *s = &b->seq[i];
        if (end_of(s) > longest) longest = end_of(s);
        if (s->n_rows == 1 && end_of(s) > longest_single) longest_single = end_of(s);
        decode &= s->n_rows == 1 && s->n_logit_rows == 1;
        r.singles |= s->n_rows == 1 && !e->l->batch_invariant;
        r.shape.n_tiles += tiles_of(e, s);
    }
    if (decode) return cuda_graph_run(e, b->n_seqs, longest);
    r.n_splits = cu_attn_splits(b->n_seqs, longest_single);
    for (uint32_t i = 0; i < b->n_copies; i++) r.copies[b->copies[i].group]++;
    return r;
}

/* ---- what the tables of a batch leave to the engine: tiles, and padding ---- */

typedef struct rest {
    unsigned char *base;
    tables_at at;
    const tables_shape *shape;
    tables_model model;
} rest;

static int32_t *table(const rest *f, uint64_t at) {
    return (int32_t *)(f->base + at);
}

/* Returns how many there are. */
static uint32_t fill_tiles(const rest *f, const cuda_engine *e, const batch *b) {
    int32_t *to = table(f, f->at.tiles), *first = to;
    for (uint32_t i = 0; i < b->n_seqs; i++)
        for (uint32_t k = 0; k < tiles_of(e, &b->seq[i]); k++) {
            *to++ = (int32_t)i;
            *to++ = (int32_t)(k * CU_PREFILL_TILE);
        }
    return (uint32_t)(to - first) / 2;
}

static void pad_entry(const rest *f, uint32_t n_groups, uint32_t entry, uint32_t row) {
    tables_sampling x = {};
    x.logit_row = x.history_from = x.n_score = -1;
    table(f, f->at.first_row)[entry] = (int32_t)row;
    table(f, f->at.n_rows)[entry] = table(f, f->at.first_pos)[entry] = 0;
    table(f, f->at.state)[entry] = -1;
    for (uint32_t g = 0; g < n_groups; g++)
        memset(table(f, f->at.blocks[g]) + (size_t)entry * f->shape->stride, 0xff,
               f->shape->stride * 4);
    memcpy(f->base + f->at.sampling + entry * sizeof x, &x, sizeof x);
}

static void pad_row(const rest *f, uint32_t row, uint32_t entry) {
    table(f, f->at.token)[row] = 0;
    table(f, f->at.from)[row] = table(f, f->at.pos)[row] = -1;
    table(f, f->at.entry)[row] = (int32_t)entry;
}

static void pad(const rest *f, const cuda_engine *e, const batch *b, uint32_t n_tiles) {
    const tables_shape *sh = f->shape;
    const uint32_t last = sh->n_seqs ? sh->n_seqs - 1 : 0, n_seqs = b->n_seqs;
    for (uint32_t i = b->n_rows; i < sh->n_rows; i++)
        pad_row(f, i, n_seqs + (i - b->n_rows) < last ? n_seqs + (i - b->n_rows) : last);
    for (uint32_t i = n_seqs; i < sh->n_seqs; i++) {
        const uint32_t row = b->n_rows + (i - n_seqs);
        pad_entry(f, e->l->n_groups, i, row < sh->n_rows ? row : 0);
    }
    for (uint32_t i = b->n_logit_rows; i < sh->n_logit_rows; i++)
        table(f, f->at.gathered)[i] = i < sh->n_rows ? (int32_t)i : 0;
    int32_t *tiles = table(f, f->at.tiles), *checkpoints = table(f, f->at.checkpoints);
    for (uint32_t i = tables_measure(&f->model, b).n_checkpoints; i < sh->n_checkpoints; i++)
        checkpoints[3 * (size_t)i] = -1;
    for (uint32_t i = n_tiles; i < sh->n_tiles; i++) {
        tiles[2 * i] = (int32_t)(n_seqs + i < last ? n_seqs + i : last);
        tiles[2 * i + 1] = 0;
    }
}

static uint64_t fill(const cuda_engine *e, const tables_model *m, const batch *b,
                     cuda_slot *slot, const cuda_run *run) {
    const rest f = {slot->tables, tables_lay(m->n_groups, &run->shape), &run->shape, *m};
    const uint64_t bytes = tables_fill(slot->tables, m, &run->shape, b);
    pad(&f, e, b, fill_tiles(&f, e, b));
    slot->scores = (const tables_score *)table(&f, f.at.scores);
    slot->n_scores = run->shape.n_scores;
    return bytes;
}

uint64_t cuda_fill(const cuda_engine *e, const batch *b, cuda_slot *slot, cuda_run *run) {
    const tables_model m = model_of(e);
    *run = run_of(e, &m, b);
    return fill(e, &m, b, slot, run);
}

uint64_t cuda_fill_blank(const cuda_engine *e, cuda_slot *slot, const cuda_run *run) {
    const tables_model m = model_of(e);
    const batch none = {};
    memset(slot->tables, 0, tables_lay(m.n_groups, &run->shape).lists);
    return fill(e, &m, &none, slot, run);
}
