/* vramd bench: load on an OpenAI-compatible server, measured. Reads the options and writes the
 * reports; load/ does the rest. Main thread. */
#include "daemon/commands.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "daemon/output.h"
#include "daemon/server_url.h"
#include "load/plot.h"
#include "load/report.h"

static const char usage[] =
    "usage: vramd bench [--url URL] [OPTIONS]\n"
    "Load on any OpenAI-compatible server; prints a table of latencies and rates.\n"
    "server:\n"
    "  --url URL               http://127.0.0.1:8000; unix:/path is a Unix socket\n"
    "  --model NAME            the first that /v1/models names\n"
    "  --api-key-file FILE     sent as a bearer token\n"
    "  --endpoint NAME         completions or chat (completions)\n"
    "  --timeout S             for one request (300)\n"
    "load, one of:\n"
    "  --concurrency N[,N...]  N requests in flight, the next starts when one ends (1)\n"
    "  --rate R[,R...]         R requests a second, whatever the server does\n"
    "  --poisson, --constant   gaps between arrivals: exponential (default) or equal\n"
    "  --trace FILE            at the times and with the lengths of an Azure CSV or Mooncake\n"
    "                          JSON-lines trace\n"
    "  --speed X[,X...]        of the trace (1)\n"
    "  --limit ROWS            of the trace (all)\n"
    "of each level:\n"
    "  --requests N            100; with a trace, all\n"
    "  --duration S            start requests for S seconds; those in flight then end\n"
    "  --warmup N              requests before, not measured (0)\n"
    "requests:\n"
    "  --prompt-tokens N[:SD]  128; SD: standard deviation. With a trace: the longest allowed\n"
    "  --output-tokens N       64. With a trace: the most allowed\n"
    "  --prefix-share F        of each prompt, the same in all (0)\n"
    "  --prompts KIND          ids or text; auto: ids where /tokenize returns them\n"
    "  --no-ignore-eos         answers may end early\n"
    "  --seed N                of prompts and arrivals; another each time otherwise\n"
    "results:\n"
    "  --slo-ttft MS, --slo-itl MS  objectives: counts the requests that meet them\n"
    "  --json FILE, --svg FILE      the figures, a picture\n"
    "  --quiet                      no progress, no table\n";

typedef struct bench_options {
    load_spec spec;
    const char *url, *key_file, *trace, *json, *svg;
    uint64_t limit;
    bool poisson, constant, quiet, help, seed_given, requests_given;
} bench_options;

static status bad_value(err *e, const char *flag, const char *value, const char *want) {
    err_set(e, ERR_INVALID, "%s %.80s is not %s", flag, value, want);
    err_field(e, "%s", flag);
    return err_hint(e, "vramd bench --help");
}

static status read_real(const char *flag, const char *v, double lo, double hi, double *out,
                        err *e) {
    char *end, want[80];
    double x = strtod(v, &end);
    snprintf(want, sizeof want, "a number from %g to %g", lo, hi);
    if (end == v || *end || !(x >= lo && x <= hi)) return bad_value(e, flag, v, want);
    *out = x;
    return OK;
}

static status read_count(const char *flag, const char *v, uint64_t lo, uint64_t hi,
                         uint64_t *out, err *e) {
    char *end, want[80];
    errno = 0;
    unsigned long long n = strtoull(v, &end, 10);
    snprintf(want, sizeof want, "a whole number from %llu to %llu", (unsigned long long)lo,
             (unsigned long long)hi);
    if (v[0] < '0' || v[0] > '9' || *end || errno || n < lo || n > hi)
        return bad_value(e, flag, v, want);
    *out = n;
    return OK;
}

static status read_tokens(const char *flag, const char *v, uint32_t *out, err *e) {
    uint64_t n = 0;
    status s = read_count(flag, v, 1, LOAD_MAX_TOKENS, &n, e);
    if (s == OK) *out = (uint32_t)n;
    return s;
}

