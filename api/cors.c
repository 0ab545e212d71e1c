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

bool cors_list_ok(const char *list, const char **bad) {
    const char *at = list;
    for (size_t n; (n = next_word(&at, bad)) > 0;)
        if (!is_any(*bad, n) && !is_origin(*bad, n)) return false;
    return true;
}

const char *cors_match(const char *list, const char *origin) {
    const char *at = list, *word, *found = NULL;
    if (!origin) return NULL;
    for (size_t n; (n = next_word(&at, &word)) > 0;) {
        if (is_any(word, n)) return "*";
        if (strlen(origin) == n && strncasecmp(word, origin, n) == 0) found = origin;
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
