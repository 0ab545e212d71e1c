/* Tests of conv.cu: texts cut into steps in different ways against a loop in double, checkpoints, and
 * going back within a chunk. */
#include "tests/cuda/rig.h"

enum {
    WIDTH = 4,
    CHANNELS = 40,
    SEQS = 3,
    SLOTS = 8,
    LEN = 70,
    RING = WIDTH - 1 + STATE_CHUNK
};

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

/* Rows of one entry of a step. */
struct conv_part {
    uint32_t seq, slot, first, n;
    uint32_t keep_at, keep_in; /* a checkpoint behind keep_at tokens; 0: none */
};

/* Runs a step and checks its rows; the last entry is padding, and a row of it. */
static void run_step(conv_rig &r, const std::vector<conv_part> &parts) {
    std::vector<int32_t> pos, entry, first_row, n_rows, first_pos, slot, keep;
    std::vector<float> in;
    for (size_t e = 0; e < parts.size(); e++) {
        const conv_part &p = parts[e];
        first_row.push_back((int32_t)pos.size()), n_rows.push_back((int32_t)p.n);
        first_pos.push_back((int32_t)p.first), slot.push_back((int32_t)p.slot);
        for (uint32_t i = 0; i < p.n; i++) {
            pos.push_back((int32_t)(p.first + i)), entry.push_back((int32_t)e);
            const float *x = &r.in[p.seq][(size_t)(p.first + i) * r.ld];
            in.insert(in.end(), x, x + r.ld);
        }
        keep.insert(keep.end(),
                    {p.keep_at ? (int32_t)e : -1, (int32_t)p.keep_at, (int32_t)p.keep_in});
    }
    first_row.push_back(0), n_rows.push_back(0), first_pos.push_back(0), slot.push_back(-1);
    pos.push_back(-1), entry.push_back((int32_t)parts.size());
    in.insert(in.end(), r.ld, NAN);
    device<int32_t> dp(pos), de(entry), df(first_row), dn(n_rows), dq(first_pos), ds(slot),
        dk(keep);
    device<uint16_t> din(all_to_16(r.t, in)), out(pos.size() * CHANNELS);
    cu_tables tables = {};
    tables.pos = dp.p, tables.entry = de.p, tables.first_row = df.p, tables.n_rows = dn.p;
    tables.first_pos = dq.p;
    cu_conv c = {};
    c.states = {r.states.p, RING * CHANNELS, ds.p, dk.p, (uint32_t)parts.size()};
    c.t = r.t, c.channels = CHANNELS, c.width = WIDTH, c.gated = r.gated, c.silu = r.silu;
    c.w = r.dw.p, c.bias = r.db.p, c.in = din.p, c.out = out.p;
    CUDA_OK(cu_conv_run(0, &c, &tables, (uint32_t)pos.size(), (uint32_t)slot.size()));
    const std::vector<float> got = all_from_16(r.t, out.get());
    for (size_t i = 0; i < pos.size(); i++)
        for (uint32_t ch = 0; ch < CHANNELS; ch++) {
            const float y = got[i * CHANNELS + ch];
            if (pos[i] < 0) {
                SWEEP(y == 0);
                continue;
            }
            const double want = r.want(parts[(size_t)entry[i]].seq, pos[i], ch);
            SWEEP(fabs(y - want) <= rounding_of(r.t, want) + 1e-5);
        }
}

START_TEST(rows_are_sums_of_those_before_however_they_are_cut) {
    ALL_TYPES(t) for (int form = 0; form < 4; form++) {
        conv_rig r(t, form & 1, form & 2);
        run_step(r, {{0, 0, 0, 1, 0, 0}, {1, 2, 0, 33, 0, 0}, {2, 4, 0, 2, 0, 0}});
        run_step(r, {{2, 4, 2, 1, 0, 0}, {0, 0, 1, 1, 0, 0}, {1, 2, 33, 2, 0, 0}});
        run_step(r, {{0, 0, 2, 50, 0, 0}, {2, 4, 3, 16, 0, 0}});
        run_step(r, {{0, 0, 52, 18, 0, 0}, {1, 2, 35, 1, 0, 0}, {2, 4, 19, 30, 0, 0}});
    }
}
END_TEST

START_TEST(a_checkpoint_is_the_state_behind_its_tokens) {
    ALL_TYPES(t) {
        conv_rig r(t, true, false);
        /* Within rows of a step, at their end, and behind what the state has of its inputs. */
        run_step(r, {{0, 0, 0, 15, 0, 0}, {1, 2, 0, 64, 32, 6}, {2, 4, 0, 1, 0, 0}});
        run_step(r, {{0, 0, 15, 1, 16, 1}, {2, 4, 1, 40, 16, 3}});
        run_step(r, {{0, 1, 16, 5, 0, 0}, {1, 6, 32, 9, 0, 0}, {2, 3, 16, 1, 0, 0}});
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
