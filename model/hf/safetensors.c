/* The header of a file of safetensors, and reads of its data. Owns the descriptor; tensors and names
 * live in the caller's arena. */
#include "model/hf/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "model/hf/hf_json.h"
#include "memory/term.h"

/* Name in the file, bits of an element, our type. The types below a byte and those of 16 bits that
 * are no weights are counted, so that other tensors of the file can be read. */
typedef struct stored_type {
    const char *name;
    uint32_t bits;
    dtype type;
} stored_type;

static const stored_type types[] = {
    {"F32", 32, DT_F32},
    {"F16", 16, DT_F16},
    {"BF16", 16, DT_BF16},
    {"F64", 64, DT_F64},
    {"I8", 8, DT_I8},
    {"I16", 16, DT_I16},
    {"I32", 32, DT_I32},
    {"I64", 64, DT_I64},
    {"BOOL", 8, DT_NONE},
    {"U8", 8, DT_NONE},
    {"U16", 16, DT_NONE},
    {"U32", 32, DT_NONE},
    {"U64", 64, DT_NONE},
    {"F8_E4M3", 8, DT_NONE},
    {"F8_E5M2", 8, DT_NONE},
    {"F8_E8M0", 8, DT_NONE},
    {"F8_E4M3FNUZ", 8, DT_NONE},
    {"F8_E5M2FNUZ", 8, DT_NONE},
    {"C64", 64, DT_NONE},
    {"F4", 4, DT_NONE},
    {"F6_E2M3", 6, DT_NONE},
    {"F6_E3M2", 6, DT_NONE},
};

static const stored_type *type_of(str name) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (str_eqz(name, types[i].name)) return &types[i];
    return NULL;
}

typedef struct reader {
    safetensors *f;
    arena *mem;
    uint64_t data; /* where the data begins in the file */
    err *e;
} reader;

static status bad(const reader *r, const char *field, const char *what) {
    err_set(r->e, ERR_FORMAT, "%.200s: %s", r->f->path, what);
    return err_field(r->e, "%s", field);
}

static status bad_tensor(const reader *r, const char *name, const char *what) {
    err_set(r->e, ERR_FORMAT, "%.150s: tensor %.100s %s", r->f->path, name, what);
    return err_field(r->e, "%.90s", name);
}

static status read_at(const safetensors *f, void *dst, uint64_t n, uint64_t at,
                      const char *what, err *e) {
    for (uint64_t done = 0; done < n;) {
        const ssize_t k = pread(f->fd, (char *)dst + done, n - done, (off_t)(at + done));
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) {
            err_set(e, ERR_IO, "%.200s: reading %s at offset %llu: %s", f->path, what,
                    (unsigned long long)(at + done),
                    k < 0 ? strerror(errno) : "the file has shrunk since it was opened");
            return err_field(e, "%.90s", what);
        }
        done += (uint64_t)k;
    }
    return OK;
}

/* A whole number of at least 0. */
static bool whole(const json_t *v, uint64_t *out) {
    if (!json_is_integer(v) || json_integer_value(v) < 0) return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

static status read_shape(reader *r, safetensor *t, const json_t *shape, uint32_t bits) {
    uint64_t n_bits = bits;
    if (!json_is_array(shape)) return bad_tensor(r, t->name, "has no shape");
    const size_t n = json_array_size(shape);
    if (n > SAFETENSORS_MAX_DIMS) return bad_tensor(r, t->name, "has more than 8 dimensions");
    t->n_dims = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        if (!whole(json_array_get(shape, i), &t->dim[i]))
            return bad_tensor(r, t->name, "has a dimension that is no whole number");
        if (!mul_u64(n_bits, t->dim[i], &n_bits))
            return bad_tensor(r, t->name, "has a shape whose bytes overflow 64 bits");
    }
    if (n_bits % 8) return bad_tensor(r, t->name, "does not end at a whole byte");
    t->bytes = n_bits / 8;
    return OK;
}

static status read_tensor(reader *r, safetensor *t, const char *name, const json_t *o) {
    const json_t *type = json_object_get(o, "dtype"), *at = json_object_get(o, "data_offsets");
    uint64_t begin, end;
    t->name = arena_str(r->mem, str_of(name)).ptr;
    if (!t->name) return mem_exhausted(r->e, MEM_LOADING, "the names of tensors");
    if (!json_is_object(o)) return bad_tensor(r, name, "is described by no object");
    if (!json_is_string(type)) return bad_tensor(r, name, "has no dtype");
    const stored_type *st = type_of(json_in_text(type));
    if (!st) {
        const str got = json_in_text(type);
        err_set(r->e, ERR_UNSUPPORTED, "%.150s: tensor %.100s has the unknown type \"%.*s\"",
                r->f->path, name, (int)(got.len < 32 ? got.len : 32), got.ptr);
        return err_field(r->e, "%.90s", name);
    }
    t->type = st->type;
    t->stored = st->name;
    status s = read_shape(r, t, json_object_get(o, "shape"), st->bits);
    if (s != OK) return s;
    if (!json_is_array(at) || json_array_size(at) != 2 ||
        !whole(json_array_get(at, 0), &begin) || !whole(json_array_get(at, 1), &end) ||
        end < begin)
        return bad_tensor(r, name, "has no data_offsets [begin, end]");
    if (end - begin != t->bytes)
        return bad_tensor(r, name, "has another size than its shape says");
    if (end > r->f->file_bytes - r->data) return bad_tensor(r, name, "ends behind the file");
    t->offset = r->data + begin;
    return OK;
}

