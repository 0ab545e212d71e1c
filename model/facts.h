/* Facts by key, for a format that makes them of other files than GGUF's header: the same keys and
 * the same rules of look-up. Lives in one arena, with whatever its values point to. */
#ifndef VRAMD_MODEL_FACTS_H
#define VRAMD_MODEL_FACTS_H

#include "base/arena.h"
#include "model/checkpoint.h"

typedef enum fact_kind {
    FACT_ONE_U32,
    FACT_ONE_F32,
    FACT_ONE_BOOL,
    FACT_ONE_STR,
    FACT_MANY
} fact_kind;

typedef struct fact {
    const char *key;
    fact_kind kind;
    union {
        uint32_t u;
        float f;
        bool b;
        str s;
        fact_array a;
    };
    fact_type elem; /* of FACT_MANY */
} fact;

typedef struct facts {
    arena *mem;
    fact *v; /* [n] */
    uint32_t n, cap;
    bool failed; /* there was no memory for one */
} facts;

void facts_init(facts *, arena *);
/* key and what the value points to are borrowed and live as long as the facts. A key is set
 * once. */
void facts_u32(facts *, const char *key, uint32_t);
void facts_f32(facts *, const char *key, float);
void facts_bool(facts *, const char *key, bool);
void facts_str(facts *, const char *key, str);
void facts_many(facts *, const char *key, fact_type, uint64_t n, const void *v);

/* NULL: absent. */
const fact *facts_find(const facts *, const char *key);
/* As the members of checkpoint_format. */
bool facts_length(const facts *, const char *key, uint64_t *n);
status facts_get_u32(const facts *, const char *key, uint32_t *out, err *);
status facts_get_f32(const facts *, const char *key, float *out, err *);
status facts_get_bool(const facts *, const char *key, bool *out, err *);
status facts_get_str(const facts *, const char *key, str *out, err *);
status facts_get_array(const facts *, const char *key, fact_type, fact_array *out, err *);

#endif
