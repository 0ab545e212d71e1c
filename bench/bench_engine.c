/* module: engine */
/* The CPU engine alone, without scheduler and sockets: decoding of one sequence at several
 * depths, of several sequences with a short context each, and prefill. Random tokens, greedy
 * sampling, as llama-bench does it. A case runs REPS times; all times are kept, so that a
 * script can alternate with a peer and take medians.
 *
 *   bench_engine --model FILE [--threads N] [--isa plain|avx2|avx512|amx] [--kv f16|bf16|f32]
 *                [--kv-v f16|bf16|f32] [--family int8|f32|bf16] [--depths 0,1024,4096] [--batches
 * 8,16,32]
 *                [--context 160] [--prefill 512] [--tokens 64] [--reps 3] [--ops 0|1] [--states 0]
 *                [--json FILE]
 *
 * --ops 1: steps run the engine's operations in a loop of this program, which takes the time of
 * each and counts the bytes that it has to read: weights once, of experts those that rows have
 * chosen, keys and values, recurrent states. Beside decoding what all threads read by plain reading
 * of the weights; beside prefill the highest rate of 8-bit products of all threads (int8_peak.h), and
 * what part of it the matrices reach.
 * --states N: copies of N / 2 recurrent states, and N checkpoints that a prompt of 512 tokens writes, against
 * memcpy of the same slots by the same threads. */
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/hash.h"
#include "engine/cpu/step.h"
#include "bench/int8_peak.h"
#include "engine/cpu/isa.h"
#include "engine/engine.h"

enum { MAX_LIST = 16, BLOCK = 16, ROWS = 512, MAX_REPS = 32, MAX_STATES = ROWS / STATE_CHUNK };

typedef struct list {
    uint32_t v[MAX_LIST], n;
} list;

typedef struct bench {
    const char *model_path, *json_path;
    engine_options opt;
    list depths, batches, prefills;
    uint32_t context, tokens, reps, states;
    block_copy copy[MAX_STATES / 2];
    batch_checkpoint checkpoint[MAX_STATES];
    uint32_t n_copies, n_checkpoints; /* of the next steps */
    FILE *json;
    bool first, ops;
    checkpoint *file;
    model *model;
    ledger *ledger;
    engine *engine;
    uint32_t max_seqs, max_len;
    int32_t *history, *blocks; /* [max_seqs][max_len], [max_seqs][max_len / BLOCK] */
    sampling greedy;
} bench;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

_Noreturn static void fail(const char *what, const err *e) {
    fprintf(stderr, "bench_engine: %s: %s %s\n", what, e ? e->field : "", e ? e->text : "");
    exit(1);
}

static list parse_list(const char *s) {
    list l = {0};
    char *end;
    for (; *s && l.n < MAX_LIST; s = *end ? end + 1 : end) {
        l.v[l.n++] = (uint32_t)strtoul(s, &end, 10);
        if (end == s) fail("a list of numbers was wanted", NULL);
    }
    return l;
}

static dtype parse_type(const char *s) {
    dtype t = dtype_by_name(str_of(s));
    if (t == DT_NONE) fail(s, NULL);
    return t;
}

static void parse_one(bench *b, const char *name, const char *value) {
    bool known = true;
    if (strcmp(name, "--model") == 0)
        b->model_path = value;
    else if (strcmp(name, "--json") == 0)
        b->json_path = value;
    else if (strcmp(name, "--threads") == 0)
        b->opt.n_threads = (uint32_t)atoi(value);
    else if (strcmp(name, "--isa") == 0)
        known = cpu_isa_by_name(str_of(value), &b->opt.isa);
    else if (strcmp(name, "--kv") == 0)
        b->opt.kv_k = b->opt.kv_v = parse_type(value);
    else if (strcmp(name, "--kv-v") == 0)
        b->opt.kv_v = parse_type(value);
    else if (strcmp(name, "--family") == 0)
        known = activation_dtype_by_name(str_of(value), &b->opt.activations);
    else if (strcmp(name, "--depths") == 0)
        b->depths = parse_list(value);
    else if (strcmp(name, "--batches") == 0)
        b->batches = parse_list(value);
    else if (strcmp(name, "--prefill") == 0)
        b->prefills = parse_list(value);
    else if (strcmp(name, "--context") == 0)
        b->context = (uint32_t)atoi(value);
    else if (strcmp(name, "--tokens") == 0)
        b->tokens = (uint32_t)atoi(value);
    else if (strcmp(name, "--reps") == 0)
        b->reps = (uint32_t)atoi(value);
    else if (strcmp(name, "--states") == 0)
        b->states = (uint32_t)atoi(value);
    else if (strcmp(name, "--ops") == 0)
        b->ops = atoi(value) != 0;
    else
        known = false;
    if (!known) fail(name, NULL);
}

