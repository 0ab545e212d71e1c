/* GET /openapi.json: the table of paths and the table of parameters as an OpenAPI document.
 * Owns nothing. Loop thread. */
#include <string.h>

#include "api/param_table.h"
#include "api/route.h"
#include "json/out.h"

typedef enum about_body { BODY_NONE, BODY_COMPLETIONS, BODY_CHAT, BODY_OWN } about_body;

/* What the tables do not say of a path. */
typedef struct about {
    const char *path, *summary;
    about_body body;
    const char *needs; /* BODY_OWN: members that the body must have, separated by blanks */
    /* Members that the answer has; "[]": it is a list; "": it is text; "data:": a stream. */
    const char *gives;
} about;

static const about abouts[] = {
    {"/v1/completions", "A text continued", BODY_COMPLETIONS, "",
     "id object created model choices"},
    {"/v1/chat/completions", "Messages answered", BODY_CHAT, "",
     "id object created model choices"},
    {"/v1/chat/completions/input_tokens", "The tokens of such a prompt", BODY_CHAT, "",
     "object input_tokens"},
    {"/v1/models", "The served names", BODY_NONE, "", "object data"},
    {"/v1/models/", "One served name; POST, with /load or /unload behind it: of several models",
     BODY_NONE, "", "id object"},
    {"/v1/memory", "Plan, ledger and sequences", BODY_NONE, "", "budget_bytes classes"},
    {"/v1/memory/stream", "The same, and what changes", BODY_NONE, "", "data:"},
    {"/v1/cache", "Cached prefixes", BODY_NONE, "", NULL},
    {"/v1/plan", "What the model takes with other options", BODY_OWN, "",
     "schema version model verdict recommended"},
    {"/v1/embeddings", "Vectors of texts", BODY_OWN, "input", "object data model usage"},
    {"/v1/rerank", "Documents by how well they go with a query", BODY_OWN, "query documents",
     "id model results usage"},
    {"/v2/rerank", "The same, for clients of Cohere", BODY_OWN, "query documents",
     "id model results usage"},
    {"/v1/responses", "OpenAI's API of responses", BODY_OWN, "input", "id object output"},
    {"/v1/responses/input_tokens", "The tokens of such a prompt", BODY_OWN, "input",
     "object input_tokens"},
    {"/v1/messages", "Anthropic's API", BODY_OWN, "messages max_tokens", "id type content"},
    {"/v1/messages/count_tokens", "The tokens of such a prompt", BODY_OWN, "messages",
     "input_tokens"},
    {"/completion", "llama.cpp's form of a completion", BODY_OWN, "prompt", NULL},
    {"/infill", "Text between a prefix and a suffix", BODY_OWN, "", "content stop"},
    {"/embedding", "llama.cpp's form of embeddings", BODY_OWN, "content", "[]"},
    {"/props", "Properties of the server", BODY_NONE, "", "total_slots chat_template"},
    {"/slots", "Sequences", BODY_NONE, "", "[]"},
    {"/tokenize", "The tokens of a text", BODY_OWN, "", "tokens count"},
    {"/detokenize", "The text of tokens", BODY_OWN, "tokens", "content prompt"},
    {"/tokenizer_info", "Special tokens, chat template", BODY_NONE, "", "tokenizer_class"},
    {"/apply-template", "The prompt of a chat", BODY_OWN, "messages", "prompt"},
    {"/version", "The version", BODY_NONE, "", "version"},
    {"/load", "Requests in the server", BODY_NONE, "", "server_load"},
    {"/ping", "As /health", BODY_NONE, "", ""},
    {"/livez", "Whether the process answers", BODY_NONE, "", NULL},
    {"/health", "Whether requests are served", BODY_NONE, "", NULL},
    {"/ready", "Whether requests are served", BODY_NONE, "", NULL},
    {"/metrics", "For Prometheus", BODY_NONE, "", ""},
    {"/openapi.json", "This document", BODY_NONE, "", "openapi paths"},
    {"/api/chat", "Ollama: messages answered", BODY_OWN, "", "model done"},
    {"/api/generate", "Ollama: a prompt answered", BODY_OWN, "", "model done"},
    {"/api/embed", "Ollama: vectors of texts", BODY_OWN, "input", "model embeddings"},
    {"/api/embeddings", "Ollama: the vector of a text", BODY_OWN, "prompt", "embedding"},
    {"/api/tags", "Ollama: the served names", BODY_NONE, "", "models"},
    {"/api/show", "Ollama: the model", BODY_OWN, "", "details capabilities"},
    {"/api/ps", "Ollama: the served names", BODY_NONE, "", "models"},
    {"/api/version", "Ollama: the version", BODY_NONE, "", "version"},
    {"/", "A page for people", BODY_NONE, "", ""},
    {"/docs", "The documentation, where it is installed", BODY_NONE, "", ""},
    {"/docs/", "A page of the documentation", BODY_NONE, "", ""},
    {"/web/", "A file of that page", BODY_NONE, "", ""},
};

