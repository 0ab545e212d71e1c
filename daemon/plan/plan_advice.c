/* Whether a plan fits, and what would make it fit: each remedy is a plan that was made and fits.
 * Main thread; owns nothing. */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/str.h"
#include "daemon/plan/plan_report.h"
#include "daemon/plan/rank_plan.h"

/* Plans with one thing changed, and notes it where it fits and vramd can serve it as well as
 * before. anew: for other weights or another device. */
static bool try_remedy(plan_verdict *v, const machine *m, const options *o,
                       const machine_wish *w, bool anew, const char *change) {
    machine other;
    err e;
    if (v->n_remedies == PLAN_REMEDIES) return false;
    const status s =
        anew ? machine_plan(&other, o, w, &e) : machine_plan_again(&other, m, o, w, &e);
    bool helps = s == OK && (m->not_served[0] || !other.not_served[0]) &&
                 other.on_device == m->on_device;
    if (helps) {
        plan_remedy *r = &v->remedy[v->n_remedies++];
        snprintf(r->change, sizeof r->change, "%s", change);
        r->sequences = plan_sequences(&other.plan);
        r->max_model_len = other.opt.max_model_len;
    }
    machine_close(&other);
    return helps;
}

static void try_weights(plan_verdict *v, const machine *m, const plan_question *q) {
    static const char *const types[] = {"Q8_0", "Q4_K_M", "Q4_0"};
    const uint64_t params = m->n_params ? m->n_params : 1;
    const double bits[] = {8.5, 4.9, 4.5};
    for (size_t i = 0; !m->file && i < sizeof types / sizeof *types; i++) {
        machine_wish w = *q->wish;
        char change[80];
        if ((double)m->weight_bytes * 8 / (double)params < bits[i] * 1.05) continue;
        w.weights = types[i];
        snprintf(change, sizeof change, "--weights %s", types[i]);
        try_remedy(v, m, q->opt, &w, true, change);
    }
}

static void try_length(plan_verdict *v, const machine *m, const plan_question *q) {
    options o = *q->opt;
    char change[80];
    for (uint32_t n = 1u << 20; n >= 512; n /= 2) {
        if (n >= m->opt.max_model_len) continue;
        o.max_model_len = n;
        snprintf(change, sizeof change, "--max-model-len %u", n);
        if (try_remedy(v, m, &o, q->wish, false, change)) return;
    }
}

static void try_sequences(plan_verdict *v, const machine *m, const plan_question *q) {
    options o = *q->opt;
    char change[80];
    for (uint32_t n = m->opt.max_num_seqs / 2; n >= 1; n /= 2) {
        o.max_num_seqs = n;
        o.max_num_batched_tokens = m->opt.max_num_batched_tokens;
        if (o.max_num_batched_tokens > 16 * n) o.max_num_batched_tokens = 16 * n;
        snprintf(change, sizeof change, "--max-num-seqs %u --max-num-batched-tokens %u", n,
                 o.max_num_batched_tokens);
        if (try_remedy(v, m, &o, q->wish, false, change)) return;
    }
}

/* The card with the least memory that holds it. */
static void try_cards(plan_verdict *v, const machine *m, const plan_question *q) {
    uint32_t n;
    const cuda_card *all = cuda_cards(&n), *best = NULL;
    for (uint32_t i = 0; i < n; i++)
        if (cuda_card_bytes(&all[i]) >= m->plan.smallest_budget_bytes &&
            all[i].major >= CUDA_CARD_MIN_MAJOR &&
            (!best || all[i].memory_mib < best->memory_mib))
            best = &all[i];
    if (!best) return;
    machine_wish w = *q->wish;
    options o = *q->opt;
    char change[80];
    w.card = best;
    snprintf(o.memory, sizeof o.memory, "auto");
    snprintf(change, sizeof change, "--device %s", best->name);
    try_remedy(v, m, &o, &w, true, change);
}

static bool fits_with(const machine *m, const options *o, const machine_wish *w) {
    machine other;
    err e;
    const bool good = machine_plan_again(&other, m, o, w, &e) == OK;
    machine_close(&other);
    return good;
}

/* The fewest devices of the machine's kind that hold the model, and the options by which they divide it. 0:
 * no number up to SHARD_MAX_RANKS does. */
static uint32_t devices_that_hold(const machine *m, const options *o, const machine_wish *w,
                                  options *out) {
    for (uint32_t n = 2; n <= SHARD_MAX_RANKS; n++) {
        if (m->budget.bytes < m->weight_bytes / n) continue; /* not between them */
        *out = *o;
        out->tensor_parallel_size = n;
        out->pipeline_parallel_size = 1;
        if (fits_with(m, out, w)) return n;
        out->tensor_parallel_size = 1;
        out->pipeline_parallel_size = n;
        if (fits_with(m, out, w)) return n;
    }
    return 0;
}

static void count_devices(plan_verdict *v, const machine *m, const plan_question *q) {
    options o;
    v->n_cards = devices_that_hold(m, q->opt, q->wish, &o);
    if (!v->n_cards) return;
    const bool tensor = o.tensor_parallel_size > 1;
    snprintf(v->split, sizeof v->split, "--%s-parallel-size %llu",
             tensor ? "tensor" : "pipeline", (unsigned long long)v->n_cards);
}

