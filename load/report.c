/* Writes reports. Owns nothing; one thread, after the run. */
#include "load/report.h"

#include <string.h>

#include "json/out.h"

const char *load_level_word(load_mode m) {
    return m == LOAD_CLOSED ? "concurrency" : m == LOAD_OPEN ? "rate" : "speed";
}

/* ---- the table ---- */

static void print_dist(FILE *f, const char *name, const load_dist *d) {
    if (!d->n) return;
    fprintf(f, "  %-26s %10.2f %10.2f %10.2f %10.2f %10.2f\n", name, d->mean, d->p50, d->p90,
            d->p99, d->max);
}

static void print_errors(FILE *f, const load_summary *m) {
    if (!m->n_failed) return;
    fprintf(f, "  errors:");
    for (size_t i = 0; i < LOAD_MAX_STATUSES && m->statuses[i].n; i++)
        fprintf(f, " %zu with status %d", m->statuses[i].n, m->statuses[i].http);
    for (int k = FAULT_TIMEOUT; k < FAULT_ABORTED; k++)
        if (m->faults[k]) fprintf(f, " %zu %s", m->faults[k], load_fault_name((load_fault)k));
    fprintf(f, "; the first: %s\n", m->first_error);
}

static void print_memory(FILE *f, const load_level *l) {
    if (!l->before.there || !l->after.there) return;
    char a[32], b[32], c[32], d[32];
    fprintf(
        f, "  memory: %s bytes in the ledger at the start, %s at the end, peak %s; budget %s\n",
        bytes_grouped(l->before.ledger_bytes, a), bytes_grouped(l->after.ledger_bytes, b),
        bytes_grouped(l->after.peak_bytes, c), bytes_grouped(l->after.budget_bytes, d));
}

static void print_level(FILE *f, const load_run *run, const load_level *l,
                        const load_summary *m) {
    const load_spec *s = run->spec;
    fprintf(f, "%s %g%s: %zu requests in %.2f s, %zu ok, %zu failed", load_level_word(s->mode),
            l->value, l->interrupted ? " (interrupted)" : "", m->n_sent, m->wall_s, m->n_ok,
            m->n_failed);
    if (m->faults[FAULT_ABORTED]) fprintf(f, ", %zu aborted", m->faults[FAULT_ABORTED]);
    fprintf(f, "\n  %.2f requests/s, %.1f output tokens/s, %.1f prompt tokens/s\n",
            m->requests_per_s, m->output_tokens_per_s, m->prompt_tokens_per_s);
    if (m->n_short) fprintf(f, "  %zu answers were shorter than asked for\n", m->n_short);
    print_errors(f, m);
    if (m->n_ok)
        fprintf(f, "  %-26s %10s %10s %10s %10s %10s\n", "ms", "mean", "p50", "p90", "p99",
                "max");
    print_dist(f, "TTFT (first token)", &m->ttft);
    print_dist(f, "ITL (between pieces)", &m->itl);
    print_dist(f, "TPOT (per output token)", &m->tpot);
    print_dist(f, "E2E (whole request)", &m->e2e);
    if (s->mode != LOAD_CLOSED) print_dist(f, "start after its time", &m->delay);
    if (s->slo_ttft_ms > 0 || s->slo_itl_ms > 0)
        fprintf(f, "  goodput: %zu of %zu within the objectives, %.2f requests/s\n", m->n_good,
                m->n_sent, m->wall_s > 0 ? (double)m->n_good / m->wall_s : 0);
    print_memory(f, l);
}

void load_report_table(FILE *f, const load_run *run, const load_summary *m) {
    for (size_t i = 0; i < run->n; i++) print_level(f, run, &run->levels[i], &m[i]);
}

/* ---- JSON ---- */

/* Members end with a comma; close() takes the last one back. */
static void open_object(buf *b, const char *key) {
    buf_addf(b, "\"%s\":{", key);
}
static void close_with(buf *b, const char *end) {
    if (b->len && b->ptr[b->len - 1] == ',') b->len--;
    buf_add(b, str_of(end));
}
static void add_count(buf *b, const char *key, uint64_t n) {
    buf_addf(b, "\"%s\":%llu,", key, (unsigned long long)n);
}
static void add_real(buf *b, const char *key, double v) {
    buf_addf(b, "\"%s\":%.6g,", key, v);
}
static void add_text(buf *b, const char *key, const char *text) {
    buf_addf(b, "\"%s\":", key);
    json_str_lossy(b, str_of(text));
    buf_addc(b, ',');
}
static void add_flag(buf *b, const char *key, bool v) {
    buf_addf(b, "\"%s\":%s,", key, v ? "true" : "false");
}

static void add_dist(buf *b, const char *key, const load_dist *d) {
    open_object(b, key);
    add_count(b, "n", d->n);
    add_real(b, "mean", d->mean);
    add_real(b, "p50", d->p50);
    add_real(b, "p90", d->p90);
    add_real(b, "p99", d->p99);
    add_real(b, "max", d->max);
    close_with(b, "},");
}

