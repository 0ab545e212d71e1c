/* What a folder says beside its tensors, as facts with GGUF's keys. */
#ifndef VRAMD_MODEL_HF_FOLDER_FACTS_H
#define VRAMD_MODEL_HF_FOLDER_FACTS_H

#include "json/in.h"
#include "model/config.h"
#include "model/facts.h"

/* Vocabulary, chat templates, default sampling: tokenizer.json (or vocab.txt), tokenizer_config.json,
 * chat_template.jinja, generation_config.json of the folder dir. Values are kept in facts.mem.
 * A folder without tokenizer.json gets no vocabulary (so it can be planned). Errors: those of
 * hf_tokenizer_facts, ERR_IO, ERR_INVALID. */
status hf_folder_facts(facts *, int dir, const json_t *config, uint32_t n_vocab, arena *scratch,
                       err *);

/* A vector that GGUF files have as a tensor, and config.json as numbers. */
typedef struct hf_made {
    const char *name;
    const float *v; /* [n] */
    uint32_t n;
} hf_made;

/* The divisors of rotary frequencies of Llama 3 and Phi-3; *n of them, at most 2. Where there are some,
 * config says no more than a GGUF file's does. Errors: ERR_FORMAT (a list of another length),
 * ERR_NO_MEMORY. */
status hf_made_tensors(model_config *, const json_t *config, arena *mem, hf_made out[2],
                       uint32_t *n, err *);

#endif
