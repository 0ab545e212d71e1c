/* Lines of a text that match a regular expression (PCRE2) are taken out: whole lines, at whose
 * beginning ^ matches. One thread; its memory, some 25 KiB, is malloc's. */
#ifndef VRAMD_TEXT_STRIP_LINES_H
#define VRAMD_TEXT_STRIP_LINES_H

#include "base/buf.h"
#include "base/err.h"

typedef struct line_filter line_filter;

/* "" gives NULL, which takes out none. Errors: ERR_INVALID (with what and where), ERR_NO_MEMORY. */
status line_filter_open(line_filter **, const char *pattern, err *);
void line_filter_free(line_filter *);
/* How many lines of text, valid UTF-8, match; where some do, *out gets the text without them and the
 * ends of those lines (the last line's is the one before it), else nothing. A line at which PCRE2 gives
 * up stays. */
uint32_t line_filter_cut(line_filter *, str text, buf *out);

#endif
