/* Mixtures of experts: the router's logits, the choice against the CPU engine's, the sort of rows, the
 * matrices of experts against float64 on the file's weights, and the sum over experts. */
#include "tests/cuda/linear_rig.h"

extern "C" {
#include "engine/cpu/route.h"
}

/* ---- the choice ---- */

/* What cu_route makes of logits [n_rows][n_experts]; pos of row r is -1 where r % 7 == 5. */
struct routing {
    uint32_t n_rows, top_k, n_experts;
    device<int32_t> words;
    cu_routed on;
    std::vector<int32_t> tiles, expert, slot, row;
    std::vector<float> weight;
    routing(const std::vector<float> &logits, uint32_t n_rows, uint32_t top_k,
            uint32_t n_experts, const op &o, const float *choice_bias = nullptr,
            const float *scales = nullptr)
        : n_rows(n_rows), top_k(top_k), n_experts(n_experts),
          words(cu_routed_bytes(n_rows, top_k, n_experts) / 4) {
        std::vector<int32_t> pos;
        for (uint32_t r = 0; r < n_rows; r++) pos.push_back(padded(r) ? -1 : (int32_t)r);
        device<float> dl(logits);
        device<int32_t> dp(pos);
        on = cu_routed_at(words.p, n_rows, top_k, n_experts);
        cu_router p = {};
        p.logits = dl.p, p.pos = dp.p, p.gate = o.route.gate, p.norm = o.route.norm;
        p.scale = o.route.scale, p.logit_scale = o.route.logit_scale, p.eps = o.route.eps;
        p.choice_bias = choice_bias, p.scales = scales, p.n_groups = o.route.n_groups;
        p.groups_used = o.route.groups_used, p.group_best = o.route.group_best;
        CUDA_OK(cu_route(0, &p, &on));
        const std::vector<int32_t> all = words.get();
        const auto part = [&](const void *at, size_t n) {
            const int32_t *p = all.data() + ((const int32_t *)at - words.p);
            return std::vector<int32_t>(p, p + n);
        };
        const size_t n = (size_t)n_rows * top_k;
        tiles = part(on.tiles, 4 * (size_t)on.n_tiles), expert = part(on.expert, n);
        slot = part(on.slot, n), row = part(on.row, n);
        weight.resize(n);
        memcpy(weight.data(), part(on.weight, n).data(), n * 4);
    }
    static bool padded(uint32_t row) { return row % 7 == 5; }

    /* Every row of an expert has a slot in its tiles, in order; nothing else has. */
    void check_sort() const {
        uint32_t next = 0, last = 0;
        std::vector<uint32_t> tile_of(n_rows * top_k, UINT32_MAX);
        for (uint32_t t = 0; t < on.n_tiles; t++) {
            const int32_t *x = &tiles[4 * t];
            SWEEP(x[2] >= 0 && (uint32_t)x[2] <= cu_expert_tile(n_rows));
            if (x[2] == 0) continue;
            SWEEP((uint32_t)x[0] >= last && (uint32_t)x[1] == next);
            last = (uint32_t)x[0];
            for (int32_t i = 0; i < x[2]; i++) tile_of[next++] = (uint32_t)x[0];
        }
        uint32_t seen = 0;
        for (uint32_t i = 0; i < n_rows * top_k; i++) {
            if (expert[i] < 0) continue;
            SWEEP((uint32_t)slot[i] < next && (uint32_t)row[slot[i]] == i / top_k);
            SWEEP(tile_of[slot[i]] == (uint32_t)expert[i]);
            seen++;
        }
        ck_assert_uint_eq(seen, next);
        for (uint32_t s = 1; s < next; s++)
            SWEEP(tile_of[s] != tile_of[s - 1] || row[s] > row[s - 1]);
    }
};

static op router(route_gate gate, bool norm, float scale, uint32_t top_k) {
    op o = {};
    o.kind = OP_ROUTE;
    o.route.gate = gate, o.route.norm = norm, o.route.scale = scale, o.route.top_k = top_k;
    o.route.logit_scale = 1;
    return o;
}

