/* The table and the JSON of an evaluation. */
#include "daemon/eval/eval_report.h"

#include <math.h>
#include <stdio.h>

#include "json/out.h"

uint64_t eval_kv_token_bytes(const machine *m) {
    return m->plan.kv_bytes_per_token;
}

/* ---- the table ---- */

static void print_figure(const char *name, eval_figure f, double times, int digits,
                         const char *unit) {
    printf("%-22s %.*f", name, digits, times * f.value);
    if (!isnan(f.se)) printf(" +- %.*f", digits, times * f.se);
    printf("%s\n", unit);
}

/* Six decimals are for a KL of 0.0002; one that is less than they show has an exponent. */
static void print_kl(const eval_summary *s) {
    print_figure("KL(reference || this)", s->kl, 1, 6, " nats a token");
    printf("%-22s median %.6f, p99 %.6f, max %.6f\n", "", s->kl_p50, s->kl_p99, s->kl_max);
}

static void print_text(const eval_text *t) {
    char a[32], b[32];
    printf("%-22s %s tokens in %u window%s of %u%s, %s predicted\n", "text",
           bytes_grouped(t->n_tokens, a), t->n_windows, t->n_windows == 1 ? "" : "s",
           t->context, t->bos ? " (each with its BOS)" : "", bytes_grouped(t->n_scored, b));
}

void eval_print_table(const eval_report *r) {
    const engine_options *o = &r->m->engine_opt;
    const eval_summary *s = r->sum;
    char a[32];
    printf("%-22s %s\n", "model", r->m->name);
    printf("%-22s %s: %s\n", "engine", r->engine.name, r->engine.detail);
    printf("%-22s K %s, V %s; %s bytes a token\n", "KV cache", dtype_name(o->kv_k),
           dtype_name(o->kv_v), bytes_grouped(eval_kv_token_bytes(r->m), a));
    print_text(r->job->text);
    printf("%-22s %.1f s, %.0f tokens/s\n", "time", r->seconds,
           (double)r->job->text->n_scored / r->seconds);
    print_figure("perplexity", s->perplexity, 1, 4, "");
    if (r->job->written) printf("%-22s %s\n", "reference written", r->job->written->path);
    if (!r->job->reference) return;
    const eval_header *h = &r->job->reference->header;
    printf("\n%-22s %s\n%-22s %s\n", "reference", h->model, "", h->made_by);
    print_figure("its perplexity", s->reference_perplexity, 1, 4, "");
    print_figure("perplexity, this / its", s->ratio, 1, 6, "");
    print_kl(s);
    print_figure("same likeliest token", s->top1, 100, 3, " %");
}

/* ---- JSON ---- */

static void number(buf *b, double x) {
    if (isfinite(x))
        buf_addf(b, "%.9g", x);
    else
        buf_add(b, STR("null"));
}

static void figure(buf *b, const char *name, eval_figure f) {
    buf_addf(b, ",\"%s\":{\"value\":", name);
    number(b, f.value);
    buf_add(b, STR(",\"se\":"));
    number(b, f.se);
    buf_addc(b, '}');
}

static void hash(buf *b, const char *name, const uint64_t h[2]) {
    buf_addf(b, "\"%s\":\"%016llx%016llx\"", name, (unsigned long long)h[1],
             (unsigned long long)h[0]);
}

static void name(buf *b, const char *key, const char *value) {
    buf_addf(b, "\"%s\":", key);
    json_str_lossy(b, str_of(value));
}

static void reference_json(buf *b, const eval_header *h, const eval_summary *s) {
    buf_add(b, STR(",\"reference\":{"));
    name(b, "model", h->model);
    buf_addc(b, ',');
    name(b, "made_by", h->made_by);
    buf_addc(b, ',');
    hash(b, "weights", h->weights);
    figure(b, "perplexity", s->reference_perplexity);
    buf_addc(b, '}');
    figure(b, "perplexity_ratio", s->ratio);
    figure(b, "kl", s->kl);
    b->len--; /* into the object of kl */
    buf_add(b, STR(",\"p50\":"));
    number(b, s->kl_p50);
    buf_add(b, STR(",\"p99\":"));
    number(b, s->kl_p99);
    buf_add(b, STR(",\"max\":"));
    number(b, s->kl_max);
    buf_addc(b, '}');
    figure(b, "top1", s->top1);
}

void eval_print_json(const eval_report *r, buf *b) {
    const machine *m = r->m;
    const eval_text *t = r->job->text;
    buf_addf(b, "{\"schema\":\"vramd.eval\",\"version\":%d,", EVAL_JSON_VERSION);
    name(b, "model", m->name);
    buf_addf(b, ",\"weight_bytes\":%llu,", (unsigned long long)m->weight_bytes);
    hash(b, "weights", r->job->weights);
    buf_add(b, STR(",\"engine\":{"));
    name(b, "name", r->engine.name);
    buf_addc(b, ',');
    name(b, "detail", r->engine.detail);
    buf_addf(b, "},\"kv\":{\"type_k\":\"%s\",\"type_v\":\"%s\",\"bytes_per_token\":%llu},",
             dtype_name(m->engine_opt.kv_k), dtype_name(m->engine_opt.kv_v),
             (unsigned long long)eval_kv_token_bytes(m));
    buf_addf(b,
             "\"text\":{\"tokens\":%llu,\"predicted\":%llu,\"windows\":%u,\"context\":%u,"
             "\"bos\":%s,",
             (unsigned long long)t->n_tokens, (unsigned long long)t->n_scored, t->n_windows,
             t->context, t->bos ? "true" : "false");
    hash(b, "hash", t->text_hash);
    buf_addc(b, ',');
    hash(b, "token_hash", t->tokens_hash);
    buf_addc(b, '}');
    figure(b, "perplexity", r->sum->perplexity);
    if (r->job->reference) reference_json(b, &r->job->reference->header, r->sum);
    buf_add(b, STR("}\n"));
}
