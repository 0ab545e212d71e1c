/* A plan as text and as JSON. Main thread; owns nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/str.h"
#include "daemon/plan/plan_report.h"
#include "daemon/plan/rank_plan.h"
#include "engine/kv_block.h"
#include "json/out.h"

/* ---- text ---- */

static void print_total(const char *name, uint64_t bytes) {
    char a[32], b[32];
    printf("%-24s %18s %10s\n", name, bytes_grouped(bytes, a), bytes_human(bytes, b));
}

static void print_row(mem_class c, term_kind kind, uint64_t bytes) {
    char a[32], b[32];
    printf("%-12s %-11s %18s %10s  ", mem_class_name(c), term_kind_name(kind),
           bytes_grouped(bytes, a), bytes_human(bytes, b));
}

/* Every term of a class. */
static void print_terms(const plan *p, mem_class c) {
    for (size_t i = 0; i < p->terms.n; i++) {
        const term *t = &p->terms.v[i];
        if (t->cls != c) continue;
        print_row(c, t->kind, t->bytes);
        printf("%s%s\n", t->what, t->while_loading ? " (while loading)" : "");
    }
}

/* The sum of a class, named by its largest term; as little exact as the least exact of them. */
static void print_sum(const plan *p, mem_class c) {
    const term *largest = NULL;
    term_kind kind = TERM_EXACT;
    uint64_t bytes = 0, n = 0;
    for (size_t i = 0; i < p->terms.n; i++) {
        const term *t = &p->terms.v[i];
        if (t->cls != c) continue;
        if (!largest || t->bytes > largest->bytes) largest = t;
        if (t->kind > kind) kind = t->kind;
        bytes += t->bytes;
        n++;
    }
    if (!n) return;
    print_row(c, kind, bytes);
    printf("%s", largest->what);
    if (n > 1) printf(", and %llu more", (unsigned long long)n - 1);
    puts(c == MEM_LOADING ? " (while loading)" : "");
}

static void print_memory(const plan *p, bool details) {
    printf("%-12s %-11s %18s %10s  %s\n", "class", "kind", "bytes", "", "what");
    for (int c = 0; c < MEM_N_CLASSES; c++)
        if (details)
            print_terms(p, (mem_class)c);
        else
            print_sum(p, (mem_class)c);
    print_total("total", p->total_bytes);
    if (details || p->load_peak_bytes != p->total_bytes)
        print_total("peak while loading", p->load_peak_bytes);
    if (details || p->budget_bytes != p->total_bytes) print_total("budget", p->budget_bytes);
    print_total("smallest budget", p->smallest_budget_bytes);
}

/* The price of one option: the plan again with the option changed, as a difference. Both are
 * made without a limit, so that nothing is cut. */
static void print_price(const machine *of, const machine_wish *w, uint64_t from,
                        const char *text, const options *changed) {
    machine m;
    err e;
    char a[32], b[32];
    if (machine_plan_again(&m, of, changed, w, &e) == OK) {
        int64_t d = (int64_t)(m.plan.total_bytes + m.host_plan.total_bytes) - (int64_t)from;
        const uint64_t size = (uint64_t)llabs(d);
        printf("  %-44s %c%-18s %10s\n", text, d < 0 ? '-' : '+', bytes_grouped(size, a),
               bytes_human(size, b));
    }
    machine_close(&m);
}

static void print_prices_of_types(const machine *m, const machine_wish *w, uint64_t from,
                                  const options *o) {
    for (uint32_t t = 0;; t++) {
        const str word = options_word("kv_cache_dtype", t);
        if (str_eqz(word, "?")) break;
        const dtype type = dtype_by_name(word);
        if (str_eqz(word, "auto") || str_eqz(word, "bf16") ||
            (m->engine_opt.kv_k == type && m->engine_opt.kv_v == type))
            continue;
        char text[64];
        options c = *o;
        c.kv_cache_dtype = t;
        c.cache_type_k = c.cache_type_v = 0; /* same */
        snprintf(text, sizeof text, "kv_cache_dtype = " STR_FMT, STR_ARG(word));
        print_price(m, w, from, text, &c);
    }
}

