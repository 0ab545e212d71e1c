/* Matching peers with networks. */
#include "api/proxies.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ENTRY = INET6_ADDRSTRLEN + 4, V4_BITS = 32, V6_BITS = 128, MAPPED_BITS = 96 };

/* All addresses as IPv6: those of IPv4 as ::ffff:a.b.c.d. */
typedef struct network {
    bool is_unix;
    unsigned bits;
    uint8_t at[V6_BITS / 8];
} network;

static void map_v4(uint8_t at[V6_BITS / 8], const struct in_addr *v4) {
    memset(at, 0, 10);
    memset(at + 10, 0xff, 2);
    memcpy(at + 12, v4, sizeof *v4);
}

static bool parse_bits(const char *text, unsigned most, unsigned *bits) {
    const size_t n = strspn(text, "0123456789");
    if (n == 0 || n > 3 || text[n] != '\0') return false;
    *bits = (unsigned)strtoul(text, NULL, 10);
    return *bits <= most;
}

static bool parse(const char *word, size_t n, network *out) {
    char text[MAX_ENTRY + 1];
    struct in_addr v4;
    *out = (network){.bits = V6_BITS};
    if (n > MAX_ENTRY) return false;
    memcpy(text, word, n);
    text[n] = '\0';
    out->is_unix = strcmp(text, "unix") == 0;
    if (out->is_unix) return true;
    char *slash = strchr(text, '/');
    if (slash) *slash = '\0';
    const bool is_v4 = inet_pton(AF_INET, text, &v4) == 1;
    if (is_v4)
        map_v4(out->at, &v4);
    else if (inet_pton(AF_INET6, text, out->at) != 1)
        return false;
    if (!slash) return true;
    if (!parse_bits(slash + 1, is_v4 ? V4_BITS : V6_BITS, &out->bits)) return false;
    if (is_v4) out->bits += MAPPED_BITS;
    return true;
}

static bool next(const char **at, const char **word, size_t *n) {
    *word = *at + strspn(*at, " \t,");
    *n = strcspn(*word, " \t,");
    *at = *word + *n;
    return *n > 0;
}

static bool covers(const network *net, const uint8_t at[V6_BITS / 8]) {
    const unsigned whole = net->bits / 8, rest = net->bits % 8;
    if (memcmp(net->at, at, whole) != 0) return false;
    return rest == 0 || (net->at[whole] ^ at[whole]) >> (8 - rest) == 0;
}

bool proxies_list_ok(const char *list, const char **bad) {
    network net;
    size_t n;
    for (const char *at = list; next(&at, bad, &n);)
        if (!parse(*bad, n, &net)) return false;
    return true;
}

bool proxies_have(const char *list, const struct sockaddr *peer) {
    uint8_t own[V6_BITS / 8] = {0};
    const bool is_unix = peer->sa_family == AF_UNIX;
    const char *word;
    network net;
    size_t n;
    if (peer->sa_family == AF_INET)
        map_v4(own, &((const struct sockaddr_in *)(const void *)peer)->sin_addr);
    else if (peer->sa_family == AF_INET6)
        memcpy(own, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr, sizeof own);
    else if (!is_unix)
        return false;
    for (const char *at = list; next(&at, &word, &n);)
        if (parse(word, n, &net) && net.is_unix == is_unix && (is_unix || covers(&net, own)))
            return true;
    return false;
}