static const about *about_of(const char *path) {
    static const about unknown = {"", "", BODY_OWN, "", NULL};
    for (size_t i = 0; i < sizeof abouts / sizeof *abouts; i++)
        if (strcmp(abouts[i].path, path) == 0) return &abouts[i];
    return &unknown;
}

/* ---- parameters ---- */

/* Members whose form a range does not say. */
static const char *const forms[][2] = {
    {"prompt", "\"type\":[\"string\",\"array\"]"},
    {"input", "\"type\":[\"string\",\"array\"]"},
    {"content", "\"type\":[\"string\",\"array\"]"},
    {"query", "\"type\":\"string\""},
    {"documents", "\"type\":\"array\",\"minItems\":1"},
    {"tokens", "\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":0}"},
    {"messages",
     "\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"object\",\"required\":[\"role\","
     "\"content\"],\"properties\":{\"role\":{\"type\":\"string\",\"examples\":[\"user\"]},"
     "\"content\":{\"type\":[\"string\",\"array\",\"null\"]}}}"},
    {"model", "\"type\":[\"string\",\"null\"]"},
    {"max_tokens", "\"type\":[\"integer\",\"null\"]"},
    {"seed", "\"type\":[\"integer\",\"null\"]"},
    {"stop", "\"type\":[\"string\",\"array\",\"null\"]"},
    {"user", "\"type\":[\"string\",\"null\"]"},
};

static const char *form_of(const char *name, size_t n) {
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strlen(forms[i][0]) == n && strncmp(forms[i][0], name, n) == 0) return forms[i][1];
    return "";
}

static void write_types(const char *type, buf *b) {
    buf_addf(b, "\"type\":[\"%s\",\"null\"]", type);
}

static void write_honoured(const param_row *r, buf *b) {
    const bool whole = r->type == PARAM_I32 || r->type == PARAM_U32;
    switch (r->type) {
    case PARAM_OWN:
        buf_add(b, str_of(form_of(r->name, strlen(r->name))));
        if (form_of(r->name, strlen(r->name))[0]) buf_addc(b, ',');
        buf_add(b, STR("\"description\":"));
        json_str(b, str_of(r->values));
        return;
    case PARAM_BOOL: write_types("boolean", b); break;
    default:
        write_types(whole ? "integer" : "number", b);
        buf_addf(b, ",\"minimum\":%.10g,\"maximum\":%.10g", r->lo, r->hi);
    }
    if (!r->note[0]) return;
    buf_add(b, STR(",\"description\":"));
    json_str(b, str_of(r->note));
}

/* The values that change nothing are all that it takes; they are written as JSON. */
static void write_refused(const param_row *r, buf *b) {
    buf_add(b, STR("\"deprecated\":true,\"enum\":[null"));
    for (const char *at = r->values; *at;) {
        size_t n = strcspn(at, "|");
        buf_addc(b, ',');
        buf_add(b, (str){at, n});
        at += n + (at[n] == '|');
    }
    buf_add(b, STR("],\"description\":\"not supported\""));
}

static void write_params(bool chat, buf *b) {
    buf_add(b, STR("{\"type\":\"object\",\"properties\":{"));
    bool first = true;
    for (size_t i = 0; i < param_table_rows; i++) {
        const param_row *r = &param_table[i];
        if (!param_is_for(r, chat)) continue;
        if (!first) buf_addc(b, ',');
        first = false;
        json_str(b, str_of(r->name));
        buf_add(b, STR(":{"));
        if (r->how == PARAM_HONOURED) write_honoured(r, b);
        if (r->how == PARAM_REFUSED) write_refused(r, b);
        if (r->how == PARAM_IGNORED) {
            buf_add(b, STR("\"description\":"));
            json_str(b, str_of(r->note));
        }
        buf_addc(b, '}');
    }
    buf_addf(b, "},\"required\":[\"%s\"]}", chat ? "messages" : "prompt");
}

/* ---- paths ---- */

/* "a b" -> "a","b" */
static void write_names(const char *names, buf *b) {
    for (const char *at = names; *at;) {
        size_t n = strcspn(at, " ");
        buf_addf(b, "%s\"%.*s\"", at > names ? "," : "", (int)n, at);
        at += n + (at[n] == ' ');
    }
}

