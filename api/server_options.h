/* What the front end is opened with. */
#ifndef VRAMD_API_SERVER_OPTIONS_H
#define VRAMD_API_SERVER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct server_options {
    const char *host; /* address or name to bind; "unix:/path" for a Unix socket */
    uint16_t port;    /* 0: any; see server_port */
    int listen_fd;    /* >= 0: already listening (socket activation); host and port unused */
    uint32_t max_connections, max_body_bytes;
    uint32_t idle_timeout_s, header_timeout_s, body_timeout_s, heartbeat_s;
    uint32_t request_timeout_s; /* of a request that names none, and the most; 0: none */
    uint32_t stream_credits;    /* tokens a slow reader may be behind */
    bool log_requests;
    bool web_page;                    /* /, and what the page needs */
    const char *docs_dir;             /* of /docs/; "" or NULL: the usual one, if it is there */
    const char *api_keys_file;        /* "" or NULL: none */
    bool metrics_auth;                /* /metrics needs a key too */
    const char *tls_cert, *tls_key;   /* PEM files; "" or NULL: plain HTTP */
    bool ollama_api;                  /* paths below /api */
    bool trust_request_chat_template; /* a request may have a template of its own */
    const char *cors_origins;         /* whose pages may ask: origins, or "*" (api/cors.h) */
    const char
        *trusted_proxies; /* whose fairness headers count (api/proxies.h); "" or NULL: none */
    const char *strip_prompt_lines; /* of the system prompt of /v1/messages; "" or NULL: none */
} server_options;

#endif
