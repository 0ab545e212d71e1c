/* Several models before the start: each is planned from its headers, and it is known which of them fit
 * together. Main thread. */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "daemon/models/models_parts.h"
#include "daemon/serving.h"

static void part_terms(void *arg, const machine *m, terms *t) {
    (void)arg;
    bridge_terms(m, t);
}

static status of_one_model(const char *option, err *e) {
    err_set(e, ERR_UNSUPPORTED, "%s is for a server of one model", option);
    err_hint(e, "leave it out, or the sections [model NAME]");
    return err_field(e, "%s", option);
}

static status check_options(const options *o, err *e) {
    if (o->step_log[0]) return of_one_model("step_log", e);
    if (o->memory_max[0]) return of_one_model("memory_max", e);
    if (o->memory_pressure) return of_one_model("memory_pressure", e);
    if (o->idle_release) return of_one_model("idle_release", e);
    if (o->served_model_name[0]) return of_one_model("served_model_name", e);
    return OK;
}

static status name_error(const char *name, status s, err *e) {
    const err was = *e;
    err_set(e, s, "[model %.60s]: %.*s", name, 300, was.text);
    if (was.hint[0]) err_hint(e, "%s", was.hint);
    return err_field(e, "%s", was.field);
}

machine_wish models_wish(model_unit *u) {
    return (machine_wish){
        .part = true, .aside_bytes = u->aside_bytes, .words = &u->words, .extra = part_terms};
}

/* Plans a model within the budget less what is set aside. */
static status plan_one(model_unit *u, machine *m, bool uncut, err *e) {
    machine_wish w = models_wish(u);
    w.uncut = uncut;
    status s = machine_plan(m, &u->opt, &w, e);
    if (s == OK && !m->file) {
        s = err_set(e, ERR_INVALID, "%s is not a GGUF file", u->opt.model);
        err_field(e, "model");
    }
    if (s == OK && m->on_device) {
        s = err_set(e, ERR_UNSUPPORTED, "several models are served by the CPU engine alone");
        err_hint(e, "set backend = cpu");
        err_field(e, "backend");
    }
    return s == OK ? OK : name_error(u->name, s, e);
}

/* What does not depend on the budget. */
static status read_header(models *a, model_unit *u, err *e) {
    machine m = {0};
    status s = plan_one(u, &m, true, e);
    if (s == OK) s = machine_words_plan(&u->words, &m, e);
    if (s == OK) {
        a->words_bytes += ledger_claim(&u->words.plan);
        u->config = m.model->program.config;
        u->closed.card = (model_card){.id = u->name,
                                      .config = &u->config,
                                      .n_params = m.n_params,
                                      .weight_bytes = m.weight_bytes,
                                      .max_model_len = m.opt.max_model_len,
                                      .pooling = m.pooling};
        if (m.opt.request_memory > a->request_memory) a->request_memory = m.opt.request_memory;
        u->served->max_held = m.opt.max_waiting;
    }
    machine_close(&m);
    return s;
}

static status read_budget(models *a, err *e) {
    const memory_capacity capacity = memory_capacity_host();
    return budget_parse(&a->budget, "memory", a->opt.memory, &capacity, e);
}

static status plan_front(models *a, err *e) {
    const server_options so = server_options_of(&a->opt);
    const kv_request none = {.block_tokens = a->opt.block_size};
    terms t = {0};
    machine_shared_terms(&t);
    terms_add(&t, MEM_REQUESTS, TERM_EXACT, pool_bytes(a->request_memory),
              "bodies, prompts, queued output");
    server_terms(&so, &t);
    const status s = plan_solve(&a->front, &t, &none, &a->budget, e);
    terms_clear(&t);
    a->front_bytes = ledger_claim(&a->front) + a->words_bytes;
    return s;
}

static status plan_bytes(models *a, uint32_t i, uint64_t aside, err *e) {
    machine m = {0};
    model_unit *u = &a->unit[i];
    u->aside_bytes = aside;
    status s = plan_one(u, &m, false, e);
    a->view.v[i].bytes = m.plan.terms.n ? ledger_claim(&m.plan) : 0;
    machine_close(&m);
    return s;
}

