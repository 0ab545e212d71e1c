/* module: engine */
/* The CUDA engine alone, without scheduler and sockets, on a model of Llama-3-8B's shape whose
 * weights are random numbers made on the device: decoding by batch at one context, prefill of
 * one sequence, and the plan against what the driver counts. Greedy sampling; two steps in
 * flight, as the daemon runs them; wall-clock time; medians. Sequences have caches of their
 * own, filled by prefill of the first few and copies of their blocks.
 *
 *   bench_cuda_engine --plugin build/vramd-cuda.so [--type bf16|f16|q8_0|q4_0|q4_1]
 *       [--batches 1,4,16,64,256] [--context 1024] [--prefill 4096] [--steps 32] [--reps 3]
 *       [--kv f16|int8|int4|...] [--copy-gbs N --tflops N] [--small 1] [--commit TEXT] [--json FILE]
 *
 * copy-gbs, tflops: measured ceilings (bench_cuda), for the share of the roofline. small: a
 * tiny shape, for a try on the CPU. Batches that do not fit the device are left out, with a
 * line. Exit code 1 also where memory of the device was taken while serving, or more than
 * planned. */
#include <dlfcn.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/check.h"
#include "base/hash.h"
#include "engine/cpu/rope.h"
#include "engine/cuda/plugin.h"

enum {
    MAX_LIST = 16,
    BLOCK = 16,
    MAX_ROWS = 2048,
    MAX_SEQS = 512,
    SOURCES = 16,
    MAX_REPS = 16
};

typedef struct bench {
    const char *plugin_path, *type, *kv, *json_path, *commit;
    uint32_t batch[MAX_LIST], n_batches, context, prefill, steps, reps;
    double copy_gbs, tflops;
    bool small;
    model *model;
    engine_options opt;
    cuda_layout layout;
    cuda_host host;
    cuda_device device;
    const cuda_plugin *plugin;
    engine *engine;
    uint64_t reserved, used_before; /* ours by the engine's account; the driver's before */
    uint32_t per_seq;               /* blocks of a sequence */
    int32_t *history, *blocks;
    sampling greedy;
    FILE *json;
    bool first;
} bench;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

_Noreturn static void fail(const char *what, const err *e) {
    fprintf(stderr, "bench_cuda_engine: %s%s%s\n", what, e ? ": " : "", e ? e->text : "");
    exit(1);
}

static void *must_alloc(size_t n, size_t size) {
    void *p = calloc(n, size);
    if (!p) fail("no memory", NULL);
    return p;
}

/* ---- options ---- */

static void parse_batches(bench *b, const char *s) {
    char *end;
    for (b->n_batches = 0; *s && b->n_batches < MAX_LIST; s = *end ? end + 1 : end) {
        const unsigned long n = strtoul(s, &end, 10);
        if (end == s || n < 1 || n > MAX_SEQS) fail("--batches wants numbers up to 512", NULL);
        b->batch[b->n_batches++] = (uint32_t)n;
    }
}

static void parse_one(bench *b, const char *name, const char *value) {
    const struct {
        const char *name;
        uint32_t *to;
    } numbers[] = {{"--context", &b->context},
                   {"--prefill", &b->prefill},
                   {"--steps", &b->steps},
                   {"--reps", &b->reps}};
    const struct {
        const char *name, **to;
    } texts[] = {{"--plugin", &b->plugin_path},
                 {"--type", &b->type},
                 {"--kv", &b->kv},
                 {"--json", &b->json_path},
                 {"--commit", &b->commit}};
    for (int i = 0; i < 4; i++)
        if (strcmp(name, numbers[i].name) == 0) *numbers[i].to = (uint32_t)atoi(value);
    for (int i = 0; i < 5; i++)
        if (strcmp(name, texts[i].name) == 0) *texts[i].to = value;
    if (strcmp(name, "--batches") == 0) parse_batches(b, value);
    if (strcmp(name, "--copy-gbs") == 0) b->copy_gbs = atof(value);
    if (strcmp(name, "--tflops") == 0) b->tflops = atof(value);
    if (strcmp(name, "--small") == 0) b->small = atoi(value) != 0;
}

