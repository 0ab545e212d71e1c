/* Files of importance matrices. Own nothing but the file that is written. */
#include "quant/imatrix.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "memory/term.h"
#include "quant/gguf_write.h"

enum { ALIGNMENT = 32, NAME = 96 };
static const char sums_end[] = ".in_sum2", counts_end[] = ".counts";

/* ---- reading ---- */

static status wrong(err *e, const gguf *g, const char *tensor, const char *what) {
    err_set(e, ERR_FORMAT, "%.150s: %.64s: %s", gguf_path(g), tensor, what);
    return err_field(e, "%s", tensor);
}

static bool is_sums(const gguf_tensor *t, size_t *stem) {
    const size_t n = strlen(t->name), m = sizeof sums_end - 1;
    *stem = n > m ? n - m : 0;
    return n > m && strcmp(t->name + *stem, sums_end) == 0;
}

static status check(const gguf *g, err *e) {
    size_t stem, n = 0;
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        char name[NAME];
        if (!is_sums(t, &stem)) continue;
        snprintf(name, sizeof name, "%.*s%s", (int)stem, t->name, counts_end);
        const gguf_tensor *c = gguf_tensor_find(g, name);
        n++;
        if (!c) return wrong(e, g, t->name, "there are no counts beside it");
        if (t->type != DT_F32 || c->type != DT_F32) return wrong(e, g, t->name, "not F32");
        if (t->ne[0] < 1 || t->ne[0] > UINT32_MAX || t->ne[2] != 1 || t->ne[3] != 1 ||
            c->ne[0] != 1 || c->ne[1] != t->ne[1] || c->ne[2] != 1 || c->ne[3] != 1)
            return wrong(e, g, t->name, "its shape does not agree with its counts");
    }
    if (n > 0) return OK;
    err_set(e, ERR_FORMAT, "%.200s: no importance matrix: it has no sums of squares",
            gguf_path(g));
    return err_hint(e, "llama-imatrix writes one, or vramd quantize --write-imatrix");
}

status imatrix_open(gguf **out, const char *path, err *e) {
    status s = gguf_open(out, path, e);
    if (s == ERR_FORMAT && strcmp(e->field, "magic") == 0)
        err_hint(e, "the format before 2025: llama-imatrix --in-file OLD -o NEW.gguf converts");
    if (s == OK && (s = check(*out, e)) != OK) {
        gguf_close(*out);
        *out = NULL;
    }
    return s;
}

/* Adds matrix k to the mean squares; one that no row met says nothing. */
static status add_matrix(const gguf *g, const gguf_tensor *t, uint64_t k, float count,
                         float *row, float *out, uint32_t *met, err *e) {
    const uint32_t n = (uint32_t)t->ne[0];
    status s = gguf_read(g, t, k * n * sizeof *row, row, n * sizeof *row, e);
    if (s != OK) return s;
    if (!(count >= 0) || !isfinite(count)) return wrong(e, g, t->name, "a count is no number");
    for (uint32_t i = 0; i < n; i++) {
        if (!(row[i] >= 0) || !isfinite(row[i]))
            return wrong(e, g, t->name, "a sum of squares is none");
        if (count > 0) out[i] += row[i] / count;
    }
    *met += count > 0;
    return OK;
}

status imatrix_read(const gguf *g, const char *tensor, uint32_t n, float *out, bool *found,
                    err *e) {
    char name[NAME];
    uint32_t met = 0;
    status s = OK;
    snprintf(name, sizeof name, "%.70s%s", tensor, sums_end);
    const gguf_tensor *t = gguf_tensor_find(g, name);
    snprintf(name, sizeof name, "%.70s%s", tensor, counts_end);
    const gguf_tensor *c = gguf_tensor_find(g, name);
    *found = false;
    if (!t) return OK;
    if (t->ne[0] != n) return wrong(e, g, tensor, "the model has another number of inputs");
    float *row = malloc(n * sizeof *row);
    if (!row) return mem_exhausted(e, MEM_WORKSPACE, "an importance matrix");
    memset(out, 0, n * sizeof *out);
    for (uint64_t k = 0; k < t->ne[1] && s == OK; k++) {
        float count;
        s = gguf_read(g, c, k * sizeof count, &count, sizeof count, e);
        if (s == OK) s = add_matrix(g, t, k, count, row, out, &met, e);
    }
    free(row);
    for (uint32_t i = 0; s == OK && i < n && met; i++) {
        out[i] /= (float)met;
        if (!isfinite(out[i])) s = wrong(e, g, t->name, "a mean square is not finite");
    }
    *found = s == OK && met > 0;
    return s;
}