static void parse(bench *b, int argc, char **argv) {
    cpu_set_t set;
    int cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    *b = (bench){.model_path = getenv("VRAMD_TEST_MODEL"),
                 .opt = {.n_threads = (uint32_t)cpus, .kv_k = DT_F16, .kv_v = DT_F16},
                 .depths = parse_list("0,1024,4096"),
                 .batches = parse_list("8,16,32"),
                 .prefills = parse_list("512"),
                 .context = 160,
                 .tokens = 64,
                 .reps = 3,
                 .first = true};
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc) fail(argv[i], NULL);
        parse_one(b, argv[i], argv[i + 1]);
    }
    if (!b->model_path) fail("--model is missing", NULL);
    if (b->reps < 1 || b->reps > MAX_REPS || b->tokens < 1) fail("--reps or --tokens", NULL);
    if (b->states > MAX_STATES || b->states % 2) fail("--states", NULL);
}

static uint32_t largest(const list *l, uint32_t least) {
    for (uint32_t i = 0; i < l->n; i++)
        if (l->v[i] > least) least = l->v[i];
    return least;
}

static void open_engine(bench *b) {
    err e;
    double t = now();
    b->max_seqs = largest(&b->batches, 1);
    uint32_t len = largest(&b->depths, b->context);
    len = largest(&b->prefills, b->states && len < ROWS ? ROWS : len) + b->tokens + BLOCK;
    b->max_len = len / BLOCK * BLOCK + BLOCK;
    uint32_t per_seq = b->max_len / BLOCK;
    uint32_t short_seq = (b->context + b->tokens) / BLOCK + 1;
    b->opt.max_rows = ROWS;
    b->opt.max_seqs = b->opt.max_logit_rows = b->max_seqs;
    b->opt.max_model_len = b->max_len;
    b->opt.n_states = b->max_seqs + b->states;
    b->opt.block_tokens = BLOCK;
    for (int g = 0; g < PLAN_MAX_GROUPS; g++)
        b->opt.n_blocks[g] = per_seq + b->max_seqs * short_seq;
    if (checkpoint_open(&b->file, b->model_path, &e) != OK) fail("model", &e);
    if (model_open(&b->model, b->file, &e) != OK) fail("model", &e);
    if (ledger_open_unlimited(&b->ledger, &e) != OK) fail("ledger", &e);
    if (engine_open(&b->engine, &backend_cpu, b->model, &b->opt, b->ledger, NULL, &e) != OK)
        fail("engine", &e);
    engine_info info;
    engine_describe(b->engine, &info);
    printf("%s; opened in %.0f ms\n", info.detail, 1e3 * (now() - t));
    b->history = calloc((size_t)b->max_seqs * b->max_len, sizeof *b->history);
    b->blocks = calloc((size_t)b->max_seqs * per_seq, sizeof *b->blocks);
    if (!b->history || !b->blocks) fail("no memory", NULL);
    sampling_defaults(&b->greedy);
    b->greedy.temperature = 0;
    uint32_t n_vocab = b->model->program.config.n_vocab;
    for (size_t i = 0; i < (size_t)b->max_seqs * b->max_len; i++)
        b->history[i] = (int32_t)(hash_mix(i) % n_vocab);
    /* Sequence 0 owns the first blocks, so that it may be long; blocks are dealt in an order
     * of no use to a prefetcher. */
    for (uint32_t i = 0; i < per_seq; i++)
        b->blocks[i] = (int32_t)((uint64_t)i * 7919 % per_seq);
    if (per_seq % 7919 == 0) fail("choose another depth", NULL);
    for (uint32_t s = 1; s < b->max_seqs; s++)
        for (uint32_t i = 0; i < short_seq; i++)
            b->blocks[s * per_seq + i] = (int32_t)(per_seq + i * b->max_seqs + s);
}

