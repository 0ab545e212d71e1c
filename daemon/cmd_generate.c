/* vramd generate: one prompt, completed on the terminal. The same machine as serve, without
 * HTTP: one sequence, a KV cache for just this text, everything on the main thread. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/args.h"
#include "daemon/commands.h"
#include "daemon/machine.h"

extern char **environ;

typedef struct generate_args {
    const char *prompt;
    uint32_t max_tokens;
    float temperature, top_p, min_p;
    int32_t top_k;
    uint64_t seed;
    bool seeded, verbose;
} generate_args;

typedef struct output {
    detok detok;
    buf text;
    uint32_t n_tokens;
    uint64_t first_us;
    int broken; /* errno of a write that failed */
    bool ended;
    sched_finish finish;
} output;

static volatile sig_atomic_t interrupted;
static void on_interrupt(int number) {
    (void)number;
    interrupted = 1;
}

static void write_out(output *o) {
    for (size_t i = 0; i < o->text.len && !o->broken;) {
        ssize_t n = write(STDOUT_FILENO, o->text.ptr + i, o->text.len - i);
        if (n < 0 && errno != EINTR) o->broken = errno;
        if (n > 0) i += (size_t)n;
    }
    o->text.len = 0;
}

static void on_event(void *arg, const runner_event *e) {
    output *o = arg;
    if (e->event->kind == EVENT_TOKEN) {
        if (o->n_tokens == 0) o->first_us = e->now_us;
        o->n_tokens += e->event->n_tokens;
        for (uint32_t i = 0; i < e->event->n_tokens; i++)
            detok_push(&o->detok, e->token[i].token, &o->text);
        write_out(o);
    }
    if (e->event->kind == EVENT_ENDED) {
        detok_finish(&o->detok, &o->text);
        buf_addc(&o->text, '\n');
        write_out(o);
        o->ended = true;
        o->finish = e->event->finish;
    }
}

/* Takes what options.h does not know; what is left belongs to it. */
static status take_args(generate_args *a, int *argc, char **argv, err *e) {
    const struct {
        const char *flag;
        double low, high, fallback;
    } numbers[] = {{"max-tokens", 1, 1e7, 128}, {"temperature", 0, 100, 0},
                   {"top-p", 1e-6, 1, 1},       {"min-p", 0, 1, 0},
                   {"top-k", 0, 1e7, 0},        {"seed", 0, 0x1p53, -1}};
    enum { N = sizeof numbers / sizeof *numbers };
    double v[N];
    a->verbose = args_take_word(argc, argv, "--verbose");
    for (int i = 0; i < N; i++) {
        char flag[32], *end;
        snprintf(flag, sizeof flag, "--%s", numbers[i].flag);
        const char *word = args_take_value(argc, argv, flag);
        v[i] = word ? strtod(word, &end) : numbers[i].fallback;
        if (!word ||
            (*word && *end == '\0' && v[i] >= numbers[i].low && v[i] <= numbers[i].high))
            continue;
        err_set(e, ERR_INVALID, "%s: \"%.40s\" is no number from %.16g to %.16g", flag, word,
                numbers[i].low, numbers[i].high);
        return err_field(e, "%s", numbers[i].flag);
    }
    a->max_tokens = (uint32_t)v[0];
    a->temperature = (float)v[1];
    a->top_p = (float)v[2];
    a->min_p = (float)v[3];
    a->top_k = (int32_t)v[4];
    a->seeded = v[5] >= 0;
    a->seed = a->seeded ? (uint64_t)v[5] : 0;
    return OK;
}

