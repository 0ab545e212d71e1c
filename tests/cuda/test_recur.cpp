/* Tests of recur.cu: the gated delta rule and the selective scan, cut into steps in different ways,
 * against their recurrences in double; checkpoints, and going back within a chunk. */
#include "tests/cuda/states_rig.h"

struct recur_rig {
    cu_type t;
    bool scan;
    delta_shape d;
    uint32_t keys, values, n_in, n_by;
    std::vector<float> w0, w1, w2, in[SEQS], by[SEQS];
    std::vector<double> want[SEQS]; /* [LEN][values] */
    device<float> d0, d1, d2, states;
    recur_rig(cu_type t, bool scan, const delta_shape &d)
        : t(t), scan(scan), d(d), keys(d.key_heads * d.key_dim),
          values(d.value_heads * d.value_dim), n_in(2 * keys + values),
          n_by(d.value_heads * (scan ? 1 : 2)), w0(rng{1}.normals(d.value_heads)),
          w1(rng{2}.normals(d.value_heads)), w2(rng{3}.normals(d.value_heads)), d0(minus(w0)),
          d1(w1), d2(w2), states(std::vector<float>(SLOTS * delta_state_floats(&d), NAN)) {
        for (uint32_t i = 0; i < SEQS; i++) {
            in[i] = all_from_16(t, all_to_16(t, rng{10 + i}.normals((size_t)LEN * n_in)));
            by[i] = all_from_16(t, all_to_16(t, rng{20 + i}.normals((size_t)LEN * n_by)));
            want[i].resize((size_t)LEN * values);
            for (uint32_t h = 0; h < d.value_heads; h++) fill(i, h);
        }
    }
    /* Decays: below 0. */
    static std::vector<float> &minus(std::vector<float> &v) {
        for (float &x : v) x = -fabsf(x) - 0.05f;
        return v;
    }
    void fill(uint32_t seq, uint32_t head) {
        const uint32_t dk = d.key_dim, dv = d.value_dim;
        const uint32_t kh = d.tiled ? head % d.key_heads : head / (d.value_heads / d.key_heads);
        std::vector<double> s((size_t)dk * dv, 0), k(dk), q(dk);
        for (uint32_t r = 0; r < LEN; r++) {
            const float *x = &in[seq][(size_t)r * n_in], *b = &by[seq][(size_t)r * n_by];
            const float *xk = x + (scan ? values : keys) + kh * dk,
                        *xq = x + (scan ? values + keys : 0) + kh * dk,
                        *v = x + (scan ? 0 : 2 * keys) + head * dv;
            double nk = d.eps, nq = d.eps;
            for (uint32_t i = 0; i < dk; i++)
                nk += (double)xk[i] * xk[i], nq += (double)xq[i] * xq[i];
            for (uint32_t i = 0; i < dk; i++) {
                k[i] = scan ? xk[i] : xk[i] / sqrt(nk);
                q[i] = scan ? xq[i] : xq[i] / sqrt(nq * dk);
            }
            double dt = log1p(exp((double)b[scan ? head : d.value_heads + head] + w1[head]));
            if (scan && d.dt_max > 0) dt = fmin(fmax(dt, d.dt_min), d.dt_max);
            const double decay = exp(w0[head] * dt),
                         beta = scan ? dt : 1 / (1 + exp(-(double)b[head]));
            for (uint32_t c = 0; c < dv; c++) {
                double of_k = 0, o = scan ? (double)w2[head] * v[c] : 0;
                for (uint32_t i = 0; i < dk; i++) {
                    s[i * dv + c] *= decay;
                    of_k += s[i * dv + c] * k[i];
                }
                const double n = beta * (v[c] - (scan ? 0 : of_k));
                for (uint32_t i = 0; i < dk; i++) {
                    s[i * dv + c] += k[i] * n;
                    o += s[i * dv + c] * q[i];
                }
                want[seq][(size_t)r * values + head * dv + c] = o;
            }
        }
    }
};

