/* What a folder that cannot be loaded has: for its refusal. Owns nothing. */
#include <stdio.h>
#include <string.h>

#include "model/hf/hf_folder_in.h"

/* A type that no engine computes with, or one of 8 bits and less. */
static bool is_codes(const safetensor *t) {
    return t->type != DT_F32 && t->type != DT_F16 && t->type != DT_BF16;
}

static const safetensor *first(const hf_folder *f, bool of_codes) {
    for (uint32_t i = 0; i < f->n_files; i++)
        for (uint32_t k = 0; k < f->file[i].n; k++)
            if (!of_codes || is_codes(&f->file[i].tensor[k])) return &f->file[i].tensor[k];
    return NULL;
}

void hf_folder_describe(const hf_folder *f, const json_t *config, err *e) {
    const json_t *q = json_object_get(config, "quantization_config");
    const json_t *method = json_object_get(q, "quant_method");
    const safetensor *t = json_is_object(q) ? first(f, true) : NULL;
    char text[sizeof e->text], of[64] = "";
    if (!t) t = first(f, false);
    if (!t) return;
    snprintf(text, sizeof text, "%s", e->text);
    if (json_is_string(method) && !strstr(text, json_string_value(method)))
        snprintf(of, sizeof of, "method %.40s, ", json_string_value(method));
    const err had = *e;
    err_set(e, had.code, "%.250s (%sfirst tensor: %.80s, %s)", text, of, t->name, t->stored);
    err_field(e, "%s", had.field);
    err_hint(e, "%s", had.hint);
}
