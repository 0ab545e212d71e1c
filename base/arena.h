/* A bump allocator over chunks: everything of one request (or of one load) lives in one arena
 * and dies with it. Not thread-safe; it may move between threads by hand-over. */
#ifndef VRAMD_BASE_ARENA_H
#define VRAMD_BASE_ARENA_H

#include "base/chunks.h"
#include "base/str.h"

typedef struct arena {
    const chunks *src;
    struct arena_chunk *head; /* the chunk in use; older ones behind it */
    char *at, *end;
    size_t total; /* bytes taken from src */
    size_t limit; /* of total; 0: none */
    bool failed;  /* an allocation came back NULL; arena_clear forgets it */
} arena;

/* Takes nothing until the first allocation. limit in bytes, 0 for none. */
void arena_init(arena *, const chunks *src, size_t limit);
void arena_clear(arena *); /* gives every chunk back; the arena may be used again */

/* 16-byte aligned, not cleared. NULL when src has no more or the limit is reached. */
void *arena_alloc(arena *, size_t bytes);
void *arena_zalloc(arena *, size_t bytes);
/* Grows p (which had old bytes) in place when it is the last allocation, else copies. */
void *arena_grow(arena *, void *p, size_t old, size_t bytes);
/* Place for an item behind the n of an array, whose pointer is at `array`; *cap items fit, doubled
 * from `first`. False: there is no memory, and nothing has changed. */
bool arena_place(arena *, void *array, size_t n, uint32_t *cap, size_t item, uint32_t first);
/* A NUL-terminated copy; ptr is NULL when there is no memory. */
str arena_str(arena *, str);

#endif
