/* module: model */
/* Fuzzes a tokenizer.json: what is read has a text for each token. One thread. */
#include <stdint.h>

#include "base/check.h"
#include "model/hf/hf_json.h"
#include "model/hf/hf_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    enum { VOCAB = 64 };
    arena mem, scratch;
    facts f;
    err e = {0};
    hf_tokenizer_files in = {0};
    arena_init(&mem, chunks_heap(), 0);
    arena_init(&scratch, chunks_heap(), 0);
    facts_init(&f, &mem);
    status s = hf_parse_json(&in.tokenizer, (str){(const char *)data, n}, "tokenizer.json",
                             &scratch, &e);
    if (s == OK) s = hf_tokenizer_facts(&f, &in, VOCAB, &scratch, &e);
    CHECK(s == OK || e.text[0]);
    uint64_t n_tokens = 0;
    if (s == OK)
        CHECK(facts_length(&f, "tokenizer.ggml.tokens", &n_tokens) && n_tokens == VOCAB);
    arena_clear(&scratch);
    arena_clear(&mem);
    return 0;
}
