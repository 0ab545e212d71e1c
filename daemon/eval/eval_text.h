/* A text cut into windows for vramd eval: each is a prompt of its own, whose tokens but the first
 * are predicted (teacher forcing). Main thread. */
#ifndef VRAMD_DAEMON_EVAL_TEXT_H
#define VRAMD_DAEMON_EVAL_TEXT_H

#include "text/tokenizer/tokenizer.h"

typedef struct eval_text {
    int32_t *token;   /* [n_windows * bos + n_tokens]: windows one after the other */
    uint32_t context; /* tokens of a window, its BOS included; the last may have fewer */
    uint32_t n_windows;
    uint32_t bos;      /* 1: each begins with the BOS, as the model's metadata says; 0 */
    uint64_t n_tokens; /* of the text */
    uint64_t n_scored; /* tokens that are predicted */
    uint64_t text_hash[2], tokens_hash[2]; /* of the whole text; of the windows */
} eval_text;

/* One file, or stdin where path is NULL. Errors: ERR_NOT_FOUND, ERR_IO, ERR_NO_MEMORY. */
status eval_text_read(buf *out, const char *path, err *);
/* most: of the text, at most so many tokens; 0: all. context >= 2. Bytes that are not UTF-8 are
 * encoded as bytes; special tokens are characters. Errors: ERR_INVALID (too short a text),
 * ERR_NO_MEMORY. */
status eval_text_cut(eval_text *out, const tokenizer *, str text, uint32_t context,
                     uint64_t most, err *);
void eval_text_clear(eval_text *);

/* Tokens of window w, and where they begin. */
uint32_t eval_window(const eval_text *, uint32_t w, const int32_t **first);
/* The index among all predicted tokens of the token at position pos >= 1 of window w. */
static inline uint64_t eval_index(const eval_text *t, uint32_t w, uint32_t pos) {
    return (uint64_t)w * (t->context - 1) + pos - 1;
}

#endif
