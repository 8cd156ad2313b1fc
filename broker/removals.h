/* removals.h - the stores of removed jobs are deleted by a thread of their own, one after the other. That may take
 * seconds, and commits of other jobs must not wait for it.
 *
 * Who may call: the committer's thread. Memory: a zeroed struct removals has none; removals_take must have returned all
 * of them before it goes. Errors: of the deletion, in the passage's done.rc and err. */
#ifndef BLIPLINE_BROKER_REMOVALS_H
#define BLIPLINE_BROKER_REMOVALS_H

#include "base/err.h"

#include <stdbool.h>

struct passage;
struct removal;

struct removals {
    struct removal *first; /* the one that is being deleted */
};

/* Delete the store. -ENOMEM: not begun. */
int removals_add(struct removals *r, struct passage *p, const char *path) CHECK_RESULT;
/* The passage of one that is over; NULL: none is, or, if it waits for one, there are none. */
struct passage *removals_take(struct removals *r, bool wait);

#endif
