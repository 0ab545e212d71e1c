/* Reads and checks the header of one GGUF file: metadata, tensor table, alignment. Nothing is
 * believed: a count or a length is compared with what is left of the file before memory is
 * taken for it, an offset before it is kept. Owns a window of the file while it reads; what
 * stays is in the caller's arena. Any thread. */
#include "model/gguf/gguf_parse.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/hash.h"
#include "memory/term.h"

enum { WINDOW = 64 << 10, TEXT_BLOCK = 64 << 10, LONG_TEXT = 8 << 10 };
enum { MIN_KV_BYTES = 8 + 1 + 4 + 1, MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8 };

typedef struct parser {
    gguf_part *part;
    arena *mem;
    const char *path;
    err *e;
    char field[96];     /* what is being read, for errors */
    unsigned char *win; /* [WINDOW] bytes of the file, from (at - used) on */
    size_t have, used;  /* in the window */
    uint64_t at;        /* offset in the file of the next byte */
    char *text;         /* the block that strings are packed into */
    size_t text_left;
} parser;

static status bad(parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static status bad(parser *p, const char *fmt, ...) {
    char text[320];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err_set(p->e, ERR_FORMAT, "%s: %s", p->field, text);
    err_hint(p->e, "the file %.180s is damaged or not a GGUF file; fetch it again", p->path);
    return err_field(p->e, "%s", p->field);
}

static status no_memory(parser *p) {
    return mem_exhausted(p->e, MEM_LOADING, "the header of %.200s", p->path);
}

static void field_set(parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void field_set(parser *p, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->field, sizeof p->field, fmt, ap);
    va_end(ap);
}

/* ---- the file, byte by byte ---- */

static uint64_t left(const parser *p) {
    return p->part->bytes - p->at;
}

/* Is there so much still, within the file and within reason? */
static status need(parser *p, uint64_t n) {
    if (n > left(p))
        return bad(p,
                   "the file ends early: %llu bytes wanted at offset %llu, the file has %llu",
                   (unsigned long long)n, (unsigned long long)p->at,
                   (unsigned long long)p->part->bytes);
    if (n > GGUF_MAX_HEADER || p->at + n > GGUF_MAX_HEADER)
        return bad(p, "the header is larger than %d MiB", GGUF_MAX_HEADER >> 20);
    return OK;
}

static status pread_all(parser *p, void *dst, size_t n, uint64_t at) {
    for (char *d = dst; n > 0;) {
        ssize_t r = pread(p->part->fd, d, n, (off_t)at);
        if (r < 0 && errno == EINTR) continue;
        if (r <= 0) {
            err_set(p->e, ERR_IO, "%.200s: reading at offset %llu: %s", p->path,
                    (unsigned long long)at, r < 0 ? strerror(errno) : "the file shrank");
            return err_field(p->e, "%s", p->field);
        }
        d += r, n -= (size_t)r, at += (uint64_t)r;
    }
    return OK;
}

static status refill(parser *p) {
    uint64_t n = left(p) < WINDOW ? left(p) : WINDOW;
    status s = pread_all(p, p->win, (size_t)n, p->at);
    p->used = 0;
    p->have = s == OK ? (size_t)n : 0;
    return s;
}

static status take(parser *p, void *dst, uint64_t n) {
    status s = need(p, n);
    if (s != OK) return s;
    size_t ready = p->have - p->used, k = n < ready ? (size_t)n : ready;
    if (k) memcpy(dst, p->win + p->used, k);
    p->used += k, p->at += k;
    if (n == k) return OK;
    dst = (char *)dst + k, n -= k;
    if (n >= WINDOW) { /* past the window: straight to where it belongs */
        if ((s = pread_all(p, dst, (size_t)n, p->at)) != OK) return s;
        p->at += n;
        p->have = p->used = 0;
        return OK;
    }
    if ((s = refill(p)) != OK) return s;
    memcpy(dst, p->win, (size_t)n);
    p->used += (size_t)n, p->at += n;
    return OK;
}

static status take_u32(parser *p, uint32_t *out) {
    unsigned char b[4];
    status s = take(p, b, 4);
    if (s == OK)
        *out = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    return s;
}

static status take_u64(parser *p, uint64_t *out) {
    uint32_t lo = 0, hi = 0;
    status s = take_u32(p, &lo);
    if (s == OK) s = take_u32(p, &hi);
    if (s == OK) *out = (uint64_t)hi << 32 | lo;
    return s;
}

/* Strings are packed one behind the other: a vocabulary has 100,000 of six bytes each. */
static char *text_alloc(parser *p, size_t n) {
    if (n > LONG_TEXT) return arena_alloc(p->mem, n);
    if (n > p->text_left) {
        p->text = arena_alloc(p->mem, TEXT_BLOCK);
        p->text_left = p->text ? TEXT_BLOCK : 0;
        if (!p->text) return NULL;
    }
    char *t = p->text;
    p->text += n, p->text_left -= n;
    return t;
}

static status take_str(parser *p, str *out) {
    uint64_t n = 0;
    status s = take_u64(p, &n);
    if (s != OK) return s;
    if (n > left(p))
        return bad(p, "a string of %llu bytes at offset %llu runs past the end of the file",
                   (unsigned long long)n, (unsigned long long)p->at);
    if ((s = need(p, n)) != OK) return s;
    if (n == 0) {
        *out = STR("");
        return OK;
    }
    char *t = text_alloc(p, (size_t)n);
    if (!t) return no_memory(p);
    *out = (str){t, (size_t)n};
    return take(p, t, n);
}

/* Keys and tensor names reach terminals, logs and C strings: printable ASCII only. */
static bool is_name(str s) {
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] <= ' ' || s.ptr[i] > '~') return false;
    return s.len > 0;
}

