/* The draft model of a machine (option draft_model): its file beside the target's, its part of the plan, its engine.
 * It runs on the CPU engine with the target's threads and formulas, and a KV cache of f16 that has as many tokens
 * as the target's, at the places of the target's blocks (daemon/bridge/draft_run.h). In plan and ledger it is the class
 * draft, and its KV cache a pool of class kv. */
#ifndef VRAMD_DAEMON_DRAFT_MODEL_H
#define VRAMD_DAEMON_DRAFT_MODEL_H

#include "engine/engine.h"

struct machine;
struct machine_wish;
struct draft_run;

typedef struct draft_model {
    checkpoint *file; /* until loaded */
    model *model;     /* NULL: there is none */
    engine_options opt;
    ledger *ledger; /* of class draft in the machine's */
    engine *engine;
    uint64_t header_bytes;
    uint32_t n_groups, group,
        pool; /* its own groups; the target's whose places it has; its pool in the plan */
    uint64_t block_bytes; /* of all its groups */
    double share;         /* its weights by the target's */
} draft_model;

/* Opens the file that the options name, once the target's is open. Errors: as model_open; ERR_INVALID (field draft_model):
 * another vocabulary, naming both files; ERR_UNSUPPORTED: an encoder, recurrent layers. */
status draft_model_open(struct machine *, const struct machine_wish *, err *);
/* Adds its terms and its pool to those of the target. Errors: ERR_UNSUPPORTED (field draft_model): the engine, ranks,
 * a tier, or a target without a group that has no window. */
status draft_model_terms(struct machine *, terms *, kv_request *, err *);
/* Of class scheduler: what is computed of so many blocks of each group of the target. */
uint64_t draft_model_valid_bytes(const struct machine *, const uint32_t *n_blocks);
/* Of class scheduler: passes and tables. */
uint64_t draft_model_run_bytes(const struct machine *);
/* After the target's engine. Errors: as engine_open. */
status draft_model_load(struct machine *, err *);
/* mem: draft_model_run_bytes, valid: draft_model_valid_bytes of the most blocks that the machine may have. */
struct draft_run *draft_model_run(struct machine *, void *mem, void *valid);
/* The pool has as many blocks as the target's groups say, from now on. */
status draft_model_resize(struct machine *, const uint32_t *n_blocks, err *);
void draft_model_close_file(struct machine *);
void draft_model_close(struct machine *);

#endif