/* The same experts as the CPU engine, now in ascending order, and its weights. */
static void check_choice(const std::vector<float> &logits, const routing &got, const op &o,
                         const route_vectors &vectors = {NULL, NULL}) {
    const uint32_t E = got.n_experts, K = got.top_k;
    std::vector<float> scratch(2 * E), scaled(E);
    std::vector<route_word> want(2 * K);
    for (uint32_t r = 0; r < got.n_rows; r++) {
        const int32_t *e = &got.expert[r * K];
        const float *w = &got.weight[r * K];
        if (routing::padded(r)) {
            for (uint32_t k = 0; k < K; k++) SWEEP(e[k] == -1 && w[k] == 0);
            continue;
        }
        for (uint32_t i = 0; i < E; i++)
            scaled[i] = logits[(size_t)r * E + i] * o.route.logit_scale;
        route_choose(&o, &vectors, scaled.data(), E, op_kernels_get(ISA_PLAIN)->exp2,
                     scratch.data(), want.data());
        for (uint32_t k = 0; k < K; k++) {
            SWEEP(k == 0 || e[k] > e[k - 1]);
            uint32_t j = 0;
            while (j < K && want[j].expert != (uint32_t)e[k]) j++;
            if (j == K) ck_abort_msg("row %u: expert %d is not the CPU's", r, e[k]);
            const float v = want[K + j].weight;
            /* Of sigmoids that all are 0 the CPU's powers leave 2^-27. */
            SWEEP(isnan(v) ? isnan(w[k]) : fabsf(w[k] - v) <= 2e-6f * fabsf(v) + 2e-8f);
        }
    }
}

START_TEST(the_choice_is_that_of_the_cpu_engine) {
    static const uint32_t shapes[][3] = {{1, 2, 8},   {8, 1, 1},     {9, 2, 6},   {33, 8, 128},
                                         {70, 4, 32}, {40, 10, 512}, {3, 6, 1000}};
    for (auto &s : shapes)
        for (route_gate gate : {ROUTE_SOFTMAX, ROUTE_SIGMOID})
            for (bool norm : {false, true}) {
                const uint32_t n = s[0], K = s[1], E = s[2];
                rng r = {n + E};
                std::vector<float> logits = r.normals((size_t)n * E, 3);
                for (uint32_t i = 0; i < n * E; i += 3) /* ties */
                    logits[i] = rintf(logits[i]);
                if (n > 4) {
                    std::fill(&logits[E], &logits[2 * E], 0.25f);
                    logits[2 * E + E / 2] = NAN;
                    logits[3 * E] = -INFINITY;
                    std::fill(&logits[4 * E], &logits[5 * E], -400.0f);
                }
                op o = router(gate, norm, 1.5f, K);
                if (norm) o.route.logit_scale = 0.25f, o.route.eps = 0.01f;
                const routing got(logits, n, K, E, o);
                check_choice(logits, got, o);
                got.check_sort();
            }
}
END_TEST

/* A bias of the choice alone, a scale of each expert, and groups, of which the best are kept. */
START_TEST(biases_scales_and_groups_are_those_of_the_cpu_engine) {
    /* rows, chosen, experts, groups, groups used, of a group the best */
    static const uint32_t shapes[][6] = {{9, 2, 8, 0, 0, 0},    {20, 4, 32, 0, 0, 0},
                                         {20, 4, 32, 8, 3, 2},  {9, 8, 256, 8, 4, 2},
                                         {9, 6, 160, 8, 3, 1},  {5, 1, 64, 64, 2, 1},
                                         {5, 3, 120, 40, 7, 2}, {3, 6, 1000, 50, 5, 2}};
    for (auto &s : shapes)
        for (route_gate gate : {ROUTE_SOFTMAX, ROUTE_SIGMOID})
            for (int with = 0; with < 4; with++) {
                const uint32_t n = s[0], K = s[1], E = s[2];
                rng r = {n + E + (uint64_t)with};
                const std::vector<float> logits = r.normals((size_t)n * E, 2),
                                         bias = r.normals(E, 0.3f), scales = r.normals(E);
                device<float> db(bias), ds(scales);
                op o = router(gate, with % 2 == 0, 2.5f, K);
                o.route.n_groups = s[3], o.route.groups_used = s[4], o.route.group_best = s[5];
                const bool b = with & 1, sc = with & 2;
                const routing got(logits, n, K, E, o, b ? db.p : nullptr, sc ? ds.p : nullptr);
                check_choice(logits, got, o,
                             {b ? bias.data() : NULL, sc ? scales.data() : NULL});
                got.check_sort();
            }
}
END_TEST

