/* Case, white space and printability of characters as Python's str sees them. Pure; any thread. */
#include "text/jinja/jinja_value.h"

#include "text/jinja/jinja_unicode.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static bool in_ranges(const char_range *r, size_t n, uint32_t cp) {
    size_t lo = 0, hi = n; /* the first range that does not end before cp is in [lo, hi] */
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (r[mid].last < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && r[lo].first <= cp;
}

static int change(const case_row *r, size_t n, const case_several *several, size_t n_several,
                  uint32_t cp, uint32_t out[3]) {
    out[0] = cp;
    /* Rows of one delta may enclose others of stride 2, so all that begin before cp count. */
    for (size_t i = 0; i < n && r[i].first <= cp; i++)
        if (cp <= r[i].last && (cp - r[i].first) % (uint32_t)r[i].stride == 0) {
            out[0] = cp + (uint32_t)r[i].delta;
            return 1;
        }
    for (size_t i = 0; i < n_several && several[i].from <= cp; i++)
        if (several[i].from == cp) {
            int k = 0;
            while (k < 3 && several[i].to[k]) out[k] = several[i].to[k], k++;
            return k;
        }
    return 1;
}

int jinja_upper(uint32_t cp, uint32_t out[3]) {
    return change(upper_rows, COUNT(upper_rows), upper_several, COUNT(upper_several), cp, out);
}
int jinja_lower(uint32_t cp, uint32_t out[3]) {
    return change(lower_rows, COUNT(lower_rows), lower_several, COUNT(lower_several), cp, out);
}
int jinja_title(uint32_t cp, uint32_t out[3]) {
    return change(title_rows, COUNT(title_rows), title_several, COUNT(title_several), cp, out);
}
bool jinja_is_space(uint32_t cp) {
    if (cp < 0x80) return cp == ' ' || (cp >= 9 && cp <= 13) || (cp >= 28 && cp <= 31);
    return in_ranges(space_ranges, COUNT(space_ranges), cp);
}
bool jinja_is_printable(uint32_t cp) {
    if (cp < 0x80) return cp >= 0x20 && cp < 0x7f;
    return !in_ranges(unprintable_ranges, COUNT(unprintable_ranges), cp);
}
