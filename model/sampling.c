/* The sampler: edits of the logits, logprobs, truncation, the draw. Nothing is sorted: the
 * truncations are cuts found by a radix select, and the survivors stay in the order of their
 * ids. Owns nothing; one scratch per thread. */
#include "model/sampling.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/check.h"
#include "base/half.h"
#include "model/row.h"

typedef struct scratch {
    uint64_t *bucket, *partial; /* [ROW_CUT_BUCKETS], [ceil(n / ROW_SUM_BLOCK)] */
    float *block_max;           /* [ceil(n / ROW_BLOCK)] */
    uint32_t *id, *key, *at;    /* [n] each */
    float *logits;              /* [n], a copy for the logprob of what is drawn */
} scratch;

/* What is still in the draw: the value (logit, later weight) of each, by ascending id. */
typedef struct survivors {
    float *value;
    uint32_t *id; /* NULL: every id of the vocabulary */
    uint32_t n;
} survivors;

/* Lays the scratch out at base (NULL: only adds up) and returns its size. */
static size_t scratch_lay(scratch *s, void *base, uint32_t n) {
    size_t at = 0, row = (size_t)n * 4;
#define TAKE(field, bytes)                                                                     \
    s->field = base ? (void *)((char *)base + at) : NULL;                                      \
    at += align_up((bytes), 64)
    TAKE(bucket, ROW_CUT_BUCKETS * sizeof(uint64_t));
    TAKE(partial, ceil_div(n, ROW_SUM_BLOCK) * sizeof(uint64_t));
    TAKE(block_max, ceil_div(n, ROW_BLOCK) * sizeof(float));
    TAKE(id, row);
    TAKE(key, row);
    TAKE(at, row);
    TAKE(logits, row);
#undef TAKE
    return at;
}

size_t sampling_scratch_bytes(uint32_t n_vocab) {
    scratch s;
    return scratch_lay(&s, NULL, n_vocab);
}

void sampling_defaults(sampling *p) {
    *p = (sampling){.temperature = 1,
                    .top_p = 1,
                    .typical_p = 1,
                    .repetition_penalty = 1,
                    .n_logprobs = -1};
}

void sampling_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]) {
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]};
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t c0 = (uint32_t)(b >> 32) ^ c[1] ^ k0, c2 = (uint32_t)(a >> 32) ^ c[3] ^ k1;
        c[1] = (uint32_t)b, c[3] = (uint32_t)a, c[0] = c0, c[2] = c2;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof c);
}

/* 53 bits, of which sampling_uniform shows the first 24. */
static uint64_t random_bits(uint64_t seed, uint32_t position) {
    uint32_t r[4], counter[4] = {position}, key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    sampling_philox(r, counter, key);
    return ((uint64_t)r[0] << 32 | r[1]) >> 11;
}

float sampling_uniform(uint64_t seed, uint32_t position) {
    return (float)(random_bits(seed, position) >> 29) * 0x1p-24f;
}

/* ---- edits ---- */

static bool known(int32_t token, uint32_t n_vocab) {
    return (uint32_t)token < n_vocab;
}

static bool penalises(const sampling *p) {
    return p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
}

/* Occurrences are counted in a table that is never cleared as a whole: only the entries of
 * tokens in the history are set to 0, used, and marked as done. */
static void penalise(float *logits, uint32_t n_vocab, const sampling *p,
                     const sampling_history *h, uint32_t *count) {
    const uint32_t done = UINT32_MAX;
    for (uint32_t i = 0; i < h->n; i++)
        if (known(h->tokens[i], n_vocab)) count[h->tokens[i]] = 0;
    for (uint32_t i = h->n_prompt; i < h->n; i++)
        if (known(h->tokens[i], n_vocab)) count[h->tokens[i]]++;
    for (uint32_t i = 0; i < h->n; i++) {
        if (!known(h->tokens[i], n_vocab) || count[h->tokens[i]] == done) continue;
        uint32_t c = count[h->tokens[i]];
        float *l = &logits[h->tokens[i]];
        count[h->tokens[i]] = done;
        *l = *l > 0 ? *l / p->repetition_penalty : *l * p->repetition_penalty;
        if (c == 0) continue;
        *l -= p->frequency_penalty * (float)c;
        *l -= p->presence_penalty;
    }
}

static void edit_logits(float *logits, uint32_t n_vocab, const sampling *p,
                        const sampling_history *h, uint32_t *count) {
    for (uint32_t i = 0; i < p->n_bias; i++)
        if (known(p->bias[i].token, n_vocab)) logits[p->bias[i].token] += p->bias[i].bias;
    if (h && h->n && penalises(p)) penalise(logits, n_vocab, p, h, count);
    uint32_t n_output = h && h->n > h->n_prompt ? h->n - h->n_prompt : 0;
    if (n_output >= p->min_tokens) return;
    for (uint32_t i = 0; i < p->n_end_tokens; i++)
        if (known(p->end_tokens[i], n_vocab)) logits[p->end_tokens[i]] = -INFINITY;
}

