/* What every engine asks of a batch before it uses any of it as an index. Pure; any thread. */
#ifndef VRAMD_ENGINE_BATCH_H
#define VRAMD_ENGINE_BATCH_H

#include "engine/engine.h"

/* drew: [n_drew]: which entries of the step submitted before drew a token.
 * Errors: ERR_INVALID (field "batch"). */
status batch_check(const batch *, const program *, const engine_options *, const bool *drew,
                   uint32_t n_drew, err *);

#endif
