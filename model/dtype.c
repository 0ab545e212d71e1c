/* The table of stored number types. Owns nothing; any thread. */
#include "model/dtype.h"

#include <stdio.h>
#include <strings.h>

#include "base/check.h"

const dtype_info *dtype_get(uint32_t number) {
    static const dtype_info table[] = {
#define X(e, number, name, elems, bytes) [number] = {name, elems, bytes},
        DTYPE_LIST(X)
#undef X
    };
    if (number >= sizeof table / sizeof *table || !table[number].name) return NULL;
    return &table[number];
}

const char *dtype_name(dtype t) {
    const dtype_info *info = dtype_get(t);
    return info ? info->name : "none";
}

char *dtype_kv_name(dtype k, dtype v, char buf[32]) {
    if (k == v)
        snprintf(buf, 32, "%s", dtype_name(k));
    else
        snprintf(buf, 32, "K %s, V %s", dtype_name(k), dtype_name(v));
    return buf;
}

dtype dtype_by_name(str s) {
#define X(e, number, name, elems, bytes)                                                       \
    if (s.len == sizeof name - 1 && strncasecmp(s.ptr, name, s.len) == 0) return e;
    DTYPE_LIST(X)
#undef X
    return DT_NONE;
}

bool dtype_bytes(dtype t, uint64_t rows, uint64_t cols, uint64_t *out) {
    const dtype_info *info = dtype_get(t);
    uint64_t row;
    if (!info || cols % info->block_elems != 0) return false;
    return mul_u64(cols / info->block_elems, info->block_bytes, &row) &&
           mul_u64(row, rows, out);
}

static dtype fallback_of(dtype t) {
    switch (t) {
    case DT_Q4_K: return DT_Q5_0;
    case DT_Q5_K: return DT_Q5_1;
    case DT_Q6_K: return DT_Q8_0;
    case DT_TQ1_0:
    case DT_TQ2_0: return DT_Q4_0;
    default: return DT_IQ4_NL; /* Q2_K, Q3_K and every IQ type of 256 */
    }
}

dtype dtype_for_cols(dtype t, uint64_t cols) {
    const dtype_info *info = dtype_get(t);
    CHECK(info != NULL);
    if (cols % info->block_elems == 0) return t;
    if (info->block_elems == 256) t = fallback_of(t);
    return cols % dtype_get(t)->block_elems == 0 ? t : DT_F16;
}