/* ---- metadata ---- */

static size_t type_bytes(gguf_type t) {
    switch (t) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL: return 1;
    case GGUF_U16:
    case GGUF_I16: return 2;
    case GGUF_U32:
    case GGUF_I32:
    case GGUF_F32: return 4;
    case GGUF_U64:
    case GGUF_I64:
    case GGUF_F64: return 8;
    case GGUF_STRING: return 8; /* at least: its length */
    case GGUF_ARRAY: break;
    }
    return 0;
}

static status take_type(parser *p, gguf_type *out) {
    uint32_t t = 0;
    status s = take_u32(p, &t);
    if (s != OK) return s;
    if (t > GGUF_F64) return bad(p, "value type %u is unknown", t);
    *out = (gguf_type)t;
    return OK;
}

static status take_string_array(parser *p, gguf_array *a) {
    str *v = arena_alloc(p->mem, (size_t)a->n * sizeof *v);
    if (!v) return no_memory(p);
    for (uint64_t i = 0; i < a->n; i++) {
        status s = take_str(p, &v[i]);
        if (s != OK) return s;
    }
    a->v = v;
    return OK;
}

static status take_array(parser *p, gguf_array *a) {
    status s = take_type(p, &a->type);
    if (s != OK) return s;
    if (a->type == GGUF_ARRAY) return bad(p, "arrays of arrays are not supported");
    if ((s = take_u64(p, &a->n)) != OK) return s;
    size_t size = type_bytes(a->type);
    if (a->n > left(p) / size)
        return bad(p, "an array of %llu elements does not fit the %llu bytes left of the file",
                   (unsigned long long)a->n, (unsigned long long)left(p));
    if ((s = need(p, a->n * size)) != OK) return s;
    if (a->type == GGUF_STRING) return take_string_array(p, a);
    unsigned char *v = arena_alloc(p->mem, (size_t)a->n * size);
    if (!v) return no_memory(p);
    if ((s = take(p, v, a->n * size)) != OK) return s;
    for (uint64_t i = 0; a->type == GGUF_BOOL && i < a->n; i++)
        if (v[i] > 1) return bad(p, "a boolean has the value %u", v[i]);
    a->v = v;
    return OK;
}

