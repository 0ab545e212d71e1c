/* The option embeddings. Main thread; owns nothing. */
#include "daemon/machine_pooling.h"

#include <stdio.h>

static pooling_kind pooling_given(const model_config *c) {
    switch (c->pooling_type) {
    case GIVEN_NONE:
        return c->shape.n_labels ? POOL_RANK : c->bidirectional ? POOL_MEAN : POOL_LAST;
    case GIVEN_MEAN: return POOL_MEAN;
    case GIVEN_CLS: return c->bidirectional ? POOL_CLS : POOL_OFF;
    case GIVEN_LAST: return POOL_LAST;
    case GIVEN_RANK: return c->shape.n_labels ? POOL_RANK : POOL_OFF;
    default: return POOL_OFF;
    }
}

static status refuse_pooling(err *e, const char *what, const char *hint) {
    err_set(e, ERR_UNSUPPORTED, "%s", what);
    err_hint(e, "%s", hint);
    return err_field(e, "embeddings");
}

status machine_find_pooling(machine *m, err *e) {
    const model_config *c = &m->model->program.config;
    const str word = options_word("embeddings", m->opt.embeddings);
    const bool off = str_eqz(word, "off"), given = off || str_eqz(word, "auto");
    m->pooling = given                   ? pooling_given(c)
                 : str_eqz(word, "last") ? POOL_LAST
                 : str_eqz(word, "cls")  ? POOL_CLS
                                         : POOL_MEAN;
    if (off && !c->bidirectional) return m->pooling = POOL_OFF, OK;
    if (m->pooling == POOL_OFF) {
        char what[96];
        snprintf(what, sizeof what, "embeddings = auto: the model file has pooling_type %u",
                 c->pooling_type);
        return refuse_pooling(e, what,
                              c->bidirectional
                                  ? "name one: mean, cls or last"
                                  : "the server has last and mean: name one of them");
    }
    if (m->pooling == POOL_CLS && !c->bidirectional)
        return refuse_pooling(
            e, "embeddings = cls: the first token of a decoder sees nothing of the text",
            "name last or mean");
    if (m->pooling != POOL_RANK && c->shape.n_labels)
        return refuse_pooling(
            e, "embeddings: the model has a classifier, which gives scores alone",
            "leave the option out: the server has /v1/rerank");
    if (c->shape.n_labels > 1)
        return refuse_pooling(e, "the model's classifier has several classes",
                              "one that scores a pair of texts has one");
    return OK;
}
