/* The table of families. Owns nothing; any thread. */
#include "model/family.h"

#include <string.h>

static const family families[] = {
    {.arch = "llama", .pairing = ROPE_ADJACENT, .norms_per_layer = 2, .record = llama_record},
    {.arch = "qwen2",
     .pairing = ROPE_HALVES,
     .qkv_bias = true,
     .norms_per_layer = 2,
     .record = llama_record},
    {.arch = "qwen3",
     .pairing = ROPE_HALVES,
     .qk_norm = true,
     .norms_per_layer = 2,
     .record = llama_record},
    {.arch = "phi3", .pairing = ROPE_HALVES, .norms_per_layer = 2, .record = phi3_record},
    {.arch = "gemma3",
     .pairing = ROPE_HALVES,
     .qk_norm = true,
     .norms_per_layer = 4,
     .window_every = 6,
     .window_theta = 10000,
     .record = gemma_record},
    {.arch = "gemma2", .refuse = "soft-capping of attention's scores is not supported"},
};

const family *family_find(const char *arch) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strcmp(families[i].arch, arch) == 0) return &families[i];
    return NULL;
}
