/* Matrices that a published model stores as codes and scales, read as rows of a GGUF type: only where
 * each number stays what it was published as. Symmetric codes of 4 bits in groups become Q4_0, of 8
 * bits Q8_0, whose blocks of 32 repeat the group's scale.
 *
 * GPTQ and compressed-tensors; sources: AutoGPTQ, GPTQModel and compressed-tensors, the layers that
 * unpack. */
#ifndef VRAMD_MODEL_HF_PACKED_H
#define VRAMD_MODEL_HF_PACKED_H

#include "json/in.h"
#include "model/safetensors.h"

typedef enum hf_packing {
    HF_PACKED_NONE,
    HF_PACKED_GPTQ4, /* P.qweight I32 [K/8, N], P.qzeros I32 [K/g, N/8], P.scales [K/g, N], P.g_idx */
    HF_PACKED_ROWS4, /* P.weight_packed I32 [N, K/8], P.weight_scale [N, K/g], P.weight_shape */
    HF_PACKED_ROWS8  /* P.weight I8 [N, K], P.weight_scale [N, 1] */
} hf_packing;

typedef struct hf_scheme {
    hf_packing packing;
    uint32_t zero;  /* GPTQ: the stored zero point that means 8 */
    bool act_order; /* GPTQ: g_idx may say that inputs are not in order */
} hf_scheme;

/* Of a quantization_config; packing NONE: there is none. Errors: ERR_UNSUPPORTED (field: the member),
 * for what is not read without a change of numbers. */
status hf_scheme_read(hf_scheme *out, const json_t *quantization_config, err *);

typedef struct hf_packed {
    const hf_scheme *scheme;
    const safetensors *codes_in, *scales_in, *zeros_in;
    const safetensor *codes, *scales, *zeros; /* zeros: GPTQ only */
    uint64_t rows, cols, group;
} hf_packed;

/* The part of a name in front of the tensor that has the codes ("P"), and its length; 0: the tensor is no
 * codes. *beside: it belongs to codes of another name. */
size_t hf_packed_base(const hf_scheme *, const safetensor *, bool *beside);
/* Finds the parts of a matrix in the files. Errors: ERR_FORMAT (field: the part that is missing or has
 * another shape), ERR_UNSUPPORTED (inputs out of order, which is read from g_idx), ERR_IO. */
status hf_packed_find(hf_packed *out, const hf_scheme *, const safetensors *files,
                      uint32_t n_files, const safetensor *codes, size_t base, err *);

/* Columns of codes that lie together in memory, for files that have a matrix transposed. */
typedef struct hf_slab hf_slab;
uint64_t hf_slab_bytes(const hf_packed *); /* 0: it needs none */
/* mem: as many bytes as the largest of the matrices needs, 16-byte aligned. */
hf_slab *hf_slab_init(void *mem);
void hf_slab_clear(hf_slab *);

/* Row `row` of the matrix, as cols / 32 blocks of Q4_0 or Q8_0. Any thread. Errors: ERR_IO, ERR_UNSUPPORTED (a
 * zero point that is not the middle; a scale that 16 bits do not hold), ERR_NO_MEMORY. */
status hf_packed_read(const hf_packed *, hf_slab *, uint64_t row, void *dst, err *);

#endif
