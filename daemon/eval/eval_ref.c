/* Records of a reference: made, checked, compared. Stateless. */
#include "daemon/eval/eval_ref.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "model/row.h"

static const char magic[8] = {'V', 'R', 'A', 'M', 'D', 'R', 'E', 'F'};

static uint64_t header_hash(const eval_header *h) {
    return hash64(h, offsetof(eval_header, check), 0);
}

static uint64_t record_hash(const eval_record *r, uint64_t index) {
    return hash64(r, offsetof(eval_record, check), hash_mix(index + 1));
}

void eval_header_seal(eval_header *h) {
    memcpy(h->magic, magic, sizeof magic);
    h->version = EVAL_VERSION;
    h->header_bytes = sizeof(eval_header);
    h->record_bytes = sizeof(eval_record);
    h->n_top = EVAL_TOP;
    h->n_tail = EVAL_TAIL;
    h->check = header_hash(h);
}

/* Printed as it stands later on. */
static bool is_name(const char *s, size_t cap) {
    const size_t n = strnlen(s, cap);
    if (n == cap || !utf8_valid((str){s, n})) return false;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f) return false;
    return true;
}

/* A window's first token is its BOS, or else one that nothing predicts. */
static bool counts_agree(const eval_header *h) {
    if (h->bos > 1 || h->context < 2 || h->n_vocab < 1 || h->n_records < 1) return false;
    if (h->bos) return h->n_records == h->n_tokens;
    const uint64_t windows = h->n_tokens / h->context + (h->n_tokens % h->context != 0);
    return h->n_records == h->n_tokens - windows;
}

status eval_header_check(const eval_header *h, uint64_t file_bytes, err *e) {
    if (file_bytes < sizeof *h || memcmp(h->magic, magic, sizeof magic) != 0)
        return err_set(e, ERR_FORMAT, "it is no reference of vramd eval");
    if (h->version != EVAL_VERSION) {
        err_set(e, ERR_UNSUPPORTED, "it has version %u, this program reads version %d",
                h->version, EVAL_VERSION);
        return err_hint(e, "write it again with --write-reference");
    }
    if (h->check != header_hash(h))
        return err_set(e, ERR_FORMAT, "the checksum of its header is wrong");
    if (h->header_bytes != sizeof *h || h->record_bytes != sizeof(eval_record) ||
        h->n_top != EVAL_TOP || h->n_tail != EVAL_TAIL || !counts_agree(h) ||
        !is_name(h->model, sizeof h->model) || !is_name(h->made_by, sizeof h->made_by))
        return err_set(e, ERR_FORMAT, "its header contradicts itself");
    if ((file_bytes - sizeof *h) % sizeof(eval_record) == 0 &&
        (file_bytes - sizeof *h) / sizeof(eval_record) == h->n_records)
        return OK;
    return err_set(e, ERR_FORMAT, "it has %llu bytes, its header says %llu records of %zu",
                   (unsigned long long)file_bytes, (unsigned long long)h->n_records,
                   sizeof(eval_record));
}

/* ---- making one ---- */

static size_t partials(uint32_t n_vocab) {
    return (n_vocab + ROW_SUM_BLOCK - 1) / ROW_SUM_BLOCK;
}

size_t eval_scratch_bytes(uint32_t n_vocab) {
    return align_up(partials(n_vocab) * sizeof(uint64_t), 64) + align_up(4ull * n_vocab, 64);
}

/* The best n of a row, sorted by insertion: few of a row's values ever enter the list. */
static void find_best(eval_record *r, const float *x, uint32_t n_vocab, uint32_t n) {
    uint32_t have = 0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        if (have == n && !(x[i] > r->logit[n - 1])) continue;
        uint32_t at = have < n ? have++ : n - 1;
        for (; at > 0 && x[i] > r->logit[at - 1]; at--)
            r->logit[at] = r->logit[at - 1], r->id[at] = r->id[at - 1];
        r->logit[at] = x[i], r->id[at] = i;
    }
}

