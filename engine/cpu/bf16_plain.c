/* Linear layers of the family bf16 in plain C: the reference version of the vector kernels, and rounding for all of
 * them. Pure; any thread. */
#include <math.h>

#include "base/check.h"
#include "engine/cpu/bf16.h"
#include "engine/cpu/linear_decode.h"
#include "engine/cpu/words.h"

void bf16_quantise(const float *x, const act *a, uint32_t row) {
    CHECK(row < a->n_rows);
    bf16_block *b = (bf16_block *)bf16_group(a, row);
    for (uint32_t k = 0; k < a->n_in; k += 32, b++) {
        uint16_t *to = b->x[row % BF16_GROUP];
        const uint32_t n = a->n_in - k < 32 ? a->n_in - k : 32;
        for (uint32_t i = 0; i < n; i++)
            to[i] = (uint16_t)(bf16_round(bits_of_float(x[k + i])) >> 16);
        for (uint32_t i = n; i < 32; i++) to[i] = 0;
    }
}

/* 32 inputs of a strip, rounded; zeros from input n on. */
typedef float block_weights[32][STRIP];

DECODE void read_quant(const uint8_t *tile, dtype t, uint32_t j, block_weights w) {
    for (uint32_t o = 0; o < STRIP; o++) {
        const block_scale s = scale_at(tile, t, j, o);
        for (uint32_t k = 0; k < 32; k++)
            w[k][o] = weight_at(&s, codes_at(tile, t, j), t, k, o);
    }
}

static void read_words(const uint8_t *tile, dtype t, uint32_t j, block_weights w) {
    for (uint32_t o = 0; o < STRIP; o++) words_floats_at(tile, t, j, o, &w[0][o], STRIP);
}

static void read_float(const uint8_t *strip, dtype t, uint32_t n, block_weights w) {
    for (uint32_t i = 0; i < n * STRIP; i++) {
        uint16_t h;
        float v;
        if (t == DT_F32) {
            memcpy(&v, strip + 4ull * i, sizeof v);
        } else {
            memcpy(&h, strip + 2ull * i, sizeof h);
            v = t == DT_F16 ? half_to_float(h) : bf16_to_float(h);
        }
        w[i / STRIP][i % STRIP] = v;
    }
}

/* Inputs [k, k + 32) of a strip. */
static void read_block(const packed *m, const uint8_t *strip, uint32_t k, block_weights w) {
    const uint32_t n = m->n_in - k < 32 ? m->n_in - k : 32;
    memset(w, 0, sizeof(block_weights));
    const uint32_t in = tile_of(m->type).n_in;
    switch (dtype_kind(m->type)) {
#define X(name, ...)                                                                           \
    case DT_##name:                                                                            \
        read_quant(strip + k / tile_of(DT_##name).n_in * tile_bytes(DT_##name), DT_##name,     \
                   k % tile_of(DT_##name).n_in / 32, w);                                       \
        break;
        TILE_LIST(X)
#undef X
#define X(name, ...) case DT_##name:
        WORDS_LIST(X)
        read_words(strip + (uint64_t)(k / in) * tile_bytes(m->type), m->type, k % in / 32, w);
        break;
        GROUP_TILE_LIST(X)
#undef X
        read_quant(strip + (uint64_t)(k / in) * tile_bytes(m->type), m->type, k % in / 32, w);
        break;
    default:
        read_float(strip + (uint64_t)k * STRIP * (m->type == DT_F32 ? 4 : 2), m->type, n, w);
        break;
    }
    for (uint32_t i = 0; i < 32 * STRIP; i++) {
        float *v = &w[i / STRIP][i % STRIP];
        *v = float_of_bits(bf16_round(bits_of_float(*v)));
    }
}

/* acc += (sum over even inputs) + (sum over odd ones), each a chain. */
static void add_block(block_weights w, const uint16_t x[32], float acc[STRIP]) {
    for (uint32_t o = 0; o < STRIP; o++) {
        float even = 0, odd = 0;
        for (uint32_t k = 0; k < 32; k += 2) {
            even = fmaf(w[k][o], bf16_to_float(x[k]), even);
            odd = fmaf(w[k + 1][o], bf16_to_float(x[k + 1]), odd);
        }
        acc[o] += even + odd;
    }
}

static void linear(const linear_call *c, span rows, span outs) {
    const uint32_t n_in = c->w->n_in;
    CHECK(c->a->q && c->a->n_in == n_in && rows.to <= c->a->n_rows);
    CHECK(outs.from % STRIP == 0 && outs.to <= c->w->n_out);
    for (uint32_t out = outs.from; out < outs.to; out += STRIP) {
        const uint32_t n = outs.to - out < STRIP ? outs.to - out : STRIP;
        const uint8_t *strip = strip_at(c->w, out);
        for (uint32_t row = rows.from, next; row < rows.to; row = next) {
            float acc[BF16_GROUP][STRIP] = {{0}};
            block_weights w;
            next = row - row % BF16_GROUP + BF16_GROUP;
            if (next > rows.to) next = rows.to;
            for (uint32_t k = 0; k < n_in; k += 32) {
                read_block(c->w, strip, k, w);
                for (uint32_t r = row; r < next; r++)
                    add_block(w, bf16_group(c->a, r)[k / 32].x[r % BF16_GROUP], acc[r - row]);
            }
            for (uint32_t r = row; r < next; r++)
                for (uint32_t o = 0; o < n; o++) {
                    float v = acc[r - row][o];
                    if (c->w->scale) v *= *c->w->scale;
                    if (c->bias) v += c->bias[out + o];
                    if (c->residual) v += c->residual[(uint64_t)r * c->ld_res + out + o];
                    c->y[(uint64_t)r * c->ldy + out + o] = v;
                }
        }
    }
}

const linear_kernels bf16_plain = {ISA_PLAIN, bf16_quantise, linear};
