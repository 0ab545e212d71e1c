/* Of ops_body.h: what recurrent layers are made of. Each function gives the same bits as that of plain.c.
 * Included by it alone. */

static float ops_dot(const float *x, const float *y, uint32_t n) {
    v16 sum = v_set1(0.0f);
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) sum = v_fma(v_load(x + i), v_load(y + i), sum);
    if (i < n) sum = v_fma(v_load_n(x + i, n - i), v_load_n(y + i, n - i), sum);
    return v_sum(sum);
}

/* Of N rows: each load of m serves all of them. */
V_INLINE void rows_by_n(const float *x, const float *m, uint32_t n_in, uint32_t n_out,
                        float *out, const int N) {
    for (uint32_t c = 0; c < n_out; c += 16) {
        v16 acc[4];
        for (int j = 0; j < N; j++) acc[j] = v_set1(0.0f);
        for (uint32_t i = 0; i < n_in; i++) {
            const v16 row = v_load(m + (size_t)i * n_out + c);
            for (int j = 0; j < N; j++)
                acc[j] = v_fma(v_set1(x[(size_t)j * n_in + i]), row, acc[j]);
        }
        for (int j = 0; j < N; j++) v_store(out + (size_t)j * n_out + c, acc[j]);
    }
}

static void ops_rows_by(const float *x, uint32_t n_rows, const float *m, uint32_t n_in,
                        uint32_t n_out, float *out) {
    for (; n_rows >= 4; n_rows -= 4, x += 4 * (size_t)n_in, out += 4 * (size_t)n_out)
        rows_by_n(x, m, n_in, n_out, out, 4);
    if (n_rows >= 2) {
        rows_by_n(x, m, n_in, n_out, out, 2);
        n_rows -= 2, x += 2 * (size_t)n_in, out += 2 * (size_t)n_out;
    }
    if (n_rows) rows_by_n(x, m, n_in, n_out, out, 1);
}

static void ops_add_outer(float *m, float by, const float *x, const float *y, uint32_t n_rows,
                          uint32_t n_in, uint32_t n_out) {
    const v16 factor = v_set1(by);
    for (uint32_t c = 0; c < n_out; c += 16)
        for (uint32_t i = 0; i < n_in; i++) {
            float *at = m + (size_t)i * n_out + c;
            v16 sum = v_mul(v_load(at), factor);
            for (uint32_t j = 0; j < n_rows; j++)
                sum = v_fma(v_set1(x[(size_t)j * n_in + i]), v_load(y + (size_t)j * n_out + c),
                            sum);
            v_store(at, sum);
        }
}

static void ops_taps(const float *const *x, const float *w, uint32_t n_rows, uint32_t n,
                     float *out) {
    taps_sum(x, w, n_rows, n, out);
}
