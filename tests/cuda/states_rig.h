/* A step of sequences with states, for the tests of convolutions and of recurrences: which rows of which text are in it,
 * its tables on the device, and the cuts of texts into steps that both are tried on. */
#ifndef VRAMD_TESTS_CUDA_STATES_RIG_H
#define VRAMD_TESTS_CUDA_STATES_RIG_H

#include "tests/cuda/rig.h"

enum { SEQS = 3, SLOTS = 8, LEN = 70 };

/* Rows of one entry: tokens [first, first + n) of text seq. */
struct states_part {
    uint32_t seq, slot, first, n;
    uint32_t keep_at, keep_in; /* a checkpoint behind keep_at tokens; 0: none */
};

/* The last entry is padding, and so is the last row, whose position is -1. */
struct states_step {
    std::vector<int32_t> pos, entry, first_row, n_rows, first_pos, slot, keep;
    std::vector<states_part> parts;
    explicit states_step(const std::vector<states_part> &of) : parts(of) {
        for (size_t e = 0; e < parts.size(); e++) add((int32_t)e, parts[e]);
        first_row.push_back(0), n_rows.push_back(0), first_pos.push_back(0), slot.push_back(-1);
        pos.push_back(-1), entry.push_back((int32_t)parts.size());
    }
    void add(int32_t e, const states_part &p) {
        first_row.push_back((int32_t)pos.size()), n_rows.push_back((int32_t)p.n);
        first_pos.push_back((int32_t)p.first), slot.push_back((int32_t)p.slot);
        for (uint32_t i = 0; i < p.n; i++)
            pos.push_back((int32_t)(p.first + i)), entry.push_back(e);
        keep.insert(keep.end(), {p.keep_at ? e : -1, (int32_t)p.keep_at, (int32_t)p.keep_in});
    }
    /* The rows of texts [SEQS][LEN][ld], padding NaN. */
    std::vector<float> rows_of(const std::vector<float> *texts, uint32_t ld) const {
        std::vector<float> rows;
        for (const states_part &p : parts) {
            const float *x = &texts[p.seq][(size_t)p.first * ld];
            rows.insert(rows.end(), x, x + (size_t)p.n * ld);
        }
        rows.insert(rows.end(), ld, NAN);
        return rows;
    }
};

/* The same on the device; states: SLOTS of stride floats. */
struct states_tables {
    device<int32_t> pos, entry, first_row, n_rows, first_pos, slot, keep;
    cu_tables tables = {};
    cu_states states;
    states_tables(const states_step &s, float *base, uint64_t stride)
        : pos(s.pos), entry(s.entry), first_row(s.first_row), n_rows(s.n_rows),
          first_pos(s.first_pos), slot(s.slot), keep(s.keep) {
        tables.pos = pos.p, tables.entry = entry.p, tables.first_row = first_row.p;
        tables.n_rows = n_rows.p, tables.first_pos = first_pos.p;
        states = {base, stride, slot.p, keep.p, (uint32_t)s.parts.size()};
    }
};

/* Texts side by side, in steps of one row and of many, cut within chunks and where these end. */
template <class F> static inline void each_cut(F step) {
    step({{0, 0, 0, 1, 0, 0}, {1, 2, 0, 33, 0, 0}, {2, 4, 0, 2, 0, 0}, {2, 6, 0, 16, 0, 0}});
    step({{2, 4, 2, 1, 0, 0}, {0, 0, 1, 1, 0, 0}, {2, 6, 16, 1, 0, 0}, {1, 2, 33, 2, 0, 0}});
    step({{0, 0, 2, 50, 0, 0}, {2, 4, 3, 16, 0, 0}, {2, 6, 17, 15, 0, 0}});
    step(
        {{0, 0, 52, 18, 0, 0}, {1, 2, 35, 1, 0, 0}, {2, 4, 19, 30, 0, 0}, {2, 6, 32, 3, 0, 0}});
}

/* Checkpoints within the rows of a step, at their end, and behind what the state has of its inputs; then texts go on from
 * them. */
template <class F> static inline void each_checkpoint(F step) {
    step({{0, 0, 0, 15, 0, 0}, {1, 2, 0, 64, 32, 6}, {2, 4, 0, 1, 0, 0}});
    step({{0, 0, 15, 1, 16, 1}, {2, 4, 1, 40, 16, 3}});
    step({{0, 1, 16, 5, 0, 0}, {1, 6, 32, 9, 0, 0}, {2, 3, 16, 1, 0, 0}});
}

#endif
