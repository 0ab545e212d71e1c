/* Several models in one budget: sections [model NAME] of the file. Each has a machine and a bridge
 * while it is loaded; what they hold is counted in ledgers under a shared one. Which of them are loaded
 * is decided by daemon/models/models_decide.h. Loop thread. */
#ifndef VRAMD_DAEMON_MODELS_H
#define VRAMD_DAEMON_MODELS_H

#include <uv.h>

#include "api/served.h"
#include "conf/sections.h"
#include "daemon/machine.h"

typedef struct models models;

/* Plans every model from its headers alone. Errors: those of machine_plan, with the model's name;
 * ERR_BUDGET where the pinned ones do not fit together, or a model does not fit beside them;
 * ERR_UNSUPPORTED for options that are for one model only. In any case models_free. */
status models_plan(models **, const options *outside, const model_sections *, err *);
/* A table: what each takes, and which ones fit together. */
void models_print(const models *, FILE *);

/* The memory of the front end, and the handles. flushed: as of bridge_open; ready is called once, when
 * what is to be there at the start is loaded. */
status models_open(models *, uv_loop_t *, void (*flushed)(void *), void (*ready)(void *),
                   void *arg, err *);
port *models_port(models *); /* of the whole */
served *models_served(models *, uint32_t *n);
/* Loads what the file says. */
void models_start(models *);
/* No loads from now on; what is held is refused. */
void models_drain(models *);
/* Joins the engine threads, after the server was closed. Run the loop once more before models_free. */
void models_stop(models *);
void models_free(models *);

#endif
