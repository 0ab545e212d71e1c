/* Finds and loads a plugin. */
#include "engine/plugin_file.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool find(const char *file, char path[PLUGIN_PATH]) {
    static const char *const place[] = {"/", "/../lib/vramd/", "/usr/lib/vramd/"};
    enum { FIXED = 2 }; /* the places before it are the binary's folder and one beside that */
    char dir[512];
    const ssize_t n = readlink("/proc/self/exe", dir, sizeof dir - 1);
    dir[n < 0 ? 0 : n] = '\0';
    char *slash = strrchr(dir, '/');
    if (slash) *slash = '\0';
    for (int i = slash ? 0 : FIXED; i <= FIXED; i++) {
        snprintf(path, PLUGIN_PATH, "%s%s%s", i < FIXED ? dir : "", place[i], file);
        if (access(path, F_OK) == 0) return true;
    }
    snprintf(path, PLUGIN_PATH, "%s", file);
    return false;
}

void *plugin_load(const char *named, const char *file, bool global, char path[PLUGIN_PATH],
                  const char **why) {
    *why = NULL;
    if (*named)
        snprintf(path, PLUGIN_PATH, "%s", named);
    else if (!find(file, path))
        return NULL;
    void *lib = dlopen(path, RTLD_NOW | (global ? RTLD_GLOBAL : RTLD_LOCAL));
    if (!lib && access(path, F_OK) == 0) *why = dlerror();
    return lib;
}
