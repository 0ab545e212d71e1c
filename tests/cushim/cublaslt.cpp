/* A stand-in for cuBLASLt: f16 and bf16 products with f32 sums, op(A) = A^T or A, op(B) = B,
 * column-major, into f16, bf16 or f32; beta, bias. Products of e4m3, of A^T alone, into the same, from
 * compute capability 8.9 on; scales of the operands are not there, so they are 1. Symbols have the library's names.
 *
 * Algorithms differ as real ones do: in the order of their sums (so in bits), in the workspace
 * they ask for, and in the time that events show; which comes first depends on the shape. What
 * the library refuses or only takes with other algorithms is refused: other types, leading
 * dimensions or addresses that are not multiples of 16 bytes, too little workspace. The
 * workspace is left full of NaN. Contract: "cuBLASLt API" in NVIDIA's cuBLAS documentation. */
#include <cublasLt.h>
#include <stdio.h>
#include <string.h>

#include <vector>

#include "cushim.h"
#include "internal.h"

namespace cushim {
namespace {

const long HANDLE_BYTES = 8 << 20; /* what a handle pretends to take of the device */
const size_t ALIGN = 16;

struct desc { /* cublasLtMatmulDescOpaque_t */
    cublasComputeType_t compute;
    cudaDataType_t scale;
    int32_t pointer_mode, trans_a, trans_b;
    uint32_t epilogue;
    const void *bias;
    int32_t bias_type; /* -1: as D */
};
struct layout { /* cublasLtMatrixLayoutOpaque_t */
    uint64_t rows, cols;
    int64_t ld;
    cudaDataType_t type;
    int32_t order, batch;
};
struct preference { /* cublasLtMatmulPreferenceOpaque_t */
    uint64_t max_workspace;
    uint32_t reductions;
    uint32_t alignment[4]; /* of A, B, C, D */
};
struct algorithm { /* cublasLtMatmulAlgo_t */
    uint32_t magic;
    int32_t id, split_k;
    uint32_t reduction, tile, stages, swizzle, custom;
    uint16_t inner, cluster;
};
const uint32_t MAGIC = 0x6c746d6d;
static_assert(sizeof(desc) <= sizeof(cublasLtMatmulDescOpaque_t), "");
static_assert(sizeof(layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "");
static_assert(sizeof(preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "");
static_assert(sizeof(algorithm) <= sizeof(cublasLtMatmulAlgo_t), "");

/* id, lanes of a partial sum, time in percent; without split-K the second is the fastest. */
struct kind {
    int32_t id;
    int lanes;
    uint32_t cost;
};
const kind KINDS[] = {{21, 8, 120}, {66, 16, 100}, {67, 4, 110}};

const kind *kind_of(int32_t id) {
    for (const kind &k : KINDS)
        if (k.id == id) return &k;
    return nullptr;
}

desc *of(cublasLtMatmulDesc_t d) {
    return (desc *)d;
}
layout *of(cublasLtMatrixLayout_t l) {
    return (layout *)l;
}
preference *of(cublasLtMatmulPreference_t p) {
    return (preference *)p;
}
algorithm *of(cublasLtMatmulAlgo_t *a) {
    return (algorithm *)a;
}
const algorithm *of(const cublasLtMatmulAlgo_t *a) {
    return (const algorithm *)a;
}

size_t size_of(cudaDataType_t t) {
    return t == CUDA_R_32F ? 4 : t == CUDA_R_8F_E4M3 ? 1 : 2;
}

float get(const void *p, cudaDataType_t t, size_t i) {
    if (t == CUDA_R_16F) return __half2float(((const __half *)p)[i]);
    if (t == CUDA_R_16BF) return __bfloat162float(((const __nv_bfloat16 *)p)[i]);
    if (t == CUDA_R_8F_E4M3)
        return __half2float(
            __half(__nv_cvt_fp8_to_halfraw(((const uint8_t *)p)[i], __NV_E4M3)));
    return ((const float *)p)[i];
}
void put(void *p, cudaDataType_t t, size_t i, float v) {
    if (t == CUDA_R_16F)
        ((__half *)p)[i] = __float2half(v);
    else if (t == CUDA_R_16BF)
        ((__nv_bfloat16 *)p)[i] = __float2bfloat16(v);
    else
        ((float *)p)[i] = v;
}

cublasStatus_t refuse(cublasStatus_t s, const char *why) {
    fprintf(stderr, "cushim: cublasLt: %s\n", why);
    return s;
}

/* ---- one product: D[m x n] = alpha * op(A)[m x k] * B[k x n] + beta * C + bias */

struct problem {
    desc d;
    layout a, b, c, o;
    size_t m, n, k;
};

const char *bad_layout(const layout &l) {
    if (l.order != CUBLASLT_ORDER_COL || l.batch != 1) return "only column-major, one matrix";
    if (l.rows == 0 || l.cols == 0 || l.ld < (int64_t)l.rows)
        return "leading dimension below the rows, or an empty matrix";
    return nullptr;
}

cublasStatus_t make_problem(problem *p, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
                            cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                            cublasLtMatrixLayout_t o) {
    if (!d || !a || !b || !c || !o)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "a descriptor is NULL");
    *p = {*of(d), *of(a), *of(b), *of(c), *of(o), 0, 0, 0};
    for (const layout *l : {&p->a, &p->b, &p->c, &p->o})
        if (const char *why = bad_layout(*l)) return refuse(CUBLAS_STATUS_INVALID_VALUE, why);
    bool t = p->d.trans_a == CUBLAS_OP_T;
    p->m = t ? p->a.cols : p->a.rows;
    p->k = t ? p->a.rows : p->a.cols;
    p->n = p->b.cols;
    if (p->d.trans_b != CUBLAS_OP_N)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "the stand-in has no op(B) but B");
    if (p->b.rows != p->k || p->o.rows != p->m || p->o.cols != p->n || p->c.rows != p->m ||
        p->c.cols != p->n)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "shapes of A, B, C and D do not fit");
    cudaDataType_t in = p->a.type, out = p->o.type;
    const bool codes = in == CUDA_R_8F_E4M3;
    if ((in != CUDA_R_16F && in != CUDA_R_16BF && !codes) || p->b.type != in ||
        (codes ? out != CUDA_R_16F && out != CUDA_R_16BF && out != CUDA_R_32F
               : out != in && out != CUDA_R_32F) ||
        p->c.type != out)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "types of A, B, C and D");
    if (codes && (config.capability < 89 || !t || p->m % 16 || p->k % 16))
        return refuse(
            CUBLAS_STATUS_NOT_SUPPORTED,
            "e4m3: before compute capability 8.9, of A as it is, or of m or k that are "
            "no multiples of 16");
    if (p->d.compute != CUBLAS_COMPUTE_32F || p->d.scale != CUDA_R_32F ||
        p->d.pointer_mode != CUBLASLT_POINTER_MODE_HOST)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "compute or scale type, or pointer mode");
    if (p->d.epilogue != CUBLASLT_EPILOGUE_DEFAULT && p->d.epilogue != CUBLASLT_EPILOGUE_BIAS)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "epilogue");
    for (const layout *l : {&p->a, &p->b, &p->c, &p->o})
        if ((size_t)l->ld * size_of(l->type) % ALIGN)
            return refuse(CUBLAS_STATUS_NOT_SUPPORTED,
                          "a leading dimension is not a multiple of 16 bytes");
    return CUBLAS_STATUS_SUCCESS;
}

