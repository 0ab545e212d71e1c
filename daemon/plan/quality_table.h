/* What a smaller type costs in quality: one table of measured values for vramd plan and for
 * documents. Data only; any thread. */
#ifndef VRAMD_DAEMON_QUALITY_TABLE_H
#define VRAMD_DAEMON_QUALITY_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "model/dtype.h"

/* Against the same model with nothing quantised but what the row names. */
typedef struct quality_row {
    const char *type;   /* word of kv_cache_dtype, or weights as --weights takes them */
    bool cache;         /* the KV cache's type, K and V alike; else that of the weights */
    double kl;          /* mean Kullback-Leibler divergence of the next token, in nats */
    double top1;        /* %: the most likely token is the same; 0: not measured */
    double perplexity;  /* change in %; 0 where top1 is 0: not measured */
    uint32_t tokens;    /* that were scored; 0: not stated by the source */
    const char *model;  /* on which it was measured */
    const char *source; /* a file of this repository, or who published it */
    const char
        *arch; /* of whose models it is, as GGUF names it; NULL: of all that have no own */
} quality_row;

/* The i-th row; NULL: no more. */
const quality_row *quality_at(size_t i);
/* Any case; NULL: not measured. arch: of the model, as GGUF names it. */
const quality_row *quality_of_cache(str type, const char *arch);
const quality_row *quality_of_weights(str type);
/* The row of a model whose matrices have this type, most of them: its own row or that of its
 * mixture (Q4_K: q4_K_M), else the one of the fewest bits that has as many or more. NULL: none
 * is needed (16 bits and more). */
const quality_row *quality_of_dtype(dtype);

#endif
