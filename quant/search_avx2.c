/* Scales by search, with AVX2. Pure. */
#define SEARCH_NAME(x) quant_##x##_avx2
#include "quant/search_body.h"