/* Systematic sampling: EVAL_TAIL points at equal distances in the running sum of the rest's
 * probabilities, the first at a number drawn from the index. Returns the sum of exp(logit - best)
 * over the rest. */
static double sample_rest(eval_record *r, const float *logits, uint32_t n_vocab, uint64_t index,
                          void *scratch) {
    const float log2_e = 1.44269504f, best = r->logit[0];
    uint64_t *partial = scratch;
    float *w = (float *)((char *)scratch + align_up(partials(n_vocab) * sizeof(uint64_t), 64));
    memcpy(w, logits, sizeof(float) * n_vocab);
    for (uint32_t i = 0; i < r->n_top; i++) w[r->id[i]] = -INFINITY;
    row_exp2(w, n_vocab, best, log2_e);
    const uint64_t sum = row_sum(w, n_vocab, partial);
    if (sum == 0) return 0;
    const double start = sampling_uniform(index, 0), step = (double)sum / EVAL_TAIL;
    for (uint32_t k = 0; k < EVAL_TAIL; k++) {
        const double target = (start + k) * step;
        const uint32_t i = row_pick(w, n_vocab, partial, (uint64_t)target);
        r->id[EVAL_TOP + k] = i;
        r->logit[EVAL_TOP + k] = logits[i];
    }
    return (double)sum * ROW_UNIT;
}

void eval_record_make(eval_record *r, const float *logits, uint32_t n_vocab,
                      const sampled *scored, uint64_t index, void *scratch) {
    *r = (eval_record){.target = (uint32_t)scored->token, .logprob = scored->logprob};
    r->lse = (double)logits[r->target] - (double)r->logprob;
    r->n_top = n_vocab < EVAL_TOP ? n_vocab : EVAL_TOP;
    find_best(r, logits, n_vocab, r->n_top);
    if (isfinite(r->logit[0])) {
        const double rest = sample_rest(r, logits, n_vocab, index, scratch);
        r->rest = (float)(rest * exp((double)r->logit[0] - r->lse));
    }
    r->check = record_hash(r, index);
}

/* ---- reading ---- */

status eval_record_check(const eval_record *r, uint32_t n_vocab, uint64_t index, err *e) {
    const uint32_t n_top = n_vocab < EVAL_TOP ? n_vocab : EVAL_TOP;
    const double slack = 1e-3; /* of rounding */
    if (r->check != record_hash(r, index))
        return err_set(e, ERR_FORMAT, "the checksum of record %llu is wrong",
                       (unsigned long long)index);
    bool good = r->n_top == n_top && r->target < n_vocab && isfinite(r->lse) &&
                r->logprob <= slack && r->rest >= 0 && r->rest <= 1 + slack;
    for (uint32_t i = 0; i < EVAL_KEPT; i++) {
        const bool used = i < n_top || (i >= EVAL_TOP && r->rest > 0);
        good &= r->id[i] < n_vocab && (!used || r->logit[i] <= r->lse + slack);
    }
    if (good) return OK;
    return err_set(e, ERR_FORMAT, "record %llu contradicts itself", (unsigned long long)index);
}

/* d - 1 + exp(-d), d = ln(p / q) of one kept token. */
static double term_of(const eval_record *r, uint32_t i, const float *logits, double lse) {
    const double d = ((double)r->logit[i] - r->lse) - ((double)logits[r->id[i]] - lse);
    return d + expm1(-d);
}

double eval_record_kl(const eval_record *r, const float *logits, float logprob) {
    const double lse = (double)logits[r->target] - (double)logprob;
    double top = 0, tail = 0;
    for (uint32_t i = 0; i < r->n_top; i++) {
        const double p = exp((double)r->logit[i] - r->lse);
        if (p > 0) top += p * term_of(r, i, logits, lse);
    }
    if (r->rest == 0) return top;
    for (uint32_t i = EVAL_TOP; i < EVAL_KEPT; i++) tail += term_of(r, i, logits, lse);
    return top + (double)r->rest * tail / EVAL_TAIL;
}
