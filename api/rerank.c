/* POST /v1/rerank: documents in the order of how well they go with a query, in the form of Jina, Cohere,
 * vLLM and llama.cpp. A cross-encoder reads the query with each document and scores the pair; of
 * another model it is the cosine of their embeddings (docs/embeddings.md). Loop thread. */
#include <stdlib.h>

#include "api/writer.h"
#include "json/out.h"

/* What the body says; a->state of its answer. */
typedef struct ranking {
    const json_t *documents;
    bool pairs; /* a prompt is the query with a document; else the first is the query alone */
    bool shows_documents;
    uint32_t n, top_n;
} ranking;

typedef struct result {
    double score;
    uint32_t index;
} result;

/* "text", or {"text": "text"}. */
static str text_of(const json_t *document) {
    if (json_is_object(document)) document = json_object_get(document, "text");
    return json_is_string(document) ? json_in_text(document) : (str){NULL, 0};
}

/* ---- the answer ---- */

static double score_of(const answer *a, const ranking *k, uint32_t i) {
    const float *query = a->choices[0].vector;
    if (k->pairs) return (double)a->choices[i].vector[0];
    const float *v = a->choices[i + 1].vector;
    double sum = 0; /* they have length 1 */
    for (uint32_t d = 0; d < a->n_dims; d++) sum += (double)query[d] * (double)v[d];
    return sum;
}

/* The best first; of equals the one that came first. */
static int by_score(const void *x, const void *y) {
    const result *a = x, *b = y;
    if (a->score != b->score) return a->score > b->score ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

static bool all_there(const answer *a) {
    for (uint32_t i = 0; i < a->n_choices; i++)
        if (!a->choices[i].vector) return false;
    return true;
}

static void write_result(const ranking *k, const result *r, bool first, buf *b) {
    buf_addf(b, "%s{\"index\":%u,\"relevance_score\":%.9g", first ? "" : ",", r->index,
             r->score);
    if (k->shows_documents) {
        buf_add(b, STR(",\"document\":{\"text\":"));
        json_str(b, text_of(json_array_get(k->documents, r->index)));
        buf_addc(b, '}');
    }
    buf_addc(b, '}');
}

static void write_whole(answer *a) {
    const ranking *k = a->state;
    result *r = arena_alloc(&a->rq->mem, k->n * sizeof *r);
    buf b;
    if (!r || !all_there(a)) {
        http_refuse_memory(a->rq);
        return;
    }
    for (uint32_t i = 0; i < k->n; i++) r[i] = (result){score_of(a, k, i), i};
    qsort(r, k->n, sizeof *r, by_score);
    buf_init(&b, &a->rq->mem);
    buf_addf(&b, "{\"id\":\"%s\",\"object\":\"list\",\"model\":", a->id);
    json_str(&b, answer_model(a));
    buf_add(&b, STR(",\"results\":["));
    for (uint32_t i = 0; i < k->top_n; i++) write_result(k, &r[i], i == 0, &b);
    const unsigned long long n = usage_prompt_tokens(a);
    buf_addf(&b, "],\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}", n, n);
    app_json(a->rq, &b);
}

static const writer writer_rerank = {.id_prefix = "rerank-", .whole = write_whole};

/* ---- the request ---- */

static status read_query(const json_t *body, str *query, err *e) {
    status s = json_in_str(body, "query", query, e);
    if (s != OK || query->len) return s;
    err_set(e, ERR_INVALID, "query is %s", query->ptr ? "empty" : "missing");
    return err_field(e, "query");
}

static status read_documents(const json_t *body, ranking *k, err *e) {
    static const char want[] = "a list of strings, or of objects with a text";
    k->documents = json_object_get(body, "documents");
    k->n = (uint32_t)json_array_size(k->documents);
    if (!json_in_has(body, "documents")) {
        err_set(e, ERR_INVALID, "documents is missing");
        return err_field(e, "documents");
    }
    if (!json_is_array(k->documents)) return json_in_wrong(e, "documents", want, k->documents);
    if (json_array_size(k->documents) == 0) {
        err_set(e, ERR_INVALID, "documents is empty");
        return err_field(e, "documents");
    }
    for (size_t i = 0; i < json_array_size(k->documents); i++) {
        const json_t *d = json_array_get(k->documents, i);
        if (!text_of(d).ptr) return json_in_wrong(e, "documents", want, d);
    }
    return OK;
}

static status read_body(const json_t *body, str *query, ranking *k, err *e) {
    int64_t top_n = 1 << 20;
    k->shows_documents = true;
    status s = read_query(body, query, e);
    if (s == OK) s = read_documents(body, k, e);
    if (s == OK) s = json_in_int(body, "top_n", 1, 1 << 20, &top_n, e);
    if (s == OK) s = json_in_bool(body, "return_documents", &k->shows_documents, e);
    k->top_n = (uint32_t)top_n < k->n ? (uint32_t)top_n : k->n;
    return s;
}

/* What is to be computed. False: refused. */
static bool make_prompts(answer *a, const ranking *k, str query) {
    const uint32_t first = k->pairs ? 0 : 1;
    if (!answer_prompts(a, (size_t)k->n + first)) return false;
    for (uint32_t i = 0; i < a->n_prompts; i++) {
        prompt_in *p = &a->prompts[i];
        const str document =
            i < first ? query : text_of(json_array_get(k->documents, i - first));
        p->is_text = true;
        p->text = k->pairs ? query : document;
        if (k->pairs) p->second = document;
    }
    a->encode_flags = TOK_ADD_SPECIAL; /* what documents say stays text */
    return true;
}

void rerank_run(app *app, http_request *rq) {
    const json_t *body = app_body(app, rq);
    str query = {NULL, 0};
    err e;
    if (!body) return;
    ranking *k = arena_zalloc(&rq->mem, sizeof *k);
    if (!k) {
        http_refuse_memory(rq);
        return;
    }
    if (read_body(body, &query, k, &e) != OK) {
        app_refuse(app, rq, &e);
        return;
    }
    answer *a = embeddings_new(app, rq, body, &writer_rerank);
    if (!a) return;
    k->pairs = rq->served->port->card.pooling == POOL_RANK;
    a->state = k;
    a->field = "documents";
    if (make_prompts(a, k, query)) answer_start(a);
}