static bool edits(const sampling *p, const sampling_history *h) {
    return p->n_bias || (p->min_tokens && p->n_end_tokens) || (h && h->n && penalises(p));
}

/* ---- logprobs ---- */

static float tamed(float logit) {
    return logit > FLT_MAX ? FLT_MAX : logit;
}

static float logprob_of(float logit, float max, double log_sum) {
    if (!(logit > -INFINITY)) return -INFINITY;
    return (float)((double)tamed(logit) - (double)max - log_sum) + 0.0f; /* never -0 */
}

/* The n best by insertion; blocks that hold nothing better than the worst of them are passed
 * over, so that this costs little more than one look at block_max. */
static void take_best(sampled *out, const float *logits, uint32_t n_vocab,
                      const float *block_max, uint32_t n) {
    uint32_t have = 0;
    for (uint32_t i = 0; n && i < n_vocab; i++) {
        if (i % ROW_BLOCK == 0 && have == n &&
            !(block_max[i / ROW_BLOCK] > out->top[n - 1].logprob)) {
            i += ROW_BLOCK - 1;
            continue;
        }
        float l = logits[i];
        if (!(l > (have == n ? out->top[n - 1].logprob : -INFINITY))) continue;
        uint32_t at = have < n ? have++ : n - 1;
        for (; at > 0 && out->top[at - 1].logprob < l; at--) out->top[at] = out->top[at - 1];
        out->top[at] = (token_prob){(int32_t)i, l};
    }
    out->n_top = (uint16_t)have;
}

/* Fills in top and returns log(sum(exp(logit - max))). */
static double score(sampled *out, const float *logits, uint32_t n_vocab, float max, int n_top,
                    const float *block_max) {
    if (!(max > -INFINITY)) return 0;
    double log_sum =
        row_log((double)row_exp2_sum(logits, n_vocab, max, 1.44269504f) * ROW_UNIT);
    if (n_top > SAMPLING_MAX_LOGPROBS) n_top = SAMPLING_MAX_LOGPROBS;
    take_best(out, logits, n_vocab, block_max, n_top > 0 ? (uint32_t)n_top : 0);
    for (int i = 0; i < out->n_top; i++)
        out->top[i].logprob = logprob_of(out->top[i].logprob, max, log_sum);
    return log_sum;
}

void sampling_score(sampled *out, const float *logits, uint32_t n_vocab, int32_t token,
                    int n_top, void *memory) {
    scratch s;
    CHECK(n_vocab > 0);
    scratch_lay(&s, memory, n_vocab);
    *out = (sampled){.token = token, .logprob = -INFINITY};
    float max = tamed(row_max(logits, n_vocab, s.block_max).value);
    double log_sum = score(out, logits, n_vocab, max, n_top, s.block_max);
    if (known(token, n_vocab)) out->logprob = logprob_of(logits[token], max, log_sum);
}

/* ---- truncation ---- */

static uint32_t id_of(const survivors *v, uint32_t i) {
    return v->id ? v->id[i] : i;
}

/* Keeps what the cut keeps; key: [v->n]. */
static void apply_cut(survivors *v, row_cut cut, const uint32_t *key, uint32_t *ids) {
    uint32_t m = 0;
    for (uint32_t i = 0; i < v->n; i++)
        if (row_cut_keeps(&cut, key[i])) ids[m] = id_of(v, i), v->value[m++] = v->value[i];
    v->id = ids, v->n = m;
}

static void keep_at_least(survivors *v, float least, uint32_t *ids) {
    uint32_t m = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        float f = v->value[i];
        ids[m] = id_of(v, i), v->value[m] = f;
        m += f >= least; /* no branch: which ones stay is hard to predict */
    }
    v->id = ids, v->n = m;
}

/* A bound below which none of the k best can lie: the k-th of the block maxima. */
static float kth_block_max(const scratch *s, uint32_t n_vocab, uint32_t k) {
    uint32_t n_blocks = (uint32_t)ceil_div(n_vocab, ROW_BLOCK);
    if (k > n_blocks) return -FLT_MAX;
    for (uint32_t b = 0; b < n_blocks; b++) s->key[b] = row_key(s->block_max[b]);
    row_cut cut = row_find_cut(s->key, NULL, n_blocks, k, s->at, s->bucket);
    for (uint32_t b = 0; b < n_blocks; b++)
        if (s->key[b] == cut.key) return s->block_max[b];
    return -FLT_MAX;
}

/* The first truncation: v holds all logits, and block_max is theirs. */
static void cut_top_k(survivors *v, uint32_t k, const scratch *s) {
    float least = kth_block_max(s, v->n, k);
    if (!(least >= -FLT_MAX)) least = -FLT_MAX;
    uint32_t m = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        if (i % ROW_BLOCK == 0 && s->block_max[i / ROW_BLOCK] < least) {
            i += ROW_BLOCK - 1;
            continue;
        }
        float f = v->value[i];
        s->id[m] = i, v->value[m] = f;
        m += f >= least;
    }
    v->id = s->id, v->n = m;
    if (m <= k) return;
    for (uint32_t i = 0; i < m; i++) s->key[i] = row_key(v->value[i]);
    apply_cut(v, row_find_cut(s->key, NULL, m, k, s->at, s->bucket), s->key, s->id);
}

