/* How many of the guesses that a text's lookup gives are worth verifying: each costs a row of the step,
 * and gives a token where it is right, and all before it are.
 *
 * A row is worth its time where the chance that it is accepted is above what the time would give otherwise:
 * (tokens of the step) / (time of the step) * (time of a row), by the scheduler's model of times. So a step of
 * few sequences, which mostly waits for weights, verifies long guesses, one of many only those that are
 * nearly sure. Chances are learned for lengths of matches, in each sequence and in all: a match that has
 * held grows, and is trusted more.
 *
 * What is guessed changes no token of any text; only its time. Engine thread. */
#ifndef VRAMD_DAEMON_DRAFTER_H
#define VRAMD_DAEMON_DRAFTER_H

#include <stddef.h>

#include "scheduler/sched.h"

typedef struct drafter drafter;

typedef struct draft {
    sched_id id;
    uint32_t slot;
    uint32_t n;      /* guesses to verify, of drafter_choose */
    uint32_t n_most; /* that could be */
    uint32_t length; /* of the match */
    int32_t guess[SCHED_MAX_DRAFT];
} draft;

size_t drafter_bytes(uint32_t max_seqs);
/* mem: drafter_bytes, 64-byte aligned. max_draft: guesses of a sequence in a step, up to SCHED_MAX_DRAFT. */
drafter *drafter_init(void *mem, uint32_t max_seqs, uint32_t max_draft);

/* Once before each step: forgets the drafts of the step before. */
void drafter_begin(drafter *);
/* A sequence that decodes, with the tokens that it knows. n_most: guesses that the scheduler takes. */
void drafter_add(drafter *, sched_id, uint32_t slot, const int32_t *text, uint32_t n_text,
                 uint32_t n_most);
/* Sets n of each draft, for a step with so many sequences that decode, which attend to kv tokens. */
void drafter_choose(drafter *, const cost_model *, uint32_t n_decode, double kv);
uint32_t drafter_drafts(drafter *, draft **out);
/* The step verified the first n guesses of a slot's last draft, of which so many were right. */
void drafter_learn(drafter *, uint32_t slot, uint32_t n, uint32_t n_right);

#endif
