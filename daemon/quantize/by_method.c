/* A conversion with a calibration beside it. */
#include "daemon/quantize/by_method.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "daemon/args.h"
#include "daemon/quantize/held_out.h"
#include "daemon/quantize/search_scales.h"
#include "daemon/quantize/sensitivity.h"
#include "model/model.h"

/* ---- the command line ---- */

static status take_number(const char *flag, const char *word, uint64_t *out, err *e) {
    static const char units[] = "KMGT";
    char *end;
    *out = 0;
    if (!word) return OK;
    errno = 0;
    unsigned long long n = strtoull(word, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    const unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    if (unit) end += strncmp(end + 1, "iB", 2) == 0 ? 3 : 1;
    if (*word >= '1' && *word <= '9' && *end == '\0' && !errno && n <= UINT64_MAX >> shift) {
        *out = n << shift;
        return OK;
    }
    err_set(e, ERR_INVALID, "%s: \"%.40s\" is no number above 0", flag, word);
    return err_field(e, "%s", flag + 2);
}

/* Words that go together. */
static status check_args(const method_args *a, err *e) {
    const char *flag = a->n_files         ? "calibrate"
                       : a->imatrix       ? "imatrix"
                       : a->write_imatrix ? "write-imatrix"
                                          : NULL;
    if (flag && a->kind == METHOD_RTN) {
        err_set(e, ERR_INVALID, "--%s: rounding to nearest looks at no text", flag);
        err_hint(e, "name a method: imatrix, gptq, awq, smooth, or awq+gptq");
        return err_field(e, "%s", flag);
    }
    if (!a->imatrix || (a->kind == METHOD_IMATRIX && !a->n_files && !a->write_imatrix))
        return OK;
    err_set(e, ERR_INVALID, "--imatrix: the file is all that --method imatrix looks at");
    err_hint(e, "the other methods, and --write-imatrix, take texts: --calibrate TEXT");
    return err_field(e, "imatrix");
}

status method_take_args(method_args *a, int *argc, char **argv, err *e) {
    *a = (method_args){0};
    status s = method_by_name(&a->kind, args_take_value(argc, argv, "--method"), e);
    for (const char *f; s == OK && (f = args_take_value(argc, argv, "--calibrate"));) {
        if (a->n_files == CALIBRATE_KINDS)
            return err_set(e, ERR_INVALID, "--calibrate: at most %d texts", CALIBRATE_KINDS);
        a->file[a->n_files++] = f;
    }
    if (s == OK)
        s = take_number("--calibrate-tokens", args_take_value(argc, argv, "--calibrate-tokens"),
                        &a->n_tokens, e);
    if (s == OK)
        s = take_number("--max-h", args_take_value(argc, argv, "--max-h"), &a->max_h, e);
    a->imatrix = args_take_value(argc, argv, "--imatrix");
    a->write_imatrix = args_take_value(argc, argv, "--write-imatrix");
    a->unchecked = args_take_word(argc, argv, "--no-check");
    a->accept = args_take_word(argc, argv, "--accept-worse");
    return s == OK ? check_args(a, e) : s;
}

/* ---- hooks ---- */

static status begin(void *arg, const char *tensor, dtype to, err *e) {
    return method_begin(arg, tensor, to, e);
}

static void values(void *arg, const char *tensor, uint64_t first_row, uint64_t n_rows,
                   uint64_t n_cols, float *rows) {
    method_values(arg, tensor, first_row, n_rows, n_cols, rows);
}

static bool encode(void *arg, const char *tensor, dtype to, const float *rows,
                   uint64_t first_row, uint64_t n_rows, uint64_t n_cols, void *out,
                   uint32_t thread) {
    (void)tensor, (void)to, (void)first_row;
    return method_encode(arg, rows, n_rows, n_cols, out, thread);
}

static status importance(void *arg, const char *tensor, uint64_t n_cols, float *out,
                         bool *found, err *e) {
    return method_importance(arg, tensor, n_cols, out, found, e);
}

/* Of all that the bytes depend on beside the model: the method and the sums. */
static uint64_t salt_of(const method_args *a, const calibration *c) {
    uint64_t h = hash_mix(a->kind + 1);
    for (uint32_t i = 0; i < c->sums.n_inputs; i++)
        h = hash64(c->sums.input[i].sum_sq, c->sums.input[i].n * sizeof(double), h);
    return h;
}

static status salt_of_file(const char *path, const gguf *file, uint64_t *out, err *e) {
    status s = OK;
    uint64_t h = hash64(path, strlen(path), METHOD_IMATRIX);
    for (size_t i = 0; s == OK && i < gguf_n_tensors(file); i++) {
        const gguf_tensor *t = gguf_tensor_at(file, i);
        uint64_t first[8] = {0};
        s = gguf_read(file, t, 0, first, t->bytes < sizeof first ? t->bytes : sizeof first, e);
        h = hash64(first, sizeof first, h);
    }
    *out = h;
    return s;
}

static status write_imatrix(const method_args *a, const calibration *c, err *e) {
    str names[CALIBRATE_KINDS];
    for (uint32_t i = 0; i < c->text.n_kinds; i++) names[i] = str_of(c->text.kind[i].name);
    return imatrix_write(&c->sums, a->write_imatrix, names, c->text.n_kinds, c->wish.context,
                         e);
}

static void print_rows(const held_out_row *row, uint32_t n) {
    fprintf(stderr, "%-24s %8s %10s %10s %12s\n", "held-out text", "tokens", "KL rtn", "KL",
            "difference");
    for (uint32_t i = 0; i < n; i++) {
        const held_out_row *r = &row[i];
        fprintf(stderr, "%-24.24s %8llu %10.5f %10.5f %+12.5f", r->name,
                (unsigned long long)r->n, r->rtn, r->made, r->change);
        if (!isnan(r->se)) fprintf(stderr, " +- %.5f", r->se);
        fputs(r->worse ? "  WORSE\n" : "\n", stderr);
    }
}

/* Against a second file, made by rounding, which is removed again. */
static status check_held_out(const conversion *c, const method_args *a, const calibrate_text *t,
                             const options *opt, err *e) {
    char rtn[512];
    held_out_row row[CALIBRATE_KINDS];
    conversion plain = *c;
    if (a->unchecked) return OK;
    snprintf(rtn, sizeof rtn, "%.480s.rtn.gguf", c->out);
    plain.out = rtn;
    plain.hooks = NULL;
    plain.salt = 0;
    plain.force = true;
    status s = convert(&plain, e);
    if (s == OK)
        s = held_out_compare(checkpoint_path(c->job->in), rtn, c->out, c->out, t, opt,
                             c->interrupted, row, e);
    if (s == OK) print_rows(row, t->n_kinds);
    for (uint32_t i = 0; s == OK && i < t->n_kinds; i++) {
        if (!row[i].worse || a->accept) continue;
        s = err_set(e, ERR_UNSUPPORTED,
                    "on %.60s the new file is worse than rounding to nearest", row[i].name);
        err_hint(e, "calibrate on a mixture of the texts that it will see, or --accept-worse");
    }
    unlink(rtn);
    return s;
}

/* ---- plan, text, conversion ---- */

static status plan_calibration(method_run *r, err *e) {
    const method_args *a = r->args;
    const conversion *c = r->conversion;
    const uint64_t rows = convert_bytes_of_thread(c->job),
                   row = sensitivity_bytes_of_thread(c->job);
    model *m;
    status s = model_open(&m, c->job->in, e);
    if (s != OK) return s;
    const calibrate_wish w = {.files = a->file,
                              .n_files = a->n_files,
                              .n_fit = a->n_tokens,
                              .hessians = (a->kind & (METHOD_GPTQ | METHOD_AWQ)) != 0,
                              .max_h = a->max_h,
                              .more = method_bytes(&m->program, a->kind, c->n_threads) +
                                      c->n_threads * (rows > row ? rows : row) +
                                      checkpoint_header_bytes(c->job->in),
                              .progress = c->progress,
                              .interrupted = c->interrupted};
    model_close(m);
    options_defaults(&r->opt);
    r->calibrates = true;
    return calibration_plan(&r->cal, checkpoint_path(c->job->in), &r->opt, &w, e);
}

status method_run_plan(method_run *r, const method_args *a, conversion *c, err *e) {
    *r = (method_run){.args = a, .conversion = c};
    if (a->kind == METHOD_RTN) return OK;
    return a->imatrix ? imatrix_open(&r->imatrix, a->imatrix, e) : plan_calibration(r, e);
}

uint64_t method_run_bytes(const method_run *r) {
    return r->calibrates ? calibration_bytes(&r->cal) : 0;
}

static status run_calibration(method_run *r, err *e) {
    const method_args *a = r->args;
    conversion *c = r->conversion;
    status s = calibration_run(&r->cal, e);
    if (s == OK && a->write_imatrix) s = write_imatrix(a, &r->cal, e);
    if (s == OK) s = method_open(&r->method, a->kind, &r->cal, c->job, c->n_threads, e);
    if (s == OK) c->salt = salt_of(a, &r->cal);
    return s;
}

status method_run_text(method_run *r, err *e) {
    conversion *c = r->conversion;
    status s = OK;
    if (r->ran || r->args->kind == METHOD_RTN) return OK;
    r->ran = true;
    if (r->calibrates)
        s = run_calibration(r, e);
    else {
        s = method_open_imatrix(&r->method, r->imatrix, c->job, e);
        if (s == OK) s = salt_of_file(r->args->imatrix, r->imatrix, &c->salt, e);
    }
    const bool scaled = (r->args->kind & (METHOD_AWQ | METHOD_SMOOTH)) != 0;
    r->hooks = (quant_hooks){&r->method, begin, scaled ? values : NULL, encode, importance};
    c->hooks = &r->hooks;
    return s;
}

/* The held-out parts outlive the machine; what was calibrated on does not. */
static calibrate_text keep_text(method_run *r) {
    calibrate_text text = r->cal.text;
    r->opt = r->cal.opt;
    r->cal.text.n_kinds = 0;
    text.fit = (eval_text){0};
    return text;
}

status method_run_convert(method_run *r, err *e) {
    status s = method_run_text(r, e);
    if (s == OK && r->hooks.values) s = search_scales(&r->method, e);
    if (s == OK) s = convert(r->conversion, e);
    r->conversion->hooks = NULL;
    if (s != OK || !r->calibrates) return s;
    calibrate_text text = keep_text(r);
    method_run_close(r);
    s = check_held_out(r->conversion, r->args, &text, &r->opt, e);
    calibrate_text_clear(&text);
    return s;
}

void method_run_close(method_run *r) {
    method_close(&r->method);
    if (r->calibrates) calibration_close(&r->cal);
    r->calibrates = false;
    gguf_close(r->imatrix);
    r->imatrix = NULL;
}
