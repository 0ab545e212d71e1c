/* One completion request at work: its prompts, its generations, and the text on its way out,
 * whole or as a stream. completions.c and chat.c read the request; answer_prompt.c makes tokens
 * of it; answer.c drives it; answer_sse.c and answer_whole.c write. Lives in the request's arena; each live generation
 * holds a reference to the request. Loop thread, except while prompts are tokenised on the pool
 * (rq->lent). */
#ifndef VRAMD_API_ANSWER_H
#define VRAMD_API_ANSWER_H

#include "api/app.h"
#include "api/logprobs.h"
#include "api/params.h"
#include "text/stop.h"

struct answer;

typedef struct prompt_in {
    str text; /* as given, or as the chat template made it; unless ids were given */
    bool is_text;
    vec_i32 ids;
    buf scores; /* prompt_logprobs as JSON, without its brackets */
} prompt_in;

typedef struct choice {
    struct answer *a;
    uint32_t index, prompt;
    gen *gen; /* NULL once it has ended */
    gen_spec spec;
    detok detok, echo_detok;
    stop_state stop;
    logprobs lp;
    buf text;                    /* whole: all of it; stream: not yet sent */
    uint64_t raw_bytes, n_chars; /* text that tokens have made, echo included in n_chars */
    uint64_t shown_bytes;        /* of it, past the stop strings */
    uint32_t n_tokens, n_echoed; /* output tokens; prompt tokens with logprobs written */
    uint64_t echoed_bytes;       /* of a text prompt: those of the n_echoed tokens */
    vec_i32 ids;                 /* return_token_ids. Whole: all; stream: not yet sent */
    double sum_logprob;          /* of n_tokens; best_of */
    uint32_t uncredited;
    bool opened, echoed; /* stream of a chat: the role has been sent; the prompt has */
    bool prompt_ids_sent;
    const char *finish; /* finish_reason, once known: nothing more is shown */
    int stop_index;     /* the stop string that was found, or -1 */
    int32_t stop_id;    /* the stop token, or -1 */
    bool timed_out;
    uint32_t n_output; /* for usage */
    gen_usage usage;
} choice;

typedef struct answer {
    app *app;
    http_request *rq;
    bool chat;
    params p;
    prompt_in *prompts;
    uint32_t n_prompts;
    unsigned encode_flags;
    str chat_echo; /* what echo repeats in a chat */
    stop_set stops;
    choice *choices;
    uint32_t n_choices, n_live; /* generations that have not ended */
    bool over;                  /* the last word is said, or nobody listens */
    char id[40];
    uint64_t created;
    str head; /* stream: what each chunk begins with */
    buf piece;
    uint64_t first_token_us;
    uint64_t timeout_us; /* from the submission on; 0: none */
    uint64_t n_charged;  /* tokens, to the tenant */
    str salt;            /* of the prefix cache: the tenant's, and the client's own */
    status encode_status;
    err encode_error;
} answer;

/* Parses the body and the parameters common to both endpoints. NULL: refused. */
answer *answer_new(app *, http_request *, bool chat, const json_t **body);
/* Room for n prompts; false: refused. */
bool answer_prompts(answer *, size_t n);
/* Tokenises and submits; what goes wrong is refused. */
void answer_start(answer *);

/* The app's callbacks. */
void answer_gone(answer *);
void answer_fail(answer *, failure *);
void answer_sent(answer *);
/* All has ended: tells the tenant what was used of what was charged. */
void answer_settle(answer *);

/* answer_prompt.c */
void prompt_encode(answer *); /* tokenises: sets encode_status and encode_error */
/* After it, on the loop: truncate_prompt_tokens. Errors: ERR_INVALID. */
status prompt_truncate(const answer *, prompt_in *, err *);
/* Echo with logprobs: the prompt's tokens up to position upto, the last with probability s. */
void prompt_echo_scores(choice *, uint32_t upto, const sampled *s);
/* Appends the prompt to the choice's text, as echo demands. */
void prompt_echo(choice *);
/* prompt_logprobs: the next token has probability s; the first has none, NULL. */
void prompt_score(prompt_in *, const answer *, const sampled *s);
/* The members "prompt_logprobs" and "prompt_token_ids" with the comma before them, where they
 * are asked for. */
void prompt_write_scores(const answer *, const prompt_in *, buf *);
void prompt_write_ids(const answer *, const prompt_in *, buf *);

/* answer_sse.c */
bool sse_open(answer *); /* prepares a->head and begins the stream */
void sse_text(choice *); /* sends what c->text and c->lp hold */
void sse_finish(choice *);
void sse_done(answer *); /* usage, if asked for, and [DONE] */
void sse_error(answer *, const failure *);

/* answer_whole.c */
void whole_answer(answer *);

/* answer_usage.c: the members "usage" and "memory", each with the comma before it */
void usage_write(const answer *, uint64_t n_output, buf *);
void usage_write_memory(const answer *, buf *);
uint64_t usage_prompt_tokens(const answer *);
uint64_t usage_output_tokens(const answer *);
uint64_t usage_cached_tokens(const answer *);
/* "stop_reason": string, id or null */
void write_stop_reason(const choice *, buf *);
/* "token_ids" of a choice, with the comma before it, where they are asked for */
void write_token_ids(const choice *, buf *);
/* The name that the request gave, else the model's first. */
str answer_model(const answer *);
/* "model" and "system_fingerprint", with the comma before them */
void write_model(const answer *, buf *);

#endif
