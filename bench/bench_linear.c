/* module: engine */
/* Linear layers alone, 30 layers and a head in the shape of SmolLM2-135M (qkv 960, o 576, gate
 * and up 1536 each over the width; down 576 over 1536; head of 48,960 in 30 slices), every
 * layer with memory of its own, so that a pass streams the model's bytes as a decode step does.
 * Beside it the ceilings of the machine, measured in the same run: bytes a second by plain
 * reading of as many bytes, and vpdpbusd. Of each call the shortest of all passes counts, then
 * they are summed: what else runs on the machine disturbs some calls, not the same ones every
 * time.
 *
 * All quantised types (the default): at a width of 768, which blocks of 256 divide, all
 * matrices of the one type; kinds with groups by 128 with scales of F16. The types take turns, round after round, and medians over the
 * rounds are given: also of the share of the read rate, and of the ratio in the same round to Q4_1, or to Q8_0 of types of 8 bits.
 * Published: what safetensors of GPTQ, AWQ and compressed-tensors are held as, by groups of 128 and of 32, against a bar: each computes as
 * many products a second as Q4_1 or Q8_0, which has as many bits a code, but for a tenth. Ends with 1 where one misses it. One type: at
 * SmolLM2's width of 576, its head Q8_0; more batch sizes.
 *
 *   bench_linear [--type all|published|q4_1|q8_0|f16|...] [--isa plain|avx2|avx512|amx] [--family int8|f32|bf16]
 *                [--passes N] [--rounds N] [--rows M] [--threads N] [--json FILE] */
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/half.h"
#include "base/hash.h"
#include "engine/cpu/linear.h"
#include "model/words.h"

enum { LAYERS = 30, KINDS = 5, MAX_THREADS = 8, MAX_ROWS = 512, WIDEST = 3072 };
enum { WIDE = 1536, STREAM_BYTES = 800 << 20, MAX_ROUNDS = 32, N_ALL_ROWS = 4 };

typedef struct kind {
    const char *name;
    uint32_t n_out;
    bool over_ff; /* inputs: 1536; else the width */
} kind;
static const kind kinds[KINDS] = {{"qkv", 960, false},
                                  {"o", 576, false},
                                  {"gate_up", 3072, false},
                                  {"down", 576, true},
                                  {"head", 1632, false}};

/* The weights of a model. */
typedef struct weights {
    dtype type;
    packed w[KINDS][LAYERS];
    uint64_t bytes[KINDS], all;
} weights;

typedef struct bench {
    const linear_kernels *k;
    weights *m; /* what is measured */
    uint32_t width;
    act in[2]; /* of the width and of 1536 */
    float *y;
    uint32_t rows, threads;
    int passes;
    activation_dtype family;
    double best[KINDS], best_total; /* seconds */
    double call[LAYERS * KINDS];
    const uint64_t *stream;
    uint64_t stream_words;
    double read_gb, vnni_gops;
    atomic_uint arrived;
} bench;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *must_alloc(uint64_t bytes) {
    void *p = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    CHECK(p != NULL);
    return p;
}

/* Waits until all threads came; *round counts this thread's barriers. */
static void barrier(bench *b, uint32_t *round) {
    uint32_t want = ++*round * b->threads;
    atomic_fetch_add(&b->arrived, 1);
    while (atomic_load(&b->arrived) < want) __builtin_ia32_pause();
}

