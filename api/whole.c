/* The answer in one piece. Owns nothing. */
#include "api/answer.h"
#include "json/out.h"

static void write_choice(const choice *c, buf *b) {
    bool chat = c->a->chat;
    buf_add(b, STR("{\"index\":"));
    json_u64(b, c->index);
    buf_add(b, chat ? STR(",\"message\":{\"role\":\"assistant\",\"content\":")
                    : STR(",\"text\":"));
    json_str(b, buf_str(&c->text));
    buf_add(b, chat ? STR("},\"logprobs\":") : STR(",\"logprobs\":"));
    logprobs_write(&c->lp, b);
    buf_add(b, STR(",\"finish_reason\":"));
    json_str(b, str_of(c->finish));
    write_stop_reason(c, b);
    buf_addc(b, '}');
    if (c->text.failed || c->lp.failed) b->failed = true;
}

void whole_answer(answer *a) {
    buf b;
    buf_init(&b, &a->rq->mem);
    buf_add(&b, STR("{\"id\":\""));
    buf_add(&b, str_of(a->id));
    buf_add(&b, a->chat ? STR("\",\"object\":\"chat.completion\",\"created\":")
                        : STR("\",\"object\":\"text_completion\",\"created\":"));
    json_u64(&b, a->created);
    buf_add(&b, STR(",\"model\":"));
    json_str(&b, str_of(a->app->port->card.id));
    buf_add(&b, STR(",\"choices\":["));
    for (uint32_t i = 0; i < a->n_choices; i++) {
        if (i) buf_addc(&b, ',');
        write_choice(&a->choices[i], &b);
    }
    buf_addc(&b, ']');
    usage_write(a, &b);
    if (a->p.return_memory) usage_write_memory(a, &b);
    buf_addc(&b, '}');
    app_json(a->rq, &b);
}
