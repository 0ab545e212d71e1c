/* vramd plan: what a model will take on this machine, by class and term, without loading it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/memory_view.h"
#include "daemon/args.h"
#include "daemon/commands.h"
#include "daemon/serving.h"

extern char **environ;

static void print_terms(const plan *p) {
    char a[32], b[32];
    printf("%-12s %-11s %18s  %s\n", "class", "kind", "bytes", "what");
    for (int c = 0; c < MEM_N_CLASSES; c++)
        for (size_t i = 0; i < p->terms.n; i++) {
            const term *t = &p->terms.v[i];
            if ((int)t->cls != c) continue;
            printf("%-12s %-11s %18s  %s%s\n", mem_class_name(t->cls), term_kind_name(t->kind),
                   bytes_grouped(t->bytes, a), t->what,
                   t->while_loading ? " (while loading)" : "");
        }
    printf("%-24s %18s  %s\n", "total", bytes_grouped(p->total_bytes, a),
           bytes_human(p->total_bytes, b));
    printf("%-24s %18s  %s\n", "peak while loading", bytes_grouped(p->load_peak_bytes, a),
           bytes_human(p->load_peak_bytes, b));
    printf("%-24s %18s  %s\n", "budget", bytes_grouped(p->budget_bytes, a),
           bytes_human(p->budget_bytes, b));
    printf("%-24s %18s  %s\n", "smallest budget", bytes_grouped(p->smallest_budget_bytes, a),
           bytes_human(p->smallest_budget_bytes, b));
}

/* The price of one knob: the plan again with the option changed, as a difference. What is
 * wanted of the KV cache is held at max_num_seqs sequences of the longest length, so that
 * prices add up. */
static void print_knob(const machine_wish *w, uint64_t from, const char *text,
                       const options *changed) {
    machine m;
    err e;
    char a[32];
    if (machine_plan(&m, changed, w, &e) == OK || e.code == ERR_BUDGET) {
        int64_t d = (int64_t)(m.plan.total_bytes + m.host_plan.total_bytes) - (int64_t)from;
        printf("  %-44s %c%s\n", text, d < 0 ? '-' : '+', bytes_grouped((uint64_t)llabs(d), a));
    }
    machine_close(&m);
}

static void print_fit(const machine *m, const machine_wish *w) {
    const plan *p = &m->plan;
    char a[32], b[32], types[32];
    printf("\nKV cache: %s, %s bytes a token, %u blocks of %u tokens = %llu tokens: %.1f "
           "sequences "
           "of %u, "
           "or %u sequences of %llu\n",
           dtype_kv_name(m->engine_opt.kv_k, m->engine_opt.kv_v, types),
           bytes_grouped(p->kv_bytes_per_token, a), p->kv_blocks, p->block_tokens,
           (unsigned long long)p->kv_tokens, (double)p->kv_tokens / m->opt.max_model_len,
           m->opt.max_model_len, m->opt.max_num_seqs,
           (unsigned long long)(p->kv_tokens / m->opt.max_num_seqs));
    options o = m->opt;
    snprintf(o.memory, sizeof o.memory, "auto");
    if (m->on_device) snprintf(o.host_memory, sizeof o.host_memory, "auto");
    if (!o.kv_cache_tokens) o.kv_cache_tokens = p->kv_tokens;
    printf("\ncost of each setting, with a KV cache of %s tokens, in bytes:\n",
           bytes_grouped(o.kv_cache_tokens, b));
    machine same;
    err e;
    if (machine_plan(&same, &o, w, &e) != OK && e.code != ERR_BUDGET)
        return machine_close(&same);
    uint64_t from = same.plan.total_bytes + same.host_plan.total_bytes;
    machine_close(&same);
    options c = o;
    c.kv_cache_tokens += 1024;
    print_knob(w, from, "1,024 tokens more of KV cache", &c);
    for (uint32_t t = 0;; t++) {
        const str word = options_word("kv_cache_dtype", t);
        if (str_eqz(word, "?")) break;
        if (str_eqz(word, "bf16") ||
            (t == o.kv_cache_dtype && m->engine_opt.kv_k == m->engine_opt.kv_v))
            continue;
        char text[64];
        c = o;
        c.kv_cache_dtype = t;
        c.cache_type_k = c.cache_type_v = 0; /* same */
        snprintf(text, sizeof text, "kv_cache_dtype = " STR_FMT, STR_ARG(word));
        print_knob(w, from, text, &c);
    }
    c = o;
    c.max_num_seqs *= 2;
    if (c.max_num_batched_tokens < c.max_num_seqs) c.max_num_batched_tokens = c.max_num_seqs;
    print_knob(w, from, "max_num_seqs doubled (same KV cache)", &c);
    c = o;
    c.max_num_batched_tokens *= 2;
    print_knob(w, from, "max_num_batched_tokens doubled", &c);
    c = o;
    c.max_connections *= 2;
    print_knob(w, from, "max_connections doubled", &c);
}