/* Any bytes do as weights; scales and minima must be small halves, or sums become infinite. */
static void fill_file(uint8_t *file, dtype t, uint64_t blocks, uint64_t seed) {
    const dtype_block info = dtype_block_of(t);
    const words_type words = words_type_of(t);
    const uint32_t at = words.scale_at > 0 ? (uint32_t)words.scale_at
                        : t == DT_Q2_K     ? 80
                        : t == DT_Q3_K     ? 108
                        : t == DT_Q6_K     ? 208
                                           : 0;
    const bool min =
        t == DT_Q4_1 || t == DT_Q5_1 || t == DT_Q2_K || t == DT_Q4_K || t == DT_Q5_K;
    uint16_t d = half_of_float(0.01f), m = half_of_float(-0.07f);
    for (uint64_t i = 0; i + 8 <= blocks * info.bytes; i += 8) {
        uint64_t v = hash_mix(seed += 0x9e3779b97f4a7c15u);
        if (info.elems == 1) v = (v & 0x83ff83ff83ff83ffu) | 0x2000200020002000u;
        memcpy(file + i, &v, 8);
    }
    if (info.elems == 1) return;
    for (uint64_t i = 0; i < blocks; i++) {
        if (words.scale_at >= 0) memcpy(file + i * info.bytes + at, &d, 2);
        if (min) memcpy(file + i * info.bytes + at + 2, &m, 2);
    }
}

/* Returns the seconds that packing took. */
static double make_weights(weights *m, dtype layers, dtype head, uint32_t width) {
    uint8_t *file = must_alloc((uint64_t)WIDEST * WIDE * 4);
    double spent = 0;
    m->type = layers;
    m->all = 0;
    for (int i = 0; i < KINDS; i++) {
        const kind *s = &kinds[i];
        const uint32_t n_in = s->over_ff ? WIDE : width;
        dtype t = i == KINDS - 1 ? head : layers;
        uint64_t blocks = (uint64_t)s->n_out * n_in / dtype_block_of(t).elems;
        uint64_t bytes = packed_bytes(t, s->n_out, n_in);
        m->all += m->bytes[i] = bytes * LAYERS;
        for (uint32_t c = 0; c < LAYERS; c++) {
            uint8_t *tiles = must_alloc(bytes);
            memset(tiles, 0, bytes); /* page faults are not packing */
            fill_file(file, t, blocks, (uint64_t)i * LAYERS + c);
            double t0 = now();
            packed_store(tiles, t, s->n_out, n_in, 0, s->n_out, file);
            spent += now() - t0;
            m->w[i][c] = (packed){tiles, t, s->n_out, n_in, NULL};
        }
    }
    free(file);
    return spent;
}

static void make_acts(bench *b) {
    const uint32_t widths[2] = {b->width, WIDE};
    for (int i = 0; i < 2; i++) {
        uint32_t n = widths[i];
        b->in[i] = (act){b->family, n, MAX_ROWS, must_alloc((uint64_t)MAX_ROWS * n * 4),
                         must_alloc(act_bytes_of(b->family, n, MAX_ROWS))};
        for (uint64_t j = 0; j < (uint64_t)MAX_ROWS * n; j++)
            b->in[i].f[j] = (float)(int64_t)hash_mix(j) * 0x1p-63f;
        for (uint32_t r = 0; r < MAX_ROWS; r++)
            b->k->quantise(b->in[i].f + (uint64_t)r * n, &b->in[i], r);
    }
    b->y = must_alloc((uint64_t)MAX_ROWS * WIDEST * 4);
    memset(b->y, 0, (uint64_t)MAX_ROWS * WIDEST * 4);
}

typedef uint64_t wide __attribute__((vector_size(16)));

/* Reads n words, 64-byte aligned, with the widest loads of any x86-64; returns their sum, so
 * that nothing is left out. */
static uint64_t read_words(const uint64_t *p, uint64_t n) {
    const wide *from = (const wide *)p, *end = from + n / 2;
    wide a = {0}, b = {0}, c = {0}, d = {0};
    for (; from < end; from += 4) {
        __builtin_prefetch(from + 256);
        a += from[0], b += from[1], c += from[2], d += from[3];
    }
    a += b + c + d;
    return a[0] + a[1];
}