static status take_number(parser *p, gguf_kv *kv) {
    unsigned char b[8] = {0};
    size_t n = type_bytes(kv->type);
    status s = take(p, b, n);
    if (s != OK) return s;
    uint64_t u = 0;
    for (size_t i = n; i-- > 0;) u = u << 8 | b[i];
    float f;
    switch (kv->type) {
    case GGUF_I8: kv->i = (int8_t)u; break;
    case GGUF_I16: kv->i = (int16_t)u; break;
    case GGUF_I32: kv->i = (int32_t)u; break;
    case GGUF_I64: kv->i = (int64_t)u; break;
    case GGUF_F64: memcpy(&kv->f, &u, 8); break;
    case GGUF_F32: {
        uint32_t w = (uint32_t)u;
        memcpy(&f, &w, 4);
        kv->f = f;
        break;
    }
    default: kv->u = u; break;
    }
    if (kv->type == GGUF_BOOL && u > 1)
        return bad(p, "a boolean has the value %u", (unsigned)u);
    return OK;
}

static status take_kv(parser *p, uint32_t i, gguf_kv *kv) {
    field_set(p, "metadata[%u].key", i);
    uint64_t before = p->at;
    status s = take_str(p, &kv->key);
    if (s != OK) return s;
    if (kv->key.len > GGUF_MAX_KEY || !is_name(kv->key))
        return bad(p, "the key at offset %llu is not 1 to %d printable ASCII characters",
                   (unsigned long long)before, GGUF_MAX_KEY);
    field_set(p, STR_FMT, (int)(kv->key.len < 90 ? kv->key.len : 90), kv->key.ptr);
    if ((s = take_type(p, &kv->type)) != OK) return s;
    if (kv->type == GGUF_STRING) return take_str(p, &kv->s);
    if (kv->type == GGUF_ARRAY) return take_array(p, &kv->a);
    return take_number(p, kv);
}

static status take_metadata(parser *p) {
    gguf_part *part = p->part;
    part->kv = arena_zalloc(p->mem, part->n_kv * sizeof *part->kv);
    str *names = arena_alloc(p->mem, part->n_kv * sizeof *names);
    if (!part->kv || !names) return no_memory(p);
    for (uint32_t i = 0; i < part->n_kv; i++) {
        status s = take_kv(p, i, &part->kv[i]);
        if (s != OK) return s;
        names[i] = part->kv[i].key;
    }
    uint32_t twice;
    if (!name_index_build(&part->keys, p->mem, names, part->n_kv, &twice)) return no_memory(p);
    if (twice != UINT32_MAX) {
        field_set(p, STR_FMT, (int)(names[twice].len < 90 ? names[twice].len : 90),
                  names[twice].ptr);
        return bad(p, "the key is there twice");
    }
    return OK;
}

const gguf_kv *gguf_part_find(const gguf_part *part, const char *key) {
    uint32_t i = name_index_find(&part->keys, str_of(key));
    return i == UINT32_MAX ? NULL : &part->kv[i];
}

bool gguf_kv_u64(const gguf_kv *kv, uint64_t *out) {
    switch (kv->type) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64: *out = kv->u; return true;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64: *out = (uint64_t)kv->i; return kv->i >= 0;
    default: return false;
    }
}

/* ---- tensors ---- */

static status take_shape(parser *p, gguf_tensor *t) {
    status s = take_u32(p, &t->n_dims);
    if (s != OK) return s;
    if (t->n_dims < 1 || t->n_dims > 4)
        return bad(p, "a tensor has 1 to 4 dimensions, not %u", t->n_dims);
    for (uint32_t d = 0; d < 4; d++) {
        t->ne[d] = 1;
        if (d >= t->n_dims) continue;
        if ((s = take_u64(p, &t->ne[d])) != OK) return s;
        if (t->ne[d] == 0) return bad(p, "dimension %u is 0", d);
    }
    return OK;
}

static status unknown_type(parser *p, uint32_t number) {
    const gguf_kv *kv = gguf_part_find(p->part, "general.architecture");
    str arch = kv && kv->type == GGUF_STRING && is_name(kv->s) ? kv->s : STR("?");
    err_set(p->e, ERR_UNSUPPORTED,
            "architecture " STR_FMT ": tensor %s has the unknown type %u",
            (int)(arch.len < 64 ? arch.len : 64), arch.ptr, p->field, number);
    err_hint(p->e, "quantize the model anew to a type that `vramd inspect --help` lists");
    return err_field(p->e, "%s", p->field);
}

