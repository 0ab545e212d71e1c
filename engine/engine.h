/* An engine runs a model program over ragged batches. At most engine_info.depth steps are
 * submitted and not collected. One thread calls it; it may have threads of its own.
 *
 * The engine knows nothing of requests: it sees rows, slots and block tables. It borrows what a
 * batch points to until the batch is collected. */
#ifndef VRAMD_ENGINE_ENGINE_H
#define VRAMD_ENGINE_ENGINE_H

#include "base/str.h"
#include "model/sampling.h"
#include "memory/ledger.h"
#include "model/model.h"

/* What a worker of the CPU engine takes of its stack where activations are bf16: unpacked weights and sums. */
enum { BF16_STACK_BYTES = 88 << 10 };

typedef enum activation_dtype {
    ACTIVATION_AUTO,
    ACTIVATION_INT8,
    ACTIVATION_BF16,
    ACTIVATION_F16,
    ACTIVATION_F32,
    ACTIVATION_FP8 /* where weights are, too; else 16 bits */
} activation_dtype;
typedef enum cpu_isa {
    ISA_AUTO,
    ISA_PLAIN,
    ISA_AVX2,
    ISA_AVXVNNI,
    ISA_AVX512,
    ISA_AMX
} cpu_isa;

/* The words that users write for these, in any case. False: no such word. */
bool activation_dtype_by_name(str, activation_dtype *out);
const char *activation_dtype_name(activation_dtype);
bool cpu_isa_by_name(str, cpu_isa *out);
const char *cpu_isa_name(cpu_isa);

/* Most copies of blocks that a step has beside those of forks: moves before engine_kv_resize. */
enum { ENGINE_MAX_MOVES = 256 };

/* In place of a group of KV blocks: the copy is of a recurrent state. */
enum { ENGINE_COPY_STATE = PLAN_MAX_GROUPS };

/* Is shown what the matrices of a model multiply, as float32, which activations = ACTIVATION_F32 has: for the
 * calibration of quantised weights. On every thread of a step, before each OP_LINEAR and OP_GATE_UP; x: [n_rows of
 * the batch][n_in], rows in the order of the batch, valid for the call. What one thread writes
 * must not be what another does. */
typedef struct engine_tap {
    void (*input)(void *arg, const op *, const float *x, uint32_t n_rows, uint32_t n_in,
                  uint32_t thread, uint32_t n_threads);
    void *arg;
} engine_tap;

struct group;
typedef struct engine_options {
    uint32_t max_rows;       /* rows of a step: the token budget */
    uint32_t max_seqs;       /* sequences in a step */
    uint32_t max_logit_rows; /* rows of a step whose logits are wanted; >= max_seqs */
    uint32_t max_draft;      /* guesses of a sequence that a step verifies; CPU */
    uint32_t max_model_len;  /* tokens of a sequence */
    uint32_t block_tokens;   /* tokens of a KV block: 8..256, power of two */
    uint32_t n_blocks[PLAN_MAX_GROUPS]; /* KV blocks of each group; ignored by terms */
    /* that engine_kv_resize may give it: addresses are reserved; 0: n_blocks */
    uint32_t max_blocks[PLAN_MAX_GROUPS];
    /* Slots for states of recurrent layers, of program_state_bytes each; 0: max_seqs. Of no meaning
     * where the program has none. */
    uint32_t n_states;
    dtype kv_k, kv_v; /* types of the KV cache */
    activation_dtype activations;
    bool batch_invariant; /* CUDA: the same bits whatever else is in the batch */
    uint32_t n_threads;   /* CPU: 1..256 */
    cpu_isa isa;          /* CPU */
    uint32_t device;      /* CUDA: index of the device ... */
    uint32_t n_sms;       /* ... and its multiprocessors: what the driver's context takes */
    uint32_t
        expert_slots; /* CPU: experts that are in memory at once, of all layers; 0: all are */
    /* CUDA: so many layers, spread among the others, have their matrices in the host's memory, and of so many
     * first layers the experts' matrices lie there; they come for each step (engine/cuda/staging.h). 0: none */
    uint32_t host_layers, host_experts;
    /* CUDA: those are the first layers, and the CPU engine computes their matrices where they lie (engine/cuda/
     * hosting.h); nothing comes. Then n_threads and isa are of CUDA, too. */
    bool host_computes;
    bool unfused;          /* CPU: attention writes all scores out (attention_unfused.h) */
    bool hidden;           /* CPU: steps give step_result.hidden, too */
    pooling_kind pooling;  /* CPU: of OP_POOL */
    bool eager;            /* CUDA, tests: no graphs */
    bool keep_logits;      /* steps give step_result.logits, too */
    const char *plugin;    /* CUDA: path of vramd-cuda.so; NULL or "": looked for */
    const engine_tap *tap; /* CPU; NULL: nothing is shown */
    struct group *group;   /* of one rank's program: whose rank it is; borrowed */
    bool by_messages;      /* ranks have no memory in common (group_shape) */
    uint32_t
        depth; /* CPU, of a program with stages: steps in flight; 0: 1. Then a sequence is in one of
                       them alone (sched_config.apart) */
} engine_options;

