/* dlopen of libcurl. Owns nothing that is ever closed: a library with threads and a TLS library
 * below it is not taken out of a process. */
#include "load/curl.h"

#include <dlfcn.h>

curl_api curl;

/* Debian's with GnuTLS, which vramd has anyway; any other. */
static void *open_library(void) {
    static const char *const name[] = {"libcurl-gnutls.so.4", "libcurl.so.4"};
    void *so = NULL;
    for (int i = 0; i < 2 && !so; i++) so = dlopen(name[i], RTLD_NOW | RTLD_LOCAL);
    return so;
}

static status missing(err *e) {
    err_set(e, ERR_NOT_FOUND, "libcurl cannot be loaded: %s", dlerror());
    return err_hint(e, "apt install libcurl3-gnutls");
}

status load_curl(err *e) {
    if (curl.global_init) return OK;
    curl_api api;
    void *so = open_library();
    if (!so) return missing(e);
#define X(name)                                                                                \
    if (!(*(void **)&api.name = dlsym(so, "curl_" #name))) return missing(e);
    CURL_FUNCTIONS(X)
#undef X
    if (api.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return err_set(e, ERR_NO_MEMORY, "libcurl does not start");
    curl = api;
    return OK;
}
