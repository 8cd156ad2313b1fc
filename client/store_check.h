/* store_check.h - checks of the store at -o before any work, without changing it.
 *
 * Who may call: one thread. Units: none. Memory: the caller releases the advice.
 * Errors: negative errno and `err`, in the words of the run itself. */
#ifndef BLIPLINE_CLIENT_STORE_CHECK_H
#define BLIPLINE_CLIENT_STORE_CHECK_H

#include "base/buf.h"
#include "base/err.h"
#include "recipe/plan.h"

#include <stdbool.h>

/* all_pages: look at every page, however large the store is. *ret_there: there is a store, and the plan's job may go on
 * in it. *ret_advice, which buf_init has made empty, is a text with NUL, or stays empty: what to do about the error, to
 * be said behind it. */
int store_check(const char *store, bool all_pages, const struct plan *p, bool *ret_there, struct buf *ret_advice,
                struct err *err) CHECK_RESULT;

#endif
