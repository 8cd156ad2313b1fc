/* retry.h - the values of --retry and --reason: reasons of failures.
 *
 * Who may call: one thread. Units: none. Memory: plain values.
 * Errors: -EINVAL, err says what is wrong with the value. */
#ifndef BLIPLINE_CLIENT_RETRY_H
#define BLIPLINE_CLIENT_RETRY_H

#include "base/err.h"
#include "store/compare.h"

/* The value of --retry given without one. */
#define RETRY_ALL "all"

/* Add the comma-separated codes of one `option`. */
int retry_codes_add(const char *option, const char *value, uint32_t *n, char codes[][MSG_CODE_SIZE],
                    struct err *err) CHECK_RESULT;
/* Add the value of one --retry: RETRY_ALL or codes. */
int retry_add(struct msg_comparison *o, const char *value, struct err *err) CHECK_RESULT;

#endif
