/* Slots for experts. The step's thread 0 has the table of slots and asks for readings, which are a queue
 * of jobs under a lock; readers take the first job's next piece, read it past the page cache into a
 * buffer of their own, and pack it into its slot. A slot that is read, or waited for, has a pin. */
#include "engine/cpu/experts.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/thread.h"
#include "memory/term.h"
#include "model/direct_file.h"

/* One matrix of each expert of a layer, and where it lies. */
typedef struct expert_matrix {
    dtype type;
    uint32_t rows, cols, step; /* step: rows of a piece */
    uint32_t file;
    expert_store stored;
    uint64_t slot_at;
} expert_matrix;

typedef struct expert_layer {
    uint32_t n_up, n_pieces[2]; /* n_up: matrices before down; pieces of these, and of down */
    expert_matrix m[3];
} expert_layer;

typedef struct reader {
    struct cpu_experts *of;
    unsigned char *buffer;
    pthread_t thread;
} reader;

struct cpu_experts {
    ledger *ledger;
    expert_slots table; /* the step's thread 0's */
    uint64_t slot_bytes;
    expert_layer *layer; /* [n_layers] */
    direct_file *file;   /* [n_files], of *opened */
    int *opened;
    uint32_t n_files;
    unsigned char *slots, *tables, *buffers;
    expert_state *state; /* [n_slots] */
    /* The turn, and its wave: */
    uint32_t at, n_used, asked, from,
        to; /* at: the layer; asked: used[asked..] are not asked for */
    uint32_t *used, *order;
    bool failed;
    uint64_t known_ns; /* of stalled_ns, when it was last asked for */
    /* Of the queue, under lock: */
    pthread_mutex_t lock;
    pthread_cond_t more, done;
    expert_job *job; /* [2 * n_slots] */
    uint64_t first, last;
    bool stop;
    err error; /* the newest */
    uint32_t n_readers, n_threads;
    reader reader[EXPERT_READERS];
    _Atomic uint64_t hits, misses, read_bytes, read_errors, stalled_ns;
};

/* ---- readers ---- */

static uint32_t pieces_of_matrix(const expert_matrix *m) {
    return (uint32_t)ceil_div(m->rows, m->step);
}

static status store(const expert_matrix *m, void *tiles, uint32_t row, uint32_t n,
                    const void *rows, err *e) {
    const uint64_t blocks = (uint64_t)n * (m->cols / dtype_block_of(m->type).elems);
    if (!dtype_is_finite(m->type, rows, blocks))
        return err_set(e, ERR_FORMAT,
                       "reading the model's file: an expert has a number that is not finite");
    packed_store(tiles, m->type, m->rows, m->cols, row, n, rows);
    return OK;
}

/* Piece i of gate and up, or of down, of a slot's expert. */
static status read_piece(cpu_experts *x, const expert_job *j, uint32_t i, void *buffer,
                         err *e) {
    const uint32_t id = x->table.holds[j->slot], expert = id % x->table.n_experts;
    const expert_layer *l = &x->layer[id / x->table.n_experts];
    const expert_matrix *m = &l->m[j->down ? l->n_up : 0];
    for (; i >= pieces_of_matrix(m); m++) i -= pieces_of_matrix(m);
    const uint32_t row = i * m->step, n = m->rows - row < m->step ? m->rows - row : m->step;
    const uint64_t bytes = n * m->stored.row_bytes;
    void *rows;
    status s = direct_file_read(
        &x->file[m->file], m->stored.at + expert * m->stored.stride + row * m->stored.row_bytes,
        bytes, buffer, &rows, e);
    if (s != OK) return s;
    atomic_fetch_add_explicit(&x->read_bytes, bytes, memory_order_relaxed);
    return store(m, x->slots + j->slot * x->slot_bytes + m->slot_at, row, n, rows, e);
}

/* The first job's next piece, under the lock. False: the end. */
static bool next_piece(cpu_experts *x, expert_job *out) {
    while (x->first == x->last && !x->stop) pthread_cond_wait(&x->more, &x->lock);
    if (x->stop) return false;
    expert_job *j = &x->job[x->first % (2 * x->table.n_slots)];
    *out = *j;
    if (++j->next == j->n) x->first++;
    return true;
}

