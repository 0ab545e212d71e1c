/* The terminal that `vramd top` draws on: its other screen, no cursor, keys without Enter. What
 * was changed is undone by top_terminal_close, and by each signal that ends or stops the process. One
 * for the process. */
#ifndef VRAMD_DAEMON_TOP_TERMINAL_H
#define VRAMD_DAEMON_TOP_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>

/* stdout is a terminal (else nothing is done, and false is returned). */
bool top_terminal_open(void);
void top_terminal_close(void);
/* Columns and lines now; 80 and 24 where the terminal does not say. */
void top_terminal_size(uint32_t *columns, uint32_t *lines);
/* Sleeps until then (clock_us), a resize, a continuation after a stop, or a key: its byte, and 0
 * for the others. */
int top_terminal_wait(uint64_t until_us);

#endif