static void parse(bench *b, int argc, char **argv) {
    *b = (bench){.plugin_path = "./vramd-cuda.so",
                 .type = "bf16",
                 .commit = "",
                 .context = 1024,
                 .prefill = 4096,
                 .steps = 32,
                 .reps = 3,
                 .first = true};
    parse_batches(b, "1,4,16,64,256");
    for (int i = 1; i + 1 < argc; i += 2) parse_one(b, argv[i], argv[i + 1]);
    if (b->context < 1 || b->steps < 1 || b->reps < 1 || b->reps > MAX_REPS || b->prefill < 1)
        fail("--context, --prefill, --steps or --reps is out of range", NULL);
}

/* ---- what the plugin asks of its host ---- */

static status ones(const void *m, weight_id id, float *dst, err *e) {
    (void)e;
    for (uint32_t i = 0; i < ((const model *)m)->program.weights[id].cols; i++) dst[i] = 1;
    return OK;
}
static bool reserve(void *account, mem_class cls, uint64_t bytes) {
    (void)cls;
    *(uint64_t *)account += bytes;
    return true;
}
static void release(void *account, mem_class cls, uint64_t bytes) {
    (void)cls;
    *(uint64_t *)account -= bytes;
}
static status refuse(err *e, status code, const char *field, const char *text,
                     const char *hint) {
    (void)field, (void)hint;
    return err_set(e, code, "%s", text);
}
static void say(int level, const char *text) {
    if (level <= 1) fprintf(stderr, "%s\n", text);
}

/* ---- opening ---- */

static void make_model(bench *b) {
    model_config c;
    err e;
    const char *bf16 = strcmp(b->type, "bf16") == 0 ? "BF16" : b->type;
    dtype t = dtype_by_name(str_of(bf16));
    model_config_init(&c);
    snprintf(c.arch, sizeof c.arch, "llama");
    c.n_layers = b->small ? 2 : 32, c.n_embd = b->small ? 256 : 4096;
    c.n_heads = b->small ? 4 : 32, c.n_kv_heads = b->small ? 2 : 8;
    c.head_dim = b->small ? 64 : 128, c.n_ff = b->small ? 512 : 14336;
    c.n_vocab = b->small ? 1000 : 128256, c.n_ctx_train = 8192;
    c.rope.n_dims = c.head_dim, c.rope.theta = 5e5f;
    if (model_from_config(&b->model, &c, t, &e) != OK) fail("the model", &e);
}

static void load_plugin(bench *b) {
    err e;
    void *lib = dlopen(b->plugin_path, RTLD_NOW | RTLD_LOCAL);
    vramd_cuda_plugin_function *f = NULL;
    if (!lib) fail(dlerror(), NULL);
    *(void **)&f = dlsym(lib, "vramd_cuda_plugin");
    b->plugin = f ? f(CUDA_PLUGIN_ABI) : NULL;
    if (!b->plugin) fail("the plugin is of another version", NULL);
    if (b->plugin->probe(0, &b->device, &b->host, &e) != OK) fail("no device", &e);
    b->used_before = b->device.total_bytes - b->device.free_bytes;
}

static uint64_t kv_bytes_per_token(const bench *b) {
    return kv_block_bytes(&b->layout.kv[0], b->layout.kv_layers[0]) / BLOCK;
}

/* Of all groups: a tail has as many blocks as its group here, and its own window of them is read. */
static uint64_t block_bytes(const bench *b) {
    uint64_t n = 0;
    for (uint32_t g = 0; g < b->layout.n_groups; g++)
        n += kv_block_bytes(&b->layout.kv[g], b->layout.kv_layers[g]);
    return n;
}

