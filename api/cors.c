/* Matching origins. Owns nothing. */
#include "api/cors.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

enum { MAX_NAMES = 1024 };

/* The next word at *at, which moves behind it; 0: none is left. */
static size_t next_word(const char **at, const char **word) {
    *word = *at + strspn(*at, " \t,");
    size_t n = strcspn(*word, " \t,");
    *at = *word + n;
    return n;
}

static bool is_any(const char *word, size_t n) {
    return n == 1 && *word == '*';
}

static bool is_origin(const char *word, size_t n) {
    static const char *const scheme[] = {"http://", "https://"};
    for (int i = 0; i < 2; i++) {
        size_t k = strlen(scheme[i]);
        if (n > k && strncasecmp(word, scheme[i], k) == 0) return !memchr(word + k, '/', n - k);
    }
    return n == 4 && strncmp(word, "null", 4) == 0; /* of files and sandboxes */
}

/* Pages of this machine, at any port: the keyword "localhost" (llama.cpp's). */
static bool is_local_word(const char *word, size_t n) {
    return n == 9 && strncasecmp(word, "localhost", n) == 0;
}

static bool is_local(const char *origin) {
    static const char *const host[] = {"localhost", "127.0.0.1", "[::1]"};
    if (strncasecmp(origin, "http", 4) != 0) return false;
    const char *at = origin + 4 + (origin[4] == 's' || origin[4] == 'S');
    if (strncmp(at, "://", 3) != 0) return false;
    at += 3;
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(host[i]);
        if (strncasecmp(at, host[i], n) != 0) continue;
        if (at[n] == '\0') return true;
        size_t k = at[n] == ':' ? strspn(at + n + 1, "0123456789") : 0;
        return k > 0 && at[n + 1 + k] == '\0';
    }
    return false;
}

bool cors_list_ok(const char *list, const char **bad) {
    const char *at = list;
    for (size_t n; (n = next_word(&at, bad)) > 0;)
        if (!is_any(*bad, n) && !is_origin(*bad, n) && !is_local_word(*bad, n)) return false;
    return true;
}

const char *cors_match(const char *list, const char *origin) {
    const char *at = list, *word, *found = NULL;
    if (!origin) return NULL;
    for (size_t n; (n = next_word(&at, &word)) > 0;) {
        if (is_any(word, n)) return "*";
        bool same = strlen(origin) == n && strncasecmp(word, origin, n) == 0;
        if (is_local_word(word, n) ? is_local(origin) : same) found = origin;
    }
    return found;
}

bool cors_varies(const char *list) {
    const char *at = list, *word;
    bool any = false;
    for (size_t n; (n = next_word(&at, &word)) > 0; any = true)
        if (is_any(word, n)) return false;
    return any;
}

bool cors_names_ok(const char *names) {
    size_t n = strlen(names);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)names[i]) && !strchr("-_, ", names[i])) return false;
    return n > 0 && n <= MAX_NAMES;
}
