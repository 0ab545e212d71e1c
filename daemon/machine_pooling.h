/* What the option embeddings means for a model. */
#ifndef VRAMD_DAEMON_MACHINE_POOLING_H
#define VRAMD_DAEMON_MACHINE_POOLING_H

#include "daemon/machine.h"

/* Sets m->pooling. An encoder gives vectors whether the option says so or not: it has nothing else to give.
 * Errors: ERR_UNSUPPORTED (field: embeddings). */
status machine_find_pooling(machine *, err *);

#endif
