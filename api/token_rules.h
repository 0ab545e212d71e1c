/* Which tokens a request may draw: allowed_token_ids, bad_words, logit_bias. */
#ifndef VRAMD_API_TOKEN_RULES_H
#define VRAMD_API_TOKEN_RULES_H

#include "api/params.h"

/* Fills in the params' allowed, banned and bias; they are in the arena.
 *   allowed_token_ids  no other token is drawn (vLLM); 1..PARAMS_MAX_ALLOWED ids
 *   bad_words          strings, each as its tokens with and without a leading space: of a
 *                      sequence the last token is forbidden where the output, without the
 *                      prompt, ends with the others (vLLM)
 *   logit_bias         {id or text of one token: number}; -100: never; 100: no token without
 *                      100; else added to the logit (OpenAI); or [[id or text, number or
 *                      false]], where the number is that of each token of the text and false
 *                      is -100 (llama.cpp)
 * Errors: ERR_INVALID (field: the parameter), also when no token is left; ERR_NO_MEMORY. */
status token_rules_read(params *, const json_t *body, const tokenizer *, arena *, err *);

#endif
