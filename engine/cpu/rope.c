/* Rotary frequencies and angles. Pure; any thread. */
#include "engine/cpu/rope.h"

#include <math.h>

static const double two_pi = 6.283185307179586476925;

/* The dimension whose wave turns `turns` times within the original context. */
static double turning_dim(const rope_config *r, double turns) {
    double n = r->n_dims, len = r->original_len;
    return n * log(len / (turns * two_pi)) / (2 * log(r->theta));
}

static double yarn_frequencies(const rope_config *r, double *freqs) {
    double low = turning_dim(r, r->beta_fast), high = turning_dim(r, r->beta_slow);
    if (!r->exact_range) low = floor(low), high = ceil(high);
    low = fmax(low, 0), high = fmin(high, r->n_dims - 1);
    double width = fmax(high - low, 0.001);
    for (uint32_t i = 0; i < r->n_dims / 2; i++) {
        double interpolate = fmin(fmax((i - low) / width, 0), 1);
        freqs[i] *= (1 - interpolate) + interpolate / r->factor;
    }
    if (r->attn_factor > 0) return r->attn_factor;
    return r->factor > 1 ? 0.1 * log(r->factor) + 1 : 1;
}

/* Llama 3.1: long waves are stretched, short ones left, those between blended. */
static void llama3_frequencies(const rope_config *r, double *freqs) {
    double low = r->low_freq_factor, high = r->high_freq_factor;
    for (uint32_t i = 0; i < r->n_dims / 2; i++) {
        double turns = r->original_len * freqs[i] / two_pi;
        double smooth = fmin(fmax((turns - low) / (high - low), 0), 1);
        freqs[i] *= smooth + (1 - smooth) / r->factor;
    }
}

double rope_frequencies(const rope_config *r, const float *factors, double *freqs) {
    for (uint32_t i = 0; i < r->n_dims / 2; i++) {
        freqs[i] = pow(r->theta, -2.0 * i / r->n_dims);
        if (factors) freqs[i] /= factors[i];
        if (r->n_live && i >= r->n_live) freqs[i] = 0;
    }
    switch (r->scaling) {
    case ROPE_SCALING_NONE: return 1;
    case ROPE_SCALING_LINEAR:
        for (uint32_t i = 0; i < r->n_dims / 2; i++) freqs[i] /= r->factor;
        return 1;
    case ROPE_SCALING_YARN: return yarn_frequencies(r, freqs);
    case ROPE_SCALING_LLAMA3:
        if (!factors) llama3_frequencies(r, freqs);
        return 1;
    case ROPE_SCALING_LONGROPE: return r->attn_factor;
    }
    return 1;
}

void rope_angles(const double *freqs, uint32_t n_dims, double scale, uint32_t pos, float *out) {
    for (uint32_t i = 0; i < n_dims / 2; i++) {
        double sine, cosine;
        sincos((double)pos * freqs[i], &sine, &cosine);
        out[i] = (float)(cosine * scale);
        out[i + n_dims / 2] = (float)(sine * scale);
    }
}
