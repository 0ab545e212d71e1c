/* The tokenizer as a whole: opening, encoding around special tokens, and what others ask of
 * it. Owns one block of memory from the source it was given. Immutable after open (but for a
 * memo, see tokenizer_in.h): any thread. */
#include "text/tokenizer/tokenizer_in.h"

#include <sys/random.h>

#include "base/log.h"
#include "memory/term.h"

/* Which family of tokenizers the file asks for. */
static status check_model(tok_kind *kind, const checkpoint *file, err *e) {
    str model = STR("");
    status s = checkpoint_get_str(file, "tokenizer.ggml.model", &model, e);
    *kind = str_eqz(model, "llama")  ? TOK_SPM
            : str_eqz(model, "bert") ? TOK_WORDPIECE
                                     : TOK_BPE;
    if (s != OK || *kind != TOK_BPE || str_eqz(model, "gpt2")) return s;
    if (model.len)
        err_set(e, ERR_UNSUPPORTED,
                "tokenizer.ggml.model is \"%.*s\"; known are gpt2 (byte-level BPE), llama "
                "(SentencePiece BPE) and bert (WordPiece)",
                (int)(model.len < 80 ? model.len : 80), model.ptr);
    else
        err_set(e, ERR_UNSUPPORTED, "the file does not say tokenizer.ggml.model");
    return err_field(e, "tokenizer.ggml.model");
}

static status plan_layout(tok_layout *l, tok_pre_choice *pre, const checkpoint *file, str wish,
                          err *e) {
    *pre = (tok_pre_choice){0};
    status s = check_model(&l->kind, file, e);
    if (s == OK && l->kind == TOK_BPE) s = tok_pre_find(pre, file, wish, e);
    if (s == OK && l->kind != TOK_BPE && wish.len) {
        err_set(e, ERR_INVALID, "the model's vocabulary is %s, which has no pre-tokenizer",
                l->kind == TOK_SPM ? "SentencePiece's" : "WordPiece's");
        return err_field(e, "pre_tokenizer");
    }
    return s == OK ? tok_layout_of(l, file, e) : s;
}

uint64_t tokenizer_plan_bytes_pre(const checkpoint *file, str wish) {
    tok_layout l;
    tok_pre_choice pre;
    err ignored;
    return plan_layout(&l, &pre, file, wish, &ignored) == OK ? l.bytes : 0;
}

uint64_t tokenizer_plan_bytes(const checkpoint *file) {
    return tokenizer_plan_bytes_pre(file, STR(""));
}

static void place_parts(tokenizer *t, const tok_layout *l) {
    char *base = (char *)t;
    t->n_special = l->n_special;
    t->special = (uint32_t *)(base + l->special);
    t->pre_at = base + l->pre;
    t->pre_end = t->pre_at + TOK_PRE_BYTES;
}

status tokenizer_open(tokenizer **out, const checkpoint *file, const chunks *src, err *e) {
    return tokenizer_open_pre(out, file, STR(""), src, e);
}

status tokenizer_open_pre(tokenizer **out, const checkpoint *file, str wish, const chunks *src,
                          err *e) {
    tok_layout l;
    tok_pre_choice pre;
    status s = plan_layout(&l, &pre, file, wish, e);
    if (s != OK) return s;
    size_t got;
    tokenizer *t = src->take(src->self, l.bytes, &got);
    if (!t)
        return mem_exhausted(e, MEM_TOKENIZER, "%llu bytes of vocabulary",
                             (unsigned long long)l.bytes);
    *t = (tokenizer){.src = src, .got = got, .bytes = l.bytes, .pre = pre.row};
    /* A file made to collide in a table must not be able to know where things fall. */
    if (getrandom(&t->seed, sizeof t->seed, GRND_NONBLOCK) != sizeof t->seed)
        t->seed = (uint64_t)(uintptr_t)t;
    t->encode_run = l.kind == TOK_SPM   ? tok_spm_run
                    : l.kind == TOK_BPE ? tok_pre_run
                                        : tok_wordpiece_run;
    t->kind = l.kind;
    place_parts(t, &l);
    s = tok_vocab_build(t, &l, e);
    if (s == OK && l.kind == TOK_SPM) tok_spm_build(t, &l);
    if (s == OK && l.kind == TOK_WORDPIECE) s = tok_wordpiece_build(t, file, e);
    if (s == OK) s = tok_special_build(t, file, e);
    if (s == OK && pre.row && str_eqz(str_of(pre.row->names), "default"))
        log_warn(
            "tokenizer.ggml.pre is missing or \"default\": words may be cut otherwise than "
            "the model learned them; pre_tokenizer names another, or convert the model again "
            "with a current converter");
    if (s == OK && pre.row) s = tok_pre_build(t, &pre, e);
    if (s != OK) {
        tokenizer_close(t);
        return s;
    }
    *out = t;
    return OK;
}

void tokenizer_close(tokenizer *t) {
    if (!t) return;
    tok_pre_clear(t);
    t->src->give(t->src->self, t, t->got);
}

/* ---- encoding ---- */

/* Phi-3's tokens drop the white space that follows, but for these (its tokenizer.json, rstrip;
 * GGUF has no place for it). */
static bool strips(const tokenizer *t, uint32_t id) {
    str s = tok_piece(t, id);
    return !str_eqz(s, "<unk>") && !str_eqz(s, "<s>") && !str_eqz(s, "<|endoftext|>");
}

