/* The answer in one piece. Owns nothing. */
#include <math.h>

#include "api/answer.h"
#include "json/out.h"

static void write_choice(const choice *c, uint32_t index, buf *b) {
    const answer *a = c->a;
    bool chat = a->chat;
    buf_add(b, STR("{\"index\":"));
    json_u64(b, index);
    buf_add(b, chat ? STR(",\"message\":{\"role\":\"assistant\",\"content\":")
                    : STR(",\"text\":"));
    json_str(b, buf_str(&c->text));
    buf_add(b, chat ? STR("},\"logprobs\":") : STR(",\"logprobs\":"));
    logprobs_write(&c->lp, b);
    buf_add(b, STR(",\"finish_reason\":"));
    json_str(b, str_of(c->finish));
    write_stop_reason(c, b);
    if (!chat) {
        prompt_write_scores(a, &a->prompts[c->prompt], b);
        prompt_write_ids(a, &a->prompts[c->prompt], b);
    }
    write_token_ids(c, b);
    buf_addc(b, '}');
    if (c->text.failed || c->lp.failed) b->failed = true;
}

static double mean_logprob(const choice *c) {
    return c->n_tokens ? c->sum_logprob / c->n_tokens : -HUGE_VAL;
}

/* Of the choices of prompt i the best that no earlier call took; NULL is never best. */
static choice *take_best(choice **of, uint32_t n) {
    uint32_t best = 0;
    while (!of[best]) best++;
    for (uint32_t k = best + 1; k < n; k++)
        if (of[k] && mean_logprob(of[k]) > mean_logprob(of[best])) best = k;
    choice *c = of[best];
    of[best] = NULL;
    return c;
}

static void write_choices(const answer *a, buf *b) {
    choice *of[PARAMS_MAX_CHOICES];
    uint32_t index = 0;
    for (uint32_t i = 0; i < a->n_prompts; i++) {
        for (uint32_t k = 0; k < a->p.n; k++) of[k] = &a->choices[i * a->p.n + k];
        for (uint32_t k = 0; k < a->p.n_shown; k++, index++) {
            if (index) buf_addc(b, ',');
            write_choice(a->p.n_shown < a->p.n ? take_best(of, a->p.n) : of[k], index, b);
        }
    }
}

void whole_answer(answer *a) {
    buf b;
    buf_init(&b, &a->rq->mem);
    buf_add(&b, STR("{\"id\":\""));
    buf_add(&b, str_of(a->id));
    buf_add(&b, a->chat ? STR("\",\"object\":\"chat.completion\",\"created\":")
                        : STR("\",\"object\":\"text_completion\",\"created\":"));
    json_u64(&b, a->created);
    write_model(a, &b);
    buf_add(&b, STR(",\"choices\":["));
    write_choices(a, &b);
    buf_addc(&b, ']');
    if (a->chat) {
        prompt_write_scores(a, a->prompts, &b);
        prompt_write_ids(a, a->prompts, &b);
    }
    usage_write(a, usage_output_tokens(a), &b);
    if (a->p.return_memory) usage_write_memory(a, &b);
    buf_addc(&b, '}');
    app_json(a->rq, &b);
}
