/* Server-sent events, from bytes that come in any pieces (WHATWG HTML, section 9.2.6). Lines
 * end with LF, CR LF or CR; data lines of an event are joined by LF; comments and other fields
 * pass by; an event without its empty line at the end of the stream is none. */
#ifndef VRAMD_LOAD_SSE_H
#define VRAMD_LOAD_SSE_H

#include "base/buf.h"

typedef struct load_sse {
    buf line, data;
    bool has_data, after_cr;
    /* data is borrowed for the call; t_us: the time given with the piece that ended it */
    void (*event)(void *self, str data, uint64_t t_us);
    void *self;
} load_sse;

void load_sse_init(load_sse *, void (*event)(void *, str, uint64_t), void *self);
void load_sse_feed(load_sse *, str piece, uint64_t t_us);
bool load_sse_failed(const load_sse *); /* no memory: events are missing */
void load_sse_clear(load_sse *);

#endif
