/* The planner: adds up terms, gives what is left of the budget to the KV cache. Pure. */
#include "memory/plan.h"

#include <stdio.h>

#include "base/check.h"
#include "base/str.h"

typedef struct totals {
    uint64_t steady;  /* bytes without the KV cache */
    uint64_t weights; /* of those */
    uint64_t loading; /* held in addition while loading */
    const term *largest;
} totals;

static bool add_up(const terms *t, totals *out) {
    *out = (totals){0};
    for (size_t i = 0; i < t->n; i++) {
        const term *e = &t->v[i];
        if (!add_u64(e->while_loading ? out->loading : out->steady, e->bytes,
                     e->while_loading ? &out->loading : &out->steady))
            return false;
        if (e->cls == MEM_WEIGHTS) out->weights += e->bytes;
        if (!e->while_loading && (!out->largest || e->bytes > out->largest->bytes))
            out->largest = e;
    }
    return true;
}

static status copy_terms(terms *out, const terms *fixed, const plan *p, const kv_request *kv,
                         err *e) {
    for (size_t i = 0; i < fixed->n; i++) {
        const term *t = &fixed->v[i];
        terms_add(out, t->cls, t->kind, t->bytes, "%s", t->what);
        if (t->while_loading) terms_last_while_loading(out);
    }
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        char window[80] = "";
        if (kv->group[g].tail)
            snprintf(window, sizeof window, ": newest %u tokens in full", kv->group[g].window);
        else if (kv->group[g].window)
            snprintf(window, sizeof window, ", window %u", kv->group[g].window);
        else if (kv->group[g].draft)
            snprintf(window, sizeof window, " of the draft model");
        terms_add(out, MEM_KV, TERM_EXACT, p->group_blocks[g] * p->group_block_bytes[g],
                  "%u blocks of %u tokens, %u layers%s", p->group_blocks[g], kv->block_tokens,
                  kv->group[g].n_layers, window);
    }
    uint64_t rounded = p->kv_bytes;
    for (uint32_t g = 0; g < kv->n_groups; g++)
        rounded -= p->group_blocks[g] * p->group_block_bytes[g];
    if (rounded > 0) {
        char granule[32];
        terms_add(out, MEM_KV, TERM_EXACT, rounded, "pools of blocks, in granules of %s",
                  bytes_human(kv->granule, granule));
    }
    if (kv->beside)
        terms_add(out, MEM_SCHEDULER, TERM_EXACT, p->beside_bytes,
                  "sequences, queue, block lists");
    return out->failed ? mem_exhausted(e, MEM_RUNTIME, "the list of terms") : OK;
}

/* What would make it fit: an option only where it can. */
static void refusal_hint(const plan *p, const totals *sum, const budget *b, err *e) {
    char least[32], have[32];
    const char *more = "; or lower max_model_len";
    if (sum->weights > b->bytes)
        more = ": the weights alone are more than that; take a smaller type of weights";
    else if (sum->steady > b->bytes)
        more = "; or lower max_num_batched_tokens, max_num_seqs or max_connections";
    err_hint(e, "the smallest budget that works is %s bytes (%s)%s",
             bytes_grouped(p->smallest_budget_bytes, least),
             bytes_human(p->smallest_budget_bytes, have), more);
}

/* The first term, largest first, without which the rest would fit; it is the one to name. */
static status refuse(const plan *p, const totals *sum, uint64_t min_kv, const budget *b,
                     err *e) {
    char want[32], part[32];
    const char *what = sum->largest ? sum->largest->what : "";
    uint64_t bytes = sum->largest ? sum->largest->bytes : 0;
    const char *cls = sum->largest ? mem_class_name(sum->largest->cls) : "";
    if (sum->steady <= b->bytes || min_kv > bytes)
        what = "one sequence of the longest length", bytes = min_kv, cls = "kv";
    err_set(e, ERR_BUDGET, "%s does not hold class %s: %s takes %s bytes of %s in all",
            b->source, cls, what, bytes_grouped(bytes, part),
            bytes_grouped(p->smallest_budget_bytes, want));
    err_field(e, "%s", b->option ? b->option : "memory");
    refusal_hint(p, sum, b, e);
    return e->code;
}

