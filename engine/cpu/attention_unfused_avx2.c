/* attention_unfused.h with AVX2, FMA and F16C. */
#define UNFUSED attention_unfused_avx2
#include "engine/cpu/attention_unfused.h"
