/* Cross-origin requests of browsers (Fetch standard, "HTTP-CORS protocol"). Pure. */
#ifndef VRAMD_API_CORS_H
#define VRAMD_API_CORS_H

#include <stdbool.h>

/* Whether each word of a list (blanks or commas between) is "*", scheme://host[:port], or
 * "localhost": pages of this machine, at any port. Else *bad is where the first wrong one
 * begins. */
bool cors_list_ok(const char *list, const char **bad);
/* The value of Access-Control-Allow-Origin: "*", or origin itself; NULL: none. */
const char *cors_match(const char *list, const char *origin);
/* Whether answers differ by origin: what caches have to know. */
bool cors_varies(const char *list);
/* Names of headers as a preflight lists them: what may be said back. */
bool cors_names_ok(const char *names);

#endif
