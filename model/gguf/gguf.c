/* GGUF files: opening (also of splits), look-ups, reading of tensor data. Owns the descriptors
 * of all parts and one arena with the parsed headers. Immutable after open; any thread. */
#include "model/gguf/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "memory/term.h"
#include "model/gguf/gguf_parse.h"

struct gguf {
    checkpoint base;
    arena mem;
    char *path;
    gguf_part *part; /* [n_parts]; fd -1: not opened yet */
    uint32_t n_parts;
    gguf_tensor *tensors; /* of all parts, in order */
    uint32_t n_tensors;
    name_index by_name;
};

static const checkpoint_format gguf_format;

static status no_memory(const char *path, err *e) {
    return mem_exhausted(e, MEM_LOADING, "the header of %.200s", path);
}

/* ---- opening ---- */

static status part_stat(gguf_part *part, const char *path, err *e) {
    struct stat st;
    if (fstat(part->fd, &st) != 0)
        return err_set(e, ERR_IO, "%.250s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) {
        err_set(e, ERR_INVALID, "%.250s is not a regular file", path);
        return err_field(e, "model");
    }
    part->bytes = (uint64_t)st.st_size;
    part->written = st.st_mtim;
    return OK;
}

static status ckpt_unchanged(const checkpoint *c, err *e) {
    const gguf *g = (const gguf *)c;
    for (uint32_t i = 0; i < g->n_parts; i++) {
        gguf_part now = {.fd = g->part[i].fd};
        const gguf_part *was = &g->part[i];
        status s = part_stat(&now, g->path, e);
        if (s != OK) return s;
        if (now.bytes == was->bytes && now.written.tv_sec == was->written.tv_sec &&
            now.written.tv_nsec == was->written.tv_nsec)
            continue;
        err_set(e, ERR_IO, "%.250s (file %u of %u) was written to while it was loaded", g->path,
                i + 1, g->n_parts);
        err_field(e, "model");
        return err_hint(e, "start again once the file is complete; replace models by renaming");
    }
    return OK;
}

static status part_open(gguf *g, gguf_part *part, const char *path, err *e) {
    /* O_NONBLOCK: a FIFO is refused, not waited for. */
    part->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (part->fd < 0) {
        int why = errno;
        err_set(e, why == ENOENT || why == ENOTDIR ? ERR_NOT_FOUND : ERR_IO, "%.250s: %s", path,
                strerror(why));
        return err_field(e, "model");
    }
    status s = part_stat(part, path, e);
    return s == OK ? gguf_parse(part, &g->mem, path, e) : s;
}

typedef struct split_name { /* PREFIX-00002-of-00005.gguf */
    size_t prefix;          /* length */
    uint32_t no, count;     /* no: from 1 */
} split_name;

enum { SPLIT_TAIL = 20 }; /* "-00001-of-00002.gguf" */

static bool five_digits(const char *s, uint32_t *out) {
    *out = 0;
    for (int i = 0; i < 5; i++) {
        if (s[i] < '0' || s[i] > '9') return false;
        *out = *out * 10 + (uint32_t)(s[i] - '0');
    }
    return true;
}

static bool split_name_parse(const char *path, split_name *out) {
    size_t n = strlen(path);
    if (n < SPLIT_TAIL) return false;
    const char *t = path + n - SPLIT_TAIL;
    out->prefix = n - SPLIT_TAIL;
    return t[0] == '-' && five_digits(t + 1, &out->no) && memcmp(t + 6, "-of-", 4) == 0 &&
           five_digits(t + 10, &out->count) && memcmp(t + 15, ".gguf", 5) == 0;
}

