/* What rank 0 and the others say to each other, in the group's memory. One build on both sides: group_join has
 * compared. */
#ifndef VRAMD_DAEMON_RANK_NOTE_H
#define VRAMD_DAEMON_RANK_NOTE_H

#include "conf/options.h"
#include "memory/ledger.h"
#include "memory/plan.h"

enum {
    RANK_FD = 3,           /* the descriptor of that memory in their processes */
    RANK_MOST_DEVICES = 32 /* what ranks beyond them have on devices is not shown */
};

typedef struct rank_note {
    options opt; /* resolved */
    int parent;  /* process */
    uint64_t kv_tokens;
    uint32_t n_blocks[PLAN_MAX_GROUPS];
    /* What they say: what each has on its device, once it has loaded, from when on nothing moves there. */
    ledger_view device[RANK_MOST_DEVICES];
} rank_note;

#endif