/* The least mass that is a share p of sum. */
static uint64_t share(float p, uint64_t sum) {
    double exact = p > 0 ? (double)p * (double)sum : 0;
    uint64_t mass = (uint64_t)exact;
    if ((double)mass < exact) mass++;
    return mass > 0 ? mass : 1;
}

/* v holds weights. The surprisal of each is -ln(w / sum); their mean is the entropy, added up
 * in units of 2^-44. */
static void cut_typical(survivors *v, float typical_p, const scratch *s) {
    keep_at_least(v, FLT_MIN, s->id);
    uint64_t mass = row_sum(v->value, v->n, s->partial);
    if (mass == 0) return;
    double sum = (double)mass * ROW_UNIT;
    int64_t units = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        float surprisal = (float)-row_log((double)v->value[i] / sum);
        units += (int64_t)((double)v->value[i] / sum * (double)surprisal * 0x1p44);
        s->key[i] = bits_of_float(surprisal);
    }
    double entropy = (double)units * 0x1p-44;
    for (uint32_t i = 0; i < v->n; i++)
        s->key[i] = ~row_key(fabsf((float)((double)float_of_bits(s->key[i]) - entropy)));
    row_cut cut =
        row_find_cut(s->key, v->value, v->n, share(typical_p, mass), s->at, s->bucket);
    apply_cut(v, cut, s->key, s->id);
}

/* v holds weights. All whose mass is at most (sum - target) / n together have no more than
 * sum - target: none of them can be needed, and most of a vocabulary goes with this one look. A
 * weight below `least` has no more: the 0.999 is for the rounding of least, the unit for that
 * of the mass. */
static void cut_top_p(survivors *v, float top_p, const scratch *s) {
    uint64_t sum = row_sum(v->value, v->n, s->partial), target = share(top_p, sum);
    uint64_t spare = sum > target ? (sum - target) / v->n : 0;
    float least = spare > 1 ? (float)((double)(spare - 1) * (ROW_UNIT * 0.999)) : 0;
    keep_at_least(v, least > FLT_MIN ? least : FLT_MIN, s->id);
    memcpy(s->key, v->value, v->n * sizeof *s->key); /* bits of positive floats are in order */
    row_cut cut = row_find_cut(s->key, v->value, v->n, target, s->at, s->bucket);
    apply_cut(v, cut, s->key, s->id);
}

static void cut_min_p(survivors *v, float min_p, const scratch *s) {
    float max = row_max(v->value, v->n, NULL).value;
    float least = (min_p < 1 ? min_p : 1) * max;
    keep_at_least(v, least > FLT_MIN ? least : FLT_MIN, s->id);
}

static uint32_t draw(float *logits, uint32_t n_vocab, float max, const sampling *p,
                     uint32_t position, const scratch *s) {
    survivors v = {logits, NULL, n_vocab};
    if (p->top_k > 0 && (uint32_t)p->top_k < n_vocab) cut_top_k(&v, (uint32_t)p->top_k, s);
    row_exp2(v.value, v.n, max, 1.44269504f / p->temperature);
    if (p->typical_p < 1) cut_typical(&v, p->typical_p, s);
    if (p->top_p < 1) cut_top_p(&v, p->top_p, s);
    if (p->min_p > 0) cut_min_p(&v, p->min_p, s);
    uint64_t sum = row_sum(v.value, v.n, s->partial);
    uint64_t target = (uint64_t)((unsigned __int128)random_bits(p->seed, position) * sum >> 53);
    return id_of(&v, row_pick(v.value, v.n, s->partial, target));
}

void sampling_draw(sampled *out, float *logits, uint32_t n_vocab, const sampling *p,
                   const sampling_history *history, uint32_t position, void *memory) {
    scratch s;
    CHECK(n_vocab > 0);
    scratch_lay(&s, memory, n_vocab);
    *out = (sampled){.logprob = NAN};
    uint32_t original = 0;
    if (edits(p, history)) {
        original = row_max(logits, n_vocab, NULL).at;
        edit_logits(logits, n_vocab, p, history, s.id);
    }
    row_best best = row_max(logits, n_vocab, s.block_max);
    bool asked = p->n_logprobs >= 0, nothing_left = !(best.value > -INFINITY);
    bool greedy = !(p->temperature >= SAMPLING_GREEDY) || p->top_k == 1;
    float max = tamed(best.value);
    double log_sum = asked ? score(out, logits, n_vocab, max, p->n_logprobs, s.block_max) : 0;
    uint32_t token = nothing_left ? original : best.at;
    float logit = logits[token];
    if (!nothing_left && !greedy) {
        if (asked) memcpy(s.logits, logits, n_vocab * sizeof *logits);
        token = draw(logits, n_vocab, max, p, position, &s);
        if (asked) logit = s.logits[token];
    }
    out->token = (int32_t)token;
    if (asked) out->logprob = logprob_of(logit, max, log_sum);
}
