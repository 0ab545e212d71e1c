/* Experts of gpt-oss as published, presented as GGUF has them. Blocks of MXFP4 come in two tensors, U8
 * [experts, rows, blocks, 16] of codes and U8 [experts, rows, blocks] of scales; rows of gate and up
 * take turns, as do the numbers of their bias [experts, rows]. Where a model was saved without them, in 16 or 32
 * bits, its matrices have their inputs first: [experts, inputs, rows]. Owns nothing; parts lie in the arena of
 * the folder. Immutable once checked; any thread. */
#ifndef VRAMD_MODEL_HF_GPT_OSS_H
#define VRAMD_MODEL_HF_GPT_OSS_H

#include "model/checkpoint.h"
#include "model/hf/hf_names.h"
#include "model/hf/safetensors.h"

typedef struct hf_gpt_oss {
    const safetensors *blocks_in, *scales_in;
    const safetensor *blocks,
        *scales;            /* scales NULL: blocks has numbers; NULL: not found yet */
    uint32_t turn, n_turns; /* row r is the stored one r * n_turns + turn */
} hf_gpt_oss;

/* Notes what a stored tensor, of all experts has of one of GGUF's, of which it
 * holds every n_parts-th row from `part` on. The first makes *v; either fills t. Errors: ERR_FORMAT
 * (type or shape), ERR_NO_MEMORY. */
status hf_gpt_oss_add(hf_gpt_oss **v, tensor_info *t, uint32_t n_experts,
                      const hf_expert_name *, uint32_t part, const safetensors *,
                      const safetensor *, arena *, err *);
/* Errors: ERR_FORMAT: blocks or scales are missing, or do not go together. */
status hf_gpt_oss_check(const hf_gpt_oss *, const tensor_info *, err *);
/* Rows [row, row + n) of all experts, one after the other. Errors: ERR_IO, ERR_NO_MEMORY. */
status hf_gpt_oss_read(const hf_gpt_oss *, const tensor_info *, uint64_t row, uint64_t n,
                       void *dst, err *);
/* One block: 16 bytes of codes, two neighbours in each, and their scale, to GGUF's 17 bytes. */
void hf_gpt_oss_block(const uint8_t codes[16], uint8_t scale, uint8_t out[17]);

#endif
