/* When a new request would get its first token, from the cost model of the engine's steps and
 * what waits and runs. Loop thread; the engine's part is at most a step old. */
#include "daemon/bridge/bridge_parts.h"

/* The steps to come: as many sequences decode as now, beside rows of prompts. */
typedef struct pace {
    double step_us, prompt_rows;
} pace;

static pace pace_of(const bridge *b, const sched_stats *s) {
    const sched_config *c = &b->m->sched_conf;
    const double n = s->n_running - s->n_prefilling;
    const step_work decode = {.rows = n, .kv = (double)s->decode_positions, .logit_rows = n};
    double rows = c->max_rows - n;
    if (c->itl_slo_us && !c->ttft_slo_us && n > 0) { /* else late prompts get all rows */
        const double left = cost_time_left(&s->cost, (double)c->itl_slo_us, decode);
        const uint32_t fit = cost_rows(&s->cost, left, 0);
        if (rows > fit) rows = fit > SCHED_LEAST_PROMPT_ROWS ? fit : SCHED_LEAST_PROMPT_ROWS;
    }
    if (rows < 1) rows = 1;
    return (pace){cost_predict(&s->cost, decode) + s->cost.coef[1] * rows, rows};
}

double bridge_forecast_ttft_s(bridge *b, uint32_t n_prompt) {
    sched_stats s;
    pthread_mutex_lock(&b->stats_lock);
    s = b->stats;
    pthread_mutex_unlock(&b->stats_lock);
    if (!cost_ready(&s.cost)) return 0;
    const pace p = pace_of(b, &s);
    /* Prompts that wait find as much in the prefix cache as those of late. */
    const double waiting = ((double)b->waiting_tokens + n_prompt) * (1 - b->mean_cached);
    const double steps = (waiting + (double)s.prefill_tokens) / p.prompt_rows;
    const uint32_t slots = b->m->opt.max_num_seqs;
    const double rounds = b->n_live < slots ? 0 : (double)(b->n_live - slots + 1) / slots;
    return steps * p.step_us / 1e6 + rounds * b->mean_run_s;
}

status bridge_check_ttft(bridge *b, const gen_spec *s, err *e) {
    const uint32_t slo_ms = b->m->opt.ttft_slo_ms;
    if (slo_ms == 0 || b->n_live == 0) return OK; /* an idle daemon takes any */
    const double wait_s = bridge_forecast_ttft_s(b, s->n_prompt);
    if (wait_s * 1000 <= slo_ms) return OK;
    return err_set(e, ERR_BUSY,
                   "the first token is predicted in %.1f s, later than ttft_slo_ms = %u",
                   wait_s, slo_ms);
}