size_t workspace_of(const problem &p, const algorithm &g) {
    return g.split_k > 1 && g.reduction != CUBLASLT_REDUCTION_SCHEME_INPLACE
               ? (size_t)g.split_k * p.m * p.n * 4
               : 0;
}

bool valid(const algorithm &g) {
    bool split = g.split_k > 1;
    return g.magic == MAGIC && kind_of(g.id) && g.split_k >= 0 && g.split_k <= 16 &&
           split == (g.reduction != CUBLASLT_REDUCTION_SCHEME_NONE);
}

/* Few columns and a long sum: split-K first, as the library does. */
std::vector<algorithm> candidates(const problem &p) {
    std::vector<algorithm> all;
    const uint32_t NONE = CUBLASLT_REDUCTION_SCHEME_NONE,
                   COMPUTE = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    for (const kind &k : KINDS) all.push_back({MAGIC, k.id, 1, NONE, 20, 16, 0, 0, 0, 0});
    algorithm split = {MAGIC, 21, 2, COMPUTE, 15, 16, 0, 0, 0, 0};
    if (p.k >= 64) all.insert(p.n <= 16 ? all.begin() : all.end(), split);
    return all;
}

/* k in LANES interleaved partial sums, added pairwise: one fixed order per algorithm. */
template <int LANES> float dot(const float *x, const float *y, size_t n) {
    float sum[LANES] = {};
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) sum[j % LANES] += x[i + j] * y[i + j];
    for (; i < n; i++) sum[0] += x[i] * y[i];
    for (int step = LANES / 2; step; step /= 2)
        for (int j = 0; j < step; j++) sum[j] += sum[j + step];
    return sum[0];
}
float dot_of(const float *x, const float *y, size_t n, int lanes) {
    switch (lanes) {
    case 1: return dot<1>(x, y, n);
    case 2: return dot<2>(x, y, n);
    case 4: return dot<4>(x, y, n);
    case 8: return dot<8>(x, y, n);
    default: return dot<16>(x, y, n);
    }
}

