/* The choice of experts, and the sort of rows by them. Pure. */
#include "engine/cpu/route.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "model/dtype.h"

/* Indices of the largest of finite numbers, one after the other: top_k is small. x is lost. */
static void choose_largest(float *x, uint32_t n, uint32_t top_k, route_word *out) {
    for (uint32_t k = 0; k < top_k; k++) {
        uint32_t best = 0;
        for (uint32_t i = 1; i < n; i++)
            if (x[i] > x[best]) best = i;
        out[k].expert = best;
        x[best] = -INFINITY;
    }
}

static float largest(const float *x, uint32_t n) {
    float most = x[0];
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > most) most = x[i];
    return most;
}

/* Of all experts, into w: 2^((l - max) log2 e), or the sigmoid of l. */
static void scores_of(const op *o, const float *logits, uint32_t n,
                      void (*exp2)(const float *, uint32_t, float *), float *w) {
    const bool sigmoid = o->route.gate == ROUTE_SIGMOID;
    const float max = largest(logits, n);
    for (uint32_t i = 0; i < n; i++)
        w[i] = sigmoid ? logits[i] * -LOG2_E : (logits[i] - max) * LOG2_E;
    exp2(w, n, w);
    for (uint32_t i = 0; i < n && sigmoid; i++) w[i] = 1 / (1 + w[i]);
}

static double sum_of(const float *x, uint32_t n) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += (double)x[i];
    return sum;
}

/* What experts are chosen by, into key: logits, whose order is that of the scores; with a bias, the
 * scores, of softmax divided by their sum, and the bias. */
static void keys_of(const op *o, const float *logits, const float *bias, const float *scores,
                    uint32_t n, float *key) {
    if (!bias) {
        memcpy(key, logits, sizeof *key * n);
        return;
    }
    const float by = o->route.gate == ROUTE_SOFTMAX ? 1 / (float)sum_of(scores, n) : 1;
    for (uint32_t i = 0; i < n; i++) key[i] = scores[i] * by + bias[i];
}

void route_choose(const op *o, const float *logits, const float *bias, uint32_t n_experts,
                  void (*exp2)(const float *, uint32_t, float *), float *scratch,
                  route_word *out) {
    float *key = scratch + n_experts;
    const uint32_t k = o->route.top_k;
    CHECK(k >= 1 && k <= n_experts);
    if (!dtype_is_finite(DT_F32, logits, n_experts)) {
        for (uint32_t i = 0; i < k; i++) out[i].expert = i, out[k + i].weight = NAN;
        return;
    }
    scores_of(o, logits, n_experts, exp2, scratch);
    keys_of(o, logits, bias, scratch, n_experts, key);
    choose_largest(key, n_experts, k, out);
    double sum = 0;
    if (o->route.norm) {
        for (uint32_t i = 0; i < k; i++) sum += (double)scratch[out[i].expert];
        sum += (double)o->route.eps;
    } else {
        sum = o->route.gate == ROUTE_SOFTMAX ? sum_of(scratch, n_experts) : 1;
    }
    /* Sigmoids of logits far below 0 may all be 0. */
    const float by = o->route.scale / (float)(sum > 0x1p-100 ? sum : 0x1p-100);
    for (uint32_t i = 0; i < k; i++) out[k + i].weight = scratch[out[i].expert] * by;
}

void route_sort(route_sorted *s, const route_word *chosen, uint32_t n_rows, uint32_t top_k,
                uint32_t n_experts) {
    uint32_t *first = s->first;
    memset(first, 0, sizeof *first * (n_experts + 1));
    for (uint32_t r = 0; r < n_rows; r++)
        for (uint32_t k = 0; k < top_k; k++) first[chosen[r * 2 * top_k + k].expert + 1]++;
    s->n_used = s->n_most = 0;
    for (uint32_t i = 0; i < n_experts; i++) {
        if (first[i + 1]) s->used[s->n_used++] = i;
        if (first[i + 1] > s->n_most) s->n_most = first[i + 1];
        first[i + 1] += first[i];
    }
    for (uint32_t r = 0; r < n_rows; r++)
        for (uint32_t k = 0; k < top_k; k++) {
            const route_word *c = chosen + (size_t)r * 2 * top_k + k;
            const uint32_t slot = first[c->expert]++;
            s->row[slot] = r;
            s->weight[slot] = c[top_k].weight;
        }
    /* Each begins where the one before it ended. */
    memmove(first + 1, first, sizeof *first * n_experts);
    first[0] = 0;
}