/* A text to encode, and where its special tokens may stand. */
typedef struct tok_input {
    str text;
    const jinja_run *runs; /* NULL: one, of the template's origin if control is set */
    size_t n_runs, run;    /* run: the one that is looked at */
    bool control;
    size_t user_at; /* the next USER_DEFINED token, or SIZE_MAX; known if >= the position */
    uint32_t user_id;
} tok_input;

/* The next special token from a position on, as tok_special_next: a control token within one run
 * of the template, or a USER_DEFINED token anywhere; the first, and of two the longer. */
static size_t next_special(const tokenizer *t, tok_input *in, size_t from, uint32_t *id) {
    if (!in->runs) return tok_special_next(t, in->text, from, in->control, id);
    if (in->user_at < from)
        in->user_at = tok_special_next(t, in->text, from, false, &in->user_id);
    for (; in->run < in->n_runs; in->run++) {
        const jinja_run *r = &in->runs[in->run];
        if (r->end <= from) continue;
        size_t at = SIZE_MAX;
        if (!r->data) at = tok_special_next(t, (str){in->text.ptr, r->end}, from, true, id);
        bool user = in->user_at < at || (at != SIZE_MAX && in->user_at == at &&
                                         tok_piece(t, in->user_id).len > tok_piece(t, *id).len);
        if (user && in->user_at < r->end) {
            *id = in->user_id;
            return in->user_at;
        }
        if (at != SIZE_MAX) return at;
        if (from < r->end) from = r->end;
    }
    return SIZE_MAX;
}

static status encode_parts(const tokenizer *t, tok_words *w, tok_input *in) {
    const str text = in->text;
    for (size_t at = 0; at < text.len;) {
        uint32_t id = 0;
        size_t special = next_special(t, in, at, &id);
        size_t end = special == SIZE_MAX ? text.len : special;
        if (end > at) {
            str run = {text.ptr + at, end - at};
            status s = t->nfc ? tok_nfc(w, &run) : OK;
            if (s == OK) s = t->encode_run(t, w, run);
            if (s != OK) return s;
            w->after_special = false;
        }
        if (special == SIZE_MAX) break;
        vec_i32_push(w->out, (int32_t)id);
        w->after_special = true;
        at = end + tok_piece(t, id).len;
        if (t->strip_after_special && strips(t, id))
            for (size_t n; (n = tok_space_len((str){text.ptr + at, text.len - at})); at += n) {
            }
    }
    return OK;
}

static status encode(const tokenizer *t, tok_input *in, bool add, vec_i32 *out, err *e) {
    tok_words w = {.out = out, .after_special = true, .err = e};
    arena_init(&w.scratch, out->in ? out->in->src : chunks_heap(), 0);
    const size_t begin = out->n;
    if (add && tokenizer_adds_bos(t)) vec_i32_push(out, t->bos);
    status s = encode_parts(t, &w, in);
    if (add && tokenizer_adds_bos(t) && out->n > begin + 1 && out->v[begin + 1] == t->bos) {
        out->n--;
        memmove(out->v + begin, out->v + begin + 1, (out->n - begin) * sizeof *out->v);
    }
    if (add && t->add_eos && t->eos >= 0) vec_i32_push(out, t->eos);
    if (s == OK && out->failed) s = err_set(e, ERR_NO_MEMORY, "no memory to encode the text");
    if (w.match) pcre2_match_data_free(w.match);
    /* Scratch comes from where the request's memory comes from, and is part of its size. */
    if (w.scratch.failed && out->in) out->in->failed = true;
    arena_clear(&w.scratch);
    return s;
}

status tokenizer_encode(const tokenizer *t, str text, unsigned flags, vec_i32 *out, err *e) {
    tok_input in = {.text = text, .control = flags & TOK_PARSE_SPECIAL};
    return encode(t, &in, flags & TOK_ADD_SPECIAL, out, e);
}

status tokenizer_encode_prompt(const tokenizer *t, const jinja_text *prompt, unsigned flags,
                               vec_i32 *out, err *e) {
    static const jinja_run nothing;
    tok_input in = {.text = prompt->text,
                    .runs = prompt->n_runs ? prompt->runs : &nothing,
                    .n_runs = prompt->n_runs};
    if (prompt->n_runs) in.user_at = tok_special_next(t, in.text, 0, false, &in.user_id);
    return encode(t, &in, flags & TOK_ADD_SPECIAL, out, e);
}

/* ---- asking ---- */

uint64_t tokenizer_bytes(const tokenizer *t) {
    return t->bytes;
}

uint32_t tokenizer_n_vocab(const tokenizer *t) {
    return t->n_vocab;
}

bool tokenizer_adds_bos(const tokenizer *t) {
    return t->add_bos && t->bos >= 0;
}

int32_t tokenizer_bos(const tokenizer *t) {
    return t->bos;
}

int32_t tokenizer_eos(const tokenizer *t) {
    return t->eos;
}

const int32_t *tokenizer_eog(const tokenizer *t, size_t *n) {
    *n = t->n_eog;
    return t->eog;
}

bool tokenizer_is_eog(const tokenizer *t, int32_t id) {
    for (uint32_t i = 0; i < t->n_eog; i++)
        if (t->eog[i] == id) return true;
    return false;
}

const uint32_t *tokenizer_specials(const tokenizer *t, size_t *n) {
    *n = t->n_special;
    return t->special;
}

bool tokenizer_is_special(const tokenizer *t, int32_t id) {
    if (id < 0 || (uint32_t)id >= t->n_vocab) return false;
    return t->type[id] == TOK_CONTROL || t->type[id] == TOK_UNKNOWN;
}