static dtype kv_type_of(const bench *b) {
    if (!b->kv) return strcmp(b->type, "bf16") == 0 ? DT_BF16 : DT_F16;
    for (dtype t = 0; t < 256; t++) {
        const kv_type *k = kv_type_get(t);
        if (k && strcasecmp(dtype_name(t), b->kv) == 0) return t;
    }
    fail("--kv: no such type of cache", NULL);
}

/* Drops batches until the cache of the largest fits what the device has free. */
static void size_engine(bench *b) {
    uint32_t longest = b->context + b->steps + 8, most = 0;
    const dtype kv = kv_type_of(b);
    err e;
    b->opt = (engine_options){.max_rows = b->small ? 64 : MAX_ROWS,
                              .block_tokens = BLOCK,
                              .kv_k = kv,
                              .kv_v = kv,
                              .activations = ACTIVATION_AUTO,
                              .n_sms = b->device.n_sms};
    b->per_seq = (longest + BLOCK - 1) / BLOCK;
    const uint32_t alone = (b->prefill + BLOCK - 1) / BLOCK;
    for (uint32_t i = 0; i < b->n_batches; i++)
        if (b->batch[i] > most) most = b->batch[i];
    b->opt.max_model_len = longest > b->prefill ? longest : b->prefill;
    for (;; most = most / 4) {
        if (most == 0) fail("the device is too small for a single sequence", NULL);
        b->opt.max_seqs = b->opt.max_logit_rows = most;
        for (uint32_t g = 0; g < 2; g++)
            b->opt.n_blocks[g] = most * b->per_seq > alone ? most * b->per_seq : alone;
        if (cuda_layout_init(&b->layout, &b->model->program, &b->opt, &e) != OK)
            fail("the layout", &e);
        const uint64_t all = b->opt.n_blocks[0] * block_bytes(b);
        if (b->layout.fixed_bytes + all + (2ull << 30) < b->device.free_bytes || b->small)
            return;
        printf("batch %u does not fit the device\n", most);
        cuda_layout_clear(&b->layout);
    }
}

static void *pages(uint64_t bytes) {
    void *p = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!p) fail("no memory", NULL);
    memset(p, 0, bytes);
    return p;
}

static void open_engine(bench *b) {
    err e;
    b->host = (cuda_host){.abi = CUDA_PLUGIN_ABI,
                          .read_vector = ones,
                          .account = &b->reserved,
                          .reserve = reserve,
                          .release = release,
                          .fail = refuse,
                          .log = say};
    make_model(b);
    load_plugin(b);
    size_engine(b);
    const program *p = &b->model->program;
    double *freqs = must_alloc(p->config.rope.n_dims / 2 + 1, sizeof *freqs);
    b->host.model = b->model;
    b->host.rope_scale[0] = (float)rope_frequencies(&p->rope[0], NULL, freqs);
    b->host.freqs = freqs;
    b->host.staging = pages(b->layout.staging_bytes);
    b->host.bounce = pages(CUDA_BOUNCES * b->layout.bounce_bytes);
    const double t = now();
    if (b->plugin->open(&b->engine, 0, p, &b->opt, &b->layout, &b->host, &e) != OK)
        fail("opening the engine", &e);
    printf("%s, %s: opened in %.1f s\n", b->device.name, b->type, now() - t);
    free(b->host.bounce);
    b->host.bounce = NULL;
    sampling_defaults(&b->greedy);
    b->greedy.temperature = 0;
}

/* Sequence 0 may be long; blocks are dealt round the sequences. */
static void make_sequences(bench *b) {
    const uint32_t n = b->opt.max_seqs, len = b->opt.max_model_len + b->steps;
    b->history = must_alloc((size_t)n * len, sizeof *b->history);
    b->blocks = must_alloc((size_t)n * b->per_seq, sizeof *b->blocks);
    for (size_t i = 0; i < (size_t)n * len; i++)
        b->history[i] = (int32_t)(hash_mix(i) % b->model->program.config.n_vocab);
    for (uint32_t s = 0; s < n; s++)
        for (uint32_t i = 0; i < b->per_seq; i++)
            b->blocks[s * b->per_seq + i] = (int32_t)(i * n + s);
}

