/* K and V into the cache and out of it, sixteen at a time. Part of ops_body.h: included by it
 * only, once per instruction set. */
#ifndef VRAMD_ENGINE_CPU_KV_BODY_H
#define VRAMD_ENGINE_CPU_KV_BODY_H

enum { SEGMENT_VECTORS = 4 };

/* ---- reading: constants where the type is one ---- */

V_INLINE bool kv_has_words(dtype type) {
    return kv_bits(type) <= 8;
}
V_INLINE bool kv_has_zero(dtype type) {
    return type == DT_INT4;
}

/* Types whose codes are no integers: dimension d of a group of sixteen tokens, as it is
 * multiplied (kv_code_value). */
V_INLINE v16 kv_load_k(dtype type, const void *group, uint32_t d) {
    const char *p = (const char *)group + (size_t)d * 2 * kv_bits(type);
    if (type == DT_F16) return v_load_f16(p);
    if (type == DT_BF16) return v_load_bf16(p);
    if (type == DT_FP8) return v_load_e4m3(p);
    return v_load((const float *)(const void *)p);
}

/* Sixteen dimensions of V from element i on. */
V_INLINE v16 kv_load_v(dtype type, const void *base, size_t i) {
    const char *p = (const char *)base + i * kv_bits(type) / 8;
    if (type == DT_F16) return v_load_f16(p);
    if (type == DT_BF16) return v_load_bf16(p);
    if (type == DT_FP8) return v_load_e4m3(p);
    return v_load((const float *)(const void *)p);
}

/* The scales in sixteen words (kv_scale_of). */
V_INLINE v16 kv_load_d(dtype type, const uint16_t *words) {
    if (type == DT_INT4) return v_load_int4_d(words);
    v16 d = v_load_f16(words);
    return type == DT_FP8 ? v_mul(d, v_set1(256.0f)) : d;
}

/* ---- the rotation ---- */

/* Hadamard's matrix times n vectors, a power of two. */
V_INLINE void v_hadamard(v16 *x, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) x[i] = v_hadamard16(x[i]);
    for (uint32_t step = 1; step < n; step *= 2)
        for (uint32_t i = 0; i < n; i += 2 * step)
            for (uint32_t j = i; j < i + step; j++) {
                const v16 a = x[j], b = x[j + step];
                x[j] = v_add(a, b);
                x[j + step] = v_sub(a, b);
            }
}

static void ops_hadamard(float *x, uint32_t dims, uint32_t segment) {
    v16 v[SEGMENT_VECTORS];
    const uint32_t n = segment / 16;
    for (uint32_t at = 0; at < dims; at += segment) {
        for (uint32_t i = 0; i < n; i++) v[i] = v_load(x + at + i * 16);
        v_hadamard(v, n);
        for (uint32_t i = 0; i < n; i++) v_store(x + at + i * 16, v[i]);
    }
}

/* ---- writing ---- */

/* Sixteen floats in a type without words. */
V_INLINE void kv_convert16(dtype type, v16 x, void *out) {
    if (type == DT_F16) {
        v_store_f16(out, x);
    } else if (type == DT_F32) {
        v_store(out, x);
    } else {
        float f[16];
        v_store(f, x);
        for (int i = 0; i < 16; i++) ((uint16_t *)out)[i] = bf16_of_float(f[i]);
    }
}

/* kv_extremes_of n vectors. */
static kv_extremes extremes_of(const v16 *y, uint32_t n) {
    const v16 zero = v_set1(0.0f);
    v16 lo = zero, hi = zero, finite = zero;
    for (uint32_t i = 0; i < n; i++) {
        lo = v_min(y[i], lo);
        hi = v_max(y[i], hi);
        finite = v_add(finite, v_mul(y[i], zero));
    }
    kv_extremes e = {-v_largest(v_sub(zero, lo)), v_largest(hi), KV_NOT_FINITE};
    if (v_sum(finite) == 0.0f) /* else NaN */
        e.most = bits_of_float(e.hi > -e.lo ? e.hi : -e.lo) & 0x7fffffff;
    return e;
}

/* kv_encode of a segment of up to 64 dimensions. */
static uint16_t encode_segment(const kv_type *t, const float *x, uint32_t dims,
                               uint8_t *codes) {
    const uint32_t n = dims / 16;
    v16 y[SEGMENT_VECTORS];
    float c[SEGMENT_VECTORS * 16];
    for (uint32_t i = 0; i < n; i++) y[i] = v_load(x + i * 16);
    if (t->rotated) v_hadamard(y, n);
    const uint16_t word = kv_word_of(t->type, extremes_of(y, n));
    const kv_scale s = kv_scale_of(t->type, word);
    if (s.d != s.d) { /* NaN */
        memset(codes, 0, dims);
        return word;
    }
    if (t->type == DT_FP8) {
        const v16 d = v_set1(s.d * 0.00390625f);
        for (uint32_t i = 0; i < n; i++) v_store(c + i * 16, v_div(y[i], d));
        for (uint32_t i = 0; i < dims; i++) codes[i] = kv_e4m3_of_float(c[i]);
        return word;
    }
    const v16 d = v_set1(s.d), z = v_set1(s.z);
    const v16 least = v_set1(t->type == DT_INT4 ? 0.0f : -127.0f);
    const v16 most = v_set1(t->type == DT_INT4 ? 15.0f : 127.0f);
    for (uint32_t i = 0; i < n; i++) {
        v16 r = v_round(v_add(v_div(y[i], d), z));
        v_store(c + i * 16, v_min(v_max(r, least), most));
    }
    for (uint32_t i = 0; i < dims; i++) codes[i] = (uint8_t)(int8_t)c[i];
    return word;
}

