/* Linear layers: what no instruction set changes. Which types there are, the
 * choice of kernels, the shares of threads. Pure; any thread. */
#include "engine/cpu/linear.h"

#include "base/check.h"
#include "engine/cpu/bf16.h"
#include "engine/cpu/isa.h"
#include "engine/cpu/linear_tiles.h"

bool linear_supports(dtype t, uint32_t n_in) {
    if (n_in == 0 || n_in > 1u << 20) return false;
    const tile_info i = tile_of(t);
    return i.n_in ? n_in % i.n_in == 0 : t == DT_F32 || t == DT_F16 || t == DT_BF16;
}

bool linear_wants_int8(dtype t) {
    return tile_meets_codes(t);
}

uint64_t act_bytes(uint32_t n_in, uint32_t n_rows) {
    return ceil_div(n_rows, ACT_GROUP) * (n_in / 32) * sizeof(act_block);
}

uint64_t act_bytes_of(activation_dtype family, uint32_t n_in, uint32_t n_rows) {
    if (family != ACTIVATION_BF16) return act_bytes(n_in, n_rows);
    return ceil_div(n_rows, BF16_GROUP) * ceil_div(n_in, 32) * sizeof(bf16_block);
}

uint32_t act_rows(activation_dtype family) {
    return family == ACTIVATION_BF16 ? BF16_GROUP : ACT_GROUP;
}

void *act_part(const act *a, uint32_t row, uint32_t k) {
    CHECK(row < a->n_rows && k % 32 == 0);
    if (a->family == ACTIVATION_BF16) return (void *)(bf16_group(a, row) + k / 32);
    return act_group(a, row) + k / 32;
}

void act_get(const act *a, uint32_t row, int8_t *q, float *d, float *s) {
    CHECK(row < a->n_rows);
    const act_block *b = act_group(a, row);
    uint32_t r = row % ACT_GROUP;
    for (uint32_t k = 0; k < a->n_in / 32; k++) {
        memcpy(q + 32 * k, b[k].q[r], 32);
        d[k] = b[k].d[r];
        s[k] = b[k].s[r];
    }
}

const linear_kernels *linear_kernels_get(cpu_isa isa) {
    if (isa == ISA_AUTO) isa = isa_best();
    if (isa_lack(isa)) return NULL;
    return isa >= ISA_AVX512    ? &linear_avx512
           : isa == ISA_AVXVNNI ? &linear_avxvnni
           : isa == ISA_AVX2    ? &linear_avx2
                                : &linear_plain;
}

const linear_kernels *linear_kernels_bf16(cpu_isa isa) {
    if (isa == ISA_AUTO) isa = isa_best();
    if (isa_lack(isa)) return NULL;
    return isa == ISA_AMX      ? &bf16_amx
           : isa == ISA_AVX512 ? &bf16_avx512
           : isa >= ISA_AVX2   ? &bf16_avx2
                               : &bf16_plain;
}

static span split(uint32_t n, uint32_t unit, uint32_t n_threads, uint32_t id) {
    uint64_t units = ceil_div(n, unit);
    uint64_t a = units * id / n_threads * unit, b = units * (id + 1) / n_threads * unit;
    return (span){a < n ? (uint32_t)a : n, b < n ? (uint32_t)b : n};
}

linear_part linear_share(activation_dtype family, uint32_t n_rows, uint32_t n_out,
                         uint32_t n_threads, uint32_t id) {
    CHECK(n_threads > 0 && id < n_threads);
    linear_part p = {{0, n_rows}, {0, n_out}};
    /* Whole groups of rows, and enough of them that one group more or less matters little. */
    if (n_rows / n_threads >= 16 * ACT_GROUP)
        p.rows = split(n_rows, act_rows(family), n_threads, id);
    else
        p.outs = split(n_out, STRIP, n_threads, id);
    return p;
}
