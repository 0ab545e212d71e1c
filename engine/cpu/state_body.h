/* Of ops_body.h: what recurrent layers are made of. Each function gives the same bits as that of plain.c.
 * Included by it alone. */

static float ops_dot(const float *x, const float *y, uint32_t n) {
    v16 sum = v_set1(0.0f);
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) sum = v_fma(v_load(x + i), v_load(y + i), sum);
    if (i < n) sum = v_fma(v_load_n(x + i, n - i), v_load_n(y + i, n - i), sum);
    return v_sum(sum);
}

/* N rows of x times C vectors, side by side, of each row of m: a load of m serves N rows, and a row of m is
 * read as far as there are registers for. */
V_INLINE void rows_by_n(const float *x, const float *m, uint32_t n_in, uint32_t n_out,
                        float *out, const int N, const int C) {
    v16 acc[STATE_ACC];
    for (int k = 0; k < N * C; k++) acc[k] = v_set1(0.0f);
    for (uint32_t i = 0; i < n_in; i++)
        for (int c = 0; c < C; c++) {
            const v16 part = v_load(m + (size_t)i * n_out + 16 * c);
            for (int j = 0; j < N; j++)
                acc[j * C + c] = v_fma(v_set1(x[(size_t)j * n_in + i]), part, acc[j * C + c]);
        }
    for (int k = 0; k < N * C; k++)
        v_store(out + (size_t)(k / C) * n_out + 16 * (k % C), acc[k]);
}

/* All columns: C vectors at a time, then half as many, then one. */
V_INLINE void rows_by_all(const float *x, const float *m, uint32_t n_in, uint32_t n_out,
                          float *out, const int N, const int C) {
    uint32_t c = 0;
    for (; c + 16 * C <= n_out; c += 16 * C) rows_by_n(x, m + c, n_in, n_out, out + c, N, C);
    for (; C > 2 && c + 8 * C <= n_out; c += 8 * C)
        rows_by_n(x, m + c, n_in, n_out, out + c, N, C / 2);
    for (; c < n_out; c += 16) rows_by_n(x, m + c, n_in, n_out, out + c, N, 1);
}

static void ops_rows_by(const float *x, uint32_t n_rows, const float *m, uint32_t n_in,
                        uint32_t n_out, float *out) {
    for (; n_rows >= 4; n_rows -= 4, x += 4 * (size_t)n_in, out += 4 * (size_t)n_out)
        rows_by_all(x, m, n_in, n_out, out, 4, STATE_ACC / 4);
    if (n_rows >= 2) {
        rows_by_all(x, m, n_in, n_out, out, 2, STATE_ACC / 2);
        n_rows -= 2, x += 2 * (size_t)n_in, out += 2 * (size_t)n_out;
    }
    if (n_rows) rows_by_all(x, m, n_in, n_out, out, 1, STATE_ACC / 2);
}

/* I rows of m, C vectors of each. */
V_INLINE void add_outer_n(float *m, v16 by, const float *x, const float *y, uint32_t n_rows,
                          uint32_t n_in, uint32_t n_out, const int I, const int C) {
    v16 acc[STATE_ACC];
    for (int k = 0; k < I * C; k++)
        acc[k] = v_mul(v_load(m + (size_t)(k / C) * n_out + 16 * (k % C)), by);
    for (uint32_t j = 0; j < n_rows; j++, x += n_in, y += n_out)
        for (int c = 0; c < C; c++) {
            const v16 part = v_load(y + 16 * c);
            for (int i = 0; i < I; i++)
                acc[i * C + c] = v_fma(v_set1(x[i]), part, acc[i * C + c]);
        }
    for (int k = 0; k < I * C; k++) v_store(m + (size_t)(k / C) * n_out + 16 * (k % C), acc[k]);
}

static void ops_add_outer(float *m, float by, const float *x, const float *y, uint32_t n_rows,
                          uint32_t n_in, uint32_t n_out) {
    enum { ROWS = 4, COLS = STATE_ACC / ROWS };
    const v16 factor = v_set1(by);
    for (uint32_t i = 0; i < n_in;) {
        const bool several = n_in - i >= ROWS;
        uint32_t c = 0;
        for (; several && c + 16 * COLS <= n_out; c += 16 * COLS)
            add_outer_n(m + c, factor, x + i, y + c, n_rows, n_in, n_out, ROWS, COLS);
        for (; several && c < n_out; c += 16)
            add_outer_n(m + c, factor, x + i, y + c, n_rows, n_in, n_out, ROWS, 1);
        for (; c < n_out; c += 16)
            add_outer_n(m + c, factor, x + i, y + c, n_rows, n_in, n_out, 1, 1);
        i += several ? ROWS : 1;
        m += (size_t)(several ? ROWS : 1) * n_out;
    }
}

static void ops_taps(const float *const *x, const float *w, uint32_t n_rows, uint32_t n,
                     float *out) {
    for (uint32_t i = 0; i < n; i += 16) {
        const uint32_t m = n - i < 16 ? n - i : 16;
        v16 sum = v_set1(0.0f);
        for (uint32_t k = 0; k < n_rows; k++)
            sum = m == 16
                      ? v_fma(v_load(w + (size_t)k * n + i), v_load(x[k] + i), sum)
                      : v_fma(v_load_n(w + (size_t)k * n + i, m), v_load_n(x[k] + i, m), sum);
        if (m == 16)
            v_store(out + i, sum);
        else
            v_store_n(out + i, sum, m);
    }
}
