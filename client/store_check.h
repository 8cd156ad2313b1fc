/* store_check.h - what a run would refuse about its -o, found without touching it: for --dry-run.
 *
 * Who may call: one thread. Units: none. Memory: nothing is kept.
 * Errors: negative errno and `err`, in the words of the run itself. */
#ifndef BLIPLINE_CLIENT_STORE_CHECK_H
#define BLIPLINE_CLIENT_STORE_CHECK_H

#include "base/err.h"
#include "client/plan.h"

#include <stdbool.h>

/* *ret_there: there is a store, and the plan's job may go on in it. */
int store_check(const char *store, const struct plan *p, bool *ret_there, struct err *err) CHECK_RESULT;

#endif
