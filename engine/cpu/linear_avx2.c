/* Linear layers with AVX2, FMA and F16C. */
#define LINEAR_ISA   ISA_AVX2
#define LINEAR_TABLE linear_avx2
#include "engine/cpu/linear_256_body.h"
