/* Limits of a tenant. Pure; owns nothing. */
#include "api/tenant.h"

#include <string.h>

#include "base/check.h"
#include "base/hash.h"

static void refill(bucket *b, uint64_t now_us) {
    if (now_us > b->at_us) {
        b->level += (double)(now_us - b->at_us) * (double)b->per_min / 60e6;
        b->at_us = now_us;
    }
    if (b->level > (double)b->per_min) b->level = (double)b->per_min;
}

void bucket_rate(bucket *b, uint64_t per_min, uint64_t now_us) {
    bool fresh = b->per_min == 0;
    if (!fresh) refill(b, now_us);
    b->per_min = per_min;
    if (fresh) *b = (bucket){.level = (double)per_min, .per_min = per_min, .at_us = now_us};
    if (b->level > (double)per_min) b->level = (double)per_min;
}

bool bucket_take(bucket *b, uint64_t n, uint64_t now_us, double *wait_s) {
    *wait_s = 0;
    if (!b->per_min) return true;
    refill(b, now_us);
    uint64_t need = n < b->per_min ? n : b->per_min;
    double missing = (double)need - b->level;
    if (missing > 1e-6) { /* less is rounding */
        *wait_s = missing * 60 / (double)b->per_min;
        return false;
    }
    b->level -= (double)n;
    return true;
}

void bucket_give_back(bucket *b, uint64_t n, uint64_t now_us) {
    if (!b->per_min) return;
    b->level += (double)n;
    refill(b, now_us);
}

void tenant_set(tenant *t, const tenant_limits *l, uint64_t now_us) {
    t->limits = *l;
    bucket_rate(&t->requests, l->requests_per_min, now_us);
    bucket_rate(&t->tokens, l->tokens_per_min, now_us);
}

tenant_verdict tenant_enter(tenant *t, uint64_t now_us, double *wait_s) {
    tenant_verdict v = TENANT_OK;
    *wait_s = 0;
    if (t->limits.concurrency && t->n_open - t->n_views >= t->limits.concurrency)
        v = TENANT_CONCURRENCY;
    else if (!bucket_take(&t->requests, 1, now_us, wait_s))
        v = TENANT_REQUESTS;
    if (v != TENANT_OK) {
        t->counts.n_limited++;
        return v;
    }
    t->counts.n_requests++;
    t->n_open++;
    return TENANT_OK;
}

tenant_verdict tenant_charge(tenant *t, uint64_t n_tokens, uint64_t now_us, double *wait_s) {
    if (bucket_take(&t->tokens, n_tokens, now_us, wait_s)) return TENANT_OK;
    t->counts.n_limited++;
    return TENANT_TOKENS;
}

void tenant_settle(tenant *t, uint64_t n_charged, uint64_t n_prompt, uint64_t n_output,
                   uint64_t now_us) {
    uint64_t used = n_prompt + n_output;
    if (n_charged > used) bucket_give_back(&t->tokens, n_charged - used, now_us);
    t->counts.n_prompt_tokens += n_prompt;
    t->counts.n_output_tokens += n_output;
}

void tenant_leave(tenant *t) {
    CHECK(t->n_open > 0);
    t->n_open--;
}

uint64_t tenant_id(const tenant *t) {
    return t ? hash64(t->name, strlen(t->name), 0) | 1 : 0;
}
