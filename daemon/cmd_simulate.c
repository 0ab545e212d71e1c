/* vramd simulate: the scheduler without an engine. Reads the options; sim/ does the rest. */
#include "daemon/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/args.h"
#include "daemon/output.h"
#include "daemon/serving.h"
#include "daemon/simulate/simulation_plot.h"
#include "daemon/simulate/simulation_report.h"
#include "sim/replay.h"

extern char **environ;

static const char usage[] =
    "usage: vramd simulate --step-log FILE [OPTIONS]\n"
    "       vramd simulate --model FILE [OPTIONS]\n"
    "       vramd simulate --replay FILE [--audit]\n"
    "Runs the scheduler without an engine. All times are simulated.\n"
    "  --step-log FILE         limits and costs of a server (vramd serve --step-log FILE)\n"
    "  --model FILE            limits of its plan, by the options of vramd serve; costs "
    "assumed of\n"
    "  --bandwidth B           the memory (vramd plan), for example 41GB/s, and\n"
    "  --operations N          operations a second (3e11)\n"
    "  of the options of vramd serve: max_num_seqs, max_num_batched_tokens, kv_cache_tokens,\n"
    "                          max_model_len, itl_slo_ms, scheduler_policy, batching, "
    "prefix_caching,\n"
    "                          state_checkpoints\n"
    "load:\n"
    "  --rate R                requests a second, Poisson\n"
    "  --prompt-tokens N       128; --output-tokens N: 64\n"
    "  --trace FILE            an Azure, Mooncake or lengths trace: lengths, and without "
    "--rate times\n"
    "  --speed X               of the trace (1)\n"
    "  --requests N            1000; with the times of a trace, all\n"
    "  --seed N                1\n"
    "replicas:\n"
    "  --replicas N            1\n"
    "  --router NAME           round-robin, least-loaded, two-choices or prefix-affinity\n"
    "  --staleness TIME        how old what the router knows of loads may be (0)\n"
    "results:\n"
    "  --slo-ttft-p99 TIME, --slo-itl-p99 TIME  objectives, for example 2s and 100ms: counts "
    "the\n"
    "                          requests that meet them\n"
    "  --find-capacity         the rate that keeps them, of 5 seeds\n"
    "  --json                  the figures as JSON\n"
    "  --svg FILE              a picture: times over the load, the KV cache over time\n"
    "what the engine's time does not have:\n"
    "  --host-time TIME        from a step's end to the next plan (of the step log, or 0)\n"
    "  --http-time TIME        of a request before and behind the engine (0)\n"
    "--replay feeds the step log to the same scheduler, and compares every plan; --audit "
    "checks the\n"
    "scheduler's invariants after each call.\n";

/* A scheduler of 1,024 sequences with a context of a million tokens takes about 5 GiB. */
static const size_t MOST_BYTES = (size_t)16 << 30;

static status map_file(str *out, const char *path, err *e) {
    struct stat st;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *p = MAP_FAILED;
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0)
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    else if (fd >= 0)
        errno = EINVAL;
    if (p == MAP_FAILED) {
        err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot read the step log %s: %s",
                path, errno == EINVAL ? "no file, or an empty one" : strerror(errno));
        err_hint(e, "vramd serve --step-log FILE writes one");
    } else {
        *out = (str){p, (size_t)st.st_size};
    }
    if (fd >= 0) close(fd);
    return p == MAP_FAILED ? e->code : OK;
}

/* What was replayed before an error counts, too: a log that a crash cut off ends with one. */
static int replay(const char *path, bool audit) {
    str text;
    replay_result r;
    err e;
    status s = map_file(&text, path, &e);
    if (s != OK) return command_failed("simulate", &e);
    s = replay_run(text, MOST_BYTES, audit, &r, &e);
    munmap((void *)(uintptr_t)text.ptr, text.len);
    printf("replayed %llu records: %llu requests, %llu steps\n",
           (unsigned long long)r.n_records, (unsigned long long)r.n_requests,
           (unsigned long long)r.n_steps);
    if (s != OK) return command_failed("simulate", &e);
    if (r.n_lost) {
        err_set(&e, ERR_FORMAT,
                "the log lacks %llu records behind these: the disk was too slow",
                (unsigned long long)r.n_lost);
        return command_failed("simulate", &e);
    }
    if (r.different) {
        err_set(&e, ERR_INVALID, "record %llu: %s", (unsigned long long)r.different, r.what);
        err_hint(&e, "the log is of this version of vramd, is it not?");
        return command_failed("simulate", &e);
    }
    puts("every plan is the same");
    return 0;
}

