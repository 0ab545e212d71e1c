/* The cells and checks behind fake.h. */
#include "sim/fake.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"

typedef struct cell {
    uint64_t past; /* hash of all tokens up to and including this position; 0: never written */
    uint32_t pos;
} cell;

/* The newest steps that may write and read it, and for whom. */
typedef struct touch {
    uint64_t writer, wrote, reader, read;
} touch;

/* behind[i]: hash of the first base + i tokens, for i up to n. */
typedef struct fake_state {
    uint32_t base, n;
    uint64_t *behind; /* [state_rows] */
} fake_state;

enum { NO_USER = 0, MANY_USERS = 1, FIRST_USER = 2, MAX_RUN = 1 + SCHED_MAX_DRAFT };

struct fake_engine {
    sched_config cfg;
    uint32_t n_vocab;
    cell *cells[SCHED_MAX_GROUPS];        /* [n_blocks][block_tokens] */
    touch *block_touch[SCHED_MAX_GROUPS]; /* [n_blocks] */
    touch *slot_touch;                    /* [max_seqs] */
    fake_state *state;                    /* [state_slots] */
    touch *state_touch;                   /* [state_slots] */
    uint64_t *behind;                     /* [state_slots][state_rows] */
    int32_t *drawn[2];    /* [max_seqs][MAX_RUN] by the steps collected last; by parity */
    uint32_t *n_drawn[2]; /* [max_seqs] */
    uint64_t last_number;
    const sched_step *queue[2];
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

/* All that the group may ever have. */
static uint32_t n_blocks_of(const fake_engine *f, uint32_t group) {
    const sched_group *g = &f->cfg.group[group];
    return g->max_blocks ? g->max_blocks : g->n_blocks;
}

static bool open_groups(fake_engine *f) {
    bool ok = true;
    for (uint32_t k = 0; k < f->cfg.n_groups; k++) {
        size_t n = n_blocks_of(f, k);
        f->cells[k] = calloc(n * f->cfg.block_tokens, sizeof *f->cells[k]);
        f->block_touch[k] = calloc(n, sizeof *f->block_touch[k]);
        ok &= f->cells[k] && f->block_touch[k];
    }
    return ok;
}

/* Hashes in a slot: of a chunk that is not full, of guesses, and of what is before them. */
static size_t state_rows(const fake_engine *f) {
    return f->cfg.state_chunk + MAX_RUN + 1;
}

static bool open_states(fake_engine *f) {
    const size_t n = f->cfg.state_slots;
    if (n == 0) return true;
    f->state = calloc(n, sizeof *f->state);
    f->state_touch = calloc(n, sizeof *f->state_touch);
    f->behind = calloc(n * state_rows(f), sizeof *f->behind);
    if (!f->state || !f->state_touch || !f->behind) return false;
    for (size_t i = 0; i < n; i++) f->state[i].behind = f->behind + i * state_rows(f);
    return true;
}

static bool open_steps(fake_engine *f) {
    bool ok = true;
    for (int i = 0; i < 2; i++) {
        f->drawn[i] = calloc((size_t)f->cfg.max_seqs * MAX_RUN, sizeof *f->drawn[i]);
        f->n_drawn[i] = calloc(f->cfg.max_seqs, sizeof *f->n_drawn[i]);
        f->input[i] = calloc(f->cfg.max_rows, sizeof *f->input[i]);
        ok &= f->drawn[i] && f->n_drawn[i] && f->input[i];
    }
    return ok;
}

status fake_open(fake_engine **out, const sched_config *cfg, uint32_t n_vocab, err *e) {
    fake_engine *f = calloc(1, sizeof *f);
    if (f) {
        f->cfg = *cfg;
        f->n_vocab = n_vocab;
        f->slot_touch = calloc(cfg->max_seqs, sizeof *f->slot_touch);
    }
    if (!f || !f->slot_touch || !open_steps(f) || !open_groups(f) || !open_states(f)) {
        fake_close(f);
        return err_set(e, ERR_NO_MEMORY, "no memory for the fake engine");
    }
    *out = f;
    return OK;
}

void fake_close(fake_engine *f) {
    if (!f) return;
    for (uint32_t k = 0; k < SCHED_MAX_GROUPS; k++) {
        free(f->cells[k]);
        free(f->block_touch[k]);
    }
    free(f->slot_touch);
    free(f->state);
    free(f->state_touch);
    free(f->behind);
    for (int i = 0; i < 2; i++) {
        free(f->drawn[i]);
        free(f->n_drawn[i]);
        free(f->input[i]);
    }
    free(f);
}

/* Steps below oldest are committed: whatever they touched is nobody's any more. Within the
 * others, who writes is alone; readers may be many. */
static void write_touch(touch *t, uint64_t user, uint64_t number, uint64_t oldest) {
    CHECK(t->wrote < oldest || t->writer == user + FIRST_USER);
    CHECK(t->read < oldest || t->reader == user + FIRST_USER); /* else the fence leaks */
    t->writer = user + FIRST_USER;
    t->wrote = number;
}

static void read_touch(touch *t, uint64_t user, uint64_t number, uint64_t oldest) {
    CHECK(t->wrote < oldest || t->writer == user + FIRST_USER);
    bool other = t->read >= oldest && t->reader != user + FIRST_USER;
    t->reader = other ? MANY_USERS : user + FIRST_USER;
    t->read = number;
}

/* First position that a row at pos sees. */
static uint32_t first_seen(const fake_engine *f, uint32_t group, uint32_t pos) {
    uint32_t w = f->cfg.group[group].window;
    return w && pos >= w ? pos + 1 - w : 0;
}

static void touch_blocks(fake_engine *f, const sched *s, const sched_step *st,
                         const sched_step_seq *e, uint64_t oldest) {
    const uint32_t bs = f->cfg.block_tokens;
    for (uint32_t k = 0; k < f->cfg.n_groups; k++) {
        const int32_t *table = sched_blocks(s, e->slot, k);
        for (uint32_t b = first_seen(f, k, e->first_pos) / bs; b < e->n_blocks; b++) {
            CHECK(table[b] >= 0 && (uint32_t)table[b] < n_blocks_of(f, k));
            touch *t = &f->block_touch[k][table[b]];
            if ((b + 1) * bs > e->first_pos)
                write_touch(t, e->user, st->number, oldest);
            else
                read_touch(t, e->user, st->number, oldest);
        }
    }
}

/* Who writes a state is alone. Reading is a copy, in a step that runs before whoever writes it next. */
static void touch_states(fake_engine *f, const sched_step *st, uint64_t oldest) {
    for (uint32_t i = 0; i < st->n_seqs && f->state; i++) {
        CHECK(st->seq[i].state < f->cfg.state_slots);
        write_touch(&f->state_touch[st->seq[i].state], st->seq[i].user, st->number, oldest);
    }
    for (uint32_t i = 0; i < st->n_checkpoints; i++) {
        const sched_step_checkpoint *c = &st->checkpoint[i];
        CHECK(c->state < f->cfg.state_slots && c->entry < st->n_seqs);
        /* Not even by its own sequence. */
        CHECK(f->state_touch[c->state].wrote < oldest);
        write_touch(&f->state_touch[c->state], st->seq[c->entry].user, st->number, oldest);
    }
}

void fake_submit(fake_engine *f, const sched *s, const sched_step *st) {
    CHECK(f->n_queued < 2);
    uint64_t oldest = f->n_queued > 0 ? f->queue[0]->number : st->number;
    for (uint32_t i = 0; i < st->n_seqs; i++) {
        const sched_step_seq *e = &st->seq[i];
        write_touch(&f->slot_touch[e->slot], e->user, st->number, oldest);
        touch_blocks(f, s, st, e, oldest);
        CHECK(e->input_from < 0 || (e->n_rows == 1 && f->n_queued == 1 &&
                                    (uint32_t)e->input_from < f->queue[0]->n_seqs &&
                                    f->queue[0]->seq[e->input_from].user == e->user &&
                                    f->queue[0]->seq[e->input_from].sample));
        memcpy(f->input[st->number & 1] + e->first_row, sched_tokens(s, e->slot) + e->first_pos,
               e->n_rows * sizeof(int32_t));
    }
    touch_states(f, st, oldest);
    f->queue[f->n_queued++] = st;
}

static cell *cell_at(const fake_engine *f, uint32_t group, const int32_t *table, uint32_t pos) {
    uint32_t n = f->cfg.block_tokens;
    return &f->cells[group][(size_t)table[pos / n] * n + pos % n];
}

/* What a row at position n looks back at: every cell it sees in every group was computed from
 * the very tokens that its own history has, whoever wrote it. */
static uint64_t read_past(const fake_engine *f, const sched *s, const sched_step_seq *e) {
    const int32_t *tokens = sched_tokens(s, e->slot);
    uint64_t past = 0;
    for (uint32_t pos = 0; pos < e->first_pos; pos++) {
        past = fake_extend(past, tokens[pos]);
        for (uint32_t k = 0; k < f->cfg.n_groups; k++) {
            if (pos < first_seen(f, k, e->first_pos)) continue;
            const cell *c = cell_at(f, k, sched_blocks(s, e->slot, k), pos);
            CHECK(c->past == past && c->pos == pos);
        }
    }
    return past;
}

/* Only what is behind the last full chunk of n tokens is kept. */
static void fold(const fake_engine *f, fake_state *x, uint32_t n) {
    const uint32_t base = n - n % f->cfg.state_chunk;
    if (base <= x->base) return;
    const uint32_t by = base - x->base;
    CHECK(by <= x->n);
    x->n -= by;
    x->base = base;
    memmove(x->behind, x->behind + by, (x->n + 1) * sizeof *x->behind);
}

/* Goes back to the entry's first row: the state is that of its very tokens. */
static void begin_state(const fake_engine *f, const sched_step_seq *e, uint64_t past) {
    fake_state *x = &f->state[e->state];
    if (e->first_pos == 0) x->base = x->n = 0, x->behind[0] = 0;
    CHECK(x->base <= e->first_pos && e->first_pos <= x->base + x->n);
    x->n = e->first_pos - x->base;
    CHECK(x->behind[x->n] == past);
    fold(f, x, e->first_pos);
}

/* One row more; known: it is no guess. */
static void extend_state(const fake_engine *f, const sched_step_seq *e, uint64_t past,
                         bool known) {
    fake_state *x = &f->state[e->state];
    CHECK(x->n + 1 < state_rows(f));
    x->behind[++x->n] = past;
    if (known) fold(f, x, x->base + x->n);
}

static void write_checkpoints(const fake_engine *f, const sched_step *st, uint32_t entry,
                              uint32_t n_tokens, uint64_t past) {
    for (uint32_t i = 0; i < st->n_checkpoints; i++) {
        const sched_step_checkpoint *c = &st->checkpoint[i];
        if (c->entry != entry || c->n_tokens != n_tokens) continue;
        CHECK(n_tokens % f->cfg.state_chunk == 0);
        f->state[c->state].base = n_tokens;
        f->state[c->state].n = 0;
        f->state[c->state].behind[0] = past;
    }
}

/* Draws entry i's run: with drafts each row draws what comes after it, up to a draft that is
 * not what the row before it drew; it is in the cells then, and so are those behind it. */
static void run_entry(fake_engine *f, const sched *s, const sched_step *st, uint32_t i) {
    const sched_step_seq *e = &st->seq[i];
    int32_t *run = f->drawn[st->number & 1] + (size_t)i * MAX_RUN;
    const uint32_t first_drawing = e->n_rows - 1 - e->n_draft;
    const int32_t *input = f->input[st->number & 1] + e->first_row;
    CHECK(f->slot_touch[e->slot].writer == e->user + FIRST_USER);
    CHECK((uint64_t)e->n_blocks * f->cfg.block_tokens >= (uint64_t)e->first_pos + e->n_rows);
    uint64_t past = read_past(f, s, e);
    if (f->state) begin_state(f, e, past);
    uint32_t n = 0;
    bool accepted = true;
    for (uint32_t r = 0; r < e->n_rows; r++) {
        uint32_t pos = e->first_pos + r;
        int32_t token = input[r];
        if (e->input_from >= 0) {
            const uint32_t before = (st->number - 1) & 1;
            CHECK(f->last_number == st->number - 1 && f->n_drawn[before][e->input_from] == 1);
            token = f->drawn[before][(size_t)e->input_from * MAX_RUN];
        }
        if (r > first_drawing) accepted &= token == run[r - first_drawing - 1];
        past = fake_extend(past, token);
        for (uint32_t k = 0; k < f->cfg.n_groups; k++)
            *cell_at(f, k, sched_blocks(s, e->slot, k), pos) = (cell){.past = past, .pos = pos};
        if (f->state) extend_state(f, e, past, r + e->n_draft < e->n_rows);
        if (f->state) write_checkpoints(f, st, i, pos + 1, past);
        if (e->sample && r >= first_drawing && accepted) run[n++] = fake_next(past, f->n_vocab);
    }
    f->n_drawn[st->number & 1][i] = n;
}

static void copy_state(const fake_engine *f, const sched_step_copy *c) {
    const fake_state *from = &f->state[c->from];
    fake_state *to = &f->state[c->to];
    to->base = from->base;
    to->n = from->n;
    memcpy(to->behind, from->behind, state_rows(f) * sizeof *to->behind);
}

static void run_copies(fake_engine *f, const sched_step *st) {
    const uint32_t n = f->cfg.block_tokens;
    for (uint32_t i = 0; i < st->n_copies; i++) {
        const sched_step_copy *c = &st->copy[i];
        if (c->group == SCHED_COPY_STATE) {
            copy_state(f, c);
            continue;
        }
        cell *cells = f->cells[c->group];
        memcpy(cells + (size_t)c->to * n, cells + (size_t)c->from * n, n * sizeof *cells);
    }
}

const sched_step *fake_collect(fake_engine *f, const sched *s, sched_step_tokens *tokens) {
    CHECK(f->n_queued > 0);
    const sched_step *st = f->queue[0];
    run_copies(f, st);
    for (uint32_t i = 0; i < st->n_seqs; i++) run_entry(f, s, st, i);
    *tokens =
        (sched_step_tokens){f->drawn[st->number & 1], f->n_drawn[st->number & 1], MAX_RUN};
    f->last_number = st->number;
    f->queue[0] = f->queue[1];
    f->n_queued--;
    return st;
}

uint32_t fake_in_flight(const fake_engine *f) {
    return f->n_queued;
}

size_t fake_block_bytes(const fake_engine *f) {
    return f->cfg.block_tokens * sizeof(cell);
}

void fake_export(const fake_engine *f, uint32_t group, int32_t block, void *out) {
    CHECK(block >= 0 && (uint32_t)block < n_blocks_of(f, group));
    memcpy(out, f->cells[group] + (size_t)block * f->cfg.block_tokens, fake_block_bytes(f));
}

void fake_import(fake_engine *f, uint32_t group, int32_t block, const void *in) {
    CHECK(block >= 0 && (uint32_t)block < n_blocks_of(f, group));
    cell *to = f->cells[group] + (size_t)block * f->cfg.block_tokens;
    if (in)
        memcpy(to, in, fake_block_bytes(f));
    else
        memset(to, 0x5a, fake_block_bytes(f));
}
