/* The transport of a group whose ranks have no memory in common (engine/group.h): each has a copy, laid out as
 * the one memory would be, and messages carry into it what others write. A message is a list of records: a
 * piece of memory, or a word that is said. A rank takes from another only what that one may write.
 *
 *   message   message_head, then records
 *   record    record, then n_rows x row_bytes, to a multiple of 8
 *
 * What is said follows what was put before it. Of a step only lines go that differ from what went into
 * the same place before: in decoding few of its tables change.
 *
 * A thread of its own receives while the engine computes, says five times a second that the process is there
 * and how far it is, and notices a rank that says nothing for LINK_SILENT_MS: the link is lost then, and the
 * group broken, as it is when a message is of another version. */
#ifndef VRAMD_ENGINE_LINK_H
#define VRAMD_ENGINE_LINK_H

#include "engine/group.h"
#include "engine/wire.h"

enum {
    LINK_CHUNK = GROUP_MESSAGE_BYTES,
    LINK_BYTES = GROUP_BUFFER_BYTES,
    LINK_SILENT_MS = 4000
};

typedef struct group_link group_link;

/* Borrows the wire, which link_close closes. Errors: ERR_NO_MEMORY. */
status link_open(group_link **, wire *, const char *build, err *);
/* ended: the group has ended as it should, and all ranks close; else the others learn that this one ends, and
 * why. */
void link_close(group_link *, bool ended, const err *why);
/* OK while nothing is lost. Errors: ERR_UNAVAILABLE (another version), ERR_DEVICE. */
status link_error(const group_link *, err *);

/* Another rank: waits for the sizes that rank 0 says. Errors: link_error's, ERR_UNAVAILABLE (no such group). */
status link_await_shape(group_link *, group_shape *out, err *);
/* The group's memory is this rank's copy from now on, group_lay(shape).bytes that were zero before group_init;
 * rank 0 says its sizes to the others. Errors: ERR_NO_MEMORY. */
status link_attach(group_link *, group *, err *);
/* Rank 0: waits until the others have attached theirs. */
status link_await_attached(group_link *, err *);
/* Another rank: waits until rank 0 says a state (group_say), which follows its note. */
status link_await_note(group_link *, err *);

#endif
