/* The search for the best combination. Owns nothing; any thread. */
#include "daemon/plan/plan_choose.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "daemon/gpu_layers.h"
#include "daemon/plan/rank_plan.h"

/* Chosen among: */
enum { MOST_SEQS_DEVICE = 256, MOST_SEQS_CPU = 64, LEAST_LEN = 512, LEN_STEP = 256 };
enum { LEAST_ROWS_DEVICE = 256, LEAST_ROWS_CPU = 128, MOST_ROWS_DEVICE = 2048 };
/* A KV type whose quality is worse must gain that much; each of the sequences of a latency
 * plan decodes at least that fast of one alone; a doubling of the sequences must gain that much.
 */
static const double WORTH = 1.10, UNDISTURBED = 0.90, DOUBLING = 1.05;
static const double KL_FREE = 0.001;

const char *plan_goal_name(plan_goal g) {
    static const char *const names[PLAN_GOALS] = {"latency", "throughput", "context"};
    return names[g];
}

bool plan_goal_by_name(plan_goal *out, const char *name) {
    for (int g = 0; g < PLAN_GOALS; g++)
        if (strcmp(plan_goal_name((plan_goal)g), name) == 0) {
            *out = (plan_goal)g;
            return true;
        }
    return false;
}

typedef struct search {
    const machine *m;
    const plan_question *q;
    const plan_bandwidth *speed;
    plan_goal goal;
    plan_choice *best;
    double best_score;
} search;

/* The type of most bytes of the matrices. */
static dtype type_of_most(const program *p) {
    uint64_t bytes[256] = {0};
    dtype most = DT_F32;
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const weight *w = &p->weights[i];
        if (w->role == WEIGHT_LINEAR && (uint32_t)w->type < 256)
            bytes[w->type] += weight_bytes(w);
    }
    for (uint32_t t = 0; t < 256; t++)
        if (bytes[t] > bytes[most]) most = (dtype)t;
    return most;
}

static double most_kl(const machine *m) {
    const quality_row *w =
        m->stored.bits ? NULL : quality_of_dtype(type_of_most(&m->model->program));
    return w && w->kl > KL_FREE ? w->kl : KL_FREE;
}

/* Tokens that its sequences hold of the cache, on the mean: by the lengths of the requests, or
 * half of the longest. */
static double held(const search *x, const machine *m) {
    plan_held h;
    const plan_lengths *l = x->q->lengths;
    const uint32_t bt = m->plan.block_tokens, length = m->opt.max_model_len;
    return l && plan_lengths_held(l, length, bt, 0, &h) ? h.mean * bt : length / 2.0;
}

static void fill(plan_choice *c, const search *x, const machine *m, const options *o,
                 const quality_row *quality) {
    const plan *p = &m->plan, *h = m->on_device ? &m->host_plan : p;
    const double tokens = held(x, m);
    *c = (plan_choice){.found = true,
                       .opt = *o,
                       .kv_k = m->engine_opt.kv_k,
                       .kv_v = m->engine_opt.kv_v,
                       .quality = quality,
                       .bytes = plan_peak_bytes(p),
                       .host_bytes = plan_peak_bytes(h),
                       .kv_bytes = terms_sum(&p->terms, MEM_KV),
                       .max_num_batched_tokens = m->opt.max_num_batched_tokens,
                       .tokens_per_sequence = tokens,
                       .cpus = m->on_device ? 1 + plan_devices(m) : m->opt.threads};
    if (x->speed->bytes_per_s > 0) {
        c->speed_one = plan_tokens_per_s(m, x->speed, 1, tokens);
        c->speed_each = plan_tokens_per_s(m, x->speed, o->max_num_seqs, tokens);
    }
    if (m->engine_opt.host_layers) gpu_layers_fix(m, &c->opt);
    snprintf(c->opt.memory, sizeof c->opt.memory, "%lluMiB",
             (unsigned long long)ceil_div(c->bytes, 1 << 20));
}

