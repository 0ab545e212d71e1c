/* A model file opened: its program recorded, every tensor accounted for, rows read on demand.
 * Owns the program's arrays; the checkpoint is borrowed. Immutable after open; any thread. */
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/half.h"
#include "memory/term.h"
#include "model/family.h"

/* What the program did not use would be a part of the model that we do not compute. */
static bool may_ignore(str name) {
    /* Derived tables that old converters stored (llama.cpp skips them, too), and scales of the
     * activations of NVFP4, which here have scales of their own. */
    return str_find(name, STR(".input_scale"), 0) != SIZE_MAX ||
           str_find(name, STR("attn_rot_embd"), 0) != SIZE_MAX ||
           str_find(name, STR("rotary_emb.inv_freq"), 0) != SIZE_MAX;
}

/* By GGUF's name, or by Hugging Face's where it has no other. What follows the layer's number; NULL: it is of no layer. */
static const char *layer_of(const char *name, unsigned *layer) {
    int n = 0;
    if (sscanf(name, "blk.%u.%n", layer, &n) != 1 || !n)
        if (sscanf(name, "model.layers.%u.%n", layer, &n) != 1 || !n) return NULL;
    return name + n;
}

/* Some files have K and V of layers that read another layer's. */
static bool is_shared_kv(const model_config *c, const char *name) {
    static const char *const parts[] = {"attn_k.weight", "attn_v.weight", "attn_k_norm.weight"};
    unsigned layer;
    const char *part = layer_of(name, &layer);
    if (!part || layer < c->n_layers - c->shape.shared_kv) return false;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strcmp(part, parts[i]) == 0) return true;
    return false;
}

/* Vision, audio, blocks behind the layers that predict further tokens, and what BERT has on its first
 * token for training alone: not loaded. */
static bool is_other_part(const model_config *c, const char *name) {
    static const char *const parts[] = {"v.", "a.", "mm.", "cls."};
    unsigned layer;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strncmp(name, parts[i], strlen(parts[i])) == 0) return true;
    return c->shape.mtp && layer_of(name, &layer) && layer >= c->n_layers;
}

static void check_claimed(recorder *r) {
    for (size_t i = 0; r->s == OK && r->file && i < checkpoint_n_tensors(r->file); i++) {
        if (r->claimed[i]) continue;
        const tensor_info t = checkpoint_tensor(r->file, i);
        if (may_ignore(str_of(t.name))) continue;
        if (is_other_part(&r->p->config, t.name) || is_shared_kv(&r->p->config, t.name)) {
            r->p->not_loaded_bytes += tensor_bytes(&t);
            continue;
        }
        err_set(r->e, ERR_UNSUPPORTED,
                "architecture %s: tensor %s (%s) has no place in this architecture",
                r->p->config.arch, t.name, dtype_name(t.type));
        r->s = err_field(r->e, "%s", t.name);
    }
}

static status check_family(const model_config *c, const family *f, err *e) {
    const char *what = NULL, *field = "arch";
    if (!f)
        what = "the architecture is not supported";
    else if (!f->shaped && (c->n_experts ? !f->experts.possible : f->experts.required))
        what = c->n_experts ? "a mixture of experts is not supported" : "it has no experts",
        field = "n_experts";
    else if (!f->shaped && (c->qk_norm != f->qk_norm || c->qk_norm_whole != f->qk_norm_whole))
        what = "norms of q and k do not fit it", field = "qk_norm";
    else if (c->norms_per_layer != f->norms_per_layer)
        what = "another number of norms a layer is not supported", field = "norms_per_layer";
    if (!what) return OK;
    err_set(e, ERR_UNSUPPORTED, "architecture %s: %s", c->arch, what);
    family_hint(e);
    return err_field(e, "%s", field);
}