static void close_engine(bench *b) {
    engine_close(b->engine);
    ledger_close(b->ledger);
    model_close(b->model);
    checkpoint_close(b->file);
    free(b->history);
    free(b->blocks);
}

/* ---- operations by themselves ---- */

#define X(kind, run, ...) [OP_##kind] = run,
static op_run *const runs[OP_N_KINDS] = {CPU_OPS(X)};
#undef X

typedef struct op_times {
    cpu_engine *e;
    double seconds[OP_N_KINDS], layers, route; /* layers: of operations that are in layers */
    uint64_t bytes[OP_N_KINDS], steps, experts, routes; /* experts: with rows, of all routes */
    double products, matrices; /* of the matrices: multiply-adds, and their seconds */
} op_times;

static uint64_t weight_bytes_read(const op_times *t, const op *o) {
    const cpu_layout *l = &t->e->layout;
    uint64_t bytes = 0;
    if (o->kind == OP_EMBED || o->kind == OP_EMBED_ADD) return 0; /* some rows */
    for (uint32_t i = 0; i < o->n_weights; i++) {
        if (o->w[i] == NO_WEIGHT) continue;
        const weight *w = &t->e->program->weights[o->w[i]];
        const uint32_t n = weight_is_routed(w) ? w->n_experts : 0;
        const uint64_t all = l->weights[o->w[i]].bytes;
        bytes += n ? all / n * t->e->step.routed.n_used : all;
    }
    return bytes;
}

static uint64_t kv_bytes_read(const op_times *t, const op *o) {
    const batch *b = t->e->step.batch;
    const kv_format *f = &t->e->layout.kv[t->e->program->layer_group[o->layer]];
    const uint64_t token = kv_block_bytes(f, 1) / f->block_tokens;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const uint32_t len = b->seq[i].first_pos + 1, window = o->attention.window;
        bytes += token * (window && window < len ? window : len);
    }
    return bytes;
}

/* Behind each sequence's position: the matrices, and the rows beside them; of a convolution what a row sees. */
static uint64_t state_bytes_read(const op_times *t, const op *o) {
    const batch *b = t->e->step.batch;
    uint64_t floats = 0;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const delta_shape *d = &o->delta;
        const uint64_t rows = b->seq[i].first_pos % STATE_CHUNK;
        if (o->kind != OP_CONV)
            floats += (uint64_t)d->value_heads * d->key_dim * d->value_dim +
                      rows * (d->key_heads * d->key_dim + d->value_heads * d->value_dim);
        else
            floats += (uint64_t)(o->conv.width - 1) * t->e->program->values[o->out].cols;
    }
    return floats * sizeof(float);
}

/* Of the operation's matrices with the rows of the step; 0: it has none. */
static double products_of(const op_times *t, const op *o) {
    const cpu_engine *e = t->e;
    double products = 0;
    for (uint32_t i = 0; i < o->n_weights; i++) {
        const weight *w = o->w[i] == NO_WEIGHT ? NULL : &e->program->weights[o->w[i]];
        if (w && w->rows > 1 && o->kind != OP_EMBED && o->kind != OP_EMBED_ADD)
            products += (double)w->rows * w->cols *
                        (weight_is_routed(w) ? e->program->config.n_experts_used : 1);
    }
    const batch *b = e->step.batch;
    return products * (o->kind == OP_LOGITS ? b->n_logit_rows : b->n_rows);
}

static void count_op(op_times *t, const op *o, double seconds) {
    t->seconds[o->kind] += seconds;
    if (o->layer >= 0) t->layers += seconds;
    const double products = products_of(t, o);
    if (products > 0) t->products += products, t->matrices += seconds;
    if (o->kind == OP_ROUTE) {
        t->route += seconds;
        t->experts += t->e->step.routed.n_used;
        t->routes++;
    }
    t->bytes[o->kind] +=
        o->kind == OP_ATTENTION ? kv_bytes_read(t, o) : weight_bytes_read(t, o);
    if (o->state_floats) t->bytes[o->kind] += state_bytes_read(t, o);
}