/* Plans for n sequences at once: of that length each, or as the requests are. False: it does not
 * hold them. */
static bool plan_for(machine *m, const search *x, options *o, uint32_t n, uint32_t length) {
    const plan_lengths *l = x->q->lengths;
    err e;
    o->max_num_seqs = n;
    o->max_model_len = length;
    o->kv_cache_tokens = l ? plan_lengths_tokens(l, n, length, o->block_size) : 0;
    const bool by_lengths = o->kv_cache_tokens > 0;
    if (!by_lengths) o->kv_cache_tokens = (uint64_t)n * length;
    if (o->max_num_batched_tokens > 0 && o->max_num_batched_tokens < n)
        o->max_num_batched_tokens = n;
    if (machine_plan_again(m, x->m, o, x->q->wish, &e) != OK) return false;
    if (by_lengths) return plan_lengths_concurrency(l, m).sure >= n - 1e-6;
    return plan_sequences(&m->plan) >= n;
}

/* By reading alone; without a bandwidth the order is the same. */
static double rate(const search *x, const machine *m, uint32_t n) {
    return n / plan_step_cost(m, x->speed, n, held(x, m));
}

/* The number of sequences that the goal wants, as if memory were no limit. */
static uint32_t wanted_seqs(const search *x, const machine *m) {
    const uint32_t most = m->on_device ? MOST_SEQS_DEVICE : MOST_SEQS_CPU;
    uint32_t n = 1;
    if (x->q->opt->max_num_seqs != x->q->usual->max_num_seqs) return x->q->opt->max_num_seqs;
    if (x->goal == GOAL_CONTEXT) return x->q->usual->max_num_seqs;
    for (; n < most; n *= 2) {
        const double gain = rate(x, m, 2 * n) / rate(x, m, n);
        const double each = rate(x, m, 2 * n) / (2 * n) / rate(x, m, 1);
        if (x->goal == GOAL_LATENCY ? each < UNDISTURBED : gain < DOUBLING) break;
    }
    return n;
}

/* Keeps the candidate where it is worth its quality. */
static void offer(search *x, const machine *m, const options *o, const quality_row *quality) {
    const uint32_t n = o->max_num_seqs;
    const double score = x->goal == GOAL_CONTEXT   ? o->max_model_len
                         : x->goal == GOAL_LATENCY ? rate(x, m, 1)
                                                   : rate(x, m, n);
    if (x->best->found && score <= x->best_score * WORTH) return;
    x->best_score = score;
    fill(x->best, x, m, o, quality);
}

/* The most sequences of that length, up to those wanted. */
static bool most_seqs(search *x, options o, uint32_t length, const quality_row *quality) {
    const bool given = x->q->opt->max_num_seqs != x->q->usual->max_num_seqs;
    const uint32_t rows = o.max_num_batched_tokens;
    machine m;
    uint32_t n = given ? o.max_num_seqs : 1;
    bool fits = plan_for(&m, x, &o, n, length);
    if (fits && !given) {
        n = wanted_seqs(x, &m);
        for (; n > 1; n /= 2) {
            machine_close(&m);
            o.max_num_batched_tokens = rows;
            if (plan_for(&m, x, &o, n, length)) break;
        }
        if (n == 1) {
            machine_close(&m);
            fits = plan_for(&m, x, &o, 1, length);
        }
    }
    if (fits) offer(x, &m, &o, quality);
    machine_close(&m);
    return fits;
}

/* The longest sequence that fits, alone or as many as are given. 0: none. */
static uint32_t longest(const search *x, options o) {
    const uint32_t trained = x->m->model->program.config.n_ctx_train;
    const uint32_t n = o.max_num_seqs != x->q->usual->max_num_seqs ? o.max_num_seqs : 1;
    uint32_t lo = 0, hi = ceil_div(trained, LEN_STEP);
    while (lo < hi) {
        const uint32_t mid = hi - (hi - lo) / 2, len = mid * LEN_STEP;
        machine m;
        if (plan_for(&m, x, &o, n, len < trained ? len : trained))
            lo = mid;
        else
            hi = mid - 1;
        machine_close(&m);
    }
    return lo * LEN_STEP < trained ? lo * LEN_STEP : trained;
}

