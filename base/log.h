/* One line per event on stderr: "level message key=value ...". Under systemd (stderr is
 * the stream that JOURNAL_STREAM names) lines carry the <N> priority prefix instead of a
 * timestamp. Any thread; one write(2) a line, so that lines never mix. A line that cannot be
 * written, or not at once (a full disk, a pipe that is not read), is dropped and counted. */
#ifndef VRAMD_BASE_LOG_H
#define VRAMD_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

typedef enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG } log_level;

/* "error", "warn", "info" or "debug". False: none of them, and *out is left alone. */
bool log_level_by_name(str, log_level *out);
void log_init(log_level);
log_level log_current(void);
void log_line(log_level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
uint64_t log_dropped(void);

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
