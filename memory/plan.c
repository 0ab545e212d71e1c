/* The planner: adds up terms, gives what is left of the budget to the KV cache. Pure. */
#include "memory/plan.h"

#include "base/check.h"
#include "base/str.h"

typedef struct totals {
    uint64_t steady,
        loading; /* without the KV cache; loading: held in addition while loading */
    const term *largest;
} totals;

static bool add_up(const terms *t, totals *out) {
    *out = (totals){0};
    if (t->failed) return false;
    for (size_t i = 0; i < t->n; i++) {
        const term *e = &t->v[i];
        if (!add_u64(e->while_loading ? out->loading : out->steady, e->bytes,
                     e->while_loading ? &out->loading : &out->steady))
            return false;
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
    for (uint32_t g = 0; g < kv->n_groups; g++)
        terms_add(out, MEM_KV, TERM_EXACT,
                  p->kv_blocks * (kv->group[g].bytes_per_token * kv->block_tokens),
                  "%u blocks of %u tokens, %u layers", p->kv_blocks, kv->block_tokens,
                  kv->group[g].n_layers);
    return out->failed ? err_set(e, ERR_NO_MEMORY, "no memory for the list of terms") : OK;
}

/* The first term, largest first, without which the rest would fit; it is the one to name. */
static status refuse(const plan *p, const totals *sum, uint64_t min_kv, const budget *b,
                     err *e) {
    char want[32], have[32], part[32], least[32];
    const char *what = sum->largest ? sum->largest->what : "";
    uint64_t bytes = sum->largest ? sum->largest->bytes : 0;
    const char *cls = sum->largest ? mem_class_name(sum->largest->cls) : "";
    if (sum->steady <= b->bytes || min_kv > bytes)
        what = "one sequence of the longest length", bytes = min_kv, cls = "kv";
    err_set(e, ERR_BUDGET, "%s does not hold class %s: %s takes %s bytes of %s in all",
            b->source, cls, what, bytes_grouped(bytes, part),
            bytes_grouped(p->smallest_budget_bytes, want));
    err_field(e, "%s", b->option ? b->option : "memory");
    return err_hint(e,
                    "the smallest budget that works is %s bytes (%s); or lower max_model_len, "
                    "max_num_seqs or kv_cache_dtype",
                    bytes_grouped(p->smallest_budget_bytes, least),
                    bytes_human(p->smallest_budget_bytes, have));
}

status plan_solve(plan *out, const terms *fixed, const kv_request *kv, const budget *b,
                  err *e) {
    *out = (plan){.budget_bytes = b->bytes, .block_tokens = kv->block_tokens};
    totals sum;
    CHECK(kv->block_tokens > 0 && kv->n_groups <= PLAN_MAX_GROUPS);
    if (!add_up(fixed, &sum)) {
        err_set(e, ERR_BUDGET, "the sum of the plan's terms does not fit 64 bits");
        return err_field(e, "memory");
    }
    for (uint32_t g = 0; g < kv->n_groups; g++)
        out->kv_bytes_per_token += kv->group[g].bytes_per_token;
    out->kv_block_bytes = out->kv_bytes_per_token * kv->block_tokens;
    uint64_t min_blocks = ceil_div(kv->min_tokens, kv->block_tokens);
    uint64_t max_blocks = ceil_div(kv->max_tokens, kv->block_tokens);
    uint64_t want = kv->want_tokens ? ceil_div(kv->want_tokens, kv->block_tokens) : max_blocks;
    if (want > max_blocks) want = max_blocks;
    if (want < min_blocks) want = min_blocks;
    uint64_t min_kv;
    if (want > INT32_MAX || !mul_u64(min_blocks, out->kv_block_bytes, &min_kv) ||
        !add_u64(sum.steady, min_kv, &out->smallest_budget_bytes)) {
        err_set(e, ERR_BUDGET, "a KV cache of %llu tokens is more than can be counted",
                (unsigned long long)kv->max_tokens);
        return err_field(e, "kv_cache_tokens");
    }
    /* Loading buffers are freed before the KV cache is mapped: they raise the floor only where
     * they are larger than the smallest cache. */
    if (sum.loading > min_kv) out->smallest_budget_bytes = sum.steady + sum.loading;
    uint64_t blocks = want, left = b->bytes > sum.steady ? b->bytes - sum.steady : 0;
    if (out->kv_block_bytes && left / out->kv_block_bytes < blocks)
        blocks = left / out->kv_block_bytes;
    out->fits = blocks >= min_blocks && out->smallest_budget_bytes <= b->bytes;
    out->kv_blocks = (uint32_t)(out->fits ? blocks : min_blocks);
    out->kv_tokens = (uint64_t)out->kv_blocks * kv->block_tokens;
    uint64_t kv_bytes = out->kv_blocks * out->kv_block_bytes;
    out->total_bytes = sum.steady + kv_bytes;
    out->load_peak_bytes = sum.steady + (sum.loading > kv_bytes ? sum.loading : kv_bytes);
    if (b->automatic && out->fits)
        out->budget_bytes =
            out->total_bytes > out->load_peak_bytes ? out->total_bytes : out->load_peak_bytes;
    status s = copy_terms(&out->terms, fixed, out, kv, e);
    if (s != OK) return s;
    return out->fits ? OK : refuse(out, &sum, min_kv, b, e);
}

void plan_clear(plan *p) {
    terms_clear(&p->terms);
    *p = (plan){0};
}
