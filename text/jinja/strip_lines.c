/* PCRE2 behind strip_lines.h. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/jinja/strip_lines.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "memory/term.h"

struct line_filter {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
};

/* No pattern that an operator would write needs more for a line. */
enum { MATCH_LIMIT = 100000, HEAP_KIB = 64 };

static status no_memory(err *e) {
    return mem_exhausted(e, MEM_RUNTIME, "the pattern of lines to strip");
}

status line_filter_open(line_filter **out, const char *pattern, err *e) {
    int code = 0;
    size_t at = 0;
    *out = NULL;
    if (!pattern || !pattern[0]) return OK;
    line_filter *f = calloc(1, sizeof *f);
    if (!f) return no_memory(e);
    f->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                            PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    if (!f->code) {
        PCRE2_UCHAR text[120];
        pcre2_get_error_message(code, text, sizeof text);
        line_filter_free(f);
        if (code == PCRE2_ERROR_HEAP_FAILED) return no_memory(e);
        return err_set(e, ERR_INVALID, "the pattern does not compile at %zu: %s", at,
                       (const char *)text);
    }
    f->match = pcre2_match_data_create(1, NULL);
    f->limits = pcre2_match_context_create(NULL);
    if (!f->match || !f->limits) {
        line_filter_free(f);
        return no_memory(e);
    }
    pcre2_set_match_limit(f->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(f->limits, HEAP_KIB);
    *out = f;
    return OK;
}

void line_filter_free(line_filter *f) {
    if (!f) return;
    pcre2_match_data_free(f->match);
    pcre2_match_context_free(f->limits);
    pcre2_code_free(f->code);
    free(f);
}

/* The line at `at`, without its end. */
static str line_at(str text, size_t at) {
    const char *end = memchr(text.ptr + at, '\n', text.len - at);
    return (str){text.ptr + at, end ? (size_t)(end - text.ptr) - at : text.len - at};
}

static bool matches(const line_filter *f, str line) {
    return pcre2_match(f->code, (PCRE2_SPTR)line.ptr, line.len, 0, PCRE2_NO_UTF_CHECK, f->match,
                       f->limits) >= 0;
}

uint32_t line_filter_cut(line_filter *f, str text, buf *out) {
    uint32_t n = 0;
    size_t kept = 0; /* text before it is in out, or was cut */
    for (size_t at = 0; f && at < text.len;) {
        const str line = line_at(text, at);
        const size_t next = at + line.len + (at + line.len < text.len);
        if (matches(f, line)) {
            buf_add(out, (str){text.ptr + kept, at - kept});
            kept = next;
            n++;
        }
        at = next;
    }
    if (n == 0) return 0;
    buf_add(out, (str){text.ptr + kept, text.len - kept});
    /* Where the last line has gone, the end of the one before it goes with it. */
    const bool ended = text.ptr[text.len - 1] == '\n';
    if (kept == text.len && !ended && out->len > 0 && out->ptr[out->len - 1] == '\n')
        out->len--;
    return n;
}