/* ---- steps ---- */

static batch_seq part_of(const bench *b, uint32_t s, uint32_t row, uint32_t pos, uint32_t n) {
    return (batch_seq){
        .first_row = row,
        .n_rows = n,
        .first_pos = pos,
        .tokens = b->history + (size_t)s * (b->opt.max_model_len + b->steps),
        .input_from = -1,
        .blocks = {b->blocks + (size_t)s * b->per_seq, b->blocks + (size_t)s * b->per_seq},
        .n_blocks = {b->per_seq, b->per_seq},
        .n_logit_rows = 1,
        .sample = true,
        .n_score = -1,
        .params = &b->greedy,
        .n_prompt = pos + n};
}

static void submit(bench *b, const batch *in) {
    err e;
    if (b->plugin->submit(b->engine, in, &e) != OK) fail("submit", &e);
}
static void collect(bench *b) {
    err e;
    step_result out;
    if (b->plugin->collect(b->engine, &out, &e) != OK) fail("collect", &e);
}

/* Positions [0, n) of one sequence, chunk after chunk. */
static void prefill_one(bench *b, uint32_t s, uint32_t n, const int32_t *blocks,
                        uint32_t n_blocks) {
    for (uint32_t pos = 0; pos < n; pos += b->opt.max_rows) {
        const uint32_t rows = n - pos < b->opt.max_rows ? n - pos : b->opt.max_rows;
        batch_seq x = part_of(b, s, 0, pos, rows);
        for (uint32_t g = 0; g < 2 && blocks; g++)
            x.blocks[g] = blocks, x.n_blocks[g] = n_blocks;
        const batch in = {.seq = &x, .n_seqs = 1, .n_rows = rows, .n_logit_rows = 1};
        submit(b, &in);
        collect(b);
    }
}

/* The others' blocks are copies of the first ones'. */
static void fill_caches(bench *b) {
    const uint32_t n = b->opt.max_seqs, own = n < SOURCES ? n : SOURCES;
    for (uint32_t s = 0; s < own; s++) prefill_one(b, s, b->context, NULL, 0);
    static block_copy copies[2 * MAX_SEQS];
    for (uint32_t i = 0; i < b->per_seq && n > own; i++) {
        batch_seq x = part_of(b, 0, 0, b->context, 1);
        batch in = {.seq = &x, .n_seqs = 1, .n_rows = 1, .n_logit_rows = 1, .copies = copies};
        for (uint32_t g = 0; g < b->layout.n_groups; g++)
            for (uint32_t s = own; s < n; s++)
                copies[in.n_copies++] =
                    (block_copy){.from = b->blocks[s % own * b->per_seq + i],
                                 .to = b->blocks[s * b->per_seq + i],
                                 .group = g};
        submit(b, &in);
        collect(b);
    }
}

