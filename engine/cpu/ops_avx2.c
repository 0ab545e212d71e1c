/* The operations on AVX2 with FMA and F16C: ops_body.h over vec16_avx2.h. Pure; any thread. */
#include "engine/cpu/ops.h"

#include "engine/cpu/vec16_avx2.h"

/* Register tiles of attention: 3 queries x 2 vectors of two registers, 12 of 16. */
#define ATTN_QT   3
#define ATTN_WIDE 2
/* The same of integers: 3 queries x 1, 6 of 16. */
#define ATTN_INT_WIDE 1
/* Of recurrent states: sums that are kept in registers at once, 4 of two registers each. */
#define STATE_ACC 4
#define OPS_ISA   ISA_AVX2
#define OPS_TABLE ops_avx2
#include "engine/cpu/ops_body.h"
