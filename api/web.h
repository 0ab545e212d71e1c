/* What a page in a browser is served with. Loop thread. */
#ifndef VRAMD_API_WEB_H
#define VRAMD_API_WEB_H

#include "api/http.h"

/* Of a file of the page or of the documentation: it may load what this server has, and nothing else, and no
 * other page may frame it. */
void web_guard(http_request *);
/* Whether the client takes gzip: by its Accept-Encoding, as RFC 9110 reads it; without one it does not. */
bool web_takes_gzip(const char *accept_encoding);
/* Answers with a file, or 304 where the client has it. tag: 16 hexadecimal digits of its content. gzip: the
 * same compressed; empty: it is not. Borrowed as by http_answer. */
void web_answer(http_request *, const char *type, const char *tag, str plain, str gzip);

#endif
