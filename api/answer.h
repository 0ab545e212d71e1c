/* One completion request at work: its prompts, its generations, and the output on its way out,
 * whole or as a stream. completions.c and chat.c read the request; answer_prompt.c makes tokens
 * of it; answer.c drives it and fills the parts of each choice; a writer (api/writer.h) writes
 * them. Lives in the request's arena; each live generation holds a reference to the request.
 * Loop thread, except while prompts are tokenised on the pool (rq->lent). */
#ifndef VRAMD_API_ANSWER_H
#define VRAMD_API_ANSWER_H

#include "api/app.h"
#include "api/logprobs.h"
#include "api/params.h"
#include "text/stop.h"

struct answer;
struct writer;

/* Longer texts are rendered and tokenised on the pool. */
enum { ANSWER_INLINE_BYTES = 8 * 1024 };

enum { POOL_AT_ONCE = 64, POOL_MAX_INPUTS = 2048 }; /* embeddings: generations, prompts */

typedef enum part_kind { PART_TEXT, PART_REASONING, PART_CALL } part_kind;

/* A piece of a choice's output that clients see as one thing. Only the last part of a choice
 * grows. */
typedef struct answer_part {
    part_kind kind;
    str id, name;   /* PART_CALL: the call's id, the function's name; in the request's arena */
    uint32_t index; /* PART_CALL: of the choice's calls, dense from 0 */
    /* Text, reasoning, or the arguments as JSON text. All of it; in a stream what its writer has
     * kept: most drop what is sent. */
    buf text;
    size_t sent;         /* a stream whose writer keeps the text: bytes of it that are sent */
    bool opened, closed; /* a stream has sent its begin; nothing more will be added */
} answer_part;

typedef struct prompt_in {
    str text;         /* as given, or as the chat template made it; unless ids were given */
    str second;       /* of a pair of texts, the other one; ptr NULL: it is one text */
    uint32_t n_first; /* of a pair, once it is tokenised: tokens of the first text; else 0 */
    bool is_text;
    bool is_marked;
    jinja_text marked; /* a chat: text with the origins of its bytes */
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
    /* Output in order, at least one part; see answer_parts.c. Writers of streams move first_unsent
     * past what is sent. */
    answer_part *parts, own_part;
    uint32_t n_parts, cap_parts, n_calls, first_unsent;
    uint64_t raw_bytes, n_chars; /* text that tokens have made, echo included in n_chars */
    uint64_t shown_bytes;        /* of it, past the stop strings */
    uint32_t n_tokens, n_echoed; /* output tokens; prompt tokens with logprobs written */
    uint64_t echoed_bytes;       /* of a text prompt: those of the n_echoed tokens */
    vec_i32 ids;                 /* return_token_ids. Whole: all; stream: not yet sent */
    double sum_logprob;          /* of n_tokens; best_of */
    uint32_t uncredited;
    bool opened, echoed; /* stream of a chat: the role has been sent; the prompt has */
    bool prompt_ids_sent;
    struct reply_parser *reply; /* reads the output; NULL: it is text */
    bool complete;              /* nothing of it is shown any more */
    const char *finish;         /* finish_reason, once known: nothing more is shown */
    int stop_index;             /* the stop string that was found, or -1 */
    int32_t stop_id;            /* the stop token, or -1 */
    bool timed_out;
    uint32_t n_output, n_reasoning; /* for usage; n_reasoning of n_output */
    float *vector;                  /* embeddings, once it has ended: [n_dims] */
    gen_usage usage;
} choice;

typedef struct answer {
    app *app;
    http_request *rq;
    const struct writer *writer;
    void *state; /* the writer's own */
    bool chat;   /* the writer's; which parameters are read, and the shape of logprobs */
    params p;
    prompt_in *prompts;
    uint32_t n_prompts;
    unsigned encode_flags;
    const reply_plan *reply_plan; /* how calls and reasoning are written; NULL: as text */
    const think_limit *think;     /* on its reasoning; NULL: none */
    str reply_prompt;             /* the prompt's text: it may end within reasoning */
    str chat_echo;                /* what echo repeats in a chat */
    uint32_t n_dims;              /* of embeddings; 0: text is generated */
    const char *field; /* that has the prompts, for refusals; NULL: the API's usual one */
    double *sums[POOL_AT_ONCE]; /* embeddings: buffers that no generation has */
    uint32_t n_sums;
    stop_set stops;
    choice *choices;
    uint32_t n_choices, n_live; /* generations that have not ended */
    bool over;                  /* the answer has ended, or its client has gone */
    char id[40];
    uint64_t created;
    str head; /* stream: what each chunk begins with */
    buf piece;
    uint64_t first_token_us;
    uint64_t timeout_us;      /* from the submission on; 0: none */
    uint64_t n_charged;       /* tokens, to the tenant */
    str salt;                 /* of the prefix cache: the tenant's, and the client's own */
    str base_salt;            /* the tenant's alone */
    bool trusted;             /* its client may see texts of others with the same salt */
    sched_miss *miss;         /* of the first prompt, with a receipt; else NULL */
    const json_t *messages;   /* of a chat */
    kept_grammar *grammar;    /* what the output must be; NULL: anything */
    struct grammar *compiled; /* on its way to the others */
    status encode_status;
    err encode_error;
} answer;

