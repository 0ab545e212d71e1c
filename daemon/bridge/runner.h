/* Where the scheduler and an engine meet: plans a step, turns it into a batch, runs it, commits
 * it, and hands out what happened. One thread: the daemon's engine thread, or generate's main.
 */
#ifndef VRAMD_DAEMON_RUNNER_H
#define VRAMD_DAEMON_RUNNER_H

#include "engine/engine.h"
#include "scheduler/sched.h"

struct step_log;

typedef struct runner runner;

typedef struct runner_job runner_job;

/* What the runner must know of a sequence; sched_spec.user is its address. Lives until ENDED. */
struct runner_job {
    sampling sampling;
    uint32_t n_first; /* tokens of the first of two texts; 0: it is one */
    int8_t n_score;   /* best tokens per scored prompt row, with score_prompt; -1: no scores */
    /* Tokens that it may ever draw, borrowed: [sampling_mask_words(n_vocab)]; NULL: all. */
    const uint32_t *allowed;
    /* Where what it may draw depends on what it drew; needs sched_spec.lockstep. Called before
     * each row that draws; the mask comes with the tokens of `allowed` and is to lose others.
     * NULL: it does not depend. */
    void (*allow)(runner_job *, uint32_t *mask);
    /* Each token that joined the text, in order, before allow is called for the next. Or NULL.
     */
    void (*take)(runner_job *, int32_t token);
    /* Its next tokens may be guessed (drafter.h). With allow: take is called for guesses, too, between keep and
     * back, after which all is as it was at keep; and nothing may follow the text where over says so. NULL:
     * no guesses. */
    bool guess;
    void (*keep)(runner_job *);
    void (*back)(runner_job *);
    bool (*over)(const runner_job *);
    /* Its share of the energy of steps (base/energy.h) is added up here, in joules: of each step by its rows. NULL:
     * it is not measured. */
    double *energy;
};

/* One thing that happened. token: [event->n_tokens], for EVENT_TOKEN. For EVENT_PREFILLED:
 * scored, n_scored, first_scored: prompt tokens scored by this step; logits: the rows that scored
 * them, where the engine keeps them; hidden: the hidden states
 * of n_hidden prompt rows, in order, where the engine gives them. Borrowed for the call. */
typedef struct runner_event {
    const sched_event *event;
    const sampled *token;
    const sampled *scored;
    uint32_t n_scored, first_scored;
    const float *logits; /* [n_scored][n_vocab] */
    const float *hidden; /* [n_hidden][n_embd] */
    uint32_t n_hidden, n_embd;
    uint64_t now_us;
} runner_event;

typedef void runner_callback(void *arg, const runner_event *);

/* Bytes of a runner for such a scheduler and engine, a mask of allowed tokens for each row that a
 * sequence may draw in a step included: exact. max_draft: guesses of a sequence in a step, 0: none; else the
 * engine verifies so many (engine_options.max_draft), and has one step in flight. */
size_t runner_bytes(const sched_config *, uint32_t n_vocab, uint32_t max_draft);
/* mem: runner_bytes, zeroed, 64-byte aligned. Borrows sched and engine. */
runner *runner_init(void *mem, const sched_config *, uint32_t n_vocab, uint32_t max_draft,
                    sched *, engine *, runner_callback *, void *arg);
/* Its calls of the scheduler are recorded from now on; borrowed. */
void runner_set_log(runner *, struct step_log *);
/* A draft model guesses, too, at the places of the blocks of a group; looks_up: where the text itself gives no guesses
 * that are worth their rows; else always. Borrowed. */
struct draft_run;
void runner_set_draft(runner *, struct draft_run *, uint32_t group, bool looks_up);

/* Fills the engine's queue and commits one step. False when there was nothing to do. An engine
 * that fails ends the sequences of its step with FINISH_ERROR, and last_error says why. */
bool runner_step(runner *);
/* Delivers events that submit or cancel left behind. */
void runner_deliver(runner *);
const err *runner_last_error(const runner *);
uint32_t runner_last_rows(const runner *); /* of the step committed last */
/* Its rows, and the tokens that were drawn from prompts: what vLLM counts of an iteration. */
uint32_t runner_last_tokens(const runner *);

#endif