/* Blocks of a group with a window that a sequence holds at most. */
static uint64_t whole_window(const kv_request *kv, const kv_group_cost *g) {
    const uint64_t rows = (uint64_t)(kv->depth ? kv->depth : 2) * kv->max_rows;
    if (g->tail) return kv_window_share(g->window, kv->block_tokens);
    return kv_window_blocks(g->window, kv->block_tokens, rows);
}

/* Blocks of a group that a sequence of min_tokens needs; of a tail, beside tail_rows. */
static uint64_t blocks_of_one(const kv_request *kv, const kv_group_cost *g) {
    const uint64_t longest = ceil_div(kv->min_tokens, kv->block_tokens);
    const uint64_t whole = g->window && kv->max_seqs ? whole_window(kv, g) : longest;
    return whole < longest ? whole : longest;
}

/* Blocks of a tail for the rows of steps in flight. */
static uint64_t tail_rows(const kv_request *kv, const kv_group_cost *g) {
    return g->tail ? kv_rows_blocks(kv->depth, kv->max_rows, kv->block_tokens) : 0;
}

/* Blocks of a group with a window beside n blocks of a group without one: at least what as many
 * sequences of the longest length need as n blocks hold, one at the least; at most what all
 * sequences can hold, and, but for the rows of a tail, never more than n. */
typedef struct window_range {
    uint64_t least, most;
} window_range;

static window_range range_of(const kv_request *kv, const kv_group_cost *g, uint64_t n) {
    const uint64_t longest = ceil_div(kv->min_tokens, kv->block_tokens);
    const uint64_t one = blocks_of_one(kv, g), rows = tail_rows(kv, g);
    const uint64_t all = kv->max_seqs * whole_window(kv, g);
    window_range r = {.most = n < all ? n : all};
    r.least = longest ? ceil_div(n * one, longest) : 0;
    if (r.least < one) r.least = one;
    if (r.least > r.most) r.least = r.most;
    r.least += rows, r.most += rows;
    return r;
}

/* Fills in the bytes of n blocks of a group without a window, and of up to `more` blocks beyond
 * the least of each group with one. False: more than can be counted. */
static bool price(plan *p, const kv_request *kv, uint64_t n, uint64_t more) {
    p->kv_bytes = p->beside_bytes = 0;
    p->in_proportion = false;
    if (!kv->n_groups) n = 0;
    if (n > INT32_MAX) return false;
    p->kv_blocks = (uint32_t)n;
    p->kv_tokens = n * kv->block_tokens;
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        uint64_t blocks = n, bytes = 0;
        if (kv->group[g].window && kv->max_seqs) {
            const window_range r = range_of(kv, &kv->group[g], n);
            if (kv->in_proportion) more = 0;
            blocks = more < r.most - r.least ? r.least + more : r.most;
            p->in_proportion |= blocks < r.most;
        }
        if (kv->most[g] && blocks > kv->most[g]) blocks = kv->most[g];
        p->group_blocks[g] = (uint32_t)blocks;
        if (!mul_u64(blocks, p->group_block_bytes[g], &bytes) || bytes > UINT64_MAX / 2 ||
            !add_u64(p->kv_bytes, plan_pool_bytes(kv->granule, blocks, p->group_block_bytes[g]),
                     &p->kv_bytes))
            return false;
    }
    if (kv->beside) p->beside_bytes = kv->beside(kv->arg, p->group_blocks);
    return true;
}

static bool price_fits(plan *p, const kv_request *kv, uint64_t n, uint64_t more,
                       uint64_t loading, uint64_t left) {
    return price(p, kv, n, more) && p->beside_bytes <= left &&
           p->kv_bytes <= left - p->beside_bytes && loading <= left - p->beside_bytes;
}

/* The most that fits into left bytes: first of blocks between lo and hi, each group with a
 * window in proportion, so that no group runs short while another has blocks that nothing can
 * use; then, of what is left, of blocks with a window. lo blocks fit. */
