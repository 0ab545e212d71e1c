/* From a parsed tokenizer.json to facts. Owns nothing: what stays is in the facts' arena. */
#include "model/hf/hf_tokenizer.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "memory/term.h"

/* As tokenizer.ggml.token_type has them. */
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER = 4, UNUSED = 5, BYTE = 6 };
enum { MAX_TOKENS = 1 << 24 };

typedef struct builder {
    facts *f;
    const hf_tokenizer_files *in;
    const json_t *model, *vocab, *merges, *added;
    arena *scratch;
    uint32_t n_vocab;
    bool pieces; /* SentencePiece's */
    bool words;  /* WordPiece; else, without pieces, bytes */
    str *token;  /* [n_vocab] */
    int32_t *type;
    err *e;
} builder;

static status fault(const builder *b, status code, const char *member, const char *what) {
    err_set(b->e, code, "tokenizer.json: %s: %s", member, what);
    return err_field(b->e, "tokenizer.json: %s", member);
}

static status no_memory(const builder *b) {
    return mem_exhausted(b->e, MEM_LOADING, "the vocabulary of tokenizer.json");
}

static str text_of(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return json_is_string(v) ? json_in_text(v) : (str){NULL, 0};
}

static bool is_true(const json_t *o, const char *key) {
    return json_is_true(json_object_get(o, key));
}

/* The object itself, or one in its list, of that type; NULL: there is none. */
static const json_t *part_of(const json_t *o, const char *list, const char *type) {
    const str own = text_of(o, "type");
    if (own.ptr && str_eqz(own, type)) return o;
    const json_t *parts = json_object_get(o, list);
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const str t = text_of(json_array_get(parts, i), "type");
        if (t.ptr && str_eqz(t, type)) return json_array_get(parts, i);
    }
    return NULL;
}

/* ---- tokens ---- */

static status set_token(builder *b, const json_t *id, str text, int32_t type) {
    if (!json_is_integer(id) || json_integer_value(id) < 0)
        return fault(b, ERR_FORMAT, "vocab", "an id is no whole number");
    const uint64_t i = (uint64_t)json_integer_value(id);
    if (i >= b->n_vocab)
        return fault(b, ERR_FORMAT, "vocab", "an id is not below vocab_size of config.json");
    if (b->token[i].ptr && !str_eq(b->token[i], text))
        return fault(b, ERR_FORMAT, "vocab", "two tokens have one id");
    b->token[i] = text;
    b->type[i] = type;
    return OK;
}

static bool is_byte_piece(str t) {
    return t.len == 6 && memcmp(t.ptr, "<0x", 3) == 0 && t.ptr[5] == '>';
}

static status read_vocab(builder *b) {
    const char *text;
    json_t *id;
    const str unknown = text_of(b->model, "unk_token");
    json_object_foreach((json_t *)b->vocab, text, id) {
        const str t = str_of(text);
        const int32_t type = (b->pieces || b->words) && unknown.ptr && str_eq(t, unknown)
                                 ? UNKNOWN
                             : b->pieces && is_byte_piece(t) ? BYTE
                                                             : NORMAL;
        status s = set_token(b, id, t, type);
        if (s != OK) return s;
    }
    return OK;
}

/* A piece that is found in every text has blanks where SentencePiece writes U+2581. */
static str with_blanks(builder *b, str t) {
    static const char low[] = "\xe2\x96\x81";
    if (str_find(t, STR(low), 0) == SIZE_MAX) return t;
    char *p = arena_alloc(b->scratch, t.len + 1);
    size_t n = 0;
    if (!p) return (str){NULL, 0};
    for (size_t i = 0; i < t.len;)
        if (i + 3 <= t.len && memcmp(t.ptr + i, low, 3) == 0)
            p[n++] = ' ', i += 3;
        else
            p[n++] = t.ptr[i++];
    p[n] = '\0';
    return (str){p, n};
}