static status split_bad(err *e, const char *path, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static status split_bad(err *e, const char *path, const char *key, const char *fmt, ...) {
    char text[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err_set(e, ERR_FORMAT, "%.200s: %s", path, text);
    err_hint(e, "all parts of one split, under the names that the splitter gave them, belong "
                "in one folder");
    return err_field(e, "%s", key);
}

/* An integer key of one part; absent leaves *out alone. */
static status part_u64(const gguf_part *part, const char *path, const char *key, uint64_t *out,
                       err *e) {
    const gguf_kv *kv = gguf_part_find(part, key);
    if (kv && !gguf_kv_u64(kv, out))
        return split_bad(e, path, key, "%s is not an unsigned integer", key);
    return OK;
}

/* Does the part at index i of a split of so many say so itself? */
static status part_check(const gguf_part *part, const char *path, uint32_t i, uint64_t count,
                         uint64_t total, err *e) {
    uint64_t no = UINT64_MAX, n = 0, tensors = total;
    status s = part_u64(part, path, "split.no", &no, e);
    if (s == OK) s = part_u64(part, path, "split.count", &n, e);
    if (s == OK) s = part_u64(part, path, "split.tensors.count", &tensors, e);
    if (s != OK) return s;
    if (no != i)
        return split_bad(e, path, "split.no",
                         "the name says part %u, split.no is %lld (from 0)", i + 1,
                         (long long)no);
    if (n != count)
        return split_bad(e, path, "split.count", "this part says %llu parts, another %llu",
                         (unsigned long long)n, (unsigned long long)count);
    if (tensors != total)
        return split_bad(e, path, "split.tensors.count",
                         "this part says %llu tensors in all, another %llu",
                         (unsigned long long)tensors, (unsigned long long)total);
    return OK;
}

/* The part given is open; opens the others and verifies that they belong together. */
static status split_open(gguf *g, const char *path, uint64_t count, err *e) {
    split_name name;
    uint64_t total = UINT64_MAX, sum = 0;
    if (count > GGUF_MAX_PARTS)
        return split_bad(e, path, "split.count", "%llu parts are more than %d",
                         (unsigned long long)count, GGUF_MAX_PARTS);
    if (!split_name_parse(path, &name) || name.count != count || name.no < 1 || name.no > count)
        return split_bad(e, path, "split.count",
                         "a part of a split of %u is named NAME-00001-of-%05u.gguf and so on",
                         (unsigned)count, (unsigned)count);
    gguf_part first = g->part[0];
    gguf_part *part = arena_zalloc(&g->mem, (size_t)count * sizeof *part);
    char *other = malloc(name.prefix + SPLIT_TAIL + 16);
    if (!part || !other) {
        free(other);
        return no_memory(path, e);
    }
    for (uint32_t i = 0; i < count; i++) part[i].fd = -1;
    part[name.no - 1] = first;
    g->part = part;
    g->n_parts = (uint32_t)count;
    status s = part_u64(&first, path, "split.tensors.count", &total, e);
    if (s == OK && total == UINT64_MAX)
        s = split_bad(e, path, "split.tensors.count", "the key is missing");
    for (uint32_t i = 0; i < count && s == OK; i++) {
        snprintf(other, name.prefix + SPLIT_TAIL + 16, "%.*s-%05u-of-%05u.gguf",
                 (int)name.prefix, path, i + 1, (unsigned)count);
        if (part[i].fd < 0) s = part_open(g, &part[i], other, e);
        if (s == OK) s = part_check(&part[i], other, i, count, total, e);
        sum += part[i].n_tensors;
    }
    if (s == OK && sum != total)
        s = split_bad(e, path, "split.tensors.count", "%llu promised, the parts have %llu",
                      (unsigned long long)total, (unsigned long long)sum);
    free(other);
    return s;
}

/* One table of tensors, with an index by name. */
static status tensors_join(gguf *g, err *e) {
    uint32_t n = 0, twice;
    for (uint32_t i = 0; i < g->n_parts; i++) n += g->part[i].n_tensors;
    if (g->n_parts == 1)
        g->tensors = g->part[0].tensors;
    else
        g->tensors = arena_alloc(&g->mem, n * sizeof *g->tensors);
    str *names = arena_alloc(&g->mem, n * sizeof *names);
    if (!g->tensors || !names) return no_memory(g->path, e);
    for (uint32_t i = 0; i < g->n_parts; i++)
        for (uint32_t k = 0; k < g->part[i].n_tensors; k++) {
            gguf_tensor *t = &g->tensors[g->n_tensors];
            if (g->n_parts > 1) *t = g->part[i].tensors[k];
            t->part = i;
            names[g->n_tensors++] = str_of(t->name);
        }
    if (!name_index_build(&g->by_name, &g->mem, names, n, &twice)) return no_memory(g->path, e);
    if (twice == UINT32_MAX) return OK;
    err_set(e, ERR_FORMAT, "%.200s: two tensors have this name", g->path);
    return err_field(e, "%s", g->tensors[twice].name);
}

static status gguf_new(gguf **out, const char *path, err *e) {
    gguf *g = calloc(1, sizeof *g);
    if (!g) return no_memory(path, e);
    g->base.format = &gguf_format;
    arena_init(&g->mem, chunks_heap(), 0);
    g->path = arena_alloc(&g->mem, strlen(path) + 1);
    g->part = arena_zalloc(&g->mem, sizeof *g->part);
    if (!g->path || !g->part) {
        arena_clear(&g->mem);
        free(g);
        return no_memory(path, e);
    }
    memcpy(g->path, path, strlen(path) + 1);
    g->part[0].fd = -1;
    g->n_parts = 1;
    *out = g;
    return OK;
}

static status gguf_finish(gguf *g, gguf **out, status s, err *e) {
    if (s == OK) s = tensors_join(g, e);
    if (s != OK) {
        gguf_close(g);
        return s;
    }
    *out = g;
    return OK;
}

status gguf_open(gguf **out, const char *path, err *e) {
    gguf *g;
    uint64_t count = 0;
    *out = NULL;
    status s = gguf_new(&g, path, e);
    if (s != OK) return s;
    s = part_open(g, &g->part[0], path, e);
    if (s == OK) s = part_u64(&g->part[0], path, "split.count", &count, e);
    if (s == OK && count > 1) s = split_open(g, path, count, e);
    return gguf_finish(g, out, s, e);
}

status gguf_open_fd(gguf **out, int fd, const char *path, err *e) {
    gguf *g;
    uint64_t count = 0;
    *out = NULL;
    status s = gguf_new(&g, path, e);
    if (s != OK) return s;
    g->part[0].fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (g->part[0].fd < 0)
        s = err_set(e, ERR_IO, "%.250s: %s", path, strerror(errno));
    else
        s = part_stat(&g->part[0], path, e);
    if (s == OK) s = gguf_parse(&g->part[0], &g->mem, path, e);
    if (s == OK) s = part_u64(&g->part[0], path, "split.count", &count, e);
    if (s == OK && count > 1)
        s = split_bad(e, path, "split.count", "one part of %llu, opened alone",
                      (unsigned long long)count);
    return gguf_finish(g, out, s, e);
}

void gguf_close(gguf *g) {
    if (!g) return;
    for (uint32_t i = 0; i < g->n_parts; i++)
        if (g->part[i].fd >= 0) close(g->part[i].fd);
    arena_clear(&g->mem);
    free(g);
}

/* ---- look-ups ---- */

const char *gguf_path(const gguf *g) {
    return g->path;
}

uint32_t gguf_version(const gguf *g) {
    return g->part[0].version;
}

uint64_t gguf_file_bytes(const gguf *g) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < g->n_parts; i++) n += g->part[i].bytes;
    return n;
}

