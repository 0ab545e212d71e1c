/* What structured output holds in memory: the index of the vocabulary, the masks, and the compiled
 * grammars; class "grammar", taken before loading, filled when the tokenizer is there. Opened and
 * closed by the loop thread; the masks belong to the engine thread, the rest is for all. */
#ifndef VRAMD_DAEMON_GRAMMAR_MEMORY_H
#define VRAMD_DAEMON_GRAMMAR_MEMORY_H

#include "daemon/machine_words.h"
#include "text/grammar/grammar.h"

typedef struct grammar_memory {
    ledger *ledger;
    machine_words *words; /* of a part: which have the index */
    void *index_mem, *mask_mem;
    uint32_t n_vocab;
    uint64_t mask_bytes;
    pool *grammars;     /* compiled ones */
    vocab_index *index; /* these two NULL until the model is loaded */
    mask_cache *masks;
} grammar_memory;

void grammar_memory_terms(const machine *, terms *);
/* *out is filled in as far as it came: to be closed in any case. */
status grammar_memory_open(grammar_memory *out, const machine *, err *);
/* Errors: ERR_BUDGET, of a part whose vocabulary has grown since the start. */
status grammar_memory_load(grammar_memory *, const tokenizer *, err *);
void grammar_memory_close(grammar_memory *);

#endif
