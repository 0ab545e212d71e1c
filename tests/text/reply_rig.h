/* Runs a reply parser over an output that is cut at given places and writes its events as one
 * line: R reasoning, T text, C name#id, A arguments, E end of a call. */
#ifndef VRAMD_TESTS_TEXT_REPLY_RIG_H
#define VRAMD_TESTS_TEXT_REPLY_RIG_H

#include <check.h>
#include <stdlib.h>

#include "json/in.h"
#include "text/reply/reply.h"

typedef struct transcript {
    buf text;
    int last;
} transcript;

static inline void transcript_take(void *user, const reply_event *ev) {
    static const char letter[] = {'R', 'T', 'C', 'A', 'E'};
    transcript *t = user;
    if (t->last != (int)ev->kind || ev->kind == REPLY_CALL || ev->kind == REPLY_CALL_END)
        buf_addf(&t->text, "%s%c:", t->text.len ? "|" : "", letter[ev->kind]);
    t->last = (int)ev->kind;
    buf_add(&t->text, ev->text);
    if (ev->id.len) buf_addf(&t->text, "#" STR_FMT, STR_ARG(ev->id));
}

static inline const reply_format *format_named(const char *name) {
    for (size_t i = 0; i < reply_n_formats; i++)
        if (strcmp(reply_formats[i].name, name) == 0) return &reply_formats[i];
    ck_abort_msg("no format %s", name);
    return NULL;
}

/* The special token at the begin of s; -1: none. */
static inline int special_token_at(const reply_plan *p, str s) {
    int best = -1;
    for (uint32_t i = 0; i < p->n_special; i++)
        if (str_starts(s, p->special[i].text) &&
            (best < 0 || p->special[i].text.len > p->special[best].text.len))
            best = (int)i;
    return best;
}

/* Text with the texts of special tokens in it. */
static inline void push_text(reply_parser *r, const reply_plan *p, str s) {
    size_t from = 0;
    for (size_t i = 0; i < s.len;) {
        const int k = special_token_at(p, (str){s.ptr + i, s.len - i});
        if (k < 0) {
            i++;
            continue;
        }
        if (i > from) reply_push(r, (str){s.ptr + from, i - from});
        ck_assert(reply_push_token(r, p->special[k].id));
        from = i += p->special[k].text.len;
    }
    if (from < s.len) reply_push(r, (str){s.ptr + from, s.len - from});
}

/* cut: 0 all at once, SIZE_MAX each byte alone, else two parts. A cut within a special token is
 * moved behind it. */
static inline void push_cut(reply_parser *r, const reply_plan *p, str s, size_t cut) {
    size_t from = 0;
    for (size_t i = 0; i < s.len;) {
        const int k = special_token_at(p, (str){s.ptr + i, s.len - i});
        i += k < 0 ? 1 : p->special[k].text.len;
        const bool here = cut == SIZE_MAX || (from < cut && i >= cut);
        if (i < s.len && !here) continue;
        push_text(r, p, (str){s.ptr + from, i - from});
        from = i;
    }
}

#endif