uint32_t gguf_n_parts(const gguf *g) {
    return g->n_parts;
}

uint64_t gguf_header_bytes(const gguf *g) {
    return sizeof *g + g->mem.total;
}

uint64_t gguf_alignment(const gguf *g) {
    return g->part[0].alignment;
}

const char *gguf_type_name(gguf_type t) {
    static const char *const name[] = {
        [GGUF_U8] = "u8",       [GGUF_I8] = "i8",     [GGUF_U16] = "u16",
        [GGUF_I16] = "i16",     [GGUF_U32] = "u32",   [GGUF_I32] = "i32",
        [GGUF_F32] = "f32",     [GGUF_BOOL] = "bool", [GGUF_STRING] = "string",
        [GGUF_ARRAY] = "array", [GGUF_U64] = "u64",   [GGUF_I64] = "i64",
        [GGUF_F64] = "f64",
    };
    CHECK((unsigned)t <= GGUF_F64);
    return name[t];
}

size_t gguf_n_kv(const gguf *g) {
    return g->part[0].n_kv;
}

const gguf_kv *gguf_kv_at(const gguf *g, size_t i) {
    CHECK(i < g->part[0].n_kv);
    return &g->part[0].kv[i];
}

const gguf_kv *gguf_find(const gguf *g, const char *key) {
    return gguf_part_find(&g->part[0], key);
}

size_t gguf_n_tensors(const gguf *g) {
    return g->n_tensors;
}

const gguf_tensor *gguf_tensor_at(const gguf *g, size_t i) {
    CHECK(i < g->n_tensors);
    return &g->tensors[i];
}

const gguf_tensor *gguf_tensor_find(const gguf *g, const char *name) {
    uint32_t i = name_index_find(&g->by_name, str_of(name));
    return i == UINT32_MAX ? NULL : &g->tensors[i];
}

/* ---- typed look-ups ---- */

static status wrong_type(const gguf *g, const gguf_kv *kv, const char *key, const char *wanted,
                         err *e) {
    err_set(e, ERR_FORMAT, "%.200s: %.90s is %s, wanted %s", g->path, key,
            gguf_type_name(kv->type), wanted);
    return err_field(e, "%s", key);
}

