/* The device's sampler against the CPU's: the same token and the same bits of every logprob, on
 * random logits and parameters and on those that are meant to go wrong. */
extern "C" {
#include "model/sampling.h"
}
#include <float.h>
#include <stdlib.h>

#include "tests/cuda/rig.h"

/* ---- logits ---- */

enum { STYLES = 10 };

/* Some are ordinary, some full of ties, NaN, infinities, or nothing at all. */
static void fill(float *l, uint32_t n, uint32_t style, rng *r) {
    static const float odd[] = {NAN,  INFINITY, -INFINITY, FLT_MAX, -FLT_MAX,
                                0.0f, -0.0f,    1e-42f,    3};
    const float sd = (float)(0.1 + 5 * r->uniform());
    for (uint32_t i = 0; i < n; i++) {
        const float g = r->normal();
        switch (style) {
        default: l[i] = sd * g; break;
        case 1: l[i] = rintf(g * 2); break;            /* ties everywhere */
        case 2: l[i] = rintf(g * 64) / 64 + 20; break; /* some ties */
        case 3: l[i] = 1.5f; break;                    /* nothing but ties */
        case 4: l[i] = r->below(4) ? g : odd[r->below(9)]; break;
        case 5: l[i] = r->below(50) ? -INFINITY : g; break;  /* nearly all forbidden */
        case 6: l[i] = r->below(2) ? NAN : -INFINITY; break; /* nothing left */
        case 7: l[i] = 30 * g; break;                        /* weights from 1 to 0 */
        case 8: l[i] = r->below(3) ? -80 : r->below(9) ? 0 : 9; break; /* three levels */
        case 9: l[i] = r->below(2) ? 0.0f : -0.0f; break;
        }
    }
    if (style == 0 && r->below(2)) l[r->below(n)] += 12; /* one that stands out */
}

static bool all_finite(const float *l, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (!isfinite(l[i])) return false;
    return true;
}

/* ---- parameters ---- */

static float odd_number(rng *r) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, -1, 0, 1e-38f, 1e38f, FLT_MAX, 2};
    return odd[r->below(9)];
}

/* One row's request, for both samplers. */
struct request {
    sampling p;
    std::vector<int32_t> history, end;
    std::vector<logit_bias> bias;
    std::vector<uint32_t> allowed; /* empty: no mask */
    uint32_t n_prompt, position;
    bool has_history, last_from_device;
};

static void random_edits(request *q, uint32_t n, rng *r) {
    for (uint32_t i = r->below(4) ? 0 : r->below(40); i > 0; i--)
        q->bias.push_back({(int32_t)r->below(n < 9 ? n + 1 : n / 3 + 9) - 1,
                           r->below(9) ? 3 * r->normal() : -INFINITY});
    for (uint32_t i = r->below(3); i > 0; i--) q->end.push_back((int32_t)r->below(n + 2) - 1);
    if (r->below(40) == 0) /* everything is an end token */
        for (uint32_t i = 0; i < n; i++) q->end.push_back((int32_t)i);
    q->p.min_tokens = r->below(2) ? r->below(12) : 0;
    q->has_history = r->below(2);
    const uint32_t distinct = r->below(2) ? n + 2 : 7;
    for (uint32_t i = r->below(300); i > 0; i--)
        q->history.push_back((int32_t)r->below(distinct) - 1);
    q->n_prompt = r->below((uint32_t)q->history.size() + 1);
    if (r->below(2)) q->p.repetition_penalty = (float)(0.5 + r->uniform());
    if (r->below(2)) q->p.presence_penalty = r->normal();
    if (r->below(2)) q->p.frequency_penalty = r->normal();
    /* the newest token may be known to the device alone; it is never prompt */
    q->last_from_device = q->has_history && q->history.size() > q->n_prompt && r->below(2);
}

/* All but a few, a few, half, one, or none; and bits past the vocabulary, which do not matter.
 */
static void random_mask(request *q, uint32_t n, rng *r) {
    const uint32_t style = r->below(12);
    q->allowed.resize(sampling_mask_words(n));
    for (uint32_t &word : q->allowed) {
        const uint32_t any = (uint32_t)r->u64(), few = any & (uint32_t)r->u64() & 0x11111111u;
        word = style < 4 ? ~few : style < 8 ? few : style < 10 ? any : 0;
    }
    if (n % 32) q->allowed.back() |= ~0u << n % 32;
    const uint32_t one = r->below(n);
    if (style == 10) q->allowed[one / 32] |= 1u << one % 32;
}

