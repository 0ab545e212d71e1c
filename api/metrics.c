/* The text of /metrics, from snapshots. Owns nothing. Loop thread; histogram_bucket from any. */
#include "api/metrics.h"

#include <stddef.h>
#include <stdio.h>

#include "base/check.h"
#include "base/energy.h"
#include "base/log.h"
#include "json/out.h"

/* ---- histograms ---- */

/* An upper bound, and its text as %g writes it. */
typedef struct bound {
    double v;
    str text;
} bound;

/* The bounds are vLLM's, so that existing dashboards read the aliases unchanged. */
#define B(v)                                                                                   \
    {                                                                                          \
        v, {                                                                                   \
#v, sizeof #v - 1                                                                  \
        }                                                                                      \
    }
static const bound ttft[] = {B(0.001), B(0.005), B(0.01), B(0.02), B(0.04), B(0.06),
                             B(0.08),  B(0.1),   B(0.25), B(0.5),  B(0.75), B(1),
                             B(2.5),   B(5),     B(7.5),  B(10),   B(20),   B(40),
                             B(80),    B(160),   B(640),  B(2560)};
static const bound itl[] = {B(0.01), B(0.025), B(0.05), B(0.075), B(0.1), B(0.15), B(0.2),
                            B(0.3),  B(0.4),   B(0.5),  B(0.75),  B(1),   B(2.5),  B(5),
                            B(7.5),  B(10),    B(20),   B(40),    B(80)};
static const bound latency[] = {B(0.3), B(0.5), B(0.8), B(1),   B(1.5), B(2),    B(2.5),
                                B(5),   B(10),  B(15),  B(20),  B(30),  B(40),   B(50),
                                B(60),  B(120), B(240), B(480), B(960), B(1920), B(7680)};
static const bound lengths[] = {B(1),      B(2),      B(5),      B(10),    B(20),
                                B(50),     B(100),    B(200),    B(500),   B(1000),
                                B(2000),   B(5000),   B(10000),  B(20000), B(50000),
                                B(100000), B(200000), B(500000), B(1e+06)};
static const bound choices[] = {B(1), B(2), B(5), B(10), B(20)};
static const bound tokens[] = {B(1),   B(8),    B(16),   B(32),   B(64),   B(128),  B(256),
                               B(512), B(1024), B(2048), B(4096), B(8192), B(16384)};
#undef B

#define BOUNDS(a) a, sizeof(a) / sizeof *(a)
static const struct {
    const bound *bound;
    size_t n;
    const char *own, *alias, *help; /* NULL: no such name */
} hists[HIST_N] = {
    [HIST_TTFT] = {BOUNDS(ttft), "vramd_time_to_first_token_seconds",
                   "vllm:time_to_first_token_seconds", "From arrival to the first token."},
    [HIST_ITL] = {BOUNDS(itl), "vramd_inter_token_latency_seconds",
                  "vllm:inter_token_latency_seconds", "Between two tokens of a request."},
    [HIST_E2E] = {BOUNDS(latency), "vramd_request_latency_seconds",
                  "vllm:e2e_request_latency_seconds", "From arrival to the end."},
    [HIST_QUEUE] = {BOUNDS(latency), "vramd_request_queue_seconds",
                    "vllm:request_queue_time_seconds", "From arrival to admission."},
    [HIST_PREFILL] = {BOUNDS(latency), "vramd_request_prefill_seconds",
                      "vllm:request_prefill_time_seconds",
                      "From admission to the first token."},
    [HIST_DECODE] = {BOUNDS(latency), "vramd_request_decode_seconds",
                     "vllm:request_decode_time_seconds", "From the first token to the end."},
    [HIST_STEP_TOKENS] = {BOUNDS(tokens), "vramd_step_tokens", NULL,
                          "Tokens computed in one step."},
    [HIST_ITERATION] = {BOUNDS(tokens), NULL, "vllm:iteration_tokens_total",
                        "Tokens computed in one step, and those drawn from prompts."},
    [HIST_INFERENCE] = {BOUNDS(latency), NULL, "vllm:request_inference_time_seconds",
                        "From admission to the end."},
    [HIST_PROMPT_TOKENS] = {BOUNDS(lengths), NULL, "vllm:request_prompt_tokens",
                            "Prompt tokens of a request."},
    [HIST_OUTPUT_TOKENS] = {BOUNDS(lengths), NULL, "vllm:request_generation_tokens",
                            "Tokens generated for a request."},
    [HIST_MAX_TOKENS] = {BOUNDS(lengths), NULL, "vllm:request_params_max_tokens",
                         "max_tokens of a request."},
    [HIST_PARAM_N] = {BOUNDS(choices), NULL, "vllm:request_params_n", "n of a request."},
};
_Static_assert(sizeof ttft / sizeof *ttft <= PORT_MAX_BUCKETS, "histogram.bucket");
_Static_assert(sizeof itl / sizeof *itl <= PORT_MAX_BUCKETS, "histogram.bucket");
_Static_assert(sizeof latency / sizeof *latency <= PORT_MAX_BUCKETS, "histogram.bucket");
_Static_assert(sizeof lengths / sizeof *lengths <= PORT_MAX_BUCKETS, "histogram.bucket");
_Static_assert(sizeof tokens / sizeof *tokens <= PORT_MAX_BUCKETS, "histogram.bucket");