static int by_offset(const void *a, const void *b) {
    const safetensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* empty ones first */
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const safetensor *)a)->name, ((const safetensor *)b)->name);
}

/* One behind the other, from the first byte of the data to the last. */
static status check_tiling(reader *r) {
    uint64_t at = r->data;
    safetensor *t = r->f->tensor;
    if (r->f->n) qsort(t, r->f->n, sizeof *t, by_offset);
    for (uint32_t i = 0; i < r->f->n; i++) {
        if (t[i].offset < at) return bad_tensor(r, t[i].name, "overlaps the one before it");
        if (t[i].offset > at) return bad_tensor(r, t[i].name, "has unused bytes before it");
        at += t[i].bytes;
    }
    if (at != r->f->file_bytes)
        return bad(r, "data_offsets", "has bytes behind its last tensor");
    if (r->f->n) qsort(t, r->f->n, sizeof *t, by_name);
    return OK;
}

static status read_tensors(reader *r, json_t *header) {
    const char *name;
    json_t *v;
    safetensors *f = r->f;
    const size_t n = json_object_size(header);
    if (n > SAFETENSORS_MAX_TENSORS) return bad(r, "header", "has more than 1,048,576 tensors");
    f->tensor = arena_zalloc(r->mem, n * sizeof *f->tensor);
    if (!f->tensor) return mem_exhausted(r->e, MEM_LOADING, "%zu tensors", n);
    json_object_foreach(header, name, v) {
        if (strcmp(name, "__metadata__") == 0) continue;
        status s = read_tensor(r, &f->tensor[f->n], name, v);
        if (s != OK) return s;
        f->n++;
    }
    return check_tiling(r);
}

/* scratch holds the header while it is read. */
static status read_header(reader *r, arena *scratch) {
    unsigned char length[8];
    uint64_t n = 0;
    const json_t *header;
    safetensors *f = r->f;
    if (f->file_bytes < sizeof length) return bad(r, "header", "is too short for safetensors");
    status s = read_at(f, length, sizeof length, 0, "the length of the header", r->e);
    if (s != OK) return s;
    for (int i = 7; i >= 0; i--) n = n << 8 | length[i];
    if (n > f->file_bytes - sizeof length)
        return bad(r, "header", "has a header behind its end");
    if (n > SAFETENSORS_MAX_HEADER) return bad(r, "header", "has a header of over 64 MiB");
    r->data = sizeof length + n;
    char *text = arena_alloc(scratch, n + 1);
    if (!text) return mem_exhausted(r->e, MEM_LOADING, "the header of %.200s", f->path);
    s = read_at(f, text, n, sizeof length, "the header", r->e);
    if (s == OK) s = hf_parse_json(&header, (str){text, n}, f->path, scratch, r->e);
    if (s == ERR_INVALID) r->e->code = s = ERR_FORMAT, err_field(r->e, "header");
    if (s != OK) return s;
    if (!json_is_object(header)) return bad(r, "header", "has a header that is no object");
    return read_tensors(r, (json_t *)header);
}

status safetensors_open(safetensors *f, int fd, const char *path, arena *mem, err *e) {
    struct stat st;
    arena scratch;
    *f = (safetensors){.path = path, .fd = fd};
    status s = OK;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        s = err_set(e, ERR_IO, "%.200s is not a file", path);
    if (s == OK) {
        reader r = {.f = f, .mem = mem, .e = e};
        f->file_bytes = (uint64_t)st.st_size;
        f->written = st.st_mtim;
        arena_init(&scratch, chunks_heap(), 0);
        s = read_header(&r, &scratch);
        arena_clear(&scratch);
    }
    if (s != OK) safetensors_close(f);
    return s;
}

void safetensors_close(safetensors *f) {
    if (f->fd >= 0) close(f->fd);
    f->fd = -1;
}

const safetensor *safetensors_find(const safetensors *f, const char *name) {
    const safetensor key = {.name = name};
    return f->n ? bsearch(&key, f->tensor, f->n, sizeof key, by_name) : NULL;
}

status safetensors_read(const safetensors *f, const safetensor *t, uint64_t offset, void *dst,
                        uint64_t n, err *e) {
    CHECK(offset <= t->bytes && n <= t->bytes - offset);
    return read_at(f, dst, n, t->offset + offset, t->name, e);
}

status safetensors_unchanged(const safetensors *f, err *e) {
    struct stat now;
    if (fstat(f->fd, &now) != 0)
        return err_set(e, ERR_IO, "%.200s: %s", f->path, strerror(errno));
    if ((uint64_t)now.st_size == f->file_bytes && now.st_mtim.tv_sec == f->written.tv_sec &&
        now.st_mtim.tv_nsec == f->written.tv_nsec)
        return OK;
    err_set(e, ERR_IO, "%.250s was written to while it was loaded", f->path);
    err_field(e, "model");
    return err_hint(e, "start again when the file is complete");
}