/* All rows to one expert, and none. */
START_TEST(experts_of_many_rows_have_several_tiles) {
    const uint32_t n = 300, K = 2, E = 5;
    std::vector<float> logits((size_t)n * E, 0);
    for (uint32_t r = 0; r < n; r++) logits[r * E + 3] = 2, logits[r * E + r % 2] = 1;
    const op o = router(ROUTE_SOFTMAX, true, 1, K);
    const routing got(logits, n, K, E, o);
    check_choice(logits, got, o);
    got.check_sort();
}
END_TEST

START_TEST(logits_are_sums_of_float32) {
    ALL_TYPES(t)
    for (uint32_t n_out : {1u, 6u, 8u, 130u})
        for (uint32_t n : {1u, 8u, 21u}) {
            const uint32_t n_in = 328;
            file_matrix f(DT_F32, n_out, n_in, n_out);
            device_matrix m(f, DT_F32);
            inputs x(t, n, n_in, n);
            const std::vector<float> bias(n_out, 0.5f);
            device<float> db(bias);
            guarded_out out(CU_F32, n, n_out), rounded(t, n, n_out), alone(CU_F32, 1, n_out);
            cu_linear l = linear_of(m.w, x, n, out, CU_OUT_F32);
            l.bias = db.p;
            CUDA_OK(cu_linear_narrow(0, &l));
            const std::vector<float> got = out.get();
            for (uint32_t i = 0; i < n * n_out; i++) {
                double y = 0.5, size = 0;
                for (uint32_t k = 0; k < n_in; k++) {
                    const double p =
                        (double)f.value[(size_t)(i % n_out) * n_in + k] * x.at(i / n_out, k);
                    y += p, size += fabs(p);
                }
                SWEEP(fabs(got[i] - y) <= 1e-6 * (size + 1));
            }
            l = linear_of(m.w, x, n, rounded, CU_OUT_T), l.bias = db.p;
            CUDA_OK(cu_linear_narrow(0, &l));
            const std::vector<float> in_t = rounded.get();
            for (uint32_t i = 0; i < n * n_out; i++)
                SWEEP(in_t[i] == from_16(t, to_16(t, got[i])));
            l = linear_of(m.w, x, 1, alone, CU_OUT_F32), l.bias = db.p;
            l.in = x.on_device.p + (size_t)(n - 1) * x.ld;
            CUDA_OK(cu_linear_narrow(0, &l));
            const std::vector<float> one = alone.get();
            for (uint32_t o = 0; o < n_out; o++) SWEEP(one[o] == got[(n - 1) * n_out + o]);
        }
}
END_TEST

/* ---- matrices ---- */

/* Matrices of n experts on the device, one after the other. */
struct expert_matrices {
    std::vector<file_matrix> file;
    device<uint8_t> bytes;
    cu_matrix w;
    uint64_t stride;
    expert_matrices(dtype type, uint32_t n, uint32_t n_out, uint32_t n_in, uint64_t seed)
        : bytes(n * cu_matrix_bytes(type, n_out, n_in)), w{bytes.p, type, n_out, n_in},
          stride(cu_matrix_bytes(type, n_out, n_in)) {
        for (uint32_t i = 0; i < n; i++) {
            file.emplace_back(type, n_out, n_in, seed + i);
            device<uint8_t> raw(file[i].raw);
            const cu_matrix m = {bytes.p + i * stride, type, n_out, n_in};
            CUDA_OK(cu_matrix_store(0, &m, type, 0, n_out, raw.p));
            CUDA_OK(cudaDeviceSynchronize());
        }
    }
    double product(uint32_t expert, uint32_t o, const inputs &x, uint32_t row,
                   double *size) const {
        double y = 0;
        *size = 0;
        for (uint32_t k = 0; k < w.n_in; k++) {
            const double p = (double)file[expert].value[(size_t)o * w.n_in + k] * x.at(row, k);
            y += p, *size += fabs(p);
        }
        return y;
    }
};

static cudaError_t run_experts(const cu_experts &x, const cu_linear &a, const cu_linear *b,
                               activation act) {
    return cu_matrix_is_packed(a.w.type) ? cu_experts_packed(0, &x, &a, b, act)
                                         : cu_experts_few(0, &x, &a, b, act);
}

enum { EXPERTS = 6, TOP_K = 2, IN = 96, OUT = 72 };

