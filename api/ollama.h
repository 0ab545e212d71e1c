/* What the files of Ollama's API share: it is there with the option ollama_api. Loop thread. */
#ifndef VRAMD_API_OLLAMA_H
#define VRAMD_API_OLLAMA_H

#include "api/answer.h"

extern const struct writer writer_ollama_chat, writer_ollama_generate, writer_ollama_raw;

/* In converted bodies: the context that a request needs, in tokens. */
#define OLLAMA_CONTEXT "num_ctx"

/* A model's name without the tag ":latest". */
str ollama_name(str name);
/* Now, or another time, as a JSON string. */
void ollama_time(uint64_t unix_us, buf *);

#endif
