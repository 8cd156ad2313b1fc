#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Names are in parentheses because err.h defines macros of the same names for the analyser. */
int(err_set)(struct err *err, int code, const char *fmt, ...)
{
    va_list ap;

    if (!err)
        return code;
    va_start(ap, fmt);
    (void)vsnprintf(err->text, sizeof(err->text), fmt, ap); /* a truncated message will do */
    va_end(ap);
    return code;
}

int(err_prefix)(struct err *err, int code, const char *fmt, ...)
{
    char tail[sizeof(err->text)];
    va_list ap;
    size_t n;

    if (!err)
        return code;
    memcpy(tail, err->text, sizeof(tail));
    va_start(ap, fmt);
    (void)vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    n = strlen(err->text);
    (void)snprintf(err->text + n, sizeof(err->text) - n, ": %s", tail);
    return code;
}
