/* From ids back to text, token by token. A character's bytes may be spread over tokens: they
 * are held until it is whole or can never be. The state is the caller's; any thread. */
#include "text/tokenizer/tokenizer_in.h"

#include "base/utf8.h"

str tokenizer_piece(const tokenizer *t, int32_t id, bool with_special) {
    if (id < 0 || (uint32_t)id >= t->n_vocab) return STR("");
    if (!with_special && tokenizer_is_special(t, id)) return STR("");
    return tok_piece(t, (uint32_t)id);
}

void detok_init(detok *d, const tokenizer *t, bool with_special) {
    *d = (detok){.tok = t, .with_special = with_special};
}

void detok_init_text(detok *d, const tokenizer *t, bool with_special) {
    *d = (detok){.tok = t,
                 .with_special = with_special,
                 .drop_space = t->space_prefix,
                 .whole = t->space_prefix};
}

str detok_bytes(detok *d, int32_t id) {
    const tokenizer *t = d->tok;
    str piece = tokenizer_piece(t, id, d->with_special);
    if (!d->whole || id < 0 || (uint32_t)id >= t->n_vocab) return piece;
    bool special = tokenizer_is_special(t, id) || t->type[id] == TOK_USER;
    if (!special && d->drop_space && piece.len && piece.ptr[0] == ' ')
        piece = (str){piece.ptr + 1, piece.len - 1};
    d->drop_space = special;
    return piece;
}

static void add_replacement(buf *out) {
    buf_add(out, STR("\xef\xbf\xbd"));
}

/* One byte more. The longest beginning of a character is three bytes: held never overflows. */
static void push_byte(detok *d, char c, buf *out) {
    uint32_t cp;
    d->held[d->n_held++] = c;
    int n = utf8_decode(d->held, d->n_held, &cp);
    if (n == UTF8_SHORT) return;
    if (n > 0) {
        buf_add(out, (str){d->held, (size_t)n});
        d->n_held = 0;
        return;
    }
    /* What was held can go no further: one replacement for it (the maximal ill-formed part of
     * Unicode 15, section 3.9), and c gets a second chance as a beginning. */
    bool alone = d->n_held == 1;
    add_replacement(out);
    d->n_held = 0;
    if (!alone) push_byte(d, c, out);
}

void detok_push(detok *d, int32_t id, buf *out) {
    str piece = detok_bytes(d, id);
    for (size_t i = 0; i < piece.len;) {
        size_t plain = i;
        if (d->n_held == 0)
            while (plain < piece.len && (unsigned char)piece.ptr[plain] < 0x80) plain++;
        if (plain > i)
            buf_add(out, (str){piece.ptr + i, plain - i});
        else
            push_byte(d, piece.ptr[plain++], out);
        i = plain;
    }
}

void detok_finish(detok *d, buf *out) {
    if (d->n_held) add_replacement(out);
    d->n_held = 0;
}
