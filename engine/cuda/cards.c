/* The table of CUDA devices. memory_mib: nvidia-smi's "Memory-Usage ... / N MiB" as published
 * in users' listings of that card; a round number of GiB is the product page's ("product page"),
 * of which the driver may report some MiB less. SMs and bandwidth: NVIDIA's datasheet or
 * architecture whitepaper of the product. The link: PCIe of the product's generation and lanes, 1, 2 and 4 GB/s
 * a lane of the third to the fifth; of the GH200 NVLink-C2C. */
#include "engine/cuda/cards.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

// clang-format off
static const cuda_card cards[] = {
    {"b200", "NVIDIA B200", 183359, 148, 10, 0, 8000, 64, "Blackwell datasheet; nvidia-smi listings"},
    {"gh200", "NVIDIA GH200 480GB", 97871, 132, 9, 0, 4000, 450, "GH200 datasheet (96 GB HBM3); nvidia-smi listings"},
    {"h200", "NVIDIA H200", 143771, 132, 9, 0, 4800, 64, "H200 datasheet; nvidia-smi listings"},
    {"h100-80g", "NVIDIA H100 80GB HBM3", 81559, 132, 9, 0, 3350, 64, "H100 datasheet (SXM); nvidia-smi listings"},
    {"h100-nvl", "NVIDIA H100 NVL", 95830, 132, 9, 0, 3900, 64, "H100 datasheet (NVL); nvidia-smi listings"},
    {"h100-pcie", "NVIDIA H100 PCIe", 81559, 114, 9, 0, 2000, 64, "H100 datasheet (PCIe); nvidia-smi listings"},
    {"h800", "NVIDIA H800", 81559, 132, 9, 0, 3350, 64, "as the H100 (SXM); nvidia-smi listings"},
    {"h20", "NVIDIA H20", 97871, 78, 9, 0, 4000, 64, "H20 datasheet; nvidia-smi listings"},
    {"a100-80g", "NVIDIA A100-SXM4-80GB", 81920, 108, 8, 0, 2039, 32, "A100 datasheet (SXM); nvidia-smi listings"},
    {"a100-40g", "NVIDIA A100-SXM4-40GB", 40960, 108, 8, 0, 1555, 32, "A100 datasheet (SXM); nvidia-smi listings"},
    {"a800", "NVIDIA A800-SXM4-80GB", 81920, 108, 8, 0, 2039, 32, "as the A100 (SXM, 80 GB); nvidia-smi listings"},
    {"a30", "NVIDIA A30", 24576, 56, 8, 0, 933, 32, "A30 datasheet; nvidia-smi listings"},
    {"l40s", "NVIDIA L40S", 46068, 142, 8, 9, 864, 32, "L40S datasheet; nvidia-smi listings"},
    {"l40", "NVIDIA L40", 46068, 142, 8, 9, 864, 32, "L40 datasheet; nvidia-smi listings"},
    {"l4", "NVIDIA L4", 23034, 58, 8, 9, 300, 32, "L4 datasheet; nvidia-smi listings"},
    {"a40", "NVIDIA A40", 46068, 84, 8, 6, 696, 32, "A40 datasheet; nvidia-smi listings"},
    {"a10", "NVIDIA A10", 23028, 72, 8, 6, 600, 32, "A10 datasheet; nvidia-smi listings"},
    {"a6000", "NVIDIA RTX A6000", 49140, 84, 8, 6, 768, 32, "RTX A6000 datasheet; nvidia-smi listings"},
    {"rtx6000ada", "NVIDIA RTX 6000 Ada Generation", 49140, 142, 8, 9, 960, 32, "RTX 6000 Ada datasheet; nvidia-smi listings"},
    {"rtxpro6000", "NVIDIA RTX PRO 6000 Blackwell", 97887, 188, 12, 0, 1792, 64, "RTX PRO 6000 datasheet; nvidia-smi listings"},
    {"rtx5090", "NVIDIA GeForce RTX 5090", 32607, 170, 12, 0, 1792, 64, "RTX Blackwell whitepaper; nvidia-smi listings"},
    {"rtx5080", "NVIDIA GeForce RTX 5080", 16303, 84, 12, 0, 960, 64, "RTX Blackwell whitepaper; nvidia-smi listings"},
    {"rtx5070ti", "NVIDIA GeForce RTX 5070 Ti", 16303, 70, 12, 0, 896, 64, "RTX Blackwell whitepaper; nvidia-smi listings"},
    {"rtx5070", "NVIDIA GeForce RTX 5070", 12227, 48, 12, 0, 672, 64, "RTX Blackwell whitepaper; nvidia-smi listings"},
    {"rtx5060ti-16g", "NVIDIA GeForce RTX 5060 Ti", 16311, 36, 12, 0, 448, 32, "product page; nvidia-smi listings"},
    {"rtx4090", "NVIDIA GeForce RTX 4090", 24564, 128, 8, 9, 1008, 32, "Ada whitepaper; nvidia-smi listings"},
    {"rtx4090d", "NVIDIA GeForce RTX 4090 D", 24564, 114, 8, 9, 1008, 32, "product page; nvidia-smi listings"},
    {"rtx4080super", "NVIDIA GeForce RTX 4080 SUPER", 16376, 80, 8, 9, 736, 32, "product page; nvidia-smi listings"},
    {"rtx4080", "NVIDIA GeForce RTX 4080", 16376, 76, 8, 9, 717, 32, "Ada whitepaper; nvidia-smi listings"},
    {"rtx4070tisuper", "NVIDIA GeForce RTX 4070 Ti SUPER", 16376, 66, 8, 9, 672, 32, "product page; nvidia-smi listings"},
    {"rtx4070ti", "NVIDIA GeForce RTX 4070 Ti", 12282, 60, 8, 9, 504, 32, "product page; nvidia-smi listings"},
    {"rtx4070", "NVIDIA GeForce RTX 4070", 12282, 46, 8, 9, 504, 32, "product page; nvidia-smi listings"},
    {"rtx4060ti-16g", "NVIDIA GeForce RTX 4060 Ti", 16380, 34, 8, 9, 288, 16, "product page; nvidia-smi listings"},
    {"rtx4060ti-8g", "NVIDIA GeForce RTX 4060 Ti", 8188, 34, 8, 9, 288, 16, "product page; nvidia-smi listings"},
    {"rtx4060", "NVIDIA GeForce RTX 4060", 8188, 24, 8, 9, 272, 16, "product page; nvidia-smi listings"},
    {"rtx3090ti", "NVIDIA GeForce RTX 3090 Ti", 24564, 84, 8, 6, 1008, 32, "product page; nvidia-smi listings"},
    {"rtx3090", "NVIDIA GeForce RTX 3090", 24576, 82, 8, 6, 936, 32, "Ampere GA102 whitepaper; nvidia-smi listings"},
    {"rtx3080", "NVIDIA GeForce RTX 3080", 10240, 68, 8, 6, 760, 32, "Ampere GA102 whitepaper (10 GB); product page"},
    {"rtx3070", "NVIDIA GeForce RTX 3070", 8192, 46, 8, 6, 448, 32, "product page"},
    {"rtx3060", "NVIDIA GeForce RTX 3060", 12288, 28, 8, 6, 360, 32, "product page (12 GB)"},
    {"v100-32g", "Tesla V100-SXM2-32GB", 32768, 80, 7, 0, 900, 16, "V100 datasheet; product page"},
    {"v100-16g", "Tesla V100-SXM2-16GB", 16384, 80, 7, 0, 900, 16, "V100 datasheet; product page"},
    {"t4", "Tesla T4", 15360, 40, 7, 5, 320, 16, "T4 datasheet; nvidia-smi listings"},
    {"rtx2080ti", "NVIDIA GeForce RTX 2080 Ti", 11264, 68, 7, 5, 616, 16, "Turing whitepaper; product page"},
};
// clang-format on

