/* Populated memory that freed arenas leave to the next ones: pages change their addresses, and are neither
 * given to the system nor zeroed between. Pieces are whole numbers of a granule, so that the number
 * of the kernel's mappings is bounded. Not locked: the ledger's lock. */
#ifndef VRAMD_MEMORY_PAGES_H
#define VRAMD_MEMORY_PAGES_H

#include <stdbool.h>
#include <stdint.h>

enum { PAGES_MAX = 256 }; /* pieces; what would be one more is given to the system */

typedef struct pages_piece {
    char *p;
    uint64_t bytes;
} pages_piece;

typedef struct pages {
    uint64_t granule; /* a multiple of 2 MiB */
    uint64_t bytes;   /* of all pieces */
    uint32_t n;
    pages_piece piece[PAGES_MAX];
} pages;

/* budget_bytes: what all pieces can have at most. */
void pages_init(pages *, uint64_t budget_bytes);
/* Takes the first bytes of a mapping, and unmaps the rest, `mapped` bytes in all; returns what it kept. The
 * mapping begins at a multiple of 2 MiB. */
uint64_t pages_keep(pages *, char *p, uint64_t bytes, uint64_t mapped);
/* Moves some to out, bytes at most in all. */
void pages_take(pages *, uint64_t bytes, pages *out);
/* Gives back to the system until no more than `most` are left; returns how many bytes went. */
uint64_t pages_drop(pages *, uint64_t most);
/* Moves all pieces to a range of addresses, one behind the other. None is left. Returns how many bytes are
 * there now; 0: the kernel has not moved all, and what is not there is its again. */
uint64_t pages_place(pages *, char *to);

#endif
