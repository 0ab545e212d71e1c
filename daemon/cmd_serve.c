/* vramd serve: boot, the loop, drain. The order of both is the list of steps in run().
 *
 * Signals: SIGTERM and SIGINT drain (after drain_grace nothing is accepted any more, running
 * requests go on until drain_timeout), a second one cancels what runs. SIGHUP reads the options again and takes over what can change while
 * serving; a service manager is told of all of it (daemon/supervise.h). */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <uv.h>

#include "api/http.h"
#include "api/server.h"
#include "base/clock.h"
#include "base/energy.h"
#include "base/log.h"
#include "daemon/args.h"
#include "daemon/bridge/bridge.h"
#include "daemon/default_sampling.h"
#include "daemon/commands.h"
#include "daemon/loop_memory.h"
#include "daemon/machine_budget.h"
#include "daemon/models/models.h"
#include "daemon/notify.h"
#include "daemon/pressure.h"
#include "daemon/ranks/member.h"
#include "daemon/ranks/ranks.h"
#include "daemon/serving.h"
#include "daemon/step_log.h"
#include "daemon/supervise.h"

extern char **environ;

typedef struct daemon_state {
    options opt; /* in force: as read at start, the live ones at the last SIGHUP */
    int argc;    /* as the process got them */
    char **argv;
    machine m;
    launch launch;           /* that has started this process, as one of several */
    model_sections sections; /* as read at start; n 0: one model */
    models *models;          /* NULL: one model, in m and bridge */
    server_options so;
    pressure pressure;
    uv_loop_t loop;
    uv_signal_t signals[3];
    uv_timer_t deadline;
    uv_async_t lost; /* a rank is */
    uv_timer_t energy;
    err why_lost; /* written before the signal */
    supervisor supervisor;
    bool handles;
    bridge *bridge;
    server *server;
    bool draining, refusing; /* refusing: no requests are accepted any more */
    status failed;
    err error;
} daemon_state;

static void on_flushed(void *arg) {
    daemon_state *d = arg;
    if (d->server) server_flush(d->server);
}

static void on_drained(void *arg) {
    uv_stop(&((daemon_state *)arg)->loop);
}

static void on_deadline(uv_timer_t *t) {
    daemon_state *d = t->data;
    log_warn("drain: the deadline has passed, cancelling what runs");
    server_abort(d->server);
}

static void refuse_requests(daemon_state *d) {
    if (d->refusing) return;
    d->refusing = true;
    log_info("draining: no new requests; running ones have %u s", d->opt.drain_timeout);
    if (d->models)
        models_drain(d->models);
    else
        bridge_drain(d->bridge);
    uv_timer_start(&d->deadline, on_deadline, (uint64_t)d->opt.drain_timeout * 1000, 0);
    server_drain(d->server, on_drained, d);
}

static port *port_of(const daemon_state *d) {
    return d->models ? models_port(d->models) : bridge_port(d->bridge);
}

static void on_grace_over(uv_timer_t *t) {
    refuse_requests(t->data);
}

/* With an inherited socket the requests of connections that were accepted are served: its next
 * process gets those after them. */
static uint32_t grace_s(const daemon_state *d) {
    if (port_of(d)->ops->not_ready(port_of(d))) return 0;
    return d->opt.drain_grace || d->so.listen_fd < 0 ? d->opt.drain_grace : 1;
}

static void drain(daemon_state *d) {
    if (d->draining) {
        if (!d->server) return;
        refuse_requests(d);
        server_abort(d->server);
        return;
    }
    d->draining = true;
    supervisor_stopping(&d->supervisor);
    const uint32_t grace = grace_s(d);
    if (grace == 0) {
        refuse_requests(d);
        return;
    }
    log_info("draining: requests are accepted for %u s more, /health says 503", grace);
    server_leave(d->server);
    uv_timer_start(&d->deadline, on_grace_over, (uint64_t)grace * 1000, 0);
}

