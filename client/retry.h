/* retry.h - the values of --retry.
 *
 * Who may call: one thread. Units: none. Memory: plain values.
 * Errors: -EINVAL, err says what is wrong with the value. */
#ifndef BLIPLINE_CLIENT_RETRY_H
#define BLIPLINE_CLIENT_RETRY_H

#include "base/err.h"
#include "store/compare.h"

/* What stands for --retry without a value. */
#define RETRY_ALL "all"

/* Add the value of one --retry: RETRY_ALL, or codes with commas between them. */
int retry_add(struct msg_comparison *o, const char *value, struct err *err) CHECK_RESULT;

#endif
