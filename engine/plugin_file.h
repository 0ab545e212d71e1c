/* Plugins of the engine: shared libraries that have a file of their own, so that the binary needs nothing that they need.
 * Once loaded they stay. The thread that opens. */
#ifndef VRAMD_ENGINE_PLUGIN_FILE_H
#define VRAMD_ENGINE_PLUGIN_FILE_H

#include <stdbool.h>

enum { PLUGIN_PATH = 1024 };

/* Loads `named` or, where that is "", the file of this name beside the binary or where packages put it. global: its
 * symbols are for all that is loaded later. path: what was tried. NULL: it cannot be loaded, *why is the linker's
 * word on it, or NULL where there is no such file. */
void *plugin_load(const char *named, const char *file, bool global, char path[PLUGIN_PATH],
                  const char **why);

#endif