static status read_added(builder *b) {
    bool strip = false;
    for (size_t i = 0; i < json_array_size(b->added); i++) {
        const json_t *o = json_array_get(b->added, i), *id = json_object_get(o, "id");
        const str text = text_of(o, "content");
        const bool special = is_true(o, "special");
        if (!text.ptr) return fault(b, ERR_FORMAT, "added_tokens", "a token has no content");
        status s = set_token(b, id, text, special ? CONTROL : USER);
        if (s != OK) return s;
        const uint64_t at = (uint64_t)json_integer_value(id);
        const str unknown = text_of(b->model, "unk_token");
        if ((b->pieces || b->words) && unknown.ptr && str_eq(text, unknown))
            b->type[at] = UNKNOWN;
        if (b->pieces && !special) b->token[at] = with_blanks(b, text);
        if (!b->token[at].ptr) return no_memory(b);
        strip |= special && is_true(o, "rstrip");
    }
    if (strip) facts_bool(b->f, "tokenizer.strip_after_special", true);
    return OK;
}

/* As GGUF has WordPiece's: U+2581 before what begins a word, nothing before what goes on. */
static status mark_words(builder *b) {
    const str given = text_of(b->model, "continuing_subword_prefix");
    const str on = given.ptr ? given : STR("##");
    for (uint32_t i = 0; i < b->n_vocab; i++) {
        const str t = b->token[i];
        if (!t.ptr || b->type[i] != NORMAL) continue;
        if (t.len > on.len && str_starts(t, on)) {
            b->token[i] = (str){t.ptr + on.len, t.len - on.len};
            continue;
        }
        char *p = arena_alloc(b->scratch, t.len + 4);
        if (!p) return no_memory(b);
        snprintf(p, t.len + 4, "\xe2\x96\x81%.*s", STR_ARG(t));
        b->token[i] = (str){p, t.len + 3};
    }
    return OK;
}

/* All texts in one block of the facts' arena. */
static status keep_tokens(builder *b) {
    uint64_t bytes = 0;
    enum { PAD_BYTES = 16 };
    for (uint32_t i = 0; i < b->n_vocab; i++)
        bytes += b->token[i].ptr ? b->token[i].len + 1 : PAD_BYTES;
    char *p = arena_alloc(b->f->mem, bytes);
    str *token = arena_alloc(b->f->mem, b->n_vocab * sizeof *token);
    int32_t *type = arena_alloc(b->f->mem, b->n_vocab * sizeof *type);
    if (!p || !token || !type) return no_memory(b);
    for (uint32_t i = 0; i < b->n_vocab; i++) {
        str t = b->token[i];
        char pad[PAD_BYTES];
        type[i] = b->type[i];
        if (!t.ptr) { /* a row of the embedding that no token has */
            t = (str){pad, (size_t)snprintf(pad, sizeof pad, "[PAD%u]", i)};
            type[i] = UNUSED;
        }
        memcpy(p, t.ptr, t.len);
        p[t.len] = '\0';
        token[i] = (str){p, t.len};
        p += t.len + 1;
    }
    facts_many(b->f, "tokenizer.ggml.tokens", FACT_STR, b->n_vocab, token);
    facts_many(b->f, "tokenizer.ggml.token_type", FACT_I32, b->n_vocab, type);
    return OK;
}

/* ---- merges ---- */

/* "a b", or ["a", "b"]. */
static bool merge_at(const builder *b, size_t i, str *left, str *right) {
    const json_t *m = json_array_get(b->merges, i);
    if (json_is_array(m) && json_array_size(m) == 2 && json_is_string(json_array_get(m, 0)) &&
        json_is_string(json_array_get(m, 1))) {
        *left = json_in_text(json_array_get(m, 0));
        *right = json_in_text(json_array_get(m, 1));
        return true;
    }
    if (!json_is_string(m)) return false;
    const str both = json_in_text(m);
    const size_t at = str_find(both, STR(" "), 1);
    if (at == SIZE_MAX || at + 1 >= both.len) return false;
    *left = (str){both.ptr, at};
    *right = (str){both.ptr + at + 1, both.len - at - 1};
    return true;
}

static status keep_merges(builder *b) {
    const size_t n = json_array_size(b->merges);
    uint64_t bytes = 0;
    str l, r;
    for (size_t i = 0; i < n; i++) {
        if (!merge_at(b, i, &l, &r)) return fault(b, ERR_FORMAT, "merges", "one is no pair");
        bytes += l.len + r.len + 2;
    }
    char *p = arena_alloc(b->f->mem, bytes);
    str *merge = arena_alloc(b->f->mem, n * sizeof *merge);
    if (!p || !merge) return no_memory(b);
    for (size_t i = 0; i < n; i++) {
        CHECK(merge_at(b, i, &l, &r));
        merge[i] = (str){p, l.len + 1 + r.len};
        memcpy(p, l.ptr, l.len);
        p[l.len] = ' ';
        memcpy(p + l.len + 1, r.ptr, r.len);
        p += merge[i].len;
        *p++ = '\0';
    }
    facts_many(b->f, "tokenizer.ggml.merges", FACT_STR, n, merge);
    return OK;
}

