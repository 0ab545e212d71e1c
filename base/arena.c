/* Bump allocation over chunks. Owned by the holder of the request; one thread at a time. */
#include "base/arena.h"

#include <stdlib.h>

#include "base/check.h"

struct arena_chunk {
    struct arena_chunk *older;
    size_t bytes;
};

enum { FIRST_CHUNK = 4096, ALIGN = 16 };

static void *heap_take(void *self, size_t bytes, size_t *got) {
    (void)self;
    *got = bytes;
    return malloc(bytes);
}
static void heap_give(void *self, void *p, size_t got) {
    (void)self, (void)got;
    free(p);
}

const chunks *chunks_heap(void) {
    static const chunks heap = {NULL, heap_take, heap_give};
    return &heap;
}

void arena_init(arena *a, const chunks *src, size_t limit) {
    *a = (arena){.src = src, .limit = limit};
}

void arena_clear(arena *a) {
    while (a->head) {
        struct arena_chunk *c = a->head;
        a->head = c->older;
        a->src->give(a->src->self, c, c->bytes);
    }
    arena_init(a, a->src, a->limit);
}

static bool add_chunk(arena *a, size_t bytes) {
    /* Doubling keeps the number of chunks logarithmic in the size of the request. */
    size_t want = a->total < FIRST_CHUNK ? FIRST_CHUNK : a->total;
    size_t need = bytes + align_up(sizeof(struct arena_chunk), ALIGN), got;
    if (need < bytes) return false;
    if (want > (1u << 20)) want = 1u << 20;
    if (want < need) want = need;
    if (a->limit && a->total + want > a->limit) want = need;
    if (a->limit && (a->total > a->limit || want > a->limit - a->total)) return false;
    struct arena_chunk *c = a->src->take(a->src->self, want, &got);
    if (!c) return false;
    c->older = a->head;
    c->bytes = got;
    a->head = c;
    a->total += got;
    a->at = (char *)c + align_up(sizeof *c, ALIGN);
    a->end = (char *)c + got;
    return true;
}

void *arena_alloc(arena *a, size_t bytes) {
    size_t n = align_up(bytes ? bytes : 1, ALIGN);
    if (n < bytes) return NULL;
    if ((size_t)(a->end - a->at) < n && !add_chunk(a, n)) {
        a->failed = true;
        return NULL;
    }
    void *p = a->at;
    a->at += n;
    return p;
}

void *arena_zalloc(arena *a, size_t bytes) {
    void *p = arena_alloc(a, bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

void *arena_grow(arena *a, void *p, size_t old, size_t bytes) {
    if (!p) return arena_alloc(a, bytes);
    if (bytes <= old) return p;
    size_t had = align_up(old ? old : 1, ALIGN), want = align_up(bytes, ALIGN);
    if (want < bytes) return NULL;
    if ((char *)p + had == a->at && (size_t)(a->end - (char *)p) >= want) {
        a->at = (char *)p + want;
        return p;
    }
    void *q = arena_alloc(a, bytes);
    return q ? memcpy(q, p, old) : NULL;
}

bool arena_place(arena *a, void *array, size_t n, uint32_t *cap, size_t item, uint32_t first) {
    void *p;
    if (n < *cap) return true;
    const uint32_t more = *cap ? *cap * 2 : first;
    if (more < *cap || item > SIZE_MAX / more) return false;
    memcpy(&p, array, sizeof p);
    p = arena_grow(a, p, *cap * item, more * item);
    if (!p) return false;
    memcpy(array, &p, sizeof p);
    *cap = more;
    return true;
}

str arena_str(arena *a, str s) {
    char *p = arena_alloc(a, s.len + 1);
    if (!p) return (str){NULL, 0};
    if (s.len) memcpy(p, s.ptr, s.len);
    p[s.len] = '\0';
    return (str){p, s.len};
}