typedef struct simulate_flags {
    const char *log, *bandwidth, *trace, *router, *svg;
    double operations, rate, speed, replicas, prompt, output, requests, seed;
    double staleness, slo_ttft, slo_itl, host, http; /* in us; host < 0: as measured */
    bool capacity, json;
} simulate_flags;

/* A number after a flag; what is not there stays as it was. */
static status take_real(int *argc, char **argv, const char *flag, double lo, double hi,
                        double *out, err *e) {
    const char *v = args_take_value(argc, argv, flag);
    char *end = NULL;
    if (!v) return OK;
    const double x = strtod(v, &end);
    if (end != v && !*end && x >= lo && x <= hi) return *out = x, OK;
    err_set(e, ERR_INVALID, "%s %.40s is not a number from %g to %g", flag, v, lo, hi);
    return err_hint(e, "vramd simulate --help");
}

/* Likewise a time: 2s, 100ms, 250us, or a number of ms. In microseconds. */
static status take_time(int *argc, char **argv, const char *flag, double *out, err *e) {
    static const struct {
        const char *unit;
        double us;
    } units[] = {{"", 1e3}, {"us", 1}, {"ms", 1e3}, {"s", 1e6}};
    static const double MOST_US = 1e13;
    const char *v = args_take_value(argc, argv, flag);
    char *end = NULL;
    if (!v) return OK;
    const double x = strtod(v, &end);
    for (size_t i = 0; end != v && i < sizeof units / sizeof *units; i++)
        if (strcmp(end, units[i].unit) == 0 && x >= 0 && x * units[i].us <= MOST_US)
            return *out = x * units[i].us, OK;
    err_set(e, ERR_INVALID, "%s %.40s is not a time", flag, v);
    return err_hint(e, "for example %s 100ms; us, ms and s, and without a unit ms", flag);
}

static status take_flags(simulate_flags *f, int *argc, char **argv, err *e) {
    *f = (simulate_flags){.operations = 3e11,
                          .speed = 1,
                          .replicas = 1,
                          .prompt = 128,
                          .output = 64,
                          .seed = 1,
                          .host = -1};
    const struct {
        const char *flag;
        double lo, hi, *out;
    } reals[] = {{"--operations", 1e6, 1e18, &f->operations},
                 {"--rate", 1e-3, 1e6, &f->rate},
                 {"--speed", 1e-6, 1e6, &f->speed},
                 {"--replicas", 1, FLEET_MAX_REPLICAS, &f->replicas},
                 {"--prompt-tokens", 1, 1 << 24, &f->prompt},
                 {"--output-tokens", 1, 1 << 24, &f->output},
                 {"--requests", 1, 1e8, &f->requests},
                 {"--seed", 0, 4e15, &f->seed}};
    status s = OK;
    for (size_t i = 0; i < sizeof reals / sizeof *reals && s == OK; i++)
        s = take_real(argc, argv, reals[i].flag, reals[i].lo, reals[i].hi, reals[i].out, e);
    const struct {
        const char *flag;
        double *out;
    } times[] = {{"--staleness", &f->staleness},
                 {"--slo-ttft-p99", &f->slo_ttft},
                 {"--slo-itl-p99", &f->slo_itl},
                 {"--host-time", &f->host},
                 {"--http-time", &f->http}};
    for (size_t i = 0; i < sizeof times / sizeof *times && s == OK; i++)
        s = take_time(argc, argv, times[i].flag, times[i].out, e);
    f->log = args_take_value(argc, argv, "--step-log");
    f->svg = args_take_value(argc, argv, "--svg");
    f->bandwidth = args_take_value(argc, argv, "--bandwidth");
    f->trace = args_take_value(argc, argv, "--trace");
    f->router = args_take_value(argc, argv, "--router");
    f->capacity = args_take_word(argc, argv, "--find-capacity");
    f->json = args_take_word(argc, argv, "--json");
    return s;
}

