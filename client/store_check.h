/* store_check.h - checks -o before a broker opens the store, and advises if the store does not fit.
 *
 * Who may call: one thread. Units: none. Memory: the caller releases the advice.
 * Errors: negative errno and `err`. */
#ifndef BLIPLINE_CLIENT_STORE_CHECK_H
#define BLIPLINE_CLIENT_STORE_CHECK_H

#include "base/buf.h"
#include "base/err.h"
#include "recipe/plan.h"

#include <stdbool.h>

/* Check that a store can be made or written there. *ret_there: there is one, or part of one. */
int store_check(const char *store, bool *ret_there, struct err *err) CHECK_RESULT;
/* For a store with another recipe or model: "Use the same (--beams=1), or another -o", with NUL, to print after the
 * error. */
int store_advice(const struct msg_recipe *stored, bool other_model, const struct plan *p, struct buf *ret) CHECK_RESULT;

#endif
