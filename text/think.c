/* Counts tokens of reasoning by the marks in the output's bytes. Owns nothing. */
#include "text/think.h"

#include <string.h>

enum { BEFORE, WITHIN, FORCING, OVER };

void think_start(const think_limit *l, think_state *s) {
    *s = (think_state){.phase = l->open ? l->most ? WITHIN : FORCING : BEFORE};
}

/* Appends to the tail; whether the mark is in it. */
static bool sees(think_state *s, str piece, str mark) {
    const size_t cap = sizeof s->tail;
    if (piece.len > cap) piece = (str){piece.ptr + piece.len - cap, cap};
    const size_t space = cap - piece.len, keep = s->n_tail < space ? s->n_tail : space;
    memmove(s->tail, s->tail + s->n_tail - keep, keep);
    memcpy(s->tail + keep, piece.ptr, piece.len);
    s->n_tail = (uint8_t)(keep + piece.len);
    if (str_find((str){s->tail, s->n_tail}, mark, 0) == SIZE_MAX) return false;
    s->n_tail = 0;
    return true;
}

void think_take(const think_limit *l, think_state *s, const tokenizer *tok, int32_t token) {
    const str piece = tokenizer_piece(tok, token, true);
    if (s->phase == FORCING && ++s->n_forced == l->n_forced) s->phase = OVER;
    if (s->phase == BEFORE && sees(s, piece, l->begin))
        s->phase = l->most ? WITHIN : FORCING;
    else if (s->phase == WITHIN && sees(s, piece, l->end))
        s->phase = OVER;
    else if (s->phase == WITHIN && ++s->n_tokens == l->most)
        s->phase = FORCING;
}

int32_t think_must(const think_limit *l, const think_state *s) {
    return s->phase == FORCING ? l->forced[s->n_forced] : -1;
}
