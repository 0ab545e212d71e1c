/* What each type would cost each matrix. Owns the table. */
#include "daemon/quantize/sensitivity.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "json/out.h"
#include "memory/term.h"
#include "model/config.h"
#include "quant/quant.h"

enum { SAMPLE_NUMBERS = 1 << 16, MAX_TYPES = CHOOSE_MAX_OPTIONS };

static status no_memory(err *e) {
    return mem_exhausted(e, MEM_LOADING, "the table of types and losses");
}

/* ---- the options ---- */

static uint64_t padded(const quant_job *j, const quant_tensor *t, dtype type) {
    uint64_t bytes = 0;
    CHECK(dtype_bytes(type, t->rows, t->cols, &bytes));
    return align_up(bytes, j->alignment);
}

/* Every type whose blocks divide the rows, but no float type wider than the tensor's own, and of 16 bits its own or
 * F16. A tensor that is quantised already may also stay as it is, and loses nothing. */
static uint32_t list_options(const quant_job *j, const quant_tensor *t, choose_option *out) {
    uint32_t n = 0;
    for (uint32_t k = 0; k < 64; k++) {
        const dtype type = (dtype)k;
        const dtype_info *info = dtype_get(k);
        if (!info || !quant_can(type) || t->cols % info->block_elems) continue;
        const bool own = type == quant_own(t->info.type);
        if (type == DT_F32 && !own) continue;
        if (type == DT_BF16 && !own) continue;
        if (type == DT_F16 && t->info.type == DT_BF16) continue;
        CHECK(n < MAX_TYPES);
        out[n++] = (choose_option){.tag = k, .bytes = padded(j, t, type)};
    }
    return n;
}

/* ---- measuring ---- */

typedef struct sampler {
    sensitivity *s;
    const quant_hooks *hooks;
    const volatile sig_atomic_t *interrupted;
    double share; /* of a matrix of a layer */
    pthread_mutex_t lock;
    size_t next;
    status status;
    err e;
} sampler;

typedef struct sample_worker {
    sampler *in;
    pthread_t thread;
    unsigned char *raw, *coded;
    float *x, *y, *weight;
} sample_worker;

#define FAR_TOO_MUCH 1e6 /* no share of a loss is above 1 */

static uint64_t sampled_rows(const quant_tensor *t) {
    const uint64_t rows = SAMPLE_NUMBERS / t->cols;
    return rows < 1 ? 1 : rows < t->rows ? rows : t->rows;
}

typedef struct sample_sizes {
    uint64_t raw, numbers;
} sample_sizes;

static sample_sizes sizes_of(const quant_job *j) {
    sample_sizes s = {0};
    for (size_t i = 0; i < j->n; i++) {
        const quant_tensor *t = &j->v[i];
        const uint64_t row_bytes = tensor_bytes(&t->info) / t->rows;
        if (row_bytes > s.raw) s.raw = row_bytes;
        if (t->cols > s.numbers) s.numbers = t->cols;
    }
    return s;
}
/* A row as read, as stored (no larger than as float32), as numbers before and after, the weights of its inputs. */
uint64_t sensitivity_bytes_of_thread(const quant_job *j) {
    const sample_sizes s = sizes_of(j);
    return s.raw + 4 * s.numbers * sizeof(float);
}

/* How much of the output passes through the matrix. Measured on SmolLM2-135M, as KL by a matrix's share of squared
 * error in Q4_0, the head being 1: v 0.028, q 0.005, the others 0.016; 1 / (2 x layers) is 0.017. */
static double share_of(const sampler *in, const quant_tensor *t) {
    const char *name = t->info.name;
    if (strcmp(name, quant_tied(in->s->job) ? "token_embd.weight" : "output.weight") == 0)
        return 1;
    if (strstr(name, ".attn_v.")) return 2 * in->share;
    const bool scores = strstr(name, ".attn_q.") || strstr(name, ".attn_k.");
    return scores ? in->share / 3 : in->share;
}

/* Squared errors of the types, and the squares of the numbers themselves. */
typedef struct sample_sums {
    double error[MAX_TYPES], squares;
} sample_sums;

