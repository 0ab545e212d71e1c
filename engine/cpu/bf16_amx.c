/* Linear layers of the family bf16 with tiles of AMX. TDPBF16PS adds a block of 32 inputs to 16 x 16 sums as
 * engine/cpu/linear.h says: one chain of fused products over the even inputs, one over the odd ones, their sum added to
 * the tile's float32. Weights are unpacked to bf16, two strips and some inputs at a time, for all rows of a chunk. Pure;
 * any thread of a process that may use tiles (isa_lack). */
#include "engine/cpu/bf16.h"

#include "base/check.h"
#include "engine/cpu/linear_vec_avx512.h"
#include "engine/cpu/words.h"

#include "engine/cpu/linear_tile.h"

#define BF16_WORDS words_floats_avx512
#include "engine/cpu/bf16_read.h"

/* Tiles: sums 0..3 (of rows 0-15 by both strips, of rows 16-31 by both), rows 4 and 5, weights 6 and 7. gcc's intrinsics
 * do not say that they touch memory, and its version 12 then drops the stores before them: "memory" does. */
#define TILES_SET(p)    __asm__ volatile("ldtilecfg %0" ::"m"(*(p)) : "memory")
#define TILES_RELEASE() __asm__ volatile("tilerelease" ::: "memory")
#define TILE_ZERO(t)    __asm__ volatile("tilezero %%tmm" #t ::: "memory")
#define TILE_LOAD(t, p)                                                                        \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(p), "r"(64L) : "memory")
#define TILE_STORE(t, p)                                                                       \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(p), "r"(64L) : "memory")
/* Of rows: read once while the weights of a chunk stay in the first cache. */
#define TILE_STREAM(t, p)                                                                      \
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #t ::"r"(p), "r"(64L) : "memory")
#define TILE_ADD(sum, rows, weights)                                                           \
    __asm__ volatile("tdpbf16ps %%tmm" #weights ", %%tmm" #rows ", %%tmm" #sum ::: "memory")

typedef struct tiles_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tiles_config;

/* Of 32 inputs; two strips of them stay in the first cache. More than CHUNK_BLOCKS only where that saves a chunk. */
enum { CHUNK_BLOCKS = 16, MOST_BLOCKS = 18, ROWS_AT_ONCE = 256, TILE_FLOATS = 256, AHEAD = 2 };

/* A block's weights as TDPBF16PS reads them: [input / 2][output][input % 2]. */
typedef uint16_t weights_block[16][STRIP][2];

typedef struct work {
    union {
        _Alignas(64) float floats[256 * STRIP];
        _Alignas(64) tile_scales scales[2];
    };
    _Alignas(64) weights_block weights[MOST_BLOCKS][2];
    _Alignas(64) float sums[ROWS_AT_ONCE / BF16_GROUP][2][TILE_FLOATS];
} work;
_Static_assert(sizeof(work) <= BF16_STACK_BYTES, "work is planned by it");

/* Some inputs of one or two strips. */
typedef struct chunk {
    const packed *m;
    const uint8_t *strip[2];
    bool two_strips;
    span blocks; /* of 32 inputs */
    work *w;
} chunk;

/* The first of one or two tiles of rows has n rows, the second what is left; more: all have 16. */
static void set_tiles(uint32_t n) {
    _Alignas(64) tiles_config c = {.palette = 1};
    const uint32_t first = n < 16 ? n : 16, second = n > 16 && n < 32 ? n - 16 : 16;
    for (int t = 0; t < 8; t++) {
        c.row_bytes[t] = 64;
        c.rows[t] = (uint8_t)(t < 2 || t == 4 ? first : t < 4 || t == 5 ? second : 16);
    }
    TILES_SET(&c);
}

/* ---- weights ---- */

/* 0 for what is below BF16_TINY_BITS; NaN stays. Weights whose scales are binary16 need it not: they are multiples of
 * 2^-24, as are sums and products of such numbers with integers. */
INLINE vf no_tiny(vf v) {
    const __mmask16 kept =
        _mm512_cmp_ps_mask(_mm512_abs_ps(v), _mm512_set1_ps(0x1p-56f), _CMP_NLT_UQ);
    return _mm512_maskz_mov_ps(kept, v);
}

/* Two inputs of a strip, one after the other. */
INLINE void put_words(vi v, uint16_t to[STRIP][2]) {
    const vi order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                         22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    storei(to, _mm512_permutexvar_epi16(order, v));
}
INLINE void put_pair(vf even, vf odd, uint16_t to[STRIP][2]) {
    put_words((vi)_mm512_cvtne2ps_pbh(odd, even), to);
}

/* A block of float32. */
static void round_block(const float *w, bool tiny, weights_block to) {
    for (uint32_t i = 0; i < 16; i++, w += 2 * STRIP) {
        const vf even = loadf(w), odd = loadf(w + STRIP);
        if (tiny)
            put_pair(no_tiny(even), no_tiny(odd), to[i]);
        else
            put_pair(even, odd, to[i]);
    }
}

/* A byte of a lane as float32: or-ed into a number whose last bit is worth what the byte's is, less that number and
 * the code's offset. */
typedef struct byte_base {
    vf low, high; /* for bits 0-7, 8-15 */
} byte_base;

INLINE byte_base base_of(vf offset) {
    return (byte_base){_mm512_set1_ps(0x1p23f) + offset, _mm512_set1_ps(0x1p15f) + offset};
}
INLINE vf low_byte(vi v, byte_base b) {
    return (vf)_mm512_ternarylogic_epi32(v, _mm512_set1_epi32(0xff),
                                         (vi)_mm512_set1_ps(0x1p23f), 0xea) -
           b.low;
}
INLINE vf next_byte(vi v, byte_base b) {
    return (vf)_mm512_ternarylogic_epi32(v, _mm512_set1_epi32(0xff00),
                                         (vi)_mm512_set1_ps(0x1p15f), 0xea) -
           b.high;
}

/* As block_floats, rounded. A code times its scale is exact, so that a fused minimum is rounded once, as an added one. */
INLINE void block_pairs(const uint8_t *c, const dtype t, const vf *d, const vf *m, byte_base b,
                        const bool tiny, weights_block to) {
    const bool has_min = tile_of(t).has_min;
    for (int l = 0; l < 8; l++) {
        vi v = codes_of(c, t, l);
        const vf scale = d[l / 4], min = m[l / 4];
        for (int i = 0; i < 2; i++, v = shifted(v, -16)) {
            vf even = low_byte(v, b), odd = next_byte(v, b);
            even = has_min ? _mm512_fmadd_ps(scale, even, min) : _mm512_mul_ps(scale, even);
            odd = has_min ? _mm512_fmadd_ps(scale, odd, min) : _mm512_mul_ps(scale, odd);
            if (tiny) even = no_tiny(even), odd = no_tiny(odd);
            put_pair(even, odd, to[2 * l + i]);
        }
    }
}

/* As part_floats, of block j of a tile. s: of this tile, read with block 0. */
INLINE void tile_pairs(const uint8_t *tile, const dtype t, uint32_t j, tile_scales *s,
                       weights_block to) {
    const tile_info info = tile_of(t);
    const byte_base b = base_of(_mm512_set1_ps(info.offset));
    vf d[2], m[2] = {0};
    d[0] = d[1] = tile_d(tile, t, 0);
    if (info.has_min) m[0] = m[1] = load_half(tile + 32);
    if (info.n_in > 32) {
        const vf neg_m = -m[0];
        if (j == 0) tile_scales_read(tile, t, 0, s);
        if (info.halves) {
            times_pair(d, s->scale[j], d[0]);
            if (info.has_min) times_pair(m, s->min[j], neg_m);
        } else {
            d[0] = d[1] = loadf(s->d[j]);
            if (info.has_min) m[0] = m[1] = loadf(s->m[j]);
        }
    }
    block_pairs(tile + STRIP * (info.head + j * info.codes), t, d, m, b, t == DT_MXFP4, to);
}

/* As group_floats. */
INLINE void group_pairs(const uint8_t *tile, const dtype kind, const dtype t, uint32_t j,
                        weights_block to) {
    const tile_info info = tile_of(kind);
    vf offset = _mm512_set1_ps(info.offset);
    if (info.zero) offset += floats_of(zeros_at(tile, kind, t, 0));
    vf d[2], m[2] = {0};
    d[0] = d[1] = floats_at(tile, dtype_scale(t), 0);
    block_pairs(tile + STRIP * (tile_of(t).head + j * info.codes), kind, d, m, base_of(offset),
                true, to);
}

/* 32 inputs of a float type. */
INLINE void float_pairs(const uint8_t *p, const dtype t, weights_block to) {
    for (uint32_t i = 0; i < 16; i++) {
        if (t == DT_BF16) {
            const vi v = loadi(p + 64 * i);
            const __mmask32 kept =
                _mm512_cmpge_epu16_mask(v & all16(0x7fff), all16(BF16_TINY_BITS >> 16));
            put_words(_mm512_maskz_mov_epi16(kept, v), to[i]);
        } else if (t == DT_F16) {
            put_pair(load_half(p + 64 * i), load_half(p + 64 * i + 32), to[i]);
        } else {
            const float *f = (const float *)(const void *)(p + 128 * i);
            put_pair(no_tiny(loadf(f)), no_tiny(loadf(f + STRIP)), to[i]);
        }
    }
}

/* Block number `block` of strip i of a pair. kind: a constant. */
INLINE void unpack_block(const chunk *c, const dtype kind, uint32_t block, uint32_t i) {
    const dtype t = c->m->type;
    if (tile_of(kind).n_in == 0) {
        const uint64_t bytes = strip_bytes(kind, 32);
        const uint8_t *p = c->strip[i] + block * bytes;
        prefetch(p, (uint32_t)bytes);
        float_pairs(p, kind, c->w->weights[block - c->blocks.from][i]);
        return;
    }
    const uint32_t per = tile_of(tile_of(kind).grouped ? t : kind).n_in / 32, j = block % per;
    const uint32_t bytes = tile_bytes(tile_of(kind).grouped ? t : kind);
    const uint8_t *tile = c->strip[i] + (uint64_t)(block / per) * bytes;
    uint16_t(*to)[STRIP][2] = c->w->weights[block - c->blocks.from][i];
    prefetch(tile + bytes / per * j, bytes / per);
    if (tile_of(kind).grouped)
        group_pairs(tile, kind, t, j, to);
    else
        tile_pairs(tile, kind, j, &c->w->scales[i], to);
}

/* Blocks of strip i of a pair, of a type that has no unpack_block. */
static void unpack(const chunk *c, uint32_t i) {
    const bool tiny = c->m->type != DT_F16;
    const uint32_t end = c->blocks.to * 32 < c->m->n_in ? c->blocks.to * 32 : c->m->n_in;
    weights_block(*to)[2] = c->w->weights;
    for (uint32_t k = c->blocks.from * 32, n; k < end; k += n) {
        n = read_tile(c->m, c->strip[i], k, c->w->floats);
        for (uint32_t j = 0; j < n; j += 32, to++)
            round_block(c->w->floats + STRIP * j, tiny, (*to)[i]);
    }
}

/* ---- products ---- */

INLINE void begin_sums(float (*sums)[2][TILE_FLOATS], bool first, bool two_rows,
                       bool two_strips) {
    if (first) {
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
        return;
    }
    TILE_LOAD(0, sums[0][0]);
    if (two_strips) TILE_LOAD(1, sums[0][1]);
    if (two_rows) TILE_LOAD(2, sums[1][0]);
    if (two_rows && two_strips) TILE_LOAD(3, sums[1][1]);
}

INLINE void end_sums(float (*sums)[2][TILE_FLOATS], bool two_rows, bool two_strips) {
    TILE_STORE(0, sums[0][0]);
    if (two_strips) TILE_STORE(1, sums[0][1]);
    if (two_rows) TILE_STORE(2, sums[1][0]);
    if (two_rows && two_strips) TILE_STORE(3, sums[1][1]);
}

/* One or two tiles of rows by a block of one or two strips. next: from one tile of rows to the other. */
INLINE void add_block(const bf16_block *a, uint64_t next, weights_block w[2], bool two_rows,
                      bool two_strips) {
    TILE_STREAM(4, a);
    TILE_LOAD(6, w[0]);
    TILE_ADD(0, 4, 6);
    if (two_strips) TILE_LOAD(7, w[1]);
    if (two_strips) TILE_ADD(1, 4, 7);
    if (two_rows) TILE_STREAM(5, a + next);
    if (two_rows) TILE_ADD(2, 5, 6);
    if (two_rows && two_strips) TILE_ADD(3, 5, 7);
}

/* The first rows of a chunk by its weights, each block of which is unpacked some blocks before it is multiplied: vectors
 * and tiles work at the same time. */
INLINE void add_first(const chunk *c, const dtype kind, const bf16_block *a, uint64_t next,
                      bool two_rows) {
    const uint32_t n = c->blocks.to - c->blocks.from;
    for (uint32_t b = 0; b < n + AHEAD; b++) {
        if (b < n) unpack_block(c, kind, c->blocks.from + b, 0);
        if (b < n && c->two_strips) unpack_block(c, kind, c->blocks.from + b, 1);
        if (b >= AHEAD)
            add_block(a + b - AHEAD, next, c->w->weights[b - AHEAD], two_rows, c->two_strips);
    }
}

typedef void first_fn(const chunk *, const bf16_block *a, uint64_t next, bool two_rows);
/* Types that are unpacked between products. */
#define FIRST_LIST(X) TILE_LIST(X) X(I4) X(I4Z) X(I8G) X(I8Z) X(F32) X(F16) X(BF16)
#define X(name, ...)                                                                           \
    static void first_##name(const chunk *c, const bf16_block *a, uint64_t next,               \
                             bool two_rows) {                                                  \
        add_first(c, DT_##name, a, next, two_rows);                                            \
    }
FIRST_LIST(X)
#undef X

/* NULL: weights are unpacked before. */
static first_fn *first_of(dtype t, uint32_t n_in) {
    if (n_in % 32) return NULL;
    switch (dtype_kind(t)) {
#define X(name, ...)                                                                           \
    case DT_##name: return first_##name;
        FIRST_LIST(X)
#undef X
    default: return NULL;
    }
}

static void add_blocks(const chunk *c, const bf16_block *a, uint64_t next, bool two_rows) {
    const uint32_t n = c->blocks.to - c->blocks.from;
    weights_block(*w)[2] = c->w->weights;
    if (two_rows && c->two_strips)
        for (uint32_t b = 0; b < n; b++) add_block(a + b, next, w[b], true, true);
    else
        for (uint32_t b = 0; b < n; b++) add_block(a + b, next, w[b], two_rows, c->two_strips);
}

/* Sums of a row and a strip to y. */
INLINE void put_sums(const linear_call *c, uint32_t row, uint32_t out, __mmask16 outs, vf v) {
    if (c->w->scale) v *= _mm512_set1_ps(*c->w->scale);
    if (c->bias) v += _mm512_maskz_loadu_ps(outs, c->bias + out);
    if (c->residual)
        v += _mm512_maskz_loadu_ps(outs, c->residual + (uint64_t)row * c->ld_res + out);
    _mm512_mask_storeu_ps(c->y + (uint64_t)row * c->ldy + out, outs, v);
}

/* Of the two tiles of rows from base on, rows [rows); outputs [outs), of two strips at most. */
static void put(const linear_call *c, span rows, uint32_t base, span outs,
                float (*sums)[2][TILE_FLOATS]) {
    for (uint32_t i = 0, out = outs.from; out < outs.to; i++, out += STRIP) {
        const uint32_t n = outs.to - out;
        const __mmask16 mask = (__mmask16)(n < STRIP ? (1u << n) - 1 : 0xffffu);
        for (uint32_t row = rows.from; row < rows.to; row++) {
            const uint32_t r = row - base;
            put_sums(c, row, out, mask,
                     loadf(sums[r / BF16_GROUP][i] + r % BF16_GROUP * STRIP));
        }
    }
}

/* Rows [rows), whose first group begins at base, by a chunk. */
static void multiply(const linear_call *c, const chunk *h, span rows, uint32_t base,
                     span outs) {
    const uint32_t all = (uint32_t)ceil_div(c->w->n_in, 32);
    const bool begins = h->blocks.from == 0, ends = h->blocks.to == all;
    first_fn *first = first_of(c->w->type, c->w->n_in);
    if (!first)
        for (uint32_t i = 0; i < 1u + h->two_strips; i++) unpack(h, i);
    for (uint32_t i = 0, to; base < rows.to; base = to, i += 2) {
        const bf16_block *a = bf16_group(c->a, base) + h->blocks.from;
        float(*sums)[2][TILE_FLOATS] = h->w->sums + (begins && ends ? 0 : i);
        const bool two = rows.to - base > BF16_GROUP;
        begin_sums(sums, begins, two, h->two_strips);
        if (first && i == 0)
            first(h, a, all, two);
        else
            add_blocks(h, a, all, two);
        end_sums(sums, two, h->two_strips);
        to = base + 2 * BF16_GROUP;
        const span some = {base < rows.from ? rows.from : base, to < rows.to ? to : rows.to};
        if (ends) put(c, some, base, outs, sums);
    }
}

static void linear_rows(const linear_call *c, span rows, uint32_t base, span outs, work *w) {
    const uint32_t all = (uint32_t)ceil_div(c->w->n_in, 32);
    const uint32_t most = all <= MOST_BLOCKS ? all : CHUNK_BLOCKS;
    for (uint32_t out = outs.from, next; out < outs.to; out = next) {
        next = outs.to - out < 2 * STRIP ? outs.to : out + 2 * STRIP;
        chunk h = {.m = c->w, .w = w, .two_strips = next - out > STRIP};
        h.strip[0] = strip_at(c->w, out);
        h.strip[1] = h.strip[0] + strip_bytes(c->w->type, c->w->n_in);
        for (uint32_t b = 0; b < all; b = h.blocks.to) {
            h.blocks = (span){b, all - b < most ? all : b + most};
            multiply(c, &h, rows, base, (span){out, next});
        }
    }
}

static void linear(const linear_call *c, span rows, span outs) {
    work w;
    CHECK(c->a->q && c->a->n_in == c->w->n_in && rows.to <= c->a->n_rows);
    CHECK(outs.from % STRIP == 0 && outs.to <= c->w->n_out);
    if (rows.from >= rows.to) return;
    const uint32_t base = rows.from - rows.from % BF16_GROUP;
    set_tiles(rows.to - base);
    for (uint32_t at = base, to; at < rows.to; at = to) {
        to = rows.to - at < ROWS_AT_ONCE ? rows.to : at + ROWS_AT_ONCE;
        linear_rows(c, (span){at < rows.from ? rows.from : at, to}, at, outs, &w);
    }
    TILES_RELEASE();
}

/* As bf16_round, but for the bits of a NaN. */
static void quantise(const float *x, const act *a, uint32_t row) {
    CHECK(row < a->n_rows);
    bf16_block *b = (bf16_block *)bf16_group(a, row);
    for (uint32_t k = 0; k < a->n_in; k += 32, b++) {
        const uint32_t n = a->n_in - k < 32 ? a->n_in - k : 32,
                       mask = n < 32 ? (1u << n) - 1 : ~0u;
        const vf low = _mm512_maskz_loadu_ps((__mmask16)mask, x + k),
                 high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x + k + 16);
        storei(b->x[row % BF16_GROUP], (vi)_mm512_cvtne2ps_pbh(no_tiny(high), no_tiny(low)));
    }
}

const linear_kernels bf16_amx = {ISA_AMX, quantise, linear};
