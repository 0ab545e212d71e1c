/* Codes and scales to blocks, in runs of rows: tens of KiB are read at once. The slab of a folder has a lock; all else
 * is immutable. */
#include "model/hf/hf_packed_read.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "memory/term.h"
#include "model/hf/hf_unpack.h"

enum {
    BLOCK = 32,
    COLUMNS = 1024, /* outputs in a slab, at most: of AWQ 512 bytes of each stored row */
    STRIP = 16, /* stored rows of words that are transposed at once; of AWQ, twice as many */
    STRIP_BYTES = STRIP * COLUMNS * 4,
    PIECE = 64 << 10, /* bytes of rows that are stored one by one and read at once */
};

/* ---- one output ---- */

static uint64_t scale_bytes(const hf_packed *p) {
    return p->scales->type == DT_F32 ? 4 : 2;
}
static uint64_t n_scales(const hf_packed *p) {
    return ceil_div(p->cols, p->scale_cols);
}
/* The codes of an output, one after the other. */
static uint64_t code_bytes(const hf_packed *p) {
    return p->cols / 8 * p->scheme->bits;
}

typedef struct output_row {
    const char *codes, *scales; /* [code_bytes], [n_scales] */
    const uint16_t *zeros;      /* [n_scales]; NULL: all are zero */
    int32_t zero;
} output_row;

static dtype kind_of(const hf_packed *p) {
    return p->type == DT_Q4_0 ? DT_I4 : p->type == DT_Q8_0 ? DT_I8G : dtype_kind(p->type);
}

/* 32 codes less `less`, a pair of them 16 apart in a byte. False: one does not fit into 4 bits. */
static bool put_four(unsigned char out[BLOCK / 2], const uint8_t code[BLOCK], int32_t less) {
    uint8_t v[BLOCK], wrong = 0;
    for (uint32_t i = 0; i < BLOCK; i++) v[i] = (uint8_t)(code[i] - less);
    for (uint32_t i = 0; i < BLOCK; i++) wrong |= v[i] & 0xf0;
    for (uint32_t i = 0; i < BLOCK / 2; i++) out[i] = (uint8_t)(v[i] | v[i + 16] << 4);
    return !wrong;
}

/* Likewise as bytes. */
static bool put_eight(unsigned char out[BLOCK], const uint8_t code[BLOCK], int32_t less) {
    int16_t v[BLOCK], wrong = 0;
    for (uint32_t i = 0; i < BLOCK; i++) v[i] = (int16_t)(code[i] - less);
    for (uint32_t i = 0; i < BLOCK; i++) wrong |= (int16_t)((v[i] + 128) & ~255);
    for (uint32_t i = 0; i < BLOCK; i++) out[i] = (uint8_t)v[i];
    return !wrong;
}

static unsigned char *put_zero(unsigned char *out, int32_t zero) {
    const int16_t z = (int16_t)zero;
    memcpy(out, &z, sizeof z);
    return out + sizeof z;
}

static void gather(const hf_packed *p, const output_row *r, uint64_t k, uint8_t code[BLOCK]) {
    for (uint32_t i = 0; i < BLOCK; i++)
        code[i] = (uint8_t)hf_unpack_at(r->codes, (uint64_t)p->order[k + i], p->scheme->bits);
}

/* False: a zero point with which a number does not fit. */
static bool unpack(const hf_packed *p, const output_row *r, unsigned char *out) {
    const uint64_t size = scale_bytes(p);
    const uint32_t bits = p->scheme->bits;
    const dtype kind = kind_of(p);
    const bool bytes = kind == DT_F8 || (kind == DT_I8G && !r->zeros); /* held as stored */
    uint8_t code[BLOCK];
    bool fits = true;
    for (uint64_t k = 0; k < p->cols; k += BLOCK) {
        const uint64_t g = k / p->scale_cols;
        const int32_t zero = r->zeros ? r->zeros[g] : r->zero;
        if (k % p->group == 0) {
            memcpy(out, r->scales + g * size, size);
            out += size;
            if (kind == DT_I4Z) *out++ = (unsigned char)zero;
            if (kind == DT_I8Z) out = put_zero(out, zero - 128);
        }
        if (p->order)
            gather(p, r, k, code);
        else
            hf_unpack32(code, r->codes, k, bits);
        if (bytes)
            memcpy(out, code, BLOCK);
        else if (kind == DT_I8G || kind == DT_I8Z)
            fits &= put_eight(out, code, kind == DT_I8G ? zero : 128);
        else
            fits &= put_four(out, code, kind == DT_I4 ? zero - 8 : 0);
        out += kind == DT_I4 || kind == DT_I4Z ? BLOCK / 2 : BLOCK;
    }
    return fits;
}

