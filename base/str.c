/* Borrowed strings and the notation of byte counts. Owns nothing; any thread. */
#include "base/str.h"

#include <math.h>
#include <stdio.h>
#include <strings.h>

#include "base/check.h"

size_t str_find(str hay, str needle, size_t from) {
    if (from > hay.len || needle.len > hay.len - from) return SIZE_MAX;
    if (needle.len == 0) return from;
    const char *at = memmem(hay.ptr + from, hay.len - from, needle.ptr, needle.len);
    return at ? (size_t)(at - hay.ptr) : SIZE_MAX;
}

/* What a unit stands for; 0 for none that is known. */
static uint64_t unit_bytes(str unit) {
    static const struct {
        const char *name;
        uint64_t bytes;
    } units[] = {{"", 1},
                 {"B", 1},
                 {"K", 1u << 10},
                 {"KiB", 1u << 10},
                 {"KB", 1000},
                 {"M", 1u << 20},
                 {"MiB", 1u << 20},
                 {"MB", 1000000},
                 {"G", 1u << 30},
                 {"GiB", 1u << 30},
                 {"GB", 1000000000},
                 {"T", 1ull << 40},
                 {"TiB", 1ull << 40},
                 {"TB", 1000000000000}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strlen(units[i].name) == unit.len &&
            (unit.len == 0 || strncasecmp(units[i].name, unit.ptr, unit.len) == 0))
            return units[i].bytes;
    return 0;
}

/* Digits are read here, not by strtod: that knows exponents, hexadecimal and locales, and
 * loses whole numbers beyond 2^53. */
bool str_parse_bytes(str s, uint64_t *out) {
    uint64_t whole = 0;
    double fraction = 0, digit = 1;
    size_t i = 0;
    bool fractional = false;
    for (; i < s.len && s.ptr[i] >= '0' && s.ptr[i] <= '9'; i++)
        if (!mul_u64(whole, 10, &whole) || !add_u64(whole, (uint64_t)(s.ptr[i] - '0'), &whole))
            return false;
    if (i == 0) return false;
    if (i < s.len && s.ptr[i] == '.') {
        fractional = true;
        for (i++; i < s.len && s.ptr[i] >= '0' && s.ptr[i] <= '9'; i++)
            fraction += (digit /= 10) * (s.ptr[i] - '0');
        if (s.ptr[i - 1] == '.') return false;
    }
    while (i < s.len && s.ptr[i] == ' ') i++;
    uint64_t unit = unit_bytes((str){s.ptr + i, s.len - i});
    if (unit == 0 || (unit == 1 && fractional)) return false;
    return mul_u64(whole, unit, &whole) &&
           add_u64(whole, (uint64_t)llround(fraction * (double)unit), out);
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
    while (v >= (u ? 1023.95 : 1024) && u < 4) v /= 1024, u++;
    snprintf(buf, 32, u == 0 ? "%.0f %s" : "%.1f %s", v, unit[u]);
    return buf;
}
