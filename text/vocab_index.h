/* A vocabulary in the order of its bytes, so that a walk over all tokens shares what they have in
 * common, and its *slices*: the tokens that consist of whole harmless characters, which a JSON
 * string takes at once. Immutable, any thread. */
#ifndef VRAMD_TEXT_VOCAB_INDEX_H
#define VRAMD_TEXT_VOCAB_INDEX_H

#include "text/tokenizer.h"

enum {
    VOCAB_MAX_BYTES = 255,  /* a longer token is never allowed under a grammar */
    VOCAB_SLICES = 2,       /* all tokens of harmless characters; those of few */
    VOCAB_SLICE_CHARS = 16, /* how many those of the second slice have at most */
};

/* Tokens in the order of their bytes. */
typedef struct vocab_list {
    uint32_t *id;
    uint8_t *shared; /* bytes that a token has in common with the one before it in the list */
    uint32_t n;
} vocab_list;

typedef struct vocab_slice {
    uint32_t *bits;  /* [sampling_mask_words(n_vocab)] */
    vocab_list rest; /* tokens that have bytes and are not in the slice */
    bool usable;     /* the rest is small enough to be listed */
} vocab_slice;

typedef struct vocab_index {
    const tokenizer *tok;
    uint32_t n_vocab;
    vocab_list all; /* every token that stands for bytes: no control tokens */
    vocab_slice slice[VOCAB_SLICES];
    bool single[256]; /* bytes that are a token by themselves */
    uint32_t *
        silent; /* [sampling_mask_words(n_vocab)]: tokens of no bytes, but those that end a text */
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
