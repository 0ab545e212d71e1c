/* The cells and checks behind fake.h. */
#include "sim/fake.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"

typedef struct cell {
    uint64_t user; /* + 1; 0: never written */
    uint64_t past; /* hash of all tokens up to and including this position */
    uint32_t pos;
} cell;

typedef struct touch {
    uint64_t user, step; /* the newest step that may touch it, and for whom */
} touch;

struct fake_engine {
    sched_config cfg;
    uint32_t n_vocab;
    cell *cells;        /* [n_blocks][block_tokens] */
    touch *block_touch; /* [n_blocks] */
    touch *slot_touch;  /* [max_seqs] */
    int32_t *last;      /* [max_seqs] tokens of the step collected last */
    uint64_t last_number;
    const step *queue[2];
    int32_t *input[2]; /* [max_rows] of the queued steps, as read when they were submitted */
    uint32_t n_queued;
};

uint64_t fake_extend(uint64_t past, int32_t token) {
    return hash_mix(past + 0x9e3779b97f4a7c15u + (uint32_t)token);
}

uint64_t fake_start(const int32_t *prompt, uint32_t n_prompt) {
    uint64_t past = 0;
    for (uint32_t i = 0; i < n_prompt; i++) past = fake_extend(past, prompt[i]);
    return past;
}

int32_t fake_next(uint64_t past, uint32_t n_vocab) {
    return (int32_t)(hash_mix(past ^ 0x746f6b656eu) % n_vocab);
}

status fake_open(fake_engine **out, const sched_config *cfg, uint32_t n_vocab, err *e) {
    fake_engine *f = calloc(1, sizeof *f);
    if (f) {
        f->cfg = *cfg;
        f->n_vocab = n_vocab;
        f->cells = calloc((size_t)cfg->n_blocks * cfg->block_tokens, sizeof *f->cells);
        f->block_touch = calloc(cfg->n_blocks, sizeof *f->block_touch);
        f->slot_touch = calloc(cfg->max_seqs, sizeof *f->slot_touch);
        f->last = calloc(cfg->max_seqs, sizeof *f->last);
        f->input[0] = calloc(cfg->max_rows, sizeof *f->input[0]);
        f->input[1] = calloc(cfg->max_rows, sizeof *f->input[1]);
    }
    if (!f || !f->cells || !f->block_touch || !f->slot_touch || !f->last || !f->input[0] ||
        !f->input[1]) {
        fake_close(f);
        return err_set(e, ERR_NO_MEMORY, "no memory for the fake engine");
    }
    *out = f;
    return OK;
}

void fake_close(fake_engine *f) {
    if (!f) return;
    free(f->cells);
    free(f->block_touch);
    free(f->slot_touch);
    free(f->last);
    free(f->input[0]);
    free(f->input[1]);
    free(f);
}

/* Steps below committed_before are committed: touching what they touched is fine. */
static void take_touch(touch *t, uint64_t user, uint64_t number, uint64_t oldest_uncommitted) {
    CHECK(t->step < oldest_uncommitted || t->user == user); /* else the fence leaks */
    t->user = user;
    t->step = number;
}

void fake_submit(fake_engine *f, const sched *s, const step *st) {
    CHECK(f->n_queued < 2);
    uint64_t oldest = f->n_queued > 0 ? f->queue[0]->number : st->number;
    for (uint32_t i = 0; i < st->n_seqs; i++) {
        const step_seq *e = &st->seq[i];
        const int32_t *table = sched_blocks(s, e->slot);
        take_touch(&f->slot_touch[e->slot], e->user, st->number, oldest);
        for (uint32_t b = 0; b < e->n_blocks; b++) {
            take_touch(&f->block_touch[table[b]], e->user, st->number, oldest);
        }
        CHECK(e->input_from < 0 || (e->n_rows == 1 && f->n_queued == 1 &&
                                    (uint32_t)e->input_from < f->queue[0]->n_seqs &&
                                    f->queue[0]->seq[e->input_from].user == e->user &&
                                    f->queue[0]->seq[e->input_from].sample));
        memcpy(f->input[st->number & 1] + e->first_row, sched_tokens(s, e->slot) + e->first_pos,
               e->n_rows * sizeof(int32_t));
    }
    f->queue[f->n_queued++] = st;
}

static cell *cell_at(const fake_engine *f, const int32_t *table, uint32_t pos) {
    uint32_t n = f->cfg.block_tokens;
    return &f->cells[(size_t)table[pos / n] * n + pos % n];
}

static uint64_t read_past(const fake_engine *f, const int32_t *table, uint64_t user,
                          uint32_t n) {
    uint64_t past = 0;
    for (uint32_t pos = 0; pos < n; pos++) {
        const cell *c = cell_at(f, table, pos);
        CHECK(c->user == user + 1 && c->pos == pos);
        past = c->past;
    }
    return past;
}

static int32_t run_entry(fake_engine *f, const sched *s, const step *st, const step_seq *e) {
    const int32_t *table = sched_blocks(s, e->slot);
    const int32_t *input = f->input[st->number & 1] + e->first_row;
    CHECK(f->slot_touch[e->slot].user == e->user);
    CHECK((uint64_t)e->n_blocks * f->cfg.block_tokens >= (uint64_t)e->first_pos + e->n_rows);
    uint64_t past = read_past(f, table, e->user, e->first_pos);
    for (uint32_t i = 0; i < e->n_rows; i++) {
        uint32_t pos = e->first_pos + i;
        int32_t token = input[i];
        if (e->input_from >= 0) {
            CHECK(f->last_number == st->number - 1);
            token = f->last[e->input_from];
        }
        past = fake_extend(past, token);
        *cell_at(f, table, pos) = (cell){.user = e->user + 1, .past = past, .pos = pos};
    }
    return e->sample ? fake_next(past, f->n_vocab) : -1;
}

const step *fake_collect(fake_engine *f, const sched *s, int32_t *tokens) {
    CHECK(f->n_queued > 0);
    const step *st = f->queue[0];
    for (uint32_t i = 0; i < st->n_seqs; i++) tokens[i] = run_entry(f, s, st, &st->seq[i]);
    memcpy(f->last, tokens, st->n_seqs * sizeof *tokens);
    f->last_number = st->number;
    f->queue[0] = f->queue[1];
    f->n_queued--;
    return st;
}

uint32_t fake_in_flight(const fake_engine *f) {
    return f->n_queued;
}
