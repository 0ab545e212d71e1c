/* The prompts of a request: from text to tokens, and back where echo, prompt_logprobs or
 * return_token_ids show them. Owns nothing. Loop thread, except prompt_encode, which may run on
 * the pool while the loop keeps off the request. */
#include "api/answer.h"
#include "json/out.h"

/* As BERT has two texts: [CLS] first [SEP] second [SEP]. */
static status encode_pair(answer *a, prompt_in *p) {
    const tokenizer *tok = a->rq->served->port->tok;
    err *e = &a->encode_error;
    const unsigned bare = a->encode_flags & ~(unsigned)TOK_ADD_SPECIAL;
    status s = tokenizer_encode(tok, p->text, a->encode_flags, &p->ids, e);
    p->n_first = (uint32_t)p->ids.n;
    if (s == OK) s = tokenizer_encode(tok, p->second, bare, &p->ids, e);
    if (s != OK || tokenizer_eos(tok) < 0) return s;
    if (vec_i32_push(&p->ids, tokenizer_eos(tok))) return OK;
    return err_set(e, ERR_NO_MEMORY, "no memory to encode the text");
}

/* The end of the second text goes. */
static status truncate_pair(prompt_in *p, size_t keep, err *e) {
    if (keep < p->n_first + 2u) {
        err_set(e, ERR_INVALID, "a query of %u tokens leaves no room for a document in %zu",
                p->n_first, keep);
        return err_field(e, "query");
    }
    p->ids.v[keep - 1] = p->ids.v[p->ids.n - 1];
    p->ids.n = keep;
    return OK;
}

void prompt_encode(answer *a) {
    for (uint32_t i = 0; i < a->n_prompts && a->encode_status == OK; i++) {
        prompt_in *p = &a->prompts[i];
        if (p->is_marked)
            a->encode_status =
                tokenizer_encode_prompt(a->rq->served->port->tok, &p->marked, a->encode_flags,
                                        &p->ids, &a->encode_error);
        else if (p->second.ptr)
            a->encode_status = encode_pair(a, p);
        else if (p->is_text)
            a->encode_status = tokenizer_encode(a->rq->served->port->tok, p->text,
                                                a->encode_flags, &p->ids, &a->encode_error);
    }
}

status prompt_truncate(const answer *a, prompt_in *p, err *e) {
    const uint64_t ctx = a->rq->served->port->card.max_model_len;
    const int64_t given = a->p.truncate_prompt;
    const uint64_t output = a->p.max_tokens > 0 ? (uint64_t)a->p.max_tokens : 1;
    if (given == 0) return OK;
    if (given > 0 && (uint64_t)given > ctx) {
        err_set(e, ERR_INVALID,
                "truncate_prompt_tokens is more than the context of %llu tokens",
                (unsigned long long)ctx);
        return err_field(e, "truncate_prompt_tokens");
    }
    size_t keep = given > 0 ? (size_t)given : output < ctx ? (size_t)(ctx - output) : 1;
    if (p->ids.n <= keep) return OK;
    if (p->n_first) return truncate_pair(p, given > 0 ? keep : (size_t)ctx, e);
    if (a->p.truncate_end) {
        p->ids.n = keep;
        p->is_text = false;
        return OK;
    }
    /* The text is cut, not what the tokenizer puts before it. */
    const tokenizer *tok = a->rq->served->port->tok;
    bool bos = p->is_text && a->encode_flags & TOK_ADD_SPECIAL && tokenizer_adds_bos(tok);
    memmove(p->ids.v + bos, p->ids.v + p->ids.n - (keep - bos),
            (keep - bos) * sizeof *p->ids.v);
    p->ids.n = keep;
    p->is_text = false; /* echo shows what is left */
    return OK;
}

/* ---- echo ---- */

static uint64_t count_chars(str s) {
    uint64_t n = 0;
    for (size_t i = 0; i < s.len; i++) n += ((unsigned char)s.ptr[i] & 0xc0) != 0x80;
    return n;
}

/* Whether a token is part of the text that echo shows: of a text prompt, not where the tokenizer
 * has added it. */
