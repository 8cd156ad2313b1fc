/* store_check.h - what can be said of -o before a broker opens the store, and what to do when that is another one's.
 *
 * Who may call: one thread. Units: none. Memory: the caller releases the advice.
 * Errors: negative errno and `err`. */
#ifndef BLIPLINE_CLIENT_STORE_CHECK_H
#define BLIPLINE_CLIENT_STORE_CHECK_H

#include "base/buf.h"
#include "base/err.h"
#include "recipe/plan.h"

#include <stdbool.h>

/* Can a store be made there, or written? *ret_there: there is one, or a part of one. */
int store_check(const char *store, bool *ret_there, struct err *err) CHECK_RESULT;
/* The store was begun with another recipe, or with another model: "Use the same (--beams=1), or another -o", with NUL,
 * to be said behind the error. */
int store_advice(const struct msg_recipe *stored, bool other_model, const struct plan *p, struct buf *ret) CHECK_RESULT;

#endif
