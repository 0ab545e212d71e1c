/* Reading a text and cutting it into windows. Main thread. */
#include "daemon/eval/eval_text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "daemon/commands.h"

status eval_text_read(buf *out, const char *path, err *e) {
    if (!path) return command_read_stdin(out, e);
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path,
                       strerror(errno));
    errno = 0;
    for (size_t n = 1; n > 0 && buf_reserve(out, 1 << 16); out->len += n)
        n = fread(out->ptr + out->len, 1, 1 << 16, f);
    status s = OK;
    if (out->failed) s = err_set(e, ERR_NO_MEMORY, "no memory for the text");
    if (ferror(f)) s = err_set(e, ERR_IO, "reading %s: %s", path, strerror(errno));
    fclose(f);
    return s;
}

/* One copy with the BOS of each window in its place. */
static status lay_out(eval_text *t, const int32_t *ids, int32_t bos, err *e) {
    const uint64_t part = t->context - t->bos, all = t->n_tokens + t->bos * t->n_windows;
    t->token = malloc(all * sizeof *t->token);
    if (!t->token)
        return err_set(e, ERR_NO_MEMORY, "no memory for %llu tokens", (unsigned long long)all);
    int32_t *to = t->token;
    for (uint64_t i = 0; i < t->n_tokens; i++) {
        if (t->bos && i % part == 0) *to++ = bos;
        *to++ = ids[i];
    }
    const uint64_t key[2] = {0, 0};
    siphash_bytes(key, t->token, all * sizeof *t->token, SIPHASH_2_4, t->tokens_hash);
    return OK;
}

status eval_text_cut(eval_text *t, const tokenizer *tok, str text, uint32_t context,
                     uint64_t most, err *e) {
    vec_i32 ids;
    const uint64_t key[2] = {0, 0};
    *t = (eval_text){.context = context, .bos = tokenizer_adds_bos(tok)};
    siphash_bytes(key, text.ptr, text.len, SIPHASH_2_4, t->text_hash);
    vec_i32_init(&ids, NULL);
    status s = tokenizer_encode(tok, text, 0, &ids, e);
    if (s != OK) goto done;
    uint64_t n = most && ids.n > most ? most : ids.n;
    const uint64_t part = context - t->bos, least = 2 - t->bos;
    if (!t->bos && n % part == 1) n--; /* a window of one token predicts none */
    if (n < least) {
        s = err_set(e, ERR_INVALID, "the text has %zu tokens, and none of them is predicted",
                    ids.n);
        err_hint(e, "give a longer text");
        goto done;
    }
    const uint64_t windows = (n + part - 1) / part;
    if (windows > UINT32_MAX) {
        s = err_set(e, ERR_INVALID, "the text has %llu windows of %u tokens",
                    (unsigned long long)windows, context);
        goto done;
    }
    t->n_windows = (uint32_t)windows;
    t->n_tokens = n;
    t->n_scored = t->bos ? n : n - windows;
    s = lay_out(t, ids.v, tokenizer_bos(tok), e);
done:
    vec_i32_clear(&ids);
    return s;
}

void eval_text_clear(eval_text *t) {
    free(t->token);
    t->token = NULL;
}

uint32_t eval_window(const eval_text *t, uint32_t w, const int32_t **first) {
    const uint64_t all = t->n_tokens + (uint64_t)t->bos * t->n_windows;
    const uint64_t at = (uint64_t)w * t->context;
    *first = t->token + at;
    return (uint32_t)(all - at < t->context ? all - at : t->context);
}