/* The folk formula beside the exact plan: weights + K * batch * length * hidden * layers, K =
 * 10 to 20 bytes. Inference keeps one layer's activations alive, so the factor layers is
 * spurious for an engine that reuses them, and the KV cache alone is K = 4 * n_kv_heads *
 * head_dim / hidden at 16 bits. */
static void print_rule_of_thumb(const machine *m) {
    const model_config *c = &m->model->program.config;
    const plan *p = &m->plan;
    char a[32], b[32], d[32];
    double units = (double)p->kv_tokens * c->n_embd * c->n_layers;
    uint64_t arena = terms_sum(&p->terms, MEM_ACTIVATIONS) + terms_sum(&p->terms, MEM_LOGITS) +
                     terms_sum(&p->terms, MEM_WORKSPACE);
    printf(
        "\nrule of thumb for %llu tokens: weights %s + KV %s + activations (K = 10) %s bytes\n",
        (unsigned long long)p->kv_tokens, bytes_grouped(terms_sum(&p->terms, MEM_WEIGHTS), a),
        bytes_grouped(terms_sum(&p->terms, MEM_KV), b),
        bytes_grouped((uint64_t)(10 * units), d));
    printf("this plan's arenas: %s bytes: effective K = %.4f (KV cache: K = %.2f). One layer's "
           "activations are alive at a time, and a step has at most %u rows.\n",
           bytes_grouped(arena, a), (double)arena / units,
           (double)p->kv_bytes_per_token / ((double)c->n_embd * c->n_layers),
           m->opt.max_num_batched_tokens);
}

static void print_help(void) {
    puts("usage: vramd plan MODEL [--json] [--weights TYPE] [--device CARD] "
         "[--formula rule-of-thumb] [OPTIONS]\n\n"
         "MODEL is a GGUF file, or a config.json with --weights bf16, f16, q8_0, q4_0, ...\n"
         "CARD is a CUDA device that need not be here: h200, h100-80g, a100-80g, l40s, ...\n"
         "Reads headers only. Exit code 7 when it does not fit.\n");
    options_print_help(stdout, NULL);
}

static status find_card(const char *name, const cuda_card **out, err *e) {
    uint32_t n;
    const cuda_card *c = cuda_cards(&n);
    char names[240] = "";
    *out = cuda_card_find(name);
    if (*out) return OK;
    for (uint32_t i = 0; i < n; i++) {
        size_t at = strlen(names);
        snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "", c[i].name);
    }
    err_set(e, ERR_INVALID, "--device: \"%.40s\" is not in the table", name);
    return err_hint(e, "%s", names);
}

int cmd_plan(int argc, char **argv) {
    options o;
    machine m = {0};
    err e;
    if (args_take_word(&argc, argv, "--help")) return print_help(), 0;
    machine_wish w = {.weights = args_take_value(&argc, argv, "--weights"),
                      .extra = serving_terms};
    const char *card = args_take_value(&argc, argv, "--device");
    const char *formula = args_take_value(&argc, argv, "--formula");
    bool json = args_take_word(&argc, argv, "--json");
    options_defaults(&o);
    status s = options_load(&o, &argc, argv, environ, NULL, &e);
    if (s == OK && card) s = find_card(card, &w.card, &e);
    if (s == OK && argc == 2) snprintf(o.model, sizeof o.model, "%s", argv[1]);
    if (s == OK && argc > 2) s = err_set(&e, ERR_INVALID, "more than one model is named");
    if (s == OK && formula && strcmp(formula, "rule-of-thumb") != 0) {
        err_set(&e, ERR_INVALID, "--formula: \"%.40s\" is not known", formula);
        s = err_hint(&e, "rule-of-thumb");
    }
    if (s == OK) s = machine_plan(&m, &o, &w, &e);
    if (s == OK && w.weights && m.file) {
        err_set(&e, ERR_INVALID, "--weights is for a config.json; a GGUF file has its own");
        s = err_field(&e, "weights");
    }
    if (s == OK || (s == ERR_BUDGET && m.plan.terms.n)) {
        if (json) {
            buf b;
            buf_init(&b, NULL);
            plan_json(&b, &m.plan, m.on_device ? &m.host_plan : NULL, &m.model->program.config,
                      m.engine_opt.kv_k, m.engine_opt.kv_v, m.device);
            puts(buf_cstr(&b));
            buf_clear(&b);
        } else {
            printf("%s: %s, %llu parameters, %u layers; device %s\n\n", m.name,
                   m.model->program.config.arch, (unsigned long long)m.n_params,
                   m.model->program.config.n_layers, m.device);
            print_terms(&m.plan);
            if (m.on_device) {
                puts("\nhost memory beside it:");
                print_terms(&m.host_plan);
            }
            if (s == OK) print_fit(&m, &w);
            if (formula) print_rule_of_thumb(&m);
        }
    }
    machine_close(&m);
    return s == OK ? 0 : command_failed("plan", &e);
}
