/* Flags that only one subcommand knows, taken out of argv before conf/ reads the rest. */
#ifndef VRAMD_DAEMON_ARGS_H
#define VRAMD_DAEMON_ARGS_H

#include <stdbool.h>

/* True when word stood in argv before "--"; it is gone then. */
bool args_take_word(int *argc, char **argv, const char *word);
/* The word after flag, or of "flag=word"; both are gone then. NULL: the flag is not there. A
 * flag at the very end has the value "". */
const char *args_take_value(int *argc, char **argv, const char *flag);

#endif
