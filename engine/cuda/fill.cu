/* From a batch to the tables of a step, in the pinned memory of a slot. The batch was checked
 * by the base (engine/batch.h). Pure but for the slot; engine thread. */
#include "engine/cuda/cuda.h"

#include <string.h>

typedef struct filler {
    const cuda_engine *e;
    const batch *b;
    unsigned char *base;
    cuda_tables_at at;
    uint32_t gathered, scores, tiles, words;
} filler;

static int32_t *table(const filler *f, uint64_t at) {
    return (int32_t *)(f->base + at);
}

static uint32_t end_of(const batch_seq *s) {
    return s->first_pos + s->n_rows;
}

/* Scored rows are those whose next token is of the prompt. */
static uint32_t scores_of(const batch_seq *s) {
    if (s->n_score < 0) return 0;
    const uint32_t first = end_of(s) - s->n_logit_rows + 1; /* token after the first such row */
    const uint32_t last = end_of(s) < s->n_prompt ? end_of(s) + 1 : s->n_prompt;
    return first < last ? last - first : 0;
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
    r.shape.stride = stride < l->max_stride ? stride : l->max_stride;
    r.singles = !l->batch_invariant;
    r.graph = true;
    return r;
}

static cuda_run run_of(const cuda_engine *e, const batch *b) {
    cuda_run r = {};
    uint32_t longest = 1, longest_single = 1;
    bool decode = b->n_copies == 0 && b->n_seqs > 0 && e->graphs.exec;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const batch_seq *s = &b->seq[i];
        const uint32_t scores = scores_of(s);
        if (end_of(s) > longest) longest = end_of(s);
        if (s->n_rows == 1 && end_of(s) > longest_single) longest_single = end_of(s);
        decode &= s->n_rows == 1 && s->n_logit_rows == 1 && scores == 0;
        r.singles |= s->n_rows == 1 && !e->l->batch_invariant;
        r.shape.n_scores += scores;
        r.shape.n_tiles += tiles_of(e, s);
    }
    if (decode) return cuda_graph_run(e, b->n_seqs, longest);
    r.shape.n_rows = b->n_rows, r.shape.n_seqs = b->n_seqs;
    r.shape.n_logit_rows = b->n_logit_rows, r.shape.n_copies = b->n_copies;
    r.shape.stride = (longest + e->opt.block_tokens - 1) / e->opt.block_tokens;
    r.n_splits = cu_attn_splits(b->n_seqs, longest_single);
    for (uint32_t i = 0; i < b->n_copies; i++) r.copies[b->copies[i].group]++;
    return r;
}

static void fill_rows(filler *f, uint32_t entry) {
    const batch_seq *s = &f->b->seq[entry];
    for (uint32_t r = 0; r < s->n_rows; r++) {
        const uint32_t row = s->first_row + r;
        table(f, f->at.from)[row] = s->input_from;
        table(f, f->at.token)[row] = s->input_from >= 0 ? 0 : s->tokens[s->first_pos + r];
        table(f, f->at.pos)[row] = (int32_t)(s->first_pos + r);
        table(f, f->at.entry)[row] = (int32_t)entry;
    }
    table(f, f->at.first_row)[entry] = (int32_t)s->first_row;
    table(f, f->at.n_rows)[entry] = (int32_t)s->n_rows;
    table(f, f->at.first_pos)[entry] = (int32_t)s->first_pos;
}

static void fill_blocks(filler *f, uint32_t entry, uint32_t stride) {
    const batch_seq *s = &f->b->seq[entry];
    const uint32_t bt = f->e->opt.block_tokens, n = (end_of(s) + bt - 1) / bt;
    for (uint32_t g = 0; g < f->e->l->n_groups; g++) {
        int32_t *to = table(f, f->at.blocks[g]) + (size_t)entry * stride;
        memcpy(to, s->blocks[g], n * sizeof *to);
        for (uint32_t i = n; i < stride; i++) to[i] = -1;
    }
}

static void fill_gathered(filler *f, uint32_t entry) {
    const batch_seq *s = &f->b->seq[entry];
    const uint32_t first = s->n_rows - s->n_logit_rows, n_scores = scores_of(s);
    cu_score *scores = (cu_score *)table(f, f->at.scores);
    for (uint32_t k = 0; k < s->n_logit_rows; k++, f->gathered++) {
        table(f, f->at.gathered)[f->gathered] = (int32_t)(s->first_row + first + k);
        if (k >= n_scores) continue;
        cu_score *x = &scores[f->scores++];
        x->logit_row = (int32_t)f->gathered;
        x->token = s->tokens[s->first_pos + first + k + 1];
        x->n_top = s->n_score;
    }
}

static void fill_tiles(filler *f, uint32_t entry) {
    int32_t *tiles = table(f, f->at.tiles);
    const uint32_t n = tiles_of(f->e, &f->b->seq[entry]);
    for (uint32_t k = 0; k < n; k++, f->tiles++) {
        tiles[2 * f->tiles] = (int32_t)entry;
        tiles[2 * f->tiles + 1] = (int32_t)(k * CU_PREFILL_TILE);
    }
}

/* ---- sampling ---- */

/* Appends n words; returns where they begin. */
static uint32_t put_words(filler *f, const void *words, uint32_t n) {
    const uint32_t at = f->words;
    if (n) memcpy(table(f, f->at.lists) + at, words, n * sizeof(int32_t));
    f->words += n;
    return at;
}

static bool penalises(const sampling *p) {
    return p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
}

static void fill_history(filler *f, const batch_seq *s, cu_sampling *x) {
    if (!penalises(s->params)) return;
    /* The token that the previous step draws is known on the device alone. */
    x->n_history = s->input_from >= 0 ? s->first_pos : end_of(s);
    x->history_from = s->input_from;
    x->history_at = put_words(f, s->tokens, x->n_history);
}

