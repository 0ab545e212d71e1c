/* What a page in a browser is served with. Loop thread. */
#ifndef VRAMD_API_WEB_H
#define VRAMD_API_WEB_H

#include "api/http.h"

/* Of a file of the page or of the documentation: it may load what this server has, and nothing else, and no
 * other page may frame it. */
void web_guard(http_request *);
/* Whether the client takes gzip: by its Accept-Encoding, as RFC 9110 reads it; without one it does not. */
bool web_takes_gzip(const char *accept_encoding);
/* What a client has, and takes. */
typedef struct web_asker {
    const char *known; /* its If-None-Match, or NULL */
    bool gzip;
} web_asker;
web_asker web_asker_of(http_request *); /* as http_header: in begin and run only */
/* Answers with a file, or 304 where the client has it. tag: 16 hexadecimal digits of its content. gzip: the
 * same compressed; empty: it is not. Borrowed as by http_answer. */
void web_answer(http_request *, const web_asker *, const char *type, const char *tag, str plain,
                str gzip);

#endif
