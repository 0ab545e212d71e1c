/* What rank 0 says to the others, in the group's memory. One build on both sides: group_join has compared. */
#ifndef VRAMD_DAEMON_RANK_NOTE_H
#define VRAMD_DAEMON_RANK_NOTE_H

#include "conf/options.h"
#include "memory/plan.h"

enum { RANK_FD = 3 }; /* the descriptor of that memory in their processes */

typedef struct rank_note {
    options opt; /* resolved */
    int parent;  /* process */
    uint64_t kv_tokens;
    uint32_t n_blocks[PLAN_MAX_GROUPS];
} rank_note;

#endif
