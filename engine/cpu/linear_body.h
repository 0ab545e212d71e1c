/* linear() and its table of kernels, the same for every vector length. Included last by
 * linear_256_body.h and linear_avx512.c, which define before it
 *   RUNS(name): name_runs[], kernels of 1 to ROWS rows (run_fn), by RUN(name, R) of each R;
 *   run(), what RUN makes kernels of;
 *   run_many(), what kernels of many rows (many_fn) are made of, which take MANY_STRIPS strips at a time and
 *   pay from PAYS_FROM rows on;
 *   WORDS_SUMS (words_sums_fn), WORDS_FLOATS (words_floats_fn): of types of model/words.h;
 *   store_sums(): sums of rows by one strip, [row][STRIP], to their place;
 *   quantise_block(); LINEAR_ISA and LINEAR_TABLE. */

static void quantise(const float *x, const act *a, uint32_t row) {
    CHECK(row < a->n_rows);
    act_block *b = act_group(a, row);
    for (uint32_t k = 0; k < a->n_in / 32; k++)
        quantise_block(x + 32 * k, b + k, row % ACT_GROUP);
}

/* ---- a strip unpacked once for many rows ---- */

static void words_rows(const job *j, uint32_t row0, uint32_t row1, uint32_t out, uint32_t end) {
    _Alignas(64) float acc[ROWS_IN_CACHE * STRIP];
    WORDS_SUMS(j->w, j->a, (span){row0, row1}, out, acc);
    store_sums(j, row0, row1, out, end, acc);
}

/* acc[ROWS][STRIP] += n inputs of weights as float32 by ROWS rows of x, ld apart. */
INLINE void add_floats(const float *w, uint32_t n, const float *x, uint64_t ld, float *acc) {
    enum { N = PARTS * ROWS };
    vf sum[N];
    for (int i = 0; i < N; i++) sum[i] = loadf(acc + STRIP * (i % ROWS) + LANES * (i / ROWS));
    for (uint32_t k = 0; k < n; k++)
        for (int i = 0; i < N; i++)
            sum[i] = fused(loadf(w + STRIP * k + LANES * (i / ROWS)),
                           broadcastf(x + (uint64_t)(i % ROWS) * ld + k), sum[i]);
    for (int i = 0; i < N; i++) storef(acc + STRIP * (i % ROWS) + LANES * (i / ROWS), sum[i]);
}

/* Whole groups of rows of float activations by a strip of a quantised type. */
static void floats_many(const job *j, uint32_t row0, uint32_t row1, uint32_t out,
                        uint32_t end) {
    enum { MOST = 256 }; /* of a tile, if it has no groups */
    _Alignas(64) float w[MOST * STRIP], acc[ROWS_IN_CACHE * STRIP];
    const tile_info f = tile_of(j->w->type);
    const uint32_t n_in = j->w->n_in, each = f.grouped ? 32 : f.n_in;
    const uint8_t *tile = strip_at(j->w, out);
    uint32_t at = 0; /* in the tile */
    memset(acc, 0, (row1 - row0) * STRIP * sizeof *acc);
    for (uint32_t k = 0, n; k < n_in; k += n) {
        for (n = 0; n < MOST && k + n < n_in; n += each) {
            j->floats(tile, j->w->type, at, w + STRIP * n);
            at += each;
            if (at == f.n_in) at = 0, tile += tile_bytes(j->w->type);
        }
        for (uint32_t row = row0; row < row1; row += ROWS)
            add_floats(w, n, row_floats(j->a, row) + k, n_in, acc + STRIP * (row - row0));
    }
    store_sums(j, row0, row1, out, end, acc);
}

/* ---- kernels by type ---- */

#define RUN(name, R)                                                                           \
    static void name##_##R(const job *j, uint32_t row, uint32_t out, uint32_t end) {           \
        run(j, DT_##name, row, out, end, R);                                                   \
    }
