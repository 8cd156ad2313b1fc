/* log_format.h - printf for log lines: values come out as logfmt.
 *
 * What a conversion writes between the quotes of `fmt` is escaped: \" and \\, \n, \r and \t, other control bytes as
 * \x1b. The %s of an unquoted key=%s is put in quotes where its text needs them. Elsewhere a control byte becomes '?'.
 *
 * Who may call: anybody; log.c does. Memory: nothing is kept. */
#ifndef BLIPLINE_BASE_LOG_FORMAT_H
#define BLIPLINE_BASE_LOG_FORMAT_H

#include <stdarg.h>
#include <stddef.h>

/* Writes at most `size` bytes (at least 2), without a NUL, and returns how many. A line that is too long is cut so that
 * it stays logfmt. `fmt` may have the conversions d, u, x, f, g, c, s, p, % with flags, width, precision and length. */
size_t log_format(char *ret, size_t size, const char *fmt, va_list ap);

#endif
