/* vramd top: what a running server holds, once a second, by GET /v1/memory and /metrics. Reads
 * the options and asks; top_read.c understands, top_draw.c shows. Main thread. */
#include "daemon/commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/args.h"
#include "daemon/server_url.h"
#include "daemon/top/top_draw.h"
#include "daemon/top/top_terminal.h"
#include "load/client.h"

enum { ANSWER_TIMEOUT_S = 5 };

static const char usage[] =
    "usage: vramd top [URL] [OPTIONS]\n"
    "Watches a running vramd: memory by class against the plan, blocks of the KV cache by "
    "group,\n"
    "sequences, rates. q ends it. Where stdout is no terminal, frames follow one another as "
    "text.\n"
    "  URL                     http://127.0.0.1:8000; unix:/path is a Unix socket\n"
    "  --api-key-file FILE     sent as a bearer token\n"
    "  --interval S            seconds between two samples, 0.1 to 3600 (1)\n"
    "  --once                  one frame, with the rates of one interval, then end\n"
    "  --json                  a line of JSON for each sample instead\n";

typedef struct top {
    server_url at;
    const char *url, *key_file;
    char key[1024];
    double interval_s;
    bool once, json, terminal;
    load_client *client;
    top_sample sample[2]; /* the newest is [now] */
    int now;
    bool has_rates;
    top_rates rates;
    buf memory;    /* the answer of /v1/memory as it came */
    char why[720]; /* why there is no newer sample; "" */
} top;

static status bad_option(err *e, const char *text, const char *word) {
    err_set(e, ERR_INVALID, "%s %.80s", text, word);
    return err_hint(e, "vramd top --help");
}

static status parse(top *t, int argc, char **argv, err *e) {
    const char *interval = args_take_value(&argc, argv, "--interval");
    char *end = NULL;
    t->key_file = args_take_value(&argc, argv, "--api-key-file");
    t->once = args_take_word(&argc, argv, "--once");
    t->json = args_take_word(&argc, argv, "--json");
    t->interval_s = interval ? strtod(interval, &end) : 1;
    if (interval &&
        (end == interval || *end || !(t->interval_s >= 0.1) || t->interval_s > 3600))
        return bad_option(e, "--interval is a number of seconds from 0.1 to 3600, not",
                          interval);
    if (t->key_file && !*t->key_file) return bad_option(e, "--api-key-file", "needs a value");
    if (argc > 1 && argv[1][0] == '-') return bad_option(e, "there is no option", argv[1]);
    if (argc > 2) return bad_option(e, "one URL, not also", argv[2]);
    t->url = argc > 1 ? argv[1] : "http://127.0.0.1:8000";
    status s = server_url_read(&t->at, "URL", t->url, e);
    if (s == OK && t->key_file) s = server_key_read(t->key_file, t->key, sizeof t->key, e);
    return s;
}

/* ---- one sample ---- */

static status get(top *t, const char *path, buf *out, err *e) {
    int http = 0;
    out->len = 0;
    status s = load_client_ask(t->client, path, NULL, &http, out, e);
    if (s != OK || http == 200) return s;
    if (http == 401 || http == 403) {
        err_set(e, ERR_INVALID, "the server refuses the API key (status %d)", http);
        return err_hint(e, "--api-key-file FILE with a key that it takes");
    }
    err_set(e, ERR_UNAVAILABLE, "%s answers with status %d", path, http);
    return err_hint(e, "is a vramd serving at %s?", t->url);
}

static status take_sample(top *t, err *e) {
    arena mem;
    buf text;
    top_sample *s = &t->sample[!t->now];
    arena_init(&mem, chunks_heap(), 0);
    buf_init(&text, NULL);
    status st = get(t, "/v1/memory", &t->memory, e);
    if (st == OK) st = top_read_memory(s, &mem, buf_str(&t->memory), e);
    if (st == OK) st = get(t, "/metrics", &text, e);
    if (st == OK) {
        s->at_us = clock_us();
        top_read_metrics(s, buf_str(&text));
        t->has_rates = t->sample[t->now].at_us > 0;
        if (t->has_rates) t->rates = top_rates_between(&t->sample[t->now], s);
        t->now = !t->now;
    }
    buf_clear(&text);
    arena_clear(&mem);
    return st;
}

/* ---- showing it ---- */

