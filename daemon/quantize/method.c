/* Scales and codes that know what the weights are multiplied with. */
#include "daemon/quantize/method.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "daemon/quantize/search_scales.h"
#include "quant/grid.h"
#include "quant/quant.h"

enum { ROWS = 16 }; /* that GPTQ treats side by side */
#define DAMP 0.01

status method_by_name(uint32_t *out, const char *words, err *e) {
    static const struct {
        const char *name;
        uint32_t kind;
    } all[] = {{"rtn", METHOD_RTN},
               {"imatrix", METHOD_IMATRIX},
               {"gptq", METHOD_GPTQ | METHOD_IMATRIX},
               {"awq", METHOD_AWQ | METHOD_IMATRIX},
               {"smooth", METHOD_SMOOTH}};
    *out = METHOD_RTN;
    while (words && *words) {
        const size_t n = strcspn(words, "+,");
        size_t i = 0;
        while (i < sizeof all / sizeof *all &&
               (strlen(all[i].name) != n || memcmp(all[i].name, words, n) != 0))
            i++;
        if (i == sizeof all / sizeof *all) {
            err_set(e, ERR_INVALID, "--method: \"%.40s\" is none", words);
            err_hint(e, "rtn, imatrix, gptq, awq, smooth, or several: awq+gptq");
            return err_field(e, "method");
        }
        *out |= all[i].kind;
        words += n + (words[n] != '\0');
    }
    if ((*out & METHOD_AWQ) && (*out & METHOD_SMOOTH)) {
        err_set(e, ERR_INVALID, "--method: awq and smooth scale the same inputs");
        return err_field(e, "method");
    }
    return OK;
}

static uint32_t most_inputs(const program *p) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        if ((o->kind == OP_LINEAR || o->kind == OP_GATE_UP) && p->values[o->in].cols > n)
            n = p->values[o->in].cols;
    }
    return n;
}

static uint64_t scales_bytes(const program *p) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        if (o->kind == OP_LINEAR || o->kind == OP_GATE_UP) n += p->values[o->in].cols;
    }
    return n * sizeof(float);
}

/* What one thread needs at most, of the search of scales and of GPTQ, which never run together. */
static uint64_t scratch_bytes(const program *p, uint32_t kind) {
    const uint32_t n = most_inputs(p);
    const uint64_t search = kind & (METHOD_AWQ | METHOD_SMOOTH) ? search_scales_bytes(n) : 0;
    const uint64_t rows = kind & METHOD_GPTQ ? gptq_scratch_bytes(n, ROWS) : 0;
    return align_up(search > rows ? search : rows, 64);
}

uint64_t method_bytes(const program *p, uint32_t kind, uint32_t n_threads) {
    uint64_t bytes = scales_bytes(p) + most_inputs(p) * sizeof(float);
    if (kind & METHOD_GPTQ) bytes += METHOD_SLOTS * align_up(gptq_bytes(most_inputs(p)), 64);
    return bytes + n_threads * scratch_bytes(p, kind);
}

/* ---- open ---- */

static status alloc(method *m, err *e) {
    const program *p = m->cal->sums.program;
    const uint32_t n = m->cal->sums.n_inputs, most = most_inputs(p);
    bool ok = true;
    m->fold = calloc(n + 1, sizeof *m->fold);
    m->scale = calloc(n + 1, sizeof *m->scale);
    m->scales = calloc(1, scales_bytes(p) + 1);
    m->importance = calloc(most + 1, sizeof *m->importance);
    m->scratch = calloc(m->n_threads, sizeof *m->scratch);
    ok = m->fold && m->scale && m->scales && m->importance && m->scratch;
    for (uint32_t i = 0; i < m->n_threads && ok; i++)
        ok = (m->scratch[i] = aligned_alloc(64, scratch_bytes(p, m->kind) + 64)) != NULL;
    for (uint32_t i = 0; i < METHOD_SLOTS && ok && (m->kind & METHOD_GPTQ); i++)
        ok = (m->slot[i].mem = aligned_alloc(64, align_up(gptq_bytes(most), 64))) != NULL;
    return ok ? OK : mem_exhausted(e, MEM_WORKSPACE, "scales and factors");
}

status method_open(method *m, uint32_t kind, calibration *cal, const quant_job *job,
                   uint32_t n_threads, err *e) {
    *m = (method){.kind = kind, .cal = cal, .job = job, .n_threads = n_threads};
    return alloc(m, e);
}

status method_open_imatrix(method *m, const gguf *file, const quant_job *job, err *e) {
    uint64_t most = 0;
    *m = (method){.kind = METHOD_IMATRIX, .imatrix = file, .job = job};
    for (size_t i = 0; i < job->n; i++)
        if (job->v[i].cols > most) most = job->v[i].cols;
    m->importance = calloc(most + 1, sizeof *m->importance);
    return m->importance ? OK : mem_exhausted(e, MEM_WORKSPACE, "an importance matrix");
}

void method_close(method *m) {
    for (uint32_t i = 0; i < METHOD_SLOTS; i++) free(m->slot[i].mem);
    for (uint32_t i = 0; i < m->n_threads && m->scratch; i++) free(m->scratch[i]);
    free(m->scratch);
    free(m->importance);
    free(m->scales);
    free(m->scale);
    free(m->fold);
    *m = (method){0};
}

