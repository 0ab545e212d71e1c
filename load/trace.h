/* Traces of real services: when requests came, how long prompts and outputs were, and which
 * parts of prompts were the same.
 *
 * Azure (AzureLLMInferenceTrace_*.csv): "TIMESTAMP,ContextTokens,GeneratedTokens", then rows
 * like "2023-11-16 18:17:03.9799600,4808,10"; times are taken from the first row on.
 * Mooncake (mooncake_*_trace.jsonl): a JSON object a line: "timestamp" in ms from the start,
 * "input_length", "output_length", and "hash_ids", one for each 512 tokens of the prompt: equal
 * ids are equal tokens.
 * Lengths alone: "prompt,output", then rows like "4808,10"; all come at time 0. */
#ifndef VRAMD_LOAD_TRACE_H
#define VRAMD_LOAD_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { TRACE_BLOCK_TOKENS = 512, TRACE_MAX_ROWS = 1000000 };

typedef struct trace_row {
    uint64_t at_us; /* from the first row; never less than the row before */
    uint32_t prompt_tokens, output_tokens; /* at least 1 each */
    uint32_t n_hashes;
    size_t hashes; /* index of the first in load_trace.hashes */
} trace_row;

typedef struct load_trace {
    trace_row *rows;
    size_t n, cap;
    uint64_t *hashes; /* of all rows, one after the other */
    size_t n_hashes, cap_hashes;
} load_trace;

/* Adds the first limit rows of the text (all with 0) to an empty trace; its first byte
 * decides the format. ERR_FORMAT names the line. The caller clears what was filled in. */
status load_trace_parse(load_trace *, str text, size_t limit, err *);
status load_trace_read(load_trace *, const char *path, size_t limit, err *);
void load_trace_clear(load_trace *);

#endif