static status too_large(const models *a, const char *who, uint64_t bytes, err *e) {
    char n[32], of[32], front[32];
    err_set(
        e, ERR_BUDGET,
        "%s: %s bytes, and %s for front end and vocabularies, exceed the budget of %s bytes",
        who, bytes_grouped(bytes, n), bytes_grouped(a->front_bytes, front),
        bytes_grouped(a->budget.bytes, of));
    err_hint(e, "raise memory, or lower kv_cache_tokens or max_num_seqs of the models");
    return err_field(e, "memory");
}

/* Bytes of each: the pinned ones first, since the others fit beside them or not at all. */
static status plan_all(models *a, err *e) {
    uint64_t pinned = 0, sum = 0;
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < a->view.n; i++) {
            model_entry *x = &a->view.v[i];
            if (x->pinned != (pass == 0)) continue;
            const status s = plan_bytes(a, i, a->front_bytes + (x->pinned ? 0 : pinned), e);
            if (s != OK) return s;
            sum += x->bytes;
            if (x->pinned) pinned += x->bytes;
            const uint64_t with = x->pinned ? pinned : pinned + x->bytes;
            char who[120];
            snprintf(who, sizeof who, "[model %.60s]%s", a->unit[i].name,
                     with > x->bytes ? " and those that are pinned" : "");
            if (with + a->front_bytes > a->budget.bytes) return too_large(a, who, with, e);
        }
    if (a->budget.automatic && sum + a->front_bytes < a->budget.bytes)
        a->budget.bytes = sum + a->front_bytes;
    a->view.budget_bytes = a->budget.bytes - a->front_bytes;
    return OK;
}

status models_plan(models **out, const options *outside, const model_sections *sections,
                   err *e) {
    models *a = *out = calloc(1, sizeof *a);
    if (!a) return mem_exhausted(e, MEM_RUNTIME, "the list of models");
    a->opt = *outside;
    a->view.n = sections->n;
    a->unit = calloc(sections->n, sizeof *a->unit);
    a->served = calloc(sections->n, sizeof *a->served);
    if (!a->unit || !a->served) return mem_exhausted(e, MEM_RUNTIME, "the list of models");
    for (uint32_t i = 0; i < sections->n; i++) {
        const model_section *x = &sections->v[i];
        model_unit *u = &a->unit[i];
        u->all = a;
        u->index = i;
        u->served = &a->served[i];
        snprintf(u->name, sizeof u->name, "%s", x->name);
        snprintf(u->tenants, sizeof u->tenants, "%s", x->tenants);
        section_options(x, outside, &u->opt);
        u->served->embeds = x->embeds;
        a->view.v[i].pinned = x->pin;
        a->view.v[i].if_free = !x->on_request;
    }
    a->disk.dir = a->disk.family_dir = a->disk.key_fd = -1;
    status s = check_options(outside, e);
    if (s == OK) s = models_disk_plan(a, e);
    for (uint32_t i = 0; s == OK && i < a->view.n; i++) s = read_header(a, &a->unit[i], e);
    a->opt.request_memory = a->request_memory;
    if (s == OK) s = read_budget(a, e);
    if (s == OK) s = plan_front(a, e);
    return s == OK ? plan_all(a, e) : s;
}

static bool fit_together(const models *a, uint32_t i, uint32_t k) {
    uint64_t sum = 0;
    for (uint32_t x = 0; x < a->view.n; x++)
        if (a->view.v[x].pinned || x == i || x == k) sum += a->view.v[x].bytes;
    return sum <= a->view.budget_bytes;
}

void models_print(const models *a, FILE *f) {
    char n[32];
    fprintf(f, "# %-30s %18s  beside it fit, with those that are pinned\n", "model", "bytes");
    for (uint32_t i = 0; i < a->view.n; i++) {
        fprintf(f, "# %-30s %18s ", a->unit[i].name, bytes_grouped(a->view.v[i].bytes, n));
        if (a->view.v[i].pinned) fprintf(f, " (pinned)");
        bool any = false;
        for (uint32_t k = 0; k < a->view.n; k++) {
            if (k == i || !fit_together(a, i, k)) continue;
            fprintf(f, "%s %s", any ? "," : "", a->unit[k].name);
            any = true;
        }
        fprintf(f, "%s\n", any ? "" : " none");
    }
    fprintf(f, "# %-30s %18s\n", "front end, vocabularies", bytes_grouped(a->front_bytes, n));
    fprintf(f, "# %-30s %18s\n", "budget", bytes_grouped(a->budget.bytes, n));
}