/* As step.c runs a step. */
static void timed_thread(void *arg, uint32_t thread) {
    op_times *t = arg;
    cpu_engine *e = t->e;
    double from = now();
    for (uint32_t i = 0; i < e->program->n_ops; i++) {
        const op *o = e->op[i].op;
        if (o->kind == OP_ROPE_APPEND && !e->step.prefill) continue;
        if ((o->kind == OP_LOGITS || o->kind == OP_SAMPLE) && !e->step.logits) continue;
        runs[o->kind](e, &e->op[i], thread);
        team_barrier(e->team, thread);
        if (thread) continue;
        const double to = now();
        count_op(t, o, to - from);
        from = to;
    }
}

/* What is drawn is not used: sequences of random weights soon say the same, and then choose the same
 * experts. */
static void run_timed(bench *b, const batch *in, op_times *t) {
    cpu_engine *e = (cpu_engine *)b->engine;
    err er;
    if (cpu_step_init(e, in, &er) != OK) fail("step", &er);
    e->step.n_threads = e->opt.n_threads;
    t->e = e;
    t->steps++;
    team_run(e->team, timed_thread, t);
}

typedef struct reading {
    const uint64_t *words;
    uint64_t n;
    uint32_t n_threads;
} reading;

/* Lines in order, each thread a part of its own. */
static void read_thread(void *arg, uint32_t thread) {
    reading *r = arg;
    const uint64_t lines = r->n / 8, from = lines * thread / r->n_threads;
    uint64_t sum[8] = {0};
    for (uint64_t l = from; l < lines * (thread + 1) / r->n_threads; l++) {
        __builtin_prefetch(r->words + 8 * l + 256); /* as the kernels do */
        for (uint32_t k = 0; k < 8; k++) sum[k] += r->words[8 * l + k];
    }
    for (uint32_t k = 1; k < 8; k++) sum[0] += sum[k];
    __asm__ volatile("" ::"r"(sum[0])); /* so that nothing is left out */
}

/* Bytes a second of one pass over the weights. */
static double read_rate(bench *b) {
    cpu_engine *e = (cpu_engine *)b->engine;
    reading r = {(const uint64_t *)(const void *)e->weights, e->layout.weights_bytes / 8,
                 e->opt.n_threads};
    const double t = now();
    team_run(e->team, read_thread, &r);
    return 8.0 * (double)r.n / (now() - t);
}

typedef struct peaking {
    cpu_isa isa;
    uint64_t operations; /* of a thread */
} peaking;

static void peak_thread(void *arg, uint32_t thread) {
    peaking *p = arg;
    const uint64_t n = int8_peak_operations(p->isa);
    if (thread == 0) p->operations = n;
}

/* Operations a second of all threads. */
static double peak_rate(bench *b) {
    cpu_engine *e = (cpu_engine *)b->engine;
    peaking p = {.isa = b->opt.isa == ISA_AUTO ? isa_best() : b->opt.isa};
    const double t = now();
    team_run(e->team, peak_thread, &p);
    return (double)p.operations * e->opt.n_threads / (now() - t);
}

/* Of a prefill. */
static void report_peak(bench *b, const op_times *t, double peak) {
    double all = 0;
    for (int k = 0; k < OP_N_KINDS; k++) all += t->seconds[k];
    const double rate = 2 * t->products / t->matrices, share = t->matrices / all;
    for (int k = 0; k < OP_N_KINDS; k++)
        if (t->seconds[k] > 0)
            printf("    %-16s %8.3f ms %5.1f%%\n", op_kind_name((op_kind)k),
                   1e3 * t->seconds[k] / (double)t->steps, 100 * t->seconds[k] / all);
    printf(
        "    matrices: %.0f Gop/s, %.0f%% of the int8 peak of %.0f Gop/s; %.1f%% of the time\n",
        1e-9 * rate, peak > 0 ? 100 * rate / peak : 0, 1e-9 * peak, 100 * share);
    if (b->json)
        fprintf(b->json,
                ", \"int8_peak_gop_s\": %.1f, \"matrices_gop_s\": %.1f, \"of_peak\": %.4f, "
                "\"matrices_share\": %.4f",
                1e-9 * peak, 1e-9 * rate, peak > 0 ? rate / peak : 0, share);
}

