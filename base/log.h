/* log.h - log lines on standard error, one per event.
 *
 * Only daemons and the client log; library folders return errors. The level is the only global state of the program.
 * A line reads `blipline-broker: event=lease_expired unit=7 worker=3`. Values are escaped (log_format.h).
 * If standard error is the systemd journal ($JOURNAL_STREAM, systemd.exec(5)), the line starts with its sd-daemon
 * priority, such as `<4>`. At most 100 lines of one format are written in 10 s, so that no peer can fill a disk; the
 * next line written says how many were left out. Errors are never left out; at level debug nothing is.
 * Errors: none; a line that cannot be written is lost. Thread-safe (one write(2) per line). */
#ifndef BLIPLINE_BASE_LOG_H
#define BLIPLINE_BASE_LOG_H

#include "base/err.h"

enum log_level { LOG_LEVEL_ERR = 3, LOG_LEVEL_WARN = 4, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

/* `name` must live as long as the process. */
void log_init(const char *name, enum log_level level);
/* "err", "warn", "info", "debug" -> level; -EINVAL for anything else. */
int log_level_parse(const char *text, enum log_level *ret_level) CHECK_RESULT;

void log_err(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_info(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_debug(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* Start-up only, from main.c: log and exit with `code`. */
void fatal(int code, const char *fmt, ...) PRINTF_LIKE(2, 3) __attribute__((noreturn));

/* Distinct exit codes at start-up (sysexits.h where it has one). */
enum { EXIT_USAGE = 2, EXIT_INIT = 70, EXIT_CONFIG = 78 };

#endif
