/* Scales by search, for any x86-64. Pure. */
#define SEARCH_NAME(x) quant_##x##_plain
#include "quant/search_body.h"
