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

/* Of all experts, into w: 2^((l - max) log2 e), or the sigmoid of l. */
static void scores_of(const op *o, const float *logits, uint32_t n,
                      void (*exp2)(const float *, uint32_t, float *), float *w) {
    const bool sigmoid = o->route.gate == ROUTE_SIGMOID;
    float max = logits[0];
    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > max) max = logits[i];
    for (uint32_t i = 0; i < n; i++)
        w[i] = sigmoid ? logits[i] * -LOG2_E : (logits[i] - max) * LOG2_E;
    exp2(w, n, w);
    for (uint32_t i = 0; i < n && sigmoid; i++) w[i] = 1 / (1 + w[i]);
}

static double sum_of(const float *w, uint32_t n) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += (double)w[i];
    return sum;
}

/* The sum of the `best` (1 or 2) largest. */
static float group_score(const float *x, uint32_t n, uint32_t best) {
    float first = -INFINITY, second = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        if (x[i] > first)
            second = first, first = x[i];
        else if (x[i] > second)
            second = x[i];
    }
    return best == 2 ? first + second : first;
}

/* What is not in the best groups can no longer be chosen. */
static void limit_groups(const op *o, float *x, uint32_t n) {
    const uint32_t groups = o->route.n_groups, size = n / groups;
    float score[ROUTE_MAX_GROUPS];
    bool kept[ROUTE_MAX_GROUPS] = {false};
    for (uint32_t g = 0; g < groups; g++)
        score[g] = group_score(x + (size_t)g * size, size, o->route.group_best);
    for (uint32_t k = 0; k < o->route.groups_used; k++) {
        uint32_t best = groups;
        for (uint32_t g = 0; g < groups; g++)
            if (!kept[g] && (best == groups || score[g] > score[best])) best = g;
        kept[best] = true;
    }
    for (uint32_t i = 0; i < n; i++)
        if (!kept[i / size]) x[i] = -INFINITY;
}

/* What the experts are chosen by, into x: logits, in whose order the scores are, or scores where
 * something is added to them. */
static void choice_of(const op *o, const route_vectors *v, const float *logits,
                      const float *scores, uint32_t n, float *x) {
    const bool sigmoid = o->route.gate == ROUTE_SIGMOID;
    const bool by_scores = v->choice_bias || (o->route.n_groups && o->route.group_best == 2);
    const float by = by_scores && !sigmoid ? 1 / (float)sum_of(scores, n) : 1;
    for (uint32_t i = 0; i < n; i++) {
        x[i] = by_scores ? scores[i] * by : logits[i];
        if (v->choice_bias) x[i] += v->choice_bias[i];
    }
    if (o->route.n_groups) limit_groups(o, x, n);
}

void route_choose(const op *o, const route_vectors *v, const float *logits, uint32_t n_experts,
                  void (*exp2)(const float *, uint32_t, float *), float *scratch,
                  route_word *out) {
    const uint32_t k = o->route.top_k;
    float *scores = scratch, *choice = scratch + n_experts;
    CHECK(k >= 1 && k <= n_experts);
    if (!dtype_is_finite(DT_F32, logits, n_experts)) {
        for (uint32_t i = 0; i < k; i++) out[i].expert = i, out[k + i].weight = NAN;
        return;
    }
    scores_of(o, logits, n_experts, exp2, scores);
    choice_of(o, v, logits, scores, n_experts, choice);
    choose_largest(choice, n_experts, k, out);
    double sum = 0;
    if (o->route.norm) {
        for (uint32_t i = 0; i < k; i++) sum += (double)scores[out[i].expert];
        sum += (double)o->route.eps;
    } else {
        sum = o->route.gate == ROUTE_SOFTMAX ? sum_of(scores, n_experts) : 1;
    }
    /* Sigmoids of logits far below 0 may all be 0. */
    const float by = o->route.scale / (float)(sum > 0x1p-100 ? sum : 0x1p-100);
    for (uint32_t i = 0; i < k; i++) {
        const uint32_t expert = out[i].expert;
        out[k + i].weight = scores[expert] * by;
        if (v->scale) out[k + i].weight *= v->scale[expert];
    }
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
