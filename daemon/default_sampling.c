/* From options and the model file to the defaults of sampling. Owns nothing; any thread. */
#include "daemon/default_sampling.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef struct source {
    const char *option, *text; /* its value; NULL: there is no such option */
    const char *key;           /* of the fact */
    double low, high;
} source;

static status parse(const source *s, double *v, err *e) {
    char *end;
    if (!s->text || strcmp(s->text, "auto") == 0) return OK;
    double x = strtod(s->text, &end);
    if (s->text[0] && *end == '\0' && x >= s->low && x <= s->high) return *v = x, OK;
    err_set(e, ERR_INVALID, "%s = \"%s\" is no number from %.10g to %.10g, nor auto", s->option,
            s->text, s->low, s->high);
    return err_field(e, "%s", s->option);
}

/* Whole numbers are stored as integers, others as float32. */
static void read_fact(const source *s, const checkpoint *file, double *v) {
    float real;
    uint32_t whole;
    err e;
    double x = -1;
    if (!file || !checkpoint_has(file, s->key)) return;
    if (checkpoint_get_f32(file, s->key, &real, &e) == OK)
        x = (double)real;
    else if (checkpoint_get_u32(file, s->key, &whole, &e) == OK)
        x = whole;
    if (x >= s->low && x <= s->high) *v = x;
}

status default_sampling(sampling *out, const options *o, const checkpoint *file,
                        float temperature, err *e) {
    enum { TEMPERATURE, TOP_P, TOP_K, MIN_P, PENALTY, N };
    const source sources[N] = {{"temperature", o->temperature, "general.sampling.temp", 0, 2},
                               {"top_p", o->top_p, "general.sampling.top_p", 0, 1},
                               {"top_k", o->top_k, "general.sampling.top_k", 0, INT32_MAX},
                               {"min_p", o->min_p, "general.sampling.min_p", 0, 1},
                               {NULL, NULL, "general.sampling.penalty_repeat", 0.01, 10}};
    sampling_defaults(out);
    double v[N] = {[TEMPERATURE] = (double)temperature,
                   [TOP_P] = (double)out->top_p,
                   [TOP_K] = out->top_k,
                   [MIN_P] = (double)out->min_p,
                   [PENALTY] = (double)out->repetition_penalty};
    for (int i = 0; i < N; i++) {
        read_fact(&sources[i], file, &v[i]);
        status s = parse(&sources[i], &v[i], e);
        if (s != OK) return s;
    }
    out->temperature = (float)v[TEMPERATURE];
    out->top_p = (float)v[TOP_P];
    out->top_k = (int32_t)v[TOP_K];
    out->min_p = (float)v[MIN_P];
    out->repetition_penalty = (float)v[PENALTY];
    return OK;
}

void default_sampling_text(const sampling *s, char *line, size_t cap) {
    snprintf(line, cap,
             "temperature=%.6g top_p=%.6g top_k=%d min_p=%.6g repetition_penalty=%.6g",
             (double)s->temperature, (double)s->top_p, s->top_k, (double)s->min_p,
             (double)s->repetition_penalty);
}