/* SentencePiece joins what makes the piece of the best score; converters list merges by it. */
static status keep_scores(builder *b) {
    const size_t n = json_array_size(b->merges);
    float *score = arena_alloc(b->f->mem, b->n_vocab * sizeof *score);
    buf text;
    str l, r;
    if (!score) return no_memory(b);
    for (uint32_t i = 0; i < b->n_vocab; i++) score[i] = -1e9F;
    buf_init(&text, b->scratch);
    for (size_t i = n; i-- > 0;) { /* the first merge that makes a piece counts */
        if (!merge_at(b, i, &l, &r)) return fault(b, ERR_FORMAT, "merges", "one is no pair");
        text.len = 0;
        buf_add(&text, l);
        buf_add(&text, r);
        if (text.failed) return no_memory(b);
        const json_t *id = json_object_get(b->vocab, buf_cstr(&text));
        if (!json_is_integer(id))
            return fault(b, ERR_FORMAT, "merges", "one makes what is not in vocab");
        score[json_integer_value(id)] = -(float)i;
    }
    facts_many(b->f, "tokenizer.ggml.scores", FACT_F32, b->n_vocab, score);
    return OK;
}

/* ---- what surrounds a text ---- */

/* The id of a token by its text; false: there is none. */
static bool id_of(const builder *b, str text, uint32_t *id) {
    for (uint32_t i = 0; i < b->n_vocab; i++)
        if (b->token[i].ptr && str_eq(b->token[i], text)) return *id = i, true;
    return false;
}

/* tokenizer_config has a text, or an object with it. */
static str named_token(const json_t *config, const char *key) {
    const json_t *v = json_object_get(config, key);
    return json_is_object(v) ? text_of(v, "content") : text_of(config, key);
}

/* By its text in tokenizer_config.json, else by its number in config.json. */
static void special_id(builder *b, const char *name, const char *number, const char *key) {
    const str text = named_token(b->in->tokenizer_config, name);
    const json_t *v = json_object_get(b->in->config, number);
    uint32_t id;
    if (json_is_array(v)) v = json_array_get(v, 0);
    if (text.ptr && id_of(b, text, &id))
        facts_u32(b->f, key, id);
    else if (json_is_integer(v) && json_integer_value(v) >= 0 &&
             json_integer_value(v) < b->n_vocab)
        facts_u32(b->f, key, (uint32_t)json_integer_value(v));
}

/* All ids that end a generation: one number or a list. */
static status read_ends(builder *b) {
    const json_t *v = json_object_get(b->in->generation_config, "eos_token_id");
    if (!v || json_is_null(v)) v = json_object_get(b->in->config, "eos_token_id");
    const size_t n = json_is_array(v) ? json_array_size(v) : json_is_integer(v);
    uint32_t kept = 0;
    int32_t *id = arena_alloc(b->f->mem, (n + 1) * sizeof *id);
    if (!id) return no_memory(b);
    for (size_t i = 0; i < n; i++) {
        const json_t *x = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_integer(x) || json_integer_value(x) < 0 ||
            json_integer_value(x) >= b->n_vocab) {
            err_set(b->e, ERR_FORMAT, "eos_token_id has an id that is no token");
            return err_field(b->e, "eos_token_id");
        }
        id[kept++] = (int32_t)json_integer_value(x);
    }
    if (kept) facts_many(b->f, "tokenizer.eog_token_ids", FACT_I32, kept, id);
    return OK;
}

/* The token that TemplateProcessing puts there. False: none. */
static bool frame_id(builder *b, const json_t *part, const char *key) {
    const str text = text_of(json_object_get(part, "SpecialToken"), "id");
    uint32_t id;
    if (!text.ptr || !id_of(b, text, &id)) return false;
    facts_u32(b->f, key, id);
    return true;
}

