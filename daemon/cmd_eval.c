/* vramd eval: perplexity of a model on a text, and what a KV cache, a type of weights or of
 * activations changes against a stored reference. The same machine as serve, without HTTP. */
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
#include "daemon/eval/eval_pair.h"
#include "daemon/eval/eval_report.h"

extern char **environ;

enum { DEFAULT_WINDOW = 2048, LEAST_WINDOW = 8 };

typedef struct eval_args {
    const char *file, *reference, *write_reference;
    uint32_t
        context; /* 0: as the reference, else DEFAULT_WINDOW, or fewer if trained for fewer */
    uint64_t tokens; /* 0: as the reference, else all */
    bool json, other_weights;
} eval_args;

/* What the plan needs to know before it can count: the text's tokens. */
typedef struct preparation {
    const eval_args *args;
    buf text;
    eval_text cut;
    eval_file reference, written;
    eval_job job;
    status s;
    err e;
} preparation;

static volatile sig_atomic_t interrupted;
static void on_interrupt(int number) {
    (void)number;
    interrupted = 1;
}

/* ---- the command line ---- */

static status take_count(const char *flag, const char *word, uint64_t low, uint64_t *out,
                         err *e) {
    char *end;
    errno = 0;
    *out = 0;
    if (!word) return OK;
    const unsigned long long n = strtoull(word, &end, 10);
    if (*word >= '0' && *word <= '9' && *end == '\0' && !errno && n >= low && n <= UINT32_MAX) {
        *out = n;
        return OK;
    }
    err_set(e, ERR_INVALID, "--%s: \"%.40s\" is no number from %llu to %u", flag, word,
            (unsigned long long)low, UINT32_MAX);
    return err_field(e, "%s", flag);
}

/* Takes what options.h does not know; what is left belongs to it. */
static status take_args(eval_args *a, int *argc, char **argv, err *e) {
    uint64_t context;
    *a = (eval_args){.json = args_take_word(argc, argv, "--json"),
                     .other_weights = args_take_word(argc, argv, "--other-weights"),
                     .file = args_take_value(argc, argv, "--file"),
                     .reference = args_take_value(argc, argv, "--reference"),
                     .write_reference = args_take_value(argc, argv, "--write-reference")};
    status s = take_count("context", args_take_value(argc, argv, "--context"), LEAST_WINDOW,
                          &context, e);
    if (s == OK)
        s = take_count("tokens", args_take_value(argc, argv, "--tokens"), 2, &a->tokens, e);
    a->context = (uint32_t)context;
    if (s != OK || !a->reference || !a->write_reference) return s;
    return err_set(e, ERR_INVALID, "--reference and --write-reference are two runs");
}

static status take_model(options *o, int argc, char **argv, err *e) {
    if (argc > 2 || (argc == 2 && o->model[0])) {
        err_set(e, ERR_INVALID, "more than one model is named: \"%.80s\"", argv[argc - 1]);
        return err_hint(e, "a text is named by --file TEXT, or comes on stdin");
    }
    if (argc == 2 && strlen(argv[1]) >= sizeof o->model)
        return err_set(e, ERR_INVALID, "a path of more than %zu bytes", sizeof o->model - 1);
    if (argc == 2) snprintf(o->model, sizeof o->model, "%s", argv[1]);
    return OK;
}

/* ---- before the plan ---- */

static status read_text(preparation *p, err *e) {
    const char *file = p->args->file;
    if (file && strcmp(file, "-") == 0) file = NULL;
    if (!p->args->file && isatty(STDIN_FILENO)) {
        err_set(e, ERR_INVALID, "no text is given");
        return err_hint(e, "vramd eval MODEL --file TEXT, or a text on stdin");
    }
    return eval_text_read(&p->text, file, e);
}

static status open_files(preparation *p, err *e) {
    status s = OK;
    if (p->args->reference) {
        s = eval_file_open(&p->reference, p->args->reference, e);
        p->job.reference = &p->reference;
    }
    if (s == OK && p->args->write_reference) {
        s = eval_file_create(&p->written, p->args->write_reference, e);
        p->job.written = &p->written;
    }
    return s;
}

/* Called while the machine plans: the model's headers are read, and nothing is counted yet. */
static void prepare(void *arg, const machine *m, terms *t) {
    preparation *p = arg;
    tokenizer *tok = NULL;
    uint64_t tokens = p->args->tokens;
    if (!m->file) return; /* refused later */
    if (!tokens && p->job.reference) tokens = p->reference.header.n_tokens;
    status s =
        tokenizer_open_pre(&tok, m->file, str_of(m->opt.pre_tokenizer), chunks_heap(), &p->e);
    if (s == OK)
        s = eval_text_cut(&p->cut, tok, buf_str(&p->text), m->opt.max_model_len, tokens, &p->e);
    tokenizer_close(tok);
    buf_clear(&p->text);
    if (s == OK) s = eval_hash_weights(m->file, p->job.weights, &p->e);
    if (s == OK && p->job.reference)
        s = eval_check_pairing(&p->reference, &p->cut,
                               p->args->other_weights ? NULL : p->job.weights, m, &p->e);
    p->s = s;
    p->job.text = &p->cut;
    if (s == OK) eval_terms(&p->job, m->model->program.config.n_vocab, t);
}

