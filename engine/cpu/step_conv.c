/* Causal convolutions along the tokens of a sequence (short convolutions of LFM2, in front of delta
 * nets and selective scans). A thread has channels of its own and goes through the rows of each sequence
 * in order, so nothing depends on how a text is cut into steps: each input goes into the state first, and
 * an output is made of rows of the state alone. */
#include "engine/cpu/step.h"

#include <string.h>

enum { CHANNELS = 32 }; /* of a piece: a block of codes */

/* Channels [first, first + n) of one operation. */
typedef struct piece {
    const cpu_op *op;
    act out;
    const float *in;
    uint32_t first, n, channels, in_cols, ring;
    const float *w; /* [width][n] */
} piece;

void conv_arrange(float *w, uint32_t channels, uint32_t width) {
    float part[CONV_MAX_WIDTH * CHANNELS];
    for (uint32_t n; channels > 0; channels -= n, w += (size_t)n * width) {
        n = channels < CHANNELS ? channels : CHANNELS;
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t k = 0; k < width; k++) part[k * n + i] = w[(size_t)i * width + k];
        memcpy(w, part, sizeof *w * n * width);
    }
}

/* The row of the state that has the input at pos. */
static float *ring_row(const piece *p, float *state, uint32_t pos) {
    return state + (size_t)(pos % p->ring) * p->channels + p->first;
}

static void take_input(const piece *p, uint32_t row, float *to) {
    const float *x = p->in + (size_t)row * p->in_cols + p->first;
    if (!p->op->op->conv.gated) {
        memcpy(to, x, p->n * sizeof *to);
        return;
    }
    const float *factor = x + 2 * (size_t)p->channels;
    for (uint32_t i = 0; i < p->n; i++) to[i] = x[i] * factor[i];
}

static void give_output(cpu_engine *e, const piece *p, uint32_t row, float *y) {
    const op *o = p->op->op;
    const float *by = p->in + (size_t)row * p->in_cols + p->channels + p->first;
    const float *bias = p->op->bias[0];
    for (uint32_t i = 0; bias && i < p->n; i++) y[i] += bias[p->first + i];
    if (o->conv.silu) e->ops->gate(ACT_SILU, y, NULL, p->n, y);
    for (uint32_t i = 0; o->conv.gated && i < p->n; i++) y[i] *= by[i];
    if (p->out.f) memcpy(p->out.f + (size_t)row * p->channels + p->first, y, p->n * sizeof *y);
    if (p->out.q) quantise_part(e, &p->out, row, p->first, p->n, y);
}

/* The inputs that a row behind n_tokens sees. */
static void write_checkpoint(const piece *p, float *state, float *to, uint32_t n_tokens) {
    for (uint32_t k = 1; k < p->op->op->conv.width && k <= n_tokens; k++)
        memcpy(ring_row(p, to, n_tokens - k), ring_row(p, state, n_tokens - k),
               p->n * sizeof *to);
}

static void run_seq(cpu_engine *e, const piece *p, const batch_seq *s) {
    static const float none[CHANNELS];
    const uint32_t width = p->op->op->conv.width;
    float *state = cpu_state(e, p->op, s->state), y[CHANNELS];
    const float *x[CONV_MAX_WIDTH]; /* what the row sees, the newest last */
    uint32_t next = 0;              /* of the checkpoints */
    for (uint32_t k = 1; k < width; k++)
        x[width - k] = k <= s->first_pos ? ring_row(p, state, s->first_pos - k) : none;
    for (uint32_t r = 0; r < s->n_rows; r++) {
        const uint32_t pos = s->first_pos + r;
        float *input = ring_row(p, state, pos);
        take_input(p, s->first_row + r, input);
        memmove(x, x + 1, (width - 1) * sizeof *x);
        x[width - 1] = input;
        e->ops->taps(x, p->w, width, p->n, y);
        give_output(e, p, s->first_row + r, y);
        if (next == s->n_checkpoints || s->checkpoints[next].n_tokens != pos + 1) continue;
        write_checkpoint(p, state, cpu_state(e, p->op, s->checkpoints[next].state), pos + 1);
        next++;
    }
}

void run_conv(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const op *o = c->op;
    const batch *b = e->step.batch;
    piece p = {.op = c,
               .out = value_act(e, o->out),
               .in = value_f(e, o->in),
               .channels = e->program->values[o->out].cols,
               .in_cols = e->program->values[o->in].cols,
               .ring = conv_state_rows(o->conv.width)};
    const span s =
        step_share((uint32_t)ceil_div(p.channels, CHANNELS), e->step.n_threads, thread);
    for (uint32_t k = s.from; k < s.to; k++) {
        p.first = k * CHANNELS;
        p.n = p.channels - p.first < CHANNELS ? p.channels - p.first : CHANNELS;
        p.w = c->vec[0] + (size_t)p.first * o->conv.width;
        for (uint32_t i = 0; i < b->n_seqs; i++) run_seq(e, &p, &b->seq[i]);
    }
}