static void read_frame(builder *b) {
    const json_t *post = json_object_get(b->in->tokenizer, "post_processor");
    const json_t *single =
        json_object_get(part_of(post, "processors", "TemplateProcessing"), "single");
    const size_t n = json_array_size(single);
    /* BertProcessing: the same frame, whose tokens the tokenizer knows by their texts. */
    const bool framed = b->words && part_of(post, "processors", "BertProcessing");
    const bool bos =
        framed || (n > 0 && json_object_get(json_array_get(single, 0), "SpecialToken"));
    const bool eos =
        framed || (n > 1 && json_object_get(json_array_get(single, n - 1), "SpecialToken"));
    facts_bool(b->f, "tokenizer.ggml.add_bos_token", bos);
    facts_bool(b->f, "tokenizer.ggml.add_eos_token", eos);
    /* BERT's have other names in tokenizer_config.json; Qwen3-Embedding's end is another than there. */
    const char *const ids[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"};
    const bool first = frame_id(b, bos ? json_array_get(single, 0) : NULL, ids[0]);
    const bool last = frame_id(b, n > 1 ? json_array_get(single, n - 1) : NULL, ids[1]);
    if (!b->words && !first) special_id(b, "bos_token", "bos_token_id", ids[0]);
    if (!b->words && !last) special_id(b, "eos_token", "eos_token_id", ids[1]);
    const str unknown = text_of(b->model, "unk_token");
    uint32_t id;
    if (b->words && unknown.ptr && id_of(b, unknown, &id))
        facts_u32(b->f, "tokenizer.ggml.unknown_token_id", id);
    else
        special_id(b, "unk_token", "unk_token_id", "tokenizer.ggml.unknown_token_id");
}

/* Whether a text gets a blank in front that is not written. */
static void read_prefix(builder *b) {
    const json_t *norm = json_object_get(b->in->tokenizer, "normalizer");
    const json_t *meta = part_of(json_object_get(b->in->tokenizer, "pre_tokenizer"),
                                 "pretokenizers", "Metaspace");
    const str scheme = text_of(meta, "prepend_scheme");
    bool prefix = part_of(norm, "normalizers", "Prepend") != NULL;
    if (meta)
        prefix = scheme.ptr ? !str_eqz(scheme, "never")
                            : !json_is_false(json_object_get(meta, "add_prefix_space"));
    facts_bool(b->f, "tokenizer.ggml.add_space_prefix", prefix);
    facts_bool(b->f, "tokenizer.ggml.remove_extra_whitespaces", false);
}

/* ---- which kind ---- */

static status check_normalizer(const builder *b) {
    static const char *const harmless[] = {"NFC", "Prepend", "Replace"};
    const json_t *norm = json_object_get(b->in->tokenizer, "normalizer");
    const json_t *list = json_object_get(norm, "normalizers");
    const size_t n = list ? json_array_size(list) : json_is_object(norm);
    for (size_t i = 0; i < n; i++) {
        const str t = text_of(list ? json_array_get(list, i) : norm, "type");
        size_t k = 0;
        while (k < sizeof harmless / sizeof *harmless && !(t.ptr && str_eqz(t, harmless[k])))
            k++;
        if (k == 0) facts_bool(b->f, "tokenizer.nfc", true);
        if (k < sizeof harmless / sizeof *harmless) continue;
        err_set(b->e, ERR_UNSUPPORTED,
                "tokenizer.json: the normalizer \"%.*s\" is not supported",
                (int)(t.len < 60 ? t.len : 60), t.ptr ? t.ptr : "");
        return err_field(b->e, "tokenizer.json: normalizer");
    }
    return OK;
}

/* BertNormalizer's members, which transformers writes for every such vocabulary, and BertPreTokenizer. */
static status choose_words(builder *b) {
    const json_t *norm = json_object_get(b->in->tokenizer, "normalizer");
    const json_t *pre = json_object_get(b->in->tokenizer, "pre_tokenizer");
    const json_t *accents = json_object_get(norm, "strip_accents");
    const str n = text_of(norm, "type"), p = text_of(pre, "type");
    int64_t most = 100;
    const bool lower = is_true(norm, "lowercase");
    b->words = true;
    if (!n.ptr || !str_eqz(n, "BertNormalizer"))
        return fault(b, ERR_UNSUPPORTED, "normalizer", "WordPiece is read with BertNormalizer");
    if (!p.ptr || !str_eqz(p, "BertPreTokenizer"))
        return fault(b, ERR_UNSUPPORTED, "pre_tokenizer",
                     "WordPiece is read with BertPreTokenizer");
    status s = json_in_int(b->model, "max_input_chars_per_word", 1, 1000, &most, b->e);
    if (s != OK) return s;
    facts_str(b->f, "tokenizer.ggml.model", STR("bert"));
    facts_bool(b->f, "tokenizer.wordpiece.clean", is_true(norm, "clean_text"));
    facts_bool(b->f, "tokenizer.wordpiece.split_han", is_true(norm, "handle_chinese_chars"));
    facts_bool(b->f, "tokenizer.wordpiece.lowercase", lower);
    facts_bool(b->f, "tokenizer.wordpiece.strip_accents",
               json_is_boolean(accents) ? json_is_true(accents) : lower);
    facts_u32(b->f, "tokenizer.wordpiece.most_chars", (uint32_t)most);
    return OK;
}

static status choose_kind(builder *b) {
    const json_t *t = b->in->tokenizer;
    const bool bytes =
        part_of(json_object_get(t, "pre_tokenizer"), "pretokenizers", "ByteLevel") ||
        part_of(json_object_get(t, "decoder"), "decoders", "ByteLevel");
    const str type = text_of(b->model, "type");
    if (type.ptr && str_eqz(type, "WordPiece")) return choose_words(b);
    if (type.ptr && !str_eqz(type, "BPE")) {
        err_set(b->e, ERR_UNSUPPORTED, "tokenizer.json: a model of type %.*s is not supported",
                (int)(type.len < 40 ? type.len : 40), type.ptr);
        err_field(b->e, "tokenizer.json: model.type");
        return err_hint(b->e, "BPE is, over bytes or SentencePiece's pieces, and WordPiece");
    }
    b->pieces = !bytes;
    if (b->pieces && !is_true(b->model, "byte_fallback"))
        return fault(b, ERR_UNSUPPORTED, "model",
                     "BPE over neither bytes nor pieces with "
                     "byte_fallback is not supported");
    status s = check_normalizer(b);
    if (s != OK) return s;
    facts_str(b->f, "tokenizer.ggml.model", b->pieces ? STR("llama") : STR("gpt2"));
    if (b->pieces) return OK;
    return hf_pre_facts(b->f, t, is_true(b->model, "ignore_merges"), b->e);
}

status hf_tokenizer_facts(facts *f, const hf_tokenizer_files *in, uint32_t n_vocab,
                          arena *scratch, err *e) {
    builder b = {.f = f, .in = in, .scratch = scratch, .n_vocab = n_vocab, .e = e};
    b.model = json_object_get(in->tokenizer, "model");
    b.vocab = json_object_get(b.model, "vocab");
    b.merges = json_object_get(b.model, "merges");
    b.added = json_object_get(in->tokenizer, "added_tokens");
    if (!json_is_object(b.vocab)) return fault(&b, ERR_FORMAT, "model.vocab", "is no object");
    if (json_array_size(b.merges) > MAX_TOKENS || n_vocab > MAX_TOKENS)
        return fault(&b, ERR_UNSUPPORTED, "model", "more than 16,777,216 tokens or merges");
    b.token = arena_zalloc(scratch, n_vocab * sizeof *b.token);
    b.type = arena_zalloc(scratch, n_vocab * sizeof *b.type);
    if (!b.token || !b.type) return no_memory(&b);
    status s = choose_kind(&b);
    if (s == OK && !b.words && !json_is_array(b.merges))
        return fault(&b, ERR_FORMAT, "model.merges", "is no list");
    if (s == OK) s = read_vocab(&b);
    if (s == OK) s = read_added(&b);
    if (s == OK && b.words) s = mark_words(&b);
    if (s == OK) s = keep_tokens(&b);
    if (s == OK && !b.words) s = b.pieces ? keep_scores(&b) : keep_merges(&b);
    if (s == OK) s = read_ends(&b);
    if (s != OK) return s;
    read_frame(&b);
    if (b.pieces) read_prefix(&b);
    return f->failed ? no_memory(&b) : OK;
}
