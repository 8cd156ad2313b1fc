/* log.h - one line an event on stderr; in the journal with the sd-daemon "<N>" prefix that becomes a priority there.
 *
 * Only daemons and the client log; library folders return errors. The level is the only global state of the program.
 * A line reads `blipline-broker: event=lease_expired unit=7 worker=3`. Values are escaped (log_format.h), so they may
 * come from anywhere. Where standard error is the journal
 * ($JOURNAL_STREAM, systemd.exec(5)) `<4>` stands before it, and nowhere else.
 * Lines of one kind (one format) that come too often are left out, so that no peer can fill a disk: more than 100 in
 * 10 s; the next one that is written says how many were. Errors and, at level debug, everything is written.
 * Errors: none; a line that cannot be written is lost. Thread-safe (one write(2) a line). */
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