/* Reading, in as many pieces as a pass has calls; of each the shortest time counts, too. */
static void measure_reading(bench *b, uint32_t id, uint32_t *round) {
    const uint64_t n = b->stream_words / (LAYERS * KINDS) / b->threads / 8 * 8;
    double all = 0;
    for (int pass = 0; pass < b->passes; pass++)
        for (uint32_t call = 0; call < LAYERS * KINDS; call++) {
            barrier(b, round);
            double t0 = now();
            uint64_t sum = read_words(b->stream + (call * b->threads + id) * n, n);
            __asm__ volatile("" ::"r"(sum));
            barrier(b, round);
            double spent = now() - t0;
            if (id == 0 && (pass == 0 || spent < b->call[call])) b->call[call] = spent;
        }
    if (id) return;
    for (uint32_t call = 0; call < LAYERS * KINDS; call++) all += b->call[call];
    b->read_gb = (double)(n * 8 * b->threads * LAYERS * KINDS) / all * 1e-9;
}

/* Where the CPU has it: 8 independent chains of vpdpbusd. */
static void measure_vnni(bench *b, uint32_t id, uint32_t *round) {
    enum { N = 20000 };
    for (int pass = 0; pass < 100 && b->k->isa == ISA_AVX512; pass++) {
        barrier(b, round);
        double t0 = now();
        for (int i = 0; i < N; i++)
            __asm__ volatile(
                "vpdpbusd %%zmm0, %%zmm0, %%zmm1\n vpdpbusd %%zmm0, %%zmm0, %%zmm2\n"
                "vpdpbusd %%zmm0, %%zmm0, %%zmm3\n vpdpbusd %%zmm0, %%zmm0, %%zmm4\n"
                "vpdpbusd %%zmm0, %%zmm0, %%zmm5\n vpdpbusd %%zmm0, %%zmm0, %%zmm6\n"
                "vpdpbusd %%zmm0, %%zmm0, %%zmm7\n vpdpbusd %%zmm0, %%zmm0, %%zmm8\n"
                :
                :
                : "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8");
        barrier(b, round);
        double gops = 8.0 * N * 128 * b->threads / (now() - t0) * 1e-9;
        if (id == 0 && gops > b->vnni_gops) b->vnni_gops = gops;
    }
}

static void measure_ceilings(bench *b, uint32_t id, uint32_t *round) {
    measure_reading(b, id, round);
    measure_vnni(b, id, round);
}

static void run_kind(bench *b, int i, uint32_t layer, uint32_t id) {
    const packed *w = &b->m->w[i][layer];
    const act *a = &b->in[kinds[i].over_ff];
    const linear_part p = linear_share(b->family, b->rows, w->n_out, b->threads, id);
    const linear_call call = {.w = w, .a = a, .y = b->y, .ldy = w->n_out};
    b->k->linear(&call, p.rows, p.outs);
}

/* Thread 0 keeps the shortest time of each call. */
static void run_passes(bench *b, uint32_t id, uint32_t *round) {
    for (int pass = 0; pass < b->passes; pass++)
        for (uint32_t call = 0; call < LAYERS * KINDS; call++) {
            barrier(b, round);
            double t0 = now();
            run_kind(b, (int)(call % KINDS), call / KINDS, id);
            barrier(b, round);
            double spent = now() - t0;
            if (id == 0 && (pass == 0 || spent < b->call[call])) b->call[call] = spent;
        }
    if (id) return;
    b->best_total = 0;
    memset(b->best, 0, sizeof b->best);
    for (uint32_t call = 0; call < LAYERS * KINDS; call++) {
        b->best[call % KINDS] += b->call[call];
        b->best_total += b->call[call];
    }
}

typedef struct worker {
    bench *b;
    uint32_t id;
    void (*work)(bench *, uint32_t id, uint32_t *round);
} worker;

static void *worker_main(void *self) {
    worker *w = self;
    uint32_t round = 0;
    w->work(w->b, w->id, &round);
    return NULL;
}

static void run_threads(bench *b, void (*work)(bench *, uint32_t, uint32_t *)) {
    pthread_t t[MAX_THREADS];
    worker w[MAX_THREADS];
    atomic_store(&b->arrived, 0);
    for (uint32_t i = 0; i < b->threads; i++) {
        w[i] = (worker){b, i, work};
        if (i) CHECK(pthread_create(&t[i], NULL, worker_main, &w[i]) == 0);
    }
    worker_main(&w[0]);
    for (uint32_t i = 1; i < b->threads; i++) pthread_join(t[i], NULL);
}

