/* The options of serve (and of the subcommands that share them), from one table:
 * conf/options.c. Each is the same word in the file (key = value under a section), as a flag
 * (--kv-cache-dtype) and in the environment (VRAMD_KV_CACHE_DTYPE). Later wins: default, file,
 * environment, flag. */
#ifndef VRAMD_CONF_OPTIONS_H
#define VRAMD_CONF_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

/* X(section, type, name, default, min, max, unit, help, values, aliases)
 * type: STR, U32, U64, F64, BOOL, ENUM (values: "a|b|c", stored as the index), BYTES.
 * aliases: other flag spellings, space-separated, of vLLM and llama.cpp where they mean the
 * same. */
#include "conf/table.h"

typedef struct options {
#define X_STR(name)                 char name[256];
#define X_U32(name)                 uint32_t name;
#define X_U64(name)                 uint64_t name;
#define X_F64(name)                 double name;
#define X_BOOL(name)                bool name;
#define X_ENUM(name)                uint32_t name;
#define X_BYTES(name)               uint64_t name;
#define X(section, type, name, ...) X_##type(name)
    OPTION_LIST(X)
#undef X
} options;

/* Fills in every default. */
void options_defaults(options *);
/* Errors of all three: ERR_INVALID (field: the option; text: value, range, and line for a file;
 * hint: the nearest known name for an unknown one), ERR_NOT_FOUND, ERR_IO. */
status options_load_file(options *, const char *path, err *);
status options_load_env(options *, char **environ, err *);
/* Takes the flags out of argv (argv[0] is skipped); what is left stays, in order, and *argc is
 * what is left. "--" ends the flags. "--flag value", "--flag=value", "--no-flag" for booleans.
 * only: NULL, or the space-separated options that this subcommand knows; others are an error.
 */
status options_load_args(options *, int *argc, char **argv, const char *only, err *);
/* All of it in the right order; --config names the file (default /etc/vramd/vramd.conf if it
 * exists and nothing else is named). */
status options_load(options *, int *argc, char **argv, char **environ, const char *only, err *);

void options_print_help(FILE *, const char *only); /* for --help */
void options_print_sample(FILE *); /* a commented vramd.conf with every default */
void options_print_man(FILE *);    /* the OPTIONS section, as mdoc */
void options_print_current(FILE *, const options *); /* what is in force, for --check */

#endif
