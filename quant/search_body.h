/* Scales by search: those with which the squared error, weighted by the importance of inputs, is least. Include
 * once, with SEARCH_NAME(x) defined as the name of a function of this instruction set. Pure.
 *
 * A group of 16 or 32 numbers gets a scale of its own (and a minimum): starting values on a grid, the least-
 * squares scale of the codes of each, and the same again around the best. In blocks of 256 the groups' scales are
 * small integers of a common one: for each group those next to the wanted one are tried, then the common ones
 * are fitted to the codes, and the best of a few rounds is kept. Eight trials go side by side, one a lane, so
 * that no sum is taken across lanes. */
#include <math.h>

#include "base/half.h"
#include "quant/encode.h"
#include "quant/lanes.h"
#include "quant/pack.h"

/* Integer codes lo .. hi; or, where book is set, the values of QUANT_BOOK. */
typedef struct code_set {
    float lo, hi;
    bool book;
} code_set;

typedef struct group {
    float x[32], w[32];
    int n; /* 16 or 32 */
    bool weighted;
    float min, max, sum_w, sum_wx, sum_wx2;
} group;

/* Not inlined: one copy serves groups of 16 and 32 numbers and every set of codes. */
#define ONE_COPY static __attribute__((noinline))

LANES v8f book_value(v8f v) {
    static const float book[16] = {QUANT_BOOK};
    v8f value = v8_all(book[0]);
    _Pragma("GCC unroll 15") for (int k = 1; k < 16; k++) {
        const v8f step = v8_all(book[k] - book[k - 1]);
        const v8i above = v >= (book[k] + book[k - 1]) * 0.5f;
        value += (v8f)(above & (v8i)step);
    }
    return value;
}
LANES v8i book_index(v8f value) {
    static const float book[16] = {QUANT_BOOK};
    v8i at = {0};
    for (int k = 1; k < 16; k++) at -= (v8i)(value >= book[k]);
    return at;
}
/* The integer code next to v. What is no number becomes lo. */
LANES v8f code_near(code_set c, v8f v) {
    return v8_nearest(v8_min(v8_max(v, v8_all(c.lo)), v8_all(c.hi)));
}

/* Weights of a block: those of the caller divided by their mean, none below a millionth of it. Without, all weigh the same;
 * but where the codes lie on a book, which is finest near 0, the squares of the numbers do. */
ONE_COPY void weights_of(const float *importance, const float *x, bool book, size_t n,
                         float *w) {
    float square[SUPER];
    double sum = 0;
    if (!importance && book) {
        for (size_t i = 0; i < n; i++) square[i] = x[i] * x[i];
        importance = square;
    }
    for (size_t i = 0; i < n; i++) sum += importance ? importance[i] : 0;
    if (!(sum > 0)) importance = NULL;
    const float scale = importance ? (float)((double)n / sum) : 1;
    for (size_t i = 0; i < n; i++) {
        const float v = importance ? importance[i] * scale : 1;
        w[i] = v > 1e-6f ? v : 1e-6f;
    }
}

ONE_COPY void group_load(group *g, const float *x, const float *w, int n, bool weighted) {
    v8f sw = {0}, swx = {0}, swx2 = {0}, low = v8_load(x), high = low;
    g->n = n, g->weighted = weighted;
    memcpy(g->x, x, sizeof(float) * (size_t)n);
    memcpy(g->w, w, sizeof(float) * (size_t)n);
    for (int i = 0; i < n; i += 8) {
        const v8f v = v8_load(x + i), k = v8_load(w + i), wx = k * v;
        sw += k, swx += wx, swx2 += wx * v;
        low = v8_min(low, v), high = v8_max(high, v);
    }
    g->min = v8_hmin(low), g->max = v8_hmax(high);
    g->sum_w = v8_sum(sw), g->sum_wx = v8_sum(swx), g->sum_wx2 = v8_sum(swx2);
}

/* Eight trials of x = d * c + m with the codes next to (x - m) / d: sums of w x c, w c^2, w c and the error. */
typedef struct trials {
    v8f d, m;
    v8f xc, cc, c, e;
} trials;

