/* From one row of logits to one token: what OP_SAMPLE means. Pure: the same logits, parameters,
 * history and position give the same token on every engine and in every batch.
 *
 * Order: the mask of allowed tokens; logit_bias, penalties, min_tokens; logprobs are taken
 * here, at temperature 1; then temperature, top_k, typical_p, top_p, min_p, and the draw. So
 * logprobs are those of the distribution that is drawn from, but for temperature and
 * truncation: a token that is forbidden has none, and the others share its probability. */
#ifndef VRAMD_MODEL_SAMPLING_H
#define VRAMD_MODEL_SAMPLING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SAMPLING_MAX_LOGPROBS = 20 };

/* Temperatures below this one are taken as 0: a scaled logit could overflow (vLLM draws the
 * line at the same place). */
#define SAMPLING_GREEDY 1e-5f

typedef struct logit_bias {
    int32_t token;
    float bias; /* -100..100; -100 and less forbids in effect */
} logit_bias;

typedef struct sampling {
    float temperature;             /* below SAMPLING_GREEDY: greedy; lowest id wins ties */
    int32_t top_k;                 /* <= 0: off */
    float top_p, min_p, typical_p; /* 1, 0, 1: off */
    float repetition_penalty;      /* 1: off; over prompt and output */
    float presence_penalty, frequency_penalty; /* 0: off; over output */
    uint64_t seed;
    uint32_t min_tokens;       /* end tokens are forbidden until so many were generated */
    const int32_t *end_tokens; /* borrowed: end-of-generation and stop ids */
    uint32_t n_end_tokens;
    const logit_bias *bias; /* borrowed */
    uint32_t n_bias;
    int16_t n_logprobs; /* -1: none; 0: of the token; 1..20: and so many best */
} sampling;

/* Sets every field to "off" and temperature 1. */
void sampling_defaults(sampling *);

/* Whether the history matters. */
static inline bool sampling_penalises(const sampling *p) {
    return p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
}

typedef struct token_prob {
    int32_t token;
    float logprob;
} token_prob;

enum { SAMPLING_NOT_FINITE = -2 };

typedef struct sampled {
    /* -1: the mask left no token with a logit; SAMPLING_NOT_FINITE, of engines that look, not of
     * the sampler: the row had a logit that was not finite */
    int32_t token;
    float logprob;  /* of the token; NaN unless asked for; -inf if the token was forbidden */
    uint16_t n_top; /* filled entries of top, best first, lowest id first among equals; no
                       token that is forbidden (-inf) is among them */
    token_prob top[SAMPLING_MAX_LOGPROBS];
} sampled;

/* What has been said: prompt and output of the sequence so far. NULL stands for nothing. */
typedef struct sampling_history {
    const int32_t *tokens;
    uint32_t n, n_prompt;
} sampling_history;

/* Words of a mask of allowed tokens: bit t % 32 of word t / 32 is set where token t is allowed.
 * Bits past the vocabulary do not matter. */
static inline uint32_t sampling_mask_words(uint32_t n_vocab) {
    return n_vocab / 32 + (n_vocab % 32 != 0);
}

/* Scratch of a sampler for a vocabulary of n: bytes, 64-byte aligned. One per thread; what it
 * holds on entry does not matter. */
size_t sampling_scratch_bytes(uint32_t n_vocab);

/* logits: [n_vocab] float32, overwritten; n_vocab >= 1. position: of the new token in its
 * sequence (keys the draw together with the seed). allowed: [sampling_mask_words(n_vocab)], or
 * NULL: all are. Cannot fail; NaN logits count as -inf, +inf as FLT_MAX; if nothing is left,
 * the highest logit that the mask allows wins, and if there is none, token is -1 (0 without a
 * mask). Ids outside the vocabulary, in the history or the parameters, are passed over.
 *
 * What each step means, w being exp((logit - best) / temperature):
 *   repetition   l > 0: l / penalty, else l * penalty; CTRL, section 4.1 (Keskar et al. 2019)
 *   frequency    l - frequency * occurrences in the output; presence: l - presence once
 *   top_k        the k highest logits
 *   typical_p    the fewest tokens, nearest first in |entropy - surprisal|, whose mass reaches
 *                typical_p of what top_k left (Meister et al., "Locally typical sampling", 2022)
 *   top_p        the fewest tokens, highest first, whose mass reaches top_p of what is left
 *                (Holtzman et al., "The curious case of neural text degeneration", 2020)
 *   min_p        those with w >= min_p * the highest w left (Nguyen et al. 2024)
 * Ties go to the lowest id everywhere, and one token always stays. The draw inverts the
 * cumulative sum in the order of ids. */
void sampling_draw(sampled *out, float *logits, uint32_t n_vocab, const sampling *,
                   const uint32_t *allowed, const sampling_history *, uint32_t position,
                   void *scratch);

/* Log-probability of a given token and the n best, temperature 1 (prompt logprobs). logits are
 * left alone. */
void sampling_score(sampled *out, const float *logits, uint32_t n_vocab, int32_t token,
                    int n_top, void *scratch);

/* The uniform number of (seed, position) in [0, 1): the leading 24 bits of the 53 that a draw
 * uses. They are words 0 and 1 of Philox4x32-10 under the key seed (low word first) at the
 * counter (position, 0, 0, 0) (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * SC 2011, section 3.3). */
float sampling_uniform(uint64_t seed, uint32_t position);
/* The block function itself. */
void sampling_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

#endif