#define MANY(name)                                                                             \
    static void name##_many(const job *j, uint32_t row0, uint32_t row1, uint32_t out,          \
                            uint32_t end) {                                                    \
        run_many(j, DT_##name, row0, row1, out, end);                                          \
    }
#define X(name, ...)                                                                           \
    RUNS(name)                                                                                 \
    MANY(name)                                                                                 \
    static void name##_floats(const uint8_t *tile, dtype t, uint32_t at, float *w) {           \
        (void)t, (void)at;                                                                     \
        tile_floats(tile, DT_##name, w);                                                       \
    }
TILE_LIST(X)
#undef X
#define X(name, ...)                                                                           \
    RUNS(name)                                                                                 \
    MANY(name)                                                                                 \
    static void name##_floats(const uint8_t *tile, dtype t, uint32_t at, float *w) {           \
        group_floats(tile, DT_##name, t, at, w);                                               \
    }
GROUP_TILE_LIST(X)
#undef X
static void words_to_floats(const uint8_t *tile, dtype t, uint32_t at, float *w) {
    (void)at; /* n_in of a tile, at most 256, are taken at a time */
    WORDS_FLOATS(tile, t, w);
}
RUNS(NONE)
RUNS(F32)
RUNS(F16)
RUNS(BF16)

typedef struct kernels {
    run_fn *const *runs;
    many_fn *many;
    uint32_t strips; /* that many takes at a time */
    floats_fn *floats;
    many_fn *any; /* takes any rows, instead of the others */
} kernels;

static kernels kernels_for(dtype t, bool int8) {
    switch (dtype_kind(t)) {
#define X(name, ...)                                                                           \
    case DT_##name:                                                                            \
        return int8 ? (kernels){name##_runs, name##_many, MANY_STRIPS, NULL, NULL}             \
                    : (kernels){NONE_runs, floats_many, 1, name##_floats, NULL};
        TILE_LIST(X)
        GROUP_TILE_LIST(X)
#undef X
#define X(name, ...) case DT_##name:
        WORDS_LIST(X)
#undef X
        return int8 ? (kernels){.any = words_rows}
                    : (kernels){NONE_runs, floats_many, 1, words_to_floats, NULL};
    case DT_F16: return (kernels){.runs = F16_runs};
    case DT_BF16: return (kernels){.runs = BF16_runs};
    default: return (kernels){.runs = F32_runs};
    }
}

static void few_rows(const job *j, const kernels *k, uint32_t row, uint32_t end_row,
                     uint32_t out, uint32_t end) {
    for (uint32_t next; row < end_row; row = next) {
        next = row - row % ROWS + ROWS;
        if (next > end_row) next = end_row;
        k->runs[next - row - 1](j, row, out, end);
    }
}

/* Rows in chunks whose activations stay in the second cache, then strip by strip: a strip stays
 * in the first cache for all rows of the chunk. */
static void linear(const linear_call *c, span rows, span outs) {
    linear_check(c->w, c->a, rows, outs);
    const kernels k = kernels_for(c->w->type, act_is_int8(c->w, c->a));
    const job j = {c->w, c->a, c->bias, c->residual, c->y, c->ld_res, c->ldy, k.floats};
    for (uint32_t from = rows.from, to; from < rows.to; from = to) {
        to = from - from % ROWS_IN_CACHE + ROWS_IN_CACHE;
        if (to > rows.to) to = rows.to;
        uint32_t first = (from + ACT_GROUP - 1) / ACT_GROUP * ACT_GROUP;
        uint32_t last = to / ACT_GROUP * ACT_GROUP; /* whole groups: first to last */
        if (!k.many || last < first + PAYS_FROM) first = last = to;
        for (uint32_t out = outs.from; out < outs.to; out += STRIP) {
            if (k.any) {
                k.any(&j, from, to, out, outs.to);
                continue;
            }
            few_rows(&j, &k, from, first, out, outs.to);
            if (first < last && (out - outs.from) % (k.strips * STRIP) == 0)
                k.many(&j, first, last, out, outs.to);
            few_rows(&j, &k, last, to, out, outs.to);
        }
    }
}

const linear_kernels LINEAR_TABLE = {LINEAR_ISA, quantise, linear};
