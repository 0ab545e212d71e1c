/* UTF-8 (RFC 3629): no surrogates, no overlong forms, nothing above U+10FFFF. */
#ifndef VRAMD_BASE_UTF8_H
#define VRAMD_BASE_UTF8_H

#include <stdbool.h>

#include "base/str.h"

enum { UTF8_BAD = -1, UTF8_SHORT = -2 };

/* Decodes the character at s[0..n). Returns its length 1..4 and sets *cp; UTF8_BAD when the
 * bytes cannot begin one; UTF8_SHORT when they are a proper prefix of one. n >= 1. */
int utf8_decode(const char *s, size_t n, uint32_t *cp);
/* Writes 1..4 bytes; returns how many. cp must be a scalar value. */
int utf8_encode(uint32_t cp, char out[4]);
bool utf8_valid(str);
size_t utf8_chars(str); /* code points of a valid text */
/* Length of the longest prefix that does not end inside a character. Bytes that can never
 * become valid count as complete, so that nothing is held back for ever. */
size_t utf8_complete(str);
/* Number of bytes that s takes with each maximal ill-formed part as U+FFFD (the practice of
 * Unicode 15, section 3.9), written to out unless out is NULL. */
size_t utf8_sanitise(str s, char *out);

#endif
