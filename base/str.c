/* Borrowed strings and the notation of byte counts. Owns nothing; any thread. */
#include "base/str.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

size_t str_find(str hay, str needle, size_t from) {
    if (from > hay.len || needle.len > hay.len - from) return SIZE_MAX;
    if (needle.len == 0) return from;
    const char *at = memmem(hay.ptr + from, hay.len - from, needle.ptr, needle.len);
    return at ? (size_t)(at - hay.ptr) : SIZE_MAX;
}

bool str_parse_bytes(str s, uint64_t *out) {
    static const struct {
        const char *name;
        double scale;
    } units[] = {{"", 1},         {"B", 1},        {"K", 1024.0},     {"KiB", 1024.0},
                 {"KB", 1e3},     {"M", 1048576.}, {"MiB", 1048576.}, {"MB", 1e6},
                 {"G", 0x1p30},   {"GiB", 0x1p30}, {"GB", 1e9},       {"T", 0x1p40},
                 {"TiB", 0x1p40}, {"TB", 1e12}};
    char z[48];
    if (s.len == 0 || s.len >= sizeof z || !isdigit((unsigned char)s.ptr[0])) return false;
    memcpy(z, s.ptr, s.len);
    z[s.len] = '\0';
    if (strchr(z, 'x') || strchr(z, 'X')) return false; /* strtod would read hexadecimal */
    char *end;
    double v = strtod(z, &end);
    while (*end == ' ') end++;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcasecmp(end, units[i].name) == 0) {
            double b = v * units[i].scale;
            if (!(b >= 0 && b < 0x1p63)) return false;
            /* Whole numbers without a unit stay exact beyond 2^53. */
            *out = units[i].scale == 1 && !strchr(z, '.') ? strtoull(z, NULL, 10)
                                                          : (uint64_t)llround(b);
            return true;
        }
    return false;
}

char *bytes_grouped(uint64_t n, char buf[32]) {
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n), o = 0;
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0) buf[o++] = ',';
        buf[o++] = digits[i];
    }
    buf[o] = '\0';
    return buf;
}

char *bytes_human(uint64_t n, char buf[32]) {
    static const char *unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)n;
    int u = 0;
    while (v >= 1024 && u < 4) v /= 1024, u++;
    snprintf(buf, 32, u == 0 ? "%.0f %s" : "%.1f %s", v, unit[u]);
    return buf;
}