static double ops(const bench *b, int i) {
    const uint32_t n_in = kinds[i].over_ff ? WIDE : b->width;
    return 2.0 * kinds[i].n_out * n_in * LAYERS * b->rows;
}

static double all_ops(const bench *b) {
    double all = 0;
    for (int i = 0; i < KINDS; i++) all += ops(b, i);
    return all;
}

static void report(const bench *b, FILE *json, bool first) {
    double gb = (double)b->m->all / b->best_total * 1e-9,
           gops = all_ops(b) / b->best_total * 1e-9;
    printf("%4u rows %u threads: %8.3f ms %6.1f GB/s (%3.0f%%) %6.1f GOPS (%3.0f%%) |", b->rows,
           b->threads, b->best_total * 1e3, gb, 100 * gb / b->read_gb, gops,
           b->vnni_gops > 0 ? 100 * gops / b->vnni_gops : 0.0);
    for (int i = 0; i < KINDS; i++)
        printf(" %s %.1f/%.0f", kinds[i].name, (double)b->m->bytes[i] / b->best[i] * 1e-9,
               ops(b, i) / b->best[i] * 1e-9);
    printf("\n");
    if (json)
        fprintf(json,
                "%s\n {\"type\": \"%s\", \"rows\": %u, \"threads\": %u, \"ms\": %.4f, "
                "\"gb_per_s\": %.2f, \"read_gb_per_s\": %.2f, \"gops\": %.1f, "
                "\"vpdpbusd_gops\": %.1f}",
                first ? "" : ",", dtype_name(b->m->type), b->rows, b->threads,
                b->best_total * 1e3, gb, b->read_gb, gops, b->vnni_gops);
}

/* ---- one type ---- */

static void one_type(bench *b, dtype t, uint32_t only_rows, uint32_t only_threads, FILE *json) {
    static const uint32_t rows[] = {1, 2, 4, 8, 16, 32, 64, 128, 512};
    static weights m;
    double pack = make_weights(&m, t, linear_wants_int8(t) ? DT_Q8_0 : t, b->width);
    bool first = true;
    b->m = &m;
    b->stream_words = m.all / 8; /* as much as the weights: the same share of it is in cache */
    printf("%s: packed %.1f MB in %.1f ms on one thread\n", dtype_name(t), (double)m.all * 1e-6,
           pack * 1e3);
    for (b->threads = 1; b->threads <= 2; b->threads++) {
        if (only_threads && only_threads != b->threads) continue;
        b->read_gb = b->vnni_gops = 0;
        run_threads(b, measure_ceilings);
        printf("ceilings, %u threads: read %.1f GB/s, vpdpbusd %.0f GOPS\n", b->threads,
               b->read_gb, b->vnni_gops);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            if (only_rows && only_rows != rows[i]) continue;
            b->rows = rows[i];
            run_threads(b, run_passes);
            report(b, json, first);
            first = false;
        }
    }
}

/* ---- all types in turn ---- */

/* The first two are what the others are compared with. */
enum { BASE_4, BASE_8, N_BASES };
typedef struct choice {
    dtype type;
    uint32_t group; /* of kinds with groups */
} choice;
#define X(name, ...) {DT_##name, 0},
static const choice all_types[] = {{DT_Q4_1, 0},  {DT_Q8_0, 0},   {DT_Q4_0, 0},  {DT_Q5_0, 0},
                                   {DT_Q5_1, 0},  {DT_IQ4_NL, 0}, {DT_MXFP4, 0}, {DT_Q4_K, 0},
                                   {DT_Q5_K, 0},  {DT_IQ4_XS, 0}, {DT_Q2_K, 0},  {DT_Q3_K, 0},
                                   {DT_Q6_K, 0},  {DT_I4, 128},   {DT_I4Z, 128}, {DT_I8G, 128},
                                   {DT_I8Z, 128}, WORDS_LIST(X)},
                    published[] = {{DT_Q4_1, 0},  {DT_Q8_0, 0},  {DT_I4, 128}, {DT_I4Z, 128},
                                   {DT_I8G, 128}, {DT_I8Z, 128}, {DT_I4, 32},  {DT_I4Z, 32},
                                   {DT_I8G, 32},  {DT_I8Z, 32}};
