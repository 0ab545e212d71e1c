/* Which model is loaded next, and which ones make space for it: the decisions of daemon/models/models.c,
 * without I/O, clocks or memory of their own. One model is loaded or unloaded at a time.
 *
 *   ABSENT -> LOADING -> READY -> DRAINING -> UNLOADING -> ABSENT
 *                  \-> FAILED         \-> READY again, where its space is not needed any more
 *
 * A READY model takes requests, a DRAINING one ends those that it has; of all others, requests are held.
 * The oldest held request says which model is next. Victims are the cheapest set of models whose
 * bytes suffice: not pinned, and idle, or resident for at least the time that loading them took, so that
 * of a model which always has requests no more than half of the time goes into loading. */
#ifndef VRAMD_DAEMON_MODELS_DECIDE_H
#define VRAMD_DAEMON_MODELS_DECIDE_H

#include <stdbool.h>
#include <stdint.h>

enum { MODELS_MAX = 16 };

typedef enum model_state {
    MODEL_ABSENT,
    MODEL_LOADING,
    MODEL_READY,
    MODEL_DRAINING,
    MODEL_UNLOADING,
    MODEL_FAILED
} model_state;
const char *model_state_name(model_state); /* "absent", ... */

typedef struct model_entry {
    model_state state;
    uint64_t bytes; /* of the budget, from the begin of LOADING to the end of UNLOADING */
    bool pinned;    /* never a victim */
    uint32_t n_users;
    uint64_t oldest_us;    /* when the oldest held request came; 0: none is held */
    uint64_t wanted_us;    /* when an operator had it loaded; 0: not, or it was */
    bool if_free;          /* to be loaded where that needs no victim */
    bool unwanted;         /* an operator has it unloaded */
    uint64_t ready_us;     /* READY since */
    uint64_t load_us;      /* what its latest load took */
    uint64_t last_used_us; /* when its latest request came */
} model_entry;

typedef struct models_view {
    uint64_t budget_bytes; /* for models */
    uint32_t n;
    model_entry v[MODELS_MAX];
} models_view;

typedef enum models_op {
    MODELS_NOTHING,
    MODELS_LOAD,   /* model: ABSENT -> LOADING */
    MODELS_DRAIN,  /* set: READY -> DRAINING */
    MODELS_REOPEN, /* set: DRAINING -> READY */
    MODELS_UNLOAD, /* model: DRAINING -> UNLOADING */
    MODELS_SKIP    /* model: if_free is over, it does not fit beside the others */
} models_op;

typedef struct models_decision {
    models_op op;
    uint32_t model, set; /* set: bit i for model i */
    uint64_t again_us;   /* of NOTHING: when time alone may change that; 0: never */
} models_decision;

/* What to do now; after it has been done, again, until it is NOTHING. */
models_decision models_decide(const models_view *, uint64_t now_us);
/* Bytes of all that is not ABSENT or FAILED. */
uint64_t models_bytes(const models_view *);
/* Whether some model is being loaded or unloaded; whether one that is absent is waited for. */
bool models_busy(const models_view *);
bool models_waited(const models_view *);
/* Whether the states are possible: no more bytes than the budget, and one load or unload at most. */
bool models_audit(const models_view *);

#endif
