/* module: model */
/* Fuzzes a config.json: what parses is counted, planned where it can be, and has bytes for each
 * weight. One thread. */
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "model/hf/hf_config.h"
#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static hf_config h;
    model *m;
    err e = {0};
    if (hf_config_parse(&h, (str){(const char *)data, n}, &e) != OK) {
        CHECK(e.text[0]);
        return 0;
    }
    if (h.config.n_layers > 100) return 0; /* as the others, but slower */
    const weight_mix mix = {DT_Q4_K, MIX_MEDIUM};
    if (model_from_mix(&m, &h.config, mix, &e) != OK) return CHECK(e.text[0]), 0;
    uint64_t params = 0;
    for (uint32_t i = 0; i < m->program.n_weights; i++) {
        const weight *w = &m->program.weights[i];
        bool quantised;
        CHECK(hf_quant_bytes(&h.quant, w, &quantised) > 0 && weight_bytes(w) > 0);
        params += (uint64_t)weight_rows(w) * w->cols;
    }
    CHECK(params >= program_params(&m->program)); /* which leaves buffers out */
    model_close(m);
    if (model_from_mix(&m, &h.config, mix, &e) == OK) model_close(m);
    return 0;
}
