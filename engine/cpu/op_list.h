/* The operations that the CPU engine runs, a row each: X(kind, function, reads_activations).
 * What is not in the list is refused when the engine opens. No includes. */
#ifndef VRAMD_ENGINE_CPU_OP_LIST_H
#define VRAMD_ENGINE_CPU_OP_LIST_H

/* reads_activations: the input meets weights in a linear kernel, as codes or as float32,
 * whichever the weights' type has; other operations read float32. */
#define CPU_OPS(X)                                                                             \
    X(EMBED, run_embed, false)                                                                 \
    X(NORM, run_norm, false)                                                                   \
    X(LINEAR, run_linear, true)                                                                \
    X(HEAD_NORM, run_head_norm, false)                                                         \
    X(ROPE_APPEND, run_append, false)                                                          \
    X(LATENT_APPEND, run_latent_append, false)                                                 \
    X(ATTENTION, run_attention, false)                                                         \
    X(LINEAR_BY_HEAD, run_linear_by_head, false)                                               \
    X(GATE_UP, run_gate_up, true)                                                              \
    X(GATHER_ROWS, run_gather, false)                                                          \
    X(LOGITS, run_logits, true)                                                                \
    X(SAMPLE, run_sample, false)                                                               \
    X(PERMUTE, run_permute, false)                                                             \
    X(ROUTE, run_route, false)                                                                 \
    X(EXPERTS_GATE_UP, run_experts_gate_up, true)                                              \
    X(EXPERTS_DOWN, run_experts_down, true)                                                    \
    X(MUL_SIGMOID, run_mul_sigmoid, false)                                                     \
    X(EMBED_ADD, run_embed_add, false)                                                         \
    X(MUL_ACT, run_mul_act, false)                                                             \
    X(SCALE, run_scale, false)                                                                 \
    X(CONV, run_conv, false)                                                                   \
    X(DELTA, run_delta, false)                                                                 \
    X(SSM, run_ssm, false)                                                                     \
    X(LAYER_NORM, run_layer_norm, false)                                                       \
    X(POOL, run_pool, false)                                                                   \
    X(ALL_GATHER, run_all_gather, false)                                                       \
    X(SEND, run_send, false)                                                                   \
    X(RECV, run_recv, false)

/* Traits of operations (model/program.h) that it runs, a row each: X(trait). */
#define CPU_TRAITS(X)                                                                          \
    X(SOFT_CAP)                                                                                \
    X(SINKS)                                                                                   \
    X(TEMPERATURE)                                                                             \
    X(WHOLE_NORM)                                                                              \
    X(UNROTATED)                                                                               \
    X(LOGIT_SCALE)                                                                             \
    X(LOGIT_CAP)                                                                               \
    X(NORM_ADD)                                                                                \
    X(NORM_GROUPS)                                                                             \
    X(CONV_BIAS)                                                                               \
    X(VALUE_NORM)                                                                              \
    X(WIDE_HEADS)                                                                              \
    X(SHARED_KV)                                                                               \
    X(LATENT_KV)                                                                               \
    X(PROPORTIONAL)                                                                            \
    X(GATE_UP_BIAS)                                                                            \
    X(BIDIRECTIONAL)                                                                           \
    X(EMBED_TABLES)                                                                            \
    X(UNGATED)                                                                                 \
    X(CHOICE_BIAS)                                                                             \
    X(EXPERT_SCALES)                                                                           \
    X(EXPERT_GROUPS)

#endif
