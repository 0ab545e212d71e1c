/* Rows from a checkpoint to a file. The main thread owns the buffers and the journal; workers take units, runs of
 * rows of one tensor, in order. */
#include "daemon/quantize/convert.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "daemon/quantize/journal.h"
#include "memory/term.h"
#include "model/gguf/gguf.h"
#include "quant/grouped.h"
#include "quant/quant.h"

enum { UNIT_NUMBERS = 1 << 16, UNIT_MIN_ROWS = 16, PROGRESS_MS = 200 };

typedef struct work {
    conversion *c;
    const quant_job *job;
    journal notes;
    uint64_t *first; /* [n + 1]: index of a tensor's first unit */
    pthread_mutex_t lock;
    pthread_cond_t more, idle;
    uint64_t next, end; /* units to be taken */
    uint64_t n_active, numbers_done;
    bool quit;
    status s;
    err e;
} work;

typedef struct worker {
    work *w;
    pthread_t thread;
    uint32_t number;
    unsigned char *raw, *coded;
    float *rows;
} worker;

/* ---- units ---- */

static uint64_t rows_of_unit(const quant_tensor *t) {
    const uint64_t rows = UNIT_NUMBERS / t->cols;
    return rows > UNIT_MIN_ROWS ? rows : UNIT_MIN_ROWS;
}

typedef struct unit {
    const quant_tensor *t;
    uint64_t row, n_rows, offset, bytes; /* offset in the file */
} unit;

static unit unit_at(const work *w, uint64_t i) {
    size_t low = 0, high = w->job->n; /* first[low] <= i < first[high] */
    while (high - low > 1) {
        const size_t mid = low + (high - low) / 2;
        if (w->first[mid] <= i)
            low = mid;
        else
            high = mid;
    }
    const quant_tensor *t = &w->job->v[low];
    const uint64_t rows = rows_of_unit(t), row_bytes = quant_row_bytes(t->to, t->cols);
    unit u = {.t = t, .row = (i - w->first[low]) * rows};
    u.n_rows = t->rows - u.row < rows ? t->rows - u.row : rows;
    u.offset = w->job->header.len + t->offset + u.row * row_bytes;
    u.bytes = u.n_rows * row_bytes;
    return u;
}
static void unit_place(const void *arg, uint64_t i, uint64_t *offset, uint64_t *bytes) {
    const unit u = unit_at(arg, i);
    *offset = u.offset, *bytes = u.bytes;
}

static void most(uint64_t *a, uint64_t b) {
    if (b > *a) *a = b;
}
/* The largest unit in each of the three forms. */
static void unit_maxima(const quant_job *j, uint64_t *raw, uint64_t *numbers, uint64_t *coded) {
    *raw = *numbers = *coded = 0;
    for (size_t i = 0; i < j->n; i++) {
        const quant_tensor *t = &j->v[i];
        uint64_t rows = rows_of_unit(t);
        if (rows > t->rows) rows = t->rows;
        most(raw, rows * (tensor_bytes(&t->info) / t->rows));
        most(numbers, rows * t->cols);
        most(coded, rows * quant_row_bytes(t->to == DT_NONE ? DT_F32 : t->to, t->cols));
    }
}
uint64_t convert_bytes_of_thread(const quant_job *j) {
    uint64_t raw, numbers, coded;
    unit_maxima(j, &raw, &numbers, &coded);
    return raw + numbers * sizeof(float) + coded;
}

/* ---- one unit ---- */

static status not_finite(const work *w, const quant_tensor *t, bool stored, err *e) {
    err_set(e, ERR_UNSUPPORTED, "%.150s: %.64s has numbers that %s",
            checkpoint_path(w->job->in), t->info.name,
            stored ? "are too large for its new type" : "are not finite");
    if (stored) err_hint(e, "take BF16 or F32");
    return err_field(e, "%s", t->info.name);
}

