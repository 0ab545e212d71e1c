/* The vocabulary: from the file's arrays to the bytes of each token and the tokens of each
 * merge. Runs while opening. */
#include "text/tokenizer/tokenizer_in.h"

#include "base/log.h"
#include "memory/term.h"

/* GPT-2's byte-level alphabet (openai/gpt-2, src/encoder.py, bytes_to_unicode): printable
 * Latin-1 stands for itself, the other 68 bytes for U+0100 upwards. Returns the byte, or -1. */
static int byte_of_char(uint32_t cp) {
    if ((cp >= 0x21 && cp <= 0x7e) || (cp >= 0xa1 && cp <= 0xac) || (cp >= 0xae && cp <= 0xff))
        return (int)cp;
    if (cp < 0x100 || cp > 0x143) return -1;
    uint32_t k = cp - 0x100;
    return (int)(k <= 0x20 ? k : k <= 0x42 ? k - 0x21 + 0x7f : 0xad);
}

/* The bytes that the text of a token stands for; never more than its own. Returns their
 * number, or -1 when the text is not in the alphabet. */
static int64_t bytes_of_text(str text, char *out) {
    size_t n = 0;
    for (size_t i = 0; i < text.len;) {
        unsigned char c = (unsigned char)text.ptr[i++];
        uint32_t cp = c;
        if (c >= 0x80) { /* the alphabet ends at U+0143: two bytes at most */
            if (c < 0xc2 || c > 0xc5 || i == text.len) return -1;
            cp = (uint32_t)(c & 0x1f) << 6 | ((unsigned char)text.ptr[i++] & 0x3f);
        }
        int b = byte_of_char(cp);
        if (b < 0) return -1;
        if (out) out[n] = (char)b;
        n++;
    }
    return (int64_t)n;
}

static bool is_literal(const tok_layout *l, uint32_t id) {
    return l->types && (l->types[id] == TOK_CONTROL || l->types[id] == TOK_USER ||
                        l->types[id] == TOK_UNKNOWN);
}

/* The bytes of token id: a special token's text is its bytes; so is a text outside the
 * alphabet, which no word can then become. */
static size_t piece_bytes(const tok_layout *l, uint32_t id, char *out, bool *literal) {
    str text = l->tokens[id];
    int64_t n = is_literal(l, id) ? -1
                : l->kind == TOK_SPM
                    ? (int64_t)tok_spm_bytes(text, l->types ? l->types[id] : 0, out)
                : l->kind == TOK_BPE ? bytes_of_text(text, out)
                                     : (int64_t)tok_wordpiece_bytes(text, out);
    *literal = n < 0;
    if (n >= 0) return (size_t)n;
    if (out && text.len) memcpy(out, text.ptr, text.len);
    return text.len;
}

static status array_of(const checkpoint *file, const char *key, fact_type type, fact_array *out,
                       err *e) {
    *out = (fact_array){0};
    status s = checkpoint_get_array(file, key, type, out, e);
    if (s != OK) return s;
    if (out->n > TOK_MAX_IDS) {
        err_set(e, ERR_FORMAT, "%s has %llu entries, more than %d", key,
                (unsigned long long)out->n, TOK_MAX_IDS);
        return err_field(e, "%s", key);
    }
    return OK;
}

static status no_array(const char *key, err *e) {
    err_set(e, ERR_FORMAT, "the file has no %s", key);
    return err_field(e, "%s", key);
}

/* An array with an entry for each token, if it is there. */
static status one_for_each(const fact_array *a, uint64_t n_tokens, const char *key,
                           const char *what, err *e) {
    if (!a->v || a->n == n_tokens) return OK;
    err_set(e, ERR_FORMAT, "%llu %s for %llu tokens", (unsigned long long)a->n, what,
            (unsigned long long)n_tokens);
    return err_field(e, "%s", key);
}

