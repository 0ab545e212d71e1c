/* Tables and JSON of simulations. */
#include "daemon/simulate/simulation_report.h"

#include <stdio.h>

#include "base/str.h"

static double ms(const fleet_times *t, double part) {
    return fleet_times_at(t, part) / 1e3;
}

static double mean_ms(const fleet_times *t) {
    return t->n > 0 ? t->sum / (double)t->n / 1e3 : 0;
}

/* {"schema": ...: what both objects begin with. */
static void begin_json(const simulation *s, const char *kind) {
    const fleet_config *c = &s->fleet;
    printf("{\"schema\":\"vramd-simulate\",\"version\":1,\"kind\":\"%s\",\"simulated\":true,"
           "\"seed\":%llu,\"cost_model\":{\"source\":\"%s\",\"us_per_step\":%.6g,"
           "\"us_per_row\":%.6g,\"us_per_position\":%.6g,\"us_per_logit_row\":%.6g,",
           kind, (unsigned long long)s->seed, s->source, c->cost.coef[0], c->cost.coef[1],
           c->cost.coef[2], c->cost.coef[3]);
    if (s->error >= 0)
        printf("\"mape\":%.4f},", s->error);
    else
        printf("\"mape\":null},");
    printf("\"replicas\":%u,\"router\":\"%s\",\"staleness_ms\":%.6g,\"slo_ttft_ms\":%.6g,"
           "\"slo_itl_ms\":%.6g,\"host_us_per_step\":%llu,\"http_ms_per_request\":%.6g",
           c->n_replicas, fleet_router_name[c->router], (double)c->staleness_us / 1e3,
           (double)c->slo_ttft_us / 1e3, (double)c->slo_itl_us / 1e3,
           (unsigned long long)c->host_us, (double)c->http_us / 1e3);
}

static void json_times(const char *name, const fleet_times *t) {
    printf(",\"%s_ms\":{\"mean\":%.6g,\"p50\":%.6g,\"p90\":%.6g,\"p99\":%.6g,\"p99.9\":%.6g,"
           "\"max\":%.6g}",
           name, mean_ms(t), ms(t, 0.5), ms(t, 0.9), ms(t, 0.99), ms(t, 0.999),
           (double)t->max / 1e3);
}

/* ,"states": of recurrent layers, of a replica; null where the model has none. r NULL: of no run. */
static void json_states(const simulation *s, const fleet_result *r) {
    const sched_config *c = &s->fleet.sched;
    if (c->state_slots == 0) {
        printf(",\"states\":null");
        return;
    }
    printf(
        ",\"states\":{\"bytes\":%llu,\"bytes_each\":%llu,\"slots\":%u,\"checkpoint_slots\":%u",
        (unsigned long long)(c->state_slots * c->state_bytes),
        (unsigned long long)c->state_bytes, c->state_slots, c->state_slots - c->max_seqs);
    if (r)
        printf(
            ",\"slots_used_max\":%u,\"checkpoints_written\":%llu,\"checkpoints_evicted\":%llu,"
            "\"missed_tokens\":%llu",
            r->state_most, (unsigned long long)r->checkpoints_written,
            (unsigned long long)r->checkpoints_evicted,
            (unsigned long long)r->state_missed_tokens);
    printf("}");
}

static void print_json(const simulation *s, const fleet_result *r, double wall_s) {
    const double sec = r->makespan_us > 0 ? (double)r->makespan_us / 1e6 : 1;
    begin_json(s, "run");
    printf(",\"rate\":%.6g,\"requests\":%llu,\"rejected\":%llu,\"good\":%llu,"
           "\"simulated_s\":%.6f,\"wall_s\":%.3f",
           s->rate, (unsigned long long)(r->n_ok + r->n_rejected),
           (unsigned long long)r->n_rejected, (unsigned long long)r->n_good, sec, wall_s);
    json_times("ttft", &r->ttft);
    json_times("itl", &r->itl);
    json_times("tpot", &r->tpot);
    json_times("e2e", &r->e2e);
    printf(
        ",\"requests_per_s\":%.6g,\"good_per_s\":%.6g,\"output_tokens_per_s\":%.6g,"
        "\"prompt_tokens\":%llu,\"output_tokens\":%llu,\"cached_tokens\":%llu,"
        "\"preemptions\":%llu,\"recomputed_tokens\":%llu,\"steps\":%llu,\"kv_used_mean\":%.4f,"
        "\"kv_used_max\":%.4f",
        (double)r->n_ok / sec, (double)r->n_good / sec, (double)r->output_tokens / sec,
        (unsigned long long)r->prompt_tokens, (unsigned long long)r->output_tokens,
        (unsigned long long)r->cached_tokens, (unsigned long long)r->preemptions,
        (unsigned long long)r->recomputed_tokens, (unsigned long long)r->n_steps, r->kv_mean,
        r->kv_max);
    json_states(s, r);
    puts("}");
}

