/* The sorted vocabulary and its slices. Built once, before the first request; one thread. */
#include "text/vocab_index.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/utf8.h"
#include "model/sampling.h"

/* Of the tokens that are not in a slice: where there are more, the slice is not used. */
static uint32_t rest_cap(uint32_t n_vocab) {
    return n_vocab / 8 + 1024;
}

static size_t part(size_t n, size_t item) {
    return align_up(n * item, 64);
}

size_t vocab_index_bytes(uint32_t n) {
    return part(1, sizeof(vocab_index)) + part(n, sizeof(uint32_t)) + part(n, 1) +
           part(sampling_mask_words(n), sizeof(uint32_t)) +
           VOCAB_SLICES * (part(sampling_mask_words(n), sizeof(uint32_t)) +
                           part(rest_cap(n), sizeof(uint32_t)) + part(rest_cap(n), 1));
}

str vocab_token(const vocab_index *v, uint32_t id) {
    str s = tokenizer_piece(v->tok, (int32_t)id, false);
    return s.len <= VOCAB_MAX_BYTES ? s : STR("");
}

static int compare(const void *pa, const void *pb, void *arg) {
    uint32_t ia = *(const uint32_t *)pa, ib = *(const uint32_t *)pb;
    str a = vocab_token(arg, ia), b = vocab_token(arg, ib);
    int c = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
    if (c == 0) c = (a.len > b.len) - (a.len < b.len);
    return c ? c : (ia > ib) - (ia < ib);
}

static uint8_t shared_bytes(const vocab_index *v, uint32_t ia, uint32_t ib) {
    str a = vocab_token(v, ia), b = vocab_token(v, ib);
    size_t n = 0;
    while (n < a.len && n < b.len && a.ptr[n] == b.ptr[n]) n++;
    return (uint8_t)n;
}

/* Characters of a token that has none but whole harmless ones, as a JSON string takes them, and
 * only bytes that are tokens, too; else -1. */
static int harmless_chars(const vocab_index *v, str s) {
    int n = 0;
    for (size_t i = 0; i < s.len; i++)
        if (!v->single[(uint8_t)s.ptr[i]]) return -1;
    for (size_t at = 0; at < s.len; n++) {
        uint32_t cp;
        int len = utf8_decode(s.ptr + at, s.len - at, &cp);
        if (len <= 0 || cp < 0x20 || cp == '"' || cp == '\\' || cp == 0x7f) return -1;
        at += (size_t)len;
    }
    return n;
}

static void append(const vocab_index *v, vocab_list *l, uint32_t id) {
    l->shared[l->n] = l->n ? shared_bytes(v, l->id[l->n - 1], id) : 0;
    l->id[l->n++] = id;
}

static void fill(vocab_index *v) {
    for (uint32_t id = 0; id < v->n_vocab; id++) {
        str s = vocab_token(v, id);
        if (s.len) v->all.id[v->all.n++] = id;
        if (!tokenizer_piece(v->tok, (int32_t)id, false).len)
            v->silent[id / 32] |= 1u << id % 32;
        if (s.len == 1) v->single[(uint8_t)s.ptr[0]] = true;
    }
    size_t n_eog;
    const int32_t *eog = tokenizer_eog(v->tok, &n_eog);
    for (size_t i = 0; i < n_eog; i++) v->silent[eog[i] / 32] &= ~(1u << eog[i] % 32);
    qsort_r(v->all.id, v->all.n, sizeof *v->all.id, compare, v);
    for (uint32_t i = 1; i < v->all.n; i++)
        v->all.shared[i] = shared_bytes(v, v->all.id[i - 1], v->all.id[i]);
    for (int k = 0; k < VOCAB_SLICES; k++) v->slice[k].usable = true;
    for (uint32_t i = 0; i < v->all.n; i++) {
        uint32_t id = v->all.id[i];
        int n = harmless_chars(v, vocab_token(v, id));
        for (int k = 0; k < VOCAB_SLICES; k++) {
            vocab_slice *s = &v->slice[k];
            if (n > 0 && (k == 0 || n <= VOCAB_SLICE_CHARS))
                s->bits[id / 32] |= 1u << id % 32;
            else if (s->rest.n == rest_cap(v->n_vocab))
                s->usable = false;
            else
                append(v, &s->rest, id);
        }
    }
}

vocab_index *vocab_index_init(void *mem, const tokenizer *tok, uint32_t n) {
    vocab_index *v = mem;
    char *at = (char *)mem + part(1, sizeof *v);
    *v = (vocab_index){.tok = tok, .n_vocab = n};
#define TAKE(field, count, item)                                                               \
    (field) = (void *)at;                                                                      \
    at += part(count, item)
    TAKE(v->all.id, n, sizeof(uint32_t));
    TAKE(v->all.shared, n, 1);
    TAKE(v->silent, sampling_mask_words(n), sizeof(uint32_t));
    for (int k = 0; k < VOCAB_SLICES; k++) {
        TAKE(v->slice[k].bits, sampling_mask_words(n), sizeof(uint32_t));
        TAKE(v->slice[k].rest.id, rest_cap(n), sizeof(uint32_t));
        TAKE(v->slice[k].rest.shared, rest_cap(n), 1);
    }
#undef TAKE
    fill(v);
    return v;
}