/* The same names as members with their forms. */
static void write_forms(const char *names, buf *b) {
    for (const char *at = names; *at;) {
        size_t n = strcspn(at, " ");
        buf_addf(b, "%s\"%.*s\":{%s}", at > names ? "," : "", (int)n, at, form_of(at, n));
        at += n + (at[n] == ' ');
    }
}

static void write_body(const about *a, buf *b) {
    static const char *const named[] = {
        [BODY_COMPLETIONS] = "Completion", [BODY_CHAT] = "Chat"};
    buf_add(b, STR("\"requestBody\":{\"required\":true,\"content\":{\"application/json\":"
                   "{\"schema\":{"));
    if (a->body == BODY_OWN) {
        buf_add(b, STR("\"type\":\"object\",\"required\":["));
        write_names(a->needs, b);
        buf_add(b, STR("],\"properties\":{"));
        write_forms(a->needs, b);
        buf_addc(b, '}');
    } else {
        buf_addf(b, "\"$ref\":\"#/components/schemas/%s\"", named[a->body]);
    }
    buf_add(b, STR("}}}},"));
}

static void write_answer(const about *a, unsigned flags, bool post, buf *b) {
    const bool text = a->gives && !a->gives[0], list = a->gives && a->gives[0] == '[';
    const bool events = a->gives && strcmp(a->gives, "data:") == 0;
    buf_add(b, STR("\"responses\":{\"200\":{\"description\":\"done\""));
    if (strcmp(a->path, "/ping") != 0 && !(flags & OPEN)) {
        buf_add(b, STR(",\"content\":{"));
        if (text) {
            buf_add(b, STR("\"text/plain\":{\"schema\":{\"type\":\"string\"}}"));
        } else if (events) {
            buf_add(b, STR("\"text/event-stream\":{\"schema\":{\"type\":\"string\"}}"));
        } else {
            buf_add(b, STR("\"application/json\":{\"schema\":{"));
            if (list) buf_add(b, STR("\"type\":\"array\""));
            if (a->gives && !list) {
                buf_add(b, STR("\"type\":\"object\",\"required\":["));
                write_names(a->gives, b);
                buf_addc(b, ']');
            }
            buf_add(b, STR("}}"));
        }
        if (post && !(flags & AS_OLLAMA))
            buf_add(b, STR(",\"text/event-stream\":{\"schema\":{\"type\":\"string\"}}"));
        if (post && flags & AS_OLLAMA)
            buf_add(b, STR(",\"application/x-ndjson\":{\"schema\":{\"type\":\"string\"}}"));
        buf_addc(b, '}');
    }
    const char *form = flags & AS_OLLAMA ? "OllamaError" : "Error";
    static const char *const codes[] = {"4XX", "5XX"};
    for (int i = 0; i < 2; i++)
        buf_addf(b,
                 "},\"%s\":{\"description\":\"refused\",\"content\":{\"application/json\":"
                 "{\"schema\":{\"$ref\":\"#/components/schemas/%s\"}}}",
                 codes[i], form);
    buf_add(b, STR("}}"));
}

static void write_operation(const route *r, const about *a, bool post, buf *b) {
    buf_addf(b, "\"%s\":{\"summary\":", post ? "post" : "get");
    json_str(b, str_of(a->summary[0] ? a->summary : r->path));
    buf_addc(b, ',');
    if (r->flags & PREFIX)
        buf_add(b, STR("\"parameters\":[{\"name\":\"name\",\"in\":\"path\",\"required\":true,"
                       "\"schema\":{\"type\":\"string\"}}],"));
    if (r->flags & (POLLED | OPEN)) buf_add(b, STR("\"security\":[],"));
    if (post && a->body != BODY_NONE) write_body(a, b);
    write_answer(a, r->flags, post, b);
    buf_addc(b, '}');
}

static void write_path(const route *r, buf *b) {
    const about *a = about_of(r->path);
    buf_addf(b, "\"%s%s\":{", r->path, r->flags & PREFIX ? "{name}" : "");
    if (r->flags & DELETE)
        buf_add(
            b,
            STR("\"delete\":{\"summary\":\"Forgets cached prefixes, all or of one salt\","
                "\"parameters\":[{\"name\":\"tenant\",\"in\":\"query\",\"schema\":"
                "{\"type\":\"string\"}},{\"name\":\"salt\",\"in\":\"query\",\"schema\":"
                "{\"type\":\"string\"}}],\"responses\":{\"200\":{\"description\":"
                "\"forgotten\",\"content\":{\"application/json\":{\"schema\":{\"type\":"
                "\"object\",\"required\":[\"blocks\",\"bytes\",\"files\",\"file_bytes\"]}}}},"
                "\"4XX\":{\"description\":\"refused\"},"
                "\"5XX\":{\"description\":\"refused\"}}}"));
    if (r->flags & GET) write_operation(r, a, false, b);
    if (r->flags & GET && r->flags & POST) buf_addc(b, ',');
    if (r->flags & POST) write_operation(r, a, true, b);
    if (r->flags & PUT)
        buf_add(b,
                STR(",\"put\":{\"summary\":\"Another budget, while it serves\",\"requestBody\":"
                    "{\"required\":true,\"content\":{\"application/json\":{\"schema\":{"
                    "\"type\":\"object\",\"required\":[\"budget_bytes\"],\"properties\":{"
                    "\"budget_bytes\":{\"type\":\"integer\",\"minimum\":1}}}}}},"
                    "\"responses\":{\"200\":{\"description\":\"in force\"},"
                    "\"202\":{\"description\":\"on its way\"},"
                    "\"4XX\":{\"description\":\"refused\"},"
                    "\"5XX\":{\"description\":\"refused\"}}}"));
    buf_addc(b, '}');
}

