/* A grammar compiled for a vocabulary, a position in it, and the tokens allowed there.
 *
 * Each expression that is recursive, or too large to be copied, becomes a deterministic automaton
 * over bytes whose edges may also be one special token, or a call of another such automaton; all
 * others are copied into those. A position is a set of pairs (state, stack of states to return
 * to), nearly always one. */
#ifndef VRAMD_TEXT_GRAMMAR_H
#define VRAMD_TEXT_GRAMMAR_H

#include "text/grammar/rules.h"
#include "text/tokenizer/vocab_index.h"

typedef struct grammar grammar;             /* immutable, any thread */
typedef struct grammar_state grammar_state; /* a position; copied by memcpy */
typedef struct mask_cache mask_cache;       /* one thread */

enum {
    GRAMMAR_MAX_STATES = 20000,
    GRAMMAR_MAX_DEPTH = 400 /* of calls on a stack: what nests deeper is not allowed */
};

/* Memory for the result comes from `keep`, scratch from where the arena of the rules has its own;
 * the rules may go afterwards. Borrows the index. Time and memory are bounded for any rules.
 * Errors: ERR_INVALID (nothing matches; left recursion; too large), ERR_NO_MEMORY. */
status grammar_compile(grammar **out, const rules *, rule root, const vocab_index *,
                       const chunks *keep, err *);
void grammar_free(grammar *);
size_t grammar_bytes(const grammar *);
uint32_t grammar_n_states(const grammar *);

size_t grammar_state_bytes(const grammar *); /* the same for all grammars */
void grammar_start(const grammar *, grammar_state *);
/* One more token. False: it is not allowed here, and the state is dead from now on. */
bool grammar_take(const grammar *, grammar_state *, int32_t token);
bool grammar_take_bytes(const grammar *, grammar_state *, str);
bool grammar_accepts_end(const grammar *, const grammar_state *);
/* Whether anything but the end may follow. */
bool grammar_can_go_on(const grammar *, const grammar_state *);

/* Bytes of a cache whose masks take up to `budget`: exact. */
size_t mask_cache_bytes(uint32_t n_vocab, size_t budget);
mask_cache *mask_cache_init(void *mem, uint32_t n_vocab, size_t budget);
/* Clears the bits of all tokens that are not allowed here: [sampling_mask_words(n_vocab)], and so
 * of those that end a text, which stand for no byte. */
void grammar_mask(const grammar *, const grammar_state *, mask_cache *, uint32_t *mask);
/* Sets exactly the bits of those that are allowed, by trying every token. For tests. */
void grammar_mask_plain(const grammar *, const grammar_state *, uint32_t *mask);

typedef struct mask_counts {
    uint64_t hits, built, bytes; /* masks found; computed; bytes in use */
} mask_counts;
void mask_cache_read(const mask_cache *, mask_counts *);

#endif
