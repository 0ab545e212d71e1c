/* Names of tensors: Hugging Face's, as transformers' classes have them, to those of GGUF. Pure. */
#ifndef VRAMD_MODEL_HF_NAMES_H
#define VRAMD_MODEL_HF_NAMES_H

#include <stdbool.h>
#include <stdint.h>

enum { HF_NAME_BYTES = 96 }; /* of a GGUF name, with its NUL */

typedef enum hf_name_kind {
    HF_NAME_WEIGHT,  /* out has its name in GGUF */
    HF_NAME_UNKNOWN, /* the name stays */
    HF_NAME_OTHER /* of another part (vision, ...), or derived: no weight of the text model */
} hf_name_kind;

/* arch: as GGUF names it. */
hf_name_kind hf_tensor_name(const char *arch, const char *name, char out[HF_NAME_BYTES]);

/* A tensor of an expert, or one that has all of them: the matrices of GGUF that it is part of. The expert
 * that all rows have counts where a tensor of it has two of GGUF's. */
enum { HF_ALL_EXPERTS = UINT32_MAX >> 1 };
typedef enum hf_expert_kind {
    HF_EXPERT_ROWS,   /* of one type, as they are read */
    HF_EXPERT_BLOCKS, /* of gpt-oss: codes of MXFP4, */
    HF_EXPERT_SCALES, /* their scales, */
    HF_EXPERT_BIAS    /* a number for each row */
} hf_expert_kind;
typedef struct hf_expert_name {
    hf_expert_kind kind;
    uint32_t expert;  /* or HF_ALL_EXPERTS */
    bool shared;      /* it is the one that all rows have, not one of several */
    uint32_t n_parts; /* 2: rows of gate, then of up; of gpt-oss by turns */
    char gguf[2][HF_NAME_BYTES];
} hf_expert_name;

/* False: it is no such tensor. */
bool hf_expert_name_of(hf_expert_name *out, const char *name);

#endif