/* sums: as they are, and weighted. */
static status add_row(sample_worker *k, const quant_tensor *t, uint64_t row,
                      const float *weight, const choose_item *it, sample_sums sums[2], err *e) {
    status s = checkpoint_read_rows(k->in->s->job->in, t->in, row, 1, k->raw, e);
    if (s != OK) return s;
    const uint64_t blocks = t->cols / dtype_block_of(t->info.type).elems;
    if (!dtype_is_finite(t->info.type, k->raw, blocks)) {
        err_set(e, ERR_UNSUPPORTED, "%.64s has numbers that are not finite", t->info.name);
        return err_field(e, "%s", t->info.name);
    }
    quant_decode_row(t->info.type, k->raw, t->cols, k->x);
    memset(k->y, 0, t->cols * sizeof *k->y);
    sums[0].squares += quant_error(k->x, k->y, t->cols, NULL);
    if (weight) sums[1].squares += quant_error(k->x, k->y, t->cols, weight);
    for (uint32_t o = 0; o < it->n; o++) {
        const dtype type = (dtype)it->v[o].tag;
        if (type == quant_own(t->info.type)) continue; /* it keeps its numbers */
        quant_encode_row(type, k->x, t->cols, weight, k->coded);
        quant_decode_row(type, k->coded, t->cols, k->y);
        sums[0].error[o] += quant_error(k->x, k->y, t->cols, NULL);
        if (weight) sums[1].error[o] += quant_error(k->x, k->y, t->cols, weight);
    }
    return OK;
}

static double share_lost(const sample_sums *s, uint32_t o) {
    return s->squares > 0 ? s->error[o] / s->squares : 0;
}

static status sample(sample_worker *k, size_t i, err *e) {
    sampler *in = k->in;
    const quant_tensor *t = &in->s->job->v[in->s->tensor[i]];
    const quant_hooks *h = in->hooks;
    choose_item *it = &in->s->item[i];
    const uint64_t n = sampled_rows(t);
    sample_sums sums[2] = {0};
    bool found = false;
    status s = OK;
    if (h && h->importance)
        s = h->importance(h->arg, t->info.name, t->cols, k->weight, &found, e);
    const float *weight = found ? k->weight : NULL;
    for (uint64_t r = 0; r < n && s == OK; r++)
        s = add_row(k, t, (uint64_t)((double)r * (double)t->rows / (double)n), weight, it, sums,
                    e);
    for (uint32_t o = 0; o < it->n; o++) {
        it->v[o].loss =
            fmax(share_lost(&sums[0], o), share_lost(&sums[1], o)) * share_of(in, t);
        if (!(it->v[o].loss < FAR_TOO_MUCH)) it->v[o].loss = FAR_TOO_MUCH; /* F16's infinity */
    }
    return s;
}

static void *sample_main(void *arg) {
    sample_worker *k = arg;
    sampler *in = k->in;
    pthread_mutex_lock(&in->lock);
    while (in->status == OK && in->next < in->s->n) {
        const size_t i = in->next++;
        err e;
        pthread_mutex_unlock(&in->lock);
        status s = sample(k, i, &e);
        if (s == OK && *in->interrupted) s = err_set(&e, ERR_INVALID, "interrupted");
        pthread_mutex_lock(&in->lock);
        if (s != OK && in->status == OK) in->status = s, in->e = e;
    }
    pthread_mutex_unlock(&in->lock);
    return NULL;
}

static status sample_all(sampler *in, uint32_t n_threads, err *e) {
    const sample_sizes size = sizes_of(in->s->job);
    uint32_t n = 0;
    status s = OK;
    sample_worker *k = calloc(n_threads, sizeof *k);
    for (uint32_t i = 0; k && i < n_threads; i++) {
        k[i] = (sample_worker){.in = in,
                               .raw = malloc(size.raw + 1),
                               .coded = malloc(size.numbers * sizeof(float) + 1),
                               .x = malloc(size.numbers * sizeof(float) + 1),
                               .y = malloc(size.numbers * sizeof(float) + 1),
                               .weight = malloc(size.numbers * sizeof(float) + 1)};
        if (!k[i].raw || !k[i].coded || !k[i].x || !k[i].y || !k[i].weight) s = ERR_NO_MEMORY;
    }
    if (!k || s != OK) s = no_memory(e);
    for (; s == OK && n < n_threads; n++)
        if (pthread_create(&k[n].thread, NULL, sample_main, &k[n]) != 0) break;
    if (s == OK && !n) s = err_set(e, ERR_NO_MEMORY, "no thread could be started");
    for (uint32_t i = 0; i < n; i++) pthread_join(k[i].thread, NULL);
    if (s == OK && (s = in->status) != OK) *e = in->e;
    for (uint32_t i = 0; k && i < n_threads; i++) {
        free(k[i].raw);
        free(k[i].coded);
        free(k[i].x);
        free(k[i].y);
        free(k[i].weight);
    }
    free(k);
    return s;
}

