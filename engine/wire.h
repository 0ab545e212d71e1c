/* Messages between the processes of a group, as MPI has them: nothing blocks, and messages from one process
 * to another arrive in their order.
 *
 * Threads: one at a time. */
#ifndef VRAMD_ENGINE_WIRE_H
#define VRAMD_ENGINE_WIRE_H

#include <stdbool.h>
#include <stdint.h>

enum { WIRE_SLOTS = 16 };

typedef struct wire wire;
struct wire {
    uint32_t rank, n_ranks;
    uint32_t n_here;   /* of them, on this machine; 0: as if it had a machine alone */
    uint32_t n_beside; /* of those, on cores that this rank may use, itself too */
    void *self;
    /* These return NULL, or why it failed.
     * send: a message to another rank, as one of those of a slot (below WIRE_SLOTS). Borrowed until it is sent.
     * receive: bytes of a message and whose it is; 0: none has arrived as a whole. Until one has, `to` is the
     * same each time. */
    const char *(*send)(wire *, uint32_t slot, uint32_t to, const void *, uint32_t bytes);
    const char *(*receive)(wire *, void *to, uint32_t cap, uint32_t *from, uint32_t *bytes);
    /* All messages of a slot have been taken from their memory. */
    bool (*sent)(wire *, uint32_t slot);
    /* together: all ranks close theirs now, and this one waits for them. Without it nothing is waited for. */
    void (*close)(wire *, bool together);
};

#endif
