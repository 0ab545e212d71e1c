/* How likely a guess is right, by what was verified before, and what a row that verifies one costs: for what guesses, by lookup
 * (drafter.h) and by a draft model (draft_run.h). Pure. */
#ifndef VRAMD_DAEMON_BRIDGE_CHANCE_H
#define VRAMD_DAEMON_BRIDGE_CHANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "scheduler/cost.h"

/* How fast what was seen fades, with each guess that is verified after it: of a sequence, of all; and with each
 * step in which a guess was not worth a row, so that it is tried again. */
#define SEQ_FADE  0.9f
#define ALL_FADE  0.98f
#define IDLE_FADE 0.999f
/* A row must be worth so much more than its time: chances and times are estimates. */
#define MARGIN 1.1

typedef struct chance {
    float tries, hits;
} chance;

static inline void chance_fade(chance *c, float by) {
    c->tries *= by, c->hits *= by;
}

static inline void chance_see(chance *c, float by, bool right) {
    chance_fade(c, by);
    c->tries += 1;
    c->hits += right;
}

/* own: of a sequence; all: of all of them. Of what is expected before anything is known, each counts as some guesses. */
static inline double chance_of(const chance *own, const chance *all, double expected) {
    const float own_weight = 4, all_weight = 8;
    const double mean = (all->hits + all_weight * expected) / (all->tries + all_weight);
    return (own->hits + own_weight * mean) / (own->tries + own_weight);
}

/* Times of a step in which so many sequences decode, and of one more row in it that verifies. */
typedef struct decode_times {
    double us, row_us;
} decode_times;

/* While no times are known, shares of a step; a row takes a hundredth of it at least. kv: positions read. */
static inline decode_times decode_times_of(const cost_model *c, uint32_t n_decode, double kv) {
    decode_times t = {.us = 1, .row_us = 0.15};
    if (cost_ready(c)) {
        t.us = cost_predict(c, (step_work){.rows = n_decode, .kv = kv, .logit_rows = n_decode});
        t.row_us = c->coef[1] + c->coef[2] * kv / n_decode + c->coef[3];
    }
    if (t.row_us < 0.01 * t.us) t.row_us = 0.01 * t.us;
    return t;
}

#endif
