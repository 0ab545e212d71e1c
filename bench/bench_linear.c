/* room: engine */
/* Linear layers alone, at the shapes of SmolLM2-135M: 30 layers of Q4_1 (qkv 960, o 576, gate
 * and up 1536 each over 576; down 576 over 1536) and a Q8_0 head of 49,152, every layer with
 * memory of its own, so that a pass streams the model's 98 MB as a decode step does. Beside it
 * the ceilings of the machine, measured in the same run: bytes a second by plain reading of as
 * many bytes, and vpdpbusd. Of each call the shortest of all passes counts, then they are
 * summed: what else runs on the machine disturbs some calls, not the same ones every time.
 *
 *   bench_linear [--isa plain|avx2|avx512] [--type q4_1|q4_0|q8_0|f16] [--family int8|f32]
 *                [--passes N] [--rows M] [--threads N] [--json FILE] */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/half.h"
#include "base/hash.h"
#include "engine/cpu/linear.h"

enum { LAYERS = 30, KINDS = 5, MAX_THREADS = 8, MAX_ROWS = 512, WIDEST = 1536, HEAD = 49152 };

typedef struct kind {
    const char *name;
    uint32_t n_out, n_in, n_copies;
} kind;
static const kind kinds[KINDS] = {{"qkv", 960, 576, LAYERS},
                                  {"o", 576, 576, LAYERS},
                                  {"gate_up", 3072, 576, LAYERS},
                                  {"down", 576, 1536, LAYERS},
                                  {"head", HEAD, 576, 1}};

typedef struct bench {
    const linear_kernels *k;
    packed w[KINDS][LAYERS];
    uint64_t bytes[KINDS];
    act in[2]; /* of 576 and of 1536 */
    float *y;
    uint32_t rows, threads;
    int passes;
    activation_dtype family;
    double best[KINDS], best_total; /* seconds */
    double call[LAYERS * (KINDS - 1) + 1];
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
    const dtype_info *info = dtype_get(t);
    uint16_t d = half_of_float(0.01f), m = half_of_float(-0.07f);
    for (uint64_t i = 0; i + 8 <= blocks * info->block_bytes; i += 8) {
        uint64_t v = hash_mix(seed += 0x9e3779b97f4a7c15u);
        if (info->block_elems == 1) v = (v & 0x83ff83ff83ff83ffu) | 0x2000200020002000u;
        memcpy(file + i, &v, 8);
    }
    if (info->block_elems == 1) return;
    for (uint64_t i = 0; i < blocks; i++) {
        memcpy(file + i * info->block_bytes, &d, 2);
        if (t == DT_Q4_1) memcpy(file + i * info->block_bytes + 2, &m, 2);
    }
}

static double make_weights(bench *b, dtype layers) {
    uint8_t *file = must_alloc((uint64_t)HEAD * 576 * 4);
    double spent = 0;
    for (int i = 0; i < KINDS; i++) {
        const kind *s = &kinds[i];
        dtype t = i == KINDS - 1 && linear_wants_int8(layers) ? DT_Q8_0 : layers;
        uint64_t blocks = (uint64_t)s->n_out * s->n_in / dtype_get(t)->block_elems;
        uint64_t bytes = packed_bytes(t, s->n_out, s->n_in);
        b->bytes[i] = bytes * s->n_copies;
        for (uint32_t c = 0; c < s->n_copies; c++) {
            uint8_t *tiles = must_alloc(bytes);
            memset(tiles, 0, bytes); /* page faults are not packing */
            fill_file(file, t, blocks, (uint64_t)i * LAYERS + c);
            double t0 = now();
            packed_store(tiles, t, s->n_out, s->n_in, 0, s->n_out, file);
            spent += now() - t0;
            b->w[i][c] = (packed){tiles, t, s->n_out, s->n_in};
        }
    }
    free(file);
    return spent;
}

static void make_acts(bench *b) {
    const uint32_t widths[2] = {576, 1536};
    for (int i = 0; i < 2; i++) {
        uint32_t n = widths[i];
        b->in[i] = (act){b->family, n, MAX_ROWS, must_alloc((uint64_t)MAX_ROWS * n * 4),
                         must_alloc(act_bytes(n, MAX_ROWS))};
        for (uint64_t j = 0; j < (uint64_t)MAX_ROWS * n; j++)
            b->in[i].f[j] = (float)(int64_t)hash_mix(j) * 0x1p-63f;
        for (uint32_t r = 0; r < MAX_ROWS; r++)
            b->k->quantise(b->in[i].f + (uint64_t)r * n, &b->in[i], r);
    }
    b->y = must_alloc((uint64_t)MAX_ROWS * HEAD * 4);
    memset(b->y, 0, (uint64_t)MAX_ROWS * HEAD * 4);
}

