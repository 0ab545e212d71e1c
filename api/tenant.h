/* A tenant: the users of one name in the file of keys (api/keys.h), and their limits.
 * Token buckets for requests and tokens a minute, and a count of what is open at once. Pure:
 * time is passed in and only grows. Loop thread. */
#ifndef VRAMD_API_TENANT_H
#define VRAMD_API_TENANT_H

#include <stdbool.h>
#include <stdint.h>

enum { TENANT_NAME_MAX = 32, TENANT_MAX_WEIGHT = 1000 };

/* 0: no limit. */
typedef struct tenant_limits {
    uint64_t requests_per_min, tokens_per_min;
    uint32_t concurrency;
    bool has_priority; /* of its requests; they may name a later one. false: 0 */
    int32_t priority;
    uint32_t weight; /* its share of the service beside other tenants; 0: 1 */
    bool admin;      /* may change the server's budget */
} tenant_limits;

/* Holds up to a minute's worth. May be in debt: tokens are known late. */
typedef struct bucket {
    double level;
    uint64_t per_min, at_us; /* per_min 0: no limit */
} bucket;

typedef struct tenant_counts {
    uint64_t n_requests, n_limited, n_prompt_tokens, n_output_tokens;
} tenant_counts;

typedef struct tenant {
    char name[TENANT_NAME_MAX + 1];
    tenant_limits limits;
    bucket requests, tokens;
    tenant_counts counts;
    uint32_t n_open;  /* requests between enter and leave */
    uint32_t n_views; /* of them, streams of the account: not counted against concurrency */
    bool listed;      /* the file names it */
} tenant;

/* Another rate: what a bucket holds stays, as far as it fits; a new one begins full. */
void bucket_rate(bucket *, uint64_t per_min, uint64_t now_us);
/* Takes n when they are there; else how long until they are. More than a bucket can ever hold
 * is taken from a full one, which is in debt then. */
bool bucket_take(bucket *, uint64_t n, uint64_t now_us, double *wait_s);
void bucket_give_back(bucket *, uint64_t n, uint64_t now_us);

typedef enum tenant_verdict {
    TENANT_OK,
    TENANT_REQUESTS,
    TENANT_TOKENS,
    TENANT_CONCURRENCY
} tenant_verdict;

void tenant_set(tenant *, const tenant_limits *, uint64_t now_us);
/* One request more; unless OK nothing has changed but n_limited. wait_s: 0 for concurrency. */
tenant_verdict tenant_enter(tenant *, uint64_t now_us, double *wait_s);
/* Before it is queued: the most tokens it can come to, prompt and output. */
tenant_verdict tenant_charge(tenant *, uint64_t n_tokens, uint64_t now_us, double *wait_s);
/* Once it has ended: the numbers are what was used of the charge. */
void tenant_settle(tenant *, uint64_t n_charged, uint64_t n_prompt, uint64_t n_output,
                   uint64_t now_us);
void tenant_leave(tenant *);
/* Of its name alone, so it stays when the file of keys changes; 0 for NULL, and only then. */
uint64_t tenant_id(const tenant *);

#endif