status gguf_get_u32(const gguf *g, const char *key, uint32_t *out, err *e) {
    const gguf_kv *kv = gguf_find(g, key);
    uint64_t u;
    if (!kv) return OK;
    if (kv->type == GGUF_BOOL || kv->type == GGUF_F32 || kv->type == GGUF_F64 ||
        kv->type == GGUF_STRING || kv->type == GGUF_ARRAY)
        return wrong_type(g, kv, key, "an integer", e);
    if (!gguf_kv_u64(kv, &u) || u > UINT32_MAX) {
        err_set(e, ERR_FORMAT, "%.200s: %.90s is %lld, which does not fit 32 bits without sign",
                g->path, key, (long long)kv->i);
        return err_field(e, "%s", key);
    }
    *out = (uint32_t)u;
    return OK;
}

status gguf_get_f32(const gguf *g, const char *key, float *out, err *e) {
    const gguf_kv *kv = gguf_find(g, key);
    if (!kv) return OK;
    if (kv->type != GGUF_F32 && kv->type != GGUF_F64)
        return wrong_type(g, kv, key, "a floating-point number", e);
    *out = (float)kv->f;
    return OK;
}

status gguf_get_bool(const gguf *g, const char *key, bool *out, err *e) {
    const gguf_kv *kv = gguf_find(g, key);
    if (!kv) return OK;
    if (kv->type != GGUF_BOOL) return wrong_type(g, kv, key, "a boolean", e);
    *out = kv->u != 0;
    return OK;
}

status gguf_get_str(const gguf *g, const char *key, str *out, err *e) {
    const gguf_kv *kv = gguf_find(g, key);
    if (!kv) return OK;
    if (kv->type != GGUF_STRING) return wrong_type(g, kv, key, "a string", e);
    *out = kv->s;
    return OK;
}

status gguf_get_array(const gguf *g, const char *key, gguf_type elem, gguf_array *out, err *e) {
    const gguf_kv *kv = gguf_find(g, key);
    if (!kv) return OK;
    if (kv->type != GGUF_ARRAY) return wrong_type(g, kv, key, "an array", e);
    if (kv->a.type != elem) {
        err_set(e, ERR_FORMAT, "%.200s: %.90s is an array of %s, wanted one of %s", g->path,
                key, gguf_type_name(kv->a.type), gguf_type_name(elem));
        return err_field(e, "%s", key);
    }
    *out = kv->a;
    return OK;
}

/* ---- tensor data ---- */

status gguf_read(const gguf *g, const gguf_tensor *t, uint64_t offset, void *dst, size_t n,
                 err *e) {
    CHECK(offset <= t->bytes && n <= t->bytes - offset && t->part < g->n_parts);
    const uint64_t start = t->offset + offset;
    for (size_t done = 0; done < n;) {
        /* Linux moves at most 0x7ffff000 bytes a call; the loop takes what it gets. */
        ssize_t r =
            pread(g->part[t->part].fd, (char *)dst + done, n - done, (off_t)(start + done));
        if (r < 0 && errno == EINTR) continue;
        if (r <= 0) {
            err_set(e, ERR_IO, "%.200s: reading tensor %s at offset %llu: %s", g->path, t->name,
                    (unsigned long long)(start + done),
                    r < 0 ? strerror(errno) : "the file has shrunk since it was opened");
            return err_field(e, "%s", t->name);
        }
        done += (size_t)r;
    }
    return OK;
}

/* ---- as a checkpoint ---- */

checkpoint *gguf_checkpoint(gguf *g) {
    return &g->base;
}

static const gguf *of(const checkpoint *c) {
    return (const gguf *)(const void *)c;
}

static const char *ckpt_path(const checkpoint *c) {
    return gguf_path(of(c));
}

static uint64_t ckpt_header_bytes(const checkpoint *c) {
    return gguf_header_bytes(of(c));
}

static size_t ckpt_n_tensors(const checkpoint *c) {
    return gguf_n_tensors(of(c));
}

static void ckpt_tensor(const checkpoint *c, size_t i, tensor_info *out) {
    const gguf_tensor *t = gguf_tensor_at(of(c), i);
    *out = (tensor_info){.name = t->name, .type = t->type};
    memcpy(out->ne, t->ne, sizeof out->ne);
}

static int32_t ckpt_find(const checkpoint *c, const char *name) {
    const gguf_tensor *t = gguf_tensor_find(of(c), name);
    return t ? (int32_t)(t - of(c)->tensors) : -1;
}

static status ckpt_read_rows(const checkpoint *c, size_t i, uint64_t row, uint64_t n, void *dst,
                             err *e) {
    const gguf_tensor *t = gguf_tensor_at(of(c), i);
    uint64_t row_bytes;
    CHECK(dtype_bytes(t->type, 1, t->ne[0], &row_bytes));
    return gguf_read(of(c), t, row * row_bytes, dst, (size_t)(n * row_bytes), e);
}