#undef X
enum { N_ALL = sizeof all_types / sizeof *all_types };
enum { N_PUBLISHED = sizeof published / sizeof *published };
static const uint32_t all_rows[N_ALL_ROWS] = {1, 4, 32, 128};

typedef struct sample {
    double ms, read_gb, vnni_gops, share, ratio; /* ratio: of the base's time to this one */
} sample;

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(const sample *s, int n, size_t field) {
    double v[MAX_ROUNDS];
    for (int i = 0; i < n; i++) memcpy(&v[i], (const char *)&s[i] + field, sizeof v[i]);
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* What a type is compared with. */
static int base_of(dtype t) {
    return 8.0 * dtype_block_of(t).bytes / dtype_block_of(t).elems < 8 ? BASE_4 : BASE_8;
}

/* Returns the ratio to the base. */
static double report_medians(bench *b, const sample *s, int n, FILE *json, bool first) {
    double ms = median(s, n, offsetof(sample, ms));
    double gops = all_ops(b) / ms * 1e-6, gb = (double)b->m->all / ms * 1e-6;
    double share = median(s, n, offsetof(sample, share));
    double ratio = median(s, n, offsetof(sample, ratio));
    const char *base = dtype_name(all_types[base_of(b->m->type)].type);
    const uint32_t group = dtype_group(b->m->type); /* 0: it has none */
    char name[32];
    snprintf(name, sizeof name, group ? "%s by %u" : "%s", dtype_name(b->m->type), group);
    printf("%-10s %4u rows %u threads: %8.3f ms %6.1f GB/s (%3.0f%%) %6.1f GOPS (%3.0f%% of "
           "%s)\n",
           name, b->rows, b->threads, ms, gb, 100 * share, gops, 100 * ratio, base);
    if (json)
        fprintf(json,
                "%s\n {\"type\": \"%s\", \"rows\": %u, \"threads\": %u, \"ms\": %.4f, "
                "\"gb_per_s\": %.2f, \"read_gb_per_s\": %.2f, \"share_of_read\": %.3f, "
                "\"gops\": %.1f, \"vpdpbusd_gops\": %.1f, \"base\": \"%s\", \"gops_to_base\": "
                "%.3f}",
                first ? "" : ",", name, b->rows, b->threads, ms, gb,
                median(s, n, offsetof(sample, read_gb)), share, gops,
                median(s, n, offsetof(sample, vnni_gops)), base, ratio);
    return ratio;
}

/* The types of a list in turn; returns how many figures are below the bar. */
static int every_type(bench *b, const choice *list, int n, int rounds, uint32_t only_rows,
                      double bar, FILE *json) {
    static weights m[N_ALL];
    static sample all[N_ALL][N_ALL_ROWS][MAX_ROUNDS];
    int missed = 0;
    bool first = true;
    CHECK(n <= N_ALL);
    for (int t = 0; t < n; t++) {
        dtype type = list[t].type;
        if (list[t].group) type = dtype_grouped(type, DT_F16, list[t].group);
        make_weights(&m[t], type, type, b->width);
    }
    for (int round = 0; round < rounds; round++)
        for (int t = 0; t < n; t++) {
            b->m = &m[t];
            b->stream_words = b->m->all / 8;
            b->read_gb = b->vnni_gops = 0;
            run_threads(b, measure_ceilings);
            for (int i = 0; i < N_ALL_ROWS; i++) {
                if (only_rows && only_rows != all_rows[i]) continue;
                b->rows = all_rows[i];
                run_threads(b, run_passes);
                all[t][i][round] =
                    (sample){b->best_total * 1e3, b->read_gb, b->vnni_gops,
                             (double)b->m->all / b->best_total * 1e-9 / b->read_gb, 0};
            }
        }
    for (int t = 0; t < n; t++)
        for (int i = 0; i < N_ALL_ROWS; i++) {
            if (only_rows && only_rows != all_rows[i]) continue;
            const sample *base = all[base_of(m[t].type)][i];
            for (int r = 0; r < rounds; r++) all[t][i][r].ratio = base[r].ms / all[t][i][r].ms;
            b->m = &m[t];
            b->rows = all_rows[i];
            missed += report_medians(b, all[t][i], rounds, json, first) < bar;
            first = false;
        }
    return missed;
}

static void print_cpu_flags(FILE *json) {
    char line[8192];
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "flags", 5) == 0) {
            line[strcspn(line, "\n")] = 0;
            char *at = strchr(line, ':');
            fprintf(json, "%s", at ? at + 2 : "");
            break;
        }
    if (f) fclose(f);
}

