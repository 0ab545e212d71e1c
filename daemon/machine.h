/* A model on this machine: from options to a plan, from the plan to everything loaded. serve
 * and generate load it, plan stops after machine_plan. */
#ifndef VRAMD_DAEMON_MACHINE_H
#define VRAMD_DAEMON_MACHINE_H

#include "conf/options.h"
#include "daemon/bridge/runner.h"
#include "daemon/draft_model.h"
#include "engine/cuda/cards.h"
#include "memory/pool.h"
#include "model/hf/hf_quant.h"
#include "scheduler/policy.h"
#include "text/jinja/template.h"

typedef struct machine {
    options given;    /* by the operator */
    options opt;      /* resolved: no zero that means "by itself" is left, but port */
    checkpoint *file; /* until loaded */
    model *model;

    bool borrowed; /* the model is another machine's: of machine_plan_again */
    bool part;     /* one of several in a process: the wish's */

    /* Of a model that is planned by its config.json: */
    bool counted;         /* with weights as other files store them (stored) */
    bool text_part;       /* other parts are not counted */
    quant_scheme stored;  /* how its files store the weights; bits 0: as planned */
    char not_served[240]; /* why vramd cannot serve it there; "": it can */

    draft_model draft;
    const backend *backend;
    op_set lacks; /* what of the model the backend does not run: then it is planned only */
    pooling_kind pooling; /* of embeddings: the option, or what the file says */
    engine_options engine_opt;
    sched_config sched_conf;
    /* The memory that the engine computes in and that holds the KV cache: the host's, or with a
     * device the device's; then the host's has a plan and a ledger of its own, without a cache.
     */
    budget budget;
    plan plan;
    /* Of several ranks, whose sum plan is on the CPU, and on devices that of the one that needs most
     * (plan/rank_plan.h); n_ranks 0: one. */
    struct rank_plan *ranks;
    uint32_t n_ranks;
    uint32_t rank;         /* whose process this is */
    struct ranks *started; /* the others (ranks/ranks.h); NULL: there are none */
    struct launch
        *launch; /* that started this process (ranks/launch.h); NULL: it was started alone */
    struct model *own; /* this rank's part of the model; NULL: all of it */
    /* What another budget is solved with while it serves (machine_budget.h): */
    budget max_budget;   /* of the option memory_max; bytes 0: none */
    terms fixed;         /* all but the KV cache and what loading took */
    uint64_t auto_bytes; /* of memory = auto, as solved at start */
    kv_request kv;       /* kv.most: what addresses and lists are there for */
    bool on_device;
    bool layers_auto; /* gpu_layers = auto: engine_opt.host_layers was searched for */
    memory_capacity device_capacity; /* on_device: what shares of its memory are of */
    budget host_budget;              /* these two on_device only */
    plan host_plan;
    ledger *ledger;        /* the host's */
    ledger *device_ledger; /* NULL unless on_device */
    char device[16];       /* "cpu", "cuda:0" */
    const cuda_card *card; /* which that is, of the table; NULL: the CPU, or not in the table */
    pool *pool;
    bool pool_borrowed;
    chunks tok_src; /* where tok takes its memory: must outlive it */
    tokenizer *tok;
    struct machine_words *words;   /* NULL: tok and chat are its own */
    template_sources chat_sources; /* until loaded */
    buf chat_file;                 /* the option's, until loaded */
    uint64_t chat_bytes;           /* what chat takes */
    chat_templates chat;
    engine *engine;
    sched *sched;
    struct step_log *log; /* NULL without step_log; the server's */
    struct kv_tier *tier; /* NULL without kv_disk, and until loaded */
    void *runner_mem;
    void *sched_mem;   /* of sched, with what the draft model has of each block behind it */
    char name[256];    /* served name, the first of several */
    const char *names; /* all of them, separated by commas; NULL: name alone */
    sampling sampling; /* defaults: of the options, else of the model file, else of the wish */
    uint64_t n_params, weight_bytes, sched_bytes;
    void (*extra)(void *arg, const struct machine *, terms *); /* the wish's */
    void *extra_arg;
    /* of a model file: the vocabulary as it is held, and the parsed headers; 0: a config.json */
    uint64_t tokenizer_bytes, header_bytes;
} machine;