ONE_COPY void try_all(const group *g, code_set set, trials *t) {
    const v8f d = t->d, m = t->m;
    const v8f id = v8_pick(d != 0.0f, 1.0f / d, v8_all(0));
    v8f xc = {0}, cc = {0}, sc = {0}, e = {0};
#define TRY_EACH(near)                                                                         \
    for (int i = 0; i < g->n; i++) {                                                           \
        const v8f c = near, wc = g->w[i] * c, off = g->x[i] - (d * c + m);                     \
        xc += wc * g->x[i], cc += wc * c, sc += wc, e += g->w[i] * off * off;                  \
    }
    if (set.book)
        TRY_EACH(book_value((g->x[i] - m) * id))
    else
        TRY_EACH(code_near(set, (g->x[i] - m) * id))
#undef TRY_EACH
    t->xc = xc, t->cc = cc, t->c = sc, t->e = e;
}
ONE_COPY void codes_of(const group *g, code_set set, float d, float m, uint8_t *out) {
    const float id = d != 0 ? 1.0f / d : 0;
    for (int i = 0; i < g->n; i += 8) {
        const v8f v = (v8_load(g->x + i) - m) * id;
        v8_bytes(set.book ? book_index(book_value(v)) : v8_int(code_near(set, v) - set.lo),
                 out + i);
    }
}

/* Takes the least-squares scale of a trial that is better; gain: (sum w x c)^2 / sum w c^2. */
LANES void take_scale(const trials *t, float *d, float *gain) {
    const v8f gains = v8_pick(t->cc > 0.0f, t->xc * t->xc / t->cc, v8_all(0));
    const float most = v8_hmax(gains);
    if (!(most > *gain)) return;
    const int k = v8_lane(gains, most);
    *d = t->xc[k] / t->cc[k], *gain = most;
}
/* Batches of starting values, and of those around the best: without weights the extreme number is never far from the
 * end, the less so the more codes there are. */
LANES int batches_of(const group *g, code_set set) {
    return g->weighted ? 4 : set.hi >= 15 && !set.book ? 2 : 3;
}
LANES int rounds_of(const group *g) {
    return g->weighted ? 2 : 1;
}

/* Scale of a group without a minimum. The extreme number starts at one end of the codes, a tenth of a code
 * further in or out each time, then far out, then at the other end; or the end is some deviations away. */
ONE_COPY float best_scale(const group *g, code_set set) {
    const v8f count = {0, 1, 2, 3, 4, 5, 6, 7}, late = {0, 0, 0, 0, 0, 1, 1, 1};
    const float extreme = g->max > -g->min ? g->max : g->min;
    if (!(fabsf(extreme) > 1e-15f)) return 0;
    const float tenth = set.book ? 1.0f : 0.1f;
    const float sigma = copysignf(sqrtf(g->sum_wx2 / g->sum_w), extreme) / set.lo;
    float gain = 0, d = 0;
    trials t = {0};
    for (int batch = 0; batch < batches_of(g, set); batch++) {
        if (batch < 2)
            t.d = extreme / (set.lo - tenth * (count + (float)(8 * batch - 8)));
        else if (batch == 2)
            t.d = extreme / ((1 - late) * set.lo * (1.1f + 0.12f * count) +
                             late * set.hi * (0.95f + 0.05f * (count - 5)));
        else
            t.d = sigma * (1.25f + 0.25f * count);
        try_all(g, set, &t);
        take_scale(&t, &d, &gain);
    }
    for (int round = 0; round < rounds_of(g); round++) {
        t.d = d * (1 + (round ? 0.003f : 0.012f) * (count - 4));
        try_all(g, set, &t);
        take_scale(&t, &d, &gain);
    }
    return d;
}

/* The same for scale and minimum; e: the error. */
LANES void take_affine(const group *g, const trials *t, bool below_zero, float *d, float *m,
                       float *e) {
    const v8f det = g->sum_w * t->cc - t->c * t->c;
    v8f s = (g->sum_w * t->xc - g->sum_wx * t->c) / det;
    v8f at = (t->cc * g->sum_wx - t->c * t->xc) / det;
    if (below_zero) {
        const v8i above = at > 0.0f;
        s = v8_pick(above, t->xc / t->cc, s), at = v8_pick(above, v8_all(0), at);
    }
    v8f left = g->sum_wx2 - 2 * (s * t->xc + at * g->sum_wx) + s * s * t->cc +
               2 * s * at * t->c + at * at * g->sum_w;
    left = v8_pick((det > 0.0f) & (s > 0.0f), left, v8_all(INFINITY));
    const float least = v8_hmin(left);
    if (!(least < *e)) return;
    const int k = v8_lane(left, least);
    *d = s[k], *m = at[k], *e = least;
}
/* From range and minimum, wider and narrower by parts of a code; then with both ends cut; then from mean and
 * deviation. below_zero: the minimum is not positive. */
