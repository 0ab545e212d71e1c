/* The border between vramd and vramd-mpi.so, which is all that knows of MPI: the host build needs no MPI. The
 * plugin is built for one MPI, Debian's Open MPI: handles are pointers in one and integers in another. */
#ifndef VRAMD_ENGINE_MPI_PLUGIN_H
#define VRAMD_ENGINE_MPI_PLUGIN_H

#include "engine/wire.h"

enum { MPI_PLUGIN_ABI = 1 }; /* grows with this file and with wire.h */

typedef struct mpi_plugin {
    uint32_t abi;
    const char *version; /* of vramd */
    /* Once in a process: joins those that the launcher started, all of which must come. NULL, or why it
     * failed. */
    const char *(*open)(wire *out);
} mpi_plugin;

/* "vramd_mpi_plugin": NULL where the plugin has another ABI. */
typedef const mpi_plugin *vramd_mpi_plugin_function(uint32_t abi);

#endif
