/* Types for a number of bytes: of each item (a tensor) one option (a type), so that the bytes of all stay within a
 * budget and the sum of losses is small. Pure; any thread. */
#ifndef VRAMD_QUANT_CHOOSE_H
#define VRAMD_QUANT_CHOOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct choose_option {
    uint32_t tag; /* the caller's: a dtype */
    uint64_t bytes;
    double loss; /* not negative, finite */
} choose_option;

typedef struct choose_item {
    choose_option *v; /* [n], n >= 1; choose sorts them by bytes */
    uint32_t n;
    uint32_t picked; /* index into v, filled in */
} choose_item;

enum { CHOOSE_MAX_OPTIONS = 32 };

/* What the options of least bytes take: no budget below it can be met. */
uint64_t choose_least(const choose_item *, size_t n);

/* From the least bytes on, steps to larger options are taken in the order of loss saved per byte, each item along
 * its lower convex hull: after each step the choice is the best of its number of bytes (Lagrange). Of all these
 * choices that fit, each with the one further step that saves most in what is left, the best is taken: a
 * larger budget never has a larger loss. False: the budget is below choose_least, or there is no memory
 * (*no_memory). */
bool choose(choose_item *, size_t n, uint64_t budget, bool *no_memory);

uint64_t choose_bytes(const choose_item *, size_t n);
double choose_loss(const choose_item *, size_t n);

#endif
