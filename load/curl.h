/* libcurl, loaded when a load is to be made and not before: a server that never makes one does
 * not carry it, nor the twenty libraries that come with it. */
#ifndef VRAMD_LOAD_CURL_H
#define VRAMD_LOAD_CURL_H

#include <curl/curl.h>

#include "base/err.h"

#define CURL_FUNCTIONS(X)                                                                      \
    X(easy_cleanup)                                                                            \
    X(easy_getinfo)                                                                            \
    X(easy_init)                                                                               \
    X(easy_perform)                                                                            \
    X(easy_setopt)                                                                             \
    X(easy_strerror)                                                                           \
    X(global_init)                                                                             \
    X(multi_add_handle)                                                                        \
    X(multi_assign)                                                                            \
    X(multi_cleanup)                                                                           \
    X(multi_info_read)                                                                         \
    X(multi_init)                                                                              \
    X(multi_remove_handle)                                                                     \
    X(multi_setopt)                                                                            \
    X(multi_socket_action)                                                                     \
    X(multi_strerror)                                                                          \
    X(slist_append)                                                                            \
    X(slist_free_all)

/* curl_easy_init is curl.easy_init, and so on. Filled by load_curl. */
typedef struct curl_api {
#define X(name) __typeof__(curl_##name) *name;
    CURL_FUNCTIONS(X)
#undef X
} curl_api;
extern curl_api curl;

/* Loads the library and starts it (curl_global_init), once in a process: it stays. Not
 * thread-safe. ERR_NOT_FOUND: it is not installed. ERR_NO_MEMORY: it does not start. */
status load_curl(err *);

#endif
