/* Weights of a strip as float32, for the vector kernels of the family bf16. Included by bf16_body.h and bf16_amx.c
 * after linear_tile.h; BF16_WORDS: a words_floats_fn. */

static void widen(const uint8_t *strip, dtype t, uint32_t n, float *w) {
    for (uint32_t i = 0; i < n * STRIP; i += LANES) {
        if (t == DT_F32)
            storef(w + i, loadf((const float *)(const void *)(strip + 4ull * i)));
        else if (t == DT_F16)
            storef(w + i, load_half(strip + 2ull * i));
        else
            storef(w + i, (vf)((u32s)load_u16(strip + 2ull * i) << 16u));
    }
}

/* The inputs of a tile from k on, or 32 of a float type or of a kind with groups, not rounded yet;
 * returns how many. w: [32][STRIP] at least, of tiles of 256 inputs [256][STRIP]. */
static uint32_t read_tile(const packed *m, const uint8_t *strip, uint32_t k, float *w) {
    const uint32_t in = tile_of(m->type).n_in;
    const uint8_t *at =
        in ? strip + (uint64_t)(k / in) * tile_bytes(m->type) : strip + strip_bytes(m->type, k);
    uint32_t n = m->n_in - k < 32 ? m->n_in - k : 32;
    switch (dtype_kind(m->type)) {
#define X(name, ...)                                                                           \
    case DT_##name:                                                                            \
        tile_floats(at, DT_##name, w);                                                         \
        n = tile_of(DT_##name).n_in;                                                           \
        break;
        TILE_LIST(X)
#undef X
#define X(name, ...)                                                                           \
    case DT_##name: group_floats(at, DT_##name, m->type, k % in, w); break;
        GROUP_TILE_LIST(X)
#undef X
#define X(name, ...) case DT_##name:
        WORDS_LIST(X)
#undef X
        BF16_WORDS(at, m->type, w);
        n = in;
        break;
    default:
        memset(w, 0, 32 * STRIP * sizeof *w);
        widen(at, m->type, n, w);
        break;
    }
    return n;
}