/* "128" or "128:32" */
static status read_lengths(const char *flag, const char *v, load_spec *s, err *e) {
    char word[64];
    uint64_t sd = 0;
    snprintf(word, sizeof word, "%s", v);
    char *colon = strchr(word, ':');
    if (colon) *colon = 0;
    status st = read_tokens(flag, word, &s->prompt_tokens, e);
    if (st == OK && colon) st = read_count(flag, colon + 1, 0, LOAD_MAX_TOKENS, &sd, e);
    s->prompt_stddev = (uint32_t)sd;
    s->cap_prompt = true;
    return st;
}

/* The levels of a mode, "1,8,32"; two modes at once are refused. */
static status read_levels(const char *flag, const char *v, load_mode mode, load_spec *s,
                          err *e) {
    char words[512];
    double hi = mode == LOAD_CLOSED ? LOAD_MAX_OPEN : mode == LOAD_OPEN ? LOAD_MAX_RATE : 1e6;
    if (strlen(v) >= sizeof words) return bad_value(e, flag, v, "a list of numbers");
    if (s->n_levels) {
        err_set(e, ERR_INVALID, "%s beside another kind of load", flag);
        return err_hint(e, "one of --concurrency, --rate and --trace (with --speed)");
    }
    s->mode = mode;
    strcpy(words, v);
    char *save, *w = strtok_r(words, ",", &save);
    if (!w) return bad_value(e, flag, v, "a number");
    for (; w; w = strtok_r(NULL, ",", &save)) {
        double x;
        if (s->n_levels == LOAD_MAX_LEVELS) return bad_value(e, flag, v, "at most 32 levels");
        status st = read_real(flag, w, mode == LOAD_CLOSED ? 1 : 1e-3, hi, &x, e);
        if (st != OK) return st;
        if (mode == LOAD_CLOSED && x != floor(x))
            return bad_value(e, flag, w, "a whole number");
        s->levels[s->n_levels++] = x;
    }
    return OK;
}

static status read_choice(const char *flag, const char *v, const char *const *names, int *out,
                          err *e) {
    char want[80] = "one of";
    for (int i = 0; names[i]; i++) {
        if (!strcmp(v, names[i])) return *out = i, OK;
        size_t n = strlen(want);
        snprintf(want + n, sizeof want - n, " %s", names[i]);
    }
    return bad_value(e, flag, v, want);
}

/* What is sent and how it is measured. *known is false when flag is none of these. */
static status read_request_flag(bench_options *o, const char *f, const char *v, bool *known,
                                err *e) {
    static const char *const kinds[] = {"auto", "ids", "text", NULL};
    load_spec *s = &o->spec;
    int choice = 0;
    if (!strcmp(f, "--prompt-tokens")) return read_lengths(f, v, s, e);
    if (!strcmp(f, "--output-tokens")) {
        s->cap_output = true;
        return read_tokens(f, v, &s->output_tokens, e);
    }
    if (!strcmp(f, "--prefix-share")) return read_real(f, v, 0, 1, &s->prefix_share, e);
    if (!strcmp(f, "--prompts")) {
        status st = read_choice(f, v, kinds, &choice, e);
        s->prompts = (load_prompts)choice;
        return st;
    }
    if (!strcmp(f, "--seed")) {
        o->seed_given = true;
        return read_count(f, v, 0, INT64_MAX, &s->seed, e);
    }
    if (!strcmp(f, "--timeout"))
        return read_real(f, v, 0.001, LOAD_MAX_SECONDS, &s->timeout_s, e);
    if (!strcmp(f, "--slo-ttft")) return read_real(f, v, 0, 1e9, &s->slo_ttft_ms, e);
    if (!strcmp(f, "--slo-itl")) return read_real(f, v, 0, 1e9, &s->slo_itl_ms, e);
    *known = false;
    return OK;
}

