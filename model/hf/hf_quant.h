/* How Hugging Face's files store quantised weights: from the quantization_config of a config.json,
 * or by a name. Serves planning: bytes of each weight as stored. Plain data; pure. */
#ifndef VRAMD_MODEL_HF_QUANT_H
#define VRAMD_MODEL_HF_QUANT_H

#include "json/in.h"

#include "model/program.h"

/* A matrix of N outputs and K inputs has N x K codes, a scale for each block of scale_rows x
 * scale_cols of them, zero points with the scales, an index of each input's group, and constants
 * beside. */
typedef struct quant_scheme {
    char name[64];       /* "GPTQ, 4 bits, groups of 128" */
    uint32_t bits;       /* of a code; 0: nothing is quantised */
    uint32_t scale_rows; /* of a block; UINT32_MAX: all */
    uint32_t scale_cols; /* likewise */
    uint32_t scale_bytes;
    uint32_t zero_bits; /* of a zero point; 0: none */
    bool order;         /* 4 bytes for each input: which group it is in */
    uint32_t extra_bytes;
    uint16_t
        biases; /* bits of the matrices that get a bias of 16 bits, which the model lacks */
    bool only_experts;
    bool keeps_head;                 /* the output matrix is not quantised */
    dtype rest;                      /* type of what is not quantised */
    uint16_t kept[MODEL_MAX_LAYERS]; /* by layer: bits of the matrices that are not quantised */
} quant_scheme;

/* Reads a quantization_config of a model whose shape is known; rest stays. Errors: ERR_UNSUPPORTED
 * (a method, format or version of which the bytes are not known, by name), ERR_INVALID,
 * ERR_FORMAT. field: the member. */
status hf_quant_read(quant_scheme *, const json_t *, const model_config *, err *);
/* The schemes that people name: FP8, AWQ, GPTQ-Int4, GPTQ-Int8, int4, int8; any case. False: no
 * such name. rest stays. */
bool hf_quant_by_name(quant_scheme *, str name);
/* Bytes of a weight in the files, and whether it is quantised. */
uint64_t hf_quant_bytes(const quant_scheme *, const weight *, bool *quantised);

#endif