static void price_most(plan *p, const kv_request *kv, uint64_t lo, uint64_t hi,
                       uint64_t loading, uint64_t left) {
    while (lo < hi) {
        uint64_t mid = hi - (hi - lo) / 2;
        if (price_fits(p, kv, mid, 0, loading, left))
            lo = mid;
        else
            hi = mid - 1;
    }
    uint64_t least = 0, most = lo;
    while (least < most) {
        uint64_t mid = most - (most - least) / 2;
        if (price_fits(p, kv, lo, mid, loading, left))
            least = mid;
        else
            most = mid - 1;
    }
    CHECK(price(p, kv, lo, least));
}

static void start_plan(plan *out, const kv_request *kv, const budget *b) {
    CHECK(kv->block_tokens > 0 && kv->n_groups <= PLAN_MAX_GROUPS);
    *out = (plan){
        .budget_bytes = b->bytes, .block_tokens = kv->block_tokens, .n_groups = kv->n_groups};
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        out->group_block_bytes[g] = kv->group[g].bytes_per_token * kv->block_tokens;
        const uint64_t one = blocks_of_one(kv, &kv->group[g]);
        if (kv->group[g].tail) {
            out->tail_bytes_per_token += kv->group[g].bytes_per_token;
        } else {
            out->kv_bytes_per_token += kv->group[g].bytes_per_token;
            out->kv_block_bytes += out->group_block_bytes[g];
        }
        out->group_seq_blocks[g] = one < INT32_MAX ? (uint32_t)one : INT32_MAX;
    }
}

status plan_solve(plan *out, const terms *fixed, const kv_request *kv, const budget *b,
                  err *e) {
    totals sum;
    start_plan(out, kv, b);
    if (fixed->failed) return mem_exhausted(e, MEM_RUNTIME, "the list of terms");
    if (!add_up(fixed, &sum)) {
        err_set(e, ERR_BUDGET, "the sum of the plan's terms does not fit 64 bits");
        return err_field(e, "memory");
    }
    uint64_t min_blocks = ceil_div(kv->min_tokens, kv->block_tokens);
    uint64_t max_blocks = ceil_div(kv->max_tokens, kv->block_tokens);
    uint64_t want = kv->want_tokens ? ceil_div(kv->want_tokens, kv->block_tokens) : max_blocks;
    if (want > max_blocks) want = max_blocks;
    if (want < min_blocks) want = min_blocks;
    uint64_t least = 0;
    if (!price(out, kv, want, want) || !price(out, kv, min_blocks, 0) ||
        !add_u64(sum.steady, out->beside_bytes, &least) ||
        /* Loading buffers are freed before the KV cache is mapped: they raise the minimum only
         * where they are larger than the smallest cache. */
        !add_u64(least, sum.loading > out->kv_bytes ? sum.loading : out->kv_bytes, &least)) {
        err_set(e, ERR_BUDGET, "a KV cache of %llu tokens is more than can be counted",
                (unsigned long long)kv->max_tokens);
        return err_field(e, "kv_cache_tokens");
    }
    const uint64_t min_kv = out->kv_bytes;
    out->smallest_budget_bytes = least;
    out->fits = least <= b->bytes;
    if (out->fits) price_most(out, kv, min_blocks, want, sum.loading, b->bytes - sum.steady);
    const uint64_t steady = sum.steady + out->beside_bytes;
    out->total_bytes = steady + out->kv_bytes;
    out->load_peak_bytes = steady + (sum.loading > out->kv_bytes ? sum.loading : out->kv_bytes);
    if (b->automatic && out->fits) out->budget_bytes = plan_peak_bytes(out);
    status s = copy_terms(&out->terms, fixed, out, kv, e);
    if (s != OK) return s;
    return out->fits ? OK : refuse(out, &sum, min_kv, b, e);
}

double plan_sequences(const plan *p) {
    double least = 0;
    for (uint32_t g = 0; g < p->n_groups; g++) {
        const double n =
            p->group_seq_blocks[g] ? (double)p->group_blocks[g] / p->group_seq_blocks[g] : 0;
        if (g == 0 || n < least) least = n;
    }
    return least;
}

uint64_t plan_peak_bytes(const plan *p) {
    return p->total_bytes > p->load_peak_bytes ? p->total_bytes : p->load_peak_bytes;
}

void plan_clear(plan *p) {
    terms_clear(&p->terms);
    *p = (plan){0};
}
