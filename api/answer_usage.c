/* Usage of one request. Owns nothing. */
#include "api/answer.h"
#include "base/hash.h"
#include "json/out.h"

uint64_t usage_prompt_tokens(const answer *a) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < a->n_prompts; i++) n += a->prompts[i].ids.n;
    return n;
}

uint64_t usage_output_tokens(const answer *a) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < a->n_choices; i++) n += a->choices[i].n_output;
    return n;
}

uint64_t usage_reasoning_tokens(const answer *a) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < a->n_choices; i++) n += a->choices[i].n_reasoning;
    return n;
}

/* Siblings of one prompt share its blocks by design: only the first tells what was cached. */
uint64_t usage_cached_tokens(const answer *a) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < a->n_choices; i += a->p.n) n += a->choices[i].usage.n_cached;
    return n;
}

/* Of the output: reasoning, where the model may reason; guesses that were right or wrong, where the server
 * guesses, by OpenAI's names of predicted output. */
static void write_details(const answer *a, buf *b) {
    const bool guesses = a->rq->served->port->card.speculates;
    uint64_t n = 0, accepted = 0;
    if (!a->reply_plan && !guesses) return;
    buf_add(b, STR(",\"completion_tokens_details\":{"));
    if (a->reply_plan) {
        buf_add(b, STR("\"reasoning_tokens\":"));
        json_u64(b, usage_reasoning_tokens(a));
    }
    for (uint32_t i = 0; i < a->n_choices; i++) {
        n += a->choices[i].usage.cost.n_guessed;
        accepted += a->choices[i].usage.cost.n_accepted;
    }
    if (guesses)
        buf_addf(b, "%s\"accepted_prediction_tokens\":%llu,\"rejected_prediction_tokens\":%llu",
                 a->reply_plan ? "," : "", (unsigned long long)accepted,
                 (unsigned long long)(n - accepted));
    buf_addc(b, '}');
}

/* Up to the brace that closes it. */
static void begin_usage(const answer *a, uint64_t out, buf *b) {
    uint64_t in = usage_prompt_tokens(a);
    buf_add(b, STR(",\"usage\":{\"prompt_tokens\":"));
    json_u64(b, in);
    buf_add(b, STR(",\"completion_tokens\":"));
    json_u64(b, out);
    buf_add(b, STR(",\"total_tokens\":"));
    json_u64(b, in + out);
    buf_add(b, STR(",\"prompt_tokens_details\":{\"cached_tokens\":"));
    json_u64(b, usage_cached_tokens(a));
    buf_addc(b, '}');
    write_details(a, b);
}

void usage_write(const answer *a, uint64_t out, buf *b) {
    begin_usage(a, out, b);
    buf_addc(b, '}');
}

void usage_write_all(const answer *a, buf *b) {
    begin_usage(a, usage_output_tokens(a), b);
    receipt_write(a, b);
    buf_addc(b, '}');
}

void usage_write_memory(const answer *a, buf *b) {
    uint64_t bytes = 0, blocks = 0, preemptions = 0;
    for (uint32_t i = 0; i < a->n_choices; i++) {
        bytes += a->choices[i].usage.kv_peak_bytes;
        blocks += a->choices[i].usage.peak_blocks;
        preemptions += a->choices[i].usage.n_preemptions;
    }
    buf_add(b, STR(",\"memory\":{\"kv_peak_bytes\":"));
    json_u64(b, bytes);
    buf_add(b, STR(",\"kv_peak_blocks\":"));
    json_u64(b, blocks);
    buf_add(b, STR(",\"preemptions\":"));
    json_u64(b, preemptions);
    buf_addc(b, '}');
}

str answer_model(const answer *a) {
    return a->p.model.len ? a->p.model : str_of(a->rq->served->port->card.id);
}

void write_model(const answer *a, buf *b) {
    const model_card *card = &a->rq->served->port->card;
    buf_add(b, STR(",\"model\":"));
    json_str(b, answer_model(a));
    /* Equal where version, model and its weights are: the same seed then gives the same text. */
    uint64_t h = hash64(VRAMD_VERSION, sizeof VRAMD_VERSION, card->weight_bytes);
    h = hash64(card->id, strlen(card->id), h ^ card->n_params);
    buf_addf(b, ",\"system_fingerprint\":\"fp_%016llx\"", (unsigned long long)h);
}

void write_stop_reason(const choice *c, buf *b) {
    buf_add(b, STR(",\"stop_reason\":"));
    if (c->stop_index >= 0)
        json_str(b, c->a->p.stop[c->stop_index]);
    else if (c->stop_id >= 0)
        json_u64(b, (uint64_t)c->stop_id);
    else
        buf_add(b, c->timed_out ? STR("\"timeout\"") : STR("null"));
}
