/* Which tile kernels this machine runs. Pure; any thread. */
#include "quant/tile.h"

const tile_kernels *tile_kernels_get(void) {
    return __builtin_cpu_supports("avx2") ? &tile_avx2 : &tile_plain;
}
