/* vramd generate: one prompt, answered on the terminal by the model's chat template, or completed
 * as it stands. The same machine as serve, without
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
    buf prompt;
    uint32_t max_tokens;
    uint64_t seed;
    bool seeded, verbose, raw;
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
    } numbers[] = {{"max-tokens", 1, 1e7, 128}, {"seed", 0, 0x1p53, -1}};
    enum { N = sizeof numbers / sizeof *numbers };
    double v[N];
    a->verbose = args_take_word(argc, argv, "--verbose");
    a->raw = args_take_word(argc, argv, "--raw");
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
    a->seeded = v[1] >= 0;
    a->seed = a->seeded ? (uint64_t)v[1] : 0;
    return OK;
}

/* The prompt is the one word that is left, or stdin when that is "-" or there is none and stdin
 * is no terminal. */
static status take_prompt(generate_args *a, int argc, char **argv, err *e) {
    bool piped = argc < 2 ? !isatty(STDIN_FILENO) : strcmp(argv[1], "-") == 0;
    status s = OK;
    if (argc > 2) {
        err_set(e, ERR_INVALID, "more than one prompt is given");
        return err_hint(e, "put the prompt in quotes");
    }
    if (piped) {
        s = command_read_stdin(&a->prompt, e);
        if (a->prompt.len && a->prompt.ptr[a->prompt.len - 1] == '\n') a->prompt.len--;
    } else if (argc == 2) {
        buf_add(&a->prompt, str_of(argv[1]));
    }
    if (s != OK) return s;
    if (a->prompt.failed) return err_set(e, ERR_NO_MEMORY, "no memory for the prompt");
    if (a->prompt.len) return OK;
    err_set(e, ERR_INVALID, argc == 2 && !piped ? "the prompt is empty" : "no prompt is given");
    return err_hint(e,
                    "vramd generate --model FILE \"What is the capital of France?\", or text "
                    "on stdin");
}

/* One message of the user by the model's template. */
static status encode_chat(const machine *m, str prompt, vec_i32 *ids, err *e) {
    const chat_template *t = chat_templates_pick(&m->chat, false);
    template_args args = {.kwargs = m->chat.kwargs, .add_generation_prompt = true};
    time_t now = time(NULL);
    jinja_text text;
    arena mem;
    arena_init(&mem, chunks_heap(), 0);
    localtime_r(&now, &args.now);
    arena *before = json_use_arena(&mem);
    args.messages =
        json_pack("[{s:s, s:s%}]", "role", "user", "content", prompt.ptr, prompt.len);
    json_use_arena(before);
    status s = OK;
    if (!t->tree) {
        *e = t->error;
        s = err_hint(e, "--raw completes the prompt as it stands");
    } else if (!args.messages) {
        s = err_set(e, ERR_INVALID, "the prompt is not valid UTF-8");
    }
    if (s == OK) s = template_render(t, &args, &mem, &text, e);
    if (s == OK) s = tokenizer_encode_prompt(m->tok, &text, 0, ids, e);
    arena_clear(&mem);
    return s;
}

static bool uses_template(const machine *m, const generate_args *a) {
    return !a->raw && m->chat.chat.source.len > 0;
}

static status encode(const machine *m, const generate_args *a, vec_i32 *ids, err *e) {
    const str prompt = buf_str(&a->prompt);
    if (uses_template(m, a)) return encode_chat(m, prompt, ids, e);
    status s = tokenizer_encode(m->tok, prompt, TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, ids, e);
    if (s == OK && ids->n == 0) s = err_set(e, ERR_INVALID, "the prompt has no tokens");
    return s;
}

/* What happened, on stderr: stdout has the text alone. */
static void report(const machine *m, const generate_args *a, const output *o, size_t n_prompt,
                   uint64_t t0, uint64_t t1) {
    if (o->n_tokens == 0 && o->finish == FINISH_STOP)
        fprintf(stderr, "vramd generate: the model ended its answer before the first token%s\n",
                a->raw && m->chat.chat.source.len
                    ? "\n  try: without --raw the model's chat template is used"
                    : "");
    if (!a->verbose) return;
    fprintf(stderr, "prompt %zu tokens, output %u tokens; start %.3f s", n_prompt, o->n_tokens,
            (double)(t1 - t0) / 1e6);
    if (o->n_tokens)
        fprintf(stderr, ", first token %.3f s after start of the process",
                (double)(o->first_us - t0) / 1e6);
    if (o->n_tokens > 1)
        fprintf(stderr, ", %.1f tokens/s",
                (o->n_tokens - 1) * 1e6 / (double)(clock_us() - o->first_us));
    fputc('\n', stderr);
}

