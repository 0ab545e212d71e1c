/* Codes and scales to the blocks of 256 and back to numbers: where each bit lies (ggml, ggml-common.h). Pure. */
#ifndef VRAMD_QUANT_PACK_H
#define VRAMD_QUANT_PACK_H

#include <stdint.h>

#include "model/dtype.h"

enum { SUPER = 256, MAX_GROUPS = 16 };

/* A block of 256 as numbers: number i of group g = i / (256 / n_groups) is
 *
 *     d * scale[g] * (code[i] - zero)  -  dmin * min[g]        IQ4_XS: the book's value for code - zero
 *
 * Q2_K: 16 groups, scale and min 0..15; Q4_K, Q5_K: 8 groups, 0..63; Q3_K: 16 groups, scale -32..31, zero 4;
 * Q6_K: 16 groups, scale -128..127, zero 32; IQ4_XS: 8 groups, scale -32..31. */
typedef struct super_block {
    uint16_t d, dmin; /* binary16 */
    int16_t scale[MAX_GROUPS], min[MAX_GROUPS];
    uint8_t code[SUPER];
} super_block;

void super_pack(dtype, const super_block *, uint8_t *out);
void super_unpack(dtype, const uint8_t *in, super_block *out);

/* Values of IQ4_NL and IQ4_XS (ggml, kvalues_iq4nl). */
#define QUANT_BOOK -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113

#endif