/* What is wanted of the KV cache is held at what the plan has, so that prices add up. */
static void print_prices(const machine *m, const plan_question *q) {
    machine_wish w = *q->wish;
    options o = m->opt;
    o.request_memory = q->opt->request_memory; /* by itself it goes with other options */
    machine same;
    err e;
    char b[32];
    w.uncut = true;
    w.in_proportion = m->plan.in_proportion;
    if (!o.kv_cache_tokens) o.kv_cache_tokens = m->plan.kv_tokens;
    if (machine_plan_again(&same, m, &o, &w, &e) != OK) return machine_close(&same);
    const uint64_t from = same.plan.total_bytes + same.host_plan.total_bytes;
    machine_close(&same);
    printf("\ncost of each setting, with a KV cache of %s tokens and no limit of memory:\n",
           bytes_grouped(o.kv_cache_tokens, b));
    options c = o;
    if (m->plan.n_groups) {
        c.kv_cache_tokens += 1024;
        if (c.kv_cache_tokens <= (uint64_t)o.max_model_len * o.max_num_seqs)
            print_price(m, &w, from, "1,024 tokens more of KV cache", &c);
        print_prices_of_types(m, &w, from, &o);
    }
    c = o;
    c.max_num_seqs *= 2;
    if (c.max_num_batched_tokens < c.max_num_seqs) c.max_num_batched_tokens = c.max_num_seqs;
    print_price(m, &w, from, "max_num_seqs doubled (same KV cache)", &c);
    c = o;
    c.max_num_batched_tokens *= 2;
    print_price(m, &w, from, "max_num_batched_tokens doubled", &c);
    c = o;
    c.max_connections *= 2;
    print_price(m, &w, from, "max_connections doubled", &c);
}

/* Do the windows of all sequences fit that share the tokens of the cache? */
static bool holds_all(const machine *m, uint64_t tokens_each) {
    const plan *p = &m->plan;
    const uint64_t each = ceil_div(tokens_each, p->block_tokens);
    for (uint32_t g = 0; g < p->n_groups; g++) {
        const uint64_t one = p->group_seq_blocks[g] < each ? p->group_seq_blocks[g] : each;
        if (one * m->opt.max_num_seqs > p->group_blocks[g] + one) return false;
    }
    return true;
}

static void print_cache(const machine *m) {
    const plan *p = &m->plan;
    const uint64_t each = p->kv_tokens / m->opt.max_num_seqs;
    char a[32], b[32], types[32];
    printf("\nKV cache: %s, %s bytes per token",
           dtype_kv_name(m->engine_opt.kv_k, m->engine_opt.kv_v, types),
           bytes_grouped(p->kv_bytes_per_token, a));
    if (p->tail_bytes_per_token)
        printf(" (%s more for the newest %d of each sequence)",
               bytes_grouped(p->tail_bytes_per_token, a), KV_TAIL_TOKENS);
    printf(", %s tokens: %.1f sequences of %u", bytes_grouped(p->kv_tokens, b),
           plan_sequences(p), m->opt.max_model_len);
    if (holds_all(m, each))
        printf(", or %u sequences of %llu", m->opt.max_num_seqs, (unsigned long long)each);
    puts("");
}

static void print_lacks(const machine *m) {
    char list[512];
    op_set_text(m->lacks, list, sizeof list);
    printf("planned, not runnable yet: the %s engine lacks %s\n", m->backend->name, list);
}

/* Of the table whose rows the CPU engine reads where they lie. */
static uint64_t in_file_bytes(const machine *m) {
    const program *p = &m->model->program;
    const weight_id table = program_table(p);
    return m->on_device || table == NO_WEIGHT ? 0 : weight_bytes(&p->weights[table]);
}

/* What of a model stands apart from its matrices: experts, states, what is not loaded. */
static void print_parts(const machine *m) {
    const program *p = &m->model->program;
    const uint64_t expert = program_expert_bytes(p), state = program_state_bytes(p);
    const uint64_t in_file = in_file_bytes(m);
    char a[32], b[32];
    if (expert && !m->stored.bits)
        printf("%u experts a layer, %u used by a token; %s bytes an expert (%s)\n",
               p->config.n_experts, p->config.n_experts_used, bytes_grouped(expert, a),
               bytes_human(expert, b));
    if (state)
        printf("states of layers without attention: %s bytes a sequence (%s)\n",
               bytes_grouped(state, a), bytes_human(state, b));
    if (in_file)
        printf("in the file: %s bytes (%s) of embeddings of each layer, read row by row\n",
               bytes_grouped(in_file, a), bytes_human(in_file, b));
    if (p->not_loaded_bytes)
        printf("not loaded: %s bytes of vision, audio, blocks for further tokens or what a "
               "model is "
               "trained with\n",
               bytes_grouped(p->not_loaded_bytes, a));
    else if (p->config.shape.mtp)
        printf("not loaded, not counted: %u blocks for further tokens (MTP)\n",
               p->config.shape.mtp);
}