size_t metrics_n_bounds(histogram_id id) {
    CHECK(id < HIST_N);
    return hists[id].n;
}

double metrics_bound(histogram_id id, size_t i) {
    CHECK(i < metrics_n_bounds(id));
    return hists[id].bound[i].v;
}

size_t histogram_bucket(histogram_id id, double v) {
    CHECK(id < HIST_N);
    size_t lo = 0, hi = hists[id].n; /* the first bound that is >= v; all below lo are < v */
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (v <= hists[id].bound[mid].v)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

/* ---- writing ---- */

/* A scrape is some 700 lines, and endpoint pickers scrape 20 times a second: lines are put together
 * from their parts, without a format for each. */
typedef struct out {
    buf *b;
    size_t n_model;
    char model[300]; /* {model_name="...", escaped */
} out;

/* Label values escape backslash, quote and newline (Prometheus exposition formats). */
static void set_model(out *o, const char *id) {
    size_t n = 0;
    n += (size_t)snprintf(o->model, sizeof o->model, "{model_name=\"");
    for (; *id && n + 4 < sizeof o->model; id++) {
        if (*id == '\n') {
            o->model[n++] = '\\', o->model[n++] = 'n';
            continue;
        }
        if (*id == '"' || *id == '\\') o->model[n++] = '\\';
        o->model[n++] = *id;
    }
    o->model[n++] = '"';
    o->model[n] = '\0';
    o->n_model = n;
}

static void head(out *o, const char *name, const char *type, const char *help) {
    const str n = str_of(name);
    const str part[] = {STR("# HELP "),   n, STR(" "), str_of(help),
                        STR("\n# TYPE "), n, STR(" "), str_of(type),
                        STR("\n")};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) buf_add(o->b, part[i]);
}

static void number(buf *b, double v) {
    if (v == (double)(int64_t)v && v < 1e15 && v > -1e15)
        json_i64(b, (int64_t)v);
    else
        buf_addf(b, "%.9g", v);
    buf_addc(b, '\n');
}

/* labels: further ones, each with a comma before it; "" for none */
static void sample(out *o, const char *name, const char *labels, double v) {
    buf_add(o->b, str_of(name));
    buf_add(o->b, (str){o->model, o->n_model});
    buf_add(o->b, str_of(labels));
    buf_add(o->b, STR("} "));
    number(o->b, v);
}

static void gauge(out *o, const char *name, const char *help, double v) {
    head(o, name, "gauge", help);
    sample(o, name, "", v);
}

static void counter(out *o, const char *name, const char *help, double v) {
    head(o, name, "counter", help);
    sample(o, name, "", v);
}

static void both(out *o, const char *type, const char *own, const char *alias, const char *help,
                 double v) {
    head(o, own, type, help);
    sample(o, own, "", v);
    head(o, alias, type, help);
    sample(o, alias, "", v);
}

/* Where buckets end, most lines are, and they differ in bound and number alone: what they begin with is
 * put together once, and their memory is found at once. */
