/* The operations on AVX-512: ops_body.h over vec16_avx512.h. Pure; any thread. */
#include "engine/cpu/ops.h"

#include "engine/cpu/vec16_avx512.h"

/* Register tiles of attention: 6 queries x 4 vectors, 24 of 32 registers. */
#define ATTN_QT   6
#define ATTN_WIDE 4
/* The same of integers: 6 queries x 2, 12 of 32. */
#define ATTN_INT_WIDE 2
/* Of recurrent states: sums that are kept in registers at once, 16 of 32. */
#define STATE_ACC 16
#define OPS_ISA   ISA_AVX512
#define OPS_TABLE ops_avx512
#include "engine/cpu/ops_body.h"