/* The value of an option, or what is given. */
static const char *option(int n, char **v, const char *name, const char *otherwise) {
    for (int i = 1; i + 1 < n; i++)
        if (strcmp(v[i], name) == 0) return v[i + 1];
    return otherwise;
}

int main(int argc, char **argv) {
    static bench b;
    const char *isa = option(argc, argv, "--isa", "auto");
    const char *family = option(argc, argv, "--family", "int8");
    const char *path = option(argc, argv, "--json", NULL);
    const char *type = option(argc, argv, "--type", "all");
    const bool safetensors = strcmp(type, "published") == 0,
               all = strcmp(type, "all") == 0 || safetensors;
    const double bar = safetensors ? 0.9 : 0;
    int missed = 0;
    dtype t = all ? DT_Q4_1 : dtype_by_name(str_of(type));
    uint32_t only_rows = (uint32_t)atoi(option(argc, argv, "--rows", "0"));
    uint32_t only_threads = (uint32_t)atoi(option(argc, argv, "--threads", "0"));
    int rounds = atoi(option(argc, argv, "--rounds", "5"));
    b.passes = atoi(option(argc, argv, "--passes", all ? "2" : "5"));
    if (!activation_dtype_by_name(str_of(family), &b.family)) b.family = ACTIVATION_INT8;
    b.width = all || !linear_supports(t, 576) ? 768 : 576;
    cpu_isa of = ISA_AUTO;
    cpu_isa_by_name(str_of(isa), &of);
    b.k = b.family == ACTIVATION_BF16 ? linear_kernels_bf16(of) : linear_kernels_get(of);
    if (!b.k || !linear_supports(t, b.width) || only_rows > MAX_ROWS ||
        only_threads > MAX_THREADS || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "bench_linear: an option is out of range; see the top of its source\n");
        return 2;
    }
    make_acts(&b);
    uint64_t *stream = must_alloc(STREAM_BYTES);
    memset(stream, 1, STREAM_BYTES);
    b.stream = stream;
    FILE *json = path ? fopen(path, "w") : NULL;
    if (json) {
        fprintf(json, "{\"bench\": \"linear\", \"isa\": %d, \"flags\": \"", (int)b.k->isa);
        print_cpu_flags(json);
        fprintf(json, "\",\n\"rows\": [");
    }
    if (all) {
        b.threads = only_threads ? only_threads : 2;
        missed = every_type(&b, safetensors ? published : all_types,
                            safetensors ? N_PUBLISHED : N_ALL, rounds, only_rows, bar, json);
        if (safetensors)
            printf("%d of %d figures below %.0f%%\n", missed,
                   N_PUBLISHED * (only_rows ? 1 : N_ALL_ROWS), 100 * bar);
    } else {
        one_type(&b, t, only_rows, only_threads, json);
    }
    if (json) {
        fprintf(json, "]}\n");
        fclose(json);
    }
    return missed > 0;
}