static void write_histogram(out *o, const char *name, histogram_id id, const histogram *h) {
    enum { NUMBERS = 64 }; /* at most, of a bound and a count, and what is around them */
    const size_t n = hists[id].n;
    uint64_t sum = 0;
    char begin[sizeof o->model + 100];
    head(o, name, "histogram", hists[id].help);
    const int len = snprintf(begin, sizeof begin, "%s_bucket%s,le=\"", name, o->model);
    CHECK(len > 0 && (size_t)len < sizeof begin);
    if (!buf_reserve(o->b, (n + 1) * ((size_t)len + NUMBERS))) return;
    for (size_t i = 0; i <= n; i++) {
        sum += h->bucket[i];
        buf_add(o->b, (str){begin, (size_t)len});
        buf_add(o->b, i < n ? hists[id].bound[i].text : STR("+Inf"));
        buf_add(o->b, STR("\"} "));
        json_u64(o->b, sum);
        buf_addc(o->b, '\n');
    }
    buf_addf(o->b, "%s_sum%s} %.9g\n%s_count%s} %llu\n", name, o->model, h->sum, name, o->model,
             (unsigned long long)sum);
}

static void write_requests(out *o, const app *a, const machine_stats *s) {
    static const char *const reason[] = {"stop", "length", "abort", "timeout", "error"};
    static const char *const class[] = {"client_left", "501", "2xx", "not_ready", "4xx", "5xx"};
    char label[64];
    both(o, "gauge", "vramd_requests_running", "vllm:num_requests_running",
         "Sequences in the running batch.", s->n_running);
    both(o, "gauge", "vramd_requests_waiting", "vllm:num_requests_waiting",
         "Sequences that wait for admission.", s->n_waiting);
    gauge(o, "vramd_requests_preempted", "Sequences that were preempted and wait again.",
          s->n_preempted);
    gauge(o, "vramd_waiting_tokens", "Prompt tokens in the queue.", (double)s->waiting_tokens);
    head(o, "vramd_requests_finished_total", "counter", "Finished sequences by reason.");
    for (int i = 0; i <= GEN_ERROR; i++) {
        snprintf(label, sizeof label, ",reason=\"%s\"", reason[i]);
        sample(o, "vramd_requests_finished_total", label, (double)s->finished[i]);
    }
    head(o, "vllm:request_success_total", "counter", "Finished sequences by reason.");
    for (int i = 0; i <= GEN_CANCELLED; i++) {
        snprintf(label, sizeof label, ",finished_reason=\"%s\"", reason[i]);
        sample(o, "vllm:request_success_total", label, (double)s->finished[i]);
    }
    counter(o, "vramd_requests_rejected_total", "Sequences refused at submission.",
            (double)s->n_rejected);
    head(o, "vramd_http_responses_total", "counter",
         "HTTP answers by class of status; 501 (not supported) and not_ready (probes while the "
         "model loads) "
         "are none of 5xx.");
    for (int i = 0; i < 6; i++) {
        snprintf(label, sizeof label, ",code=\"%s\"", class[i]);
        sample(o, "vramd_http_responses_total", label, (double)a->answers[i]);
    }
    counter(o, "vramd_log_lines_dropped_total", "Lines of the log that could not be written.",
            (double)log_dropped());
    counter(o, "vramd_reply_unparsed_total",
            "Marks of tool calls in output that no valid call followed.",
            (double)a->n_unparsed);
    gauge(o, "vramd_http_connections", "Open connections.", http_n_connections(a->http));
    gauge(o, "vramd_ready", "1 when requests are served.",
          !a->leaving && a->port->ops->not_ready(a->port) == NULL);
}