static void *reader_main(void *arg) {
    reader *r = arg;
    cpu_experts *x = r->of;
    expert_job j;
    pthread_mutex_lock(&x->lock);
    while (next_piece(x, &j)) {
        pthread_mutex_unlock(&x->lock);
        expert_state *state = &x->state[j.slot];
        err e;
        const bool skip = atomic_load_explicit(&state->failed, memory_order_relaxed);
        const bool bad = !skip && read_piece(x, &j, j.next, r->buffer, &e) != OK;
        pthread_mutex_lock(&x->lock);
        if (bad) {
            x->error = e;
            atomic_store_explicit(&state->failed, true, memory_order_relaxed);
            atomic_fetch_add_explicit(&x->read_errors, 1, memory_order_relaxed);
        }
        if (atomic_fetch_sub_explicit(&state->left[j.down], 1, memory_order_acq_rel) == 1)
            pthread_cond_broadcast(&x->done);
    }
    pthread_mutex_unlock(&x->lock);
    return NULL;
}

static status start_readers(cpu_experts *x, uint64_t buffer_bytes, err *e) {
    int code = 0;
    while (x->n_readers < EXPERT_READERS && !code) {
        reader *r = &x->reader[x->n_readers];
        *r = (reader){.of = x, .buffer = x->buffers + x->n_readers * buffer_bytes};
        code = thread_start(&r->thread, reader_main, r);
        x->n_readers += code == 0;
    }
    if (!code) return OK;
    err_set(e, ERR_NO_MEMORY,
            "cannot start a thread that reads experts (class runtime, error %d)", code);
    return err_hint(e, "raise the limit on processes");
}

/* ---- open and close ---- */

/* The number of a file that the checkpoint has open. */
static status find_file(cpu_experts *x, int fd, uint32_t *out, err *e) {
    for (*out = 0; *out < x->n_files; ++*out)
        if (x->opened[*out] == fd) return OK;
    const size_t n = x->n_files + 1;
    int *opened = realloc(x->opened, n * sizeof *opened);
    if (opened) x->opened = opened;
    direct_file *file = realloc(x->file, n * sizeof *file);
    if (file) x->file = file;
    if (!opened || !file) return mem_exhausted(e, MEM_RUNTIME, "the files of the experts");
    const status s = direct_file_open(&x->file[x->n_files], fd, e);
    if (s == OK) x->opened[x->n_files++] = fd;
    return s;
}

static status find_layer(cpu_experts *x, const model *m, const op *up, expert_layer *out,
                         err *e) {
    const expert_parts parts = layout_expert_parts(&m->program, up);
    status s = OK;
    *out = (expert_layer){.n_up = parts.n - 1};
    for (uint32_t i = 0; i < parts.n && s == OK; i++) {
        const weight *w = &m->program.weights[parts.w[i]];
        expert_matrix *to = &out->m[i];
        *to = (expert_matrix){.type = w->type,
                              .rows = w->rows,
                              .cols = w->cols,
                              .step = layout_expert_rows(w),
                              .slot_at = parts.at[i]};
        s = model_expert_rows(m, parts.w[i], &to->stored, e);
        if (s == OK) s = find_file(x, to->stored.fd, &to->file, e);
        out->n_pieces[i == out->n_up] += pieces_of_matrix(to);
    }
    return s;
}

static status find_layers(cpu_experts *x, const model *m, uint32_t n_layers, err *e) {
    const program *p = &m->program;
    status s = OK;
    x->layer = calloc(n_layers, sizeof *x->layer);
    if (!x->layer) return mem_exhausted(e, MEM_RUNTIME, "the layers with experts");
    for (uint32_t i = 0, k = 0; i < p->n_ops && s == OK; i++)
        if (p->ops[i].kind == OP_EXPERTS_GATE_UP)
            s = find_layer(x, m, &p->ops[i], &x->layer[k++], e);
    return s;
}

static status alloc(cpu_experts *x, const expert_shape *shape, uint32_t n_slots, err *e) {
    const expert_tables t = layout_expert_tables(shape, n_slots);
    void *slots = NULL, *tables = NULL, *buffers = NULL;
    status s = ledger_alloc_raw(x->ledger, &slots, MEM_EXPERTS, n_slots * shape->slot_bytes,
                                "slots for experts", e);
    if (s == OK)
        s = ledger_alloc(x->ledger, &tables, MEM_EXPERTS, t.bytes, "which experts are where",
                         e);
    if (s == OK)
        s = ledger_alloc(x->ledger, &buffers, MEM_EXPERTS,
                         EXPERT_READERS * layout_expert_buffer(shape), "buffers of readers", e);
    x->slots = slots;
    x->tables = tables;
    x->buffers = buffers;
    if (s != OK) return s;
    expert_slots_init(&x->table, x->tables + t.slots, shape->n_layers, shape->n_most, n_slots);
    x->state = (expert_state *)(void *)(x->tables + t.state);
    x->job = (expert_job *)(void *)(x->tables + t.job);
    x->order = (uint32_t *)(void *)(x->tables + t.order);
    x->used = (uint32_t *)(void *)(x->tables + t.used);
    x->slot_bytes = shape->slot_bytes;
    return OK;
}