/* The server, the load, the reports. */
static status read_flag(bench_options *o, const char *f, const char *v, bool *known, err *e) {
    static const char *const endpoints[] = {"completions", "chat", NULL};
    load_spec *s = &o->spec;
    int choice = 0;
    const struct {
        const char *flag, **to;
    } words[] = {
        {"--url", &o->url},     {"--model", &s->model}, {"--api-key-file", &o->key_file},
        {"--trace", &o->trace}, {"--json", &o->json},   {"--svg", &o->svg}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(f, words[i].flag)) return *words[i].to = v, OK;
    if (!strcmp(f, "--endpoint")) {
        status st = read_choice(f, v, endpoints, &choice, e);
        s->chat = choice == 1;
        return st;
    }
    if (!strcmp(f, "--concurrency")) return read_levels(f, v, LOAD_CLOSED, s, e);
    if (!strcmp(f, "--rate")) return read_levels(f, v, LOAD_OPEN, s, e);
    if (!strcmp(f, "--speed")) return read_levels(f, v, LOAD_TRACE, s, e);
    if (!strcmp(f, "--limit")) return read_count(f, v, 1, TRACE_MAX_ROWS, &o->limit, e);
    if (!strcmp(f, "--requests")) {
        o->requests_given = true;
        return read_count(f, v, 1, LOAD_MAX_REQUESTS, &s->requests, e);
    }
    if (!strcmp(f, "--duration"))
        return read_real(f, v, 0.1, LOAD_MAX_SECONDS, &s->duration_s, e);
    if (!strcmp(f, "--warmup")) return read_count(f, v, 0, LOAD_MAX_REQUESTS, &s->warmup, e);
    return read_request_flag(o, f, v, known, e);
}

static bool read_word(bench_options *o, const char *a) {
    const struct {
        const char *word;
        bool *to;
    } words[] = {{"--poisson", &o->poisson}, {"--constant", &o->constant},
                 {"--quiet", &o->quiet},     {"--no-ignore-eos", &o->spec.keep_eos},
                 {"--help", &o->help},       {"-h", &o->help}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(a, words[i].word)) return *words[i].to = true;
    return false;
}

/* What the options make together. */
static status settle(bench_options *o, err *e) {
    load_spec *s = &o->spec;
    if (o->trace && !s->n_levels) {
        s->mode = LOAD_TRACE;
        s->levels[s->n_levels++] = 1;
    }
    if (!s->n_levels) s->levels[s->n_levels++] = 1;
    if ((o->trace != NULL) != (s->mode == LOAD_TRACE)) {
        err_set(e, ERR_INVALID,
                o->trace ? "--trace beside another kind of load" : "--speed without a trace");
        return err_hint(e, "one of --concurrency, --rate and --trace (with --speed)");
    }
    if ((o->poisson || o->constant) && (s->mode != LOAD_OPEN || o->poisson == o->constant)) {
        err_set(e, ERR_INVALID, "--poisson and --constant apply to --rate only");
        return err_hint(e, "--rate R --poisson, or --rate R --constant");
    }
    s->constant = o->constant;
    if (!o->requests_given && s->duration_s <= 0 && s->mode != LOAD_TRACE) s->requests = 100;
    if (!o->seed_given && getrandom(&s->seed, sizeof s->seed, 0) == sizeof s->seed)
        s->seed >>= 12; /* a number that JSON readers keep */
    return OK;
}

static status parse_options(bench_options *o, int argc, char **argv, err *e) {
    *o = (bench_options){.url = "http://127.0.0.1:8000"};
    o->spec.prompt_tokens = 128;
    o->spec.output_tokens = 64;
    o->spec.timeout_s = 300;
    for (int i = 1; i < argc; i++) {
        char flag[40];
        bool known = true;
        if (read_word(o, argv[i])) continue;
        size_t n = strcspn(argv[i], "=");
        const char *v = argv[i][n] ? argv[i] + n + 1 : i + 1 < argc ? argv[i + 1] : NULL;
        snprintf(flag, sizeof flag, "%.*s", (int)(n < 39 ? n : 39), argv[i]);
        status s =
            v ? read_flag(o, flag, v, &known, e) : read_flag(o, flag, "(nothing)", &known, e);
        if (!known || (s == OK && !v)) {
            err_set(e, ERR_INVALID, known ? "%s needs a value" : "there is no option %s", flag);
            return err_hint(e, "vramd bench --help lists them");
        }
        if (s != OK) return s;
        i += !argv[i][n];
    }
    return o->help ? OK : settle(o, e);
}

