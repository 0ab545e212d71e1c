/* vramd quantize: a model's weights in smaller types, or in their own, as a GGUF file. Main thread; owns the open
 * files. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/args.h"
#include "daemon/commands.h"
#include "daemon/quantize/by_method.h"
#include "daemon/quantize/journal.h"
#include "daemon/output.h"
#include "daemon/quantize/quantize_report.h"
#include "daemon/quantize/sensitivity.h"
#include "quant/quant.h"

enum { MAX_THREADS = 256 };

typedef struct quantize_args {
    const char *in, *out;
    dtype type; /* DT_NONE: each tensor's own */
    uint32_t n_threads;
    uint64_t fit; /* bytes of the file; 0: types by rule */
    bool pure, again, force, dry_run, json;
    method_args method;
} quantize_args;

static volatile sig_atomic_t interrupted;
static void on_interrupt(int number) {
    (void)number;
    interrupted = 1;
}

static void print_help(void) {
    puts(
        "usage: vramd quantize MODEL OUT.gguf [--type TYPE | --fit SIZE] [--pure] "
        "[--requantize]\n"
        "                      [--threads N] [--dry-run] [--json] [--force]\n"
        "       vramd quantize MODEL OUT.gguf --method M [--calibrate TEXT]... [--max-h SIZE]\n"
        "                      [--calibrate-tokens N] [--imatrix FILE] [--write-imatrix FILE]\n"
        "                      [--no-check | --accept-worse]\n\n"
        "Writes a model as a GGUF file. MODEL is a GGUF file, or a folder as the model was\n"
        "published. Without --type every tensor keeps its type: an export. What it will hold "
        "in\n"
        "memory and on the disk is printed first. If it is stopped, at any point, the same\n"
        "command continues.\n\n"
        "  --type TYPE   of the matrices: F32, BF16, F16, Q8_0, Q6_K, Q5_K, Q5_1, Q5_0, Q4_K,\n"
        "                Q4_1, Q4_0, MXFP4, IQ4_NL, IQ4_XS, Q3_K or Q2_K. Where the rows "
        "are no\n"
        "                whole blocks, the next type of smaller blocks\n"
        "  --fit SIZE    a type for each matrix, so that the file has at most SIZE bytes and "
        "loses\n"
        "                least; the table goes to OUT.gguf.sensitivity.json\n"
        "  --pure        the output matrix, too; else it gets Q6_K or Q8_0\n"
        "  --requantize  weights that are quantised already may lose once more\n"
        "  --threads N   default: one for each CPU\n"
        "  --dry-run     print the plan only\n"
        "  --json        the plan, or the result, as one JSON object\n"
        "  --force       OUT.gguf may exist: it is replaced when the new file is complete\n\n"
        "  --method M    how scales and codes are chosen: rtn (to nearest), imatrix, gptq, "
        "awq,\n"
        "                smooth, or several: awq+gptq; all but rtn run the model on a text\n"
        "  --calibrate TEXT      a text of the kind that the model will see; several, in "
        "equal\n"
        "                parts: give the option again; none: English, a play, C and Chinese\n"
        "  --calibrate-tokens N  of all texts together (16384)\n"
        "  --imatrix FILE        the importance matrix that --method imatrix uses, as "
        "llama-imatrix\n"
        "                writes it, in place of a text\n"
        "  --write-imatrix FILE  the importance matrix of the texts goes to FILE, too\n"
        "  --max-h SIZE  memory for the second moments of inputs (2GiB); what does not fit "
        "takes\n"
        "                another pass over the text\n"
        "  --no-check    do not compare with rounding on the held-out fifth of each text\n"
        "  --accept-worse  compare, but end well where the new file is worse on a text");
}

/* ---- the command line ---- */