/* ---- after it ---- */

static status evaluate(preparation *p, machine *m, err *e) {
    eval_summary sum;
    eval_report r = {.m = m, .job = &p->job, .sum = &sum};
    char line[240];
    status s = eval_reserve(&p->job, m, e);
    if (s == OK) s = machine_load(m, e);
    if (s != OK) return s;
    machine_compare(m, line, sizeof line);
    log_info("memory: %s", line);
    engine_describe(m->engine, &r.engine);
    const uint64_t before = clock_us();
    s = eval_run(&p->job, m, e);
    if (s != OK) return s;
    r.seconds = (double)(clock_us() - before) / 1e6;
    if (p->job.written) {
        eval_name_reference(&p->written.header, &p->cut, p->job.weights, m, &r.engine);
        s = eval_file_finish(&p->written, e);
    }
    if (s != OK) return s;
    eval_summarise(&sum, p->job.point, p->cut.n_scored, p->job.reference != NULL);
    if (!p->args->json) return eval_print_table(&r), OK;
    buf b;
    buf_init(&b, NULL);
    eval_print_json(&r, &b);
    if (b.failed) s = err_set(e, ERR_NO_MEMORY, "no memory for the report");
    if (s == OK) fwrite(b.ptr, 1, b.len, stdout);
    buf_clear(&b);
    return s;
}

static const char *const shared =
    "model pre_tokenizer memory kv_cache_dtype cache_type_k cache_type_v block_size "
    "max_num_seqs max_num_batched_tokens host_memory backend cuda_device cuda_plugin "
    "batch_invariant threads cpu_isa activation_dtype log_level";

static void print_help(void) {
    puts("usage: vramd eval MODEL [OPTIONS] --file TEXT\n"
         "       vramd eval MODEL [OPTIONS] < TEXT\n\n"
         "Perplexity of a text, and, against a stored reference, what another KV cache, other\n"
         "weights or activations change: KL divergence and how often the likeliest token is "
         "the\n"
         "same, each with its standard error. Runs through the daemon's scheduler and engine.\n"
         "  --file TEXT              the text; else stdin\n"
         "  --context N              tokens of a window, its BOS included (2048)\n"
         "  --tokens N               the first N tokens of the text (all)\n"
         "  --write-reference FILE   store what this run predicted, 800 bytes a token\n"
         "  --reference FILE         compare with that; its windows and tokens are the "
         "defaults\n"
         "  --other-weights          the reference may be of other weights, with the same "
         "tokens\n"
         "  --json                   one JSON object, the same in every run\n");
    options_print_help(stdout, shared);
}

static status run(preparation *p, options *opt, err *e) {
    machine m = {0};
    status s = open_files(p, e);
    if (s == OK) s = read_text(p, e);
    if (s != OK) return s;
    const eval_header *h = p->job.reference ? &p->reference.header : NULL;
    opt->max_waiting = 1;
    opt->prefix_caching = false;
    opt->kv_disk[0] = '\0', opt->kv_host_bytes = 0; /* a server's */
    opt->max_model_len = p->args->context ? p->args->context : h ? h->context : 0;
    machine_wish w = {.at_most_len = DEFAULT_WINDOW,
                      .greedy = true,
                      .scores = true,
                      .keep_logits = eval_needs_logits(&p->job),
                      .extra = prepare,
                      .arg = p};
    s = machine_plan(&m, opt, &w, e);
    if (p->s != OK) s = (*e = p->e).code;
    if (s == OK) s = machine_has_weights(&m, e);
    if (s == OK) s = machine_generates(&m, e);
    if (s == OK) s = machine_reserve(&m, e);
    if (s == OK) {
        s = evaluate(p, &m, e);
        eval_release(&p->job, &m);
    }
    machine_close(&m);
    return s;
}

int cmd_eval(int argc, char **argv) {
    eval_args a;
    options opt;
    err e;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0) return print_help(), 0;
    preparation p = {.args = &a, .reference.fd = -1, .written.fd = -1};
    buf_init(&p.text, NULL);
    p.job.progress = isatty(STDERR_FILENO);
    p.job.interrupted = &interrupted;
    options_defaults(&opt);
    options_set_default(&opt, "log_level", "warn");
    options_set_default(&opt, "max_num_seqs", "1");
    options_set_default(&opt, "embeddings", "off");
    status s = take_args(&a, &argc, argv, &e);
    if (s == OK) s = options_load(&opt, &argc, argv, environ, shared, &e);
    if (s == OK) s = take_model(&opt, argc, argv, &e);
    log_init(options_log_level(&opt));
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    if (s == OK) s = run(&p, &opt, &e);
    eval_text_clear(&p.cut);
    eval_file_close(&p.reference);
    eval_file_close(&p.written);
    buf_clear(&p.text);
    return s == OK ? 0 : command_failed("eval", &e);
}
