/* GEMMs by cuBLASLt, row-major out = in * w^T as column-major out^T = w * in^T: A is w
 * (transposed, n_in x n_out), B is in (n_in x rows), C and D are out (n_out x rows). Owns the
 * library's handle and a table of algorithms; engine thread. */
#include "engine/cuda/gemm.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cuda/cuda.h"
#ifdef CUSHIM
#include "cushim_ctl.h"
#endif

enum { MAX_SHAPES = 64, MAX_BUCKETS = 20, MAX_ALGORITHMS = 8, TIMED_RUNS = 3, MIN_BUCKET = 16 };

/* X(name): the functions of the library that are used. */
#define LT_FUNCTIONS(X)                                                                        \
    X(cublasLtCreate)                                                                          \
    X(cublasLtDestroy)                                                                         \
    X(cublasLtMatmul)                                                                          \
    X(cublasLtMatmulAlgoGetHeuristic)                                                          \
    X(cublasLtMatmulDescCreate)                                                                \
    X(cublasLtMatmulDescDestroy)                                                               \
    X(cublasLtMatmulDescSetAttribute)                                                          \
    X(cublasLtMatmulPreferenceCreate)                                                          \
    X(cublasLtMatmulPreferenceDestroy)                                                         \
    X(cublasLtMatmulPreferenceSetAttribute)                                                    \
    X(cublasLtMatrixLayoutCreate)                                                              \
    X(cublasLtMatrixLayoutDestroy)

typedef struct lt_functions {
#define X(name) decltype(&name) name##_;
    LT_FUNCTIONS(X)
#undef X
} lt_functions;

typedef struct bucket {
    cublasLtMatmulAlgo_t algo;
    size_t workspace;
    bool known;
} bucket;

typedef struct shape {
    cu_type t;
    cu_out kind;
    bool codes; /* of e4m3, on both sides */
    uint32_t n_out, n_in, ld_in, ld_out;
    bucket buckets[MAX_BUCKETS];
} shape;

struct gemm {
    const cuda_host *host;
    void *library;
    lt_functions lt;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatmulPreference_t preference;
    gemm_memory memory;
    bool invariant;
    cudaEvent_t start, stop;
    uint32_t n_shapes;
    shape shapes[MAX_SHAPES];
};

/* ---- the library ---- */

#ifdef CUSHIM /* the stand-in is linked in */
static status load_library(gemm *g, err *er) {
    if (!cushim_has_library())
        return cuda_fail(g->host, er, ERR_UNSUPPORTED, "cannot load cuBLASLt: a test");
#define X(name) g->lt.name##_ = name;
    LT_FUNCTIONS(X)
#undef X
    return OK;
}
#else
static status load_library(gemm *g, err *er) {
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12",
                                        "/usr/local/cuda/lib64/libcublasLt.so.13",
                                        "/usr/local/cuda/lib64/libcublasLt.so.12"};
    for (uint32_t i = 0; i < 4 && !g->library; i++)
        g->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!g->library)
        return cuda_fail_hint(g->host, er, ERR_UNSUPPORTED, "backend",
                              "install cuBLAS of CUDA 12 or 13, or set LD_LIBRARY_PATH",
                              "cannot load cuBLASLt (libcublasLt.so.13 or .12): %s", dlerror());