/* From file, environment and flags, at start and again at SIGHUP: loading takes argv apart. */
static status read_options(const daemon_state *d, options *out, model_sections *models,
                           err *e) {
    enum { MAX_ARGS = 256 };
    char *argv[MAX_ARGS + 1];
    int argc = d->argc;
    if (argc > MAX_ARGS) return err_set(e, ERR_INVALID, "more than %d arguments", MAX_ARGS);
    memcpy(argv, d->argv, (size_t)argc * sizeof *argv);
    argv[argc] = NULL;
    options_defaults(out);
    status s = options_load_models(out, models, &argc, argv, environ, e);
    if (s != OK || argc == 1) return s;
    err_set(e, ERR_INVALID, "\"%.80s\" is not an option", argv[1]);
    return err_hint(e, "a model is named by --model FILE");
}

static void on_change(void *arg, const char *name, bool live, const char *was,
                      const char *now) {
    (void)arg;
    log_line(live ? LOG_INFO : LOG_WARN, "reload: %s has changed from \"%s\" to \"%s\"%s", name,
             was, now, live ? "" : ": that takes a restart");
}

/* Whether there is a plan for another value of memory, and its bytes. */
static status check_budget(const daemon_state *d, const char *word, uint64_t *bytes, err *e) {
    plan p = {0};
    if (d->models) {
        err_set(e, ERR_UNSUPPORTED, "the budget of several models does not move");
        return err_field(e, "memory");
    }
    status s = machine_memory_bytes(&d->m, word, bytes, e);
    if (s == OK) s = machine_replan(&d->m, *bytes, &p, e);
    plan_clear(&p);
    return s;
}

/* Options of which any has a mistake change nothing. */
static status take_options(daemon_state *d, err *e) {
    options now;
    const options was = d->opt;
    static model_sections sections; /* large for a stack */
    status s = read_options(d, &now, &sections, e);
    if (s != OK) return s;
    if (!sections_equal(&sections, &d->sections))
        log_warn("reload: the sections [model NAME] have changed: that takes a restart");
    uint64_t bytes = 0;
    const bool resizes = strcmp(was.memory, now.memory) != 0;
    if (resizes) s = check_budget(d, now.memory, &bytes, e);
    if (s != OK) return s;
    options_take_live(&d->opt, &now);
    const server_options so = server_options_of(&d->opt);
    s = server_configure(d->server, &so, e);
    if (s != OK) {
        d->opt = was;
        return s;
    }
    if (resizes) {
        s = bridge_port(d->bridge)->ops->resize(bridge_port(d->bridge), bytes, NULL, NULL, e);
        if (s != OK) snprintf(d->opt.memory, sizeof d->opt.memory, "%s", was.memory);
        if (s != OK) log_error("reload: memory stays as it was: %s", e->text);
    }
    /* A report at the level that shows more: the one before or the one from now on. */
    const log_level before = options_log_level(&was), from_now = options_log_level(&now);
    log_init(before > from_now ? before : from_now);
    if (options_compare(&was, &now, on_change, NULL) == 0)
        log_info("reload: no option has changed");
    log_init(options_log_level(&d->opt));
    return OK;
}