static void report_ops(bench *b, const op_times *t, double rate, uint32_t rows) {
    double all = 0;
    uint64_t bytes = 0;
    for (int k = 0; k < OP_N_KINDS; k++) all += t->seconds[k], bytes += t->bytes[k];
    const double steps = (double)t->steps;
    for (int k = 0; k < OP_N_KINDS; k++)
        if (t->seconds[k] > 0)
            printf("    %-16s %8.3f ms %5.1f%%  %9.2f MB  %3.0f%% of the read rate\n",
                   op_kind_name((op_kind)k), 1e3 * t->seconds[k] / steps,
                   100 * t->seconds[k] / all, 1e-6 * (double)t->bytes[k] / steps,
                   100 * (double)t->bytes[k] / t->seconds[k] / rate);
    const double of_rate = (double)bytes / all / rate;
    const double experts = t->routes ? (double)t->experts / (double)t->routes : 0;
    const double times =
        t->routes ? (t->seconds[OP_EXPERTS_GATE_UP] + t->seconds[OP_EXPERTS_DOWN]) * rate /
                        (double)(t->bytes[OP_EXPERTS_GATE_UP] + t->bytes[OP_EXPERTS_DOWN])
                  : 0;
    printf("    %u rows: %.1f MB a step, %.0f%% of the read rate of %.1f GB/s", rows,
           1e-6 * (double)bytes / steps, 100 * of_rate, 1e-9 * rate);
    if (t->routes)
        printf(
            "; %.1f experts a layer have rows; their time is that of reading them %.2f times; "
            "routing is %.2f%% of a layer",
            experts, times, 100 * t->route / t->layers);
    printf("\n");
    if (!b->json) return;
    fprintf(
        b->json,
        ", \"step_mb\": %.2f, \"read_gb_s\": %.2f, \"of_read_rate\": %.4f, \"experts\": %.2f, "
        "\"expert_reads\": %.3f, \"route_share\": %.5f, \"ops_ms\": {",
        1e-6 * (double)bytes / steps, 1e-9 * rate, of_rate, experts, times,
        t->routes ? t->route / t->layers : 0);
    for (int k = 0, n = 0; k < OP_N_KINDS; k++)
        if (t->seconds[k] > 0)
            fprintf(b->json, "%s\"%s\": %.4f", n++ ? ", " : "", op_kind_name((op_kind)k),
                    1e3 * t->seconds[k] / steps);
    fprintf(b->json, "}");
}

/* ---- steps ---- */

/* n_rows rows from pos on for each of n_seqs sequences; with sampling, tokens enter the
 * history. times: NULL, or of each operation. */
static void run_step(bench *b, uint32_t n_seqs, uint32_t pos, uint32_t n_rows, bool sample,
                     op_times *times) {
    static batch_seq seq[ROWS];
    for (uint32_t i = 0; i < n_seqs; i++) {
        const int32_t *blocks = b->blocks + i * (b->max_len / BLOCK);
        const uint32_t n_blocks = (pos + n_rows + BLOCK - 1) / BLOCK;
        seq[i] = (batch_seq){.first_row = i * n_rows,
                             .n_rows = n_rows,
                             .first_pos = pos,
                             .tokens = b->history + (size_t)i * b->max_len,
                             .input_from = -1,
                             .blocks = {blocks, blocks, blocks, blocks},
                             .n_blocks = {n_blocks, n_blocks, n_blocks, n_blocks},
                             .n_logit_rows = sample,
                             .sample = sample,
                             .n_score = -1,
                             .params = &b->greedy,
                             .n_prompt = pos + n_rows,
                             .state = i,
                             .checkpoints = b->checkpoint,
                             .n_checkpoints = b->n_checkpoints};
    }
    batch in = {.seq = seq,
                .n_seqs = n_seqs,
                .n_rows = n_seqs * n_rows,
                .n_logit_rows = sample ? n_seqs : 0,
                .copies = b->copy,
                .n_copies = b->n_copies};
    step_result out;
    err e;
    if (times) {
        run_timed(b, &in, times);
        return;
    }
    if (engine_submit(b->engine, &in, &e) != OK) fail("submit", &e);
    if (engine_collect(b->engine, &out, &e) != OK) fail("collect", &e);
    for (uint32_t i = 0; sample && i < n_seqs; i++)
        b->history[(size_t)i * b->max_len + pos + n_rows] = out.token[i].token;
}

