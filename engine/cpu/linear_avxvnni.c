/* Linear layers with AVX-VNNI beside AVX2: processors without AVX-512 that have vpdpbusd (Intel's
 * desktops from the 12th generation on), and those that have both. */
#define LINEAR_ISA   ISA_AVXVNNI
#define LINEAR_TABLE linear_avxvnni
#include "engine/cpu/linear_256_body.h"