static status read_arrays(tok_layout *l, const checkpoint *file, err *e) {
    fact_array tokens, types, merges = {0}, scores = {0};
    status s = array_of(file, "tokenizer.ggml.tokens", FACT_STR, &tokens, e);
    if (s == OK) s = array_of(file, "tokenizer.ggml.token_type", FACT_I32, &types, e);
    if (s == OK && l->kind == TOK_BPE)
        s = array_of(file, "tokenizer.ggml.merges", FACT_STR, &merges, e);
    if (s == OK && l->kind == TOK_SPM)
        s = array_of(file, "tokenizer.ggml.scores", FACT_F32, &scores, e);
    if (s != OK) return s;
    if (tokens.n == 0) return no_array("tokenizer.ggml.tokens", e);
    if (l->kind == TOK_BPE && merges.n == 0) return no_array("tokenizer.ggml.merges", e);
    if (l->kind == TOK_SPM && scores.n == 0) return no_array("tokenizer.ggml.scores", e);
    s = one_for_each(&types, tokens.n, "tokenizer.ggml.token_type", "token types", e);
    if (s == OK) s = one_for_each(&scores, tokens.n, "tokenizer.ggml.scores", "scores", e);
    if (s != OK) return s;
    l->n_vocab = (uint32_t)tokens.n;
    l->n_merges = (uint32_t)merges.n;
    l->tokens = tokens.v;
    l->merges = merges.v;
    l->types = types.v;
    l->scores = scores.v;
    return OK;
}

/* Places a part of n items behind what is there. n and item are bounded by TOK_MAX_IDS and by
 * the size of a header that is in memory: 64 bits cannot overflow. */
static uint64_t place(tok_layout *l, uint64_t n, uint64_t item) {
    uint64_t at = l->bytes;
    l->bytes = align_up(at + n * item, 16);
    return at;
}

status tok_layout_of(tok_layout *l, const checkpoint *file, err *e) {
    *l = (tok_layout){.kind = l->kind};
    status s = read_arrays(l, file, e);
    if (s != OK) return s;
    uint64_t piece_total = 0;
    bool literal;
    for (uint32_t id = 0; id < l->n_vocab; id++) {
        piece_total += piece_bytes(l, id, NULL, &literal);
        l->n_special += is_literal(l, id);
    }
    if (piece_total > UINT32_MAX) {
        err_set(e, ERR_FORMAT, "the texts of the tokens take more than 4 GiB");
        return err_field(e, "tokenizer.ggml.tokens");
    }
    l->bytes = align_up(sizeof(tokenizer), 16);
    l->offset = place(l, l->n_vocab + 1u, sizeof(uint32_t));
    l->pieces = place(l, piece_total, 1);
    l->type = place(l, l->n_vocab, 1);
    l->slot = place(l, tok_table_slots(l->n_vocab), sizeof(uint32_t));
    l->merge = place(l, l->n_merges, sizeof(tok_merge));
    l->merge_slot =
        place(l, l->kind == TOK_BPE ? tok_table_slots(l->n_merges) : 0, sizeof(uint32_t));
    l->whole = place(l, ceil_div(l->n_vocab, 32), sizeof(uint32_t));
    l->special = place(l, l->n_special, sizeof(uint32_t));
    l->score = place(l, l->kind == TOK_SPM ? l->n_vocab : 0, sizeof(uint32_t));
    l->joins = place(l, l->kind == TOK_SPM ? TOK_JOINS_BYTES : 0, 1);
    l->pre = place(l, l->kind == TOK_BPE ? TOK_PRE_BYTES : 0, 1);
    return OK;
}

static void build_pieces(tokenizer *t, const tok_layout *l) {
    uint32_t *offset = (uint32_t *)((char *)t + l->offset), end = 0;
    char *pieces = (char *)t + l->pieces;
    t->offset = offset;
    t->pieces = pieces;
    t->type = (uint8_t *)t + l->type;
    tok_table_init(&t->by_piece, (uint32_t *)((char *)t + l->slot), l->n_vocab);
    for (uint32_t id = 0; id < l->n_vocab; id++) {
        bool literal;
        offset[id] = end;
        end += (uint32_t)piece_bytes(l, id, pieces + end, &literal);
        offset[id + 1] = end;
        int32_t type = l->types ? l->types[id] : TOK_NORMAL;
        t->type[id] = type >= TOK_NORMAL && type <= TOK_BYTE ? (uint8_t)type : TOK_NORMAL;
        /* SentencePiece's merges make no token but ordinary ones. */
        if (literal && (type != TOK_USER || l->kind != TOK_BPE)) continue;
        if (l->kind == TOK_SPM && type == TOK_BYTE) continue;
        tok_add_piece(t, id);
    }
    for (int b = 0; b < 256; b++) {
        char c = (char)b;
        t->byte_id[b] = tok_find_piece(t, (str){&c, 1});
    }
}