static void write_json(top *t, buf *b) {
    char at[32];
    time_t now = time(NULL);
    struct tm tm;
    const top_rates *r = &t->rates;
    strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    buf_addf(b, "{\"at\":\"%s\",\"rates\":", at);
    if (t->has_rates) {
        buf_addf(
            b,
            "{\"seconds\":%.3f,\"generated_tokens_per_s\":%.3f,\"prompt_tokens_per_s\":%.3f,"
            "\"requests_per_s\":%.3f,\"steps_per_s\":%.3f,\"evictions_per_s\":%.3f,"
            "\"preemptions_per_s\":%.3f,\"recomputed_tokens_per_s\":%.3f,\"hit_share\":",
            r->seconds, r->generated, r->prompt, r->finished, r->steps, r->evictions,
            r->preemptions, r->recomputed);
        if (r->hit_share >= 0)
            buf_addf(b, "%.4f}", r->hit_share);
        else
            buf_add(b, STR("null}"));
    } else {
        buf_add(b, STR("null"));
    }
    buf_add(b, STR(",\"memory\":"));
    buf_add(b, buf_str(&t->memory)); /* it was parsed: one document of JSON */
    buf_add(b, STR("}\n"));
}

static status show(top *t, err *e) {
    buf b;
    buf_init(&b, NULL);
    top_view v = {.url = t->url,
                  .problem = t->why[0] ? t->why : NULL,
                  .now = &t->sample[t->now],
                  .rates = t->has_rates ? &t->rates : NULL,
                  .columns = 120,
                  .terminal = t->terminal};
    if (t->terminal) {
        top_terminal_size(&v.columns, &v.lines);
        buf_add(&b, STR("\033[H"));
    }
    if (t->json)
        write_json(t, &b);
    else
        top_draw(&b, &v);
    if (t->terminal)
        buf_add(&b, STR("\033[J"));
    else if (!t->json && !t->once)
        buf_addc(&b, '\n');
    status s = b.failed ? err_set(e, ERR_NO_MEMORY, "no memory for a frame") : OK;
    if (s == OK && (fwrite(b.ptr, 1, b.len, stdout) != b.len || fflush(stdout) != 0))
        s = err_set(e, ERR_IO, "writing stdout: %s", strerror(errno));
    buf_clear(&b);
    return s;
}

/* A server that was there once may come back. */
static void note_problem(top *t, const err *problem) {
    const double age = (double)(clock_us() - t->sample[t->now].at_us) / 1e6;
    snprintf(t->why, sizeof t->why, "as of %.0f s ago: %s", age, problem->text);
}

static void sleep_until(uint64_t due_us) {
    const struct timespec t = {.tv_sec = (time_t)(due_us / 1000000),
                               .tv_nsec = (long)(due_us % 1000000) * 1000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/* Until the next sample is due; false: to end. A resize draws what there is again. */
static bool pause_until(top *t, uint64_t due_us, err *e) {
    while (clock_us() < due_us) {
        if (!t->terminal) {
            sleep_until(due_us);
            continue;
        }
        const int key = top_terminal_wait(due_us);
        if (key == 'q' || key == 'Q') return false;
        if (clock_us() < due_us && show(t, e) != OK) return false;
    }
    return true;
}

static status watch(top *t, err *e) {
    const uint64_t interval_us = (uint64_t)(t->interval_s * 1e6);
    err problem;
    status s = take_sample(t, e);
    if (s != OK) return s;
    e->code = OK;
    if (!t->once && !t->json) t->terminal = top_terminal_open();
    for (uint64_t due_us = clock_us();; due_us += interval_us) {
        if (!t->once) s = show(t, e);
        if (s != OK || !pause_until(t, due_us + interval_us, e)) break;
        s = take_sample(t, &problem);
        t->why[0] = '\0';
        if (s != OK && (t->once || !t->terminal)) return *e = problem, s;
        if (s != OK) note_problem(t, &problem);
        s = OK;
        if (t->once) return show(t, e);
        if (clock_us() > due_us + 2 * interval_us) due_us = clock_us(); /* it was stopped */
    }
    top_terminal_close();
    return e->code;
}

int cmd_top(int argc, char **argv) {
    top *t = calloc(1, sizeof *t);
    err e = {0};
    if (args_take_word(&argc, argv, "--help")) return free(t), fputs(usage, stdout), 0;
    status s = t ? parse(t, argc, argv, &e) : err_set(&e, ERR_NO_MEMORY, "no memory");
    load_spec spec = {.timeout_s = ANSWER_TIMEOUT_S};
    if (s == OK) {
        buf_init(&t->memory, NULL);
        spec.url = t->at.url;
        spec.socket = t->at.socket[0] ? t->at.socket : NULL;
        spec.key = t->key_file ? t->key : NULL;
        s = load_client_open(&t->client, &spec, &e);
        if (s == OK) s = watch(t, &e);
        load_client_close(t->client);
        buf_clear(&t->memory);
    }
    free(t);
    return s == OK ? 0 : command_failed("top", &e);
}