ONE_COPY void best_affine(const group *g, code_set set, bool below_zero, float *d, float *m) {
    const v8f count = {0, 1, 2, 3, 4, 5, 6, 7};
    const v8f around_d = {-1, 0, 1, 0, -1, 0, 1, 0}, around_m = {1, 1, 1, 0, -1, -1, -1, 0};
    const float low = below_zero && g->min > 0 ? 0 : g->min, range = g->max - low;
    *d = 0, *m = low;
    if (!(range > 1e-15f)) return;
    const float mean = g->sum_wx / g->sum_w;
    const float sigma = sqrtf(fmaxf(g->sum_wx2 / g->sum_w - mean * mean, 0)) + 1e-6f * range;
    float e = INFINITY;
    trials t;
    for (int batch = 0; batch < (g->weighted ? 4 : 3); batch++) {
        const v8f cut = 0.04f * (count + 1);
        if (batch < 2)
            t.d = range / (set.hi + 0.15f * (count + (float)(8 * batch - 6))),
            t.m = v8_all(low);
        else if (batch == 2)
            t.d = range * (1 - 2 * cut) / set.hi, t.m = low + cut * range;
        else
            t.d = sigma * (2 + 0.5f * count) / set.hi, t.m = mean - 0.5f * set.hi * t.d;
        if (below_zero) t.m = v8_min(t.m, v8_all(0));
        try_all(g, set, &t);
        take_affine(g, &t, below_zero, d, m, &e);
    }
    for (int round = 0; round < rounds_of(g); round++) {
        t.d = *d * (1 + 0.01f * around_d);
        t.m = *m + *d * 0.12f * around_m;
        try_all(g, set, &t);
        take_affine(g, &t, below_zero, d, m, &e);
    }
}

/* ---- Blocks of 32: Q4_0, Q5_0, IQ4_NL, Q4_1, Q5_1 ---- */

LANES void put_half(uint8_t *out, float f, float *as_stored) {
    const uint16_t h = half_of_float(f);
    memcpy(out, &h, 2);
    *as_stored = half_to_float(h);
}
ONE_COPY void put_codes(const uint8_t *code, bool fifth, uint8_t *out) {
    uint32_t high = 0;
    if (fifth) {
        for (int i = 0; i < 32; i++) high |= (uint32_t)(code[i] >> 4) << i;
        memcpy(out, &high, 4);
        out += 4;
    }
    for (int i = 0; i < 16; i++) out[i] = (uint8_t)((code[i] & 15) | (code[i + 16] & 15) << 4);
}
ONE_COPY void small_blocks(const float *x, size_t n, const float *importance, code_set set,
                           bool with_min, bool fifth, uint8_t *out) {
    float w[32], d, m;
    uint8_t code[32];
    for (size_t at = 0; at < n; at += 32) {
        group g;
        weights_of(importance ? importance + at : NULL, x + at, set.book, 32, w);
        group_load(&g, x + at, w, 32, importance != NULL);
        if (with_min)
            best_affine(&g, set, false, &d, &m);
        else
            d = best_scale(&g, set), m = 0;
        put_half(out, d, &d);
        if (with_min) put_half(out + 2, m, &m);
        codes_of(&g, set, d, m, code);
        out += with_min ? 4 : 2;
        put_codes(code, fifth, out);
        out += fifth ? 20 : 16;
    }
}
static void SEARCH_NAME(q4_0)(const float *x, size_t n, const float *importance, void *out) {
    small_blocks(x, n, importance, (code_set){-8, 7, false}, false, false, out);
}
static void SEARCH_NAME(q5_0)(const float *x, size_t n, const float *importance, void *out) {
    small_blocks(x, n, importance, (code_set){-16, 15, false}, false, true, out);
}
static void SEARCH_NAME(iq4_nl)(const float *x, size_t n, const float *importance, void *out) {
    small_blocks(x, n, importance, (code_set){-127, 113, true}, false, false, out);
}
static void SEARCH_NAME(q4_1)(const float *x, size_t n, const float *importance, void *out) {
    small_blocks(x, n, importance, (code_set){0, 15, false}, true, false, out);
}
static void SEARCH_NAME(q5_1)(const float *x, size_t n, const float *importance, void *out) {
    small_blocks(x, n, importance, (code_set){0, 31, false}, true, true, out);
}

/* ---- Blocks of 256 ---- */

