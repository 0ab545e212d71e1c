/* Why a path is no checkpoint that can be read here, for those who name something else: a name
 * on a hub, a directory, a file of another format. Reads the first bytes of the file at most. */
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/checkpoint_explain.h"

#define CONVERT "convert it to GGUF with llama.cpp's convert_hf_to_gguf.py; "

static bool ends(const char *s, const char *tail) {
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && strcasecmp(s + n - k, tail) == 0;
}

/* "hf:...", "https://...", "Org/Model": names of places to download from. */
static bool names_remote(const char *path) {
    const char *slash = strchr(path, '/');
    if (strncmp(path, "hf:", 3) == 0 || strstr(path, "://")) return true;
    return slash && slash != path && path[0] != '.' && !strchr(slash + 1, '/') &&
           !ends(path, ".gguf") && !ends(path, ".json");
}

/* The first of the names in the directory that ends in tail, by name. */
static bool first_inside(const char *dir, const char *tail, char out[256]) {
    DIR *d = opendir(dir);
    out[0] = '\0';
    if (!d) return false;
    for (struct dirent *f; (f = readdir(d));)
        if (ends(f->d_name, tail) && (!out[0] || strcmp(f->d_name, out) < 0))
            snprintf(out, 256, "%s", f->d_name);
    closedir(d);
    return out[0] != '\0';
}

static status explain_directory(const char *path, err *e) {
    char name[256];
    size_t n = strlen(path);
    const char *slash = n && path[n - 1] == '/' ? "" : "/";
    err_set(e, ERR_INVALID, "%.200s is a directory", path);
    err_field(e, "model");
    if (first_inside(path, ".gguf", name))
        return err_hint(e, "name the file in it: %.100s%s%.100s", path, slash, name);
    if (first_inside(path, ".safetensors", name))
        return err_hint(e,
                        "the config.json that the model was published with is missing in it");
    return err_hint(e, "name a .gguf file, or a folder with config.json and safetensors");
}

/* Kinds of files that people name, by their first bytes. */
static status explain_content(const char *path, const char *head, size_t n, err *e) {
    const bool safetensors = n >= 9 && head[8] == '{' && !memcmp(head + 5, "\0\0\0", 3);
    if (safetensors) {
        err_set(e, ERR_UNSUPPORTED, "%.200s is a safetensors file without its ending", path);
        err_hint(e, "name the folder that it was published in, with its config.json");
    } else if (n >= 4 && (!memcmp(head, "PK\3\4", 4) || !memcmp(head, "\x80\2", 2))) {
        err_set(e, ERR_UNSUPPORTED, "%.200s is a PyTorch file, not a GGUF file", path);
        err_hint(e, CONVERT "vramd plan takes the config.json beside it as it is");
    } else if (n >= 23 && !memcmp(head, "version https://git-lfs", 23)) {
        err_set(e, ERR_FORMAT, "%.200s is a Git LFS pointer, not the file itself", path);
        err_hint(e, "run git lfs pull in its folder, or download the file again");
    } else {
        return e->code;
    }
    return err_field(e, "model");
}

status checkpoint_explain(const char *path, err *e) {
    char head[64];
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) return explain_directory(path, e);
    if (e->code == ERR_NOT_FOUND && names_remote(path))
        return err_hint(e, "vramd reads local files: download a .gguf file first, then name "
                           "it (README, \"Getting a model\")");
    if (e->code == ERR_NOT_FOUND && strchr(path, ','))
        return err_hint(e, "one file is served; of a split one, name any part");
    if (e->code != ERR_FORMAT || strcmp(e->field, "magic") != 0) return e->code;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, head, sizeof head);
    if (fd >= 0) close(fd);
    return explain_content(path, head, n < 0 ? 0 : (size_t)n, e);
}