status sensitivity_measure(sensitivity *s, quant_job *j, const quant_hooks *hooks,
                           uint32_t n_threads, const volatile sig_atomic_t *interrupted,
                           err *e) {
    model_config c;
    *s = (sensitivity){.job = j, .weighted = hooks && hooks->importance};
    status st = model_config_read(&c, j->in, e);
    if (st != OK) return st;
    s->item = calloc(j->n + 1, sizeof *s->item);
    s->tensor = calloc(j->n + 1, sizeof *s->tensor);
    s->mem = calloc((j->n + 1) * MAX_TYPES, sizeof *s->mem);
    if (!s->item || !s->tensor || !s->mem) st = no_memory(e);
    for (size_t i = 0; i < j->n && st == OK; i++) {
        const quant_tensor *t = &j->v[i];
        if (!t->free) {
            s->fixed_bytes += padded(j, t, t->to);
            continue;
        }
        s->tensor[s->n] = i;
        s->item[s->n].v = s->mem + s->n * MAX_TYPES;
        s->item[s->n].n = list_options(j, t, s->item[s->n].v);
        s->n++;
    }
    sampler in = {
        .s = s, .hooks = hooks, .interrupted = interrupted, .share = 0.5 / (double)c.n_layers};
    pthread_mutex_init(&in.lock, NULL);
    if (st == OK) st = sample_all(&in, n_threads, e);
    pthread_mutex_destroy(&in.lock);
    if (st != OK) sensitivity_clear(s);
    return st;
}

void sensitivity_clear(sensitivity *s) {
    free(s->item);
    free(s->tensor);
    free(s->mem);
    *s = (sensitivity){0};
}

/* ---- the choice ---- */

static void set_types(const sensitivity *s) {
    for (size_t i = 0; i < s->n; i++)
        s->job->v[s->tensor[i]].to = (dtype)s->item[i].v[s->item[i].picked].tag;
}

status sensitivity_pick(sensitivity *s, uint64_t budget, err *e) {
    bool none = false;
    char x[32], y[32];
    /* The header's size does not depend on the types. */
    set_types(s);
    status st = quant_job_finish(s->job, e);
    if (st != OK) return st;
    const uint64_t fixed = s->job->header.len + s->fixed_bytes;
    if (choose(s->item, s->n, budget > fixed ? budget - fixed : 0, &none)) {
        set_types(s);
        st = quant_job_finish(s->job, e);
        if (st == OK) CHECK(s->job->file_bytes <= budget);
        return st;
    }
    if (none) return no_memory(e);
    err_set(e, ERR_BUDGET, "the least that this model takes is %s bytes; %s are wanted",
            bytes_grouped(fixed + choose_least(s->item, s->n), x), bytes_grouped(budget, y));
    err_hint(e, "--fit with at least that, or a smaller model");
    return err_field(e, "fit");
}

static void item_json(buf *b, const sensitivity *s, size_t i) {
    const choose_item *it = &s->item[i];
    buf_add(b, STR("{\"name\": "));
    json_str_lossy(b, str_of(s->job->v[s->tensor[i]].info.name));
    buf_addf(b, ", \"type\": \"%s\", \"options\": [", dtype_name((dtype)it->v[it->picked].tag));
    for (uint32_t k = 0; k < it->n; k++)
        buf_addf(b, "%s{\"type\": \"%s\", \"bytes\": %llu, \"loss\": %.6e}", k ? ", " : "",
                 dtype_name((dtype)it->v[k].tag), (unsigned long long)it->v[k].bytes,
                 it->v[k].loss);
    buf_add(b, STR("]}"));
}

void sensitivity_json(buf *b, const sensitivity *s, uint64_t budget) {
    buf_add(b, STR("{\"schema\": \"vramd.sensitivity\", \"version\": 1, \"input\": "));
    json_str_lossy(b, str_of(checkpoint_path(s->job->in)));
    buf_addf(b,
             ", \"budget\": %llu, \"file_bytes\": %llu, \"loss\": %.6e, \"importance\": %s, "
             "\"tensors\": [\n",
             (unsigned long long)budget, (unsigned long long)s->job->file_bytes,
             choose_loss(s->item, s->n), s->weighted ? "true" : "false");
    for (size_t i = 0; i < s->n; i++) {
        if (i) buf_add(b, STR(",\n"));
        item_json(b, s, i);
    }
    buf_add(b, STR("]}\n"));
}