static void write_counter(out *o, const char *own, const char *help, uint64_t v) {
    static const struct {
        const char *own, *alias;
    } also[] = {
        {"vramd_preemptions_total", "vllm:num_preemptions_total"},
        {"vramd_prompt_tokens_total", "vllm:prompt_tokens_total"},
        {"vramd_generated_tokens_total", "vllm:generation_tokens_total"},
        {"vramd_speculative_drafts_total", "vllm:spec_decode_num_drafts_total"},
        {"vramd_speculative_draft_tokens_total", "vllm:spec_decode_num_draft_tokens_total"},
        {"vramd_speculative_accepted_tokens_total",
         "vllm:spec_decode_num_accepted_tokens_total"},
        {"vramd_prefix_cache_queries_total", "vllm:prefix_cache_queries_total"},
        {"vramd_prefix_cache_hits_total", "vllm:prefix_cache_hits_total"}};
    counter(o, own, help, (double)v);
    for (size_t i = 0; i < sizeof also / sizeof *also; i++)
        if (strcmp(also[i].own, own) == 0) counter(o, also[i].alias, help, (double)v);
}

static void write_counters(out *o, const sched_counters *c) {
#define WRITE_COUNTER(name, help) write_counter(o, "vramd_" #name "_total", help, c->name);
    SCHED_COUNTERS(WRITE_COUNTER)
#undef WRITE_COUNTER
}

static void write_states(out *o, const kv_view *kv) {
    const uint32_t taken = kv->state_live + kv->state_checkpoints;
    if (kv->state_slots == 0) return;
    head(o, "vramd_state_slots", "gauge", "Slots for states of recurrent layers by use.");
    sample(o, "vramd_state_slots", ",state=\"sequence\"", kv->state_live);
    sample(o, "vramd_state_slots", ",state=\"checkpoint\"", kv->state_checkpoints);
    sample(o, "vramd_state_slots", ",state=\"free\"",
           kv->state_slots > taken ? kv->state_slots - taken : 0);
}

/* Cached blocks are free ones to a balancer: a warm replica is not a full one. */
static void write_kv(out *o, const kv_view *kv) {
    const double usage = kv->blocks ? (double)kv->used / (double)kv->blocks : 0;
    char label[96];
    head(o, "vramd_kv_blocks", "gauge", "KV cache blocks by state.");
    sample(o, "vramd_kv_blocks", ",state=\"free\"", (double)kv->free);
    sample(o, "vramd_kv_blocks", ",state=\"used\"", (double)kv->used);
    sample(o, "vramd_kv_blocks", ",state=\"cached\"", (double)kv->cached);
    uint64_t peak = 0;
    for (uint32_t k = 0; k < kv->n_groups; k++) peak += kv->group[k].peak;
    gauge(o, "vramd_kv_blocks_peak",
          "Most KV cache blocks in use at once since the start, each group at its own time.",
          (double)peak);
    gauge(o, "vramd_kv_block_tokens", "Tokens of one KV cache block.", kv->block_tokens);
    gauge(o, "vramd_kv_bytes_per_token", "KV cache bytes of one token, all layers.",
          (double)kv->bytes_per_token);
    both(o, "gauge", "vramd_kv_usage_ratio", "vllm:kv_cache_usage_perc",
         "Used part of the KV cache, 0 to 1.", usage);
    gauge(o, "vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc under its older name.",
          usage);
    head(o, "vllm:cache_config_info", "gauge", "Configuration of the KV cache.");
    snprintf(label, sizeof label, ",block_size=\"%u\",num_gpu_blocks=\"%llu\"",
             kv->block_tokens, (unsigned long long)kv->blocks);
    sample(o, "vllm:cache_config_info", label, 1);
    write_states(o, kv);
}

/* The tier below the KV cache. */
static void write_tier(out *o, const kv_tier_view *t, const sched_counters *c) {
    const char *label = t->in_memory ? ",tier=\"host\"" : ",tier=\"disk\"";
    const struct {
        const char *name, *type, *help;
        uint64_t v;
    } samples[] = {
        {"vramd_kv_tier_on", "gauge", "0 while the tier is off after an error.", !t->off},
        {"vramd_kv_tier_bytes", "gauge", "Bytes of KV blocks in the tier.", t->bytes},
        {"vramd_kv_tier_budget_bytes", "gauge", "Most bytes of KV blocks in the tier.",
         t->budget_bytes},
#define TIER_COUNTER(name, help) {"vramd_" #name "_total", "counter", help, c->name},
        SCHED_TIER_COUNTERS(TIER_COUNTER)
#undef TIER_COUNTER
    };
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        head(o, samples[i].name, samples[i].type, samples[i].help);
        sample(o, samples[i].name, label, (double)samples[i].v);
    }
}