static status take_type(const char *word, dtype *out, err *e) {
    *out = DT_NONE;
    if (!word) return OK;
    *out = dtype_by_name(str_of(word));
    if (*out != DT_NONE && quant_can(*out)) return OK;
    err_set(e, ERR_INVALID, "--type: \"%.40s\" is no type that is written", word);
    err_hint(e, "F32, BF16, F16, Q8_0, Q6_K, Q5_K, Q5_1, Q5_0, Q4_K, Q4_1, Q4_0, MXFP4, "
                "IQ4_NL, IQ4_XS, Q3_K, Q2_K");
    return err_field(e, "type");
}

static status take_fit(const char *word, uint64_t *out, err *e) {
    *out = 0;
    if (!word || (str_parse_bytes(str_of(word), out) && *out)) return OK;
    err_set(e, ERR_INVALID, "--fit: \"%.40s\" is no number of bytes", word);
    err_hint(e, "for example 3GiB");
    return err_field(e, "fit");
}

static status take_threads(const char *word, uint32_t *out, err *e) {
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    *out = cpus < 1 ? 1 : cpus > MAX_THREADS ? MAX_THREADS : (uint32_t)cpus;
    if (!word) return OK;
    char *end;
    const unsigned long n = strtoul(word, &end, 10);
    if (*word >= '0' && *word <= '9' && *end == '\0' && n >= 1 && n <= MAX_THREADS) {
        *out = (uint32_t)n;
        return OK;
    }
    err_set(e, ERR_INVALID, "--threads: \"%.40s\" is no number from 1 to %d", word,
            MAX_THREADS);
    return err_field(e, "threads");
}

static status take_args(quantize_args *a, int argc, char **argv, err *e) {
    *a = (quantize_args){.pure = args_take_word(&argc, argv, "--pure"),
                         .again = args_take_word(&argc, argv, "--requantize"),
                         .force = args_take_word(&argc, argv, "--force"),
                         .dry_run = args_take_word(&argc, argv, "--dry-run"),
                         .json = args_take_word(&argc, argv, "--json")};
    status s = take_type(args_take_value(&argc, argv, "--type"), &a->type, e);
    if (s == OK) s = take_threads(args_take_value(&argc, argv, "--threads"), &a->n_threads, e);
    if (s == OK) s = take_fit(args_take_value(&argc, argv, "--fit"), &a->fit, e);
    if (s == OK && a->fit && (a->type != DT_NONE || a->pure))
        s = err_set(e, ERR_INVALID, "--fit chooses the types; --type and --pure exclude it");
    if (s == OK) s = method_take_args(&a->method, &argc, argv, e);
    if (s != OK) return s;
    for (int i = 1; i < argc; i++)
        if (argv[i][0] == '-' || i > 2) {
            err_set(e, ERR_INVALID, "not understood: %.80s", argv[i]);
            return err_hint(e, "vramd quantize MODEL OUT.gguf --type Q4_K");
        }
    if (argc == 3) {
        a->in = argv[1], a->out = argv[2];
        return OK;
    }
    err_set(e, ERR_INVALID, argc == 2 ? "no file to write is named" : "no model is named");
    return err_hint(e, "vramd quantize MODEL OUT.gguf --type Q4_K");
}

/* ---- the work ---- */

static status check_twice(const quantize_args *a, const quant_job *j, err *e) {
    const quant_tensor *t = a->again ? NULL : quant_job_twice(j);
    if (!t) return OK;
    err_set(e, ERR_INVALID, "%.100s: %.64s has the type %s already; as %s it would lose twice",
            a->in, t->info.name, dtype_name(t->info.type), dtype_name(t->to));
    err_hint(e, "take the model in BF16, F16 or F32, or accept it: --requantize");
    return err_field(e, "%s", t->info.name);
}

/* A tensor that is to keep its type has one that GGUF has. */
static status check_own(const quantize_args *a, const quant_job *j, err *e) {
    for (size_t i = 0; i < j->n; i++)
        if (j->v[i].to == DT_NONE) {
            const tensor_info *t = &j->v[i].info;
            err_set(e, ERR_UNSUPPORTED, "%.100s: GGUF has no type for the %s of %.64s", a->in,
                    dtype_name(t->type), t->name);
            err_hint(e, "name one: --type F32, or a smaller one with --requantize");
            return err_field(e, "%s", t->name);
        }
    return OK;
}

