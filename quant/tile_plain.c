/* The kernels of quant/tile.h for any x86-64. Pure; any thread. */
#define TILE_KERNELS tile_plain
#include "quant/tile_body.h"
