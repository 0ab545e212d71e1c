/* The table of CUDA devices. memory_mib: nvidia-smi's "Memory-Usage ... / N MiB" as published
 * in users' listings of that card; SMs, bandwidth and TFLOPS: NVIDIA's datasheet or
 * architecture whitepaper of the product. */
#include "engine/cuda/cards.h"

#include <stddef.h>
#include <strings.h>

// clang-format off
static const cuda_card cards[] = {
    {"b200", "NVIDIA B200", 183359, 148, 10, 0, 8000, 2250, "Blackwell datasheet; nvidia-smi listings"},
    {"h200", "NVIDIA H200", 143771, 132, 9, 0, 4800, 989, "H200 datasheet; nvidia-smi listings"},
    {"h100-80g", "NVIDIA H100 80GB HBM3", 81559, 132, 9, 0, 3350, 989, "H100 datasheet (SXM); nvidia-smi listings"},
    {"h100-nvl", "NVIDIA H100 NVL", 95830, 132, 9, 0, 3900, 835, "H100 datasheet (NVL); nvidia-smi listings"},
    {"h100-pcie", "NVIDIA H100 PCIe", 81559, 114, 9, 0, 2000, 756, "H100 datasheet (PCIe); nvidia-smi listings"},
    {"a100-80g", "NVIDIA A100-SXM4-80GB", 81920, 108, 8, 0, 2039, 312, "A100 datasheet (SXM); nvidia-smi listings"},
    {"a100-40g", "NVIDIA A100-SXM4-40GB", 40960, 108, 8, 0, 1555, 312, "A100 datasheet (SXM); nvidia-smi listings"},
    {"l40s", "NVIDIA L40S", 46068, 142, 8, 9, 864, 362, "L40S datasheet; nvidia-smi listings"},
    {"l4", "NVIDIA L4", 23034, 58, 8, 9, 300, 121, "L4 datasheet; nvidia-smi listings"},
    {"a10", "NVIDIA A10", 23028, 72, 8, 6, 600, 125, "A10 datasheet; nvidia-smi listings"},
    {"a6000", "NVIDIA RTX A6000", 49140, 84, 8, 6, 768, 155, "RTX A6000 datasheet; nvidia-smi listings"},
    {"rtx5090", "NVIDIA GeForce RTX 5090", 32607, 170, 12, 0, 1792, 210, "RTX Blackwell whitepaper; nvidia-smi listings"},
    {"rtx4090", "NVIDIA GeForce RTX 4090", 24564, 128, 8, 9, 1008, 165, "Ada whitepaper; nvidia-smi listings"},
    {"rtx3090", "NVIDIA GeForce RTX 3090", 24576, 82, 8, 6, 936, 71, "Ampere GA102 whitepaper; nvidia-smi listings"},
};
// clang-format on

const cuda_card *cuda_cards(uint32_t *n) {
    *n = sizeof cards / sizeof *cards;
    return cards;
}

const cuda_card *cuda_card_find(const char *name) {
    for (uint32_t i = 0; i < sizeof cards / sizeof *cards; i++)
        if (strcasecmp(cards[i].name, name) == 0) return &cards[i];
    return NULL;
}

uint64_t cuda_card_bytes(const cuda_card *c) {
    return (uint64_t)(c->memory_mib - CUDA_CARD_RESERVED_MIB) << 20;
}