static status print(buf *b, err *e) {
    status s =
        b->failed ? err_set(e, ERR_NO_MEMORY, "no memory for what is to be printed") : OK;
    if (s == OK && (fwrite(b->ptr, 1, b->len, stdout) != b->len || fflush(stdout) != 0))
        s = err_set(e, ERR_IO, "writing stdout: %s", strerror(errno));
    buf_clear(b);
    return s;
}

/* Measures, chooses, and writes the table. */
static status fit(const quantize_args *a, quant_job *j, method_run *r, err *e) {
    sensitivity t;
    buf b, path;
    status s = method_run_text(r, e);
    if (s == OK)
        s = sensitivity_measure(&t, j, r->conversion->hooks, a->n_threads, &interrupted, e);
    if (s != OK) return s;
    buf_init(&b, NULL);
    buf_init(&path, NULL);
    s = sensitivity_pick(&t, a->fit, e);
    if (s == OK) s = check_twice(a, j, e);
    if (s == OK && !a->dry_run) {
        sensitivity_json(&b, &t, a->fit);
        buf_addf(&path, "%s.sensitivity.json", a->out);
        s = output_write(buf_cstr(&path), &b, e);
    }
    buf_clear(&path);
    buf_clear(&b);
    sensitivity_clear(&t);
    return s;
}

static status types_by_rule(const quantize_args *a, quant_job *j, err *e) {
    quant_job_pick(j, a->type, a->pure);
    status s = check_own(a, j, e);
    if (s == OK) s = check_twice(a, j, e);
    return s == OK ? quant_job_finish(j, e) : s;
}

static status print_plan(const quantize_args *a, const conversion *c, err *e) {
    buf b;
    buf_init(&b, NULL);
    if (!a->json)
        quantize_plan_text(&b, c);
    else if (a->dry_run)
        quantize_json(&b, c, false);
    return print(&b, e);
}

static status print_result(const quantize_args *a, const conversion *c, err *e) {
    buf b;
    buf_init(&b, NULL);
    if (a->json)
        quantize_json(&b, c, true);
    else
        quantize_done_text(&b, c);
    return print(&b, e);
}

static status run(const quantize_args *a, quant_job *j, err *e) {
    conversion c = {.job = j,
                    .out = a->out,
                    .n_threads = a->n_threads,
                    .force = a->force,
                    .progress = isatty(STDERR_FILENO) != 0,
                    .interrupted = &interrupted};
    method_run r = {0};
    status s = a->fit ? OK : types_by_rule(a, j, e);
    if (s == OK) s = method_run_plan(&r, &a->method, &c, e);
    if (s == OK && a->fit) s = fit(a, j, &r, e);
    c.method_bytes = method_run_bytes(&r);
    if (s == OK) s = print_plan(a, &c, e);
    if (s == OK) s = journal_check_space(a->out, j->file_bytes, e);
    if (s == OK && !a->dry_run) {
        s = method_run_convert(&r, e);
        if (s == OK) s = print_result(a, &c, e);
    }
    method_run_close(&r);
    return s;
}

static status quantize(const quantize_args *a, err *e) {
    checkpoint *in = NULL;
    quant_job j;
    status s = journal_check_out(a->out, a->force || a->dry_run, e);
    if (s == OK) s = checkpoint_open(&in, a->in, e);
    if (s == OK && (s = quant_job_open(&j, in, e)) == OK) {
        s = run(a, &j, e);
        quant_job_close(&j);
    }
    checkpoint_close(in);
    return s;
}

int cmd_quantize(int argc, char **argv) {
    err e;
    quantize_args a;
    if (args_take_word(&argc, argv, "--help")) {
        print_help();
        return 0;
    }
    struct sigaction stop = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    signal(SIGXFSZ, SIG_IGN); /* a write beyond the limit is an error, and says so */
    status s = take_args(&a, argc, argv, &e);
    if (s == OK) s = quantize(&a, &e);
    return s == OK ? 0 : command_failed("quantize", &e);
}