/* ---- a tensor ---- */

static const float *scale_of(const method *m, const calib_input *in) {
    return m->scale[in - m->cal->sums.input];
}

/* Mean squares of the inputs as they are scaled. */
static void weigh(method *m, const calib_input *in) {
    const float *s = scale_of(m, in);
    calib_importance(in, m->importance);
    for (uint32_t i = 0; i < in->n && s; i++) m->importance[i] /= s[i] * s[i];
}

static status factor_of(method *m, calib_input *in, err *e) {
    method_slot *oldest = &m->slot[0];
    for (uint32_t i = 0; i < METHOD_SLOTS; i++) {
        if (m->slot[i].input == in) oldest = &m->slot[i];
        if (oldest->input != in && m->slot[i].used < oldest->used) oldest = &m->slot[i];
    }
    oldest->used = ++m->clock;
    m->factor = &oldest->factor;
    if (oldest->input == in) return OK;
    oldest->input = NULL;
    status s = calibration_need(m->cal, in, e);
    if (s == OK)
        s = gptq_init(&oldest->factor, in->h, in->n, scale_of(m, in), true, DAMP, oldest->mem,
                      e);
    if (s == OK) oldest->input = in;
    return s;
}

status method_begin(method *m, const char *tensor, dtype to, err *e) {
    grid g;
    const bool coded = grid_of(to, &g);
    m->to = to;
    m->factor = NULL;
    m->weighted = false;
    if (m->imatrix) {
        const quant_tensor *t = method_tensor(m->job, tensor);
        CHECK(t);
        return !coded || t->cols > UINT32_MAX
                   ? OK
                   : imatrix_read(m->imatrix, tensor, (uint32_t)t->cols, m->importance,
                                  &m->weighted, e);
    }
    m->input = calib_find(&m->cal->sums, tensor);
    m->weighted = m->input && coded && (m->kind & METHOD_IMATRIX);
    if (m->weighted) weigh(m, m->input);
    if (!m->input || !coded || !(m->kind & METHOD_GPTQ)) return OK;
    status s = factor_of(m, m->input, e);
    if (s != OK) err_field(e, "%s", tensor);
    return s;
}

/* Rows, or elements of a vector, that an input's scales divide. */
static void divide(const scale_fold *f, const float *s, bool vector, uint64_t first,
                   uint64_t n_rows, uint64_t n_cols, float *rows) {
    const uint64_t n = vector ? n_cols : n_rows, per = vector ? 1 : n_cols;
    for (uint32_t i = 0; i < f->n; i++) {
        const uint64_t row = f->first_row + scale_row(f, i);
        const bool seen = f->shared > 1 && i / f->head_dim % f->shared != 0;
        if (seen || row < first || row >= first + n) continue;
        for (uint64_t c = 0; c < per; c++) rows[(row - first) * per + c] /= s[i];
    }
}

void method_values(const method *m, const char *tensor, uint64_t first_row, uint64_t n_rows,
                   uint64_t n_cols, float *rows) {
    if (!(m->kind & (METHOD_AWQ | METHOD_SMOOTH))) return;
    const calib *c = &m->cal->sums;
    const calib_input *in = calib_find(c, tensor);
    const float *own = in ? scale_of(m, in) : NULL;
    for (uint64_t r = 0; r < n_rows && own; r++)
        for (uint64_t i = 0; i < n_cols; i++) rows[r * n_cols + i] *= own[i];
    for (uint32_t i = 0; i < c->n_inputs; i++) {
        const scale_fold *f = &m->fold[i];
        if (!m->scale[i]) continue;
        if (strcmp(f->divided->name, tensor) == 0)
            divide(f, m->scale[i], f->divided->role == WEIGHT_VECTOR, first_row, n_rows, n_cols,
                   rows);
        if (f->bias && strcmp(f->bias->name, tensor) == 0)
            divide(f, m->scale[i], true, 0, n_rows, n_cols, rows);
    }
}

status method_importance(const method *m, const char *tensor, uint64_t n, float *out,
                         bool *found, err *e) {
    *found = false;
    if (n > UINT32_MAX) return OK;
    if (m->imatrix) return imatrix_read(m->imatrix, tensor, (uint32_t)n, out, found, e);
    const calib_input *in = calib_find(&m->cal->sums, tensor);
    if (!in) return OK;
    CHECK(in->n == n);
    calib_importance(in, out);
    *found = true;
    return OK;
}

bool method_encode(const method *m, const float *rows, uint64_t n_rows, uint64_t n_cols,
                   void *out, uint32_t thread) {
    const size_t row_bytes = quant_row_bytes(m->to, n_cols);
    if (!m->weighted && !m->factor) return false;
    CHECK(!m->factor || (thread < m->n_threads && n_cols == m->input->n));
    for (uint64_t r = 0; r < n_rows; r += ROWS) {
        const uint32_t n = n_rows - r < ROWS ? (uint32_t)(n_rows - r) : ROWS;
        char *to = (char *)out + r * row_bytes;
        for (uint32_t i = 0; i < n; i++)
            quant_encode_row(m->to, rows + (r + i) * n_cols, n_cols,
                             m->weighted ? m->importance : NULL, to + i * row_bytes);
        if (m->factor)
            gptq_rows(m->factor, m->to, rows + r * n_cols, n, to, m->scratch[thread]);
    }
    return true;
}
