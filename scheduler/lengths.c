/* The medians of lengths.h. */
#include "scheduler/lengths.h"

#include "scheduler/state.h"

/* Of a sequence's own time: before the scheduler knows what steps take, roughly. */
static const double US_A_ROW = 1000, US_A_STEP = 10000;

static uint32_t class_of(uint64_t tenant, uint32_t max_tokens) {
    uint32_t bucket = 0;
    while (bucket < LENGTH_BUCKETS - 1 && max_tokens >> bucket > 1) bucket++;
    return (uint32_t)(tenant >> 1) % LENGTH_TENANTS * LENGTH_BUCKETS + bucket;
}

/* The time that a sequence takes which runs alone. */
static double service_us(const sched *s, uint32_t n_prompt, uint32_t n_output) {
    if (!cost_ready(&s->cost)) return US_A_ROW * n_prompt + US_A_STEP * n_output;
    const step_work row = {.rows = 1, .logit_rows = 1};
    return s->cost.coef[1] * n_prompt + cost_predict(&s->cost, row) * n_output;
}

uint64_t lengths_head_start(const sched *s, uint64_t tenant, uint32_t n_prompt,
                            uint32_t max_tokens, uint32_t *predicted) {
    *predicted = 0;
    if (!s->cfg.policy->by_length) return 0;
    const length_class *c = &s->lengths[class_of(tenant, max_tokens)];
    const uint32_t n = (uint32_t)(c->median + 0.5);
    *predicted = c->n && n < max_tokens ? n : max_tokens;
    const double us = SCHED_SHORTEST_ALPHA * service_us(s, n_prompt, *predicted);
    return us < SCHED_SHORTEST_MOST_US ? (uint64_t)us : SCHED_SHORTEST_MOST_US;
}

void lengths_finished(sched *s, uint32_t record, uint32_t n_output) {
    enum { FIRST = 2, SLOWEST = 50 };
    const seq_record *r = &s->record[record];
    if (!s->cfg.policy->by_length || r->spec.max_tokens == 0) return;
    length_class *c = &s->lengths[class_of(r->spec.tenant, r->spec.max_tokens)];
    s->count.length_predictions++;
    s->count.length_predictions_exceeded += n_output > r->n_predicted;
    s->count.length_prediction_error_tokens +=
        n_output > r->n_predicted ? n_output - r->n_predicted : r->n_predicted - n_output;
    if (c->n++ == 0) {
        c->median = n_output;
        return;
    }
    const uint32_t part = min_u32(FIRST + c->n / 2, SLOWEST);
    const double move = (c->median > 1 ? c->median : 1) / part;
    if (n_output > c->median)
        c->median = c->median + move < n_output ? c->median + move : n_output;
    else
        c->median = c->median - move > n_output ? c->median - move : n_output;
}
