/* Which type each matrix gets when a model is quantised: one type for all, or one of llama.cpp's
 * mixtures (Q4_K_M, ...). Pure. */
#ifndef VRAMD_MODEL_WEIGHT_MIX_H
#define VRAMD_MODEL_WEIGHT_MIX_H

#include "model/config.h"

typedef enum mix_kind { MIX_NONE, MIX_SMALL, MIX_MEDIUM, MIX_LARGE } mix_kind;

typedef struct weight_mix {
    dtype base;    /* of every matrix, but for what the mixture says */
    mix_kind kind; /* MIX_NONE: no mixture; else _S, _M, _L of Q3_K, Q4_K, Q5_K */
} weight_mix;

/* "Q4_K_M", "q8_0", "bf16", "FP16", "float32", ...; any case. False: no such name. */
bool weight_mix_by_name(weight_mix *, str name);
/* The type that llama-quantize gives a matrix: name without "blk.N.", layer -1 outside the
 * layers; cols decide where a block does not divide them (dtype_for_cols). Without a mixture every
 * matrix has the base, the output matrix too, for which llama-quantize takes Q6_K. */
dtype weight_mix_type(const weight_mix *, const model_config *, const char *name, int layer,
                      uint64_t cols);

#endif
