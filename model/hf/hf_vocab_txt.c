/* vocab.txt as transformers reads it: tokenization_bert.py (load_vocab), and the parts that
 * convert_slow_tokenizer.py (BertConverter) gives its tokenizer. Owns nothing. */
#include "model/hf/hf_vocab_txt.h"

#include <string.h>

#include "memory/term.h"
#include "model/hf/hf_json.h"

enum { MAX_VOCAB = 16 << 20 };

typedef struct making {
    str text;
    const json_t *config;
    json_t *made; /* NULL: no memory, or a line that is no UTF-8 */
} making;

static json_t *vocab_of(str text) {
    json_t *vocab = json_object();
    json_int_t id = 0;
    for (size_t at = 0; at < text.len && vocab; id++) {
        const char *line = text.ptr + at, *end = memchr(line, '\n', text.len - at);
        size_t n = end ? (size_t)(end - line) : text.len - at;
        at += n + 1;
        if (n && line[n - 1] == '\r') n--;
        if (json_object_setn_new(vocab, line, n, json_integer(id)) != 0) return NULL;
    }
    return vocab;
}

/* Those that the vocabulary has of the five that BERT reserves. */
static json_t *specials_of(const json_t *vocab) {
    static const char *const texts[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const json_t *id = json_object_get(vocab, texts[i]);
        if (id)
            json_array_append_new(list,
                                  json_pack("{s:I, s:s, s:b}", "id", json_integer_value(id),
                                            "content", texts[i], "special", 1));
    }
    return list;
}

static bool flag_of(const json_t *config, const char *key) {
    const json_t *v = json_object_get(config, key);
    return !json_is_false(v);
}

static void make(void *arg) {
    making *m = arg;
    json_t *vocab = vocab_of(m->text);
    const json_t *accents = json_object_get(m->config, "strip_accents");
    if (!vocab) return;
    json_t *normalizer =
        json_pack("{s:s, s:b, s:b, s:b, s:O*}", "type", "BertNormalizer", "clean_text", 1,
                  "handle_chinese_chars", flag_of(m->config, "tokenize_chinese_chars"),
                  "lowercase", flag_of(m->config, "do_lower_case"), "strip_accents",
                  json_is_boolean(accents) ? (json_t *)accents : NULL);
    json_t *specials = specials_of(vocab);
    m->made = json_pack(
        "{s:o, s:o, s:{s:s}, s:{s:s}, s:{s:s, s:s, s:s, s:i, s:o}}", "added_tokens", specials,
        "normalizer", normalizer, "pre_tokenizer", "type", "BertPreTokenizer", "post_processor",
        "type", "BertProcessing", "model", "type", "WordPiece", "unk_token", "[UNK]",
        "continuing_subword_prefix", "##", "max_input_chars_per_word", 100, "vocab", vocab);
}

status hf_vocab_txt_read(const json_t **out, int dir, const json_t *tokenizer_config,
                         arena *mem, err *e) {
    making m = {.config = tokenizer_config};
    *out = NULL;
    status s = hf_read_text(&m.text, dir, "vocab.txt", MAX_VOCAB, mem, e);
    if (s == ERR_NOT_FOUND) return OK;
    if (s != OK) return s;
    if (!json_within(mem, make, &m))
        return mem_exhausted(e, MEM_LOADING, "the vocabulary of vocab.txt");
    *out = m.made;
    if (m.made) return OK;
    err_set(e, ERR_INVALID, "vocab.txt has a line that is no text in UTF-8");
    return err_field(e, "vocab.txt");
}
