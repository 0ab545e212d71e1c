/* The subcommands. Each gets argv from its own name on and returns the exit code of the
 * process. */
#ifndef VRAMD_DAEMON_COMMANDS_H
#define VRAMD_DAEMON_COMMANDS_H

#include "base/buf.h"
#include "base/err.h"

/* X(name, one help line) */
#define COMMAND_LIST(X)                                                                        \
    X(serve, "serve a model over HTTP")                                                        \
    X(rank, "another rank of serve --tensor-parallel-size, which starts it")                   \
    X(generate, "answer one prompt on the terminal")                                           \
    X(eval, "perplexity of a text, and KL against a stored reference")                         \
    X(plan, "print what a model will take, by class, without loading it")                      \
    X(inspect, "print metadata and tensors of a model's files")                                \
    X(quantize, "write a model's weights in smaller types, as a GGUF file")                    \
    X(tokenize, "text on stdin to token ids")                                                  \
    X(key, "make an API key and its line for api_keys_file")                                   \
    X(bench, "put load on an OpenAI-compatible server and measure it")                         \
    X(simulate, "the scheduler under a virtual clock; replay of step logs")                    \
    X(top, "watch memory, KV cache and sequences of a running server")                         \
    X(version, "print the version and what was built in")

#define X(name, help) int cmd_##name(int argc, char **argv);
COMMAND_LIST(X)
#undef X

/* Prints "vramd NAME: text (field). hint" on stderr; returns the status's exit code. */
int command_failed(const char *name, const err *);

/* Appends all of stdin. Errors: ERR_IO, ERR_NO_MEMORY. */
status command_read_stdin(buf *, err *);

#endif
