/* What `vramd plan` says of a plan: whether it fits, what would help, what each option costs, and
 * the rule of thumb beside it. Main thread; owns nothing. */
#ifndef VRAMD_DAEMON_PLAN_REPORT_H
#define VRAMD_DAEMON_PLAN_REPORT_H

#include "base/buf.h"
#include "daemon/plan/plan_lengths.h"

/* What was asked for, so that it can be planned again with one thing changed. */
typedef struct plan_question {
    const options *opt;          /* as given, not resolved */
    const machine_wish *wish;    /* likewise */
    const options *usual;        /* what opt is compared with: a difference is a wish */
    const plan_lengths *lengths; /* of the requests; NULL: not known */
} plan_question;

/* One change after which it fits. */
typedef struct plan_remedy {
    char change[80];  /* "--weights Q4_0", "--max-model-len 2048", "--device h200" */
    double sequences; /* of max_model_len tokens that the KV cache then holds */
    uint32_t max_model_len;
} plan_remedy;

enum { PLAN_REMEDIES = 8 };

typedef struct plan_verdict {
    bool fits;
    uint64_t more_bytes; /* that it needs; 0 where it fits */
    double sequences;    /* of max_model_len tokens that the KV cache holds */
    char text[400];      /* one line: "fits: ...", "does not fit: ..." */
    plan_remedy remedy[PLAN_REMEDIES];
    uint32_t n_remedies;
    uint64_t
        n_cards; /* such devices that hold it, divided by the option split; 0: none, or of no interest */
    char split[48];
} plan_verdict;

/* m: planned, OK or ERR_BUDGET. Plans again for the remedies, where it does not fit. */
void plan_judge(plan_verdict *, const machine *m, const plan_question *);

/* weights + KV cache + K x batch x sequence x hidden x layers + 10 to 20 %, K = 10 to 20 bytes:
 * batch = max_num_seqs, sequence = max_model_len. */
typedef struct rule_of_thumb {
    uint64_t params, weights, kv, activations[2], total[2]; /* bytes; [2]: least and most */
    double bytes_per_param;
    uint32_t batch, sequence, hidden, layers;
    uint64_t plan_activations; /* what the plan has for activations, logits and workspace */
    double effective_k;        /* the K that gives plan_activations */
} rule_of_thumb;

enum { RULE_K_LEAST = 10, RULE_K_MOST = 20, RULE_OVERHEAD_LEAST = 10, RULE_OVERHEAD_MOST = 20 };

rule_of_thumb rule_of_thumb_of(const machine *m);

/* On stdout. details: each term instead of the sums of classes, and what each setting costs. */
void plan_print(const machine *m, const plan_verdict *, const plan_question *, bool details);
void rule_of_thumb_print(const rule_of_thumb *);
/* As members of the plan's JSON object, each with a comma in front. */
void plan_verdict_json(buf *, const machine *m, const plan_verdict *);
void rule_of_thumb_json(buf *, const rule_of_thumb *);

#endif
