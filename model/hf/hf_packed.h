/* Matrices that a published model stores as codes, zero points and scales, read as rows of a type that
 * holds each of them as it was published (model/dtype.h, types with groups): w = (code - zero) * scale.
 *
 *     2 and 3 bits, 4 bits symmetric    code - zero + 8      I4
 *     4 bits with zero points           code and zero        I4Z
 *     8 bits symmetric                  code - 128           I8G
 *     8 bits with zero points (GPTQ)    both, less 128       I8Z
 *     FP8 (e4m3)                        code                 F8
 *
 * The group and the type of the scales are the checkpoint's; I4 and I8G by 32 with F16 are Q4_0 and Q8_0.
 * Sources: AutoGPTQ, GPTQModel, AutoAWQ and compressed-tensors, the layers that unpack. */
#ifndef VRAMD_MODEL_HF_PACKED_H
#define VRAMD_MODEL_HF_PACKED_H

#include "base/arena.h"
#include "json/in.h"
#include "model/hf/safetensors.h"

typedef enum hf_packing {
    HF_PACKED_NONE,
    /* P.qweight I32 [K b / 32, N], P.qzeros I32 [K/g, N b / 32], P.scales [K/g, N], P.g_idx */
    HF_PACKED_GPTQ,
    HF_PACKED_AWQ,   /* P.qweight I32 [K, N/8], P.qzeros I32 [K/g, N/8], P.scales [K/g, N] */
    HF_PACKED_WORDS, /* P.weight_packed I32 [N, K/8], P.weight_scale [N, K/g], P.weight_shape,
                        P.weight_zero_point I32 [N/8, K/g], P.weight_g_idx */
    HF_PACKED_BYTES, /* P.weight I8 [N, K], P.weight_scale [N, K/g] */
    HF_PACKED_FP8 /* P.weight F8_E4M3 [N, K], P.weight_scale [N, K/g], [N] or [1], or P.weight_scale_inv
                        of blocks, which multiplies, too */
} hf_packing;

typedef struct hf_scheme {
    hf_packing packing;
    uint32_t bits;
    bool symmetric;
    uint32_t zero_bias;              /* GPTQ: what a stored zero point is too small by */
    uint32_t group;                  /* inputs that share a scale; 0: as its shape says */
    uint32_t block_rows, block_cols; /* FP8: of a scale; 0: as its shape says */
    bool inverse;      /* FP8: scales of blocks are called "inv", which multiply all the same */
    bool input_scales; /* the config says that inputs have scales of their own, fixed */
} hf_scheme;

/* Whether codes are stored input by input. */
static inline bool hf_is_transposed(const hf_scheme *s) {
    return s->packing == HF_PACKED_GPTQ || s->packing == HF_PACKED_AWQ;
}

/* Of a quantization_config; packing NONE: there is none. Errors: ERR_UNSUPPORTED (field: the member),
 * for what is not read without a change of numbers. */
status hf_scheme_read(hf_scheme *out, const json_t *quantization_config, err *);

typedef struct hf_packed {
    const hf_scheme *scheme;
    const safetensors *codes_in, *scales_in, *zeros_in;
    const safetensor *codes, *scales, *zeros; /* zeros NULL: the middle of the codes */
    uint64_t rows, cols, group;               /* group: of a row as it is read */
    uint64_t scale_rows, scale_cols; /* that share a stored scale; the last ones may be fewer */
    dtype type;                      /* of the rows */
    /* [cols]: the stored input that is the i-th of a row as it is read, groups one after the other; NULL:
     * the i-th */
    const int32_t *order;
} hf_packed;

/* The part of a name in front of the tensor that has the codes ("P"), and its length; 0: the tensor is no
 * codes. *beside: it belongs to codes of another name. */
size_t hf_packed_base(const hf_scheme *, const safetensor *, bool *beside);
/* Finds the parts of a matrix in the files. Errors: ERR_FORMAT (field: the part that is missing or has
 * another shape, groups of inputs that are no groups), ERR_IO. mem: for the order of inputs. */
status hf_packed_find(hf_packed *out, const hf_scheme *, const safetensors *files,
                      uint32_t n_files, const safetensor *codes, size_t base, arena *mem,
                      err *);

#endif