static request random_request(uint32_t n, rng *r) {
    request q = {};
    sampling_defaults(&q.p);
    q.p.seed = r->u64();
    q.position = r->below(1u << 30);
    q.p.n_logprobs = (int16_t)(r->below(3) ? -1 : (int)r->below(23));
    q.p.temperature = r->below(4) ? (float)(0.05 + 2 * r->uniform()) : 0;
    if (r->below(3) == 0) q.p.top_k = (int32_t)(r->below(3) ? r->below(60) : r->below(2 * n));
    if (r->below(3) == 0) q.p.top_p = (float)(r->below(3) ? r->uniform() : 1 - 1e-7);
    if (r->below(4) == 0) q.p.min_p = (float)(r->below(3) ? 0.3 : 1.2) * (float)r->uniform();
    if (r->below(6) == 0) q.p.typical_p = (float)r->uniform();
    if (r->below(25) == 0) q.p.temperature = odd_number(r);
    if (r->below(25) == 0) q.p.top_p = odd_number(r);
    if (r->below(25) == 0) q.p.min_p = odd_number(r);
    if (r->below(25) == 0) q.p.typical_p = odd_number(r);
    if (r->below(3) == 0) random_edits(&q, n, r);
    if (r->below(3) == 0) random_mask(&q, n, r);
    return q;
}

/* ---- both samplers ---- */

static sampled on_the_cpu(const float *logits, uint32_t n, request *q) {
    std::vector<float> copy(logits, logits + n);
    void *scratch = aligned_alloc(64, sampling_scratch_bytes(n));
    const sampling_history h = {q->history.data(), (uint32_t)q->history.size(), q->n_prompt};
    sampled out;
    q->p.bias = q->bias.data(), q->p.n_bias = (uint32_t)q->bias.size();
    q->p.end_tokens = q->end.data(), q->p.n_end_tokens = (uint32_t)q->end.size();
    sampling_draw(&out, copy.data(), n, &q->p, q->allowed.empty() ? NULL : q->allowed.data(),
                  q->has_history ? &h : NULL, q->position, scratch);
    free(scratch);
    return out;
}

/* Lists of all rows end to end, and what the step before drew. */
struct lists_of_rows {
    std::vector<int32_t> words, previous;
};

static tables_sampling for_the_device(const request &q, int32_t logit_row, lists_of_rows *l) {
    tables_sampling d = {};
    const sampling &p = q.p;
    d.logit_row = logit_row, d.position = q.position;
    d.seed[0] = (uint32_t)p.seed, d.seed[1] = (uint32_t)(p.seed >> 32);
    d.temperature = p.temperature, d.top_k = p.top_k, d.top_p = p.top_p, d.min_p = p.min_p;
    d.typical_p = p.typical_p, d.repetition_penalty = p.repetition_penalty;
    d.presence_penalty = p.presence_penalty, d.frequency_penalty = p.frequency_penalty;
    d.n_logprobs = p.n_logprobs;
    const uint32_t n = q.has_history ? (uint32_t)q.history.size() : 0;
    if ((n > q.n_prompt ? n - q.n_prompt : 0) < p.min_tokens) {
        d.end_at = (uint32_t)l->words.size(), d.n_end = (uint32_t)q.end.size();
        l->words.insert(l->words.end(), q.end.begin(), q.end.end());
    }
    d.allowed_at = (uint32_t)l->words.size(), d.n_allowed = (uint32_t)q.allowed.size();
    l->words.insert(l->words.end(), q.allowed.begin(), q.allowed.end());
    d.bias_at = (uint32_t)l->words.size(), d.n_bias = (uint32_t)q.bias.size();
    for (const logit_bias &b : q.bias) {
        int32_t word;
        memcpy(&word, &b.bias, 4);
        l->words.push_back(b.token), l->words.push_back(word);
    }
    d.history_at = (uint32_t)l->words.size(), d.n_history = n, d.history_from = -1;
    if (q.last_from_device) {
        d.n_history--;
        d.history_from = (int32_t)l->previous.size();
        l->previous.push_back(q.history.back());
    }
    l->words.insert(l->words.end(), q.history.begin(), q.history.begin() + d.n_history);
    d.n_prompt = q.n_prompt;
    return d;
}

static uint32_t bits(float f) {
    return bits_of_float(f);
}
static bool same(const sampled &a, const sampled &b, bool nan_logprob) {
    if (a.token != b.token || a.n_top != b.n_top) return false;
    if (!nan_logprob && bits(a.logprob) != bits(b.logprob)) return false;
    if (nan_logprob && (!isnan(a.logprob) || !isnan(b.logprob))) return false;
    for (int i = 0; i < a.n_top; i++)
        if (a.top[i].token != b.top[i].token ||
            bits(a.top[i].logprob) != bits(b.top[i].logprob))
            return false;
    return true;
}

static uint32_t none_allowed, not_finite; /* rows that had nothing to draw */

