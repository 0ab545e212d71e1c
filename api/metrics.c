/* The exposition of metrics. Reads a snapshot; loop thread. */
#include "api/metrics.h"

#include <stdio.h>

#include "base/check.h"

/* Upper bounds of buckets, seconds or tokens; 0 ends a row. TTFT's are vLLM's, which dashboards
 * know. */
static const double bounds[HIST_N][PORT_MAX_BUCKETS + 1] = {
    [HIST_TTFT] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                   1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560},
    [HIST_ITL] = {.001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3,
                  .4,   .5,    .75,  1,   2.5,  5,   7.5,  10, 20,  40, 80},
    [HIST_E2E] = {.01, .05, .1, .3, .5, .8, 1,  1.5, 2,   2.5, 5,
                  10,  15,  20, 30, 40, 50, 60, 120, 240, 480, 960},
    [HIST_QUEUE] = {.001, .005, .01, .05, .1, .3, .5, .8, 1,   1.5, 2,   2.5,
                    5,    10,   15,  20,  30, 40, 50, 60, 120, 240, 480, 960},
    [HIST_PREFILL] = {.001, .005, .01, .05, .1, .3, .5, .8, 1,   1.5, 2,   2.5,
                      5,    10,   15,  20,  30, 40, 50, 60, 120, 240, 480, 960},
    [HIST_DECODE] = {.01, .05, .1, .3, .5, .8, 1,  1.5, 2,   2.5, 5,
                     10,  15,  20, 30, 40, 50, 60, 120, 240, 480, 960},
    [HIST_STEP_TOKENS] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384},
};

size_t histogram_bucket(histogram_id h, double v) {
    size_t i = 0;
    CHECK(h < HIST_N);
    while (i < PORT_MAX_BUCKETS && bounds[h][i] > 0 && v > bounds[h][i]) i++;
    return i;
}

typedef struct out {
    buf *b;
    char model[560]; /* model_name="..." */
} out;