static routing random_routing(uint32_t n_rows, uint64_t seed) {
    rng r = {seed};
    const std::vector<float> logits = r.normals((size_t)n_rows * EXPERTS, 2);
    return routing(logits, n_rows, TOP_K, EXPERTS, router(ROUTE_SOFTMAX, true, 1, TOP_K));
}

/* Down: each slot's own input. */
static void check_down(dtype type, cu_type t, uint32_t n_rows) {
    const routing to = random_routing(n_rows, n_rows);
    const expert_matrices m(type, EXPERTS, OUT, IN, 11);
    const uint32_t slots = n_rows * TOP_K;
    inputs x(t, slots, IN, 5);
    std::vector<float> bias(EXPERTS * OUT);
    for (size_t i = 0; i < bias.size(); i++) bias[i] = (float)(i % 13) - 6;
    device<float> db(bias);
    guarded_out out(CU_F32, slots, OUT);
    cu_linear l = linear_of(m.w, x, 0, out, CU_OUT_F32);
    l.bias = db.p;
    CUDA_OK(run_experts(cu_experts{to.on, m.stride, false}, l, NULL, ACT_SILU));
    const std::vector<float> got = out.get();
    for (uint32_t i = 0; i < slots; i++) {
        if (to.expert[i] < 0) continue;
        const uint32_t e = (uint32_t)to.expert[i], s = (uint32_t)to.slot[i];
        for (uint32_t o = 0; o < OUT; o++) {
            double size;
            const double want = m.product(e, o, x, s, &size) + bias[e * OUT + o];
            SWEEP(fabs(got[s * OUT + o] - want) <= 3e-6 * (size + 6));
        }
    }
}

/* Gate and up: the input of a slot's row; out rounded to T. */
static std::vector<float> check_gate_up(dtype type, cu_type t, const routing &to,
                                        const inputs &x, activation act) {
    const expert_matrices gate(type, EXPERTS, OUT, IN, 21), up(type, EXPERTS, OUT, IN, 41);
    const uint32_t slots = to.n_rows * TOP_K;
    guarded_out out(t, slots, OUT, 0);
    std::vector<float> bias(EXPERTS * OUT);
    for (size_t i = 0; i < bias.size(); i++) bias[i] = 0.25f * (float)(i % 5);
    device<float> db(bias);
    cu_linear a = linear_of(gate.w, x, 0, out, CU_OUT_T), b = a;
    b.w = up.w, b.bias = db.p;
    CUDA_OK(run_experts(cu_experts{to.on, gate.stride, true}, a, &b, act));
    const std::vector<float> got = out.get();
    for (uint32_t i = 0; i < slots; i++) {
        if (to.expert[i] < 0) continue;
        const uint32_t e = (uint32_t)to.expert[i], s = (uint32_t)to.slot[i];
        for (uint32_t o = 0; o < OUT; o++) {
            double sg, su;
            const double g = gate.product(e, o, x, i / TOP_K, &sg),
                         u = up.product(e, o, x, i / TOP_K, &su) + bias[e * OUT + o],
                         want = act_of(act, g) * u,
                         near = 4e-6 * ((sg + 1) * (fabs(u) + 1) + (su + 1) * (fabs(g) + 1));
            SWEEP(fabs(got[s * OUT + o] - want) <= rounding_of(t, want) + near);
        }
    }
    return got;
}

static const dtype types_of[2][5] = {{DT_F16, DT_Q8_0, DT_Q4_0, DT_Q4_1, DT_MXFP4},
                                     {DT_BF16, DT_Q8_0, DT_Q5_1, DT_Q4_1, DT_MXFP4}};

START_TEST(experts_are_sums_of_their_own_weights) {
    ALL_TYPES(t)
    for (dtype type : types_of[t == CU_BF16])
        for (uint32_t n : {1u, 5u, 9u, 17u, 33u, 90u}) {
            check_down(type, t, n);
            inputs x(t, n, IN, 7);
            check_gate_up(type, t, random_routing(n, n), x, n % 2 ? ACT_SILU : ACT_GELU_TANH);
        }
}
END_TEST

