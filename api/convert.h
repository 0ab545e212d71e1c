/* Requests of other APIs as bodies of /v1/chat/completions, which chat.c reads alone. A converter
 * makes jansson values in the request's arena, under json_within: it sees no failure for want of
 * memory. Members with the same meaning in both APIs are passed on as they are, so that a
 * parameter that is not supported is refused there, by name. Loop thread. */
#ifndef VRAMD_API_CONVERT_H
#define VRAMD_API_CONVERT_H

#include "api/writer.h"

typedef struct conversion {
    const json_t *in; /* the request: an object */
    json_t *out, *messages;
    arena *mem;
    line_filter *strip; /* of the system prompt of /v1/messages; NULL: none */
    uint32_t n_stripped;
    json_t *turn; /* the assistant's message that calls are added to, or NULL */
} conversion;

/* Errors, field: the member at fault: ERR_INVALID, ERR_UNSUPPORTED. */
typedef status convert_fn(conversion *, err *);

convert_fn convert_responses, convert_messages, convert_native;
convert_fn convert_ollama_chat, convert_ollama_generate, convert_ollama_raw;

/* in and mem set: out and messages are made by fn. Errors: fn's; ERR_NO_MEMORY, where out is of no
 * use. */
status convert_body(conversion *, convert_fn *, err *);
/* Parses the body, converts it, and answers it by the writer, as a chat or as a completion; what
 * goes wrong is refused. */
void convert_run(app *, http_request *, convert_fn *, const writer *);
/* The same, answered by a function of the caller's. */
typedef void start_fn(app *, http_request *, const json_t *body, const writer *);
void convert_start(app *, http_request *, convert_fn *, start_fn *, const writer *);

/* Sets out's member to one of the request's; nothing where v is NULL. */
void convert_put(json_t *object, const char *key, const json_t *v);
void convert_put_text(json_t *object, const char *key, str text);
/* Appends to a member that is a text, or makes it. */
void convert_append_text(conversion *, json_t *object, const char *key, str text);
/* All members of the request but those of the list, which ends with NULL, are out's too. */
void convert_rest(conversion *, const char *const *own);
/* Each member of the list must be absent, or of a value that changes nothing: null, false, 1 or
 * empty. */
status convert_refuse(const conversion *, const char *const *names, err *);
/* A further message; ends the assistant's turn, or begins it. */
json_t *convert_message(conversion *, str role);
json_t *convert_assistant(conversion *); /* the turn, or a new one */
/* A call in the assistant's turn; arguments: JSON text, or an object. */
void convert_call(conversion *, str id, str name, const json_t *arguments);
/* A part {"type": "text", "text"} behind those of the message. */
void convert_part(json_t *message, str text);
/* A tool of chat; its list is made at the first. */
void convert_tool(conversion *, const json_t *name, const json_t *description,
                  const json_t *parameters, const json_t *strict);
/* tool_choice: a named function. */
void convert_tool_choice(conversion *, const json_t *name);
/* A tool of a kind that only its provider can run: passed over, and the log says so once. */
void convert_skip_tool(void);

#endif
