/* A model file opened: its program recorded, every tensor accounted for, rows read on demand.
 * Owns the program's arrays; the gguf is borrowed. Immutable after open; any thread. */
#include "model/model.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/half.h"
#include "memory/term.h"
#include "model/family.h"

/* What the program did not use would be a part of the model that we do not compute. */
static bool may_ignore(str name) {
    /* Derived tables that old converters stored (llama.cpp skips them, too). */
    return str_find(name, STR("attn_rot_embd"), 0) != SIZE_MAX ||
           str_find(name, STR("rotary_emb.inv_freq"), 0) != SIZE_MAX;
}

static void check_claimed(recorder *r) {
    for (size_t i = 0; r->s == OK && r->file && i < gguf_n_tensors(r->file); i++) {
        const gguf_tensor *t = gguf_tensor_at(r->file, i);
        if (r->claimed[i] || may_ignore(str_of(t->name))) continue;
        err_set(r->e, ERR_UNSUPPORTED,
                "architecture %s: tensor %s (%s) has no place in this architecture",
                r->p->config.arch, t->name, dtype_name(t->type));
        r->s = err_field(r->e, "%s", t->name);
    }
}

/* What the recordings cover; the rest of a config is there for counting. */
static status check_family(const model_config *c, const family *f, err *e) {
    const char *what = NULL, *field = "arch";
    if (!f || f->refuse)
        what = f ? f->refuse : "the architecture is not supported";
    else if (c->n_experts)
        what = "mixture-of-experts models are not supported", field = "n_experts";
    else if (c->ffn_bias)
        what = "biases in the feed-forward part are not supported", field = "ffn_bias";
    else if (c->qk_norm != f->qk_norm)
        what = "norms of q and k do not fit it", field = "qk_norm";
    else if (c->norms_per_layer != f->norms_per_layer)
        what = "another number of norms a layer is not supported", field = "norms_per_layer";
    if (!what) return OK;
    err_set(e, ERR_UNSUPPORTED, "architecture %s: %s", c->arch, what);
    err_hint(e, "supported: " FAMILIES_KNOWN);
    return err_field(e, "%s", field);
}

static status record(model **out, const model_config *c, const gguf *file, dtype planned,
                     err *e) {
    *out = NULL;
    const family *f = family_find(c->arch);
    status s = check_family(c, f, e);
    if (s != OK) return s;
    model *m = calloc(1, sizeof *m);
    bool *claimed = calloc(file ? gguf_n_tensors(file) + 1 : 1, sizeof *claimed);
    if (!m || !claimed) {
        free(m);
        free(claimed);
        return mem_exhausted(e, MEM_RUNTIME, "the program of the model");
    }
    m->file = file;
    m->program.config = *c;
    recorder r = {.p = &m->program,
                  .file = file,
                  .planned = planned,
                  .claimed = claimed,
                  .s = OK,
                  .e = e};
    f->record(&r);
    rec_kv_groups(&r);
    check_claimed(&r);
    free(claimed);
    if (r.s != OK) {
        model_close(m);
        return r.s;
    }
    *out = m;
    return OK;
}

status model_open(model **out, const gguf *g, err *e) {
    model_config c;
    *out = NULL;
    status s = model_config_from_gguf(&c, g, e);
    return s == OK ? record(out, &c, g, DT_NONE, e) : s;
}

status model_from_config(model **out, const model_config *c, dtype weights, err *e) {
    *out = NULL;
    if (!dtype_get(weights) || (weights >= DT_I8 && weights <= DT_F64)) {
        err_set(e, ERR_INVALID, "%s is no type of weights", dtype_name(weights));
        return err_field(e, "weights");
    }
    status s = model_config_check(c, e);
    return s == OK ? record(out, c, NULL, weights, e) : s;
}

void model_close(model *m) {
    if (!m) return;
    free(m->program.values);
    free(m->program.weights);
    free(m->program.ops);
    free(m->program.layer_group);
    free(m->program.layer_index);
    free(m);
}

status model_read_rows(const model *m, weight_id id, uint32_t row, uint32_t n, void *dst,
                       err *e) {
    CHECK(m->file && id < m->program.n_weights);
    const weight *w = &m->program.weights[id];
    uint64_t row_bytes;
    CHECK(row <= w->rows && n <= w->rows - row);
    CHECK(dtype_bytes(w->type, 1, w->cols, &row_bytes));
    const gguf_tensor *t = gguf_tensor_at(m->file, (size_t)w->tensor);
    return gguf_read(m->file, t, ((uint64_t)w->first_row + row) * row_bytes, dst,
                     (size_t)(n * row_bytes), e);
}

status model_read_vector(const model *m, weight_id id, float *dst, err *e) {
    CHECK(m->file && id < m->program.n_weights);
    const weight *w = &m->program.weights[id];
    CHECK(w->role == WEIGHT_VECTOR);
    if (w->type == DT_F32) return model_read_rows(m, id, 0, 1, dst, e);
    /* 16-bit: into the upper half of dst, then widened from the front; a float is written only
     * over halves that have been read. */
    uint16_t *half = (uint16_t *)(void *)dst + w->cols;
    status s = model_read_rows(m, id, 0, 1, half, e);
    if (s != OK) return s;
    for (uint32_t i = 0; i < w->cols; i++) {
        uint16_t h;
        memcpy(&h, (char *)dst + 2ull * (w->cols + i), 2);
        float f = w->type == DT_F16 ? half_to_float(h) : bf16_to_float(h);
        memcpy(&dst[i], &f, 4);
    }
    return OK;
}