status experts_open(cpu_experts **out, cpu_engine *en, err *e) {
    const expert_shape *shape = &en->layout.experts;
    cpu_experts *x = calloc(1, sizeof *x);
    *out = x; /* the engine closes it */
    if (!x) return mem_exhausted(e, MEM_RUNTIME, "the experts");
    x->ledger = en->ledger;
    x->n_threads = en->opt.n_threads;
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->more, NULL);
    pthread_cond_init(&x->done, NULL);
    status s = find_layers(x, en->model, shape->n_layers, e);
    if (s == OK) s = alloc(x, shape, en->opt.expert_slots, e);
    return s == OK ? start_readers(x, layout_expert_buffer(shape), e) : s;
}

void experts_close(cpu_experts *x) {
    if (!x) return;
    pthread_mutex_lock(&x->lock);
    x->stop = true;
    pthread_cond_broadcast(&x->more);
    pthread_mutex_unlock(&x->lock);
    for (uint32_t i = 0; i < x->n_readers; i++) pthread_join(x->reader[i].thread, NULL);
    for (uint32_t i = 0; i < x->n_files; i++) direct_file_close(&x->file[i]);
    ledger_free(x->ledger, x->slots);
    ledger_free(x->ledger, x->tables);
    ledger_free(x->ledger, x->buffers);
    pthread_cond_destroy(&x->done);
    pthread_cond_destroy(&x->more);
    pthread_mutex_destroy(&x->lock);
    free(x->opened);
    free(x->file);
    free(x->layer);
    free(x);
}

/* ---- a step ---- */

uint32_t experts_wave_end(const cpu_experts *x, uint32_t n, uint32_t from) {
    const uint32_t most = n <= x->table.n_slots ? n : x->table.n_slots / 2;
    return n - from < most ? n : from + most;
}

void experts_turn(cpu_experts *x, uint32_t layer, const uint32_t *used, uint32_t n) {
    x->at = layer;
    x->n_used = n;
    x->asked = 0;
    memcpy(x->used, used, n * sizeof *used);
    expert_slots_turn(&x->table, layer, used, n);
}

static uint32_t slot_of(const cpu_experts *x, uint32_t expert) {
    const uint32_t slot = expert_slots_find(&x->table, x->at, expert);
    CHECK(slot != EXPERT_NONE);
    return slot;
}

static void add_job(cpu_experts *x, uint32_t slot, uint32_t down) {
    CHECK(x->last - x->first < 2ull * x->table.n_slots);
    x->job[x->last++ % (2 * x->table.n_slots)] =
        (expert_job){.slot = slot, .down = down, .n = x->layer[x->at].n_pieces[down]};
}

/* A slot for an expert that has none; its state says what is to be read. */
static void give_slot(cpu_experts *x, uint32_t expert) {
    const uint32_t slot = expert_slots_take(&x->table, x->at, expert);
    CHECK(slot != EXPERT_NONE); /* a wave and the next one are no more than the slots */
    expert_state *state = &x->state[slot];
    for (int i = 0; i < 2; i++)
        atomic_store_explicit(&state->left[i], x->layer[x->at].n_pieces[i],
                              memory_order_relaxed);
    atomic_store_explicit(&state->failed, false, memory_order_relaxed);
}

/* Pins used[x->asked..to) and asks for those that are in no slot: gate and up of all, then down of all,
 * which are needed in that order. */
