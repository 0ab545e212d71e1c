/* The sorted vocabulary and its slices. Built once, before the first request; one thread. */
#include "text/tokenizer/vocab_index.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/utf8.h"
#include "model/sampling.h"

/* Tokens of a list, and bytes of their tails: what exceeds the latter is read elsewhere. */
enum { TAIL_BYTES = 4 };
static uint32_t odd_cap(uint32_t n_vocab) {
    return n_vocab / 8 + 1024;
}
static uint32_t lengthy_cap(uint32_t n_vocab) {
    return n_vocab / 64 + 256;
}

static size_t part(size_t n, size_t item) {
    return align_up(n * item, 64);
}

static size_t list_bytes(size_t n) {
    return 2 * part(n, sizeof(uint32_t)) + 2 * part(n, 1) + part(n * TAIL_BYTES, 1);
}

size_t vocab_index_bytes(uint32_t n) {
    return part(1, sizeof(vocab_index)) + list_bytes(n) + list_bytes(odd_cap(n)) +
           list_bytes(lengthy_cap(n)) +
           (VOCAB_SLICES + 2) * part(sampling_mask_words(n), sizeof(uint32_t));
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
    if (l->n == l->cap) {
        l->full = true;
        return;
    }
    const str s = vocab_token(v, id);
    const uint8_t shared = l->n ? shared_bytes(v, l->id[l->n - 1], id) : 0;
    const uint32_t own = (uint32_t)s.len - shared;
    l->id[l->n] = id;
    l->shared[l->n] = shared;
    l->len[l->n] = (uint8_t)s.len;
    l->at[l->n] = VOCAB_ELSEWHERE;
    l->split |= own > l->cap_tail - l->n_tail;
    if (!l->split) {
        memcpy(l->tail + l->n_tail, s.ptr + shared, own);
        l->at[l->n] = l->n_tail;
        l->n_tail += own;
    }
    l->n++;
}

static void set_bit(uint32_t *bits, uint32_t id) {
    bits[id / 32] |= 1u << id % 32;
}

static void add_to_slices(vocab_index *v, uint32_t id) {
    const int n = harmless_chars(v, vocab_token(v, id));
    if (n < 0) {
        append(v, &v->odd, id);
        return;
    }
    set_bit(v->slice[0], id);
    for (int k = n; k < VOCAB_SLICES; k++) set_bit(v->slice[k], id);
    if (n > VOCAB_SLICE_CHARS) append(v, &v->lengthy, id);
}

/* order: [n_vocab], scratch. */
static void fill(vocab_index *v, uint32_t *order) {
    uint32_t n = 0;
    size_t n_eog;
    const int32_t *eog = tokenizer_eog(v->tok, &n_eog);
    for (uint32_t id = 0; id < v->n_vocab; id++) {
        str s = vocab_token(v, id);
        if (s.len) order[n++] = id;
        if (!tokenizer_piece(v->tok, (int32_t)id, false).len) set_bit(v->silent, id);
        if (s.len == 1) v->single[(uint8_t)s.ptr[0]] = true;
    }
    for (size_t i = 0; i < n_eog; i++) v->silent[eog[i] / 32] &= ~(1u << eog[i] % 32);
    qsort_r(order, n, sizeof *order, compare, v);
    for (uint32_t i = 0; i < n; i++) {
        append(v, &v->all, order[i]);
        set_bit(v->known, order[i]);
        add_to_slices(v, order[i]);
    }
}

static void *take(char **at, size_t n, size_t item) {
    void *p = *at;
    *at += part(n, item);
    return p;
}

static vocab_list take_list(char **at, uint32_t n) {
    vocab_list l = {.cap = n, .cap_tail = n * TAIL_BYTES};
    l.id = take(at, n, sizeof *l.id);
    l.at = take(at, n, sizeof *l.at);
    l.shared = take(at, n, 1);
    l.len = take(at, n, 1);
    l.tail = take(at, l.cap_tail, 1);
    return l;
}

vocab_index *vocab_index_init(void *mem, const tokenizer *tok, uint32_t n) {
    vocab_index *v = mem;
    char *at = (char *)mem + part(1, sizeof *v);
    *v = (vocab_index){.tok = tok, .n_vocab = n};
    v->all = take_list(&at, n);
    v->odd = take_list(&at, odd_cap(n));
    v->lengthy = take_list(&at, lengthy_cap(n));
    for (int k = 0; k < VOCAB_SLICES; k++)
        v->slice[k] = take(&at, sampling_mask_words(n), sizeof(uint32_t));
    v->known = take(&at, sampling_mask_words(n), sizeof(uint32_t));
    v->silent = take(&at, sampling_mask_words(n), sizeof(uint32_t));
    fill(v, v->all.id); /* sorted in place: token i is read before it is written again */
    return v;
}