/* Runs a step and checks its rows. */
static std::vector<float> run_step(recur_rig &r, const std::vector<states_part> &parts) {
    const states_step step(parts);
    const states_tables on(step, r.states.p, delta_state_floats(&r.d));
    device<uint16_t> din(all_to_16(r.t, step.rows_of(r.in, r.n_in))),
        dby(all_to_16(r.t, step.rows_of(r.by, r.n_by))), out(step.pos.size() * r.values);
    cu_recur c = {};
    c.states = on.states;
    c.t = r.t, c.d = r.d, c.scan = r.scan, c.w0 = r.d0.p, c.w1 = r.d1.p, c.w2 = r.d2.p;
    c.in = din.p, c.ld_in = r.n_in, c.by = dby.p, c.out = out.p;
    CUDA_OK(cu_recur_run(0, &c, &on.tables, (uint32_t)step.slot.size()));
    const std::vector<float> got = all_from_16(r.t, out.get());
    size_t at = 0;
    for (const states_part &p : parts)
        for (size_t i = 0; i < (size_t)p.n * r.values; i++, at++) {
            const double want = r.want[p.seq][(size_t)p.first * r.values + i];
            if (!(fabs(got[at] - want) <= rounding_of(r.t, want) + 2e-5))
                ck_abort_msg("sequence %u, row %zu, column %zu: %g, not %g", p.seq,
                             p.first + i / r.values, i % r.values, got[at], want);
        }
    return got;
}

static const delta_shape shapes[] = {{2, 4, 16, 32, true, 1e-6f, 0, 0},
                                     {2, 4, 24, 16, false, 1e-6f, 0, 0},
                                     {1, 3, 32, 48, false, 1e-6f, 0.05f, 1.2f}};

START_TEST(rows_are_the_recurrence_however_they_are_cut) {
    ALL_TYPES(t) for (bool scan : {false, true}) for (const delta_shape &d : shapes) {
        recur_rig r(t, scan, d);
        each_cut([&](const std::vector<states_part> &parts) { run_step(r, parts); });
    }
}
END_TEST

START_TEST(a_row_has_the_same_bits_however_its_text_is_cut) {
    for (bool scan : {false, true})
        for (const delta_shape &d : shapes) {
            recur_rig r(CU_F16, scan, d);
            const std::vector<float> want = run_step(r, {{0, 0, 0, LEN, 0, 0}});
            for (uint32_t at = 0, n = 1; at < LEN; at += n, n = n % 7 + 2) {
                if (n > LEN - at) n = LEN - at;
                const std::vector<float> got = run_step(r, {{0, 2, at, n, 0, 0}});
                for (size_t i = 0; i < (size_t)n * r.values; i++)
                    SWEEP(got[i] == want[(size_t)at * r.values + i]);
            }
        }
}
END_TEST

START_TEST(a_checkpoint_is_the_state_behind_its_tokens) {
    for (bool scan : {false, true}) {
        recur_rig r(CU_F16, scan, shapes[0]);
        each_checkpoint([&](const std::vector<states_part> &parts) { run_step(r, parts); });
    }
}
END_TEST

START_TEST(rows_of_a_chunk_can_be_undone) {
    for (bool scan : {false, true}) {
        recur_rig r(CU_BF16, scan, shapes[1]);
        run_step(r, {{0, 0, 0, 30, 0, 0}});
        run_step(r, {{0, 0, 17, 3, 0, 0}});
        run_step(r, {{0, 0, 16, 20, 0, 0}});
        run_step(r, {{1, 0, 0, 4, 0, 0}}); /* another text in the same slot */
        run_step(r, {{1, 0, 4, 1, 0, 0}});
    }
}
END_TEST

START_TEST(what_cannot_be_done_is_refused) {
    cu_recur c = {};
    const cu_tables t = {};
    c.t = CU_F16, c.d = shapes[0], c.d.key_dim = CU_RECUR_DIM + 1;
    ck_assert_int_eq(cu_recur_run(0, &c, &t, 1), cudaErrorInvalidValue);
    c.d = shapes[0], c.d.key_heads = 3;
    ck_assert_int_eq(cu_recur_run(0, &c, &t, 1), cudaErrorInvalidValue);
    c.d = shapes[0];
    ck_assert_int_eq(cu_recur_run(0, &c, &t, 0), cudaSuccess);
}
END_TEST

CHECK_MAIN("recur", rows_are_the_recurrence_however_they_are_cut,
           a_row_has_the_same_bits_however_its_text_is_cut,
           a_checkpoint_is_the_state_behind_its_tokens, rows_of_a_chunk_can_be_undone,
           what_cannot_be_done_is_refused)