static status run_prompt(machine *m, const generate_args *a, uint64_t t0, err *e) {
    output o = {0};
    vec_i32 ids;
    runner_job job = {.n_score = -1};
    sched_id id;
    status s;
    vec_i32_init(&ids, NULL);
    buf_init(&o.text, NULL);
    s = tokenizer_encode(m->tok, str_of(a->prompt), TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, &ids,
                         e);
    if (s == OK && ids.n == 0) {
        err_set(e, ERR_INVALID, "the prompt is empty");
        s = err_hint(e, "give some text");
    }
    if (s != OK) goto done;
    sampling_defaults(&job.sampling);
    job.sampling.temperature = a->temperature;
    job.sampling.top_p = a->top_p;
    job.sampling.min_p = a->min_p;
    job.sampling.top_k = a->top_k;
    job.sampling.seed = a->seeded ? a->seed : clock_us();
    sched_spec q = {.prompt = ids.v,
                    .n_prompt = (uint32_t)ids.n,
                    .max_tokens = a->max_tokens,
                    .user = (uintptr_t)&job};
    uint32_t room = m->opt.max_model_len > ids.n ? m->opt.max_model_len - (uint32_t)ids.n : 0;
    if (q.max_tokens > room) q.max_tokens = room;
    detok_init(&o.detok, m->tok, false);
    runner *r = runner_init(m->runner_mem, &m->sched_conf, m->model->program.config.n_vocab,
                            m->sched, m->engine, on_event, &o);
    if (room == 0 || sched_submit(m->sched, &q, clock_us(), &id) != REJECT_NONE) {
        s = err_set(e, ERR_TOO_LONG, "the prompt has %zu tokens, the context length is %u",
                    ids.n, m->opt.max_model_len);
        goto done;
    }
    uint64_t t1 = clock_us();
    while (!o.ended) {
        if (interrupted || o.broken) sched_cancel(m->sched, id, FINISH_CANCELLED);
        if (!runner_step(r)) runner_deliver(r);
    }
    if (o.finish == FINISH_ERROR) s = (*e = *runner_last_error(r)).code;
    if (o.broken && o.broken != EPIPE) /* "| head" has seen enough */
        s = err_set(e, ERR_IO, "writing stdout: %s", strerror(o.broken));
    if (a->verbose)
        fprintf(
            stderr,
            "prompt %zu tokens, output %u; start %.3f s, first token %.3f s after start of the "
            "process, %.1f tokens/s\n",
            ids.n, o.n_tokens, (double)(t1 - t0) / 1e6, (double)(o.first_us - t0) / 1e6,
            o.n_tokens > 1 ? (o.n_tokens - 1) * 1e6 / (double)(clock_us() - o.first_us) : 0.0);
done:
    vec_i32_clear(&ids);
    buf_clear(&o.text);
    return s;
}

static const char *const shared =
    "model max_model_len memory kv_cache_dtype cache_type_k cache_type_v block_size "
    "max_num_batched_tokens host_memory backend "
    "cuda_device cuda_plugin batch_invariant threads "
    "cpu_isa activation_dtype log_level";

static void print_help(void) {
    puts("usage: vramd generate --model FILE [OPTIONS] PROMPT\n\n"
         "The text alone goes to stdout, as it is made. Options:\n"
         "  --max-tokens N     generate at most N tokens (128)\n"
         "  --temperature T    0: greedy (0)\n"
         "  --top-k K, --top-p P, --min-p P\n"
         "  --seed N           same seed, same text\n"
         "  --verbose          times on stderr\n");
    options_print_help(stdout, shared);
}

int cmd_generate(int argc, char **argv) {
    uint64_t t0 = clock_us();
    generate_args a = {0};
    options opt;
    machine m = {0};
    err e;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0) return print_help(), 0;
    options_defaults(&opt);
    options_set_default(&opt, "log_level", "warn");
    status s = take_args(&a, &argc, argv, &e);
    if (s == OK) s = options_load(&opt, &argc, argv, environ, shared, &e);
    if (s == OK && argc != 2) {
        err_set(&e, ERR_INVALID,
                argc < 2 ? "no prompt is given" : "more than one prompt is given");
        s = err_hint(&e, "vramd generate --model FILE \"Once upon a time\"");
    }
    if (s != OK) return command_failed("generate", &e);
    log_init(options_log_level(&opt));
    signal(SIGINT, on_interrupt);
    signal(SIGPIPE, SIG_IGN);
    a.prompt = argv[1];
    opt.max_num_seqs = 1;
    opt.max_waiting = 1;
    /* A token is at least a byte of the prompt, give or take a BOS and special tokens. */
    machine_wish w = {.at_most_len = (uint32_t)strlen(a.prompt) + 8 + a.max_tokens};
    s = machine_plan(&m, &opt, &w, &e);
    if (s == OK && !m.file) s = err_set(&e, ERR_INVALID, "%s is not a GGUF file", opt.model);
    if (s == OK) s = machine_reserve(&m, &e);
    if (s == OK) s = machine_load(&m, &e);
    if (s == OK) s = run_prompt(&m, &a, t0, &e);
    machine_close(&m);
    return s == OK ? 0 : command_failed("generate", &e);
}