#define X(name)                                                                                \
    g->lt.name##_ = (decltype(&name))dlsym(g->library, #name);                                 \
    if (!g->lt.name##_)                                                                        \
        return cuda_fail(g->host, er, ERR_UNSUPPORTED, "cuBLASLt lacks the function %s", #name);
    LT_FUNCTIONS(X)
#undef X
    return OK;
}
#endif

static status lt_check(const gemm *g, cublasStatus_t s, const char *what, err *er) {
    if (s == CUBLAS_STATUS_SUCCESS) return OK;
    return cuda_fail(g->host, er, ERR_DEVICE, "cuBLASLt, %s: status %d", what, (int)s);
}

static cudaError_t lt_error(cublasStatus_t s) {
    return s == CUBLAS_STATUS_SUCCESS ? cudaSuccess : cudaErrorUnknown;
}

static status make_descriptors(gemm *g, err *er) {
    const cublasOperation_t trans = CUBLAS_OP_T, plain = CUBLAS_OP_N;
    const uint32_t align = 16, no_reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    status s =
        lt_check(g, g->lt.cublasLtMatmulDescCreate_(&g->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                 "descriptor", er);
    if (s != OK) return s;
    g->lt.cublasLtMatmulDescSetAttribute_(g->desc, CUBLASLT_MATMUL_DESC_TRANSA, &trans,
                                          sizeof trans);
    g->lt.cublasLtMatmulDescSetAttribute_(g->desc, CUBLASLT_MATMUL_DESC_TRANSB, &plain,
                                          sizeof plain);
    s = lt_check(g, g->lt.cublasLtMatmulPreferenceCreate_(&g->preference), "preference", er);
    if (s != OK) return s;
    struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t bytes;
    } set[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &g->memory.workspace_bytes, 8},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align, 4},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align, 4},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align, 4},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align, 4},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &no_reduction, 4},
    };
    const uint32_t n = g->invariant ? 6 : 5;
    for (uint32_t i = 0; i < n && s == OK; i++)
        s = lt_check(g,
                     g->lt.cublasLtMatmulPreferenceSetAttribute_(g->preference, set[i].name,
                                                                 set[i].value, set[i].bytes),
                     "preferences", er);
    return s;
}

status gemm_open(gemm **out, const cuda_host *host, const gemm_memory *memory, bool invariant,
                 err *er) {
    gemm *g = (gemm *)calloc(1, sizeof *g);
    *out = NULL;
    if (!g) return cuda_fail(host, er, ERR_NO_MEMORY, "no memory for the table of GEMMs");
    g->host = host;
    g->memory = *memory;
    g->invariant = invariant;
    status s = load_library(g, er);
    if (s == OK) s = lt_check(g, g->lt.cublasLtCreate_(&g->handle), "handle", er);
    if (s == OK) s = make_descriptors(g, er);
    if (s == OK) s = cuda_check(host, cudaEventCreate(&g->start), "events", er);
    if (s == OK) s = cuda_check(host, cudaEventCreate(&g->stop), "events", er);
    if (s == OK)
        *out = g;
    else
        gemm_close(g);
    return s;
}

/* The library stays loaded: its threads and handlers do not survive dlclose. */
void gemm_close(gemm *g) {
    if (!g) return;
    if (g->stop) cudaEventDestroy(g->stop);
    if (g->start) cudaEventDestroy(g->start);
    if (g->preference) g->lt.cublasLtMatmulPreferenceDestroy_(g->preference);
    if (g->desc) g->lt.cublasLtMatmulDescDestroy_(g->desc);
    if (g->handle) g->lt.cublasLtDestroy_(g->handle);
    free(g);
}

/* ---- one product ---- */