static void encode(const worker *k, const unit *u) {
    const quant_hooks *h = k->w->c->hooks;
    const quant_tensor *t = u->t;
    if (h && h->encode &&
        h->encode(h->arg, t->info.name, t->to, k->rows, u->row, u->n_rows, t->cols, k->coded,
                  k->number))
        return;
    const size_t bytes = quant_row_bytes(t->to, t->cols);
    for (uint64_t r = 0; r < u->n_rows; r++)
        quant_encode_row(t->to, k->rows + r * t->cols, t->cols, NULL, k->coded + r * bytes);
}

/* Groups as the blocks of a type that repeats their scales. */
static status ungroup(const worker *k, const unit *u, err *e) {
    const quant_tensor *t = u->t;
    const size_t in = quant_row_bytes(t->info.type, t->cols),
                 out = quant_row_bytes(t->to, t->cols);
    for (uint64_t r = 0; r < u->n_rows; r++)
        if (!quant_ungroup_row(t->info.type, k->raw + r * in, t->cols, k->coded + r * out)) {
            err_set(
                e, ERR_UNSUPPORTED,
                "%.150s: F16 does not hold the scales of %.64s, so %s cannot have its numbers",
                checkpoint_path(k->w->job->in), t->info.name, dtype_name(t->to));
            err_hint(
                e,
                "--type F32 keeps every number; smaller types lose: --type Q8_0 --requantize");
            return err_field(e, "%s", t->info.name);
        }
    return OK;
}

static status convert_unit(worker *k, uint64_t i, err *e) {
    work *w = k->w;
    const unit u = unit_at(w, i);
    const quant_tensor *t = u.t;
    const quant_hooks *h = w->c->hooks;
    const dtype_block to = dtype_block_of(t->to), from = dtype_block_of(t->info.type);
    const uint64_t n = u.n_rows * t->cols;
    unsigned char *raw = t->info.type == DT_F32 ? (unsigned char *)k->rows : k->raw;
    status s = checkpoint_read_rows(w->job->in, t->in, u.row, u.n_rows, raw, e);
    if (s != OK) return s;
    if (!dtype_is_finite(t->info.type, raw, n / from.elems)) return not_finite(w, t, false, e);
    const void *coded = k->coded;
    if (t->to == t->info.type && !(h && h->values))
        coded = raw;
    else if (t->to == quant_own(t->info.type) && !(h && h->values)) {
        if ((s = ungroup(k, &u, e)) != OK) return s;
    } else {
        if (raw == k->raw) quant_decode_row(t->info.type, raw, n, k->rows);
        if (h && h->values) h->values(h->arg, t->info.name, u.row, u.n_rows, t->cols, k->rows);
        encode(k, &u);
    }
    if (!dtype_is_finite(t->to, coded, n / to.elems)) return not_finite(w, t, true, e);
    s = journal_write(&w->notes, u.offset, coded, u.bytes, e);
    return s == OK ? journal_note(&w->notes, i, coded, u.bytes, e) : s;
}

/* ---- threads ---- */

