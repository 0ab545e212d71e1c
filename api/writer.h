/* How an API writes what answer.c has made: one writer for each API, immutable. answer.c calls
 * it on the loop thread; it reads the choices' parts and appends to the stream's buffer, or
 * makes the answer in one piece. Writers keep no memory but the request's arena. Refusals before
 * the first byte are http_refuse's, in the form of the request's route (api/errors.h). */
#ifndef VRAMD_API_WRITER_H
#define VRAMD_API_WRITER_H

#include "api/answer.h"

typedef struct writer {
    const char *id_prefix;  /* of the answer's id, which has 24 hexadecimal digits behind it */
    bool chat;              /* the request has messages, and the parameters of chat */
    bool fills;             /* without max_tokens an output may fill the context */
    bool lists;             /* log-probabilities in the form of chat, with ids */
    bool cuts_length;       /* a max_tokens beyond the context is cut: the API can say so */
    bool (*open)(answer *); /* begins the stream; false: no memory */
    /* Sends what the choice's parts hold and is not sent. Called for each step's tokens, also
     * where they have made no text. */
    void (*delta)(choice *);
    void (*finish)(choice *);                 /* sends the rest, and c->finish */
    void (*done)(answer *);                   /* all choices have finished: ends the stream */
    void (*error)(answer *, const failure *); /* within a stream: ends it */
    void (*whole)(answer *);                  /* the answer in one piece */
    /* Where it is set the request is for the number of its prompt's tokens alone: this answers,
     * and nothing is computed. */
    void (*count)(answer *);
} writer;

extern const writer writer_chat, writer_completions, writer_responses, writer_messages;
extern const writer writer_chat_count, writer_responses_count, writer_messages_count;

/* ---- what the chunks and answers of OpenAI's completions share: writer.c ---- */

/* An answer up to the bracket that opens its choices. */
void writer_head(const answer *, str object, buf *);
/* Prepares a->head and begins the stream. */
bool writer_open(answer *, str object);
/* Begins a chunk, up to the index of the choice. */
buf *writer_begin(const choice *);
/* Ends choices and chunk. n_output: of the usage that a chunk may have. */
void writer_end(const answer *, uint64_t n_output, buf *);
/* The end of an answer in one piece: usage, and the bracket. Sends it. */
void writer_whole(answer *, buf *);
void writer_done(answer *); /* usage, if it is included, and [DONE] */
void writer_error(answer *, const failure *);

/* ---- what all streams share ---- */

/* The part's text, and the choice's tokens and logprobs, are sent: what comes is new. */
void writer_sent(choice *, answer_part *);

/* ---- of the endpoints that only count ---- */

/* An object of input_tokens; before: members in front of it, each with its comma. */
void writer_count(answer *, str before);

#endif