static status record(model **out, const model_config *c, const checkpoint *file,
                     weight_mix planned, void (*pass)(recorder *), err *e) {
    *out = NULL;
    model *m = calloc(1, sizeof *m);
    bool *claimed = calloc(file ? checkpoint_n_tensors(file) + 1 : 1, sizeof *claimed);
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
    pass(&r);
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

static status record_family(model **out, const model_config *c, const checkpoint *file,
                            weight_mix planned, err *e) {
    const family *f = family_find(c->arch);
    status s = check_family(c, f, e);
    if (s != OK) return s;
    return record(out, c, file, planned, f->record, e);
}

status model_open(model **out, const checkpoint *file, err *e) {
    model_config c;
    *out = NULL;
    status s = model_config_read(&c, file, e);
    return s == OK ? record_family(out, &c, file, (weight_mix){DT_NONE, MIX_NONE}, e) : s;
}

static status check_planned(const model_config *c, weight_mix weights, err *e) {
    if (dtype_get(weights.base) && (weights.base < DT_I8 || weights.base > DT_F64))
        return model_config_check(c, e);
    err_set(e, ERR_INVALID, "%s is no type of weights", dtype_name(weights.base));
    return err_field(e, "weights");
}

status model_from_config(model **out, const model_config *c, dtype weights, err *e) {
    return model_from_mix(out, c, (weight_mix){weights, MIX_NONE}, e);
}

status model_from_mix(model **out, const model_config *c, weight_mix weights, err *e) {
    *out = NULL;
    status s = check_planned(c, weights, e);
    return s == OK ? record_family(out, c, NULL, weights, e) : s;
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

/* n rows of the weight from row on that are rows of the tensor, too, one after the other: to be
 * read at once where they are whole, else row by row. */
static status read_run(const model *m, const weight *w, uint32_t row, uint32_t n,
                       unsigned char *dst, err *e) {
    const size_t tensor = (size_t)w->tensor;
    const tensor_info t = checkpoint_tensor(m->file, tensor);
    const uint64_t at = w->run ? (uint64_t)row / w->run * w->run_step + row % w->run
                               : row / w->rows * t.ne[1] + row % w->rows;
    const uint64_t first = w->first_row + at;
    uint64_t bytes;
    if (w->cols == t.ne[0]) return checkpoint_read_rows(m->file, tensor, first, n, dst, e);
    CHECK(dtype_bytes(w->type, 1, w->cols, &bytes));
    status s = OK;
    for (uint32_t i = 0; i < n && s == OK; i++)
        s = checkpoint_read_part(m->file, tensor, first + i, w->first_col, w->cols,
                                 dst + i * bytes, e);
    return s;
}

/* One such number makes every logit one, of all requests. */
static status check_finite(const model *m, const weight *w, uint32_t row, uint32_t n,
                           const void *rows, err *e) {
    const uint64_t per_row = w->cols / dtype_block_of(w->type).elems;
    if (dtype_is_finite(w->type, rows, n * per_row)) return OK;
    const char *name = checkpoint_tensor(m->file, (size_t)w->tensor).name;
    err_set(e, ERR_FORMAT, "%.100s has a number that is not finite in rows %u to %u", name, row,
            row + n - 1);
    return err_field(e, "%s", name);
}

static status read_weight(const model *m, const weight *w, uint32_t row, uint32_t n, void *dst,
                          err *e) {
    unsigned char *to = dst;
    uint64_t bytes;
    CHECK(row <= weight_rows(w) && n <= weight_rows(w) - row);
    CHECK(dtype_bytes(w->type, 1, w->cols, &bytes));
    status s = OK;
    for (uint32_t run; n && s == OK; n -= run, row += run, to += run * bytes) {
        run = w->rows - row % w->rows; /* of this expert */
        if (w->run && run > w->run - row % w->rows % w->run)
            run = w->run - row % w->rows % w->run;
        if (run > n) run = n;
        s = read_run(m, w, row, run, to, e);
        if (s == OK) s = check_finite(m, w, row, run, to, e);
    }
    return s;
}

status model_read_rows(const model *m, weight_id id, uint32_t row, uint32_t n, void *dst,
                       err *e) {
    CHECK(m->file && id < m->program.n_weights && !m->program.weights[id].turned);
    return read_weight(m, &m->program.weights[id], row, n, dst, e);
}

status model_read_turned(const model *m, weight_id id, uint32_t row, uint32_t n, void *dst,
                         err *e) {
    CHECK(m->file && id < m->program.n_weights && m->program.weights[id].turned);
    weight w = m->program.weights[id]; /* as it is stored */
    w.type = w.stored;
    w.rows = m->program.weights[id].cols;
    w.cols = m->program.weights[id].rows;
    return read_weight(m, &w, row, n, dst, e);
}

status model_keep_rows(const model *m, weight_id id, checkpoint_rows *out, err *e) {
    CHECK(m->file && id < m->program.n_weights);
    const weight *w = &m->program.weights[id];
    CHECK(!w->n_experts && !w->first_row && !w->first_col);
    return checkpoint_rows_open(out, m->file, (size_t)w->tensor, e);
}

status model_expert_rows(const model *m, weight_id id, expert_store *out, err *e) {
    CHECK(m->file && id < m->program.n_weights);
    const weight *w = &m->program.weights[id];
    const tensor_info t = checkpoint_tensor(m->file, (size_t)w->tensor);
    const checkpoint_format *f = m->file->format;
    uint64_t at;
    CHECK(dtype_bytes(w->type, 1, w->cols, &out->row_bytes));
    if (!w->turned && !w->run && w->cols == t.ne[0] && f->place &&
        f->place(m->file, (size_t)w->tensor, &out->fd, &at)) {
        out->at = at + w->first_row * out->row_bytes;
        out->stride = t.ne[1] * out->row_bytes;
        return OK;
    }
    err_set(e, ERR_UNSUPPORTED,
            "tensor %s: its experts cannot be read one by one from this checkpoint", t.name);
    err_hint(e, "convert the model to GGUF (vramd quantize), or leave expert_memory out");
    return err_field(e, "%s", t.name);
}

status model_read_vector(const model *m, weight_id id, float *dst, err *e) {
    CHECK(m->file && id < m->program.n_weights);
    const weight *w = &m->program.weights[id];
    CHECK(w->role == WEIGHT_VECTOR);
    const uint64_t n = (uint64_t)w->rows * w->cols;
    if (w->type == DT_F32) return model_read_rows(m, id, 0, w->rows, dst, e);
    /* 16-bit: into the upper half of dst, then widened from the front; a float is written only
     * over halves that have been read. */
    uint16_t *half = (uint16_t *)(void *)dst + n;
    status s = model_read_rows(m, id, 0, w->rows, half, e);
    if (s != OK) return s;
    for (uint64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, (char *)dst + 2 * (n + i), 2);
        float f = w->type == DT_F16 ? half_to_float(h) : bf16_to_float(h);
        memcpy(&dst[i], &f, 4);
    }
    return OK;
}
