/* An incremental parser of event streams. Owns the line and the event in progress. */
#include "load/sse.h"

void load_sse_init(load_sse *s, void (*event)(void *, str, uint64_t), void *self) {
    *s = (load_sse){.event = event, .self = self};
    buf_init(&s->line, NULL);
    buf_init(&s->data, NULL);
}

void load_sse_clear(load_sse *s) {
    buf_clear(&s->line);
    buf_clear(&s->data);
}

bool load_sse_failed(const load_sse *s) {
    return s->line.failed || s->data.failed;
}

static void on_line(load_sse *s, str line, uint64_t t_us) {
    if (line.len == 0) {
        if (s->has_data) s->event(s->self, buf_str(&s->data), t_us);
        s->has_data = false;
        s->data.len = 0;
        return;
    }
    if (!str_starts(line, STR("data")) || (line.len > 4 && line.ptr[4] != ':')) return;
    str value = line.len > 5 ? (str){line.ptr + 5, line.len - 5} : STR("");
    if (value.len && value.ptr[0] == ' ') value = (str){value.ptr + 1, value.len - 1};
    if (s->has_data) buf_addc(&s->data, '\n');
    buf_add(&s->data, value);
    s->has_data = true;
}

void load_sse_feed(load_sse *s, str piece, uint64_t t_us) {
    for (size_t i = 0; i < piece.len;) {
        if (s->after_cr && piece.ptr[i] == '\n') {
            s->after_cr = false;
            i++;
            continue;
        }
        s->after_cr = false;
        size_t n = 0, left = piece.len - i;
        const char *p = piece.ptr + i;
        while (n < left && p[n] != '\n' && p[n] != '\r') n++;
        buf_add(&s->line, (str){p, n});
        i += n;
        if (n == left) return;
        s->after_cr = p[n] == '\r';
        i++;
        on_line(s, buf_str(&s->line), t_us);
        s->line.len = 0;
    }
}