LANES int clamp_int(float v, int lo, int hi) {
    if (!(v > (float)lo)) return lo; /* no number, too */
    return v < (float)hi ? (int)lrintf(v) : hi;
}

/* Q3_K, Q6_K, IQ4_XS: scales with a sign. Integer scales of a group are tried around the wanted one. */
ONE_COPY void super_scaled(const float *x, const float *importance, dtype t, int n_groups,
                           code_set set, int lo, int hi, uint8_t *out) {
    const int n = SUPER / n_groups;
    group g[MAX_GROUPS];
    float w[SUPER], wanted[MAX_GROUPS], least = INFINITY, most = 0;
    const v8f count = {0, 1, 2, 3, 4, 5, 6, 7};
    super_block b = {0}, kept = {0};
    trials try = {0};
    weights_of(importance, x, set.book, SUPER, w);
    for (int j = 0; j < n_groups; j++) {
        group_load(&g[j], x + n * j, w + n * j, n, importance != NULL);
        wanted[j] = best_scale(&g[j], set);
        if (fabsf(wanted[j]) > fabsf(most)) most = wanted[j];
    }
    float d = most / (float)lo;
    for (int round = 0; round < (importance ? 4 : 2); round++) {
        if (round == 2) d = most / ((float)lo * 0.97f); /* and once from another start */
        b.d = half_of_float(d);
        d = half_to_float(b.d);
        float e = 0, xc = 0, cc = 0;
        for (int j = 0; j < n_groups; j++) {
            const int first = clamp_int(d != 0 ? wanted[j] / d : 0, lo + 3, hi - 4) - 3;
            try.d = d * (count + (float)first);
            try_all(&g[j], set, &try);
            const int best = v8_lane(try.e, v8_hmin(try.e));
            const float s = (float)(first + best);
            b.scale[j] = (int16_t)(first + best);
            e += try.e[best], xc += s * try.xc[best], cc += s * s * try.cc[best];
        }
        if (e < least) least = e, kept = b;
        if (cc > 0) d = xc / cc;
    }
    d = half_to_float(kept.d);
    for (int j = 0; j < n_groups; j++)
        codes_of(&g[j], set, d * (float)kept.scale[j], 0, kept.code + n * j);
    super_pack(t, &kept, out);
}

/* Sums over the groups of x = d a - dmin b, a and b being integer scales times codes, and minima. */
typedef struct pair_fit {
    float aa, ab, bb, xa, xb, e;
} pair_fit;

/* The integers of a group's scale and minimum: scales around the wanted one, with the minimum wanted and with
 * the one that fits the codes. */
