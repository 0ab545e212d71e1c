/* The receipt of a request, usage.memory: what it has taken of the server, all its sequences
 * together. Owns nothing. */
#include "api/answer.h"
#include "json/out.h"

typedef struct sums {
    uint64_t blocks, bytes, preemptions, recomputed, steps, loaded_bytes;
    uint64_t cached, cached_tier;             /* of each prompt once */
    uint64_t queue_us, prefill_us, decode_us; /* the longest */
    uint64_t load_us;            /* the longest, too: choices load at the same time */
    double byte_seconds, joules; /* joules: negative where they are not known */
} sums;

static uint64_t longer(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

static sums add_up(const answer *a) {
    sums s = {0};
    for (uint32_t i = 0; i < a->n_choices; i++) {
        const gen_usage *u = &a->choices[i].usage;
        /* Without output the prompt took all the time. */
        const uint64_t first = u->first_token_us ? u->first_token_us : u->ended_us;
        s.blocks += u->peak_blocks;
        s.bytes += u->kv_peak_bytes;
        s.preemptions += u->n_preemptions;
        s.recomputed += u->cost.n_recomputed;
        s.steps += u->cost.n_steps;
        s.loaded_bytes += u->cost.loaded_bytes;
        s.byte_seconds += u->cost.byte_seconds;
        s.joules = s.joules < 0 || u->joules < 0 ? -1 : s.joules + u->joules;
        s.load_us = longer(s.load_us, u->cost.load_us);
        s.queue_us = longer(s.queue_us, u->queued_us);
        s.prefill_us = longer(s.prefill_us, first > u->queued_us ? first - u->queued_us : 0);
        s.decode_us = longer(s.decode_us, u->ended_us > first ? u->ended_us - first : 0);
        if (i % a->p.n > 0) continue; /* choices of one prompt share its blocks */
        s.cached += u->n_cached;
        s.cached_tier += u->n_loaded;
    }
    return s;
}

static void member(buf *b, const char *name, uint64_t v) {
    buf_addf(b, ",\"%s\":%llu", name, (unsigned long long)v);
}

static void ms(buf *b, const char *name, uint64_t us) {
    buf_addf(b, ",\"%s\":%.3f", name, (double)us / 1e3);
}

static void write_kv(const kv_view *kv, const sums *s, buf *b) {
    buf_addf(b, "\"kv\":{\"type_k\":\"%s\",\"type_v\":\"%s\"", dtype_name(kv->type_k),
             dtype_name(kv->type_v));
    member(b, "peak_blocks", s->blocks);
    member(b, "peak_bytes", s->bytes);
    buf_addf(b, ",\"byte_seconds\":%.3f}", s->byte_seconds);
}

void receipt_write(const answer *a, buf *b) {
    const sums s = add_up(a);
    machine_stats st;
    if (!a->p.receipt) return;
    a->rq->served->port->ops->stats(a->rq->served->port, &st);
    buf_add(b, STR(",\"memory\":{"));
    write_kv(&st.kv, &s, b);
    const uint64_t host = st.kv.tier.in_memory ? s.cached_tier : 0;
    buf_addf(b, ",\"cached_tokens\":{\"memory\":%llu",
             (unsigned long long)(s.cached - s.cached_tier));
    member(b, "host", host);
    member(b, "disk", s.cached_tier - host);
    buf_addc(b, '}');
    buf_addf(b, ",\"loaded\":{\"bytes\":%llu", (unsigned long long)s.loaded_bytes);
    ms(b, "ms", s.load_us);
    buf_addc(b, '}');
    member(b, "preemptions", s.preemptions);
    member(b, "recomputed_tokens", s.recomputed);
    member(b, "steps", s.steps);
    ms(b, "queue_ms", s.queue_us);
    ms(b, "prefill_ms", s.prefill_us);
    ms(b, "decode_ms", s.decode_us);
    if (s.joules >= 0) buf_addf(b, ",\"energy_joules\":%.6f", s.joules);
    if (a->rq->n_stripped) member(b, "stripped_lines", a->rq->n_stripped);
    prefix_write(a, b);
    buf_addc(b, '}');
}
