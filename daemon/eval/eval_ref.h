/* The reference of vramd eval: what one run of a model predicted at each position of a text, in a
 * file of a fixed number of bytes a position, so that another run can be compared with it.
 *
 * A row of logits has 4 bytes for each token of the vocabulary (196 KiB at 49,152). A record keeps
 * 800 bytes of it: the best 64 tokens, and a sample of 32 of all others, drawn by their
 * probability. KL(reference || this) is then, with p of the reference, q of this run and
 * d = ln(p / q),
 *
 *     sum over all tokens of p d  =  sum over all of p (d - 1 + exp(-d))       for p and q add up to 1
 *
 * whose terms are never negative and of second order in d. Those of the best 64 are added up
 * exactly; the sum over the rest, which has the probability r, is r times the mean over the sample:
 * an estimate without bias, whose error shrinks with the number of positions like every other
 * (and is part of the standard error that is printed). Without the terms -1 + exp(-d), which add
 * up to nothing, the estimate would have an error of first order in d; without the sample, as "64
 * and one for the rest", the result would be too low by what happens within the rest, 10 to 20% on
 * a text of perplexity 40. tests/daemon/test_eval_ref.c states the error that is left.
 *
 * File, little-endian: one eval_header, then n_records times an eval_record, in the order of the
 * text. Nothing here does I/O. Any thread. */
#ifndef VRAMD_DAEMON_EVAL_REF_H
#define VRAMD_DAEMON_EVAL_REF_H

#include "base/err.h"
#include "model/sampling.h"

enum { EVAL_TOP = 64, EVAL_TAIL = 32, EVAL_KEPT = EVAL_TOP + EVAL_TAIL, EVAL_VERSION = 1 };

typedef struct eval_header {
    char magic[8];    /* "VRAMDREF" */
    uint32_t version; /* EVAL_VERSION */
    uint32_t header_bytes, record_bytes;
    uint32_t n_top, n_tail; /* EVAL_TOP, EVAL_TAIL */
    uint32_t n_vocab;
    uint32_t context;    /* tokens of a window, its BOS included */
    uint32_t bos;        /* 1: each window begins with the BOS, 0: none does */
    uint64_t n_tokens;   /* of the text, in all windows */
    uint64_t n_records;  /* tokens that were predicted */
    uint64_t weights[2]; /* hashes: of the model's tensors, */
    uint64_t text[2];    /* of the text as it was given, */
    uint64_t tokens[2];  /* of the token ids that were used */
    char model[128];     /* names for people, NUL-terminated UTF-8 */
    char made_by[272];
    uint64_t check; /* hash64 of all before */
} eval_header;

typedef struct eval_record {
    uint32_t target;        /* the token that stands in the text */
    float logprob;          /* of it */
    double lse;             /* ln of the sum of exp(logit) over the vocabulary */
    float rest;             /* probability of all but the best EVAL_TOP */
    uint32_t n_top;         /* the lesser of EVAL_TOP and n_vocab */
    uint32_t id[EVAL_KEPT]; /* best first, lowest id first among equals; then the sample, in the
                                 order of ids, which may repeat itself */
    float logit[EVAL_KEPT]; /* entries of no token: id 0, logit 0 */
    uint64_t check;         /* hash64 of all before, seeded with the index of the record */
} eval_record;

_Static_assert(sizeof(eval_header) == 512 && sizeof(eval_record) == 800, "no padding");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian");

/* Fills in magic, version, sizes and the checksum. */
void eval_header_seal(eval_header *);
/* Whether these bytes may be the header of a file of file_bytes. Errors: ERR_FORMAT (text: what is
 * wrong), ERR_UNSUPPORTED (another version). */
status eval_header_check(const eval_header *, uint64_t file_bytes, err *);

/* Of eval_record_make: bytes, 64-byte aligned. */
size_t eval_scratch_bytes(uint32_t n_vocab);
/* logits: [n_vocab], left alone; scored: what sampling_score says of target in them. index: of
 * the record; keys the sample. The same arguments give the same bytes. */
void eval_record_make(eval_record *, const float *logits, uint32_t n_vocab,
                      const sampled *scored, uint64_t index, void *scratch);
/* Errors: ERR_FORMAT. A record that passes may be given to eval_record_kl. */
status eval_record_check(const eval_record *, uint32_t n_vocab, uint64_t index, err *);
/* KL(record || this), an estimate as above; logprob: that of record->target in these logits.
 * The record of the same logits gives exactly 0. */
double eval_record_kl(const eval_record *, const float *logits, float logprob);

#endif