/* The bits of a row are its own, in any number of rows and beside any others. */
START_TEST(a_row_has_the_same_bits_whatever_rows_are_beside_it) {
    ALL_TYPES(t)
    for (dtype type : types_of[t == CU_BF16]) {
        std::vector<float> first;
        for (uint32_t n : {1u, 6u, 12u, 30u, 80u}) {
            rng r = {n};
            std::vector<float> logits = r.normals((size_t)n * EXPERTS, 2);
            const uint32_t at = n / 2 % 7 == 5 ? n / 2 - 1 : n / 2; /* not a padded one */
            for (uint32_t e = 0; e < EXPERTS; e++) logits[at * EXPERTS + e] = e == 4 || e == 1;
            const routing to(logits, n, TOP_K, EXPERTS, router(ROUTE_SOFTMAX, true, 1, TOP_K));
            inputs x(t, n, IN, 100 + n);
            const inputs same(t, 1, IN, 9);
            memcpy(&x.bits[(size_t)at * x.ld], same.bits.data(), IN * 2);
            x.on_device.put(x.bits);
            const std::vector<float> all = check_gate_up(type, t, to, x, ACT_SILU);
            std::vector<float> own;
            for (uint32_t k = 0; k < TOP_K; k++) {
                const float *s = &all[(size_t)to.slot[at * TOP_K + k] * OUT];
                own.insert(own.end(), s, s + OUT);
            }
            if (first.empty()) first = own;
            assert_same_rows(first, own, own.size(), dtype_name(type));
        }
    }
}
END_TEST

START_TEST(the_sum_goes_over_experts_in_their_order) {
    const uint32_t n_rows = 20, n = 72;
    const routing to = random_routing(n_rows, 3);
    rng r = {1};
    const std::vector<float> y = r.normals((size_t)n_rows * TOP_K * n),
                             before = r.normals((size_t)n_rows * n, 5);
    device<float> dy(y), out(before);
    CUDA_OK(cu_experts_sum(0, &to.on, n, dy.p, true, out.p));
    const std::vector<float> got = out.get();
    CUDA_OK(cu_experts_sum(0, &to.on, n, dy.p, false, out.p));
    const std::vector<float> alone = out.get();
    for (uint32_t i = 0; i < n_rows * n; i++) {
        float sum = 0;
        for (uint32_t k = 0; k < TOP_K && !routing::padded(i / n); k++) {
            const uint32_t at = i / n * TOP_K + k;
            sum = fmaf(to.weight[at], y[(size_t)to.slot[at] * n + i % n], sum);
        }
        SWEEP(got[i] == before[i] + sum);
        SWEEP(alone[i] == (routing::padded(i / n) ? got[i] : sum));
    }
}
END_TEST

START_TEST(what_no_kernel_takes_is_refused) {
    cu_router p = {};
    cu_routed r = {};
    r.n_rows = 1, r.top_k = 2, r.n_experts = 1;
    ck_assert_int_eq(cu_route(0, &p, &r), cudaErrorInvalidValue);
    r.n_experts = CU_MOST_EXPERTS + 1;
    ck_assert_int_eq(cu_route(0, &p, &r), cudaErrorInvalidValue);
    r.n_experts = 64, r.top_k = CU_MOST_CHOSEN + 1;
    ck_assert_int_eq(cu_route(0, &p, &r), cudaErrorInvalidValue);
    r.top_k = 9, p.n_groups = 8, p.groups_used = 1; /* of 8 experts */
    ck_assert_int_eq(cu_route(0, &p, &r), cudaErrorInvalidValue);
    ck_assert_int_eq(cu_experts_sum(0, &r, 12, NULL, true, NULL), cudaErrorInvalidValue);
    cu_linear l = {};
    l.w.type = DT_F16, l.w.n_in = 64, l.w.n_out = 64, l.t = CU_F16, l.ld_in = 64;
    l.kind = CU_OUT_ADD;
    const cu_experts x = {};
    ck_assert_int_eq(cu_experts_few(0, &x, &l, NULL, ACT_SILU), cudaErrorInvalidValue);
    ck_assert_int_eq(cu_experts_packed(0, &x, &l, NULL, ACT_SILU), cudaErrorInvalidValue);
    ck_assert_int_eq(cu_linear_narrow(0, &l), cudaErrorInvalidValue);
}
END_TEST

CHECK_MAIN("experts", the_choice_is_that_of_the_cpu_engine,
           biases_scales_and_groups_are_those_of_the_cpu_engine,
           experts_of_many_rows_have_several_tiles, logits_are_sums_of_float32,
           experts_are_sums_of_their_own_weights,
           a_row_has_the_same_bits_whatever_rows_are_beside_it,
           the_sum_goes_over_experts_in_their_order, what_no_kernel_takes_is_refused)