static void print_heading(const machine *m, const plan_verdict *v) {
    const model_config *c = &m->model->program.config;
    char a[32], here[32], there[32];
    const uint64_t total = machine_total_bytes();
    printf("%s: %s, %s parameters, %u layers; device %s", m->name, c->arch,
           bytes_grouped(m->n_params, a), c->n_layers, m->device);
    if (m->given.max_num_batched_tokens == 0 && !m->on_device)
        printf(", %u threads: steps of up to %u tokens", m->opt.threads,
               m->opt.max_num_batched_tokens);
    puts("");
    if (!m->on_device && m->budget.bytes > total)
        printf("for a machine with %s; this one has %s\n", bytes_human(m->budget.bytes, there),
               bytes_human(total, here));
    print_parts(m);
    if (m->text_part)
        puts("text part only: other parts of the model, such as vision, are not counted");
    if (!op_set_empty(m->lacks))
        print_lacks(m);
    else if (m->not_served[0])
        printf(m->counted ? "an estimate: %s\n"
                          : "an estimate: vramd cannot serve this model yet: %s\n",
               m->not_served);
    else if (m->counted)
        printf("an estimate: a config.json has no weights (%s); the plan of their folder is "
               "exact\n",
               m->stored.name);
    printf("%s\n", v->text);
    for (uint32_t i = 0; i < v->n_remedies; i++)
        printf("  fits with %s: %.1f sequences of %u tokens\n", v->remedy[i].change,
               v->remedy[i].sequences, v->remedy[i].max_model_len);
    if (v->n_cards > 1)
        printf("  %llu such devices hold it, with %s: planned, but vramd uses one GPU\n",
               (unsigned long long)v->n_cards, v->split);
    puts("");
}

void plan_print(const machine *m, const plan_verdict *v, const plan_question *q, bool details) {
    print_heading(m, v);
    print_memory(&m->plan, details);
    if (m->on_device && details) {
        puts("\nhost memory beside it:");
        print_memory(&m->host_plan, true);
    } else if (m->on_device) {
        char a[32], b[32];
        printf("%-24s %18s %10s  of the host's memory\n", "beside it",
               bytes_grouped(plan_peak_bytes(&m->host_plan), a),
               bytes_human(plan_peak_bytes(&m->host_plan), b));
    }
    rank_plan_print(m);
    if (!v->fits) return;
    if (m->plan.n_groups) print_cache(m);
    if (details) print_prices(m, q);
}

void rule_of_thumb_print(const rule_of_thumb *r) {
    char a[32], b[32], c[32];
    printf("\nrule of thumb, for %u sequences of %u tokens:\n", r->batch, r->sequence);
    printf("  %-12s %10s  %s parameters x %.2f bytes\n", "weights", bytes_human(r->weights, a),
           bytes_grouped(r->params, b), r->bytes_per_param);
    printf("  %-12s %10s  %u x %u tokens x %s bytes\n", "KV cache", bytes_human(r->kv, a),
           r->batch, r->sequence, bytes_grouped(r->kv / ((uint64_t)r->batch * r->sequence), b));
    printf("  %-12s %10s  to %s: K x batch %u x sequence %u x hidden %u x layers %u, K = %d to "
           "%d bytes\n",
           "activations", bytes_human(r->activations[0], a), bytes_human(r->activations[1], b),
           r->batch, r->sequence, r->hidden, r->layers, RULE_K_LEAST, RULE_K_MOST);
    printf("  %-12s %10s  %d to %d %% of the sum\n", "overhead", "", RULE_OVERHEAD_LEAST,
           RULE_OVERHEAD_MOST);
    printf("  %-12s %10s  to %s\n", "total", bytes_human(r->total[0], a),
           bytes_human(r->total[1], b));
    printf("The plan has %s for activations, logits and workspace, which is K = %.4f. The rule "
           "keeps the activations of every token of every layer, as training does; an engine "
           "computes one layer at a time, and at most max_num_batched_tokens tokens in a "
           "step.\n",
           bytes_human(r->plan_activations, c), r->effective_k);
}