static status ckpt_read_part(const checkpoint *c, size_t i, uint64_t row, uint64_t col,
                             uint64_t n, void *dst, err *e) {
    const gguf_tensor *t = gguf_tensor_at(of(c), i);
    uint64_t row_bytes, before, bytes;
    CHECK(dtype_bytes(t->type, 1, t->ne[0], &row_bytes));
    CHECK(dtype_bytes(t->type, 1, col, &before) && dtype_bytes(t->type, 1, n, &bytes));
    return gguf_read(of(c), t, row * row_bytes + before, dst, (size_t)bytes, e);
}

static bool ckpt_place(const checkpoint *c, size_t i, int *fd, uint64_t *at) {
    const gguf_tensor *t = gguf_tensor_at(of(c), i);
    *fd = of(c)->part[t->part].fd;
    *at = t->offset;
    return true;
}

static bool ckpt_has(const checkpoint *c, const char *key) {
    return gguf_find(of(c), key) != NULL;
}

static bool ckpt_length(const checkpoint *c, const char *key, uint64_t *n) {
    const gguf_kv *kv = gguf_find(of(c), key);
    if (!kv || kv->type != GGUF_ARRAY) return false;
    *n = kv->a.n;
    return true;
}

/* Some files have a number layer by layer where it is the same for all. */
static bool is_one_number(const gguf_kv *kv, uint32_t *out) {
    if (!kv || kv->type != GGUF_ARRAY || kv->a.n == 0) return false;
    if (kv->a.type != GGUF_I32 && kv->a.type != GGUF_U32) return false;
    const uint32_t *v = kv->a.v;
    if (kv->a.type == GGUF_I32 && v[0] > INT32_MAX) return false;
    for (uint64_t i = 1; i < kv->a.n; i++)
        if (v[i] != v[0]) return false;
    *out = v[0];
    return true;
}

static status ckpt_u32(const checkpoint *c, const char *key, uint32_t *out, err *e) {
    if (is_one_number(gguf_find(of(c), key), out)) return OK;
    return gguf_get_u32(of(c), key, out, e);
}

static status ckpt_f32(const checkpoint *c, const char *key, float *out, err *e) {
    return gguf_get_f32(of(c), key, out, e);
}

static status ckpt_bool(const checkpoint *c, const char *key, bool *out, err *e) {
    return gguf_get_bool(of(c), key, out, e);
}

static status ckpt_str(const checkpoint *c, const char *key, str *out, err *e) {
    return gguf_get_str(of(c), key, out, e);
}

static status ckpt_array(const checkpoint *c, const char *key, fact_type type, fact_array *out,
                         err *e) {
    static const gguf_type elem[] = {[FACT_STR] = GGUF_STRING,
                                     [FACT_I32] = GGUF_I32,
                                     [FACT_F32] = GGUF_F32,
                                     [FACT_BOOL] = GGUF_BOOL};
    gguf_array a = {.n = out->n, .v = out->v};
    const gguf_kv *kv = gguf_find(of(c), key);
    /* The same bits: what counts from 0 (types of tokens) comes in both. */
    const bool without_sign =
        type == FACT_I32 && kv && kv->type == GGUF_ARRAY && kv->a.type == GGUF_U32;
    status s = gguf_get_array(of(c), key, without_sign ? GGUF_U32 : elem[type], &a, e);
    *out = (fact_array){a.n, a.v};
    return s;
}

static void ckpt_close(checkpoint *c) {
    gguf_close((gguf *)(void *)c);
}

static const checkpoint_format gguf_format = {
    .name = "GGUF",
    .permutes_qk = true,
    .path = ckpt_path,
    .header_bytes = ckpt_header_bytes,
    .n_tensors = ckpt_n_tensors,
    .tensor = ckpt_tensor,
    .find = ckpt_find,
    .read_rows = ckpt_read_rows,
    .read_part = ckpt_read_part,
    .place = ckpt_place,
    .has = ckpt_has,
    .length = ckpt_length,
    .get_u32 = ckpt_u32,
    .get_f32 = ckpt_f32,
    .get_bool = ckpt_bool,
    .get_str = ckpt_str,
    .get_array = ckpt_array,
    .unchanged = ckpt_unchanged,
    .close = ckpt_close,
};

const gguf *gguf_of(const checkpoint *c) {
    return c->format == &gguf_format ? of(c) : NULL;
}
