/* GET /docs/NAME: the rendered documentation, out of a folder. Loop thread. */
#ifndef VRAMD_API_DOCS_H
#define VRAMD_API_DOCS_H

#include "base/err.h"

/* Opens the folder of the option docs_dir; "": that of a package or of a build, by where the program is; *fd is -1
 * where there is none. Errors: ERR_NOT_FOUND, ERR_IO (field docs_dir). */
status docs_open(int *fd, const char *option, err *);

#endif
