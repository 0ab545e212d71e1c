/* What the parts of daemon/models/models.h share: models.c (loading and unloading), models_plan.c (before the
 * start), models_port.c (what endpoints see). */
#ifndef VRAMD_DAEMON_MODELS_PARTS_H
#define VRAMD_DAEMON_MODELS_PARTS_H

#include "daemon/bridge/bridge.h"
#include "daemon/models/models.h"
#include "daemon/models/models_decide.h"
#include "daemon/kv/kv_file.h"
#include "daemon/machine_words.h"
#include "daemon/offload.h"
#include "daemon/models/turns.h"

typedef struct model_unit {
    models *all;
    served *served;
    uint32_t index;
    port closed; /* served.port while the model is not READY */
    options opt;
    model_config config; /* for closed's card */
    char name[256], tenants[256];
    uint64_t aside_bytes; /* of the wish */
    bool joins;           /* its engine thread ends: the work waits for that */
    machine_words words;
    machine m;      /* while it is not ABSENT */
    bridge *bridge; /* from the end of the plan to the end of the unload */
    status status;  /* of the latest load */
    err error;
    uv_work_t work;
    uv_timer_t timer;
    uint64_t began_us, n_loads;
} model_unit;

struct models {
    port port; /* first: of the whole */
    models_view view;
    options opt;
    model_unit *unit; /* [view.n] */
    served *served;   /* [view.n]: what endpoints get */
    budget budget;
    plan front;           /* of what all models share */
    uint64_t front_bytes; /* of that, and of the words of all */
    uint64_t words_bytes, request_memory;
    uv_loop_t *loop;
    void (*flushed)(void *);
    void (*ready)(void *);
    void *arg;
    ledger *shared, *front_ledger;
    kv_dir disk; /* of kv_disk, where its directories are: its lock */
    offloads offloads;
    bool started, announced, draining, stopping;
    uint64_t moved_us; /* when a model was last loaded or unloaded; 0: no pages are kept */
    uv_timer_t tick;
    turns turns;
};

/* models_plan.c: of one of the models. */
machine_wish models_wish(model_unit *);
/* models_disk.c: each model has a directory in kv_disk, and its share of kv_disk_bytes. Errors of the
 * first: ERR_INVALID (the name is too long); of the second: those of kv_dir_open. */
status models_disk_plan(models *, err *);
status models_disk_open(models *, err *);
/* models_port.c */
void models_port_open(models *, uint64_t created);
void models_closed_port(model_unit *, uint64_t created);

#endif