/* of: the machine that was asked about, whose model m may borrow. */
static void judge_refused(plan_verdict *v, const machine *m, const machine *of,
                          const plan_question *q) {
    const bool host = m->on_device && m->plan.fits;
    const plan *p = host ? &m->host_plan : &m->plan;
    const budget *b = host ? &m->host_budget : &m->budget;
    char more[32], least[32], have[32];
    v->more_bytes = p->smallest_budget_bytes - b->bytes;
    int n =
        snprintf(v->text, sizeof v->text, "does not fit: needs %s more (%s of %s%s)",
                 bytes_human(v->more_bytes, more), bytes_human(p->smallest_budget_bytes, least),
                 bytes_human(b->bytes, have), host ? " of host memory" : "");
    if (host) return;
    if (!of->borrowed) try_weights(v, of, q);
    try_length(v, m, q);
    try_sequences(v, m, q);
    if (m->on_device && !of->borrowed) try_cards(v, m, q);
    if (m->on_device && b->bytes && rank_plan_count(&m->opt) == 1) count_devices(v, m, q);
    if (v->n_remedies)
        snprintf(v->text + n, sizeof v->text - (size_t)n,
                 "; %s would fit, with a KV cache for %.1f sequences of %u tokens",
                 v->remedy[0].change, v->remedy[0].sequences, v->remedy[0].max_model_len);
}

/* What all layers on the device would need, and with which change they fit. */
static void judge_layers(plan_verdict *v, const machine *m, const plan_question *q) {
    const uint32_t all = m->model->program.config.n_layers;
    options o = *q->opt;
    plan_question of_all = *q;
    plan_verdict other = {0};
    machine whole;
    err e;
    char text[sizeof v->text];
    snprintf(o.gpu_layers, sizeof o.gpu_layers, "all");
    of_all.opt = &o;
    if (machine_plan_again(&whole, m, &o, q->wish, &e) == ERR_BUDGET && !whole.plan.fits) {
        judge_refused(&other, &whole, m, &of_all);
        snprintf(text, sizeof text, "%s", v->text);
        snprintf(v->text, sizeof v->text,
                 "fits with %u of %u layers on the device%.130s; with all of them: %.180s",
                 all - m->engine_opt.host_layers, all, text + strlen("fits"), other.text);
        memcpy(v->remedy, other.remedy, sizeof v->remedy);
        v->n_remedies = other.n_remedies;
        v->n_cards = other.n_cards;
        memcpy(v->split, other.split, sizeof v->split);
    }
    machine_close(&whole);
}

void plan_judge(plan_verdict *v, const machine *m, const plan_question *q) {
    char take[32], have[32];
    *v = (plan_verdict){.fits = m->plan.fits && (!m->on_device || m->host_plan.fits),
                        .sequences = plan_sequences(&m->plan)};
    if (!v->fits) {
        judge_refused(v, m, m, q);
        return;
    }
    const plan *p = &m->plan;
    if (m->model->program.config.bidirectional) {
        snprintf(v->text, sizeof v->text,
                 "fits: %s of %s; no KV cache: a step takes whole texts, %u tokens of up to %u",
                 bytes_human(plan_peak_bytes(p), take), bytes_human(m->budget.bytes, have),
                 m->opt.max_num_batched_tokens, m->opt.max_num_seqs);
        return;
    }
    snprintf(v->text, sizeof v->text,
             "fits: %s of %s; the KV cache holds %.1f sequences of %u tokens",
             bytes_human(plan_peak_bytes(p), take), bytes_human(m->budget.bytes, have),
             v->sequences, m->opt.max_model_len);
    if (m->layers_auto && m->engine_opt.host_layers) judge_layers(v, m, q);
}

rule_of_thumb rule_of_thumb_of(const machine *m) {
    const model_config *c = &m->model->program.config;
    const terms *t = &m->plan.terms;
    rule_of_thumb r = {.params = m->n_params,
                       .weights = m->weight_bytes,
                       .batch = m->opt.max_num_seqs,
                       .sequence = m->opt.max_model_len,
                       .hidden = c->n_embd,
                       .layers = c->n_layers};
    const double tokens = (double)r.batch * r.sequence, units = tokens * r.hidden * r.layers;
    const uint32_t k[] = {RULE_K_LEAST, RULE_K_MOST};
    const uint32_t overhead[] = {RULE_OVERHEAD_LEAST, RULE_OVERHEAD_MOST};
    r.bytes_per_param = r.params ? (double)r.weights / (double)r.params : 0;
    r.kv = (uint64_t)(tokens * (double)m->plan.kv_bytes_per_token);
    for (int i = 0; i < 2; i++) {
        r.activations[i] = (uint64_t)(k[i] * units);
        r.total[i] = (uint64_t)(((double)r.weights + (double)r.kv + (double)r.activations[i]) *
                                (100 + overhead[i]) / 100);
    }
    r.plan_activations =
        terms_sum(t, MEM_ACTIVATIONS) + terms_sum(t, MEM_LOGITS) + terms_sum(t, MEM_WORKSPACE);
    r.effective_k = (double)r.plan_activations / units;
    return r;
}