static status read_load(simulation *s, const simulate_flags *f, err *e) {
    int router = 0;
    while (f->router && fleet_router_name[router] &&
           strcmp(f->router, fleet_router_name[router]) != 0)
        router++;
    if (router == N_ROUTERS) {
        err_set(e, ERR_INVALID, "--router %.40s is not known", f->router);
        return err_hint(e, "round-robin, least-loaded, two-choices, prefix-affinity");
    }
    s->fleet.router = (fleet_router)router;
    s->fleet.n_replicas = (uint32_t)f->replicas;
    s->fleet.staleness_us = (uint64_t)f->staleness;
    s->fleet.slo_ttft_us = (uint64_t)f->slo_ttft;
    s->fleet.slo_itl_us = (uint64_t)f->slo_itl;
    s->fleet.http_us = (uint64_t)f->http;
    if (f->host >= 0) simulation_set_host(s, (uint64_t)f->host);
    s->progress = isatty(STDERR_FILENO);
    s->prompt = (uint32_t)f->prompt, s->output = (uint32_t)f->output;
    s->rate = f->rate, s->speed = f->speed;
    s->n = (uint32_t)f->requests, s->seed = (uint64_t)f->seed;
    if (f->trace) return load_trace_read(&s->trace, f->trace, 0, e);
    if (f->rate > 0 || f->capacity) return OK;
    err_set(e, ERR_INVALID, "no load is given");
    return err_hint(e, "--rate R, --trace FILE or --find-capacity");
}

/* The limits of a log, but for those that the command line gives. */
static status change_limits(sched_config *c, int *argc, char **argv, err *e) {
    options o;
    options_defaults(&o);
    o.max_num_seqs = c->max_seqs, o.max_num_batched_tokens = c->max_rows;
    o.max_model_len = c->max_model_len, o.itl_slo_ms = (uint32_t)(c->itl_slo_us / 1000);
    o.prefix_caching = c->prefix_cache, o.batching = (uint32_t)c->batching;
    o.scheduler_policy = machine_policy_number(c->policy);
    o.state_checkpoints = c->state_slots > c->max_seqs ? c->state_slots - c->max_seqs : 0;
    status s = options_load_args(&o, argc, argv,
                                 "max_num_seqs max_num_batched_tokens max_model_len itl_slo_ms "
                                 "prefix_caching batching scheduler_policy kv_cache_tokens "
                                 "state_checkpoints",
                                 e);
    if (s != OK) return s;
    machine_set_policies(c, &o);
    c->max_seqs = o.max_num_seqs, c->max_rows = o.max_num_batched_tokens;
    c->max_model_len = o.max_model_len, c->itl_slo_us = (uint64_t)o.itl_slo_ms * 1000;
    c->prefix_cache = o.prefix_caching;
    if (c->state_slots > 0) c->state_slots = machine_state_slots(&o);
    if (c->max_logit_rows < c->max_seqs) c->max_logit_rows = c->max_seqs;
    for (uint32_t g = 0; g < c->n_groups && o.kv_cache_tokens; g++)
        c->group[g].n_blocks = (uint32_t)(o.kv_cache_tokens / c->block_tokens);
    return OK;
}