static status write_reports(const bench_options *o, const load_run *run, const load_summary *m,
                            const char *started, err *e) {
    buf b;
    buf_init(&b, NULL);
    if (!o->quiet) load_report_table(stdout, run, m);
    status s =
        fflush(stdout) == 0 ? OK : err_set(e, ERR_IO, "writing stdout: %s", strerror(errno));
    if (s == OK && o->json) {
        load_report_json(&b, run, m, started);
        s = output_write(o->json, &b, e);
    }
    b.len = 0;
    if (s == OK && o->svg) s = load_plot(&b, run, m, e);
    if (s == OK && o->svg) s = output_write(o->svg, &b, e);
    buf_clear(&b);
    return s;
}

static status report(const bench_options *o, const load_run *run, const char *started,
                     size_t *n_ok, size_t *n_failed, err *e) {
    load_summary *m = calloc(run->n + 1, sizeof *m);
    status s = m ? OK : err_set(e, ERR_NO_MEMORY, "no memory for the figures");
    for (size_t i = 0; s == OK && i < run->n; i++) {
        s = load_summarise(&m[i], &run->levels[i], run->spec, e);
        *n_ok += m[i].n_ok;
        *n_failed += m[i].n_failed;
    }
    if (s == OK) s = write_reports(o, run, m, started, e);
    free(m);
    return s;
}

/* Exit codes: 0, 1 when every request failed, 130 when interrupted. */
static status run(bench_options *o, int *exit_code, err *e) {
    char key[1024], started[32];
    server_url at;
    char *model = NULL;
    load_client *c = NULL;
    load_run r = {.spec = &o->spec, .quiet = o->quiet};
    size_t n_ok = 0, n_failed = 0;
    time_t now = time(NULL);
    struct tm tm;
    strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    vec_i32_init(&r.vocab.ids, NULL);
    status s = server_url_read(&at, "--url", o->url, e);
    o->spec.url = at.url;
    o->spec.socket = at.socket[0] ? at.socket : NULL;
    if (s == OK && o->key_file) s = server_key_read(o->key_file, key, sizeof key, e);
    if (o->key_file) o->spec.key = key;
    if (s == OK) s = output_check(o->json, e);
    if (s == OK) s = output_check(o->svg, e);
    if (s == OK && o->trace) s = load_trace_read(&o->spec.trace, o->trace, o->limit, e);
    if (s == OK) s = load_client_open(&c, &o->spec, e);
    if (s == OK) s = load_probe_model(c, o->spec.model, &model, e);
    if (model) o->spec.model = model;
    if (s == OK) s = load_probe_vocab(c, &o->spec, &r.vocab, e);
    if (s == OK) s = load_run_all(&r, c, e);
    if (s == OK) s = report(o, &r, started, &n_ok, &n_failed, e);
    *exit_code = r.interrupted ? 130 : n_failed && !n_ok ? 1 : 0;
    load_run_clear(&r);
    load_client_close(c);
    load_trace_clear(&o->spec.trace);
    free(model);
    return s;
}

int cmd_bench(int argc, char **argv) {
    bench_options o;
    err e;
    int exit_code = 0;
    if (parse_options(&o, argc, argv, &e) != OK) return command_failed("bench", &e);
    if (o.help) return fputs(usage, stdout), 0;
    if (run(&o, &exit_code, &e) != OK) return command_failed("bench", &e);
    return exit_code;
}