float split_dot(const float *x, const float *y, size_t k, const algorithm &g) {
    int lanes = kind_of(g.id)->lanes, splits = g.split_k > 1 ? g.split_k : 1;
    float sum = 0.0f;
    size_t part = (k + (size_t)splits - 1) / (size_t)splits;
    for (size_t from = 0; from < k; from += part) {
        size_t n = k - from < part ? k - from : part;
        sum += dot_of(x + from, y + from, n, lanes);
    }
    return sum;
}

struct arguments {
    float alpha, beta;
    const void *a, *b, *c;
    void *o, *workspace;
    size_t workspace_bytes;
};

/* Whether this is what was computed last, and nothing ran since: measurements repeat a product. */
bool is_repeated(const problem &p, const algorithm &g, const arguments &x) {
    static problem last_p;
    static algorithm last_g;
    static arguments last_x;
    static long written = -1;
    const bool same = written == n_written && x.beta == 0.0f &&
                      memcmp(&last_p, &p, sizeof p) == 0 &&
                      memcmp(&last_g, &g, sizeof g) == 0 && memcmp(&last_x, &x, sizeof x) == 0;
    last_p = p, last_g = g, last_x = x, written = n_written;
    return same;
}

void multiply(const problem &p, const algorithm &g, const arguments &x) {
    const bool repeated = is_repeated(p, g, x);
    counts.matmuls++;
    uint64_t percent = kind_of(g.id)->cost;
    if (g.split_k > 1) percent = p.n > 16 ? 200 : 70; /* pays for few columns alone */
    advance_clock(1000 + p.m * p.n * p.k * percent / 100000);
    if (repeated) return;
    memset(x.workspace, 0xff, workspace_of(p, g));
    std::vector<float> b(p.n * p.k), row(p.k);
    for (size_t j = 0; j < p.n; j++)
        for (size_t i = 0; i < p.k; i++)
            b[j * p.k + i] = get(x.b, p.b.type, j * (size_t)p.b.ld + i);
    bool trans = p.d.trans_a == CUBLAS_OP_T;
    cudaDataType_t bias_type = p.d.bias_type < 0 ? p.o.type : (cudaDataType_t)p.d.bias_type;
    for (size_t i = 0; i < p.m; i++) {
        for (size_t k = 0; k < p.k; k++)
            row[k] =
                get(x.a, p.a.type, trans ? i * (size_t)p.a.ld + k : k * (size_t)p.a.ld + i);
        for (size_t j = 0; j < p.n; j++) {
            float v = x.alpha * split_dot(row.data(), &b[j * p.k], p.k, g);
            if (x.beta != 0.0f) v += x.beta * get(x.c, p.c.type, j * (size_t)p.c.ld + i);
            if (p.d.epilogue == CUBLASLT_EPILOGUE_BIAS) v += get(p.d.bias, bias_type, i);
            put(x.o, p.o.type, j * (size_t)p.o.ld + i, v);
        }
    }
}