/* Best of 20 rounds: reading, and (where the CPU has it) 12 independent vpdpbusd chains. */
static void measure_ceilings(bench *b, uint32_t id, uint32_t *round) {
    for (int pass = 0; pass < 20; pass++) {
        uint64_t n = b->stream_words / b->threads / 64 * 64, sum[8] = {0};
        const uint64_t *p = b->stream + id * n;
        barrier(b, round);
        double t0 = now();
        for (uint64_t i = 0; i < n; i += 8) {
            __builtin_prefetch(p + i + 512);
            for (int j = 0; j < 8; j++) sum[j] += p[i + (uint64_t)j];
        }
        for (int j = 0; j < 8; j++) __asm__ volatile("" ::"r"(sum[j]));
        barrier(b, round);
        double rate = (double)(n * 8 * b->threads) / (now() - t0) * 1e-9;
        if (id == 0 && rate > b->read_gb) b->read_gb = rate;
        if (b->k->isa != ISA_AVX512) continue;
        enum { N = 300000 };
        t0 = now();
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

static void run_kind(bench *b, int i, uint32_t layer, uint32_t id) {
    const packed *w = &b->w[i][layer];
    const act *a = &b->in[w->n_in == WIDEST];
    uint32_t r0, r1, o0, o1;
    linear_share(b->rows, w->n_out, b->threads, id, &r0, &r1, &o0, &o1);
    b->k->linear(w, a, r0, r1, o0, o1, NULL, NULL, 0, b->y, w->n_out);
}

/* Thread 0 keeps the shortest time of each call. */
static void run_passes(bench *b, uint32_t id, uint32_t *round) {
    const uint32_t n_calls = LAYERS * (KINDS - 1) + 1;
    for (int pass = 0; pass < b->passes; pass++)
        for (uint32_t step = 0; step < n_calls; step++) {
            int i = step == n_calls - 1 ? KINDS - 1 : (int)(step % (KINDS - 1));
            barrier(b, round);
            double t0 = now();
            run_kind(b, i, i == KINDS - 1 ? 0 : step / (KINDS - 1), id);
            barrier(b, round);
            double spent = now() - t0;
            if (id == 0 && (pass == 0 || spent < b->call[step])) b->call[step] = spent;
        }
    if (id) return;
    b->best_total = 0;
    memset(b->best, 0, sizeof b->best);
    for (uint32_t step = 0; step < n_calls; step++) {
        b->best[step == n_calls - 1 ? KINDS - 1 : step % (KINDS - 1)] += b->call[step];
        b->best_total += b->call[step];
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
    return 2.0 * kinds[i].n_out * kinds[i].n_in * kinds[i].n_copies * b->rows;
}

static void report(const bench *b, FILE *json, bool first) {
    double bytes = 0, all = 0;
    for (int i = 0; i < KINDS; i++) {
        bytes += (double)b->bytes[i];
        all += ops(b, i);
    }
    double gb = bytes / b->best_total * 1e-9, gops = all / b->best_total * 1e-9;
    printf("%4u rows %u threads: %8.3f ms %6.1f GB/s (%3.0f%%) %6.1f GOPS (%3.0f%%) |", b->rows,
           b->threads, b->best_total * 1e3, gb, 100 * gb / b->read_gb, gops,
           b->vnni_gops > 0 ? 100 * gops / b->vnni_gops : 0.0);
    for (int i = 0; i < KINDS; i++)
        printf(" %s %.1f/%.0f", kinds[i].name, (double)b->bytes[i] / b->best[i] * 1e-9,
               ops(b, i) / b->best[i] * 1e-9);
    printf("\n");
    if (json)
        fprintf(json,
                "%s\n {\"rows\": %u, \"threads\": %u, \"ms\": %.4f, \"gb_per_s\": %.2f, "
                "\"read_gb_per_s\": %.2f, \"gops\": %.1f, \"vpdpbusd_gops\": %.1f}",
                first ? "" : ",", b->rows, b->threads, b->best_total * 1e3, gb, b->read_gb,
                gops, b->vnni_gops);
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
    dtype t = dtype_by_name(str_of(option(argc, argv, "--type", "q4_1")));
    uint32_t only_rows = (uint32_t)atoi(option(argc, argv, "--rows", "0"));
    uint32_t only_threads = (uint32_t)atoi(option(argc, argv, "--threads", "0"));
    b.passes = atoi(option(argc, argv, "--passes", "5"));
    b.family = strcmp(family, "f32") == 0 ? ACTIVATION_F32 : ACTIVATION_INT8;
    b.k = linear_kernels_get(strcmp(isa, "plain") == 0    ? ISA_PLAIN
                             : strcmp(isa, "avx2") == 0   ? ISA_AVX2
                             : strcmp(isa, "avx512") == 0 ? ISA_AVX512
                                                          : ISA_AUTO);
    if (!b.k || !linear_supports(t, 576) || only_rows > MAX_ROWS ||
        only_threads > MAX_THREADS) {
        fprintf(stderr, "bench_linear: an option is out of range; see the top of its source\n");
        return 2;
    }
    double pack = make_weights(&b, t);
    make_acts(&b);
    uint64_t bytes = 0;
    for (int i = 0; i < KINDS; i++) bytes += b.bytes[i];
    b.stream_words = bytes / 8; /* as much as the weights: the same share of it is in cache */
    uint64_t *stream = must_alloc(bytes);
    memset(stream, 1, bytes);
    b.stream = stream;
    printf("%s, %s, %s: packed %.1f MB in %.1f ms on one thread\n", isa, family,
           dtype_get(t)->name, (double)bytes * 1e-6, pack * 1e3);
    FILE *json = path ? fopen(path, "w") : NULL;
    if (json) {
        fprintf(json, "{\"bench\": \"linear\", \"isa\": %d, \"type\": \"%s\", \"flags\": \"",
                (int)b.k->isa, dtype_get(t)->name);
        print_cpu_flags(json);
        fprintf(json, "\",\n\"rows\": [");
    }
    static const uint32_t rows[] = {1, 2, 4, 8, 16, 32, 64, 128, 512};
    bool first = true;
    for (b.threads = 1; b.threads <= 2; b.threads++) {
        if (only_threads && only_threads != b.threads) continue;
        b.read_gb = b.vnni_gops = 0;
        run_threads(&b, measure_ceilings);
        printf("ceilings, %u threads: read %.1f GB/s, vpdpbusd %.0f GOPS\n", b.threads,
               b.read_gb, b.vnni_gops);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            if (only_rows && only_rows != rows[i]) continue;
            b.rows = rows[i];
            run_threads(&b, run_passes);
            report(&b, json, first);
            first = false;
        }
    }
    if (json) {
        fprintf(json, "]}\n");
        fclose(json);
    }
    return 0;
}
