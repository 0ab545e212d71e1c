/* Rotary position embedding: the frequencies of a model and the angles of a position. Computed
 * in double, once per row of a step, so that no table grows with the context. Pure. */
#ifndef VRAMD_ENGINE_CPU_ROPE_H
#define VRAMD_ENGINE_CPU_ROPE_H

#include "model/config.h"

/* freqs: [n_dims / 2], radians per position (RoFormer, section 3.4.2), scaled as the config
 * says: linear; YaRN (Peng et al. 2023, section 3.2, "NTK-by-parts"); llama3 by its formula, or
 * by factors, and longrope by factors: [n_dims / 2] where the file has them (NULL: not).
 * Returns what cosine and sine are multiplied by (1 but for YaRN, section 3.4, and longrope).
 */
double rope_frequencies(const rope_config *, const float *factors, double *freqs);

/* out: n_dims / 2 cosines, then as many sines. */
void rope_angles(const double *freqs, uint32_t n_dims, double scale, uint32_t pos, float *out);

#endif