static_assert(sizeof(logit_bias) == 2 * sizeof(int32_t), "a bias is two words of the lists");

static void fill_sampling(filler *f, uint32_t entry) {
    const batch_seq *s = &f->b->seq[entry];
    const sampling *p = s->params;
    cu_sampling x = {};
    x.logit_row = -1;
    x.history_from = -1;
    if (s->sample) {
        const uint32_t next = end_of(s), n_output = next > s->n_prompt ? next - s->n_prompt : 0;
        x.logit_row = (int32_t)f->gathered - 1; /* the entry's last */
        x.position = next;
        x.seed[0] = (uint32_t)p->seed, x.seed[1] = (uint32_t)(p->seed >> 32);
        x.temperature = p->temperature, x.top_k = p->top_k;
        x.top_p = p->top_p, x.min_p = p->min_p, x.typical_p = p->typical_p;
        x.repetition_penalty = p->repetition_penalty;
        x.presence_penalty = p->presence_penalty;
        x.frequency_penalty = p->frequency_penalty;
        x.n_prompt = s->n_prompt;
        x.n_logprobs = p->n_logprobs;
        x.mask_end = n_output < p->min_tokens;
        x.n_end = x.mask_end ? p->n_end_tokens : 0;
        x.end_at = put_words(f, p->end_tokens, x.n_end);
        x.n_bias = p->n_bias;
        x.bias_at = put_words(f, p->bias, 2 * p->n_bias);
        fill_history(f, s, &x);
    }
    memcpy(f->base + f->at.sampling + entry * sizeof x, &x, sizeof x);
}

/* ---- the whole ---- */

static void fill_copies(filler *f) {
    int32_t *to = table(f, f->at.copies);
    for (uint32_t g = 0; g < f->e->l->n_groups; g++)
        for (uint32_t i = 0; i < f->b->n_copies; i++) {
            if (f->b->copies[i].group != g) continue;
            *to++ = f->b->copies[i].from;
            *to++ = f->b->copies[i].to;
        }
}

/* Entries and rows that pad a graph's bucket. */
static void fill_padding(filler *f, uint32_t entry, const cuda_shape *sh, uint32_t row) {
    cu_sampling x = {};
    x.logit_row = x.history_from = -1;
    table(f, f->at.first_row)[entry] = (int32_t)row;
    table(f, f->at.n_rows)[entry] = table(f, f->at.first_pos)[entry] = 0;
    for (uint32_t g = 0; g < f->e->l->n_groups; g++)
        memset(table(f, f->at.blocks[g]) + (size_t)entry * sh->stride, 0xff, sh->stride * 4);
    memcpy(f->base + f->at.sampling + entry * sizeof x, &x, sizeof x);
}

static void fill_padding_row(filler *f, uint32_t row, uint32_t entry) {
    table(f, f->at.token)[row] = 0;
    table(f, f->at.from)[row] = table(f, f->at.pos)[row] = -1;
    table(f, f->at.entry)[row] = (int32_t)entry;
}

static void pad(filler *f, const cuda_shape *sh, uint32_t n_seqs, uint32_t n_rows) {
    const uint32_t last = sh->n_seqs ? sh->n_seqs - 1 : 0;
    for (uint32_t i = n_rows; i < sh->n_rows; i++)
        fill_padding_row(f, i, n_seqs + (i - n_rows) < last ? n_seqs + (i - n_rows) : last);
    for (uint32_t i = n_seqs; i < sh->n_seqs; i++) {
        const uint32_t row = n_rows + (i - n_seqs);
        fill_padding(f, i, sh, row < sh->n_rows ? row : 0);
    }
    for (; f->gathered < sh->n_logit_rows; f->gathered++)
        table(f, f->at.gathered)[f->gathered] =
            f->gathered < sh->n_rows ? (int32_t)f->gathered : 0;
    int32_t *tiles = table(f, f->at.tiles);
    for (; f->tiles < sh->n_tiles; f->tiles++) {
        tiles[2 * f->tiles] = (int32_t)(n_seqs + f->tiles < last ? n_seqs + f->tiles : last);
        tiles[2 * f->tiles + 1] = 0;
    }
}

static filler fill_init(const cuda_engine *e, const batch *b, cuda_slot *slot,
                        const cuda_run *run) {
    filler f = {};
    f.e = e, f.b = b, f.base = slot->tables;
    f.at = cuda_tables_lay(e->l->n_groups, &run->shape);
    slot->scores = (const cu_score *)table(&f, f.at.scores);
    slot->n_scores = run->shape.n_scores;
    return f;
}

static uint64_t bytes_of(const filler *f) {
    return f->at.lists + f->words * sizeof(int32_t);
}

uint64_t cuda_fill(const cuda_engine *e, const batch *b, cuda_slot *slot, cuda_run *run) {
    *run = run_of(e, b);
    filler f = fill_init(e, b, slot, run);
    fill_copies(&f);
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        fill_rows(&f, i);
        fill_blocks(&f, i, run->shape.stride);
        fill_gathered(&f, i);
        fill_sampling(&f, i);
        fill_tiles(&f, i);
    }
    pad(&f, &run->shape, b->n_seqs, b->n_rows);
    return bytes_of(&f);
}

uint64_t cuda_fill_blank(const cuda_engine *e, cuda_slot *slot, const cuda_run *run) {
    const batch none = {};
    filler f = fill_init(e, &none, slot, run);
    memset(f.base, 0, f.at.lists);
    pad(&f, &run->shape, 0, 0);
    return bytes_of(&f);
}