static status does_not_fit(const hf_packed *p, err *e) {
    const char *name = p->zeros ? p->zeros->name : p->codes->name;
    err_set(e, ERR_UNSUPPORTED, "%.200s: a zero point with which a number does not fit", name);
    if (p->scheme->symmetric && hf_is_transposed(p->scheme))
        err_hint(e, "\"sym\": false in its quantization_config holds codes and zero points as "
                    "they are");
    return err_field(e, "%.90s", name);
}

/* ---- which rows ---- */

typedef struct wanted {
    const hf_packed *p;
    uint64_t first, n; /* as they are read */
    uint32_t head_dim;
    uint64_t from, to; /* stored rows that may be among them */
    unsigned char *dst;
    uint64_t row_bytes;
} wanted;

static wanted want(const hf_packed *p, uint32_t head_dim, uint64_t first, uint64_t n,
                   void *dst) {
    wanted w = {p, first, n, head_dim, first, first + n, dst, 0};
    CHECK(dtype_bytes(p->type, 1, p->cols, &w.row_bytes));
    if (!head_dim) return w;
    w.from = n == 1 ? hf_stored_place(head_dim, first) : first / head_dim * head_dim;
    w.to = n == 1 ? w.from + 1 : ceil_div(first + n, head_dim) * head_dim;
    return w;
}

/* Where a stored row belongs; NULL: it is not wanted. */
static unsigned char *place_of(const wanted *w, uint64_t stored) {
    uint64_t i = stored;
    if (w->head_dim) {
        const uint64_t half = w->head_dim / 2, at = stored % w->head_dim;
        i = stored - at + at % half * 2 + at / half;
    }
    return i >= w->first && i < w->first + w->n ? w->dst + (i - w->first) * w->row_bytes : NULL;
}

/* ---- matrices that are stored input by input ---- */

/* Outputs [first, first + n), of columns_of: codes [columns][code_bytes], scales [columns][n_scales], zero points
 * [columns][n_scales], and room for a strip of stored rows. */
struct hf_slab {
    pthread_rwlock_t lock;
    const hf_packed *of; /* NULL: nothing is in it */
    uint64_t first, n;
};

/* Bytes of n outputs in a stored row of codes, and of zero points. */
static uint64_t code_part(const hf_packed *p, uint64_t n) {
    return p->scheme->packing == HF_PACKED_AWQ ? n / 2 : n * 4;
}
static uint64_t zero_part(const hf_packed *p, uint64_t n) {
    return n / 8 * p->scheme->bits;
}

static uint64_t columns_of(const hf_packed *p) {
    return p->rows < COLUMNS ? p->rows : COLUMNS;
}

uint64_t hf_slab_bytes(const hf_packed *p) {
    if (!hf_is_transposed(p->scheme)) return 0;
    return align_up(sizeof(hf_slab), 16) + STRIP_BYTES +
           columns_of(p) * (code_bytes(p) + n_scales(p) * (scale_bytes(p) + sizeof(uint16_t)));
}

hf_slab *hf_slab_init(void *mem) {
    hf_slab *s = mem;
    *s = (hf_slab){0};
    CHECK(pthread_rwlock_init(&s->lock, NULL) == 0);
    return s;
}

void hf_slab_clear(hf_slab *s) {
    if (s) pthread_rwlock_destroy(&s->lock);
}

typedef struct slab_parts {
    char *strip, *codes, *scales;
    uint16_t *zeros;
} slab_parts;

static slab_parts parts_of(hf_slab *s, const hf_packed *p) {
    slab_parts a = {.strip = (char *)s + align_up(sizeof *s, 16)};
    a.codes = a.strip + STRIP_BYTES;
    a.scales = a.codes + columns_of(p) * code_bytes(p);
    a.zeros = (uint16_t *)(void *)(a.scales + columns_of(p) * n_scales(p) * scale_bytes(p));
    return a;
}

/* Stored rows [row, row + n_rows) of a slab's outputs, one behind the other. */
static status read_strip(const safetensors *in, const safetensor *t, uint64_t row_bytes,
                         uint64_t row, uint64_t n_rows, uint64_t at, uint64_t n, char *strip,
                         err *e) {
    status s = OK;
    for (uint64_t r = 0; r < n_rows && s == OK; r++)
        s = safetensors_read(in, t, (row + r) * row_bytes + at, strip + r * n, n, e);
    return s;
}

/* Words of one output each: word r of an output is in stored row r. */
static void turn_words(const char *strip, uint64_t n_rows, uint64_t n, char *codes,
                       uint64_t bytes) {
    for (uint64_t c = 0; c < n; c++)
        for (uint64_t r = 0; r < n_rows; r++)
            memcpy(codes + c * bytes + 4 * r, strip + (r * n + c) * 4, 4);
}