static void write_experts(out *o, const expert_view *x) {
    gauge(o, "vramd_expert_slots", "Experts that are in memory at once.", x->slots);
    gauge(o, "vramd_experts", "Experts of the model, of all layers.", x->all);
    counter(o, "vramd_expert_hits_total",
            "Experts that rows of a step went to and that were in a slot.", (double)x->hits);
    counter(o, "vramd_expert_misses_total",
            "Experts that rows of a step went to and that were read.", (double)x->misses);
    counter(o, "vramd_expert_read_bytes_total", "Bytes of experts read from the model's file.",
            (double)x->read_bytes);
    counter(o, "vramd_expert_read_errors_total",
            "Readings of experts that failed; their steps end with an error.",
            (double)x->read_errors);
    counter(o, "vramd_expert_stall_seconds_total", "Time in which steps waited for experts.",
            x->stalled_s);
}

/* The ledgers by place: the host's and, where there is one, the device's. */
typedef struct ledgers {
    const char *place[2];
    ledger_view v[2];
    int n;
} ledgers;

static void read_ledgers(const port *p, ledgers *l) {
    *l = (ledgers){.place = {"cpu", p->device}, .n = p->device_ledger ? 2 : 1};
    ledger_read(p->ledger, &l->v[0]);
    if (p->device_ledger) ledger_read(p->device_ledger, &l->v[1]);
}

/* labels: device="cpu" */
static void class_samples(out *o, const char *name, const char *labels, const ledger_view *v,
                          size_t at) {
    char label[128];
    for (int i = 0; i < MEM_N_CLASSES; i++) {
        const ledger_class *c = &v->cls[i];
        if (!c->plan_bytes && !c->peak_bytes) continue;
        uint64_t bytes;
        memcpy(&bytes, (const char *)c + at, sizeof bytes);
        snprintf(label, sizeof label, ",class=\"%s\",%s", mem_class_name((mem_class)i), labels);
        sample(o, name, label, (double)bytes);
    }
}

static void by_class(out *o, const char *name, const char *help, const ledgers *l, size_t at) {
    char labels[48];
    head(o, name, "gauge", help);
    for (int i = 0; i < l->n; i++) {
        snprintf(labels, sizeof labels, "device=\"%s\"", l->place[i]);
        class_samples(o, name, labels, &l->v[i], at);
    }
}

static void by_place(out *o, const char *name, const char *help, const ledgers *l,
                     const double *value, int n) {
    char label[64];
    head(o, name, "gauge", help);
    for (int i = 0; i < n; i++) {
        snprintf(label, sizeof label, ",device=\"%s\"", l->place[i]);
        sample(o, name, label, value[i]);
    }
}

/* The ledgers of ranks, as port_ops.ranks has them. */
typedef struct rank_ledgers {
    ledger_view v[64];
    uint32_t n;
    int32_t first_device;
} rank_ledgers;

static void rank_samples(out *o, const char *name, const char *help, const rank_ledgers *l,
                         size_t at) {
    char labels[48];
    head(o, name, "gauge", help);
    for (uint32_t i = 0; i < l->n; i++) {
        snprintf(labels, sizeof labels, "device=\"cpu\",rank=\"%u\"", i);
        class_samples(o, name, labels, &l->v[i], at);
        if (l->first_device < 0) continue;
        snprintf(labels, sizeof labels, "device=\"cuda:%u\",rank=\"%u\"",
                 (uint32_t)l->first_device + i, i);
        class_samples(o, name, labels, &l->v[l->n + i], at);
    }
}

/* Of several processes that share the model; the metrics without a rank are of the first. */
static void write_ranks(out *o, port *p) {
    rank_ledgers l;
    l.n = 0, l.first_device = -1;
    if (p->ops->ranks) l.n = p->ops->ranks(p, l.v, sizeof l.v / sizeof *l.v, &l.first_device);
    if (l.n < 2) return;
    gauge(o, "vramd_ranks", "Processes that share the model.", l.n);
    rank_samples(o, "vramd_rank_memory_bytes", "Bytes that a rank holds, by class and place.",
                 &l, offsetof(ledger_class, ledger_bytes));
    rank_samples(o, "vramd_rank_memory_plan_bytes",
                 "Bytes planned of a rank, by class and place.", &l,
                 offsetof(ledger_class, plan_bytes));
}

