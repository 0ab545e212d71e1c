/* Inside of quant/: the encoders of each instruction set. */
#ifndef VRAMD_QUANT_ENCODE_H
#define VRAMD_QUANT_ENCODE_H

#include "quant/quant.h"

/* As quant_encode_row, of one type. */
typedef void quant_encoder(const float *x, size_t n, const float *importance, void *out);

/* X(type, by rounding to nearest where there is no importance) */
#define QUANT_TYPES(X)                                                                         \
    X(Q4_0, rtn)                                                                               \
    X(Q4_1, rtn)                                                                               \
    X(Q5_0, rtn)                                                                               \
    X(Q5_1, rtn)                                                                               \
    X(Q8_0, rtn)                                                                               \
    X(MXFP4, rtn)                                                                              \
    X(Q2_K, search)                                                                            \
    X(Q3_K, search)                                                                            \
    X(Q4_K, search)                                                                            \
    X(Q5_K, search)                                                                            \
    X(Q6_K, search)                                                                            \
    X(IQ4_NL, search)                                                                          \
    X(IQ4_XS, search)

/* NULL: the type has none of the kind. */
quant_encoder *quant_rtn_plain(dtype);
quant_encoder *quant_rtn_avx2(dtype);
quant_encoder *quant_search_plain(dtype);
quant_encoder *quant_search_avx2(dtype);

#endif