/* Positions [0, depth) of n_seqs sequences, one after the other in chunks. */
static void fill(bench *b, uint32_t n_seqs, uint32_t depth) {
    uint32_t most = ROWS / n_seqs;
    for (uint32_t pos = 0; pos < depth; pos += most)
        run_step(b, n_seqs, pos, depth - pos < most ? depth - pos : most, false, NULL);
}

static int by_time(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median_of(const double *v, uint32_t n, double *least) {
    double sorted[MAX_REPS + 1];
    memcpy(sorted, v, sizeof *v * n);
    qsort(sorted, n, sizeof *sorted, by_time);
    if (least) *least = sorted[0];
    return sorted[n / 2];
}

static void report(bench *b, const char *name, uint32_t depth, uint32_t batch, uint32_t tokens,
                   const double *seconds, const op_times *times, double rate) {
    double least, median = median_of(seconds, b->reps, &least);
    printf("%-8s depth %5u batch %3u: %8.1f tokens/s (best %.1f), %.3f ms a step\n", name,
           depth, batch, tokens / median, tokens / least, 1e3 * median * batch / tokens);
    fflush(stdout);
    if (b->json)
        fprintf(b->json,
                "%s{\"case\": \"%s\", \"depth\": %u, \"batch\": %u, \"tokens\": %u, "
                "\"tokens_per_s\": %.2f, \"seconds\": [",
                b->first ? "" : ",\n", name, depth, batch, tokens, tokens / median);
    for (uint32_t i = 0; i < b->reps && b->json; i++)
        fprintf(b->json, "%s%.6f", i ? ", " : "", seconds[i]);
    if (b->json) fprintf(b->json, "]");
    if (times && strcmp(name, "prefill") == 0)
        report_peak(b, times, rate);
    else if (times)
        report_ops(b, times, rate, batch);
    if (b->json) fprintf(b->json, "}");
    b->first = false;
}

static void bench_decode(bench *b, uint32_t depth, uint32_t n_seqs) {
    double seconds[MAX_REPS], rates[MAX_REPS + 1] = {0};
    op_times times = {0}, *timed = b->ops ? &times : NULL;
    fill(b, n_seqs, depth);
    for (uint32_t i = 0; i < 4; i++) run_step(b, n_seqs, depth + i, 1, true, NULL);
    for (uint32_t r = 0; r < b->reps;
         r++) { /* readings between: what disturbs one disturbs both */
        if (timed) rates[r] = read_rate(b);
        double t = now();
        for (uint32_t i = 0; i < b->tokens; i++) run_step(b, n_seqs, depth + i, 1, true, timed);
        seconds[r] = now() - t;
    }
    if (timed) rates[b->reps] = read_rate(b);
    const double rate = median_of(rates, b->reps + 1, NULL);
    report(b, "decode", depth, n_seqs, b->tokens * n_seqs, seconds, timed, rate);
}

static void bench_prefill(bench *b, uint32_t n) {
    double seconds[MAX_REPS], rates[MAX_REPS] = {0};
    op_times times = {0}, *timed = b->ops ? &times : NULL;
    fill(b, 1, n);
    for (uint32_t r = 0; r < b->reps; r++) {
        if (timed) rates[r] = peak_rate(b);
        double t = now();
        for (uint32_t pos = 0; pos < n; pos += ROWS) {
            uint32_t rows = n - pos < ROWS ? n - pos : ROWS;
            run_step(b, 1, pos, rows, pos + rows == n, timed);
        }
        seconds[r] = now() - t;
    }
    report(b, "prefill", 0, 1, n, seconds, timed, median_of(rates, b->reps, NULL));
}

/* ---- copies of states ---- */

/* As copies of the bench, by memcpy alone. */
static void copy_thread(void *arg, uint32_t thread) {
    const bench *b = arg;
    const cpu_engine *e = (const cpu_engine *)b->engine;
    const uint64_t n = e->layout.state_floats, parts = b->opt.n_threads;
    const uint64_t from = n * thread / parts, to = n * (thread + 1) / parts;
    for (uint32_t i = 0; i < b->states / 2; i++)
        memcpy(e->states + (uint32_t)b->copy[i].to * n + from,
               e->states + (uint32_t)b->copy[i].from * n + from, (to - from) * sizeof(float));
}

enum { STEP, STEP_COPIES, MEMCPY, PROMPT, PROMPT_CHECKPOINTS, N_STATE_TIMES };

/* Of a prompt what recurrent layers take, which write the checkpoints. */
static double time_prompt(bench *b, uint32_t n_checkpoints) {
    op_times t = {0};
    b->n_checkpoints = n_checkpoints;
    run_step(b, 1, 0, ROWS, false, &t);
    b->n_checkpoints = 0;
    return t.seconds[OP_CONV] + t.seconds[OP_DELTA] + t.seconds[OP_SSM];
}

/* The least of what they took so far; 0: not yet. */
static void time_states(bench *b, double *least) {
    double t[N_STATE_TIMES] = {0}, from = now();
    run_step(b, 1, ROWS, 1, false, NULL);
    t[STEP] = now() - from;
    b->n_copies = b->states / 2;
    from = now();
    run_step(b, 1, ROWS, 1, false, NULL);
    t[STEP_COPIES] = now() - from;
    b->n_copies = 0;
    from = now();
    team_run(((cpu_engine *)b->engine)->team, copy_thread, b);
    t[MEMCPY] = now() - from;
    t[PROMPT] = time_prompt(b, 0);
    t[PROMPT_CHECKPOINTS] = time_prompt(b, b->states);
    for (int k = 0; k < N_STATE_TIMES; k++)
        if (least[k] == 0 || t[k] < least[k]) least[k] = t[k];
}

/* Bytes that are written, over the time that they add to the fastest step without them. */
static void bench_states(bench *b) {
    double s[N_STATE_TIMES] = {0};
    const double mb = 4e-6 * (double)((cpu_engine *)b->engine)->layout.state_floats;
    for (uint32_t i = 0; i < b->states; i++)
        b->checkpoint[i] = (batch_checkpoint){(i + 1) * STATE_CHUNK, b->max_seqs + i};
    for (uint32_t i = 0; i < b->states / 2; i++)
        b->copy[i] = (block_copy){.from = (int32_t)(b->max_seqs + i),
                                  .to = (int32_t)(b->max_seqs + b->states / 2 + i),
                                  .group = ENGINE_COPY_STATE};
    fill(b, 1, ROWS);
    for (uint32_t r = 0; r <= b->reps; r++) time_states(b, s);
    const double copied = mb * b->states / 2, written = mb * b->states;
    const double rate[] = {copied / (s[STEP_COPIES] - s[STEP]), copied / s[MEMCPY],
                           written / (s[PROMPT_CHECKPOINTS] - s[PROMPT])};
    printf("states of %.2f MB: %.2f ms to copy one, %.1f GB/s; memcpy %.1f GB/s; a checkpoint "
           "%.2f ms, "
           "%.1f GB/s\n",
           mb, mb / rate[0] * 1e3, rate[0] / 1e3, rate[1] / 1e3, mb / rate[2] * 1e3,
           rate[2] / 1e3);
    if (b->json)
        fprintf(b->json,
                "%s{\"case\": \"states\", \"state_mb\": %.3f, \"copy_gb_s\": %.2f, "
                "\"memcpy_gb_s\": %.2f, "
                "\"checkpoint_gb_s\": %.2f}",
                b->first ? "" : ",\n", mb, rate[0] / 1e3, rate[1] / 1e3, rate[2] / 1e3);
    b->first = false;
}

int main(int argc, char **argv) {
    bench b;
    parse(&b, argc, argv);
    open_engine(&b);
    if (b.json_path) {
        b.json = fopen(b.json_path, "w");
        if (!b.json) fail(b.json_path, NULL);
        fprintf(b.json, "{\"bench\": \"engine\", \"threads\": %u, \"rows\": [\n",
                b.opt.n_threads);
    }
    for (uint32_t i = 0; i < b.prefills.n; i++) bench_prefill(&b, b.prefills.v[i]);
    for (uint32_t i = 0; i < b.depths.n; i++) bench_decode(&b, b.depths.v[i], 1);
    for (uint32_t i = 0; i < b.batches.n; i++) bench_decode(&b, b.context, b.batches.v[i]);
    if (b.states) bench_states(&b);
    if (b.json) {
        fprintf(b.json, "\n]}\n");
        if (fclose(b.json) != 0) fail(b.json_path, NULL);
    }
    close_engine(&b);
    return 0;
}
