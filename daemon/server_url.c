/* Reads what names a server. Owns nothing. Main thread. */
#include "daemon/server_url.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

static status refuse(const char *flag, const char *word, err *e) {
    err_set(e, ERR_INVALID, "%s %.80s is not a URL like http://127.0.0.1:8000", flag, word);
    err_field(e, "%s", flag);
    return err_hint(e, "http://HOST:PORT, https://HOST:PORT or unix:/path");
}

status server_url_read(server_url *out, const char *flag, const char *word, err *e) {
    const str unix_scheme = STR("unix:");
    const str w = str_of(word);
    *out = (server_url){0};
    if (str_starts(w, unix_scheme)) {
        const char *path = word + unix_scheme.len;
        if (*path != '/' || strlen(path) >= sizeof out->socket) return refuse(flag, word, e);
        strcpy(out->socket, path);
        strcpy(out->url, "http://localhost");
        return OK;
    }
    size_t n = w.len;
    if ((!str_starts(w, STR("http://")) && !str_starts(w, STR("https://"))) ||
        n >= sizeof out->url || n < 9)
        return refuse(flag, word, e);
    memcpy(out->url, word, n + 1);
    while (out->url[n - 1] == '/') out->url[--n] = 0;
    if (n > 11 && !strcmp(out->url + n - 3, "/v1")) out->url[n - 3] = 0;
    return OK;
}

status server_key_read(const char *path, char *out, size_t cap, err *e) {
    FILE *f = fopen(path, "r");
    if (!f || !fgets(out, (int)cap, f)) {
        err_set(e, ERR_IO, "no key in %s: %s", path, f ? "it is empty" : strerror(errno));
        if (f) fclose(f);
        return err_hint(e, "--api-key-file FILE with the key on its first line");
    }
    fclose(f);
    out[strcspn(out, " \t\r\n")] = 0;
    return *out ? OK : err_set(e, ERR_INVALID, "no key on the first line of %s", path);
}
