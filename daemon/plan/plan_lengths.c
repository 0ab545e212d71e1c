/* Lengths of requests to what they hold of the KV cache. */
#include "daemon/plan/plan_lengths.h"

#include <math.h>
#include <stdio.h>

#include "base/check.h"
#include "base/str.h"
#include "json/out.h"

static const double SURE = 2.326; /* deviations of a normal distribution: 99 % lie below */

status plan_lengths_read(plan_lengths *l, const char *path, err *e) {
    *l = (plan_lengths){0};
    status s = load_trace_read(&l->trace, path, 0, e);
    if (s != OK) return s;
    for (size_t i = 0; i < l->trace.n; i++) {
        const trace_row *r = &l->trace.rows[i];
        const uint32_t all = r->prompt_tokens + r->output_tokens;
        l->prompt += r->prompt_tokens / (double)l->trace.n;
        l->output += r->output_tokens / (double)l->trace.n;
        if (all > l->longest) l->longest = all;
    }
    return OK;
}

void plan_lengths_clear(plan_lengths *l) {
    load_trace_clear(&l->trace);
}

/* A request grows from its prompt to its full length; moments of its blocks over that time by
 * Simpson's rule, weighted by that time. */
bool plan_lengths_held(const plan_lengths *l, uint32_t max_tokens, uint32_t block_tokens,
                       uint64_t most, plan_held *out) {
    double time = 0, sum = 0, squares = 0;
    for (size_t i = 0; i < l->trace.n; i++) {
        const trace_row *r = &l->trace.rows[i];
        const uint64_t p = r->prompt_tokens, o = r->output_tokens;
        const uint64_t at[] = {p, p + o / 2, p + o};
        if (p + o > max_tokens) continue;
        for (int k = 0; k < 3; k++) {
            uint64_t blocks = ceil_div(at[k], block_tokens);
            if (most && blocks > most) blocks = most;
            const double part = (double)o * (k == 1 ? 4 : 1) / 6, n = (double)blocks;
            time += part;
            sum += part * n;
            squares += part * n * n;
        }
    }
    if (time <= 0) return false;
    out->mean = sum / time;
    const double variance = squares / time - out->mean * out->mean;
    out->deviation = variance > 0 ? sqrt(variance) : 0;
    return true;
}

uint64_t plan_lengths_tokens(const plan_lengths *l, uint32_t n, uint32_t max_tokens,
                             uint32_t block_tokens) {
    plan_held h;
    if (!plan_lengths_held(l, max_tokens, block_tokens, 0, &h)) return 0;
    const uint64_t blocks = (uint64_t)ceil(n * h.mean + SURE * h.deviation * sqrt(n));
    return blocks * block_tokens;
}

plan_concurrency plan_lengths_concurrency(const plan_lengths *l, const machine *m) {
    const plan *p = &m->plan;
    plan_concurrency c = {0};
    bool limited = false;
    for (size_t i = 0; i < l->trace.n; i++)
        c.too_long += l->trace.rows[i].prompt_tokens + l->trace.rows[i].output_tokens >
                      m->opt.max_model_len;
    for (uint32_t g = 0; g < p->n_groups; g++) {
        plan_held h;
        const uint64_t most = m->sched_conf.group[g].window ? p->group_seq_blocks[g] : 0;
        if (!plan_lengths_held(l, m->opt.max_model_len, p->block_tokens, most, &h))
            return (plan_concurrency){.too_long = c.too_long};
        if (most && p->group_blocks[g] >= most * m->opt.max_num_seqs)
            continue; /* all windows */
        const double blocks = p->group_blocks[g], z = SURE * h.deviation;
        const double root = (sqrt(z * z + 4 * h.mean * blocks) - z) / (2 * h.mean);
        if (!limited || blocks / h.mean < c.mean) c.mean = blocks / h.mean;
        if (!limited || root * root < c.sure) c.sure = root * root;
        limited = true;
    }
    if (!limited && p->n_groups) c.mean = c.sure = m->opt.max_num_seqs;
    return c;
}

void plan_lengths_print(const plan_lengths *l, const machine *m) {
    const plan_concurrency c = plan_lengths_concurrency(l, m);
    char n[32], longest[32], too_long[32];
    printf("\n%s requests of %.0f + %.0f tokens on the mean, at most %s; longer than "
           "max_model_len: "
           "%s\n",
           bytes_grouped(l->trace.n, n), l->prompt, l->output,
           bytes_grouped(l->longest, longest), bytes_grouped(c.too_long, too_long));
    printf("the KV cache holds %.0f of them at once on the mean, %.0f in 99 %% of the time "
           "(estimate); max_num_seqs is %u\n",
           c.mean, c.sure, m->opt.max_num_seqs);
}

void plan_lengths_json(buf *b, const plan_lengths *l, const machine *m) {
    const plan_concurrency c = plan_lengths_concurrency(l, m);
    buf_add(b, STR(",\"lengths\":{\"requests\":"));
    json_u64(b, l->trace.n);
    buf_add(b, STR(",\"too_long\":"));
    json_u64(b, c.too_long);
    buf_add(b, STR(",\"longest\":"));
    json_u64(b, l->longest);
    buf_addf(b,
             ",\"mean_prompt_tokens\":%.2f,\"mean_output_tokens\":%.2f,\"at_once_mean\":%.2f,"
             "\"at_once_99_percent\":%.2f}",
             l->prompt, l->output, c.mean, c.sure);
}
