/* From a config.json to a model that can be planned, servable or not. Main thread; owns nothing.
 */
#include "daemon/plan/planned_model.h"

#include <stdio.h>
#include <string.h>

#include "engine/estimate.h"
#include "model/hf/hf_config.h"

static status choose_weights(hf_config *h, weight_mix *mix, const char *weights, err *e) {
    *mix = (weight_mix){h->type, MIX_NONE};
    if (!weights) return OK;
    if (weight_mix_by_name(mix, str_of(weights))) {
        h->quant.bits = 0;
        return OK;
    }
    *mix = (weight_mix){h->type, MIX_NONE};
    if (hf_quant_by_name(&h->quant, str_of(weights))) return OK;
    err_set(e, ERR_INVALID, "weights: \"%.40s\" is no type of weights", weights);
    err_field(e, "weights");
    return err_hint(
        e, "for example bf16, q8_0, Q6_K, Q5_K_M, Q4_K_M, q4_0 (GGUF); FP8, INT8, AWQ, "
           "GPTQ-Int4, GPTQ-Int8, int4 (safetensors)");
}

status planned_model_open(machine *m, const char *path, const char *weights, err *e) {
    hf_config h;
    weight_mix mix;
    status s = hf_config_load(&h, path, e);
    if (s == ERR_UNSUPPORTED && weights &&
        str_starts(str_of(e->field), STR("quantization_config")))
        s = OK; /* other weights are planned */
    if (s == OK) s = choose_weights(&h, &mix, weights, e);
    if (s != OK) return s;
    m->stored = h.quant;
    m->text_part = h.text_part;
    s = model_from_mix(&m->model, &h.config, mix, e);
    if (s != OK || !h.quant.bits) return s;
    m->counted = true;
    if (h.not_loaded.code != OK)
        snprintf(m->not_served, sizeof m->not_served,
                 "vramd cannot load these weights (%s); --weights plans it as a GGUF file",
                 h.quant.name);
    return OK;
}

status planned_model_terms(machine *m, terms *t, kv_request *kv, const err *why, err *e) {
    const quant_scheme *stored = m->stored.bits ? &m->stored : NULL;
    if (why && !m->not_served[0])
        snprintf(m->not_served, sizeof m->not_served, "%.230s", why->text);
    if (stored && m->on_device && !m->not_served[0])
        snprintf(m->not_served, sizeof m->not_served,
                 "the CUDA engine converts these weights while it loads them, or refuses them "
                 "(%s): plan their folder",
                 stored->name);
    terms_clear(t);
    status s =
        estimate_terms(&m->model->program, stored, &m->engine_opt, m->on_device, t, kv, e);
    if (s == OK && stored) m->weight_bytes = terms_sum(t, MEM_WEIGHTS);
    return s;
}
