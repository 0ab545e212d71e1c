/* CUDA devices by name, for plans made on machines without them (vramd plan --device). Data
 * only, each figure with its source; pure C. */
#ifndef VRAMD_ENGINE_CUDA_CARDS_H
#define VRAMD_ENGINE_CUDA_CARDS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct cuda_card {
    const char *name;        /* as --device takes it: "h200" */
    const char *product;     /* as the driver calls it */
    uint32_t memory_mib;     /* what nvidia-smi reports as total */
    uint32_t n_sms;          /* multiprocessors; 0: unknown, an H100's are assumed */
    uint32_t major, minor;   /* compute capability */
    uint32_t bandwidth_gb_s; /* datasheet peak, 10^9 bytes/s */
    uint32_t link_gb_s; /* from the host's memory, one way: the peak of the link; 0: unknown */
    const char *source; /* of the figures above */
} cuda_card;

/* What the driver keeps of the device's memory before any process: nvidia-smi's total less
 * cudaMemGetInfo's. Assumed for every card; a card of 24,564 MiB showed 512 MiB. The engine
 * needs compute capability 8.0. */
enum { CUDA_CARD_RESERVED_MIB = 512, CUDA_CARD_MIN_MAJOR = 8 };

/* By name: case, spaces, hyphens and the words NVIDIA, GeForce, Tesla and RTX do not count; NULL
 * when unknown. */
const cuda_card *cuda_card_find(const char *name);
/* By the name that the driver gives it; NULL when unknown. */
const cuda_card *cuda_card_of_product(const char *product);
/* Does its name begin in this way? For hints: "h100" is the beginning of three. */
bool cuda_card_resembles(const cuda_card *, const char *name);
/* A name of AMD's ("mi300x", "Radeon ..."), for which there is no engine. */
bool cuda_card_is_amd(const char *name);
/* All of them; *n entries. */
const cuda_card *cuda_cards(uint32_t *n);
/* Bytes of memory that a process on an otherwise empty card can have, context included. */
uint64_t cuda_card_bytes(const cuda_card *);

#endif
