/* Rounding to nearest, for any x86-64. Pure. */
#define RTN_NAME(x) quant_##x##_plain
#include "quant/rtn_body.h"