/* The recurrent state behind the first n_tokens of a sequence, a multiple of STATE_CHUNK that its rows
 * reach or pass, is written to a slot of its own. */
typedef struct batch_checkpoint {
    uint32_t n_tokens, state;
} batch_checkpoint;

/* One sequence's part of a batch: n_rows consecutive positions from first_pos on. Of an encoder
 * (model_config.bidirectional) all positions of its text, and the last row has logits: what it gives is
 * the text's row of step_result.hidden. */
typedef struct batch_seq {
    uint32_t first_row, n_rows; /* rows of the batch; parts are consecutive and in order */
    uint32_t first_pos;         /* absolute position of the first row */
    const int32_t *tokens;      /* history: row i reads tokens[first_pos + i] ... */
    int32_t input_from; /* ... unless >= 0: the one row reads the token that entry input_from of
                           the previous step's results produced */
    const int32_t *blocks[PLAN_MAX_GROUPS]; /* per KV group: block table from position 0 on */
    uint32_t n_blocks[PLAN_MAX_GROUPS];
    uint32_t n_logit_rows; /* the last so many rows yield logits: 0, 1, or up to n_rows */
    bool sample;           /* the last row draws the next token */
    /* With sample: the last so many rows read guesses, and the row before them reads what is known. Each of
     * these rows draws what comes behind it, and a guess that was drawn is accepted: its row counts. */
    uint32_t n_draft;
    int8_t n_score; /* >= 0: rows before the last score tokens[pos + 1], with so many best; -1:
                       not */
    const sampling *params; /* NULL unless sample */
    /* Of the drawn token: bit t % 32 of word t / 32 is set where token t may be drawn;
     * [sampling_mask_words(n_vocab)]. NULL: every token may. With n_draft: of the first row that draws; that
     * of the next one stands allowed_stride words behind it. */
    const uint32_t *allowed;
    uint32_t allowed_stride;
    uint32_t n_prompt; /* for penalties: history up to here is prompt */
    uint32_t
        n_first; /* tokens of the first of two texts (OP_EMBED's table of texts); 0: one text */
    /* Where the program has recurrent layers: the slot of its state, which is that of no tokens where
     * first_pos is 0. Else what rows from first_pos on did to it is undone: they are of the chunk of
     * STATE_CHUNK positions that first_pos is in, or there are none. */
    uint32_t state;
    const batch_checkpoint *checkpoints; /* [n_checkpoints], by n_tokens */
    uint32_t n_checkpoints;
} batch_seq;

typedef struct block_copy {
    int32_t from, to; /* blocks of the group; slots where it is ENGINE_COPY_STATE */
    uint32_t group;
} block_copy;

typedef struct batch {
    const batch_seq *seq;
    uint32_t n_seqs, n_rows, n_logit_rows;
    const block_copy *copies; /* done before the rows, in order */
    uint32_t n_copies;
} batch;

typedef struct step_result {
    /* [n_seqs of the batch][max_run]: what each sequence drew, n_tokens[i] tokens of it, one
     * where n_tokens is NULL; meaningless where sample was false. Of several all but the last are
     * guesses. */
    const sampled *token;
    const uint32_t *n_tokens;
    uint32_t max_run;
    const sampled *scored; /* [n_logit_rows]; of rows that scored */
    /* [n_logit_rows][n_vocab] before sampling; NULL unless engine_options.keep_logits */
    const float *logits;
    /* [n_logit_rows][n_embd]: what the model's last norm gave, of which logits are made, or an
     * encoder's last operation; NULL unless engine_options.hidden, or it is an encoder. n_embd: of an
     * encoder with a classifier its scores */
    const float *hidden;
    uint32_t n_embd;
} step_result; /* borrowed until the next submit */

typedef struct engine engine;

typedef struct engine_info {
    const char *name; /* "cpu" */
    char detail[96];  /* "avx512-vnni, int8 activations, 2 threads" */
    uint32_t depth;   /* steps in flight */
    /* Names the formulas of keys and values, where equal names mean equal bits in any build: "cpu-1
     * int8"; "" where the engine does not promise that. */
    char numerics[32];
    bool kv_fixed; /* engine_kv_resize cannot, whatever engine_can_resize says: the device */
} engine_info;

/* The experts of a model's layers. */
typedef struct expert_shape {
    uint32_t n_layers; /* that have some; 0: no layer has */
    uint32_t n_most;   /* of a layer */
    uint32_t n_all;    /* of all layers */
    uint64_t slot_bytes,
        piece_bytes; /* of one expert, packed, at most; of one reading, as stored */
} expert_shape;