bool on_device(const void *p, const layout &l) {
    size_t bytes = ((l.cols - 1) * (size_t)l.ld + l.rows) * size_of(l.type);
    return place_of(p, bytes) == place::device;
}

cublasStatus_t check_arguments(const problem &p, const algorithm &g, const arguments &x) {
    if (!x.a || !x.b || !x.o || (x.beta != 0.0f && !x.c))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "an operand is NULL");
    if (((uintptr_t)x.a | (uintptr_t)x.b | (uintptr_t)x.c | (uintptr_t)x.o) % ALIGN)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "an operand is not 16-byte aligned");
    size_t need = workspace_of(p, g);
    if (need > x.workspace_bytes || (need && !x.workspace))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "the algorithm needs more workspace");
    if ((uintptr_t)x.workspace % 256)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "the workspace is not 256-byte aligned");
    if (x.workspace_bytes && place_of(x.workspace, x.workspace_bytes) != place::device)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "the workspace is not device memory");
    if (!on_device(x.a, p.a) || !on_device(x.b, p.b) || !on_device(x.o, p.o) ||
        (x.beta != 0.0f && !on_device(x.c, p.c))) {
        set_fault("cublasLtMatmul: an operand is not, or not all, in one device allocation");
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- attributes: exact sizes, as the library wants */

template <class T> cublasStatus_t store(T *field, const void *from, size_t bytes) {
    if (!from || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(field, from, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
template <class T>
cublasStatus_t load(const T &field, void *to, size_t bytes, size_t *written) {
    if (written) *written = sizeof(T);
    if (bytes == 0 && written) return CUBLAS_STATUS_SUCCESS;
    if (!to || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, &field, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace
} // namespace cushim

using namespace cushim;

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *out) {
    CUSHIM_API;
    if (!out) return CUBLAS_STATUS_INVALID_VALUE;
    if (allocation_fails()) return CUBLAS_STATUS_ALLOC_FAILED;
    *out = (cublasLtHandle_t) new int(0);
    charge(HANDLE_BYTES);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) {
    CUSHIM_API;
    if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
    delete (int *)h;
    charge(-HANDLE_BYTES);
    return CUBLAS_STATUS_SUCCESS;
}
size_t cublasLtGetVersion(void) {
    return CUBLAS_VERSION;
}
size_t cublasLtGetCudartVersion(void) {
    return CUDART_VERSION;
}

const char *cublasLtGetStatusName(cublasStatus_t s) {
    switch (s) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    default: return "CUBLAS_STATUS_INTERNAL_ERROR";
    }
}
const char *cublasLtGetStatusString(cublasStatus_t s) {
    return cublasLtGetStatusName(s);
}

/* ---- descriptors */

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t d, size_t size,
                                               cublasComputeType_t compute,
                                               cudaDataType_t scale) {
    if (!d || size < sizeof(desc)) return CUBLAS_STATUS_INVALID_VALUE;
    *of(d) = {compute,     scale,       CUBLASLT_POINTER_MODE_HOST,
              CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT,
              nullptr,     -1};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    *out = new cublasLtMatmulDescOpaque_t();
    return cublasLtMatmulDescInit_internal(*out, sizeof **out, compute, scale);
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
    delete d;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d,
                                              cublasLtMatmulDescAttributes_t a,
                                              const void *from, size_t bytes) {
    if (!d) return CUBLAS_STATUS_INVALID_VALUE;
    switch (a) {
    case CUBLASLT_MATMUL_DESC_POINTER_MODE: return store(&of(d)->pointer_mode, from, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSA: return store(&of(d)->trans_a, from, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return store(&of(d)->trans_b, from, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return store(&of(d)->epilogue, from, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return store(&of(d)->bias, from, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return store(&of(d)->bias_type, from, bytes);
    default: return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "attribute of a product");
    }
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t l, size_t size,
                                                 cudaDataType type, uint64_t rows,
                                                 uint64_t cols, int64_t ld) {
    if (!l || size < sizeof(layout)) return CUBLAS_STATUS_INVALID_VALUE;
    *of(l) = {rows, cols, ld, type, CUBLASLT_ORDER_COL, 1};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld) {
    *out = new cublasLtMatrixLayoutOpaque_t();
    return cublasLtMatrixLayoutInit_internal(*out, sizeof **out, type, rows, cols, ld);
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
    delete l;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l,
                                                cublasLtMatrixLayoutAttribute_t a,
                                                const void *from, size_t bytes) {
    if (!l) return CUBLAS_STATUS_INVALID_VALUE;
    switch (a) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE: return store(&of(l)->type, from, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER: return store(&of(l)->order, from, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ROWS: return store(&of(l)->rows, from, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS: return store(&of(l)->cols, from, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD: return store(&of(l)->ld, from, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return store(&of(l)->batch, from, bytes);
    default: return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "attribute of a layout");
    }
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t p,
                                                     size_t size) {
    if (!p || size < sizeof(preference)) return CUBLAS_STATUS_INVALID_VALUE;
    *of(p) = {0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out) {
    *out = new cublasLtMatmulPreferenceOpaque_t();
    return cublasLtMatmulPreferenceInit_internal(*out, sizeof **out);
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t a,
                                                    const void *from, size_t bytes) {
    if (!p) return CUBLAS_STATUS_INVALID_VALUE;
    switch (a) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return store(&of(p)->max_workspace, from, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return store(&of(p)->reductions, from, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return store(&of(p)->alignment[a - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], from,
                     bytes);
    default: return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "attribute of a preference");
    }
}

/* ---- algorithms */

cublasStatus_t
cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t d,
                               cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                               cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t o,
                               cublasLtMatmulPreference_t pref, int wanted,
                               cublasLtMatmulHeuristicResult_t *out, int *found) {
    CUSHIM_API;
    if (!h || !pref || !out || !found || wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
    *found = 0;
    problem p;
    if (cublasStatus_t s = make_problem(&p, d, a, b, c, o)) return s;
    for (uint32_t align : of(pref)->alignment)
        if (align < ALIGN) return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "alignment below 16");
    for (const algorithm &g : candidates(p)) {
        size_t workspace = workspace_of(p, g);
        if (*found == wanted || workspace > of(pref)->max_workspace ||
            (g.reduction & of(pref)->reductions) != g.reduction)
            continue;
        cublasLtMatmulHeuristicResult_t *r = &out[(*found)++];
        memset(r, 0, sizeof *r);
        *of(&r->algo) = g;
        r->workspaceSize = workspace;
        r->state = CUBLAS_STATUS_SUCCESS;
        r->wavesCount = 1.0f;
    }
    return *found ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoGetIds(cublasLtHandle_t, cublasComputeType_t, cudaDataType_t,
                                        cudaDataType_t, cudaDataType_t, cudaDataType_t,
                                        cudaDataType_t, int wanted, int ids[], int *found) {
    *found = 0;
    for (const kind &k : KINDS)
        if (*found < wanted) ids[(*found)++] = k.id;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoInit(cublasLtHandle_t, cublasComputeType_t, cudaDataType_t,
                                      cudaDataType_t, cudaDataType_t, cudaDataType_t,
                                      cudaDataType_t, int id, cublasLtMatmulAlgo_t *out) {
    if (!kind_of(id)) return CUBLAS_STATUS_INVALID_VALUE;
    memset(out, 0, sizeof *out);
    *of(out) = {MAGIC, id, 1, CUBLASLT_REDUCTION_SCHEME_NONE, 20, 16, 0, 0, 0, 0};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *a,
                                                    cublasLtMatmulAlgoConfigAttributes_t what,
                                                    void *to, size_t bytes, size_t *written) {
    if (!a || of(a)->magic != MAGIC) return CUBLAS_STATUS_INVALID_VALUE;
    const algorithm &g = *of(a);
    switch (what) {
    case CUBLASLT_ALGO_CONFIG_ID: return load(g.id, to, bytes, written);
    case CUBLASLT_ALGO_CONFIG_TILE_ID: return load(g.tile, to, bytes, written);
    case CUBLASLT_ALGO_CONFIG_SPLITK_NUM: return load(g.split_k, to, bytes, written);
    case CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME: return load(g.reduction, to, bytes, written);
    case CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING: return load(g.swizzle, to, bytes, written);
    case CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION: return load(g.custom, to, bytes, written);
    case CUBLASLT_ALGO_CONFIG_STAGES_ID: return load(g.stages, to, bytes, written);
    case CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID: return load(g.inner, to, bytes, written);
    case CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID: return load(g.cluster, to, bytes, written);
    default: return CUBLAS_STATUS_INVALID_VALUE;
    }
}
cublasStatus_t cublasLtMatmulAlgoConfigSetAttribute(cublasLtMatmulAlgo_t *a,
                                                    cublasLtMatmulAlgoConfigAttributes_t what,
                                                    const void *from, size_t bytes) {
    if (!a || of(a)->magic != MAGIC) return CUBLAS_STATUS_INVALID_VALUE;
    algorithm *g = of(a);
    switch (what) {
    case CUBLASLT_ALGO_CONFIG_TILE_ID: return store(&g->tile, from, bytes);
    case CUBLASLT_ALGO_CONFIG_SPLITK_NUM: return store(&g->split_k, from, bytes);
    case CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME: return store(&g->reduction, from, bytes);
    case CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING: return store(&g->swizzle, from, bytes);
    case CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION: return store(&g->custom, from, bytes);
    case CUBLASLT_ALGO_CONFIG_STAGES_ID: return store(&g->stages, from, bytes);
    case CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID: return store(&g->inner, from, bytes);
    case CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID: return store(&g->cluster, from, bytes);
    default: return CUBLAS_STATUS_INVALID_VALUE;
    }
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t h, cublasLtMatmulDesc_t d,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t o,
                                       const cublasLtMatmulAlgo_t *g,
                                       cublasLtMatmulHeuristicResult_t *out) {
    CUSHIM_API;
    problem p;
    if (!h || !g || !out) return CUBLAS_STATUS_INVALID_VALUE;
    if (cublasStatus_t s = make_problem(&p, d, a, b, c, o)) return s;
    if (!valid(*of(g))) return CUBLAS_STATUS_NOT_SUPPORTED;
    memset(out, 0, sizeof *out);
    out->algo = *g;
    out->workspaceSize = workspace_of(p, *of(g));
    out->wavesCount = 1.0f;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t d, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t la, const void *b,
                              cublasLtMatrixLayout_t lb, const void *beta, const void *c,
                              cublasLtMatrixLayout_t lc, void *o, cublasLtMatrixLayout_t lo,
                              const cublasLtMatmulAlgo_t *chosen, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
    CUSHIM_API;
    if (!h || !alpha || !beta) return refuse(CUBLAS_STATUS_INVALID_VALUE, "NULL argument");
    problem p;
    if (cublasStatus_t s = make_problem(&p, d, la, lb, lc, lo)) return s;
    arguments x = {*(const float *)alpha, *(const float *)beta, a, b, c, o, workspace,
                   workspace_bytes};
    algorithm g = candidates(p)[0];
    if (chosen) g = *of(chosen);
    if (!chosen && workspace_of(p, g) > workspace_bytes) g = candidates(p)[1];
    if (!valid(g)) return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "no such algorithm");
    if (p.d.epilogue == CUBLASLT_EPILOGUE_BIAS && !p.d.bias)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "bias without a pointer");
    if (cublasStatus_t s = check_arguments(p, g, x)) return s;
    return enqueue(stream, [=] { multiply(p, g, x); }) == cudaSuccess
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_EXECUTION_FAILED;
}

} // extern "C"
