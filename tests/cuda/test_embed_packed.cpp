/* Embeddings that stay packed on the device: the file's values, exactly. */
#include "tests/cuda/linear_rig.h"

START_TEST(rows_of_packed_embeddings_are_the_files_values) {
    for (dtype type : packed_types)
        for (uint32_t cols : {32u, 576u, 2080u}) {
            cols = inputs_for(type, cols);
            const file_matrix file(type, 75, cols, cols);
            const device_matrix m(file, type);
            const std::vector<int32_t> token = {74, 0, 13, 75, -1, 40, 9},
                                       from = {-1, -1, -1, -1, -1, -1, 1}, previous = {3, 31};
            const uint32_t want[] = {74, 0, 13, 0, 0, 40, 31}, n_rows = 7;
            device<int32_t> dt(token), df(from), dp(previous);
            device<float> out((size_t)n_rows * cols);
            cu_tables tables = {};
            tables.token = dt.p, tables.from = df.p, tables.previous = dp.p;
            CUDA_OK(cu_embed(0, &m.w, &tables, n_rows, 2.0f, out.p));
            const std::vector<float> got = out.get();
            for (uint32_t i = 0; i < n_rows; i++)
                for (uint32_t c = 0; c < cols; c++) {
                    const float v = file.value[(size_t)want[i] * cols + c];
                    /* with a minimum the sum is one rounding on the device, two in the definition */
                    SWEEP(fabsf(got[i * cols + c] - 2 * v) <= 4e-6f * (fabsf(v) + 0.1f));
                    SWEEP(type_has_min(type) || got[i * cols + c] == 2 * v);
                }
        }
}
END_TEST

CHECK_MAIN("embed_packed", rows_of_packed_embeddings_are_the_files_values)