/* Layers in the host's memory (gpu_layers, n_cpu_moe). */
static void write_offload(out *o, const device_memory *d) {
    gauge(o, "vramd_offload_step_bytes",
          "Weights that each step copies from the host's memory.", (double)d->step_bytes);
    counter(o, "vramd_offload_bytes_total", "Weights that steps have copied from there.",
            (double)d->staged_bytes);
    counter(o, "vramd_offload_stall_seconds_total",
            "Time in which operations waited for weights from there.",
            (double)d->stall_us / 1e6);
    gauge(o, "vramd_offload_link_bytes_per_second",
          "Rate of such copies, as it was measured when the model was loaded.",
          (double)d->link_bytes_per_s);
}

static void write_computed(out *o, const device_memory *d) {
    gauge(o, "vramd_offload_computed_bytes",
          "Weights in the host's memory with which the CPU computes, as stored.",
          (double)d->computed_bytes);
    counter(o, "vramd_offload_compute_seconds_total",
            "Time for which the CPU computed parts of steps.", (double)d->computed_us / 1e6);
}

static void write_memory(out *o, const app *a, const budget_view *b) {
    const memory_sample *s = &a->memory;
    ledgers l;
    read_ledgers(a->port, &l);
    by_class(o, "vramd_memory_bytes", "Bytes held, by class.", &l,
             offsetof(ledger_class, ledger_bytes));
    by_class(o, "vramd_memory_peak_bytes", "Most bytes held so far, by class.", &l,
             offsetof(ledger_class, peak_bytes));
    by_class(o, "vramd_memory_plan_bytes", "Bytes planned, by class.", &l,
             offsetof(ledger_class, plan_bytes));
    write_ranks(o, a->port);
    by_place(o, "vramd_memory_budget_bytes", "The budget for everything.", &l,
             (double[]){(double)l.v[0].budget_bytes, (double)l.v[1].budget_bytes}, l.n);
    gauge(o, "vramd_memory_target_bytes", "The budget, or the one that it is becoming.",
          (double)b->target_bytes);
    counter(o, "vramd_memory_resizes_total", "Changes of the budget while serving.",
            (double)b->n_resizes);
    gauge(o, "vramd_memory_full_budget_bytes",
          "The budget without what pressure or idleness made it give back.",
          (double)b->full_bytes);
    gauge(o, "vramd_memory_pressure", "1 while less than that is used because of pressure.",
          b->pressed);
    counter(o, "vramd_memory_pressure_events_total", "Events of memory pressure.",
            (double)b->n_pressure);
    head(o, "vramd_memory_given_back_bytes_total", "counter",
         "Bytes of KV cache given back to the system, by cause.");
    sample(o, "vramd_memory_given_back_bytes_total", ",cause=\"pressure\"",
           (double)b->pressure_bytes);
    sample(o, "vramd_memory_given_back_bytes_total", ",cause=\"idle\"", (double)b->idle_bytes);
    gauge(o, "vramd_memory_requests_used_bytes", "Request memory in use, of class requests.",
          (double)pool_used(a->port->pool));
    if (!s->known) return;
    gauge(o, "vramd_memory_anonymous_bytes", "Anonymous memory, as the kernel counts it.",
          (double)s->process.anonymous_bytes);
    gauge(o, "vramd_memory_heap_bytes", "Part of it that malloc has given out.",
          (double)s->process.heap_bytes);
    by_place(o, "vramd_memory_unaccounted_bytes",
             "Memory in use, as kernel and driver count it, less the ledger.", &l,
             (double[]){(double)s->process.anonymous_bytes - (double)s->ledger_bytes,
                        (double)s->device.used_bytes - (double)s->device.outside_bytes -
                            (double)s->device_arena_bytes},
             s->device_known ? 2 : 1);
    if (!s->device_known) return;
    gauge(o, "vramd_device_memory_used_bytes", "Device memory in use, as the driver counts it.",
          (double)s->device.used_bytes);
    gauge(o, "vramd_device_memory_context_bytes",
          "Measured part of it that is the driver's context, libraries and graphs.",
          (double)s->device.outside_bytes);
    if (s->device.step_bytes) write_offload(o, &s->device);
    if (s->device.computed_bytes) write_computed(o, &s->device);
}

