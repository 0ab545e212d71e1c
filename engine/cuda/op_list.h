/* The operations that the CUDA engine runs, a row each: X(kind, function, input, output). What
 * is not in the list is refused by the layout, so the plan refuses it too. No includes. */
#ifndef VRAMD_ENGINE_CUDA_OP_LIST_H
#define VRAMD_ENGINE_CUDA_OP_LIST_H

/* function: in lower.cu. input: CUDA_IN_STREAM, the residual stream; CUDA_IN_T, anything but
 * that; CUDA_IN_ROUNDED, the same, and a residual stream is rounded to it first; CUDA_IN_ANY.
 * output: a cuda_form, of an operation that adds to no residual stream. */
#define CUDA_OPS(X)                                                                            \
    X(EMBED, run_embed, CUDA_IN_ANY, CUDA_VALUE_F32)                                           \
    X(NORM, run_norm, CUDA_IN_ANY, CUDA_VALUE_T)                                               \
    X(LINEAR, run_linear, CUDA_IN_ROUNDED, CUDA_VALUE_T)                                       \
    X(HEAD_NORM, run_head_norm, CUDA_IN_ANY, CUDA_VALUE_T)                                     \
    X(ROPE_APPEND, run_rope, CUDA_IN_ANY, CUDA_VALUE_T)                                        \
    X(ATTENTION, run_attention, CUDA_IN_ANY, CUDA_VALUE_T)                                     \
    X(GATE_UP, run_gate_up, CUDA_IN_ROUNDED, CUDA_VALUE_T)                                     \
    X(GATHER_ROWS, run_gather, CUDA_IN_STREAM, CUDA_VALUE_F32)                                 \
    X(LOGITS, run_logits, CUDA_IN_T, CUDA_VALUE_LOGITS)                                        \
    X(SAMPLE, run_sample, CUDA_IN_ANY, CUDA_VALUE_T)                                           \
    X(MUL_SIGMOID, run_mul_sigmoid, CUDA_IN_T, CUDA_VALUE_T)                                   \
    X(EMBED_ADD, run_embed_add, CUDA_IN_T, CUDA_VALUE_T)                                       \
    X(MUL_ACT, run_mul_act, CUDA_IN_T, CUDA_VALUE_T)                                           \
    X(SCALE, run_scale, CUDA_IN_STREAM, CUDA_VALUE_F32)                                        \
    X(ROUTE, run_route, CUDA_IN_T, CUDA_VALUE_ROUTED)                                          \
    X(EXPERTS_GATE_UP, run_experts_gate_up, CUDA_IN_T, CUDA_VALUE_T)                           \
    X(EXPERTS_DOWN, run_experts_down, CUDA_IN_T, CUDA_VALUE_F32)                               \
    X(CONV, run_conv, CUDA_IN_T, CUDA_VALUE_T)                                                 \
    X(DELTA, run_recur, CUDA_IN_T, CUDA_VALUE_T)                                               \
    X(SSM, run_recur, CUDA_IN_T, CUDA_VALUE_T)                                                 \
    X(ALL_GATHER, run_all_gather, CUDA_IN_ANY, CUDA_VALUE_T)

/* Traits of operations (model/program.h) that it runs, a row each: X(trait). */
#define CUDA_TRAITS(X)                                                                         \
    X(SOFT_CAP)                                                                                \
    X(SINKS)                                                                                   \
    X(TEMPERATURE)                                                                             \
    X(WHOLE_NORM)                                                                              \
    X(UNROTATED)                                                                               \
    X(LOGIT_SCALE)                                                                             \
    X(LOGIT_CAP)                                                                               \
    X(NORM_ADD)                                                                                \
    X(VALUE_NORM)                                                                              \
    X(SHARED_KV)                                                                               \
    X(PROPORTIONAL)                                                                            \
    X(GATE_UP_BIAS)                                                                            \
    X(CHOICE_BIAS)                                                                             \
    X(EXPERT_SCALES)                                                                           \
    X(EXPERT_GROUPS)                                                                           \
    X(WIDE_HEADS)                                                                              \
    X(CONV_BIAS)

#endif