/* ---- writing ---- */

typedef struct tensors {
    char (*name)[NAME];
    gguf_entry *entry;
    const calib_input **input; /* of each pair of entries */
    uint32_t n;                /* pairs */
} tensors;

static void list(const calib *c, tensors *t) {
    uint64_t at = 0;
    for (uint32_t i = 0; i < c->n_inputs; i++) {
        const op *o = &c->program->ops[c->input[i].op];
        for (uint32_t w = 0; w < o->n_weights; w++) {
            const char *name = c->program->weights[o->w[w]].name;
            if (w && strcmp(name, c->program->weights[o->w[w - 1]].name) == 0) continue;
            const uint64_t bytes = c->input[i].n * sizeof(float);
            gguf_entry *e = t->entry + 2 * (size_t)t->n;
            char(*to)[NAME] = t->name + 2 * (size_t)t->n;
            snprintf(to[0], NAME, "%s%s", name, sums_end);
            snprintf(to[1], NAME, "%s%s", name, counts_end);
            e[0] = (gguf_entry){to[0], DT_F32, 2, {c->input[i].n, 1, 1, 1}, at};
            at += align_up(bytes, ALIGNMENT);
            e[1] = (gguf_entry){to[1], DT_F32, 2, {1, 1, 1, 1}, at};
            at += ALIGNMENT;
            t->input[t->n++] = &c->input[i];
        }
    }
}

static void put_data(buf *b, const calib_input *in) {
    const float count = (float)in->n_rows;
    for (uint32_t i = 0; i < in->n; i++) {
        const float v = (float)in->sum_sq[i];
        buf_add(b, (str){(const char *)&v, sizeof v});
    }
    while (!b->failed && b->len % ALIGNMENT) buf_addc(b, 0);
    buf_add(b, (str){(const char *)&count, sizeof count});
    while (!b->failed && b->len % ALIGNMENT) buf_addc(b, 0);
}

static status write_file(const char *path, const buf *b, err *e) {
    char temporary[512];
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.XXXXXX", path) >= sizeof temporary)
        return err_set(e, ERR_INVALID, "a path of more than %zu bytes", sizeof temporary - 8);
    const int fd = mkstemp(temporary);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "wb");
    const bool ok = f && fwrite(b->ptr, 1, b->len, f) == b->len;
    const int first = errno;
    if (f ? fclose(f) == 0 && ok && rename(temporary, path) == 0 : false) return OK;
    err_set(e, ERR_IO, "writing %.300s: %s", path, strerror(ok ? errno : first));
    if (!f && fd >= 0) close(fd);
    if (fd >= 0) unlink(temporary);
    return e->code;
}

status imatrix_write(const calib *c, const char *path, const str *datasets, uint32_t n_datasets,
                     uint32_t context, err *e) {
    gguf_keys keys = {0};
    tensors t = {0};
    buf b;
    buf_init(&b, NULL);
    buf_init(&keys.b, NULL);
    const size_t most = 3 * (size_t)c->n_inputs + 1;
    t.name = calloc(2 * most, sizeof *t.name);
    t.entry = calloc(2 * most, sizeof *t.entry);
    t.input = calloc(most, sizeof *t.input);
    status s = t.name && t.entry && t.input ? OK : ERR_NO_MEMORY;
    if (s == OK) {
        list(c, &t);
        const uint64_t rows = c->n_inputs ? c->input[0].n_rows : 0;
        gguf_put_str(&keys, STR("general.type"), STR("imatrix"));
        gguf_put_array(&keys, STR("imatrix.datasets"), GGUF_STRING, n_datasets, datasets);
        gguf_put_u32(&keys, STR("imatrix.chunk_count"), (uint32_t)(rows / context));
        gguf_put_u32(&keys, STR("imatrix.chunk_size"), context);
        gguf_put_header(&b, &keys, t.entry, 2 * (uint64_t)t.n, ALIGNMENT);
        for (uint32_t i = 0; i < t.n; i++) put_data(&b, t.input[i]);
        s = b.failed ? ERR_NO_MEMORY : write_file(path, &b, e);
    }
    if (s == ERR_NO_MEMORY) s = mem_exhausted(e, MEM_WORKSPACE, "an importance matrix");
    buf_clear(&b);
    buf_clear(&keys.b);
    free(t.name);
    free(t.entry);
    free(t.input);
    return s;
}
