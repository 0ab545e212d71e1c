/* The files of web/, which are part of the binary: tools/embed.sh writes them as a C source when it is built. */
#ifndef VRAMD_API_WEB_FILES_H
#define VRAMD_API_WEB_FILES_H

#include "base/str.h"

typedef struct web_file {
    const char *name, *type;
    const char *tag; /* of its content: 16 hexadecimal digits */
    str plain, gzip; /* the file; the same by gzip */
} web_file;

extern const web_file web_files[]; /* [n_web_files] */
extern const size_t n_web_files;

#endif