/* What a subcommand wants besides the options. All zero is fine. */
typedef struct machine_wish {
    /* For plans alone: */
    bool elsewhere;     /* for a machine that may have more memory than this one */
    bool uncut;         /* the budgets hold whatever is wanted: for differences between plans */
    bool in_proportion; /* kv_request's */
    const budget *budget; /* of machine_plan_again, in place of the one that was chosen */

    const char *weights;         /* type of the matrices when the model is a config.json */
    const cuda_card *card;       /* plan for this device, which need not be here */
    double link, host_bandwidth; /* of plan_bandwidth_of, for offload = auto; 0: not given */
    uint32_t at_most_len;        /* max_model_len = 0 means at most this (0: DEFAULT_CONTEXT) */
    /* One of several in a process, whose front end and runtime are planned elsewhere
     * (machine_shared_terms): so much of the option memory is not for this one, and the KV cache is as
     * with memory = auto. */
    bool part;
    uint64_t aside_bytes;
    struct machine_words *words; /* of a part, which are not in its plan */
    struct launch *launch;       /* of machine.launch; borrowed */
    bool greedy;      /* temperature 0 where neither options nor model file say; else 1 */
    bool scores;      /* every row of a prompt yields logits: as many rows as is sensible */
    bool keep_logits; /* the engine gives them as they were before sampling */
    const engine_tap *tap; /* engine_options.tap; the option activation_dtype is then f32 */
    void (*extra)(void *arg, const machine *, terms *); /* lists its own terms */
    void *arg;
} machine_wish;

enum { MACHINE_TOKENS_PER_SEQ = 1024 }; /* of the KV cache, with memory = auto */

/* Solves the plan as m->engine_opt says, with a KV cache of kv_tokens; 0: by the options. Errors: as machine_plan. */
typedef status (*machine_solver)(machine *m, const machine_wish *, uint64_t kv_tokens, err *);

/* Opens the model (a GGUF file, a folder as published, or a config.json) and solves the plan. On ERR_BUDGET m->plan is
 * filled in. In any case machine_close(m) afterwards. */
status machine_plan(machine *m, const options *, const machine_wish *, err *);
/* The plan of the same model on the same engine within the same budgets (but for the wish's
 * budget and uncut), with other options: reads no file. of: planned, or loaded; it lends its model until *m
 * is closed. Options of model, templates, tokenizer, engine and budget must be those of of; the
 * wish's weights, card and extra do not count. Any thread; errors as machine_plan. */
status machine_plan_again(machine *, const machine *of, const options *, const machine_wish *,
                          err *);
/* Bytes of a loaded machine's runner; and the runner, in memory that is set aside for it. */
size_t machine_runner_bytes(const machine *);
runner *machine_runner(machine *, runner_callback *, void *arg);
/* Of batching and scheduler_policy; and which value of the latter a policy is. */
void machine_set_policies(sched_config *, const options *);
uint32_t machine_policy_number(const sched_policy *);
/* Slots for the states of recurrent layers: of sequences, and of checkpoints where prefixes are kept. */
uint32_t machine_state_slots(const options *);
/* Whether what was planned can be loaded. Errors: ERR_INVALID (a config.json), ERR_UNSUPPORTED (a
 * folder whose weights cannot be loaded). */
status machine_has_weights(const machine *, err *);
/* Whether it generates text. Errors: ERR_UNSUPPORTED (an encoder). */
status machine_generates(const machine *, err *);
/* The ledger and what must exist before loading: the pool of requests. */
status machine_reserve(machine *m, err *);
/* The same under a shared ledger, with the pool of requests that all models have; a part's. Any
 * thread. */
status machine_reserve_part(machine *m, ledger *shared, pool *, err *);
/* What a process takes once, whatever the number of its models. */
void machine_shared_terms(terms *);
/* The first step of machine_load: all that it can refuse before it reads weights. */
status machine_load_tokenizer(machine *m, err *e);
/* Tokenizer, weights, KV cache, scheduler. Closes the file. Any one thread. */
status machine_load(machine *m, err *);
void machine_close(machine *m);

/* One line that compares plan, ledger and operating system; false when they disagree by more
 * than 4 MiB + 0.2%. */
bool machine_compare(const machine *m, char *line, size_t cap);
/* The same for the device's memory: false when the driver has more in use than ledger and
 * measured context by over 64 MiB (another process on the device shows here too). m->on_device.
 */
bool machine_compare_device(const machine *m, char *line, size_t cap);

#endif
