/* What the bits of keys and values depend on besides the tokens, as one hash: blocks on disk are of
 * use to a process that has the same. */
#ifndef VRAMD_DAEMON_KV_FAMILY_H
#define VRAMD_DAEMON_KV_FAMILY_H

#include "daemon/kv/kv_file.h"
#include "daemon/machine.h"

/* Reads all weights, so that a file that was changed in place is another one. buffer: n bytes, at
 * least a row of any tensor. Errors: ERR_IO. */
status kv_family(const machine *, const kv_shape *, void *buffer, size_t n,
                 unsigned char out[KV_FILE_FAMILY], err *);

#endif