/* ---- JSON ---- */

static void member(buf *b, const char *name, uint64_t v) {
    buf_addf(b, ",\"%s\":", name);
    json_u64(b, v);
}

static void lacks_json(buf *b, const machine *m) {
    const char *names[OP_SET_MAX];
    const uint32_t n = op_set_names(m->lacks, names);
    buf_addf(b, ",\"runnable\":%s", n ? "false,\"missing\":[" : "true");
    for (uint32_t i = 0; i < n; i++) buf_addf(b, "%s\"%s\"", i ? "," : "", names[i]);
    if (n) buf_addc(b, ']');
}

static void parts_json(buf *b, const machine *m) {
    const program *p = &m->model->program;
    const uint64_t state = program_state_bytes(p);
    if (p->config.n_experts) {
        buf_addf(b, ",\"experts\":{\"n\":%u,\"used\":%u", p->config.n_experts,
                 p->config.n_experts_used);
        if (!m->stored.bits) member(b, "bytes_each", program_expert_bytes(p));
        buf_addc(b, '}');
    }
    if (state) member(b, "state_bytes_per_sequence", state);
    if (in_file_bytes(m)) member(b, "in_file_bytes", in_file_bytes(m));
    if (p->not_loaded_bytes) member(b, "not_loaded_bytes", p->not_loaded_bytes);
}

void plan_verdict_json(buf *b, const machine *m, const plan_verdict *v) {
    buf_addf(b, ",\"verdict\":{\"fits\":%s,\"text\":", v->fits ? "true" : "false");
    json_str_lossy(b, str_of(v->text));
    member(b, "needs_more_bytes", v->more_bytes);
    buf_addf(b, ",\"sequences\":%.2f,\"fits_with\":[", v->sequences);
    for (uint32_t i = 0; i < v->n_remedies; i++) {
        buf_add(b, i ? STR(",{\"change\":") : STR("{\"change\":"));
        json_str_lossy(b, str_of(v->remedy[i].change));
        buf_addf(b, ",\"sequences\":%.2f", v->remedy[i].sequences);
        member(b, "max_model_len", v->remedy[i].max_model_len);
        buf_addc(b, '}');
    }
    buf_addc(b, ']');
    if (v->n_cards > 1) {
        member(b, "devices_together", v->n_cards);
        buf_addf(b, ",\"devices_split\":\"%s\"", v->split);
    }
    buf_addf(b, "},\"can_be_served\":%s", m->not_served[0] ? "false" : "true");
    lacks_json(b, m);
    parts_json(b, m);
    if (m->text_part) buf_add(b, STR(",\"text_part_only\":true"));
    if (!m->not_served[0]) return;
    buf_add(b, STR(",\"why_not\":"));
    json_str_lossy(b, str_of(m->not_served));
}

void rule_of_thumb_json(buf *b, const rule_of_thumb *r) {
    buf_add(b, STR(",\"rule_of_thumb\":{\"batch\":"));
    json_u64(b, r->batch);
    member(b, "sequence", r->sequence);
    member(b, "hidden", r->hidden);
    member(b, "layers", r->layers);
    member(b, "params", r->params);
    buf_addf(b, ",\"bytes_per_param\":%.4f,\"k\":[%d,%d],\"overhead_percent\":[%d,%d]",
             r->bytes_per_param, RULE_K_LEAST, RULE_K_MOST, RULE_OVERHEAD_LEAST,
             RULE_OVERHEAD_MOST);
    member(b, "weights_bytes", r->weights);
    member(b, "kv_bytes", r->kv);
    buf_addf(b, ",\"activations_bytes\":[%llu,%llu],\"total_bytes\":[%llu,%llu]",
             (unsigned long long)r->activations[0], (unsigned long long)r->activations[1],
             (unsigned long long)r->total[0], (unsigned long long)r->total[1]);
    member(b, "plan_activations_bytes", r->plan_activations);
    buf_addf(b, ",\"effective_k\":%.6f}", r->effective_k);
}