/* Reads the parameters of the body, an object. NULL: refused. */
answer *answer_new(app *, http_request *, const json_t *body, const struct writer *);
/* Memory for n prompts; false: refused. */
bool answer_prompts(answer *, size_t n);
/* Tokenises and submits; what goes wrong is refused. */
void answer_start(answer *);

/* The app's callbacks. */
void answer_gone(answer *);
void answer_fail(answer *, failure *);
void answer_sent(answer *);
/* All generations have ended: gives the grammar back, and the tenant what was charged and not
 * used. */
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

/* chat.c: answers a body of /v1/chat/completions, which every API of conversations is turned
 * into, by the writer; what goes wrong is refused. */
void chat_start(app *, http_request *, const json_t *body, const struct writer *);
/* completions.c: the same for a body of /v1/completions. */
void completions_start(app *, http_request *, const json_t *body, const struct writer *);

/* completions.c: reads prompts in their four forms from a member of the body. False: refused. */
bool completions_prompts(answer *, const json_t *body, const char *field);

/* embeddings.c: reads what a body says of embeddings, but the prompts. NULL: refused. */
answer *embeddings_new(app *, http_request *, const json_t *body, const struct writer *);
void vector_write(const choice *, buf *); /* as a list of numbers */

/* answer_pool.c: embeddings. Before a choice is submitted: gives it a buffer. False: no memory. */
bool pool_begin(choice *);
/* It has ended: its vector, of length 1. False: no memory, or the sums are no numbers. */
bool pool_end(choice *);
void pool_give_back(choice *); /* its buffer */

/* answer_text.c */
/* Output text of a choice, past the stop strings. True: one was found. */
bool choice_take_text(choice *, str);
void choice_flush_text(choice *); /* what may begin a stop string is none */

/* answer_parts.c */
void choice_parts_init(choice *);
/* The part to which output of this kind is appended: the last, or a new one behind it. Without
 * memory for it: one whose text has failed. Not for PART_CALL. */
answer_part *choice_part(choice *, part_kind);
/* Begins a call; its arguments are appended to its text. id and name are borrowed. */
answer_part *choice_call(choice *, str id, str name);
/* Nothing more will be added to the last part: equal output behind it is a part of its own. */
void choice_close_part(choice *);
/* Whether clients see the i-th part at all: an empty one only where it is all that a finished
 * choice has. */
bool choice_shows(const choice *, uint32_t i);
bool choice_failed(const choice *); /* output was lost for want of memory */

/* answer_usage.c: the members "usage" and "memory", each with the comma before it */
void usage_write(const answer *, uint64_t n_output, buf *); /* in the middle of a stream */
void usage_write_all(const answer *, buf *); /* at the end: with the receipt, if there is one */
void usage_write_memory(const answer *, buf *);
uint64_t usage_prompt_tokens(const answer *);
uint64_t usage_output_tokens(const answer *);
uint64_t usage_reasoning_tokens(const answer *);
uint64_t usage_cached_tokens(const answer *);
/* answer_receipt.c: the member "memory" of usage, with the comma before it, where the request
 * has a receipt; else nothing. Of generations that have ended. */
void receipt_write(const answer *, buf *);
/* answer_prefix.c: the member "prefix" of the receipt: why the first prompt's prefix was not found. */
void prefix_write(const answer *, buf *);
/* "stop_reason": string, id or null */
void write_stop_reason(const choice *, buf *);
/* "token_ids" of a choice, with the comma before it, where they are asked for */
void write_token_ids(const choice *, buf *);
/* The name that the request gave, else the model's first. */
str answer_model(const answer *);
/* "model" and "system_fingerprint", with the comma before them */
void write_model(const answer *, buf *);

#endif