static status read_server(simulation *s, const simulate_flags *f, int *argc, char **argv,
                          err *e) {
    double bandwidth = 0;
    if (f->bandwidth && !plan_parse_bandwidth(str_of(f->bandwidth), &bandwidth))
        return err_set(e, ERR_INVALID, "--bandwidth: \"%.40s\" is no bandwidth", f->bandwidth);
    if (f->log) {
        str text = {0};
        status rc = map_file(&text, f->log, e);
        if (rc != OK) return rc;
        rc = simulation_of_log(s, text, f->log, e);
        munmap((void *)(uintptr_t)text.ptr, text.len);
        return rc == OK ? change_limits(&s->fleet.sched, argc, argv, e) : rc;
    }
    static machine m; /* large for a stack */
    options o;
    const machine_wish w = {.elsewhere = true, .extra = serving_terms};
    options_defaults(&o);
    status rc = options_load(&o, argc, argv, environ, NULL, e);
    if (rc == OK) rc = machine_plan(&m, &o, &w, e);
    if (rc == OK) rc = simulation_of_plan(s, &m, bandwidth, f->operations, e);
    machine_close(&m);
    return rc;
}

/* No tier, and no pool that moves: there is neither a disk nor a budget. */
static void make_plain(sched_config *c) {
    c->tier_chunks = 0;
    c->max_moves = 0;
    c->n_end_tokens = 0;
    for (uint32_t g = 0; g < c->n_groups; g++) c->group[g].max_blocks = 0;
}

static status write_svg(const simulation *s, double rate, const char *path, err *e) {
    buf b;
    buf_init(&b, NULL);
    status rc = simulation_plot(s, rate, &b, e);
    if (rc == OK) rc = output_write(path, &b, e);
    buf_clear(&b);
    return rc;
}

/* out: the capacity. */
static status find_capacity(const simulation *s, bool json, double *out, err *e) {
    double rate[CAPACITY_SEEDS] = {0};
    if (!s->fleet.slo_ttft_us && !s->fleet.slo_itl_us) {
        err_set(e, ERR_INVALID, "--find-capacity without an objective");
        return err_hint(e, "--slo-ttft-p99 2s --slo-itl-p99 100ms");
    }
    const status rc = simulation_capacity(s, rate, e);
    if (rc == OK) simulation_print_capacity(s, rate, json);
    *out = rate[CAPACITY_SEEDS / 2];
    return rc;
}

static status run_once(const simulation *s, bool json, err *e) {
    fleet_result *r = malloc(sizeof *r);
    const uint64_t start_us = clock_us();
    const status rc = r ? simulation_run(s, s->rate, s->seed, "requests", r, e)
                        : err_set(e, ERR_NO_MEMORY, "no memory for a simulation");
    if (rc == OK) simulation_print(s, r, (double)(clock_us() - start_us) / 1e6, json);
    free(r);
    return rc;
}

static int simulate(const simulation *s, const simulate_flags *f) {
    err e;
    double rate = s->rate;
    status rc = output_check(f->svg, &e);
    if (rc == OK)
        rc = f->capacity ? find_capacity(s, f->json, &rate, &e) : run_once(s, f->json, &e);
    if (rc == OK && f->svg && f->capacity && rate == 0)
        rc = err_set(&e, ERR_INVALID, "no picture of a capacity of 0");
    if (rc == OK && f->svg) rc = write_svg(s, rate, f->svg, &e);
    return rc == OK ? 0 : command_failed("simulate", &e);
}

int cmd_simulate(int argc, char **argv) {
    static simulation sim;
    simulate_flags f;
    err e;
    if (args_take_word(&argc, argv, "--help")) return fputs(usage, stdout), 0;
    const char *path = args_take_value(&argc, argv, "--replay");
    const bool audit = args_take_word(&argc, argv, "--audit");
    if (path && *path && argc == 1) return replay(path, audit);
    status s = take_flags(&f, &argc, argv, &e);
    if (s == OK && path) s = err_set(&e, ERR_INVALID, "--replay takes --audit alone");
    if (s == OK) s = read_server(&sim, &f, &argc, argv, &e);
    if (s == OK && argc > 1) {
        err_set(&e, ERR_INVALID, "\"%.80s\" is not an option", argv[1]);
        s = err_hint(&e, "vramd simulate --help");
    }
    make_plain(&sim.fleet.sched);
    sim.fleet.audit = audit;
    if (s == OK) s = read_load(&sim, &f, &e);
    const int code = s == OK ? simulate(&sim, &f) : command_failed("simulate", &e);
    simulation_clear(&sim);
    return code;
}
