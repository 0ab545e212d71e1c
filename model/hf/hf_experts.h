/* Experts of a published model: a tensor for each of them, or one of all, presented as GGUF has them: one
 * tensor of three dimensions. Owns nothing; parts lie in the arena of the folder. */
#ifndef VRAMD_MODEL_HF_EXPERTS_H
#define VRAMD_MODEL_HF_EXPERTS_H

#include "model/hf/hf_names.h"
#include "model/hf/safetensors.h"
#include "model/checkpoint.h"

/* The rows of one expert: where they begin in a stored tensor. */
typedef struct hf_expert {
    const safetensors *file;
    const safetensor *at; /* NULL: not found yet */
    uint64_t offset;      /* bytes */
} hf_expert;

/* Notes what a stored tensor has of one of GGUF's: of the expert of the name, or of all; its part
 * `part` of n_parts one after the other (gate, then up). The first makes *v, [n_experts], and fills
 * t. Errors: ERR_FORMAT (shape, type or index that do not fit the others), ERR_NO_MEMORY. */
status hf_expert_add(hf_expert **v, tensor_info *t, uint32_t n_experts, const hf_expert_name *,
                     uint32_t part, const safetensors *, const safetensor *, arena *, err *);
/* Errors: ERR_FORMAT: an expert has none. */
status hf_expert_check(const hf_expert *, const tensor_info *, err *);
/* Rows [row, row + n) of all experts, one after the other; bytes: of a row. */
status hf_expert_read(const hf_expert *, const tensor_info *, uint64_t row, uint64_t n,
                      uint64_t bytes, void *dst, err *);

#endif
