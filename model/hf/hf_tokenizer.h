/* A tokenizer.json, as the tokenizers library writes it, to the facts that GGUF has of a vocabulary
 * ("tokenizer.ggml.tokens", ...): BPE over bytes, and BPE with SentencePiece's pieces. */
#ifndef VRAMD_MODEL_HF_TOKENIZER_H
#define VRAMD_MODEL_HF_TOKENIZER_H

#include "json/in.h"
#include "model/facts.h"

/* Parsed files; tokenizer is there, each of the others may be NULL. */
typedef struct hf_tokenizer_files {
    const json_t *tokenizer, *tokenizer_config, *config, *generation_config;
} hf_tokenizer_files;

/* Adds the facts; their texts are copied into facts.mem. n_vocab: rows of the model's embedding; ids
 * that the vocabulary leaves out become tokens that no text gives. Beside GGUF's keys there are
 * tokenizer.eog_token_ids (I32: all that end a generation) and tokenizer.strip_after_special.
 * scratch is used meanwhile. Errors: ERR_UNSUPPORTED (what of the tokenizer, by name), ERR_FORMAT,
 * ERR_NO_MEMORY; field: "tokenizer.json: MEMBER". */
status hf_tokenizer_facts(facts *, const hf_tokenizer_files *, uint32_t n_vocab, arena *scratch,
                          err *);

/* hf_tokenizer_pre.c: the pre_tokenizer of a vocabulary of bytes. The fact tokenizer.ggml.pre
 * where it is one that GGUF has a name for; else tokenizer.pre.stages, its patterns as PCRE2 reads
 * them, and tokenizer.pre.ignore_merges. Errors: ERR_UNSUPPORTED (which part), ERR_NO_MEMORY. */
status hf_pre_facts(facts *, const json_t *tokenizer, bool ignore_merges, err *);

#endif