static void *worker_main(void *arg) {
    worker *k = arg;
    work *w = k->w;
    pthread_mutex_lock(&w->lock);
    while (!w->quit) {
        if (w->next == w->end) {
            pthread_cond_wait(&w->more, &w->lock);
            continue;
        }
        const uint64_t i = w->next++;
        const unit u = unit_at(w, i);
        w->n_active++;
        pthread_mutex_unlock(&w->lock);
        err e;
        const status s = w->notes.done[i] ? OK : convert_unit(k, i, &e);
        pthread_mutex_lock(&w->lock);
        if (s != OK && w->s == OK) w->s = s, w->e = e;
        if (w->s != OK) w->next = w->end;
        w->numbers_done += u.n_rows * u.t->cols;
        w->n_active--;
        if (w->next == w->end && !w->n_active) pthread_cond_signal(&w->idle);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void show(const work *w, uint64_t numbers, uint64_t started_us) {
    enum { WIDTH = 40 };
    const double share = numbers ? (double)w->numbers_done / (double)numbers : 1;
    const double s = (double)(clock_us() - started_us) / 1e6;
    char bar[WIDTH + 1];
    memset(bar, '.', WIDTH);
    memset(bar, '#', (size_t)(share * WIDTH));
    bar[WIDTH] = '\0';
    fprintf(stderr, "\r[%s] %3.0f%%  %.0f s, %.0f left ", bar, share * 100, s,
            share > 0 ? s / share - s : 0);
    fflush(stderr);
}

/* Units up to end, by the workers. */
static status run_to(work *w, uint64_t end, uint64_t numbers, uint64_t started_us) {
    pthread_mutex_lock(&w->lock);
    w->end = end;
    pthread_cond_broadcast(&w->more);
    while (w->next < w->end || w->n_active) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += PROGRESS_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&w->idle, &w->lock, &until);
        if (w->c->progress) show(w, numbers, started_us);
        if (*w->c->interrupted && w->s == OK) {
            w->s = err_set(&w->e, ERR_INVALID, "interrupted");
            err_hint(&w->e, "the same command continues where it stopped");
            w->next = w->end;
        }
    }
    const status s = w->s;
    pthread_mutex_unlock(&w->lock);
    return s;
}

/* With a hook at the beginning of tensors they go one after the other, else all at once. */
static status run_all(work *w) {
    const quant_job *j = w->job;
    const quant_hooks *h = w->c->hooks;
    const uint64_t started_us = clock_us();
    uint64_t numbers = 0;
    for (size_t i = 0; i < j->n; i++) numbers += j->v[i].rows * j->v[i].cols;
    if (!h || !h->begin) return run_to(w, w->first[j->n], numbers, started_us);
    for (size_t i = 0; i < j->n; i++) {
        status s = h->begin(h->arg, j->v[i].info.name, j->v[i].to, &w->e);
        if (s == OK) s = run_to(w, w->first[i + 1], numbers, started_us);
        if (s != OK) return s;
    }
    return OK;
}

static void end_workers(work *w, worker *k, uint32_t n) {
    pthread_mutex_lock(&w->lock);
    w->quit = true;
    pthread_cond_broadcast(&w->more);
    pthread_mutex_unlock(&w->lock);
    for (uint32_t i = 0; i < n; i++) pthread_join(k[i].thread, NULL);
}

static status with_workers(work *w, err *e) {
    uint64_t raw, numbers, coded;
    uint32_t n = 0;
    status s = OK;
    worker *k = calloc(w->c->n_threads, sizeof *k);
    unit_maxima(w->job, &raw, &numbers, &coded);
    for (uint32_t i = 0; k && i < w->c->n_threads && s == OK; i++) {
        k[i] =
            (worker){.w = w, .number = i, .raw = malloc(raw + 1), .coded = malloc(coded + 1)};
        k[i].rows = malloc(numbers * sizeof(float) + 1);
        if (!k[i].raw || !k[i].coded || !k[i].rows) s = ERR_NO_MEMORY;
    }
    if (!k || s != OK)
        s = mem_exhausted(e, MEM_LOADING, "the buffers of %u threads", w->c->n_threads);
    for (; s == OK && n < w->c->n_threads; n++)
        if (pthread_create(&k[n].thread, NULL, worker_main, &k[n]) != 0) break;
    if (s == OK && !n) s = err_set(e, ERR_NO_MEMORY, "no thread could be started");
    if (s == OK && (s = run_all(w)) != OK) *e = w->e;
    end_workers(w, k, n);
    for (uint32_t i = 0; k && i < w->c->n_threads; i++) {
        free(k[i].raw);
        free(k[i].coded);
        free(k[i].rows);
    }
    free(k);
    return s;
}

/* ---- the whole ---- */

