/* Inside of model/: how a family records its forward pass. The first error sticks; what is
 * recorded after it is of no use and is thrown away. */
#ifndef VRAMD_MODEL_RECORDER_H
#define VRAMD_MODEL_RECORDER_H

#include "model/checkpoint.h"
#include "model/program.h"
#include "model/weight_mix.h"

typedef struct recorder {
    program *p;
    const checkpoint *file; /* NULL: planned from a config, matrices of the types of planned */
    weight_mix planned;
    bool *claimed; /* [checkpoint_n_tensors]: which tensors the program uses */
    uint32_t cap_values, cap_weights, cap_ops;
    status s;
    err *e;
} recorder;

value_id rec_value(recorder *, const char *name, row_set, uint32_t cols);
/* A value of ROWS_ROUTED. */
value_id rec_value_routed(recorder *, const char *name, uint32_t top_k, uint32_t cols);
/* A weight of the file under "blk.LAYER.NAME", or NAME when layer is -1; checked for shape and
 * type. Without a file: of the planned types (vectors: float32). */
weight_id rec_weight(recorder *, weight_role, int layer, const char *name, uint32_t rows,
                     uint32_t cols);
/* A part of the rows or columns of a tensor: n of all, from first on. */
typedef struct slice {
    uint32_t first, n, all;
} slice;
/* Part of a matrix: of a fused one, or what one rank holds. ERR_UNSUPPORTED (field: the tensor)
 * where its columns do not begin and end at blocks of the type. */
weight_id rec_weight_slice(recorder *, int layer, const char *name, slice rows, slice cols);
/* Half of the rows of a matrix of n heads, two times head_dim rows each: the first head_dim of each
 * head, or the others. */
weight_id rec_weight_half_heads(recorder *, int layer, const char *name, bool second,
                                uint32_t n, uint32_t head_dim, uint32_t cols);
/* The matrices of n_experts experts: a tensor of three dimensions. */
weight_id rec_weight_experts(recorder *, int layer, const char *name, uint32_t n_experts,
                             uint32_t rows, uint32_t cols);
/* The same rows of each of them. */
weight_id rec_weight_experts_slice(recorder *, int layer, const char *name, uint32_t n_experts,
                                   slice rows, uint32_t cols);
/* The matrices of n heads, some rows of each, in a matrix of rows.all rows for each head. turned: each
 * matrix is the transpose of these rows (weight.turned). */
weight_id rec_weight_heads(recorder *, int layer, const char *name, uint32_t n, slice rows,
                           uint32_t cols, bool turned);
/* As a vector; NO_WEIGHT when wanted is false. */
weight_id rec_vector(recorder *, bool wanted, int layer, const char *name, uint32_t n);
/* The same of each expert: a tensor of two dimensions. */
weight_id rec_vector_experts(recorder *, bool wanted, int layer, const char *name,
                             uint32_t n_experts, uint32_t n);
/* A value in the order in which n matrices of a layer, named without ".weight", have their inputs:
 * where the file has tensors "attn_q.order" (I32, which column is read as the i-th). Without: in
 * itself. Errors: ERR_FORMAT (one that is no permutation), ERR_UNSUPPORTED (orders that differ). */
value_id rec_ordered(recorder *, int layer, const char *const names[], uint32_t n, value_id in);
/* Is there such a tensor? False without a file. */
bool rec_has(const recorder *, const char *name);
/* A blank operation (no weights, no residual) to be filled in at once; never NULL. */
op *rec_op(recorder *, op_kind, int layer, value_id in, value_id out);
/* OP_CONV of a layer over so many channels: out has as many columns, in three times as many where
 * it is gated. The kernel is a tensor of float32 or 16 bits. */
op *rec_conv(recorder *, int layer, const char *name, uint32_t width, uint32_t channels,
             value_id in);
/* Groups the layers that have attention by window and by the size of their K and V: p->group,
 * layer_group, layer_index. */
void rec_kv_groups(recorder *);
/* The rotary embedding of a layer: its index in p->rope. */
uint32_t rec_rope(recorder *, int layer);

#endif
