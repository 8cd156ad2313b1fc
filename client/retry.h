/* retry.h - the values of --retry.
 *
 * Who may call: one thread. Units: none. Memory: plain values.
 * Errors: -EINVAL, err says what is wrong with the value. */
#ifndef BLIPLINE_CLIENT_RETRY_H
#define BLIPLINE_CLIENT_RETRY_H

#include "base/err.h"
#include "store/compare.h"

/* The value of --retry given without one. */
#define RETRY_ALL "all"

/* Add the value of one --retry: RETRY_ALL or comma-separated codes. */
int retry_add(struct msg_comparison *o, const char *value, struct err *err) CHECK_RESULT;

#endif