static void head(const out *o, const char *name, const char *type, const char *help) {
    buf_addf(o->b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* labels: "" or a="b" */
static void sample(const out *o, const char *name, const char *labels, double v) {
    buf_addf(o->b, "%s{%s%s%s} %.17g\n", name, o->model, *labels ? "," : "", labels, v);
}

static void single(const out *o, const char *name, const char *type, const char *help,
                   double v) {
    head(o, name, type, help);
    sample(o, name, "", v);
}

/* The same number under our name and under the one that others know. */
static void both(const out *o, const char *ours, const char *theirs, const char *type,
                 const char *help, double v) {
    single(o, ours, type, help, v);
    single(o, theirs, type, help, v);
}

static void histogram_text(const out *o, const char *name, const char *help, histogram_id id,
                           const histogram *h) {
    char labels[48];
    uint64_t sum = 0;
    buf_addf(o->b, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name);
    char bucket[96], count[96], total[96];
    snprintf(bucket, sizeof bucket, "%s_bucket", name);
    snprintf(count, sizeof count, "%s_count", name);
    snprintf(total, sizeof total, "%s_sum", name);
    size_t i = 0;
    for (; i < PORT_MAX_BUCKETS && bounds[id][i] > 0; i++) {
        sum += h->bucket[i];
        snprintf(labels, sizeof labels, "le=\"%g\"", bounds[id][i]);
        sample(o, bucket, labels, (double)sum);
    }
    sample(o, bucket, "le=\"+Inf\"", (double)h->n);
    sample(o, total, "", h->sum);
    sample(o, count, "", (double)h->n);
}

static void by_class(const out *o, const char *name, const char *help, const ledger_view *v,
                     size_t at) {
    char labels[64];
    head(o, name, "gauge", help);
    for (int c = 0; c < MEM_N_CLASSES; c++) {
        const ledger_class *k = &v->cls[c];
        if (!k->plan_bytes && !k->peak_bytes) continue;
        snprintf(labels, sizeof labels, "class=\"%s\",device=\"cpu\"",
                 mem_class_name((mem_class)c));
        sample(o, name, labels, (double)*(const uint64_t *)((const char *)k + at));
    }
}

static void memory_text(const out *o, port *p, const machine_stats *s, memory_probe *probe) {
    ledger_view v;
    const process_memory *os = memory_probe_read(probe);
    ledger_read(p->ledger, &v);
    by_class(o, "vramd_memory_bytes", "Bytes held now.", &v,
             offsetof(ledger_class, ledger_bytes));
    by_class(o, "vramd_memory_plan_bytes", "Bytes planned before loading.", &v,
             offsetof(ledger_class, plan_bytes));
    by_class(o, "vramd_memory_class_peak_bytes", "Most bytes held at once, by class.", &v,
             offsetof(ledger_class, peak_bytes));
    single(o, "vramd_memory_budget_bytes", "gauge", "The budget for everything.",
           (double)v.budget_bytes);
    single(o, "vramd_memory_peak_bytes", "gauge", "Most bytes held at once.",
           (double)v.peak_bytes);
    single(o, "vramd_memory_anonymous_bytes", "gauge",
           "Anonymous memory by the kernel's count.", (double)os->anonymous_bytes);
    single(o, "vramd_memory_unaccounted_bytes", "gauge", "Anonymous memory minus the ledger.",
           (double)os->anonymous_bytes - (double)v.ledger_bytes);
    head(o, "vramd_kv_blocks", "gauge", "KV blocks by state.");
    sample(o, "vramd_kv_blocks", "state=\"free\"", (double)s->kv.free);
    sample(o, "vramd_kv_blocks", "state=\"used\"", (double)s->kv.used);
    sample(o, "vramd_kv_blocks", "state=\"cached\"", (double)s->kv.cached);
    single(o, "vramd_kv_bytes_per_token", "gauge", "Bytes of KV cache a token takes.",
           (double)s->kv.bytes_per_token);
    single(o, "vramd_request_pool_bytes", "gauge", "Size of the pool for requests.",
           (double)pool_size(p->pool));
    single(o, "vramd_request_pool_used_bytes", "gauge", "What of it is in use.",
           (double)pool_used(p->pool));
}

static void scheduler_text(const out *o, const machine_stats *s) {
    both(o, "vramd_requests_running", "vllm:num_requests_running", "gauge",
         "Sequences that are running.", s->n_running);
    both(o, "vramd_requests_waiting", "vllm:num_requests_waiting", "gauge",
         "Sequences that wait, preempted ones included.", s->n_waiting + s->n_preempted);
    single(o, "vramd_requests_preempted", "gauge", "Sequences that are preempted now.",
           s->n_preempted);
    single(o, "vramd_waiting_tokens", "gauge", "Prompt tokens that wait.",
           (double)s->waiting_tokens);
    both(o, "vramd_kv_usage_ratio", "vllm:kv_cache_usage_perc", "gauge",
         "Share of KV blocks in use, 0 to 1.",
         s->kv.blocks ? (double)s->kv.used / (double)s->kv.blocks : 0);
    both(o, "vramd_preemptions_total", "vllm:num_preemptions_total", "counter",
         "Sequences preempted.", (double)s->n_preemptions);
    both(o, "vramd_prompt_tokens_total", "vllm:prompt_tokens_total", "counter",
         "Prompt tokens processed.", (double)s->n_prompt_tokens);
    both(o, "vramd_generation_tokens_total", "vllm:generation_tokens_total", "counter",
         "Tokens generated.", (double)s->n_output_tokens);
    both(o, "vramd_prefix_cache_queries_total", "vllm:prefix_cache_queries_total", "counter",
         "Prompt tokens looked up in the prefix cache.", (double)s->prefix_queries);
    both(o, "vramd_prefix_cache_hits_total", "vllm:prefix_cache_hits_total", "counter",
         "Prompt tokens found there.", (double)s->prefix_hits);
    single(o, "vramd_recomputed_tokens_total", "counter",
           "Tokens computed again after preemption.", (double)s->n_recomputed_tokens);
    single(o, "vramd_steps_total", "counter", "Steps of the engine.", (double)s->n_steps);
    single(o, "vramd_requests_rejected_total", "counter", "Sequences refused at submission.",
           (double)s->n_rejected);
}

static void finished_text(const out *o, const machine_stats *s) {
    static const char *const reason[] = {"stop", "length", "abort", "timeout", "error"};
    static const char *const name[] = {"vramd_requests_finished_total",
                                       "vllm:request_success_total"};
    char labels[64];
    for (int n = 0; n < 2; n++) {
        head(o, name[n], "counter", "Sequences that ended, by reason.");
        for (int i = 0; i <= GEN_ERROR; i++) {
            snprintf(labels, sizeof labels, "%s=\"%s\"", n ? "finished_reason" : "reason",
                     reason[i]);
            sample(o, name[n], labels, (double)s->finished[i]);
        }
    }
}

static void histograms_text(const out *o, const machine_stats *s) {
    static const struct {
        histogram_id id;
        const char *ours, *theirs, *help;
    } row[] = {
        {HIST_TTFT, "vramd_time_to_first_token_seconds", "vllm:time_to_first_token_seconds",
         "From submission to the first token."},
        {HIST_ITL, "vramd_inter_token_latency_seconds", "vllm:inter_token_latency_seconds",
         "Between two tokens of a sequence."},
        {HIST_E2E, "vramd_e2e_request_latency_seconds", "vllm:e2e_request_latency_seconds",
         "From submission to the end."},
        {HIST_QUEUE, "vramd_request_queue_time_seconds", "vllm:request_queue_time_seconds",
         "From submission to admission."},
        {HIST_PREFILL, "vramd_request_prefill_time_seconds",
         "vllm:request_prefill_time_seconds", "From admission to the first token."},
        {HIST_DECODE, "vramd_request_decode_time_seconds", "vllm:request_decode_time_seconds",
         "From the first token to the end."},
        {HIST_STEP_TOKENS, "vramd_step_tokens", "vllm:iteration_tokens_total",
         "Rows of a step."},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        histogram_text(o, row[i].ours, row[i].help, row[i].id, &s->hist[row[i].id]);
        histogram_text(o, row[i].theirs, row[i].help, row[i].id, &s->hist[row[i].id]);
    }
}

/* Label values: backslash, quote and newline are escaped (the format's specification). */
static void escape_label(char *to, size_t cap, const char *from) {
    size_t n = 0;
    for (; *from && n + 3 < cap; from++) {
        if (*from == '\\' || *from == '"' || *from == '\n') to[n++] = '\\';
        to[n++] = *from == '\n' ? 'n' : *from;
    }
    to[n] = '\0';
}

void metrics_text(buf *b, port *p, memory_probe *probe, const metrics_http *http) {
    machine_stats s;
    out o = {.b = b};
    char id[512], labels[96];
    escape_label(id, sizeof id, p->card.id);
    snprintf(o.model, sizeof o.model, "model_name=\"%s\"", id);
    p->ops->stats(p, &s);
    single(&o, "vramd_ready", "gauge", "1 when requests are taken.",
           p->ops->not_ready(p) ? 0 : 1);
    scheduler_text(&o, &s);
    finished_text(&o, &s);
    head(&o, "vllm:cache_config_info", "gauge", "Block size and number of blocks.");
    snprintf(labels, sizeof labels, "block_size=\"%u\",num_gpu_blocks=\"%llu\"",
             s.kv.block_tokens, (unsigned long long)s.kv.blocks);
    sample(&o, "vllm:cache_config_info", labels, 1);
    memory_text(&o, p, &s, probe);
    single(&o, "vramd_http_connections", "gauge", "Open connections.", http->n_connections);
    single(&o, "vramd_http_requests", "gauge", "Requests in work.", http->n_requests);
    head(&o, "vramd_http_responses_total", "counter", "Answers by the status's class.");
    for (int i = 1; i < 6; i++) {
        snprintf(labels, sizeof labels, "status=\"%dxx\"", i);
        sample(&o, "vramd_http_responses_total", labels, (double)http->n_responses[i]);
    }
    histograms_text(&o, &s);
}
