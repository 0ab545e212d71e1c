/* The encoder of a type on this CPU; the error. Pure. */
#include "quant/quant.h"

#include <string.h>

#include "base/check.h"
#include "base/half.h"
#include "model/words.h"
#include "quant/encode.h"

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static quant_encoder *encoder_of(dtype t, bool weighted) {
    const bool wide = has_avx2();
    quant_encoder *rtn = (wide ? quant_rtn_avx2 : quant_rtn_plain)(t);
    quant_encoder *search = (wide ? quant_search_avx2 : quant_search_plain)(t);
    return rtn && (!weighted || !search) ? rtn : search;
}

bool quant_can(dtype t) {
    return t == DT_F32 || t == DT_F16 || t == DT_BF16 || encoder_of(t, false);
}

bool quant_reads(dtype t) {
    return quant_can(t) || dtype_group(t) || (words_type_of(t).n_words && t != DT_NVFP4);
}

size_t quant_row_bytes(dtype t, size_t n) {
    uint64_t bytes = 0;
    CHECK(dtype_bytes(t, 1, n, &bytes));
    return (size_t)bytes;
}

static void encode_halves(dtype t, const float *x, size_t n, uint8_t *out) {
    for (size_t i = 0; i < n; i++) {
        const uint16_t h = t == DT_F16 ? half_of_float(x[i]) : bf16_of_float(x[i]);
        memcpy(out + 2 * i, &h, 2);
    }
}

void quant_encode_row(dtype t, const float *x, size_t n, const float *importance, void *out) {
    CHECK(n % dtype_get(t)->block_elems == 0);
    if (t == DT_F32)
        memcpy(out, x, 4 * n);
    else if (t == DT_F16 || t == DT_BF16)
        encode_halves(t, x, n, out);
    else
        encoder_of(t, importance != NULL)(x, n, importance, out);
}

double quant_error(const float *x, const float *y, size_t n, const float *importance) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const double off = (double)x[i] - (double)y[i];
        sum += (importance ? (double)importance[i] : 1.0) * off * off;
    }
    return sum;
}