static status take_tensor(parser *p, uint32_t i, gguf_tensor *t) {
    str name;
    uint32_t type = 0;
    uint64_t rows = 0, rel = 0;
    field_set(p, "tensor[%u].name", i);
    status s = take_str(p, &name);
    if (s != OK) return s;
    if (name.len > GGUF_MAX_NAME || !is_name(name))
        return bad(p, "a tensor's name is not 1 to %d printable ASCII characters",
                   GGUF_MAX_NAME);
    memcpy(t->name, name.ptr, name.len);
    field_set(p, "%s", t->name);
    if ((s = take_shape(p, t)) != OK) return s;
    if ((s = take_u32(p, &type)) != OK) return s;
    const dtype_info *info = dtype_get(type);
    if (!info) return unknown_type(p, type);
    t->type = (dtype)type;
    if (t->ne[0] % info->block_elems != 0)
        return bad(p, "rows of %llu elements are not whole blocks of %u (%s)",
                   (unsigned long long)t->ne[0], info->block_elems, info->name);
    if (!mul_u64(t->ne[1], t->ne[2], &rows) || !mul_u64(rows, t->ne[3], &rows) ||
        !dtype_bytes(t->type, rows, t->ne[0], &t->bytes))
        return bad(p, "its size does not fit 64 bits");
    if ((s = take_u64(p, &rel)) != OK) return s;
    t->offset = rel; /* made absolute once the end of the header is known */
    if (rel % p->part->alignment != 0)
        return bad(p, "its offset %llu is not a multiple of the alignment %llu",
                   (unsigned long long)rel, (unsigned long long)p->part->alignment);
    return OK;
}

