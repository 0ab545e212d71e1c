/* What the option expert_memory means for a model. Pure; any thread. */
#include "daemon/expert_memory.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "daemon/machine_budget.h"

static status bad(const char *word, err *e) {
    err_set(e, ERR_INVALID, "expert_memory = %.60s is neither a size nor a share", word);
    err_hint(e, "give all, auto, a size (8GiB), or a share of the experts up to 100%%");
    return err_field(e, "expert_memory");
}

static status refuse(const char *word, const char *why, const char *hint, err *e) {
    err_set(e, ERR_UNSUPPORTED, "expert_memory = %.60s: %s", word, why);
    err_hint(e, "%s", hint);
    return err_field(e, "expert_memory");
}

/* A size in slots, or a share of all experts. */
static status parse(const char *word, const expert_shape *x, uint64_t *out, err *e) {
    char *end;
    uint64_t bytes;
    const double percent = strtod(word, &end);
    if (end != word && strcmp(end, "%") == 0) {
        if (!(percent > 0 && percent <= 100)) return bad(word, e);
        *out = (uint64_t)(percent / 100 * x->n_all);
        if (*out < 2) *out = 2;
        return OK;
    }
    if (!str_parse_bytes(str_of(word), &bytes)) return bad(word, e);
    *out = bytes / x->slot_bytes;
    if (*out >= 2) return OK;
    char least[32];
    err_set(e, ERR_INVALID, "expert_memory = %.60s does not hold two experts", word);
    err_hint(e, "give at least %s bytes", bytes_grouped(2 * x->slot_bytes, least));
    return err_field(e, "expert_memory");
}

/* Whether the experts can be read one by one; without its file a model is taken to be stored so. */
static status check_stored(const machine *m, err *e) {
    const program *p = &m->model->program;
    expert_store at;
    status s = OK;
    for (uint32_t i = 0; i < p->n_ops && m->file && s == OK; i++) {
        const op *o = &p->ops[i];
        if (o->kind != OP_EXPERTS_GATE_UP && o->kind != OP_EXPERTS_DOWN) continue;
        for (uint32_t k = 0; k < o->n_weights && s == OK; k++)
            s = model_expert_rows(m->model, o->w[k], &at, e);
    }
    return s;
}

status expert_memory_slots(const machine *m, expert_shape *out, uint32_t *slots,
                           bool *automatic, err *e) {
    const char *word = m->opt.expert_memory;
    uint64_t n = 0;
    err why;
    *slots = 0;
    *automatic = strcmp(word, "auto") == 0;
    *out = (expert_shape){0};
    const status stored = check_stored(m, &why);
    const bool runs = op_set_empty(engine_lacks(m->backend, &m->model->program));
    if (m->backend->experts && runs && !m->counted && stored == OK)
        *out = m->backend->experts(&m->model->program);
    if (*automatic || strcmp(word, "all") == 0) return OK;
    if (!m->model->program.config.n_experts)
        return refuse(word, "the model has no experts", "leave the option out", e);
    if (stored != OK) return *e = why, stored;
    if (!out->n_layers)
        return refuse(word, "this engine has all experts in memory",
                      "give backend = cpu and one rank, or leave the option out", e);
    const status s = parse(word, out, &n, e);
    *slots = s == OK && n < out->n_all ? (uint32_t)n : 0;
    return s;
}

/* What the budget holds beside the least KV cache: a quarter of it may be a larger cache, up to what
 * memory = auto would take, the rest are slots. */
status expert_memory_solve(machine *m, const machine_wish *w, const expert_shape *x,
                           machine_solver solve, err *e) {
    const uint64_t least = m->opt.max_model_len, table = 64; /* table: of a slot, about */
    const uint64_t wanted = (uint64_t)MACHINE_TOKENS_PER_SEQ * m->opt.max_num_seqs;
    uint32_t *slots = &m->engine_opt.expert_slots;
    machine_unsolve(m);
    *slots = 2;
    status s = solve(m, w, least, e);
    if (s != OK) return s;
    const uint64_t peak = plan_peak_bytes(&m->plan), per_token = m->plan.kv_bytes_per_token;
    uint64_t left = m->budget.bytes > peak ? m->budget.bytes - peak : 0, tokens = least;
    if (!m->opt.kv_cache_tokens && per_token && wanted > least) {
        const uint64_t more = left / 4 / per_token;
        tokens += more < wanted - least ? more : wanted - least;
        left -= (tokens - least) * per_token;
    }
    const uint64_t n = 2 + left / (x->slot_bytes + table);
    *slots = n < x->n_all ? (uint32_t)n : x->n_all;
    for (;; *slots -= 1 + *slots / 64) {
        machine_unsolve(m);
        s = solve(m, w, tokens, e);
        if (s != ERR_BUDGET || *slots <= 2) return s;
    }
}
