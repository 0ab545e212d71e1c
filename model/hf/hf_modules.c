/* modules.json of sentence-transformers: which modules follow the model. Names and members:
 * sentence-transformers, SentenceTransformer.py and models/Pooling.py. Owns nothing. */
#include "model/hf/hf_modules.h"

#include <stdio.h>
#include <string.h>

#include "model/hf/hf_json.h"

enum { MAX_SMALL = 1 << 20, PATH_BYTES = 128 };

static status refuse(err *e, status code, const char *what, const char *name) {
    err_set(e, code, "modules.json: %s%.100s", what, name);
    return err_field(e, "modules.json");
}

/* The one mode that is on. */
static status read_mode(model_config *c, const json_t *pooling, err *e) {
    static const struct {
        const char *member;
        uint32_t is; /* 0: not computed */
    } modes[] = {
        {"pooling_mode_mean_tokens", GIVEN_MEAN}, {"pooling_mode_cls_token", GIVEN_CLS},
        {"pooling_mode_lasttoken", GIVEN_LAST},   {"pooling_mode_max_tokens", 0},
        {"pooling_mode_mean_sqrt_len_tokens", 0}, {"pooling_mode_weightedmean_tokens", 0}};
    uint32_t n_on = 0;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (!json_is_true(json_object_get(pooling, modes[i].member))) continue;
        n_on++;
        c->pooling_type = modes[i].is;
        if (!modes[i].is)
            return refuse(e, ERR_UNSUPPORTED,
                          "vectors are made of the mean, the first or the last token; not by ",
                          modes[i].member);
    }
    return n_on == 1
               ? OK
               : refuse(e, ERR_UNSUPPORTED, "its pooling must have one mode that is on", "");
}

/* A folder beside modules.json: "../x" would leave it. */
static bool is_plain_name(str path) {
    return path.len > 0 && path.len < PATH_BYTES - 16 && path.ptr[0] != '.' &&
           strlen(path.ptr) == path.len && !strpbrk(path.ptr, "/\\");
}

static status read_pooling(model_config *c, int dir, const json_t *module, arena *scratch,
                           err *e) {
    str path = STR("");
    char name[PATH_BYTES];
    const json_t *pooling;
    status s = json_in_str(module, "path", &path, e);
    if (s != OK) return s;
    if (!is_plain_name(path))
        return refuse(e, ERR_FORMAT, "the pooling's path is no folder beside it", "");
    snprintf(name, sizeof name, "%.*s/config.json", STR_ARG(path));
    s = hf_read_json(&pooling, dir, name, MAX_SMALL, scratch, e);
    if (s == OK && !json_is_object(pooling)) return refuse(e, ERR_FORMAT, "there is no ", name);
    return s == OK ? read_mode(c, pooling, e) : s;
}

static bool ends(str s, const char *tail) {
    const size_t n = strlen(tail);
    return s.len >= n && memcmp(s.ptr + s.len - n, tail, n) == 0;
}

static status read_module(model_config *c, int dir, const json_t *module, arena *scratch,
                          err *e) {
    str type = STR("");
    status s = json_in_str(module, "type", &type, e);
    if (s != OK || ends(type, ".Transformer") || ends(type, ".Normalize")) return s;
    if (ends(type, ".Pooling")) return read_pooling(c, dir, module, scratch, e);
    char name[PATH_BYTES];
    snprintf(name, sizeof name, "%.*s", (int)(type.len < 100 ? type.len : 100), type.ptr);
    return refuse(e, ERR_UNSUPPORTED,
                  "vectors would go through a module that is not known: ", name);
}

status hf_modules_read(model_config *c, int dir, arena *scratch, err *e) {
    const json_t *list;
    status s = hf_read_json(&list, dir, "modules.json", MAX_SMALL, scratch, e);
    for (size_t i = 0; s == OK && i < json_array_size(list); i++)
        s = read_module(c, dir, json_array_get(list, i), scratch, e);
    if (c->bidirectional && !c->pooling_type) c->pooling_type = GIVEN_MEAN;
    if (c->shape.n_labels) c->pooling_type = GIVEN_RANK;
    return s;
}