enum { N_CARDS = sizeof cards / sizeof *cards };

const cuda_card *cuda_cards(uint32_t *n) {
    *n = N_CARDS;
    return cards;
}

/* "NVIDIA GeForce RTX 4060 Ti 16GB" and "rtx4060ti-16g" are one name: letters and digits, without
 * the words that all names have. */
static void simplify(const char *name, char out[64]) {
    static const char *const words[] = {"nvidia", "geforce", "tesla", "rtx"};
    size_t n = 0;
    for (; *name && n < 63; name++)
        if (isalnum((unsigned char)*name)) out[n++] = (char)tolower((unsigned char)*name);
    out[n] = '\0';
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const size_t len = strlen(words[i]);
        if (strncmp(out, words[i], len) == 0) memmove(out, out + len, strlen(out + len) + 1);
    }
    n = strlen(out);
    if (n > 2 && strcmp(out + n - 2, "gb") == 0) out[n - 1] = '\0';
}

const cuda_card *cuda_card_find(const char *name) {
    char want[64], have[64];
    simplify(name, want);
    for (uint32_t i = 0; i < N_CARDS; i++) {
        simplify(cards[i].name, have);
        if (strcmp(have, want) == 0) return &cards[i];
    }
    return NULL;
}

const cuda_card *cuda_card_of_product(const char *product) {
    for (uint32_t i = 0; i < N_CARDS; i++)
        if (strcmp(cards[i].product, product) == 0) return &cards[i];
    return NULL;
}

bool cuda_card_resembles(const cuda_card *c, const char *name) {
    char want[64], have[64];
    simplify(name, want);
    simplify(c->name, have);
    return want[0] && strncmp(have, want, strlen(want)) == 0;
}

bool cuda_card_is_amd(const char *name) {
    static const char *const starts[] = {"amd", "instinct", "radeon", "rx", "mi"};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (strncasecmp(name, starts[i], strlen(starts[i])) == 0) return true;
    return false;
}

uint64_t cuda_card_bytes(const cuda_card *c) {
    return c->memory_mib > CUDA_CARD_RESERVED_MIB
               ? (uint64_t)(c->memory_mib - CUDA_CARD_RESERVED_MIB) << 20
               : 0;
}
