/* Rounding to nearest, with AVX2. Pure. */
#define RTN_NAME(x) quant_##x##_avx2
#include "quant/rtn_body.h"
