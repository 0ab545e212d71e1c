/* Inside of the checkpoint of a folder: hf_folder.c opens it, hf_folder_read.c is what a
 * checkpoint_format does. */
#ifndef VRAMD_MODEL_HF_FOLDER_IN_H
#define VRAMD_MODEL_HF_FOLDER_IN_H

#include "model/config.h"
#include "model/facts.h"
#include "model/hf/hf_experts.h"
#include "model/hf/hf_folder.h"
#include "model/hf/hf_gpt_oss.h"
#include "model/hf/hf_packed_read.h"
#include "model/hf/safetensors.h"

typedef enum hf_reading {
    HF_AS_STORED,
    HF_PERMUTED, /* rows (of a vector: numbers) of each head in GGUF's order: dimension i and i + n/2
                    of the file are neighbours */
    HF_PLUS_ONE,  /* F32: the number and 1, as Gemma's norms use it */
    HF_MINUS_EXP, /* F32: -e^x of the number x, as decays of states use it */
    HF_MADE       /* F32: computed from config.json; I32: an order of inputs */
} hf_reading;

typedef struct hf_tensor {
    tensor_info info;
    hf_reading reading;
    const hf_packed *packed; /* of codes and scales; NULL: of one tensor */
    hf_expert *expert;       /* [info.ne[2]]: of the experts of a layer; NULL: of one tensor */
    hf_gpt_oss *oss;         /* of the experts of gpt-oss; NULL: others */
    const safetensor *at;    /* NULL: HF_MADE, packed, or of experts */
    const safetensors *file; /* that has it */
    uint32_t head_dim;       /* HF_PERMUTED: rows of a head */
    const void *made;        /* [info.ne[0]] of its type */
} hf_tensor;

typedef struct hf_folder {
    checkpoint base;
    arena mem;
    const char *path, *dir;
    safetensors *file; /* [n_files] */
    hf_tensor *tensor; /* [n_tensors], sorted by name */
    uint32_t n_files, n_tensors;
    facts facts;
    model_config config;
    hf_scheme scheme;
    hf_slab *slab; /* NULL: no matrix needs one */
} hf_folder;

extern const checkpoint_format hf_folder_format;

/* Adds to an ERR_UNSUPPORTED what it is about: the method of a quantised checkpoint, and its first tensor of
 * codes (of another: its first tensor). */
void hf_folder_describe(const hf_folder *, const json_t *config, err *);

#endif
