/* The options of serve (and of the subcommands that share them), from one table:
 * conf/table.h. Each is the same word in the file (key = value under a section), as a flag
 * (--kv-cache-dtype) and in the environment (VRAMD_KV_CACHE_DTYPE). Later wins: default, file,
 * environment, flag. */
#ifndef VRAMD_CONF_OPTIONS_H
#define VRAMD_CONF_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/log.h"
#include "base/str.h"
#include "conf/table.h"

/* The words of backend, in the order of its row. Other modules find their own by name. */
enum { BACKEND_AUTO, BACKEND_CPU, BACKEND_CUDA };
/* Of distributed_executor_backend. */
enum { EXECUTOR_AUTO, EXECUTOR_MP, EXECUTOR_MPI };
/* Of offload. */
enum { OFFLOAD_AUTO, OFFLOAD_COPY, OFFLOAD_COMPUTE };

#define OPTIONS_DEFAULT_FILE "/etc/vramd/vramd.conf"

typedef struct options {
#define X_STR(name)                 char name[256];
#define X_U32(name)                 uint32_t name;
#define X_POW2(name)                uint32_t name;
#define X_U64(name)                 uint64_t name;
#define X_BOOL(name)                bool name;
#define X_ENUM(name)                uint32_t name;
#define X_BYTES(name)               uint64_t name;
#define X(section, type, name, ...) X_##type(name)
    OPTION_LIST(X)
#undef X
#undef X_STR
#undef X_U32
#undef X_POW2
#undef X_U64
#undef X_BOOL
#undef X_ENUM
#undef X_BYTES
} options;

/* Fills in every default. The loaders below write over what is there. */
void options_defaults(options *);
/* Errors of all three: ERR_INVALID (field: the option; text: where, value and range; hint: the
 * nearest known name for an unknown one), and of the file ERR_NOT_FOUND and ERR_IO. */
status options_load_file(options *, const char *path, err *);
/* Only names that begin with VRAMD_ are looked at; one that is no option is an error, but for
 * VRAMD_CONFIG, VRAMD_CACHE and what begins with VRAMD_TEST_, VRAMD_BENCH_ or VRAMD_PEER_. */
status options_load_env(options *, char **environ, err *);
/* Takes the flags out of argv (argv[0] is skipped); what is left stays, in order, and *argc is
 * what is left. "--" ends the flags. "--flag value", "--flag=value", "--no-flag" for booleans.
 * A second --model is an error; of other options the last value counts.
 * only: NULL, or the space-separated options that this subcommand knows; others are an error.
 * Flags of a subcommand's own must have been taken out before. */
status options_load_args(options *, int *argc, char **argv, const char *only, err *);
/* All of it in the right order. --config or VRAMD_CONFIG names the file; else it is
 * OPTIONS_DEFAULT_FILE if that exists. */
status options_load(options *, int *argc, char **argv, char **environ, const char *only, err *);
/* The same, with the sections [model NAME] of the file, which the others check and leave out.
 * Errors, too: ERR_INVALID where there are sections and the option model. */
struct model_sections;
status options_load_file_models(options *, struct model_sections *, const char *path, err *);
status options_load_models(options *, struct model_sections *, int *argc, char **argv,
                           char **environ, err *);
/* Copies the values of the live options (their rows say LIVE), and leaves the others. */
void options_take_live(options *in_force, const options *read_again);
/* Calls each for every option whose value differs, with both values as text; live: as above.
 * Returns how many differ. */
int options_compare(const options *was, const options *now,
                    void (*each)(void *arg, const char *name, bool live, const char *was,
                                 const char *now),
                    void *arg);

/* The word of an ENUM option's value; "?" for what has none. */
str options_word(const char *name, uint32_t value);
log_level options_log_level(const options *);
/* A default of a subcommand's own, in the words of the file. CHECKs that the table has them. */
void options_set_default(options *, const char *name, const char *text);

void options_print_help(FILE *, const char *only); /* for --help */
void options_print_sample(FILE *);   /* a vramd.conf with every default, commented out */
void options_print_man(FILE *);      /* the manual page vramd(8), as mdoc */
void options_print_man_conf(FILE *); /* vramd.conf(5) */
/* What is in force, for --check: a file that gives the same options again. */
void options_print_current(FILE *, const options *);
/* The same for the options that differ from those in usual. */
void options_print_changed(FILE *, const options *, const options *usual);

#endif
