/* What a quantised file will be. Owns the list of tensors and the header; see job.h for threads. */
#include "quant/job.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "memory/term.h"
#include "model/config.h"
#include "model/gguf/gguf.h"
#include "model/model.h"
#include "quant/grouped.h"
#include "quant/metadata.h"
#include "quant/quant.h"

enum { ALIGNMENT = 32 };

static status no_memory(err *e) {
    return mem_exhausted(e, MEM_LOADING, "the list of tensors to quantise");
}

static bool ends_with(const char *s, const char *end) {
    const size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static bool is_free(const tensor_info *t) {
    return tensor_n_dims(t) >= 2 && ends_with(t->name, "weight") &&
           !strstr(t->name, "_norm.weight") && !strstr(t->name, "ffn_gate_inp") &&
           !strstr(t->name, "ssm_conv1d.weight") && !strstr(t->name, "shortconv.conv.weight") &&
           strcmp(t->name, "position_embd.weight") != 0 &&
           strcmp(t->name, "token_types.weight") != 0;
}

static long layer_of(const char *name) {
    return strncmp(name, "blk.", 4) == 0 ? strtol(name + 4, NULL, 10) : -1;
}
/* As llama-quantize orders them. */
static int by_layer(const void *a, const void *b) {
    const quant_tensor *x = a, *y = b;
    const long i = layer_of(x->info.name), j = layer_of(y->info.name);
    return i != j ? (i < j ? -1 : 1) : strcmp(x->info.name, y->info.name);
}

static status list_one(quant_job *j, size_t i, err *e) {
    quant_tensor *t = &j->v[i];
    t->info = checkpoint_tensor(j->in, i);
    t->in = i;
    t->cols = t->info.ne[0];
    t->rows = t->info.ne[1] * t->info.ne[2] * t->info.ne[3];
    t->free = is_free(&t->info);
    t->to = DT_NONE;
    const bool folder = gguf_of(j->in) == NULL;
    if (!t->free) t->to = folder ? DT_F32 : t->info.type;
    if ((quant_reads(t->info.type) || t->to == t->info.type) && tensor_bytes(&t->info))
        return OK;
    err_set(e, ERR_UNSUPPORTED, "%.150s: the type %s of %.64s is not read",
            checkpoint_path(j->in), dtype_name(t->info.type), t->info.name);
    err_hint(e, "take a file with weights in F32, BF16, F16 or Q8_0");
    return err_field(e, "%s", t->info.name);
}

status quant_job_open(quant_job *j, const checkpoint *in, err *e) {
    status s = OK;
    const gguf *g = gguf_of(in);
    *j = (quant_job){.in = in,
                     .n = checkpoint_n_tensors(in),
                     .alignment = g ? gguf_alignment(g) : ALIGNMENT};
    arena_init(&j->mem, chunks_heap(), 0);
    buf_init(&j->header, NULL);
    j->v = arena_zalloc(&j->mem, j->n * sizeof *j->v + 1);
    if (!j->v) s = no_memory(e);
    for (size_t i = 0; i < j->n && s == OK; i++) s = list_one(j, i, e);
    if (s == OK)
        qsort(j->v, j->n, sizeof *j->v, by_layer);
    else
        quant_job_close(j);
    return s;
}

void quant_job_close(quant_job *j) {
    arena_clear(&j->mem);
    buf_clear(&j->header);
    j->n = 0;
}

bool quant_tied(const quant_job *j) {
    return checkpoint_find(j->in, "output.weight", NULL) < 0;
}

static bool quantised(dtype t) {
    return dtype_block_of(t).elems > 1;
}

dtype quant_own(dtype t) {
    return dtype_group(t) ? quant_ungrouped(t) : t;
}

dtype quant_rule(const quant_job *j, const quant_tensor *t, dtype type, bool pure) {
    if (type == DT_NONE) return quant_own(t->info.type);
    const bool head =
        strcmp(t->info.name, quant_tied(j) ? "token_embd.weight" : "output.weight") == 0;
    if (head && !pure && quantised(type))
        type = type == DT_Q8_0 || t->cols % dtype_get(type)->block_elems ? DT_Q8_0 : DT_Q6_K;
    return dtype_for_cols(type, t->cols);
}

void quant_job_pick(quant_job *j, dtype type, bool pure) {
    for (size_t i = 0; i < j->n; i++)
        if (j->v[i].free) j->v[i].to = quant_rule(j, &j->v[i], type, pure);
}

const quant_tensor *quant_job_twice(const quant_job *j) {
    for (size_t i = 0; i < j->n; i++) {
        const quant_tensor *t = &j->v[i];
        if (quantised(t->info.type) && t->to != quant_own(t->info.type) && t->to != DT_F32)
            return t;
    }
    return NULL;
}

static uint64_t padded_bytes(const quant_job *j, const quant_tensor *t) {
    uint64_t bytes = 0;
    CHECK(dtype_bytes(t->to, t->rows, t->cols, &bytes));
    return align_up(bytes, j->alignment);
}
uint64_t quant_job_data_bytes(const quant_job *j) {
    uint64_t sum = 0;
    for (size_t i = 0; i < j->n; i++) sum += padded_bytes(j, &j->v[i]);
    return sum;
}

/* The type that most bytes of matrices have. */
static dtype mostly(const quant_job *j) {
    uint64_t bytes[256] = {0};
    dtype most = DT_F32;
    for (size_t i = 0; i < j->n; i++)
        if (j->v[i].free) bytes[(uint8_t)j->v[i].to] += j->v[i].rows * j->v[i].cols;
    for (int t = 0; t < 256; t++)
        if (bytes[t] > bytes[most]) most = (dtype)t;
    return most;
}

/* Whether the header, with data of zeros behind it, is the same model. */
static status read_back(const quant_job *j, err *e) {
    gguf *g = NULL;
    model *m = NULL;
    model_config was, is;
    status s = model_config_read(&was, j->in, e);
    const int fd = memfd_create("header", MFD_CLOEXEC);
    if (fd < 0) return err_set(e, ERR_IO, "memfd_create: %s", strerror(errno));
    errno = EFBIG; /* what a short write leaves out */
    if (write(fd, j->header.ptr, j->header.len) != (ssize_t)j->header.len ||
        ftruncate(fd, (off_t)j->file_bytes) != 0) {
        err_set(e, ERR_IO, "a file of %llu bytes: %s", (unsigned long long)j->file_bytes,
                strerror(errno));
        s = err_hint(e, "raise the limit of file sizes: ulimit -f unlimited");
    }
    if (s == OK) s = gguf_open_fd(&g, fd, "the new file", e);
    if (s == OK) s = model_config_read(&is, gguf_checkpoint(g), e);
    if (s == OK) s = model_open(&m, gguf_checkpoint(g), e);
    if (s == OK && !model_config_same(&was, &is))
        s = err_set(e, ERR_UNSUPPORTED,
                    "%.200s: GGUF has no keys for its configuration (architecture %s)",
                    checkpoint_path(j->in), was.arch);
    model_close(m);
    gguf_close(g);
    close(fd);
    return s;
}

status quant_job_finish(quant_job *j, err *e) {
    gguf_keys keys = {0};
    status s = quant_metadata(&keys, j->in, quant_file_type(mostly(j)), e);
    gguf_entry *entry = arena_zalloc(&j->mem, j->n * sizeof *entry + 1);
    if (s == OK && !entry) s = no_memory(e);
    j->data_bytes = 0;
    for (size_t i = 0; i < j->n && s == OK; i++) {
        quant_tensor *t = &j->v[i];
        CHECK(dtype_bytes(t->to, t->rows, t->cols, &t->bytes));
        t->offset = j->data_bytes;
        j->data_bytes += padded_bytes(j, t);
        entry[i] = (gguf_entry){.name = t->info.name,
                                .type = t->to,
                                .n_dims = tensor_n_dims(&t->info),
                                .offset = t->offset};
        memcpy(entry[i].ne, t->info.ne, sizeof entry[i].ne);
    }
    buf_clear(&j->header);
    if (s == OK) gguf_put_header(&j->header, &keys, entry, j->n, j->alignment);
    buf_clear(&keys.b);
    if (s == OK && j->header.failed) s = no_memory(e);
    j->file_bytes = j->header.len + j->data_bytes;
    return s == OK ? read_back(j, e) : s;
}