static int by_offset(const void *a, const void *b) {
    const gguf_tensor *x = *(const gguf_tensor *const *)a, *y = *(const gguf_tensor *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Every tensor inside the file, and no two over each other. */
static status place_tensors(parser *p) {
    gguf_part *part = p->part;
    part->data_start = align_up(p->at, part->alignment);
    gguf_tensor **order = malloc(part->n_tensors * sizeof *order + 1);
    if (!order) return no_memory(p);
    status s = OK;
    for (uint32_t i = 0; i < part->n_tensors && s == OK; i++) {
        gguf_tensor *t = order[i] = &part->tensors[i];
        uint64_t space = part->bytes > part->data_start ? part->bytes - part->data_start : 0;
        field_set(p, "%s", t->name);
        if (t->offset > space || t->bytes > space - t->offset)
            s = bad(p,
                    "its data, %llu bytes at offset %llu of the data, runs past the end of "
                    "the file (%llu bytes of data)",
                    (unsigned long long)t->bytes, (unsigned long long)t->offset,
                    (unsigned long long)space);
        else
            t->offset += part->data_start;
    }
    if (s == OK) qsort(order, part->n_tensors, sizeof *order, by_offset);
    for (uint32_t i = 1; i < part->n_tensors && s == OK; i++) {
        const gguf_tensor *a = order[i - 1], *b = order[i];
        if (a->bytes <= b->offset - a->offset) continue;
        field_set(p, "%s", b->name);
        s = bad(p, "its data overlaps the data of tensor %s", a->name);
    }
    free(order);
    return s;
}

static status take_tensors(parser *p) {
    gguf_part *part = p->part;
    const gguf_kv *kv = gguf_part_find(part, "general.alignment");
    part->alignment = 32;
    if (kv) {
        field_set(p, "general.alignment");
        uint64_t a = 0;
        if (!gguf_kv_u64(kv, &a)) return bad(p, "the alignment is not a positive integer");
        if (a == 0 || (a & (a - 1)) || a > GGUF_MAX_ALIGNMENT)
            return bad(p, "the alignment %llu is not a power of two up to %d",
                       (unsigned long long)a, GGUF_MAX_ALIGNMENT);
        part->alignment = a;
    }
    part->tensors = arena_zalloc(p->mem, part->n_tensors * sizeof *part->tensors);
    if (!part->tensors) return no_memory(p);
    for (uint32_t i = 0; i < part->n_tensors; i++) {
        status s = take_tensor(p, i, &part->tensors[i]);
        if (s != OK) return s;
    }
    return place_tensors(p);
}

/* ---- the header ---- */

static status take_count(parser *p, const char *name, uint64_t min_bytes, uint64_t max,
                         uint64_t *n) {
    field_set(p, "%s", name);
    status s = take_u64(p, n);
    if (s != OK) return s;
    if (*n > left(p) / min_bytes)
        return bad(p, "%llu of them do not fit the %llu bytes left of the file",
                   (unsigned long long)*n, (unsigned long long)left(p));
    if (*n > max)
        return bad(p, "%llu are more than the limit of %llu", (unsigned long long)*n,
                   (unsigned long long)max);
    return OK;
}

static status take_version(parser *p) {
    char magic[4];
    field_set(p, "magic");
    status s = take(p, magic, 4);
    if (s != OK) return s;
    if (memcmp(magic, "GGUF", 4) != 0)
        return bad(p, "the file does not begin with \"GGUF\" but %02x %02x %02x %02x",
                   (unsigned char)magic[0], (unsigned char)magic[1], (unsigned char)magic[2],
                   (unsigned char)magic[3]);
    field_set(p, "version");
    if ((s = take_u32(p, &p->part->version)) != OK) return s;
    uint32_t v = p->part->version;
    if (v == 2 || v == 3) return OK;
    if (v != 0 && (v & 0xffff) == 0) {
        err_set(p->e, ERR_UNSUPPORTED, "%.200s is a big-endian GGUF file", p->path);
        err_hint(p->e, "convert it to little-endian (gguf-py: gguf-convert-endian)");
    } else {
        err_set(p->e, ERR_UNSUPPORTED, "%.200s is GGUF version %u; versions 2 and 3 are known",
                p->path, v);
        err_hint(p->e, "convert the model anew with a current converter");
    }
    return err_field(p->e, "version");
}

status gguf_parse(gguf_part *part, arena *mem, const char *path, err *e) {
    parser p = {.part = part, .mem = mem, .path = path, .e = e};
    uint64_t n_tensors = 0, n_kv = 0;
    field_set(&p, "header");
    p.win = malloc(WINDOW);
    status s = p.win ? take_version(&p) : no_memory(&p);
    if (s == OK)
        s = take_count(&p, "tensor_count", MIN_TENSOR_BYTES, GGUF_MAX_TENSORS, &n_tensors);
    if (s == OK) s = take_count(&p, "kv_count", MIN_KV_BYTES, GGUF_MAX_KEYS, &n_kv);
    part->n_tensors = (uint32_t)n_tensors;
    part->n_kv = (uint32_t)n_kv;
    if (s == OK) s = take_metadata(&p);
    if (s == OK) s = take_tensors(&p);
    free(p.win);
    return s;
}

/* ---- names ---- */

bool name_index_build(name_index *x, arena *mem, const str *names, uint32_t n,
                      uint32_t *twice) {
    uint32_t n_slots = 8;
    while (n_slots < 2 * n) n_slots *= 2;
    *x = (name_index){names, arena_zalloc(mem, n_slots * sizeof *x->slot), n_slots - 1};
    *twice = UINT32_MAX;
    if (!x->slot) return false;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = (uint32_t)hash64(names[i].ptr, names[i].len, 0) & x->mask;
        for (; x->slot[k]; k = (k + 1) & x->mask)
            if (*twice == UINT32_MAX && str_eq(names[x->slot[k] - 1], names[i])) *twice = i;
        x->slot[k] = i + 1;
    }
    return true;
}

uint32_t name_index_find(const name_index *x, str name) {
    uint32_t k = (uint32_t)hash64(name.ptr, name.len, 0) & x->mask;
    for (; x->slot[k]; k = (k + 1) & x->mask)
        if (str_eq(x->names[x->slot[k] - 1], name)) return x->slot[k] - 1;
    return UINT32_MAX;
}