/* What slots for experts have done since the engine was opened. A turn: a layer of a step has rows for an
 * expert. */
typedef struct expert_stats {
    uint32_t n_slots; /* 0: all experts are in memory */
    uint64_t hits,
        misses; /* turns of experts that were in a slot, and of those that were read */
    uint64_t read_bytes, read_errors;
    double stalled_s; /* that threads waited for readings, by their number */
} expert_stats;

/* A backend: what a module under engine/ provides. Required but where NULL is explained. */
typedef struct backend {
    const char *name;
    op_set runs; /* the operations and traits that it runs */
    /* Lists what opening will allocate, KV cache excluded; fills what KV blocks cost.
     * Errors: ERR_UNSUPPORTED (tensor and type), ERR_INVALID (option). */
    status (*terms)(const program *, const engine_options *, terms *out, kv_request *kv, err *);
    /* device: the account of the device's memory; NULL for an engine that has none. */
    status (*open)(engine **out, const model *, const engine_options *, ledger *host,
                   ledger *device, err *);
    void (*close)(engine *);
    status (*submit)(engine *, const batch *, err *);
    status (*collect)(engine *, step_result *, err *); /* the oldest submitted step */
    void (*info)(const engine *, engine_info *);
    /* What the driver says of the device; NULL for an engine without memory of its own. Any
     * thread; takes microseconds. False: no answer. */
    bool (*device_memory)(const engine *, device_memory *out);
    /* A block of a group's KV cache to and from memory of the caller, kv_block_bytes of the group;
     * no submitted step may write that block. NULL: the engine cannot. */
    status (*kv_export)(engine *, uint32_t group, int32_t block, void *out, err *);
    status (*kv_import)(engine *, uint32_t group, int32_t block, const void *in, err *);
    /* engine_pin, engine_unpin; NULL: there is nothing to gain. */
    status (*pin)(engine *, void *p, uint64_t bytes, err *);
    void (*unpin)(engine *, void *p);
    /* engine_kv_resize; NULL: the engine cannot. */
    status (*kv_resize)(engine *, const uint32_t n_blocks[PLAN_MAX_GROUPS], err *);
    /* engine_options.expert_slots and engine_expert_stats; NULL: the engine has all experts in memory. */
    expert_shape (*experts)(const program *);
    void (*expert_stats)(const engine *, expert_stats *out);
} backend;

extern const backend backend_cpu;
/* The same of one rank of a group (engine_options.group): rank 0 posts the steps that others follow. */
extern const backend backend_cpu_ranks;

struct engine { /* the head of every backend's engine */
    const struct backend *backend;
};

/* Slots for recurrent states that an engine has: 0 where the model has none. */
uint32_t engine_states(const program *, const engine_options *);
/* What of a program the backend does not run; empty: it runs all of it. */
op_set engine_lacks(const backend *, const program *);
/* Errors: ERR_UNSUPPORTED (field: the first of them) naming what of a program it lacks. */
status engine_check_runs(const backend *, const program *, err *);
/* Errors: ERR_NO_MEMORY, ERR_BUDGET, ERR_IO (reading weights), ERR_UNSUPPORTED, ERR_DEVICE. */
status engine_open(engine **out, const backend *, const model *, const engine_options *,
                   ledger *host, ledger *device, err *);
void engine_close(engine *); /* NULL is ignored */
status engine_submit(engine *, const batch *, err *);
status engine_collect(engine *, step_result *, err *);
/* Makes the KV cache so many blocks of each group large, at most max_blocks; blocks that stay keep
 * their content. No submitted step touches blocks that go. Takes as long as the system needs for
 * the pages: go in pieces while requests run. Errors: ERR_UNSUPPORTED, ERR_BUDGET, ERR_NO_MEMORY;
 * then groups before the one that failed have their new size, which n_blocks says. */
status engine_kv_resize(engine *, const uint32_t n_blocks[PLAN_MAX_GROUPS], err *);
bool engine_can_resize(const backend *);
void engine_describe(const engine *, engine_info *);
/* Any thread. All zero where the engine has no slots for experts. */
void engine_expert_stats(const engine *, expert_stats *out);
/* Only where engine_moves_kv. */
bool engine_moves_kv(const engine *);
status engine_kv_export(engine *, uint32_t group, int32_t block, void *out, err *);
status engine_kv_import(engine *, uint32_t group, int32_t block, const void *in, err *);
/* Makes memory of the caller such that blocks go there and come from there in one transfer, until
 * it is unpinned. No call is needed for that to work. Errors: ERR_NO_MEMORY, ERR_DEVICE. */
status engine_pin(engine *, void *p, uint64_t bytes, err *);
void engine_unpin(engine *, void *p);

#endif
