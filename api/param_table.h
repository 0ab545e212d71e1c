/* Every request parameter of the completion endpoints that OpenAI, vLLM, SGLang or llama.cpp
 * define: honoured, ignored because the answer is the same without it, or refused. What is in no
 * row is unknown and passed over. docs/api.md is written from this table (make api-page). */
#ifndef VRAMD_API_PARAM_TABLE_H
#define VRAMD_API_PARAM_TABLE_H

#include "api/params.h"

typedef enum param_how { PARAM_HONOURED, PARAM_IGNORED, PARAM_REFUSED } param_how;
/* PARAM_OWN: read by code of its own in params.c, token_rules.c, completions.c or chat.c. */
typedef enum param_type { PARAM_OWN, PARAM_BOOL, PARAM_I32, PARAM_U32, PARAM_F32 } param_type;
typedef enum param_where { BOTH, COMPLETIONS, CHAT } param_where;

typedef struct param_row {
    const char *name;
    param_how how;
    param_where where;
    param_type type;
    size_t at;           /* in params, unless PARAM_OWN */
    double lo, hi;       /* of numbers */
    const char *values;  /* PARAM_OWN: form and range. PARAM_REFUSED: JSON values, separated by
                            '|', that change nothing and are passed over; null is one always */
    const char *initial; /* its value when absent; "" where there is none */
    const char *note;    /* for docs/api.md; of a refused one also the hint of the error */
} param_row;

extern const param_row param_table[];
extern const size_t param_table_rows;

static inline bool param_is_for(const param_row *r, bool chat) {
    return r->where == BOTH || (r->where == CHAT) == chat;
}

/* Reads all rows but those of PARAM_OWN into the params. Errors: ERR_INVALID; ERR_UNSUPPORTED
 * (field: the parameter) where a refused one has a value that would change the answer. */
status param_table_read(params *, const json_t *body, bool chat, err *);

#endif