/* n_rows random rows in one call; logit rows in reverse, every ninth entry idle. */
static void compare(uint32_t n, uint32_t n_rows, rng *r) {
    std::vector<float> logits((size_t)n * n_rows);
    std::vector<request> requests;
    std::vector<uint32_t> styles;
    std::vector<tables_sampling> params;
    lists_of_rows lists = {{0}, {0}};
    for (uint32_t i = 0; i < n_rows; i++) {
        styles.push_back(r->below(2) ? 0 : r->below(STYLES));
        float *row = &logits[(size_t)i * n];
        fill(row, n, styles[i], r);
        for (uint32_t k = 0; k < n && i % 4; k++) /* else most of these rows draw nothing */
            if (!isfinite(row[k])) row[k] = -FLT_MAX;
        requests.push_back(random_request(n, r));
        params.push_back(for_the_device(requests[i], (int32_t)i, &lists));
        if (i % 9 == 8) params[i].logit_row = -1;
    }
    device<float> dl(logits);
    device<tables_sampling> dp(params);
    lists.previous.resize(std::max<size_t>(lists.previous.size(), n_rows));
    device<int32_t> dw(lists.words), drawn(lists.previous);
    device<uint8_t> scratch(cu_sample_scratch_bytes(n_rows, n));
    device<sampled> out(n_rows);
    const cu_logits row = {dl.p, n, scratch.p};
    CUDA_OK(cu_sample(0, &row, dp.p, dw.p, n_rows, out.p, drawn.p));
    const std::vector<sampled> got = out.get();
    const std::vector<int32_t> tokens = drawn.get();
    for (uint32_t i = 0; i < n_rows; i++) {
        if (params[i].logit_row < 0) {
            SWEEP(tokens[i] == -1);
            continue;
        }
        if (!all_finite(&logits[(size_t)i * n], n)) {
            SWEEP(got[i].token == SAMPLING_NOT_FINITE && got[i].n_top == 0 && tokens[i] == -1);
            not_finite++;
            continue;
        }
        const sampled want = on_the_cpu(&logits[(size_t)i * n], n, &requests[i]);
        const sampling &p = requests[i].p;
        const std::vector<uint32_t> &mask = requests[i].allowed;
        SWEEP(mask.empty() || want.token < 0 || mask[want.token / 32] >> want.token % 32 & 1);
        none_allowed += want.token < 0;
        if (!same(want, got[i], p.n_logprobs < 0) || tokens[i] != want.token)
            ck_abort_msg("n %u style %u: token %d, not %d; logprob %.9g, not %.9g; n_top %u, "
                         "not %u (T %g k %d p %g min %g typical %g logprobs %d edits %zu %zu "
                         "%zu mask %zu)",
                         n, styles[i], got[i].token, want.token, got[i].logprob, want.logprob,
                         got[i].n_top, want.n_top, p.temperature, p.top_k, p.top_p, p.min_p,
                         p.typical_p, p.n_logprobs, requests[i].bias.size(),
                         requests[i].end.size(), requests[i].history.size(),
                         requests[i].allowed.size());
    }
}

/* Other cases in each of the shim's orders. CASES multiplies them. */
static void compare_many(uint32_t n, uint32_t n_rows, uint32_t calls) {
    const char *order = getenv("CUSHIM_ORDER"), *cases = getenv("CASES");
    rng r = {hash_mix(n) + (uint64_t)(order ? atoi(order) : 0) * 1000003};
    for (uint32_t i = cases ? calls * (uint32_t)atoi(cases) : calls; i > 0; i--)
        compare(n, n_rows, &r);
}

START_TEST(tiny_vocabularies) {
    compare_many(1, 64, 8);
    compare_many(2, 64, 4);
    compare_many(33, 64, 40);
    compare_many(127, 64, 6);
    ck_assert_uint_gt(none_allowed, 0); /* the end of a masked row is among the cases */
    ck_assert_uint_gt(not_finite, 0);
}
END_TEST

START_TEST(small_vocabularies) {
    compare_many(1000, 64, 20);
    compare_many(4096, 16, 2);
    compare_many(4099, 16, 3);
}
END_TEST

START_TEST(vocabularies_of_models) {
    compare_many(49152, 9, 1);
    compare_many(151936, 3, 1);
}
END_TEST

START_TEST(scores_are_the_cpus) {
    for (uint32_t n : {1u, 33u, 1000u, 4099u}) {
        rng r = {n};
        const uint32_t n_rows = 60;
        std::vector<float> logits((size_t)n * n_rows);
        std::vector<tables_score> params;
        for (uint32_t i = 0; i < n_rows; i++) {
            fill(&logits[(size_t)i * n], n, i % STYLES, &r);
            params.push_back(
                {(int32_t)i, (int32_t)r.below(n + 2) - 1, (int32_t)r.below(25) - 1});
        }
        device<float> dl(logits);
        device<tables_score> dp(params);
        device<uint8_t> scratch(cu_sample_scratch_bytes(n_rows, n));
        device<sampled> out(n_rows);
        const cu_logits rows = {dl.p, n, scratch.p};
        CUDA_OK(cu_score_rows(0, &rows, dp.p, n_rows, out.p));
        const std::vector<sampled> got = out.get();
        void *memory = aligned_alloc(64, sampling_scratch_bytes(n));
        for (uint32_t i = 0; i < n_rows; i++) {
            sampled want;
            sampling_score(&want, &logits[(size_t)i * n], n, params[i].token, params[i].n_top,
                           memory);
            SWEEP(same(want, got[i], false));
        }
        free(memory);
        const std::vector<float> after = dl.get();
        SWEEP(!memcmp(after.data(), logits.data(), logits.size() * sizeof(float)));
    }
}
END_TEST

CHECK_MAIN("sample", tiny_vocabularies, small_vocabularies, vocabularies_of_models,
           scores_are_the_cpus)
