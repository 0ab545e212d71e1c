/* linear() and its table of kernels, the same for every vector length. Included last by
 * linear_256_body.h and linear_avx512.c, which define before it
 *   RUNS(name): name_runs[], kernels of 1 to ROWS rows (run_fn), by RUN(name, R) of each R;
 *   MANY_OF(name): a kernel of many rows (many_fn), or NULL;
 *   run(), what RUN makes kernels of; pays_from(type): from how many rows on MANY_OF pays;
 *   words_rows, rows by one strip of a type of model/words.h (many_fn), WORDS_FLOATS (words_floats_fn);
 *   quantise_block(); LINEAR_ISA and LINEAR_TABLE. */

static void quantise(const float *x, const act *a, uint32_t row) {
    CHECK(row < a->n_rows);
    act_block *b = act_group(a, row);
    for (uint32_t k = 0; k < a->n_in / 32; k++)
        quantise_block(x + 32 * k, b + k, row % ACT_GROUP);
}

#define RUN(name, R)                                                                           \
    static void name##_##R(const job *j, uint32_t row, uint32_t out, uint32_t end) {           \
        run(j, DT_##name, row, out, end, R);                                                   \
    }
#define X(name, ...)                                                                           \
    RUNS(name)                                                                                 \
    static void name##_floats(const uint8_t *tile, dtype t, uint32_t at, float *w) {           \
        (void)t, (void)at;                                                                     \
        tile_floats(tile, DT_##name, w);                                                       \
    }
TILE_LIST(X)
#undef X
#define X(name, ...)                                                                           \
    RUNS(name)                                                                                 \
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
    floats_fn *floats;
    many_fn *any; /* takes any rows, instead of the others */
} kernels;

static kernels kernels_for(dtype t, bool int8) {
    switch (dtype_kind(t)) {
#define X(name, ...)                                                                           \
    case DT_##name:                                                                            \
        return int8 ? (kernels){name##_runs, MANY_OF(name), NULL, NULL}                        \
                    : (kernels){NONE_runs, NULL, name##_floats, NULL};
        TILE_LIST(X)
        GROUP_TILE_LIST(X)
#undef X
#define X(name, ...) case DT_##name:
        WORDS_LIST(X)
#undef X
        return int8 ? (kernels){.any = words_rows}
                    : (kernels){NONE_runs, NULL, words_to_floats, NULL};
    case DT_F16: return (kernels){F16_runs, NULL, NULL, NULL};
    case DT_BF16: return (kernels){BF16_runs, NULL, NULL, NULL};
    default: return (kernels){F32_runs, NULL, NULL, NULL};
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
        if (!k.many || last < first + pays_from(c->w->type)) first = last = to;
        for (uint32_t out = outs.from; out < outs.to; out += STRIP) {
            if (k.any) {
                k.any(&j, from, to, out, outs.to);
                continue;
            }
            few_rows(&j, &k, from, first, out, outs.to);
            if (first < last) k.many(&j, first, last, out, outs.to);
            few_rows(&j, &k, last, to, out, outs.to);
        }
    }
}

const linear_kernels LINEAR_TABLE = {LINEAR_ISA, quantise, linear};
