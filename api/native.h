/* What the endpoints of llama.cpp's server share with others. Loop thread. */
#ifndef VRAMD_API_NATIVE_H
#define VRAMD_API_NATIVE_H

#include "api/answer.h"

extern const struct writer writer_native;

/* Times of a choice that has ended, in microseconds: of its prompt, and of its output. */
typedef struct choice_times {
    uint64_t prompt_us, output_us;
} choice_times;
choice_times native_times(const choice *);

/* The parameters of sampling that are in force, as members without braces. */
void native_settings(const params *, buf *);

#endif
