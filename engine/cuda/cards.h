/* CUDA devices by name, for plans made on machines without them (vramd plan --device). Data
 * only, each figure with its source; pure C. */
#ifndef VRAMD_ENGINE_CUDA_CARDS_H
#define VRAMD_ENGINE_CUDA_CARDS_H

#include <stdint.h>

typedef struct cuda_card {
    const char *name;        /* as --device takes it: "h200" */
    const char *product;     /* as the driver calls it */
    uint32_t memory_mib;     /* what nvidia-smi reports as total */
    uint32_t n_sms;          /* multiprocessors */
    uint32_t major, minor;   /* compute capability */
    uint32_t bandwidth_gb_s; /* datasheet peak, 10^9 bytes/s */
    uint32_t bf16_tflops;    /* datasheet peak, dense */
    const char *source;      /* of the figures above */
} cuda_card;

/* What the driver keeps of the device's memory before any process: nvidia-smi's total less
 * cudaMemGetInfo's. Assumed for every card; memory.md's 24,564 MiB card showed 512 MiB. */
enum { CUDA_CARD_RESERVED_MIB = 512 };

/* By name, any case; NULL when unknown. */
const cuda_card *cuda_card_find(const char *name);
/* All of them; *n entries. */
const cuda_card *cuda_cards(uint32_t *n);
/* Bytes of memory that a process on an otherwise empty card can have, context included. */
uint64_t cuda_card_bytes(const cuda_card *);

#endif