static void reload(daemon_state *d) {
    err e;
    notify_send("RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)clock_us());
    if (take_options(d, &e) == OK)
        server_reload(d->server);
    else
        log_error("reload: nothing is taken over: %s", e.text);
    notify_send("READY=1");
}

static void on_signal(uv_signal_t *s, int number) {
    daemon_state *d = s->data;
    if (number == SIGHUP)
        reload(d);
    else
        drain(d);
}

/* The last line of the start: a request that works as it stands. */
static void announce(const daemon_state *d) {
    const char *host = strcmp(d->opt.host, "0.0.0.0") == 0 ? "127.0.0.1" : d->opt.host;
    const char *scheme = d->opt.tls_cert[0] ? "https" : "http";
    const char *key = d->opt.api_keys_file[0] ? "-H 'Authorization: Bearer KEY' " : "";
    bool bare_v6 = strchr(host, ':') && host[0] != '[';
    if (strncmp(host, "unix:", 5) == 0) {
        log_info("READY: curl --unix-socket %s %s%s://vramd/v1/models", host + 5, key, scheme);
        return;
    }
    if (d->models) {
        log_info("READY: curl %s://%s%s%s:%u/v1/models %s", scheme, bare_v6 ? "[" : "", host,
                 bare_v6 ? "]" : "", server_port(d->server), key);
        return;
    }
    bool chat = d->m.chat.chat.tree != NULL;
    log_info("READY: curl %s://%s%s%s:%u/v1/%s %s-H 'Content-Type: application/json' -d '{%s, "
             "\"max_tokens\": 32, \"temperature\": 0}'",
             scheme, bare_v6 ? "[" : "", host, bare_v6 ? "]" : "", server_port(d->server),
             chat ? "chat/completions" : "completions", key,
             chat ? "\"messages\": [{\"role\": \"user\", \"content\": \"What is the capital of "
                    "France?\"}]"
                  : "\"prompt\": \"The capital of France is\"");
}

/* On the thread that watches the ranks. */
static void on_rank_lost(void *arg, const err *why) {
    daemon_state *d = arg;
    d->why_lost = *why;
    uv_async_send(&d->lost);
}

/* What runs ends with an error by the step that fails; what has not by then is cancelled. */
static void end_without_rank(uv_async_t *a) {
    enum { ENDS_WITHIN_MS = 1000 };
    daemon_state *d = a->data;
    log_error("%s: the ranks end", d->why_lost.text);
    if (d->failed == OK) d->failed = ERR_DEVICE, d->error = d->why_lost;
    d->draining = true;
    supervisor_stopping(&d->supervisor);
    refuse_requests(d);
    uv_timer_start(&d->deadline, on_deadline, ENDS_WITHIN_MS, 0);
}

static void on_loaded(void *arg, status s, const err *e) {
    daemon_state *d = arg;
    char line[256];
    if (s != OK) {
        d->failed = s;
        d->error = *e;
        drain(d);
        return;
    }
    bool agrees = machine_compare(&d->m, line, sizeof line);
    engine_info info;
    engine_describe(d->m.engine, &info);
    log_info("engine %s: %s", info.name, info.detail);
    log_line(agrees ? LOG_INFO : LOG_WARN, "memory at READY: %s", line);
    if (d->m.on_device) {
        agrees = machine_compare_device(&d->m, line, sizeof line);
        log_line(agrees ? LOG_INFO : LOG_WARN, "memory of %s at READY: %s", d->m.device, line);
    }
    ranks_watch(&d->m, on_rank_lost, d);
    server_loaded(d->server);
    supervisor_ready(&d->supervisor);
    default_sampling_text(&d->m.sampling, line, sizeof line);
    log_info("requests that give no sampling parameters get %s", line);
    announce(d);
}

static void on_models_ready(void *arg) {
    daemon_state *d = arg;
    server_loaded(d->server);
    supervisor_ready(&d->supervisor);
    announce(d);
}

/* libmicrohttpd's pools are mapped one by one, so that those of a crowd are the system's again
 * when it has left: on the heap a small block above them would keep them all. */
static void map_pools(void) {
    mallopt(M_MMAP_THRESHOLD, HTTP_POOL_BYTES);
    mallopt(M_MMAP_MAX, 1 << 20);
}

/* Counters of energy go round after minutes of full load. */
static void on_energy(uv_timer_t *t) {
    (void)t;
    energy_joules();
}

static void count_energy(daemon_state *d) {
    enum { EVERY_MS = 60000 };
    uv_timer_init(&d->loop, &d->energy);
    if (energy_open(ENERGY_ROOT) == 0) return;
    uv_timer_start(&d->energy, on_energy, EVERY_MS, EVERY_MS);
    uv_unref((uv_handle_t *)&d->energy);
}

static status open_loop(daemon_state *d, err *e) {
    static const int number[] = {SIGTERM, SIGINT, SIGHUP};
    loop_memory_init();
    map_pools();
    if (uv_loop_init(&d->loop) != 0) return err_set(e, ERR_IO, "the event loop cannot start");
    d->handles = true;
    for (int i = 0; i < 3; i++) {
        uv_signal_init(&d->loop, &d->signals[i]);
        d->signals[i].data = d;
        uv_signal_start(&d->signals[i], on_signal, number[i]);
    }
    uv_timer_init(&d->loop, &d->deadline);
    d->deadline.data = d;
    uv_async_init(&d->loop, &d->lost, end_without_rank);
    d->lost.data = d;
    count_energy(d);
    loop_memory_threads(&d->loop);
    return OK;
}

static void close_loop(daemon_state *d) {
    if (!d->handles) return;
    for (int i = 0; i < 3; i++) uv_close((uv_handle_t *)&d->signals[i], NULL);
    uv_close((uv_handle_t *)&d->deadline, NULL);
    uv_close((uv_handle_t *)&d->lost, NULL);
    uv_close((uv_handle_t *)&d->energy, NULL);
    uv_run(&d->loop, UV_RUN_DEFAULT);
    uv_loop_close(&d->loop);
}

/* Each connection is a descriptor; some are for ourselves. */
static status check_descriptors(const options *o, err *e) {
    struct rlimit r;
    enum { OWN = 64 };
    if (getrlimit(RLIMIT_NOFILE, &r) != 0) return OK;
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
    if (o->max_connections + OWN <= r.rlim_cur) return OK;
    err_set(e, ERR_INVALID, "max_connections = %u, but this process may open %llu files",
            o->max_connections, (unsigned long long)r.rlim_cur);
    err_field(e, "max_connections");
    if (r.rlim_cur <= OWN)
        return err_hint(e, "raise the limit (ulimit -n, LimitNOFILE=) to %u or more",
                        o->max_connections + OWN);
    return err_hint(
        e, "lower max_connections to %llu or raise the limit (ulimit -n, LimitNOFILE=)",
        (unsigned long long)(r.rlim_cur - OWN));
}

/* What comes before the first socket: the plan, and the memory that requests share. */
static status prepare(daemon_state *d, err *e) {
    status s = check_descriptors(&d->opt, e);
    const machine_wish w = {.extra = serving_terms, .launch = &d->launch};
    if (s == OK) s = machine_plan(&d->m, &d->opt, &w, e);
    if (s == OK) s = machine_has_weights(&d->m, e);
    if (s == OK && d->opt.memory_pressure) s = pressure_open(&d->pressure, e);
    return s == OK ? machine_reserve(&d->m, e) : s;
}

static void log_plan(const daemon_state *d) {
    const plan *p = &d->m.plan;
    char total[32], budget[32];
    log_info("plan: %s of a budget of %s bytes, %u KV blocks of %u tokens; loading %s",
             bytes_grouped(p->total_bytes, total), bytes_grouped(p->budget_bytes, budget),
             p->kv_blocks, p->block_tokens, d->opt.model);
}

static status run_models(daemon_state *d, err *e) {
    status s = check_descriptors(&d->opt, e);
    if (s == OK) s = models_plan(&d->models, &d->opt, &d->sections, e);
    if (s == OK) s = open_loop(d, e);
    if (s == OK) s = models_open(d->models, &d->loop, on_flushed, on_models_ready, d, e);
    if (s == OK) s = server_open(&d->server, &d->loop, &d->so, models_port(d->models), e);
    if (s != OK) goto done;
    uint32_t n;
    served *several = models_served(d->models, &n);
    server_serve(d->server, several, n);
    supervisor_start(&d->supervisor, &d->loop, models_port(d->models));
    models_start(d->models);
    uv_run(&d->loop, UV_RUN_DEFAULT);
done:
    supervisor_close(&d->supervisor);
    if (d->server) server_close(d->server);
    models_stop(d->models);
    close_loop(d);
    models_free(d->models);
    return s;
}

static status run(daemon_state *d, err *e) {
    status s = prepare(d, e);
    if (s == OK) s = open_loop(d, e);
    if (s == OK && d->opt.step_log[0])
        s = step_log_open(&d->m.log, d->m.opt.step_log, &d->m.sched_conf, d->m.ledger, e);
    if (s == OK) s = bridge_open(&d->bridge, &d->loop, &d->m, on_flushed, on_loaded, d, e);
    if (s == OK && d->opt.memory_pressure) s = bridge_watch(d->bridge, &d->pressure, e);
    if (s == OK) s = server_open(&d->server, &d->loop, &d->so, bridge_port(d->bridge), e);
    if (s != OK) goto done;
    log_plan(d);
    supervisor_start(&d->supervisor, &d->loop, bridge_port(d->bridge));
    s = bridge_start(d->bridge, e);
    if (s != OK) goto done;
    uv_run(&d->loop, UV_RUN_DEFAULT);
    if (d->failed != OK) {
        *e = d->error;
        s = d->failed;
    }
done:
    supervisor_close(&d->supervisor);
    ranks_unwatch(&d->m);
    if (d->server) server_close(d->server);
    if (d->bridge) bridge_stop(d->bridge);
    close_loop(d);
    step_log_close(d->m.log);
    if (d->bridge) bridge_free(d->bridge);
    pressure_close(&d->pressure);
    if (s != OK) d->launch.why = *e;
    machine_close(&d->m);
    launch_close(&d->launch, s == OK);
    return s;
}

/* What run() does, but for sockets and weights. */
static status check(daemon_state *d, err *e) {
    status s = prepare(d, e);
    if (s == OK) s = machine_load_tokenizer(&d->m, e);
    if (s == OK && d->opt.step_log[0]) s = step_log_check(d->opt.step_log, e);
    if (s == OK) s = server_check(&d->so, d->m.ledger, e);
    if (s == OK) {
        options_print_current(stdout, &d->m.opt);
        printf("# fits: %llu bytes of %llu, %u KV blocks of %u tokens\n",
               (unsigned long long)d->m.plan.total_bytes,
               (unsigned long long)d->m.plan.budget_bytes, d->m.plan.kv_blocks,
               d->m.plan.block_tokens);
    }
    pressure_close(&d->pressure);
    machine_close(&d->m);
    return s;
}

static status check_models(daemon_state *d, err *e) {
    ledger *l = NULL;
    status s = check_descriptors(&d->opt, e);
    if (s == OK) s = models_plan(&d->models, &d->opt, &d->sections, e);
    if (s == OK) s = ledger_open_unlimited(&l, e);
    if (s == OK) s = server_check(&d->so, l, e);
    if (s == OK) {
        options_print_current(stdout, &d->opt);
        models_print(d->models, stdout);
    }
    ledger_close(l);
    models_free(d->models);
    return s;
}

int cmd_serve(int argc, char **argv) {
    static daemon_state d; /* handles of libuv must not move */
    err e;
    if (args_take_word(&argc, argv, "--help")) {
        puts("usage: vramd serve --model FILE [OPTIONS]\n"
             "       vramd serve --check | --print-sample | --print-man | --print-man-conf\n");
        options_print_help(stdout, NULL);
        return 0;
    }
    if (args_take_word(&argc, argv, "--print-sample")) return options_print_sample(stdout), 0;
    if (args_take_word(&argc, argv, "--print-man")) return options_print_man(stdout), 0;
    if (args_take_word(&argc, argv, "--print-man-conf"))
        return options_print_man_conf(stdout), 0;
    signal(SIGHUP, SIG_IGN); /* until there is something to reload */
    int listen_fd = -1;
    bool only_check = args_take_word(&argc, argv, "--check");
    d.argc = argc, d.argv = argv;
    status s = read_options(&d, &d.opt, &d.sections, &e);
    if (s == OK) s = notify_listen_fd(&listen_fd, &e);
    if (s != OK) return command_failed("serve", &e);
    log_init(options_log_level(&d.opt));
    signal(SIGPIPE, SIG_IGN);
    d.so = server_options_of(&d.opt);
    d.so.listen_fd = listen_fd;
    s = only_check ? launch_check(&d.opt, &e) : launch_open(&d.launch, &d.opt, &e);
    const bool follows = s == OK && d.launch.wire.rank > 0;
    if (follows)
        s = member_follow(&d.launch, &d.opt, &e);
    else if (s == OK && d.sections.n)
        s = only_check ? check_models(&d, &e) : run_models(&d, &e);
    else if (s == OK)
        s = only_check ? check(&d, &e) : run(&d, &e);
    if (s != OK) return command_failed("serve", &e);
    if (!only_check && !follows) log_info("stopped");
    return 0;
}