static status merge_error(err *e, uint32_t rank, str text, const char *why) {
    err_set(e, ERR_FORMAT, "merge %u (\"%.*s\") %s", rank, (int)(text.len < 80 ? text.len : 80),
            text.ptr, why);
    return err_field(e, "tokenizer.ggml.merges");
}

/* A merge that no text can use: nothing has its parts, or its result is no token. Logged once. */
static void leave_out(uint32_t *n_left_out, uint32_t rank, str text, const char *why) {
    if ((*n_left_out)++ > 0) return;
    log_warn(
        "tokenizer.ggml.merges: merge %u (\"%.*s\") %s: it is not used, nor are others like it",
        rank, (int)(text.len < 80 ? text.len : 80), text.ptr, why);
}

/* The id of a merge's part, whose bytes are left in texts; -1: not in the vocabulary. */
static int64_t part_id(const tokenizer *t, str text, char *texts, size_t *len) {
    int64_t n = bytes_of_text(text, texts);
    if (n < 0) return -1;
    *len = (size_t)n;
    return tok_find_piece(t, (str){texts, (size_t)n});
}

static status build_merge(tokenizer *t, uint32_t rank, str text, char *texts,
                          uint32_t *n_left_out, err *e) {
    const char *space = text.len > 1 ? memchr(text.ptr + 1, ' ', text.len - 1) : NULL;
    if (!space) return merge_error(e, rank, text, "is not two texts with a space between");
    str left = {text.ptr, (size_t)(space - text.ptr)};
    str right = {space + 1, text.len - left.len - 1};
    size_t n_left = 0, n_right = 0;
    int64_t l = part_id(t, left, texts, &n_left);
    int64_t r = l < 0 ? -1 : part_id(t, right, texts + n_left, &n_right);
    if (l < 0 || r < 0) {
        leave_out(n_left_out, rank, text, "joins what is not in the vocabulary");
        return OK;
    }
    int32_t result = tok_find_piece(t, (str){texts, n_left + n_right});
    if (result < 0) {
        leave_out(n_left_out, rank, text, "makes what is not in the vocabulary");
        return OK;
    }
    t->merges[rank] = (tok_merge){(uint32_t)l, (uint32_t)r, (uint32_t)result};
    tok_add_merge(t, rank);
    return OK;
}

static status build_merges(tokenizer *t, const tok_layout *l, err *e) {
    t->merges = (tok_merge *)((char *)t + l->merge);
    tok_table_init(&t->by_pair, (uint32_t *)((char *)t + l->merge_slot), l->n_merges);
    buf texts; /* for the texts of one merge; goes back before the tokenizer is used */
    buf_init(&texts, NULL);
    status s = OK;
    uint32_t n_left_out = 0;
    memset(t->merges, 0, l->n_merges * sizeof *t->merges);
    for (uint32_t rank = 0; rank < l->n_merges && s == OK; rank++) {
        if (buf_reserve(&texts, l->merges[rank].len + 1))
            s = build_merge(t, rank, l->merges[rank], texts.ptr, &n_left_out, e);
        else
            s = mem_exhausted(e, MEM_TOKENIZER, "the text of a merge");
    }
    buf_clear(&texts);
    return s;
}

status tok_vocab_build(tokenizer *t, const tok_layout *l, err *e) {
    t->n_vocab = l->n_vocab;
    t->n_merges = l->n_merges;
    t->whole = (_Atomic uint32_t *)((char *)t + l->whole);
    memset((char *)t + l->whole, 0, (size_t)ceil_div(l->n_vocab, 32) * sizeof(uint32_t));
    build_pieces(t, l);
    return l->kind == TOK_BPE ? build_merges(t, l, e) : OK;
}