/* AWQ's words of eight outputs each, eight inputs at a time. */
static void turn_awq(const char *strip, uint64_t n_rows, uint64_t n, char *codes,
                     uint64_t bytes) {
    uint32_t x[8];
    for (uint64_t c = 0; c < n; c += 8)
        for (uint64_t r = 0; r < n_rows; r += 8) {
            for (uint64_t j = 0; j < 8; j++) memcpy(&x[j], strip + ((r + j) * n + c) / 2, 4);
            hf_transpose8(x);
            for (uint64_t j = 0; j < 8; j++)
                memcpy(codes + (c + j) * bytes + r / 2, &x[hf_awq_place[j]], 4);
        }
}

static status fill_codes(const hf_slab *s, const hf_packed *p, const slab_parts *a, err *e) {
    const bool awq = p->scheme->packing == HF_PACKED_AWQ;
    const uint64_t rows = p->codes->dim[0], step = awq ? 2 * STRIP : STRIP;
    status st = OK;
    for (uint64_t r = 0; r < rows && st == OK; r += step) {
        const uint64_t n_rows = rows - r < step ? rows - r : step;
        st = read_strip(p->codes_in, p->codes, code_part(p, p->rows), r, n_rows,
                        code_part(p, s->first), code_part(p, s->n), a->strip, e);
        if (st != OK) break;
        if (awq)
            turn_awq(a->strip, n_rows, s->n, a->codes + r / 2, code_bytes(p));
        else
            turn_words(a->strip, n_rows, s->n, a->codes + 4 * r, code_bytes(p));
    }
    return st;
}

/* Scales and zero points of group g. */
static status fill_group(const hf_slab *s, const hf_packed *p, const slab_parts *a, uint64_t g,
                         err *e) {
    const uint64_t size = scale_bytes(p), n_groups = n_scales(p);
    const bool awq = p->scheme->packing == HF_PACKED_AWQ;
    status st = read_strip(p->scales_in, p->scales, p->rows * size, g, 1, s->first * size,
                           s->n * size, a->strip, e);
    for (uint64_t c = 0; c < s->n && st == OK; c++)
        memcpy(a->scales + (c * n_groups + g) * size, a->strip + c * size, size);
    if (st == OK)
        st = read_strip(p->zeros_in, p->zeros, zero_part(p, p->rows), g, 1,
                        zero_part(p, s->first), zero_part(p, s->n), a->strip, e);
    for (uint64_t c = 0; c < s->n && st == OK; c++) {
        const uint64_t at = awq ? c - c % 8 + hf_awq_place[c % 8] : c;
        a->zeros[c * n_groups + g] =
            (uint16_t)(hf_unpack_at(a->strip, at, p->scheme->bits) + p->scheme->zero_bias);
    }
    return st;
}

static status fill(hf_slab *s, const hf_packed *p, uint64_t row, err *e) {
    const slab_parts a = parts_of(s, p);
    s->of = NULL;
    s->first = row / COLUMNS * COLUMNS;
    s->n = p->rows - s->first < COLUMNS ? p->rows - s->first : COLUMNS;
    status st = fill_codes(s, p, &a, e);
    for (uint64_t g = 0; g < n_scales(p) && st == OK; g++) st = fill_group(s, p, &a, g, e);
    if (st == OK) s->of = p;
    return st;
}

static bool holds(const hf_slab *s, const hf_packed *p, uint64_t row) {
    return s->of == p && row >= s->first && row - s->first < s->n;
}

/* Rows from `row` on, up to the slab's end. Returns the first row that is not read. */
static uint64_t unpack_slab(hf_slab *s, const wanted *w, uint64_t row, bool *fits) {
    const hf_packed *p = w->p;
    const slab_parts a = parts_of(s, p);
    const uint64_t end = s->first + s->n < w->to ? s->first + s->n : w->to, n = n_scales(p);
    for (; row < end; row++) {
        const uint64_t c = row - s->first;
        const output_row r = {a.codes + c * code_bytes(p), a.scales + c * n * scale_bytes(p),
                              a.zeros + c * n, 0};
        unsigned char *to = place_of(w, row);
        if (to) *fits &= unpack(p, &r, to);
    }
    return row;
}