/* usage.memory, where a request has a receipt: docs/memory.md says what its members mean. */
#define INTEGER "{\"type\":\"integer\",\"minimum\":0}"
#define REAL    "{\"type\":\"number\",\"minimum\":0}"
#define TEXT    "{\"type\":\"string\"}"
static const char receipt_schema[] =
    "{\"type\":\"object\",\"properties\":{"
    "\"kv\":{\"type\":\"object\",\"properties\":{\"type_k\":" TEXT ",\"type_v\":" TEXT
    ",\"peak_blocks\":" INTEGER ",\"peak_bytes\":" INTEGER ",\"byte_seconds\":" REAL "}},"
    "\"cached_tokens\":{\"type\":\"object\",\"properties\":{\"memory\":" INTEGER
    ",\"host\":" INTEGER ",\"disk\":" INTEGER "}},"
    "\"loaded\":{\"type\":\"object\",\"properties\":{\"bytes\":" INTEGER ",\"ms\":" REAL "}},"
    "\"preemptions\":" INTEGER ",\"recomputed_tokens\":" INTEGER ",\"steps\":" INTEGER
    ",\"queue_ms\":" REAL ",\"prefill_ms\":" REAL ",\"decode_ms\":" REAL
    ",\"energy_joules\":" REAL ",\"stripped_lines\":" INTEGER
    ",\"prefix\":{\"type\":\"object\",\"properties\":{\"cached_tokens\":" INTEGER
    ",\"of\":" INTEGER ",\"why\":{\"type\":[\"string\",\"null\"]},\"at_token\":" INTEGER
    ",\"message\":{\"type\":\"object\",\"properties\":{\"index\":" INTEGER ",\"role\":" TEXT
    ",\"in\":{\"enum\":[\"content\",\"template\"]}}},\"before\":" TEXT ",\"old\":" TEXT
    ",\"new\":" TEXT ",\"nearest_request\":" TEXT "}}}}";
#undef INTEGER
#undef REAL
#undef TEXT

void openapi_write(const app *app, const route *routes, size_t n, buf *b) {
    bool first = true;
    buf_add(
        b,
        STR("{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"vramd\",\"version\":\"" VRAMD_VERSION
            "\",\"description\":\"Paths below /v1 that begin completions, chat, models, "
            "embeddings and responses work without /v1, too.\"},\"paths\":{"));
    for (size_t i = 0; i < n; i++) {
        if (!routes[i].run || (routes[i].flags & AS_OLLAMA && !app->opt.ollama_api)) continue;
        if (routes[i].flags & OF_PAGE && !app->opt.web_page) continue;
        if (!first) buf_addc(b, ',');
        first = false;
        write_path(&routes[i], b);
    }
    buf_add(b, STR("},\"components\":{\"schemas\":{\"Completion\":"));
    write_params(false, b);
    buf_add(b, STR(",\"Chat\":"));
    write_params(true, b);
    buf_add(b, STR(",\"Receipt\":"));
    buf_add(b, str_of(receipt_schema));
    buf_add(b,
            STR(",\"Error\":{\"type\":\"object\",\"required\":[\"error\"],\"properties\":"
                "{\"error\":{\"type\":\"object\",\"required\":[\"message\",\"type\"]}}},"
                "\"OllamaError\":{\"type\":\"object\",\"required\":[\"error\"],\"properties\":"
                "{\"error\":{\"type\":\"string\"}}}}"));
    if (app->keys)
        buf_add(b,
                STR(",\"securitySchemes\":{\"key\":{\"type\":\"http\",\"scheme\":\"bearer\"}}}"
                    ",\"security\":[{\"key\":[]}]"));
    else
        buf_addc(b, '}');
    buf_addc(b, '}');
}
