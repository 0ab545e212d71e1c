/* V of a tile where it is made of K (latent attention): the first dimensions of K as float32, token by
 * token, made once for all queries of a part. Part of ops_body.h: included by it only. */
#ifndef VRAMD_ENGINE_CPU_ATTN_LATENT_H
#define VRAMD_ENGINE_CPU_ATTN_LATENT_H

/* n dimensions of a group of sixteen tokens from d on, a multiple of 16, as they are coded; zeros behind. */
V_INLINE void latent_load(dtype type, const void *group, uint32_t d, uint32_t n, v16 x[16]) {
    const uint32_t bits = kv_bits(type);
    for (uint32_t i = 0; i < 16; i++) x[i] = v_set1(0.0f);
    if (type != DT_INT8 && type != DT_INT4) {
        for (uint32_t i = 0; i < n; i++) x[i] = kv_load_k(type, group, d + i);
        return;
    }
    for (uint32_t i = 0; i < n; i += 4) { /* whole segments */
        const char *at = (const char *)group + (size_t)(d + i) * 2 * bits;
        const i16 a = bits == 4 ? i_load_lower(at) : i_load_i8(at);
        const i16 b = bits == 4 ? i_load_upper(at) : i_load_i8(at + 32);
        x[i] = i_to_v(i_dot(i_zero(), 1, a));
        x[i + 1] = i_to_v(i_dot(i_zero(), 1 << 16, a));
        x[i + 2] = i_to_v(i_dot(i_zero(), 1, b));
        x[i + 3] = i_to_v(i_dot(i_zero(), 1 << 16, b));
    }
}

/* Sixteen dimensions of sixteen tokens, turned: out of token k from out + k * dims on. */
V_INLINE void latent_store(const v16 x[16], float *out, uint32_t dims) {
    float y[16][16];
    for (uint32_t i = 0; i < 16; i++) v_store(y[i], x[i]);
    for (uint32_t i = 0; i < 16; i += 4)
        for (uint32_t k = 0; k < 16; k += 4) {
            __m128 a = _mm_loadu_ps(&y[i][k]), b = _mm_loadu_ps(&y[i + 1][k]);
            __m128 c = _mm_loadu_ps(&y[i + 2][k]), d = _mm_loadu_ps(&y[i + 3][k]);
            _MM_TRANSPOSE4_PS(a, b, c, d);
            float *at = out + (size_t)k * dims + i;
            _mm_storeu_ps(at, a);
            _mm_storeu_ps(at + dims, b);
            _mm_storeu_ps(at + 2 * (size_t)dims, c);
            _mm_storeu_ps(at + 3 * (size_t)dims, d);
        }
}

V_INLINE void latent_group(const kv_format *f, const void *group, const uint16_t *words,
                           dtype type, float *out) {
    for (uint32_t d = 0; d < f->latent; d += 16) {
        v16 x[16];
        latent_load(type, group, d, f->latent - d < 16 ? f->latent - d : 16, x);
        if (kv_has_words(type)) {
            const uint16_t *word = words + (size_t)(d / f->k_segment) * f->block_tokens;
            const v16 by = kv_load_d(type, word);
            v16 zero = v_set1(0.0f);
            if (kv_has_zero(type)) zero = v_mul(i_to_v(i_load_int4_z(word)), v_set1(0.25f));
            for (uint32_t i = 0; i < 16; i++) x[i] = v_mul(v_sub(x[i], zero), by);
        }
        latent_store(x, out + d, f->v_dims);
    }
}

/* V of groups [g, n_groups) of a tile into out, [ATTN_TILE][v_dims], where the tile then has it. */
static __attribute__((noinline)) void latent_values(const kv_format *f, tile_ptrs *t,
                                                    uint32_t g, uint32_t n_groups, float *out) {
    for (; g < n_groups; g++) {
        float *to = out + (size_t)g * ATTN_LANES * f->v_dims;
        const void *k = t->k[g];
        switch (f->k.type) {
        case DT_F16: latent_group(f, k, NULL, DT_F16, to); break;
        case DT_BF16: latent_group(f, k, NULL, DT_BF16, to); break;
        case DT_INT8:
        case DT_Q8_0: latent_group(f, k, t->k_words[g], DT_INT8, to); break;
        case DT_INT4: latent_group(f, k, t->k_words[g], DT_INT4, to); break;
        case DT_FP8: latent_group(f, k, t->k_words[g], DT_FP8, to); break;
        default: latent_group(f, k, NULL, DT_F32, to); break;
        }
        t->v[g] = t->v_next[g] = to;
    }
}

#endif
