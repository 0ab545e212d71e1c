/* From a batch to its tables. Linked into the base and into the CUDA plugin: calls nothing but
 * libc. Pure; any thread. */
#include "engine/tables.h"

#include <string.h>

#include "base/check.h"

typedef struct filler {
    const tables_model *m;
    const batch *b;
    unsigned char *base;
    tables_at at;
    uint32_t gathered, scores, words, checkpoints;
} filler;

static int32_t *table(const filler *f, uint64_t at) {
    return (int32_t *)(f->base + at);
}

static uint32_t end_of(const batch_seq *s) {
    return s->first_pos + s->n_rows;
}

uint32_t tables_scores_of(const batch_seq *s) {
    if (s->n_score < 0) return 0;
    const uint32_t first = end_of(s) - s->n_logit_rows + 1; /* token after the first such row */
    const uint32_t last = end_of(s) < s->n_prompt ? end_of(s) + 1 : s->n_prompt;
    return first < last ? last - first : 0;
}

tables_shape tables_measure(const tables_model *m, const batch *b) {
    tables_shape s = {.n_rows = b->n_rows,
                      .n_seqs = b->n_seqs,
                      .n_logit_rows = b->n_logit_rows,
                      .n_copies = b->n_copies};
    uint32_t longest = 1;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        if (end_of(&b->seq[i]) > longest) longest = end_of(&b->seq[i]);
        s.n_scores += tables_scores_of(&b->seq[i]);
        if (m->n_states) s.n_checkpoints += b->seq[i].n_checkpoints;
    }
    s.stride = (uint32_t)ceil_div(longest, m->block_tokens);
    return s;
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
    const uint32_t n = (uint32_t)ceil_div(end_of(s), f->m->block_tokens);
    for (uint32_t g = 0; g < f->m->n_groups; g++) {
        int32_t *to = table(f, f->at.blocks[g]) + (size_t)entry * stride;
        memcpy(to, s->blocks[g], n * sizeof *to);
        for (uint32_t i = n; i < stride; i++) to[i] = -1;
    }
}

static void fill_state(filler *f, uint32_t entry) {
    const batch_seq *s = &f->b->seq[entry];
    table(f, f->at.state)[entry] = f->m->n_states ? (int32_t)s->state : -1;
    for (uint32_t i = 0; f->m->n_states && i < s->n_checkpoints; i++, f->checkpoints++) {
        int32_t *to = table(f, f->at.checkpoints) + 3 * (size_t)f->checkpoints;
        to[0] = (int32_t)entry;
        to[1] = (int32_t)s->checkpoints[i].n_tokens;
        to[2] = (int32_t)s->checkpoints[i].state;
    }
}

static void fill_gathered(filler *f, uint32_t entry) {
    const batch_seq *s = &f->b->seq[entry];
    const uint32_t first = s->n_rows - s->n_logit_rows, n_scores = tables_scores_of(s);
    tables_score *scores = (tables_score *)table(f, f->at.scores);
    for (uint32_t k = 0; k < s->n_logit_rows; k++, f->gathered++) {
        table(f, f->at.gathered)[f->gathered] = (int32_t)(s->first_row + first + k);
        if (k >= n_scores) continue;
        tables_score *x = &scores[f->scores++];
        x->logit_row = (int32_t)f->gathered;
        x->token = s->tokens[s->first_pos + first + k + 1];
        x->n_top = s->n_score;
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

static void fill_history(filler *f, const batch_seq *s, tables_sampling *x) {
    if (!sampling_penalises(s->params)) return;
    /* The token that the previous step draws is known to the engine alone. */
    x->n_history = s->input_from >= 0 ? s->first_pos : end_of(s);
    x->history_from = s->input_from;
    x->history_at = put_words(f, s->tokens, x->n_history);
}

_Static_assert(sizeof(logit_bias) == 2 * sizeof(int32_t), "a bias is two words of the lists");

static void fill_draw(filler *f, const batch_seq *s, tables_sampling *x) {
    const sampling *p = s->params;
    const uint32_t next = end_of(s), n_output = next > s->n_prompt ? next - s->n_prompt : 0;
    x->logit_row = (int32_t)f->gathered - 1; /* the entry's last */
    x->position = next;
    x->seed[0] = (uint32_t)p->seed, x->seed[1] = (uint32_t)(p->seed >> 32);
    x->temperature = p->temperature, x->top_k = p->top_k;
    x->top_p = p->top_p, x->min_p = p->min_p, x->typical_p = p->typical_p;
    x->repetition_penalty = p->repetition_penalty;
    x->presence_penalty = p->presence_penalty;
    x->frequency_penalty = p->frequency_penalty;
    x->n_logprobs = p->n_logprobs;
    if (n_output < p->min_tokens) {
        x->min_tokens = p->min_tokens, x->n_end = p->n_end_tokens;
        x->end_at = put_words(f, p->end_tokens, x->n_end);
    }
    x->n_bias = p->n_bias;
    x->bias_at = put_words(f, p->bias, 2 * p->n_bias);
    x->n_allowed = s->allowed ? sampling_mask_words(f->m->n_vocab) : 0;
    x->allowed_at = put_words(f, s->allowed, x->n_allowed);
    fill_history(f, s, x);
}

static void fill_sampling(filler *f, uint32_t entry) {
    const batch_seq *s = &f->b->seq[entry];
    tables_sampling x = {
        .logit_row = -1, .history_from = -1, .n_prompt = s->n_prompt, .n_score = s->n_score};
    if (s->sample) fill_draw(f, s, &x);
    memcpy(f->base + f->at.sampling + entry * sizeof x, &x, sizeof x);
}

/* ---- the whole ---- */

static void fill_copies(filler *f, tables_head *h) {
    int32_t *to = table(f, f->at.copies);
    for (uint32_t g = 0; g <= ENGINE_COPY_STATE; g++)
        for (uint32_t i = 0; i < f->b->n_copies; i++) {
            if (f->b->copies[i].group != g) continue;
            *to++ = f->b->copies[i].from;
            *to++ = f->b->copies[i].to;
            h->n_copies[g]++;
        }
}

uint64_t tables_fill(void *to, const tables_model *m, const tables_shape *shape,
                     const batch *b) {
    filler f = {.m = m, .b = b, .base = to, .at = tables_lay(m->n_groups, shape)};
    tables_head h = {.magic = TABLES_MAGIC,
                     .version = TABLES_VERSION,
                     .shape = *shape,
                     .n_groups = m->n_groups,
                     .block_tokens = m->block_tokens,
                     .n_seqs = b->n_seqs,
                     .n_rows = b->n_rows,
                     .n_logit_rows = b->n_logit_rows};
    fill_copies(&f, &h);
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        fill_rows(&f, i);
        fill_blocks(&f, i, shape->stride);
        fill_state(&f, i);
        fill_gathered(&f, i);
        fill_sampling(&f, i);
    }
    h.bytes = f.at.lists + f.words * sizeof(int32_t);
    memcpy(to, &h, sizeof h);
    return h.bytes;
}
