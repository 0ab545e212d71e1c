/* Log-probabilities as JSON. Owns nothing but buffers in the request's arena. */
#include "api/logprobs.h"

#include "base/utf8.h"
#include "json/out.h"

struct logprobs_waiting {
    sampled s;
    bool none; /* no probability: the first prompt token */
    uint64_t start, offset;
};

void logprobs_init(logprobs *l, bool on, bool chat, int n_top, const tokenizer *tok, arena *a) {
    *l = (logprobs){.on = on, .chat = chat, .n_top = n_top, .tok = tok, .mem = a};
    for (int i = 0; i < 4; i++) buf_init(&l->part[i], a);
}

void logprobs_push(logprobs *l, const sampled *s, int32_t id, uint64_t start, uint64_t offset) {
    if (!l->on || l->failed) return;
    if (l->n_waiting == l->cap_waiting) {
        uint32_t cap = l->cap_waiting ? 2 * l->cap_waiting : 8;
        void *p = arena_grow(l->mem, l->waiting, l->cap_waiting * sizeof *l->waiting,
                             cap * sizeof *l->waiting);
        if (!p) {
            l->failed = true;
            return;
        }
        l->waiting = p;
        l->cap_waiting = cap;
    }
    logprobs_waiting *w = &l->waiting[l->n_waiting++];
    w->none = s == NULL;
    w->start = start;
    w->offset = offset;
    if (s)
        w->s = *s;
    else
        w->s = (sampled){.token = id};
}

static void comma(buf *b, bool wanted) {
    if (wanted) buf_addc(b, ',');
}

static void write_id(int32_t id, buf *b) {
    buf_addf(b, "\"token_id:%d\"", id);
}

/* completions: a token's name, which is a key as well. Pieces that are no text have names of
 * their bytes, as OpenAI's: replaced by U+FFFD, different tokens would have the same. */
static void write_name(const logprobs *l, int32_t id, buf *b) {
    str piece = tokenizer_piece(l->tok, id, true);
    if (l->ids) {
        write_id(id, b);
    } else if (utf8_valid(piece)) {
        json_str(b, piece);
    } else {
        buf_add(b, STR("\"bytes:"));
        for (size_t i = 0; i < piece.len; i++)
            buf_addf(b, "\\\\x%02x", (unsigned)(unsigned char)piece.ptr[i]);
        buf_addc(b, '"');
    }
}

/* Whether the i-th of the best has the text of another token before it or of the token itself:
 * vocabularies have the same text twice (the byte 0x0A and the newline, say). */
static bool name_taken(const logprobs *l, const sampled *s, int i) {
    str piece = tokenizer_piece(l->tok, s->top[i].token, true);
    if (s->top[i].token == s->token) return false;
    if (str_eq(piece, tokenizer_piece(l->tok, s->token, true))) return true;
    for (int k = 0; k < i; k++)
        if (str_eq(piece, tokenizer_piece(l->tok, s->top[k].token, true))) return true;
    return false;
}

/* completions: {"text": logprob, ...} of the best and of the token itself */
static void write_best(const logprobs *l, const sampled *s, buf *b) {
    bool own = false;
    buf_addc(b, '{');
    for (int i = 0; i < s->n_top && i < l->n_top; i++) {
        comma(b, i > 0);
        if (name_taken(l, s, i))
            write_id(s->top[i].token, b);
        else
            write_name(l, s->top[i].token, b);
        buf_addc(b, ':');
        json_logprob(b, s->top[i].logprob);
        own |= s->top[i].token == s->token;
    }
    if (!own) {
        comma(b, s->n_top > 0 && l->n_top > 0);
        write_name(l, s->token, b);
        buf_addc(b, ':');
        json_logprob(b, s->logprob);
    }
    buf_addc(b, '}');
}

static void write_completion(logprobs *l, const logprobs_waiting *w) {
    for (int i = 0; i < 4; i++) comma(&l->part[i], l->n > 0);
    write_name(l, w->s.token, &l->part[0]);
    if (w->none) {
        buf_add(&l->part[1], STR("null"));
        buf_add(&l->part[2], STR("null"));
    } else {
        json_logprob(&l->part[1], w->s.logprob);
        write_best(l, &w->s, &l->part[2]);
    }
    json_u64(&l->part[3], w->offset);
}

static void write_named(const logprobs *l, int32_t id, float logprob, buf *b) {
    str piece = tokenizer_piece(l->tok, id, true);
    buf_addc(b, '{');
    if (l->with_id) buf_addf(b, "\"id\":%d,", id);
    buf_add(b, STR("\"token\":"));
    if (l->ids)
        write_id(id, b);
    else
        json_str_lossy(b, piece);
    buf_add(b, STR(",\"logprob\":"));
    json_logprob(b, logprob);
    buf_add(b, STR(",\"bytes\":["));
    for (size_t i = 0; i < piece.len; i++) {
        comma(b, i > 0);
        json_u64(b, (unsigned char)piece.ptr[i]);
    }
    buf_addc(b, ']');
}

static void write_chat(logprobs *l, const logprobs_waiting *w) {
    buf *b = &l->part[0];
    comma(b, l->n > 0);
    write_named(l, w->s.token, w->s.logprob, b);
    buf_add(b, STR(",\"top_logprobs\":["));
    for (int i = 0; i < w->s.n_top && i < l->n_top; i++) {
        comma(b, i > 0);
        write_named(l, w->s.top[i].token, w->s.top[i].logprob, b);
        buf_addc(b, '}');
    }
    buf_add(b, STR("]}"));
}

void logprobs_release(logprobs *l, uint64_t shown, bool all) {
    uint32_t i = 0;
    for (; i < l->n_waiting && (all || l->waiting[i].start < shown); i++) {
        if (l->chat)
            write_chat(l, &l->waiting[i]);
        else
            write_completion(l, &l->waiting[i]);
        l->n++;
    }
    if (i) memmove(l->waiting, l->waiting + i, (l->n_waiting - i) * sizeof *l->waiting);
    l->n_waiting -= i;
}

void logprobs_drop(logprobs *l) {
    l->n_waiting = 0;
}

void logprobs_write(const logprobs *l, buf *out) {
    static const char *const name[] = {"tokens", "token_logprobs", "top_logprobs",
                                       "text_offset"};
    if (!l->on) {
        buf_add(out, STR("null"));
        return;
    }
    if (l->chat) {
        buf_add(out, STR("{\"content\":["));
        buf_add(out, buf_str(&l->part[0]));
        buf_add(out, STR("]}"));
        return;
    }
    for (int i = 0; i < 4; i++) {
        buf_addf(out, "%c\"%s\":[", i ? ',' : '{', name[i]);
        buf_add(out, buf_str(&l->part[i]));
        buf_addc(out, ']');
    }
    buf_addc(out, '}');
}

void logprobs_reset(logprobs *l) {
    for (int i = 0; i < 4; i++) {
        l->failed |= l->part[i].failed;
        l->part[i].len = 0;
    }
    l->n = 0;
}
