/* The answer put together; the body of a request read. Owns nothing. */
#include "daemon/plan/plan_answer.h"

#include <stdio.h>
#include <string.h>

#include "api/memory_view.h"
#include "base/str.h"
#include "daemon/plan/plan_layers.h"
#include "daemon/plan/rank_plan.h"

void plan_answer_make(plan_answer *a, const machine *m, const plan_question *q,
                      const plan_asked *asked) {
    plan_judge(&a->verdict, m, q);
    a->bandwidth = plan_bandwidth_of(m, asked->bandwidth, asked->link, asked->host);
    for (int g = 0; g < PLAN_GOALS; g++)
        plan_choose(&a->choice[g], (plan_goal)g, m, q, &a->bandwidth);
    if (asked->grid) plan_grid_make(&a->grid, m, q);
    if (asked->fit) plan_fit_make(&a->fit, asked->fit, m, q);
}

void plan_answer_json(buf *b, buf *more, const plan_answer *a, const machine *m,
                      const plan_question *q, const plan_asked *asked) {
    plan_verdict_json(more, m, &a->verdict);
    rank_plan_json(more, m);
    plan_layers_json(more, m, &a->bandwidth);
    plan_choices_json(more, a->choice, m, q, &a->bandwidth);
    if (q->lengths) plan_lengths_json(more, q->lengths, m);
    if (asked->grid) plan_grid_json(more, &a->grid);
    if (asked->fit) plan_fit_json(more, &a->fit);
    if (asked->rule_of_thumb) {
        const rule_of_thumb r = rule_of_thumb_of(m);
        rule_of_thumb_json(more, &r);
    }
    plan_json(b, &m->plan, m->on_device ? &m->host_plan : NULL, &m->model->program.config,
              m->n_params, m->engine_opt.kv_k, m->engine_opt.kv_v, m->device, buf_str(more));
}

/* ---- a request ---- */

/* Options of which a plan may be asked: those that change bytes, and cost no file to read. */
static const char plannable[] =
    "max_model_len max_num_seqs max_num_batched_tokens speculative speculative_tokens "
    "kv_cache_dtype cache_type_k cache_type_v "
    "kv_cache_tokens block_size state_checkpoints max_connections max_body max_waiting "
    "request_memory "
    "grammar_cache_bytes kv_host_bytes expert_memory embeddings threads activation_dtype "
    "batch_invariant gpu_layers n_cpu_moe offload";

enum { MOST_FLAG = 128 };

static status bad(err *e, const char *name, const char *wanted) {
    err_set(e, ERR_INVALID, "%s must be %s", name, wanted);
    return err_field(e, "%s", name);
}

static bool is_plannable(const char *name) {
    const size_t n = strlen(name);
    const char *p = plannable;
    while (n && (p = strstr(p, name))) {
        if ((p == plannable || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0')) return true;
        p += n;
    }
    return false;
}

/* One option, as if it stood among the flags of a command. */
static status read_option(options *o, const char *name, const json_t *v, err *e) {
    char flag[MOST_FLAG], program[] = "plan";
    char *argv[] = {program, flag, NULL};
    int argc = 2, n = 0;
    if (json_is_string(v) && strlen(json_string_value(v)) == json_string_length(v))
        n = snprintf(flag, sizeof flag, "--%s=%s", name, json_string_value(v));
    else if (json_is_integer(v))
        n = snprintf(flag, sizeof flag, "--%s=%lld", name, (long long)json_integer_value(v));
    else if (json_is_boolean(v))
        n = snprintf(flag, sizeof flag, "--%s=%s", name, json_is_true(v) ? "true" : "false");
    if (n <= 0 || n >= MOST_FLAG) return bad(e, name, "a short text, a number or a boolean");
    const status s = options_load_args(o, &argc, argv, plannable, e);
    return s == OK || e->field[0] ? s : err_field(e, "%s", name);
}

static status read_bytes(const json_t *v, const char *name, uint64_t *out, err *e) {
    if (json_is_integer(v) && json_integer_value(v) > 0)
        *out = (uint64_t)json_integer_value(v);
    else if (!json_is_string(v) || !str_parse_bytes(json_in_text(v), out))
        *out = 0;
    return *out && *out >> 50 == 0 ? OK : bad(e, name, "a number of bytes, such as \"24GiB\"");
}

static status read_body(options *o, plan_asked *asked, uint64_t *memory, const json_t *body,
                        err *e) {
    const char *name;
    json_t *v;
    status s = OK;
    json_object_foreach((json_t *)body, name, v) {
        if (s != OK) return s;
        if (json_is_null(v) || strcmp(name, "model") == 0) continue;
        if (strcmp(name, "memory") == 0)
            s = read_bytes(v, name, memory, e);
        else if (strcmp(name, "fit") == 0)
            s = read_bytes(v, name, &asked->fit, e);
        else if (strcmp(name, "grid") == 0)
            s = json_in_bool(body, name, &asked->grid, e);
        else if (strcmp(name, "rule_of_thumb") == 0)
            s = json_in_bool(body, name, &asked->rule_of_thumb, e);
        else if (strcmp(name, "bandwidth") == 0)
            s = json_is_string(v) && plan_parse_bandwidth(json_in_text(v), &asked->bandwidth)
                    ? OK
                    : bad(e, name, "a text such as \"300GB/s\"");
        else if (is_plannable(name))
            s = read_option(o, name, v, e);
        else {
            err_set(e, ERR_INVALID, "\"%.40s\" is no option that a plan can be asked for",
                    name);
            err_field(e, "%.40s", name);
            s = err_hint(e, "memory, bandwidth, fit, grid, %s", plannable);
        }
    }
    return s;
}

/* What a request needs, too large for the stack of a thread. */
typedef struct request {
    machine m;
    budget budget;
    options usual, opt;
    plan_answer answer;
} request;

status plan_answer_request(buf *out, const machine *of, const json_t *body, err *e) {
    machine_wish wish = {0};
    plan_asked asked = {0};
    uint64_t memory = 0;
    buf more;
    request *r = arena_zalloc(out->in, sizeof *r);
    if (!r) return mem_exhausted(e, MEM_REQUESTS, "a plan");
    r->usual = of->given;
    r->usual.max_model_len = of->opt.max_model_len;
    r->opt = r->usual;
    status s = read_body(&r->opt, &asked, &memory, body, e);
    if (s != OK) return s;
    if (memory) {
        snprintf(r->opt.memory, sizeof r->opt.memory, "%llu", (unsigned long long)memory);
        r->budget = (budget){.bytes = memory, .option = "memory", .source = "memory, as asked"};
        wish.budget = &r->budget;
    }
    s = machine_plan_again(&r->m, of, &r->opt, &wish, e);
    if (s == OK || (s == ERR_BUDGET && r->m.plan.terms.n)) {
        const plan_question q = {.opt = &r->opt, .wish = &wish, .usual = &r->usual};
        buf_init(&more, out->in);
        plan_answer_make(&r->answer, &r->m, &q, &asked);
        plan_answer_json(out, &more, &r->answer, &r->m, &q, &asked);
        s = out->failed || more.failed ? mem_exhausted(e, MEM_REQUESTS, "a plan") : OK;
    }
    machine_close(&r->m);
    return s;
}
