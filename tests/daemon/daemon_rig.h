/* A whole daemon in a test, but for clients: front end, bridge, engine, tokenizer; and its ledger against its plan. One at a
 * time. All functions are static; what fails ends the test. */
#ifndef TESTS_DAEMON_DAEMON_RIG_H
#define TESTS_DAEMON_DAEMON_RIG_H

#include <check.h>
#include <stdio.h>
#include <string.h>

#include "daemon/bridge/bridge.h"
#include "daemon/serving.h"

typedef struct rig {
    machine m;
    uv_loop_t loop;
    bridge *bridge;
    server *server;
    bool loaded;
    status load_status;
    err load_error;
} rig;

static rig r; /* handles of libuv must not move */

static void on_flushed(void *arg) {
    (void)arg;
    server_flush(r.server);
}

static void on_loaded(void *arg, status s, const err *e) {
    (void)arg;
    r.loaded = true;
    r.load_status = s;
    if (s != OK) r.load_error = *e;
    uv_stop(&r.loop);
}

static void open_daemon(const char *what) {
    server_options so = server_options_of(&r.m.opt);
    err e;
    status s = machine_reserve(&r.m, &e);
    ck_assert_int_eq(uv_loop_init(&r.loop), 0);
    if (s == OK) s = bridge_open(&r.bridge, &r.loop, &r.m, on_flushed, on_loaded, &r, &e);
    if (s == OK) s = server_open(&r.server, &r.loop, &so, bridge_port(r.bridge), &e);
    if (s == OK) s = bridge_start(r.bridge, &e);
    ck_assert_msg(s == OK, "%s: %s", what, e.text);
    uv_run(&r.loop, UV_RUN_DEFAULT);
    ck_assert_msg(r.loaded && r.load_status == OK, "%s: %s", what, r.load_error.text);
}

static void close_daemon(void) {
    server_close(r.server);
    bridge_stop(r.bridge);
    uv_run(&r.loop, UV_RUN_DEFAULT);
    uv_loop_close(&r.loop);
    bridge_free(r.bridge);
}

/* Every class holds what was planned; what was held while loading is gone. Of class http only the table is there before a client is. */
static void compare(const char *what) {
    ledger_view v;
    ledger_read(r.m.ledger, &v);
    for (int c = 0; c < MEM_N_CLASSES; c++) {
        const uint64_t planned = terms_sum(&r.m.plan.terms, (mem_class)c);
        const ledger_class *have = &v.cls[c];
        ck_assert_msg(c == MEM_LOADING || have->plan_bytes == planned,
                      "%s: class %s: the ledger knows of %llu", what,
                      mem_class_name((mem_class)c), (unsigned long long)have->plan_bytes);
        if (c != MEM_HTTP ? have->ledger_bytes != planned : have->ledger_bytes > planned)
            ck_abort_msg("%s: class %s: planned %llu, allocated %llu", what,
                         mem_class_name((mem_class)c), (unsigned long long)planned,
                         (unsigned long long)have->ledger_bytes);
    }
    ck_assert_uint_eq(v.plan_bytes, r.m.plan.total_bytes);
}

static void read_words(options *o, const char *words) {
    char text[160], *argv[8] = {"serve"};
    int argc = 1;
    err e;
    snprintf(text, sizeof text, "%s", words);
    for (char *w = strtok(text, " "); w; w = strtok(NULL, " ")) argv[argc++] = w;
    ck_assert_msg(options_load_args(o, &argc, argv, NULL, &e) == OK, "%s", e.text);
}

static options base_options(const char *path) {
    options o;
    options_defaults(&o);
    snprintf(o.model, sizeof o.model, "%s", path);
    snprintf(o.host, sizeof o.host, "unix:/tmp/vramd-plan-ledger-%d.sock", (int)getpid());
    read_words(&o, "--backend=cpu --threads=2 --max-model-len=256 --max-num-seqs=4");
    read_words(&o, "--max-num-batched-tokens=64 --max-connections=16 --max-waiting=16");
    read_words(&o, "--max-body=65536 --memory=200MiB --kv-cache-tokens=512");
    return o;
}

#endif