/* Seconds a step: each is queued before the tokens of the one before are here. */
static double decode_once(bench *b, uint32_t n) {
    static batch_seq seq[2][MAX_SEQS];
    const uint32_t warm = 3;
    double t = 0;
    for (uint32_t step = 0; step < warm + b->steps; step++) {
        batch_seq *x = seq[step % 2];
        if (step == warm) {
            collect(b); /* nothing is under way when the clock starts */
            t = now();
        }
        for (uint32_t i = 0; i < n; i++) {
            x[i] = part_of(b, i, i, b->context + step, 1);
            if (step) x[i].input_from = (int32_t)i;
        }
        const batch in = {.seq = x, .n_seqs = n, .n_rows = n, .n_logit_rows = n};
        submit(b, &in);
        if (step && step != warm) collect(b);
    }
    collect(b);
    return (now() - t) / b->steps;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *v, uint32_t n) {
    qsort(v, n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* ---- floors and rows ---- */

/* Bytes of the matrices that every step reads: all but the embedding, and that one too where it
 * is the head. */
static double step_weight_bytes(const bench *b, double *params) {
    const program *p = &b->model->program;
    double bytes = 0;
    *params = 0;
    for (weight_id i = 0; i < p->n_weights; i++) {
        const weight *w = &p->weights[i];
        if (w->role == WEIGHT_VECTOR || (w->role == WEIGHT_EMBED && !p->config.tied_head))
            continue;
        const dtype t = b->layout.places[b->layout.weights[i].place].type;
        bytes += (double)cu_matrix_bytes(t, w->rows, w->cols);
        *params += (double)w->rows * w->cols;
    }
    return bytes;
}

static void put_row(bench *b, const char *name, uint32_t n, uint32_t context, double seconds,
                    double tokens, double floor_s) {
    const double share = floor_s / seconds;
    printf(
        "%-8s %-5s batch %3u context %5u  %9.3f ms  %9.1f tokens/s  floor %8.3f ms %5.1f%%\n",
        name, b->type, n, context, 1e3 * seconds, tokens / seconds, 1e3 * floor_s, 100 * share);
    fflush(stdout);
    if (!b->json) return;
    fprintf(b->json,
            "%s\n  {\"case\": \"%s\", \"type\": \"%s\", \"batch\": %u, \"context\": %u, "
            "\"ms\": %.4f, \"tokens_per_s\": %.2f, \"floor_ms\": %.4f}",
            b->first ? "" : ",", name, b->type, n, context, 1e3 * seconds, tokens / seconds,
            1e3 * floor_s);
    b->first = false;
}

static double longer(double bytes, double flops, const bench *b) {
    if (b->copy_gbs <= 0 || b->tflops <= 0) return 0;
    return fmax(bytes / (b->copy_gbs * 1e9), flops / (b->tflops * 1e12));
}

static void run_decode(bench *b) {
    double params, t[MAX_REPS], weights = step_weight_bytes(b, &params);
    const model_config *c = &b->model->program.config;
    fill_caches(b);
    for (uint32_t i = 0; i < b->n_batches; i++) {
        const uint32_t n = b->batch[i];
        if (n > b->opt.max_seqs) continue;
        for (uint32_t r = 0; r < b->reps; r++) t[r] = decode_once(b, n);
        const double context = b->context + 3 + b->steps / 2.0;
        const double kv = n * context * (double)kv_bytes_per_token(b);
        const double attention = 4.0 * n * context * c->n_heads * c->head_dim * c->n_layers;
        put_row(b, "decode", n, b->context, median(t, b->reps), n,
                longer(weights + kv, 2 * params * n + attention, b));
    }
}

static void run_prefill(bench *b) {
    double params, t[MAX_REPS];
    const model_config *c = &b->model->program.config;
    const double n = b->prefill, bytes = step_weight_bytes(b, &params);
    const uint32_t n_blocks = (b->prefill + BLOCK - 1) / BLOCK;
    int32_t *blocks = must_alloc(n_blocks, sizeof *blocks);
    for (uint32_t i = 0; i < n_blocks; i++) blocks[i] = (int32_t)i;
    prefill_one(b, 0, b->prefill, blocks, n_blocks);
    for (uint32_t r = 0; r < b->reps; r++) {
        const double start = now();
        prefill_one(b, 0, b->prefill, blocks, n_blocks);
        t[r] = now() - start;
    }
    /* The head computes one row a chunk; half of the scores are masked out. */
    const double head = (double)c->n_vocab * c->n_embd;
    const double flops =
        2 * (params - head) * n + 2 * n * n * c->n_heads * c->head_dim * c->n_layers;
    put_row(b, "prefill", 1, b->prefill, median(t, b->reps), n, longer(bytes, flops, b));
    free(blocks);
}

/* Returns what is wrong: memory taken while the engine served, or more than planned; or NULL.
 */
static const char *compare_plan(bench *b, const cuda_memory *opened) {
    cuda_memory m;
    terms t = {0};
    b->plugin->memory(b->engine, &m);
    cuda_layout_terms(&b->layout, &b->model->program, &b->opt, &t);
    const double mib = 1048576, assumed = (double)terms_sum(&t, MEM_CONTEXT) / mib;
    const double outside = (double)(m.context_bytes + m.library_bytes + m.graph_bytes) / mib;
    const double driver = ((double)m.driver_used - (double)b->used_before) / mib;
    const double rest = driver - outside - (double)m.arena_bytes / mib;
    const double moved = ((double)m.driver_used - (double)opened->driver_used) / mib;
    printf(
        "memory: arena %.1f MiB (accounted %.1f), context %.1f, cuBLASLt %.1f, graphs %.1f "
        "(planned for these %.1f); the driver counts %.1f, beyond all that %.1f; moved while "
        "serving %.1f\n",
        (double)m.arena_bytes / mib, (double)b->reserved / mib, (double)m.context_bytes / mib,
        (double)m.library_bytes / mib, (double)m.graph_bytes / mib, assumed, driver, rest,
        moved);
    if (b->json)
        fprintf(b->json,
                ",\n  {\"case\": \"memory\", \"type\": \"%s\", \"arena_bytes\": %" PRIu64
                ", \"context_bytes\": %" PRIu64 ", \"library_bytes\": %" PRIu64
                ", \"graph_bytes\": %" PRIu64 ", \"planned_outside_mib\": %.1f, "
                "\"driver_mib\": %.1f, \"beyond_mib\": %.1f, \"moved_mib\": %.1f}",
                b->type, m.arena_bytes, m.context_bytes, m.library_bytes, m.graph_bytes,
                assumed, driver, rest, moved);
    terms_clear(&t);
    if (moved > 0) return "memory of the device moved while serving";
    return outside + rest > assumed ? "the driver counts more than was planned" : NULL;
}

static void open_json(bench *b) {
    char date[32];
    const time_t t = time(NULL);
    struct tm parts;
    if (!b->json_path) return;
    b->json = fopen(b->json_path, "w");
    if (!b->json) fail(b->json_path, NULL);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%MZ", gmtime_r(&t, &parts));
    fprintf(b->json,
            "{\n \"bench\": \"cuda_engine\",\n \"date\": \"%s\",\n \"commit\": \"%s\",\n"
            " \"machine\": {\"device\": \"%s\", \"multiprocessors\": %u, \"driver\": %u},\n"
            " \"model\": \"%s\",\n \"copy_gb_per_s\": %.1f,\n \"gemm_tflops\": %.1f,\n"
            " \"rows\": [",
            date, b->commit, b->device.name, b->device.n_sms, b->device.driver,
            b->small ? "tiny" : "Llama-3-8B shape, random weights", b->copy_gbs, b->tflops);
}

int main(int argc, char **argv) {
    static bench b;
    cuda_memory opened;
    parse(&b, argc, argv);
    open_engine(&b);
    open_json(&b);
    make_sequences(&b);
    b.plugin->memory(b.engine, &opened);
    run_decode(&b);
    run_prefill(&b);
    const char *wrong = compare_plan(&b, &opened);
    if (b.json) fprintf(b.json, "\n ]\n}\n");
    if (b.json && fclose(b.json) != 0) fail(b.json_path, NULL);
    b.plugin->close(b.engine);
    if (b.reserved) fail("the account is not empty after closing", NULL);
    cuda_layout_clear(&b.layout);
    model_close(b.model);
    free(b.host.staging);
    free((void *)b.host.freqs);
    free(b.history);
    free(b.blocks);
    if (wrong) fail(wrong, NULL);
    return 0;
}
