/* Gemma 2 and 3 as a program: a scaled embedding, norms before and after attention and
 * feed-forward, GeGLU, windows on some layers; Gemma 3 has norms of q and k and a rotary base of
 * their own for the layers with a window, Gemma 2 soft caps. Gemma Team, "Gemma 2", section 2;
 * "Gemma 3 Technical Report", section 2. Their norms multiply by 1 + w; GGUF files hold the sum.
 *
 * Owns nothing: it records into the recorder it is given. One thread. */
#include "model/family.h"

#include <math.h>

void gemma_record(recorder *r) {
    const model_config *c = &r->p->config;
    weight_id embd;
    value_id x = part_embed(r, sqrtf((float)c->n_embd), &embd);
    for (int l = 0; l < (int)c->n_layers; l++)
        x = part_layer_of_four_norms(r, l, x, ACT_GELU_TANH, false);
    part_head(r, x, embd);
}