static status read_transposed(hf_slab *s, const wanted *w, err *e) {
    bool fits = true;
    CHECK(s);
    for (uint64_t row = w->from; row < w->to;) {
        status st = OK;
        pthread_rwlock_rdlock(&s->lock);
        if (!holds(s, w->p, row)) { /* who fills it uses it before another one can */
            pthread_rwlock_unlock(&s->lock);
            pthread_rwlock_wrlock(&s->lock);
            if (!holds(s, w->p, row)) st = fill(s, w->p, row, e);
        }
        if (st == OK) row = unpack_slab(s, w, row, &fits);
        pthread_rwlock_unlock(&s->lock);
        if (st != OK) return st;
    }
    return fits ? OK : does_not_fit(w->p, e);
}

/* ---- matrices that are stored output by output ---- */

/* Stored rows [first, first + n): their codes, scales, and the words of zero points, each for eight rows. */
typedef struct piece {
    uint64_t first, n, most;
    char *codes, *scales, *zeros;
    uint16_t *row_zeros; /* [n_scales], of one row */
    void *mem;
} piece;

static status open_piece(piece *c, const wanted *w, err *e) {
    const hf_packed *p = w->p;
    const uint64_t across = n_scales(p), size = scale_bytes(p);
    *c = (piece){.most = PIECE / code_bytes(p)};
    if (c->most > w->to - w->from) c->most = w->to - w->from;
    if (c->most == 0) c->most = 1;
    const uint64_t codes = align_up(c->most * code_bytes(p), 4);
    const uint64_t scales = align_up((c->most / p->scale_rows + 2) * across * size, 4);
    const uint64_t zeros = (c->most / 8 + 2) * across * 4;
    c->mem = c->codes = malloc(codes + scales + zeros + across * sizeof *c->row_zeros);
    if (!c->mem) return mem_exhausted(e, MEM_LOADING, "reading %.200s", p->codes->name);
    c->scales = c->codes + codes;
    c->zeros = c->scales + scales;
    c->row_zeros = (uint16_t *)(void *)(c->zeros + zeros);
    return OK;
}

/* Rows of `row_bytes` bytes, each for `each` rows of the matrix, as many as rows [first, first + n) have. */
static status read_shared(const safetensors *in, const safetensor *t, uint64_t row_bytes,
                          uint64_t each, const piece *c, char *dst, err *e) {
    const uint64_t from = c->first / each, to = ceil_div(c->first + c->n, each);
    return safetensors_read(in, t, from * row_bytes, dst, (to - from) * row_bytes, e);
}

static status fetch(piece *c, const wanted *w, uint64_t row, err *e) {
    const hf_packed *p = w->p;
    const uint64_t across = n_scales(p);
    c->first = row;
    c->n = w->to - row < c->most ? w->to - row : c->most;
    status s = read_shared(p->codes_in, p->codes, code_bytes(p), 1, c, c->codes, e);
    if (s == OK)
        s = read_shared(p->scales_in, p->scales, across * scale_bytes(p), p->scale_rows, c,
                        c->scales, e);
    if (s == OK && p->zeros)
        s = read_shared(p->zeros_in, p->zeros, across * 4, 8, c, c->zeros, e);
    return s;
}

static bool unpack_piece(const piece *c, const wanted *w, uint64_t row, unsigned char *to) {
    const hf_packed *p = w->p;
    const uint64_t across = n_scales(p);
    const uint64_t scales = row / p->scale_rows - c->first / p->scale_rows;
    const char *words = c->zeros + (row / 8 - c->first / 8) * across * 4;
    for (uint64_t g = 0; g < across && p->zeros; g++)
        c->row_zeros[g] = (uint16_t)hf_unpack_at(words + 4 * g, row % 8, 4);
    const output_row r = {c->codes + (row - c->first) * code_bytes(p),
                          c->scales + scales * across * scale_bytes(p),
                          p->zeros ? c->row_zeros : NULL,
                          p->scheme->packing == HF_PACKED_WORDS ? 8 : 0};
    return unpack(p, &r, to);
}

static status read_stored(const wanted *w, err *e) {
    piece c;
    bool fits = true;
    status s = open_piece(&c, w, e);
    for (uint64_t row = w->from; row < w->to && s == OK;) {
        s = fetch(&c, w, row, e);
        for (; row < c.first + c.n && s == OK; row++) {
            unsigned char *to = place_of(w, row);
            if (to) fits &= unpack_piece(&c, w, row, to);
        }
    }
    free(c.mem);
    return s == OK && !fits ? does_not_fit(w->p, e) : s;
}

status hf_packed_read(const hf_packed *p, hf_slab *s, uint32_t head_dim, uint64_t first,
                      uint64_t n, void *dst, err *e) {
    CHECK(first + n <= p->rows);
    if (n == 0) return OK;
    const wanted w = want(p, head_dim, first, n, dst);
    return hf_is_transposed(p->scheme) ? read_transposed(s, &w, e) : read_stored(&w, e);
}
