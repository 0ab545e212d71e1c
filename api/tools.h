/* The tools of a request: read, checked, narrowed by tool_choice. */
#ifndef VRAMD_API_TOOLS_H
#define VRAMD_API_TOOLS_H

#include "json/in.h"

enum { TOOLS_MAX = 1024, TOOLS_MAX_NAME = 64 };

typedef enum tools_mode {
    TOOLS_OFF,     /* none are given, or tool_choice is none: calls are text */
    TOOLS_AUTO,    /* text, or calls, or both */
    TOOLS_REQUIRED /* at least one call */
} tools_mode;

typedef struct tool_params {
    tools_mode mode;
    const json_t *list; /* those that may be called, in the form of chat completions */
    bool parallel;      /* more than one call */
} tool_params;

/* tools, tool_choice, parallel_tool_calls. Points into the body; what is narrowed is in the arena.
 * Errors, field the parameter: ERR_INVALID, ERR_UNSUPPORTED, ERR_NO_MEMORY. */
status tools_read(tool_params *, const json_t *body, arena *, err *);

#endif