ONE_COPY void best_steps(const group *g, code_set set, float d, float dmin, const float want[2],
                         int hi, int16_t *scale, int16_t *min, pair_fit *p) {
    const int first = clamp_int(d != 0 ? want[0] / d : 0, 3, hi - 4) - 3;
    const v8f scales = (v8f){0, 1, 2, 3, 4, 5, 6, 7} + (float)first;
    v8f m = v8_all((float)clamp_int(dmin != 0 ? want[1] / dmin : 0, 0, hi));
    float best = INFINITY;
    trials t;
    pair_fit add = {0};
    for (int pass = 0; pass < 2; pass++) {
        t.d = d * scales, t.m = -dmin * m;
        try_all(g, set, &t);
        const float least = v8_hmin(t.e);
        if (least < best) {
            const int k = v8_lane(t.e, least);
            const float a = scales[k], b = m[k];
            best = least, *scale = (int16_t)a, *min = (int16_t)b;
            add = (pair_fit){a * a * t.cc[k], a * b * t.c[k], b * b * g->sum_w,
                             a * t.xc[k],     b * g->sum_wx,  best};
        }
        if (dmin == 0) break;
        m = code_near((code_set){0, (float)hi, false},
                      (t.d * t.c - g->sum_wx) / (g->sum_w * dmin));
    }
    p->aa += add.aa, p->ab += add.ab, p->bb += add.bb;
    p->xa += add.xa, p->xb += add.xb, p->e += add.e;
}
LANES void pair_solve(const pair_fit *p, float *d, float *dmin) {
    const float det = p->aa * p->bb - p->ab * p->ab;
    float a = 0, b = 0;
    if (det > 1e-6f * p->aa * p->bb) {
        a = (p->xa * p->bb - p->xb * p->ab) / det;
        b = (p->xa * p->ab - p->xb * p->aa) / det;
    } else if (p->aa > 0)
        a = p->xa / p->aa;
    if (a > 0 && b >= 0) *d = a, *dmin = b;
}
/* Q2_K, Q4_K, Q5_K: scales and minima, none negative. */
ONE_COPY void super_affine(const float *x, const float *importance, dtype t, int n_groups,
                           code_set set, int hi, uint8_t *out) {
    const int n = SUPER / n_groups;
    group g[MAX_GROUPS];
    float w[SUPER], want[MAX_GROUPS][2], most = 0, lowest = 0, least = INFINITY, m;
    super_block b = {0}, kept = {0};
    weights_of(importance, x, set.book, SUPER, w);
    for (int j = 0; j < n_groups; j++) {
        group_load(&g[j], x + n * j, w + n * j, n, importance != NULL);
        best_affine(&g[j], set, true, &want[j][0], &m);
        want[j][1] = -m;
        if (want[j][0] > most) most = want[j][0];
        if (want[j][1] > lowest) lowest = want[j][1];
    }
    float d = most / (float)hi, dmin = lowest / (float)hi;
    for (int round = 0; round < (importance ? 4 : 2); round++) {
        if (round == 2) d = most / ((float)hi * 0.95f), dmin = lowest / ((float)hi * 0.95f);
        b.d = half_of_float(d), b.dmin = half_of_float(dmin);
        d = half_to_float(b.d), dmin = half_to_float(b.dmin);
        pair_fit p = {0};
        for (int j = 0; j < n_groups; j++)
            best_steps(&g[j], set, d, dmin, want[j], hi, &b.scale[j], &b.min[j], &p);
        if (p.e < least) least = p.e, kept = b;
        pair_solve(&p, &d, &dmin);
    }
    d = half_to_float(kept.d), dmin = half_to_float(kept.dmin);
    for (int j = 0; j < n_groups; j++)
        codes_of(&g[j], set, d * (float)kept.scale[j], -dmin * (float)kept.min[j],
                 kept.code + n * j);
    super_pack(t, &kept, out);
}

#define SUPER_ENCODER(name, call)                                                              \
    static void SEARCH_NAME(name)(const float *x, size_t n, const float *importance,           \
                                  void *to) {                                                  \
        uint8_t *out = to;                                                                     \
        for (size_t at = 0; at < n; at += SUPER) {                                             \
            const float *imp = importance ? importance + at : NULL;                            \
            call;                                                                              \
        }                                                                                      \
    }
SUPER_ENCODER(q2_k, super_affine(x + at, imp, DT_Q2_K, 16, (code_set){0, 3, false}, 15,
                                 out + at / SUPER * 84))
SUPER_ENCODER(q4_k, super_affine(x + at, imp, DT_Q4_K, 8, (code_set){0, 15, false}, 63,
                                 out + at / SUPER * 144))
SUPER_ENCODER(q5_k, super_affine(x + at, imp, DT_Q5_K, 8, (code_set){0, 31, false}, 63,
                                 out + at / SUPER * 176))
SUPER_ENCODER(q3_k, super_scaled(x + at, imp, DT_Q3_K, 16, (code_set){-4, 3, false}, -32, 31,
                                 out + at / SUPER * 110))
SUPER_ENCODER(q6_k, super_scaled(x + at, imp, DT_Q6_K, 16, (code_set){-32, 31, false}, -128,
                                 127, out + at / SUPER * 210))
SUPER_ENCODER(iq4_xs, super_scaled(x + at, imp, DT_IQ4_XS, 8, (code_set){-127, 113, true}, -32,
                                   31, out + at / SUPER * 136))

quant_encoder *SEARCH_NAME(search)(dtype t) {
    switch (t) {
    case DT_Q4_0: return SEARCH_NAME(q4_0);
    case DT_Q4_1: return SEARCH_NAME(q4_1);
    case DT_Q5_0: return SEARCH_NAME(q5_0);
    case DT_Q5_1: return SEARCH_NAME(q5_1);
    case DT_Q2_K: return SEARCH_NAME(q2_k);
    case DT_Q3_K: return SEARCH_NAME(q3_k);
    case DT_Q4_K: return SEARCH_NAME(q4_k);
    case DT_Q5_K: return SEARCH_NAME(q5_k);
    case DT_Q6_K: return SEARCH_NAME(q6_k);
    case DT_IQ4_NL: return SEARCH_NAME(iq4_nl);
    case DT_IQ4_XS: return SEARCH_NAME(iq4_xs);
    default: return NULL;
    }
}
