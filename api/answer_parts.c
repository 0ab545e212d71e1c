/* The parts of a choice's output: text, reasoning, calls of tools. The first part lies in the
 * choice itself, so that plain text takes no further memory. Owns nothing. */
#include "api/answer.h"

static void part_init(choice *c, answer_part *p, part_kind kind) {
    *p = (answer_part){.kind = kind};
    buf_init(&p->text, &c->a->rq->mem);
}

void choice_parts_init(choice *c) {
    c->parts = &c->own_part;
    c->n_parts = c->cap_parts = 1;
    part_init(c, c->parts, PART_TEXT);
}

/* Parts are moved when their list grows: keep no pointer to one across this. */
static answer_part *add(choice *c, part_kind kind) {
    answer_part *last = &c->parts[c->n_parts - 1];
    /* An empty one that no client has seen becomes the new one. */
    const bool unused = last->kind != PART_CALL && !last->text.len && !last->text.failed &&
                        !last->opened && !last->closed;
    if (unused) {
        last->kind = kind;
        return last;
    }
    if (c->n_parts == c->cap_parts) {
        uint32_t cap = 2 * c->cap_parts + 2;
        answer_part *more = arena_alloc(&c->a->rq->mem, cap * sizeof *more);
        if (!more) {
            last->text.failed = true;
            return last;
        }
        memcpy(more, c->parts, c->n_parts * sizeof *more);
        c->parts = more;
        c->cap_parts = cap;
    }
    choice_close_part(c);
    answer_part *p = &c->parts[c->n_parts++];
    part_init(c, p, kind);
    return p;
}

answer_part *choice_part(choice *c, part_kind kind) {
    answer_part *last = &c->parts[c->n_parts - 1];
    if (last->kind == kind && !last->closed) return last;
    return add(c, kind);
}

answer_part *choice_call(choice *c, str id, str name) {
    answer_part *p = add(c, PART_CALL);
    p->id = id;
    p->name = name;
    p->index = c->n_calls++;
    return p;
}

void choice_close_part(choice *c) {
    c->parts[c->n_parts - 1].closed = true;
}

bool choice_shows(const choice *c, uint32_t i) {
    const answer_part *p = &c->parts[i];
    return p->kind == PART_CALL || p->opened || p->text.len || (c->finish && c->n_parts == 1);
}

bool choice_failed(const choice *c) {
    bool failed = c->lp.failed || c->ids.failed;
    for (uint32_t i = c->first_unsent; i < c->n_parts; i++) failed |= c->parts[i].text.failed;
    return failed;
}
