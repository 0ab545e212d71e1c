/* Special tokens: finding their texts in a prompt, and which of them end a generation.
 *
 * Texts are kept as a sorted array of ids. At a place in the text the array is narrowed byte
 * by byte to the texts that begin so; the last complete one is the longest match. Texts are at
 * most TOK_MAX_SPECIAL_BYTES long, so a search is linear in the prompt.
 * Built while opening; used by any thread. */
#include "text/tokenizer/tokenizer_in.h"

#include <stdlib.h>
#include <strings.h>

#include "base/log.h"

static int compare_str(str a, str b) {
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n ? memcmp(a.ptr, b.ptr, n) : 0;
    return c ? c : (a.len > b.len) - (a.len < b.len);
}

static int compare_ids(const void *a, const void *b, void *tok) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    int c = compare_str(tok_piece(tok, x), tok_piece(tok, y));
    return c ? c : (x > y) - (x < y);
}

static int32_t tok_special_find(const tokenizer *t, str s) {
    uint32_t lo = 0, hi = t->n_special;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (compare_str(tok_piece(t, t->special[mid]), s) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < t->n_special && str_eq(tok_piece(t, t->special[lo]), s)
               ? (int32_t)t->special[lo]
               : -1;
}

/* The first entry of special[lo..hi) whose byte at depth is >= c, or with after > c. All of
 * them share their first depth bytes, and are longer than depth. */
static uint32_t bound_of(const tokenizer *t, uint32_t lo, uint32_t hi, size_t depth,
                         unsigned c) {
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if ((unsigned char)tok_piece(t, t->special[mid]).ptr[depth] < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The longest special text at the beginning of s; -1: none. */
static int64_t longest_at(const tokenizer *t, str s, bool control) {
    uint32_t lo = 0, hi = t->n_special;
    int64_t best = -1;
    for (size_t depth = 0;; depth++) {
        /* The texts that end here stand first; of equal ones the first that may be used wins.
         */
        bool found = false;
        for (; lo < hi && tok_piece(t, t->special[lo]).len == depth; lo++) {
            if (found || depth == 0 || !(control || t->type[t->special[lo]] == TOK_USER))
                continue;
            best = t->special[lo];
            found = true;
        }
        if (lo == hi || depth == s.len || depth == TOK_MAX_SPECIAL_BYTES) return best;
        unsigned c = (unsigned char)s.ptr[depth];
        lo = bound_of(t, lo, hi, depth, c);
        hi = bound_of(t, lo, hi, depth, c + 1);
    }
}

size_t tok_special_next(const tokenizer *t, str text, size_t from, bool control, uint32_t *id) {
    const uint64_t *first = control ? t->first_control : t->first_user;
    if (!(first[0] | first[1] | first[2] | first[3])) return SIZE_MAX;
    for (size_t i = from; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (!(first[c >> 6] >> (c & 63) & 1)) continue;
        int64_t found = longest_at(t, (str){text.ptr + i, text.len - i}, control);
        if (found < 0) continue;
        *id = (uint32_t)found;
        return i;
    }
    return SIZE_MAX;
}

static void build_index(tokenizer *t) {
    for (uint32_t id = 0, n = 0; id < t->n_vocab; id++) {
        if (t->type[id] != TOK_CONTROL && t->type[id] != TOK_USER && t->type[id] != TOK_UNKNOWN)
            continue;
        t->special[n++] = id;
        str piece = tok_piece(t, id);
        if (piece.len == 0) continue;
        unsigned char c = (unsigned char)piece.ptr[0];
        t->first_control[c >> 6] |= 1ull << (c & 63);
        if (t->type[id] == TOK_USER) t->first_user[c >> 6] |= 1ull << (c & 63);
    }
    qsort_r(t->special, t->n_special, sizeof *t->special, compare_ids, t);
}

/* ---- end of generation ---- */

static bool eog_has(const tokenizer *t, int32_t id) {
    for (uint32_t i = 0; i < t->n_eog; i++)
        if (t->eog[i] == id) return true;
    return false;
}

static void eog_add(tokenizer *t, int32_t id) {
    if (id >= 0 && t->n_eog < TOK_MAX_EOG && !eog_has(t, id)) t->eog[t->n_eog++] = id;
}

/* Texts that model families end a turn or a file with: ChatML, Llama 3, Phi-3, Gemma, GPT-2,
 * Granite, Llama 2, DeepSeek, Kimi, gpt-oss, SmolVLM, Qwen2.5-Coder; many files mark only one
 * of a model's several by its key. The list is that of llama.cpp (src/llama-vocab.cpp). */
static const char *const eog_texts[] = {
    "<|im_end|>",      "<|eot_id|>",
    "<|eom_id|>",      "<|end|>",
    "<end_of_turn>",   "<|endoftext|>",
    "<|end_of_text|>", "</s>",
    "<eos>",           "<EOT>",
    "_<EOT>",          "[EOT]",
    "[EOS]",           "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "<|return|>",      "<|call|>",
    "<|calls|>",       "<|flush|>",
    "<turn|>",         "<end_of_utterance>",
    "<|fim_pad|>",     "<|repo_name|>",
    "<|file_sep|>",
};

/* spm: what a SentencePiece file means by saying nothing. */
static status id_of_key(const tokenizer *t, const checkpoint *file, const char *key,
                        int32_t spm, int32_t *id, err *e) {
    uint32_t v = UINT32_MAX; /* also what converters write for "none" */
    if (t->kind == TOK_SPM && spm >= 0 && (uint32_t)spm < t->n_vocab) v = (uint32_t)spm;
    status s = checkpoint_get_u32(file, key, &v, e);
    *id = -1;
    if (s != OK || v == UINT32_MAX) return s;
    if (v >= t->n_vocab) { /* llama.cpp goes on too, with what the file means without it */
        log_warn("%s is %u, but there are only %u tokens: it is not used", key, v, t->n_vocab);
        v = t->kind == TOK_SPM && spm >= 0 && (uint32_t)spm < t->n_vocab ? (uint32_t)spm
                                                                         : UINT32_MAX;
    }
    *id = (int32_t)v; /* -1 for none */
    return OK;
}

static void drop_false_ends(tokenizer *t) {
    /* In gpt-oss's format (OpenAI harmony) <|end|> closes a message, not the turn. */
    int32_t end = tok_special_find(t, STR("<|end|>"));
    bool calls = tok_special_find(t, STR("<|call|>")) >= 0;
    if (end < 0 || end == t->eos || !calls || tok_special_find(t, STR("<|return|>")) < 0)
        return;
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n_eog; i++)
        if (t->eog[i] != end) t->eog[n++] = t->eog[i];
    t->n_eog = n;
}

/* Formats that list every end (generation_config.json). */
static status listed_ends(tokenizer *t, const checkpoint *file, err *e) {
    fact_array a = {0};
    status s = checkpoint_get_array(file, "tokenizer.eog_token_ids", FACT_I32, &a, e);
    for (uint64_t i = 0; s == OK && i < a.n; i++) {
        const int32_t id = ((const int32_t *)a.v)[i];
        if (id >= 0 && (uint32_t)id < t->n_vocab) eog_add(t, id);
    }
    return s;
}

static status build_ends(tokenizer *t, const checkpoint *file, err *e) {
    static const char *const keys[] = {
        "tokenizer.ggml.eos_token_id",     "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id",     "tokenizer.ggml.fim_pad_token_id",
        "tokenizer.ggml.fim_rep_token_id", "tokenizer.ggml.fim_sep_token_id",
    };
    status s = id_of_key(t, file, "tokenizer.ggml.bos_token_id", 1, &t->bos, e);
    t->unknown = -1;
    if (s == OK && !t->pre)
        s = id_of_key(t, file, "tokenizer.ggml.unknown_token_id", 0, &t->unknown, e);
    if (s != OK) return s;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int32_t id;
        if ((s = id_of_key(t, file, keys[i], i == 0 ? 2 : -1, &id, e)) != OK) return s;
        if (i == 0) t->eos = id;
        eog_add(t, id);
    }
    for (size_t i = 0; i < sizeof eog_texts / sizeof *eog_texts; i++) {
        str text = str_of(eog_texts[i]);
        int32_t id = tok_special_find(t, text);
        /* "</s>" that is found in every text is a word of HTML (Gemma's id 212). */
        if (id >= 0 && text.ptr[0] == '<' && text.ptr[1] == '/' && t->type[id] == TOK_USER)
            continue;
        /* Files that mark no types still mean these; "</s>" may be a word of HTML there. */
        if (id < 0 && str_starts(text, STR("<|"))) id = tok_find_piece(t, text);
        eog_add(t, id);
    }
    drop_false_ends(t);
    return listed_ends(t, file, e);
}

/* What a SentencePiece file means where it says nothing. */
static status build_spm(tokenizer *t, const checkpoint *file, err *e) {
    t->space_prefix = true;
    status s =
        checkpoint_get_bool(file, "tokenizer.ggml.add_space_prefix", &t->space_prefix, e);
    if (s == OK)
        s = checkpoint_get_bool(file, "tokenizer.ggml.remove_extra_whitespaces",
                                &t->single_spaces, e);
    return s;
}

/* Phi-3's GGUF files are known by their name alone, in llama.cpp too. */
static status build_strip(tokenizer *t, const checkpoint *file, err *e) {
    str name = STR("");
    status s = checkpoint_get_str(file, "general.name", &name, e);
    for (size_t i = 0; i + 4 <= name.len; i++)
        if (strncasecmp(name.ptr + i, "phi3", 4) == 0 ||
            (i + 5 <= name.len && strncasecmp(name.ptr + i, "phi-3", 5) == 0))
            t->strip_after_special = true;
    if (s != OK) return s;
    return checkpoint_get_bool(file, "tokenizer.strip_after_special", &t->strip_after_special,
                               e);
}

/* BERT's files name what stands before and behind a text by other keys, or not at all. */
static status build_frame(tokenizer *t, const checkpoint *file, err *e) {
    const struct {
        const char *key, *text;
        int32_t *id;
    } ends[] = {{"tokenizer.ggml.cls_token_id", "[CLS]", &t->bos},
                {"tokenizer.ggml.seperator_token_id", "[SEP]", &t->eos}, /* as GGUF spells it */
                {"tokenizer.ggml.unknown_token_id", "[UNK]", &t->unknown}};
    status s = OK;
    for (size_t i = 0; i < sizeof ends / sizeof *ends && s == OK; i++) {
        if (*ends[i].id >= 0) continue;
        s = id_of_key(t, file, ends[i].key, -1, ends[i].id, e);
        if (*ends[i].id < 0) *ends[i].id = tok_special_find(t, str_of(ends[i].text));
    }
    t->add_eos = true;
    return s;
}

status tok_special_build(tokenizer *t, const checkpoint *file, err *e) {
    build_index(t);
    status s = build_ends(t, file, e);
    if (s == OK && t->kind == TOK_WORDPIECE) s = build_frame(t, file, e);
    t->add_bos = !t->pre || t->pre->adds_bos;
    if (s == OK) s = build_strip(t, file, e);
    if (s == OK && t->kind == TOK_SPM) s = build_spm(t, file, e);
    if (s == OK) s = checkpoint_get_bool(file, "tokenizer.nfc", &t->nfc, e);
    if (s == OK) s = checkpoint_get_bool(file, "tokenizer.ggml.add_bos_token", &t->add_bos, e);
    if (s == OK) s = checkpoint_get_bool(file, "tokenizer.ggml.add_eos_token", &t->add_eos, e);
    return s;
}