static cudaDataType_t data_type(cu_type t) {
    return t == CU_F32 ? CUDA_R_32F : t == CU_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

typedef struct layouts {
    cublasLtMatrixLayout_t a, b, d;
} layouts;

static void free_layouts(const gemm *g, layouts *x) {
    if (x->a) g->lt.cublasLtMatrixLayoutDestroy_(x->a);
    if (x->b) g->lt.cublasLtMatrixLayoutDestroy_(x->b);
    if (x->d) g->lt.cublasLtMatrixLayoutDestroy_(x->d);
}

static cublasStatus_t make_layouts(const gemm *g, const shape *s, uint32_t rows, layouts *x) {
    const cudaDataType_t in = s->codes ? (cudaDataType_t)CUDA_R_8F_E4M3 : data_type(s->t),
                         out = s->kind == CU_OUT_T ? in : (cudaDataType_t)CUDA_R_32F;
    *x = layouts();
    cublasStatus_t st =
        g->lt.cublasLtMatrixLayoutCreate_(&x->a, in, s->n_in, s->n_out, s->n_in);
    if (!st) st = g->lt.cublasLtMatrixLayoutCreate_(&x->b, in, s->n_in, rows, s->ld_in);
    if (!st) st = g->lt.cublasLtMatrixLayoutCreate_(&x->d, out, s->n_out, rows, s->ld_out);
    if (st) free_layouts(g, x);
    return st;
}

static cublasStatus_t multiply(const gemm *g, cudaStream_t st, const cu_linear *l,
                               const layouts *x, const bucket *b) {
    const float one = 1, beta = l->kind == CU_OUT_ADD ? 1 : 0;
    return g->lt.cublasLtMatmul_(g->handle, g->desc, &one, l->w.data, x->a, l->in, x->b, &beta,
                                 l->out, x->d, l->out, x->d, b ? &b->algo : NULL,
                                 g->memory.workspace, g->memory.workspace_bytes, st);
}

/* ---- the table of algorithms ---- */

static shape *find_shape(const gemm *g, const cu_linear *l) {
    for (uint32_t i = 0; i < g->n_shapes; i++) {
        shape *s = (shape *)&g->shapes[i];
        if (s->t == l->t && s->kind == l->kind && s->n_out == l->w.n_out &&
            s->codes == cu_matrix_is_float(l->w.type) && s->n_in == l->w.n_in &&
            s->ld_in == l->ld_in && s->ld_out == l->ld_out)
            return s;
    }
    return NULL;
}

/* Rows 1..16, ..32, ..64, ... */
static uint32_t bucket_of(const gemm *g, uint32_t rows) {
    uint32_t i = 0;
    if (g->invariant) return 0;
    while (i + 1 < MAX_BUCKETS && (uint64_t)MIN_BUCKET << i < rows) i++;
    return i;
}

bool gemm_known(const gemm *g, const cu_linear *l, uint32_t more) {
    const shape *s = find_shape(g, l);
    if (!s) return false;
    for (uint32_t i = bucket_of(g, more + 1); i <= bucket_of(g, l->n_rows); i++)
        if (!s->buckets[i].known) return false;
    return true;
}

/* Twice the largest cache of today's cards (126 MB on a B200). A matrix that fits in it would be
 * read at another speed than in service, where other weights come between two readings. */
static cudaError_t empty_cache(const gemm *g, cudaStream_t st) {
    const uint64_t most = 256u << 20, n = g->memory.idle_bytes;
    return n ? cudaMemsetAsync(g->memory.idle, 0, n < most ? n : most, st) : cudaSuccess;
}

static status time_algorithm(gemm *g, cudaStream_t st, const cu_linear *l, const layouts *x,
                             const bucket *b, float *ms, bool *works, err *er) {
    *works = multiply(g, st, l, x, b) == CUBLAS_STATUS_SUCCESS; /* the first run loads it */
    *ms = 0;
    cudaError_t ce = cudaSuccess;
    for (int i = 0; i < TIMED_RUNS && *works && ce == cudaSuccess; i++) {
        float once = 0;
        ce = empty_cache(g, st);
        cudaEventRecord(g->start, st);
        *works = multiply(g, st, l, x, b) == CUBLAS_STATUS_SUCCESS;
        cudaEventRecord(g->stop, st);
        if (ce == cudaSuccess) ce = cudaEventSynchronize(g->stop);
        if (ce == cudaSuccess) ce = cudaEventElapsedTime(&once, g->start, g->stop);
        *ms += once;
    }
    return cuda_check(g->host, ce, "timing a GEMM", er);
}

/* batch_invariant: do rows of the same numbers come out with the same bits wherever they stand?
 * Some algorithms share out sums by tiles. */
static status rows_agree(gemm *g, cudaStream_t st, const cu_linear *l, const layouts *x,
                         const bucket *b, bool *agree, err *er) {
    uint32_t differing = 1;
    cu_linear once = *l;
    once.kind = l->kind == CU_OUT_ADD ? CU_OUT_F32 : l->kind;
    cudaError_t ce = cu_repeat_row(st, l->t, l->n_rows, l->w.n_in, l->ld_in, (void *)l->in);
    if (ce == cudaSuccess) ce = lt_error(multiply(g, st, &once, x, b));
    if (ce == cudaSuccess)
        ce = cu_rows_differ(st, l->kind == CU_OUT_T ? l->t : CU_F32, l->n_rows, l->w.n_out,
                            l->ld_out, l->out, (uint32_t *)g->memory.workspace);
    if (ce == cudaSuccess)
        ce = cudaMemcpyAsync(&differing, g->memory.workspace, 4, cudaMemcpyDeviceToHost, st);
    if (ce == cudaSuccess) ce = cudaStreamSynchronize(st);
    *agree = differing == 0;
    return cuda_check(g->host, ce, "checking a GEMM", er);
}

static status tune_bucket(gemm *g, cudaStream_t st, shape *s, const cu_linear *l, bucket *best,
                          err *er) {
    cublasLtMatmulHeuristicResult_t found[MAX_ALGORITHMS];
    layouts x;
    int n = 0;
    float fastest = 0;
    cublasStatus_t lt = make_layouts(g, s, l->n_rows, &x);
    if (lt) return lt_check(g, lt, "layouts", er);
    lt = g->lt.cublasLtMatmulAlgoGetHeuristic_(g->handle, g->desc, x.a, x.b, x.d, x.d,
                                               g->preference, MAX_ALGORITHMS, found, &n);
    status st_ = OK;
    for (int i = 0; i < n && !lt && st_ == OK; i++) {
        bucket b = {found[i].algo, found[i].workspaceSize, true};
        bool works = false, agree = true;
        float ms = 0;
        if (found[i].state != CUBLAS_STATUS_SUCCESS || b.workspace > g->memory.workspace_bytes)
            continue;
        st_ = time_algorithm(g, st, l, &x, &b, &ms, &works, er);
        if (st_ == OK && works && g->invariant) st_ = rows_agree(g, st, l, &x, &b, &agree, er);
        if (st_ != OK || !works || !agree || (best->known && ms >= fastest)) continue;
        *best = b;
        fastest = ms;
    }
    free_layouts(g, &x);
    if (st_ != OK || best->known) return st_;
    return cuda_fail(g->host, er, ERR_DEVICE,
                     "cuBLASLt has no algorithm for %u rows of %u x %u (status %d)", l->n_rows,
                     l->w.n_out, l->w.n_in, (int)lt);
}

static shape shape_of(const cu_linear *l) {
    shape s;
    memset(&s, 0, sizeof s);
    s.t = l->t, s.kind = l->kind, s.n_out = l->w.n_out, s.n_in = l->w.n_in;
    s.ld_in = l->ld_in, s.ld_out = l->ld_out;
    s.codes = cu_matrix_is_float(l->w.type);
    return s;
}

status gemm_tune(gemm *g, cudaStream_t st, const cu_linear *l, uint32_t more, err *er) {
    shape *s = find_shape(g, l);
    if (!s && g->n_shapes == MAX_SHAPES) return OK; /* runs by the library's own choice */
    if (!s) {
        s = &g->shapes[g->n_shapes++];
        *s = shape_of(l);
    }
    status code = OK;
    for (uint32_t i = bucket_of(g, more + 1); i <= bucket_of(g, l->n_rows) && code == OK; i++) {
        cu_linear sized = *l;
        const uint64_t rows = (uint64_t)MIN_BUCKET << i;
        if (!g->invariant && rows < l->n_rows) sized.n_rows = (uint32_t)rows;
        if (!s->buckets[i].known) code = tune_bucket(g, st, s, &sized, &s->buckets[i], er);
    }
    return code;
}

cudaError_t gemm_run(gemm *g, cudaStream_t st, const cu_linear *l) {
    const shape *s = find_shape(g, l);
    layouts x;
    shape one;
    if (!s) {
        one = shape_of(l);
        s = &one;
    }
    const bucket *b = &s->buckets[bucket_of(g, l->n_rows)];
    cublasStatus_t lt = make_layouts(g, s, l->n_rows, &x);
    if (lt) return lt_error(lt);
    lt = multiply(g, st, l, &x, b->known ? b : NULL);
    /* An algorithm timed for its bucket's rows may refuse fewer, by one status or another: then
     * the library chooses. What is wrong with the device stays wrong. */
    const bool refused =
        lt && lt != CUBLAS_STATUS_EXECUTION_FAILED && lt != CUBLAS_STATUS_NOT_INITIALIZED;
    if (refused && b->known) lt = multiply(g, st, l, &x, NULL);
    free_layouts(g, &x);
    return lt_error(lt);
}