static status run_prompt(machine *m, const generate_args *a, uint64_t t0, err *e) {
    output o = {0};
    vec_i32 ids;
    runner_job job = {.n_score = -1};
    sched_id id;
    status s;
    vec_i32_init(&ids, NULL);
    buf_init(&o.text, NULL);
    s = encode(m, a, &ids, e);
    if (s != OK) goto done;
    job.sampling = m->sampling;
    job.sampling.seed = a->seeded ? a->seed : clock_us();
    job.guess = true;
    sched_spec q = {.prompt = ids.v,
                    .n_prompt = (uint32_t)ids.n,
                    .max_tokens = a->max_tokens,
                    .user = (uintptr_t)&job};
    uint32_t left = m->opt.max_model_len > ids.n ? m->opt.max_model_len - (uint32_t)ids.n : 0;
    if (q.max_tokens > left) q.max_tokens = left;
    detok_init(&o.detok, m->tok, false);
    runner *r = machine_runner(m, on_event, &o);
    if (left == 0 || sched_submit(m->sched, &q, clock_us(), &id) != REJECT_NONE) {
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
    if (s == OK) report(m, a, &o, ids.n, t0, t1);
done:
    vec_i32_clear(&ids);
    buf_clear(&o.text);
    return s;
}

static const char *const shared =
    "model pre_tokenizer chat_template chat_template_kwargs max_model_len memory "
    "kv_cache_dtype cache_type_k "
    "cache_type_v block_size "
    "max_num_batched_tokens host_memory backend "
    "cuda_device cuda_plugin batch_invariant threads "
    "cpu_isa activation_dtype speculative draft_model speculative_tokens temperature top_p "
    "top_k "
    "min_p "
    "log_level";

static void print_help(void) {
    puts(
        "usage: vramd generate --model FILE [OPTIONS] PROMPT\n"
        "       vramd generate --model FILE [OPTIONS] < PROMPT\n\n"
        "Answers the prompt by the chat template of the model; a model without one, or --raw,\n"
        "completes the prompt as it stands. Only the text goes to stdout, as it is generated.\n"
        "PROMPT is one word of the command line, or \"-\" for stdin. Options:\n"
        "  --max-tokens N     generate at most N tokens (128)\n"
        "  --raw              use no chat template\n"
        "  --seed N           the same seed gives the same text\n"
        "  --verbose          counts and times on stderr\n");
    options_print_help(stdout, shared);
}

int cmd_generate(int argc, char **argv) {
    uint64_t t0 = clock_us();
    generate_args a = {0};
    buf_init(&a.prompt, NULL);
    options opt;
    machine m = {0};
    err e;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0) return print_help(), 0;
    options_defaults(&opt);
    options_set_default(&opt, "log_level", "warn");
    status s = take_args(&a, &argc, argv, &e);
    if (s == OK) s = options_load(&opt, &argc, argv, environ, shared, &e);
    if (s == OK) s = take_prompt(&a, argc, argv, &e);
    if (s != OK) goto done;
    log_init(options_log_level(&opt));
    signal(SIGINT, on_interrupt);
    signal(SIGPIPE, SIG_IGN);
    opt.kv_disk[0] = '\0', opt.kv_host_bytes = 0; /* a server's */
    opt.max_num_seqs = 1;
    opt.max_waiting = 1;
    /* A token is at least a byte of the prompt; a template puts no more around it. */
    const uint32_t around = a.raw ? 8 : 8 + 768;
    machine_wish w = {.at_most_len = (uint32_t)a.prompt.len + around + a.max_tokens,
                      .greedy = true};
    s = machine_plan(&m, &opt, &w, &e);
    if (s == OK) s = machine_has_weights(&m, &e);
    if (s == OK) s = machine_generates(&m, &e);
    if (s == OK) s = machine_reserve(&m, &e);
    if (s == OK) s = machine_load(&m, &e);
    if (s == OK) s = run_prompt(&m, &a, t0, &e);
    machine_close(&m);
done:
    buf_clear(&a.prompt);
    return s == OK ? 0 : command_failed("generate", &e);
}