static void add_errors(buf *b, const load_summary *m) {
    open_object(b, "errors");
    open_object(b, "status");
    for (size_t i = 0; i < LOAD_MAX_STATUSES && m->statuses[i].n; i++)
        buf_addf(b, "\"%d\":%zu,", m->statuses[i].http, m->statuses[i].n);
    close_with(b, "},");
    for (int k = FAULT_TIMEOUT; k < FAULT_ABORTED; k++)
        add_count(b, load_fault_name((load_fault)k), m->faults[k]);
    add_text(b, "first", m->first_error);
    close_with(b, "},");
}

static void add_memory_at(buf *b, const char *key, const load_memory *m) {
    open_object(b, key);
    add_count(b, "budget_bytes", m->budget_bytes);
    add_count(b, "ledger_bytes", m->ledger_bytes);
    add_count(b, "peak_bytes", m->peak_bytes);
    add_count(b, "anonymous_bytes", m->anonymous_bytes);
    add_count(b, "kv_bytes", m->kv_bytes);
    buf_addf(b, "\"unaccounted_bytes\":%lld},", (long long)m->unaccounted_bytes);
}

static void add_level(buf *b, const load_spec *s, const load_level *l, const load_summary *m) {
    buf_addc(b, '{');
    add_real(b, load_level_word(s->mode), l->value);
    add_flag(b, "interrupted", l->interrupted);
    add_real(b, "wall_s", m->wall_s);
    open_object(b, "requests");
    add_count(b, "sent", m->n_sent);
    add_count(b, "ok", m->n_ok);
    add_count(b, "failed", m->n_failed);
    add_count(b, "aborted", m->faults[FAULT_ABORTED]);
    add_count(b, "short", m->n_short);
    close_with(b, "},");
    add_errors(b, m);
    open_object(b, "tokens");
    add_count(b, "prompt", m->prompt_tokens);
    add_count(b, "cached", m->cached_tokens);
    add_count(b, "output", m->output_tokens);
    close_with(b, "},");
    add_real(b, "requests_per_s", m->requests_per_s);
    add_real(b, "output_tokens_per_s", m->output_tokens_per_s);
    add_real(b, "prompt_tokens_per_s", m->prompt_tokens_per_s);
    add_dist(b, "ttft_ms", &m->ttft);
    add_dist(b, "itl_ms", &m->itl);
    add_dist(b, "tpot_ms", &m->tpot);
    add_dist(b, "e2e_ms", &m->e2e);
    add_dist(b, "start_delay_ms", &m->delay);
    if (s->slo_ttft_ms > 0 || s->slo_itl_ms > 0) {
        open_object(b, "goodput");
        add_count(b, "requests", m->n_good);
        add_real(b, "requests_per_s", m->wall_s > 0 ? (double)m->n_good / m->wall_s : 0);
        close_with(b, "},");
    }
    if (l->before.there && l->after.there) {
        open_object(b, "memory");
        add_memory_at(b, "start", &l->before);
        add_memory_at(b, "end", &l->after);
        close_with(b, "},");
    }
    close_with(b, "},");
}

static void add_config(buf *b, const load_run *run) {
    static const char *const modes[] = {"closed", "open", "trace"};
    const load_spec *s = run->spec;
    open_object(b, "config");
    add_text(b, "url", s->url);
    add_text(b, "model", s->model);
    add_text(b, "endpoint", s->chat ? "chat" : "completions");
    add_text(b, "prompts", run->vocab.ids.n ? "ids" : "text");
    add_text(b, "mode", modes[s->mode]);
    if (s->mode == LOAD_OPEN) add_text(b, "arrivals", s->constant ? "constant" : "poisson");
    add_count(b, "requests", s->requests);
    add_real(b, "duration_s", s->duration_s);
    add_count(b, "warmup", s->warmup);
    if (s->mode != LOAD_TRACE || s->cap_prompt) add_count(b, "prompt_tokens", s->prompt_tokens);
    if (s->mode != LOAD_TRACE) add_count(b, "prompt_stddev", s->prompt_stddev);
    if (s->mode != LOAD_TRACE || s->cap_output) add_count(b, "output_tokens", s->output_tokens);
    add_real(b, "prefix_share", s->prefix_share);
    add_flag(b, "ignore_eos", !s->keep_eos);
    add_count(b, "seed", s->seed);
    add_real(b, "timeout_s", s->timeout_s);
    add_real(b, "slo_ttft_ms", s->slo_ttft_ms);
    add_real(b, "slo_itl_ms", s->slo_itl_ms);
    close_with(b, "},");
}

void load_report_json(buf *b, const load_run *run, const load_summary *m, const char *started) {
    buf_addc(b, '{');
    add_text(b, "tool", "vramd bench");
    add_text(b, "version", VRAMD_VERSION);
    add_count(b, "schema", 1);
    add_text(b, "started", started);
    add_flag(b, "interrupted", run->interrupted);
    add_config(b, run);
    buf_add(b, STR("\"levels\":["));
    for (size_t i = 0; i < run->n; i++) add_level(b, run->spec, &run->levels[i], &m[i]);
    close_with(b, "]}\n");
}
