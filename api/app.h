/* What the endpoints share: the server they belong to. Loop thread only. */
#ifndef VRAMD_API_APP_H
#define VRAMD_API_APP_H

#include "api/http.h"
#include "api/keys.h"
#include "api/port.h"
#include "api/served.h"
#include "json/in.h"
#include "api/server_options.h"
#include "text/jinja/strip_lines.h"

/* What the operating system and a device's driver said of us, and what the ledgers said at the
 * same moment. */
typedef struct memory_sample {
    bool known, device_known;
    process_memory process;
    device_memory device;
    uint64_t ledger_bytes, at_us;
    uint64_t device_arena_bytes; /* the device's ledger less the context, which is measured */
} memory_sample;
void memory_sample_take(port *, memory_sample *); /* takes milliseconds; any thread */

typedef struct app {
    http *http;
    port *port;     /* of the only model; with several, of the whole: see served */
    served *served; /* [n_served]: the models, the default first */
    uint32_t n_served;
    server_options opt;   /* in force: server_configure replaces them */
    keys *keys;           /* NULL: every client may send requests */
    struct live *live;    /* streams of the account; NULL: without web_page */
    int docs_fd;          /* the folder of /docs/; -1: none */
    line_filter *strip;   /* opt.strip_prompt_lines; NULL: none */
    uint64_t n_unparsed;  /* marks of calls in output that no valid call followed */
    memory_sample memory; /* the latest */
    bool sampling;        /* a newer one is under way */
    bool leaving;         /* probes say that the server drains; requests are still accepted */
    bool planning;        /* a POST /v1/plan is under way */
    uint64_t answers[6];  /* by hundreds of the HTTP status; [0]: the client left; [1]: 501;
                           [3]: a probe before the model is loaded */
} app;

/* The table of paths (routes.c). */
void routes_begin(app *, http_request *); /* 401, 404, 405, 429 of a tenant, OPTIONS */
void routes_run(app *, http_request *);
bool routes_polled(str path); /* probes and scrapes */

/* Endpoints: each answers or refuses, now or later. */
void completions_run(app *, http_request *);
void chat_run(app *, http_request *);
void chat_count_run(app *, http_request *);
void embeddings_run(app *, http_request *);
void native_embedding_run(app *, http_request *);
void rerank_run(app *, http_request *);
void native_completion_run(app *, http_request *);
void infill_run(app *, http_request *);
void props_run(app *, http_request *);
void slots_run(app *, http_request *);
void ollama_chat_run(app *, http_request *);
void ollama_generate_run(app *, http_request *);
void ollama_embed_run(app *, http_request *);
void ollama_embedding_run(app *, http_request *);
void ollama_tags_run(app *, http_request *);
void ollama_show_run(app *, http_request *);
void ollama_ps_run(app *, http_request *);
void responses_run(app *, http_request *);
void responses_count_run(app *, http_request *);
void messages_run(app *, http_request *);
void messages_count_run(app *, http_request *);
void models_run(app *, http_request *);
void tokenize_run(app *, http_request *);
void plan_run(app *, http_request *);
void detokenize_run(app *, http_request *);
void apply_template_run(app *, http_request *);
void livez_run(app *, http_request *);
void health_run(app *, http_request *);
void ready_run(app *, http_request *);
void metrics_run(app *, http_request *);
void memory_run(app *, http_request *);
void memory_resize_run(app *, http_request *); /* PUT /v1/memory */
void cache_forget_run(app *, http_request *);
void live_stream_run(app *, http_request *); /* GET /v1/memory/stream */
void root_run(app *, http_request *);
void web_run(app *, http_request *);
void docs_run(app *, http_request *); /* GET /docs/ */
void version_run(app *, http_request *);
void ping_run(app *, http_request *);
void load_run(app *, http_request *);
void tokenizer_info_run(app *, http_request *);
/* The path without a slash at its end or several at its beginning. */
str app_path(str path);

/* Messages as the model's template renders them; to be encoded by tokenizer_encode_prompt, without
 * TOK_ADD_SPECIAL: the template writes its own beginning of sequence. */
typedef struct chat_prompt_text {
    jinja_text text;
    str last_role, last_content;
    const chat_template *template; /* that has rendered it */
} chat_prompt_text;
/* What a prompt is made of. */
typedef struct chat_request {
    const chat_templates *templates;
    const json_t *body;          /* as of /v1/chat/completions */
    bool answer, continue_final; /* add_generation_prompt, continue_final_message */
    bool own_template;           /* the body may have a chat_template */
} chat_request;
/* With answer. */
chat_request chat_request_of(const app *, const http_request *, const json_t *body);
/* Any thread. Errors: ERR_INVALID, ERR_UNSUPPORTED, ERR_TOO_LONG, ERR_NO_MEMORY; field: the
 * member at fault. */
status chat_prompt(const chat_request *, arena *, chat_prompt_text *, err *);

/* What a tenant at a limit gets: 429. */
void tenant_refusal(const tenant *, tenant_verdict, double wait_s, failure *out);
/* Refuses for an err, filling what the case needs from the port. */
void app_refuse(app *, http_request *, const err *);
/* True when the request's model can work; else has refused (503). */
bool app_ready(app *, http_request *);
/* Whether the request is to an address of this machine that no page of others can have: localhost, 127.0.0.1 or
 * [::1], with any port. */
bool app_host_is_here(const http_request *);
/* Whether the client is on this machine, is no web page but one that came from such an address of this server,
 * and comes through no proxy that says so. Valid in begin and run only, as are the one before and the next. */
bool app_client_is_here(const http_request *);
/* Whose the request is, for the scheduler: its key's tenant, and of that the one that a trusted gateway
 * names. 0: unknown. */
uint64_t app_tenant_of(const app *, const http_request *);
/* Who may: where keys are used, a tenant whose line in the file of keys says admin; else a client that
 * is here. what: "change the budget". */
bool app_may_administer(const app *, const http_request *, const char *what, failure *);
/* The next name in a list separated by commas, from *at on, which moves behind it; false: none
 * is left. Blanks around a name are not part of it. */
bool app_next_name(const char **at, str *name);
/* The request's memory goes to a thread of the port's pool: work(arg) there, then done(arg) on the loop, which ends
 * with http_take_back. False: the pool is busy, and nothing has happened. */
bool app_lend(http_request *, port *, void (*work)(void *), void (*done)(void *), void *arg);
/* The body of a request for the model, a JSON object in the request's arena. NULL: refused. */
const json_t *app_body(app *, http_request *);
/* 404 unless the name is one of the request's model, or "". */
status app_check_model(const http_request *, str name, err *);
/* An answer of JSON text, or 503 when it failed for want of memory. */
void app_json(http_request *, const buf *);

#endif
