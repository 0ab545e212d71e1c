/* A device's ceilings, and the time of each operation of the CUDA engine at Llama-3-8B's shapes
 * against its floor: the fewest bytes it must move over the copy bandwidth measured here, or
 * its arithmetic over the rate of a large matrix product, whichever is longer. Random data;
 * inputs rotate among sets larger than the cache; launches are captured in a graph, so that
 * gaps between them stay out; medians of replays.
 *
 *   bench_cuda [--info] [--small 1] [--only OP:ROWS] [--slice MIB] [--json FILE] [--commit TEXT]
 *
 * --info prints the device in a line; exit code 3 where there is none. --only measures one
 * operation at any number of rows, for a profiler. --slice: of packed weights as 16 bits, for
 * many rows (the engine uses CU_SLICE_BYTES). Without cuBLASLt what needs it is left out, with a
 * line; floors then count bytes alone. */
#include "engine/cuda/cuda.h"
#include "engine/cuda/linear_many.h"

#include <algorithm>
#include <functional>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <vector>

#define CHECK_CUDA(call)                                                                       \
    do {                                                                                       \
        const cudaError_t error_ = (call);                                                     \
        if (error_ != cudaSuccess) {                                                           \
            fprintf(stderr, "bench_cuda: %s: %s\n", #call, cudaGetErrorString(error_));        \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

static struct bench {
    bool small;
    const char *only; /* the operation to be measured, at only_rows rows; NULL for all */
    uint32_t only_rows;
    FILE *json;
    bool first = true;
    cudaStream_t stream;
    cudaEvent_t start, stop;
    gemm *lt;
    cuda_host host;
    gemm_scratch scratch; /* of packed weights for many rows */
    double copy_gbs, tflops;
    uint32_t embd, ff, heads, kv_heads, head_dim, vocab, context;
} b;

/* ---- memory of random content ---- */

static void *bytes_of(size_t n) {
    void *p;
    CHECK_CUDA(cudaMalloc(&p, n));
    return p;
}

static cu_matrix random_matrix(dtype t, uint32_t n_out, uint32_t n_in, uint64_t seed) {
    cu_matrix m = {bytes_of(cu_matrix_bytes(t, n_out, n_in)), t, n_out, n_in};
    CHECK_CUDA(cu_matrix_random(b.stream, &m, seed));
    return m;
}
static void *random_16(size_t rows, size_t cols, uint64_t seed = 7) {
    return random_matrix(DT_BF16, (uint32_t)rows, (uint32_t)cols, seed).data;
}
/* Float32 about as spread as logits are. */
static float *random_f32(size_t n) {
    std::vector<float> v(std::min<size_t>(n, 1 << 20));
    uint64_t x = 1;
    for (float &f : v) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        f = (float)((int32_t)(x >> 32)) * 0x1p-29f;
    }
    float *p = (float *)bytes_of(n * sizeof(float));
    for (size_t at = 0; at < n; at += v.size())
        CHECK_CUDA(cudaMemcpy(p + at, v.data(), std::min(v.size(), n - at) * sizeof(float),
                              cudaMemcpyHostToDevice));
    return p;
}
static int32_t *table_of(const std::vector<int32_t> &v) {
    int32_t *p = (int32_t *)bytes_of(v.size() * sizeof(int32_t) + 4);
    CHECK_CUDA(cudaMemcpy(p, v.data(), v.size() * sizeof(int32_t), cudaMemcpyHostToDevice));
    return p;
}

/* Freed together, after a case. */
struct arena {
    std::vector<void *> all;
    template <class T> T *keep(T *p) {
        all.push_back((void *)p);
        return p;
    }
    ~arena() {
        CHECK_CUDA(cudaDeviceSynchronize());
        for (void *p : all) CHECK_CUDA(cudaFree(p));
    }
};

/* Sets of inputs that a cache cannot hold together, or as many as a graph has launches for. */
static uint32_t sets_for(size_t bytes) {
    return b.small ? 2 : (uint32_t)std::min<size_t>(64, (256u << 20) / (bytes + 1) + 1);
}

/* ---- what is measured ---- */

static bool wanted(const char *op) {
    return !b.only || strcmp(b.only, op) == 0;
}
/* The numbers of rows in turn: those listed, or the one of --only. */
static std::vector<uint32_t> rows_of(std::initializer_list<uint32_t> listed, uint32_t small) {
    std::vector<uint32_t> v;
    if (b.only) return {b.only_rows};
    for (uint32_t n : listed)
        if (!b.small || n <= small) v.push_back(n);
    return v;
}

/* ---- time ---- */

typedef std::function<cudaError_t(uint32_t set)> launch;

/* Median seconds of one launch, in turn with set 0 .. sets - 1. */
static double time_of(const launch &f, uint32_t sets, uint32_t n) {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    std::vector<double> times;
    CHECK_CUDA(f(0)); /* loads the kernel */
    CHECK_CUDA(cudaStreamSynchronize(b.stream));
    CHECK_CUDA(cudaStreamBeginCapture(b.stream, cudaStreamCaptureModeThreadLocal));
    for (uint32_t i = 0; i < n; i++) CHECK_CUDA(f(i % sets));
    CHECK_CUDA(cudaStreamEndCapture(b.stream, &graph));
    CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    const int warm = b.small ? 0 : 2, runs = b.small ? 1 : 7;
    for (int i = 0; i < warm + runs; i++) {
        float ms = 0;
        CHECK_CUDA(cudaEventRecord(b.start, b.stream));
        CHECK_CUDA(cudaGraphLaunch(exec, b.stream));
        CHECK_CUDA(cudaEventRecord(b.stop, b.stream));
        CHECK_CUDA(cudaEventSynchronize(b.stop));
        CHECK_CUDA(cudaEventElapsedTime(&ms, b.start, b.stop));
        if (i >= warm) times.push_back(1e-3 * ms / n);
    }
    CHECK_CUDA(cudaGraphExecDestroy(exec));
    CHECK_CUDA(cudaGraphDestroy(graph));
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

static void run_case(const char *name, const char *type, uint32_t rows, double bytes,
                     double flops, uint32_t sets, const launch &f) {
    if (!wanted(name)) return;
    const double t = time_of(f, sets, b.small ? 2 : std::max(sets, 16u));
    const double by_bytes = bytes / (b.copy_gbs * 1e9),
                 by_flops = b.tflops > 0 ? flops / (b.tflops * 1e12) : 0;
    const double floor = std::max(by_bytes, by_flops);
    printf("op %-14s %-5s rows %4u  %10.2f us  floor %10.2f us (%s)  %5.1f%%\n", name, type,
           rows, 1e6 * t, 1e6 * floor, by_bytes > by_flops ? "bytes" : "flops",
           100 * floor / t);
    fflush(stdout);
    if (b.json)
        fprintf(b.json,
                "%s\n  {\"op\": \"%s\", \"type\": \"%s\", \"rows\": %u, \"us\": %.3f, "
                "\"floor_us\": %.3f, \"bound\": \"%s\"}",
                b.first ? "" : ",", name, type, rows, 1e6 * t, 1e6 * floor,
                by_bytes > by_flops ? "bytes" : "flops");
    b.first = false;
}

/* ---- ceilings ---- */

static cu_linear linear(const cu_matrix &w, uint32_t rows, const void *in, void *out,
                        cu_out kind) {
    cu_linear l = {};
    l.w = w, l.t = CU_BF16, l.n_rows = rows;
    l.in = in, l.ld_in = w.n_in;
    l.out = out, l.ld_out = w.n_out, l.kind = kind;
    return l;
}

static void tune(const cu_linear &l) {
    err e;
    if (gemm_takes_packed(&l)) {
        const uint32_t n = cu_slice_rows(l.w.n_out, l.w.n_in, b.scratch.bytes);
        CHECK_CUDA(cu_unpack(b.stream, &l.w, l.t, 0, n, b.scratch.data));
        if (gemm_tune_packed(b.lt, b.stream, &l, &b.scratch, &e) == OK) return;
    } else if (gemm_tune(b.lt, b.stream, &l, 0, &e) == OK) {
        return;
    }
    fprintf(stderr, "bench_cuda: %s\n", e.text);
    exit(1);
}

static void measure_copy() {
    arena a;
    const size_t n = b.small ? 1 << 16 : (size_t)1 << 30;
    char *from = (char *)a.keep(random_16(n / 2 / 4096, 4096)),
         *to = a.keep((char *)bytes_of(n));
    const double t = time_of(
        [=](uint32_t) {
            return cudaMemcpyAsync(to, from, n / 2 / 4096 * 8192, cudaMemcpyDeviceToDevice,
                                   b.stream);
        },
        1, 4);
    b.copy_gbs = 2.0 * (double)(n / 2 / 4096 * 8192) / t * 1e-9;
    printf("ceiling copy %.1f GB/s (bytes read and written)\n", b.copy_gbs);
}

static void measure_gemm() {
    arena a;
    const uint32_t n = b.small ? 64 : 8192;
    const cu_matrix w = random_matrix(DT_BF16, n, n, 1);
    a.keep(w.data);
    const cu_linear l =
        linear(w, n, a.keep(random_16(n, n, 2)), a.keep(bytes_of((size_t)n * n * 2)), CU_OUT_T);
    tune(l);
    const double t = time_of([=](uint32_t) { return gemm_run(b.lt, b.stream, &l); }, 1, 4);
    b.tflops = 2.0 * n * n * n / t * 1e-12;
    printf("ceiling gemm %.1f TFLOP/s (bf16, %u cubed, cuBLASLt)\n", b.tflops, n);
}

/* ---- linear layers ---- */

/* The way the engine would take it. */
static bool by_gemm(dtype t, uint32_t rows) {
    return rows > (cu_matrix_is_packed(t) ? (uint32_t)CU_MANY_ROWS : (uint32_t)CU_FEW_ROWS);
}
static cudaError_t run_linear(const cu_linear *l) {
    if (gemm_takes_packed(l)) return gemm_run_packed(b.lt, b.stream, l, &b.scratch);
    if (cu_matrix_is_packed(l->w.type)) return cu_linear_quant(b.stream, l);
    return by_gemm(l->w.type, l->n_rows) ? gemm_run(b.lt, b.stream, l)
                                         : cu_linear_few(b.stream, l);
}

static void bench_linear(const char *name, dtype t, uint32_t n_out, uint32_t n_in,
                         uint32_t rows, cu_out kind, bool gate_up) {
    if (!wanted(name) || (by_gemm(t, rows) && !b.lt)) return;
    arena a;
    const size_t weights = cu_matrix_bytes(t, n_out, n_in);
    const uint32_t sets = sets_for(weights), width = kind == CU_OUT_T ? 2 : 4;
    const void *in = a.keep(random_16(rows, n_in));
    void *out = a.keep(bytes_of((size_t)rows * n_out * width)), *in_q = NULL;
    const bool few = rows <= CU_FEW_ROWS, packed = cu_matrix_is_packed(t);
    const bool fused = gate_up && (few || (packed && rows <= CU_MANY_ROWS));
    void *split = NULL;
    CHECK_CUDA(cudaMemsetAsync(out, 0, (size_t)rows * n_out * width, b.stream));
    if (packed) {
        split = a.keep(bytes_of(cu_split_bytes(rows)));
        CHECK_CUDA(cudaMemsetAsync(split, 0, CU_SPLIT_COUNTERS, b.stream));
    }
    if (few && packed) {
        in_q = a.keep(bytes_of(cu_quantized_bytes(rows, n_in)));
        CHECK_CUDA(cu_quantize(b.stream, CU_BF16, rows, n_in, n_in, in, in_q));
    }
    std::vector<cu_linear> l, up;
    for (uint32_t i = 0; i < sets; i++) {
        const uint32_t n = fused ? n_out / 2 : n_out;
        cu_matrix w = random_matrix(t, n, n_in, i + 1);
        a.keep(w.data);
        l.push_back(linear(w, rows, in, out, kind));
        l.back().in_q = in_q, l.back().split = split;
        up.push_back(l.back());
        if (n == n_out) continue;
        up.back().w = random_matrix(t, n, n_in, i + 100);
        a.keep(up.back().w.data);
    }
    if (by_gemm(t, rows) && (!packed || gemm_takes_packed(&l[0]))) tune(l[0]);
    const double moved = kind == CU_OUT_ADD ? 8 : width;
    const uint32_t n_results = fused ? n_out / 2 : n_out;
    const double bytes = (double)weights + (double)rows * (n_in * 2.0 + n_results * moved),
                 flop = 2.0 * rows * n_out * n_in;
    run_case(name, t == DT_BF16 ? "BF16" : "Q4_0", rows, bytes, flop, sets, [=](uint32_t i) {
        if (!fused) return run_linear(&l[i]);
        if (!few) return cu_gate_up_packed(b.stream, &l[i], &up[i], ACT_SILU);
        const cu_codes none = {};
        return packed ? cu_gate_up_quant_few(b.stream, &l[i], &up[i], ACT_SILU, &none)
                      : cu_gate_up_few(b.stream, &l[i], &up[i], ACT_SILU);
    });
    if (!packed) return;
    /* Other ways: where the one becomes faster than the other. */
    const auto beside = [&](const char *way, auto run) {
        char other[32];
        snprintf(other, sizeof other, "%s_%s", name, way);
        run_case(other, "Q4_0", rows, bytes, flop, sets, run);
    };
    if (rows > CU_MANY_ROWS && cu_linear_many_runs())
        beside("wgmma", [=](uint32_t i) { return cu_linear_many(b.stream, &l[i]); });
    if (rows > 512 || (!few && rows <= CU_MANY_ROWS)) return;
    beside("packed", [=](uint32_t i) {
        return fused ? cu_gate_up_packed(b.stream, &l[i], &up[i], ACT_SILU)
                     : cu_linear_packed(b.stream, &l[i]);
    });
}

/* The slices alone: a GEMM's weights from packed ones. */
static void bench_unpack(dtype t, const char *type) {
    arena a;
    const uint32_t n = cu_slice_rows(2 * b.ff, b.embd, b.scratch.bytes);
    const cu_matrix w = random_matrix(t, 2 * b.ff, b.embd, 1);
    a.keep(w.data);
    const double moved = (double)cu_matrix_bytes(t, n, b.embd) + 2.0 * n * b.embd;
    run_case("unpack", type, n, moved, 0, w.n_out / n, [=](uint32_t i) {
        return cu_unpack(b.stream, &w, CU_BF16, i * n, n, b.scratch.data);
    });
}

static void bench_linears() {
    if (wanted("unpack")) {
        bench_unpack(DT_Q8_0, "Q8_0");
        bench_unpack(DT_Q4_0, "Q4_0");
        bench_unpack(DT_Q4_1, "Q4_1");
    }
    /* The most rows first: tuning at them tunes for fewer. */
    for (dtype t : {DT_BF16, DT_Q4_0})
        for (uint32_t rows : rows_of({2048, 512, 256, 128, 64, 32, 16, 8, 4, 1}, 128)) {
            const uint32_t qkv = (b.heads + 2 * b.kv_heads) * b.head_dim;
            bench_linear("qkv", t, qkv, b.embd, rows, CU_OUT_T, false);
            bench_linear("attn_output", t, b.embd, b.heads * b.head_dim, rows, CU_OUT_ADD,
                         false);
            bench_linear("gate_up", t, 2 * b.ff, b.embd, rows, CU_OUT_T, true);
            bench_linear("down", t, b.embd, b.ff, rows, CU_OUT_ADD, false);
            if (rows <= 512)
                bench_linear("logits", t, b.vocab, b.embd, rows, CU_OUT_F32, false);
        }
}

/* ---- the others ---- */

static void bench_rows(uint32_t rows) {
    arena a;
    const uint32_t sets = sets_for((size_t)rows * b.embd * 4);
    const double n = (double)rows * b.embd, m = (double)rows * b.ff;
    float *x = a.keep(random_f32((size_t)sets * rows * b.embd)),
          *w = a.keep(random_f32(b.embd));
    const uint16_t *y = (const uint16_t *)a.keep(random_16((size_t)sets * rows, b.embd));
    uint16_t *wide = (uint16_t *)a.keep(random_16((size_t)sets * rows, 2 * b.ff));
    void *out = a.keep(bytes_of((size_t)rows * b.ff * 4));
    run_case("norm", "BF16", rows, n * (4 + 2), 0, sets, [=](uint32_t i) {
        const cu_norm norm = {CU_BF16, rows, 1e-5f, w};
        return cu_row_norm(b.stream, &norm, b.embd, CU_F32, x + (size_t)i * rows * b.embd, out,
                           CU_OUT_T);
    });
    run_case("gate", "BF16", rows, m * (4 + 2), 0, sets, [=](uint32_t i) {
        return cu_gate(b.stream, CU_BF16, ACT_SILU, rows, b.ff,
                       wide + (size_t)i * rows * 2 * b.ff, out);
    });
    if (rows > CU_FEW_ROWS) return;
    void *q = a.keep(bytes_of(cu_quantized_bytes(rows, b.embd)));
    run_case("quantize", "BF16", rows, n * 3, 0, sets, [=](uint32_t i) {
        return cu_quantize(b.stream, CU_BF16, rows, b.embd, b.embd,
                           y + (size_t)i * rows * b.embd, q);
    });
}

/* Sequences of n_rows rows each that end at the same position, in `sets` caches. */
struct sequences {
    arena a;
    cu_attn attn = {}; /* of set 0 */
    cu_tables tables = {};
    uint32_t n, n_rows, splits, sets;
    size_t kv_bytes;
    uint16_t *qkv, *kv_base;
    void *partials;
    int32_t *tiles;
    uint32_t n_tiles;

    sequences(uint32_t n, uint32_t n_rows, uint32_t first_pos, dtype type = DT_BF16)
        : n(n), n_rows(n_rows) {
        const uint32_t block = 16, last = first_pos + n_rows,
                       stride = (last + block - 1) / block;
        std::vector<int32_t> entry, pos, first_row, rows, first, blocks, tile;
        for (uint32_t i = 0; i < n; i++) {
            first_row.push_back((int32_t)(i * n_rows)), rows.push_back((int32_t)n_rows);
            first.push_back((int32_t)first_pos);
            for (uint32_t r = 0; r < n_rows; r++)
                entry.push_back((int32_t)i), pos.push_back((int32_t)(first_pos + r));
            for (uint32_t k = 0; k < stride; k++) blocks.push_back((int32_t)(k * n + i));
            for (uint32_t r = 0; r < n_rows; r += CU_PREFILL_TILE)
                tile.push_back((int32_t)i), tile.push_back((int32_t)r);
        }
        tables.pos = a.keep(table_of(pos)), tables.entry = a.keep(table_of(entry));
        tables.first_row = a.keep(table_of(first_row)), tables.n_rows = a.keep(table_of(rows));
        tables.first_pos = a.keep(table_of(first));
        tables.blocks[0] = a.keep(table_of(blocks)), tables.table_stride = stride;
        tiles = a.keep(table_of(tile)), n_tiles = (uint32_t)tile.size() / 2;
        cu_kv *kv = &attn.kv;
        const kv_type *t = kv_type_get(type);
        kv_format_init(&kv->format, KV_ROWS, t, t, block, b.kv_heads, b.head_dim);
        kv->block_stride = kv_block_bytes(&kv->format, 1);
        kv->type = t->word_bytes ? CU_F16 : CU_BF16;
        kv_bytes = (size_t)n * stride * kv->block_stride, sets = sets_for(kv_bytes);
        kv_base = (uint16_t *)a.keep(
            random_16((size_t)sets * n * stride, (uint32_t)(kv->block_stride / 2)));
        attn.t = CU_BF16, attn.ld = (b.heads + 2 * b.kv_heads) * b.head_dim;
        qkv = (uint16_t *)a.keep(random_16((size_t)sets * n * n_rows, attn.ld));
        attn.out = a.keep(bytes_of((size_t)n * n_rows * b.heads * b.head_dim * 2));
        attn.n_heads = b.heads, attn.scale = 1 / sqrtf((float)b.head_dim);
        splits = cu_attn_splits(n, last);
        partials = a.keep(bytes_of(cu_attn_decode_bytes(n, splits, b.heads, b.head_dim)));
        const size_t counters = cu_arrived_bytes(n, b.heads, 0);
        attn.codes.arrived = (uint32_t *)a.keep(bytes_of(counters));
        CHECK_CUDA(cudaMemset(attn.codes.arrived, 0, counters));
    }
    cu_attn in_set(uint32_t i) const {
        cu_attn s = attn;
        s.qkv = qkv + (size_t)i * n * n_rows * attn.ld;
        s.kv.base = kv_base + i * (kv_bytes / 2);
        return s;
    }
    const char *type() const {
        const dtype t = attn.kv.format.k.type;
        return t == DT_INT8 ? "INT8" : t == DT_FP8 ? "FP8" : "BF16";
    }
    double row_bytes() const { /* q in, result out */
        return 2.0 * n * n_rows * b.heads * b.head_dim * 2;
    }
};

static void bench_rope(const sequences &s) {
    std::vector<cu_freq> f(b.head_dim / 2);
    for (uint32_t i = 0; i < f.size(); i++) f[i] = {(float)pow(5e5, -2.0 * i / b.head_dim), 0};
    arena a;
    cu_freq *freqs = (cu_freq *)a.keep(bytes_of(f.size() * sizeof(cu_freq)));
    CHECK_CUDA(cudaMemcpy(freqs, f.data(), f.size() * sizeof(cu_freq), cudaMemcpyHostToDevice));
    const uint32_t rows = s.n * s.n_rows;
    const double bytes = 2.0 * rows * s.attn.ld * 2;
    run_case("rope_append", s.type(), rows, bytes, 0, s.sets, [&](uint32_t i) {
        const cu_attn set = s.in_set(i);
        const cu_rope rope = {set.kv,        CU_BF16,    (void *)set.qkv, set.ld, b.heads,
                              ROPE_ADJACENT, b.head_dim, freqs,           1,      cu_kv(),
                              false};
        return cu_kv_coded(&rope.kv) ? cu_append_codes(b.stream, &rope, &s.tables, rows)
                                     : cu_rope_append(b.stream, &rope, &s.tables, rows);
    });
}

static void bench_decode(uint32_t n, dtype type) {
    const sequences s(n, 1, b.context - 1, type);
    bench_rope(s);
    run_case("attn_decode", s.type(), n, (double)s.kv_bytes + s.row_bytes(),
             4.0 * n * b.context * b.heads * b.head_dim, s.sets, [&](uint32_t i) {
                 const cu_attn set = s.in_set(i);
                 return cu_attn_decode(b.stream, &set, &s.tables, n, s.splits, s.partials);
             });
}

static void bench_prefill(uint32_t rows, dtype type) {
    const sequences s(1, rows, 0, type);
    run_case("attn_prefill", s.type(), rows, (double)s.kv_bytes + s.row_bytes(),
             2.0 * rows * rows * b.heads * b.head_dim, s.sets, [&](uint32_t i) {
                 const cu_attn set = s.in_set(i);
                 return cu_attn_prefill(b.stream, &set, &s.tables, s.tiles, s.n_tiles);
             });
}

static void bench_sample(uint32_t n, const char *how, float temperature) {
    arena a;
    std::vector<tables_sampling> p(n);
    for (uint32_t i = 0; i < n; i++) {
        p[i] = {};
        p[i].logit_row = (int32_t)i, p[i].position = 9, p[i].seed[0] = i;
        p[i].temperature = temperature, p[i].top_p = temperature > 0 ? 0.95f : 1;
        p[i].typical_p = p[i].repetition_penalty = 1;
        p[i].history_from = p[i].n_logprobs = -1;
    }
    tables_sampling *dp = (tables_sampling *)a.keep(bytes_of(n * sizeof(tables_sampling)));
    CHECK_CUDA(cudaMemcpy(dp, p.data(), n * sizeof(tables_sampling), cudaMemcpyHostToDevice));
    const uint32_t sets = std::min(4u, sets_for((size_t)n * b.vocab * 4));
    float *logits = a.keep(random_f32((size_t)sets * n * b.vocab));
    int32_t *lists = a.keep(table_of({0})), *drawn = a.keep(table_of(std::vector<int32_t>(n)));
    sampled *out = (sampled *)a.keep(bytes_of(n * sizeof(sampled)));
    void *scratch = a.keep(bytes_of(cu_sample_scratch_bytes(n, b.vocab)));
    run_case(how, "F32", n, 4.0 * n * b.vocab, 0, sets, [=](uint32_t i) {
        const cu_logits row = {logits + (size_t)i * n * b.vocab, b.vocab, scratch};
        return cu_sample(b.stream, &row, dp, lists, n, out, drawn);
    });
}

/* ---- main ---- */

static status refuse(err *e, status code, const char *, const char *text, const char *) {
    e->code = code;
    snprintf(e->text, sizeof e->text, "%s", text);
    return code;
}
static void say(int, const char *text) {
    fprintf(stderr, "%s\n", text);
}

static cuda_device open_device() {
    cuda_device d;
    err e;
    b.host = {};
    b.host.fail = refuse, b.host.log = say;
    if (cuda_probe(0, &d, &b.host, &e) != OK) {
        fprintf(stderr, "%s\n", e.text);
        exit(3);
    }
    printf("%s, compute capability %u.%u, %u multiprocessors, %.1f GiB, driver of CUDA %u.%u\n",
           d.name, d.major, d.minor, d.n_sms, (double)d.total_bytes / (1u << 30),
           d.driver / 1000, d.driver % 1000 / 10);
    return d;
}

static void open_json(const char *path, const cuda_device *d, const char *commit) {
    char date[32];
    const time_t t = time(NULL);
    struct tm parts;
    b.json = fopen(path, "w");
    if (!b.json) {
        perror(path);
        exit(1);
    }
    strftime(date, sizeof date, "%Y-%m-%dT%H:%MZ", gmtime_r(&t, &parts));
    fprintf(b.json,
            "{\n \"bench\": \"cuda\",\n \"date\": \"%s\",\n \"commit\": \"%s\",\n"
            " \"machine\": {\"device\": \"%s\", \"multiprocessors\": %u, \"driver\": %u},\n"
            " \"model\": \"%s\",\n \"copy_gb_per_s\": %.1f,\n \"gemm_tflops\": %.1f,\n"
            " \"rows\": [",
            date, commit, d->name, d->n_sms, d->driver, b.small ? "tiny" : "Llama-3-8B shapes",
            b.copy_gbs, b.tflops);
}

static void set_shapes() {
    b.embd = b.small ? 128 : 4096, b.ff = b.small ? 256 : 14336;
    b.heads = b.small ? 4 : 32, b.kv_heads = b.small ? 2 : 8;
    b.head_dim = b.small ? 64 : 128;
    b.vocab = b.small ? 1000 : 128256, b.context = b.small ? 40 : 1024;
}

static void measure_operations() {
    for (uint32_t n : rows_of({1, 4, 16, 64, 256}, 16)) {
        bench_rows(n);
        for (dtype t : {DT_BF16, DT_INT8, DT_FP8}) bench_decode(n, t);
        bench_sample(n, "sample_greedy", 0);
        bench_sample(n, "sample_top_p", 0.8f);
    }
    if (!b.only) bench_rows(b.small ? 32 : 2048);
    for (uint32_t n : rows_of({b.small ? 150u : 2048u}, 150))
        for (dtype t : {DT_BF16, DT_INT8}) bench_prefill(n, t);
    bench_linears();
}

static void measure_all(const char *path, const cuda_device *d, const char *commit) {
    err e;
    const size_t workspace = CUDA_GEMM_WORKSPACE, idle = 256u << 20;
    CHECK_CUDA(cudaStreamCreateWithFlags(&b.stream, cudaStreamNonBlocking));
    CHECK_CUDA(cudaEventCreate(&b.start));
    CHECK_CUDA(cudaEventCreate(&b.stop));
    const gemm_memory memory = {bytes_of(workspace), workspace, bytes_of(idle), idle};
    measure_copy();
    if (gemm_open(&b.lt, &b.host, &memory, false, &e) == OK) {
        measure_gemm();
    } else {
        printf("without cuBLASLt: %s\n", e.text);
    }
    b.scratch.data = bytes_of(b.scratch.bytes);
    if (path) open_json(path, d, commit);
    measure_operations();
    if (b.json) fprintf(b.json, "\n ]\n}\n");
    if (b.json && fclose(b.json) != 0) perror(path);
    gemm_close(b.lt);
    CHECK_CUDA(cudaFree(memory.workspace));
    CHECK_CUDA(cudaFree(memory.idle));
    CHECK_CUDA(cudaFree(b.scratch.data));
    CHECK_CUDA(cudaEventDestroy(b.start));
    CHECK_CUDA(cudaEventDestroy(b.stop));
    CHECK_CUDA(cudaStreamDestroy(b.stream));
}

/* Returns false where the text is not OP:ROWS. */
static bool parse_only(const char *text) {
    char *end;
    const char *colon = strchr(text, ':');
    if (!colon) return false;
    const unsigned long rows = strtoul(colon + 1, &end, 10);
    b.only = strndup(text, (size_t)(colon - text)), b.only_rows = (uint32_t)rows;
    return end != colon + 1 && *end == 0 && rows >= 1 && rows <= 4096;
}

int main(int argc, char **argv) {
    const char *json = NULL, *commit = "";
    b.scratch.bytes = CU_SLICE_BYTES;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--info")) return open_device(), 0;
        if (i + 1 == argc) break;
        if (!strcmp(argv[i], "--only") && !parse_only(argv[i + 1])) {
            fprintf(stderr, "bench_cuda: --only wants OP:ROWS, rows 1 to 4096\n");
            return 2;
        }
        if (!strcmp(argv[i], "--small")) b.small = atoi(argv[i + 1]) != 0;
        if (!strcmp(argv[i], "--slice")) b.scratch.bytes = (uint64_t)atoi(argv[i + 1]) << 20;
        if (!strcmp(argv[i], "--json")) json = argv[i + 1];
        if (!strcmp(argv[i], "--commit")) commit = argv[i + 1];
    }
    const cuda_device d = open_device();
    set_shapes();
    measure_all(json, &d, commit);
    return 0;
}
