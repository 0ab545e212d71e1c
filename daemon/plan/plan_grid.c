/* The tables. Owns the models that it makes for a row, until the row is made. */
#include "daemon/plan/plan_grid.h"

#include <stdio.h>

#include "base/str.h"
#include "json/out.h"

/* ---- context by concurrency ---- */

static void plan_cell(plan_grid *x, uint32_t i, uint32_t j, const machine *m,
                      const plan_question *q) {
    machine_wish w = *q->wish;
    options o = *q->opt;
    machine cell;
    err e;
    w.uncut = true;
    o.max_model_len = x->length[i];
    o.max_num_seqs = x->seqs[j];
    o.kv_cache_tokens = (uint64_t)o.max_model_len * o.max_num_seqs;
    if (o.max_num_batched_tokens > 0 && o.max_num_batched_tokens < o.max_num_seqs)
        o.max_num_batched_tokens = o.max_num_seqs;
    if (machine_plan_again(&cell, m, &o, &w, &e) == OK) {
        x->bytes[i][j] = plan_peak_bytes(&cell.plan);
        x->fits[i][j] =
            x->bytes[i][j] <= m->budget.bytes &&
            (!m->on_device || plan_peak_bytes(&cell.host_plan) <= m->host_budget.bytes);
    }
    machine_close(&cell);
}

void plan_grid_make(plan_grid *x, const machine *m, const plan_question *q) {
    const uint32_t trained = m->model->program.config.n_ctx_train;
    *x = (plan_grid){.n_lengths = 0};
    uint32_t most = trained;
    for (uint32_t i = 1; i < GRID_LENGTHS; i++) most /= 2;
    uint32_t length = 1024;
    while (length < most) length *= 2;
    for (; x->n_lengths < GRID_LENGTHS && length < trained; length *= 2)
        x->length[x->n_lengths++] = length;
    if (x->n_lengths == GRID_LENGTHS) x->n_lengths--;
    x->length[x->n_lengths++] = trained;
    for (uint32_t j = 0; j < GRID_SEQS; j++)
        x->seqs[j] = m->on_device ? 1u << (j ? j + 2 : 0) : 1u << j;
    for (uint32_t i = 0; i < x->n_lengths; i++)
        for (uint32_t j = 0; j < GRID_SEQS; j++) plan_cell(x, i, j, m, q);
}

void plan_grid_print(const plan_grid *x, const machine *m) {
    char have[32], text[32], cell[40];
    printf(
        "\nmemory for sequences of full length, (in brackets) where it is more than %s:\n%-14s",
        bytes_human(m->budget.bytes, have), "max_model_len");
    for (uint32_t j = 0; j < GRID_SEQS; j++) printf(" %8u %s", x->seqs[j], j ? "seqs" : "seq ");
    puts("");
    for (uint32_t i = 0; i < x->n_lengths; i++) {
        printf("%13u ", x->length[i]);
        for (uint32_t j = 0; j < GRID_SEQS; j++) {
            bytes_human(x->bytes[i][j], text);
            snprintf(cell, sizeof cell, x->fits[i][j] ? "%s " : "(%s)", text);
            printf(" %13s", x->bytes[i][j] ? cell : "- ");
        }
        puts("");
    }
}

void plan_grid_json(buf *b, const plan_grid *x) {
    buf_add(b, STR(",\"grid\":["));
    for (uint32_t i = 0; i < x->n_lengths; i++)
        for (uint32_t j = 0; j < GRID_SEQS; j++)
            buf_addf(b,
                     "%s{\"max_model_len\":%u,\"max_num_seqs\":%u,\"memory_bytes\":%llu,"
                     "\"fits\":%s}",
                     i + j ? "," : "", x->length[i], x->seqs[j],
                     (unsigned long long)x->bytes[i][j], x->fits[i][j] ? "true" : "false");
    buf_addc(b, ']');
}

/* ---- types of weights ---- */

static void fit_row(plan_fit_row *r, uint64_t bytes, const machine *m, const plan_question *q) {
    machine with = *m, p;
    weight_mix mix;
    err e;
    if (!weight_mix_by_name(&mix, str_of(r->type))) return;
    with.stored.bits = 0;
    with.counted = false;
    status s = model_from_mix(&with.model, &m->model->program.config, mix, &e);
    if (s != OK) return;
    with.weight_bytes = program_weight_bytes(&with.model->program);
    with.host_budget = budget_unlimited();
    const budget own = {.bytes = bytes, .option = "fit", .source = "--fit"};
    machine_wish w = *q->wish;
    w.budget = &own;
    s = machine_plan_again(&p, &with, q->opt, &w, &e);
    r->planned = s == OK || s == ERR_BUDGET;
    r->fits = s == OK;
    r->weight_bytes = terms_sum(&p.plan.terms, MEM_WEIGHTS);
    r->least_bytes = p.plan.smallest_budget_bytes;
    r->sequences = plan_sequences(&p.plan);
    machine_close(&p);
    model_close(with.model);
}

void plan_fit_make(plan_fit *f, uint64_t budget, const machine *m, const plan_question *q) {
    static const char *const types[FIT_TYPES] = {"bf16",   "q8_0",   "q6_K",
                                                 "q5_K_M", "q4_K_M", "q4_0"};
    *f = (plan_fit){.budget = budget};
    for (int i = 0; i < FIT_TYPES; i++) {
        f->row[i].type = types[i];
        f->row[i].quality = quality_of_weights(str_of(types[i]));
        fit_row(&f->row[i], budget, m, q);
    }
}

void plan_fit_print(const plan_fit *f, const machine *m) {
    char a[32], b[32];
    printf("\ntypes of weights within %s (KL: ", bytes_human(f->budget, a));
    const quality_row *any = quality_of_weights(STR("q8_0"));
    printf("%s, %s; not of this model):\n", any->model, any->source);
    printf("  %-10s %18s %8s  %s\n", "--weights", "bytes as held", "KL", "");
    for (int i = 0; i < FIT_TYPES; i++) {
        const plan_fit_row *r = &f->row[i];
        if (!r->planned) continue;
        printf("  %-10s %18s %8.4f  ", r->type, bytes_grouped(r->weight_bytes, a),
               r->quality ? r->quality->kl : 0);
        if (r->fits)
            printf("fits: %.1f sequences of %u tokens\n", r->sequences, m->opt.max_model_len);
        else
            printf("needs %s more\n", bytes_human(r->least_bytes - f->budget, b));
    }
}

void plan_fit_json(buf *b, const plan_fit *f) {
    bool any = false;
    buf_addf(b, ",\"fit\":{\"budget_bytes\":%llu,\"weights\":[", (unsigned long long)f->budget);
    for (int i = 0; i < FIT_TYPES; i++) {
        const plan_fit_row *r = &f->row[i];
        if (!r->planned) continue;
        buf_addf(b,
                 "%s{\"type\":\"%s\",\"weight_bytes\":%llu,\"smallest_budget_bytes\":%llu,"
                 "\"fits\":%s,\"sequences\":%.2f",
                 any ? "," : "", r->type, (unsigned long long)r->weight_bytes,
                 (unsigned long long)r->least_bytes, r->fits ? "true" : "false",
                 r->fits ? r->sequences : 0);
        if (r->quality) {
            buf_addf(b, ",\"kl\":%g,\"source\":", r->quality->kl);
            json_str_lossy(b, str_of(r->quality->source));
        }
        buf_addc(b, '}');
        any = true;
    }
    buf_add(b, STR("]}"));
}
