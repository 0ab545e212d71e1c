/* The kernels of quant/tile.h with vectors of 8 (AVX2; products and sums stay apart). Pure; any thread. */
#define TILE_KERNELS tile_avx2
#include "quant/tile_body.h"