static uint64_t hash_of_stat(const struct stat *st) {
    const uint64_t v[] = {(uint64_t)st->st_size, (uint64_t)st->st_mtim.tv_sec,
                          (uint64_t)st->st_mtim.tv_nsec, (uint64_t)st->st_ino};
    return hash64(v, sizeof v, 1);
}
/* Of the files of a model in a folder, in any order: the parts of a split file, or safetensors. */
static uint64_t hash_of_folder(const char *path, const char *end) {
    uint64_t sum = 0;
    struct stat st;
    DIR *d = opendir(path);
    for (const struct dirent *f; d && (f = readdir(d));) {
        const size_t n = strlen(f->d_name), m = strlen(end);
        if (n > m && strcmp(f->d_name + n - m, end) == 0 &&
            fstatat(dirfd(d), f->d_name, &st, 0) == 0)
            sum += hash_of_stat(&st);
    }
    if (d) closedir(d);
    return sum;
}
static uint64_t hash_of_files(const checkpoint *in) {
    const char *path = checkpoint_path(in);
    struct stat st = {0};
    stat(path, &st);
    if (S_ISDIR(st.st_mode)) return hash_of_folder(path, ".safetensors");
    uint64_t h = hash_of_stat(&st);
    char *folder = strdup(path), *slash = folder ? strrchr(folder, '/') : NULL;
    if (slash) slash[slash == folder] = '\0';
    if (!gguf_of(in))
        h += hash_of_folder(slash ? folder : ".", ".safetensors");
    else if (gguf_n_parts(gguf_of(in)) > 1)
        h += hash_of_folder(slash ? folder : ".", ".gguf");
    free(folder);
    return h;
}

/* The new file's header names types and shapes; the rest is what the numbers come from. */
static void identify(const conversion *c, uint64_t out[2]) {
    const uint64_t key[2] = {UNIT_NUMBERS, UNIT_MIN_ROWS};
    const uint64_t part[] = {c->salt, c->job->file_bytes, hash_of_files(c->job->in)};
    uint64_t both[4];
    siphash_bytes(key, c->job->header.ptr, c->job->header.len, SIPHASH_2_4, both);
    siphash_bytes(key, part, sizeof part, SIPHASH_2_4, both + 2);
    siphash_bytes(key, both, sizeof both, SIPHASH_2_4, out);
}

static status run(work *w, err *e) {
    const quant_job *j = w->job;
    uint64_t identity[2];
    identify(w->c, identity);
    status s = journal_open(&w->notes, w->c->out, w->c->force, identity, j->file_bytes,
                            w->first[j->n], unit_place, w, e);
    if (s != OK) return s;
    for (uint64_t i = 0; i < w->first[j->n]; i++)
        if (w->notes.done[i]) w->c->resumed_bytes += unit_at(w, i).bytes;
    s = journal_write(&w->notes, 0, j->header.ptr, j->header.len, e);
    if (s == OK) s = with_workers(w, e);
    if (w->c->progress) fputs("\r\033[K", stderr);
    if (s == OK) s = checkpoint_unchanged(j->in, e);
    if (s == OK) s = journal_finish(&w->notes, e);
    journal_close(&w->notes);
    return s;
}

status convert(conversion *c, err *e) {
    const quant_job *j = c->job;
    const uint64_t started_us = clock_us();
    work w = {.c = c, .job = j};
    CHECK(c->n_threads > 0);
    c->resumed_bytes = 0;
    w.first = calloc(j->n + 1, sizeof *w.first);
    if (!w.first) return mem_exhausted(e, MEM_LOADING, "the list of tensors to quantise");
    for (size_t i = 0; i < j->n; i++)
        w.first[i + 1] = w.first[i] + ceil_div(j->v[i].rows, rows_of_unit(&j->v[i]));
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.more, NULL);
    pthread_cond_init(&w.idle, NULL);
    const status s = run(&w, e);
    pthread_cond_destroy(&w.idle);
    pthread_cond_destroy(&w.more);
    pthread_mutex_destroy(&w.lock);
    free(w.first);
    c->seconds = (double)(clock_us() - started_us) / 1e6;
    return s;
}
