/* BERT's vocab.txt, a token a line, for folders without tokenizer.json. */
#ifndef VRAMD_MODEL_HF_VOCAB_TXT_H
#define VRAMD_MODEL_HF_VOCAB_TXT_H

#include "json/in.h"

/* What tokenizer.json would say, made of vocab.txt in the open folder dir and of tokenizer_config.json (which may be
 * NULL), into mem; *out NULL: there is no such file. Errors: ERR_IO, ERR_INVALID (field: vocab.txt), ERR_NO_MEMORY. */
status hf_vocab_txt_read(const json_t **out, int dir, const json_t *tokenizer_config,
                         arena *mem, err *);

#endif