static bool is_in_text(const choice *c, const prompt_in *p, int32_t id) {
    const tokenizer *tok = c->a->rq->served->port->tok;
    if (!p->is_text || !tokenizer_is_special(tok, id)) return true;
    if (c->echoed_bytes > p->text.len) return false;
    str rest = {p->text.ptr + c->echoed_bytes, p->text.len - c->echoed_bytes};
    return str_starts(rest, tokenizer_piece(tok, id, true));
}

void prompt_echo_scores(choice *c, uint32_t upto, const sampled *s) {
    answer *a = c->a;
    const prompt_in *p = &a->prompts[c->prompt];
    for (; c->n_echoed < upto; c->n_echoed++) {
        int32_t id = c->spec.prompt[c->n_echoed];
        a->piece.len = 0;
        if (is_in_text(c, p, id)) detok_push(&c->echo_detok, id, &a->piece);
        logprobs_push(&c->lp, c->n_echoed + 1 == upto ? s : NULL, id, 0, c->n_chars);
        c->n_chars += count_chars(buf_str(&a->piece));
        c->echoed_bytes += a->piece.len;
    }
}

void prompt_echo(choice *c) {
    answer *a = c->a;
    const prompt_in *p = &a->prompts[c->prompt];
    c->echoed = true;
    if (c->lp.on && !a->chat) {
        prompt_echo_scores(c, c->spec.n_prompt, NULL);
        logprobs_release(&c->lp, 0, true);
    }
    buf *out = &choice_part(c, PART_TEXT)->text;
    size_t before = out->len;
    if (a->chat) {
        buf_add(out, a->chat_echo);
    } else if (p->is_text) {
        buf_add(out, p->text);
    } else {
        detok d;
        detok_init_text(&d, a->rq->served->port->tok, !a->p.skip_special);
        for (size_t i = 0; i < p->ids.n; i++) detok_push(&d, p->ids.v[i], out);
        detok_finish(&d, out);
    }
    c->n_chars = count_chars((str){out->ptr + before, out->len - before});
}

/* ---- what is shown beside the text ---- */

static void write_score(const answer *a, int32_t id, float logprob, int rank, buf *b) {
    buf_addf(b, "\"%d\":{\"logprob\":", id);
    json_logprob(b, logprob);
    if (rank)
        buf_addf(b, ",\"rank\":%d,\"decoded_token\":", rank);
    else
        buf_add(b, STR(",\"rank\":null,\"decoded_token\":"));
    json_str_lossy(b, tokenizer_piece(a->rq->served->port->tok, id, true));
    buf_addc(b, '}');
}

void prompt_score(prompt_in *p, const answer *a, const sampled *s) {
    buf *b = &p->scores;
    int rank = 0;
    if (!s) {
        buf_add(b, STR("null"));
        return;
    }
    buf_add(b, STR(",{"));
    for (int i = 0; i < s->n_top && i < a->p.prompt_logprobs; i++)
        if (s->top[i].token == s->token) rank = i + 1;
    write_score(a, s->token, s->logprob, rank, b);
    for (int i = 0; i < s->n_top && i < a->p.prompt_logprobs; i++) {
        if (i + 1 == rank) continue;
        buf_addc(b, ',');
        write_score(a, s->top[i].token, s->top[i].logprob, i + 1, b);
    }
    buf_addc(b, '}');
}

void prompt_write_scores(const answer *a, const prompt_in *p, buf *b) {
    if (a->p.prompt_logprobs < 0) return;
    buf_add(b, STR(",\"prompt_logprobs\":["));
    buf_add(b, buf_str(&p->scores));
    buf_addc(b, ']');
    if (p->scores.failed) b->failed = true;
}

static void write_ids(const int32_t *ids, size_t n, buf *b) {
    for (size_t i = 0; i < n; i++) {
        if (i) buf_addc(b, ',');
        json_i64(b, ids[i]);
    }
    buf_addc(b, ']');
}

void prompt_write_ids(const answer *a, const prompt_in *p, buf *b) {
    if (!a->p.return_token_ids) return;
    buf_add(b, STR(",\"prompt_token_ids\":["));
    write_ids(p->ids.v, p->ids.n, b);
}

void write_token_ids(const choice *c, buf *b) {
    if (!c->a->p.return_token_ids) return;
    buf_add(b, STR(",\"token_ids\":["));
    write_ids(c->ids.v, c->ids.n, b);
    if (c->ids.failed) b->failed = true;
}