/* What each line begins with. */
static void begin_line(const simulation *s) {
    printf("simulated, seed %llu, %s:  ", (unsigned long long)s->seed, s->tag);
}

static void print_times(const simulation *s, const char *name, const fleet_times *t) {
    begin_line(s);
    printf("%-4s mean %8.2f  p50 %8.2f  p90 %8.2f  p99 %8.2f  p99.9 %8.2f  max %8.2f ms\n",
           name, mean_ms(t), ms(t, 0.5), ms(t, 0.9), ms(t, 0.99), ms(t, 0.999),
           (double)t->max / 1e3);
}

static void print_state_slots(const simulation *s) {
    const sched_config *c = &s->fleet.sched;
    char each[32], all[32];
    begin_line(s);
    printf("recurrent states: %u slots of %s, %s: %u of sequences, %u of checkpoints\n",
           c->state_slots, bytes_human(c->state_bytes, each),
           bytes_human(c->state_slots * c->state_bytes, all), c->max_seqs,
           c->state_slots - c->max_seqs);
}

static void print_head(const simulation *s) {
    const fleet_config *c = &s->fleet;
    begin_line(s);
    printf("costs %s\n", s->source);
    begin_line(s);
    printf(
        "a step: %.1f us + %.2f a row + %.5f a position + %.2f a row of logits; of it the host "
        "%llu us; HTTP %.3g ms a request\n",
        c->cost.coef[0], c->cost.coef[1], c->cost.coef[2], c->cost.coef[3],
        (unsigned long long)c->host_us, (double)c->http_us / 1e3);
    if (c->sched.state_slots) print_state_slots(s);
    if (c->n_replicas == 1) return;
    begin_line(s);
    printf("%u replicas, %s, loads up to %.0f ms old\n", c->n_replicas,
           fleet_router_name[c->router], (double)c->staleness_us / 1e3);
}

void simulation_print(const simulation *s, const fleet_result *r, double wall_s, bool json) {
    const double sec = r->makespan_us > 0 ? (double)r->makespan_us / 1e6 : 1;
    const fleet_config *c = &s->fleet;
    if (json) {
        print_json(s, r, wall_s);
        return;
    }
    print_head(s);
    print_times(s, "TTFT", &r->ttft);
    print_times(s, "ITL", &r->itl);
    print_times(s, "TPOT", &r->tpot);
    print_times(s, "E2E", &r->e2e);
    begin_line(s);
    printf("%llu requests in %.1f s, %.2f/s, %llu rejected; %.1f output tokens/s\n",
           (unsigned long long)r->n_ok, sec, (double)r->n_ok / sec,
           (unsigned long long)r->n_rejected, (double)r->output_tokens / sec);
    if (c->slo_ttft_us || c->slo_itl_us) {
        begin_line(s);
        printf("%llu requests meet the objectives, %.2f/s\n", (unsigned long long)r->n_good,
               (double)r->n_good / sec);
    }
    begin_line(s);
    printf("%llu preemptions, %llu tokens computed again, %.1f%% of prompt tokens "
           "found; KV used %.0f%%, at most %.0f%%\n",
           (unsigned long long)r->preemptions, (unsigned long long)r->recomputed_tokens,
           r->prompt_tokens ? 100 * (double)r->cached_tokens / (double)r->prompt_tokens : 0,
           100 * r->kv_mean, 100 * r->kv_max);
    if (c->sched.state_slots == 0) return;
    begin_line(s);
    printf("%llu checkpoints of states written, %llu evicted; %llu prompt tokens found without "
           "a state; at most %u slots used\n",
           (unsigned long long)r->checkpoints_written,
           (unsigned long long)r->checkpoints_evicted,
           (unsigned long long)r->state_missed_tokens, r->state_most);
}

void simulation_print_capacity(const simulation *s, const double rate[CAPACITY_SEEDS],
                               bool json) {
    const double low = rate[0], median = rate[CAPACITY_SEEDS / 2],
                 high = rate[CAPACITY_SEEDS - 1];
    if (json) {
        begin_json(s, "capacity");
        json_states(s, NULL);
        printf(
            ",\"seeds\":%d,\"requests_per_s\":{\"low\":%.6g,\"median\":%.6g,\"high\":%.6g}}\n",
            CAPACITY_SEEDS, low, median, high);
        return;
    }
    print_head(s);
    begin_line(s);
    printf("capacity %.3g requests/s; of %d seeds %.3g to %.3g\n", median, CAPACITY_SEEDS, low,
           high);
}