/* One sample a tenant, of the counter at an offset in it. */
typedef struct tenant_samples {
    out *o;
    const char *name;
    size_t at;
} tenant_samples;

static void tenant_sample(void *arg, const tenant *t) {
    const tenant_samples *s = arg;
    char label[64];
    uint64_t v;
    memcpy(&v, (const char *)t + s->at, sizeof v);
    snprintf(label, sizeof label, ",key=\"%s\"", t->name);
    sample(s->o, s->name, label, (double)v);
}

static void write_keys(out *o, const keys *k) {
    static const struct {
        const char *name, *help;
        size_t at;
    } row[] = {
        {"vramd_key_requests_total", "Requests let in, by key.",
         offsetof(tenant, counts.n_requests)},
        {"vramd_key_limited_total", "Requests refused at a limit of the key.",
         offsetof(tenant, counts.n_limited)},
        {"vramd_key_prompt_tokens_total", "Prompt tokens of ended requests, by key.",
         offsetof(tenant, counts.n_prompt_tokens)},
        {"vramd_key_generated_tokens_total", "Tokens generated in ended requests, by key.",
         offsetof(tenant, counts.n_output_tokens)},
    };
    for (size_t i = 0; k && i < sizeof row / sizeof *row; i++) {
        tenant_samples s = {.o = o, .name = row[i].name, .at = row[i].at};
        head(o, row[i].name, "counter", row[i].help);
        keys_each(k, tenant_sample, &s);
    }
}

/* Of the machine, for those who watch what a token costs; absent where Linux does not let us read it. */
static void write_energy(out *o) {
    energy_package p[ENERGY_PACKAGES];
    const char *name = "vramd_energy_joules_total";
    const uint32_t n = energy_read(p);
    char label[64];
    if (n == 0) return;
    head(o, name, "counter",
         "Energy that processor packages have used since the start, other processes included.");
    for (uint32_t i = 0; i < n; i++) {
        snprintf(label, sizeof label, ",package=\"%.15s\"", p[i].name);
        sample(o, name, label, p[i].joules);
    }
}

/* From which rows of a step and the time to a first token are predicted. */
static void write_cost(out *o, const step_cost *c) {
    const char *name = "vramd_step_cost_seconds";
    head(o, name, "gauge", "Learned time of a step, and of each thing in it.");
    sample(o, name, ",per=\"step\"", c->step_s);
    sample(o, name, ",per=\"row\"", c->row_s);
    sample(o, name, ",per=\"position\"", c->position_s);
    sample(o, name, ",per=\"logits\"", c->logits_s);
    gauge(o, "vramd_step_cost_error_ratio",
          "Mean error of predicted step times, relative to the prediction.", c->error);
}

void metrics_write_sample(buf *b, const char *name, const char *model, double v) {
    out o = {.b = b};
    set_model(&o, model);
    sample(&o, name, "", v);
}

void metrics_write(buf *b, const app *a, const machine_stats *s) {
    out o = {.b = b};
    set_model(&o, a->port->card.id);
    head(&o, "vramd_build_info", "gauge", "The version of this server.");
    sample(&o, "vramd_build_info", ",version=\"" VRAMD_VERSION "\"", 1);
    write_requests(&o, a, s);
    write_counters(&o, &s->count);
    write_kv(&o, &s->kv);
    if (s->kv.tier.budget_bytes) write_tier(&o, &s->kv.tier, &s->count);
    if (s->experts.slots) write_experts(&o, &s->experts);
    write_memory(&o, a, &s->budget);
    write_keys(&o, a->keys);
    write_cost(&o, &s->cost);
    write_energy(&o);
    for (int i = 0; i < HIST_N; i++) {
        if (hists[i].own) write_histogram(&o, hists[i].own, (histogram_id)i, &s->hist[i]);
        if (hists[i].alias) write_histogram(&o, hists[i].alias, (histogram_id)i, &s->hist[i]);
    }
}
