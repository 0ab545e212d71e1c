/* Finds and loads vramd-mpi.so (engine/mpi/plugin.h), and puts an end to what MPI would wait for without one. Main
 * thread. */
#ifndef VRAMD_ENGINE_MPI_LOAD_H
#define VRAMD_ENGINE_MPI_LOAD_H

#include "base/err.h"
#include "engine/wire.h"

enum { MPI_OPEN_S = 60, MPI_CLOSE_S = 10 };

/* path: of the option mpi_plugin; "": beside the binary, or where packages put it. Errors: ERR_NOT_FOUND,
 * ERR_UNSUPPORTED (it cannot be loaded, or is of another version). */
status mpi_wire_check(const char *path, err *);
/* Joins the processes that a launcher started. The process ends with ERR_UNAVAILABLE's exit code where that
 * takes longer than MPI_OPEN_S, or closing together longer than MPI_CLOSE_S. Errors, too: ERR_UNAVAILABLE. */
status mpi_wire_open(wire *out, const char *path, err *);

#endif
