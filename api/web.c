/* GET / and /web/NAME: the page people look at, out of the binary. Owns nothing. Loop thread. */
#include "api/web.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/app.h"
#include "api/web_files.h"

static const char policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

void web_guard(http_request *rq) {
    http_set(rq, "Content-Security-Policy", policy);
    http_set(rq, "X-Content-Type-Options", "nosniff");
    http_set(rq, "Referrer-Policy", "no-referrer");
}

/* The q of one member of Accept-Encoding, from what is behind its name; 1 without one. */
static double quality(str params) {
    char text[8];
    for (size_t i = 0; i + 1 < params.len; i++) {
        if ((params.ptr[i] | 32) != 'q' || params.ptr[i + 1] != '=') continue;
        snprintf(text, sizeof text, "%.*s", (int)(params.len - i - 2), params.ptr + i + 2);
        return strtod(text, NULL);
    }
    return 1;
}

static bool is_named(str name, const char *word) {
    return name.len == strlen(word) && strncasecmp(name.ptr, word, name.len) == 0;
}

bool web_takes_gzip(const char *list) {
    double gzip = -1, any = 0;
    for (str one; list && app_next_name(&list, &one);) {
        const size_t n = strcspn(one.ptr, ";, \t");
        const str name = {one.ptr, n < one.len ? n : one.len};
        const double q = quality((str){one.ptr + name.len, one.len - name.len});
        if (is_named(name, "gzip") || is_named(name, "x-gzip")) gzip = q;
        if (is_named(name, "*")) any = q;
    }
    return (gzip < 0 ? any : gzip) > 0;
}

web_asker web_asker_of(http_request *rq) {
    const char *known = http_header(rq, "If-None-Match");
    return (web_asker){.known = known ? arena_str(&rq->mem, str_of(known)).ptr : NULL,
                       .gzip = web_takes_gzip(http_header(rq, "Accept-Encoding"))};
}

static bool has_it(const web_asker *a, const char *tag) {
    return a->known && (strcmp(a->known, "*") == 0 || strstr(a->known, tag));
}

void web_answer(http_request *rq, const web_asker *a, const char *type, const char *tag,
                str plain, str gzip) {
    const bool packed = gzip.len && a->gzip;
    char etag[32];
    snprintf(etag, sizeof etag, "\"%s%s\"", tag, packed ? "-gzip" : "");
    web_guard(rq);
    http_set(rq, "ETag", arena_str(&rq->mem, str_of(etag)).ptr);
    http_set(rq, "Cache-Control", "no-cache");
    if (gzip.len) http_set(rq, "Vary", "Accept-Encoding");
    if (has_it(a, tag)) {
        http_answer(rq, 304, NULL, (str){NULL, 0});
        return;
    }
    if (packed) http_set(rq, "Content-Encoding", "gzip");
    http_answer(rq, 200, type, packed ? gzip : plain);
}

static const web_file *file_of(str name) {
    for (size_t i = 0; i < n_web_files; i++)
        if (str_eqz(name, web_files[i].name)) return &web_files[i];
    return NULL;
}

static void answer_file(http_request *rq, const web_file *f) {
    const web_asker a = web_asker_of(rq);
    web_answer(rq, &a, f->type, f->tag, f->plain, f->gzip);
}

void web_run(app *app, http_request *rq) {
    const str path = app_path(rq->path), folder = STR("/web/");
    const web_file *f = file_of((str){path.ptr + folder.len, path.len - folder.len});
    failure why;
    (void)app;
    if (f) {
        answer_file(rq, f);
        return;
    }
    failure_set(&why, API_NOT_FOUND, "there is no %.80s here", rq->path.ptr);
    http_refuse(rq, &why);
}

void root_run(app *app, http_request *rq) {
    const web_file *page = app->opt.web_page ? file_of(STR("index.html")) : NULL;
    if (page) {
        answer_file(rq, page);
        return;
    }
    http_answer(rq, 200, "text/plain; charset=utf-8",
                STR("vramd " VRAMD_VERSION "\nPOST /v1/completions, /v1/chat/completions, "
                    "/v1/responses, /v1/messages\n"
                    "GET /v1/models, /v1/memory, /metrics, /health, /ready, /livez\n"));
}
