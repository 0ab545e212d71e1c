/* From options to the front end and its terms. Owns nothing; any thread. */
#include "daemon/serving.h"

#include "daemon/bridge/bridge.h"
#include "daemon/step_log.h"

server_options server_options_of(const options *o) {
    server_options so = {.host = o->host,
                         .port = (uint16_t)o->port,
                         .listen_fd = -1,
                         .max_connections = o->max_connections,
                         .max_body_bytes = (uint32_t)o->max_body,
                         .idle_timeout_s = o->idle_timeout,
                         .header_timeout_s = o->header_timeout,
                         .body_timeout_s = o->body_timeout,
                         .heartbeat_s = o->heartbeat,
                         .request_timeout_s = o->request_timeout,
                         .stream_credits = o->stream_credits,
                         .log_requests = o->log_requests,
                         .web_page = o->web_page,
                         .docs_dir = o->docs_dir,
                         .api_keys_file = o->api_keys_file,
                         .metrics_auth = o->metrics_auth,
                         .tls_cert = o->tls_cert,
                         .tls_key = o->tls_key,
                         .ollama_api = o->ollama_api,
                         .cors_origins = o->cors_origins,
                         .trusted_proxies = o->trusted_proxies,
                         .trust_request_chat_template = o->trust_request_chat_template,
                         .strip_prompt_lines = o->strip_prompt_lines};
    return so;
}

void serving_terms(void *arg, const machine *m, terms *t) {
    server_options so = server_options_of(&m->opt);
    (void)arg;
    bridge_terms(m, t);
    if (m->opt.step_log[0])
        terms_add(t, MEM_WORKSPACE, TERM_EXACT, step_log_bytes(&m->sched_conf), "the step log");
    terms_add(t, MEM_REQUESTS, TERM_EXACT, pool_bytes(m->opt.request_memory),
              "bodies, prompts, queued output");
    server_terms(&so, t);
}
