/* A row of the table of paths (routes.c). Plain data. */
#ifndef VRAMD_API_ROUTE_H
#define VRAMD_API_ROUTE_H

#include "api/app.h"

enum {             /* flags of a route */
       GET = 1,    /* and HEAD */
       POST = 2,   /* with a JSON body */
       PREFIX = 4, /* and everything below the path */
       POLLED = 8, /* by machines, all the time: its log line is for debugging; needs no key */
       BARE = 16,  /* and without /v1, for clients whose base URL lacks it */
       AS_RESPONSES = 32, /* form of its refusals; else OpenAI's */
       AS_ANTHROPIC = 64,
       AS_OLLAMA = 128, /* and only with the option ollama_api */
       PUT = 256, /* with a JSON body; by the operator alone, as DELETE: app_may_administer */
       DELETE = 512,     /* without a body */
       OF_MODEL = 1024,  /* for one of the models, which must be loaded */
       STREAMS = 2048,   /* events, where the body has stream: true */
       GENERATES = 4096, /* not of a model that only gives embeddings */
       EMBEDS = 8192,    /* not of one that gives none */
       RANKS = 16384,    /* not of one that gives neither scores nor embeddings */
       OPEN = 32768,     /* needs no key, with the option web_page */
       OF_PAGE = 65536   /* there is none without that option */
};

typedef struct route {
    const char *path;
    unsigned flags;
    void (*run)(app *, http_request *); /* NULL: what is below it is refused */
} route;

/* openapi.c: the document of /openapi.json, of these paths and the table of parameters. */
void openapi_write(const app *, const route *, size_t n, buf *);

#endif
