/* A vocabulary in the order of its bytes, so that a walk over all tokens shares what they have in
 * common, and its *slices*: the tokens that consist of whole harmless characters, which a JSON
 * string takes at once. Immutable, any thread. */
#ifndef VRAMD_TEXT_VOCAB_INDEX_H
#define VRAMD_TEXT_VOCAB_INDEX_H

#include "text/tokenizer/tokenizer.h"

enum {
    VOCAB_MAX_BYTES = 255,  /* a longer token is never allowed under a grammar */
    VOCAB_SLICE_CHARS = 16, /* the longest of the slices by length */
    VOCAB_SLICES = 1 + VOCAB_SLICE_CHARS
};

/* Tokens in the order of their bytes. Those that a token does not share with the one before it
 * lie one after the other, so that a walk reads memory in order. */
typedef struct vocab_list {
    uint32_t *id;
    uint32_t *at; /* [n]: where its own bytes begin in `tail`, or VOCAB_ELSEWHERE; NULL */
    uint8_t *shared, *len; /* [n]: bytes in common with the one before; all its bytes */
    uint8_t *tail;         /* [cap_tail] */
    uint32_t n, cap, n_tail, cap_tail;
    bool full;  /* a token did not fit: the list is of no use */
    bool split; /* there are tokens whose bytes are elsewhere */
} vocab_list;
#define VOCAB_ELSEWHERE UINT32_MAX

typedef struct vocab_index {
    const tokenizer *tok;
    uint32_t n_vocab;
    vocab_list all;     /* every token that stands for bytes: no control tokens */
    vocab_list odd;     /* those that do not consist of whole harmless characters */
    vocab_list lengthy; /* those that do, and have more than VOCAB_SLICE_CHARS of them */
    /* [sampling_mask_words(n_vocab)] each. slice[0]: all tokens of harmless characters; slice[k]:
     * those of at most k. */
    uint32_t *slice[VOCAB_SLICES];
    uint32_t *known;  /* likewise: all that stand for bytes */
    uint32_t *silent; /* likewise: tokens of no bytes, but those that end a text */
    bool single[256]; /* bytes that are a token by themselves */
} vocab_index;

size_t vocab_index_bytes(uint32_t n_vocab);
/* mem: vocab_index_bytes, zeroed, 64-byte aligned. n_vocab: of the model, whatever the
 * tokenizer has. Borrows the tokenizer. */
vocab_index *vocab_index_init(void *mem, const tokenizer *, uint32_t n_vocab);

/* The bytes that a token stands for in a text; empty: none, or too many. */
str vocab_token(const vocab_index *, uint32_t id);

static inline bool vocab_is_silent(const vocab_index *v, uint32_t id) {
    return v->silent[id / 32] >> id % 32 & 1;
}

#endif
