/* Tests of conv.cu: texts cut into steps in different ways against a loop in double, checkpoints, and
 * going back within a chunk. */
#include "tests/cuda/states_rig.h"

enum { WIDTH = 4, CHANNELS = 40, RING = WIDTH - 1 + STATE_CHUNK };

/* A convolution of SEQS texts, sequence i in slot 2 i. */
struct conv_rig {
    cu_type t;
    bool gated, silu;
    uint32_t ld;
    std::vector<float> w, bias;
    std::vector<float> in[SEQS]; /* [LEN][ld], numbers of T */
    device<float> dw, db, states;
    conv_rig(cu_type t, bool gated, bool silu)
        : t(t), gated(gated), silu(silu), ld(gated ? 3 * CHANNELS : CHANNELS),
          w(rng{1}.normals(CHANNELS * WIDTH)), bias(rng{2}.normals(CHANNELS)), dw(w), db(bias),
          states(std::vector<float>(SLOTS * RING * CHANNELS, NAN)) {
        for (uint32_t i = 0; i < SEQS; i++)
            in[i] = all_from_16(t, all_to_16(t, rng{10 + i}.normals((size_t)LEN * ld)));
    }
    double input(uint32_t seq, int pos, uint32_t ch) const {
        if (pos < 0) return 0;
        const float *x = &in[seq][(size_t)pos * ld + ch];
        return gated ? (double)x[0] * x[2 * CHANNELS] : x[0];
    }
    double want(uint32_t seq, int pos, uint32_t ch) const {
        double y = bias[ch];
        for (int k = 0; k < WIDTH; k++)
            y += (double)w[ch * WIDTH + k] * input(seq, pos - (WIDTH - 1 - k), ch);
        if (silu) y = y / (1 + exp(-y));
        return gated ? y * in[seq][(size_t)pos * ld + CHANNELS + ch] : y;
    }
};

/* Runs a step and checks its rows. */
static void run_step(conv_rig &r, const std::vector<states_part> &parts) {
    const states_step step(parts);
    const states_tables on(step, r.states.p, RING * CHANNELS);
    const size_t n = step.pos.size();
    device<uint16_t> din(all_to_16(r.t, step.rows_of(r.in, r.ld))), out(n * CHANNELS);
    cu_conv c = {};
    c.states = on.states;
    c.t = r.t, c.channels = CHANNELS, c.width = WIDTH, c.gated = r.gated, c.silu = r.silu;
    c.w = r.dw.p, c.bias = r.db.p, c.in = din.p, c.out = out.p;
    CUDA_OK(cu_conv_run(0, &c, &on.tables, (uint32_t)n, (uint32_t)step.slot.size()));
    const std::vector<float> got = all_from_16(r.t, out.get());
    for (size_t i = 0; i < n; i++)
        for (uint32_t ch = 0; ch < CHANNELS; ch++) {
            const float y = got[i * CHANNELS + ch];
            if (step.pos[i] < 0) {
                SWEEP(y == 0);
                continue;
            }
            const double want = r.want(parts[(size_t)step.entry[i]].seq, step.pos[i], ch);
            SWEEP(fabs(y - want) <= rounding_of(r.t, want) + 1e-5);
        }
}

START_TEST(rows_are_sums_of_those_before_however_they_are_cut) {
    ALL_TYPES(t) for (int form = 0; form < 4; form++) {
        conv_rig r(t, form & 1, form & 2);
        each_cut([&](const std::vector<states_part> &parts) { run_step(r, parts); });
    }
}
END_TEST

START_TEST(a_checkpoint_is_the_state_behind_its_tokens) {
    ALL_TYPES(t) {
        conv_rig r(t, true, false);
        each_checkpoint([&](const std::vector<states_part> &parts) { run_step(r, parts); });
    }
}
END_TEST

START_TEST(rows_of_a_chunk_can_be_undone) {
    conv_rig r(CU_F16, false, true);
    run_step(r, {{0, 0, 0, 31, 0, 0}});
    run_step(r, {{0, 0, 17, 3, 0, 0}});
    run_step(r, {{0, 0, 0, 4, 0, 0}}); /* another text in the same slot */
    run_step(r, {{0, 0, 4, 1, 0, 0}});
}
END_TEST

START_TEST(what_cannot_be_done_is_refused) {
    cu_conv c = {};
    const cu_tables t = {};
    c.t = CU_F16, c.channels = 8, c.width = CU_CONV_MOST + 1;
    ck_assert_int_eq(cu_conv_run(0, &c, &t, 1, 1), cudaErrorInvalidValue);
    c.width = 3;
    ck_assert_int_eq(cu_conv_run(0, &c, &t, 0, 0), cudaSuccess);
}
END_TEST

CHECK_MAIN("conv", rows_are_sums_of_those_before_however_they_are_cut,
           a_checkpoint_is_the_state_behind_its_tokens, rows_of_a_chunk_can_be_undone,
           what_cannot_be_done_is_refused)