/* By itself where that is as many: then there is nothing to paste. */
static void set_rows(options *o, const search *x, uint32_t rows) {
    const uint32_t usual = x->q->usual->max_num_batched_tokens;
    o->max_num_batched_tokens =
        usual == 0 && rows == x->m->opt.max_num_batched_tokens ? 0 : rows;
}

static void try_type(search *x, options o, const quality_row *quality) {
    const options *given = x->q->opt;
    const bool device = x->m->on_device;
    const uint32_t least = device ? LEAST_ROWS_DEVICE : LEAST_ROWS_CPU;
    const uint32_t most = device ? MOST_ROWS_DEVICE : x->m->opt.max_num_batched_tokens;
    uint32_t length = x->m->opt.max_model_len;
    const bool rows_given =
        given->max_num_batched_tokens != x->q->usual->max_num_batched_tokens;
    if (!rows_given) set_rows(&o, x, least);
    if (x->goal == GOAL_CONTEXT && given->max_model_len == x->q->usual->max_model_len)
        length = longest(x, o);
    if (length == 0) return;
    if (x->goal != GOAL_THROUGHPUT || rows_given) {
        most_seqs(x, o, length, quality);
        return;
    }
    /* The most rows first: a prompt needs the fewest steps. Fewer must hold more sequences. */
    for (uint32_t rows = most; rows >= least; rows /= 2) {
        set_rows(&o, x, rows);
        most_seqs(x, o, length, quality);
    }
}

/* In the order of the table: the better a type's quality, the earlier it comes; a later one must be
 * worth it. */
static void try_types(search *x) {
    const double most = most_kl(x->m);
    const char *arch = x->m->model->program.config.arch;
    const quality_row *row;
    for (size_t i = 0; (row = quality_at(i)); i++) {
        options o = *x->q->opt;
        uint32_t t = 0;
        str word;
        if (!row->cache || row->kl > most) continue;
        if (row != quality_of_cache(str_of(row->type), arch)) continue; /* of other models */
        while (!str_eqz(word = options_word("kv_cache_dtype", t), "?") &&
               !str_eqz(word, row->type))
            t++;
        if (str_eqz(word, "?")) continue;
        o.kv_cache_dtype = t;
        try_type(x, o, row);
    }
}

void plan_choose(plan_choice *out, plan_goal goal, const machine *m, const plan_question *q,
                 const plan_bandwidth *speed) {
    search x = {.m = m, .q = q, .speed = speed, .goal = goal, .best = out};
    const options *o = q->opt;
    out->found = false;
    if (m->not_served[0] || m->model->program.config.bidirectional) return;
    if (o->kv_cache_dtype == q->usual->kv_cache_dtype &&
        o->cache_type_k == q->usual->cache_type_k &&
        o->cache_type_v == q->usual->cache_type_v) {
        try_types(&x);
        return;
    }
    const bool one = m->engine_opt.kv_k == m->engine_opt.kv_v;
    try_type(&x, *o,
             one ? quality_of_cache(str_of(dtype_name(m->engine_opt.kv_k)),
                                    m->model->program.config.arch)
                 : NULL);
}

uint64_t plan_limit_mib(const plan_choice *c, uint32_t n_devices) {
    const uint64_t bytes = c->host_bytes + c->host_bytes / 50 + (64 << 20);
    return ceil_div(bytes, 1 << 20) + (uint64_t)n_devices * PLAN_DRIVER_MIB;
}

uint32_t plan_devices(const machine *m) {
    return m->on_device ? rank_plan_count(&m->opt) : 0;
}