static void ask(cpu_experts *x, uint32_t to) {
    uint32_t *missing = x->order, n = 0;
    for (uint32_t i = x->asked; i < to; i++) { /* first, so that none of them gives way */
        const uint32_t slot = expert_slots_find(&x->table, x->at, x->used[i]);
        if (slot == EXPERT_NONE)
            missing[n++] = x->used[i];
        else
            x->table.pins[slot]++;
    }
    for (uint32_t i = 0; i < n; i++) {
        give_slot(x, missing[i]);
        x->table.pins[slot_of(x, missing[i])]++;
    }
    atomic_fetch_add_explicit(&x->hits, to - x->asked - n, memory_order_relaxed);
    atomic_fetch_add_explicit(&x->misses, n, memory_order_relaxed);
    x->asked = to;
    if (!n) return;
    pthread_mutex_lock(&x->lock);
    for (uint32_t down = 0; down < 2; down++)
        for (uint32_t i = 0; i < n; i++) add_job(x, slot_of(x, missing[i]), down);
    pthread_cond_broadcast(&x->more);
    pthread_mutex_unlock(&x->lock);
}

static bool is_there(const expert_state *s, bool down) {
    return !atomic_load_explicit(&s->left[down], memory_order_acquire);
}

/* Those that are there; then the others, in the order in which they come. */
static void order_wave(cpu_experts *x) {
    uint32_t n = 0, end = x->to - x->from;
    for (uint32_t i = x->to; i-- > x->from;)
        if (!is_there(&x->state[slot_of(x, x->used[i])], false)) x->order[--end] = x->used[i];
    for (uint32_t i = x->from, k = end; n < end; i++) {
        if (k < x->to - x->from && x->order[k] == x->used[i])
            k++;
        else
            x->order[n++] = x->used[i];
    }
}

void experts_take(cpu_experts *x, uint32_t from, uint32_t to, bool failed) {
    x->failed = failed;
    x->from = from;
    x->to = to;
    if (failed) return;
    if (x->asked < to) ask(x, to);
    if (to < x->n_used) ask(x, experts_wave_end(x, x->n_used, to));
    order_wave(x);
}

uint32_t experts_nth(const cpu_experts *x, uint32_t i) {
    return x->order[i];
}

static void wait_for(cpu_experts *x, const expert_state *s, bool down) {
    if (is_there(s, down)) return;
    const uint64_t since = clock_ns();
    pthread_mutex_lock(&x->lock);
    while (!is_there(s, down)) pthread_cond_wait(&x->done, &x->lock);
    pthread_mutex_unlock(&x->lock);
    atomic_fetch_add_explicit(&x->stalled_ns, clock_ns() - since, memory_order_relaxed);
}

bool experts_wait(cpu_experts *x, uint32_t expert, bool down, err *e) {
    const expert_state *s = x->failed ? NULL : &x->state[slot_of(x, expert)];
    if (s) wait_for(x, s, down);
    if (s && !atomic_load_explicit(&s->failed, memory_order_relaxed)) return true;
    pthread_mutex_lock(&x->lock);
    *e = x->error;
    pthread_mutex_unlock(&x->lock);
    return false;
}

void experts_give(cpu_experts *x) {
    /* Of a step that failed, what was asked for may still be on its way. */
    for (uint32_t i = x->from; i < (x->to < x->asked ? x->to : x->asked); i++) {
        const uint32_t slot = slot_of(x, x->used[i]);
        const expert_state *s = &x->state[slot];
        wait_for(x, s, false);
        wait_for(x, s, true);
        CHECK(x->table.pins[slot] > 0);
        x->table.pins[slot]--;
        if (atomic_load_explicit(&s->failed, memory_order_relaxed))
            expert_slots_forget(&x->table, slot);
    }
}

const unsigned char *experts_at(const cpu_experts *x, uint32_t layer, uint32_t expert) {
    const uint32_t slot = expert_slots_find(&x->table, layer, expert);
    CHECK(slot != EXPERT_NONE);
    return x->slots + slot * x->slot_bytes;
}

bool experts_stalled(cpu_experts *x) {
    const uint64_t was = x->known_ns;
    x->known_ns = atomic_load_explicit(&x->stalled_ns, memory_order_relaxed);
    return x->known_ns != was;
}

void experts_read_stats(const cpu_experts *x, expert_stats *out) {
    *out = (expert_stats){
        .n_slots = x->table.n_slots,
        .hits = atomic_load_explicit(&x->hits, memory_order_relaxed),
        .misses = atomic_load_explicit(&x->misses, memory_order_relaxed),
        .read_bytes = atomic_load_explicit(&x->read_bytes, memory_order_relaxed),
        .read_errors = atomic_load_explicit(&x->read_errors, memory_order_relaxed),
        .stalled_s = (double)atomic_load_explicit(&x->stalled_ns, memory_order_relaxed) / 1e9 /
                     x->n_threads};
}