/* K of one token as codes, a lane of its group. */
static void append_k_codes(const kv_head *kv, uint32_t pos, const float *k) {
    const kv_format *f = kv->format;
    const uint32_t n = f->k_segment, token = kv_token(kv, pos);
    unsigned char *part = kv_part(kv, pos);
    uint8_t codes[SEGMENT_VECTORS * 16];
    for (uint32_t s = 0; s < f->k_segments; s++) {
        const uint16_t word = encode_segment(&f->k, k + (size_t)s * n, n, codes);
        memcpy(part + kv_k_word_at(f, s, token), &word, sizeof word);
        unsigned char *at = part + kv_k_code(f, token, s * n).at;
        if (f->k.bits == 4)
            for (uint32_t d = 0; d < n; d += 4, at += 2 * ATTN_LANES)
                for (uint32_t i = 0; i < 2; i++)
                    at[i] = (unsigned char)(codes[d + i] | codes[d + 2 + i] << 4);
        else if (f->k.integers)
            for (uint32_t d = 0; d < n; d += 2, at += 2 * ATTN_LANES)
                at[0] = codes[d], at[1] = codes[d + 1];
        else
            for (uint32_t d = 0; d < n; d++, at += ATTN_LANES) *at = codes[d];
    }
}

static void append_v_codes(const kv_head *kv, uint32_t pos, const float *v) {
    const kv_format *f = kv->format;
    const uint32_t n = f->v_segment, token = kv_token(kv, pos);
    unsigned char *part = kv_part(kv, pos);
    uint8_t codes[SEGMENT_VECTORS * 16];
    for (uint32_t s = 0; s < f->v_segments; s++) {
        const uint16_t word = encode_segment(&f->v, v + (size_t)s * n, n, codes);
        memcpy(part + kv_v_word_at(f, s, token), &word, sizeof word);
        unsigned char *at = part + kv_v_code(f, token, s * n).at;
        if (f->v.bits == 4)
            for (uint32_t d = 0; d < n; d += 16, at += 16)
                for (uint32_t i = 0; i < 8; i++)
                    at[2 * i] = (unsigned char)(codes[d + i] | codes[d + 8 + i] << 4);
        else if (f->v.integers)
            for (uint32_t d = 0; d < n; d++) at[2 * d] = codes[d];
        else
            memcpy(at, codes, n);
    }
}

/* n dimensions of K from d on, in a type without words. at: of dimension 0 in the token's lane. */
V_INLINE void put_k(const kv_format *f, unsigned char *at, uint32_t d, uint32_t n, v16 x) {
    const uint32_t lanes = f->lanes, bytes = f->k.bits / 8;
    unsigned char tmp[64];
    kv_convert16(f->k.type, x, tmp);
    for (uint32_t i = 0; i < n; i++)
        memcpy(at + (size_t)(d + i) * lanes * bytes, tmp + (size_t)i * bytes, bytes);
}

/* A segment in y, rotated. */
V_INLINE void load_rotated(v16 *y, const float *x, uint32_t dims) {
    for (uint32_t i = 0; i < dims / 16; i++) y[i] = v_load(x + i * 16);
    v_hadamard(y, dims / 16);
}

static void append_k(const kv_head *kv, uint32_t pos, const float *k) {
    const kv_format *f = kv->format;
    const uint32_t hd = f->head_dim, bytes = f->k.bits / 8;
    unsigned char *at = kv_k_group(kv, pos) + (size_t)(pos % f->lanes) * bytes;
    v16 y[SEGMENT_VECTORS];
    for (uint32_t d = 0; d < hd && f->k.rotated; d += f->k_segment) {
        load_rotated(y, k + d, f->k_segment);
        for (uint32_t i = 0; i < f->k_segment; i += 16) put_k(f, at, d + i, 16, y[i / 16]);
    }
    for (uint32_t d = 0; d < hd && !f->k.rotated; d += 16) {
        uint32_t n = hd - d < 16 ? hd - d : 16;
        put_k(f, at, d, n, v_load_n(k + d, n));
    }
}

static void append_v(const kv_head *kv, uint32_t pos, const float *v) {
    const kv_format *f = kv->format;
    const uint32_t hd = f->head_dim, bytes = f->v.bits / 8;
    unsigned char *at = kv_v_token(kv, pos);
    v16 y[SEGMENT_VECTORS];
    for (uint32_t d = 0; d < hd && f->v.rotated; d += f->v_segment) {
        load_rotated(y, v + d, f->v_segment);
        for (uint32_t i = 0; i < f->v_segment; i += 16)
            kv_convert16(f->v.type, y[i / 16], at + (size_t)(d + i) * bytes);
    }
    for (uint32_t d = 0; d < hd && !f->v.rotated; d += 16) {
        uint32_t n = hd - d < 16 ? hd - d : 16;
        kv_convert16(f->v.type, v_load_n(v + d, n), at + (size_t)d * bytes);
    }
}

static void ops_kv_append(const kv_head *kv, uint32_t pos, const float *k, const float *v) {
    if (kv->format->k.word_bytes)
        append_k_codes(kv, pos, k);
    else
        append_k(kv, pos, k);
    if (kv->format->latent) return;
    if (kv->format->v.word_bytes)
        append_v_codes(kv, pos, v);
    else
        append_v(kv, pos, v);
}

#endif
