/* Linear layers of the family bf16 in vector registers. Included by bf16_avx2.c and bf16_avx512.c, which define
 * before it fma_of(a, b, c) = a * b + c, two_of(x), a pair of bf16 in every lane, and BF16_ISA, BF16_TABLE and
 * BF16_WORDS (a words_floats_fn). A strip is unpacked and rounded once for all rows of a chunk. */

#include "engine/cpu/bf16_read.h"

enum { FEW = 4 /* rows whose sums are in registers */ };

/* acc[r] += 32 inputs of a strip. x: the rows' pairs of bf16. */
INLINE void add_block(const float *w, const uint16_t *const *x, float *acc, const int R) {
    for (uint32_t h = 0; h < PARTS; h++) {
        vf even[FEW], odd[FEW];
        for (int r = 0; r < R; r++) even[r] = odd[r] = (vf){0};
        for (uint32_t k = 0; k < 32; k += 2) {
            const vf w0 = loadf(w + STRIP * k + LANES * h),
                     w1 = loadf(w + STRIP * (k + 1) + LANES * h);
            for (int r = 0; r < R; r++) {
                const u32s two = (u32s)two_of(x[r] + k);
                even[r] = fma_of(w0, (vf)(two << 16u), even[r]);
                odd[r] = fma_of(w1, (vf)(two & 0xffff0000u), odd[r]);
            }
        }
        for (int r = 0; r < R; r++) {
            float *to = acc + STRIP * r + LANES * h;
            storef(to, loadf(to) + (even[r] + odd[r]));
        }
    }
}

static void add_rows(const float *w, const act *a, span rows, uint32_t block, float *acc) {
    for (uint32_t row = rows.from, n; row < rows.to; row += n, acc += STRIP * n) {
        const uint16_t *x[FEW] = {0};
        n = rows.to - row < FEW ? rows.to - row : FEW;
        for (uint32_t r = 0; r < n; r++)
            x[r] = bf16_group(a, row + r)[block].x[(row + r) % BF16_GROUP];
        switch (n) {
        case 1: add_block(w, x, acc, 1); break;
        case 2: add_block(w, x, acc, 2); break;
        case 3: add_block(w, x, acc, 3); break;
        default: add_block(w, x, acc, 4); break;
        }
    }
}

/* As bf16_round. */
INLINE void round_floats(float *w, uint32_t n) {
    for (uint32_t i = 0; i < n; i += LANES) {
        const u32s u = (u32s)loadf(w + i), size = u & 0x7fffffffu;
        const u32s kept = (u32s)(size >= BF16_TINY_BITS), bad = (u32s)(size > 0x7f800000u);
        const u32s v = (u + 0x7fffu + (u >> 16u & 1u)) & 0xffff0000u & kept;
        storef(w + i, (vf)((v & ~bad) | (bad & 0x7fc00000u)));
    }
}

static void put_row(const linear_call *c, uint32_t row, uint32_t out, uint32_t n,
                    const float *acc) {
    float *y = c->y + (uint64_t)row * c->ldy + out;
    for (uint32_t o = 0; o < n; o++) {
        float v = acc[o];
        if (c->w->scale) v *= *c->w->scale;
        if (c->bias) v += c->bias[out + o];
        if (c->residual) v += c->residual[(uint64_t)row * c->ld_res + out + o];
        y[o] = v;
    }
}

static void linear(const linear_call *c, span rows, span outs) {
    const uint32_t n_in = c->w->n_in;
    _Alignas(64) float w[256 * STRIP], acc[ROWS_IN_CACHE * STRIP];
    CHECK(c->a->q && c->a->n_in == n_in && rows.to <= c->a->n_rows);
    CHECK(outs.from % STRIP == 0 && outs.to <= c->w->n_out);
    for (span some = rows; some.from < rows.to; some.from = some.to) {
        some.to = rows.to - some.from < ROWS_IN_CACHE ? rows.to : some.from + ROWS_IN_CACHE;
        for (uint32_t out = outs.from; out < outs.to; out += STRIP) {
            const uint32_t n_outs = outs.to - out < STRIP ? outs.to - out : STRIP;
            const uint8_t *strip = strip_at(c->w, out);
            memset(acc, 0, (some.to - some.from) * STRIP * sizeof *acc);
            for (uint32_t k = 0, n; k < n_in; k += n) {
                n = read_tile(c->w, strip, k, w);
                round_floats(w, (n + 31) / 32 * 32 * STRIP);
                for (uint32_t i = 0; i < n; i += 32)
                    add_rows(w + STRIP * i, c->a, some, (k + i) / 32, acc);
            }
            for (uint32_t r = some.from; r < some.to; r++)
                put_row(c, r, out, n_outs, acc + STRIP * (r - some.from));
        }
    }
}

const linear_kernels BF16_TABLE = {BF16_ISA, bf16_quantise, linear};
