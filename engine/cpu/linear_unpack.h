/* Some inputs of a strip unpacked, once for many rows: the same for vectors of 256 and of 512 bits. Comes after
 * unpacked_block, whose blocks lie `step` apart, unpack_codes(codes, type, to) and unpack_halves(type, pairs of integer
 * scales, part, to). To be inlined with a type that is a constant. */
#ifndef VRAMD_ENGINE_CPU_LINEAR_UNPACK_H
#define VRAMD_ENGINE_CPU_LINEAR_UNPACK_H

/* Scales of block j of a tile, part v. */
INLINE void unpack_scales(const dtype t, const tile_scales *s, const int j, const uint32_t v,
                          vf d, vf m, unpacked_block *to) {
    const tile_info i = tile_of(t);
    const bool own = i.n_in == 256 && !i.halves;
    storef(to->d + LANES * v, own ? loadf(s->d[j]) : d);
    if (i.has_min) storef(to->m + LANES * v, own ? loadf(s->m[j]) : m);
    if (!i.halves) return;
    if (i.has_min) storei(to->min + LANES * v, loadi(s->min[j]));
    unpack_halves(t, s->scale[j], v, to);
}

/* n_in inputs of a strip. */
INLINE void unpack(const uint8_t *tile, const dtype t, uint32_t n_in, unpacked_block *to,
                   const int step) {
    const tile_info i = tile_of(t);
    const int n = (int)i.n_in / 32;
    for (; n_in; n_in -= i.n_in, tile += tile_bytes(t), to += n * step) {
        for (uint32_t v = 0; v < PARTS; v++) {
            _Alignas(64) tile_scales s;
            vf d = tile_d(tile, t, v), m = d;
            if (i.has_min) m = load_half(tile + 2 * STRIP + 2 * LANES * v);
            if (i.n_in == 256) tile_scales_read(tile, t, v, &s);
            if (i.halves) m = -m;
            for (int j = 0; j < n; j++) unpack_scales(t, &s, j, v, d, m, to + j * step);
        }
        for (int j = 0; j < n; j++)
            unpack_codes(tile + STRIP * (i.head + j * i.codes), t, to + j * step);
    }
}

/* Inputs [from, from + n_in) of a strip of a kind with groups; t: the kind's type. */
INLINE void unpack_grouped(const uint8_t *strip, const dtype kind, const dtype t, uint32_t from,
                           uint32_t n_in, unpacked_block *to, const int step) {
    const tile_info i = tile_of(t);
    const uint32_t codes = STRIP * tile_of(kind).codes;
    for (uint32_t k = from; k < from + n_in; k += 32, to += step) {
        const uint8_t *tile = strip + (uint64_t)(k / i.n_in) * tile_bytes(t);
        for (uint32_t v = 0; v < PARTS; v++) {
            storef(to->d + LANES * v, floats_at(tile, dtype_scale(t), v));
            if (tile_of(kind).zero) storef(to->m + LANES * v, negative_zeros(tile, kind, t, v));
        }
        unpack_codes(tile + STRIP * i.head + k % i.n_in / 32 * codes, kind, to);
    }
}

#endif
