/* Text to token ids and back, from the metadata of a checkpoint: byte-level BPE, SentencePiece BPE
 * and WordPiece. Immutable after open, usable from any thread. Memory: one block, counted
 * by tokenizer_bytes; beside it the C library holds the executable pages of PCRE2's JIT (64 KiB
 * a started one, runtime class). A call of tokenizer_encode takes its scratch where out takes
 * its memory, and gives it back before it returns: up to 32 bytes a byte of the longest word
 * (where a SentencePiece vocabulary has nothing to cut at, the text), 3 a byte of text that is
 * not UTF-8, 4 a byte of text that needs a space before it, and 24 a byte of text that is brought
 * into normal form C. */
#ifndef VRAMD_TEXT_TOKENIZER_H
#define VRAMD_TEXT_TOKENIZER_H

#include "base/buf.h"
#include "base/err.h"
#include "model/checkpoint.h"
#include "text/jinja/jinja.h"

typedef struct tokenizer tokenizer;

enum {
    TOK_ADD_SPECIAL = 1,  /* BOS and EOS as the model's metadata says; with TOK_PARSE_SPECIAL
                              no BOS where the text begins with it */
    TOK_PARSE_SPECIAL = 2 /* "<|im_start|>" in the text is the token, not characters; tokens of
                              type USER_DEFINED are found with and without it */
};

/* Takes its memory by src (the ledger's, or the heap). Errors: ERR_UNSUPPORTED (field:
 * tokenizer.ggml.model or .pre, and what is known), ERR_FORMAT, ERR_NO_MEMORY. */
status tokenizer_open(tokenizer **out, const checkpoint *, const chunks *src, err *);
/* The same with a pre-tokenizer in place of the one that the file names; "": the file's. Errors:
 * ERR_INVALID (field pre_tokenizer) for one that is not known, or where SentencePiece has none. */
status tokenizer_open_pre(tokenizer **out, const checkpoint *, str pre, const chunks *src,
                          err *);
void tokenizer_close(tokenizer *);
/* What tokenizer_open would take, from the headers alone: exact. */
uint64_t tokenizer_plan_bytes(const checkpoint *);
uint64_t tokenizer_plan_bytes_pre(const checkpoint *, str pre);
uint64_t tokenizer_bytes(const tokenizer *);

/* Appends ids of text to out. Bytes that are not UTF-8 are encoded as bytes, nothing is lost
 * but bytes that the vocabulary has no token for (SmolLM2's lacks 21: some control characters,
 * and first bytes of characters from U+40000), which its own tokenizer leaves out, too; to
 * SentencePiece U+2581 is a space. Errors: ERR_NO_MEMORY. Time: O(n log n) in the length of the
 * text, also for hostile text. */
status tokenizer_encode(const tokenizer *, str text, unsigned flags, vec_i32 *out, err *);

/* The same for a prompt that a template made: special tokens are parsed only where all of their
 * bytes are in one run of the template's own, so that what a user writes stays characters.
 * USER_DEFINED tokens are parsed in every text, here too. TOK_PARSE_SPECIAL is implied. */
status tokenizer_encode_prompt(const tokenizer *, const jinja_text *, unsigned flags,
                               vec_i32 *out, err *);

/* The bytes of one token: for specials their text, or "" unless with_special. Valid as long as
 * the tokenizer. An id out of range gives "". */
str tokenizer_piece(const tokenizer *, int32_t id, bool with_special);

/* Streaming detokenisation: holds back bytes that may be the beginning of a character. */
typedef struct detok {
    const tokenizer *tok;
    bool with_special, whole, drop_space;
    uint8_t n_held;
    char held[4];
} detok;
/* For tokens that go on from others, such as a model's answer: every byte counts. */
void detok_init(detok *, const tokenizer *, bool with_special);
/* For all tokens of a text: the space that a SentencePiece vocabulary puts before a text, and
 * after each special token, is taken away again. */
void detok_init_text(detok *, const tokenizer *, bool with_special);
/* The bytes that one more token adds, whether or not they are UTF-8; in place of detok_push. */
str detok_bytes(detok *, int32_t id);
/* Appends to out what is certain after one more token: always valid UTF-8 (impossible bytes
 * become U+FFFD). */
void detok_push(detok *, int32_t id, buf *out);
/* The end: what is still held becomes U+FFFD. */
void detok_finish(detok *, buf *out);

uint32_t tokenizer_n_vocab(const tokenizer *);
int32_t tokenizer_bos(const tokenizer *);   /* -1: none */
bool tokenizer_adds_bos(const tokenizer *); /* with TOK_ADD_SPECIAL */
int32_t tokenizer_eos(const tokenizer *);
/* Every end-of-generation token: eos, eot, eom, and those whose text says so. */
const int32_t *tokenizer_eog(const tokenizer *, size_t *n);
bool tokenizer_is_eog(const tokenizer *, int32_t id);
bool tokenizer_is_special(const tokenizer *, int32_t id);
/* Ids of all tokens that are parsed as a whole: special ones, and those of type USER_DEFINED. */
const uint32_t *tokenizer_specials(const tokenizer *, size_t *n);

#endif
